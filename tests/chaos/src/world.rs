//! Everything that takes part in a run, set up and taken down.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use segno_e2e::api::Api;
use segno_e2e::eventually;
use segno_e2e::process::binary;
use segno_e2e::proxy::Proxy;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::args::Args;
use crate::fleet::{Balancer, Instance, Language, Slot, VERSIONS};
use crate::postgres::{Postgres, Programs, can_mount};
use crate::truth::Truth;

const PATIENCE: Duration = Duration::from_secs(120);
/// Where Debian's package `libfaketime` puts what gives a process another clock.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
/// The disk that can be filled: what Segno's database needs, and some room.
const DISK_MIB: u32 = 384;

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) args: Args,
    pub(crate) seed: u64,
    pub(crate) rng: Mutex<StdRng>,
    pub(crate) home: PathBuf,
    pub(crate) truth: Truth,
    pub(crate) segno_postgres: Arc<Postgres>,
    pub(crate) app_postgres: Arc<Postgres>,
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) slots: Vec<Slot>,
    /// Where callers reach the load balancer.
    pub(crate) door: Proxy,
    /// The API over it, as administrator.
    pub(crate) api: Api,
    pub(crate) admin_key: String,
    pub(crate) executor_key: Mutex<String>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) faketime: Option<PathBuf>,
    /// Kinds of faults that this machine cannot do, and why.
    pub(crate) skipped: Vec<(&'static str, &'static str)>,
    /// Workflows that a caller is at.
    pub(crate) busy: Mutex<HashSet<String>>,
    /// Executors that are started start no errands.
    pub(crate) quiet: AtomicBool,
    /// Nobody is started any more.
    pub(crate) closing: AtomicBool,
}

impl World {
    /// Starts databases, instances and executors, and waits until all of them are there.
    pub(crate) async fn build(args: Args, seed: u64, home: &Path) -> anyhow::Result<Arc<Self>> {
        // Whoever is missing is noticed now.
        binary("segno")?;
        binary("chaos-executor")?;
        std::fs::create_dir(home.join("logs"))?;
        let programs = Programs::find().await?;
        let mut skipped = Vec::new();
        let disk = can_mount(home).await.then_some(DISK_MIB);
        if disk.is_none() {
            skipped.push(("disk filled", "file systems can be mounted by root only"));
        }
        let faketime = FAKETIME.map(PathBuf::from).into_iter().find(|p| p.exists());
        if faketime.is_none() {
            skipped.push(("clock skewed", "libfaketime is not installed"));
        }
        let python = args.python.clone().or_else(python_of_the_tests);
        if python.is_none() {
            skipped.push((
                "Python executors",
                "tests/sdk/environments.py python makes them",
            ));
        }
        let segno_postgres = Postgres::start("segno", &programs, home, disk).await?;
        let app_postgres = Postgres::start("apps", &programs, home, None).await?;
        segno_postgres.create_database("segno").await?;

        let balancer = Arc::new(Balancer::default());
        let mut instances = Vec::new();
        for number in 1..=args.instances {
            instances.push(Arc::new(Instance::new(number, &segno_postgres).await?));
        }
        balancer.set(instances.clone());
        let mut slots = Vec::new();
        let mut languages = vec![Language::Rust];
        languages.extend(python.is_some().then_some(Language::Python));
        for language in languages {
            app_postgres.create_database(language.database()).await?;
            prepare(&app_postgres.url(language.database())).await?;
            for version in VERSIONS {
                for number in 1..=args.executors {
                    slots.push(
                        Slot::new(number, language, version, &balancer, &app_postgres).await?,
                    );
                }
            }
        }
        let to_balancer = Arc::clone(&balancer);
        let door = Proxy::start_routed(move || to_balancer.destination()).await?;
        let admin_key = format!("dbos_{}", uuid::Uuid::new_v4().simple());
        let world = Arc::new(Self {
            api: Api::new(format!("http://{}", door.address()), admin_key.clone())?,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            args,
            seed,
            home: home.to_owned(),
            truth: Truth::default(),
            segno_postgres,
            app_postgres,
            balancer,
            instances,
            slots,
            door,
            admin_key,
            executor_key: Mutex::default(),
            python,
            faketime,
            skipped,
            busy: Mutex::default(),
            quiet: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        Ok(world)
    }

    /// Starts instances and executors, and waits until everybody is there.
    pub(crate) async fn open(self: &Arc<Self>) -> anyhow::Result<()> {
        tokio::spawn(Arc::clone(&self.balancer).check());
        let key = self.bring_instances_up().await?;
        *lock(&self.executor_key) = key;
        let supervisor = tokio::spawn(Arc::clone(self).supervise());
        let watched = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(Err(error)) = supervisor.await {
                watched
                    .truth
                    .violation(format!("the harness failed: {error:#}"));
            }
        });
        eventually("all executors to connect", PATIENCE, async || {
            self.everybody_is_healthy()
                .await
                .map(|all| all.then_some(()))
        })
        .await?;
        for language in self.languages() {
            watch(&self.app_postgres.url(language.database())).await?;
        }
        Ok(())
    }

    async fn bring_instances_up(self: &Arc<Self>) -> anyhow::Result<String> {
        // One after the other: executors are started once there is a key for them.
        self.start_instances()?;
        eventually("an instance to be ready", PATIENCE, async || {
            Ok(self.api.is_ready().await.then_some(()))
        })
        .await?;
        for language in self.languages() {
            self.api.register(language.app(), self.args.grace).await?;
        }
        self.api.create_key("executors").await
    }

    pub(crate) fn languages(&self) -> Vec<Language> {
        let mut languages = vec![Language::Rust];
        languages.extend(self.python.is_some().then_some(Language::Python));
        languages
    }

    /// Whether exactly the executors that run are shown as healthy.
    pub(crate) async fn everybody_is_healthy(&self) -> anyhow::Result<bool> {
        for language in self.languages() {
            let shown = self.api.executors(language.app()).await?;
            let mut healthy: Vec<&str> = shown
                .iter()
                .filter(|each| each.status == "HEALTHY")
                .map(|each| each.executor_id.as_str())
                .collect();
            let places = self.slots.iter().filter(|slot| slot.language == language);
            let ids: Option<Vec<String>> = places.map(|slot| slot.place.id()).collect();
            let Some(mut ids) = ids else { return Ok(false) };
            healthy.sort_unstable();
            ids.sort_unstable();
            anyhow::ensure!(
                healthy == ids,
                "{}: healthy are {healthy:?}, running {ids:?}",
                language.app()
            );
        }
        Ok(true)
    }

    /// Whether a kind of fault is wanted in this run.
    pub(crate) fn wants(&self, fault: &str) -> bool {
        self.args.only.is_empty() || self.args.only.iter().any(|only| only == fault)
    }

    /// Whether a caller is at a workflow.
    pub(crate) fn is_busy(&self, id: &str) -> bool {
        lock(&self.busy).contains(id)
    }

    /// A random number from the seed.
    pub(crate) fn random<T>(&self, choose: impl FnOnce(&mut StdRng) -> T) -> T {
        choose(&mut lock(&self.rng))
    }

    /// A duration between two numbers of seconds.
    pub(crate) fn seconds(&self, range: std::ops::Range<f64>) -> Duration {
        Duration::from_secs_f64(self.random(|rng| rng.random_range(range)))
    }

    /// Makes every link whole and lets every process go on.
    pub(crate) fn mend(&self) {
        let of_instances = self.instances.iter().flat_map(|each| each.links());
        let of_slots = self
            .slots
            .iter()
            .flat_map(|slot| [&slot.control, &slot.database]);
        for proxy in of_instances.chain(of_slots).chain([&self.door]) {
            proxy.mend();
        }
        for place in self.places() {
            let _ = place.freeze(false);
        }
    }

    fn places(&self) -> impl Iterator<Item = &crate::fleet::Place> {
        let slots = self.slots.iter().map(|slot| &slot.place);
        slots.chain(self.instances.iter().map(|each| &each.place))
    }

    /// Ends everything.
    pub(crate) async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.mend();
        for place in self.places() {
            let _ = place.strike(Signal::KILL, Duration::ZERO, false);
        }
        self.segno_postgres.remove().await;
        self.app_postgres.remove().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `tests/sdk/environments.py python` made.
fn python_of_the_tests() -> Option<PathBuf> {
    let cache = std::env::var_os("SEGNO_TEST_SDK_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/sdk"),
        PathBuf::from,
    );
    let python = cache.join("python/3.2.0/bin/python");
    python.exists().then_some(python)
}

/// The tables that the applications write to; no key forbids what must not happen.
async fn prepare(url: &str) -> anyhow::Result<()> {
    execute(
        url,
        "CREATE SCHEMA chaos;
         CREATE TABLE chaos.effects (
             attempt TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, step TEXT NOT NULL,
             executor_id TEXT NOT NULL, app_version TEXT NOT NULL,
             at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
         CREATE INDEX ON chaos.effects (workflow_id);
         CREATE TABLE chaos.ledger (
             workflow_id TEXT NOT NULL, executor_id TEXT NOT NULL, app_version TEXT NOT NULL);
         CREATE TABLE chaos.submitted (workflow_id TEXT PRIMARY KEY);
         CREATE TABLE chaos.statuses (
             workflow_id TEXT NOT NULL, old TEXT, new TEXT NOT NULL, executor_id TEXT,
             at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
         CREATE INDEX ON chaos.statuses (workflow_id);
         CREATE TABLE chaos.checkpoints (
             workflow_id TEXT NOT NULL, function_id INT NOT NULL, step TEXT NOT NULL,
             at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
         CREATE INDEX ON chaos.checkpoints (workflow_id);",
    )
    .await
}

/// Notes every status and every checkpoint that is ever written, whatever the code that writes it believes.
async fn watch(url: &str) -> anyhow::Result<()> {
    execute(
        url,
        "CREATE FUNCTION chaos.note_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO chaos.statuses (workflow_id, old, new, executor_id) VALUES
             (NEW.workflow_uuid, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status, NEW.executor_id);
             RETURN NULL; END $$;
         CREATE TRIGGER chaos_status AFTER INSERT OR UPDATE OF status ON dbos.workflow_status
             FOR EACH ROW EXECUTE FUNCTION chaos.note_status();
         CREATE FUNCTION chaos.note_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO chaos.checkpoints (workflow_id, function_id, step) VALUES
             (NEW.workflow_uuid, NEW.function_id, NEW.function_name);
             RETURN NULL; END $$;
         CREATE TRIGGER chaos_checkpoint AFTER INSERT ON dbos.operation_outputs
             FOR EACH ROW EXECUTE FUNCTION chaos.note_checkpoint();
         CREATE TRIGGER chaos_checkpoint_again AFTER UPDATE ON dbos.operation_outputs
             FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION chaos.note_checkpoint();",
    )
    .await
}

async fn execute(url: &str, sql: &'static str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url)
        .await
        .with_context(|| format!("cannot connect to {url}"))?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
