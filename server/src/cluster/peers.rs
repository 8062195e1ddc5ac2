//! The other instances: who is alive, and whose executors they hold.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Instance;
use super::letter::Post;
use crate::config::Secret;
use crate::hub::Target;
use crate::store::peers::{ElsewhereRow, PeerRow};
use crate::store::{Dialect, Store, StoreError};

/// How long it is believed who holds whose socket.
const FRESH: Duration = Duration::from_millis(300);
/// A peer that does not take a connection for so long is not there.
const CONNECT: Duration = Duration::from_secs(2);

/// The other instances on this store. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    instance: Instance,
    store: Store,
    post: Post,
    client: reqwest::Client,
    scheme: &'static str,
    alive: RwLock<Vec<PeerRow>>,
    looked_at: tokio::sync::Mutex<Instant>,
    /// By application. Held while one asks the store, so that the others need not.
    elsewhere: tokio::sync::Mutex<HashMap<String, Known>>,
}

struct Known {
    rows: Arc<Vec<ElsewhereRow>>,
    at: Instant,
}

/// Who of the others may serve a request.
pub(crate) struct Holders {
    /// Those that hold somebody whom the request may be put to, in random order.
    pub(crate) peers: Vec<PeerRow>,
    /// Whether they hold any executor of the application.
    pub(crate) any: bool,
}

impl Peers {
    /// Finds the others, and keeps looking for them until `shutdown`. `tls`: whether instances listen with
    /// TLS; this one stands for all. Certificates name what clients dial, not what instances advertise, so
    /// they are not compared: who asks is proved by the letter.
    pub(crate) async fn find(
        instance: Instance,
        store: Store,
        tls: bool,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let fresh = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let secret = Secret::new(store.cluster_secret(&fresh).await?);
        let client = reqwest::Client::builder()
            .no_proxy()
            .danger_accept_invalid_certs(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(10))
            .build()?;
        let peers = Self {
            inner: Arc::new(Inner {
                post: Post::new(instance.id(), &secret),
                instance,
                store,
                client,
                scheme: if tls { "https" } else { "http" },
                alive: RwLock::default(),
                looked_at: tokio::sync::Mutex::new(Instant::now()),
                elsewhere: tokio::sync::Mutex::default(),
            }),
        };
        // An embedded database has one instance.
        if peers.inner.store.dialect() == Dialect::Postgres {
            peers.look().await?;
            tokio::spawn(peers.clone().keep_looking(shutdown));
        }
        Ok(peers)
    }

    async fn keep_looking(self, shutdown: CancellationToken) {
        let mut ticks = interval(self.inner.instance.beats_every() / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Ok(Err(error)) = timeout(Duration::from_secs(10), self.look()).await {
                tracing::debug!(%error, "could not look for other instances");
            }
        }
    }

    /// Looks who is alive.
    pub(super) async fn look(&self) -> Result<Vec<PeerRow>, StoreError> {
        let inner = &self.inner;
        let (id, expiry) = (inner.instance.id(), inner.instance.expiry_ms());
        let found = inner.store.peers(id, expiry).await?;
        let mut alive = inner.alive.write().unwrap_or_else(PoisonError::into_inner);
        alive.clone_from(&found);
        Ok(found)
    }

    /// Those that were alive a moment ago.
    pub(crate) fn alive(&self) -> Vec<PeerRow> {
        let alive = self
            .inner
            .alive
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        alive.clone()
    }

    /// Whether there are others.
    pub(crate) fn any(&self) -> bool {
        let alive = self
            .inner
            .alive
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        !alive.is_empty()
    }

    /// Whether there are others; that there are none is believed only of a look at `since` or later: for a
    /// request that nobody here can serve.
    async fn any_since(&self, since: Instant) -> bool {
        let inner = &self.inner;
        if self.any() || inner.store.dialect() == Dialect::Sqlite {
            return self.any();
        }
        // Held while one looks, so that the others need not.
        let mut looked_at = inner.looked_at.lock().await;
        if *looked_at < since {
            let began = Instant::now();
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "could not look for other instances");
            }
            *looked_at = began;
        }
        self.any()
    }

    /// The executors of an application that others hold. While the store is away: those known last.
    pub(crate) async fn elsewhere(&self, app_id: &str) -> Arc<Vec<ElsewhereRow>> {
        let now = Instant::now();
        self.elsewhere_since(app_id, now.checked_sub(FRESH).unwrap_or(now))
            .await
    }

    /// The same, as it was at `since` or later.
    async fn elsewhere_since(&self, app_id: &str, since: Instant) -> Arc<Vec<ElsewhereRow>> {
        if !self.any() {
            return Arc::default();
        }
        let inner = &self.inner;
        let mut all = inner.elsewhere.lock().await;
        if let Some(known) = all.get(app_id).filter(|known| known.at >= since) {
            return known.rows.clone();
        }
        let (id, expiry) = (inner.instance.id(), inner.instance.expiry_ms());
        let at = Instant::now();
        let rows = match inner.store.executors_elsewhere(app_id, id, expiry).await {
            Ok(rows) => Arc::new(rows),
            Err(error) => {
                tracing::debug!(%error, "cannot read which executors others hold");
                all.get(app_id)
                    .map(|known| known.rows.clone())
                    .unwrap_or_default()
            }
        };
        all.retain(|_, known| known.at.elapsed() < Duration::from_secs(60));
        let known = Known {
            rows: rows.clone(),
            at,
        };
        all.insert(app_id.to_owned(), known);
        rows
    }

    /// Who may serve a request that is for `target`. That nobody may is believed only of the books as they
    /// are now.
    pub(crate) async fn holders(&self, app_id: &str, target: &Target) -> Holders {
        let asked = Instant::now();
        self.any_since(asked).await;
        let known = self.among(&self.elsewhere(app_id).await, target);
        match known.peers.is_empty() {
            true => self.among(&self.elsewhere_since(app_id, asked).await, target),
            false => known,
        }
    }

    fn among(&self, rows: &[ElsewhereRow], target: &Target) -> Holders {
        let fits = |row: &&ElsewhereRow| match target {
            Target::Executor { id, version } => row.executor_id == *id && row.version == *version,
            Target::Version(version) => row.version == *version,
            Target::AnyHealthy | Target::LatestVersion => true,
        };
        // Last come those all of whose executors let requests time out.
        let mut holders: HashMap<&str, bool> = HashMap::new();
        for row in rows.iter().filter(fits) {
            *holders.entry(&row.instance_id).or_default() |= row.unresponsive_since.is_none();
        }
        let mut peers: Vec<PeerRow> = self.alive();
        peers.retain(|peer| holders.contains_key(peer.id.as_str()));
        peers.shuffle(&mut rand::rng());
        peers.sort_by_key(|peer| holders.get(peer.id.as_str()) != Some(&true));
        Holders {
            peers,
            any: !rows.is_empty(),
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.inner.instance
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(super) fn post(&self) -> &Post {
        &self.inner.post
    }

    /// Where something is at another instance.
    pub(super) fn url(&self, peer: &PeerRow, path: &str) -> String {
        format!("{}://{}{path}", self.inner.scheme, peer.address)
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.inner.client
    }
}
