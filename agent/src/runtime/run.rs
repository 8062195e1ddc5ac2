//! One execution from its first poll to its recorded outcome.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};

use crate::error::{Error, Result};
use crate::execution::{CURRENT, Ending, Execution};
use crate::metrics::Counters;
use crate::recorder::OutcomeRow;
use crate::status::Status;
use crate::trace;
use crate::workflow::Input;

/// A workflow's input as its row has it.
pub(crate) struct StoredInput {
    pub(crate) text: Option<String>,
    pub(crate) serialization: Option<String>,
}

const INPUT: &str = "the workflow's input";

/// What came of a body.
enum Exit {
    Finished(Result<String>),
    /// The row is not ours: nothing to write.
    Lost,
    /// Shutdown came first: the row goes back to its queue.
    Dropped,
    Panicked(String),
}

/// Runs the body, records its outcome and tells those who wait.
pub(super) async fn run(execution: Arc<Execution>, input: StoredInput) {
    let runtime = execution.runtime.clone();
    let killed = runtime.killed.clone();
    let span = trace::workflow_span(&execution);
    let ending = tokio::select! {
        biased;
        () = killed.cancelled() => Ending::Elsewhere,
        ending = execute(&execution, &input, &span).instrument(span.clone()) => ending,
    };
    runtime.end(&execution, ending);
}

async fn execute(execution: &Arc<Execution>, input: &StoredInput, span: &Span) -> Ending {
    match body(execution, input).await {
        Exit::Finished(result) => {
            if let Err(error) = &result {
                trace::failed(span, execution, || error.clone());
            }
            record(execution, result).await
        }
        Exit::Lost => {
            Counters::count(&execution.runtime.counters.stopped);
            tracing::debug!(
                workflow_id = execution.id(),
                "stopped: the run was cancelled or is somebody else's now"
            );
            Ending::Elsewhere
        }
        Exit::Dropped => {
            Counters::count(&execution.runtime.counters.stopped);
            execution.runtime.drop_for_hand_back(execution);
            Ending::Elsewhere
        }
        Exit::Panicked(message) => {
            Counters::count(&execution.runtime.counters.panicked);
            trace::failed(span, execution, || {
                Error::message(format!("panicked: {message}"))
            });
            tracing::error!(
                workflow_id = execution.id(),
                workflow = execution.name(),
                panic = message,
                "a workflow panicked; it stays PENDING until it is recovered"
            );
            Ending::Panicked(message)
        }
    }
}

/// Polls the body to its end, unless it is stopped; then it is dropped.
async fn body(execution: &Arc<Execution>, input: &StoredInput) -> Exit {
    let Some(registered) = execution.runtime.registry.get(execution.name()) else {
        return Exit::Lost;
    };
    let payloads = execution.runtime.payloads();
    let text = match payloads.decode_some(input.text.clone()).await {
        Ok(text) => text,
        Err(error) => return Exit::Finished(Err(Error::unreadable(INPUT, &error))),
    };
    let stored = Input {
        text: text.as_deref(),
        serialization: input.serialization.as_deref(),
    };
    // A function may panic before it yields its future, too.
    let started = std::panic::catch_unwind(AssertUnwindSafe(|| {
        registered.body(execution.clone(), &stored)
    }));
    let body = match started {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Exit::Finished(Err(Error::unreadable(INPUT, &error))),
        Err(panic) => return Exit::Panicked(message(&*panic)),
    };
    let body = CURRENT.scope(execution.clone(), body);
    tokio::select! {
        biased;
        () = execution.dropped() => Exit::Dropped,
        stopped = execution.stopped() => match stopped {
            Some(error) => Exit::Finished(Err(error)),
            None => Exit::Lost,
        },
        result = AssertUnwindSafe(body).catch_unwind() => match result {
            Ok(result) => Exit::Finished(result),
            Err(panic) => Exit::Panicked(message(&*panic)),
        },
    }
}

async fn record(execution: &Arc<Execution>, result: Result<String>) -> Ending {
    let recorder = &execution.runtime.recorder;
    let error = match recorder.outcome(row(execution, &result)).await {
        Ok(true) => {
            execution.runtime.counters.outcome(result.as_ref().err());
            if let Err(error) = &result
                && error.parks()
            {
                tracing::error!(workflow_id = execution.id(), workflow = execution.name(), %error, "a workflow is set aside");
            }
            return ending(result);
        }
        Ok(false) => {
            Counters::count(&execution.runtime.counters.stopped);
            return Ending::Elsewhere;
        }
        Err(error) => error,
    };
    // The database does not take this outcome: the run ends with that as its error.
    tracing::error!(workflow_id = execution.id(), %error, "the outcome could not be recorded as it is");
    let refused: Result<String> = Err(error);
    match recorder.outcome(row(execution, &refused)).await {
        Ok(true) => {
            execution.runtime.counters.outcome(refused.as_ref().err());
            Ending::Recorded(refused.map(Arc::from))
        }
        Ok(false) | Err(_) => Ending::Elsewhere,
    }
}

/// What those learn who wait here. A run that was set aside has not ended: the database tells what becomes of
/// it.
fn ending(result: Result<String>) -> Ending {
    match result {
        Err(error) if error.parks() => Ending::Elsewhere,
        result => Ending::Recorded(result.map(Arc::from)),
    }
}

fn row(execution: &Execution, result: &Result<String>) -> OutcomeRow {
    let (status, output, error) = match result {
        Ok(output) => (Status::Success, Some(output.clone()), None),
        Err(error) if error.parks() => {
            let status = Status::MaxRecoveryAttemptsExceeded;
            (status, None, Some(error.to_portable().to_string()))
        }
        Err(error) => (Status::Error, None, Some(error.to_portable().to_string())),
    };
    OutcomeRow {
        workflow_id: execution.id().to_owned(),
        token: execution.token().to_owned(),
        status,
        output,
        error,
    }
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
