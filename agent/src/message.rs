//! Messages to workflows: sent once, received once, in order by topic.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::Segno;
use crate::backoff::Backoff;
use crate::context::Ctx;
use crate::error::{Error, Result};
use crate::execution::{Execution, Place, StepResult};
use crate::pending::{Pending, durable_call};
use crate::recorder::{Effect, EffectWritten, MessageRow};
use crate::runtime::{Kind, Runtime};
use crate::step::recall;
use crate::system_database::SystemDatabase;
use crate::transaction::{from_database, is_away};
use crate::underway::Doing;
use crate::wait::{Deadline, TIMEOUT};

const SEND: &str = "DBOS.send";
const SEND_ALL: &str = "DBOS.sendBulk";
const RECEIVE: &str = "DBOS.recv";

/// What messages without a topic are stored under.
pub(crate) const NO_TOPIC: &str = "__null__topic__";

/// The topic of a message. Messages without one have a topic of their own: [`Topic::NONE`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic(Option<String>);

impl Topic {
    /// No topic.
    pub const NONE: Self = Self(None);

    pub(crate) fn stored(self) -> String {
        self.0.unwrap_or_else(|| NO_TOPIC.to_owned())
    }
}

impl From<&str> for Topic {
    fn from(name: &str) -> Self {
        Self(Some(name.to_owned()))
    }
}

impl From<String> for Topic {
    fn from(name: String) -> Self {
        Self(Some(name))
    }
}

impl From<&String> for Topic {
    fn from(name: &String) -> Self {
        Self(Some(name.clone()))
    }
}

/// A message on its way, for [`Segno::send_all`] and [`Ctx::send_all`].
#[derive(Debug, Clone)]
pub struct Message {
    destination: String,
    topic: Topic,
    body: Result<String>,
    key: Option<String>,
    to_forks: bool,
}

impl Message {
    /// A message for a workflow.
    pub fn new<T: Serialize + ?Sized>(
        destination: impl Into<String>,
        topic: impl Into<Topic>,
        message: &T,
    ) -> Self {
        Self {
            destination: destination.into(),
            topic: topic.into(),
            body: serde_json::to_string(message)
                .map_err(|error| Error::serialization("message", error)),
            key: None,
            to_forks: false,
        }
    }

    /// Sends it at most once to its destination under this key, however often that is tried.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sends it also to the forks of its destination, to their forks, and so on, as many as there are now.
    pub fn to_forks(mut self) -> Self {
        self.to_forks = true;
        self
    }

    fn into_row(self) -> Result<MessageRow> {
        // Ids that grow with time keep messages of the same millisecond in order in listings.
        let id = match self.key {
            Some(key) => format!("{key}::{}", self.destination),
            None => Uuid::now_v7().to_string(),
        };
        Ok(MessageRow {
            id,
            destination: self.destination,
            topic: self.topic.stored(),
            body: self.body?,
        })
    }
}

/// The rows of messages that go together; a key may occur once.
pub(crate) async fn rows(
    system: &SystemDatabase,
    messages: Vec<Message>,
) -> Result<Vec<MessageRow>> {
    let mut rows = Vec::with_capacity(messages.len());
    for message in messages {
        if message.to_forks {
            let forks = system.forks_of(&message.destination).await;
            for destination in forks.map_err(from_database)? {
                let fork = message.clone();
                rows.push(
                    Message {
                        destination,
                        ..fork
                    }
                    .into_row()?,
                );
            }
        }
        rows.push(message.into_row()?);
    }
    let mut seen = std::collections::HashSet::new();
    match rows.iter().find(|row| !seen.insert(&row.id)) {
        Some(twice) => Err(Error::config(
            "idempotency_key",
            format!(
                "two messages to `{}` have the same key; give each its own",
                twice.destination
            ),
        )),
        None => Ok(rows),
    }
}

/// Who sends.
#[derive(Clone)]
enum Sender {
    Application(Arc<Runtime>),
    Workflow(Arc<Execution>, Place),
}

/// Messages about to be sent; await it.
#[must_use = "nothing is sent until this is awaited"]
pub struct PendingSend<'a>(Pending<'a, Vec<Message>, Result<()>>);

impl<'a> PendingSend<'a> {
    fn new(sender: Sender, name: &'static str, messages: Vec<Message>) -> Self {
        Self(Pending::new(messages, move |messages| {
            send(sender, name, messages)
        }))
    }

    /// See [`Message::to_forks`].
    pub fn to_forks(self) -> Self {
        Self(self.0.configure(|messages| {
            for message in messages {
                message.to_forks = true;
            }
        }))
    }

    /// Sends it at most once to its destination under this key, however often that is tried.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        Self(self.0.configure(|messages| {
            for message in messages {
                message.key = Some(key.clone());
            }
        }))
    }
}

/// Several messages about to be sent in one commit; await it.
#[must_use = "nothing is sent until this is awaited"]
pub struct PendingSendAll<'a>(Pending<'a, Vec<Message>, Result<()>>);

durable_call!(PendingSend<'a> -> Result<()>, PendingSendAll<'a> -> Result<()>);

async fn send(sender: Sender, name: &'static str, messages: Vec<Message>) -> Result<()> {
    let (execution, place) = match sender {
        Sender::Application(runtime) => {
            runtime.accepting()?;
            let rows = rows(&runtime.db.system, messages).await?;
            let written = runtime.recorder.send(rows.clone()).await?;
            return sent(&runtime, rows, Some(written));
        }
        Sender::Workflow(execution, place) => (execution, place),
    };
    if let Place::Own(position) = place
        && let Some(recorded) = execution.replay(position, name).await
    {
        let sent = recall::<Option<()>, Error>(&execution, position, name, recorded).await;
        return sent.map(drop);
    }
    let _active = execution.enter(place.own(), Doing::Checkpoint);
    let started_at = execution.now_ms();
    let result = match patient_rows(&execution, messages).await {
        Ok(rows) => {
            let effect = Effect::Send(rows.clone());
            match execution
                .effect(place, name, started_at, None, effect)
                .await
            {
                Ok(written) => sent(&execution.runtime, rows, written),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if let (Err(error), Place::Own(position)) = (&result, place) {
        let recorded = StepResult::Error(error.to_portable().to_string());
        if let Err(refused) = execution.record(position, name, started_at, recorded).await {
            return execution.fail(refused).await;
        }
    }
    result
}

/// The rows of a workflow's messages; it waits while the database is away.
async fn patient_rows(execution: &Execution, messages: Vec<Message>) -> Result<Vec<MessageRow>> {
    let mut backoff = Backoff::for_absence();
    loop {
        match rows(&execution.runtime.db.system, messages.clone()).await {
            Err(error) if is_away(&error) => execution.unless_interrupted(backoff.wait()).await,
            rows => return rows,
        }
    }
}

fn sent(runtime: &Runtime, rows: Vec<MessageRow>, written: Option<EffectWritten>) -> Result<()> {
    if let Some(EffectWritten::NoSuchWorkflow(id)) = written {
        return Err(Error::not_found("workflow", &id));
    }
    for row in rows {
        // Other processes are told by the database itself.
        runtime
            .arrivals
            .signal(Kind::Message, &row.destination, &row.topic);
    }
    Ok(())
}

/// A message about to be received; await it. `None` if none came in time.
#[must_use = "nothing is received until this is awaited"]
pub struct Receive<'a, T>(Pending<'a, Duration, Option<T>>, PhantomData<fn() -> T>);

durable_call!(Receive<'a, T> -> Option<T>);

impl<T> Receive<'_, T> {
    /// How long to wait; a minute unless given. The deadline is recorded, so a recovered run waits only
    /// for what remains.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.configure(|wait| *wait = timeout), self.1)
    }
}

async fn receive<T: DeserializeOwned>(
    execution: Arc<Execution>,
    places: (Option<i32>, Option<i32>),
    topic: String,
    timeout: Duration,
) -> Option<T> {
    let (position, recorded) = execution.replay_or_misuse(places.0, RECEIVE).await;
    let deadline = Deadline::at(places.1);
    let text = match recorded {
        Some(recorded) => {
            deadline.skip(&execution).await;
            if let Some(error) = recorded.error {
                let value = serde_json::from_str(&error).unwrap_or(error.into());
                return execution.fail(Error::from_portable(value)).await;
            }
            recorded.output.unwrap_or_else(|| "null".to_owned())
        }
        None => take(&execution, position, &topic, deadline, timeout).await,
    };
    match serde_json::from_str(&text) {
        Ok(message) => message,
        Err(error) => {
            let topic = if topic == NO_TOPIC {
                "no topic"
            } else {
                &topic
            };
            let what = format!("message on `{topic}`");
            execution.fail(Error::serialization(&what, error)).await
        }
    }
}

/// Waits for a message and takes it, or records that none came.
async fn take(
    execution: &Arc<Execution>,
    position: i32,
    topic: &str,
    deadline: Deadline,
    timeout: Duration,
) -> String {
    let active = execution.enter(position, Doing::Message(topic.to_owned()));
    let _alone = match execution.receive_alone(topic) {
        Some(alone) => alone,
        None => {
            let message = format!(
                "two calls of `recv` wait for `{topic}` at once; one workflow receives a topic in one place"
            );
            return execution.fail(Error::misuse(message)).await;
        }
    };
    let started_at = execution.now_ms();
    let runtime = &execution.runtime;
    let mut arrivals = runtime
        .arrivals
        .register(Kind::Message, execution.id(), topic);
    let attempt = |last: bool| {
        let effect = Effect::Receive {
            topic: topic.to_owned(),
            last,
        };
        execution.effect(
            Place::Own(position),
            RECEIVE,
            started_at,
            Some("null"),
            effect,
        )
    };
    // The deadline is written in the same batch as the first look. In a box, whose room is not kept while
    // it waits.
    let first_look = async {
        tokio::join!(
            deadline.record(execution, timeout),
            attempt(timeout.is_zero())
        )
    };
    let (deadline, mut found) = Box::pin(first_look).await;
    active.until(deadline);
    loop {
        match found {
            Ok(Some(EffectWritten::Received { text })) => return text,
            Ok(_) => {}
            Err(error) => return execution.fail(error).await,
        }
        let last = tokio::select! {
            () = execution.unless_interrupted(arrivals.arrived()) => false,
            () = execution.wait_until(deadline) => true,
        };
        found = Box::pin(attempt(last)).await;
    }
}

impl<S> Ctx<S> {
    /// Sends a message to a workflow: once, however often this run is recovered. An unknown workflow is
    /// an error ([`ErrorKind::NotFound`](crate::ErrorKind::NotFound)).
    ///
    /// Inside a step the message is sent each time the step runs.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn approve(ctx: Ctx, run: String) -> segno::Result<()> {
    ///     ctx.send(&run, "approval", &true).await
    /// }
    /// ```
    pub fn send<T: Serialize + ?Sized>(
        &self,
        destination: impl Into<String>,
        topic: impl Into<Topic>,
        message: &T,
    ) -> PendingSend<'_> {
        let sender = Sender::Workflow(self.execution().clone(), self.execution().take_place());
        PendingSend::new(
            sender,
            SEND,
            vec![Message::new(destination, topic, message)],
        )
    }

    /// Sends several messages in one commit: all or none.
    pub fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> PendingSendAll<'_> {
        let sender = Sender::Workflow(self.execution().clone(), self.execution().take_place());
        PendingSendAll(PendingSend::new(sender, SEND_ALL, messages.into_iter().collect()).0)
    }

    /// Takes the oldest message of a topic, waiting for one if there is none. Messages of one topic come
    /// in the order in which they were sent, each once.
    ///
    /// One run waits for a topic in one place at a time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use segno::Ctx;
    /// async fn expense(ctx: Ctx, cents: u64) -> segno::Result<bool> {
    ///     let approved = ctx.recv::<bool>("approval").timeout(Duration::from_secs(72 * 3600)).await;
    ///     Ok(approved.unwrap_or(false))
    /// }
    /// ```
    pub fn recv<T>(&self, topic: impl Into<Topic>) -> Receive<'_, T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let execution = self.execution().clone();
        let places = (execution.take_position(), execution.take_position());
        let topic = topic.into().stored();
        let receive = move |timeout| receive(execution, places, topic, timeout);
        Receive(Pending::new(TIMEOUT, receive), PhantomData)
    }
}

impl Segno {
    /// Sends a message to a workflow of any application of this database. An unknown workflow is an error
    /// ([`ErrorKind::NotFound`](crate::ErrorKind::NotFound)).
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.send("expense-7", "approval", &true).idempotency_key("click-1").await
    /// # }
    /// ```
    pub fn send<T: Serialize + ?Sized>(
        &self,
        destination: impl Into<String>,
        topic: impl Into<Topic>,
        message: &T,
    ) -> PendingSend<'static> {
        let sender = Sender::Application(self.runtime().clone());
        PendingSend::new(
            sender,
            SEND,
            vec![Message::new(destination, topic, message)],
        )
    }

    /// Sends several messages in one commit: all or none.
    ///
    /// ```no_run
    /// # use segno::Message;
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.send_all(["a", "b"].map(|run| Message::new(run, "stop", &()))).await
    /// # }
    /// ```
    pub fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> PendingSendAll<'static> {
        let sender = Sender::Application(self.runtime().clone());
        PendingSendAll(PendingSend::new(sender, SEND_ALL, messages.into_iter().collect()).0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("no topic"))
    }
}
