//! The argument through which a workflow does everything durable.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::error::{Error, Result};
use crate::execution::{Execution, Recorded, StepResult};
use crate::handle::{PendingRun, PendingStart};
use crate::state::NoState;
use crate::step::{Step, StepError};
use crate::transaction::{Db, Transaction, Tx};
use crate::workflow::Target;

const SLEEP: &str = "DBOS.sleep";

/// What a workflow is given: the application's state and every durable operation.
///
/// Calls take their position in the workflow when they are *written*, not when they are first polled, so
/// `join!` and `try_join!` are safe. Between durable calls a workflow must be deterministic: anything
/// that may come out differently the next time (time, randomness, the network) belongs into a step.
///
/// Cancellation, shutdown and loss of ownership are never values: the engine drops the workflow's future
/// at its next durable call, destructors run, and no `Err(_) =>` can swallow it.
pub struct Ctx<S = NoState> {
    execution: Arc<Execution>,
    state: Arc<S>,
}

impl<S> Ctx<S> {
    pub(crate) fn new(execution: Arc<Execution>, state: Arc<S>) -> Self {
        Self { execution, state }
    }

    /// The application's state, or the part this workflow asked for.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The id of this run.
    pub fn workflow_id(&self) -> &str {
        self.execution.id()
    }

    /// The id of the executor that runs it now; another one after a recovery.
    pub fn executor_id(&self) -> &str {
        self.execution.runtime.executor_id()
    }

    /// The application version that runs it: the one it began under.
    pub fn app_version(&self) -> &str {
        self.execution.runtime.app_version()
    }

    /// Runs a piece of work whose result is recorded: after that it never runs again, before that it may
    /// (at least once). The body's error is [`segno::Error`](Error), into which every
    /// `std::error::Error` converts.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
    ///     ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).max_attempts(3).await
    /// }
    /// ```
    pub fn step<'a, T, F, Fut>(&'a self, name: impl Into<Cow<'static, str>>, body: F) -> Step<'a, T>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        F: Fn() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T>> + Send + 'a,
    {
        self.try_step(name, body)
    }

    /// A step whose body has an error type of its own. That error comes back as it is (also after a
    /// replay), to be matched on or used in [`Step::retry_if`].
    pub fn try_step<'a, T, E, F, Fut>(
        &'a self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Step<'a, T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        E: StepError,
        F: Fn() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let position = self.execution.take_position();
        Step::new(self.execution.clone(), position, name.into(), body)
    }

    /// Runs a database transaction whose writes commit together with its checkpoint: exactly once. `db`
    /// must be the system database of this application; your tables live beside the engine's.
    ///
    /// The body may run again after a serialization failure or deadlock, each time in a fresh
    /// transaction. An error rolls its writes back and is recorded as the step's error.
    ///
    /// ```
    /// # use segno::{Ctx, Db};
    /// async fn book(ctx: Ctx<Db>, title: String) -> segno::Result<i64> {
    ///     ctx.transaction(ctx.state(), "add book", |tx| Box::pin(async {
    ///         let (id,): (i64,) = tx
    ///             .query("INSERT INTO books (title) VALUES ($1) RETURNING id")
    ///             .bind(&title)
    ///             .fetch_one()
    ///             .await?;
    ///         Ok(id)
    ///     }))
    ///     .await
    /// }
    /// ```
    pub fn transaction<'a, T, F>(
        &'a self,
        db: &Db,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Transaction<'a, T>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        let position = self.execution.take_position();
        Transaction::new(
            self.execution.clone(),
            position,
            db.clone(),
            name.into(),
            body,
        )
    }

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
        let position = self.execution.take_position();
        Sleep(Box::pin(sleep(self.execution.clone(), position, wake)))
    }

    /// Starts a child workflow; await it to get its handle. The child's id is this run's id and the
    /// call's position unless given, so a replay finds the same child.
    pub fn start<M, W: Target<M>>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> PendingStart<'_, W::Output> {
        let position = self.execution.take_position();
        PendingStart::child(self.execution.clone(), position, &workflow.key(), &input)
    }

    /// Starts a child workflow and waits for its result.
    pub fn run<M, W: Target<M>>(&self, workflow: W, input: W::Input) -> PendingRun<'_, W::Output> {
        let start = self.start(workflow, input);
        let position = self.execution.take_position();
        PendingRun::new(start, position)
    }
}

impl<S> fmt::Debug for Ctx<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("workflow_id", &self.workflow_id())
            .finish_non_exhaustive()
    }
}

/// A durable wait; see [`Ctx::sleep`].
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep<'a>(BoxFuture<'a, ()>);

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Sleep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").finish_non_exhaustive()
    }
}

enum Wake {
    After(Duration),
    At(SystemTime),
}

impl Wake {
    /// The instant in epoch milliseconds, reckoned from now.
    fn at_ms(&self) -> i64 {
        match self {
            Self::After(duration) => clock::now_ms().saturating_add(clock::millis(*duration)),
            Self::At(instant) => {
                clock::millis(instant.duration_since(UNIX_EPOCH).unwrap_or_default())
            }
        }
    }
}

async fn sleep(execution: Arc<Execution>, position: Option<i32>, wake: Wake) {
    let (position, recorded) = execution.replay_or_misuse(position, SLEEP).await;
    let wake_at = match recorded {
        Some(recorded) => match wake_up_time(&recorded) {
            Some(at) => at,
            None => {
                let error = Error::serialization("recorded wake-up time", "it is not a number");
                return execution.fail(error).await;
            }
        },
        None => {
            let at = wake.at_ms();
            let row = execution.step_row(
                position,
                SLEEP,
                clock::now_ms(),
                at,
                StepResult::Output(at.to_string()),
            );
            if let Err(error) = execution.write(row).await {
                return execution.fail(error).await;
            }
            at
        }
    };
    let _active = execution.enter();
    loop {
        let remaining = clock::until(wake_at);
        if remaining.is_zero() {
            return;
        }
        tokio::select! {
            // Timers run on a clock that may stand still while the machine is suspended: look again.
            () = execution.pause(remaining.min(Duration::from_secs(60))) => {}
            () = execution.leave_instead_of_sleeping_until(wake_at) => {}
        }
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
