//! One execution of a workflow in this process: its position, its history, and how it is stopped.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::recorder::{StepRow, StepWritten};
use crate::runtime::Runtime;

tokio::task_local! {
    /// Set while the body of a step runs.
    static IN_STEP: ();
}

/// Calls a step's body so that durable calls inside it know where they are. The future does not borrow
/// the body.
pub(crate) fn in_step<F: Future>(body: impl FnOnce() -> F) -> impl Future<Output = F::Output> {
    IN_STEP.scope((), IN_STEP.sync_scope((), body))
}

/// A checkpoint found on record.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) child: Option<String>,
}

/// What a step yielded, as it is recorded.
pub(crate) enum StepResult {
    Output(String),
    Error(String),
}

/// Why a body is dropped at a durable call.
enum Stop {
    /// Cancelled, taken over by another executor, or gone: the row is no longer ours to write.
    Lost,
    /// The engine ends the run with this error; the body cannot catch it.
    Failed(Error),
}

/// How an execution ended, as far as this process knows.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// The outcome is on record: the encoded output, or the error.
    Recorded(Result<Arc<str>>),
    /// It was stopped here; the database has, or will have, the outcome.
    Elsewhere,
    /// The code panicked with this message.
    Panicked(String),
}

/// Tells how an execution ends, once it has.
pub(crate) type Ends = watch::Receiver<Option<Ending>>;

/// What an execution starts from.
pub(crate) struct Origin {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The ownership token that every write states.
    pub(crate) token: String,
    pub(crate) deadline_ms: Option<i64>,
    /// Checkpoints of earlier executions by position; empty for a fresh workflow.
    pub(crate) history: HashMap<i32, Recorded>,
}

pub(crate) struct Execution {
    pub(crate) runtime: Arc<Runtime>,
    origin: Origin,
    next_position: AtomicI32,
    history: Mutex<HashMap<i32, Recorded>>,
    /// Durable calls that are under way.
    active: AtomicUsize,
    /// Shutdown drops this run, to hand it back.
    dropped: CancellationToken,
    /// Somebody else has the say over this run now: stop at the next durable call.
    interrupted: CancellationToken,
    stop: OnceLock<Stop>,
    stopped: CancellationToken,
    ending: watch::Sender<Option<Ending>>,
}

impl Execution {
    pub(crate) fn new(runtime: Arc<Runtime>, mut origin: Origin) -> Arc<Self> {
        let history = std::mem::take(&mut origin.history);
        let dropped = runtime.handing_back();
        Arc::new(Self {
            runtime,
            origin,
            next_position: AtomicI32::new(0),
            history: Mutex::new(history),
            active: AtomicUsize::new(0),
            dropped,
            interrupted: CancellationToken::new(),
            stop: OnceLock::new(),
            stopped: CancellationToken::new(),
            ending: watch::Sender::new(None),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.origin.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.origin.name
    }

    pub(crate) fn token(&self) -> &str {
        &self.origin.token
    }

    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.origin.deadline_ms
    }

    /// Takes the next position, in program order. `None` inside a step's body, which is one position
    /// as a whole.
    pub(crate) fn take_position(&self) -> Option<i32> {
        let nested = IN_STEP.try_with(|()| ()).is_ok();
        (!nested).then(|| self.next_position.fetch_add(1, Ordering::Relaxed))
    }

    /// As [`take_position`](Self::take_position), for calls that cannot work inside a step: the run
    /// fails when `None` is handed to [`replay_or_misuse`](Self::replay_or_misuse).
    pub(crate) async fn replay_or_misuse(
        &self,
        position: Option<i32>,
        name: &str,
    ) -> (i32, Option<Recorded>) {
        let Some(position) = position else {
            let message = format!(
                "`{name}` was called inside a step; durable calls other than steps belong into the workflow"
            );
            return self.fail(Error::misuse(message)).await;
        };
        (position, self.replay(position, name).await)
    }

    /// The checkpoint of this position, if an earlier execution left one. Stops the run if it was
    /// interrupted, or if the record is of another call.
    pub(crate) async fn replay(&self, position: i32, name: &str) -> Option<Recorded> {
        if self.interrupted.is_cancelled() {
            return self.halt(Stop::Lost).await;
        }
        let recorded = self
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&position)?;
        if recorded.name != name {
            let kind = ErrorKind::Nondeterminism {
                step: position,
                recorded: recorded.name,
                asked: name.to_owned(),
            };
            return self.fail(Error::new(kind)).await;
        }
        Some(recorded)
    }

    /// Records a step that completed now.
    pub(crate) async fn record(
        &self,
        position: i32,
        name: &str,
        started_at: i64,
        result: StepResult,
    ) -> Result<()> {
        let row = self.step_row(position, name, started_at, clock::now_ms(), result);
        self.write(row).await
    }

    /// A step's row in this execution.
    pub(crate) fn step_row(
        &self,
        position: i32,
        name: &str,
        started_at: i64,
        completed_at: i64,
        result: StepResult,
    ) -> StepRow {
        let (output, error) = match result {
            StepResult::Output(output) => (Some(output), None),
            StepResult::Error(error) => (None, Some(error)),
        };
        StepRow {
            workflow_id: self.origin.id.clone(),
            token: self.origin.token.clone(),
            position,
            name: name.to_owned(),
            started_at,
            completed_at,
            output,
            error,
            child: None,
        }
    }

    /// Writes a step's row; returns after the commit. Never returns if the row shows that this execution
    /// is no longer the owner. The error is the database's refusal of this very row.
    pub(crate) async fn write(&self, row: StepRow) -> Result<()> {
        let position = row.position;
        let name = row.name.clone();
        let written = self.runtime.recorder.step(row).await?;
        self.settle(written, position, &name).await;
        Ok(())
    }

    /// Draws the consequences of what a write found.
    pub(crate) async fn settle(&self, written: StepWritten, position: i32, name: &str) {
        match written {
            StepWritten::Done => {}
            StepWritten::NotOwner => self.halt(Stop::Lost).await,
            StepWritten::Taken => {
                let kind = ErrorKind::Nondeterminism {
                    step: position,
                    recorded: name.to_owned(),
                    asked: name.to_owned(),
                };
                self.fail(Error::new(kind)).await
            }
        }
    }

    /// Waits inside the workflow; an interruption ends the wait, and the run.
    pub(crate) async fn pause(&self, duration: Duration) {
        self.unless_interrupted(tokio::time::sleep(duration)).await;
    }

    /// Awaits something that changes nothing; stops the run if it is interrupted meanwhile.
    pub(crate) async fn unless_interrupted<F: Future>(&self, future: F) -> F::Output {
        tokio::select! {
            output = future => output,
            () = self.interrupted.cancelled() => self.halt(Stop::Lost).await,
        }
    }

    /// Counts a durable call as under way until the guard is dropped.
    pub(crate) fn enter(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(&self.active)
    }

    /// Gives the run up for hand-back if it does nothing but sleep beyond the end of the shutdown that
    /// has begun. Never returns.
    pub(crate) async fn leave_instead_of_sleeping_until(&self, wake_at: i64) {
        let ends_at = self.runtime.shutdown_ends_at().await;
        if wake_at > ends_at && self.active.load(Ordering::Relaxed) == 1 {
            self.dropped.cancel();
        }
        std::future::pending().await
    }

    /// Completes when shutdown drops the body.
    pub(crate) async fn dropped(&self) {
        self.dropped.cancelled().await;
    }

    /// Stops the run at its next durable call: it was cancelled, or belongs to another executor now.
    pub(crate) fn interrupt(&self) {
        self.interrupted.cancel();
    }

    /// Ends the run with `error`. Never returns: the body is dropped while it awaits this.
    pub(crate) async fn fail<T>(&self, error: Error) -> T {
        self.halt(Stop::Failed(error)).await
    }

    /// Ends the run because a write found another owner. Never returns.
    pub(crate) async fn lose<T>(&self) -> T {
        self.halt(Stop::Lost).await
    }

    async fn halt<T>(&self, stop: Stop) -> T {
        // The first reason stands; parallel steps may find the same one.
        let _ = self.stop.set(stop);
        self.stopped.cancel();
        std::future::pending().await
    }

    /// Completes when the body is to be dropped: with the error to record, or with nothing when the row
    /// is not ours any more.
    pub(crate) async fn stopped(&self) -> Option<Error> {
        self.stopped.cancelled().await;
        match self.stop.get() {
            Some(Stop::Failed(error)) => Some(error.clone()),
            Some(Stop::Lost) | None => None,
        }
    }

    /// Tells everyone who waits in this process.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_replace(Some(ending));
    }

    /// For those who want to wait.
    pub(crate) fn ends(&self) -> Ends {
        self.ending.subscribe()
    }
}

/// A durable call that is under way; see [`Execution::enter`].
pub(crate) struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
