//! Counting workflows and steps in groups.

use crate::{WireTime, lenient};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Counts workflows in groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetWorkflowAggregates {
    /// Groups, figures and filters.
    pub body: WorkflowAggregates,
}

/// What to count: at least one group or a time bucket; with no figure selected, the count.
///
/// Filters are arrays here, and two of them have another name than in a listing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "WorkflowAggregatesIn", into = "WorkflowAggregatesOut")]
pub struct WorkflowAggregates {
    /// Group by status.
    pub group_by_status: bool,
    /// Group by workflow name.
    pub group_by_name: bool,
    /// Group by queue.
    pub group_by_queue_name: bool,
    /// Group by executor.
    pub group_by_executor_id: bool,
    /// Group by version.
    pub group_by_application_version: bool,
    /// Group by owner.
    pub group_by_application_name: bool,
    /// Group by creation time, in buckets of this many milliseconds.
    pub time_bucket_size_ms: Option<i64>,
    /// How many.
    pub select_count: bool,
    /// The oldest creation time.
    pub select_min_created_at: bool,
    /// The longest time on a queue.
    pub select_max_queue_wait_ms: bool,
    /// The longest time from creation to end.
    pub select_max_total_latency_ms: bool,
    /// Only these.
    pub filter: AggregateFilter,
}

/// Which workflows to count. As in [`WorkflowFilter`](crate::WorkflowFilter).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AggregateFilter {
    /// Statuses.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub status: Vec<String>,
    /// Workflow names.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub name: Vec<String>,
    /// Code versions.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub app_version: Vec<String>,
    /// Executors.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub executor_id: Vec<String>,
    /// Queues.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub queue_name: Vec<String>,
    /// Beginnings of ids.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_id_prefix: Vec<String>,
    /// Originals of forks.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub forked_from: Vec<String>,
    /// Parents.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub parent_workflow_id: Vec<String>,
    /// Schedules.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub schedule_name: Vec<String>,
    /// Owners.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
    /// Ids. Also written as `workflow_uuids`, the only name that TypeScript 4 knows.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_ids: Vec<String>,
    /// Users. Also written as `authenticated_user`, for the same reason.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub user: Vec<String>,
    /// Created at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<WireTime>,
    /// Created at or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<WireTime>,
    /// Ended at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_after: Option<WireTime>,
    /// Ended at or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_before: Option<WireTime>,
    /// Taken from a queue at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dequeued_after: Option<WireTime>,
    /// Taken from a queue at or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dequeued_before: Option<WireTime>,
    /// Whether others were forked from it; not written if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_forked_from: Option<bool>,
    /// Whether it is a child; not written if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_parent: Option<bool>,
    /// JSON that its attributes must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, Value>>,
}

#[derive(Default, Serialize, Deserialize)]
struct WorkflowGroups {
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_status: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_name: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_queue_name: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_executor_id: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_application_version: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    group_by_application_name: bool,
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    time_bucket_size_ms: Option<i64>,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    select_count: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    select_min_created_at: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    select_max_queue_wait_ms: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    select_max_total_latency_ms: bool,
}

#[derive(Deserialize)]
struct WorkflowAggregatesIn {
    #[serde(flatten)]
    groups: WorkflowGroups,
    #[serde(flatten)]
    filter: AggregateFilter,
    #[serde(default, deserialize_with = "lenient::strings")]
    workflow_uuids: Vec<String>,
    #[serde(default, deserialize_with = "lenient::strings")]
    authenticated_user: Vec<String>,
}

#[derive(Serialize)]
struct WorkflowAggregatesOut {
    #[serde(flatten)]
    groups: WorkflowGroups,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workflow_uuids: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authenticated_user: Vec<String>,
    #[serde(flatten)]
    filter: AggregateFilter,
}

fn first_given(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    if one.is_empty() { other } else { one }
}

impl From<WorkflowAggregatesIn> for WorkflowAggregates {
    fn from(wire: WorkflowAggregatesIn) -> Self {
        let groups = wire.groups;
        let mut filter = wire.filter;
        filter.workflow_ids = first_given(filter.workflow_ids, wire.workflow_uuids);
        filter.user = first_given(filter.user, wire.authenticated_user);
        Self {
            group_by_status: groups.group_by_status,
            group_by_name: groups.group_by_name,
            group_by_queue_name: groups.group_by_queue_name,
            group_by_executor_id: groups.group_by_executor_id,
            group_by_application_version: groups.group_by_application_version,
            group_by_application_name: groups.group_by_application_name,
            time_bucket_size_ms: groups.time_bucket_size_ms,
            select_count: groups.select_count,
            select_min_created_at: groups.select_min_created_at,
            select_max_queue_wait_ms: groups.select_max_queue_wait_ms,
            select_max_total_latency_ms: groups.select_max_total_latency_ms,
            filter,
        }
    }
}

impl From<WorkflowAggregates> for WorkflowAggregatesOut {
    fn from(body: WorkflowAggregates) -> Self {
        Self {
            groups: WorkflowGroups {
                group_by_status: body.group_by_status,
                group_by_name: body.group_by_name,
                group_by_queue_name: body.group_by_queue_name,
                group_by_executor_id: body.group_by_executor_id,
                group_by_application_version: body.group_by_application_version,
                group_by_application_name: body.group_by_application_name,
                time_bucket_size_ms: body.time_bucket_size_ms,
                select_count: body.select_count,
                select_min_created_at: body.select_min_created_at,
                select_max_queue_wait_ms: body.select_max_queue_wait_ms,
                select_max_total_latency_ms: body.select_max_total_latency_ms,
            },
            workflow_uuids: body.filter.workflow_ids.clone(),
            authenticated_user: body.filter.user.clone(),
            filter: body.filter,
        }
    }
}

/// The groups that something fell into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflowAggregatesResponse {
    /// No row at all: nothing matched.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<WorkflowAggregateRow>,
}

/// The figures of one group; those not selected are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowAggregateRow {
    /// The group's value of each member grouped by: `status`, `name`, `queue_name`, `executor_id`,
    /// `application_version`, `application_name`, `time_bucket` (its start, epoch milliseconds as text).
    #[serde(default)]
    pub group: BTreeMap<String, Option<String>>,
    /// How many.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub count: Option<i64>,
    /// The oldest creation time, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub min_created_at: Option<i64>,
    /// The longest time on a queue.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub max_queue_wait_ms: Option<i64>,
    /// The longest time from creation to end.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub max_total_latency_ms: Option<i64>,
}

/// Counts recorded steps in groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetStepAggregates {
    /// Groups, figures and filters.
    pub body: StepAggregates,
}

/// What to count. With no figure selected, the count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepAggregates {
    /// Group by step name.
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    pub group_by_function_name: bool,
    /// Group by outcome: `SUCCESS` or `ERROR`.
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    pub group_by_status: bool,
    /// Group by completion time, in buckets of this many milliseconds.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub time_bucket_size_ms: Option<i64>,
    /// How many.
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    pub select_count: bool,
    /// The longest duration.
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    pub select_max_duration_ms: bool,
    /// Outcomes: `SUCCESS`, `ERROR`.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub status: Vec<String>,
    /// Step names.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub function_name: Vec<String>,
    /// Beginnings of workflow ids.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_id_prefix: Vec<String>,
    /// Owners. Java does not filter by it.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
    /// Ended at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_after: Option<WireTime>,
    /// Ended at or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_before: Option<WireTime>,
}

/// The groups that something fell into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStepAggregatesResponse {
    /// No row at all: nothing matched.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<StepAggregateRow>,
}

/// The figures of one group; those not selected are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAggregateRow {
    /// `function_name`, `status`, `time_bucket`, where grouped by.
    #[serde(default)]
    pub group: BTreeMap<String, Option<String>>,
    /// How many.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub count: Option<i64>,
    /// The longest duration.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub max_duration_ms: Option<i64>,
}
