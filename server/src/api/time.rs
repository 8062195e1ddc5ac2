//! Times of the API: RFC 3339 in, UTC with milliseconds and `Z` out.

use chrono::{DateTime, SecondsFormat, Utc};
use segno_protocol::WireTime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// From epoch milliseconds; the epoch itself if the number is no representable moment.
    pub fn from_ms(ms: i64) -> Self {
        Self(DateTime::from_timestamp_millis(ms).unwrap_or_default())
    }

    /// Epoch milliseconds, a finer part dropped.
    pub fn ms(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// Reads RFC 3339 with any offset. A space in the place of the offset's `+` is read as one:
    /// clients that do not percent-encode send it.
    pub fn parse(text: &str) -> Option<Self> {
        let parse = |text: &str| DateTime::parse_from_rfc3339(text).ok();
        parse(text)
            .or_else(|| {
                let (head, offset) = text.rsplit_once(' ')?;
                parse(&format!("{head}+{offset}"))
            })
            .map(|time| Self(time.with_timezone(&Utc)))
    }

    /// For executors, as an inclusive lower bound: rounded up to a whole millisecond.
    pub fn lower_bound(self) -> WireTime {
        let finer = !self.0.timestamp_subsec_nanos().is_multiple_of(1_000_000);
        WireTime(self.ms() + i64::from(finer))
    }

    /// For executors, as an inclusive upper bound: rounded down to a whole millisecond.
    pub fn upper_bound(self) -> WireTime {
        WireTime(self.ms())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("expected string to be RFC 3339 date-time"))
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_offset_is_read_and_utc_is_written() {
        let time = Timestamp::parse("2026-01-02T05:04:05.123456789+02:00").unwrap();
        assert_eq!(
            serde_json::to_value(time).unwrap(),
            "2026-01-02T03:04:05.123Z"
        );
        assert_eq!(
            Timestamp::parse("2026-01-02T05:04:05 02:00"),
            Timestamp::parse("2026-01-02T03:04:05Z")
        );
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(
            Timestamp::parse("2026-01-02T03:04:05"),
            None,
            "a zone is needed"
        );
    }

    #[test]
    fn bounds_include_what_the_caller_meant() {
        let fine = Timestamp::parse("2026-01-02T03:04:05.123456Z").unwrap();
        assert_eq!(
            fine.lower_bound().to_string(),
            "2026-01-02T03:04:05.124+00:00"
        );
        assert_eq!(
            fine.upper_bound().to_string(),
            "2026-01-02T03:04:05.123+00:00"
        );
        let whole = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(
            whole.lower_bound().to_string(),
            "2026-01-02T03:04:05.000+00:00"
        );
    }
}
