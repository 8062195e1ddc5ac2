//! The processes: instances of Segno behind a load balancer, and the executors of two applications.
//!
//! Whoever ends is started again by [`World::supervise`], as a service manager would; a fault only kills and
//! says how long that one stays away.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;
use rustix::process::Signal;
use segno_e2e::process::{Process, binary};
use segno_e2e::proxy::{Condition, Destination, Proxy};
use segno_e2e::stage::free_address;
use tokio::process::Command;
use uuid::Uuid;

use crate::world::World;

/// The two applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub(crate) enum Language {
    /// On the crate `segno`.
    Rust,
    /// On the official Python SDK.
    Python,
}

impl Language {
    /// Name of its application.
    pub(crate) fn app(self) -> &'static str {
        match self {
            Self::Rust => "chaos-rust",
            Self::Python => "chaos-python",
        }
    }

    /// Name of its database.
    pub(crate) fn database(self) -> &'static str {
        match self {
            Self::Rust => "chaos_rust",
            Self::Python => "chaos_python",
        }
    }
}

/// Versions that run at the same time.
pub(crate) const VERSIONS: [&str; 2] = ["v1", "v2"];

/// A process that may be away.
#[derive(Debug, Default)]
struct Running {
    process: Option<Process>,
    /// Between SIGSTOP and SIGCONT.
    stopped: bool,
    /// It was told to end, or its end is ours.
    ending: bool,
    away_until: Option<Instant>,
    started: usize,
    /// Executors: the id of the present process, once known, and the one that the next is to have.
    id: Option<String>,
    next_id: Option<String>,
    log: PathBuf,
}

/// A place that one process at a time fills.
#[derive(Debug, Default)]
pub(crate) struct Place {
    running: Mutex<Running>,
    /// Somebody hurts it.
    taken: AtomicBool,
}

/// Nobody else hurts a place meanwhile.
pub(crate) struct Taken<'a>(&'a Place);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    pub(crate) fn take(&self) -> Option<Taken<'_>> {
        (!self.taken.swap(true, Ordering::SeqCst)).then_some(Taken(self))
    }

    /// Whether its process runs, and is not stopped.
    pub(crate) fn is_up(&self) -> bool {
        let running = lock(&self.running);
        running.process.is_some() && !running.stopped && !running.ending
    }

    /// The executor id of the present process.
    pub(crate) fn id(&self) -> Option<String> {
        lock(&self.running).id.clone()
    }

    /// Kills or ends the process; it stays away for so long. `again`: the next one gets its id.
    pub(crate) fn strike(
        &self,
        signal: Signal,
        away: Duration,
        again: bool,
    ) -> anyhow::Result<Option<String>> {
        let mut running = lock(&self.running);
        let process = running.process.as_ref().context("it is away already")?;
        process.signal(signal)?;
        running.ending = true;
        running.away_until = Some(Instant::now() + away);
        let id = running.id.clone();
        running.next_id = if again { id.clone() } else { None };
        Ok(id)
    }

    /// Whatever is there goes, and nobody comes for so long.
    pub(crate) fn keep_away(&self, away: Duration) {
        let mut running = lock(&self.running);
        if let Some(process) = &running.process {
            // An error says that it is gone already.
            let _ = process.signal(Signal::KILL);
        }
        running.ending = true;
        running.away_until = Some(Instant::now() + away);
        running.next_id = None;
    }

    /// Ends its being away.
    pub(crate) fn come_back(&self) {
        lock(&self.running).away_until = Some(Instant::now());
    }

    /// Stops it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let mut running = lock(&self.running);
        let process = running.process.as_ref().context("it is away")?;
        process.signal(if frozen { Signal::STOP } else { Signal::CONT })?;
        running.stopped = frozen;
        Ok(())
    }
}

/// An instance of Segno and the links to it and from it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) listen: SocketAddr,
    /// How executors and callers reach it.
    pub(crate) front: Proxy,
    /// How other instances reach it.
    pub(crate) peers: Proxy,
    /// How it reaches its database.
    pub(crate) store: Proxy,
    /// As the load balancer's health check last found it.
    ready: AtomicBool,
}

impl Instance {
    pub(crate) async fn new(
        number: usize,
        postgres: &Arc<crate::postgres::Postgres>,
    ) -> anyhow::Result<Self> {
        let listen = free_address()?;
        let postgres = Arc::clone(postgres);
        Ok(Self {
            name: format!("instance-{number}"),
            place: Place::default(),
            listen,
            front: Proxy::start(listen).await?,
            peers: Proxy::start(listen).await?,
            store: Proxy::start_routed(move || {
                Some(Destination {
                    target: postgres.address(),
                    links: Vec::new(),
                })
            })
            .await?,
            ready: AtomicBool::new(false),
        })
    }

    /// Whether it works, and reaches what it needs.
    fn is_sound(&self) -> bool {
        self.place.is_up()
            && self.front.link().condition() == Condition::Whole
            && self.store.link().condition() == Condition::Whole
            && !self.store.is_refusing()
    }

    pub(crate) fn links(&self) -> [&Proxy; 3] {
        [&self.front, &self.peers, &self.store]
    }
}

/// Connections go in turn to the instances that say they are ready.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    instances: Mutex<Vec<Arc<Instance>>>,
    turn: AtomicUsize,
}

impl Balancer {
    pub(crate) fn set(&self, instances: Vec<Arc<Instance>>) {
        *lock(&self.instances) = instances;
    }

    pub(crate) fn destination(&self) -> Option<Destination> {
        let instances = lock(&self.instances);
        let ready: Vec<_> = instances
            .iter()
            .filter(|each| each.ready.load(Ordering::Relaxed))
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = ready.get(turn.checked_rem(ready.len())?)?;
        Some(Destination {
            target: chosen.listen,
            links: vec![Arc::clone(chosen.front.link())],
        })
    }

    /// Asks every instance again and again whether it is ready.
    pub(crate) async fn check(self: Arc<Self>) -> anyhow::Result<()> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(2))
            .build()?;
        loop {
            let instances = lock(&self.instances).clone();
            let asked = instances.iter().map(|instance| async {
                let url = format!("http://{}/readyz", instance.front.address());
                let answer = client.get(url).send().await;
                let ready = answer.is_ok_and(|answer| answer.status().is_success());
                instance.ready.store(ready, Ordering::Relaxed);
            });
            futures_util::future::join_all(asked).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A place for executors of one language and version, and the links from it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) language: Language,
    pub(crate) version: &'static str,
    /// To the load balancer.
    pub(crate) control: Proxy,
    /// To the application's database.
    pub(crate) database: Proxy,
}

impl Slot {
    pub(crate) async fn new(
        number: usize,
        language: Language,
        version: &'static str,
        balancer: &Arc<Balancer>,
        postgres: &Arc<crate::postgres::Postgres>,
    ) -> anyhow::Result<Self> {
        let (balancer, postgres) = (Arc::clone(balancer), Arc::clone(postgres));
        Ok(Self {
            name: format!("{language:?}-{version}-{number}").to_lowercase(),
            place: Place::default(),
            language,
            version,
            control: Proxy::start_routed(move || balancer.destination()).await?,
            database: Proxy::start_routed(move || {
                Some(Destination {
                    target: postgres.address(),
                    links: Vec::new(),
                })
            })
            .await?,
        })
    }
}

impl World {
    /// Starts the instances that are away for long enough.
    pub(crate) fn start_instances(&self) -> anyhow::Result<()> {
        for instance in &self.instances {
            self.mind(&instance.place, &instance.name, || {
                self.instance_command(instance)
            })?;
            // Nothing listens at the address of one that is away.
            let up = lock(&instance.place.running).process.is_some();
            if instance.peers.is_refusing() == up {
                instance.peers.refuse(!up);
            }
        }
        Ok(())
    }

    /// Starts whoever is away for long enough, and notes who is reachable.
    pub(crate) async fn supervise(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            self.start_instances()?;
            for slot in &self.slots {
                self.mind(&slot.place, &slot.name, || self.executor_command(slot))?;
                self.note(slot);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn mind(
        &self,
        place: &Place,
        name: &str,
        command: impl Fn() -> anyhow::Result<Command>,
    ) -> anyhow::Result<()> {
        let mut running = lock(&place.running);
        if let Some(process) = &mut running.process {
            if process.is_running()? {
                return Ok(());
            }
            if !running.ending {
                self.ended_by_itself(name, &running);
                running.away_until = Some(Instant::now() + Duration::from_secs(1));
                running.next_id = None;
            }
            running.process = None;
            if let Some(id) = running.id.take() {
                self.truth.gone(&id);
            }
        }
        let due = running
            .away_until
            .is_none_or(|until| Instant::now() >= until);
        if !due || self.closing.load(Ordering::SeqCst) {
            return Ok(());
        }
        running.started += 1;
        let mut command = command()?;
        running.id = None;
        if name.starts_with("rust") {
            let given = running.next_id.take();
            let id = given.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
            if given.is_some() {
                self.truth.came_back(&id);
            }
            command.env("SEGNO_EXECUTOR_ID", &id);
            running.id = Some(id);
        }
        // The library's way to sleep fails in Python (EINVAL from time.sleep).
        if !name.starts_with("python") {
            self.skew(&mut command);
        }
        running.log = self
            .home
            .join("logs")
            .join(format!("{name}-{}.log", running.started));
        running.process = Some(Process::start(name, command, running.log.clone())?);
        running.stopped = false;
        running.ending = false;
        running.away_until = None;
        Ok(())
    }

    /// Whoever starts while its database is away says so and ends, as it should; nobody ends later.
    fn ended_by_itself(&self, name: &str, running: &Running) {
        let log = std::fs::read_to_string(&running.log).unwrap_or_default();
        let at_work = |line: &str| {
            line.starts_with("launched ")
                || line.starts_with("executor ")
                || line.contains("listening address=")
        };
        let worked = log.lines().any(at_work);
        let last = log.lines().last().unwrap_or("no word").to_owned();
        let what = format!("{name} ended by itself: {last} ({})", running.log.display());
        if worked {
            self.truth.violation(what);
        } else {
            self.truth.count("ended while starting");
            eprintln!("{what}");
        }
    }

    fn note(&self, slot: &Slot) {
        let mut running = lock(&slot.place.running);
        if running.id.is_none() && running.process.is_some() {
            // Python makes its id itself and prints it.
            let text = std::fs::read_to_string(&running.log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("executor "));
            running.id = line.map(str::to_owned);
        }
        let Some(id) = running.id.clone() else { return };
        let up = running.process.is_some() && !running.stopped && !running.ending;
        drop(running);
        let reachable = up && self.is_reachable(slot);
        let served = up
            && !self.app_postgres.is_hurt()
            && slot.database.is_clear()
            && slot.database.wires().iter().all(|wire| wire.is_clear());
        self.truth
            .observe(&id, slot.language, slot.version, reachable, served);
    }

    fn is_reachable(&self, slot: &Slot) -> bool {
        !self.segno_postgres.is_hurt()
            && slot.control.wires().iter().any(|wire| {
                wire.is_clear()
                    && self
                        .instances
                        .iter()
                        .any(|each| each.listen == wire.target && each.is_sound())
            })
    }

    fn instance_command(&self, instance: &Instance) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("segno")?);
        let store = instance.store.address();
        command
            .arg("serve")
            .env("SEGNO_LISTEN", instance.listen.to_string())
            .env(
                "SEGNO_ADVERTISE_ADDRESS",
                instance.peers.address().to_string(),
            )
            .env(
                "SEGNO_DATABASE_URL",
                format!("postgres://postgres@{store}/segno"),
            )
            .env("SEGNO_AUTH", "keys")
            .env("SEGNO_ADMIN_KEY", &self.admin_key)
            .env("RUST_LOG", "info");
        Ok(command)
    }

    fn executor_command(&self, slot: &Slot) -> anyhow::Result<Command> {
        let database = format!(
            "postgres://postgres@{}/{}",
            slot.database.address(),
            slot.language.database()
        );
        let control = format!("ws://{}", slot.control.address());
        let key = lock(&self.executor_key).clone();
        let mut command = match slot.language {
            Language::Rust => {
                let mut command = Command::new(binary("chaos-executor")?);
                command
                    .env("SEGNO_SYSTEM_DATABASE_URL", database)
                    .env("SEGNO_CONDUCTOR_URL", control)
                    .env("SEGNO_CONDUCTOR_KEY", key)
                    .env("SEGNO_APP_VERSION", slot.version)
                    .env("RUST_LOG", "warn");
                command
            }
            Language::Python => {
                let python = self.python.as_ref().context("there is no Python")?;
                let mut command = Command::new(python);
                command
                    .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/executor.py"))
                    .env(
                        "APP_DATABASE_URL",
                        database.replace("postgres:", "postgresql:"),
                    )
                    .env("APP_CONDUCTOR_URL", control)
                    .env("APP_CONDUCTOR_KEY", key)
                    .env("APP_VERSION", slot.version)
                    .env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        };
        let share = match slot.language {
            Language::Rust => 0.4,
            Language::Python => 0.2,
        };
        let each = if self.quiet.load(Ordering::SeqCst) {
            0.0
        } else {
            self.args.rate * share / (self.args.executors * VERSIONS.len()) as f64
        };
        command
            .args(["--app", slot.language.app()])
            .args(["--rate", &format!("{each:.3}")])
            .args(["--step-ms", &self.args.step_ms.to_string()]);
        Ok(command)
    }

    /// Some processes believe in another time.
    fn skew(&self, command: &mut Command) {
        let Some(library) = &self.faketime else {
            return;
        };
        let mut rng = lock(&self.rng);
        if !self.wants("clock skewed") || !rng.random_bool(0.1) {
            return;
        }
        self.truth.count("clock skewed");
        let seconds: i32 = rng.random_range(-3600..3600);
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME", format!("{seconds:+}s"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}
