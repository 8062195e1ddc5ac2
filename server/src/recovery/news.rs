//! What happened to executors, as it happens: for `segno dev`, the event stream and the log.

use serde::{Deserialize, Serialize};

use super::machine::{ExecutorKey, Millis, Reason};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// When, by the store's clock.
    pub at: Millis,
    /// The application.
    pub app_id: String,
    /// The executor it happened to.
    pub executor_id: String,
    /// Its version.
    pub app_version: String,
    /// What.
    #[serde(flatten)]
    pub kind: NewsKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum NewsKind {
    /// Things may have happened at another instance that nobody told us: to no executor in particular.
    Missed,
    /// It connected.
    Connected,
    /// Its socket is gone; grace runs.
    Disconnected,
    /// It is connected but lets requests time out.
    Unresponsive,
    /// It answers again.
    Responsive,
    /// It came back; nothing (more) is recovered.
    Rejoined {
        /// The record of its loss.
        recovery_id: String,
    },
    /// Its grace is over.
    Dead {
        /// The record of its loss.
        recovery_id: String,
    },
    /// Its work is offered.
    Dispatching {
        /// The record of its loss.
        recovery_id: String,
        /// To whom.
        to: String,
        /// How much there is, if that is known.
        pending: Option<i64>,
    },
    /// Its work was seen to have moved.
    Recovered {
        /// The record of its loss.
        recovery_id: String,
        /// Who took it; nobody if it was forked to another version.
        recovered_by: Option<String>,
        /// How much there was, if that is known.
        pending: Option<i64>,
        /// From death to here, milliseconds.
        took_ms: Millis,
    },
    /// It had no work.
    NothingPending {
        /// The record of its loss.
        recovery_id: String,
    },
    /// Nobody can take its work.
    Stranded {
        /// The record of its loss.
        recovery_id: String,
        /// Why.
        reason: Reason,
        /// How much there is, if that is known.
        pending: Option<i64>,
    },
    /// An operator gave its work up.
    Abandoned {
        /// The record of its loss.
        recovery_id: String,
    },
}

impl News {
    /// News of an executor.
    pub fn of(key: &ExecutorKey, at: Millis, kind: NewsKind) -> Self {
        Self {
            at,
            app_id: key.app_id.clone(),
            executor_id: key.executor_id.clone(),
            app_version: key.version.clone(),
            kind,
        }
    }

    /// Writes it to the log.
    pub(super) fn log(&self) {
        let (app_id, executor_id, version) = (&self.app_id, &self.executor_id, &self.app_version);
        match &self.kind {
            // The hub has logged these, with addresses.
            NewsKind::Missed
            | NewsKind::Connected
            | NewsKind::Disconnected
            | NewsKind::Unresponsive
            | NewsKind::Responsive => {}
            NewsKind::Rejoined { recovery_id } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, "executor came back: nothing is recovered"
            ),
            NewsKind::Dead { recovery_id } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, "executor is dead: its grace is over"
            ),
            NewsKind::Dispatching {
                recovery_id,
                to,
                pending,
            } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, %to, pending, "offering its workflows"
            ),
            NewsKind::Recovered {
                recovery_id,
                recovered_by,
                pending,
                took_ms,
            } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, recovered_by, pending, took_ms,
                "workflows were taken over"
            ),
            NewsKind::NothingPending { recovery_id } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, "nothing was pending"
            ),
            NewsKind::Abandoned { recovery_id } => tracing::info!(
                %app_id, %executor_id, %version, %recovery_id, "its work was given up"
            ),
            NewsKind::Stranded {
                recovery_id,
                reason,
                pending,
            } => tracing::warn!(
                %app_id, %executor_id, %version, %recovery_id, ?reason, pending, "recovery is stranded"
            ),
        }
    }
}
