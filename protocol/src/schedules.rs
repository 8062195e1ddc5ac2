//! Workflows that start by the clock.

use crate::records::ScheduleRecord;
use crate::{WireTime, lenient};
use serde::{Deserialize, Serialize};

/// Lists schedules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSchedules {
    /// Which. Always written: TypeScript does not survive its absence.
    #[serde(default)]
    pub body: ScheduleFilter,
}

/// Which schedules to list; empty lists mean any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFilter {
    /// `ACTIVE`, `PAUSED`.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub status: Vec<String>,
    /// What they start.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub workflow_name: Vec<String>,
    /// Beginnings of names.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub schedule_name_prefix: Vec<String>,
    /// Owners.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
    /// Whether to load contexts.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_context: bool,
}

/// The schedules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSchedulesResponse {
    /// A record that cannot be read is left out.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<ScheduleRecord>,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSchedule {
    /// Its name.
    pub schedule_name: String,
    /// Whether to load its context.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::flag_or_true")]
    pub load_context: bool,
}

/// One schedule, if there is one of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetScheduleResponse {
    /// None if there is none, which is not an error.
    #[serde(default)]
    pub output: Option<ScheduleRecord>,
}

macro_rules! of_one_schedule {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The schedule's name.
            pub schedule_name: String,
        }
    };
}

of_one_schedule!(
    /// Stops a schedule from firing. An unknown one is an error only in Go.
    PauseSchedule
);
of_one_schedule!(
    /// Lets a paused schedule fire again.
    ResumeSchedule
);
of_one_schedule!(
    /// Enqueues one run now, also of a paused schedule. Every call is a new run.
    TriggerSchedule
);

/// The run that was enqueued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerScheduleResponse {
    /// None on failure.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_id: Option<String>,
}

/// Enqueues every occurrence in a window. Those that exist already are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillSchedule {
    /// The schedule's name.
    pub schedule_name: String,
    /// From; an occurrence exactly then is not included.
    pub start: WireTime,
    /// To; exclusive, except in Java.
    pub end: WireTime,
}

/// The occurrences of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillScheduleResponse {
    /// Those that existed before included.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub workflow_ids: Vec<String>,
}
