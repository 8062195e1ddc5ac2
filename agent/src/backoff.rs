//! Waits between attempts at something that may work again any moment.

use std::time::Duration;

/// Waits that grow by a factor, with jitter so that many who wait do not come back together.
pub(crate) struct Backoff {
    next: Duration,
    factor: f64,
    most: Duration,
}

impl Backoff {
    /// For a database that is away. The first waits are short, because a pool may hand out one dead
    /// connection after the other before it makes a live one.
    pub(crate) fn for_absence() -> Self {
        Self {
            next: Duration::from_millis(2),
            factor: 1.4,
            most: Duration::from_secs(5),
        }
    }

    /// For other transactions that are in the way.
    pub(crate) fn for_contention() -> Self {
        Self {
            next: Duration::from_millis(1),
            factor: 1.5,
            most: Duration::from_secs(2),
        }
    }

    /// The next wait, without jitter.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next.mul_f64(rand::random_range(0.5..=1.5))).await;
        self.next = self.next.mul_f64(self.factor).min(self.most);
    }
}
