//! Telling an application that something is wrong.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Runs the application's alert handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The rule's type: `WorkflowFailure`, `SlowQueue`, `UnresponsiveApplication`, …
    pub name: String,
    /// What happened, for people.
    pub message: String,
    /// Details. All values are text: Go stays silent on anything else.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}
