//! Finding workflows and their steps.

use crate::records::{StepRecord, WorkflowRecord};
use crate::{WireTime, lenient};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Lists workflows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListWorkflows {
    /// Which, and how much of each.
    pub body: WorkflowFilter,
}

/// Lists workflows that are or were on a queue. [`ListWorkflows`] with `queues_only` serves better.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListQueuedWorkflows {
    /// Which, and how much of each.
    pub body: WorkflowFilter,
}

/// Which workflows to list, and how much of each. Lists are any-of, and empty means any; all members
/// must hold. Times are inclusive at both ends.
///
/// As a received request: loads are on when absent, and a limit of 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowFilter {
    /// Ids. They are looked up whoever owns them, unless `application_name` is given too.
    #[serde(
        default,
        alias = "workflow_ids",
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_uuids: Vec<String>,
    /// Registered names.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_name: Vec<String>,
    /// Users they were started for.
    #[serde(
        default,
        alias = "user",
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub authenticated_user: Vec<String>,
    /// Statuses.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub status: Vec<String>,
    /// Code versions.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_version: Vec<String>,
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
    /// Queues.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub queue_name: Vec<String>,
    /// Executors.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub executor_id: Vec<String>,
    /// Beginnings of ids.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_id_prefix: Vec<String>,
    /// Schedules that started them.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub schedule_name: Vec<String>,
    /// Owners, where several applications share a database. Old releases do not filter by it.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
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
    /// Whether others were forked from it. Three-valued: none does not filter, and is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_forked_from: Option<bool>,
    /// Whether it is a child. Three-valued, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_parent: Option<bool>,
    /// JSON that its attributes must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, Value>>,
    /// Only those on a queue and, unless statuses are given, still active. (SDKs differ; see the
    /// protocol notes.)
    #[serde(default, deserialize_with = "lenient::flag")]
    pub queues_only: bool,
    /// At most this many; all if none.
    #[serde(
        default,
        deserialize_with = "lenient::count",
        skip_serializing_if = "Option::is_none"
    )]
    pub limit: Option<u64>,
    /// Leave out this many first.
    #[serde(
        default,
        deserialize_with = "lenient::count",
        skip_serializing_if = "Option::is_none"
    )]
    pub offset: Option<u64>,
    /// Newest first, by creation.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub sort_desc: bool,
    /// Whether to load inputs.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_input: bool,
    /// Whether to load outputs and errors.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_output: bool,
}

/// A page of workflows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListWorkflowsResponse {
    /// A record that cannot be read is left out.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<WorkflowRecord>,
}

/// One workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflow {
    /// Its id.
    pub workflow_id: String,
    /// Whether to load its input.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_input: bool,
    /// Whether to load its output or error.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_output: bool,
}

/// One workflow, if there is one of that id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflowResponse {
    /// None if there is none, which is not an error.
    #[serde(default)]
    pub output: Option<WorkflowRecord>,
}

/// The recorded steps of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSteps {
    /// Its id.
    pub workflow_id: String,
    /// Whether to load outputs and errors.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_output: bool,
    /// At most this many; all if none.
    #[serde(
        default,
        deserialize_with = "lenient::count",
        skip_serializing_if = "Option::is_none"
    )]
    pub limit: Option<u64>,
    /// Leave out this many first.
    #[serde(
        default,
        deserialize_with = "lenient::count",
        skip_serializing_if = "Option::is_none"
    )]
    pub offset: Option<u64>,
}

/// The recorded steps of a workflow, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStepsResponse {
    /// TypeScript sends none for an unknown workflow, Python an empty list.
    #[serde(default, deserialize_with = "lenient::optional_records")]
    pub output: Option<Vec<StepRecord>>,
}
