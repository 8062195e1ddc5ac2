//! Steps: pieces of work that run at least once and never again after their result is recorded.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::Instrument as _;

use crate::clock;
use crate::error::{Error, ErrorKind, Result, remember_type, short_type_name};
use crate::execution::{Execution, Recorded, StepResult, in_step};
use crate::metrics::Counters;
use crate::trace;
use crate::underway::{Active, Doing};

/// How often a step is tried and how long it waits in between.
///
/// The wait before attempt *k + 1* is `interval × backoff^(k-1)`, at most `max_interval`, plus or minus
/// a tenth so that many workflows that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Wait after the first failure.
    pub interval: Duration,
    /// Factor by which the wait grows.
    pub backoff: f64,
    /// Longest wait.
    pub max_interval: Duration,
}

impl Default for Retry {
    /// Three attempts, one second apart, doubling, at most an hour.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            ..Self::NEVER
        }
    }
}

impl Retry {
    /// One attempt: what a step without options gets.
    pub const NEVER: Self = Self {
        max_attempts: 1,
        interval: Duration::from_secs(1),
        backoff: 2.0,
        max_interval: Duration::from_secs(3600),
    };

    /// The wait after `failures` failed attempts, without jitter.
    fn delay(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.interval.as_secs_f64() * self.backoff.max(0.0).powi(exponent);
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.max_interval)
            .min(self.max_interval)
    }
}

type RetryIf<'a, E> = Box<dyn Fn(&E) -> bool + Send + Sync + 'a>;

struct Options<'a, E> {
    retry: Retry,
    timeout: Option<Duration>,
    preemptible: bool,
    retry_if: Option<RetryIf<'a, E>>,
}

type Start<'a, T, E> = Box<dyn FnOnce(Options<'a, E>) -> BoxFuture<'a, Result<T, E>> + Send + 'a>;

enum State<'a, T, E> {
    Configuring(Start<'a, T, E>, Options<'a, E>),
    Running(BoxFuture<'a, Result<T, E>>),
    Done,
}

/// A step that was called: refine it, then await it. Its position in the workflow was taken by the
/// call, so `join!` and friends may poll several in any order.
#[must_use = "a step does nothing until it is awaited"]
pub struct Step<'a, T, E = Error> {
    state: State<'a, T, E>,
}

impl<'a, T, E> Step<'a, T, E>
where
    T: Serialize + DeserializeOwned + Send + 'a,
    E: StepError + 'a,
{
    /// `position` is `None` inside another step, where a step is a plain call.
    pub(crate) fn new<F, Fut>(
        execution: Arc<Execution>,
        position: Option<i32>,
        name: Cow<'static, str>,
        body: F,
    ) -> Self
    where
        F: Fn() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let start: Start<'a, T, E> =
            Box::new(move |options| Box::pin(drive(execution, position, name, options, body)));
        let options = Options {
            retry: Retry::NEVER,
            timeout: None,
            preemptible: false,
            retry_if: None,
        };
        Self {
            state: State::Configuring(start, options),
        }
    }
}

impl<'a, T, E> Step<'a, T, E> {
    fn configure(mut self, change: impl FnOnce(&mut Options<'a, E>)) -> Self {
        // Once it is running its options are in use; builder methods are only reachable before.
        if let State::Configuring(_, options) = &mut self.state {
            change(options);
        }
        self
    }

    /// All retry settings at once.
    pub fn retry(self, retry: Retry) -> Self {
        self.configure(|options| options.retry = retry)
    }

    /// Attempts in all, the first included. Without it a step is tried once.
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.configure(|options| options.retry.max_attempts = attempts.max(1))
    }

    /// Wait after the first failure; one second unless set.
    pub fn interval(self, interval: Duration) -> Self {
        self.configure(|options| options.retry.interval = interval)
    }

    /// Factor by which the wait grows with each failure; 2 unless set.
    pub fn backoff(self, factor: f64) -> Self {
        self.configure(|options| options.retry.backoff = factor)
    }

    /// Longest wait between attempts; an hour unless set.
    pub fn max_interval(self, interval: Duration) -> Self {
        self.configure(|options| options.retry.max_interval = interval)
    }

    /// Longest time one attempt may take. Running out of it is a failure like any other
    /// ([`ErrorKind::StepTimeout`]) and may be retried.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.configure(|options| options.timeout = Some(timeout))
    }

    /// Drops the step in the middle of an attempt when its run is cancelled or taken over, instead of
    /// letting the attempt finish. Nothing is recorded then.
    pub fn preemptible(self) -> Self {
        self.configure(|options| options.preemptible = true)
    }

    /// Retries only errors for which this is true; any other ends the step with that error.
    pub fn retry_if(self, predicate: impl Fn(&E) -> bool + Send + Sync + 'a) -> Self {
        self.configure(|options| options.retry_if = Some(Box::new(predicate)))
    }
}

impl<T, E> Unpin for Step<'_, T, E> {}

impl<T, E> Future for Step<'_, T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Configuring(start, options) => self.state = State::Running(start(options)),
                State::Running(mut future) => {
                    let poll = future.as_mut().poll(cx);
                    if poll.is_pending() {
                        self.state = State::Running(future);
                    }
                    return poll;
                }
                State::Done => return Poll::Pending,
            }
        }
    }
}

impl<T, E> fmt::Debug for Step<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}

/// An error a step may end with: [`Error`] for [`step`](crate::Ctx::step), a type of the application for
/// [`try_step`](crate::Ctx::try_step).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a step",
    note = "a `try_step` error implements `std::error::Error`, `Serialize` and `Deserialize` and has one variant \
            `#[error(transparent)] Engine(#[from] segno::Error)` for what the engine reports"
)]
pub trait StepError: Sized + Send + 'static {
    #[doc(hidden)]
    fn from_engine(error: Error) -> Self;
    #[doc(hidden)]
    fn to_recorded(&self) -> Value;
    #[doc(hidden)]
    fn from_recorded(recorded: Value) -> Self;
    #[doc(hidden)]
    fn as_cause(&self) -> Error {
        Error::from_portable(self.to_recorded())
    }
}

impl StepError for Error {
    fn from_engine(error: Error) -> Self {
        error
    }

    fn to_recorded(&self) -> Value {
        self.to_portable()
    }

    fn from_recorded(recorded: Value) -> Self {
        Self::from_portable(recorded)
    }

    fn as_cause(&self) -> Error {
        self.clone()
    }
}

#[diagnostic::do_not_recommend]
impl<E> StepError for E
where
    E: std::error::Error + Serialize + DeserializeOwned + From<Error> + Send + Sync + 'static,
{
    fn from_engine(error: Error) -> Self {
        // From here on an error of this type keeps its fields when it becomes a `segno::Error`.
        remember_type::<E>();
        error.into()
    }

    fn to_recorded(&self) -> Value {
        remember_type::<E>();
        json!({
            "name": short_type_name::<E>(),
            "message": self.to_string(),
            "code": null,
            "data": serde_json::to_value(self).unwrap_or(Value::Null),
        })
    }

    fn from_recorded(recorded: Value) -> Self {
        remember_type::<E>();
        let error = Error::from_portable(recorded);
        if error.is_engine() {
            return error.into();
        }
        error.decode().unwrap_or_else(|| error.into())
    }
}

/// What few steps do is awaited in boxes: the others do not keep room for it. Beyond a kilobyte or so that room
/// costs more than all else that a step takes in this process.
async fn drive<T, E, F, Fut>(
    execution: Arc<Execution>,
    position: Option<i32>,
    name: Cow<'static, str>,
    options: Options<'_, E>,
    body: F,
) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: StepError,
    F: Fn() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let Some(position) = position else {
        return attempts(&execution, None, &name, &options, body).await;
    };
    if let Some(recorded) = execution.replay(position, &name).await {
        return Box::pin(recall(&execution, position, &name, recorded)).await;
    }
    let active = execution.enter(position, Doing::Step(name.clone()));
    let started_at = execution.now_ms();
    let result = attempts(&execution, Some((position, &active)), &name, &options, body).await;
    let (result, encoded) = encode(&name, result);
    let written = execution.record(position, &name, started_at, encoded).await;
    match written {
        Ok(()) => result,
        // The database will not take this row as it is (text it cannot store, for one): that is the
        // step's failure, recorded if it can be.
        Err(error) => Box::pin(refused(&execution, position, &name, started_at, error)).await,
    }
}

async fn refused<T, E: StepError>(
    execution: &Execution,
    position: i32,
    name: &str,
    started_at: i64,
    error: Error,
) -> Result<T, E> {
    let recorded = StepResult::Error(error.to_portable().to_string());
    match execution.record(position, name, started_at, recorded).await {
        Ok(()) => Err(E::from_engine(error)),
        Err(_) => execution.fail(error).await,
    }
}

/// The attempts, in a span of their own.
async fn attempts<T, E, F, Fut>(
    execution: &Execution,
    own: Option<(i32, &Active<'_>)>,
    name: &str,
    options: &Options<'_, E>,
    body: F,
) -> Result<T, E>
where
    E: StepError,
    F: Fn() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let span = trace::step_span(execution, own.map(|(position, _)| position), name);
    let tries = tries(execution, own, name, options, body);
    let result = tries.instrument(span.clone()).await;
    if let Err(error) = &result {
        trace::failed(&span, execution, || error.as_cause());
    }
    result
}

/// Runs the body until it succeeds, its attempts are used up or its error is not to be retried.
async fn tries<T, E, F, Fut>(
    execution: &Execution,
    own: Option<(i32, &Active<'_>)>,
    name: &str,
    options: &Options<'_, E>,
    body: F,
) -> Result<T, E>
where
    E: StepError,
    F: Fn() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let mut causes = Vec::new();
    loop {
        let attempt = u32::try_from(causes.len() + 1).unwrap_or(u32::MAX);
        if let Some((_, active)) = own {
            active.attempt(attempt, options.retry.max_attempts);
        }
        let attempt = in_step(own.map(|(position, _)| position), attempt, &body);
        let result = if options.preemptible || options.timeout.is_some() {
            Box::pin(guarded(execution, name, options, attempt)).await
        } else {
            attempt.await
        };
        let counters = &execution.runtime.counters;
        let error = match result {
            Ok(value) => {
                Counters::count(&counters.steps);
                return Ok(value);
            }
            Err(error) => error,
        };
        Counters::count(&counters.step_failures);
        let retryable = options
            .retry_if
            .as_ref()
            .is_none_or(|retry_if| retry_if(&error));
        if options.retry.max_attempts <= 1 || !retryable {
            return Err(error);
        }
        causes.push(error.as_cause());
        let failures = u32::try_from(causes.len()).unwrap_or(u32::MAX);
        if failures >= options.retry.max_attempts {
            let kind = ErrorKind::RetriesExhausted {
                step: name.to_owned(),
                attempts: failures,
            };
            return Err(E::from_engine(Error::with_causes(kind, causes)));
        }
        let delay = options
            .retry
            .delay(failures)
            .mul_f64(rand::random_range(0.9..=1.1));
        tracing::debug!(
            workflow_id = execution.id(),
            step = name,
            failures,
            ?delay,
            "step failed; trying again"
        );
        if let Some((_, active)) = own {
            let next = execution.now_ms().saturating_add(clock::millis(delay));
            active.retry_at(failures.saturating_add(1), options.retry.max_attempts, next);
        }
        Box::pin(execution.pause(delay)).await;
    }
}

/// An attempt that may be dropped before it ends.
async fn guarded<T, E: StepError>(
    execution: &Execution,
    name: &str,
    options: &Options<'_, E>,
    attempt: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let attempt = async {
        if options.preemptible {
            execution.unless_interrupted(attempt).await
        } else {
            attempt.await
        }
    };
    let Some(timeout) = options.timeout else {
        return attempt.await;
    };
    let in_time = execution.runtime.clock().timeout(timeout, attempt).await;
    in_time.unwrap_or_else(|| {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Err(E::from_engine(Error::new(ErrorKind::StepTimeout {
            step: name.to_owned(),
            timeout_ms,
        })))
    })
}

/// Turns a result into what is recorded. A value that cannot be written fails the step.
fn encode<T: Serialize, E: StepError>(
    name: &str,
    result: Result<T, E>,
) -> (Result<T, E>, StepResult) {
    let result = result.and_then(|value| match serde_json::to_string(&value) {
        Ok(text) => Ok((value, text)),
        Err(error) => Err(E::from_engine(Error::serialization(
            &format!("output of step `{name}`"),
            error,
        ))),
    });
    match result {
        Ok((value, text)) => (Ok(value), StepResult::Output(text)),
        Err(error) => {
            let text = error.to_recorded().to_string();
            (Err(error), StepResult::Error(text))
        }
    }
}

/// Gives back what a step yielded when it ran. If this program cannot read that, the run is set aside: it was
/// done, so it must not be done again, and a program that can read it goes on from there.
pub(crate) async fn recall<T: DeserializeOwned, E: StepError>(
    execution: &Execution,
    position: i32,
    name: &str,
    recorded: Recorded,
) -> Result<T, E> {
    if let Some(error) = recorded.error {
        return Err(E::from_recorded(
            serde_json::from_str(&error).unwrap_or(Value::String(error)),
        ));
    }
    match serde_json::from_str(recorded.output.as_deref().unwrap_or("null")) {
        Ok(output) => Ok(output),
        Err(error) => {
            let what = format!("step `{name}` at position {position}");
            let error = Error::unreadable(what, &Error::serialization(name, error));
            execution.fail(error).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let retry = Retry {
            max_interval: Duration::from_secs(5),
            ..Retry::default()
        };
        let waits: Vec<_> = (1..=4)
            .map(|failures| retry.delay(failures).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        assert_eq!(retry.delay(u32::MAX), Duration::from_secs(5));
    }
}
