//! What a workflow did and published: steps, events, messages, streams.

use axum::Json;
use axum::extract::State;
use segno_protocol::{GetWorkflowEvents, GetWorkflowNotifications, GetWorkflowStreams, ListSteps};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Path, Query};
use super::filter::count;
use super::forward;
use super::path::{AppPath, WorkflowPath};
use super::problem::Problem;
use super::time::Timestamp;
use super::workflows::refuse_foreign;
use crate::auth::Caller;
use crate::state::AppState;

/// A recorded step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The child that it started or awaited
    #[schema(required = true)]
    pub child_workflow_id: Option<String>,
    /// When it ended
    #[schema(required = true)]
    pub completed_at: Option<Timestamp>,
    /// Its error
    #[schema(required = true)]
    pub error: Option<String>,
    /// Its output
    #[schema(required = true)]
    pub output: Option<String>,
    /// When it began
    #[schema(required = true)]
    pub started_at: Option<Timestamp>,
    /// Its position
    pub step_id: i32,
    /// Its name
    pub step_name: String,
}

/// The current value of an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Its key
    pub key: String,
    /// Its value
    pub value: String,
}

/// A message to a workflow.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Whether the workflow has received it
    pub consumed: bool,
    /// When it was sent
    pub created_at: Timestamp,
    /// The message
    pub message: String,
    /// Its topic
    #[schema(required = true)]
    pub topic: Option<String>,
}

/// A stream that a workflow writes.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamEntry {
    /// Its key
    pub key: String,
    /// Its values, oldest first
    pub values: Vec<String>,
}

/// A page of steps.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// At most so many; absent: all
    #[param(minimum = 0)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

/// List a workflow's steps
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/steps", operation_id = "listWorkflowSteps",
    tag = "Workflows", params(AppPath, WorkflowPath, PageQuery),
    responses((status = 200, description = "OK", body = [Step])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_steps(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Vec<Step>>, Problem> {
    if query.limit == Some(0) {
        return Ok(Json(Vec::new()));
    }
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
        limit: count(query.limit),
        offset: count(query.offset),
    };
    let steps = forward::read(&state.hub, &app, &message)
        .await?
        .output
        .unwrap_or_default();
    let step = |record: segno_protocol::StepRecord| Step {
        child_workflow_id: record.child_workflow_id,
        completed_at: record.completed_at_epoch_ms.map(Timestamp::from_ms),
        error: record.error,
        output: record.output,
        started_at: record.started_at_epoch_ms.map(Timestamp::from_ms),
        step_id: i32::try_from(record.function_id).unwrap_or(i32::MAX),
        step_name: record.function_name.unwrap_or_default(),
    };
    Ok(Json(steps.into_iter().map(step).collect()))
}

/// List a workflow's events
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/events", operation_id = "listWorkflowEvents",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK", body = [Event])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_events(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Json<Vec<Event>>, Problem> {
    if app.private_mode {
        return Ok(Json(Vec::new()));
    }
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = GetWorkflowEvents {
        workflow_id: path.workflow_id,
    };
    let events = forward::read(&state.hub, &app, &message).await?.events;
    let event = |record: segno_protocol::EventRecord| Event {
        key: record.key,
        value: record.value.unwrap_or_default(),
    };
    Ok(Json(events.into_iter().map(event).collect()))
}

/// List the messages sent to a workflow
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/notifications", operation_id = "listWorkflowNotifications",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK", body = [Notification])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_notifications(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Json<Vec<Notification>>, Problem> {
    if app.private_mode {
        return Ok(Json(Vec::new()));
    }
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = GetWorkflowNotifications {
        workflow_id: path.workflow_id,
    };
    let messages = forward::read(&state.hub, &app, &message)
        .await?
        .notifications;
    let notification = |record: segno_protocol::NotificationRecord| Notification {
        consumed: record.consumed,
        created_at: Timestamp::from_ms(record.created_at_epoch_ms.unwrap_or(0)),
        message: record.message.unwrap_or_default(),
        topic: record.topic,
    };
    Ok(Json(messages.into_iter().map(notification).collect()))
}

/// List a workflow's streams
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/{workflowId}/streams", operation_id = "listWorkflowStreams",
    tag = "Workflows", params(AppPath, WorkflowPath),
    responses((status = 200, description = "OK", body = [StreamEntry])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_streams(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<WorkflowPath>,
) -> Result<Json<Vec<StreamEntry>>, Problem> {
    if app.private_mode {
        return Ok(Json(Vec::new()));
    }
    refuse_foreign(
        &state,
        &caller,
        &app,
        std::slice::from_ref(&path.workflow_id),
    )
    .await?;
    let message = GetWorkflowStreams {
        workflow_id: path.workflow_id,
    };
    let streams = forward::read(&state.hub, &app, &message).await?.streams;
    let entry = |record: segno_protocol::StreamRecord| StreamEntry {
        key: record.key,
        values: record.values,
    };
    Ok(Json(streams.into_iter().map(entry).collect()))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_steps))
        .routes(routes!(list_events))
        .routes(routes!(list_notifications))
        .routes(routes!(list_streams))
}
