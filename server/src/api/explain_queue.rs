//! Why a workflow on a queue is not taken: its place, and the limit that holds it.

use segno_protocol::{GetQueue, ListWorkflows, QueueRecord, WorkflowFilter, WorkflowRecord};

use super::explain::{Explanation, ExplanationCode, Subject};
use super::forward;
use super::problem::Problem;
use super::time::Timestamp;

/// At most so many of a queue are looked at.
const LOOK: usize = 1000;

/// What a queue of ours, or one partition of it, is doing.
struct Traffic {
    /// Waiting, the oldest first.
    enqueued: Vec<WorkflowRecord>,
    /// Running.
    pending: usize,
}

/// The workflow is on a queue, and `executors` healthy ones of its version could take it.
pub(super) async fn waiting(
    subject: &Subject<'_>,
    executors: usize,
) -> Result<Explanation, Problem> {
    let record = subject.record;
    let Some(name) = record.queue_name.clone() else {
        let text = "it is enqueued, and its executors take it when they look";
        return Ok(Explanation::new(ExplanationCode::Queued, text).since(record.created_at));
    };
    let enqueued = listed(subject, &name, "ENQUEUED", None).await?;
    let pending = listed(subject, &name, "PENDING", None).await?.len();
    let traffic = Traffic { enqueued, pending };
    let seen_all = traffic.enqueued.len() < LOOK;
    let ahead = ahead_of(record, &traffic.enqueued);
    let queue = queue(subject, &name).await?;
    let explanation = match &queue {
        Some(queue) => match full(queue, record, &traffic, executors) {
            Some(explanation) => Some(explanation),
            None => rate_limited(subject, queue, record).await?,
        },
        None => None,
    };
    let explanation = explanation.unwrap_or_else(|| {
        let text = match ahead {
            0 => "it is the next of its queue, and is taken when an executor that serves the queue looks".to_owned(),
            _ => format!("{ahead} workflows of its queue are before it"),
        };
        Explanation::new(ExplanationCode::Queued, text)
    });
    Ok(explanation
        .since(record.created_at)
        .detail("queueName", name)
        .detail("queuePartitionKey", record.queue_partition_key.clone())
        .detail("position", ahead + 1)
        .detail("positionIsExact", seen_all)
        .detail("running", traffic.pending))
}

/// How many are taken before `record`: lower priority numbers first, then the older.
fn ahead_of(record: &WorkflowRecord, enqueued: &[WorkflowRecord]) -> usize {
    let order =
        |record: &WorkflowRecord| (record.priority.unwrap_or(0), record.created_at.unwrap_or(0));
    let own = order(record);
    let before =
        |other: &&WorkflowRecord| other.workflow_uuid != record.workflow_uuid && order(other) < own;
    enqueued.iter().filter(before).count()
}

/// Workflows of the queue and of the workflow's partition in a status, the oldest first.
async fn listed(
    subject: &Subject<'_>,
    queue: &str,
    status: &str,
    dequeued_after: Option<i64>,
) -> Result<Vec<WorkflowRecord>, Problem> {
    let body = WorkflowFilter {
        status: if status.is_empty() {
            Vec::new()
        } else {
            vec![status.to_owned()]
        },
        queue_name: vec![queue.to_owned()],
        dequeued_after: dequeued_after.map(|after| Timestamp::from_ms(after).lower_bound()),
        limit: Some(LOOK as u64),
        load_input: false,
        load_output: false,
        ..WorkflowFilter::default()
    };
    let found = forward::read(&subject.state.hub, subject.app, &ListWorkflows { body }).await?;
    let partition = &subject.record.queue_partition_key;
    let mut listed = found.output;
    if partition.is_some() {
        listed.retain(|record| record.queue_partition_key == *partition);
    }
    Ok(listed)
}

/// The queue, if it is stored: older applications define theirs in code only.
async fn queue(subject: &Subject<'_>, name: &str) -> Result<Option<QueueRecord>, Problem> {
    let message = GetQueue {
        name: name.to_owned(),
    };
    match forward::read(&subject.state.hub, subject.app, &message).await {
        Ok(answer) => Ok(answer.output),
        Err(problem) if problem.status() == axum::http::StatusCode::NOT_IMPLEMENTED => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The queue runs as many as it may.
fn full(
    queue: &QueueRecord,
    record: &WorkflowRecord,
    traffic: &Traffic,
    executors: usize,
) -> Option<Explanation> {
    let partitioned = record.queue_partition_key.is_some();
    let in_all = |each: Option<i64>| each.map(|each| each.saturating_mul(executors as i64));
    let limits = [
        ("concurrency", queue.concurrency, queue.concurrency),
        (
            "workerConcurrency",
            queue.worker_concurrency,
            in_all(queue.worker_concurrency),
        ),
        (
            "partitionConcurrency",
            queue.partition_concurrency.filter(|_| partitioned),
            queue.partition_concurrency,
        ),
        (
            "partitionWorkerConcurrency",
            queue.partition_worker_concurrency.filter(|_| partitioned),
            in_all(queue.partition_worker_concurrency),
        ),
    ];
    let running = traffic.pending as i64;
    let (name, limit, _) = limits
        .into_iter()
        .filter_map(|(name, limit, total)| Some((name, limit?, total?)))
        .find(|(_, _, total)| running >= *total)?;
    let workflows = if running == 1 {
        "workflow"
    } else {
        "workflows"
    };
    let text =
        format!("its queue runs {running} {workflows}, as many as its {name} of {limit} allows");
    Some(
        Explanation::new(ExplanationCode::QueueFull, text)
            .detail("limitedBy", name)
            .detail("limit", limit),
    )
}

/// The queue has started as many as it may in its period; `until` is when the first of them is out of
/// it.
async fn rate_limited(
    subject: &Subject<'_>,
    queue: &QueueRecord,
    record: &WorkflowRecord,
) -> Result<Option<Explanation>, Problem> {
    let of_partition = queue
        .partition_rate_limit_max
        .zip(queue.partition_rate_limit_period_sec);
    let limit = match of_partition.filter(|_| record.queue_partition_key.is_some()) {
        Some(limit) => Some(limit),
        None => queue.rate_limit_max.zip(queue.rate_limit_period_sec),
    };
    let Some((most, period)) = limit else {
        return Ok(None);
    };
    let period_ms = (period * 1000.0) as i64;
    let after = subject.now.saturating_sub(period_ms);
    let mut started: Vec<i64> = listed(subject, &queue.name, "", Some(after))
        .await?
        .iter()
        .filter_map(|record| record.dequeued_at)
        .collect();
    started.sort_unstable();
    let count = started.len() as i64;
    if count < most {
        return Ok(None);
    }
    // Room for one is there when all but `most - 1` of them are out of the period.
    let first_out = usize::try_from(count - most)
        .ok()
        .and_then(|at| started.get(at));
    let text =
        format!("its queue started {count} workflows in {period} s, as many as it may ({most})");
    let explanation = Explanation::new(ExplanationCode::QueueRateLimited, text)
        .until(first_out.map(|at| at.saturating_add(period_ms)))
        .detail("limitedBy", "rateLimit")
        .detail("limit", most)
        .detail("periodSecs", period);
    Ok(Some(explanation))
}
