//! Rounds of the loops that look for work, so that a test can wait for one that began after something
//! happened.

use tokio::sync::watch;

/// The loops whose rounds are counted.
#[derive(Default)]
pub(super) struct Rounds {
    pub(super) claims: Counter,
    pub(super) sweeps: Counter,
    pub(super) schedules: Counter,
    pub(super) arrivals: Counter,
    pub(super) completions: Counter,
}

/// How many rounds of a loop have begun and ended.
pub(super) struct Counter(watch::Sender<(u64, u64)>);

impl Default for Counter {
    fn default() -> Self {
        Self(watch::Sender::new((0, 0)))
    }
}

impl Counter {
    /// A round begins; it ends when the guard is dropped.
    pub(super) fn begin(&self) -> Round<'_> {
        self.0.send_modify(|(begun, _)| *begun += 1);
        Round(self)
    }

    /// Completes when a round has ended that began after this call, once something has set it off.
    pub(super) fn next(&self) -> impl Future<Output = ()> + use<> {
        let mut rounds = self.0.subscribe();
        let (begun, _) = *rounds.borrow_and_update();
        async move {
            let _ = rounds.wait_for(|(_, ended)| *ended > begun).await;
        }
    }
}

/// A round under way.
pub(super) struct Round<'a>(&'a Counter);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|(begun, ended)| *ended = *begun);
    }
}
