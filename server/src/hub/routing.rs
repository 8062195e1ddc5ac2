//! Who is asked, and who is asked next.
//!
//! Any connected executor can serve almost any request, for all share the application's database.
//! Preferred is one that answers, and among those the least busy.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use segno_protocol::{ListApplicationVersions, Message, UNKNOWN_TYPE, features};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::{CallError, Priority};
use super::session::Session;
use super::{Class, Hub, HubError, Target};

/// What somebody who waits for a REST answer is given: clients give up at 30 s.
const READ: Duration = Duration::from_secs(12);
const IN_ALL: Duration = Duration::from_secs(24);
/// Answers above this are parsed on a thread of their own.
const LARGE: usize = 256 << 10;

pub(super) async fn request<M: Message>(
    hub: &Hub,
    app_id: &str,
    app_name: &str,
    target: Target,
    message: &M,
    class: Class,
) -> Result<M::Response, HubError> {
    let target = match target {
        Target::LatestVersion => Target::Version(latest_version(hub, app_id, app_name).await?),
        other => other,
    };
    let began = Instant::now();
    let mut asked: HashSet<u64> = HashSet::new();
    let mut failure = None;
    loop {
        let session = match choose(hub, app_id, &target, M::TYPE, &asked) {
            Ok(session) => session,
            Err(nobody) => return Err(failure.unwrap_or(nobody)),
        };
        let Some(deadline) = deadline(class, began) else {
            return Err(failure.unwrap_or(HubError::NoAnswer {
                tried: asked.len(),
                reason: "no time left".to_owned(),
            }));
        };
        asked.insert(session.serial());
        let outcome = ask(hub, &session, message, priority(M::TYPE, class), deadline).await;
        let error = match outcome {
            Ok(answer) => {
                if M::TYPE == "set_latest_application_version" {
                    hub.inner.latest.forget(app_id);
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        let next = error.may_try_next(M::TYPE, class);
        tracing::debug!(
            app = app_name, message = M::TYPE, executor_id = %session.identity().executor_id,
            ?error, next, "a request failed"
        );
        let error = error.describe(
            &session,
            asked.len(),
            hub.inner.options.max_message,
            M::TYPE,
        );
        if !next {
            return Err(error);
        }
        failure = Some(error);
    }
}

/// The latest version of an application: the first that any executor lists.
pub(super) async fn latest_version(
    hub: &Hub,
    app_id: &str,
    app_name: &str,
) -> Result<String, HubError> {
    if let Some(version) = hub.inner.latest.get(app_id) {
        return Ok(version);
    }
    let message = ListApplicationVersions::default();
    let asking = Box::pin(request(
        hub,
        app_id,
        app_name,
        Target::AnyHealthy,
        &message,
        Class::Read,
    ));
    let versions = asking.await?.output;
    let Some(latest) = versions
        .into_iter()
        .next()
        .map(|version| version.version_name)
    else {
        return Err(HubError::NoAnswer {
            tried: 1,
            reason: "the executor lists no application version".to_owned(),
        });
    };
    hub.inner.latest.put(app_id, &latest);
    Ok(latest)
}

/// The executor to ask next.
fn choose(
    hub: &Hub,
    app_id: &str,
    target: &Target,
    message: &'static str,
    asked: &HashSet<u64>,
) -> Result<Arc<Session>, HubError> {
    let registry = &hub.inner.registry;
    let version = match target {
        Target::Executor { id, version } => {
            let named = registry.find(app_id, id, version);
            return best(hub, named.into_iter().collect(), message, asked);
        }
        Target::Version(version) => Some(version.as_str()),
        Target::AnyHealthy | Target::LatestVersion => None,
    };
    let some = registry.some_of(app_id, version);
    let candidates = if some.is_all {
        some.sessions
    } else {
        match best(hub, some.sessions, message, asked) {
            Ok(session) if session.unresponsive_since().is_none() => return Ok(session),
            // Bad luck with those few.
            _ => registry.all_of(app_id, version),
        }
    };
    if let Some(version) = version
        && candidates.iter().all(|session| session.is_ending())
        && registry.has_any(app_id)
    {
        return Err(HubError::NoExecutorOfVersion(version.to_owned()));
    }
    best(hub, candidates, message, asked)
}

/// Of several executors that know the message and were not asked yet, one that answers, and of those the
/// least busy.
fn best(
    hub: &Hub,
    mut candidates: Vec<Arc<Session>>,
    message: &'static str,
    asked: &HashSet<u64>,
) -> Result<Arc<Session>, HubError> {
    candidates.retain(|session| !session.is_ending());
    let mut too_old = None;
    candidates.retain(|session| {
        let (language, sdk_version) = release(session);
        let unknown = features::supports(language, sdk_version, message) == Some(false)
            || hub
                .inner
                .features
                .is_unknown(language, sdk_version, message);
        if unknown {
            too_old = Some(HubError::UnknownMessage {
                r#type: message,
                language: language.to_owned(),
                sdk_version: sdk_version.to_owned(),
            });
        }
        !unknown && !asked.contains(&session.serial())
    });
    // Equals are asked in turn, by chance.
    candidates.shuffle(&mut rand::rng());
    candidates
        .into_iter()
        .min_by_key(|session| (session.unresponsive_since().is_some(), session.load()))
        .ok_or(too_old.unwrap_or(HubError::NoExecutor))
}

fn release(session: &Session) -> (&str, &str) {
    let identity = session.identity();
    (
        identity.language.as_deref().unwrap_or("unknown"),
        identity.sdk_version.as_deref().unwrap_or("unknown"),
    )
}

/// How long the next executor may take; `None` when the time is up.
fn deadline(class: Class, began: Instant) -> Option<Duration> {
    let each = match class {
        Class::Read => READ,
        Class::Mutation { .. } => IN_ALL,
        Class::Background(deadline) => return Some(deadline),
    };
    let left = IN_ALL.saturating_sub(began.elapsed());
    (left > Duration::from_millis(10)).then(|| left.min(each))
}

fn priority(message: &'static str, class: Class) -> Priority {
    match (message, class) {
        ("executor_info", _) => Priority::Probe,
        ("recovery" | "exist_pending_workflows", _) => Priority::Recovery,
        ("get_metrics" | "retention", _) => Priority::Periodic,
        ("get_workflow_aggregates" | "get_step_aggregates", Class::Background(_)) => {
            Priority::Periodic
        }
        (_, Class::Mutation { .. }) => Priority::Mutation,
        (message, Class::Background(_)) if !is_read(message) => Priority::Mutation,
        _ => Priority::Read,
    }
}

/// Messages that change nothing.
fn is_read(message: &str) -> bool {
    message.starts_with("get_")
        || message.starts_with("list_")
        || matches!(
            message,
            "exist_pending_workflows" | "executor_info" | "export_workflow"
        )
}

/// Why one executor gave no result.
#[derive(Debug)]
enum Failure {
    Call(CallError),
    /// The answer is not what the message promises.
    Unreadable(String),
    /// The executor's words.
    Remote(String),
    UnknownMessage,
}

impl Failure {
    /// Whether another executor may be asked.
    fn may_try_next(&self, message: &'static str, class: Class) -> bool {
        let repeatable = match class {
            Class::Read => true,
            Class::Mutation { idempotent } => idempotent,
            Class::Background(_) => is_read(message),
        };
        match self {
            // Surely not handled.
            Self::Call(CallError::NotSent(_)) | Self::UnknownMessage => true,
            // Another would send the same again.
            Self::Call(CallError::TooLarge) => false,
            Self::Call(_) | Self::Unreadable(_) => repeatable,
            // The verdict of one executor is the verdict, except for questions of our own.
            Self::Remote(_) => matches!(class, Class::Background(_)) && repeatable,
        }
    }

    fn describe(
        self,
        session: &Session,
        tried: usize,
        limit: usize,
        message: &'static str,
    ) -> HubError {
        let no_answer = |reason: String| HubError::NoAnswer {
            tried,
            reason: format!("executor {}: {reason}", session.identity().executor_id),
        };
        match self {
            Self::Call(CallError::NotSent(reason)) => no_answer(reason.to_owned()),
            Self::Call(CallError::Lost) => {
                no_answer("the connection ended before the answer".to_owned())
            }
            Self::Call(CallError::TimedOut) => no_answer("no answer in time".to_owned()),
            Self::Call(CallError::Garbled(reason)) => no_answer(reason.to_owned()),
            Self::Call(CallError::TooLarge) => HubError::TooLarge { limit },
            Self::Unreadable(reason) => no_answer(format!("unreadable answer: {reason}")),
            Self::Remote(message) => HubError::Remote { message },
            Self::UnknownMessage => {
                let (language, sdk_version) = release(session);
                HubError::UnknownMessage {
                    r#type: message,
                    language: language.to_owned(),
                    sdk_version: sdk_version.to_owned(),
                }
            }
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Call(CallError::NotSent(_)) => "not_sent",
            Self::Call(CallError::Lost) => "closed",
            Self::Call(CallError::TimedOut) => "timeout",
            Self::Call(CallError::TooLarge) => "too_large",
            Self::Call(CallError::Garbled(_)) | Self::Unreadable(_) => "unreadable",
            Self::Remote(_) => "error",
            Self::UnknownMessage => "unknown_message",
        }
    }
}

async fn ask<M: Message>(
    hub: &Hub,
    session: &Session,
    message: &M,
    priority: Priority,
    deadline: Duration,
) -> Result<M::Response, Failure> {
    let began = Instant::now();
    let outcome = match session.call(message, priority, deadline).await {
        Ok(text) => read_answer::<M>(hub, session, text).await,
        Err(error) => Err(Failure::Call(error)),
    };
    let word = outcome.as_ref().map_or_else(Failure::outcome, |_| "ok");
    hub.inner
        .metrics
        .executor_request(M::TYPE, word, began.elapsed());
    outcome
}

async fn read_answer<M: Message>(
    hub: &Hub,
    session: &Session,
    text: Utf8Bytes,
) -> Result<M::Response, Failure> {
    let is_large = text.len() > LARGE;
    let decode = move || segno_protocol::decode_response::<M>(text.as_str());
    let reply = if is_large {
        tokio::task::spawn_blocking(decode)
            .await
            .map_err(|error| Failure::Unreadable(error.to_string()))?
    } else {
        decode()
    };
    let reply = reply.map_err(|error| Failure::Unreadable(error.to_string()))?;
    match reply.error_message.filter(|message| !message.is_empty()) {
        Some(message) if message == UNKNOWN_TYPE => {
            let (language, sdk_version) = release(session);
            hub.inner
                .features
                .remember_unknown(language, sdk_version, M::TYPE);
            Err(Failure::UnknownMessage)
        }
        Some(message) => Err(Failure::Remote(message)),
        None => reply
            .body
            .ok_or_else(|| Failure::Unreadable("the answer has no content".to_owned())),
    }
}
