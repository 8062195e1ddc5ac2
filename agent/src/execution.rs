//! One execution of a workflow in this process: its position, its history, and how it is stopped.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::compensation::Compensations;
use crate::error::{Error, ErrorKind, Result};
use crate::recorder::{Caller, Effect, EffectRow, EffectWritten, StepRow, StepWritten};
use crate::runtime::Runtime;
use crate::underway::{Active, Call, Doing, Underway};
use crate::workflow::PORTABLE;

tokio::task_local! {
    /// Position of the step whose body runs.
    static IN_STEP: i32;

    /// Which attempt of a step this is, from 1.
    static ATTEMPT: u32;

    /// The execution whose body is polled, for macros, which are given no context.
    pub(crate) static CURRENT: Arc<Execution>;
}

/// Calls a step's body so that durable calls inside it know where they are. The future does not borrow
/// the body. A step inside a step has no position of its own: it is part of the outer one.
pub(crate) fn in_step<F: Future>(
    position: Option<i32>,
    attempt: u32,
    body: impl FnOnce() -> F,
) -> impl Future<Output = F::Output> {
    let outer = IN_STEP.try_with(|position| *position).ok();
    let position = outer.or(position).unwrap_or_default();
    let body = || ATTEMPT.sync_scope(attempt, body);
    let future = IN_STEP.sync_scope(position, body);
    IN_STEP.scope(position, ATTEMPT.scope(attempt, future))
}

/// Which attempt of the step around it this is; `None` outside of steps.
pub(crate) fn current_attempt() -> Option<u32> {
    ATTEMPT.try_with(|attempt| *attempt).ok()
}

/// What is at the next position; see [`Execution::take_position_of`].
pub(crate) enum Marker {
    /// The record asked for; the position was taken.
    Recorded,
    /// Nothing; the position was taken.
    Free(i32),
    /// Another record, or nothing; the position is still free.
    Other,
}

/// Where a durable call stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// In the workflow's body, at a position of its own.
    Own(i32),
    /// Inside the step of this position.
    Inside(i32),
}

impl Place {
    /// Its own position, if it has one.
    pub(crate) fn own(self) -> Option<i32> {
        match self {
            Self::Own(position) => Some(position),
            Self::Inside(_) => None,
        }
    }
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
    /// The checkpoint of a call that yields nothing.
    Nothing,
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
    /// The queue it was taken from and its partition there.
    pub(crate) queue: Option<String>,
    pub(crate) partition: Option<String>,
    /// A JSON object.
    pub(crate) attributes: Option<String>,
    pub(crate) caller: Caller,
}

pub(crate) struct Execution {
    pub(crate) runtime: Arc<Runtime>,
    origin: Origin,
    /// Whether an earlier execution left checkpoints.
    recovered: bool,
    next_position: AtomicI32,
    history: Mutex<HashMap<i32, Recorded>>,
    /// What was on record when it began and what the code has asked for since; only if it was on record.
    traces: Option<Traces>,
    /// Durable calls that are under way, in the order in which they began.
    underway: Underway,
    /// Topics that a `recv` waits for.
    receiving: Mutex<HashSet<String>>,
    /// Shutdown drops this run, to hand it back.
    dropped: CancellationToken,
    /// Somebody else has the say over this run now: stop at the next durable call.
    interrupted: CancellationToken,
    attributes: OnceLock<Map<String, Value>>,
    /// What undoes its steps should it fail.
    pub(crate) compensations: Compensations,
    stop: OnceLock<Stop>,
    stopped: CancellationToken,
    ending: watch::Sender<Option<Ending>>,
}

impl Execution {
    /// `ending` is where its end is told, if somebody expects it already.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        mut origin: Origin,
        ending: Option<watch::Sender<Option<Ending>>>,
    ) -> Arc<Self> {
        let history = std::mem::take(&mut origin.history);
        let dropped = runtime.handing_back();
        let underway = Underway::counted_in(runtime.waiting().clone());
        Arc::new(Self {
            runtime,
            origin,
            recovered: !history.is_empty(),
            next_position: AtomicI32::new(0),
            traces: Traces::of(&history),
            history: Mutex::new(history),
            underway,
            receiving: Mutex::default(),
            dropped,
            interrupted: CancellationToken::new(),
            attributes: OnceLock::new(),
            compensations: Compensations::default(),
            stop: OnceLock::new(),
            stopped: CancellationToken::new(),
            ending: ending.unwrap_or_default(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.origin.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.origin.name
    }

    /// Whether it goes on where an earlier execution left off.
    pub(crate) fn is_recovered(&self) -> bool {
        self.recovered
    }

    pub(crate) fn token(&self) -> &str {
        &self.origin.token
    }

    /// The queue it was taken from, and its partition there.
    pub(crate) fn queue(&self) -> (Option<&str>, Option<&str>) {
        (
            self.origin.queue.as_deref(),
            self.origin.partition.as_deref(),
        )
    }

    pub(crate) fn attributes(&self) -> &Map<String, Value> {
        self.attributes.get_or_init(|| {
            let text = self.origin.attributes.as_deref().unwrap_or("{}");
            serde_json::from_str(text).unwrap_or_default()
        })
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.origin.caller
    }

    /// Set when the run is interrupted.
    pub(crate) fn cancellation_token(&self) -> CancellationToken {
        self.interrupted.child_token()
    }

    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.origin.deadline_ms
    }

    /// Takes the next position, in program order. `None` inside a step's body, which is one position
    /// as a whole.
    pub(crate) fn take_position(&self) -> Option<i32> {
        match self.take_place() {
            Place::Own(position) => Some(position),
            Place::Inside(_) => None,
        }
    }

    /// The position that the next call takes.
    pub(crate) fn next_position(&self) -> i32 {
        self.next_position.load(Ordering::Relaxed)
    }

    /// Takes the next position, unless the call is inside a step.
    pub(crate) fn take_place(&self) -> Place {
        match IN_STEP.try_with(|position| *position) {
            Ok(position) => Place::Inside(position),
            Err(_) => Place::Own(self.next_position.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Decides at the next position, without taking it unless a record of this name is there or, if
    /// `or_free`, none at all. `None` inside a step.
    pub(crate) fn take_position_of(&self, name: &str, or_free: bool) -> Option<Marker> {
        if IN_STEP.try_with(|_| ()).is_ok() {
            return None;
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.next_position.load(Ordering::Relaxed);
        let marker = match history.get(&next) {
            Some(recorded) if recorded.name == name => {
                history.remove(&next);
                Marker::Recorded
            }
            Some(_) => return Some(Marker::Other),
            None if or_free => Marker::Free(next),
            None => return Some(Marker::Other),
        };
        self.next_position.fetch_add(1, Ordering::Relaxed);
        Some(marker)
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
        if let Some(traces) = &self.traces {
            traces.asked_for(position, name);
        }
        let recorded = self
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&position);
        match recorded {
            Some(recorded) if recorded.name == name => {
                Some(Box::pin(self.readable(position, recorded)).await)
            }
            Some(recorded) => {
                let error = self.mismatch(position, recorded.name, name);
                self.fail(error).await
            }
            None if self.runtime.repeats_only => {
                let kind = ErrorKind::NotRecorded {
                    step: position,
                    asked: name.to_owned(),
                };
                self.fail(Error::new(kind)).await
            }
            None => None,
        }
    }

    /// The record with its payloads decoded.
    pub(crate) async fn readable(&self, position: i32, mut recorded: Recorded) -> Recorded {
        let payloads = self.runtime.payloads();
        let output = payloads.decode_some(recorded.output.take()).await;
        let error = payloads.decode_some(recorded.error.take()).await;
        match (output, error) {
            (Ok(output), Ok(error)) => Recorded {
                output,
                error,
                ..recorded
            },
            (Err(error), _) | (_, Err(error)) => {
                let what = format!("step `{}` at position {position}", recorded.name);
                self.fail(Error::unreadable(what, &error)).await
            }
        }
    }

    /// The first record that the code passed over by ending before it.
    pub(crate) fn left_on_record(&self) -> Option<(i32, String)> {
        let next = self.next_position();
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let left = history.iter().filter(|(position, _)| **position >= next);
        left.min_by_key(|(position, _)| **position)
            .map(|(position, recorded)| (*position, recorded.name.clone()))
    }

    fn mismatch(&self, position: i32, recorded: String, asked: &str) -> Error {
        let (on_record, asked_for) = match &self.traces {
            Some(traces) => traces.around(position),
            None => Default::default(),
        };
        Error::new(ErrorKind::Nondeterminism {
            step: position,
            recorded,
            asked: asked.to_owned(),
            on_record,
            asked_for,
        })
    }

    /// The time, in epoch milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        self.runtime.clock().now_ms()
    }

    /// Records a step that completed now.
    pub(crate) async fn record(
        &self,
        position: i32,
        name: &str,
        started_at: i64,
        result: StepResult,
    ) -> Result<()> {
        let row = self.step_row(position, name, started_at, self.now_ms(), result);
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
    ) -> Box<StepRow> {
        let (output, error) = match result {
            StepResult::Output(output) => (Some(output), None),
            StepResult::Error(error) => (None, Some(error)),
            StepResult::Nothing => (None, None),
        };
        Box::new(StepRow {
            workflow_id: self.origin.id.clone(),
            token: self.origin.token.clone(),
            position,
            name: name.to_owned(),
            started_at,
            completed_at,
            output,
            error,
            child: None,
            format: PORTABLE.into(),
        })
    }

    /// Writes a step's row; returns after the commit. Never returns if the row shows that this execution
    /// is no longer the owner. The error is the database's refusal of this very row.
    pub(crate) async fn write(&self, row: Box<StepRow>) -> Result<()> {
        let position = row.position;
        let name = row.name.clone();
        let written = self.runtime.recorder.step(row).await?;
        self.settle(written, position, &name).await;
        Ok(())
    }

    /// Writes a checkpoint with an effect, or inside a step only the effect; returns after the commit, with
    /// nothing if that is all there is to say. Never returns if this execution is no longer the owner.
    pub(crate) async fn effect(
        &self,
        place: Place,
        name: &str,
        started_at: i64,
        output: Option<&str>,
        effect: Effect,
    ) -> Result<Option<EffectWritten>> {
        let (Place::Own(position) | Place::Inside(position)) = place;
        let result = match output {
            Some(output) => StepResult::Output(output.to_owned()),
            None => StepResult::Nothing,
        };
        let row = EffectRow {
            step: *self.step_row(position, name, started_at, self.now_ms(), result),
            recorded: matches!(place, Place::Own(_)),
            effect,
        };
        match self.runtime.recorder.effect(row).await? {
            EffectWritten::Step(written) => {
                self.settle(written, position, name).await;
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    /// Draws the consequences of what a write found.
    pub(crate) async fn settle(&self, written: StepWritten, position: i32, name: &str) {
        match written {
            StepWritten::Done => {}
            StepWritten::NotOwner => self.halt(Stop::Lost).await,
            StepWritten::Taken => {
                let error = self.mismatch(position, name.to_owned(), name);
                self.fail(error).await
            }
        }
    }

    /// Waits until an instant in epoch milliseconds. An interruption ends the wait, and the run; so does
    /// the beginning of a shutdown that will not last as long.
    pub(crate) async fn wait_until(&self, at: i64) {
        tokio::select! {
            () = self.unless_interrupted(self.runtime.clock().sleep_until(at)) => {}
            () = self.leave_instead_of_sleeping_until(at) => {}
        }
    }

    /// Waits inside the workflow; an interruption ends the wait, and the run.
    pub(crate) async fn pause(&self, duration: Duration) {
        let clock = self.runtime.clock();
        self.unless_interrupted(clock.sleep(duration)).await;
    }

    /// Awaits something that changes nothing; stops the run if it is interrupted meanwhile.
    pub(crate) async fn unless_interrupted<F: Future>(&self, future: F) -> F::Output {
        tokio::select! {
            output = future => output,
            () = self.interrupted.cancelled() => self.halt(Stop::Lost).await,
        }
    }

    /// Notes what a durable call does until the guard is dropped.
    pub(crate) fn enter(&self, position: impl Into<Option<i32>>, doing: Doing) -> Active<'_> {
        self.underway.enter(position.into(), doing, self.now_ms())
    }

    /// What the run is doing: the durable call that began first of those under way.
    pub(crate) fn doing(&self) -> Option<Call> {
        self.underway.first()
    }

    /// Whether it does nothing but wait, beyond this instant.
    pub(crate) fn only_waits(&self, now: i64) -> bool {
        self.underway.only_waits(now)
    }

    /// Takes the right to receive a topic until the guard is dropped; `None` while another call has it.
    pub(crate) fn receive_alone(&self, topic: &str) -> Option<Receiving<'_>> {
        let mut receiving = self
            .receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        receiving
            .insert(topic.to_owned())
            .then(|| Receiving(&self.receiving, topic.to_owned()))
    }

    /// Gives the run up for hand-back if it does nothing but sleep beyond the end of the shutdown that
    /// has begun. Never returns.
    async fn leave_instead_of_sleeping_until(&self, wake_at: i64) {
        let ends_at = self.runtime.shutdown_ends_at().await;
        if wake_at > ends_at && self.underway.only_waits_beyond(ends_at) {
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

/// The right to receive a topic; see [`Execution::receive_alone`].
pub(crate) struct Receiving<'a>(&'a Mutex<HashSet<String>>, String);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        let mut receiving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        receiving.remove(&self.1);
    }
}

/// Positions of a trace that are kept before the one at issue, and after it.
const BEFORE: usize = 50;
const AFTER: usize = 10;

/// What is on record and what the code asked for, by position, for whoever has to find out why the two
/// differ.
struct Traces {
    on_record: Vec<(i32, String)>,
    asked_for: Mutex<Vec<(i32, String)>>,
}

impl Traces {
    /// Of a run that has a history.
    fn of(history: &HashMap<i32, Recorded>) -> Option<Self> {
        let mut on_record: Vec<_> = history
            .iter()
            .map(|(position, recorded)| (*position, recorded.name.clone()))
            .collect();
        on_record.sort_unstable();
        (!on_record.is_empty()).then(|| Self {
            on_record,
            asked_for: Mutex::default(),
        })
    }

    fn asked_for(&self, position: i32, name: &str) {
        let past = self
            .on_record
            .last()
            .is_some_and(|(last, _)| position > *last);
        let mut asked = self
            .asked_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !past {
            asked.push((position, name.to_owned()));
        } else if !asked.is_empty() {
            // The record is repeated: nothing can differ any more.
            *asked = Vec::new();
        }
    }

    /// Both traces as text, up to a little beyond a position.
    fn around(&self, position: i32) -> (Vec<String>, Vec<String>) {
        let line = |(position, name): &(i32, String)| format!("{position} {name}");
        let at = self
            .on_record
            .partition_point(|(recorded, _)| *recorded <= position);
        let from = at.saturating_sub(BEFORE);
        let recorded = self.on_record.iter().skip(from).take(at - from + AFTER);
        let asked = self
            .asked_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let from = asked.len().saturating_sub(BEFORE);
        (
            recorded.map(line).collect(),
            asked.iter().skip(from).map(line).collect(),
        )
    }
}
