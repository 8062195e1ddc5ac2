//! Periodic work. Every job is idempotent, so that several instances may run it.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Between two rounds of expiry.
const EXPIRY: Duration = Duration::from_secs(3600);

/// Starts the jobs; they end when `shutdown` is cancelled.
pub fn start(store: Store, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut rounds = tokio::time::interval(EXPIRY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = rounds.tick() => expire(&store).await,
            }
        }
    })
}

/// One round: audit entries past their organization's retention, old operations and old idempotency keys.
pub async fn expire(store: &Store) {
    match store.expire_audit().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "expired audit entries"),
        Err(error) => {
            tracing::warn!(%error, "audit entries could not be expired; trying again later")
        }
    }
    if let Err(error) = store.expire_operations().await {
        tracing::warn!(%error, "operations could not be expired; trying again later");
    }
    if let Err(error) = store.expire_idempotency().await {
        tracing::warn!(%error, "idempotency keys could not be expired; trying again later");
    }
}
