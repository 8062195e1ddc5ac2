//! Queues, as the application's own database defines them.

use axum::Json;
use axum::extract::State;
use segno_protocol::{GetQueue, ListQueues, QueueFilter, QueueRecord};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Object, Path};
use super::forward;
use super::path::{AppPath, QueuePath};
use super::problem::Problem;
use crate::state::AppState;

/// A queue. A limit of null is none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// The application that owns it
    #[schema(required = true)]
    pub application_name: Option<String>,
    /// How many may run at once
    #[schema(required = true)]
    pub concurrency: Option<i32>,
    /// Name
    pub name: String,
    /// How many of one partition may run at once
    #[schema(required = true)]
    pub partition_concurrency: Option<i32>,
    /// Whether it is partitioned
    pub partition_queue: bool,
    /// How many of one partition may start in a period
    #[schema(required = true)]
    pub partition_rate_limit_max: Option<i32>,
    /// That period
    #[schema(required = true)]
    pub partition_rate_limit_period_secs: Option<f64>,
    /// How many of one partition may run at once in one process
    #[schema(required = true)]
    pub partition_worker_concurrency: Option<i32>,
    /// How often it is looked at
    pub polling_interval_secs: f64,
    /// Whether priorities count
    pub priority_enabled: bool,
    /// How many may start in a period
    #[schema(required = true)]
    pub rate_limit_max: Option<i32>,
    /// That period
    #[schema(required = true)]
    pub rate_limit_period_secs: Option<f64>,
    /// How many may run at once in one process
    #[schema(required = true)]
    pub worker_concurrency: Option<i32>,
}

impl From<QueueRecord> for Queue {
    fn from(record: QueueRecord) -> Self {
        let int32 = |value: Option<i64>| value.and_then(|value| i32::try_from(value).ok());
        Self {
            application_name: record.application_name,
            concurrency: int32(record.concurrency),
            name: record.name,
            partition_concurrency: int32(record.partition_concurrency),
            partition_queue: record.partition_queue,
            partition_rate_limit_max: int32(record.partition_rate_limit_max),
            partition_rate_limit_period_secs: record.partition_rate_limit_period_sec,
            partition_worker_concurrency: int32(record.partition_worker_concurrency),
            polling_interval_secs: record.polling_interval_sec.unwrap_or(1.0),
            priority_enabled: record.priority_enabled,
            rate_limit_max: int32(record.rate_limit_max),
            rate_limit_period_secs: record.rate_limit_period_sec,
            worker_concurrency: int32(record.worker_concurrency),
        }
    }
}

/// List queues
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/queues", operation_id = "listQueues", tag = "Queues",
    params(AppPath), responses((status = 200, description = "OK", body = [Queue])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_queues(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<Queue>>, Problem> {
    let body = QueueFilter {
        application_name: vec![app.name.clone()],
    };
    let queues = forward::read(&state.hub, &app, &ListQueues { body })
        .await?
        .output;
    Ok(Json(queues.into_iter().map(Queue::from).collect()))
}

/// Get a queue
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/queues/{queueName}", operation_id = "getQueue", tag = "Queues",
    params(AppPath, QueuePath), responses((status = 200, description = "OK", body = Queue)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_queue(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<QueuePath>,
) -> Result<Object<Queue>, Problem> {
    let message = GetQueue {
        name: path.queue_name,
    };
    let queue = forward::read(&state.hub, &app, &message).await?.output;
    let queue =
        queue.ok_or_else(|| Problem::not_found(format!("there is no queue `{}`", message.name)))?;
    Ok(Object(queue.into()))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_queues))
        .routes(routes!(get_queue))
}
