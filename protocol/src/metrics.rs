//! Counts of workflows started and steps completed.

use crate::{WireTime, lenient};
use serde::{Deserialize, Serialize};

/// How many workflows were created, and steps completed, in a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetMetrics {
    /// From, inclusive.
    pub start_time: WireTime,
    /// To, exclusive.
    pub end_time: WireTime,
    /// Only `workflow_step_count` exists.
    pub metric_class: String,
    /// Owners; any if empty. Java does not filter by it.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
}

impl GetMetrics {
    /// The only `metric_class` there is.
    pub const WORKFLOW_STEP_COUNT: &'static str = "workflow_step_count";
}

/// One figure a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetMetricsResponse {
    /// Go sends null for none.
    #[serde(default, deserialize_with = "lenient::records")]
    pub metrics: Vec<MetricRecord>,
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// `workflow_count` or `step_count`.
    pub metric_type: String,
    /// The workflow's or step's name.
    pub metric_name: String,
    /// How many.
    #[serde(default)]
    pub value: f64,
}
