//! Why a workflow is not moving: the answer, made of what its record, its steps, its queue, its
//! executor and that executor's recovery say. Only a Rust executor can also tell what goes on between
//! two checkpoints; it is asked.

use axum::extract::State;
use segno_protocol::{GetWorkflow, ListSteps, SegnoExplain, StepRecord, WaitingOn, WorkflowRecord};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::explain_queue;
use super::extract::{App, Object, Path};
use super::forward;
use super::path::{AppPath, WorkflowPath};
use super::problem::Problem;
use super::time::Timestamp;
use super::workflows::{is_own, no_workflow};
use crate::auth::{AppScope, Caller};
use crate::hub::{Class, Target};
use crate::recovery::machine::Reason;
use crate::state::AppState;
use crate::store::apps::AppRow;
use crate::store::executors::{ExecutorRow, ExecutorState};
use crate::store::recoveries::{RecoveryFilter, RecoveryRow, RecoveryStatus};

/// Id of processes without a control plane: they recover their own work when they start again.
const LOCAL: &str = "local";

/// Why a workflow stands where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExplanationCode {
    /// It succeeded, failed or was cancelled
    Ended,
    /// It was recovered too often and is not tried again
    RecoveryLimit,
    /// Its delay is not over
    Delayed,
    /// It is on a queue, and its turn comes
    Queued,
    /// Its queue runs as many as it may
    QueueFull,
    /// Its queue started as many as it may for now
    QueueRateLimited,
    /// No live executor runs its version
    NoExecutorOfVersion,
    /// Its executor is lost, and waited for until grace is over
    ExecutorDisconnected,
    /// Its executor is dead, and its work is being handed over
    Recovering,
    /// Its executor is dead, and handing its work over does not succeed
    RecoveryStranded,
    /// Its executor's work was given up by an operator
    Abandoned,
    /// Its executor is not known to this server
    ExecutorUnknown,
    /// Its executor is connected but does not answer
    ExecutorUnresponsive,
    /// A step is running
    RunningStep,
    /// A step failed and is tried again
    RetryingStep,
    /// It sleeps
    Sleeping,
    /// It waits for a message
    WaitingForMessage,
    /// It waits for another workflow's event
    WaitingForEvent,
    /// It waits for another workflow to end
    WaitingForWorkflow,
    /// It waits for a message or an event, whichever it is, with a time-out
    WaitingUntil,
    /// Its executor waits for its database
    WaitingForDatabase,
    /// It runs; what it does since its last checkpoint is not known here
    Running,
}

/// Why a workflow is not moving.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The reason, for programs
    pub code: ExplanationCode,
    /// What else is known; its members depend on the code
    pub details: Map<String, Value>,
    /// Since when, if that is known
    #[schema(required = true)]
    pub since: Option<Timestamp>,
    /// The reason, for people
    pub text: String,
    /// When it ends by itself, if it does
    #[schema(required = true)]
    pub until: Option<Timestamp>,
}

impl Explanation {
    pub(super) fn new(code: ExplanationCode, text: impl Into<String>) -> Self {
        Self {
            code,
            details: Map::new(),
            since: None,
            text: text.into(),
            until: None,
        }
    }

    /// Epoch milliseconds.
    pub(super) fn since(mut self, since: Option<i64>) -> Self {
        self.since = since.map(Timestamp::from_ms);
        self
    }

    /// Epoch milliseconds.
    pub(super) fn until(mut self, until: Option<i64>) -> Self {
        self.until = until.map(Timestamp::from_ms);
        self
    }

    /// Adds a detail unless it is null.
    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.details.insert(name.to_owned(), value);
        }
        self
    }
}

/// What is looked at.
pub(super) struct Subject<'a> {
    pub state: &'a AppState,
    pub app: &'a AppRow,
    pub record: &'a WorkflowRecord,
    pub executors: &'a [ExecutorRow],
    /// The store's clock, epoch milliseconds.
    pub now: i64,
}

/// Explain why a workflow is not moving
///
/// What happens between two checkpoints is known of Rust applications only.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/explain", operation_id = "explainWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK", body = Explanation)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn explain_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Object<Explanation>, Problem> {
    let message = GetWorkflow {
        workflow_id: path.workflow_id.clone(),
        load_input: false,
        load_output: false,
    };
    let found = forward::read(&state.hub, &app, &message).await?.output;
    let found = found.filter(|record| caller.scope == AppScope::All || is_own(&app, record));
    let record = found.ok_or_else(|| no_workflow(&path.workflow_id))?;
    let subject = Subject {
        state: &state,
        app: &app,
        record: &record,
        executors: &state.store.executors(&app.id).await?,
        now: state.recovery.instance().now(),
    };
    let explanation = match record.status.as_deref().unwrap_or_default() {
        "PENDING" => pending(&subject).await?,
        "ENQUEUED" => enqueued(&subject).await?,
        "DELAYED" => delayed(&record),
        status => ended(&record, status),
    };
    let deadline = record.workflow_deadline_epoch_ms;
    let explanation = explanation
        .detail("status", record.status.clone())
        .detail("appVersion", record.application_version.clone())
        .detail("deadline", json!(deadline.map(Timestamp::from_ms)));
    Ok(Object(explanation))
}

fn ended(record: &WorkflowRecord, status: &str) -> Explanation {
    let (code, text) = match status {
        "SUCCESS" => (ExplanationCode::Ended, "it succeeded"),
        "ERROR" => (
            ExplanationCode::Ended,
            "it ended with an error; fork it to try again from a step",
        ),
        "CANCELLED" => (
            ExplanationCode::Ended,
            "it was cancelled; resume it to let it go on",
        ),
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED" => (
            ExplanationCode::RecoveryLimit,
            "it was recovered as often as it may be; resume it to try once more",
        ),
        _ => (
            ExplanationCode::Ended,
            "it has a status that this server does not know",
        ),
    };
    Explanation::new(code, text).since(record.completed_at.or(record.updated_at))
}

fn delayed(record: &WorkflowRecord) -> Explanation {
    let text = "it is put off until a given time";
    Explanation::new(ExplanationCode::Delayed, text)
        .since(record.created_at)
        .until(record.delay_until_epoch_ms)
        .detail("queueName", record.queue_name.clone())
}

/// On a queue: somebody of its version must be there, and the queue must have room.
async fn enqueued(subject: &Subject<'_>) -> Result<Explanation, Problem> {
    let record = subject.record;
    let version = match &record.application_version {
        Some(version) => version.clone(),
        None => {
            let latest = subject.state.hub.latest_version(subject.app).await;
            latest.map_err(|error| forward::problem(subject.app, error))?
        }
    };
    let takers: Vec<&ExecutorRow> = subject
        .executors
        .iter()
        .filter(|row| row.state == ExecutorState::Healthy && row.key.version == version)
        .collect();
    if takers.is_empty() {
        return Ok(no_executor_of(&version)
            .since(record.created_at)
            .detail("queueName", record.queue_name.clone()));
    }
    explain_queue::waiting(subject, takers.len()).await
}

fn no_executor_of(version: &str) -> Explanation {
    let text = format!(
        "no connected executor runs its application version {version:?}; start one, or fork it to another version"
    );
    Explanation::new(ExplanationCode::NoExecutorOfVersion, text)
        .detail("neededVersion", version.to_owned())
}

/// Running, or left behind.
async fn pending(subject: &Subject<'_>) -> Result<Explanation, Problem> {
    let record = subject.record;
    let id = record.executor_id.clone().unwrap_or_default();
    let owner = subject.executors.iter().find(|row| {
        row.key.executor_id == id && Some(&row.key.version) == record.application_version.as_ref()
    });
    let Some(owner) = owner else {
        return Ok(unknown_owner(subject, &id).await?.detail("executorId", id));
    };
    let explanation = match owner.state {
        ExecutorState::Healthy => at_work(subject, owner).await?,
        ExecutorState::Disconnected => disconnected(subject, owner),
        ExecutorState::Dead => dead(subject, owner).await?,
    };
    Ok(explanation.detail("executorId", id))
}

async fn unknown_owner(subject: &Subject<'_>, id: &str) -> Result<Explanation, Problem> {
    let filter = RecoveryFilter {
        status: Some(RecoveryStatus::Abandoned),
        executor_id: Some(id.to_owned()),
        app_version: subject.record.application_version.clone(),
        limit: 1,
        ..RecoveryFilter::default()
    };
    let given_up = subject
        .state
        .store
        .recoveries(&subject.app.id, &filter)
        .await?;
    if let Some(recovery) = given_up.into_iter().next() {
        let text = format!(
            "its executor {id:?} died, and an operator gave its work up; resume or fork it to let it go on"
        );
        return Ok(Explanation::new(ExplanationCode::Abandoned, text)
            .since(recovery.completed_at)
            .detail("recoveryId", recovery.id));
    }
    let text = if id == LOCAL {
        "it runs in a process that is not connected to this server; if that process is gone, it goes on when \
         one like it starts"
            .to_owned()
    } else {
        format!(
            "its executor {id:?} with this version is not known to this server; if it does not connect, the next \
             sweep counts it as lost and its work is recovered"
        )
    };
    Ok(Explanation::new(ExplanationCode::ExecutorUnknown, text).since(subject.record.updated_at))
}

fn disconnected(subject: &Subject<'_>, owner: &ExecutorRow) -> Explanation {
    let grace = subject.app.executor_timeout_secs.saturating_mul(1000);
    let id = &owner.key.executor_id;
    let text = format!(
        "its executor {id:?} lost its connection; if it does not come back in time, its work is recovered"
    );
    Explanation::new(ExplanationCode::ExecutorDisconnected, text)
        .since(owner.disconnected_at)
        .until(owner.grace_from.map(|from| from.saturating_add(grace)))
        .detail("recoveryId", owner.recovery_id.clone())
}

async fn dead(subject: &Subject<'_>, owner: &ExecutorRow) -> Result<Explanation, Problem> {
    let recovery = match &owner.recovery_id {
        Some(id) => subject.state.store.recovery(&subject.app.id, id).await?,
        None => None,
    };
    let id = &owner.key.executor_id;
    let Some(recovery) = recovery else {
        let text = format!("its executor {id:?} is dead, and its work is about to be recovered");
        return Ok(Explanation::new(ExplanationCode::Recovering, text).since(owner.disconnected_at));
    };
    Ok(of_recovery(owner, &recovery)
        .since(recovery.dead_at.or(Some(recovery.disconnected_at)))
        .detail("recoveryId", recovery.id)
        .detail("reason", json!(recovery.reason)))
}

fn of_recovery(owner: &ExecutorRow, recovery: &RecoveryRow) -> Explanation {
    let id = &owner.key.executor_id;
    match recovery.reason {
        Some(Reason::NoMatchingVersion) => {
            let mut explanation = no_executor_of(&owner.key.version);
            explanation.text = format!("its executor {id:?} is dead, and {}", explanation.text);
            explanation
        }
        Some(Reason::NoExecutor) => Explanation::new(
            ExplanationCode::RecoveryStranded,
            format!(
                "its executor {id:?} is dead, and nobody could be asked to take its work; it is tried again"
            ),
        ),
        Some(Reason::NotConfirmed) => Explanation::new(
            ExplanationCode::RecoveryStranded,
            format!(
                "its executor {id:?} is dead; its work was offered, but was not seen to move; it is tried again"
            ),
        ),
        None => Explanation::new(
            ExplanationCode::Recovering,
            format!("its executor {id:?} is dead, and its work is being handed over"),
        ),
    }
}

/// Its executor is connected: what it waits for is in its own words, or in its checkpoints.
async fn at_work(subject: &Subject<'_>, owner: &ExecutorRow) -> Result<Explanation, Problem> {
    if let Some(since) = owner.unresponsive_since {
        let text =
            "its executor is connected but lets requests time out; it may be overloaded or stuck";
        return Ok(
            Explanation::new(ExplanationCode::ExecutorUnresponsive, text).since(Some(since)),
        );
    }
    if owner.language.as_deref() == Some("rust")
        && let Some(waiting) = ask(subject, owner).await
    {
        return Ok(in_its_words(waiting));
    }
    let message = ListSteps {
        workflow_id: subject.record.workflow_uuid.clone(),
        load_output: !subject.app.private_mode,
        limit: None,
        offset: None,
    };
    let answer = forward::read(&subject.state.hub, subject.app, &message).await?;
    let mut steps = answer.output.unwrap_or_default();
    steps.sort_by_key(|step| step.function_id);
    let python = owner.language.as_deref() == Some("python");
    if let Some(explanation) = timed_wait(&steps, python, subject.now) {
        return Ok(explanation);
    }
    Ok(after_last_step(subject, &steps).await)
}

/// What the executor itself says; nothing if it cannot be asked from here.
async fn ask(subject: &Subject<'_>, owner: &ExecutorRow) -> Option<WaitingOn> {
    let message = SegnoExplain {
        workflow_id: subject.record.workflow_uuid.clone(),
    };
    let target = Target::Executor {
        id: owner.key.executor_id.clone(),
        version: owner.key.version.clone(),
    };
    let hub = &subject.state.hub;
    let answer = hub
        .request(subject.app, target, &message, Class::Read)
        .await;
    answer.ok()?.waiting_on
}

fn in_its_words(waiting: WaitingOn) -> Explanation {
    let code = match waiting.kind.as_str() {
        "step" => ExplanationCode::RunningStep,
        "retry" => ExplanationCode::RetryingStep,
        "sleep" => ExplanationCode::Sleeping,
        "message" => ExplanationCode::WaitingForMessage,
        "event" => ExplanationCode::WaitingForEvent,
        "workflow" => ExplanationCode::WaitingForWorkflow,
        "database" => ExplanationCode::WaitingForDatabase,
        _ => ExplanationCode::Running,
    };
    Explanation::new(code, waiting.text)
        .since(waiting.since)
        .until(waiting.until)
        .detail("step", waiting.step)
        .detail("attempt", waiting.attempt)
        .detail("maxAttempts", waiting.max_attempts)
}

/// A sleep whose end is recorded and not reached. A wait for a message or an event takes two positions
/// and records only the second, its time-out, before it returns: then the position before is free.
fn timed_wait(steps: &[StepRecord], python: bool, now: i64) -> Option<Explanation> {
    let last = steps.last()?;
    if last.function_name.as_deref() != Some("DBOS.sleep") {
        return None;
    }
    let until = wake_up(last.output.as_deref()?)?;
    if until <= now {
        return None;
    }
    let first = i64::from(python);
    let before = last.function_id - 1;
    let free = before >= first && steps.iter().all(|step| step.function_id != before);
    let (code, text) = if free {
        (
            ExplanationCode::WaitingUntil,
            "it waits for a message or an event, at most until a given time",
        )
    } else {
        (ExplanationCode::Sleeping, "it sleeps until a given time")
    };
    let explanation = Explanation::new(code, text)
        .since(last.started_at_epoch_ms.or(last.completed_at_epoch_ms))
        .until(Some(until));
    Some(explanation.detail("step", if free { before } else { last.function_id }))
}

/// The end of a sleep as SDKs record it, epoch milliseconds: Python in seconds, the others in
/// milliseconds.
fn wake_up(output: &str) -> Option<i64> {
    /// No clock shows so many seconds, and every one shows so many milliseconds.
    const SECONDS_BELOW: f64 = 1e11;
    let number: f64 = output.trim().trim_matches('"').parse().ok()?;
    let ms = if number < SECONDS_BELOW {
        number * 1000.0
    } else {
        number
    };
    ms.is_finite().then_some(ms as i64)
}

/// It runs since its last checkpoint. A child that it started last and that is still active is named:
/// it may be waited for.
async fn after_last_step(subject: &Subject<'_>, steps: &[StepRecord]) -> Explanation {
    let record = subject.record;
    let Some(last) = steps.last() else {
        let text = "it runs and has not finished a step yet; a step is recorded when it ends";
        return Explanation::new(ExplanationCode::Running, text)
            .since(record.dequeued_at.or(record.updated_at));
    };
    let name = last.function_name.as_deref().unwrap_or("unnamed");
    let text = format!(
        "it runs since its step {} ({name}) ended; the next step is recorded when it ends",
        last.function_id
    );
    let running = Explanation::new(ExplanationCode::Running, text)
        .since(last.completed_at_epoch_ms)
        .detail("lastStep", last.function_id)
        .detail("lastStepName", name);
    let Some(child) = &last.child_workflow_id else {
        return running;
    };
    let message = GetWorkflow {
        workflow_id: child.clone(),
        load_input: false,
        load_output: false,
    };
    let found = forward::read(&subject.state.hub, subject.app, &message).await;
    let status = found.ok().and_then(|answer| answer.output?.status);
    running
        .detail("childWorkflowId", child.clone())
        .detail("childStatus", status)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(explain_workflow))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_767_323_045_000;

    fn step(function_id: i64, name: &str, output: &str) -> StepRecord {
        StepRecord {
            function_id,
            function_name: Some(name.to_owned()),
            output: Some(output.to_owned()),
            ..StepRecord::default()
        }
    }

    #[test]
    fn a_sleep_and_a_wait_with_a_time_out_are_told_apart() {
        let code = |steps: &[StepRecord], python| timed_wait(steps, python, NOW).map(|it| it.code);
        let sleep = |id| step(id, "DBOS.sleep", "1767323050.5");
        assert_eq!(
            code(&[sleep(1)], true),
            Some(ExplanationCode::Sleeping),
            "Python's first"
        );
        assert_eq!(code(&[sleep(2)], true), Some(ExplanationCode::WaitingUntil));
        assert_eq!(
            code(&[sleep(0)], false),
            Some(ExplanationCode::Sleeping),
            "others' first"
        );
        assert_eq!(
            code(&[sleep(1)], false),
            Some(ExplanationCode::WaitingUntil)
        );
        let charge = step(1, "charge", "1");
        assert_eq!(
            code(&[charge.clone(), sleep(2)], true),
            Some(ExplanationCode::Sleeping)
        );
        assert_eq!(
            code(&[sleep(1), step(2, "charge", "1")], true),
            None,
            "it went on"
        );
        assert_eq!(
            code(&[step(1, "DBOS.sleep", "1767323040")], true),
            None,
            "it is over"
        );
    }

    #[test]
    fn the_end_of_a_sleep_reads_in_every_sdk_s_unit() {
        assert_eq!(wake_up("1767323050.5"), Some(1_767_323_050_500));
        assert_eq!(wake_up("1767323050500"), Some(1_767_323_050_500));
        assert_eq!(wake_up("\"1767323050500\""), Some(1_767_323_050_500));
        assert_eq!(wake_up("soon"), None);
        assert_eq!(wake_up("NaN"), None);
    }
}
