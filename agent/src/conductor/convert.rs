//! Between the protocol's messages and the system database's rows.

use segno_protocol as wire;

use super::render;
use crate::system_database as db;
use db::{Figure, Scope, StepGroup, WorkflowGroup};

/// A page's bound; none if it does not fit, which is more than there can be.
fn bound(number: Option<u64>) -> Option<i64> {
    number.and_then(|number| i64::try_from(number).ok())
}

/// The applications asked for, else our own.
pub(super) fn scope(asked: &[String], own: &Scope) -> Scope {
    if asked.is_empty() {
        own.clone()
    } else {
        Scope::Applications(asked.to_vec())
    }
}

pub(super) fn workflow_filter(asked: &wire::WorkflowFilter, own: &Scope) -> db::WorkflowFilter {
    let by_id = !asked.workflow_uuids.is_empty() && asked.application_name.is_empty();
    db::WorkflowFilter {
        ids: asked.workflow_uuids.clone(),
        id_prefixes: asked.workflow_id_prefix.clone(),
        statuses: asked.status.clone(),
        names: asked.workflow_name.clone(),
        application_versions: asked.application_version.clone(),
        authenticated_users: asked.authenticated_user.clone(),
        forked_from: asked.forked_from.clone(),
        parent_workflow_ids: asked.parent_workflow_id.clone(),
        queue_names: asked.queue_name.clone(),
        executor_ids: asked.executor_id.clone(),
        schedule_names: asked.schedule_name.clone(),
        // Who asks by id wants that workflow, whoever owns it.
        scope: if by_id {
            Scope::All
        } else {
            scope(&asked.application_name, own)
        },
        created_from: asked.start_time.map(|time| time.0),
        created_to: asked.end_time.map(|time| time.0),
        completed_from: asked.completed_after.map(|time| time.0),
        completed_to: asked.completed_before.map(|time| time.0),
        dequeued_from: asked.dequeued_after.map(|time| time.0),
        dequeued_to: asked.dequeued_before.map(|time| time.0),
        was_forked_from: asked.was_forked_from,
        is_fork: None,
        has_parent: asked.has_parent,
        attributes: asked.attributes.clone(),
        queues_only: asked.queues_only,
        failed_steps: Vec::new(),
    }
}

pub(super) fn listing(asked: &wire::WorkflowFilter) -> db::Listing {
    db::Listing {
        descending: asked.sort_desc,
        limit: bound(asked.limit),
        offset: bound(asked.offset),
        load_input: asked.load_input,
        load_output: asked.load_output,
    }
}

pub(super) fn steps_page(asked: &wire::ListSteps) -> (Option<i64>, Option<i64>) {
    (bound(asked.limit), bound(asked.offset))
}

pub(super) fn workflow(row: db::WorkflowRow) -> wire::WorkflowRecord {
    let format = row.serialization.as_deref();
    wire::WorkflowRecord {
        input: row.inputs.map(|stored| render::input(stored, format)),
        output: row.output.map(|stored| render::value(stored, format)),
        error: row.error.map(|stored| render::value(stored, format)),
        workflow_uuid: row.workflow_id,
        status: Some(row.status),
        workflow_name: row.name,
        workflow_class_name: row.class_name,
        workflow_config_name: row.config_name,
        authenticated_user: row.authenticated_user,
        assumed_role: row.assumed_role,
        authenticated_roles: row.authenticated_roles,
        created_at: Some(row.created_at),
        updated_at: Some(row.updated_at),
        queue_name: row.queue_name,
        application_version: row.application_version,
        executor_id: row.executor_id,
        workflow_timeout_ms: row.timeout_ms,
        workflow_deadline_epoch_ms: row.deadline,
        deduplication_id: row.deduplication_id,
        priority: Some(row.priority),
        queue_partition_key: row.queue_partition_key,
        forked_from: row.forked_from,
        was_forked_from: row.was_forked_from,
        parent_workflow_id: row.parent_workflow_id,
        dequeued_at: row.started_at,
        delay_until_epoch_ms: row.delay_until,
        completed_at: row.completed_at,
        attributes: row.attributes,
        schedule_name: row.schedule_name,
        application_name: row.application_name,
    }
}

pub(super) fn step(row: db::StepRow) -> wire::StepRecord {
    let format = row.serialization.as_deref();
    wire::StepRecord {
        function_id: row.function_id,
        function_name: Some(row.function_name),
        output: row.output.map(|stored| render::value(stored, format)),
        error: row.error.map(|stored| render::value(stored, format)),
        child_workflow_id: row.child_workflow_id,
        started_at_epoch_ms: row.started_at,
        completed_at_epoch_ms: row.completed_at,
    }
}

fn stored(stored: db::Stored) -> String {
    render::value(stored.value, stored.serialization.as_deref())
}

pub(super) fn event((key, value): (String, db::Stored)) -> wire::EventRecord {
    wire::EventRecord {
        key,
        value: Some(stored(value)),
    }
}

pub(super) fn message(row: db::MessageRow) -> wire::NotificationRecord {
    wire::NotificationRecord {
        topic: row.topic,
        message: Some(stored(row.message)),
        created_at_epoch_ms: Some(row.created_at),
        consumed: row.consumed,
    }
}

pub(super) fn stream((key, values): (String, Vec<db::Stored>)) -> wire::StreamRecord {
    wire::StreamRecord {
        key,
        values: values.into_iter().map(stored).collect(),
    }
}

pub(super) fn schedule(row: db::ScheduleRow, load_context: bool) -> wire::ScheduleRecord {
    wire::ScheduleRecord {
        schedule_id: Some(row.schedule_id),
        schedule_name: row.schedule_name,
        workflow_name: Some(row.workflow_name),
        workflow_class_name: row.workflow_class_name,
        schedule: Some(row.schedule),
        status: Some(row.status),
        context: load_context.then_some(row.context),
        last_fired_at: row.last_fired_at,
        automatic_backfill: row.automatic_backfill,
        cron_timezone: row.cron_timezone,
        queue_name: row.queue_name,
        application_name: row.application_name,
    }
}

pub(super) fn schedule_filter(asked: &wire::ScheduleFilter, own: &Scope) -> db::ScheduleFilter {
    db::ScheduleFilter {
        statuses: asked.status.clone(),
        workflow_names: asked.workflow_name.clone(),
        name_prefixes: asked.schedule_name_prefix.clone(),
        scope: scope(&asked.application_name, own),
    }
}

pub(super) fn queue(row: db::QueueRow) -> wire::QueueRecord {
    wire::QueueRecord {
        name: row.name,
        concurrency: row.concurrency,
        worker_concurrency: row.worker_concurrency,
        rate_limit_max: row.rate_limit_max,
        rate_limit_period_sec: row.rate_limit_period_sec,
        priority_enabled: row.priority_enabled,
        partition_queue: row.partition_queue,
        polling_interval_sec: Some(row.polling_interval_sec),
        application_name: row.application_name,
        partition_concurrency: row.partition_concurrency,
        partition_worker_concurrency: row.partition_worker_concurrency,
        partition_rate_limit_max: row.partition_rate_limit_max,
        partition_rate_limit_period_sec: row.partition_rate_limit_period_sec,
    }
}

pub(super) fn version(row: db::VersionRow) -> wire::VersionRecord {
    wire::VersionRecord {
        version_id: Some(row.version_id),
        version_name: row.version_name,
        version_timestamp: Some(row.version_timestamp),
        created_at: Some(row.created_at),
    }
}

pub(super) fn fork_point(point: wire::ForkPoint) -> db::ForkPoint {
    match point {
        wire::ForkPoint::LastFailure => db::ForkPoint::LastFailure,
        wire::ForkPoint::LastStep => db::ForkPoint::LastStep,
        wire::ForkPoint::Step(step) => db::ForkPoint::Step(step),
        wire::ForkPoint::StepName(name) => db::ForkPoint::StepNamed(name),
    }
}

/// The choices whose flag is set.
fn chosen<T: Copy>(choices: &[(bool, T)]) -> Vec<T> {
    choices
        .iter()
        .filter(|(flag, _)| *flag)
        .map(|(_, choice)| *choice)
        .collect()
}

pub(super) fn workflow_groups(asked: &wire::WorkflowAggregates) -> Vec<WorkflowGroup> {
    chosen(&[
        (asked.group_by_status, WorkflowGroup::Status),
        (asked.group_by_name, WorkflowGroup::Name),
        (asked.group_by_queue_name, WorkflowGroup::QueueName),
        (asked.group_by_executor_id, WorkflowGroup::ExecutorId),
        (
            asked.group_by_application_version,
            WorkflowGroup::ApplicationVersion,
        ),
        (
            asked.group_by_application_name,
            WorkflowGroup::ApplicationName,
        ),
    ])
}

pub(super) fn workflow_figures(asked: &wire::WorkflowAggregates) -> Vec<Figure> {
    chosen(&[
        (asked.select_count, Figure::Count),
        (asked.select_min_created_at, Figure::MinCreatedAt),
        (asked.select_max_queue_wait_ms, Figure::MaxQueueWaitMs),
        (asked.select_max_total_latency_ms, Figure::MaxTotalLatencyMs),
    ])
}

pub(super) fn aggregate_filter(asked: &wire::AggregateFilter, own: &Scope) -> db::WorkflowFilter {
    db::WorkflowFilter {
        ids: asked.workflow_ids.clone(),
        id_prefixes: asked.workflow_id_prefix.clone(),
        statuses: asked.status.clone(),
        names: asked.name.clone(),
        application_versions: asked.app_version.clone(),
        authenticated_users: asked.user.clone(),
        forked_from: asked.forked_from.clone(),
        parent_workflow_ids: asked.parent_workflow_id.clone(),
        queue_names: asked.queue_name.clone(),
        executor_ids: asked.executor_id.clone(),
        schedule_names: asked.schedule_name.clone(),
        scope: scope(&asked.application_name, own),
        created_from: asked.start_time.map(|time| time.0),
        created_to: asked.end_time.map(|time| time.0),
        completed_from: asked.completed_after.map(|time| time.0),
        completed_to: asked.completed_before.map(|time| time.0),
        dequeued_from: asked.dequeued_after.map(|time| time.0),
        dequeued_to: asked.dequeued_before.map(|time| time.0),
        was_forked_from: asked.was_forked_from,
        is_fork: None,
        has_parent: asked.has_parent,
        attributes: asked.attributes.clone(),
        queues_only: false,
        failed_steps: Vec::new(),
    }
}

pub(super) fn workflow_aggregate(row: db::Aggregate) -> wire::WorkflowAggregateRow {
    wire::WorkflowAggregateRow {
        group: row.group,
        count: row.count,
        min_created_at: row.min_created_at,
        max_queue_wait_ms: row.max_queue_wait_ms,
        max_total_latency_ms: row.max_total_latency_ms,
    }
}

pub(super) fn step_groups(asked: &wire::StepAggregates) -> Vec<StepGroup> {
    chosen(&[
        (asked.group_by_function_name, StepGroup::FunctionName),
        (asked.group_by_status, StepGroup::Status),
    ])
}

pub(super) fn step_figures(asked: &wire::StepAggregates) -> Vec<Figure> {
    chosen(&[
        (asked.select_count, Figure::Count),
        (asked.select_max_duration_ms, Figure::MaxDurationMs),
    ])
}

pub(super) fn step_filter(asked: &wire::StepAggregates, own: &Scope) -> db::StepFilter {
    db::StepFilter {
        statuses: asked.status.clone(),
        function_names: asked.function_name.clone(),
        workflow_id_prefixes: asked.workflow_id_prefix.clone(),
        scope: scope(&asked.application_name, own),
        completed_from: asked.completed_after.map(|time| time.0),
        completed_to: asked.completed_before.map(|time| time.0),
    }
}

pub(super) fn step_aggregate(row: db::Aggregate) -> wire::StepAggregateRow {
    wire::StepAggregateRow {
        group: row.group,
        count: row.count,
        max_duration_ms: row.max_duration_ms,
    }
}

pub(super) fn metric(row: db::Metric) -> wire::MetricRecord {
    // Counts beyond 2^53 do not occur.
    #[allow(clippy::cast_precision_loss)]
    let value = row.value as f64;
    wire::MetricRecord {
        metric_type: row.metric_type.to_owned(),
        metric_name: row.metric_name,
        value,
    }
}
