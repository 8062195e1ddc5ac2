//! Putting an application together.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use segno_protocol::Alert;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::Segno;
use crate::conductor::{AlertHandler, Conductor, ConductorConfig, ConductorHandle, Hooks};
use crate::config;
use crate::error::{Error, Result};
use crate::explain;
use crate::payload::{Codec, Payloads};
use crate::queue::Queue;
use crate::recorder::Gate;
use crate::runtime::{Identity, Runtime, UNNAMED};
use crate::schedule::{self, Schedule};
use crate::state::{FromRef, NoAppState};
use crate::system_database::Options;
use crate::trace::{TraceContext, Tracing};
use crate::transaction::{Db, from_database};
use crate::version;
use crate::workflow::{Registered, Registry, WorkflowFn};

/// Runs beyond this are left for other executors.
const CAPACITY: usize = 1000;

type Registration<S> = Box<dyn FnOnce(&S) -> Registered + Send>;

/// What to do about the system database's tables at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Migrate {
    /// Create them in an empty database and bring them up to date if this library made them. Tables of the older
    /// schema line (versions 107 and 108: Python 2, TypeScript 4, Go 1.2) and those that lack indexes only (from 123)
    /// are joined as they are; any others that are not current are refused with [`ErrorKind::Schema`](crate::ErrorKind::Schema).
    #[default]
    Auto,
    /// Create them, or bring them up to date, whoever made them. SDKs of the older line go on working: from then
    /// on payloads are written for them, too.
    Run,
    /// Only check them, for roles that may not change the schema.
    Verify,
}

/// An application before launch; made by [`Segno::named`].
///
/// What is not set here is taken from the environment: `SEGNO_SYSTEM_DATABASE_URL`,
/// `SEGNO_SYSTEM_DATABASE_SCHEMA`, `SEGNO_MIGRATE` (`auto`, `run` or `verify`), `SEGNO_CONDUCTOR_URL`, `SEGNO_CONDUCTOR_KEY`, `SEGNO_EXECUTOR_ID`, `SEGNO_APP_VERSION`, or under
/// the names the official SDKs use, `DBOS_SYSTEM_DATABASE_URL`, `DBOS_CONDUCTOR_URL`,
/// `DBOS_CONDUCTOR_KEY`, `DBOS__VMID`, `DBOS__APPVERSION`. What is set in neither, from the file if there is
/// one ([`Segno::from_file`]).
#[must_use = "an application does nothing until it is launched"]
pub struct Builder<S = NoAppState> {
    name: String,
    state: S,
    workflows: Vec<Registration<S>>,
    settings: Settings,
}

#[derive(Default)]
struct Settings {
    database: Option<Source>,
    schema: Option<String>,
    migrate: Option<Migrate>,
    inline_payloads: bool,
    executor_id: Option<String>,
    executor_metadata: serde_json::Map<String, serde_json::Value>,
    app_version: Option<String>,
    control_plane: Option<(String, String)>,
    on_alert: Option<AlertHandler>,
    metadata_only: bool,
    retention: Option<Duration>,
    recovery_limit: Limit,
    payloads: Payloads,
    tracing: Tracing,
    queues: Vec<Queue>,
    schedules: Vec<schedule::Declared>,
    listen_queues: Option<HashSet<String>>,
    /// What holds where neither the code nor the environment says anything.
    file: config::File,
}

enum Source {
    Url(String),
    Open(Db),
}

/// How often a run may be recovered.
enum Limit {
    Times(u32),
    None,
}

impl Default for Limit {
    fn default() -> Self {
        Self::Times(100)
    }
}

impl Builder<NoAppState> {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            state: NoAppState,
            workflows: Vec::new(),
            settings: Settings::default(),
        }
    }

    /// Takes up what a file says, as far as nobody says otherwise.
    pub(crate) fn with_file(mut self, mut file: config::File) -> Self {
        let settings = &mut self.settings;
        settings.queues = file.take_queues();
        settings.executor_metadata = std::mem::take(&mut file.executor_metadata);
        settings.listen_queues = file.listen_queues.take();
        settings.retention = file.retention.map(|span| span.0);
        settings.inline_payloads = file.inline_payloads.unwrap_or_default();
        settings.metadata_only = file.metadata_only.unwrap_or_default();
        if let Some(attempts) = file.max_recovery_attempts {
            settings.recovery_limit = Limit::Times(attempts);
        }
        if let Some(limit) = file.max_payload_bytes {
            settings.payloads.limit = limit;
        }
        settings.file = file;
        self
    }

    /// The application's state, which workflows get as [`Ctx::state`](crate::Ctx::state). Call it before
    /// registering workflows that use it.
    pub fn state<S: Send + Sync + 'static>(self, state: S) -> Builder<S> {
        let stateless = |registration: Registration<NoAppState>| -> Registration<S> {
            Box::new(move |_: &S| registration(&NoAppState))
        };
        Builder {
            name: self.name,
            state,
            workflows: self.workflows.into_iter().map(stateless).collect(),
            settings: self.settings,
        }
    }
}

impl<S> Builder<S> {
    /// Where workflows are checkpointed: `postgres://…`, `postgresql://…` or `sqlite://…`.
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.settings.database = Some(Source::Url(url.into()));
        self
    }

    /// As [`database_url`](Self::database_url), with connections that are open already: pass the same
    /// [`Db`] to the workflows that run transactions.
    pub fn database(mut self, db: &Db) -> Self {
        self.settings.database = Some(Source::Open(db.clone()));
        self
    }

    /// The schema of the system tables on Postgres, `dbos` unless given. For a [`Db`] it was chosen when
    /// that was connected.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.schema = Some(schema.into());
        self
    }

    /// Writes inputs and outcomes twice, also where official SDKs of the older schema line look for them
    /// (Python 2, TypeScript 4, Go 1.2, Rust 0.5). Needed if such an SDK shares the database and runs, awaits or
    /// forks what this application starts; it would see empty payloads otherwise.
    pub fn inline_payloads(mut self, inline_payloads: bool) -> Self {
        self.settings.inline_payloads = inline_payloads;
        self
    }

    /// What to do about the tables at launch.
    pub fn migrate(mut self, migrate: Migrate) -> Self {
        self.settings.migrate = Some(migrate);
        self
    }

    /// Registers a workflow under a stable name. Rows carry the name, so the function may be renamed and
    /// moved, the name not.
    pub fn workflow<P, I, F>(self, name: impl Into<String>, function: F) -> Self
    where
        F: WorkflowFn<P, I>,
        P: FromRef<S> + Send + Sync + 'static,
        I: Serialize + DeserializeOwned + Send + 'static,
    {
        self.register(name.into(), None, function)
    }

    /// Registers a workflow with a fingerprint of its code, from which the application version is
    /// computed when none is given. [`workflows!`](crate::workflows) calls this.
    #[doc(hidden)]
    pub fn workflow_with_fingerprint<P, I, F>(
        self,
        name: &str,
        fingerprint: &'static str,
        function: F,
    ) -> Self
    where
        F: WorkflowFn<P, I>,
        P: FromRef<S> + Send + Sync + 'static,
        I: Serialize + DeserializeOwned + Send + 'static,
    {
        self.register(name.to_owned(), Some(fingerprint), function)
    }

    /// Registers what [`workflows!`](crate::workflows) lists.
    pub fn workflows(self, list: impl FnOnce(Self) -> Self) -> Self {
        list(self)
    }

    fn register<P, I, F>(
        mut self,
        name: String,
        fingerprint: Option<&'static str>,
        function: F,
    ) -> Self
    where
        F: WorkflowFn<P, I>,
        P: FromRef<S> + Send + Sync + 'static,
        I: Serialize + DeserializeOwned + Send + 'static,
    {
        self.workflows.push(Box::new(move |state: &S| {
            Registered::new(name, fingerprint, function, state)
        }));
        self
    }

    /// The code version of this process. Runs are recovered only by executors of their version. Computed
    /// from the registered workflows unless given.
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.settings.app_version = Some(version.into());
        self
    }

    /// Who this process is. Give it an id that a restart keeps, and the restarted process takes up what
    /// it left behind. Otherwise a random one with a control plane, `local` without.
    pub fn executor_id(mut self, id: impl Into<String>) -> Self {
        self.settings.executor_id = Some(id.into());
        self
    }

    /// What the control plane shows about this process.
    pub fn executor_metadata(
        mut self,
        key: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.settings
            .executor_metadata
            .insert(key.into(), value.into());
        self
    }

    /// Connects to a control plane. It is never on the way of a workflow.
    pub fn control_plane(mut self, url: impl Into<String>, key: impl Into<String>) -> Self {
        self.settings.control_plane = Some((url.into(), key.into()));
        self
    }

    /// Shows the control plane no payloads: which runs and steps there are and how they went, but not their
    /// inputs, results, messages, events and streams.
    pub fn metadata_only(mut self) -> Self {
        self.settings.metadata_only = true;
        self
    }

    /// Registers a queue at launch.
    pub fn queue(mut self, queue: Queue) -> Self {
        self.settings.queues.push(queue);
        self
    }

    /// Registers a schedule at launch, or changes it if it exists.
    pub fn schedule<C: Serialize + DeserializeOwned>(mut self, schedule: Schedule<C>) -> Self {
        self.settings.schedules.push(schedule.declared());
        self
    }

    /// Takes work only from these queues (and what was recovered, resumed or forked without a queue of its
    /// own); from all of the application unless given.
    pub fn listen_queues<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        let names = names.into_iter().map(Into::into);
        self.settings
            .listen_queues
            .get_or_insert_default()
            .extend(names);
        self
    }

    /// Called with the alerts of the control plane, which are logged otherwise. An error is reported back.
    ///
    /// ```
    /// # use segno::Segno;
    /// let app = Segno::named("shop").on_alert(|alert| async move {
    ///     eprintln!("{}: {}", alert.name, alert.message);
    ///     Ok(())
    /// });
    /// ```
    pub fn on_alert<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Alert) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.settings.on_alert = Some(Arc::new(move |alert| {
            let handled = handler(alert);
            Box::pin(async move { handled.await.map_err(|error| error.to_string()) })
        }));
        self
    }

    /// Deletes runs that ended longer ago than this, with everything they recorded; looked after hourly.
    /// Kept for ever unless given.
    pub fn retention(mut self, keep: Duration) -> Self {
        self.settings.retention = Some(keep);
        self
    }

    /// Encodes payloads on their way to the database, to encrypt them for example.
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.settings.payloads.codec = Some(Arc::new(codec));
        self
    }

    /// Runs go on with the trace they are started in, through queues, children and recoveries, in whichever process:
    /// `segno_opentelemetry::W3c` for OpenTelemetry. Without it each execution is a trace of its own.
    pub fn trace_context(mut self, context: impl TraceContext) -> Self {
        self.settings.tracing = Tracing(Some(Arc::new(context)));
        self
    }

    /// The largest input, result, message, event or stream entry, in bytes of JSON: 64 MiB unless given. A
    /// larger one is refused with [`ErrorKind::PayloadTooLarge`](crate::ErrorKind::PayloadTooLarge).
    pub fn max_payload_bytes(mut self, limit: usize) -> Self {
        self.settings.payloads.limit = limit;
        self
    }

    /// How often a run may be recovered before it is set aside; 100 unless given.
    pub fn max_recovery_attempts(mut self, attempts: u32) -> Self {
        self.settings.recovery_limit = Limit::Times(attempts);
        self
    }

    /// Recovers runs for ever.
    pub fn unlimited_recovery(mut self) -> Self {
        self.settings.recovery_limit = Limit::None;
        self
    }

    /// Connects, prepares the database, registers this version, recovers what an earlier process of this
    /// executor id left behind, and begins to work.
    pub async fn launch(mut self) -> Result<Segno> {
        let control_plane = self.settings.control_plane()?;
        let migrate = self.settings.migrate()?;
        let file = &mut self.settings.file;
        self.settings.app_version = setting(
            self.settings.app_version.take(),
            &["SEGNO_APP_VERSION", "DBOS__APPVERSION"],
        )
        .or(file.app_version.take());
        let given_id = setting(
            self.settings.executor_id.take(),
            &["SEGNO_EXECUTOR_ID", "DBOS__VMID"],
        )
        .or(file.executor_id.take());
        let executor_id = given_id.unwrap_or_else(|| match control_plane {
            Some(_) => Uuid::new_v4().to_string(),
            None => UNNAMED.to_owned(),
        });
        self.settings.executor_id = Some(executor_id);
        let described = self.describe().await?;
        let (db, owned) = described.settings.connect().await?;
        if described.settings.inline_payloads {
            db.system.write_inline_payloads();
        }
        let prepared = match migrate {
            Migrate::Auto => db.system.join().await,
            Migrate::Run => db.system.migrate().await,
            Migrate::Verify => db.system.verify().await,
        };
        prepared.map_err(from_database)?;
        let runtime = described.launch(Gate::Open, db, control_plane).await?;
        Ok(Segno::new(runtime.0, owned, runtime.1))
    }

    /// Launches for a test: on a database that is ready, in nobody's sight.
    pub(crate) async fn launch_for_test(mut self, gate: Gate, db: Db) -> Result<Arc<Runtime>> {
        self.settings.app_version.get_or_insert("test".to_owned());
        self.settings.executor_id.get_or_insert("test".to_owned());
        let (runtime, _) = self.describe().await?.launch(gate, db, None).await?;
        Ok(runtime)
    }

    /// Prepares for runs to be repeated; takes no work.
    pub(crate) async fn for_replay(mut self, gate: Gate, db: Db) -> Result<Arc<Runtime>> {
        self.settings.app_version.get_or_insert("test".to_owned());
        let described = self.describe().await?;
        let registry = Arc::new(described.registry);
        Ok(Runtime::launch_behind(
            gate,
            db,
            registry,
            described.identity,
        ))
    }

    /// The database given as open connections.
    pub(crate) fn open_database(&self) -> Option<Db> {
        match &self.settings.database {
            Some(Source::Open(db)) => Some(db.clone()),
            Some(Source::Url(_)) | None => None,
        }
    }

    /// What was registered, checked and without its types.
    async fn describe(self) -> Result<Described> {
        let Self {
            name,
            state,
            workflows,
            settings,
        } = self;
        if name.trim().is_empty() {
            return Err(Error::config("name", "an application needs a name"));
        }
        let mut registry = Registry::default();
        for registration in workflows {
            registry.add(registration(&state))?;
        }
        for queue in &settings.queues {
            queue.validate()?;
        }
        let app_version = match &settings.app_version {
            Some(version) => version.clone(),
            None => version::compute(&name, &registry).await?,
        };
        Ok(Described {
            identity: Identity {
                app_name: name,
                executor_id: settings.executor_id.clone().unwrap_or_default(),
                app_version,
                max_recovery_attempts: match settings.recovery_limit {
                    Limit::Times(attempts) => Some(attempts),
                    Limit::None => None,
                },
                capacity: CAPACITY,
                listen_queues: settings.listen_queues.clone(),
                retention: settings.retention,
                payloads: settings.payloads.clone(),
                tracing: settings.tracing.clone(),
            },
            registry,
            settings,
        })
    }
}

/// An application that only lacks its database.
struct Described {
    identity: Identity,
    registry: Registry,
    settings: Settings,
}

impl Described {
    /// Makes it known to the database and begins to work.
    async fn launch(
        self,
        gate: Gate,
        db: Db,
        control_plane: Option<(String, String)>,
    ) -> Result<(Arc<Runtime>, Option<ConductorHandle>)> {
        let Self {
            identity,
            registry,
            settings,
        } = self;
        db.system
            .register_version(&identity.app_name, &identity.app_version)
            .await
            .map_err(from_database)?;
        tracing::info!(
            app = identity.app_name,
            executor_id = identity.executor_id,
            app_version = identity.app_version,
            "launching"
        );
        let runtime = Runtime::launch_behind(gate, db, Arc::new(registry), identity);
        let prepared = async {
            register(&runtime, settings.queues, settings.schedules).await?;
            // A random id has left nothing behind; for any other this process merely came back.
            runtime.recover_own().await?;
            let dial = |(url, key)| {
                let shown = Shown {
                    metadata: settings.executor_metadata,
                    metadata_only: settings.metadata_only,
                    alert: settings.on_alert,
                };
                dial(&runtime, url, key, shown)
            };
            control_plane.map(dial).transpose()
        };
        match prepared.await {
            Ok(conductor) => {
                runtime.begin_work();
                Ok((runtime, conductor))
            }
            Err(error) => {
                runtime.kill();
                Err(error)
            }
        }
    }
}

/// Makes what was declared in code known to all processes.
async fn register(
    runtime: &Runtime,
    queues: Vec<Queue>,
    schedules: Vec<schedule::Declared>,
) -> Result<()> {
    for queue in queues {
        queue.register(runtime).await?;
    }
    schedule::apply(runtime, schedules).await
}

/// What the control plane is shown, and who hears of its alerts.
struct Shown {
    metadata: serde_json::Map<String, serde_json::Value>,
    metadata_only: bool,
    alert: Option<AlertHandler>,
}

/// Connects to the control plane, in the background.
fn dial(runtime: &Arc<Runtime>, url: String, key: String, shown: Shown) -> Result<ConductorHandle> {
    let metadata = shown.metadata;
    let config = ConductorConfig {
        url,
        key,
        app_name: runtime.app_name().to_owned(),
        executor_id: runtime.executor_id().to_owned(),
        app_version: runtime.app_version().to_owned(),
        metadata: (!metadata.is_empty()).then_some(metadata),
    };
    let woken = runtime.clone();
    let asked = Arc::downgrade(runtime);
    let hooks = Hooks {
        wake: Some(Arc::new(move || woken.wake_all())),
        explain: Some(Arc::new(move |id: &str| explain::waiting_on(&asked, id))),
        alert: shown.alert,
        metadata_only: shown.metadata_only,
    };
    Conductor::spawn(config, runtime.db.system.clone(), hooks)
        .map_err(|error| Error::config("control_plane", error.to_string()))
}

impl Settings {
    /// Opens the database; true if the connections are ours to close.
    async fn connect(&self) -> Result<(Db, bool)> {
        let url = match &self.database {
            Some(Source::Open(db)) => return Ok((db.clone(), false)),
            Some(Source::Url(url)) => Some(url.clone()),
            None => None,
        };
        let names = ["SEGNO_SYSTEM_DATABASE_URL", "DBOS_SYSTEM_DATABASE_URL"];
        let url = setting(url, &names).or_else(|| self.file.database_url.clone());
        let url = url.ok_or_else(|| {
            Error::config(
                "database_url",
                "give one with `.database_url(..)` or in SEGNO_SYSTEM_DATABASE_URL",
            )
        })?;
        let mut options = Options::default();
        let schema = setting(self.schema.clone(), &["SEGNO_SYSTEM_DATABASE_SCHEMA"]);
        if let Some(schema) = schema.or_else(|| self.file.schema.clone()) {
            options.schema = schema;
        }
        Ok((Db::connect_with(&url, options).await?, true))
    }

    /// What is to be done about the tables.
    fn migrate(&self) -> Result<Migrate> {
        if let Some(migrate) = self.migrate {
            return Ok(migrate);
        }
        match config::set("SEGNO_MIGRATE").as_deref() {
            None => Ok(self.file.migrate.unwrap_or_default()),
            Some("auto") => Ok(Migrate::Auto),
            Some("run") => Ok(Migrate::Run),
            Some("verify") => Ok(Migrate::Verify),
            Some(_) => Err(Error::config(
                "SEGNO_MIGRATE",
                "it is `auto`, `run` or `verify`",
            )),
        }
    }

    /// The control plane's URL and key, if one is configured.
    fn control_plane(&self) -> Result<Option<(String, String)>> {
        let (url, key) = self.control_plane.clone().unzip();
        let url = setting(url, &["SEGNO_CONDUCTOR_URL", "DBOS_CONDUCTOR_URL"])
            .or_else(|| self.file.conductor_url.clone());
        let key = setting(key, &["SEGNO_CONDUCTOR_KEY", "DBOS_CONDUCTOR_KEY"])
            .or_else(|| self.file.conductor_key.clone());
        match (url, key) {
            (Some(url), Some(key)) => Ok(Some((url, key))),
            (Some(_), None) => {
                let message = "a URL without a key; set SEGNO_CONDUCTOR_KEY (any text will do for a server without authentication)";
                Err(Error::config("control_plane", message))
            }
            (None, _) => Ok(None),
        }
    }
}

/// A setting from the code, else from the first environment variable that is set and not empty.
fn setting(given: Option<String>, names: &[&str]) -> Option<String> {
    given.or_else(|| names.iter().find_map(|name| config::set(name)))
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
