//! The heart: notices that an executor died and hands its workflows to a healthy one that runs the
//! same application version. Nothing is called recovered before it was seen to have moved.
//!
//! - [`machine`] decides. It is a pure function of a case, an event and the time.
//! - `driver` keeps the books of who is there and starts a `runner` for every dead executor; the
//!   runner feeds the machine and carries out what it decides, `offers` and `moving` with it.
//! - [`invariants`] says what must hold whatever happens; tests and debug builds check it.
//! - `sweep` finds work that no book mentions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::cluster::Instance;
use crate::hub::Hub;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod driver;
pub mod invariants;
pub mod machine;
mod moving;
mod news;
mod offers;
mod runner;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod simulation;
mod sweep;

pub use news::{News, NewsKind};

use machine::ExecutorKey;
use offers::Offers;
use runner::Mailbox;

/// News kept for a listener that is slow to read; it then misses the oldest.
const NEWS: usize = 1024;
/// How long an evicted executor's dials are refused.
const EVICTED_FOR: Duration = Duration::from_secs(3600);

/// Limits and intervals of recovery.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where peers reach this instance.
    pub address: String,
    /// Between two writes of this instance's heartbeat.
    pub heartbeat_every: Duration,
    /// An instance silent for so long is gone, and its claims are void.
    pub heartbeat_expiry: Duration,
    /// Between two sweeps over `PENDING` rows for owners that nobody knows.
    pub sweep_every: Duration,
    /// First and longest pause before a stranded recovery is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            heartbeat_every: Duration::from_secs(2),
            heartbeat_expiry: Duration::from_secs(10),
            sweep_every: Duration::from_secs(600),
            retry: (Duration::from_secs(2), Duration::from_secs(60)),
        }
    }
}

/// A handle on recovery. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    stopped: CancellationToken,
}

/// What the parts of recovery share.
struct Shared {
    options: Options,
    store: Store,
    hub: Hub,
    metrics: Metrics,
    instance: Instance,
    offers: Offers,
    news: broadcast::Sender<News>,
    nudge: Notify,
    mailboxes: Mutex<HashMap<ExecutorKey, Arc<Mailbox>>>,
    shutdown: CancellationToken,
}

/// Starts recovery; it runs until `shutdown`. To be called when the listener is up: from then on
/// everybody who was connected before has their full grace.
pub async fn start(
    options: Options,
    store: Store,
    hub: Hub,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Handle, StoreError> {
    let instance = Instance::join(
        store.clone(),
        &options.address,
        options.heartbeat_every,
        options.heartbeat_expiry,
        shutdown.clone(),
    )
    .await?;
    for (key, left) in store.evictions().await? {
        let left = Duration::from_millis(left.unsigned_abs());
        hub.evict(&key.app_id, &key.executor_id, &key.version, left);
    }
    let shared = Arc::new(Shared {
        offers: Offers::new(hub.clone()),
        news: broadcast::channel(NEWS).0,
        nudge: Notify::new(),
        mailboxes: Mutex::default(),
        options,
        store,
        hub,
        metrics,
        instance,
        shutdown,
    });
    let stopped = CancellationToken::new();
    let driver = driver::Driver::new(shared.clone());
    let done = stopped.clone().drop_guard();
    tokio::spawn(async move {
        driver.run().await;
        drop(done);
    });
    Ok(Handle { shared, stopped })
}

/// An operator's order that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such recovery, or executor.
    #[error("not found")]
    NotFound,
    /// It is over, or its grace is not.
    #[error("the recovery is not under way: it is over, or the executor's grace is not")]
    NotUnderWay,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Handle {
    /// What happens to executors from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        self.shared.news.subscribe()
    }

    /// This instance.
    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// Waits until recovery has stopped, after the server's shutdown.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Lets `version` take over the work of a recovery that is under way or stranded: each pending
    /// workflow is forked to it and the original cancelled.
    pub async fn assign(&self, app_id: &str, id: &str, version: &str) -> Result<(), OrderError> {
        let store = &self.shared.store;
        let record = store
            .recovery(app_id, id)
            .await?
            .ok_or(OrderError::NotFound)?;
        if !store.assign_recovery(app_id, id, version).await? {
            return Err(OrderError::NotUnderWay);
        }
        if let Some(mailbox) = self.shared.mailbox(&record.key) {
            mailbox.assigned(version.to_owned());
        }
        Ok(())
    }

    /// Gives the work of a recovery up: it is left as it is and nobody is asked any more.
    pub async fn abandon(&self, app_id: &str, id: &str, reason: &str) -> Result<(), OrderError> {
        let store = &self.shared.store;
        let record = store
            .recovery(app_id, id)
            .await?
            .ok_or(OrderError::NotFound)?;
        if !store.abandon_recovery(app_id, id, reason).await? {
            return Err(OrderError::NotUnderWay);
        }
        self.shared.metrics.recovery("ABANDONED");
        let recovery_id = id.to_owned();
        let now = self.shared.instance.now();
        self.shared.tell(News::of(
            &record.key,
            now,
            NewsKind::Abandoned { recovery_id },
        ));
        if let Some(mailbox) = self.shared.mailbox(&record.key) {
            mailbox.claim_lost();
        }
        Ok(())
    }

    /// An operator's word that an executor is gone or wedged: its session is closed, its dials are
    /// refused for an hour, it is dead at once and recovery begins. All versions under the id are
    /// meant. Returns how many.
    pub async fn evict(
        &self,
        app_id: &str,
        executor_id: &str,
        reason: &str,
    ) -> Result<usize, OrderError> {
        let shared = &self.shared;
        let rows = shared.store.executors_by_id(app_id, executor_id).await?;
        if rows.is_empty() {
            return Err(OrderError::NotFound);
        }
        for row in &rows {
            let key = &row.key;
            shared
                .store
                .evict_executor(key, crate::cluster::millis(EVICTED_FOR), reason)
                .await?;
            shared
                .hub
                .evict(app_id, executor_id, &key.version, EVICTED_FOR);
            shared.claim(row).await?;
        }
        // The driver finds the claim it does not drive and starts.
        shared.nudge.notify_one();
        Ok(rows.len())
    }
}

impl Shared {
    fn mailboxes(&self) -> MutexGuard<'_, HashMap<ExecutorKey, Arc<Mailbox>>> {
        self.mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn mailbox(&self, key: &ExecutorKey) -> Option<Arc<Mailbox>> {
        self.mailboxes().get(key).cloned()
    }

    fn is_driven(&self, key: &ExecutorKey) -> bool {
        self.mailboxes().contains_key(key)
    }

    fn open_mailbox(&self, key: &ExecutorKey) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        self.mailboxes().insert(key.clone(), mailbox.clone());
        mailbox
    }

    fn close_mailbox(&self, key: &ExecutorKey) {
        self.mailboxes().remove(key);
    }

    /// An executor connected: its own case ends, and the others of its application look again.
    fn arrived(&self, arrival: &ExecutorKey) {
        for (key, mailbox) in self.mailboxes().iter() {
            if key == arrival {
                mailbox.returned();
            } else if key.app_id == arrival.app_id {
                mailbox.arrived();
            }
        }
    }

    fn tell(&self, news: News) {
        news.log();
        // Nobody may be listening.
        let _ = self.news.send(news);
    }
}
