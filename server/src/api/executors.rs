//! Executors: who is connected, who is lost, who is dead.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Path};
use super::path::AppPath;
use super::problem::Problem;
use super::recoveries::refused;
use super::time::Timestamp;
use crate::state::AppState;
use crate::store::executors::{ExecutorRow, ExecutorState};

/// A process that runs an application's workflows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executor {
    /// Id of the application
    pub app_id: String,
    /// The code version it runs
    pub app_version: String,
    /// When it was first seen
    pub created_at: Timestamp,
    /// Version of its SDK
    #[schema(required = true)]
    pub dbos_version: Option<String>,
    /// Its id; unique in the application, together with the version
    pub executor_id: String,
    /// What its user attached to it
    #[schema(required = true)]
    pub executor_metadata: Option<Map<String, Value>>,
    /// The server's instance that holds, or last held, its connection
    #[schema(required = true)]
    pub host_id: Option<String>,
    /// Its machine's name
    #[schema(required = true)]
    pub hostname: Option<String>,
    /// Language of its SDK
    #[schema(required = true)]
    pub language: Option<String>,
    /// Where it stands
    pub status: ExecutorState,
    /// Since when it has let requests time out while it is connected
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresponsive_since: Option<Timestamp>,
    /// When this last changed
    pub updated_at: Timestamp,
}

impl From<ExecutorRow> for Executor {
    fn from(row: ExecutorRow) -> Self {
        Self {
            app_id: row.key.app_id,
            app_version: row.key.version,
            created_at: Timestamp::from_ms(row.created_at),
            dbos_version: row.sdk_version,
            executor_id: row.key.executor_id,
            executor_metadata: row
                .metadata
                .and_then(|text| serde_json::from_str(&text).ok()),
            host_id: row.instance_id,
            hostname: row.hostname,
            language: row.language,
            status: row.state,
            unresponsive_since: row.unresponsive_since.map(Timestamp::from_ms),
            updated_at: Timestamp::from_ms(row.updated_at),
        }
    }
}

/// `…/executors/{executorId}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct ExecutorPath {
    /// Executor id, percent-encoded
    pub executor_id: String,
}

/// Why an executor is evicted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictExecutorInputBody {
    /// For the audit log
    #[schema(min_length = 1, max_length = 1000)]
    pub reason: String,
}

/// List an application's executors
///
/// Lost ones stay listed until their workflows were seen to have been taken over.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/executors", operation_id = "listExecutors",
    tag = "Executors", params(AppPath),
    responses((status = 200, description = "OK", body = [Executor])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_executors(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<Executor>>, Problem> {
    let rows = state.store.executors(&app.id).await?;
    Ok(Json(rows.into_iter().map(Executor::from).collect()))
}

/// Declare an executor gone
///
/// Its connection is closed, its dials are refused for an hour, and its workflows are recovered at
/// once. If the process still lives, it may do a step a second time.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/executors/{executorId}/evict",
    operation_id = "evictExecutor", tag = "Executors", params(AppPath, ExecutorPath),
    request_body = EvictExecutorInputBody,
    responses((status = 204, description = "It is dead")),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("executor.evict"))))]
async fn evict_executor(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<ExecutorPath>,
    audit: Audit,
    Body(body): Body<EvictExecutorInputBody>,
) -> Result<StatusCode, Problem> {
    audit.detail("executor_id", path.executor_id.clone());
    audit.detail("reason", body.reason.clone());
    let evicted = state
        .recovery
        .evict(&app.id, &path.executor_id, &body.reason)
        .await;
    evicted.map_err(|error| refused(error, "executor", &path.executor_id))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_executors))
        .routes(routes!(evict_executor))
}
