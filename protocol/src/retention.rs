//! Deleting old workflows and cancelling overdue ones.

use crate::lenient;
use serde::{Deserialize, Serialize};

/// Deletes ended workflows and cancels overdue ones. From newer SDKs success only means *accepted*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How far to go.
    pub body: RetentionLimits,
}

/// How far to go. The first three are always written, null if none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionLimits {
    /// Delete what ended before this, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub gc_cutoff_epoch_ms: Option<i64>,
    /// Keep about this many of the newest; above 0.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub gc_rows_threshold: Option<i64>,
    /// Cancel what has not ended and was created at or before this, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub timeout_cutoff_epoch_ms: Option<i64>,
    /// Rows a transaction; the executor's own default if none.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub gc_batch_size: Option<i64>,
}
