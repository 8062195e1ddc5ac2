//! Does a connected executor answer requests, not only pings? Whoever does not is routed around and
//! shown so, and never recovered: it may be working.

use std::time::{Duration, Instant};

/// The command path of one executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// When it last answered anything.
    pub last_answer: Instant,
    /// Since when it lets requests time out.
    pub unresponsive_since: Option<Instant>,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An answer, of whatever kind.
    Answered,
    /// None in time, or nothing could even be sent for what was not answered before.
    Unanswered,
    /// The connection ended; nothing follows from that.
    Ended,
}

impl Health {
    /// Of an executor that was just heard of.
    pub fn new(now: Instant) -> Self {
        Self {
            last_answer: now,
            unresponsive_since: None,
        }
    }

    /// How long nothing is to be done. `every`: silence of the command path after which it is probed. One
    /// that does not answer is asked again and again, so that it is used again as soon as it can be.
    pub fn pause(&self, every: Duration, now: Instant) -> Duration {
        match self.unresponsive_since {
            Some(_) => every / 4,
            None => every.saturating_sub(now.saturating_duration_since(self.last_answer)),
        }
    }

    /// Whether a probe is due after a pause: not if it has answered something meanwhile.
    pub fn is_due(&self, every: Duration, now: Instant) -> bool {
        self.unresponsive_since.is_some()
            || now.saturating_duration_since(self.last_answer) >= every
    }

    /// What to believe after a probe sent at `asked`; whether that is a change.
    pub fn judged(mut self, asked: Instant, probe: Probe) -> (Self, bool) {
        // An answer to anything else that came meanwhile counts as well.
        let silent = probe == Probe::Unanswered && self.last_answer < asked;
        let changed = silent != self.unresponsive_since.is_some();
        if changed {
            self.unresponsive_since = silent.then_some(asked);
        }
        (self, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    #[test]
    fn silence_is_probed_and_only_an_unanswered_probe_counts() {
        let start = Instant::now();
        let health = Health::new(start);
        let later = start + EVERY;
        assert_eq!(health.pause(EVERY, start), EVERY);
        assert!(
            !health.is_due(EVERY, later - Duration::from_millis(1)) && health.is_due(EVERY, later)
        );
        assert_eq!(health.judged(later, Probe::Answered), (health, false));
        assert_eq!(health.judged(later, Probe::Ended), (health, false));
        let (deaf, changed) = health.judged(later, Probe::Unanswered);
        assert!(changed && deaf.unresponsive_since == Some(later));
        // Asked more often, until it answers.
        assert_eq!(deaf.pause(EVERY, later), EVERY / 4);
        assert_eq!(deaf.judged(later + EVERY, Probe::Unanswered), (deaf, false));
        assert_eq!(deaf.judged(later + EVERY, Probe::Answered), (health, true));
    }

    /// A busy executor that answers late is not deaf.
    #[test]
    fn an_answer_meanwhile_counts() {
        let start = Instant::now();
        let asked = start + EVERY;
        let busy = Health {
            last_answer: asked + Duration::from_secs(1),
            ..Health::new(start)
        };
        assert_eq!(busy.judged(asked, Probe::Unanswered), (busy, false));
    }
}
