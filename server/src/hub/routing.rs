//! Who is asked, and who is asked next.
//!
//! Any connected executor can serve almost any request, for all share the application's database.
//! Preferred is one that answers, and among those the least busy; one of this instance to those of
//! others. A request is passed on to another instance once, with the time that is left for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use segno_protocol::{
    DecodeError, ListApplicationVersions, Message, Reply, UNKNOWN_TYPE, features,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::{CallError, Priority};
use super::session::Session;
use super::{Class, Hub, HubError, Target};
use crate::cluster::Holders;
use crate::cluster::forward::{Order, Unanswered};
use crate::store::peers::PeerRow;

/// What somebody who waits for a REST answer is given: clients give up at 30 s.
const READ: Duration = Duration::from_secs(12);
const IN_ALL: Duration = Duration::from_secs(24);
/// It is no use to ask anybody who has less than this.
const LEAST: Duration = Duration::from_millis(10);
/// Answers above this are parsed on a thread of their own.
const LARGE: usize = 256 << 10;

/// What is asked, and how the answer is read.
pub(super) trait Question: Sync {
    /// What the asker is given.
    type Answer: Send + 'static;
    /// The message's type.
    fn message(&self) -> &'static str;
    /// The text of the request.
    fn encode(&self, request_id: &str) -> String;
    /// Reads the answer.
    fn read(text: Utf8Bytes) -> Result<Reply<Self::Answer>, DecodeError>;
}

/// A message of ours.
pub(super) struct Typed<'a, M>(pub(super) &'a M);

impl<M: Message> Question for Typed<'_, M> {
    type Answer = M::Response;

    fn message(&self) -> &'static str {
        M::TYPE
    }

    fn encode(&self, request_id: &str) -> String {
        segno_protocol::encode_request(request_id, self.0)
    }

    fn read(text: Utf8Bytes) -> Result<Reply<M::Response>, DecodeError> {
        segno_protocol::decode_response::<M>(text.as_str())
    }
}

/// A message of another instance: its text, without reading it more than is needed.
pub(crate) struct Relayed {
    message: &'static str,
    /// What follows the request id.
    rest: String,
}

/// In place of the request id, while a message travels between instances.
const NO_ID: &str = "-";

impl Relayed {
    /// `text` as [`Question::encode`] makes it with [`NO_ID`]; `None` if it is not of this type.
    pub(crate) fn new(message: &'static str, text: String) -> Option<Self> {
        let rest = text.strip_prefix(&Self::head(message, NO_ID))?;
        let rest = rest.to_owned();
        Some(Self { message, rest })
    }

    fn head(message: &str, request_id: &str) -> String {
        format!("{{\"type\":\"{message}\",\"request_id\":\"{request_id}\"")
    }
}

impl Question for Relayed {
    type Answer = Utf8Bytes;

    fn message(&self) -> &'static str {
        self.message
    }

    fn encode(&self, request_id: &str) -> String {
        Self::head(self.message, request_id) + &self.rest
    }

    fn read(text: Utf8Bytes) -> Result<Reply<Utf8Bytes>, DecodeError> {
        let envelope = segno_protocol::decode_envelope(text.as_str())?;
        Ok(Reply {
            error_message: envelope.error_message,
            body: Some(text),
        })
    }
}

/// One request on its way: to executors of this instance that answer, then to those of others, then to
/// whoever is left here.
struct Errand<'a, Q> {
    hub: &'a Hub,
    app_id: &'a str,
    app_name: &'a str,
    target: Target,
    question: &'a Q,
    class: Class,
    began: Instant,
    /// For another instance, until then, and it is not passed on again.
    until: Option<Instant>,
    asked: HashSet<u64>,
    tried: usize,
}

pub(super) async fn request<Q: Question>(
    hub: &Hub,
    app_id: &str,
    app_name: &str,
    target: Target,
    question: &Q,
    class: Class,
) -> Result<Q::Answer, HubError> {
    let target = match target {
        Target::LatestVersion => Target::Version(latest_version(hub, app_id, app_name).await?),
        other => other,
    };
    let errand = Errand {
        hub,
        app_id,
        app_name,
        target,
        question,
        class,
        began: Instant::now(),
        until: None,
        asked: HashSet::new(),
        tried: 0,
    };
    errand.run().await.map_err(|(error, _)| error)
}

/// See [`Hub::relay`].
pub(super) async fn relay(
    hub: &Hub,
    order: &Order,
    question: &Relayed,
    until: Instant,
) -> Result<Utf8Bytes, (HubError, bool)> {
    let errand = Errand {
        hub,
        app_id: &order.app_id,
        app_name: &order.app_name,
        target: order.target.clone(),
        question,
        class: order.class,
        began: Instant::now(),
        until: Some(until),
        asked: HashSet::new(),
        tried: 0,
    };
    errand.run().await
}

impl<Q: Question> Errand<'_, Q> {
    /// Asks one after the other; with the failure goes whether it is the last word.
    async fn run(mut self) -> Result<Q::Answer, (HubError, bool)> {
        let message = self.question.message();
        let mut failure = None;
        let mut others: Option<Holders> = None;
        loop {
            let here = choose(self.hub, self.app_id, &self.target, message, &self.asked);
            let Some(deadline) = self.deadline() else {
                let late = HubError::NoAnswer {
                    tried: self.tried,
                    reason: "no time left".to_owned(),
                    may_be_done: false,
                };
                return Err((failure.unwrap_or(late), false));
            };
            let answers = here
                .as_ref()
                .is_ok_and(|session| session.unresponsive_since().is_none());
            let peer = match answers {
                true => None,
                false => self.next_peer(&mut others).await,
            };
            let outcome = match (peer, here) {
                (Some(peer), _) => self.ask_peer(&peer, deadline).await,
                (None, Ok(session)) => {
                    self.asked.insert(session.serial());
                    self.tried += 1;
                    let asked = ask(
                        self.hub,
                        &session,
                        self.question,
                        priority(message, self.class),
                        deadline,
                    );
                    asked.await.map_err(|error| self.described(error, &session))
                }
                (None, Err(nobody)) => {
                    let nobody = self.nobody(nobody, others.as_ref());
                    return Err((failure.unwrap_or(nobody), false));
                }
            };
            let (error, next) = match outcome {
                Ok(answer) => {
                    if message == "set_latest_application_version" {
                        self.hub.inner.latest.forget(self.app_id);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            tracing::debug!(app = self.app_name, message, %error, next, "a request failed");
            if !next {
                return Err((error, true));
            }
            // That an instance holds nobody any more is no failure of the request.
            if !matches!(
                error,
                HubError::NoExecutor | HubError::NoExecutorOfVersion(_)
            ) {
                failure = Some(error);
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let deadline = deadline(self.class, self.began)?;
        let Some(until) = self.until else {
            return Some(deadline);
        };
        let left = until.saturating_duration_since(Instant::now());
        (left > LEAST).then(|| left.min(deadline))
    }

    async fn next_peer(&self, others: &mut Option<Holders>) -> Option<PeerRow> {
        if self.until.is_some() {
            return None;
        }
        let peers = self.hub.peers()?;
        let holders = match others {
            Some(holders) => holders,
            None => others.insert(peers.holders(self.app_id, &self.target).await),
        };
        (!holders.peers.is_empty()).then(|| holders.peers.remove(0))
    }

    /// Nobody is left to be asked.
    fn nobody(&self, nobody: HubError, others: Option<&Holders>) -> HubError {
        match (&self.target, nobody) {
            (Target::Version(version), HubError::NoExecutor)
                if others.is_some_and(|others| others.any) =>
            {
                HubError::NoExecutorOfVersion(version.clone())
            }
            (_, nobody) => nobody,
        }
    }

    async fn ask_peer(
        &mut self,
        peer: &PeerRow,
        deadline: Duration,
    ) -> Result<Q::Answer, (HubError, bool)> {
        let (hub, message) = (self.hub, self.question.message());
        let Some(peers) = hub.peers() else {
            return Err((HubError::NoExecutor, true));
        };
        self.tried += 1;
        let order = Order {
            app_id: self.app_id.to_owned(),
            app_name: self.app_name.to_owned(),
            target: self.target.clone(),
            message: message.to_owned(),
            class: self.class,
            within_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let largest = hub.inner.options.max_message;
        let asked = peers.ask(peer, &order, self.question.encode(NO_ID), largest);
        let failed = match asked.await {
            Ok(text) => match parse::<Q>(text).await {
                Ok(Reply {
                    body: Some(answer), ..
                }) => return Ok(answer),
                Ok(_) => Failure::Unreadable("the answer has no content".to_owned()),
                Err(failure) => failure,
            },
            Err(Unanswered::Failed { error, last }) => return Err((error, !last)),
            Err(Unanswered::Unreached) => {
                Failure::Call(CallError::NotSent("its instance cannot be reached"))
            }
            Err(Unanswered::Lost) => Failure::Call(CallError::Lost),
            Err(Unanswered::TimedOut) => Failure::Call(CallError::TimedOut),
            Err(Unanswered::TooLarge) => Failure::Call(CallError::TooLarge),
        };
        let next = failed.may_try_next(message, self.class);
        let whom = format!("an executor of the instance at {}", peer.address);
        let release = ("unknown", "unknown");
        Err((
            failed.describe(&whom, release, self.tried, largest, message),
            next,
        ))
    }

    fn described(&self, failure: Failure, session: &Session) -> (HubError, bool) {
        let message = self.question.message();
        let next = failure.may_try_next(message, self.class);
        let whom = format!("executor {}", session.identity().executor_id);
        let largest = self.hub.inner.options.max_message;
        let error = failure.describe(&whom, release(session), self.tried, largest, message);
        (error, next)
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
    let question = Typed(&message);
    let asking = Box::pin(request(
        hub,
        app_id,
        app_name,
        Target::AnyHealthy,
        &question,
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
            may_be_done: false,
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
    (left > LEAST).then(|| left.min(each))
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
        whom: &str,
        (language, sdk_version): (&str, &str),
        tried: usize,
        limit: usize,
        message: &'static str,
    ) -> HubError {
        let may_be_done = !matches!(self, Self::Call(CallError::NotSent(_)));
        let no_answer = |reason: String| HubError::NoAnswer {
            tried,
            reason: format!("{whom}: {reason}"),
            may_be_done,
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
            Self::UnknownMessage => HubError::UnknownMessage {
                r#type: message,
                language: language.to_owned(),
                sdk_version: sdk_version.to_owned(),
            },
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

async fn ask<Q: Question>(
    hub: &Hub,
    session: &Session,
    question: &Q,
    priority: Priority,
    deadline: Duration,
) -> Result<Q::Answer, Failure> {
    let (began, message) = (Instant::now(), question.message());
    let encode = |request_id: &str| question.encode(request_id);
    let outcome = match session.call(message, priority, encode, deadline).await {
        Ok(text) => read_answer::<Q>(hub, session, message, text).await,
        Err(error) => Err(Failure::Call(error)),
    };
    let word = outcome.as_ref().map_or_else(Failure::outcome, |_| "ok");
    hub.inner
        .metrics
        .executor_request(message, word, began.elapsed());
    outcome
}

async fn parse<Q: Question>(text: Utf8Bytes) -> Result<Reply<Q::Answer>, Failure> {
    let reply = if text.len() > LARGE {
        tokio::task::spawn_blocking(move || Q::read(text))
            .await
            .map_err(|error| Failure::Unreadable(error.to_string()))?
    } else {
        Q::read(text)
    };
    reply.map_err(|error| Failure::Unreadable(error.to_string()))
}

async fn read_answer<Q: Question>(
    hub: &Hub,
    session: &Session,
    message: &'static str,
    text: Utf8Bytes,
) -> Result<Q::Answer, Failure> {
    let reply = parse::<Q>(text).await?;
    match reply.error_message.filter(|error| !error.is_empty()) {
        Some(error) if error == UNKNOWN_TYPE => {
            let (language, sdk_version) = release(session);
            hub.inner
                .features
                .remember_unknown(language, sdk_version, message);
            Err(Failure::UnknownMessage)
        }
        Some(error) => Err(Failure::Remote(error)),
        None => reply
            .body
            .ok_or_else(|| Failure::Unreadable("the answer has no content".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use segno_protocol::ExistPendingWorkflows;

    use super::*;

    /// What an executor gets is the same text, whichever instance holds its socket.
    #[test]
    fn a_relayed_message_is_the_message() {
        let message = ExistPendingWorkflows {
            executor_id: "a\"b".to_owned(),
            application_version: "v1".to_owned(),
        };
        let direct = Typed(&message);
        let relayed = Relayed::new("exist_pending_workflows", direct.encode(NO_ID));
        assert_eq!(
            relayed.map(|relayed| relayed.encode("7")),
            Some(direct.encode("7"))
        );
        assert!(Relayed::new("recovery", direct.encode(NO_ID)).is_none());
    }
}
