//! The records that several responses share.

use crate::lenient;
use serde::{Deserialize, Serialize};

/// A workflow. On the wire every value but two is text or null; an executor writes every key.
///
/// Times are milliseconds since the epoch. Values shown to people (`input`, `output`, `error`) are
/// rendered in the SDK's own way and opaque.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WorkflowRecord {
    /// Its id.
    #[serde(rename = "WorkflowUUID")]
    pub workflow_uuid: String,
    /// `ENQUEUED`, `DELAYED`, `PENDING`, `SUCCESS`, `ERROR`, `CANCELLED`,
    /// `MAX_RECOVERY_ATTEMPTS_EXCEEDED`; an open set.
    #[serde(default, deserialize_with = "lenient::name")]
    pub status: Option<String>,
    /// Its registered name.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_name: Option<String>,
    /// The class it is a method of.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_class_name: Option<String>,
    /// The configured instance it runs on.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_config_name: Option<String>,
    /// The user it runs for.
    #[serde(default, deserialize_with = "lenient::name")]
    pub authenticated_user: Option<String>,
    /// The role it runs in.
    #[serde(default, deserialize_with = "lenient::name")]
    pub assumed_role: Option<String>,
    /// The user's roles: JSON, from Python a list as Python prints it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub authenticated_roles: Option<String>,
    /// None unless loaded.
    #[serde(default, deserialize_with = "lenient::text")]
    pub input: Option<String>,
    /// None unless loaded, or there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub output: Option<String>,
    /// None unless outputs are loaded, or there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub error: Option<String>,
    /// When the row was made.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub created_at: Option<i64>,
    /// When the row last changed.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub updated_at: Option<i64>,
    /// The queue it is or was on. Cancelling clears it.
    #[serde(default, deserialize_with = "lenient::name")]
    pub queue_name: Option<String>,
    /// The code version it is bound to. None: only the latest may run it.
    #[serde(default, deserialize_with = "lenient::name")]
    pub application_version: Option<String>,
    /// Who runs or last ran it; before the first run, who enqueued it.
    #[serde(default, rename = "ExecutorID", deserialize_with = "lenient::name")]
    pub executor_id: Option<String>,
    /// How long it may run.
    #[serde(
        default,
        rename = "WorkflowTimeoutMS",
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub workflow_timeout_ms: Option<i64>,
    /// When it must have ended.
    #[serde(
        default,
        rename = "WorkflowDeadlineEpochMS",
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub workflow_deadline_epoch_ms: Option<i64>,
    /// What no second active workflow on the queue may have.
    #[serde(
        default,
        rename = "DeduplicationID",
        deserialize_with = "lenient::name"
    )]
    pub deduplication_id: Option<String>,
    /// Its place in the queue, lower first. 0 when unset.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub priority: Option<i64>,
    /// The partition of its queue.
    #[serde(default, deserialize_with = "lenient::text")]
    pub queue_partition_key: Option<String>,
    /// The workflow it is a fork of.
    #[serde(default, deserialize_with = "lenient::name")]
    pub forked_from: Option<String>,
    /// Whether others were forked from it.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub was_forked_from: bool,
    /// The workflow that started it.
    #[serde(
        default,
        rename = "ParentWorkflowID",
        deserialize_with = "lenient::name"
    )]
    pub parent_workflow_id: Option<String>,
    /// When it last was taken from a queue.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub dequeued_at: Option<i64>,
    /// When its delay ends or ended.
    #[serde(
        default,
        rename = "DelayUntilEpochMS",
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub delay_until_epoch_ms: Option<i64>,
    /// When it ended, cancelled included.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub completed_at: Option<i64>,
    /// The user's attributes as JSON text.
    #[serde(default, deserialize_with = "lenient::text")]
    pub attributes: Option<String>,
    /// The schedule that started it.
    #[serde(default, deserialize_with = "lenient::name")]
    pub schedule_name: Option<String>,
    /// The application that owns it. Not from Java.
    #[serde(default, deserialize_with = "lenient::name")]
    pub application_name: Option<String>,
}

/// A recorded step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its position. Python counts from 1, the others from 0; gaps are normal.
    pub function_id: i64,
    /// Its name; the library's own look like `DBOS.sleep`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub function_name: Option<String>,
    /// None unless loaded, or there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub output: Option<String>,
    /// None unless outputs are loaded, or there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub error: Option<String>,
    /// The child it started or awaited.
    #[serde(default, deserialize_with = "lenient::name")]
    pub child_workflow_id: Option<String>,
    /// Milliseconds since the epoch.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub started_at_epoch_ms: Option<i64>,
    /// Milliseconds since the epoch.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        serialize_with = "lenient::as_text"
    )]
    pub completed_at_epoch_ms: Option<i64>,
}

/// A schedule that is stored in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub schedule_id: Option<String>,
    /// Its name, unique in the database.
    pub schedule_name: String,
    /// What it starts.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_name: Option<String>,
    /// The class of what it starts.
    #[serde(default, deserialize_with = "lenient::name")]
    pub workflow_class_name: Option<String>,
    /// Cron, with an optional field of seconds.
    #[serde(default, deserialize_with = "lenient::text")]
    pub schedule: Option<String>,
    /// `ACTIVE` or `PAUSED`.
    #[serde(default, deserialize_with = "lenient::name")]
    pub status: Option<String>,
    /// The value each run gets, rendered for people; none unless loaded.
    #[serde(default, deserialize_with = "lenient::text")]
    pub context: Option<String>,
    /// The last occurrence: ISO 8601, in several shapes.
    #[serde(default, deserialize_with = "lenient::name")]
    pub last_fired_at: Option<String>,
    /// Whether missed occurrences are made up for.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub automatic_backfill: bool,
    /// IANA zone.
    #[serde(default, deserialize_with = "lenient::name")]
    pub cron_timezone: Option<String>,
    /// The queue its runs go to.
    #[serde(default, deserialize_with = "lenient::name")]
    pub queue_name: Option<String>,
    /// The application that owns it. Not from Java.
    #[serde(default, deserialize_with = "lenient::name")]
    pub application_name: Option<String>,
}

/// A queue that is stored in the database. Limits are none when there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Its name.
    pub name: String,
    /// How many may run, over all processes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub concurrency: Option<i64>,
    /// How many may run in one process.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub worker_concurrency: Option<i64>,
    /// How many may start in a period.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub rate_limit_max: Option<i64>,
    /// That period, seconds.
    #[serde(default, deserialize_with = "lenient::number")]
    pub rate_limit_period_sec: Option<f64>,
    /// Always true in newer releases.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub priority_enabled: bool,
    /// Whether it is partitioned.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub partition_queue: bool,
    /// How often it is looked at, seconds.
    #[serde(default, deserialize_with = "lenient::number")]
    pub polling_interval_sec: Option<f64>,
    /// The application that owns it. Not from Java.
    #[serde(default, deserialize_with = "lenient::name")]
    pub application_name: Option<String>,
    /// How many of one partition may run, over all processes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub partition_concurrency: Option<i64>,
    /// How many of one partition may run in one process.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub partition_worker_concurrency: Option<i64>,
    /// How many of one partition may start in a period.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub partition_rate_limit_max: Option<i64>,
    /// That period, seconds.
    #[serde(default, deserialize_with = "lenient::number")]
    pub partition_rate_limit_period_sec: Option<f64>,
}

/// A registered application version. The latest is the one with the highest `version_timestamp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub version_id: Option<String>,
    /// What executors report as their application version.
    pub version_name: String,
    /// When it was last made the latest, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub version_timestamp: Option<i64>,
    /// When it was first seen, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub created_at: Option<i64>,
}
