//! How often a schedule fires in a window: executors insert the runs of a backfill one by one, and a
//! schedule of every second over a year would keep one busy for days.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

/// The most firings that one backfill may make up for.
pub const MOST: usize = 10_000;

/// A schedule that cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncounted {
    /// The expression is in no dialect that is known here.
    #[error("its cron expression {0:?} cannot be read here")]
    Expression(String),
    /// There is no such time zone.
    #[error("its time zone {0:?} is not known here")]
    Zone(String),
}

/// How many times a schedule fires strictly between two moments (epoch milliseconds); it is not
/// counted beyond `most` + 1.
///
/// The dialect is the SDKs': five fields, or six with seconds first; a day matches if either of its two
/// fields does.
pub fn count(
    expression: &str,
    zone: Option<&str>,
    (from, to): (i64, i64),
    most: usize,
) -> Result<usize, Uncounted> {
    let unread = || Uncounted::Expression(expression.to_owned());
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(expression).map_err(|_| unread())?;
    let zone: Tz = match zone.filter(|zone| !zone.is_empty()) {
        None => Tz::UTC,
        Some(name) => name.parse().map_err(|_| Uncounted::Zone(name.to_owned()))?,
    };
    let local = |ms: i64| {
        let time: DateTime<Utc> = DateTime::from_timestamp_millis(ms).unwrap_or_default();
        time.with_timezone(&zone)
    };
    let (mut at, end) = (local(from), local(to));
    let mut found = 0;
    while found <= most {
        // It gives up where there is no more in sight of a calendar.
        match cron.find_next_occurrence(&at, false) {
            Ok(next) if next < end && next > at => at = next,
            _ => break,
        }
        found += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;
    /// 2026-03-28T00:00:00Z, the day before summer time begins in Europe.
    const SPRING: i64 = 1_774_656_000_000;

    fn in_days(expression: &str, zone: Option<&str>, days: i64) -> usize {
        count(expression, zone, (SPRING, SPRING + days * DAY), MOST).unwrap()
    }

    #[test]
    fn firings_are_counted_strictly_inside_the_window() {
        assert_eq!(in_days("0 * * * *", None, 1), 23);
        assert_eq!(in_days("0 0 12 * * *", None, 3), 3);
        assert_eq!(in_days("*/15 * * * *", Some("Asia/Tokyo"), 1), 95);
        assert_eq!(in_days("@daily", None, 2), 1);
        // The hour from 2 to 3 is not there on the 29th.
        assert_eq!(in_days("30 * * * *", Some("Europe/Berlin"), 2), 48);
        assert_eq!(in_days("0 0 30 2 *", None, 3650), 0);
        assert_eq!(count("* * * * *", None, (SPRING, SPRING), MOST), Ok(0));
    }

    #[test]
    fn counting_ends_at_the_limit() {
        assert_eq!(in_days("* * * * * *", None, 3650), MOST + 1);
        assert_eq!(
            count("* * * * * *", None, (SPRING, SPRING + 11_000), 9),
            Ok(10)
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let window = (SPRING, SPRING + DAY);
        assert!(count("whenever", None, window, MOST).is_err());
        assert!(count("* * * * *", Some("Mars/Olympus"), window, MOST).is_err());
    }
}
