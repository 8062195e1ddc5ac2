//! What other instances, and `segno key delete`, did to what is this instance's: evictions, revoked
//! keys, deleted applications, executors that connected elsewhere, claims that were lost, versions
//! that an operator assigned.
//!
//! The store is asked, every second or so; news between instances only make it sooner.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::machine::ExecutorKey;
use crate::hub::Session;
use crate::store::StoreError;
use crate::store::executors::ExecutorState;

/// Between two looks for keys and applications that are gone, and for evictions.
const CUTS_EVERY: Duration = Duration::from_secs(1);
/// Between two comparisons of sessions with the books, unless there is a reason.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// When it was looked last, and what was seen then.
#[derive(Default)]
pub(super) struct Watch {
    cuts_at: Option<Instant>,
    compared_at: Option<Instant>,
    arrivals: HashMap<String, i64>,
    assigned: HashMap<ExecutorKey, String>,
}

fn is_due(at: &mut Option<Instant>, every: Duration) -> bool {
    let due = at.is_none_or(|at| at.elapsed() >= every);
    if due {
        *at = Some(Instant::now());
    }
    due
}

impl Watch {
    /// Closes sessions whose key, application or executor was cut off elsewhere.
    pub(super) async fn cuts(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let asked = shared.suspect_evictions();
        if !is_due(&mut self.cuts_at, CUTS_EVERY) && !asked {
            return Ok(());
        }
        let (keys, apps) = shared.hub.in_use();
        if apps.is_empty() {
            return Ok(());
        }
        let (keys, apps) = shared.store.vanished(&keys, &apps).await?;
        for id in keys {
            tracing::info!("a key was revoked elsewhere: its sessions are closed");
            shared.hub.close_key(&id).await;
        }
        for id in apps {
            tracing::info!(app_id = %id, "an application was deleted elsewhere: its sessions are closed");
            shared.hub.close_app(&id).await;
        }
        if shared.peers.any() || asked {
            shared.refuse_evicted().await?;
        }
        Ok(())
    }

    /// Compares `written`, the sessions that are in the books as this instance's, with the books.
    /// Closes those whose executor is connected elsewhere by now, and returns those that nobody speaks
    /// for: they are to be written down again.
    pub(super) async fn astray(
        &mut self,
        shared: &Shared,
        written: Vec<Arc<Session>>,
    ) -> Result<Vec<Arc<Session>>, StoreError> {
        let asked = shared.suspect_sessions();
        let due = shared.peers.any() && is_due(&mut self.compared_at, COMPARE_EVERY);
        if (!due && !asked) || written.is_empty() {
            return Ok(Vec::new());
        }
        let known = shared.store.sessions_of(shared.instance.id()).await?;
        let mut again = Vec::new();
        for session in written {
            if known.contains(session.id()) || session.is_ending() {
                continue;
            }
            let key = super::driver::key_of(&session);
            let rows = shared
                .store
                .executors_by_id(&key.app_id, &key.executor_id)
                .await?;
            let row = rows.into_iter().find(|row| row.key == key);
            match row {
                Some(row) if row.state == ExecutorState::Healthy => {
                    tracing::info!(
                        executor_id = %key.executor_id, version = %key.version,
                        "a newer connection of the same executor, to another instance, replaces this one"
                    );
                    shared.hub.close_superseded(&session);
                }
                // It was counted as lost though it is here.
                _ => again.push(session),
            }
        }
        Ok(again)
    }

    /// Tells the runners of this instance what they cannot know: that their claim is lost, that an
    /// operator's word came to another instance, that somebody connected to another instance.
    pub(super) async fn cases(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let driven = shared.driven();
        if driven.is_empty() {
            self.assigned.clear();
            return Ok(());
        }
        let rows = shared.store.driven_by(shared.instance.id()).await?;
        let claimed: HashSet<&ExecutorKey> = rows.iter().map(|row| &row.key).collect();
        for key in driven.iter().filter(|key| !claimed.contains(key)) {
            // It came back, was given up, or is another instance's by now.
            if let Some(mailbox) = shared.mailbox(key) {
                mailbox.claim_lost();
            }
        }
        self.assigned.retain(|key, _| claimed.contains(key));
        for row in &rows {
            let Some(version) = &row.assigned_version else {
                continue;
            };
            if self.assigned.get(&row.key) != Some(version) {
                self.assigned.insert(row.key.clone(), version.clone());
                if let Some(mailbox) = shared.mailbox(&row.key) {
                    mailbox.assigned(version.clone());
                }
            }
        }
        if shared.peers.any() {
            let latest = shared
                .store
                .arrivals_elsewhere(shared.instance.id())
                .await?;
            for (app_id, at) in &latest {
                if self.arrivals.get(app_id).is_none_or(|seen| seen < at) {
                    shared.arrived_elsewhere(app_id);
                }
            }
            self.arrivals = latest;
        }
        Ok(())
    }
}
