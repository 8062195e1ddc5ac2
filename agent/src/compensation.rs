//! Undoing what succeeded when a workflow fails.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::error::{Error, Result};
use crate::execution::Execution;
use crate::step::Step;

/// How often each is tried: what cannot be undone leaves something behind in the world.
const ATTEMPTS: u32 = 5;

type Undo = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What an execution registered so far, in that order.
#[derive(Default)]
pub(crate) struct Compensations(Mutex<Vec<(Cow<'static, str>, Undo)>>);

impl Compensations {
    pub(crate) fn add(
        &self,
        name: Cow<'static, str>,
        undo: impl Fn() -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.push((name, Box::new(undo)));
    }

    fn pop(&self) -> Option<(Cow<'static, str>, Undo)> {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.pop()
    }
}

/// Undoes what was registered, the last first. Each is a step, so a run that is recovered in the middle goes on
/// with the next.
pub(crate) async fn run(execution: &Arc<Execution>) {
    while let Some((name, undo)) = execution.compensations.pop() {
        let position = execution.take_position();
        let step: Step<'_, (), Error> = Step::new(execution.clone(), position, name.clone(), undo);
        if let Err(error) = step.max_attempts(ATTEMPTS).await {
            tracing::error!(workflow_id = execution.id(), step = &*name, %error, "a compensation failed");
        }
    }
}
