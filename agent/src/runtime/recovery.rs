//! Giving runs back to their queues: one's own after a restart, others' on command, and what still runs
//! at shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Runtime, UNNAMED};
use crate::clock;
use crate::execution::Execution;
use crate::system_database::{DatabaseError, INTERNAL_QUEUE, Scope};

/// How long after the launch one's own id is looked at again.
const LATE: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Puts the pending runs of these executors, of this version and application, back on their queues. They
/// are then taken like any other queued run.
pub(super) async fn recover(
    runtime: &Runtime,
    executors: &[String],
) -> Result<usize, DatabaseError> {
    let scope = Scope::of(runtime.app_name());
    let recovered = runtime
        .db
        .system
        .recover_executors(executors, runtime.app_version(), &scope)
        .await?;
    if !recovered.is_empty() {
        tracing::info!(count = recovered.len(), ?executors, "recovered workflows");
        runtime.wake_all();
    }
    Ok(recovered.len())
}

/// Gives back what a dead process of this executor id got hold of after this one had recovered all it left: what it had
/// sent may have waited in the network or for a lock, and the database does not know that nobody is there for the answer.
pub(super) async fn recover_late(runtime: Arc<Runtime>) {
    if runtime.executor_id() == UNNAMED {
        return;
    }
    let launched = runtime.clock().now_ms();
    for after in LATE {
        let at = launched.saturating_add(clock::millis(after));
        runtime.clock().sleep_until(at).await;
        if runtime.stopping.is_cancelled() {
            return;
        }
        let own = runtime.tokens.prefix();
        let scope = Scope::of(runtime.app_name());
        let recovered = runtime
            .db
            .system
            .recover_not_owned(runtime.executor_id(), &own, runtime.app_version(), &scope)
            .await;
        match recovered {
            Ok(late) if late.is_empty() => {}
            Ok(late) => {
                tracing::info!(
                    count = late.len(),
                    "recovered workflows that a dead process took late"
                );
                runtime
                    .counters
                    .recovered
                    .fetch_add(late.len() as u64, Ordering::Relaxed);
                runtime.wake_all();
            }
            Err(error) => {
                tracing::warn!(%error, "could not look for workflows that a dead process took late")
            }
        }
    }
}

/// Returns exactly the runs that these executions own; whatever they had in flight is fenced off. One
/// statement: either all of them can be taken by others, or none.
pub(super) async fn hand_back(
    runtime: &Runtime,
    left: &[Arc<Execution>],
) -> Result<u64, DatabaseError> {
    let db = &runtime.db.system;
    let ids: Vec<String> = left
        .iter()
        .map(|execution| execution.id().to_owned())
        .collect();
    let tokens: Vec<String> = left
        .iter()
        .map(|execution| execution.token().to_owned())
        .collect();
    let statement = db
        .sql(
            "UPDATE @workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL, \
             updated_at = NOW_MS, queue_name = COALESCE(NULLIF(queue_name, ''), ",
        )
        .bind(INTERNAL_QUEUE)
        .push(") WHERE status = 'PENDING' AND ")
        .any_of("workflow_uuid", &ids)
        .push(" AND ")
        .any_of("owner_xid", &tokens);
    db.write(statement).await
}
