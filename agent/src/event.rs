//! Events: values under a key that a run sets and anybody reads, also long after it ended.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::Segno;
use crate::context::Ctx;
use crate::error::{Error, Result};
use crate::execution::{Execution, Place, StepResult};
use crate::handle::Handle;
use crate::pending::{Pending, durable_call};
use crate::recorder::Effect;
use crate::runtime::{Kind, Runtime};
use crate::system_database::Stored;
use crate::underway::Doing;
use crate::wait::{Deadline, TIMEOUT};
use crate::workflow::foreign;

const SET: &str = "DBOS.setEvent";
const GET: &str = "DBOS.getEvent";

/// An event about to be set; await it. See [`Ctx::set_event`].
#[must_use = "an event is not set until this is awaited"]
pub struct SetEvent<'a>(BoxFuture<'a, ()>);

/// An event about to be read in a workflow; await it. `None` if it was not set in time. See
/// [`Ctx::get_event`].
#[must_use = "an event is not read until this is awaited"]
pub struct GetEvent<'a, T>(Pending<'a, Duration, Option<T>>, PhantomData<fn() -> T>);

/// An event about to be read from outside of workflows; await it. `None` if it was not set in time. See
/// [`Segno::get_event`].
#[must_use = "an event is not read until this is awaited"]
pub struct ReadEvent<'a, T>(
    Pending<'a, Duration, Result<Option<T>>>,
    PhantomData<fn() -> T>,
);

durable_call!(SetEvent<'a> -> (), GetEvent<'a, T> -> Option<T>, ReadEvent<'a, T> -> Result<Option<T>>);

impl<T> GetEvent<'_, T> {
    /// How long to wait; a minute unless given. The deadline is recorded, so a recovered run waits only
    /// for what remains.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.configure(|wait| *wait = timeout), self.1)
    }
}

impl<T> ReadEvent<'_, T> {
    /// How long to wait; a minute unless given.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.configure(|wait| *wait = timeout), self.1)
    }
}

async fn set(execution: Arc<Execution>, place: Place, key: String, value: Result<String>) {
    if let Place::Own(position) = place
        && execution.replay(position, SET).await.is_some()
    {
        return;
    }
    let _active = execution.enter(place.own(), Doing::Checkpoint);
    let effect = match value {
        Ok(value) => Effect::SetEvent {
            key: key.clone(),
            value,
        },
        Err(error) => return execution.fail(error).await,
    };
    let set = execution
        .effect(place, SET, execution.now_ms(), None, effect)
        .await;
    if let Err(error) = set {
        return execution.fail(error).await;
    }
    execution.runtime.wrote(Kind::Event, execution.id(), &key);
}

/// The value of an event as stored, waiting for the first one until `patience` ends.
async fn value(
    runtime: &Runtime,
    workflow_id: &str,
    key: &str,
    patience: impl Future<Output = ()>,
) -> Result<Option<Stored>> {
    let mut arrivals = runtime.arrivals.register(Kind::Event, workflow_id, key);
    tokio::pin!(patience);
    let mut last = false;
    loop {
        let event = runtime
            .db
            .system
            .sql("SELECT value, serialization FROM @workflow_events WHERE workflow_uuid = ")
            .bind(workflow_id)
            .push(" AND key = ")
            .bind(key);
        let rows = runtime.read_patiently(event).await?;
        match rows.first().map(Stored::read).transpose() {
            Ok(None) if !last => {}
            found => {
                let mut found = found.map_err(crate::transaction::from_database)?;
                if let Some(stored) = &mut found {
                    let value = std::mem::take(&mut stored.value);
                    stored.value = runtime.payloads().decode(value).await?;
                }
                return Ok(found);
            }
        }
        tokio::select! {
            () = arrivals.arrived() => {}
            () = &mut patience => last = true,
        }
    }
}

fn decode<T: DeserializeOwned>(key: &str, stored: &Stored) -> Result<T> {
    let what = || format!("event `{key}`");
    if let Some(format) = foreign(stored.serialization.as_deref()) {
        return Err(Error::serialization(
            &what(),
            format_args!("its format `{format}` belongs to another language"),
        ));
    }
    serde_json::from_str(&stored.value).map_err(|error| Error::serialization(&what(), error))
}

async fn get<T: DeserializeOwned>(
    execution: Arc<Execution>,
    places: (Option<i32>, Option<i32>),
    workflow_id: String,
    key: String,
    timeout: Duration,
) -> Option<T> {
    let (position, recorded) = execution.replay_or_misuse(places.0, GET).await;
    let deadline = Deadline::at(places.1);
    if let Some(recorded) = recorded {
        deadline.skip(&execution).await;
        let stored = Stored {
            value: recorded.output.unwrap_or_else(|| "null".to_owned()),
            serialization: None,
        };
        return match decode(&key, &stored) {
            Ok(value) => value,
            Err(error) => execution.fail(error).await,
        };
    }
    let active = execution.enter(position, Doing::Event(workflow_id.clone(), key.clone()));
    let started_at = execution.now_ms();
    let until = deadline.record(&execution, timeout).await;
    active.until(until);
    let found = execution
        .unless_interrupted(value(
            &execution.runtime,
            &workflow_id,
            &key,
            execution.wait_until(until),
        ))
        .await;
    let stored = match found {
        Ok(stored) => stored,
        Err(error) => return execution.fail(error).await,
    };
    let output = match &stored {
        Some(stored) => stored.value.clone(),
        None => "null".to_owned(),
    };
    let mut row = execution.step_row(
        position,
        GET,
        started_at,
        execution.now_ms(),
        StepResult::Output(output),
    );
    let format = stored
        .as_ref()
        .and_then(|stored| stored.serialization.clone());
    if let Some(format) = format {
        row.format = format.into();
    }
    if let Err(error) = execution.write(row).await {
        return execution.fail(error).await;
    }
    match stored.map(|stored| decode(&key, &stored)).transpose() {
        Ok(value) => value,
        Err(error) => execution.fail(error).await,
    }
}

pub(crate) fn read_event<T>(
    runtime: Arc<Runtime>,
    workflow_id: String,
    key: String,
) -> ReadEvent<'static, T>
where
    T: DeserializeOwned + Send + 'static,
{
    let read = move |timeout| async move {
        let found = value(&runtime, &workflow_id, &key, runtime.clock().sleep(timeout)).await?;
        found.map(|stored| decode(&key, &stored)).transpose()
    };
    ReadEvent(Pending::new(TIMEOUT, read), PhantomData)
}

impl<S> Ctx<S> {
    /// Sets an event of this run, which anybody can read with its id and the key. A second value replaces
    /// the first; forks see the value of their time. Inside a step it is set whenever the step runs.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn expense(ctx: Ctx, cents: u64) -> segno::Result<()> {
    ///     ctx.set_event("state", "waiting for approval").await;
    ///     Ok(())
    /// }
    /// ```
    pub fn set_event<T: Serialize + ?Sized>(
        &self,
        key: impl Into<String>,
        value: &T,
    ) -> SetEvent<'_> {
        let key = key.into();
        let value = serde_json::to_string(value)
            .map_err(|error| Error::serialization(&format!("event `{key}`"), error));
        let execution = self.execution().clone();
        let place = execution.take_place();
        SetEvent(Box::pin(set(execution, place, key, value)))
    }

    /// Reads an event of a run, waiting until it is set for the first time. What is read is recorded: a
    /// recovered run sees the same.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use segno::Ctx;
    /// async fn follow(ctx: Ctx, run: String) -> segno::Result<Option<String>> {
    ///     Ok(ctx.get_event(run, "state").timeout(Duration::from_secs(10)).await)
    /// }
    /// ```
    pub fn get_event<T>(
        &self,
        workflow_id: impl Into<String>,
        key: impl Into<String>,
    ) -> GetEvent<'_, T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let execution = self.execution().clone();
        let places = (execution.take_position(), execution.take_position());
        let (workflow_id, key) = (workflow_id.into(), key.into());
        let get = move |timeout| get(execution, places, workflow_id, key, timeout);
        GetEvent(Pending::new(TIMEOUT, get), PhantomData)
    }
}

impl Segno {
    /// Reads an event of a run, waiting until it is set for the first time. A run that does not exist
    /// (yet) is waited for, too.
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// let state: Option<String> = app.get_event("expense-7", "state").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_event<T>(
        &self,
        workflow_id: impl Into<String>,
        key: impl Into<String>,
    ) -> ReadEvent<'static, T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        read_event(self.runtime().clone(), workflow_id.into(), key.into())
    }
}

impl<R> Handle<R> {
    /// Reads an event of the run; see [`Segno::get_event`].
    pub fn get_event<T>(&self, key: impl Into<String>) -> ReadEvent<'static, T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        read_event(self.runtime().clone(), self.id().to_owned(), key.into())
    }
}
