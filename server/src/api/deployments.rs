//! Deployments: what each application version still holds, and whether it is safe to scale down.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use segno_protocol::{
    AggregateFilter, GetWorkflowAggregates, VersionRecord, WorkflowAggregateRow, WorkflowAggregates,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::App;
use super::forward;
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use super::versions::versions;
use crate::state::AppState;
use crate::store::apps::AppRow;
use crate::store::executors::{ExecutorRow, ExecutorState};

/// Statuses of workflows that have not ended.
pub(super) const ACTIVE: [&str; 3] = ["PENDING", "ENQUEUED", "DELAYED"];

/// What one application version still holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The version
    pub app_version: String,
    /// Whether none of its workflows is active: its executors can go
    pub drained: bool,
    /// Its executors
    pub executors: DeploymentExecutors,
    /// Whether it is the latest, which also takes workflows that are bound to none
    pub is_latest: bool,
    /// When the oldest of its active workflows was created
    #[schema(required = true)]
    pub oldest_active_at: Option<Timestamp>,
    /// Active workflows that no executor of this version is left to take
    pub stranded: i64,
    /// Its active workflows
    pub workflows: DeploymentWorkflows,
}

/// How many executors there are of a version.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct DeploymentExecutors {
    /// Dead, and not yet recovered
    pub dead: i64,
    /// Lost, and waited for
    pub disconnected: i64,
    /// Connected
    pub healthy: i64,
}

/// How many workflows of a version are active.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct DeploymentWorkflows {
    /// Put off until a time
    pub delayed: i64,
    /// Waiting on a queue
    pub enqueued: i64,
    /// Running, or left by an executor that died
    pub pending: i64,
}

#[derive(Default)]
struct Holdings {
    executors: DeploymentExecutors,
    workflows: DeploymentWorkflows,
    oldest: Option<i64>,
}

impl Holdings {
    fn executor(&mut self, state: ExecutorState) {
        match state {
            ExecutorState::Healthy => self.executors.healthy += 1,
            ExecutorState::Disconnected => self.executors.disconnected += 1,
            ExecutorState::Dead => self.executors.dead += 1,
        }
    }

    fn workflows(&mut self, row: &WorkflowAggregateRow) {
        let count = row.count.unwrap_or(0);
        match group(row, "status").as_deref() {
            Some("PENDING") => self.workflows.pending += count,
            Some("DELAYED") => self.workflows.delayed += count,
            _ => self.workflows.enqueued += count,
        }
        self.oldest = match (self.oldest, row.min_created_at) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }

    fn deployment(self, app_version: String, is_latest: bool) -> Deployment {
        let active = self.workflows.pending + self.workflows.enqueued + self.workflows.delayed;
        // One that is only disconnected may be at work, and is waited for.
        let may_be_taken = self.executors.healthy + self.executors.disconnected > 0;
        Deployment {
            app_version,
            drained: active == 0,
            executors: self.executors,
            is_latest,
            oldest_active_at: self.oldest.map(Timestamp::from_ms),
            stranded: if may_be_taken { 0 } else { active },
            workflows: self.workflows,
        }
    }
}

fn group(row: &WorkflowAggregateRow, name: &str) -> Option<String> {
    row.group.get(name).cloned().flatten()
}

/// Every version that has executors or active workflows, and the latest, in the order in which they
/// were made the latest; `versions` is the latest first.
fn deployments(
    versions: &[VersionRecord],
    executors: &[ExecutorRow],
    active: &[WorkflowAggregateRow],
) -> Vec<Deployment> {
    let latest = versions.first().map(|version| version.version_name.clone());
    let mut holdings: BTreeMap<String, Holdings> = BTreeMap::new();
    holdings.extend(latest.clone().map(|latest| (latest, Holdings::default())));
    for executor in executors {
        let version = executor.key.version.clone();
        holdings
            .entry(version)
            .or_default()
            .executor(executor.state);
    }
    for row in active {
        // What is bound to no version waits for the latest.
        let version = group(row, "application_version").or_else(|| latest.clone());
        holdings
            .entry(version.unwrap_or_default())
            .or_default()
            .workflows(row);
    }
    let rank = |version: &str| {
        versions
            .iter()
            .position(|known| known.version_name == version)
            .unwrap_or(usize::MAX)
    };
    let mut all: Vec<Deployment> = holdings
        .into_iter()
        .map(|(version, held)| {
            let is_latest = latest.as_ref() == Some(&version);
            held.deployment(version, is_latest)
        })
        .collect();
    all.sort_by_key(|deployment| rank(&deployment.app_version));
    all
}

/// How many workflows are active, by version and status.
async fn active(state: &AppState, app: &AppRow) -> Result<Vec<WorkflowAggregateRow>, Problem> {
    let body = WorkflowAggregates {
        group_by_status: true,
        group_by_application_version: true,
        select_count: true,
        select_min_created_at: true,
        filter: AggregateFilter {
            status: ACTIVE.map(str::to_owned).to_vec(),
            application_name: vec![app.name.clone()],
            ..AggregateFilter::default()
        },
        ..WorkflowAggregates::default()
    };
    let answer = forward::read(&state.hub, app, &GetWorkflowAggregates { body }).await?;
    Ok(answer.output)
}

/// List what each application version still holds, the latest first
///
/// A version is safe to scale down when it is `drained`. Listed are versions with executors or active
/// workflows, and the latest.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/deployments", operation_id = "listDeployments",
    tag = "Applications", params(AppPath),
    responses((status = 200, description = "OK", body = [Deployment])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_deployments(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<Deployment>>, Problem> {
    let (versions, active) = tokio::try_join!(versions(&state, &app), active(&state, &app))?;
    let executors = state.store.executors(&app.id).await?;
    Ok(Json(deployments(&versions, &executors, &active)))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_deployments))
}
