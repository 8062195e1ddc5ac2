//! What an operator sees of the installation itself: its instances, and who holds which lease.

use sqlx::Row;

use super::{Dialect, Store, StoreError};

/// An instance of the server, as the books have it. Times are epoch milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id, new with every start.
    pub id: String,
    /// Where peers reach it.
    pub address: String,
    /// Since when it serves.
    pub serving_since: i64,
    /// When it was last heard of.
    pub heartbeat_at: i64,
    /// When it stopped in good order.
    pub stopped_at: Option<i64>,
    /// Executors whose connection it holds.
    pub executors: i64,
}

/// Work on an application that one instance does, and until when it alone may. Times are epoch
/// milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Id of the application.
    pub app_id: String,
    /// What kind of work: a periodic job, `recovery` or `operation`.
    pub work: String,
    /// What it is done to, where an application has several at once: an executor or an operation.
    pub subject: Option<String>,
    /// The instance.
    pub holder: String,
    /// Until when.
    pub until: i64,
}

impl Store {
    /// What kind of database this is, for people.
    pub fn engine(&self) -> &'static str {
        match self.dialect() {
            Dialect::Postgres => "Postgres",
            Dialect::Sqlite => "SQLite",
        }
    }

    /// All instances still in the books, those that serve longest first.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        let _timer = self.timer("instances");
        let query = "SELECT id, address, serving_since, heartbeat_at, stopped_at, \
               (SELECT COUNT(*) FROM executors WHERE instance_id = instances.id AND state = 'HEALTHY') AS executors \
             FROM instances ORDER BY serving_since, id";
        let rows = sqlx::query(query).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(InstanceRow {
                    id: row.try_get("id")?,
                    address: row.try_get("address")?,
                    serving_since: row.try_get("serving_since")?,
                    heartbeat_at: row.try_get("heartbeat_at")?,
                    stopped_at: row.try_get("stopped_at")?,
                    executors: row.try_get("executors")?,
                })
            })
            .collect()
    }

    /// The leases that hold now in an organization: rounds of periodic work, recoveries, operations.
    pub async fn leases(&self, org_id: &str) -> Result<Vec<LeaseRow>, StoreError> {
        let _timer = self.timer("leases");
        let query = self.sql(
            "SELECT l.app_id, l.work, l.subject, l.holder, l.until FROM ( \
               SELECT app_id, job AS work, NULL AS subject, holder, lease_until AS until FROM policy_rounds \
                 WHERE holder IS NOT NULL AND lease_until > {now} \
               UNION ALL \
               SELECT app_id, 'recovery' AS work, executor_id AS subject, claim_instance AS holder, claim_until AS until \
                 FROM executors WHERE claim_instance IS NOT NULL AND claim_until > {now} \
               UNION ALL \
               SELECT app_id, 'operation' AS work, id AS subject, claim_instance AS holder, claim_until AS until \
                 FROM operations WHERE claim_instance IS NOT NULL AND claim_until > {now} \
             ) l JOIN applications a ON a.id = l.app_id WHERE a.org_id = $1 \
             ORDER BY l.app_id, l.work, l.subject",
        );
        let rows = sqlx::query(query)
            .bind(org_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(LeaseRow {
                    app_id: row.try_get("app_id")?,
                    work: row.try_get("work")?,
                    subject: row.try_get("subject")?,
                    holder: row.try_get("holder")?,
                    until: row.try_get("until")?,
                })
            })
            .collect()
    }
}
