//! Metrics of applications: stored counts, and the figures of the last minute for scrapers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Query};
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::apps::AppRow;
use crate::telemetry::applications::Family;
use crate::telemetry::exposition::{Format, Sample, render};

/// Applications asked at a time for one scrape.
const AT_ONCE: usize = 32;

/// A count over an interval, or the depth of a queue at its end.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Id of the application
    pub app_id: String,
    /// Length of the interval, seconds
    pub granularity: i32,
    /// Name of the workflow, step or queue; for recoveries, the application version
    pub metric_name: String,
    /// What was counted: workflow_count, step_count, recovery_count, queue_depth
    pub metric_type: String,
    /// Start of the interval
    pub time_bucket: Timestamp,
    /// How many
    pub value: i64,
}

/// Which intervals.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct MetricsQuery {
    /// Begun then or later
    pub start_time: Timestamp,
    /// Begun then or earlier
    pub end_time: Timestamp,
}

/// List an application's stored metrics, oldest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/metrics", operation_id = "listMetrics", tag = "Metrics",
    params(AppPath, MetricsQuery), responses((status = 200, description = "OK", body = [Metric])),
    extensions(("x-segno-permission" = json!("metric.read"))))]
async fn list_metrics(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<MetricsQuery>,
) -> Result<Json<Vec<Metric>>, Problem> {
    if query.end_time < query.start_time {
        return Err(Problem::bad_request("endTime must not be before startTime"));
    }
    let from = query.start_time.lower_bound().0;
    let rows = state
        .store
        .app_metrics(&app.id, from, query.end_time.ms())
        .await?;
    let metric = |row: crate::store::metrics::MetricRow| Metric {
        app_id: app.id.clone(),
        granularity: i32::try_from(row.granularity).unwrap_or(i32::MAX),
        metric_name: row.metric_name,
        metric_type: row.metric_type,
        time_bucket: Timestamp::from_ms(row.time_bucket),
        value: row.value,
    };
    Ok(Json(rows.into_iter().map(metric).collect()))
}

/// Which figures; each may be given several times, and none means all.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ScrapeQuery {
    /// Only these applications
    #[param(required = false)]
    #[serde(default)]
    pub applications: Vec<String>,
    /// Of the figures about workflows, only those of these names
    #[param(required = false)]
    #[serde(default)]
    pub workflow_names: Vec<String>,
    /// Only these families, by their full names
    #[param(required = false)]
    #[serde(default)]
    pub metrics: Vec<String>,
}

impl ScrapeQuery {
    fn families(&self) -> Vec<Family> {
        let all = Family::ALL.into_iter();
        all.filter(|family| self.metrics.is_empty() || self.metrics.contains(&family.name()))
            .collect()
    }

    fn wants(&self, sample: &Sample) -> bool {
        let named = sample
            .labels
            .iter()
            .find(|(label, _)| *label == "workflow_name");
        self.workflow_names.is_empty()
            || named.is_none_or(|(_, name)| self.workflow_names.contains(name))
    }
}

/// What the organization's applications did in the last full minute, for Prometheus and its kin
///
/// OpenMetrics if `Accept` names it, else Prometheus text 0.0.4. An application that cannot be asked
/// contributes its `executor_count` only.
#[utoipa::path(get, path = "/v1/metrics", operation_id = "scrapeMetrics", tag = "Metrics", params(ScrapeQuery),
    responses((status = 200, description = "OK", body = String, content_type = "text/plain")),
    extensions(("x-segno-permission" = json!("metric.read")), ("x-segno-extension" = json!(true))))]
async fn scrape(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ScrapeQuery>,
) -> Result<Response, Problem> {
    let mut apps = state.store.apps(&caller.org.id).await?;
    apps.retain(|app| {
        let named = query.applications.is_empty() || query.applications.contains(&app.name);
        named && caller.scope.covers(&app.id)
    });
    let families = query.families();
    let now = state.recovery.instance().now();
    // In the order of the applications, whoever answers first.
    let collected: Vec<Result<Vec<(Family, Sample)>, StoreError>> =
        futures_util::stream::iter(apps)
            .map(|app| {
                let (state, query, families) = (&state, &query, &families);
                async move { samples(state, &app, query, families, now).await }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
    let mut by_family: BTreeMap<Family, Vec<Sample>> = BTreeMap::new();
    for samples in collected {
        for (family, sample) in samples? {
            by_family.entry(family).or_default().push(sample);
        }
    }
    let gauges: Vec<_> = by_family
        .into_iter()
        .map(|(family, samples)| family.with(samples))
        .collect();
    let format = Format::accepted(&headers);
    let text = render(&gauges, format);
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::VARY, "accept"),
    ];
    Ok((headers, text).into_response())
}

/// The samples of one application that the scraper wants.
async fn samples(
    state: &AppState,
    app: &AppRow,
    query: &ScrapeQuery,
    families: &[Family],
    now: i64,
) -> Result<Vec<(Family, Sample)>, StoreError> {
    let mut samples = Vec::new();
    if families
        .iter()
        .any(|family| *family != Family::ExecutorCount)
        && let Some(figures) = state.app_metrics.figures(&state.hub, app, now).await
    {
        samples.extend(figures.samples());
    }
    if families.contains(&Family::ExecutorCount) {
        samples.extend(executor_counts(state, app).await?);
    }
    samples.retain(|(family, sample)| families.contains(family) && query.wants(sample));
    for (_, sample) in &mut samples {
        sample.labels.insert(0, ("application", app.name.clone()));
    }
    Ok(samples)
}

async fn executor_counts(
    state: &AppState,
    app: &AppRow,
) -> Result<Vec<(Family, Sample)>, StoreError> {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for executor in state.store.executors(&app.id).await? {
        let group = (executor.state.to_string(), executor.key.version);
        *counts.entry(group).or_default() += 1;
    }
    let sample = |((status, version), count)| Sample {
        labels: vec![("status", status), ("application_version", version)],
        value: f64::from(count),
        at: None,
    };
    Ok(counts
        .into_iter()
        .map(|group| (Family::ExecutorCount, sample(group)))
        .collect())
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_metrics))
        .routes(routes!(scrape))
}
