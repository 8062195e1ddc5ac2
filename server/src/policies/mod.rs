//! Periodic work. Expiry is idempotent, so that several instances may run it. Work on an application
//! is done in rounds: of all instances, the one that takes a round's lease does it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rand::Rng;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::Instance;
use crate::hub::Hub;
use crate::store::apps::AppRow;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod alerts;
pub mod autoscaling;
pub mod channels;
mod collection;
pub mod firings;
mod retention;
pub mod rules;

pub use retention::warnings as retention_warnings;

/// Between two rounds of expiry.
const EXPIRY: Duration = Duration::from_secs(3600);
/// Rounds under way at a time, of all applications.
const AT_ONCE: usize = 16;

/// Cadence of the work on an application.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between two looks at what is due.
    pub tick: Duration,
    /// Between two collections of stored metrics, and so their granularity.
    pub metrics_every: Duration,
    /// Between two deletions of old workflows.
    pub garbage_every: Duration,
    /// Between two cancellations of overdue workflows.
    pub timeouts_every: Duration,
    /// Between two evaluations of alerting rules.
    pub alerts_every: Duration,
    /// A connected executor that does not answer a probe within this counts as silent.
    pub probe: Duration,
    /// After a start, executors have so long to come back before their absence is told.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            metrics_every: Duration::from_secs(300),
            garbage_every: Duration::from_secs(600),
            timeouts_every: Duration::from_secs(60),
            alerts_every: Duration::from_secs(30),
            probe: Duration::from_secs(10),
            settle: Duration::from_secs(60),
        }
    }
}

/// What was logged, so that it is not logged again. Cheap to clone.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<HashSet<String>>>);

impl Said {
    /// Whether this is said for the first time.
    fn first(&self, text: String) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(text)
    }
}

/// What the jobs work with.
#[derive(Clone)]
pub struct Context {
    /// Cadence.
    pub options: Options,
    /// The server's own database.
    pub store: Store,
    /// Connected executors.
    pub hub: Hub,
    /// This instance.
    pub instance: Instance,
    /// Where alerts go beside handlers.
    pub channels: channels::Channels,
    /// The server's own metrics.
    pub metrics: Metrics,
    /// When this instance began to serve.
    pub started: Instant,
    /// What was logged once and for all.
    pub said: Said,
}

/// One kind of work on an application.
struct Job {
    name: &'static str,
    /// Whether it is for applications that rules watch, connected or not, rather than for connected ones.
    watches: bool,
    every: fn(&Options) -> Duration,
    round: for<'a> fn(&'a Context, &'a AppRow) -> BoxFuture<'a, Result<(), StoreError>>,
}

static JOBS: [Job; 3] = [
    Job {
        name: "metrics",
        watches: false,
        every: |options| options.metrics_every,
        round: |context, app| Box::pin(collection::round(context, app)),
    },
    Job {
        name: "retention",
        watches: false,
        every: |options| options.timeouts_every,
        round: |context, app| Box::pin(retention::round(context, app)),
    },
    Job {
        name: "alerts",
        watches: true,
        every: |options| options.alerts_every,
        round: |context, app| Box::pin(alerts::round(context, app)),
    },
];

/// Starts the jobs; they end when `shutdown` is cancelled.
pub fn start(context: Context, shutdown: CancellationToken) -> JoinHandle<()> {
    let outbox = context.channels.start(shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = expire_forever(&context.store) => {}
            () = work_forever(Arc::new(context.clone())) => {}
        }
        outbox.await.ok();
    })
}

async fn expire_forever(store: &Store) {
    let mut rounds = tokio::time::interval(EXPIRY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        expire(store).await;
    }
}

/// One round: audit entries past their organization's retention, old operations, idempotency keys,
/// alerts and metrics.
pub async fn expire(store: &Store) {
    match store.expire_audit().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "expired audit entries"),
        Err(error) => {
            tracing::warn!(%error, "audit entries could not be expired; trying again later")
        }
    }
    if let Err(error) = store.expire_operations().await {
        tracing::warn!(%error, "operations could not be expired; trying again later");
    }
    if let Err(error) = store.expire_idempotency().await {
        tracing::warn!(%error, "idempotency keys could not be expired; trying again later");
    }
    if let Err(error) = store.expire_alerts().await {
        tracing::warn!(%error, "alerts could not be expired; trying again later");
    }
    if let Err(error) = store.expire_app_metrics().await {
        tracing::warn!(%error, "stored metrics could not be expired; trying again later");
    }
}

type Key = (String, &'static str);

/// Which rounds are due as far as this instance knows. Whether one really is, the store knows; what is
/// remembered here only saves asking it.
#[derive(Default)]
struct Calendar {
    next: HashMap<Key, Instant>,
    running: HashSet<Key>,
    /// Applications that rules watch, and when they were looked up.
    watched: HashSet<String>,
    looked_at: Option<Instant>,
}

impl Calendar {
    /// Looks up which applications rules watch, now and then.
    async fn look_up(&mut self, context: &Context) {
        let often = context.options.alerts_every / 2;
        if self.looked_at.is_some_and(|at| at.elapsed() < often) {
            return;
        }
        self.looked_at = Some(Instant::now());
        match context.store.watched_apps().await {
            Ok(apps) => self.watched = apps.into_iter().collect(),
            Err(error) => tracing::warn!(%error, "the alerting rules could not be read"),
        }
    }

    /// The rounds that begin now: of the applications whose executors are connected here, and of those
    /// that rules watch.
    fn due(&mut self, options: &Options, connected: &HashSet<String>) -> Vec<(&'static Job, Key)> {
        let mut due = Vec::new();
        let watched = &self.watched;
        let wanted = |app_id: &String, job: &Job| match job.watches {
            true => watched.contains(app_id),
            false => connected.contains(app_id),
        };
        self.next.retain(|(app_id, name), _| {
            JOBS.iter()
                .any(|job| job.name == *name && wanted(app_id, job))
        });
        for app_id in connected.union(watched) {
            for job in JOBS.iter().filter(|job| wanted(app_id, job)) {
                let key = (app_id.clone(), job.name);
                let every = (job.every)(options);
                // Applications that come together, after a restart, are spread.
                let spread = || Instant::now() + random_part(every / 4);
                let next = self.next.entry(key.clone()).or_insert_with(spread);
                if *next <= Instant::now() && !self.running.contains(&key) {
                    *next = Instant::now() + every / 2 + random_part(every / 2);
                    due.push((job, key));
                }
            }
        }
        self.running.extend(due.iter().map(|(_, key)| key.clone()));
        due
    }
}

async fn work_forever(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.options.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut calendar = Calendar::default();
    let mut rounds: JoinSet<Key> = JoinSet::new();
    let limit = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        ticks.tick().await;
        while let Some(ended) = rounds.try_join_next() {
            match ended {
                Ok(key) => {
                    calendar.running.remove(&key);
                }
                Err(error) => {
                    // Which one it was is not known; the leases keep rounds apart.
                    tracing::error!(%error, "a round of periodic work failed");
                    calendar.running.clear();
                }
            }
        }
        calendar.look_up(&context).await;
        let sessions = context.hub.connected();
        let connected = sessions.iter().map(|session| session.app_id().to_owned());
        for (job, key) in calendar.due(&context.options, &connected.collect()) {
            rounds.spawn(round(context.clone(), limit.clone(), job, key));
        }
    }
}

fn random_part(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random())
}

async fn round(context: Arc<Context>, limit: Arc<Semaphore>, job: &'static Job, key: Key) -> Key {
    let Ok(_permit) = limit.acquire().await else {
        return key;
    };
    let done = match context.store.app_by_id(&key.0).await {
        Ok(Some(app)) => (job.round)(&context, &app).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        tracing::warn!(app_id = key.0, job = job.name, %error, "a round failed; the next will do");
    }
    key
}

/// Whole milliseconds of a duration.
fn ms(duration: Duration) -> i64 {
    crate::cluster::millis(duration)
}
