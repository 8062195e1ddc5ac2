//! Recoveries: what became of every lost executor's workflows.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Object, Path, Query};
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::recovery::OrderError;
use crate::recovery::machine::Reason;
use crate::state::AppState;
use crate::store::recoveries::{RecoveryFilter, RecoveryRow, RecoveryStatus};

/// Records listed unless the caller says otherwise.
const LIMIT: i64 = 100;

/// What became of a lost executor's workflows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The version that the executor ran
    pub app_version: String,
    /// Who was asked to take the workflows, in order
    pub attempts: Vec<RecoveryAttempt>,
    /// When this ended
    #[schema(required = true)]
    pub completed_at: Option<Timestamp>,
    /// When the executor's grace was over
    #[schema(required = true)]
    pub dead_at: Option<Timestamp>,
    /// When the executor was last there
    pub disconnected_at: Timestamp,
    /// When its workflows were first offered
    #[schema(required = true)]
    pub dispatched_at: Option<Timestamp>,
    /// The lost executor
    pub executor_id: String,
    /// Its machine's name
    #[schema(required = true)]
    pub hostname: Option<String>,
    /// Id of this record
    pub id: String,
    /// Workflows that were pending; null until somebody could be asked
    #[schema(required = true)]
    pub pending_workflows: Option<i64>,
    /// Why it does not go on; null unless it is STRANDED
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// The executor that took the workflows
    #[schema(required = true)]
    pub recovered_by: Option<String>,
    /// Where it stands
    pub status: RecoveryStatus,
}

/// One offer of a lost executor's workflows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryAttempt {
    /// When
    pub at: Timestamp,
    /// What went wrong
    #[schema(required = true)]
    pub error: Option<String>,
    /// Who was asked; empty when the workflows were forked to another version
    pub executor_id: String,
    /// ACCEPTED, STILL_PENDING, FORKED or FAILED
    pub outcome: String,
}

impl From<RecoveryRow> for Recovery {
    fn from(row: RecoveryRow) -> Self {
        let attempts = row.attempts.into_iter().map(|attempt| RecoveryAttempt {
            at: Timestamp::from_ms(attempt.at),
            error: attempt.error,
            executor_id: attempt.executor_id,
            outcome: attempt.outcome,
        });
        Self {
            app_version: row.key.version,
            attempts: attempts.collect(),
            completed_at: row.completed_at.map(Timestamp::from_ms),
            dead_at: row.dead_at.map(Timestamp::from_ms),
            disconnected_at: Timestamp::from_ms(row.disconnected_at),
            dispatched_at: row.dispatched_at.map(Timestamp::from_ms),
            executor_id: row.key.executor_id,
            hostname: row.hostname,
            id: row.id,
            pending_workflows: row.pending_workflows,
            reason: row.reason,
            recovered_by: row.recovered_by,
            status: row.status,
        }
    }
}

/// `…/recoveries/{recoveryId}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct RecoveryPath {
    /// Recovery id
    pub recovery_id: String,
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct RecoveriesQuery {
    /// Only in this state
    pub status: Option<RecoveryStatus>,
    /// Only of this executor
    pub executor_id: Option<String>,
    /// Only of this version
    pub app_version: Option<String>,
    /// Only of executors lost at or after this time
    pub since: Option<Timestamp>,
    /// At most so many [default: 100]
    #[param(minimum = 0, maximum = 1000)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

/// Which version takes over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignRecoveryInputBody {
    /// The application version that the workflows are forked to
    #[schema(min_length = 1, max_length = 1024)]
    pub app_version: String,
}

/// Why the workflows are given up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbandonRecoveryInputBody {
    /// For the record
    #[schema(min_length = 1, max_length = 1000)]
    pub reason: String,
}

/// List recoveries, newest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/recoveries", operation_id = "listRecoveries",
    tag = "Recoveries", params(AppPath, RecoveriesQuery),
    responses((status = 200, description = "OK", body = [Recovery])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_recoveries(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<RecoveriesQuery>,
) -> Result<Json<Vec<Recovery>>, Problem> {
    let filter = RecoveryFilter {
        status: query.status,
        executor_id: query.executor_id,
        app_version: query.app_version,
        since: query.since.map(Timestamp::ms),
        limit: query.limit.unwrap_or(LIMIT),
        offset: query.offset.unwrap_or(0),
    };
    let records = state.store.recoveries(&app.id, &filter).await?;
    Ok(Json(records.into_iter().map(Recovery::from).collect()))
}

/// Get a recovery
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/recoveries/{recoveryId}", operation_id = "getRecovery",
    tag = "Recoveries", params(AppPath, RecoveryPath),
    responses((status = 200, description = "OK", body = Recovery)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn get_recovery(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<RecoveryPath>,
) -> Result<Object<Recovery>, Problem> {
    let record = state.store.recovery(&app.id, &path.recovery_id).await?;
    let record =
        record.ok_or_else(|| refused(OrderError::NotFound, "recovery", &path.recovery_id))?;
    Ok(Object(record.into()))
}

/// Let another version take over a lost executor's workflows
///
/// Each pending workflow is forked to the version, from one past its last recorded step, and the
/// original is cancelled: whoever awaits the original sees a cancellation.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/recoveries/{recoveryId}/assign",
    operation_id = "assignRecovery", tag = "Recoveries", params(AppPath, RecoveryPath),
    request_body = AssignRecoveryInputBody,
    responses((status = 202, description = "It will be tried at once; the record tells how it goes", body = Recovery)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("recovery.assign"))))]
async fn assign_recovery(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<RecoveryPath>,
    audit: Audit,
    Body(body): Body<AssignRecoveryInputBody>,
) -> Result<(StatusCode, Object<Recovery>), Problem> {
    audit.detail("recovery_id", path.recovery_id.clone());
    audit.detail("app_version", body.app_version.clone());
    let assigned = state
        .recovery
        .assign(&app.id, &path.recovery_id, &body.app_version)
        .await;
    assigned.map_err(|error| refused(error, "recovery", &path.recovery_id))?;
    let record = state.store.recovery(&app.id, &path.recovery_id).await?;
    let record =
        record.ok_or_else(|| refused(OrderError::NotFound, "recovery", &path.recovery_id))?;
    Ok((StatusCode::ACCEPTED, Object(record.into())))
}

/// Give a lost executor's workflows up
///
/// They stay as they are; nobody is asked to take them any more.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/recoveries/{recoveryId}/abandon",
    operation_id = "abandonRecovery", tag = "Recoveries", params(AppPath, RecoveryPath),
    request_body = AbandonRecoveryInputBody,
    responses((status = 200, description = "It is closed", body = Recovery)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("recovery.abandon"))))]
async fn abandon_recovery(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<RecoveryPath>,
    audit: Audit,
    Body(body): Body<AbandonRecoveryInputBody>,
) -> Result<Object<Recovery>, Problem> {
    audit.detail("recovery_id", path.recovery_id.clone());
    audit.detail("reason", body.reason.clone());
    let abandoned = state
        .recovery
        .abandon(&app.id, &path.recovery_id, &body.reason)
        .await;
    abandoned.map_err(|error| refused(error, "recovery", &path.recovery_id))?;
    let record = state.store.recovery(&app.id, &path.recovery_id).await?;
    let record =
        record.ok_or_else(|| refused(OrderError::NotFound, "recovery", &path.recovery_id))?;
    Ok(Object(record.into()))
}

/// Why an order was not carried out.
pub(super) fn refused(error: OrderError, kind: &str, id: &str) -> Problem {
    match error {
        OrderError::NotFound => Problem::not_found(format!("the application has no {kind} {id:?}")),
        OrderError::NotUnderWay => Problem::conflict(format!("{kind} {id:?}: {error}")),
        OrderError::Store(error) => error.into(),
    }
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_recoveries))
        .routes(routes!(get_recovery))
        .routes(routes!(assign_recovery))
        .routes(routes!(abandon_recovery))
}
