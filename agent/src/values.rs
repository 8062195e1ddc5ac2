//! What may come out differently the next time, recorded so that it does not: time, ids, chance; and
//! which side of a change of code a run is on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, join_all, select_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::context::Ctx;
use crate::error::Error;
use crate::execution::{Execution, Marker, Place, StepResult};
use crate::handle::Handle;
use crate::pending::durable_call;
use crate::step::recall;
use crate::underway::Doing;

/// A value about to be made and recorded; await it. See [`Ctx::now`], [`Ctx::uuid`], [`Ctx::random`].
#[must_use = "nothing is recorded until this is awaited"]
pub struct RecordedValue<'a, T>(BoxFuture<'a, T>);

/// Which side of a change a run is on; await it. See [`Ctx::patch`].
#[must_use = "a patch decides nothing until it is awaited"]
pub struct Patch<'a>(BoxFuture<'a, bool>);

durable_call!(RecordedValue<'a, T> -> T, Patch<'a> -> bool);

/// Makes a value once and records it. Inside a step, which is recorded as a whole, it is made each time.
async fn value<T: Serialize + DeserializeOwned>(
    execution: Arc<Execution>,
    place: Place,
    name: &'static str,
    make: impl Fn() -> T,
) -> T {
    let Place::Own(position) = place else {
        return make();
    };
    if let Some(recorded) = execution.replay(position, name).await {
        return match recall::<T, Error>(&execution, position, name, recorded).await {
            Ok(value) => value,
            Err(error) => execution.fail(error).await,
        };
    }
    let recorded = async {
        let text =
            serde_json::to_string(&make()).map_err(|error| Error::serialization(name, error))?;
        // As it is read back: the last digit of a number may differ from what was written.
        let value =
            serde_json::from_str(&text).map_err(|error| Error::serialization(name, error))?;
        let result = StepResult::Output(text);
        execution
            .record(position, name, execution.now_ms(), result)
            .await?;
        Ok(value)
    };
    match recorded.await {
        Ok(value) => value,
        Err(error) => execution.fail(error).await,
    }
}

async fn patch(execution: Arc<Execution>, name: String, marker: Option<Marker>) -> bool {
    let position = match marker {
        Some(Marker::Recorded) => return true,
        Some(Marker::Other) => return false,
        Some(Marker::Free(position)) => position,
        None => {
            let message =
                format!("`{name}` was called inside a step; a patch belongs into the workflow");
            return execution.fail(Error::misuse(message)).await;
        }
    };
    let recorded = execution
        .record(position, &name, execution.now_ms(), StepResult::Nothing)
        .await;
    match recorded {
        Ok(()) => true,
        Err(error) => execution.fail(error).await,
    }
}

/// The runs that are waited for, for people.
fn ids<R>(handles: &[Handle<R>]) -> String {
    let ids: Vec<&str> = handles.iter().take(3).map(Handle::id).collect();
    let more = if handles.len() > 3 { ", …" } else { "" };
    format!("{}{more}", ids.join(", "))
}

fn marker(name: &str) -> String {
    format!("DBOS.patch-{name}")
}

impl<S> Ctx<S> {
    fn value<T>(
        &self,
        name: &'static str,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> RecordedValue<'_, T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let execution = self.execution().clone();
        let place = execution.take_place();
        RecordedValue(Box::pin(value(execution, place, name, make)))
    }

    /// The time, to the millisecond: that of the first execution.
    pub fn now(&self) -> RecordedValue<'_, SystemTime> {
        let clock = self.execution().runtime.clock().clone();
        let now = self.value("DBOS.now", move || clock.now_ms());
        RecordedValue(Box::pin(async {
            let millis = u64::try_from(now.await).unwrap_or(0);
            UNIX_EPOCH + Duration::from_millis(millis)
        }))
    }

    /// A random UUID: that of the first execution.
    pub fn uuid(&self) -> RecordedValue<'_, Uuid> {
        self.value("DBOS.randomUUID", Uuid::new_v4)
    }

    /// A random number from 0 up to but not including 1: that of the first execution.
    pub fn random(&self) -> RecordedValue<'_, f64> {
        self.value("DBOS.random", rand::random::<f64>)
    }

    /// Whether this run takes the new path of a change in its code: true for runs that get here for the
    /// first time, false for those that passed before the change.
    ///
    /// ```
    /// # use segno::Ctx;
    /// # async fn old(_: &Ctx) -> segno::Result<()> { Ok(()) }
    /// # async fn new(_: &Ctx) -> segno::Result<()> { Ok(()) }
    /// async fn changed(ctx: Ctx, input: u32) -> segno::Result<()> {
    ///     if ctx.patch("use-new-gateway").await {
    ///         new(&ctx).await
    ///     } else {
    ///         old(&ctx).await
    ///     }
    /// }
    /// ```
    pub fn patch(&self, name: &str) -> Patch<'_> {
        let name = marker(name);
        let execution = self.execution().clone();
        let marker = execution.take_position_of(&name, true);
        Patch(Box::pin(patch(execution, name, marker)))
    }

    /// Takes the place of [`patch`](Self::patch) when no run needs the old path any more: runs that have
    /// its mark pass over it, new ones leave none.
    pub fn deprecate_patch(&self, name: &str) {
        self.execution().take_position_of(&marker(name), false);
    }

    /// Waits until one of these runs has ended, however, and gives the first that did: the same one after
    /// a recovery.
    ///
    /// ```
    /// # use segno::Ctx;
    /// # async fn quote(ctx: Ctx, carrier: String) -> segno::Result<u64> { Ok(1) }
    /// async fn cheapest(ctx: Ctx, carriers: Vec<String>) -> segno::Result<u64> {
    ///     let quotes = ctx.start_all(quote, carriers).await?;
    ///     ctx.wait_first(&quotes).await?.result().await
    /// }
    /// ```
    pub fn wait_first<'h, R: Send + Sync>(
        &self,
        handles: &'h [Handle<R>],
    ) -> impl Future<Output = crate::Result<&'h Handle<R>>> + Send + use<'h, R, S> {
        const NAME: &str = "DBOS.waitFirst";
        let execution = self.execution().clone();
        let position = execution.take_position();
        async move {
            if handles.is_empty() {
                return Err(Error::misuse("`wait_first` needs at least one handle"));
            }
            let (position, recorded) = execution.replay_or_misuse(position, NAME).await;
            let first: String = match recorded {
                Some(recorded) => recall::<_, Error>(&execution, position, NAME, recorded).await?,
                None => {
                    let _active = execution.enter(position, Doing::Workflow(ids(handles)));
                    let started_at = execution.now_ms();
                    let waits = handles.iter().map(|handle| Box::pin(handle.ended()));
                    let ((), index, _) = execution.unless_interrupted(select_all(waits)).await;
                    let id = handles.get(index).map(|handle| handle.id().to_owned());
                    let id = id.unwrap_or_default();
                    let text = serde_json::Value::from(id.clone()).to_string();
                    let result = StepResult::Output(text);
                    execution.record(position, NAME, started_at, result).await?;
                    id
                }
            };
            let found = handles.iter().find(|handle| handle.id() == first);
            found.ok_or_else(|| {
                Error::misuse(format!(
                    "`{first}` ended first, but is not among the handles any more"
                ))
            })
        }
    }

    /// Waits until all these runs have ended, however; their results are there at once then.
    pub fn wait_all<'h, R: Send + Sync>(
        &self,
        handles: &'h [Handle<R>],
    ) -> impl Future<Output = crate::Result<()>> + Send + use<'h, R, S> {
        const NAME: &str = "DBOS.waitAll";
        let execution = self.execution().clone();
        let position = execution.take_position();
        async move {
            let (position, recorded) = execution.replay_or_misuse(position, NAME).await;
            if recorded.is_some() {
                return Ok(());
            }
            let _active = execution.enter(position, Doing::Workflow(ids(handles)));
            let started_at = execution.now_ms();
            let waits = join_all(handles.iter().map(Handle::ended));
            execution.unless_interrupted(waits).await;
            execution
                .record(position, NAME, started_at, StepResult::Nothing)
                .await
        }
    }
}
