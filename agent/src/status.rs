//! Where a workflow is in its life.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// On a queue, not before a given instant.
    Delayed,
    /// On a queue.
    Enqueued,
    /// Running, or left behind by a process that died.
    Pending,
    /// Ended with a result.
    Success,
    /// Ended with an error.
    Error,
    /// Cancelled; may be resumed.
    Cancelled,
    /// Recovered too often and set aside; may be resumed.
    MaxRecoveryAttemptsExceeded,
}

impl Status {
    /// The name in the database, such as `PENDING`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "DELAYED",
            Self::Enqueued => "ENQUEUED",
            Self::Pending => "PENDING",
            Self::Success => "SUCCESS",
            Self::Error => "ERROR",
            Self::Cancelled => "CANCELLED",
            Self::MaxRecoveryAttemptsExceeded => "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
        }
    }

    /// Whether the run may still change by itself.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Delayed | Self::Enqueued | Self::Pending)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [
            Self::Delayed,
            Self::Enqueued,
            Self::Pending,
            Self::Success,
            Self::Error,
            Self::Cancelled,
            Self::MaxRecoveryAttemptsExceeded,
        ];
        all.into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| {
                Error::serialization(
                    "workflow status",
                    format_args!("`{text}` is none of the known ones"),
                )
            })
    }
}
