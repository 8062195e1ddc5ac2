//! Replays of recorded runs: whether today's code would still do what yesterday's did.

use std::sync::{Arc, Mutex, PoisonError};

use super::database;
use crate::builder::Builder;
use crate::error::{Error, ErrorKind, Result};
use crate::manage::WorkflowInfo;
use crate::recorder::{Gate, OutcomeRow};
use crate::runtime::Runtime;
use crate::status::Status;
use crate::transaction::from_database;

/// A year from the last record: every sleep in it is over.
const LATER_MS: i64 = 365 * 24 * 3600 * 1000;

/// How a replayed run went.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replayed {
    /// The run's id.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// Steps on record.
    pub steps: usize,
    /// Whether the run had ended and the code came to the same end. Of a run that had not ended, only the
    /// steps on record were repeated.
    pub ended: bool,
}

/// Runs the code of an application against runs that [`Segno::export`](crate::Segno::export) (or an SDK of
/// another language that writes the same form) has exported, without doing any of their steps again: each
/// durable call is answered from the record. An error tells where the code differs from the record: another
/// call than the one on record, more calls, fewer, or another outcome.
///
/// Keep exports of runs of each kind beside the tests, and a change of code that would strand such runs does
/// not pass them.
///
/// ```
/// use segno::{Ctx, Segno, testing};
///
/// async fn double(ctx: Ctx, n: u32) -> segno::Result<u32> {
///     ctx.step("double", || async move { Ok(n * 2) }).await
/// }
/// async fn changed(ctx: Ctx, n: u32) -> segno::Result<u32> {
///     ctx.step("twice", || async move { Ok(n * 2) }).await
/// }
///
/// # #[tokio::main]
/// # async fn main() -> segno::Result<()> {
/// let app = testing::launch(Segno::named("test").workflow("double", double)).await?;
/// app.run(double, 21).id("run").await?;
/// let export = app.export("run", false).await?;
///
/// testing::replay(Segno::named("test").workflow("double", double), &export).await?;
/// let error = testing::replay(Segno::named("test").workflow("double", changed), &export).await.unwrap_err();
/// assert!(error.to_string().contains("`twice`"));
/// # Ok(())
/// # }
/// ```
pub async fn replay<S>(builder: Builder<S>, export: &str) -> Result<Vec<Replayed>> {
    let db = database().await?;
    let ids = db
        .system
        .import_workflows(export)
        .await
        .map_err(from_database)?;
    let outcome = Arc::<Mutex<Option<OutcomeRow>>>::default();
    let runtime = builder
        .for_replay(Gate::RepeatsOnly(outcome.clone()), db)
        .await?;
    let mut replayed = Vec::with_capacity(ids.len());
    for id in ids {
        let one = replay_one(&runtime, &outcome, &id).await;
        match one {
            Ok(one) => replayed.push(one),
            Err(error) => {
                runtime.kill();
                return Err(error);
            }
        }
    }
    runtime.kill();
    Ok(replayed)
}

async fn replay_one(
    runtime: &Arc<Runtime>,
    outcome: &Mutex<Option<OutcomeRow>>,
    id: &str,
) -> Result<Replayed> {
    let recorded = WorkflowInfo::find(runtime, id).await?;
    if runtime.registry.get(&recorded.name).is_none() {
        return Err(Error::new(ErrorKind::NotRegistered {
            name: recorded.name,
        }));
    }
    let (origin, input) = runtime.stored(id).await?;
    let steps = origin.history.len();
    let last = recorded.completed_at.unwrap_or(recorded.updated_at);
    runtime.clock().set(last.saturating_add(LATER_MS));
    let mut ends = runtime.begin(origin, input);
    let execution = runtime.execution(id);
    let _ = ends.wait_for(Option::is_some).await;
    let replayed = Replayed {
        id: id.to_owned(),
        workflow: recorded.name.clone(),
        steps,
        ended: !recorded.status.is_active(),
    };
    let now = outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(now) = now else {
        return Err(Error::misuse(format!(
            "replay of `{id}`: the code stopped without an end, or panicked"
        )));
    };
    let error = now.error.as_deref().map(|text| {
        Error::from_portable(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
    });
    match (&error, recorded.status) {
        (Some(error), status) if error.parks() => {
            let at_the_end = matches!(error.kind(), ErrorKind::NotRecorded { .. });
            let ends = matches!(status, Status::Success | Status::Error);
            if at_the_end && !ends {
                return Ok(replayed);
            }
            return Err(error.clone());
        }
        (_, Status::Success | Status::Error) => {}
        // It was stopped from outside; up to there the code repeated it.
        _ => return Ok(replayed),
    }
    let left = execution.and_then(|execution| execution.left_on_record());
    if let Some((step, name)) = left {
        return Err(Error::new(ErrorKind::Nondeterminism {
            step,
            recorded: name,
            asked: "the end of the workflow".to_owned(),
            on_record: Vec::new(),
            asked_for: Vec::new(),
        }));
    }
    let output = now
        .output
        .as_deref()
        .map(serde_json::from_str::<serde_json::Value>);
    let output = output
        .transpose()
        .map_err(|error| Error::serialization("replayed result", error))?;
    let same = match (&recorded.error, &error) {
        (None, None) => recorded.output.unwrap_or_default() == output.unwrap_or_default(),
        (Some(then), Some(now)) => then.kind() == now.kind(),
        _ => false,
    };
    if same {
        return Ok(replayed);
    }
    let now = now.output.or(now.error).unwrap_or_default();
    Err(Error::message(format!(
        "replay of `{id}`: it ends with {now}, which is not what is on record"
    )))
}
