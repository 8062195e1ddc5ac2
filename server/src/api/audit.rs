//! The audit entry of one mutating request.
//!
//! The gate prepares it and sees to it that exactly one entry is written, also for a refused or
//! failed request. A handler that changes the server's own state writes it in the transaction of
//! that change ([`Audit::record`]); for all others the gate writes it after the answer.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::auth::Caller;
use crate::store::audit::AuditEntry;
use crate::store::{Store, StoreError, Tx};

/// Handle to the entry of the request being served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    draft: Arc<Mutex<Draft>>,
}

#[derive(Debug)]
struct Draft {
    entry: AuditEntry,
    recorded: bool,
}

impl Audit {
    /// An entry for `operation`, not yet written.
    pub(super) fn new(
        operation: &'static str,
        caller: &Caller,
        target: Option<(&'static str, String)>,
    ) -> Self {
        let entry = AuditEntry {
            org_id: caller.org.id.clone(),
            operation,
            success: false,
            subject_type: caller.subject.kind,
            subject_id: caller.subject.id.clone(),
            subject_display: caller.subject.display.clone(),
            target,
            source_ip: caller.source_ip.clone(),
            details: serde_json::Map::new(),
        };
        Self {
            draft: Arc::new(Mutex::new(Draft {
                entry,
                recorded: false,
            })),
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Draft) -> R) -> R {
        change(&mut self.draft.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a detail; `name` in snake_case, never a payload or a secret.
    pub fn detail(&self, name: &str, value: impl Into<Value>) {
        self.with(|draft| draft.entry.details.insert(name.to_owned(), value.into()));
    }

    /// Names what it was done to, where the path does not: a new thing with an id of ours.
    pub fn target(&self, kind: &'static str, id: &str) {
        self.with(|draft| draft.entry.target = Some((kind, id.to_owned())));
    }

    /// Records another operation than the route's own: a repeated registration is an update.
    pub fn operation(&self, operation: &'static str) {
        self.with(|draft| draft.entry.operation = operation);
    }

    /// Writes the entry as a success, in the transaction of the change it tells of. The caller
    /// commits.
    pub async fn record(&self, store: &Store, tx: &mut Tx) -> Result<(), StoreError> {
        let entry = self.with(|draft| AuditEntry {
            success: true,
            ..draft.entry.clone()
        });
        store.insert_audit(tx, &entry).await
    }

    /// Says that the transaction of [`Audit::record`] is committed.
    pub fn committed(&self) {
        self.with(|draft| draft.recorded = true);
    }

    /// Writes the entry unless a handler has; called by the gate after the answer.
    pub(super) async fn finish(&self, store: &Store, success: bool) -> Result<(), StoreError> {
        let entry = self.with(|draft| {
            (!draft.recorded).then(|| AuditEntry {
                success,
                ..draft.entry.clone()
            })
        });
        let Some(entry) = entry else { return Ok(()) };
        let mut tx = store.begin().await?;
        store.insert_audit(&mut tx, &entry).await?;
        tx.commit().await?;
        self.committed();
        Ok(())
    }
}
