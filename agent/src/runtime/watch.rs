//! What is looked after once a second, or sooner when told: runs that were taken from this process,
//! deadlines, delays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{POLL, Runtime};
use crate::clock;
use crate::system_database::{DatabaseError, Retention, Scope};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs deleted in one transaction.
const DELETED_AT_ONCE: i64 = 1000;

/// Deadlines swept by one statement.
const SWEEP: i64 = 1000;

/// Owners read by one statement.
const OWNERS: usize = 10_000;

/// After a look at the owners the database is left alone several times as long as it took: with very many runs in
/// one process a look takes a while.
const PAUSES_A_LOOK: u32 = 5;

pub(super) async fn run(runtime: Arc<Runtime>) {
    let mut swept = Instant::now();
    let mut next_look = Instant::now();
    loop {
        tokio::select! {
            () = runtime.runs_changed.notified() => {}
            () = runtime.clock().moved() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        tokio::time::sleep_until(next_look.into()).await;
        let _round = runtime.rounds.sweeps.begin();
        // A client takes no work, and looks after nobody's.
        if (swept.elapsed() >= POLL || runtime.clock().is_manual()) && runtime.identity.capacity > 0
        {
            swept = Instant::now();
            if let Err(error) = sweep(&runtime).await {
                tracing::debug!(%error, "could not sweep deadlines and delays; trying again");
            }
        }
        let begun = Instant::now();
        if let Err(error) = interrupt_lost(&runtime).await {
            tracing::debug!(%error, "could not check who owns the running workflows; checking again");
        }
        if !runtime.clock().is_manual() {
            next_look = Instant::now() + begun.elapsed() * PAUSES_A_LOOK;
        }
    }
}

/// Interrupts executions whose row says that they are not the owner any more.
async fn interrupt_lost(runtime: &Runtime) -> Result<(), DatabaseError> {
    for executions in runtime.executions().chunks(OWNERS) {
        let ids: Vec<String> = executions
            .iter()
            .map(|execution| execution.id().to_owned())
            .collect();
        let query = runtime
            .db
            .system
            .sql("SELECT workflow_uuid, owner_xid FROM @workflow_status WHERE ")
            .any_of("workflow_uuid", &ids);
        let mut owners = HashMap::new();
        for row in runtime.db.system.read(query).await? {
            owners.insert(row.required("workflow_uuid")?, row.text("owner_xid")?);
        }
        for execution in executions {
            // A row without an owner may also be one whose outcome was recorded a moment ago; interrupting
            // that execution changes nothing.
            if owners.get(execution.id()).and_then(Option::as_deref) != Some(execution.token()) {
                execution.interrupt();
            }
        }
    }
    Ok(())
}

/// Cancels what is past its deadline and lets delayed runs into their queues, for the whole application.
async fn sweep(runtime: &Runtime) -> Result<(), DatabaseError> {
    let db = &runtime.db.system;
    let scope = Scope::of(runtime.app_name());
    let expired = db
        .sql("SELECT workflow_uuid FROM @workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') \
              AND workflow_deadline_epoch_ms IS NOT NULL AND workflow_deadline_epoch_ms <= ")
        .bind(runtime.clock().now_ms())
        .and_scope("application_name", &scope)
        .push(" ORDER BY workflow_deadline_epoch_ms LIMIT ")
        .bind(SWEEP);
    let expired = db.read(expired).await?;
    if !expired.is_empty() {
        let ids = expired
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect::<Result<Vec<_>, _>>()?;
        let cancelled = db.cancel_workflows(&ids, true).await?;
        tracing::info!(cancelled, "cancelled workflows past their deadline");
        runtime.completions.look();
    }
    let due = db
        .sql("SELECT workflow_uuid FROM @workflow_status WHERE status = 'DELAYED' AND delay_until_epoch_ms <= ")
        .bind(runtime.clock().now_ms())
        .and_scope("application_name", &scope);
    let due = db.read(due).await?;
    if !due.is_empty() {
        let ids = due
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect::<Result<Vec<_>, _>>()?;
        let release = db
            .sql(
                "UPDATE @workflow_status SET status = 'ENQUEUED', updated_at = NOW_MS, deduplication_id = \
                 CASE WHEN is_debounced THEN NULL ELSE deduplication_id END WHERE status = 'DELAYED' AND ",
            )
            .any_of("workflow_uuid", &ids);
        db.write(release).await?;
        runtime.queue_changed.notify_one();
    }
    Ok(())
}

/// Deletes what ended longer ago than it is to be kept, now and every hour.
pub(super) async fn delete_ended(runtime: Arc<Runtime>, keep: Duration) {
    loop {
        let retention = Retention {
            finished_before: Some(runtime.clock().now_ms().saturating_sub(clock::millis(keep))),
            keep_newest: None,
            batch_size: DELETED_AT_ONCE,
            scope: Scope::of(runtime.app_name()),
        };
        match runtime.db.system.delete_history(&retention).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted runs that ended long ago"),
            Err(error) => {
                tracing::warn!(%error, "could not delete old runs; trying again in an hour")
            }
        }
        runtime.clock().sleep(HOUR).await;
    }
}
