//! What operators do besides cancelling and resuming: rewind, move runs between databases, count, decide
//! on versions.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::app::Segno;
use crate::error::{Error, Result};
use crate::manage::{StepInfo, StepPoint};
use crate::runtime::Runtime;
use crate::system_database::{self as db, Aggregate, Figure, Scope, WorkflowFilter, WorkflowGroup};
use crate::transaction::from_database;

/// A rewind about to happen; await it. From the first step unless told otherwise.
#[must_use = "nothing is rewound until this is awaited"]
pub struct Rewind<'a> {
    runtime: &'a Arc<Runtime>,
    id: String,
    point: Point,
    app_version: Option<String>,
    queue: Option<String>,
}

enum Point {
    Step(StepPoint),
    Failure,
}

impl Rewind<'_> {
    /// Keeps what was recorded before this step and runs from there.
    pub fn to_step(mut self, step: impl Into<StepPoint>) -> Self {
        self.point = Point::Step(step.into());
        self
    }

    /// Runs from the last step that failed, or from the last one if none did.
    pub fn to_failure(mut self) -> Self {
        self.point = Point::Failure;
        self
    }

    /// Code version to run it with; the one it had unless given.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.app_version = Some(version.into());
        self
    }

    /// On this queue; otherwise it runs as soon as any executor of its version sees it.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queue = Some(name.into());
        self
    }

    async fn rewind(self) -> Result<()> {
        let start_step = match &self.point {
            Point::Step(StepPoint::Position(position)) => i64::from(*position),
            point => {
                let steps = StepInfo::list(self.runtime, &self.id).await?;
                position(point, &steps)?
            }
        };
        let rewind = db::Rewind {
            workflow_id: self.id,
            start_step,
            application_version: self.app_version,
            queue_name: self.queue,
            queue_partition_key: None,
        };
        let rewound = self.runtime.db.system.rewind_workflow(&rewind).await;
        rewound.map_err(from_database)?;
        self.runtime.wake_all();
        Ok(())
    }
}

/// The position of a step that is not given by position.
fn position(point: &Point, steps: &[StepInfo]) -> Result<i64> {
    let last = match point {
        Point::Step(StepPoint::Name(name)) => {
            let named = steps.iter().rfind(|step| step.name == *name);
            Some(named.ok_or_else(|| Error::not_found("step", name))?)
        }
        Point::Step(StepPoint::Position(position)) => return Ok(i64::from(*position)),
        Point::Failure => steps
            .iter()
            .rfind(|step| step.error.is_some())
            .or_else(|| steps.last()),
    };
    Ok(last.map_or(0, |step| step.position))
}

impl<'a> IntoFuture for Rewind<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.rewind())
    }
}

/// Counts of runs by what they have in common; await it. One group at least.
#[must_use = "nothing is counted until this is awaited"]
pub struct Aggregation<'a> {
    runtime: &'a Arc<Runtime>,
    groups: Vec<WorkflowGroup>,
    bucket_ms: Option<i64>,
    filter: WorkflowFilter,
}

impl Aggregation<'_> {
    /// Counts runs of each value of this.
    pub fn by(mut self, group: WorkflowGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// Counts runs of each period of this length, by when they were created.
    pub fn by_time(mut self, period: std::time::Duration) -> Self {
        self.bucket_ms = Some(crate::clock::millis(period));
        self
    }

    /// Only runs of this workflow; several calls name several.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.filter.names.push(name.into());
        self
    }

    /// Only runs of this queue; several calls name several.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.filter.queue_names.push(name.into());
        self
    }

    async fn count(self) -> Result<Vec<Aggregate>> {
        let figures = [
            Figure::Count,
            Figure::MinCreatedAt,
            Figure::MaxQueueWaitMs,
            Figure::MaxTotalLatencyMs,
        ];
        let system = &self.runtime.db.system;
        let rows = system
            .aggregate_workflows(&self.groups, self.bucket_ms, &figures, &self.filter)
            .await;
        rows.map_err(from_database)
    }
}

impl<'a> IntoFuture for Aggregation<'a> {
    type Output = Result<Vec<Aggregate>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.count())
    }
}

/// The code versions of an application; see [`Segno::versions`].
#[derive(Clone, Copy)]
pub struct Versions<'a> {
    runtime: &'a Arc<Runtime>,
}

impl Versions<'_> {
    /// All versions that were ever launched, the latest first.
    pub async fn list(&self) -> Result<Vec<String>> {
        let scope = Scope::of(self.runtime.app_name());
        let rows = self.runtime.db.system.list_versions(&scope).await;
        Ok(rows
            .map_err(from_database)?
            .into_iter()
            .map(|row| row.version_name)
            .collect())
    }

    /// The version that takes what is enqueued without one: work for other applications, and schedules.
    pub async fn latest(&self) -> Result<Option<String>> {
        let scope = Scope::of(self.runtime.app_name());
        let latest = self.runtime.db.system.latest_version(&scope).await;
        latest.map_err(from_database)
    }

    /// Makes a version the latest: forward, or back.
    pub async fn set_latest(&self, version: &str) -> Result<()> {
        if !self.list().await?.iter().any(|known| known == version) {
            return Err(Error::not_found("version", version));
        }
        let app = self.runtime.app_name();
        let set = self
            .runtime
            .db
            .system
            .set_latest_version(app, version)
            .await;
        set.map_err(from_database)?;
        self.runtime.wake_all();
        Ok(())
    }
}

impl Segno {
    /// Runs an ended run again from one of its steps, under its own id. What it did from there on is
    /// forgotten: checkpoints, events, messages it took, its outcome.
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.rewind("checkout-7").to_failure().await
    /// # }
    /// ```
    pub fn rewind(&self, id: impl Into<String>) -> Rewind<'_> {
        Rewind {
            runtime: self.runtime(),
            id: id.into(),
            point: Point::Step(StepPoint::Position(0)),
            app_version: None,
            queue: None,
        }
    }

    /// A run with everything it recorded, and its descendants if asked, as text for [`import`](Self::import)
    /// here or in a service in TypeScript, Go or Java.
    pub async fn export(&self, id: &str, with_children: bool) -> Result<String> {
        let exported = self.runtime().db.system.export_workflow(id, with_children);
        exported.await.map_err(from_database)
    }

    /// Brings in what was exported; gives the ids. A run that was active goes on here.
    pub async fn import(&self, exported: &str) -> Result<Vec<String>> {
        let imported = self.runtime().db.system.import_workflows(exported).await;
        self.runtime().wake_all();
        imported.map_err(from_database)
    }

    /// Counts runs of this application.
    ///
    /// ```no_run
    /// # use segno::system_database::WorkflowGroup;
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// for row in app.aggregate().by(WorkflowGroup::Name).by(WorkflowGroup::Status).await? {
    ///     println!("{:?}: {:?}", row.group, row.count);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn aggregate(&self) -> Aggregation<'_> {
        let runtime = self.runtime();
        Aggregation {
            runtime,
            groups: Vec::new(),
            bucket_ms: None,
            filter: WorkflowFilter {
                scope: Scope::of(runtime.app_name()),
                ..WorkflowFilter::default()
            },
        }
    }

    /// The application's code versions.
    pub fn versions(&self) -> Versions<'_> {
        Versions {
            runtime: self.runtime(),
        }
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

debug_as_name!(Rewind, Aggregation, Versions);
