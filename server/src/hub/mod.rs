//! Executor sessions, and the only way to talk to an executor: [`Hub::request`].
//!
//! One task serves a socket, a reader and a writer side by side in it; neither ever waits for the other,
//! for the store or for a caller, so pings are answered whatever happens. A session's requests wait in an
//! [`outbox`] that knows what may be sent now; [`routing`] decides who is asked and who is asked
//! next; the [`registry`] knows who is connected and who may be.
//!
//! The hub writes no row. [`crate::recovery`] looks at who is connected ([`Hub::connected`]) and who
//! went ([`Hub::take_departed`]) and writes it down.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use segno_protocol::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::cluster::Peers;
use crate::cluster::forward::Order;
use crate::recovery::machine::ExecutorKey;
use crate::store::apps::AppRow;
use crate::telemetry::Metrics;

mod accept;
mod cuts;
mod features;
mod link;
mod meter;
mod outbox;
mod penalty;
mod registry;
mod routing;
mod session;
mod versions;

pub use accept::{canonical_path, routes};
pub(crate) use routing::Relayed;
pub(crate) use session::Session;

use cuts::{Cuts, Evictions};
use features::Features;
use meter::Budget;
use penalty::PenaltyBox;
use registry::Registry;
use versions::LatestVersions;

/// Who is to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// This executor and nobody else.
    Executor {
        /// Its id.
        id: String,
        /// Its application version: the same id with another version is another executor.
        version: String,
    },
    /// Any connected executor of the application.
    AnyHealthy,
    /// Any that runs this application version.
    Version(String),
    /// Any that runs the application's latest version.
    LatestVersion,
}

/// What kind of request it is: decides deadlines, order in the queue, and what a failure allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Changes nothing: after a failure the next executor is asked. 12 s each, 24 s in all.
    Read,
    /// Changes something: asked again elsewhere only if it was surely not delivered, or if it is
    /// harmless to repeat. 24 s in all.
    Mutation {
        /// Whether doing it twice does the same as doing it once.
        idempotent: bool,
    },
    /// The server's own work, with this deadline for each executor asked. Reads go on to the next
    /// executor after a failure, everything else stays where it was sent.
    Background(Duration),
}

/// Why a request to an executor has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HubError {
    /// Nobody is connected.
    #[error("no executor is connected")]
    NoExecutor,
    /// Somebody is connected, but nobody of the version needed.
    #[error("no connected executor runs application version {0:?}")]
    NoExecutorOfVersion(String),
    /// Somebody was asked, nobody answered.
    #[error("asked {tried} executor(s), none answered: {reason}")]
    NoAnswer {
        /// How many were asked.
        tried: usize,
        /// What happened to the last one.
        reason: String,
        /// Whether the last one may have done what it was asked.
        may_be_done: bool,
    },
    /// The executor answered with an error.
    #[error("{message}")]
    Remote {
        /// Its words, possibly with a traceback.
        message: String,
    },
    /// No connected executor knows this message.
    #[error("{language} SDK {sdk_version} does not know the message {type}", type = .r#type)]
    UnknownMessage {
        /// The message.
        r#type: &'static str,
        /// The language of the executor asked last.
        language: String,
        /// The SDK version of the executor asked last.
        sdk_version: String,
    },
    /// The answer is larger than a message may be.
    #[error("the answer is larger than {limit} bytes; ask for less at a time")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
}

impl HubError {
    /// Whether what was asked for may have been done all the same.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::NoAnswer { may_be_done, .. } => *may_be_done,
            Self::TooLarge { .. } => true,
            // Nobody was asked, or said no.
            Self::NoExecutor
            | Self::NoExecutorOfVersion(_)
            | Self::Remote { .. }
            | Self::UnknownMessage { .. } => false,
        }
    }
}

/// One connected executor.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The application it belongs to.
    pub app_id: String,
    /// Its id, unique in the application together with the version.
    pub executor_id: String,
    /// The application version it runs.
    pub version: String,
    /// Its host's name.
    pub hostname: Option<String>,
    /// `python`, `typescript`, `go`, `java`, `rust`, …
    pub language: Option<String>,
    /// Version of its SDK.
    pub sdk_version: Option<String>,
    /// What its user attached to it.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// How long it has been connected.
    pub connected_for: Duration,
    /// How long it has let requests time out, while its socket lives.
    pub unresponsive_for: Option<Duration>,
    /// Requests sent and not answered.
    pub outstanding: usize,
}

/// Limits and intervals. The defaults are those of the protocol's timing: change them in tests only.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between two pings of ours.
    pub ping_every: Duration,
    /// Silence after which a socket counts as lost. Executors ping every 20 s.
    pub read_deadline: Duration,
    /// For the answer to `executor_info`.
    pub info_deadline: Duration,
    /// For the rest of the handshake: executors give up after 5 s.
    pub handshake_deadline: Duration,
    /// How long one frame may take to leave.
    pub write_deadline: Duration,
    /// Silence of the command path after which an executor is probed.
    pub probe_every: Duration,
    /// Largest frame and largest message, bytes.
    pub max_message: usize,
    /// What unfinished messages of all sessions together may hold, bytes.
    pub max_unfinished: usize,
    /// Window in which three replacements of one executor's socket mean two processes of one id.
    pub flapping_window: Duration,
    /// How long dials from a refused place are refused at the handshake.
    pub refusal: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(15),
            read_deadline: Duration::from_secs(30),
            info_deadline: Duration::from_secs(10),
            handshake_deadline: Duration::from_secs(4),
            write_deadline: Duration::from_secs(20),
            probe_every: Duration::from_secs(30),
            max_message: segno_protocol::MAX_MESSAGE_BYTES,
            max_unfinished: 512 << 20,
            flapping_window: Duration::from_secs(30),
            refusal: Duration::from_secs(10),
        }
    }
}

/// The executors connected to this instance, and the way to those of others. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    metrics: Metrics,
    registry: Registry,
    penalties: PenaltyBox,
    features: Features,
    latest: LatestVersions,
    cuts: Cuts,
    evictions: Evictions,
    budget: Arc<Budget>,
    changed: Notify,
    peers: OnceLock<Peers>,
}

impl Hub {
    /// A hub without sessions.
    pub fn new(options: Options, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry: Registry::new(options.flapping_window),
                penalties: PenaltyBox::new(options.refusal),
                features: Features::default(),
                latest: LatestVersions::default(),
                cuts: Cuts::default(),
                evictions: Evictions::default(),
                budget: Budget::new(options.max_unfinished),
                changed: Notify::new(),
                peers: OnceLock::new(),
                options,
                metrics,
            }),
        }
    }

    /// Lets requests go to executors of other instances too.
    pub(crate) fn join(&self, peers: Peers) {
        let _ = self.inner.peers.set(peers);
    }

    fn peers(&self) -> Option<&Peers> {
        self.inner.peers.get()
    }

    /// Asks an executor of `app`, of this instance or another, and returns its answer. `error_message` is checked before the
    /// answer is believed; `success: false` is part of the answer and the caller's to judge.
    pub async fn request<M: Message>(
        &self,
        app: &AppRow,
        target: Target,
        message: &M,
        class: Class,
    ) -> Result<M::Response, HubError> {
        let question = routing::Typed(message);
        routing::request(self, &app.id, &app.name, target, &question, class).await
    }

    /// Asks an executor of this instance what another instance wants to know. With a failure goes
    /// whether it is the last word: then nobody else may be asked.
    pub(crate) async fn relay(
        &self,
        order: &Order,
        message: &Relayed,
        until: Instant,
    ) -> Result<Utf8Bytes, (HubError, bool)> {
        routing::relay(self, order, message, until).await
    }

    /// Largest message, bytes.
    pub(crate) fn max_message(&self) -> usize {
        self.inner.options.max_message
    }

    /// The executors of an application that are connected to any instance.
    pub async fn everywhere(&self, app_id: &str) -> Vec<SessionInfo> {
        let mut all = self.sessions(app_id);
        let Some(peers) = self.peers() else {
            return all;
        };
        let here: HashSet<(String, String)> = all
            .iter()
            .map(|session| (session.executor_id.clone(), session.version.clone()))
            .collect();
        for row in peers.elsewhere(app_id).await.iter() {
            if here.contains(&(row.executor_id.clone(), row.version.clone())) {
                continue;
            }
            all.push(SessionInfo {
                app_id: app_id.to_owned(),
                executor_id: row.executor_id.clone(),
                version: row.version.clone(),
                hostname: row.hostname.clone(),
                language: row.language.clone(),
                sdk_version: row.sdk_version.clone(),
                metadata: None,
                connected_for: Duration::ZERO,
                unresponsive_for: row.unresponsive_since.map(|_| Duration::ZERO),
                outstanding: 0,
            });
        }
        all
    }

    /// Whether any executor of an application is connected to any instance.
    pub async fn has_anybody(&self, app_id: &str) -> bool {
        if self.has_sessions(app_id) {
            return true;
        }
        match self.peers() {
            Some(peers) => !peers.elsewhere(app_id).await.is_empty(),
            None => false,
        }
    }

    /// The connected executors of an application.
    pub fn sessions(&self, app_id: &str) -> Vec<SessionInfo> {
        self.inner
            .registry
            .of_app(app_id)
            .iter()
            .filter(|session| !session.is_ending())
            .map(|session| session.info())
            .collect()
    }

    /// Whether any executor of an application is connected.
    pub fn has_sessions(&self, app_id: &str) -> bool {
        self.inner.registry.has_any(app_id)
    }

    /// Closes every session of an application: it was deleted.
    pub async fn close_app(&self, app_id: &str) {
        self.inner.cuts.cut(app_id);
        for session in self.inner.registry.of_app(app_id) {
            session.close("the application was deleted");
        }
    }

    /// Closes every session that was made with a key: it was revoked.
    pub async fn close_key(&self, key_id: &str) {
        self.inner.cuts.cut(key_id);
        for session in self.inner.registry.all() {
            if session.key_id() == Some(key_id) {
                session.close("the key was revoked");
            }
        }
    }

    /// Refuses an executor, its id with this version, for so long, and closes its session.
    pub fn evict(&self, app_id: &str, executor_id: &str, version: &str, refused: Duration) {
        let until = std::time::Instant::now() + refused;
        self.inner
            .evictions
            .evict((app_id, executor_id, version), until);
        if let Some(session) = self.inner.registry.find(app_id, executor_id, version) {
            session.close("evicted by an operator");
        }
    }

    /// Closes every session: the server shuts down. Returns when every executor has been told, or does
    /// not listen.
    pub async fn close_all(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        loop {
            // Again, for one may still have been on its way in.
            let sessions = self.inner.registry.all();
            for session in &sessions {
                session.close("the server is shutting down");
            }
            if sessions.is_empty() {
                return;
            }
            // Each gives up by itself, within the deadline of its last frame.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Closes one session whose executor connected to another instance since. Several such changes
    /// within a while mean two processes of one id, here as among sessions of one instance.
    pub(crate) fn close_superseded(&self, session: &Session) {
        let inner = &self.inner;
        inner.registry.note_replacement(session, Instant::now());
        session.close("replaced by a newer connection of the same executor");
    }

    /// Ids of the keys and of the applications that sessions are made with.
    pub(crate) fn in_use(&self) -> (HashSet<String>, HashSet<String>) {
        let all = self.inner.registry.all();
        let keys = all.iter().filter_map(|session| session.key_id());
        (
            keys.map(str::to_owned).collect(),
            all.iter()
                .map(|session| session.app_id().to_owned())
                .collect(),
        )
    }

    /// The session that speaks for an executor here.
    pub(crate) fn session(&self, key: &ExecutorKey) -> Option<Arc<Session>> {
        self.inner
            .registry
            .find(&key.app_id, &key.executor_id, &key.version)
    }

    /// Closes every session, for a reason that is shown to executors.
    pub(crate) fn close_all_for(&self, reason: &'static str) {
        for session in self.inner.registry.all() {
            session.close(reason);
        }
    }

    /// Whether this executor, of this version, is connected here.
    pub fn is_connected(&self, app_id: &str, executor_id: &str, version: &str) -> bool {
        self.inner
            .registry
            .find(app_id, executor_id, version)
            .is_some_and(|session| !session.is_ending())
    }

    /// The application's latest version by its executors' word, cached for seconds.
    pub async fn latest_version(&self, app: &AppRow) -> Result<String, HubError> {
        routing::latest_version(self, &app.id, &app.name).await
    }

    /// All sessions, in the order in which they came.
    pub(crate) fn connected(&self) -> Vec<Arc<Session>> {
        self.inner.registry.all()
    }

    /// The sessions that came since the last call, also those that ended by now.
    pub(crate) fn take_arrived(&self) -> Vec<Arc<Session>> {
        self.inner.registry.take_arrived()
    }

    /// The sessions that ended since the last call, in the order in which they had come.
    pub(crate) fn take_departed(&self) -> Vec<Arc<Session>> {
        self.inner.registry.take_departed()
    }

    /// Waits until somebody came, went, fell silent or spoke again since the last call.
    pub(crate) async fn changed(&self) {
        self.inner.changed.notified().await;
    }
}
