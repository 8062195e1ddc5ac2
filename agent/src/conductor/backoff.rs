//! When to redial.

use std::time::Duration;

use super::Timing;

/// How an attempt to be connected ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// No connection came about.
    Unreachable,
    /// The server answered the handshake with this HTTP status.
    Rejected {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// There was a connection.
    Lost { lasted: Duration, identified: bool },
}

/// The waits between attempts: doubling, jittered, forgotten once the server knew us.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    stable_after: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            first: timing.retry_first,
            max: timing.retry_max,
            stable_after: timing.stable_after,
            failures: 0,
        }
    }

    /// The wait after `end`. `jitter` is a random factor between 0.5 and 1.5.
    pub(super) fn after(&mut self, end: &End, jitter: f64) -> Duration {
        match end {
            End::Lost {
                lasted,
                identified: true,
            } => {
                self.failures = 0;
                if *lasted > self.stable_after {
                    return Duration::ZERO;
                }
            }
            // A key or an application that is not known now may be later, but there is no hurry.
            End::Rejected {
                status: 401 | 403 | 404,
                ..
            } => self.failures = u32::MAX,
            _ => {}
        }
        let factor = 2u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = self
            .first
            .saturating_mul(factor)
            .min(self.max)
            .mul_f64(jitter);
        match end {
            // Jitter only on top: the server asked for at least that.
            End::Rejected {
                retry_after: Some(asked),
                ..
            } => wait.max(*asked),
            _ => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff, end: &End) -> u64 {
        backoff.after(end, 1.0).as_secs()
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(&Timing::default());
        let waits: Vec<u64> = (0..7)
            .map(|_| seconds(&mut backoff, &End::Unreachable))
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn only_a_connection_on_which_the_server_got_to_know_us_resets_them() {
        let lost = |lasted, identified| End::Lost {
            lasted: Duration::from_secs(lasted),
            identified,
        };
        let mut backoff = Backoff::new(&Timing::default());
        for _ in 0..3 {
            backoff.after(&End::Unreachable, 1.0);
        }
        assert_eq!(seconds(&mut backoff, &lost(90, false)), 8);
        assert_eq!(seconds(&mut backoff, &lost(5, true)), 1);
        assert_eq!(seconds(&mut backoff, &End::Unreachable), 2);
        assert_eq!(seconds(&mut backoff, &lost(90, true)), 0);
        assert_eq!(seconds(&mut backoff, &End::Unreachable), 1);
    }

    #[test]
    fn rejections_wait_the_maximum_or_what_the_server_asks_for() {
        let rejected = |status, after: Option<u64>| End::Rejected {
            status,
            retry_after: after.map(Duration::from_secs),
        };
        let mut backoff = Backoff::new(&Timing::default());
        assert_eq!(seconds(&mut backoff, &rejected(401, None)), 30);
        assert_eq!(seconds(&mut backoff, &rejected(404, None)), 30);
        let mut backoff = Backoff::new(&Timing::default());
        assert_eq!(seconds(&mut backoff, &rejected(503, Some(7))), 7);
        assert_eq!(seconds(&mut backoff, &rejected(503, Some(0))), 2);
    }

    #[test]
    fn jitter_spreads_the_waits() {
        let mut backoff = Backoff::new(&Timing::default());
        assert_eq!(
            backoff.after(&End::Unreachable, 0.5),
            Duration::from_millis(500)
        );
        assert_eq!(
            backoff.after(&End::Unreachable, 1.5),
            Duration::from_secs(3)
        );
    }
}
