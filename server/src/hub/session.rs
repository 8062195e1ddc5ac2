//! One connected executor, from the accepted socket to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::upgrade::Upgraded;
use segno_protocol::{ExecutorInfo, Message};
use serde_json::{Map, Value};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;

use super::link::{End, Link};
use super::outbox::{CallError, Manners, Priority};
use super::penalty::Place;
use super::registry::Bound;
use super::{Hub, SessionInfo};
use crate::auth::KeyId;

/// Bounds on what an executor says about itself, bytes.
const MAX_ID: usize = 256;
const MAX_VERSION: usize = 1 << 10;
const MAX_METADATA: usize = 64 << 10;
const MAX_NAME: usize = 256;

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Who may dial: what the handshake found out.
pub(super) struct Admitted {
    pub(super) app_id: String,
    pub(super) app_name: String,
    pub(super) key_id: Option<KeyId>,
    pub(super) place: Place,
}

/// What an executor says about itself, checked.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) executor_id: String,
    pub(crate) version: String,
    pub(crate) hostname: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) sdk_version: Option<String>,
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// One connected executor.
pub(crate) struct Session {
    serial: u64,
    id: String,
    admitted: Admitted,
    identity: Identity,
    link: Arc<Link>,
}

impl Session {
    /// Unique among all instances and times.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Grows in the order in which executors connect to this instance.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn app_id(&self) -> &str {
        &self.admitted.app_id
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.admitted.key_id.as_deref()
    }

    /// When the executor was last there, once it is gone.
    pub(crate) fn lost_at(&self) -> Instant {
        self.link.lost_at()
    }

    /// Whether the executor said, when it went, that it does not come back.
    pub(crate) fn has_left(&self) -> bool {
        self.link.end() == End::Left
    }

    /// Since when it has let requests time out.
    pub(crate) fn unresponsive_since(&self) -> Option<Instant> {
        self.link.unresponsive_since()
    }

    /// Requests sent to it or waiting for it.
    pub(crate) fn load(&self) -> usize {
        self.link.load()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.link.is_ending()
    }

    /// Ends the session. `reason` travels in the close frame.
    pub(crate) fn close(&self, reason: &'static str) {
        self.link.close(End::Ours(reason));
    }

    /// Requests not answered yet, and whether it has let any time out.
    pub(crate) fn depth(&self) -> (usize, bool) {
        (self.link.outstanding(), self.unresponsive_since().is_some())
    }

    pub(super) fn info(&self) -> SessionInfo {
        SessionInfo {
            app_id: self.admitted.app_id.clone(),
            executor_id: self.identity.executor_id.clone(),
            version: self.identity.version.clone(),
            hostname: self.identity.hostname.clone(),
            language: self.identity.language.clone(),
            sdk_version: self.identity.sdk_version.clone(),
            metadata: self.identity.metadata.clone(),
            connected_for: self.link.opened().elapsed(),
            unresponsive_for: self.unresponsive_since().map(|since| since.elapsed()),
            outstanding: self.link.outstanding(),
        }
    }

    /// Sends a message and waits for the answer's text.
    pub(super) async fn call(
        &self,
        message: &'static str,
        priority: Priority,
        encode: impl FnOnce(&str) -> String,
        deadline: Duration,
    ) -> Result<Utf8Bytes, CallError> {
        self.link.call(message, priority, encode, deadline).await
    }
}

async fn call<M: Message>(
    link: &Link,
    message: &M,
    priority: Priority,
    deadline: Duration,
) -> Result<Utf8Bytes, CallError> {
    let encode = |request_id: &str| segno_protocol::encode_request(request_id, message);
    link.call(M::TYPE, priority, encode, deadline).await
}

/// Serves an upgraded connection until it ends.
pub(super) async fn serve(hub: Hub, admitted: Admitted, connection: Upgraded) {
    let span = tracing::info_span!("executor", app = %admitted.app_name, address = %admitted.place.address);
    let budget = hub.inner.budget.clone();
    let opened = Instant::now();
    let (link, traffic) = Link::open(connection, &hub.inner.options, budget, span).await;
    let attended = async {
        let session = meet(&hub, admitted, link, opened).await?;
        hub.attend(&session).await;
        Some(session)
    };
    let ((), session) = tokio::join!(traffic, attended);
    if let Some(session) = session {
        hub.let_go(&session);
    }
}

/// Asks a new connection who it is and lets it speak for its executor; `None` if that failed and the
/// connection is being closed.
async fn meet(
    hub: &Hub,
    admitted: Admitted,
    link: Arc<Link>,
    opened: Instant,
) -> Option<Arc<Session>> {
    let place = admitted.place;
    let identity = match introduce(hub, &link).await {
        Ok(identity) => identity,
        Err(refusal) => {
            tracing::warn!(
                app = %admitted.app_name, address = %place.address, reason = %refusal,
                "closed a connection that did not introduce itself"
            );
            hub.inner.metrics.websocket_refused("no_executor_info");
            if refusal.is_answered() {
                // It would dial again at once and say the same.
                hub.inner.penalties.refuse(place, Instant::now());
            }
            link.close(End::Ours("no valid executor_info"));
            return None;
        }
    };
    link.set_manners(Manners::of(identity.language.as_deref()));
    let session = Arc::new(Session {
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        id: Uuid::new_v4().to_string(),
        admitted,
        identity,
        link,
    });
    if !hub.admit(&session, opened) {
        hub.inner.penalties.refuse(place, Instant::now());
        return None;
    }
    Some(session)
}

impl Hub {
    /// Lets a session that introduced itself speak for its executor, or closes it.
    fn admit(&self, session: &Arc<Session>, opened: Instant) -> bool {
        let inner = &self.inner;
        let (identity, admitted) = (&session.identity, &session.admitted);
        if inner
            .cuts
            .was_cut(&admitted.app_id, admitted.key_id.as_deref(), opened)
        {
            session.close("the key was revoked or the application deleted");
            return false;
        }
        let key = (
            admitted.app_id.as_str(),
            identity.executor_id.as_str(),
            identity.version.as_str(),
        );
        if inner.evictions.is_evicted(key, Instant::now()) {
            tracing::warn!(
                app = %admitted.app_name, executor_id = %identity.executor_id, version = %identity.version,
                address = %admitted.place.address, "refused an evicted executor"
            );
            inner.metrics.websocket_refused("evicted");
            session.close("this executor was evicted");
            return false;
        }
        match inner.registry.bind(session, Instant::now()) {
            Bound::New => {}
            Bound::Replaced(elder) => {
                tracing::info!(
                    app = %admitted.app_name, executor_id = %identity.executor_id, version = %identity.version,
                    address = %admitted.place.address, previous_address = %elder.admitted.place.address,
                    "a newer connection of the same executor replaces the older one"
                );
                elder.close("replaced by a newer connection of the same executor");
            }
            Bound::Refused(elder) => {
                tracing::warn!(
                    app = %admitted.app_name, executor_id = %identity.executor_id, version = %identity.version,
                    address = %admitted.place.address, kept_address = %elder.admitted.place.address,
                    "two processes use one executor id: the elder connection stays, the newer is \
                     refused for a while; give each process its own id"
                );
                inner.metrics.websocket_refused("executor_id_in_use");
                session.close("another process uses this executor id");
                return false;
            }
        }
        inner.latest.forget(&admitted.app_id);
        inner.metrics.session(language(session), 1);
        tracing::info!(
            app = %admitted.app_name, executor_id = %identity.executor_id, version = %identity.version,
            language = language(session), sdk_version = identity.sdk_version.as_deref(),
            address = %admitted.place.address, "executor connected"
        );
        inner.changed.notify_one();
        true
    }

    /// Keeps an eye on a session until it is ending.
    async fn attend(&self, session: &Arc<Session>) {
        let options = &self.inner.options;
        let (app, executor_id) = (&session.admitted.app_name, &session.identity.executor_id);
        let probe = || async {
            call(
                &session.link,
                &ExecutorInfo::default(),
                Priority::Probe,
                options.info_deadline,
            )
            .await
            .map(|_| ())
        };
        let changed = |unresponsive: bool| {
            if unresponsive {
                tracing::warn!(%app, %executor_id, "executor is connected but does not answer requests");
            } else {
                tracing::info!(%app, %executor_id, "executor answers requests again");
            }
            self.inner.changed.notify_one();
        };
        session
            .link
            .keep_probing(options.probe_every, probe, changed)
            .await;
    }

    /// A session is over.
    fn let_go(&self, session: &Arc<Session>) {
        let (app, executor_id) = (&session.admitted.app_name, &session.identity.executor_id);
        let end = session.link.end();
        self.inner.registry.unbind(session);
        self.inner.metrics.session(language(session), -1);
        tracing::info!(
            %app, %executor_id, version = %session.identity.version, reason = end.reason(),
            "executor disconnected"
        );
        self.inner.changed.notify_one();
    }
}

fn language(session: &Session) -> &str {
    session.identity.language.as_deref().unwrap_or("unknown")
}

/// Why a connection was closed before it had a name.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no answer to executor_info: {0:?}")]
    Unanswered(CallError),
    #[error("the answer to executor_info cannot be read: {0}")]
    Unreadable(segno_protocol::DecodeError),
    #[error("executor_info failed at the executor")]
    Failed,
    #[error("executor_info: {0}")]
    Invalid(&'static str),
}

impl Refusal {
    fn is_answered(&self) -> bool {
        !matches!(self, Self::Unanswered(_))
    }
}

/// The server speaks first: who are you?
async fn introduce(hub: &Hub, link: &Link) -> Result<Identity, Refusal> {
    let deadline = hub.inner.options.info_deadline;
    let text = call(link, &ExecutorInfo::default(), Priority::Probe, deadline)
        .await
        .map_err(Refusal::Unanswered)?;
    let reply = segno_protocol::decode_response::<ExecutorInfo>(text.as_str())
        .map_err(Refusal::Unreadable)?;
    if reply
        .error_message
        .is_some_and(|message| !message.is_empty())
    {
        return Err(Refusal::Failed);
    }
    let info = reply.body.ok_or(Refusal::Invalid("the answer is empty"))?;
    let executor_id = info.executor_id.unwrap_or_default();
    let version = info.application_version.unwrap_or_default();
    if executor_id.is_empty() {
        return Err(Refusal::Invalid("executor_id is missing"));
    }
    if executor_id.len() > MAX_ID || executor_id.chars().any(char::is_control) {
        return Err(Refusal::Invalid(
            "executor_id must be 1 to 256 bytes without control characters",
        ));
    }
    if version.len() > MAX_VERSION || version.chars().any(char::is_control) {
        return Err(Refusal::Invalid(
            "application_version must be at most 1024 bytes without control characters",
        ));
    }
    Ok(Identity {
        executor_id,
        version,
        hostname: info.hostname.map(tame),
        language: info
            .language
            .map(|text| tame(text).to_ascii_lowercase())
            .filter(|text| !text.is_empty()),
        sdk_version: info.dbos_version.map(tame),
        metadata: info.executor_metadata.and_then(bounded),
    })
}

/// A text that is only shown: cut to size, without control characters.
fn tame(text: String) -> String {
    let mut length = 0;
    text.chars()
        .filter(|character| !character.is_control())
        .take_while(|character| {
            length += character.len_utf8();
            length <= MAX_NAME
        })
        .collect()
}

/// The metadata, unless there is too much of it.
fn bounded(metadata: Map<String, Value>) -> Option<Map<String, Value>> {
    let size = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
    if size > MAX_METADATA {
        tracing::warn!(
            size,
            limit = MAX_METADATA,
            "executor_metadata is too large and not kept"
        );
        return None;
    }
    Some(metadata)
}
