//! Workflows: find them, read one, cancel, resume, fork, delete.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{
    Cancel, Delete, Fork, ForkWorkflow, GetWorkflow, ListWorkflows, Resume, WorkflowFilter,
    WorkflowRecord,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Body, Created, Object, Path, Query};
use super::filter::WorkflowSearchBody;
use super::forward;
use super::idempotency;
use super::path::{AppPath, WorkflowPath};
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::{AppScope, Caller};
use crate::hub::{Class, Target};
use crate::state::AppState;
use crate::store::apps::AppRow;

/// A workflow. Values are shown as its SDK renders them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workflow {
    /// The application that owns it
    #[schema(required = true)]
    pub application_name: Option<String>,
    /// Code version it is bound to
    #[schema(required = true)]
    pub app_version: Option<String>,
    /// Role it runs in
    #[schema(required = true)]
    pub assumed_role: Option<String>,
    /// Its attributes, JSON text
    #[schema(required = true)]
    pub attributes: Option<String>,
    /// When it ended
    #[schema(required = true)]
    pub completed_at: Option<Timestamp>,
    /// When it was created
    pub created_at: Timestamp,
    /// When it must have ended
    #[schema(required = true)]
    pub deadline: Option<Timestamp>,
    /// What no second active workflow of the queue may have
    #[schema(required = true)]
    pub deduplication_id: Option<String>,
    /// When its delay ends
    #[schema(required = true)]
    pub delay_until: Option<Timestamp>,
    /// When it was taken from its queue
    #[schema(required = true)]
    pub dequeued_at: Option<Timestamp>,
    /// Its error, if loaded
    #[schema(required = true)]
    pub error: Option<String>,
    /// Who runs or ran it
    #[schema(required = true)]
    pub executor_id: Option<String>,
    /// The workflow it is a fork of
    #[schema(required = true)]
    pub forked_from: Option<String>,
    /// Its input, if loaded
    #[schema(required = true)]
    pub input: Option<String>,
    /// Its output, if loaded
    #[schema(required = true)]
    pub output: Option<String>,
    /// The workflow that started it
    #[schema(required = true)]
    pub parent_workflow_id: Option<String>,
    /// Place in the queue, lower first
    pub priority: i32,
    /// Its queue
    #[schema(required = true)]
    pub queue_name: Option<String>,
    /// Partition of the queue
    #[schema(required = true)]
    pub queue_partition_key: Option<String>,
    /// The user's roles
    #[schema(required = true)]
    pub roles: Option<String>,
    /// The schedule that started it
    #[schema(required = true)]
    pub schedule_name: Option<String>,
    /// ENQUEUED, DELAYED, PENDING, SUCCESS, ERROR, CANCELLED, MAX_RECOVERY_ATTEMPTS_EXCEEDED
    pub status: String,
    /// How long it may run
    #[schema(required = true)]
    pub timeout_ms: Option<i64>,
    /// When it last changed
    pub updated_at: Timestamp,
    /// The user it runs for
    #[schema(required = true)]
    pub user: Option<String>,
    /// Whether others were forked from it
    pub was_forked_from: bool,
    /// Class it is a method of
    #[schema(required = true)]
    pub workflow_class: Option<String>,
    /// Configured instance it runs on
    #[schema(required = true)]
    pub workflow_config: Option<String>,
    /// Its id
    pub workflow_id: String,
    /// Its registered name
    #[schema(required = true)]
    pub workflow_name: Option<String>,
}

impl From<WorkflowRecord> for Workflow {
    fn from(record: WorkflowRecord) -> Self {
        let time = |ms: Option<i64>| ms.map(Timestamp::from_ms);
        let created = record.created_at.or(record.updated_at).unwrap_or(0);
        Self {
            application_name: record.application_name,
            app_version: record.application_version,
            assumed_role: record.assumed_role,
            attributes: record.attributes,
            completed_at: time(record.completed_at),
            created_at: Timestamp::from_ms(created),
            deadline: time(record.workflow_deadline_epoch_ms),
            deduplication_id: record.deduplication_id,
            delay_until: time(record.delay_until_epoch_ms),
            dequeued_at: time(record.dequeued_at),
            error: record.error,
            executor_id: record.executor_id,
            forked_from: record.forked_from,
            input: record.input,
            output: record.output,
            parent_workflow_id: record.parent_workflow_id,
            priority: record
                .priority
                .map_or(0, |n| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32),
            queue_name: record.queue_name,
            queue_partition_key: record.queue_partition_key,
            roles: record.authenticated_roles,
            schedule_name: record.schedule_name,
            status: record.status.unwrap_or_else(|| "UNKNOWN".to_owned()),
            timeout_ms: record.workflow_timeout_ms,
            updated_at: Timestamp::from_ms(record.updated_at.unwrap_or(created)),
            user: record.authenticated_user,
            was_forked_from: record.was_forked_from,
            workflow_class: record.workflow_class_name,
            workflow_config: record.workflow_config_name,
            workflow_id: record.workflow_uuid,
            workflow_name: record.workflow_name,
        }
    }
}

/// Filters of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Status
    pub status: Option<String>,
    /// Name
    pub workflow_name: Option<String>,
    /// At most so many; absent: all
    #[param(minimum = 0)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
    /// Newest first
    pub sort_desc: Option<bool>,
    /// Whether to load inputs
    pub load_input: Option<bool>,
    /// Whether to load outputs and errors
    pub load_output: Option<bool>,
}

/// How to cancel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelWorkflowInputBody {
    /// Whether to cancel its descendants too
    pub cancel_children: Option<bool>,
}

/// How to resume.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeWorkflowInputBody {
    /// The queue to put it on; absent: the internal one
    pub queue_name: Option<String>,
}

/// Where to fork from and to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkWorkflowInputBody {
    /// Version of the fork. Absent: the latest for Python, the original's for other SDKs
    pub app_version: Option<String>,
    /// Id of the fork; absent: a new one
    pub new_workflow_id: Option<String>,
    /// Queue of the fork; absent: the internal one
    pub queue_name: Option<String>,
    /// Partition of that queue
    pub queue_partition_key: Option<String>,
    /// The first step to run again; absent or 0: from the beginning
    #[schema(minimum = 0, maximum = 1073741823)]
    pub start_step: Option<i32>,
}

/// The fork.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkWorkflowOutputBody {
    /// Its id
    pub workflow_id: String,
}

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Whether to delete its descendants too
    pub delete_children: Option<bool>,
}

/// List workflows
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows", operation_id = "listWorkflows",
    tag = "Workflows", params(AppPath, ListQuery),
    responses((status = 200, description = "OK", body = [Workflow])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_workflows(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Workflow>>, Problem> {
    let body = WorkflowSearchBody {
        status: query.status.map(|status| vec![status]),
        workflow_name: query.workflow_name.map(|name| vec![name]),
        limit: query.limit,
        offset: query.offset,
        sort_desc: query.sort_desc,
        load_input: query.load_input,
        load_output: query.load_output,
        ..WorkflowSearchBody::default()
    };
    search(&state, &app, body).await
}

/// Search workflows
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/search", operation_id = "searchWorkflows",
    tag = "Workflows", params(AppPath), request_body = Option<WorkflowSearchBody>,
    responses((status = 200, description = "OK", body = [Workflow])),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-audit" = json!("read"))))]
async fn search_workflows(
    State(state): State<AppState>,
    App(app): App,
    Body(body): Body<WorkflowSearchBody>,
) -> Result<Json<Vec<Workflow>>, Problem> {
    search(&state, &app, body).await
}

async fn search(
    state: &AppState,
    app: &AppRow,
    body: WorkflowSearchBody,
) -> Result<Json<Vec<Workflow>>, Problem> {
    let Some(body) = body.wire(app) else {
        return Ok(Json(Vec::new()));
    };
    let found = forward::read(&state.hub, app, &ListWorkflows { body }).await?;
    Ok(Json(found.output.into_iter().map(Workflow::from).collect()))
}

/// Get a workflow with its input and output
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}", operation_id = "getWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK", body = Workflow)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Object<Workflow>, Problem> {
    let message = GetWorkflow {
        workflow_id: path.workflow_id.clone(),
        load_input: !app.private_mode,
        load_output: !app.private_mode,
    };
    let found = forward::read(&state.hub, &app, &message).await?.output;
    let found = found.filter(|record| caller.scope == AppScope::All || is_own(&app, record));
    let record = found.ok_or_else(|| no_workflow(&path.workflow_id))?;
    Ok(Object(record.into()))
}

/// Delete a workflow and everything it recorded
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}", operation_id = "deleteWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath, DeleteQuery),
    responses((status = 204, description = "Deleted, or there was none")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.delete"))))]
async fn delete_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = Delete {
        workflow_id: path.workflow_id,
        workflow_ids: Vec::new(),
        delete_children: query.delete_children.unwrap_or(false),
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Cancel a workflow
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/cancel", operation_id = "cancelWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath), request_body = Option<CancelWorkflowInputBody>,
    responses((status = 204, description = "Cancelled, or it had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.cancel"))))]
async fn cancel_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Body(body): Body<CancelWorkflowInputBody>,
) -> Result<StatusCode, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = Cancel {
        workflow_id: path.workflow_id,
        workflow_ids: Vec::new(),
        cancel_children: body.cancel_children.unwrap_or(false),
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resume a workflow on an executor of the latest version
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/resume", operation_id = "resumeWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath), request_body = Option<ResumeWorkflowInputBody>,
    responses((status = 204, description = "Resumed, or it had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.resume"))))]
async fn resume_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Body(body): Body<ResumeWorkflowInputBody>,
) -> Result<StatusCode, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = Resume {
        workflow_id: path.workflow_id,
        workflow_ids: Vec::new(),
        queue_name: body.queue_name,
    };
    resume(&state, &app, &message).await
}

/// Resumes on an executor of the latest version: the workflow is enqueued, and another version must
/// not take it.
pub(super) async fn resume(
    state: &AppState,
    app: &AppRow,
    message: &Resume,
) -> Result<StatusCode, Problem> {
    let class = Class::Mutation { idempotent: false };
    forward::succeeded(
        forward::send(&state.hub, app, Target::LatestVersion, message, class).await?,
    )?;
    Ok(StatusCode::NO_CONTENT)
}

/// Fork a workflow from one of its steps
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/fork", operation_id = "forkWorkflow",
    tag = "Workflows", params(AppPath, WorkflowPath), request_body = Option<ForkWorkflowInputBody>,
    responses((status = 201, description = "Forked", body = ForkWorkflowOutputBody,
        headers(("Location" = String, description = "Path of the fork")))),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.fork"))))]
async fn fork_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Body(body): Body<ForkWorkflowInputBody>,
) -> Result<Created<ForkWorkflowOutputBody>, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    // An id of our own, so that a repeat of this request finds the fork instead of making another.
    let own_id = match body.new_workflow_id {
        None => idempotency::id_of_what_is_made().map(|id| id.to_string()),
        Some(_) => None,
    };
    let fork = Fork {
        workflow_id: path.workflow_id,
        start_step: body
            .start_step
            .and_then(|step| u32::try_from(step).ok())
            .unwrap_or(0),
        application_version: body.app_version,
        new_workflow_id: body.new_workflow_id.or_else(|| own_id.clone()),
        queue_name: body.queue_name,
        queue_partition_key: body.queue_partition_key,
    };
    let idempotent = fork.new_workflow_id.is_some();
    let forked = forward::write(&state.hub, &app, &ForkWorkflow { body: fork }, idempotent).await;
    let told = match (forked, own_id) {
        // Nobody else has that id: it is the fork that was asked for before.
        (Err(problem), Some(id)) if problem.status() == StatusCode::CONFLICT => Some(id),
        (forked, _) => forked?.new_workflow_id,
    };
    let workflow_id =
        told.ok_or_else(|| forward::bad_gateway("the executor did not tell the id of the fork"))?;
    Ok(Created {
        location: location(&caller, &app, &workflow_id),
        object: ForkWorkflowOutputBody { workflow_id },
    })
}

/// The path of a workflow, as segments.
pub(super) fn location(caller: &Caller, app: &AppRow, workflow_id: &str) -> Vec<String> {
    [
        "v2",
        "orgs",
        &caller.org.name,
        "apps",
        &app.name,
        "workflows",
        workflow_id,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// 404 for an id that the application does not have.
pub(super) fn no_workflow(id: &str) -> Problem {
    Problem::not_found(format!("there is no workflow `{id}`"))
}

pub(super) fn is_own(app: &AppRow, record: &WorkflowRecord) -> bool {
    record
        .application_name
        .as_ref()
        .is_none_or(|owner| *owner == app.name)
}

/// Ids name rows whoever owns them. Where applications share a database, a key that covers only some
/// of them must not reach the others' workflows by id.
pub(super) async fn refuse_foreign(
    state: &AppState,
    caller: &Caller,
    app: &AppRow,
    ids: &[String],
) -> Result<(), Problem> {
    if caller.scope == AppScope::All || ids.is_empty() {
        return Ok(());
    }
    let body = WorkflowFilter {
        workflow_uuids: ids.to_vec(),
        ..WorkflowFilter::default()
    };
    let found = forward::read(&state.hub, app, &ListWorkflows { body }).await?;
    match found.output.iter().find(|record| !is_own(app, record)) {
        Some(foreign) => Err(no_workflow(&foreign.workflow_uuid)),
        None => Ok(()),
    }
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_workflows))
        .routes(routes!(search_workflows))
        .routes(routes!(get_workflow, delete_workflow))
        .routes(routes!(cancel_workflow))
        .routes(routes!(resume_workflow))
        .routes(routes!(fork_workflow))
}
