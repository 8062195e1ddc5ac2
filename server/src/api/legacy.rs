//! The routes `v1alpha1`, for tools that were written before the present API. They are in no document,
//! speak snake_case, and hand workflows over as executors write them; who may call them and what the
//! audit log says is as with their successors.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{
    Cancel, Fork, ForkWorkflow, GetWorkflow, ListSteps, ListWorkflows, Resume, StepRecord,
    WorkflowRecord,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Body, Path, Query};
use super::filter::WorkflowSearchBody;
use super::forward;
use super::path::{AppPath, OrgPath, WorkflowPath};
use super::problem::Problem;
use super::time::Timestamp;
use super::workflows::{is_own, no_workflow, refuse_foreign, resume};
use crate::auth::{AppScope, Caller};
use crate::state::AppState;
use crate::store::audit::{AuditFilter, AuditRow};

/// Which entries of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Then or later
    #[param(value_type = Option<String>, format = DateTime)]
    start: Option<Timestamp>,
    /// Earlier than
    #[param(value_type = Option<String>, format = DateTime)]
    end: Option<Timestamp>,
    /// Exactly this operation
    operation: Option<String>,
    /// Id or display of who did it
    subject: Option<String>,
    /// Id of what it was done to
    target: Option<String>,
    /// At most so many; absent: 100
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    offset: Option<i64>,
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    emit_time: Timestamp,
    operation: String,
    status: String,
    subject: Subject,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    source_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Map<String, Value>>,
}

#[derive(Serialize)]
struct Subject {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    display: String,
}

#[derive(Serialize)]
struct Target {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

impl From<AuditRow> for Entry {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            emit_time: Timestamp::from_ms(row.emit_time),
            operation: row.operation,
            status: row.status,
            subject: Subject {
                kind: row.subject_type,
                id: row.subject_id,
                display: row.subject_display,
            },
            target: row.target.map(|(kind, id)| Target { kind, id }),
            source_ip: row.source_ip,
            details: row.details.filter(|details| !details.is_empty()),
        }
    }
}

/// The audit log
#[utoipa::path(get, path = "/v1alpha1/api/{orgName}/audit-logs", operation_id = "legacyListAuditLogs",
    tag = "Legacy", params(OrgPath, AuditQuery), responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-with-keys" = json!(true)), ("x-segno-unlisted" = json!(true))))]
async fn audit_logs(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Entries>, Problem> {
    let filter = AuditFilter {
        start: query.start.map(|time| time.lower_bound().0),
        end: query.end.map(|time| time.lower_bound().0),
        operation: query.operation,
        subject: query.subject,
        target: query.target,
        limit: query.page_size.unwrap_or(100),
        offset: query.offset.unwrap_or(0),
    };
    let rows = state.store.audit_entries(&caller.org.id, &filter).await?;
    let entries = rows.into_iter().map(Entry::from).collect();
    Ok(Json(Entries { entries }))
}

#[derive(Serialize)]
struct Application {
    application_id: String,
    application_name: String,
    org_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gc_time_threshold_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gc_rows_threshold: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global_timeout_ms: Option<i64>,
    executor_timeout_secs: i64,
}

/// Applications
#[utoipa::path(get, path = "/v1alpha1/api/{orgName}/applications", operation_id = "legacyListApplications",
    tag = "Legacy", params(OrgPath), responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-unlisted" = json!(true))))]
async fn applications(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<Application>>, Problem> {
    let mut apps = state.store.apps(&caller.org.id).await?;
    apps.retain(|app| caller.scope.covers(&app.id));
    let mut available = Vec::new();
    for app in &apps {
        available.push(state.hub.has_anybody(&app.id).await);
    }
    let shown = apps
        .into_iter()
        .zip(available)
        .map(|(app, available)| Application {
            status: match available {
                true => "AVAILABLE",
                false => "UNAVAILABLE",
            },
            application_id: app.id,
            application_name: app.name,
            org_id: app.org_id,
            language: app.language,
            gc_time_threshold_ms: app.gc_time_threshold_ms,
            gc_rows_threshold: app.gc_rows_threshold,
            global_timeout_ms: app.global_timeout_ms,
            executor_timeout_secs: app.executor_timeout_secs,
        });
    Ok(Json(shown.collect()))
}

/// Which workflows; what is given must hold.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct LegacyWorkflowFilter {
    /// Ids
    workflow_uuids: Option<Vec<String>>,
    /// Name
    workflow_name: Option<String>,
    /// User
    authenticated_user: Option<String>,
    /// Created then or later
    start_time: Option<Timestamp>,
    /// Created then or earlier
    end_time: Option<Timestamp>,
    /// Status
    status: Option<String>,
    /// Version
    application_version: Option<String>,
    /// Original
    forked_from: Option<String>,
    /// Queue
    queue_name: Option<String>,
    /// At most so many
    #[schema(minimum = 0)]
    limit: Option<i64>,
    /// Leave out so many first
    #[schema(minimum = 0)]
    offset: Option<i64>,
    /// Newest first
    sort_desc: Option<bool>,
    /// Beginning of ids
    workflow_id_prefix: Option<String>,
    /// Whether to load inputs
    load_input: Option<bool>,
    /// Whether to load outputs and errors
    load_output: Option<bool>,
    /// Executor
    executor_id: Option<String>,
    /// Only those on a queue
    queues_only: Option<bool>,
}

impl From<LegacyWorkflowFilter> for WorkflowSearchBody {
    fn from(filter: LegacyWorkflowFilter) -> Self {
        let one =
            |value: Option<String>| value.filter(|text| !text.is_empty()).map(|text| vec![text]);
        Self {
            workflow_ids: filter.workflow_uuids,
            workflow_name: one(filter.workflow_name),
            user: one(filter.authenticated_user),
            start_time: filter.start_time,
            end_time: filter.end_time,
            status: one(filter.status),
            app_version: one(filter.application_version),
            forked_from: one(filter.forked_from),
            queue_name: one(filter.queue_name),
            limit: filter.limit,
            offset: filter.offset,
            sort_desc: filter.sort_desc,
            workflow_id_prefix: one(filter.workflow_id_prefix),
            load_input: filter.load_input,
            load_output: filter.load_output,
            executor_id: one(filter.executor_id),
            queues_only: filter.queues_only,
            ..Self::default()
        }
    }
}

/// Workflows
#[utoipa::path(post, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/",
    operation_id = "legacyListWorkflows", tag = "Legacy", params(AppPath),
    request_body = Option<LegacyWorkflowFilter>, responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-audit" = json!("read")),
        ("x-segno-unlisted" = json!(true))))]
async fn workflows(
    State(state): State<AppState>,
    App(app): App,
    Body(body): Body<LegacyWorkflowFilter>,
) -> Result<Json<Vec<WorkflowRecord>>, Problem> {
    let Some(body) = WorkflowSearchBody::from(body).wire(&app) else {
        return Ok(Json(Vec::new()));
    };
    let found = forward::read(&state.hub, &app, &ListWorkflows { body }).await?;
    Ok(Json(found.output))
}

/// A workflow
#[utoipa::path(get, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/{workflowId}",
    operation_id = "legacyGetWorkflow", tag = "Legacy", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-unlisted" = json!(true))))]
async fn workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Json<WorkflowRecord>, Problem> {
    let message = GetWorkflow {
        workflow_id: path.workflow_id.clone(),
        load_input: !app.private_mode,
        load_output: !app.private_mode,
    };
    let found = forward::read(&state.hub, &app, &message).await?.output;
    let found = found.filter(|record| caller.scope == AppScope::All || is_own(&app, record));
    found
        .map(Json)
        .ok_or_else(|| no_workflow(&path.workflow_id))
}

/// What a workflow did
#[utoipa::path(get, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/{workflowId}/steps",
    operation_id = "legacyListSteps", tag = "Legacy", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-unlisted" = json!(true))))]
async fn steps(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Json<Vec<StepRecord>>, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = ListSteps {
        workflow_id: path.workflow_id,
        load_output: !app.private_mode,
        limit: None,
        offset: None,
    };
    let steps = forward::read(&state.hub, &app, &message).await?.output;
    Ok(Json(steps.unwrap_or_default()))
}

/// Cancel a workflow
#[utoipa::path(post, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/{workflowId}/cancel",
    operation_id = "legacyCancelWorkflow", tag = "Legacy", params(AppPath, WorkflowPath),
    responses((status = 204, description = "Cancelled, or it had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.cancel")),
        ("x-segno-unlisted" = json!(true))))]
async fn cancel_workflow(
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
    let message = Cancel {
        workflow_id: path.workflow_id,
        workflow_ids: Vec::new(),
        cancel_children: false,
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resume a workflow
#[utoipa::path(post, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/{workflowId}/resume",
    operation_id = "legacyResumeWorkflow", tag = "Legacy", params(AppPath, WorkflowPath),
    responses((status = 204, description = "Resumed, or it had ended")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.resume")),
        ("x-segno-unlisted" = json!(true))))]
async fn resume_workflow(
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
    let message = Resume {
        workflow_id: path.workflow_id,
        workflow_ids: Vec::new(),
        queue_name: None,
    };
    resume(&state, &app, &message).await
}

/// Where to fork from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct LegacyForkBody {
    /// The first step to run again
    #[schema(minimum = 0, maximum = 1073741823)]
    start_step: Option<i32>,
    /// Version of the fork
    application_version: Option<String>,
    /// Id of the fork
    new_workflow_id: Option<String>,
}

#[derive(Serialize)]
struct Forked {
    workflow_id: String,
}

/// Fork a workflow
#[utoipa::path(post, path = "/v1alpha1/api/{orgName}/applications/{appName}/workflows/{workflowId}/fork",
    operation_id = "legacyForkWorkflow", tag = "Legacy", params(AppPath, WorkflowPath),
    request_body = Option<LegacyForkBody>, responses((status = 200, description = "Forked")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("workflow.fork")),
        ("x-segno-unlisted" = json!(true))))]
async fn fork_workflow(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Body(body): Body<LegacyForkBody>,
) -> Result<Json<Forked>, Problem> {
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let start_step = body.start_step.and_then(|step| u32::try_from(step).ok());
    let fork = Fork {
        workflow_id: path.workflow_id,
        start_step: start_step.unwrap_or(0),
        application_version: body.application_version,
        new_workflow_id: body.new_workflow_id,
        queue_name: None,
        queue_partition_key: None,
    };
    let idempotent = fork.new_workflow_id.is_some();
    let answer = forward::write(&state.hub, &app, &ForkWorkflow { body: fork }, idempotent).await?;
    let workflow_id = answer
        .new_workflow_id
        .ok_or_else(|| forward::bad_gateway("the executor did not tell the id of the fork"))?;
    Ok(Json(Forked { workflow_id }))
}

#[derive(Serialize)]
struct Executor {
    executor_id: String,
    application_id: String,
    application_version: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dbos_version: Option<String>,
}

/// Executors; times are text of epoch milliseconds
#[utoipa::path(get, path = "/v1alpha1/api/{orgName}/applications/{appName}/executors",
    operation_id = "legacyListExecutors", tag = "Legacy", params(AppPath),
    responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-unlisted" = json!(true))))]
async fn executors(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<Executor>>, Problem> {
    let rows = state.store.executors(&app.id).await?;
    let shown = rows.into_iter().map(|row| Executor {
        executor_id: row.key.executor_id,
        application_id: row.key.app_id,
        application_version: row.key.version,
        status: row.state.to_string(),
        hostname: row.hostname,
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
        language: row.language,
        dbos_version: row.sdk_version,
    });
    Ok(Json(shown.collect()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Profile {
    name: String,
    organization: String,
}

/// Who is calling, and their organization: from it tools make the paths above
#[utoipa::path(get, path = "/v1alpha1/user/profile", operation_id = "legacyGetProfile", tag = "Legacy",
    responses((status = 200, description = "OK")),
    extensions(("x-segno-permission" = json!("any")), ("x-segno-unlisted" = json!(true))))]
async fn profile(caller: Caller) -> Json<Profile> {
    Json(Profile {
        name: caller.subject.display,
        organization: caller.org.name,
    })
}

/// The routes of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(audit_logs))
        .routes(routes!(applications))
        .routes(routes!(workflows))
        .routes(routes!(workflow))
        .routes(routes!(steps))
        .routes(routes!(cancel_workflow))
        .routes(routes!(resume_workflow))
        .routes(routes!(fork_workflow))
        .routes(routes!(executors))
        .routes(routes!(profile))
}
