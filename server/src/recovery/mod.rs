//! The heart: notices that an executor died and hands its workflows to a healthy one that runs the
//! same application version. Nothing is called recovered before it was seen to have moved.
//!
//! - [`machine`] decides. It is a pure function of a case, an event and the time.
//! - `driver` keeps the books of who is there and starts a `runner` for every dead executor; the
//!   runner feeds the machine and carries out what it decides, `offers` and `moving` with it.
//! - [`invariants`] says what must hold whatever happens; tests and debug builds check it.
//! - `sweep` finds work that no book mentions.
//! - `watch` finds out what other instances did to what is this one's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Instance, Peers};
use crate::hub::Hub;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod driver;
mod moving;
mod news;
mod offers;
mod runner;
mod sweep;
mod watch;

pub use news::{News, NewsKind};

pub use segno_recovery::{invariants, machine};

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
            heartbeat_every: Duration::from_secs(2),
            heartbeat_expiry: Duration::from_secs(10),
            // Whoever died before it connected leaves work behind that only a sweep finds.
            sweep_every: Duration::from_secs(60),
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
    peers: Peers,
    offers: Offers,
    /// What happened here and, as far as they told it, at other instances.
    news: broadcast::Sender<News>,
    /// What happened here.
    own_news: broadcast::Sender<News>,
    /// Another instance may have evicted executors of ours.
    evictions_suspected: AtomicBool,
    /// Sessions of ours may not be what the books say.
    sessions_suspected: AtomicBool,
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
    peers: Peers,
    shutdown: CancellationToken,
) -> Result<Handle, StoreError> {
    let shared = Arc::new(Shared {
        offers: Offers::new(hub.clone()),
        news: broadcast::channel(NEWS).0,
        own_news: broadcast::channel(NEWS).0,
        evictions_suspected: AtomicBool::new(false),
        sessions_suspected: AtomicBool::new(false),
        nudge: Notify::new(),
        mailboxes: Mutex::default(),
        options,
        store,
        hub,
        metrics,
        instance: peers.instance().clone(),
        peers,
        shutdown,
    });
    shared.refuse_evicted().await?;
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
    /// What happens to executors from now on, at whichever instance.
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        self.shared.news.subscribe()
    }

    /// What happens at this instance from now on: for the others.
    pub(crate) fn subscribe_own(&self) -> broadcast::Receiver<News> {
        self.shared.own_news.subscribe()
    }

    /// Another instance tells what happened there.
    pub(crate) fn heard(&self, news: News) {
        let shared = &self.shared;
        let key = ExecutorKey {
            app_id: news.app_id.clone(),
            executor_id: news.executor_id.clone(),
            version: news.app_version.clone(),
        };
        let is_here = shared.hub.session(&key).is_some();
        match news.kind {
            NewsKind::Connected => {
                shared.arrived(&key);
                if is_here {
                    shared.sessions_suspected.store(true, Ordering::Release);
                    shared.nudge.notify_one();
                }
            }
            NewsKind::Dead { .. } if is_here => {
                shared.evictions_suspected.store(true, Ordering::Release);
                shared.nudge.notify_one();
            }
            _ => {}
        }
        // Nobody may be listening.
        let _ = shared.news.send(news);
    }

    /// Something may have happened at another instance that nobody told us.
    pub(crate) fn missed(&self) {
        let nobody = ExecutorKey {
            app_id: String::new(),
            executor_id: String::new(),
            version: String::new(),
        };
        let now = self.shared.instance.now();
        let _ = self
            .shared
            .news
            .send(News::of(&nobody, now, NewsKind::Missed));
    }

    /// Has the driver look at once.
    pub(crate) fn look_now(&self) {
        self.shared.nudge.notify_one();
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

    /// Somebody of an application connected to another instance.
    fn arrived_elsewhere(&self, app_id: &str) {
        for (key, mailbox) in self.mailboxes().iter() {
            if key.app_id == app_id {
                mailbox.arrived();
            }
        }
    }

    /// Whose recovery this instance drives.
    fn driven(&self) -> Vec<ExecutorKey> {
        self.mailboxes().keys().cloned().collect()
    }

    fn suspect_evictions(&self) -> bool {
        self.evictions_suspected.swap(false, Ordering::AcqRel)
    }

    fn suspect_sessions(&self) -> bool {
        self.sessions_suspected.swap(false, Ordering::AcqRel)
    }

    /// Closes and refuses the sessions of executors that were evicted, here or elsewhere.
    async fn refuse_evicted(&self) -> Result<(), StoreError> {
        for (key, left) in self.store.evictions().await? {
            let left = Duration::from_millis(left.unsigned_abs());
            self.hub
                .evict(&key.app_id, &key.executor_id, &key.version, left);
        }
        Ok(())
    }

    fn tell(&self, news: News) {
        news.log();
        // Nobody may be listening.
        let _ = self.own_news.send(news.clone());
        let _ = self.news.send(news);
    }
}
