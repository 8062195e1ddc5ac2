//! Giving runs back to their queues: one's own after a restart, others' on command, and what still runs
//! at shutdown.

use std::sync::Arc;

use super::Runtime;
use crate::execution::Execution;
use crate::system_database::{DatabaseError, INTERNAL_QUEUE, Scope};

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
