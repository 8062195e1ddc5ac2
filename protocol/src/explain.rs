//! Our own extension: what a running workflow waits for right now. Only Rust executors know it.

use crate::lenient;
use serde::{Deserialize, Serialize};

/// Asks the executor that runs a workflow what it waits for, which no table says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegnoExplain {
    /// The workflow's id.
    pub workflow_id: String,
}

/// What the workflow waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegnoExplainResponse {
    /// None if this executor does not run it.
    #[serde(default)]
    pub waiting_on: Option<WaitingOn>,
}

/// What a workflow waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingOn {
    /// `step`, `retry`, `sleep`, `message`, `event`, `workflow` or `database`.
    pub kind: String,
    /// One sentence for people.
    #[serde(default)]
    pub text: String,
    /// Since when, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub since: Option<i64>,
    /// Until when at most, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub until: Option<i64>,
    /// The position of the step.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub step: Option<i64>,
    /// The attempt under way, from 1.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub attempt: Option<i64>,
    /// How many attempts there may be.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub max_attempts: Option<i64>,
}
