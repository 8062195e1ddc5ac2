//! Looking at runs and changing them from outside: list, cancel, resume, fork, delete.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::status::Status;
use crate::system_database::{self as db, ForkPoint, Listing, Scope, WorkflowFilter};
use crate::transaction::from_database;

/// A run as listed. Times are epoch milliseconds by the database's clock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkflowInfo {
    /// Its id.
    pub id: String,
    /// Name of the workflow.
    pub name: String,
    /// Where it is in its life.
    pub status: Status,
    /// Executor that runs or last ran it.
    pub executor_id: Option<String>,
    /// Code version it belongs to.
    pub app_version: Option<String>,
    /// Queue it waits in or came from.
    pub queue: Option<String>,
    /// How often it was started or taken from a queue.
    pub attempts: i64,
    /// Run that started it.
    pub parent_id: Option<String>,
    /// What it was started with to be found by.
    pub attributes: Option<Value>,
    /// User on whose behalf it runs.
    pub authenticated_user: Option<String>,
    /// Schedule that started it.
    pub schedule: Option<String>,
    /// Run it is a fork of.
    pub forked_from: Option<String>,
    /// When it was started or enqueued.
    pub created_at: i64,
    /// When its status last changed.
    pub updated_at: i64,
    /// When it ended.
    pub completed_at: Option<i64>,
    /// Its input, if it was asked for and is readable here.
    pub input: Option<Value>,
    /// Its result, if it was asked for and there is one.
    pub output: Option<Value>,
    /// Its error, if it was asked for and there is one.
    pub error: Option<Error>,
}

impl WorkflowInfo {
    /// The run of this id, with its payloads.
    pub(crate) async fn find(runtime: &Runtime, id: &str) -> Result<Self> {
        let row = runtime
            .db
            .system
            .get_workflow(id, true, true)
            .await
            .map_err(from_database)?;
        let row = row.ok_or_else(|| Error::not_found("workflow", id))?;
        Self::from_row(readable_workflow(runtime, row).await)
    }

    fn from_row(row: db::WorkflowRow) -> Result<Self> {
        Ok(Self {
            status: row.status.parse()?,
            id: row.workflow_id,
            name: row.name.unwrap_or_default(),
            executor_id: row.executor_id,
            app_version: row.application_version,
            queue: row.queue_name,
            attempts: row.recovery_attempts,
            parent_id: row.parent_workflow_id,
            attributes: row.attributes.as_deref().map(json),
            authenticated_user: row.authenticated_user,
            schedule: row.schedule_name,
            forked_from: row.forked_from,
            created_at: row.created_at,
            updated_at: row.updated_at,
            completed_at: row.completed_at,
            input: row.inputs.as_deref().map(json),
            output: row.output.as_deref().map(json),
            error: row
                .error
                .as_deref()
                .map(|error| Error::from_portable(json(error))),
        })
    }
}

/// A recorded step. Times are epoch milliseconds by the clock of the process that ran it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StepInfo {
    /// Position in the workflow, from 0.
    pub position: i64,
    /// The step's name; the engine's own are called `DBOS.…`.
    pub name: String,
    /// What it yielded.
    pub output: Option<Value>,
    /// The error it ended with.
    pub error: Option<Error>,
    /// Run that was started or awaited.
    pub child_id: Option<String>,
    /// When it began.
    pub started_at: Option<i64>,
    /// When it ended; for a sleep, when it ends.
    pub completed_at: Option<i64>,
}

impl StepInfo {
    /// The steps of a run; an unknown run is an error.
    pub(crate) async fn list(runtime: &Runtime, id: &str) -> Result<Vec<Self>> {
        let rows = runtime.db.system.list_steps(id, true, None, None).await;
        let rows = rows.map_err(from_database)?;
        if rows.is_empty() {
            runtime.status(id).await?;
        }
        let mut steps = Vec::with_capacity(rows.len());
        for mut row in rows {
            row.output = readable(runtime, row.output).await;
            row.error = readable(runtime, row.error).await;
            steps.push(Self::from(row));
        }
        Ok(steps)
    }
}

/// A payload decoded if this program can; else as it is, for it is only looked at.
async fn readable(runtime: &Runtime, text: Option<String>) -> Option<String> {
    let decoded = runtime.payloads().decode_some(text.clone()).await;
    decoded.unwrap_or(text)
}

async fn readable_workflow(runtime: &Runtime, row: db::WorkflowRow) -> db::WorkflowRow {
    db::WorkflowRow {
        inputs: readable(runtime, row.inputs).await,
        output: readable(runtime, row.output).await,
        error: readable(runtime, row.error).await,
        ..row
    }
}

impl From<db::StepRow> for StepInfo {
    fn from(row: db::StepRow) -> Self {
        Self {
            position: row.function_id,
            name: row.function_name,
            output: row.output.as_deref().map(json),
            error: row
                .error
                .as_deref()
                .map(|error| Error::from_portable(json(error))),
            child_id: row.child_workflow_id,
            started_at: row.started_at,
            completed_at: row.completed_at,
        }
    }
}

/// A payload as JSON; what is not JSON (another language's own format) as text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A listing of runs of this application; await it. Conditions add up.
#[must_use = "nothing is listed until this is awaited"]
pub struct Workflows<'a> {
    runtime: &'a Arc<Runtime>,
    filter: WorkflowFilter,
    listing: Listing,
}

impl<'a> Workflows<'a> {
    pub(crate) fn new(runtime: &'a Arc<Runtime>) -> Self {
        let filter = WorkflowFilter {
            scope: Scope::of(runtime.app_name()),
            ..WorkflowFilter::default()
        };
        Self {
            runtime,
            filter,
            listing: Listing::default(),
        }
    }

    /// Of all applications that share the database, not only of this one.
    pub fn of_all_applications(mut self) -> Self {
        self.filter.scope = Scope::of("");
        self
    }

    /// Runs of this workflow; several calls name several.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.filter.names.push(name.into());
        self
    }

    /// Runs in this status; several calls name several.
    pub fn status(mut self, status: Status) -> Self {
        self.filter.statuses.push(status.as_str().to_owned());
        self
    }

    /// Runs whose id begins so.
    pub fn id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.filter.id_prefixes.push(prefix.into());
        self
    }

    /// Runs of this code version.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.filter.application_versions.push(version.into());
        self
    }

    /// Runs of this executor.
    pub fn executor_id(mut self, id: impl Into<String>) -> Self {
        self.filter.executor_ids.push(id.into());
        self
    }

    /// Runs of this queue.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.filter.queue_names.push(name.into());
        self
    }

    /// Children of this run.
    pub fn parent(mut self, id: impl Into<String>) -> Self {
        self.filter.parent_workflow_ids.push(id.into());
        self
    }

    /// Forks of this run.
    pub fn forked_from(mut self, id: impl Into<String>) -> Self {
        self.filter.forked_from.push(id.into());
        self
    }

    /// Created then or later.
    pub fn created_after(mut self, instant: SystemTime) -> Self {
        self.filter.created_from = Some(millis(instant));
        self
    }

    /// Created then or earlier.
    pub fn created_before(mut self, instant: SystemTime) -> Self {
        self.filter.created_to = Some(millis(instant));
        self
    }

    /// Ended then or later.
    pub fn completed_after(mut self, instant: SystemTime) -> Self {
        self.filter.completed_from = Some(millis(instant));
        self
    }

    /// Ended then or earlier.
    pub fn completed_before(mut self, instant: SystemTime) -> Self {
        self.filter.completed_to = Some(millis(instant));
        self
    }

    /// Taken from their queue then or later.
    pub fn dequeued_after(mut self, instant: SystemTime) -> Self {
        self.filter.dequeued_from = Some(millis(instant));
        self
    }

    /// Taken from their queue then or earlier.
    pub fn dequeued_before(mut self, instant: SystemTime) -> Self {
        self.filter.dequeued_to = Some(millis(instant));
        self
    }

    /// The run of this id, of whatever application; several calls name several.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.filter.ids.push(id.into());
        self.filter.scope = Scope::All;
        self
    }

    /// Runs on behalf of this user.
    pub fn authenticated_user(mut self, user: impl Into<String>) -> Self {
        self.filter.authenticated_users.push(user.into());
        self
    }

    /// Runs that this schedule started.
    pub fn schedule(mut self, name: impl Into<String>) -> Self {
        self.filter.schedule_names.push(name.into());
        self
    }

    /// Runs whose attributes contain this one.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let attributes = self.filter.attributes.get_or_insert_default();
        attributes.insert(key.into(), value.into());
        self
    }

    /// Runs in which a step of this name failed.
    pub fn failed_at(mut self, step: impl Into<String>) -> Self {
        self.filter.failed_steps.push(step.into());
        self
    }

    /// Only forks, or only runs that are none.
    pub fn is_fork(mut self, is_fork: bool) -> Self {
        self.filter.is_fork = Some(is_fork);
        self
    }

    /// Only children, or only runs that are none.
    pub fn has_parent(mut self, has_parent: bool) -> Self {
        self.filter.has_parent = Some(has_parent);
        self
    }

    /// Only what is on a queue or was taken from one and runs.
    pub fn queues_only(mut self) -> Self {
        self.filter.queues_only = true;
        self
    }

    /// Newest first; oldest first otherwise.
    pub fn newest_first(mut self) -> Self {
        self.listing.descending = true;
        self
    }

    /// At most this many.
    pub fn limit(mut self, limit: u32) -> Self {
        self.listing.limit = Some(i64::from(limit));
        self
    }

    /// Without the first so many.
    pub fn offset(mut self, offset: u32) -> Self {
        self.listing.offset = Some(i64::from(offset));
        self
    }

    /// With inputs, results and errors.
    pub fn with_payloads(mut self) -> Self {
        self.listing.load_input = true;
        self.listing.load_output = true;
        self
    }
}

impl<'a> IntoFuture for Workflows<'a> {
    type Output = Result<Vec<WorkflowInfo>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let rows = self
                .runtime
                .db
                .system
                .list_workflows(&self.filter, &self.listing)
                .await;
            let mut runs = Vec::new();
            for row in rows.map_err(from_database)? {
                let row = readable_workflow(self.runtime, row).await;
                runs.push(WorkflowInfo::from_row(row)?);
            }
            Ok(runs)
        })
    }
}

fn millis(instant: SystemTime) -> i64 {
    clock::millis(instant.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A cancellation about to happen; await it. Yields the number of runs cancelled.
#[must_use = "nothing is cancelled until this is awaited"]
pub struct Cancel<'a> {
    runtime: &'a Arc<Runtime>,
    ids: Vec<String>,
    children: bool,
}

impl<'a> Cancel<'a> {
    pub(crate) fn new(runtime: &'a Arc<Runtime>, ids: Vec<String>) -> Self {
        Self {
            runtime,
            ids,
            children: false,
        }
    }

    /// All descendants too, also those of a run that has ended.
    pub fn with_children(mut self) -> Self {
        self.children = true;
        self
    }
}

impl<'a> IntoFuture for Cancel<'a> {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.runtime.cancel(&self.ids, self.children).await })
    }
}

/// A run about to be resumed; await it.
#[must_use = "nothing is resumed until this is awaited"]
pub struct Resume<'a> {
    runtime: &'a Arc<Runtime>,
    ids: Vec<String>,
    queue: Option<String>,
}

impl<'a> Resume<'a> {
    pub(crate) fn new(runtime: &'a Arc<Runtime>, ids: Vec<String>) -> Self {
        Self {
            runtime,
            ids,
            queue: None,
        }
    }

    /// On this queue; otherwise it runs as soon as any executor of its version sees it.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queue = Some(name.into());
        self
    }
}

impl<'a> IntoFuture for Resume<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let resumed = self
                .runtime
                .db
                .system
                .resume_workflows(&self.ids, self.queue.as_deref())
                .await;
            resumed.map_err(from_database)?;
            self.runtime.wake_all();
            Ok(())
        })
    }
}

/// A deletion about to happen; await it. Yields the number of runs deleted.
#[must_use = "nothing is deleted until this is awaited"]
pub struct Delete<'a> {
    runtime: &'a Arc<Runtime>,
    ids: Vec<String>,
    children: bool,
}

impl<'a> Delete<'a> {
    pub(crate) fn new(runtime: &'a Arc<Runtime>, ids: Vec<String>) -> Self {
        Self {
            runtime,
            ids,
            children: false,
        }
    }

    /// All descendants too.
    pub fn with_children(mut self) -> Self {
        self.children = true;
        self
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let deleted = self
                .runtime
                .db
                .system
                .delete_workflows(&self.ids, self.children)
                .await;
            let deleted = deleted.map_err(from_database)?;
            self.runtime.wake_all();
            Ok(deleted)
        })
    }
}

/// Where a fork begins to run anew: a position, or the name of a step (its last occurrence).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepPoint {
    /// A position, from 0.
    Position(u32),
    /// A name.
    Name(String),
}

impl From<u32> for StepPoint {
    fn from(position: u32) -> Self {
        Self::Position(position)
    }
}

impl From<&str> for StepPoint {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for StepPoint {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// A fork about to be made; await it for the new run's id. From the first step unless told otherwise.
#[must_use = "nothing is forked until this is awaited"]
pub struct Fork<'a> {
    runtime: &'a Arc<Runtime>,
    source: String,
    point: ForkPoint,
    new_id: Option<String>,
    options: db::ForkOptions,
}

impl<'a> Fork<'a> {
    pub(crate) fn new(runtime: &'a Arc<Runtime>, source: String) -> Self {
        let options = db::ForkOptions::default();
        Self {
            runtime,
            source,
            point: ForkPoint::Step(0),
            new_id: None,
            options,
        }
    }

    /// Keeps what was recorded before this step and runs from there.
    pub fn from_step(mut self, step: impl Into<StepPoint>) -> Self {
        self.point = match step.into() {
            StepPoint::Position(position) => ForkPoint::Step(i64::from(position)),
            StepPoint::Name(name) => ForkPoint::StepNamed(name),
        };
        self
    }

    /// Runs from the last step that failed, or from the last one if none did.
    pub fn from_failure(mut self) -> Self {
        self.point = ForkPoint::LastFailure;
        self
    }

    /// The new run's id; a random one unless given.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.new_id = Some(id.into());
        self
    }

    /// Code version of the fork; the source's unless given.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.options.application_version = Some(version.into());
        self
    }

    /// Queue of the fork; it runs at once unless given.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.options.queue_name = Some(name.into());
        self
    }

    /// Partition of that queue.
    pub fn partition_key(mut self, key: impl Into<String>) -> Self {
        self.options.queue_partition_key = Some(key.into());
        self
    }

    /// The fork finds this run where the source had started the child `recorded`: one that was forked itself, say.
    pub fn replace_child(mut self, recorded: impl Into<String>, with: impl Into<String>) -> Self {
        let replacement = (recorded.into(), with.into());
        self.options.replacement_children.push(replacement);
        self
    }

    /// How long the fork may run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout_ms = Some(clock::millis(timeout));
        self
    }

    async fn make(self) -> Result<String> {
        let system = &self.runtime.db.system;
        let app = self.runtime.app_name();
        let fork = db::Fork {
            workflow_id: self.source,
            new_workflow_id: self.new_id,
            options: self.options,
            ..db::Fork::default()
        };
        let ids = system.fork_workflow_at(fork, &self.point, app).await;
        let id = ids.map_err(from_database)?.into_iter().next();
        self.runtime.wake_all();
        id.ok_or_else(|| Error::misuse("the fork has no id"))
    }
}

impl<'a> IntoFuture for Fork<'a> {
    type Output = Result<String>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}

macro_rules! debug_as_name {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

debug_as_name!(Workflows, Cancel, Resume, Delete, Fork);
