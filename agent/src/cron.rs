//! When a schedule ticks.

use std::str::FromStr as _;

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Ticks {
    cron: Cron,
    zone: Tz,
}

impl Ticks {
    /// Five fields, or six with the seconds first; the zone by its IANA name, UTC without. The error says
    /// what is wrong.
    pub(crate) fn parse(expression: &str, zone: Option<&str>) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(expression).map_err(|error| {
            format!(
                "{expression:?} is not a cron expression of five fields, or six with the seconds first: {error}"
            )
        })?;
        let zone = match zone {
            None => Tz::UTC,
            Some(name) => Tz::from_str(name).map_err(|_| {
                format!("{name:?} is not an IANA time zone such as \"Europe/Paris\"")
            })?,
        };
        Ok(Self { cron, zone })
    }

    /// The first tick after an instant; `None` if there is none any more.
    pub(crate) fn after(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = instant.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// All ticks after `start` and before `end`, at most so many.
    pub(crate) fn between(
        &self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        most: usize,
    ) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.after(start), |tick| self.after(*tick))
            .take_while(|tick| *tick < end)
            .take(most)
            .collect()
    }
}

/// How a tick's time is written, in ids of runs and in the row of its schedule.
pub(crate) fn text(tick: DateTime<Utc>) -> String {
    tick.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let ticks = Ticks::parse(expression, Some(zone)).unwrap_or_else(|error| panic!("{error}"));
        let from: DateTime<Utc> = from.parse().unwrap_or_default();
        ticks
            .between(from, DateTime::<Utc>::MAX_UTC, count)
            .into_iter()
            .map(text)
            .collect()
    }

    #[test]
    fn fields_are_five_or_six() {
        assert_eq!(
            ticks("30 2 * * *", "UTC", "2026-01-01T02:30:00Z", 2),
            ["2026-01-02T02:30:00Z", "2026-01-03T02:30:00Z"]
        );
        assert_eq!(
            ticks("*/20 0 0 * * *", "UTC", "2026-01-01T00:00:20Z", 2),
            ["2026-01-01T00:00:40Z", "2026-01-02T00:00:00Z"]
        );
        assert!(Ticks::parse("* * *", None).is_err());
        assert!(Ticks::parse("* * * * *", Some("Atlantis")).is_err());
    }

    #[test]
    fn a_local_time_that_is_skipped_comes_after_the_gap_and_one_that_repeats_comes_once() {
        // Clocks in Paris go from 2:00 to 3:00 on 29 March 2026 and back on 25 October.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Paris", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }
}
