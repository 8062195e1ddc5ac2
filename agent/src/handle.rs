//! What a start gives back.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Ends, Execution, StepResult};
use crate::manage::StepInfo;
use crate::runtime::{Outcome, Runtime};
use crate::status::Status;
use crate::underway::Doing;

const GET_RESULT: &str = "DBOS.getResult";

/// A run of a workflow. Await it for the result.
///
/// Dropping a handle does nothing to the run.
pub struct Handle<R> {
    runtime: Arc<Runtime>,
    id: String,
    /// The workflow that holds this handle: waiting is then a recorded step of it.
    parent: Option<Arc<Execution>>,
    /// How the run ends, if it runs in this process.
    local: Option<Ends>,
    result: PhantomData<fn() -> R>,
}

impl<R> Handle<R> {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        id: String,
        parent: Option<Arc<Execution>>,
        local: Option<Ends>,
    ) -> Self {
        Self {
            runtime,
            id,
            parent,
            local,
            result: PhantomData,
        }
    }

    /// Completes when the run has ended, however; for a run that is gone, at once.
    pub(crate) async fn ended(&self) {
        let _ = self.runtime.wait(&self.id, self.local.clone(), true).await;
    }

    /// The recorded steps of the run, in order.
    pub async fn steps(&self) -> Result<Vec<StepInfo>> {
        StepInfo::list(self.runtime(), &self.id).await
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.current()
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its status as recorded now.
    pub async fn status(&self) -> Result<Status> {
        self.runtime().status(&self.id).await
    }

    /// Cancels it: it stops at its next durable call. A finished run stays as it is.
    pub async fn cancel(&self) -> Result<()> {
        self.runtime()
            .cancel(std::slice::from_ref(&self.id), false)
            .await
            .map(drop)
    }
}

impl<R: DeserializeOwned + Send + 'static> Handle<R> {
    /// Waits for the result; the same as awaiting the handle, which it leaves usable. A workflow that
    /// ended in an error gives that error; [`Error::decode`] turns it back into the workflow's type.
    pub fn result(&self) -> impl Future<Output = Result<R>> + Send + 'static {
        let position = self
            .parent
            .as_ref()
            .and_then(|parent| parent.take_position());
        self.result_at(position)
    }

    /// As [`result`](Self::result), at a position that was taken before.
    pub(crate) fn result_at(
        &self,
        position: Option<i32>,
    ) -> impl Future<Output = Result<R>> + Send + 'static {
        let parent = self.parent.clone().zip(position);
        result(
            self.runtime().clone(),
            self.id.clone(),
            parent,
            self.local.clone(),
        )
    }
}

impl<R: DeserializeOwned + Send + 'static> IntoFuture for Handle<R> {
    type Output = Result<R>;
    type IntoFuture = BoxFuture<'static, Result<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.result())
    }
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Waits for a run. Inside a workflow the result is recorded as its step at the given position; outside of
/// one, and inside a step's body, this is a plain wait.
async fn result<R: DeserializeOwned>(
    runtime: Arc<Runtime>,
    id: String,
    parent: Option<(Arc<Execution>, i32)>,
    local: Option<Ends>,
) -> Result<R> {
    let Some((parent, position)) = parent else {
        let text = match runtime.wait(&id, local, false).await? {
            Outcome::Success(text) => text,
            Outcome::Error(error) => return Err(error),
            Outcome::Cancelled => return Err(Error::new(ErrorKind::Cancelled { id })),
            Outcome::Parked(Some(reason)) => return Err(reason),
            Outcome::Parked(None) => return Err(Error::new(ErrorKind::AwaitedParked { id })),
        };
        return decode_output(&id, &text);
    };
    if let Some(recorded) = parent.replay(position, GET_RESULT).await {
        return crate::step::recall(&parent, position, GET_RESULT, recorded).await;
    }
    let _active = parent.enter(position, Doing::Workflow(id.clone()));
    let started_at = parent.now_ms();
    let outcome = match parent
        .unless_interrupted(runtime.wait(&id, local, true))
        .await
    {
        Ok(Outcome::Success(text)) => Ok(text),
        Ok(Outcome::Error(error)) => Err(error),
        Ok(Outcome::Cancelled) => Err(Error::new(ErrorKind::AwaitedCancelled { id: id.clone() })),
        Ok(Outcome::Parked(_)) => Err(Error::new(ErrorKind::AwaitedParked { id: id.clone() })),
        Err(error) => Err(error),
    };
    let recorded = match &outcome {
        Ok(text) => StepResult::Output(text.to_string()),
        Err(error) => StepResult::Error(error.to_portable().to_string()),
    };
    let mut row = parent.step_row(position, GET_RESULT, started_at, parent.now_ms(), recorded);
    row.child = Some(id.clone());
    if let Err(error) = parent.write(row).await {
        return parent.fail(error).await;
    }
    decode_output(&id, &outcome?)
}

fn decode_output<R: DeserializeOwned>(id: &str, text: &str) -> Result<R> {
    serde_json::from_str(text)
        .map_err(|error| Error::serialization(&format!("result of workflow `{id}`"), error))
}
