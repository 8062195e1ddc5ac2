//! Queues: how many runs at once, how many in a while, in which order. A queue is a row in the database,
//! shared by all processes of its application, and can be changed while they run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::app::Segno;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::system_database::{QueueConflict, QueueRow, Scope};
use crate::transaction::from_database;

/// What a registration does when the queue exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnQueueConflict {
    /// Changes it if this process runs the latest version of its application.
    #[default]
    UpdateIfLatestVersion,
    /// Changes it.
    AlwaysUpdate,
    /// Leaves it as it is.
    NeverUpdate,
}

/// A queue and its limits, for [`Builder::queue`](crate::Builder::queue) or [`Queues::register`].
///
/// `concurrency` is of the whole fleet, `worker_` always means this process, `partition_` always each
/// partition key.
///
/// ```
/// # use std::time::Duration;
/// # use segno::Queue;
/// let indexing = Queue::new("indexing")
///     .concurrency(50)
///     .worker_concurrency(10)
///     .rate_limit(600, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a queue is registered by `Builder::queue` or `Queues::register`"]
pub struct Queue {
    row: QueueRow,
    on_conflict: OnQueueConflict,
}

impl Queue {
    /// A queue without limits. Names that begin with `_dbos_` are reserved.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            row: QueueRow {
                name: name.into(),
                priority_enabled: true,
                polling_interval_sec: 1.0,
                ..QueueRow::default()
            },
            on_conflict: OnQueueConflict::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// Most runs at once, in all processes together.
    pub fn concurrency(mut self, runs: u32) -> Self {
        self.row.concurrency = Some(i64::from(runs));
        self
    }

    /// Most runs at once in each process.
    pub fn worker_concurrency(mut self, runs: u32) -> Self {
        self.row.worker_concurrency = Some(i64::from(runs));
        self
    }

    /// Most starts in any period of this length, in all processes together.
    pub fn rate_limit(mut self, starts: u32, period: Duration) -> Self {
        self.row.rate_limit_max = Some(i64::from(starts));
        self.row.rate_limit_period_sec = Some(period.as_secs_f64());
        self
    }

    /// Most runs at once of each partition key, in all processes together. Any limit of partitions makes
    /// the queue a partitioned one: then only runs with a key are taken.
    pub fn partition_concurrency(mut self, runs: u32) -> Self {
        self.row.partition_concurrency = Some(i64::from(runs));
        self
    }

    /// Most runs at once of each partition key in each process.
    pub fn partition_worker_concurrency(mut self, runs: u32) -> Self {
        self.row.partition_worker_concurrency = Some(i64::from(runs));
        self
    }

    /// Most starts of each partition key in any period of this length, in all processes together.
    pub fn partition_rate_limit(mut self, starts: u32, period: Duration) -> Self {
        self.row.partition_rate_limit_max = Some(i64::from(starts));
        self.row.partition_rate_limit_period_sec = Some(period.as_secs_f64());
        self
    }

    /// How often executors of other languages look at it, which cannot be woken; a second unless given.
    pub fn polling_interval(mut self, interval: Duration) -> Self {
        self.row.polling_interval_sec = interval.as_secs_f64();
        self
    }

    /// What registering it does when it exists.
    pub fn on_conflict(mut self, on_conflict: OnQueueConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// Refuses limits that cannot be meant.
    pub(crate) fn validate(&self) -> Result<()> {
        let row = &self.row;
        let refuse = |what: &str| {
            let message = format!("`{}`: {what}", row.name);
            Err(Error::config("queue", message))
        };
        if row.name.trim().is_empty() {
            return refuse("the name must not be blank");
        }
        if row.name.starts_with("_dbos_") {
            return refuse("names that begin with `_dbos_` are reserved");
        }
        let counts = [
            row.concurrency,
            row.worker_concurrency,
            row.rate_limit_max,
            row.partition_concurrency,
            row.partition_worker_concurrency,
            row.partition_rate_limit_max,
        ];
        if counts.iter().flatten().any(|count| *count < 1) {
            return refuse("a limit is at least 1");
        }
        let lengths = [
            row.rate_limit_period_sec,
            row.partition_rate_limit_period_sec,
            Some(row.polling_interval_sec),
        ];
        if lengths.iter().flatten().any(|seconds| *seconds <= 0.0) {
            return refuse("a period is longer than nothing");
        }
        // (narrower, wider): a narrower limit above a wider one would never apply.
        let pairs = [
            (row.worker_concurrency, row.concurrency),
            (row.partition_worker_concurrency, row.partition_concurrency),
            (row.partition_worker_concurrency, row.worker_concurrency),
            (row.partition_worker_concurrency, row.concurrency),
            (row.partition_concurrency, row.concurrency),
        ];
        if pairs.iter().any(|(narrow, wide)| {
            narrow
                .zip(*wide)
                .is_some_and(|(narrow, wide)| narrow > wide)
        }) {
            return refuse("the limit of a process or partition is above that of the whole queue");
        }
        Ok(())
    }

    pub(crate) async fn register(self, runtime: &Runtime) -> Result<()> {
        self.validate()?;
        let system = &runtime.db.system;
        let app = runtime.app_name();
        let conflict = match self.on_conflict {
            OnQueueConflict::AlwaysUpdate => QueueConflict::Update,
            OnQueueConflict::NeverUpdate => QueueConflict::Keep,
            OnQueueConflict::UpdateIfLatestVersion => {
                let latest = system.latest_version(&Scope::of(app)).await;
                match latest.map_err(from_database)? {
                    Some(latest) if latest != runtime.app_version() => QueueConflict::Keep,
                    _ => QueueConflict::Update,
                }
            }
        };
        system
            .register_queue(&self.row, app, conflict)
            .await
            .map_err(from_database)
    }
}

impl From<QueueRow> for Queue {
    fn from(row: QueueRow) -> Self {
        Self {
            row,
            on_conflict: OnQueueConflict::default(),
        }
    }
}

/// The queues of an application; see [`Segno::queues`].
#[derive(Clone, Copy)]
pub struct Queues<'a> {
    runtime: &'a Arc<Runtime>,
}

impl Queues<'_> {
    /// All queues of this application, by name.
    pub async fn list(&self) -> Result<Vec<Queue>> {
        let scope = Scope::of(self.runtime.app_name());
        let rows = self.runtime.db.system.list_queues(&scope).await;
        Ok(rows
            .map_err(from_database)?
            .into_iter()
            .map(Queue::from)
            .collect())
    }

    /// The queue of this name, whichever application it belongs to.
    pub async fn get(&self, name: &str) -> Result<Option<Queue>> {
        let row = self.runtime.db.system.get_queue(name).await;
        Ok(row.map_err(from_database)?.map(Queue::from))
    }

    /// Makes a queue, or changes its limits, in all processes at once.
    pub async fn register(&self, queue: Queue) -> Result<()> {
        queue.register(self.runtime).await?;
        self.runtime.wake_all();
        Ok(())
    }

    /// Removes a queue; false if there was none. What is enqueued on it stays and waits until there is a
    /// queue of that name again.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        let app = self.runtime.app_name();
        let deleted = self.runtime.db.system.delete_queue(name, app).await;
        deleted.map_err(from_database)
    }
}

impl fmt::Debug for Queues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

impl Segno {
    /// The application's queues, to be listed and changed while it runs.
    ///
    /// ```no_run
    /// # use segno::Queue;
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.queues().register(Queue::new("indexing").concurrency(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn queues(&self) -> Queues<'_> {
        Queues {
            runtime: self.runtime(),
        }
    }
}
