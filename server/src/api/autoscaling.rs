//! Autoscaling: the policy, and how many executors it asks for now.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{AggregateFilter, GetQueue, GetWorkflowAggregates, WorkflowAggregates};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Object, Path};
use super::forward;
use super::path::AppPath;
use super::problem::Problem;
use super::versions::versions;
use crate::policies::autoscaling::{Load, Need, Rollout};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::apps::AppRow;
use crate::store::autoscaling::AutoscalingPolicyRow;

/// By which queue an application is scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalePolicy {
    /// Its name; it needs a worker concurrency
    pub queue: String,
    /// What old application versions may have
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPolicy>,
}

/// What old application versions may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicy {
    /// So many executors each; absent: as many as their work needs
    #[schema(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_executors_for_old_application_versions: Option<i64>,
    /// So many of them are listed; absent: none
    #[schema(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_old_application_versions: Option<i64>,
}

impl RolloutPolicy {
    fn limits(&self) -> Rollout {
        let listed = self.max_old_application_versions.unwrap_or(0);
        Rollout {
            old_versions: usize::try_from(listed).unwrap_or(0),
            executors: self.max_executors_for_old_application_versions,
        }
    }
}

/// A stored policy.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyOutputBody {
    /// As it was set
    pub policy: AutoscalePolicy,
}

/// What one application version needs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueAutoscale {
    /// The version
    pub application_version: String,
    /// So many executors
    pub desired_executors: i64,
    /// Whether it is the latest
    pub is_latest: bool,
    /// When this was so, epoch milliseconds
    pub observed_at: i64,
    /// Workflows waiting on the queue or running from it
    pub queue_depth: i64,
    /// The queue
    pub queue_name: String,
}

/// `…/autoscale/versions/{version}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct VersionPath {
    /// Application version, percent-encoded, or `latest`
    pub version: String,
}

async fn stored(state: &AppState, app: &AppRow) -> Result<AutoscalePolicy, Problem> {
    let row = state.store.autoscaling_policy(&app.id).await?;
    let row = row.ok_or_else(|| {
        Problem::not_found(format!(
            "`{}` has no autoscaling policy; set one with PUT",
            app.name
        ))
    })?;
    let rollout = row.rollout.as_deref().map(serde_json::from_str).transpose();
    Ok(AutoscalePolicy {
        queue: row.queue_name,
        rollout: rollout.map_err(|_| StoreError::Unreadable {
            table: "autoscaling_policies",
            column: "rollout",
        })?,
    })
}

/// Worker concurrency and concurrency of a queue by which one can scale.
async fn scalable(
    state: &AppState,
    app: &AppRow,
    queue: &str,
) -> Result<(i64, Option<i64>), Problem> {
    let message = GetQueue {
        name: queue.to_owned(),
    };
    let found = forward::read(&state.hub, app, &message).await?.output;
    let found = found.ok_or_else(|| {
        Problem::bad_request(format!("`{}` has no queue `{queue}` to scale by", app.name))
    })?;
    let each = found.worker_concurrency.filter(|each| *each > 0);
    let each = each.ok_or_else(|| {
        Problem::bad_request(format!(
            "the queue `{queue}` has no worker concurrency, so nobody can say how many executors \
             it needs; set one in the application"
        ))
    })?;
    Ok((each, found.concurrency))
}

async fn load(state: &AppState, app: &AppRow, queue: &str) -> Result<Arc<Load>, Problem> {
    // Without an executor the answer is 503, never what was true a moment ago.
    let somebody = state.hub.has_anybody(&app.id).await;
    if let Some(load) = state.loads.get(&app.id, queue).filter(|_| somebody) {
        return Ok(load);
    }
    let (worker_concurrency, concurrency) = scalable(state, app, queue).await?;
    let known = versions(state, app).await?;
    let versions: Vec<String> = known
        .into_iter()
        .map(|version| version.version_name)
        .collect();
    let Some(latest) = versions.first() else {
        return Err(forward::bad_gateway(
            "the executor lists no application version",
        ));
    };
    let body = WorkflowAggregates {
        group_by_application_version: true,
        select_count: true,
        filter: AggregateFilter {
            status: vec!["ENQUEUED".to_owned(), "PENDING".to_owned()],
            queue_name: vec![queue.to_owned()],
            application_name: vec![app.name.clone()],
            ..AggregateFilter::default()
        },
        ..WorkflowAggregates::default()
    };
    let message = GetWorkflowAggregates { body };
    let rows = forward::read(&state.hub, app, &message).await?.output;
    let mut depths: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows {
        let version = row.group.get("application_version").cloned().flatten();
        let version = version.filter(|version| !version.is_empty());
        // Whoever takes work without a version, it will be the latest.
        let version = version.unwrap_or_else(|| latest.clone());
        *depths.entry(version).or_default() += row.count.unwrap_or(0);
    }
    let load = Arc::new(Load {
        observed_at: state.recovery.instance().now(),
        worker_concurrency,
        concurrency,
        versions,
        depths,
    });
    state.loads.put(&app.id, queue, load.clone());
    Ok(load)
}

fn shown(need: Need, policy: &AutoscalePolicy, load: &Load) -> QueueAutoscale {
    QueueAutoscale {
        application_version: need.version,
        desired_executors: need.executors,
        is_latest: need.is_latest,
        observed_at: load.observed_at,
        queue_depth: need.depth,
        queue_name: policy.queue.clone(),
    }
}

fn rollout(policy: &AutoscalePolicy) -> Rollout {
    policy
        .rollout
        .as_ref()
        .map(RolloutPolicy::limits)
        .unwrap_or_default()
}

/// How many executors the application's versions need, the latest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/autoscale", operation_id = "getAutoscale", tag = "Queues",
    params(AppPath), responses((status = 200, description = "OK", body = Option<Vec<QueueAutoscale>>)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_autoscale(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<QueueAutoscale>>, Problem> {
    let policy = stored(&state, &app).await?;
    let load = load(&state, &app, &policy.queue).await?;
    let needs = load.needs(rollout(&policy)).into_iter();
    Ok(Json(
        needs.map(|need| shown(need, &policy, &load)).collect(),
    ))
}

/// How many executors one version needs
///
/// For autoscalers that read one number. Without a connected executor it fails: no number is better
/// than a wrong one. A trigger of KEDA's ScaledObject, with an API key that has `application.read`:
///
/// ```yaml
/// triggers:
///   - type: metrics-api
///     metricType: AverageValue
///     metadata:
///       url: https://segno.example.com/v2/orgs/local/apps/shop/autoscale/versions/latest
///       valueLocation: desiredExecutors
///       targetValue: "1"
///       authMode: bearer
///     authenticationRef:
///       name: segno-api-key
/// ```
///
/// An average of 1 makes the number of replicas the value itself.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/autoscale/versions/{version}",
    operation_id = "getAutoscaleVersion", tag = "Queues", params(AppPath, VersionPath),
    responses((status = 200, description = "OK", body = QueueAutoscale)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_autoscale_version(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<VersionPath>,
) -> Result<Object<QueueAutoscale>, Problem> {
    let policy = stored(&state, &app).await?;
    let load = load(&state, &app, &policy.queue).await?;
    let version = match path.version.as_str() {
        "latest" => load.versions.first().cloned().unwrap_or_default(),
        name => name.to_owned(),
    };
    let need = load
        .need(&version, rollout(&policy))
        .ok_or_else(|| Problem::not_found(format!("`{}` has no version {version:?}", app.name)))?;
    Ok(Object(shown(need, &policy, &load)))
}

/// Get the autoscaling policy
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/autoscaling-policy",
    operation_id = "getAutoscalingPolicy", tag = "Queues", params(AppPath),
    responses((status = 200, description = "OK", body = PolicyOutputBody)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_policy(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Object<PolicyOutputBody>, Problem> {
    let policy = stored(&state, &app).await?;
    Ok(Object(PolicyOutputBody { policy }))
}

/// Set the autoscaling policy
#[utoipa::path(put, path = "/v2/orgs/{orgName}/apps/{appName}/autoscaling-policy",
    operation_id = "setAutoscalingPolicy", tag = "Queues", params(AppPath), request_body = AutoscalePolicy,
    responses((status = 200, description = "It holds", body = PolicyOutputBody)),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("autoscaling_policy.set"))))]
async fn set_policy(
    State(state): State<AppState>,
    App(app): App,
    audit: Audit,
    Body(policy): Body<AutoscalePolicy>,
) -> Result<Object<PolicyOutputBody>, Problem> {
    audit.detail("queue_name", policy.queue.clone());
    scalable(&state, &app, &policy.queue).await?;
    let rollout = policy
        .rollout
        .as_ref()
        .map(serde_json::to_string)
        .transpose();
    let row = AutoscalingPolicyRow {
        queue_name: policy.queue,
        rollout: rollout.map_err(|error| Problem::internal(&error))?,
    };
    let mut tx = state.store.begin().await?;
    state
        .store
        .set_autoscaling_policy(&mut tx, &app.id, &row)
        .await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    let policy = stored(&state, &app).await?;
    Ok(Object(PolicyOutputBody { policy }))
}

/// Remove the autoscaling policy
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/apps/{appName}/autoscaling-policy",
    operation_id = "deleteAutoscalingPolicy", tag = "Queues", params(AppPath),
    responses((status = 204, description = "There is none")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("autoscaling_policy.delete"))))]
async fn delete_policy(
    State(state): State<AppState>,
    App(app): App,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let mut tx = state.store.begin().await?;
    state
        .store
        .delete_autoscaling_policy(&mut tx, &app.id)
        .await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_autoscale))
        .routes(routes!(get_autoscale_version))
        .routes(routes!(get_policy, set_policy, delete_policy))
}
