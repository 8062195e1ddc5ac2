//! Time, injected: the machine's clock in production, one that a test moves in [`testing`](crate::testing).
//!
//! Deadlines, wake-up times and step times are the process's; everything else is stamped by the database,
//! whose clock a test supplies as well (`system_database::test_clock`). Waits of the engine for the network
//! or the database (polls, backoffs) are not of this time: they run on the machine's clock in any case.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

/// Timers of the machine may stand still while it is suspended: a long wait looks at the clock this often.
const LOOK: Duration = Duration::from_secs(60);

/// A duration in milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where time comes from. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Clock(Option<Arc<Manual>>);

/// A clock that stands still until it is moved.
struct Manual {
    now: watch::Sender<i64>,
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    /// What waits, by instant; the number tells timers of one instant apart.
    waiting: BTreeSet<(i64, u64)>,
    serial: u64,
}

impl Clock {
    /// The machine's.
    pub(crate) const SYSTEM: Self = Self(None);

    /// One that shows this instant (epoch milliseconds) until it is moved.
    pub(crate) fn manual(now_ms: i64) -> Self {
        Self(Some(Arc::new(Manual {
            now: watch::Sender::new(now_ms),
            timers: Mutex::default(),
        })))
    }

    /// Whether it is moved by hand.
    pub(crate) fn is_manual(&self) -> bool {
        self.0.is_some()
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        match &self.0 {
            Some(manual) => *manual.now.borrow(),
            None => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
                millis(since_epoch.unwrap_or_default())
            }
        }
    }

    /// Now, as a date.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Some(_) => DateTime::from_timestamp_millis(self.now_ms()).unwrap_or_default(),
            None => Utc::now(),
        }
    }

    /// How long it is until `at_ms`; zero when that has passed.
    pub(crate) fn until(&self, at_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(at_ms.saturating_sub(self.now_ms())).unwrap_or(0))
    }

    /// Completes when so much time has passed.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Some(_) => {
                self.sleep_until(self.now_ms().saturating_add(millis(duration)))
                    .await
            }
            None => tokio::time::sleep(duration).await,
        }
    }

    /// Completes at an instant in epoch milliseconds.
    pub(crate) async fn sleep_until(&self, at_ms: i64) {
        let Some(manual) = &self.0 else {
            loop {
                let remaining = self.until(at_ms);
                if remaining.is_zero() {
                    return;
                }
                tokio::time::sleep(remaining.min(LOOK)).await;
            }
        };
        let mut now = manual.now.subscribe();
        let _timer = Timer::set(manual, at_ms);
        let _ = now.wait_for(|now| *now >= at_ms).await;
    }

    /// The future's output, or nothing if it takes longer than this.
    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(limit) => None,
        }
    }

    /// Completes when somebody moves the clock: never, for the machine's.
    pub(crate) async fn moved(&self) {
        match &self.0 {
            Some(manual) => {
                let _ = manual.now.subscribe().changed().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Moves a manual clock, never backwards.
    pub(crate) fn set(&self, now_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.now.send_modify(|now| *now = now_ms.max(*now));
        }
    }

    /// The next instant for which somebody waits on a manual clock.
    pub(crate) fn next_timer(&self) -> Option<i64> {
        let timers = self.0.as_ref()?.lock();
        timers.waiting.first().map(|(at, _)| *at)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now_ms()).finish()
    }
}

impl Manual {
    fn lock(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry among the timers, until it is dropped.
struct Timer<'a>(&'a Manual, (i64, u64));

impl<'a> Timer<'a> {
    fn set(manual: &'a Manual, at_ms: i64) -> Self {
        let mut timers = manual.lock();
        timers.serial += 1;
        let key = (at_ms, timers.serial);
        timers.waiting.insert(key);
        Self(manual, key)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}
