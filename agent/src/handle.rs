//! Starting workflows, and what a start gives back.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Ends, Execution, StepResult};
use crate::recorder::{ParentRow, StartRow};
use crate::runtime::{Outcome, Runtime, Started};
use crate::status::Status;
use crate::workflow::{TargetKey, encode_input};

const GET_RESULT: &str = "DBOS.getResult";

/// A run of a workflow. Await it for the result.
///
/// Dropping a handle does nothing to the run.
pub struct Handle<R> {
    runtime: Arc<Runtime>,
    id: String,
    /// The workflow that holds this handle: waiting is then a recorded step of it.
    parent: Option<Arc<Execution>>,
    /// How the run ends, if it runs in this process.
    local: Option<Ends>,
    result: PhantomData<fn() -> R>,
}

impl<R> Handle<R> {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        id: String,
        parent: Option<Arc<Execution>>,
        local: Option<Ends>,
    ) -> Self {
        Self {
            runtime,
            id,
            parent,
            local,
            result: PhantomData,
        }
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its status as recorded now.
    pub async fn status(&self) -> Result<Status> {
        self.runtime.status(&self.id).await
    }

    /// Cancels it: it stops at its next durable call. A finished run stays as it is.
    pub async fn cancel(&self) -> Result<()> {
        self.runtime
            .cancel(std::slice::from_ref(&self.id), false)
            .await
            .map(drop)
    }
}

impl<R: DeserializeOwned + Send + 'static> Handle<R> {
    /// Waits for the result; the same as awaiting the handle, which it leaves usable. A workflow that
    /// ended in an error gives that error; [`Error::decode`] turns it back into the workflow's type.
    pub fn result(&self) -> impl Future<Output = Result<R>> + Send + 'static {
        let position = self
            .parent
            .as_ref()
            .and_then(|parent| parent.take_position());
        let parent = self.parent.clone().zip(position);
        result(
            self.runtime.clone(),
            self.id.clone(),
            parent,
            self.local.clone(),
        )
    }
}

impl<R: DeserializeOwned + Send + 'static> IntoFuture for Handle<R> {
    type Output = Result<R>;
    type IntoFuture = BoxFuture<'static, Result<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.result())
    }
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Waits for a run. Inside a workflow the result is recorded as its step at the given position; outside of
/// one, and inside a step's body, this is a plain wait.
async fn result<R: DeserializeOwned>(
    runtime: Arc<Runtime>,
    id: String,
    parent: Option<(Arc<Execution>, i32)>,
    local: Option<Ends>,
) -> Result<R> {
    let Some((parent, position)) = parent else {
        let text = match runtime.wait(&id, local, false).await? {
            Outcome::Success(text) => text,
            Outcome::Error(error) => return Err(error),
            Outcome::Cancelled => return Err(Error::new(ErrorKind::Cancelled { id })),
            Outcome::Parked => return Err(Error::new(ErrorKind::AwaitedParked { id })),
        };
        return decode_output(&id, &text);
    };
    if let Some(recorded) = parent.replay(position, GET_RESULT).await {
        return crate::step::decode(GET_RESULT, recorded);
    }
    let _active = parent.enter();
    let started_at = clock::now_ms();
    let outcome = match parent
        .unless_interrupted(runtime.wait(&id, local, true))
        .await
    {
        Ok(Outcome::Success(text)) => Ok(text),
        Ok(Outcome::Error(error)) => Err(error),
        Ok(Outcome::Cancelled) => Err(Error::new(ErrorKind::AwaitedCancelled { id: id.clone() })),
        Ok(Outcome::Parked) => Err(Error::new(ErrorKind::AwaitedParked { id: id.clone() })),
        Err(error) => Err(error),
    };
    let recorded = match &outcome {
        Ok(text) => StepResult::Output(text.to_string()),
        Err(error) => StepResult::Error(error.to_portable().to_string()),
    };
    let mut row = parent.step_row(position, GET_RESULT, started_at, clock::now_ms(), recorded);
    row.child = Some(id.clone());
    if let Err(error) = parent.write(row).await {
        return parent.fail(error).await;
    }
    decode_output(&id, &outcome?)
}

fn decode_output<R: DeserializeOwned>(id: &str, text: &str) -> Result<R> {
    serde_json::from_str(text)
        .map_err(|error| Error::serialization(&format!("result of workflow `{id}`"), error))
}

/// A workflow about to be started: give it options, then await it for its [`Handle`].
///
/// When the await returns the start is committed: the workflow will finish even if this process dies.
#[must_use = "nothing is started until this is awaited"]
pub struct PendingStart<'a, R> {
    runtime: Arc<Runtime>,
    parent: Option<(Arc<Execution>, Option<i32>)>,
    name: Result<String>,
    input: Result<String>,
    id: Option<String>,
    deadline: Deadline,
    queue: Option<QueueOptions>,
    // The borrow keeps a child start inside its workflow.
    result: Within<'a, R>,
}

type Within<'a, R> = PhantomData<(&'a (), fn() -> R)>;

enum Deadline {
    /// The parent's, if there is a parent.
    Inherit,
    None,
    After(Duration),
    At(SystemTime),
}

#[derive(Default)]
struct QueueOptions {
    name: String,
    priority: i32,
    deduplication_id: Option<String>,
    partition_key: Option<String>,
    delay: Option<Duration>,
    app_version: Option<String>,
}

impl<R> PendingStart<'_, R> {
    pub(crate) fn top_level<I: Serialize>(
        runtime: Arc<Runtime>,
        workflow: &TargetKey,
        input: &I,
    ) -> Self {
        let name = runtime.registry.resolve(workflow);
        Self {
            runtime,
            parent: None,
            name,
            input: encode_input(input),
            id: None,
            deadline: Deadline::Inherit,
            queue: None,
            result: PhantomData,
        }
    }

    pub(crate) fn child<I: Serialize>(
        parent: Arc<Execution>,
        position: Option<i32>,
        workflow: &TargetKey,
        input: &I,
    ) -> Self {
        let start = Self::top_level(parent.runtime.clone(), workflow, input);
        Self {
            parent: Some((parent, position)),
            ..start
        }
    }

    /// The run's id, which is its idempotency key: a second start under it joins the first and its input
    /// is dropped. A random UUID unless given (for a child: the parent's id and the call's position).
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The run and its descendants are cancelled this long after it began to run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Deadline::After(timeout);
        self
    }

    /// A child does not inherit its parent's deadline.
    pub fn no_timeout(mut self) -> Self {
        self.deadline = Deadline::None;
        self
    }

    /// The run and its descendants are cancelled at this instant.
    pub fn deadline(mut self, deadline: SystemTime) -> Self {
        self.deadline = Deadline::At(deadline);
        self
    }

    /// Puts it on a queue instead of running it here at once; whoever works on that queue takes it.
    pub fn queue(mut self, name: impl Into<String>) -> Enqueue<Self> {
        self.queue = Some(QueueOptions {
            name: name.into(),
            ..QueueOptions::default()
        });
        Enqueue(self)
    }

    async fn start(self) -> Result<Handle<R>> {
        let parent = self.parent.clone();
        let Some((parent, position)) = parent else {
            self.runtime.accepting()?;
            let runtime = self.runtime.clone();
            let row = self.row(None)?;
            let id = row.workflow_id.clone();
            return match runtime.start(row).await? {
                Started::Yes(local) => Ok(Handle::new(runtime, id, None, local)),
                // Only a child has a parent that could have been lost.
                Started::ParentLost => Err(Error::not_found("workflow", &id)),
            };
        };
        let name = self.name.clone()?;
        let (position, recorded) = parent.replay_or_misuse(position, &name).await;
        let runtime = self.runtime.clone();
        if let Some(recorded) = recorded {
            let Some(child) = recorded.child else {
                let error = recorded.error.unwrap_or_default();
                return Err(Error::from_portable(
                    serde_json::from_str(&error).unwrap_or(Value::String(error)),
                ));
            };
            return Ok(Handle::new(runtime, child, Some(parent), None));
        }
        let started_at = clock::now_ms();
        let started = match self.row(Some((&parent, position))) {
            Ok(row) => {
                let id = row.workflow_id.clone();
                runtime.start(row).await.map(|started| (started, id))
            }
            Err(error) => Err(error),
        };
        match started {
            Ok((Started::Yes(local), id)) => Ok(Handle::new(runtime, id, Some(parent), local)),
            Ok((Started::ParentLost, _)) => parent.lose().await,
            Err(error) => {
                let recorded = StepResult::Error(error.to_portable().to_string());
                match parent.record(position, &name, started_at, recorded).await {
                    Ok(()) => Err(error),
                    Err(_) => parent.fail(error).await,
                }
            }
        }
    }

    fn row(self, parent: Option<(&Arc<Execution>, i32)>) -> Result<StartRow> {
        let runtime = &self.runtime;
        let inherited = parent.and_then(|(parent, _)| parent.deadline_ms());
        let (timeout_ms, deadline_ms) = match self.deadline {
            Deadline::Inherit => (None, inherited),
            Deadline::None => (None, None),
            Deadline::After(timeout) => (Some(clock::millis(timeout)), None),
            Deadline::At(instant) => (
                None,
                Some(clock::millis(
                    instant.duration_since(UNIX_EPOCH).unwrap_or_default(),
                )),
            ),
        };
        let id = match (self.id, parent) {
            (Some(id), _) if id.trim().is_empty() => {
                return Err(Error::config("id", "a workflow id must not be blank"));
            }
            (Some(id), _) => id,
            (None, Some((parent, position))) => format!("{}-{position}", parent.id()),
            (None, None) => Uuid::new_v4().to_string(),
        };
        let now = clock::now_ms();
        let mut row = StartRow {
            workflow_id: id,
            status: Status::Pending,
            name: self.name?,
            inputs: self.input?,
            token: Uuid::new_v4().to_string(),
            queue: None,
            app_version: Some(runtime.app_version().to_owned()),
            executor_id: runtime.executor_id().to_owned(),
            timeout_ms,
            // The budget of a queued run begins when it is taken from the queue.
            deadline_ms: deadline_ms.or_else(|| {
                self.queue
                    .is_none()
                    .then_some(timeout_ms)
                    .flatten()
                    .map(|timeout| now.saturating_add(timeout))
            }),
            delay_until_ms: None,
            priority: 0,
            deduplication_id: None,
            partition_key: None,
            parent: parent.map(|(parent, position)| ParentRow {
                workflow_id: parent.id().to_owned(),
                token: parent.token().to_owned(),
                position,
                started_at: now,
            }),
        };
        if let Some(queue) = self.queue {
            queue.apply(&mut row, now)?;
        } else if runtime.registry.get(&row.name).is_none() {
            // Nobody here could run it, and a direct start is nobody else's.
            return Err(Error::new(ErrorKind::NotRegistered { name: row.name }));
        }
        Ok(row)
    }
}

impl QueueOptions {
    fn apply(self, row: &mut StartRow, now: i64) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(Error::config(
                "queue",
                "the name of a queue must not be blank",
            ));
        }
        if self.priority < 0 {
            return Err(Error::config("priority", "it is 0 (first) or greater"));
        }
        if self.partition_key.is_some() && self.deduplication_id.is_some() {
            return Err(Error::config(
                "partition_key",
                "it cannot be combined with a deduplication id",
            ));
        }
        row.status = if self.delay.is_some() {
            Status::Delayed
        } else {
            Status::Enqueued
        };
        row.delay_until_ms = self
            .delay
            .map(|delay| now.saturating_add(clock::millis(delay)));
        row.queue = Some(self.name);
        row.priority = self.priority;
        row.deduplication_id = self.deduplication_id;
        row.partition_key = self.partition_key;
        if self.app_version.is_some() {
            row.app_version = self.app_version;
        }
        Ok(())
    }
}

impl<'a, R: Send + 'a> IntoFuture for PendingStart<'a, R> {
    type Output = Result<Handle<R>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl<R> fmt::Debug for PendingStart<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingStart")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A start that goes to a queue, with the options only queues have. `P` is a [`PendingStart`] or a
/// [`PendingRun`].
#[must_use = "nothing is enqueued until this is awaited"]
#[derive(Debug)]
pub struct Enqueue<P>(P);

trait Queued {
    fn options(&mut self) -> &mut QueueOptions;
}

impl<R> Queued for PendingStart<'_, R> {
    fn options(&mut self) -> &mut QueueOptions {
        self.queue.get_or_insert_default()
    }
}

impl<R> Queued for PendingRun<'_, R> {
    fn options(&mut self) -> &mut QueueOptions {
        self.start.options()
    }
}

#[allow(private_bounds)]
impl<P: Queued> Enqueue<P> {
    /// Lower numbers first; 0, the default, is first of all.
    pub fn priority(mut self, priority: i32) -> Self {
        self.0.options().priority = priority;
        self
    }

    /// Refuses the start ([`ErrorKind::Deduplicated`]) while an active run of the queue has this id.
    pub fn deduplication_id(mut self, id: impl Into<String>) -> Self {
        self.0.options().deduplication_id = Some(id.into());
        self
    }

    /// The partition of a partitioned queue.
    pub fn partition_key(mut self, key: impl Into<String>) -> Self {
        self.0.options().partition_key = Some(key.into());
        self
    }

    /// Keeps it from starting for this long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.0.options().delay = Some(delay);
        self
    }

    /// Only executors of this version may take it; this process's own version unless given.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.0.options().app_version = Some(version.into());
        self
    }
}

impl<P: IntoFuture> IntoFuture for Enqueue<P> {
    type Output = P::Output;
    type IntoFuture = P::IntoFuture;

    fn into_future(self) -> Self::IntoFuture {
        self.0.into_future()
    }
}

/// A workflow about to be started and waited for: [`PendingStart`] and the result in one await.
#[must_use = "nothing is started until this is awaited"]
pub struct PendingRun<'a, R> {
    start: PendingStart<'a, R>,
    /// Position of the wait; `None` outside of a workflow and inside a step.
    result_position: Option<i32>,
}

impl<'a, R> PendingRun<'a, R> {
    pub(crate) fn new(start: PendingStart<'a, R>, result_position: Option<i32>) -> Self {
        Self {
            start,
            result_position,
        }
    }

    /// See [`PendingStart::id`].
    pub fn id(self, id: impl Into<String>) -> Self {
        Self {
            start: self.start.id(id),
            ..self
        }
    }

    /// See [`PendingStart::timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            start: self.start.timeout(timeout),
            ..self
        }
    }

    /// See [`PendingStart::no_timeout`].
    pub fn no_timeout(self) -> Self {
        Self {
            start: self.start.no_timeout(),
            ..self
        }
    }

    /// See [`PendingStart::deadline`].
    pub fn deadline(self, deadline: SystemTime) -> Self {
        Self {
            start: self.start.deadline(deadline),
            ..self
        }
    }

    /// See [`PendingStart::queue`].
    pub fn queue(self, name: impl Into<String>) -> Enqueue<Self> {
        Enqueue(Self {
            start: self.start.queue(name).0,
            ..self
        })
    }
}

impl<'a, R: DeserializeOwned + Send + 'static> IntoFuture for PendingRun<'a, R> {
    type Output = Result<R>;
    type IntoFuture = BoxFuture<'a, Result<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let position = self.result_position;
            let handle = self.start.start().await?;
            let parent = handle.parent.zip(position);
            result(handle.runtime, handle.id, parent, handle.local).await
        })
    }
}

impl<R> fmt::Debug for PendingRun<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingRun").field(&self.start).finish()
    }
}
