//! Many workflows at once, and what changes one as a whole: rewind, export, import.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{
    BulkFork, Cancel, Delete, ExportWorkflow, Fork, ForkFromFailure, ForkPoint, ForkWorkflow,
    GetWorkflow, ImportWorkflow, Resume, Rewind, RewindWorkflow,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Object, Path, Query};
use super::forward;
use super::path::{AppPath, WorkflowPath};
use super::problem::Problem;
use super::workflows::{no_workflow, refuse_foreign, resume};
use crate::auth::Caller;
use crate::hub::{Class, Target};
use crate::state::AppState;

/// An export carries a whole history in one message.
const TRANSFER: Duration = Duration::from_secs(120);

/// Which workflows to cancel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkCancelInputBody {
    /// Whether to cancel their descendants too
    pub cancel_children: Option<bool>,
    /// Their ids
    pub workflow_ids: Vec<String>,
}

/// Which workflows to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkDeleteInputBody {
    /// Whether to delete their descendants too
    pub delete_children: Option<bool>,
    /// Their ids
    pub workflow_ids: Vec<String>,
}

/// Which workflows to resume.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkResumeInputBody {
    /// The queue to put them on; absent: the internal one
    pub queue_name: Option<String>,
    /// Their ids
    pub workflow_ids: Vec<String>,
}

/// Which workflows to fork, and from where: one of the four, or none for the last failure.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkForkFromFailureBody {
    /// Version of the forks. Absent: the latest for Python, the originals' for other SDKs
    pub app_version: Option<String>,
    /// From the last step with an error
    pub from_last_failure: Option<bool>,
    /// From the last step
    pub from_last_step: Option<bool>,
    /// From this step
    #[schema(minimum = 0, maximum = 1073741823)]
    pub from_step: Option<i32>,
    /// From the last step of this name
    pub from_step_name: Option<String>,
    /// Queue of the forks; absent: the internal one
    pub queue_name: Option<String>,
    /// Partition of that queue
    pub queue_partition_key: Option<String>,
    /// Ids of the originals
    pub workflow_ids: Vec<String>,
}

impl BulkForkFromFailureBody {
    fn point(&self) -> Result<ForkPoint, Problem> {
        let points = [
            (self.from_last_failure == Some(true)).then_some(ForkPoint::LastFailure),
            (self.from_last_step == Some(true)).then_some(ForkPoint::LastStep),
            self.from_step.map(|step| ForkPoint::Step(step.into())),
            self.from_step_name.clone().map(ForkPoint::StepName),
        ];
        let mut points = points.into_iter().flatten();
        match (points.next(), points.next()) {
            (None, _) => Ok(ForkPoint::LastFailure),
            (Some(point), None) => Ok(point),
            (Some(_), Some(_)) => Err(Problem::bad_request(
                "give only one of fromLastFailure, fromLastStep, fromStep, fromStepName",
            )),
        }
    }
}

/// The forks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkForkFromFailureOutputBody {
    /// Their ids, in the order of the request
    pub workflow_ids: Vec<String>,
}

/// Where to rewind to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewindWorkflowInputBody {
    /// Version to bind it to; absent: unchanged
    pub app_version: Option<String>,
    /// Queue to put it on; absent: the internal one
    pub queue_name: Option<String>,
    /// Partition of that queue
    pub queue_partition_key: Option<String>,
    /// The first step to run again; absent: from the beginning
    #[schema(minimum = 0, maximum = 1073741823)]
    pub start_step: Option<i32>,
}

/// What to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Whether to take its descendants along
    pub export_children: Option<bool>,
}

/// An exported workflow.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportWorkflowOutputBody {
    /// A blob that an application of the same language can import
    pub serialized_workflow: String,
}

/// An exported workflow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportWorkflowInputBody {
    /// What an application of the same language exported
    pub serialized_workflow: String,
}

/// Cancel workflows
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/bulk-cancel", operation_id = "bulkCancelWorkflows",
    tag = "Workflows", params(AppPath), request_body = BulkCancelInputBody,
    responses((status = 204, description = "Cancelled, or they had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.bulk_cancel"))))]
async fn bulk_cancel(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<BulkCancelInputBody>,
) -> Result<StatusCode, Problem> {
    audit.detail("workflow_ids", body.workflow_ids.clone());
    refuse_foreign(&state, &caller, &app, &body.workflow_ids).await?;
    if let Some(message) = Cancel::new(body.workflow_ids, body.cancel_children.unwrap_or(false)) {
        forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Delete workflows
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/bulk-delete", operation_id = "bulkDeleteWorkflows",
    tag = "Workflows", params(AppPath), request_body = BulkDeleteInputBody,
    responses((status = 204, description = "Deleted, or there were none")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.bulk_delete"))))]
async fn bulk_delete(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<BulkDeleteInputBody>,
) -> Result<StatusCode, Problem> {
    audit.detail("workflow_ids", body.workflow_ids.clone());
    refuse_foreign(&state, &caller, &app, &body.workflow_ids).await?;
    if let Some(message) = Delete::new(body.workflow_ids, body.delete_children.unwrap_or(false)) {
        forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Resume workflows on an executor of the latest version
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/bulk-resume", operation_id = "bulkResumeWorkflows",
    tag = "Workflows", params(AppPath), request_body = BulkResumeInputBody,
    responses((status = 204, description = "Resumed, or they had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.bulk_resume"))))]
async fn bulk_resume(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<BulkResumeInputBody>,
) -> Result<StatusCode, Problem> {
    audit.detail("workflow_ids", body.workflow_ids.clone());
    refuse_foreign(&state, &caller, &app, &body.workflow_ids).await?;
    match Resume::new(body.workflow_ids, body.queue_name) {
        Some(message) => resume(&state, &app, &message).await,
        None => Ok(StatusCode::NO_CONTENT),
    }
}

/// Fork workflows, each from a place in its own history
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/bulk-fork-from-failure",
    operation_id = "bulkForkWorkflowsFromFailure", tag = "Workflows", params(AppPath),
    request_body = BulkForkFromFailureBody,
    responses((status = 200, description = "OK", body = BulkForkFromFailureOutputBody)),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.fork_from_failure"))))]
async fn bulk_fork(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<BulkForkFromFailureBody>,
) -> Result<Object<BulkForkFromFailureOutputBody>, Problem> {
    audit.detail("workflow_ids", body.workflow_ids.clone());
    let point = body.point()?;
    if body.workflow_ids.is_empty() {
        return Ok(Object(BulkForkFromFailureOutputBody {
            workflow_ids: Vec::new(),
        }));
    }
    refuse_foreign(&state, &caller, &app, &body.workflow_ids).await?;
    let mut fork = BulkFork::new(body.workflow_ids, point);
    fork.application_version = body.app_version;
    fork.queue_name = body.queue_name;
    fork.queue_partition_key = body.queue_partition_key;
    let answer = forward::write(&state.hub, &app, &ForkFromFailure { body: fork }, false).await?;
    let workflow_ids = answer
        .forked_workflow_ids
        .ok_or_else(|| forward::bad_gateway("the executor did not tell the ids of the forks"))?;
    Ok(Object(BulkForkFromFailureOutputBody { workflow_ids }))
}

/// Run an ended workflow again in place, from a step on
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/rewind", operation_id = "rewindWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath), request_body = Option<RewindWorkflowInputBody>,
    responses((status = 204, description = "Rewound")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.rewind"))))]
async fn rewind_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Body(body): Body<RewindWorkflowInputBody>,
) -> Result<StatusCode, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let rewind = Rewind {
        workflow_id: path.workflow_id,
        start_step: body.start_step.map(i64::from),
        application_version: body.app_version,
        queue_name: body.queue_name,
        queue_partition_key: body.queue_partition_key,
    };
    forward::succeeded(
        forward::write(&state.hub, &app, &RewindWorkflow { body: rewind }, false).await?,
    )?;
    Ok(StatusCode::NO_CONTENT)
}

/// Export a workflow with its history
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/export", operation_id = "exportWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath, ExportQuery),
    responses((status = 200, description = "OK", body = ExportWorkflowOutputBody)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn export_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Query(query): Query<ExportQuery>,
) -> Result<Object<ExportWorkflowOutputBody>, Problem> {
    if app.private_mode {
        return Err(Problem::forbidden(format!(
            "`{}` is in private mode: its payloads do not leave its executors",
            app.name
        )));
    }
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    // Java exports what is not there, too: as something that it then fails to import.
    let there = GetWorkflow {
        workflow_id: path.workflow_id.clone(),
        load_input: false,
        load_output: false,
    };
    let found = forward::read(&state.hub, &app, &there).await?.output;
    found.ok_or_else(|| no_workflow(&path.workflow_id))?;
    let message = ExportWorkflow {
        workflow_id: path.workflow_id,
        export_children: query.export_children.unwrap_or(false),
    };
    let class = Class::Background(TRANSFER);
    let answer = forward::send(&state.hub, &app, Target::AnyHealthy, &message, class).await?;
    let serialized_workflow = answer
        .serialized_workflow
        .ok_or_else(|| no_workflow(&message.workflow_id))?;
    Ok(Object(ExportWorkflowOutputBody {
        serialized_workflow,
    }))
}

/// Import a workflow that an application of the same language exported
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/import", operation_id = "importWorkflow",
    tag = "Workflows", params(AppPath), request_body = ImportWorkflowInputBody,
    responses((status = 201, description = "Imported")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.import")),
        ("x-segno-body-limit" = json!(100 * 1024 * 1024))))]
async fn import_workflow(
    State(state): State<AppState>,
    App(app): App,
    Body(body): Body<ImportWorkflowInputBody>,
) -> Result<StatusCode, Problem> {
    let message = ImportWorkflow {
        serialized_workflow: body.serialized_workflow,
    };
    let class = Class::Background(TRANSFER);
    let answer = forward::send(&state.hub, &app, Target::AnyHealthy, &message, class).await;
    // Whatever an executor cannot decode is the caller's fault here, in whichever words it says so.
    let answer = answer.map_err(|problem| match problem.status() {
        StatusCode::BAD_GATEWAY if decoding(problem.detail()) => {
            Problem::bad_request(problem.detail())
        }
        _ => problem,
    })?;
    forward::succeeded(answer)?;
    Ok(StatusCode::CREATED)
}

/// Whether an executor's words tell of a blob that does not decode.
fn decoding(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    const WORDS: [&str; 11] = [
        "decod",
        "deserial",
        "unpickl",
        "pickle",
        "base64",
        "padding",
        "gzip",
        "json",
        "incorrect header",
        "unmarshal",
        "unexpected",
    ];
    WORDS.iter().any(|word| detail.contains(word))
}

/// What old clients call instead of fork: from the first step, with the version of the source. Not in
/// the document any more.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/restart", operation_id = "restartWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 204, description = "Restarted as a fork")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.restart")),
        ("x-segno-unlisted" = json!(true))))]
async fn restart_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<StatusCode, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let source = GetWorkflow {
        workflow_id: path.workflow_id,
        load_input: false,
        load_output: false,
    };
    let record = forward::read(&state.hub, &app, &source).await?.output;
    let record = record.ok_or_else(|| no_workflow(&source.workflow_id))?;
    let fork = Fork {
        workflow_id: source.workflow_id,
        start_step: 1,
        application_version: record.application_version,
        ..Fork::default()
    };
    forward::write(&state.hub, &app, &ForkWorkflow { body: fork }, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(bulk_cancel))
        .routes(routes!(bulk_delete))
        .routes(routes!(bulk_resume))
        .routes(routes!(bulk_fork))
        .routes(routes!(rewind_workflow))
        .routes(routes!(export_workflow))
        .routes(routes!(import_workflow))
        .routes(routes!(restart_workflow))
}
