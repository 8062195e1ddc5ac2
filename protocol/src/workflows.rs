//! Acting on workflows: cancel, delete, resume, restart, rewind, fork.

use crate::lenient;
use serde::{Deserialize, Serialize};

macro_rules! targets {
    ($message:ident) => {
        impl $message {
            /// The ids it names: the list if there is one, else the single id.
            pub fn ids(&self) -> &[String] {
                if self.workflow_ids.is_empty() {
                    std::slice::from_ref(&self.workflow_id)
                } else {
                    &self.workflow_ids
                }
            }
        }
    };
}

/// The first of several ids, and the list where there is more than one: a list of one is sent as the
/// single id, which every release understands, and an empty one cannot be sent.
fn split(ids: Vec<String>) -> Option<(String, Vec<String>)> {
    let first = ids.first()?.clone();
    Some((first, if ids.len() > 1 { ids } else { Vec::new() }))
}

/// Cancels workflows that have not ended. Unknown ids are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The first id.
    #[serde(default)]
    pub workflow_id: String,
    /// All ids, if there are several.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_ids: Vec<String>,
    /// Whether to cancel their descendants too.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub cancel_children: bool,
}
targets!(Cancel);

impl Cancel {
    /// None if `ids` is empty.
    pub fn new(ids: Vec<String>, cancel_children: bool) -> Option<Self> {
        split(ids).map(|(workflow_id, workflow_ids)| Self {
            workflow_id,
            workflow_ids,
            cancel_children,
        })
    }
}

/// Deletes workflows in any state, with all they recorded. Unknown ids are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The first id.
    #[serde(default)]
    pub workflow_id: String,
    /// All ids, if there are several.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_ids: Vec<String>,
    /// Whether to delete their descendants too.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub delete_children: bool,
}
targets!(Delete);

impl Delete {
    /// None if `ids` is empty.
    pub fn new(ids: Vec<String>, delete_children: bool) -> Option<Self> {
        split(ids).map(|(workflow_id, workflow_ids)| Self {
            workflow_id,
            workflow_ids,
            delete_children,
        })
    }
}

/// Puts workflows that have not succeeded or failed back on a queue, to go on from their last
/// checkpoint. A running one may run twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The first id.
    #[serde(default)]
    pub workflow_id: String,
    /// All ids, if there are several.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_ids: Vec<String>,
    /// The queue; the internal one if none.
    #[serde(
        default,
        deserialize_with = "lenient::name",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_name: Option<String>,
}
targets!(Resume);

impl Resume {
    /// None if `ids` is empty.
    pub fn new(ids: Vec<String>, queue_name: Option<String>) -> Option<Self> {
        split(ids).map(|(workflow_id, workflow_ids)| Self {
            workflow_id,
            workflow_ids,
            queue_name,
        })
    }
}

/// A fork from the beginning that does not tell the new id. Old executors know it; never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The original.
    pub workflow_id: String,
}

/// Makes an ended workflow run again in place from a step on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindWorkflow {
    /// What to rewind, and where to.
    pub body: Rewind,
}

/// What to rewind, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The workflow; it keeps its id.
    pub workflow_id: String,
    /// The first step to run again; the beginning if none.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_step: Option<i64>,
    /// The version to bind it to; unchanged if none. (A null would clear it in TypeScript.)
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub application_version: Option<String>,
    /// The queue; the internal one if none.
    #[serde(
        default,
        deserialize_with = "lenient::name",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_name: Option<String>,
    /// The partition of the queue; cleared if none.
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_partition_key: Option<String>,
}

/// Starts a new workflow from another's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkWorkflow {
    /// What to fork, and where.
    pub body: Fork,
}

/// What to fork, and where.
///
/// `new_workflow_id` and `application_version` are always written, null if none: Python closes the
/// connection otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The original.
    pub workflow_id: String,
    /// The first step to run again; checkpoints before it are copied. 0 is the beginning everywhere.
    #[serde(default)]
    pub start_step: u32,
    /// The version of the fork. None means the latest in Python and the original's elsewhere.
    #[serde(default, deserialize_with = "lenient::text")]
    pub application_version: Option<String>,
    /// The fork's id. None: the executor makes one, and a repeated request forks twice.
    #[serde(default, deserialize_with = "lenient::name")]
    pub new_workflow_id: Option<String>,
    /// The queue; the internal one if none.
    #[serde(
        default,
        deserialize_with = "lenient::name",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_name: Option<String>,
    /// The partition of the queue.
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_partition_key: Option<String>,
}

/// The id of the fork.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkWorkflowResponse {
    /// None on failure.
    #[serde(default, deserialize_with = "lenient::name")]
    pub new_workflow_id: Option<String>,
}

/// Forks several workflows, each from a place that is found in its own history. All or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkFromFailure {
    /// What to fork, and where from.
    pub body: BulkFork,
}

/// What to fork, and where from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkFork {
    /// The originals.
    #[serde(default, deserialize_with = "lenient::strings")]
    pub workflow_ids: Vec<String>,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    from_last_failure: bool,
    #[serde(
        default,
        deserialize_with = "lenient::flag",
        skip_serializing_if = "is_false"
    )]
    from_last_step: bool,
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    from_step: Option<i64>,
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    from_step_name: Option<String>,
    /// The version of the forks; see [`Fork::application_version`].
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub application_version: Option<String>,
    /// The queue; the internal one if none.
    #[serde(
        default,
        deserialize_with = "lenient::name",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_name: Option<String>,
    /// The partition of the queue.
    #[serde(
        default,
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_partition_key: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Where in a workflow's history its fork starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkPoint {
    /// The last step with an error, else the last step.
    LastFailure,
    /// The last recorded step.
    LastStep,
    /// This step, for all.
    Step(i64),
    /// The last step of this name.
    StepName(String),
}

impl BulkFork {
    /// A request with exactly one fork point, as every SDK demands.
    pub fn new(workflow_ids: Vec<String>, from: ForkPoint) -> Self {
        let mut fork = Self {
            workflow_ids,
            from_last_failure: false,
            from_last_step: false,
            from_step: None,
            from_step_name: None,
            application_version: None,
            queue_name: None,
            queue_partition_key: None,
        };
        match from {
            ForkPoint::LastFailure => fork.from_last_failure = true,
            ForkPoint::LastStep => fork.from_last_step = true,
            ForkPoint::Step(step) => fork.from_step = Some(step),
            ForkPoint::StepName(name) => fork.from_step_name = Some(name),
        }
        fork
    }

    /// The fork point, or an error if a received request names none or several.
    pub fn point(&self) -> Result<ForkPoint, &'static str> {
        let mut points = [
            self.from_last_failure.then_some(ForkPoint::LastFailure),
            self.from_last_step.then_some(ForkPoint::LastStep),
            self.from_step.map(ForkPoint::Step),
            self.from_step_name.clone().map(ForkPoint::StepName),
        ]
        .into_iter()
        .flatten();
        match (points.next(), points.next()) {
            (Some(point), None) => Ok(point),
            _ => Err(
                "exactly one of from_last_failure, from_last_step, from_step, from_step_name must be specified",
            ),
        }
    }
}

/// The ids of the forks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkFromFailureResponse {
    /// In the order asked; none on failure.
    #[serde(default)]
    pub forked_workflow_ids: Option<Vec<String>>,
}
