//! The connection to the control plane.
//!
//! One websocket per process, dialled by us and redialled for ever. The control plane asks, we answer
//! from the system database; workflows never wait for any of this. The rules are those of the executor
//! protocol that the official SDKs speak, see the crate `segno-protocol`.

mod answer;
mod backoff;
mod convert;
mod handshake;
mod lanes;
mod render;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use segno_protocol::{Alert, WaitingOn};
use serde_json::{Map, Value as Json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::system_database::SystemDatabase;
use answer::Executor;
use handshake::Dialer;
use session::Client;

/// Whom to dial, and as whom.
#[derive(Clone)]
pub struct ConductorConfig {
    /// Base URL: `ws://`, `wss://`, or `http(s)://` for the same; `/websocket/{app}/{key}` is appended.
    pub url: String,
    /// The key, which is part of the path. Never logged.
    pub key: String,
    /// Name under which the application is registered.
    pub app_name: String,
    /// Unique among the running processes of the application.
    pub executor_id: String,
    /// Code version of this process.
    pub app_version: String,
    /// Anything worth knowing about this process; shown to operators.
    pub metadata: Option<Map<String, Json>>,
}

impl fmt::Debug for ConductorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConductorConfig")
            .field("app_name", &self.app_name)
            .field("executor_id", &self.executor_id)
            .field("app_version", &self.app_version)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// Handles an alert; an error is reported to the control plane.
pub type AlertHandler = Arc<dyn Fn(Alert) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Tells what a workflow that runs in this process waits for; `None` if it does not run here.
pub type ExplainHandler = Arc<dyn Fn(&str) -> Option<WaitingOn> + Send + Sync>;

/// What the control plane's requests cause in this process.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Called after anything that enqueued work, so that it is looked for at once.
    pub wake: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Called for alerts; without a handler they are logged.
    pub alert: Option<AlertHandler>,
    /// Called to explain why a workflow does not move.
    pub explain: Option<ExplainHandler>,
    /// Payloads stay here: the control plane is told what there is, not what is in it.
    pub metadata_only: bool,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("wake", &self.wake.is_some())
            .field("alert", &self.alert.is_some())
            .field("explain", &self.explain.is_some())
            .field("metadata_only", &self.metadata_only)
            .finish()
    }
}

/// How long the client waits for what. The defaults suit every server; tests want shorter ones.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For name resolution, TCP, TLS and upgrade together.
    pub handshake: Duration,
    /// Between our pings.
    pub ping: Duration,
    /// Without any inbound frame the connection counts as lost.
    pub silence: Duration,
    /// First wait before redialling; doubles with every failure.
    pub retry_first: Duration,
    /// Longest wait before redialling, and the wait after a rejection.
    pub retry_max: Duration,
    /// A connection that lasted longer is redialled at once.
    pub stable_after: Duration,
    /// Between log lines about the same rejection.
    pub rejection_log: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping: Duration::from_secs(20),
            silence: Duration::from_secs(30),
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(60),
            rejection_log: Duration::from_secs(60),
        }
    }
}

/// A configuration that could never connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConductorError {
    /// The URL is no websocket URL. It is not repeated, because it may hold credentials.
    #[error("the control plane URL is not valid: {0} (expected wss://host[:port][/path])")]
    Url(String),
    /// A part of the address is empty.
    #[error("the {0} must not be empty")]
    Empty(&'static str),
}

/// The client of the control plane.
#[derive(Debug)]
pub struct Conductor;

impl Conductor {
    /// Connects in the background, for as long as the handle is not shut down.
    ///
    /// # Errors
    /// If the configuration could never work. A server that is away is no error.
    pub fn spawn(
        config: ConductorConfig,
        db: SystemDatabase,
        hooks: Hooks,
    ) -> Result<ConductorHandle, ConductorError> {
        Self::spawn_with(config, db, hooks, Timing::default())
    }

    /// As [`spawn`](Self::spawn), with waits of one's own.
    ///
    /// # Errors
    /// As `spawn`.
    pub fn spawn_with(
        config: ConductorConfig,
        db: SystemDatabase,
        hooks: Hooks,
        timing: Timing,
    ) -> Result<ConductorHandle, ConductorError> {
        let dialer = Dialer::new(&config)?;
        let stop = CancellationToken::new();
        let (identified, connected) = watch::channel(false);
        let executor = Arc::new(Executor::new(config, db, hooks, stop.clone()));
        let client = Client::new(dialer, executor, timing, identified);
        let task = tokio::spawn(client.run(stop.clone()));
        Ok(ConductorHandle {
            stop,
            task,
            connected,
        })
    }
}

/// The running client. Dropping it leaves the client running.
#[derive(Debug)]
pub struct ConductorHandle {
    stop: CancellationToken,
    task: JoinHandle<()>,
    connected: watch::Receiver<bool>,
}

impl ConductorHandle {
    /// Whether the control plane knows us right now.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Cuts the connection without a word, as the end of the process would: whether we come back nobody knows.
    pub async fn abort(self) {
        self.task.abort();
        // It was ended.
        let _ = self.task.await;
        self.stop.cancel();
    }

    /// Finishes requests that are being handled (5 seconds at most), says that this executor has stopped for
    /// good, and hangs up: what is still pending under it is given to others at once.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(e) = self.task.await {
            tracing::warn!(error = %e, "the control plane client did not end cleanly");
        }
    }
}
