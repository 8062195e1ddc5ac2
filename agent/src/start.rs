//! Starting workflows: directly, on a queue, many at once.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Execution, StepResult};
use crate::handle::Handle;
use crate::recorder::{Caller, ParentRow, StartRow};
use crate::runtime::{Runtime, Started};
use crate::status::Status;
use crate::transaction::{Tx, from_database};
use crate::underway::Doing;
use crate::workflow::{TargetKey, encode_input};

/// What a start does when a run of its id exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// Gives a handle to that run; the input of this start is dropped.
    #[default]
    Join,
    /// Is an error, [`ErrorKind::WorkflowIdInUse`].
    Reject,
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
    attributes: Option<Result<String>>,
    caller: Option<Caller>,
    on_conflict: OnConflict,
    queue: Option<QueueOptions>,
    // The borrow keeps a child start inside its workflow.
    result: Within<'a, R>,
}

type Within<'a, R> = PhantomData<(&'a (), fn() -> R)>;

#[derive(Clone)]
enum Deadline {
    /// The parent's, if there is a parent.
    Inherit,
    None,
    After(Duration),
    At(SystemTime),
}

#[derive(Default, Clone)]
pub(crate) struct QueueOptions {
    name: String,
    priority: i32,
    deduplication_id: Option<String>,
    return_existing: bool,
    partition_key: Option<String>,
    delay: Option<Duration>,
    app_version: Option<String>,
    application: Option<String>,
}

impl<'a, R> PendingStart<'a, R> {
    pub(crate) fn top_level<I: Serialize>(
        runtime: Arc<Runtime>,
        workflow: &TargetKey,
        input: &I,
    ) -> Self {
        let name = runtime.registry.resolve(workflow);
        Self::encoded(runtime, name, encode_input(input))
    }

    /// A start whose input is encoded already.
    pub(crate) fn encoded(
        runtime: Arc<Runtime>,
        name: Result<String>,
        input: Result<String>,
    ) -> Self {
        Self {
            runtime,
            parent: None,
            name,
            input,
            id: None,
            deadline: Deadline::Inherit,
            attributes: None,
            caller: None,
            on_conflict: OnConflict::Join,
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
    /// is dropped. A UUID unless given, of version 7, which begins with the time (for a child: the parent's id
    /// and the call's position).
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    fn each(mut self, change: impl Fn(&mut PendingStart<'a, R>)) -> Self {
        change(&mut self);
        self
    }

    /// The row of a debounced run, which waits for so long and may be pushed back until `end`.
    pub(crate) fn debounced(
        mut self,
        queue: &str,
        deduplication_id: &str,
        wait: Duration,
        end: Option<i64>,
    ) -> Result<StartRow> {
        self.queue = Some(QueueOptions {
            name: queue.to_owned(),
            deduplication_id: Some(deduplication_id.to_owned()),
            delay: Some(wait),
            ..QueueOptions::default()
        });
        let row = self.row(None)?;
        // The clock may have moved on since the end was reckoned.
        let until = row
            .delay_until_ms
            .map(|at| end.map_or(at, |end| at.min(end)));
        Ok(StartRow {
            delay_until_ms: until,
            debounce: Some(end),
            ..row
        })
    }

    async fn start(self) -> Result<Handle<R>> {
        let return_existing = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.return_existing);
        let Some((parent, position)) = self.parent.clone() else {
            self.runtime.accepting()?;
            let runtime = self.runtime.clone();
            let row = self.row(None)?;
            return match commit(&runtime, row, return_existing).await? {
                Committed::Here(id, Started::Yes(local)) => {
                    Ok(Handle::new(runtime, id, None, local))
                }
                Committed::Holder(id) => Ok(Handle::new(runtime, id, None, None)),
                // Only a child has a parent that could have been lost.
                Committed::Here(id, Started::ParentLost) => Err(Error::not_found("workflow", &id)),
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
        let started_at = parent.now_ms();
        let committed = {
            let _active = parent.enter(position, Doing::Checkpoint);
            match self.row(Some((&parent, position))) {
                Ok(row) => commit(&runtime, row, return_existing).await,
                Err(error) => Err(error),
            }
        };
        match committed {
            Ok(Committed::Here(id, Started::Yes(local))) => {
                Ok(Handle::new(runtime, id, Some(parent), local))
            }
            Ok(Committed::Here(_, Started::ParentLost)) => parent.lose().await,
            Ok(Committed::Holder(id)) => {
                let now = parent.now_ms();
                let mut row =
                    parent.step_row(position, &name, started_at, now, StepResult::Nothing);
                row.child = Some(id.clone());
                match parent.write(row).await {
                    Ok(()) => Ok(Handle::new(runtime, id, Some(parent), None)),
                    Err(error) => parent.fail(error).await,
                }
            }
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
        let id_is_new = self.id.is_none() && parent.is_none();
        let id = match (self.id, parent) {
            (Some(id), _) if id.trim().is_empty() => {
                return Err(Error::config("id", "a workflow id must not be blank"));
            }
            (Some(id), _) => id,
            (None, Some((parent, position))) => format!("{}-{position}", parent.id()),
            (None, None) => Uuid::now_v7().to_string(),
        };
        let now = runtime.clock().now_ms();
        let caller = self
            .caller
            .or_else(|| parent.map(|(parent, _)| parent.caller().clone()));
        let mut row = StartRow {
            workflow_id: id,
            id_is_new,
            status: Status::Pending,
            name: self.name?,
            inputs: self.input?,
            token: runtime.new_token(),
            queue: None,
            // A client has none: the latest version takes the run.
            app_version: Some(runtime.app_version().to_owned())
                .filter(|version| !version.is_empty()),
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
            attributes: runtime.tracing().carried(
                self.attributes.transpose()?,
                parent.map(|(parent, _)| &**parent),
            )?,
            caller: caller.unwrap_or_default(),
            reject: self.on_conflict == OnConflict::Reject,
            application: None,
            schedule: None,
            debounce: None,
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

/// What came of committing a start.
enum Committed {
    /// A run of the start's id.
    Here(String, Started),
    /// The run that holds the start's deduplication id.
    Holder(String),
}

/// Commits a start; if its deduplication id is held and the caller takes the holder for it, finds that.
async fn commit(runtime: &Arc<Runtime>, row: StartRow, return_existing: bool) -> Result<Committed> {
    let id = row.workflow_id.clone();
    loop {
        let error = match runtime.start(row.clone()).await {
            Ok(started) => return Ok(Committed::Here(id, started)),
            Err(error) => error,
        };
        let ErrorKind::Deduplicated {
            queue,
            deduplication_id,
        } = error.kind()
        else {
            return Err(error);
        };
        if !return_existing {
            return Err(error);
        }
        let holder = runtime
            .db
            .system
            .deduplication_holder(queue, deduplication_id)
            .await
            .map_err(from_database)?;
        match holder {
            Some(holder) => return Ok(Committed::Holder(holder)),
            // It was released a moment ago: the start may succeed now.
            None => continue,
        }
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
        match (self.application, self.app_version) {
            // What the other application runs is for it to say: its latest version takes the run.
            (Some(application), version) => {
                row.app_version = version;
                row.application = Some(application);
            }
            (None, Some(version)) => row.app_version = Some(version),
            (None, None) => {}
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

    fn each(mut self, change: impl Fn(&mut PendingStart<'a, R>)) -> Self {
        change(&mut self.start);
        self
    }
}

impl<'a, R: DeserializeOwned + Send + 'static> IntoFuture for PendingRun<'a, R> {
    type Output = Result<R>;
    type IntoFuture = BoxFuture<'a, Result<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let position = self.result_position;
            self.start.start().await?.result_at(position).await
        })
    }
}

impl<R> fmt::Debug for PendingRun<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingRun").field(&self.start).finish()
    }
}

/// Workflows about to be started together, in as few commits as possible; await it for their handles, in
/// the order of their inputs.
#[must_use = "nothing is started until this is awaited"]
pub struct PendingStartAll<'a, R> {
    starts: Vec<PendingStart<'a, R>>,
}

impl<'a, R> PendingStartAll<'a, R> {
    pub(crate) fn new(starts: Vec<PendingStart<'a, R>>) -> Self {
        Self { starts }
    }

    fn each(mut self, change: impl Fn(&mut PendingStart<'a, R>)) -> Self {
        self.starts.iter_mut().for_each(change);
        self
    }
}

impl<'a, R: DeserializeOwned + Send + 'static> PendingStartAll<'a, R> {
    /// Starts all and waits for all: one result each, in the order of their inputs.
    pub fn results(self) -> BoxFuture<'a, Vec<Result<R>>> {
        let runs = self.starts.into_iter().map(|start| {
            let position = start
                .parent
                .as_ref()
                .and_then(|(parent, _)| parent.take_position());
            PendingRun::new(start, position).into_future()
        });
        Box::pin(join_all(runs.collect::<Vec<_>>()))
    }
}

impl<'a, R: Send + 'a> IntoFuture for PendingStartAll<'a, R> {
    type Output = Result<Vec<Handle<R>>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let starts: Vec<_> = self
            .starts
            .into_iter()
            .map(IntoFuture::into_future)
            .collect();
        Box::pin(async move { join_all(starts).await.into_iter().collect() })
    }
}

impl<R> fmt::Debug for PendingStartAll<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingStartAll")
            .field(&self.starts.len())
            .finish()
    }
}

macro_rules! start_options {
    ($($type:ident),+) => {$(
        impl<'a, R> $type<'a, R> {
            /// The run and its descendants are cancelled this long after it began to run.
            pub fn timeout(self, timeout: Duration) -> Self {
                self.each(|start| start.deadline = Deadline::After(timeout))
            }

            /// A child does not inherit its parent's deadline.
            pub fn no_timeout(self) -> Self {
                self.each(|start| start.deadline = Deadline::None)
            }

            /// The run and its descendants are cancelled at this instant.
            pub fn deadline(self, deadline: SystemTime) -> Self {
                self.each(|start| start.deadline = Deadline::At(deadline))
            }

            /// Attributes of the run, by which it can be found: anything that is a JSON object.
            pub fn attributes<T: Serialize + ?Sized>(self, attributes: &T) -> Self {
                let attributes = encode_attributes(attributes);
                self.each(|start| start.attributes = Some(attributes.clone()))
            }

            /// The user on whose behalf it runs, and the roles that user has. A child has its parent's
            /// unless given.
            pub fn authenticated_as<T: Into<String>>(
                self,
                user: impl Into<String>,
                roles: impl IntoIterator<Item = T>,
            ) -> Self {
                let roles: Vec<String> = roles.into_iter().map(Into::into).collect();
                let caller = Caller {
                    user: Some(user.into()),
                    assumed_role: None,
                    roles: (!roles.is_empty()).then(|| Value::from(roles).to_string()),
                };
                self.each(|start| start.caller = Some(caller.clone()))
            }

            /// What happens when a run of the id exists: it is joined unless told otherwise.
            pub fn on_conflict(self, on_conflict: OnConflict) -> Self {
                self.each(|start| start.on_conflict = on_conflict)
            }

            /// Puts it on a queue instead of running it here at once; whoever works on that queue takes it.
            pub fn queue(self, name: impl Into<String>) -> Enqueue<Self> {
                let options = QueueOptions {
                    name: name.into(),
                    ..QueueOptions::default()
                };
                Enqueue(self.each(|start| start.queue = Some(options.clone())))
            }
        }

        impl<R> Queued for $type<'_, R> {
            fn options(self, change: impl Fn(&mut QueueOptions)) -> Self {
                self.each(|start| change(start.queue.get_or_insert_default()))
            }
        }
    )+};
}

start_options!(PendingStart, PendingRun, PendingStartAll);

/// Attributes as JSON text, which must be an object.
fn encode_attributes<T: Serialize + ?Sized>(attributes: &T) -> Result<String> {
    match serde_json::to_value(attributes) {
        Ok(object @ Value::Object(_)) => Ok(object.to_string()),
        Ok(_) => Err(Error::config(
            "attributes",
            "they are a JSON object: a map or a struct",
        )),
        Err(error) => Err(Error::serialization("attributes", error)),
    }
}

/// A start that goes to a queue, with the options only queues have. `P` is a [`PendingStart`], a
/// [`PendingRun`] or a [`PendingStartAll`].
#[must_use = "nothing is enqueued until this is awaited"]
#[derive(Debug)]
pub struct Enqueue<P>(P);

trait Queued: Sized {
    fn options(self, change: impl Fn(&mut QueueOptions)) -> Self;
}

#[allow(private_bounds)]
impl<P: Queued> Enqueue<P> {
    fn each(self, change: impl Fn(&mut QueueOptions)) -> Self {
        Self(self.0.options(change))
    }

    /// Lower numbers first; 0, the default, is first of all.
    pub fn priority(self, priority: i32) -> Self {
        self.each(|options| options.priority = priority)
    }

    /// Refuses the start ([`ErrorKind::Deduplicated`]) while an active run of the queue has this id.
    pub fn deduplication_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.each(|options| options.deduplication_id = Some(id.clone()))
    }

    /// Gives a handle to the run that holds the deduplication id, instead of refusing the start.
    pub fn return_existing(self) -> Self {
        self.each(|options| options.return_existing = true)
    }

    /// The partition of a partitioned queue.
    pub fn partition_key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.each(|options| options.partition_key = Some(key.clone()))
    }

    /// Keeps it from starting for this long.
    pub fn delay(self, delay: Duration) -> Self {
        self.each(|options| options.delay = Some(delay))
    }

    /// Only executors of this version may take it; this process's own version unless given.
    pub fn app_version(self, version: impl Into<String>) -> Self {
        let version = version.into();
        self.each(|options| options.app_version = Some(version.clone()))
    }

    /// It is another application's workflow, to be run by the latest version of that application.
    pub fn application(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.each(|options| options.application = Some(name.clone()))
    }
}

impl<R> Enqueue<PendingStart<'_, R>> {
    /// Enqueues it in a transaction of the application's system database: it is started if that commits, and
    /// only then. A deduplication id that is held fails the transaction. Not for children: a workflow starts
    /// those itself.
    ///
    /// ```no_run
    /// # async fn ship(ctx: segno::Ctx, order: i64) -> segno::Result<()> { Ok(()) }
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.db().transaction(|tx| Box::pin(async {
    ///     tx.query("INSERT INTO orders (id) VALUES (7)").execute().await?;
    ///     app.start(ship, 7).id("ship-7").queue("shipping").in_transaction(tx).await
    /// }))
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_transaction(self, tx: &mut Tx<'_>) -> Result<Handle<R>> {
        if self.0.parent.is_some() {
            let message =
                "a workflow starts its children itself; `in_transaction` is for `app.start(..)`";
            return Err(Error::misuse(message));
        }
        let runtime = self.0.runtime.clone();
        runtime.accepting()?;
        let mut row = self.0.row(None)?;
        row.inputs = runtime.payloads().encode_input(row.inputs).await?;
        tx.enqueue(&row, runtime.app_name()).await?;
        Ok(Handle::new(runtime, row.workflow_id, None, None))
    }
}

impl<'a, R: DeserializeOwned + Send + 'static> Enqueue<PendingStartAll<'a, R>> {
    /// Enqueues all and waits for all: one result each, in the order of their inputs.
    pub fn results(self) -> BoxFuture<'a, Vec<Result<R>>> {
        self.0.results()
    }
}

impl<P: IntoFuture> IntoFuture for Enqueue<P> {
    type Output = P::Output;
    type IntoFuture = P::IntoFuture;

    fn into_future(self) -> Self::IntoFuture {
        self.0.into_future()
    }
}
