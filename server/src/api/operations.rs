//! Operations on many workflows: begun here, done in their own time, looked after and stopped here.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::audit::Audit;
use super::extract::{App, Body, Created, Object, Path, Query};
use super::filter::WorkflowSearchBody;
use super::idempotency;
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::operations::{ForkFrom, Options, Selection};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::apps::AppRow;
use crate::store::operations::{NewOperation, OperationKind, OperationRow, OperationState};

/// Workflows of one operation unless the caller says otherwise.
const LIMIT: i64 = 10_000;
/// Operations listed unless the caller says otherwise.
const LISTED: i64 = 100;
/// Errors shown.
const ERRORS: i64 = 10;
/// How long the answer to a dry run waits for its result.
const PREVIEW: Duration = Duration::from_secs(10);

/// What to do to which workflows.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateOperationInputBody {
    /// Whether to select only, and show the count and a sample
    pub dry_run: Option<bool>,
    /// Those that match; not empty, and not together with workflowIds
    pub filter: Option<WorkflowSearchBody>,
    /// What to do
    pub kind: OperationKind,
    /// At most so many workflows [default: 10000]
    #[schema(minimum = 1, maximum = 100000)]
    pub limit: Option<i64>,
    /// How to do it
    pub options: Option<OperationOptions>,
    /// For the record
    #[schema(max_length = 1000)]
    pub reason: Option<String>,
    /// Their ids
    pub workflow_ids: Option<Vec<String>>,
}

/// How to do it; each concerns some kinds only, and is refused with others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationOptions {
    /// fork: version of the forks. Absent: the latest for Python, the originals' for other SDKs
    pub app_version: Option<String>,
    /// cancel: whether to cancel descendants too
    pub cancel_children: Option<bool>,
    /// delete: whether to delete descendants too
    pub delete_children: Option<bool>,
    /// fork: from the last step with an error
    pub from_last_failure: Option<bool>,
    /// fork: from the last step
    pub from_last_step: Option<bool>,
    /// fork: from this step; absent, like the other three: from the beginning
    #[schema(minimum = 0, maximum = 1073741823)]
    pub from_step: Option<i32>,
    /// fork: from the last step of this name
    pub from_step_name: Option<String>,
    /// resume, fork: the queue to put them on; absent: the internal one
    pub queue_name: Option<String>,
    /// fork: partition of that queue
    pub queue_partition_key: Option<String>,
}

/// An operation on many workflows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// When it ended
    #[schema(required = true)]
    pub completed_at: Option<Timestamp>,
    /// How far it is
    pub counts: OperationCounts,
    /// When it was asked for
    pub created_at: Timestamp,
    /// Whether it only selects
    pub dry_run: bool,
    /// Some of the workflows with which it did not work
    pub errors: Vec<OperationError>,
    /// The filter, if there is one
    #[schema(required = true)]
    pub filter: Option<Map<String, Value>>,
    /// Its id
    pub id: String,
    /// What is done
    pub kind: OperationKind,
    /// At most so many workflows
    pub limit: i64,
    /// Why it waits, or failed
    #[schema(required = true)]
    pub message: Option<String>,
    /// Why it was asked for
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Who asked for it
    pub requested_by: String,
    /// Some of the workflows that were selected, as they were then
    pub sample: Vec<OperationSample>,
    /// When it first ran
    #[schema(required = true)]
    pub started_at: Option<Timestamp>,
    /// Where it stands
    pub state: OperationState,
    /// Whether more workflows match than the limit allows
    pub truncated: bool,
}

/// How far an operation is.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationCounts {
    /// It did not work with so many
    pub failed: i64,
    /// So many are left; null until they are selected, or in a dry run
    #[schema(required = true)]
    pub remaining: Option<i64>,
    /// It worked with so many
    pub succeeded: i64,
    /// So many are meant; null until they are selected
    #[schema(required = true)]
    pub total: Option<i64>,
}

/// A workflow with which it did not work.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// What happened
    pub message: String,
    /// Its id
    pub workflow_id: String,
}

/// A workflow that was selected.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSample {
    /// The version it is bound to
    #[schema(required = true)]
    pub app_version: Option<String>,
    /// Its status then
    #[schema(required = true)]
    pub status: Option<String>,
    /// Its id
    pub workflow_id: String,
    /// Its registered name
    #[schema(required = true)]
    pub workflow_name: Option<String>,
}

/// `…/operations/{operationId}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct OperationPath {
    /// Operation id
    pub operation_id: String,
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct OperationsQuery {
    /// Only in this state
    pub state: Option<OperationState>,
    /// At most so many [default: 100]
    #[param(minimum = 0, maximum = 1000)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

impl From<OperationRow> for Operation {
    fn from(row: OperationRow) -> Self {
        let remaining = row.total.map(|total| total - row.succeeded - row.failed);
        let filter = match serde_json::from_str(&row.wanted.selection) {
            Ok(Selection::Filter(filter)) => given(&filter),
            Ok(Selection::Ids(_)) | Err(_) => None,
        };
        let sample = row
            .sample
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        Self {
            completed_at: row.completed_at.map(Timestamp::from_ms),
            counts: OperationCounts {
                failed: row.failed,
                remaining: remaining.filter(|_| !row.wanted.dry_run),
                succeeded: row.succeeded,
                total: row.total,
            },
            created_at: Timestamp::from_ms(row.created_at),
            dry_run: row.wanted.dry_run,
            errors: Vec::new(),
            filter,
            id: row.wanted.id,
            kind: row.wanted.kind,
            limit: row.wanted.limit,
            message: row.message,
            reason: row.wanted.reason,
            requested_by: row.wanted.requested_by,
            sample: sample.unwrap_or_default(),
            started_at: row.started_at.map(Timestamp::from_ms),
            state: row.state,
            truncated: row.truncated,
        }
    }
}

/// The members of a filter that are given.
fn given(filter: &WorkflowSearchBody) -> Option<Map<String, Value>> {
    let Ok(Value::Object(mut members)) = serde_json::to_value(filter) else {
        return None;
    };
    members.retain(|_, value| !value.is_null());
    Some(members)
}

/// Whether a filter leaves anything out. Empty lists do not, nor does a beginning that every id has.
fn selects(filter: &WorkflowSearchBody) -> bool {
    const ELSE: [&str; 5] = ["limit", "offset", "sortDesc", "loadInput", "loadOutput"];
    let leaves_out = |(name, value): (&String, &Value)| match value {
        Value::Array(items) if name == "workflowIdPrefix" => {
            !items.is_empty() && items.iter().all(|prefix| prefix != "")
        }
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        // The other value of this flag means no restriction.
        Value::Bool(only) if name == "queuesOnly" => *only,
        _ => !ELSE.contains(&name.as_str()),
    };
    given(filter).is_some_and(|members| members.iter().any(leaves_out))
}

fn selection(body: &CreateOperationInputBody) -> Result<Selection, Problem> {
    let ids = body.workflow_ids.clone().unwrap_or_default();
    match &body.filter {
        Some(_) if !ids.is_empty() => Err(Problem::bad_request(
            "give only one of workflowIds and filter",
        )),
        Some(filter) if filter.limit.is_some() || filter.offset.is_some() => {
            Err(Problem::bad_request(
                "filter takes no limit and no offset; give the operation's own limit",
            ))
        }
        Some(filter) if selects(filter) => Ok(Selection::Filter(Box::new(filter.clone()))),
        Some(_) => Err(Problem::bad_request(
            "the filter is empty and would mean every workflow; give at least one restriction",
        )),
        None if ids.is_empty() => Err(Problem::bad_request("give workflowIds or a filter")),
        None => {
            let mut seen = std::collections::HashSet::new();
            let distinct = ids.into_iter().filter(|id| seen.insert(id.clone()));
            Ok(Selection::Ids(distinct.collect()))
        }
    }
}

fn fork_from(options: &OperationOptions) -> Result<ForkFrom, Problem> {
    let points = [
        (options.from_last_failure == Some(true)).then_some(ForkFrom::LastFailure),
        (options.from_last_step == Some(true)).then_some(ForkFrom::LastStep),
        options
            .from_step
            .map(|step| ForkFrom::Step(u32::try_from(step).unwrap_or(0))),
        options.from_step_name.clone().map(ForkFrom::StepName),
    ];
    let mut points = points.into_iter().flatten();
    match (points.next(), points.next()) {
        (point, None) => Ok(point.unwrap_or_default()),
        _ => Err(Problem::bad_request(
            "give only one of fromLastFailure, fromLastStep, fromStep, fromStepName",
        )),
    }
}

/// The options that concern the kind; any other is refused.
fn options(app: &AppRow, kind: OperationKind, given: OperationOptions) -> Result<Options, Problem> {
    let fork_from = fork_from(&given)?;
    if app.private_mode && matches!(fork_from, ForkFrom::LastFailure) {
        return Err(Problem::forbidden(format!(
            "`{}` is in private mode: errors of its steps do not leave its executors, so fromLastFailure cannot be found",
            app.name
        )));
    }
    let mut rest = given.clone();
    match kind {
        OperationKind::Cancel => rest.cancel_children = None,
        OperationKind::Delete => rest.delete_children = None,
        OperationKind::Resume => rest.queue_name = None,
        OperationKind::Fork => {
            rest = OperationOptions {
                cancel_children: given.cancel_children,
                delete_children: given.delete_children,
                ..OperationOptions::default()
            };
        }
    }
    if rest != OperationOptions::default() {
        return Err(Problem::bad_request(format!(
            "some of the options do not concern {}; leave them out",
            kind.as_str()
        )));
    }
    Ok(Options {
        children: given
            .cancel_children
            .or(given.delete_children)
            .unwrap_or(false),
        app_version: given.app_version,
        queue_name: given.queue_name,
        queue_partition_key: given.queue_partition_key,
        fork_from,
    })
}

async fn shown(state: &AppState, app: &AppRow, id: &str) -> Result<Operation, Problem> {
    let row = state.store.operation(&app.id, id).await?;
    let row =
        row.ok_or_else(|| Problem::not_found(format!("the application has no operation {id:?}")))?;
    let errors = state.store.operation_errors(id, ERRORS).await?;
    let mut operation = Operation::from(row);
    operation.errors = errors
        .into_iter()
        .map(|(workflow_id, message)| OperationError {
            message,
            workflow_id,
        })
        .collect();
    Ok(operation)
}

/// Cancel, resume, delete or fork many workflows
///
/// It is done in its own time, and waits while no executor is connected. The answer to a dry run waits
/// for the count and the sample, unless that takes long.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/operations", operation_id = "createOperation",
    tag = "Operations", params(AppPath), request_body = CreateOperationInputBody,
    responses((status = 201, description = "It is written down", body = Operation,
        headers(("Location" = String, description = "Path of the operation")))),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("operation.create")), ("x-segno-body-limit" = json!(8 * 1024 * 1024))))]
async fn create_operation(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<CreateOperationInputBody>,
) -> Result<Created<Operation>, Problem> {
    let selection = selection(&body)?;
    let options = options(&app, body.kind, body.options.unwrap_or_default())?;
    let json = |error: serde_json::Error| Problem::internal(&error);
    let new = NewOperation {
        id: idempotency::id_of_what_is_made()
            .unwrap_or_else(Uuid::new_v4)
            .to_string(),
        app_id: app.id.clone(),
        kind: body.kind,
        selection: serde_json::to_string(&selection).map_err(json)?,
        options: serde_json::to_string(&options).map_err(json)?,
        dry_run: body.dry_run.unwrap_or(false),
        limit: body.limit.unwrap_or(LIMIT),
        reason: body.reason.filter(|reason| !reason.is_empty()),
        requested_by: caller.subject.display.clone(),
    };
    audit.detail("operation_id", new.id.clone());
    audit.detail("kind", new.kind.as_str());
    audit.detail("dry_run", new.dry_run);
    audit.detail("limit", new.limit);
    if let Some(reason) = &new.reason {
        audit.detail("reason", reason.clone());
    }
    match &selection {
        Selection::Ids(ids) => audit.detail("workflow_count", ids.len()),
        Selection::Filter(filter) => {
            let names = given(filter).unwrap_or_default();
            let names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
            audit.detail("filtered_by", names);
        }
    }
    match state.operations.begin(&new).await {
        // By an instance that is gone, for the same request.
        Err(StoreError::Taken) if idempotency::id_of_what_is_made().is_some() => {}
        begun => begun?,
    }
    if new.dry_run {
        state.operations.settled(&app.id, &new.id, PREVIEW).await?;
    }
    let path = [
        "v2",
        "orgs",
        &caller.org.name,
        "apps",
        &app.name,
        "operations",
        &new.id,
    ];
    Ok(Created {
        location: path.map(str::to_owned).to_vec(),
        object: shown(&state, &app, &new.id).await?,
    })
}

/// List operations, newest first
///
/// Errors are shown of single operations only.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/operations", operation_id = "listOperations",
    tag = "Operations", params(AppPath, OperationsQuery),
    responses((status = 200, description = "OK", body = [Operation])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_operations(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<OperationsQuery>,
) -> Result<Json<Vec<Operation>>, Problem> {
    let (limit, offset) = (query.limit.unwrap_or(LISTED), query.offset.unwrap_or(0));
    let rows = state
        .store
        .operations(&app.id, query.state, limit, offset)
        .await?;
    Ok(Json(rows.into_iter().map(Operation::from).collect()))
}

/// Get an operation
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/operations/{operationId}", operation_id = "getOperation",
    tag = "Operations", params(AppPath, OperationPath),
    responses((status = 200, description = "OK", body = Operation)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn get_operation(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<OperationPath>,
) -> Result<Object<Operation>, Problem> {
    Ok(Object(shown(&state, &app, &path.operation_id).await?))
}

/// Stop an operation
///
/// What was done stays done; requests under way end, and nothing more is begun.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/operations/{operationId}/abort",
    operation_id = "abortOperation", tag = "Operations", params(AppPath, OperationPath),
    responses((status = 200, description = "It is aborted", body = Operation)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("operation.abort"))))]
async fn abort_operation(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<OperationPath>,
    audit: Audit,
) -> Result<Object<Operation>, Problem> {
    let id = &path.operation_id;
    audit.detail("operation_id", id.clone());
    let aborted = state.operations.abort(&app.id, id).await?;
    let operation = shown(&state, &app, id).await?;
    if !aborted {
        return Err(Problem::conflict(format!("operation {id:?} is over")));
    }
    Ok(Object(operation))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create_operation, list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(abort_operation))
}
