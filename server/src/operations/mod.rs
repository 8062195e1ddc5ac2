//! Operations on many workflows: cancel, resume, delete or fork everything that a filter matches.
//!
//! An operation is a row, and so is every workflow that it means: it survives this server, waits while
//! nobody is connected who could do it, and goes on where it was. One instance drives it, under a
//! claim; [`runner`] does the work, workflow by workflow, a few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cluster::Instance;
use crate::hub::Hub;
use crate::recovery::{self, News, NewsKind};
use crate::store::operations::{NewOperation, OperationRow, OperationState};
use crate::store::{Store, StoreError};

mod runner;
mod selection;
mod work;

pub use selection::Selection;
pub use work::{ForkFrom, Options};

/// Between two looks for operations that nobody drives.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Operations driven at a time by one instance.
const AT_A_TIME: usize = 4;
/// How long a claim lasts unless it is renewed.
const CLAIM: Duration = Duration::from_secs(30);
/// News kept for a slow listener.
const NEWS: usize = 256;
/// Why an operation waits when nobody is there.
const NOBODY: &str = "no executor is connected";

/// A handle on operations. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    stopped: CancellationToken,
}

struct Shared {
    store: Store,
    hub: Hub,
    instance: Instance,
    /// What happened here and, as far as they told it, at other instances.
    news: broadcast::Sender<OperationRow>,
    /// What happened here.
    own_news: broadcast::Sender<OperationRow>,
    nudge: Notify,
    /// Those that this instance drives.
    driven: Mutex<HashMap<String, CancellationToken>>,
    shutdown: CancellationToken,
}

/// Starts to drive operations; ends after `shutdown`.
pub fn start(
    store: Store,
    hub: Hub,
    recovery: &recovery::Handle,
    shutdown: CancellationToken,
) -> Handle {
    let shared = Arc::new(Shared {
        store,
        hub,
        instance: recovery.instance().clone(),
        news: broadcast::channel(NEWS).0,
        own_news: broadcast::channel(NEWS).0,
        nudge: Notify::new(),
        driven: Mutex::default(),
        shutdown,
    });
    let stopped = CancellationToken::new();
    let done = stopped.clone().drop_guard();
    let arrivals = recovery.subscribe();
    let driving = shared.clone();
    tokio::spawn(async move {
        driving.drive(arrivals).await;
        drop(done);
    });
    Handle { shared, stopped }
}

impl Handle {
    /// What becomes of operations from now on: each as it is after a change.
    pub fn subscribe(&self) -> broadcast::Receiver<OperationRow> {
        self.shared.news.subscribe()
    }

    /// What becomes of operations at this instance: for the others.
    pub(crate) fn subscribe_own(&self) -> broadcast::Receiver<OperationRow> {
        self.shared.own_news.subscribe()
    }

    /// Another instance tells that an operation changed.
    pub(crate) async fn heard(&self, app_id: &str, id: &str) {
        if let Ok(Some(row)) = self.shared.store.operation(app_id, id).await {
            // Nobody may be listening.
            let _ = self.shared.news.send(row);
        }
        // It may be one that somebody must drive.
        self.shared.nudge.notify_one();
    }

    /// Waits until nothing is driven any more, after the server's shutdown.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Begins an operation.
    pub async fn begin(&self, new: &NewOperation) -> Result<(), StoreError> {
        self.shared.store.insert_operation(new).await?;
        self.shared.tell(&new.app_id, &new.id).await;
        self.shared.nudge.notify_one();
        Ok(())
    }

    /// Stops an operation: what is under way ends, nothing more is begun. `false` if it is over.
    pub async fn abort(&self, app_id: &str, id: &str) -> Result<bool, StoreError> {
        if !self.shared.store.abort_operation(app_id, id).await? {
            return Ok(false);
        }
        if let Some(stop) = self.shared.driven().get(id) {
            stop.cancel();
        }
        self.shared.tell(app_id, id).await;
        Ok(true)
    }

    /// Waits until an operation is over, or has nobody to do it, or the time is over.
    pub async fn settled(
        &self,
        app_id: &str,
        id: &str,
        within: Duration,
    ) -> Result<(), StoreError> {
        let end = Instant::now() + within;
        let mut news = self.subscribe();
        loop {
            let row = self.shared.store.operation(app_id, id).await?;
            let nobody = !self.shared.hub.has_anybody(app_id).await;
            let is_over = row.is_none_or(|row| row.state.is_final());
            if nobody || is_over || Instant::now() >= end {
                return Ok(());
            }
            // Another instance may drive it, whose news do not come for certain.
            let look_again = end.min(Instant::now() + Duration::from_millis(250));
            let _ = timeout_at(look_again, news.recv()).await;
        }
    }
}

impl Shared {
    fn driven(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how an operation stands now.
    async fn tell(&self, app_id: &str, id: &str) {
        if let Ok(Some(row)) = self.store.operation(app_id, id).await {
            // Nobody may be listening.
            let _ = self.own_news.send(row.clone());
            let _ = self.news.send(row);
        }
    }

    async fn drive(self: Arc<Self>, mut arrivals: broadcast::Receiver<News>) {
        let mut tasks = JoinSet::new();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.nudge.notified() => {}
                () = connected(&mut arrivals) => {}
                _ = looks.tick() => {}
            }
            while tasks.try_join_next().is_some() {}
            if let Err(error) = self.look(&mut tasks).await {
                tracing::debug!(%error, "operations could not be looked for; trying again");
            }
        }
        for stop in self.driven().values() {
            stop.cancel();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Takes over what nobody drives and somebody here can do.
    async fn look(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<(), StoreError> {
        let expiry = self.instance.expiry_ms();
        for row in self.store.operations_due(expiry).await? {
            let (id, app_id) = (row.wanted.id.clone(), row.wanted.app_id.clone());
            let nobody = !self.hub.has_anybody(&app_id).await;
            if self.driven().len() >= AT_A_TIME || self.driven().contains_key(&id) {
                continue;
            }
            if nobody && row.state == OperationState::WaitingForExecutor {
                continue;
            }
            let Some(app) = self.store.app_by_id(&app_id).await? else {
                continue;
            };
            let ttl = crate::cluster::millis(CLAIM);
            if !self
                .store
                .claim_operation(&id, self.instance.id(), ttl, expiry)
                .await?
            {
                continue;
            }
            if nobody {
                // Its instance went while it ran.
                self.store
                    .release_operation(&id, self.instance.id(), NOBODY)
                    .await?;
                self.tell(&app_id, &id).await;
                continue;
            }
            let stop = CancellationToken::new();
            self.driven().insert(id.clone(), stop.clone());
            let shared = self.clone();
            tasks.spawn(async move {
                runner::run(&shared, &app, row, &stop).await;
                shared.driven().remove(&id);
            });
        }
        Ok(())
    }
}

/// Waits until an executor connects.
async fn connected(arrivals: &mut broadcast::Receiver<News>) {
    loop {
        match arrivals.recv().await {
            Ok(news) if news.kind == NewsKind::Connected => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
