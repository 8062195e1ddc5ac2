//! Stored metrics: how many workflows began, steps ended and executors were recovered since the last
//! round, and how many workflows wait on each queue at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use segno_protocol::{
    AggregateFilter, GetMetrics, GetWorkflowAggregates, MetricRecord, WireTime, WorkflowAggregates,
};

use super::{Context, ms};
use crate::hub::{Class, HubError, Target};
use crate::store::StoreError;
use crate::store::apps::AppRow;
use crate::store::metrics::MetricRow;

const JOB: &str = "metrics";
/// Status of a workflow that waits on a queue.
const WAITING: &str = "ENQUEUED";
const DEADLINE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(180);
/// A longer gap is not made up for.
const LONGEST: i64 = 24 * 3600 * 1000;
/// What began a moment ago may not be committed yet.
const SETTLED: i64 = 1000;
/// Figures kept of one interval: an application that makes up names may not fill the store.
const MOST: usize = 10_000;

/// One round. An interval that nobody could be asked about is part of the next one.
pub(super) async fn round(context: &Context, app: &AppRow) -> Result<(), StoreError> {
    let (store, holder) = (&context.store, context.instance.id());
    let every = ms(context.options.metrics_every);
    let claimed = store
        .claim_round(&app.id, JOB, holder, every, ms(LEASE))
        .await?;
    let Some(round) = claimed else { return Ok(()) };
    let done = match interval(round.done_until, round.now, every) {
        Some((from, to)) => collect(context, app, from, to).await.map(Some),
        None => Ok(None),
    };
    let done_until = done.as_ref().ok().copied().flatten();
    store.end_round(&app.id, JOB, holder, done_until).await?;
    done.map(|_| ())
}

/// Whole seconds since the last round, or, for the first, one period.
fn interval(done_until: Option<i64>, now: i64, every: i64) -> Option<(i64, i64)> {
    let second = |time: i64| time - time.rem_euclid(1000);
    let to = second(now - SETTLED);
    let from = done_until.unwrap_or_else(|| second(to - every.max(1000)));
    (from < to).then(|| (from.max(to - LONGEST), to))
}

/// Asks, and stores the answer; returns how far it came.
async fn collect(context: &Context, app: &AppRow, from: i64, to: i64) -> Result<i64, StoreError> {
    let message = GetMetrics {
        start_time: WireTime(from),
        end_time: WireTime(to),
        metric_class: GetMetrics::WORKFLOW_STEP_COUNT.to_owned(),
        application_name: vec![app.name.clone()],
    };
    let class = Class::Background(DEADLINE);
    let asked = context
        .hub
        .request(app, Target::AnyHealthy, &message, class);
    let counted = match asked.await {
        Ok(answer) => answer.metrics,
        // It never will; what the server itself counts is still worth keeping.
        Err(HubError::UnknownMessage { .. }) => Vec::new(),
        Err(error) => {
            tracing::warn!(app = app.name, %error, "no metrics could be collected; the next round includes them");
            return Ok(from);
        }
    };
    let row = |metric_type: String, metric_name: String, value: i64| MetricRow {
        metric_type,
        metric_name,
        time_bucket: from,
        granularity: (to - from) / 1000,
        value,
    };
    let recovered = context.store.recovered_between(&app.id, from, to).await?;
    let recovered = recovered
        .into_iter()
        .map(|(version, count)| row("recovery_count".to_owned(), version, count));
    let counted = counted.into_iter().map(|record: MetricRecord| {
        // JSON numbers of all SDKs; counts are whole.
        row(
            record.metric_type,
            record.metric_name,
            record.value.round() as i64,
        )
    });
    let waiting = depths(context, app).await;
    let waiting = waiting
        .into_iter()
        .map(|(queue, count)| row("queue_depth".to_owned(), queue, count));
    let rows: Vec<MetricRow> = recovered.chain(waiting).chain(counted).take(MOST).collect();
    context.store.insert_app_metrics(&app.id, &rows).await?;
    Ok(to)
}

/// How many workflows wait on each queue that has any. Of an application that does not say, none is known: the counts
/// of the round are worth keeping without.
async fn depths(context: &Context, app: &AppRow) -> BTreeMap<String, i64> {
    let body = WorkflowAggregates {
        group_by_queue_name: true,
        group_by_status: true,
        select_count: true,
        filter: AggregateFilter {
            status: vec![WAITING.to_owned()],
            application_name: vec![app.name.clone()],
            ..AggregateFilter::default()
        },
        ..WorkflowAggregates::default()
    };
    let (message, class) = (GetWorkflowAggregates { body }, Class::Background(DEADLINE));
    let asked = context
        .hub
        .request(app, Target::AnyHealthy, &message, class);
    let groups = match asked.await {
        Ok(answer) => answer.output,
        Err(error) => {
            tracing::debug!(app = app.name, %error, "the queues' depths could not be collected");
            Vec::new()
        }
    };
    let mut depths = BTreeMap::new();
    for mut row in groups {
        let mut key = |name: &str| row.group.remove(name).flatten();
        if let (Some(WAITING), Some(queue)) = (key("status").as_deref(), key("queue_name")) {
            *depths.entry(queue).or_default() += row.count.unwrap_or(0);
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_adjoin_and_never_reach_into_the_future() {
        assert_eq!(interval(None, 700_500, 300_000), Some((399_000, 699_000)));
        assert_eq!(
            interval(Some(699_000), 1_000_000, 300_000),
            Some((699_000, 999_000))
        );
        assert_eq!(interval(Some(699_000), 700_500, 300_000), None);
        let day_later = 2 * LONGEST;
        assert_eq!(
            interval(Some(0), day_later + 1000, 300_000),
            Some((LONGEST, day_later))
        );
    }
}
