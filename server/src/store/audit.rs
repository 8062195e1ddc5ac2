//! The audit log: append-only.

use serde_json::Value;
use uuid::Uuid;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Tx};

fn read(row: &AnyRow) -> Result<AuditRow, StoreError> {
    let kind: Option<String> = row.try_get("target_type")?;
    let target: Option<String> = row.try_get("target_id")?;
    let details: Option<String> = row.try_get("details")?;
    Ok(AuditRow {
        id: row.try_get("id")?,
        emit_time: row.try_get("emit_time")?,
        operation: row.try_get("operation")?,
        status: row.try_get("status")?,
        subject_type: row.try_get("subject_type")?,
        subject_id: row.try_get("subject_id")?,
        subject_display: row.try_get("subject_display")?,
        target: kind.zip(target),
        source_ip: row.try_get("source_ip")?,
        details: details.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// One entry to be written.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The organization in whose log it appears; without one it appears nowhere.
    pub org_id: Option<String>,
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

/// One entry as it was written.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Stable id.
    pub id: String,
    /// Epoch milliseconds.
    pub emit_time: i64,
    /// For example `application.create`.
    pub operation: String,
    /// `success` or `failure`.
    pub status: String,
    /// `user` or `api_key`.
    pub subject_type: String,
    /// Id of the user or key.
    pub subject_id: String,
    /// E-mail or key name at the time.
    pub subject_display: String,
    /// What it was done to: type and id.
    pub target: Option<(String, String)>,
    /// The caller's address.
    pub source_ip: String,
    /// A JSON object.
    pub details: Option<serde_json::Map<String, Value>>,
}

/// Which entries to read. Times are epoch milliseconds.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Emitted then or later.
    pub start: Option<i64>,
    /// Emitted before.
    pub end: Option<i64>,
    /// Exactly this operation.
    pub operation: Option<String>,
    /// By whom: id or display.
    pub subject: Option<String>,
    /// On what: its id.
    pub target: Option<String>,
    /// At most so many.
    pub limit: i64,
    /// Leave out so many first.
    pub offset: i64,
}

impl Store {
    /// Entries of an organization, newest first.
    pub async fn audit_entries(
        &self,
        org_id: &str,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let _timer = self.timer("audit_entries");
        // CAST: Postgres cannot tell the type of a parameter that is only compared with null.
        let rows = sqlx::query(
            "SELECT id, emit_time, operation, status, subject_type, subject_id, subject_display, \
               target_type, target_id, source_ip, details \
             FROM audit_log WHERE org_id = $1 \
               AND (CAST($2 AS BIGINT) IS NULL OR emit_time >= $2) \
               AND (CAST($3 AS BIGINT) IS NULL OR emit_time < $3) \
               AND (CAST($4 AS TEXT) IS NULL OR operation = $4) \
               AND (CAST($5 AS TEXT) IS NULL OR subject_id = $5 OR subject_display = $5) \
               AND (CAST($6 AS TEXT) IS NULL OR target_id = $6) \
             ORDER BY emit_time DESC, id DESC LIMIT $7 OFFSET $8",
        )
        .bind(org_id)
        .bind(filter.start)
        .bind(filter.end)
        .bind(&filter.operation)
        .bind(&filter.subject)
        .bind(&filter.target)
        .bind(filter.limit)
        .bind(filter.offset)
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(read).collect()
    }

    /// Writes an entry within the transaction of the change it tells of.
    pub async fn insert_audit(&self, tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
        let Some(org_id) = &entry.org_id else {
            return Ok(());
        };
        let insert = self.sql(
            "INSERT INTO audit_log (id, org_id, emit_time, operation, status, subject_type, subject_id, \
               subject_display, target_type, target_id, source_ip, details) \
             VALUES ($1, $2, {now}, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        );
        let details =
            (!entry.details.is_empty()).then(|| Value::Object(entry.details.clone()).to_string());
        sqlx::query(insert)
            .bind(Uuid::now_v7().to_string())
            .bind(org_id)
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
        Ok(sqlx::query(delete)
            .execute(self.pool())
            .await?
            .rows_affected())
    }
}
