//! Which workflows: the search body of the API and the filter of the protocol.

use segno_protocol::{WireTime, WorkflowFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::time::Timestamp;
use crate::store::apps::AppRow;

/// Which workflows to list and how much of each; all members must hold, a list means any of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowSearchBody {
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
    /// Whether it is a child of another
    pub has_parent: Option<bool>,
    /// At most so many; absent: all
    #[schema(minimum = 0)]
    pub limit: Option<i64>,
    /// Whether to load inputs
    pub load_input: Option<bool>,
    /// Whether to load outputs and errors
    pub load_output: Option<bool>,
    /// Leave out so many first
    #[schema(minimum = 0)]
    pub offset: Option<i64>,
    /// Parents
    pub parent_workflow_id: Option<Vec<String>>,
    /// Queues
    pub queue_name: Option<Vec<String>>,
    /// Only those on a queue
    pub queues_only: Option<bool>,
    /// Schedules that started them
    pub schedule_name: Option<Vec<String>>,
    /// Newest first
    pub sort_desc: Option<bool>,
    /// Created then or later
    pub start_time: Option<Timestamp>,
    /// Statuses
    pub status: Option<Vec<String>>,
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

/// Statuses that a Java executor can parse; it fails on others.
const STATUSES: [&str; 7] = [
    "ENQUEUED",
    "DELAYED",
    "PENDING",
    "SUCCESS",
    "ERROR",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    "CANCELLED",
];

/// The statuses to ask for; `None` if the filter can match nothing.
pub(super) fn statuses(app: &AppRow, asked: Option<Vec<String>>) -> Option<Vec<String>> {
    let asked = list(asked);
    if asked.is_empty() || app.language.as_deref() != Some("java") {
        return Some(asked);
    }
    let known: Vec<String> = asked
        .into_iter()
        .filter(|status| STATUSES.contains(&status.as_str()))
        .collect();
    (!known.is_empty()).then_some(known)
}

/// An absent, null or empty list is no filter.
pub(super) fn list(value: Option<Vec<String>>) -> Vec<String> {
    value.unwrap_or_default()
}

pub(super) fn lower(time: Option<Timestamp>) -> Option<WireTime> {
    time.map(Timestamp::lower_bound)
}

pub(super) fn upper(time: Option<Timestamp>) -> Option<WireTime> {
    time.map(Timestamp::upper_bound)
}

pub(super) fn count(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}

impl WorkflowSearchBody {
    /// What to ask an executor of `app`; `None` if nothing can match.
    pub(crate) fn wire(self, app: &AppRow) -> Option<WorkflowFilter> {
        if self.limit == Some(0) {
            return None;
        }
        Some(WorkflowFilter {
            status: statuses(app, self.status)?,
            workflow_uuids: list(self.workflow_ids),
            workflow_name: list(self.workflow_name),
            authenticated_user: list(self.user),
            application_version: list(self.app_version),
            forked_from: list(self.forked_from),
            parent_workflow_id: list(self.parent_workflow_id),
            queue_name: list(self.queue_name),
            executor_id: list(self.executor_id),
            workflow_id_prefix: list(self.workflow_id_prefix),
            schedule_name: list(self.schedule_name),
            application_name: vec![app.name.clone()],
            start_time: lower(self.start_time),
            end_time: upper(self.end_time),
            completed_after: lower(self.completed_after),
            completed_before: upper(self.completed_before),
            dequeued_after: lower(self.dequeued_after),
            dequeued_before: upper(self.dequeued_before),
            was_forked_from: self.was_forked_from,
            has_parent: self.has_parent,
            attributes: self.attributes.filter(|attributes| !attributes.is_empty()),
            queues_only: self.queues_only.unwrap_or(false),
            limit: count(self.limit),
            offset: count(self.offset),
            sort_desc: self.sort_desc.unwrap_or(false),
            load_input: self.load_input.unwrap_or(false) && !app.private_mode,
            load_output: self.load_output.unwrap_or(false) && !app.private_mode,
        })
    }
}
