//! Applications.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Object, Path};
use super::path::{AppPath, OrgPath};
use super::problem::Problem;
use crate::auth::Caller;
use crate::policies::retention_warnings;
use crate::state::AppState;
use crate::store::apps::{AppPatch, AppRow, RecoveryPolicy};

/// The one operation on an application that need not exist.
pub(super) const REGISTER: &str = "registerApp";

/// An application.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Always false: nothing is hosted here
    pub dbos_cloud: bool,
    /// Seconds that a lost executor has to come back before it counts as dead
    pub executor_timeout_secs: i64,
    /// Only so many completed workflows are kept
    #[schema(required = true)]
    pub gc_rows_threshold: Option<i64>,
    /// Completed workflows created longer ago are deleted
    #[schema(required = true)]
    pub gc_time_threshold_ms: Option<i64>,
    /// Workflows not complete so long after creation are cancelled
    #[schema(required = true)]
    pub global_timeout_ms: Option<i64>,
    /// Stable id
    pub id: String,
    /// Language of its executors; null before the first
    #[schema(required = true)]
    pub language: Option<String>,
    /// Name
    pub name: String,
    /// Id of the organization
    pub org_id: String,
    /// Whether payloads stay with the executors
    pub private_mode: bool,
    /// Who may take over a dead executor's workflows
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_policy: Option<RecoveryPolicy>,
    /// AVAILABLE while at least one executor is connected
    pub status: AppStatus,
    /// What an operator should know: limits that reach beyond this application
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub warnings: Vec<String>,
}

/// Whether an application can do anything.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AppStatus {
    /// At least one executor is connected.
    Available,
    /// None is.
    Unavailable,
}

impl Application {
    async fn new(app: AppRow, state: &AppState) -> Self {
        let sessions = state.hub.everywhere(&app.id).await;
        let connected = !sessions.is_empty();
        Self {
            warnings: retention_warnings(&app, &sessions),
            dbos_cloud: false,
            executor_timeout_secs: app.executor_timeout_secs,
            gc_rows_threshold: app.gc_rows_threshold,
            gc_time_threshold_ms: app.gc_time_threshold_ms,
            global_timeout_ms: app.global_timeout_ms,
            id: app.id,
            language: app.language,
            name: app.name,
            org_id: app.org_id,
            private_mode: app.private_mode,
            recovery_policy: Some(app.recovery_policy),
            status: if connected {
                AppStatus::Available
            } else {
                AppStatus::Unavailable
            },
        }
    }
}

/// What registering may set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PutAppInputBody {
    /// Whether payloads stay with the executors
    pub private_mode: Option<bool>,
}

/// What to change; absent members stay, negative retention values clear.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchAppInputBody {
    /// Seconds, at least 1
    pub executor_timeout_secs: Option<i64>,
    /// At least 1; negative: no limit. Java, Python 3 and TypeScript 5 delete for all who share the database
    pub gc_rows_threshold: Option<i64>,
    /// At least 1; negative: no limit. Java, Python 3 and TypeScript 5 delete for all who share the database
    pub gc_time_threshold_ms: Option<i64>,
    /// At least 1; negative: no limit. Java cancels for all who share the database
    pub global_timeout_ms: Option<i64>,
    /// Whether payloads stay with the executors
    pub private_mode: Option<bool>,
    /// Who may take over a dead executor's workflows
    pub recovery_policy: Option<RecoveryPolicy>,
}

impl PatchAppInputBody {
    fn patch(&self) -> Result<AppPatch, Problem> {
        if self
            .executor_timeout_secs
            .is_some_and(|secs| !(1..=MAX_TIMEOUT_SECS).contains(&secs))
        {
            return Err(Problem::bad_request(format!(
                "executorTimeoutSecs must be between 1 and {MAX_TIMEOUT_SECS}"
            )));
        }
        Ok(AppPatch {
            executor_timeout_secs: self.executor_timeout_secs,
            recovery_policy: self.recovery_policy,
            gc_time_threshold_ms: limit("gcTimeThresholdMs", self.gc_time_threshold_ms)?,
            gc_rows_threshold: limit("gcRowsThreshold", self.gc_rows_threshold)?,
            global_timeout_ms: limit("globalTimeoutMs", self.global_timeout_ms)?,
            private_mode: self.private_mode,
        })
    }
}

/// A year: longer than any process is away, short enough for arithmetic in milliseconds.
const MAX_TIMEOUT_SECS: i64 = 366 * 24 * 3600;

/// Absent leaves, negative clears; executors fail on 0.
fn limit(field: &str, value: Option<i64>) -> Result<Option<Option<i64>>, Problem> {
    match value {
        Some(0) => Err(Problem::bad_request(format!(
            "{field} must be at least 1, or negative to remove the limit"
        ))),
        Some(clear) if clear < 0 => Ok(Some(None)),
        set => Ok(set.map(Some)),
    }
}

/// List applications
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps", operation_id = "listApps", tag = "Applications",
    params(OrgPath), responses((status = 200, description = "OK", body = [Application])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_apps(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<Application>>, Problem> {
    let apps = state.store.apps(&caller.org.id).await?;
    let mut seen = Vec::new();
    for app in apps.into_iter().filter(|app| caller.scope.covers(&app.id)) {
        seen.push(Application::new(app, &state).await);
    }
    Ok(Json(seen))
}

/// Get an application
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}", operation_id = "getApp", tag = "Applications",
    params(AppPath), responses((status = 200, description = "OK", body = Application)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_app(State(state): State<AppState>, App(app): App) -> Object<Application> {
    Object(Application::new(app, &state).await)
}

/// Register an application
#[utoipa::path(put, path = "/v2/orgs/{orgName}/apps/{appName}", operation_id = "registerApp", tag = "Applications",
    params(AppPath), request_body = Option<PutAppInputBody>,
    responses((status = 204, description = "Registered, now or before")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("application.create"))))]
async fn register_app(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<AppPath>,
    audit: Audit,
    Body(body): Body<PutAppInputBody>,
) -> Result<StatusCode, Problem> {
    let store = &state.store;
    if let Some(private_mode) = body.private_mode {
        audit.detail("private_mode", private_mode);
    }
    let mut tx = store.begin().await?;
    let private_mode = body.private_mode.unwrap_or(false);
    if !store
        .insert_app(&mut tx, &caller.org.id, &path.app_name, private_mode)
        .await?
    {
        // A repeat changes only what it gives.
        audit.operation("application.update");
        if let Some(app) = store
            .app_in(&mut tx, &caller.org.id, &path.app_name)
            .await?
        {
            let patch = AppPatch {
                private_mode: body.private_mode,
                ..AppPatch::default()
            };
            store.update_app(&mut tx, &app, &patch).await?;
        }
    }
    audit.record(store, &mut tx).await?;
    store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Change an application's settings
#[utoipa::path(patch, path = "/v2/orgs/{orgName}/apps/{appName}", operation_id = "updateApp", tag = "Applications",
    params(AppPath), request_body = PatchAppInputBody,
    responses((status = 204, description = "Changed")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("application.update"))))]
async fn update_app(
    State(state): State<AppState>,
    App(app): App,
    audit: Audit,
    Body(body): Body<PatchAppInputBody>,
) -> Result<StatusCode, Problem> {
    let patch = body.patch()?;
    let mut tx = state.store.begin().await?;
    state.store.update_app(&mut tx, &app.id, &patch).await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Delete an application with everything that belongs to it
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/apps/{appName}", operation_id = "deleteApp", tag = "Applications",
    params(AppPath), responses((status = 204, description = "Deleted")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("application.delete"))))]
async fn delete_app(
    State(state): State<AppState>,
    App(app): App,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let mut tx = state.store.begin().await?;
    // Incidents that channels opened are closed.
    let told = state.store.end_alerts_of_app(&mut tx, &app.id).await?;
    state.store.delete_app(&mut tx, &app.id).await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    state.hub.close_app(&app.id).await;
    if told {
        state.channels.nudge();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_apps))
        .routes(routes!(get_app, register_app, update_app, delete_app))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn negative_clears_zero_is_refused_absent_leaves() {
        assert_eq!(limit("x", Some(-5)).unwrap(), Some(None));
        assert_eq!(limit("x", Some(5)).unwrap(), Some(Some(5)));
        assert_eq!(limit("x", None).unwrap(), None);
        assert!(
            limit("x", Some(0))
                .unwrap_err()
                .detail()
                .contains("x must be at least 1")
        );
    }
}
