//! A launched application.

use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::builder::Builder;
use crate::conductor::ConductorHandle;
use crate::config;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::manage::{Cancel, Delete, Fork, Resume, StepInfo, Workflows};
use crate::runtime::Runtime;
use crate::start::{PendingRun, PendingStart, PendingStartAll};
use crate::state::NoAppState;
use crate::transaction::Db;
use crate::workflow::Target;

/// A launched application: starts workflows and looks after them. Cheap to clone; it runs until
/// [`shutdown`](Segno::shutdown), whether or not a clone is kept.
///
/// ```no_run
/// use std::time::Duration;
/// use segno::{Ctx, Segno};
///
/// async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
///     let line = ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).await?;
///     ctx.sleep(Duration::from_secs(5)).await; // survives a restart
///     Ok(line)
/// }
///
/// # async fn example() -> segno::Result<()> {
/// let app = Segno::named("hello-app")
///     .database_url("postgres://localhost/app")
///     .workflow("hello", hello)
///     .launch()
///     .await?;
///
/// println!("{}", app.run(hello, "Ada".into()).await?); // start and wait
///
/// let handle = app.start(hello, "Grace".into()).id("greet-grace").await?; // same id, same run
/// println!("{}", handle.await?);
/// app.shutdown(Duration::from_secs(30)).await
/// # }
/// ```
#[derive(Clone)]
pub struct Segno {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Arc<Runtime>,
    /// Whether the database connections end with the application.
    owns_database: bool,
    /// The connection to the control plane, until shutdown.
    conductor: Mutex<Option<ConductorHandle>>,
}

impl Inner {
    fn conductor(&self) -> Option<ConductorHandle> {
        self.conductor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// How much the recorder has written since launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderStats {
    /// Commits.
    pub commits: u64,
    /// Starts, steps and outcomes in them.
    pub rows: u64,
    /// Batches that were written again because the database was away or another transaction was in the way.
    pub retries: u64,
}

impl Segno {
    /// Begins the description of an application. The name tells applications apart that share a
    /// database; the control plane knows the application by it.
    pub fn named(name: impl Into<String>) -> Builder<NoAppState> {
        Builder::new(name.into())
    }

    /// As [`named`](Self::named), with the name in `SEGNO_APP_NAME` or `DBOS_APP_NAME`. Everything else that
    /// [`Builder`] lists is taken from the environment in any case.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if neither is set.
    pub fn from_env() -> Result<Builder<NoAppState>> {
        let name = ["SEGNO_APP_NAME", "DBOS_APP_NAME"];
        let name = name.iter().find_map(|name| config::set(name));
        let name = name.ok_or_else(|| Error::config("name", "SEGNO_APP_NAME is not set"))?;
        Ok(Builder::new(name))
    }

    /// Begins the description of an application with what a TOML file says. The environment goes before the file,
    /// and what the code says afterwards before both.
    ///
    /// ```toml
    /// name = "shop"
    /// database_url = "${SHOP_DATABASE_URL}"     # a variable
    /// migrate = "verify"
    /// conductor_url = "wss://segno.example.com"
    /// conductor_key = "${SHOP_CONDUCTOR_KEY}"
    /// retention = "30d"
    ///
    /// [[queues]]
    /// name = "indexing"
    /// concurrency = 50
    /// rate_limit = { starts = 600, period = "60s" }
    /// ```
    ///
    /// Its keys are the methods of [`Builder`]: `name`, `database_url`, `schema`, `migrate`, `inline_payloads`,
    /// `app_version`, `executor_id`, `executor_metadata`, `metadata_only`, `listen_queues`, `retention`,
    /// `max_recovery_attempts`, `max_payload_bytes`, and those of each queue; the control plane is
    /// `conductor_url` and `conductor_key`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it cannot be read, or says something that is not known.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Builder<NoAppState>> {
        config::read(path.as_ref())
    }

    pub(crate) fn new(
        runtime: Arc<Runtime>,
        owns_database: bool,
        conductor: Option<ConductorHandle>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                runtime,
                owns_database,
                conductor: Mutex::new(conductor),
            }),
        }
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        self.inner.runtime.current()
    }

    /// The application's name.
    pub fn name(&self) -> &str {
        self.runtime().app_name()
    }

    /// The id of this process among the executors of the application.
    pub fn executor_id(&self) -> &str {
        self.runtime().executor_id()
    }

    /// The code version of this process.
    pub fn app_version(&self) -> &str {
        self.runtime().app_version()
    }

    /// The system database, for [`Ctx::transaction`](crate::Ctx::transaction) and one's own tables.
    pub fn db(&self) -> &Db {
        &self.runtime().db
    }

    /// Starts a workflow, given as the function it was registered with or as a
    /// [`WorkflowRef`](crate::WorkflowRef); await it for its handle.
    pub fn start<M, W: Target<M>>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> PendingStart<'static, W::Output> {
        PendingStart::top_level(self.runtime().clone(), &workflow.key(), &input)
    }

    /// Starts a workflow once for each input, in as few commits as possible; await it for the handles, or
    /// [`results`](PendingStartAll::results).
    ///
    /// ```no_run
    /// # async fn index(ctx: segno::Ctx, url: String) -> segno::Result<usize> { Ok(url.len()) }
    /// # async fn example(app: segno::Segno, urls: Vec<String>) -> segno::Result<()> {
    /// let runs = app.start_all(index, urls).queue("indexing").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_all<M, W: Target<M>>(
        &self,
        workflow: W,
        inputs: impl IntoIterator<Item = W::Input>,
    ) -> PendingStartAll<'static, W::Output> {
        let key = workflow.key();
        let starts = inputs
            .into_iter()
            .map(|input| PendingStart::top_level(self.runtime().clone(), &key, &input));
        PendingStartAll::new(starts.collect())
    }

    /// Starts a workflow and waits for its result.
    pub fn run<M, W: Target<M>>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> PendingRun<'static, W::Output> {
        PendingRun::new(self.start(workflow, input), None)
    }

    /// The handle of an existing run.
    pub async fn handle<R>(&self, id: &str) -> Result<Handle<R>> {
        self.runtime().status(id).await?;
        Ok(Handle::new(
            self.runtime().clone(),
            id.to_owned(),
            None,
            None,
        ))
    }

    /// Lists runs of this application: give it filters, then await it.
    pub fn workflows(&self) -> Workflows<'_> {
        Workflows::new(self.runtime())
    }

    /// The recorded steps of a run, in order.
    pub async fn steps(&self, id: &str) -> Result<Vec<StepInfo>> {
        StepInfo::list(self.runtime(), id).await
    }

    /// Cancels a run that has not ended: it stops at its next durable call. Unknown ids and ended runs
    /// are ignored.
    pub fn cancel(&self, id: impl Into<String>) -> Cancel<'_> {
        Cancel::new(self.runtime(), vec![id.into()])
    }

    /// As [`cancel`](Self::cancel), for several at once.
    pub fn cancel_all<T: Into<String>>(&self, ids: impl IntoIterator<Item = T>) -> Cancel<'_> {
        Cancel::new(self.runtime(), ids.into_iter().map(Into::into).collect())
    }

    /// Lets a cancelled or parked run go on from its last checkpoint.
    pub fn resume(&self, id: impl Into<String>) -> Resume<'_> {
        Resume::new(self.runtime(), vec![id.into()])
    }

    /// As [`resume`](Self::resume), for several: all, or none if one does not exist.
    pub fn resume_all<T: Into<String>>(&self, ids: impl IntoIterator<Item = T>) -> Resume<'_> {
        Resume::new(self.runtime(), ids.into_iter().map(Into::into).collect())
    }

    /// Makes a new run that begins with a copy of another one's first steps.
    pub fn fork(&self, id: impl Into<String>) -> Fork<'_> {
        Fork::new(self.runtime(), id.into())
    }

    /// Deletes a run and everything it recorded, for good.
    pub fn delete(&self, id: impl Into<String>) -> Delete<'_> {
        Delete::new(self.runtime(), vec![id.into()])
    }

    /// As [`delete`](Self::delete), for several: all or none.
    pub fn delete_all<T: Into<String>>(&self, ids: impl IntoIterator<Item = T>) -> Delete<'_> {
        Delete::new(self.runtime(), ids.into_iter().map(Into::into).collect())
    }

    /// How much was written, and in how many commits.
    pub fn recorder_stats(&self) -> RecorderStats {
        let counters = self.runtime().recorder.counters();
        RecorderStats {
            commits: counters.commits.load(Ordering::Relaxed),
            rows: counters.rows.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
        }
    }

    /// Leaves well: takes no more work, waits up to `limit` for what runs, and hands the rest back so
    /// that another executor of this version takes it at once.
    pub async fn shutdown(&self, limit: Duration) -> Result<()> {
        let shut_down = self.runtime().shutdown(limit).await;
        if let Some(conductor) = self.inner.conductor() {
            conductor.shutdown().await;
        }
        if self.inner.owns_database {
            self.runtime().db.system.close().await;
        }
        shut_down
    }

    /// Stops at once without waiting for anything or handing it back: what a crash of the process would
    /// do. For tests.
    pub async fn abort(&self) {
        self.runtime().kill();
        if let Some(conductor) = self.inner.conductor() {
            conductor.abort().await;
        }
        if self.inner.owns_database {
            self.runtime().db.system.close().await;
        }
    }

    /// Looks at the queues now, instead of at the next notification or poll.
    pub fn wake(&self) {
        self.runtime().wake();
    }

    /// Returns the running workflows of dead executors of this version to their queues. Returns how many.
    pub async fn recover(&self, executor_ids: &[String]) -> Result<usize> {
        self.runtime().recover(executor_ids).await
    }
}

impl fmt::Debug for Segno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segno")
            .field("name", &self.name())
            .field("executor_id", &self.executor_id())
            .field("app_version", &self.app_version())
            .finish_non_exhaustive()
    }
}
