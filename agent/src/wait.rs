//! Durable waits: sleeping, and the deadlines of other waits, which are recorded as sleeps.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;

use crate::clock;
use crate::context::Ctx;
use crate::error::Error;
use crate::execution::{Execution, Recorded, StepResult};
use crate::pending::durable_call;
use crate::underway::Doing;

const SLEEP: &str = "DBOS.sleep";

/// How long a wait for a message or an event lasts unless told otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A durable wait; see [`Ctx::sleep`].
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep<'a>(BoxFuture<'a, ()>);

durable_call!(Sleep<'a> -> ());

impl<S> Ctx<S> {
    /// Waits for `duration`. The wake-up time is recorded first, so a recovered run waits only for what
    /// remains, and days cost nothing.
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.sleep_to(Wake::After(duration))
    }

    /// Waits until `instant`, like [`sleep`](Self::sleep).
    pub fn sleep_until(&self, instant: SystemTime) -> Sleep<'_> {
        self.sleep_to(Wake::At(instant))
    }

    fn sleep_to(&self, wake: Wake) -> Sleep<'_> {
        let position = self.execution().take_position();
        Sleep(Box::pin(sleep(self.execution().clone(), position, wake)))
    }
}

enum Wake {
    After(Duration),
    At(SystemTime),
}

impl Wake {
    /// The instant in epoch milliseconds, reckoned from now.
    fn at_ms(&self, now: i64) -> i64 {
        match self {
            Self::After(duration) => now.saturating_add(clock::millis(*duration)),
            Self::At(instant) => {
                clock::millis(instant.duration_since(UNIX_EPOCH).unwrap_or_default())
            }
        }
    }
}

async fn sleep(execution: Arc<Execution>, position: Option<i32>, wake: Wake) {
    let (position, recorded) = execution.replay_or_misuse(position, SLEEP).await;
    // In a box, whose room is not kept while it sleeps.
    let wake_at = Box::pin(wake_at(&execution, position, recorded, &wake)).await;
    let active = execution.enter(position, Doing::Sleep);
    active.until(wake_at);
    execution.wait_until(wake_at).await;
}

/// The recorded wake-up time; recorded now if it is not yet.
async fn wake_at(
    execution: &Execution,
    position: i32,
    recorded: Option<Recorded>,
    wake: &Wake,
) -> i64 {
    if let Some(recorded) = recorded {
        return match wake_up_time(&recorded) {
            Some(at) => at,
            None => {
                let error = Error::serialization(SLEEP, "the wake-up time is not a number");
                let what = format!("step `{SLEEP}` at position {position}");
                execution.fail(Error::unreadable(what, &error)).await
            }
        };
    }
    let at = wake.at_ms(execution.now_ms());
    let result = StepResult::Output(at.to_string());
    let row = execution.step_row(position, SLEEP, execution.now_ms(), at, result);
    if let Err(error) = execution.write(row).await {
        return execution.fail(error).await;
    }
    at
}

/// The end of a wait for something else, recorded at a position of its own so that a recovered run does
/// not wait anew.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<i32>);

impl Deadline {
    /// At a position that was taken for it.
    pub(crate) fn at(position: Option<i32>) -> Self {
        Self(position)
    }

    /// Passes over it: what was waited for is on record.
    pub(crate) async fn skip(self, execution: &Execution) {
        if let Some(position) = self.0 {
            execution.replay(position, SLEEP).await;
        }
    }

    /// The deadline on record, or `timeout` from now, which is recorded. Epoch milliseconds.
    pub(crate) async fn record(self, execution: &Execution, timeout: Duration) -> i64 {
        let (position, recorded) = execution.replay_or_misuse(self.0, SLEEP).await;
        wake_at(execution, position, recorded, &Wake::After(timeout)).await
    }
}

/// Reads a recorded wake-up time: epoch milliseconds, or, as Python writes it, seconds.
fn wake_up_time(recorded: &Recorded) -> Option<i64> {
    const SECONDS_BELOW: f64 = 1e11;
    let text = recorded.output.as_deref()?;
    if let Ok(at) = text.parse::<i64>()
        && at >= SECONDS_BELOW as i64
    {
        return Some(at);
    }
    let seconds: f64 = text.parse().ok()?;
    Some((seconds * 1000.0) as i64)
}
