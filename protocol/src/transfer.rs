//! Moving whole workflows between databases.

use crate::lenient;
use serde::{Deserialize, Serialize};

/// Takes a workflow out as a blob. It stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportWorkflow {
    /// Its id.
    pub workflow_id: String,
    /// Whether to take its descendants along.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub export_children: bool,
}

/// The blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportWorkflowResponse {
    /// Base64 of gzip of a payload that only the same language reads. **Python's is code**: never open it.
    #[serde(default, deserialize_with = "lenient::name")]
    pub serialized_workflow: Option<String>,
}

/// Puts an exported workflow into the database. An id that exists is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportWorkflow {
    /// The blob, from an executor of the same language.
    pub serialized_workflow: String,
}
