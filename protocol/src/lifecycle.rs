//! Who an executor is, and taking over the work of a dead one.

use crate::lenient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Asks an executor who it is. Sent first on every connection; free of side effects, so also a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorInfo {}

/// Who an executor is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecutorInfoResponse {
    /// Unique among the application's processes; absent from Java when it failed.
    #[serde(default, deserialize_with = "lenient::name")]
    pub executor_id: Option<String>,
    /// The code version. Opaque; compared for equality only.
    #[serde(default, deserialize_with = "lenient::text")]
    pub application_version: Option<String>,
    /// The machine's name.
    #[serde(default, deserialize_with = "lenient::name")]
    pub hostname: Option<String>,
    /// `python`, `typescript`, `go`, `java` or `rust`. Absent from old releases.
    #[serde(default, deserialize_with = "lenient::name")]
    pub language: Option<String>,
    /// The library's release, such as `2.31.1`, `v1.2.0` or `unknown`. Absent from old releases.
    #[serde(default, deserialize_with = "lenient::name")]
    pub dbos_version: Option<String>,
    /// What the user attached to this process. Anything but an object is read as none.
    #[serde(default, deserialize_with = "object")]
    pub executor_metadata: Option<Map<String, Value>>,
}

fn object<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Map<String, Value>>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Object(map) => Some(map),
        _ => None,
    })
}

/// Tells an executor to take over the pending workflows of dead executors of *its own* version.
///
/// An executor of another version selects nothing and reports success; ask
/// [`ExistPendingWorkflows`] before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    #[serde(default, deserialize_with = "lenient::strings")]
    executor_ids: Vec<String>,
}

impl Recovery {
    /// None for an empty list: to some SDKs it means every pending workflow there is.
    pub fn new(executor_ids: Vec<String>) -> Option<Self> {
        (!executor_ids.is_empty()).then_some(Self { executor_ids })
    }

    /// The dead executors. May be empty in a received request, and then there is nothing to do.
    pub fn executor_ids(&self) -> &[String] {
        &self.executor_ids
    }
}

/// Asks whether any workflow of an executor and version is `PENDING`. Any executor of the same
/// application can answer, whatever its own version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExistPendingWorkflows {
    /// The executor asked about.
    pub executor_id: String,
    /// The version that executor had.
    pub application_version: String,
}

/// Whether anything is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExistPendingWorkflowsResponse {
    /// False next to an `error_message` means *unknown*.
    #[serde(deserialize_with = "lenient::flag")]
    pub exist: bool,
}
