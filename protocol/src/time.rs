//! Times in request filters.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A moment in milliseconds since the Unix epoch, written in the one ISO 8601 form that every SDK
/// reads: UTC, exactly three fraction digits, numeric offset (`2026-01-02T03:04:05.678+00:00`).
///
/// Reads any offset, `Z`, any number of fraction digits (cut to milliseconds), a space for the `T`,
/// and a time without offset as UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireTime(pub i64);

impl fmt::Display for WireTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(time) => formatter.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, false)),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl FromStr for WireTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self(time.timestamp_millis()));
        }
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
            .map(|time| Self(time.and_utc().timestamp_millis()))
            .ok_or_else(|| format!("expected an ISO 8601 date and time, found {text:?}"))
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_three_digits_and_a_numeric_offset() {
        assert_eq!(
            WireTime(1_767_323_045_678).to_string(),
            "2026-01-02T03:04:05.678+00:00"
        );
        assert_eq!(
            WireTime(1_767_323_045_000).to_string(),
            "2026-01-02T03:04:05.000+00:00"
        );
    }

    #[test]
    fn reads_every_form_that_clients_use() {
        for text in [
            "2026-01-02T03:04:05.678+00:00",
            "2026-01-02T03:04:05.678Z",
            "2026-01-02T03:04:05.678999999Z",
            "2026-01-02T04:04:05.678+01:00",
            "2026-01-02 03:04:05.678",
        ] {
            assert_eq!(text.parse(), Ok(WireTime(1_767_323_045_678)), "{text}");
        }
        assert!("yesterday".parse::<WireTime>().is_err());
    }
}
