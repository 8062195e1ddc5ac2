//! The audit entry of one mutating request.
//!
//! The gate prepares it and sees to it that exactly one entry is written, also for a refused or
//! failed request. A handler that changes the server's own state writes it in the transaction of
//! that change ([`Audit::record`]); for all others the gate writes it after the answer.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::auth::Identity;
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
    /// An entry for `operation`, not yet written. It goes into the log of the caller's organization;
    /// for a caller who has none, nowhere, until [`Audit::organization`] says where.
    pub(super) fn new(
        operation: &'static str,
        identity: &Identity,
        target: Option<(&'static str, String)>,
    ) -> Self {
        let entry = AuditEntry {
            org_id: identity.caller.as_ref().map(|caller| caller.org.id.clone()),
            operation,
            success: false,
            subject_type: identity.subject.kind,
            subject_id: identity.subject.id.clone(),
            subject_display: identity.subject.display.clone(),
            target,
            source_ip: identity.source_ip.clone(),
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

    /// Says in whose log it belongs.
    pub fn organization(&self, id: &str) {
        self.with(|draft| draft.entry.org_id = Some(id.to_owned()));
    }

    /// Says who it was, once that is known better: somebody who has just registered.
    pub fn subject(&self, id: &str, display: &str) {
        self.with(|draft| {
            draft.entry.subject_id = id.to_owned();
            draft.entry.subject_display = display.to_owned();
        });
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
