//! The audit log: append-only.

use serde_json::Value;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// One entry to be written.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The organization in whose log it appears.
    pub org_id: String,
    /// For example `application.create`.
    pub operation: &'static str,
    /// Whether it succeeded.
    pub success: bool,
    /// `user` or `api_key`.
    pub subject_type: &'static str,
    /// Id of the user or key.
    pub subject_id: String,
    /// E-mail or key name at the time.
    pub subject_display: String,
    /// What it was done to: type and id.
    pub target: Option<(&'static str, String)>,
    /// The caller's address.
    pub source_ip: String,
    /// A JSON object; never payloads or secrets.
    pub details: serde_json::Map<String, Value>,
}

impl Store {
    /// Writes an entry within the transaction of the change it tells of.
    pub async fn insert_audit(&self, tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
        let insert = self.sql(
            "INSERT INTO audit_log (id, org_id, emit_time, operation, status, subject_type, subject_id, \
               subject_display, target_type, target_id, source_ip, details) \
             VALUES ($1, $2, {now}, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        );
        let details = (!entry.details.is_empty()).then(|| Value::Object(entry.details.clone()).to_string());
        sqlx::query(insert)
            .bind(Uuid::now_v7().to_string())
            .bind(&entry.org_id)
            .bind(entry.operation)
            .bind(if entry.success { "success" } else { "failure" })
            .bind(entry.subject_type)
            .bind(&entry.subject_id)
            .bind(&entry.subject_display)
            .bind(entry.target.as_ref().map(|(kind, _)| *kind))
            .bind(entry.target.as_ref().map(|(_, id)| id.clone()))
            .bind(&entry.source_ip)
            .bind(details)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Deletes entries older than their organization keeps them; returns how many.
    pub async fn expire_audit(&self) -> Result<u64, StoreError> {
        let _timer = self.timer("expire_audit");
        let delete = self.sql(
            "DELETE FROM audit_log WHERE emit_time < {now} - 86400000 * \
             (SELECT audit_retention_days FROM organizations WHERE organizations.id = audit_log.org_id)",
        );
        Ok(sqlx::query(delete).execute(self.pool()).await?.rows_affected())
    }
}
