//! Counts of workflows and steps in groups.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{
    AggregateFilter, GetStepAggregates, GetWorkflowAggregates, StepAggregateRow, StepAggregates,
    WorkflowAggregateRow, WorkflowAggregates,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Body};
use super::filter::{list, lower, statuses, upper};
use super::forward;
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::state::AppState;
use crate::store::apps::AppRow;

/// What to count, of which workflows: at least one group, or a time bucket.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowAggregatesBody {
    /// Application versions
    pub app_version: Option<Vec<String>>,
    /// JSON that the workflow's attributes contain
    pub attributes: Option<Map<String, Value>>,
    /// Ended then or later
    pub completed_after: Option<Timestamp>,
    /// Ended then or earlier
    pub completed_before: Option<Timestamp>,
    /// Taken from a queue then or later
    pub dequeued_after: Option<Timestamp>,
    /// Taken from a queue then or earlier
    pub dequeued_before: Option<Timestamp>,
    /// Created then or earlier
    pub end_time: Option<Timestamp>,
    /// Executors
    pub executor_id: Option<Vec<String>>,
    /// Originals of forks
    pub forked_from: Option<Vec<String>>,
    /// By owner
    pub group_by_application_name: Option<bool>,
    /// By version
    pub group_by_app_version: Option<bool>,
    /// By executor
    pub group_by_executor_id: Option<bool>,
    /// By queue
    pub group_by_queue_name: Option<bool>,
    /// By status
    pub group_by_status: Option<bool>,
    /// By name
    pub group_by_workflow_name: Option<bool>,
    /// Whether it is a child of another
    pub has_parent: Option<bool>,
    /// Parents
    pub parent_workflow_id: Option<Vec<String>>,
    /// Queues
    pub queue_name: Option<Vec<String>>,
    /// Schedules that started them
    pub schedule_name: Option<Vec<String>>,
    /// How many; also if nothing is selected
    pub select_count: Option<bool>,
    /// The longest time on a queue
    pub select_max_queue_wait_ms: Option<bool>,
    /// The longest time from creation to end
    pub select_max_total_latency_ms: Option<bool>,
    /// The oldest creation
    pub select_min_created_at: Option<bool>,
    /// Created then or later
    pub start_time: Option<Timestamp>,
    /// Statuses
    pub status: Option<Vec<String>>,
    /// By time of creation, in buckets of this size
    pub time_bucket_size_ms: Option<i64>,
    /// Users they ran for
    pub user: Option<Vec<String>>,
    /// Whether others were forked from it
    pub was_forked_from: Option<bool>,
    /// Beginnings of ids
    pub workflow_id_prefix: Option<Vec<String>>,
    /// Ids
    pub workflow_ids: Option<Vec<String>>,
    /// Names
    pub workflow_name: Option<Vec<String>>,
}

/// Figures of one group; what was not selected is absent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowAggregate {
    /// How many
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// The group's values: status, name, queue_name, executor_id, application_version,
    /// application_name, time_bucket
    pub group: BTreeMap<String, Option<String>>,
    /// The longest time on a queue
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_wait_ms: Option<i64>,
    /// The longest time from creation to end
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total_latency_ms: Option<i64>,
    /// The oldest creation
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_created_at: Option<Timestamp>,
}

/// What to count, of which steps: at least one group, or a time bucket.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StepAggregatesBody {
    /// Ended then or later
    pub completed_after: Option<Timestamp>,
    /// Ended then or earlier
    pub completed_before: Option<Timestamp>,
    /// By step name
    pub group_by_function_name: Option<bool>,
    /// By outcome
    pub group_by_status: Option<bool>,
    /// How many; also if nothing is selected
    pub select_count: Option<bool>,
    /// The longest duration
    pub select_max_duration_ms: Option<bool>,
    /// Outcomes: SUCCESS, ERROR
    #[schema(nullable = false)]
    pub status: Option<Vec<String>>,
    /// Step names
    #[schema(nullable = false)]
    pub step_name: Option<Vec<String>>,
    /// By time of completion, in buckets of this size
    pub time_bucket_size_ms: Option<i64>,
    /// Beginnings of workflow ids
    #[schema(nullable = false)]
    pub workflow_id_prefix: Option<Vec<String>>,
}

/// Figures of one group; what was not selected is absent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepAggregate {
    /// How many
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// The group's values: function_name, status, time_bucket
    pub group: BTreeMap<String, Option<String>>,
    /// The longest duration
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration_ms: Option<i64>,
}

/// Refuses a question without groups, which no executor answers.
fn grouped(groups: &[Option<bool>], bucket: Option<i64>) -> Result<(), Problem> {
    if bucket.is_some_and(|bucket| bucket < 1) {
        return Err(Problem::bad_request("timeBucketSizeMs must be at least 1"));
    }
    if bucket.is_none() && !groups.contains(&Some(true)) {
        return Err(Problem::bad_request(
            "at least one groupBy… must be true, or timeBucketSizeMs given",
        ));
    }
    Ok(())
}

/// The figures that were asked for; none asked for means the count.
fn selected(figures: &[Option<bool>], count: Option<bool>) -> bool {
    count.unwrap_or(false) || !figures.contains(&Some(true))
}

impl WorkflowAggregatesBody {
    /// Refuses what the application's SDK ignores without a word: it would count too much.
    fn understood(&self, app: &AppRow) -> Result<(), Problem> {
        let given =
            |filter: &Option<Vec<String>>| filter.as_ref().is_some_and(|ids| !ids.is_empty());
        let java = [
            ("forkedFrom", given(&self.forked_from)),
            (
                "groupByApplicationName",
                self.group_by_application_name == Some(true),
            ),
            ("hasParent", self.has_parent.is_some()),
            ("parentWorkflowId", given(&self.parent_workflow_id)),
            ("user", given(&self.user)),
            ("wasForkedFrom", self.was_forked_from.is_some()),
            ("workflowIds", given(&self.workflow_ids)),
        ];
        let (language, ignored) = match app.language.as_deref() {
            Some("java") => ("java", &java[..]),
            Some("go") => ("go", &[][..]),
            _ => return Ok(()),
        };
        let schedule = ("scheduleName", given(&self.schedule_name));
        match ignored.iter().chain([&schedule]).find(|(_, used)| *used) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("the {language} SDK ignores {name} when it counts; list or search instead"),
            )),
        }
    }

    fn wire(self, app: &AppRow) -> Option<WorkflowAggregates> {
        let figures = [
            self.select_min_created_at,
            self.select_max_queue_wait_ms,
            self.select_max_total_latency_ms,
        ];
        let by_owner = self.group_by_application_name.unwrap_or(false);
        Some(WorkflowAggregates {
            group_by_status: self.group_by_status.unwrap_or(false),
            group_by_name: self.group_by_workflow_name.unwrap_or(false),
            group_by_queue_name: self.group_by_queue_name.unwrap_or(false),
            group_by_executor_id: self.group_by_executor_id.unwrap_or(false),
            group_by_application_version: self.group_by_app_version.unwrap_or(false),
            group_by_application_name: by_owner,
            time_bucket_size_ms: self.time_bucket_size_ms,
            select_count: selected(&figures, self.select_count),
            select_min_created_at: self.select_min_created_at.unwrap_or(false),
            select_max_queue_wait_ms: self.select_max_queue_wait_ms.unwrap_or(false),
            select_max_total_latency_ms: self.select_max_total_latency_ms.unwrap_or(false),
            filter: AggregateFilter {
                status: statuses(app, self.status)?,
                name: list(self.workflow_name),
                app_version: list(self.app_version),
                executor_id: list(self.executor_id),
                queue_name: list(self.queue_name),
                workflow_id_prefix: list(self.workflow_id_prefix),
                forked_from: list(self.forked_from),
                parent_workflow_id: list(self.parent_workflow_id),
                schedule_name: list(self.schedule_name),
                application_name: if by_owner {
                    Vec::new()
                } else {
                    vec![app.name.clone()]
                },
                workflow_ids: list(self.workflow_ids),
                user: list(self.user),
                start_time: lower(self.start_time),
                end_time: upper(self.end_time),
                completed_after: lower(self.completed_after),
                completed_before: upper(self.completed_before),
                dequeued_after: lower(self.dequeued_after),
                dequeued_before: upper(self.dequeued_before),
                was_forked_from: self.was_forked_from,
                has_parent: self.has_parent,
                attributes: self.attributes.filter(|attributes| !attributes.is_empty()),
            },
        })
    }
}

/// Count workflows in groups
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/workflows/aggregates", operation_id = "getWorkflowAggregates",
    tag = "Workflows", params(AppPath), request_body = Option<WorkflowAggregatesBody>,
    responses((status = 200, description = "OK", body = [WorkflowAggregate])),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-audit" = json!("read"))))]
async fn workflow_aggregates(
    State(state): State<AppState>,
    App(app): App,
    Body(body): Body<WorkflowAggregatesBody>,
) -> Result<Json<Vec<WorkflowAggregate>>, Problem> {
    let groups = [
        body.group_by_application_name,
        body.group_by_app_version,
        body.group_by_executor_id,
        body.group_by_queue_name,
        body.group_by_status,
        body.group_by_workflow_name,
    ];
    grouped(&groups, body.time_bucket_size_ms)?;
    body.understood(&app)?;
    let Some(body) = body.wire(&app) else {
        return Ok(Json(Vec::new()));
    };
    let rows = forward::read(&state.hub, &app, &GetWorkflowAggregates { body })
        .await?
        .output;
    let row = |row: WorkflowAggregateRow| WorkflowAggregate {
        count: row.count,
        group: row.group,
        max_queue_wait_ms: row.max_queue_wait_ms,
        max_total_latency_ms: row.max_total_latency_ms,
        min_created_at: row.min_created_at.map(Timestamp::from_ms),
    };
    Ok(Json(rows.into_iter().map(row).collect()))
}

/// Count steps in groups
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/steps/aggregates", operation_id = "getStepAggregates",
    tag = "Workflows", params(AppPath), request_body = Option<StepAggregatesBody>,
    responses((status = 200, description = "OK", body = [StepAggregate])),
    extensions(("x-segno-permission" = json!("application.read")), ("x-segno-audit" = json!("read"))))]
async fn step_aggregates(
    State(state): State<AppState>,
    App(app): App,
    Body(body): Body<StepAggregatesBody>,
) -> Result<Json<Vec<StepAggregate>>, Problem> {
    grouped(
        &[body.group_by_function_name, body.group_by_status],
        body.time_bucket_size_ms,
    )?;
    let body = StepAggregates {
        group_by_function_name: body.group_by_function_name.unwrap_or(false),
        group_by_status: body.group_by_status.unwrap_or(false),
        time_bucket_size_ms: body.time_bucket_size_ms,
        select_count: selected(&[body.select_max_duration_ms], body.select_count),
        select_max_duration_ms: body.select_max_duration_ms.unwrap_or(false),
        status: list(body.status),
        function_name: list(body.step_name),
        workflow_id_prefix: list(body.workflow_id_prefix),
        application_name: vec![app.name.clone()],
        completed_after: lower(body.completed_after),
        completed_before: upper(body.completed_before),
    };
    let rows = forward::read(&state.hub, &app, &GetStepAggregates { body })
        .await?
        .output;
    let row = |row: StepAggregateRow| StepAggregate {
        count: row.count,
        group: row.group,
        max_duration_ms: row.max_duration_ms,
    };
    Ok(Json(rows.into_iter().map(row).collect()))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(workflow_aggregates))
        .routes(routes!(step_aggregates))
}
