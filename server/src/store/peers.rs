//! What an instance must know of the others: who they are, whose sockets they hold, and what they
//! changed that concerns this one's.

use std::collections::{HashMap, HashSet};

use sqlx::Row;

use super::{Store, StoreError};
use crate::recovery::machine::ExecutorKey;

/// Name of the setting that holds the secret with which instances sign what they send each other.
pub(super) const SECRET: &str = "cluster.secret";

/// Another instance that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Its id, new with every start.
    pub id: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// When it was last heard of, epoch milliseconds.
    pub heartbeat_at: i64,
}

/// An executor whose socket another instance holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElsewhereRow {
    /// Its id.
    pub executor_id: String,
    /// Its version.
    pub version: String,
    /// Its host.
    pub hostname: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// Version of its SDK.
    pub sdk_version: Option<String>,
    /// Since when it lets requests time out, epoch milliseconds.
    pub unresponsive_since: Option<i64>,
    /// The instance.
    pub instance_id: String,
}

/// A dead executor that this instance drives, as the books have it.
#[derive(Clone, Debug)]
pub struct DrivenRow {
    /// Whose recovery.
    pub key: ExecutorKey,
    /// The version that an operator lets take over.
    pub assigned_version: Option<String>,
}

impl Store {
    /// The secret that all instances on this store share; `fresh` becomes it if there is none yet.
    pub async fn cluster_secret(&self, fresh: &str) -> Result<String, StoreError> {
        let insert = self.sql(
            "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, {now}) ON CONFLICT (name) DO NOTHING",
        );
        sqlx::query(insert)
            .bind(SECRET)
            .bind(fresh)
            .execute(self.pool())
            .await?;
        let select = "SELECT value FROM settings WHERE name = $1";
        Ok(sqlx::query_scalar(select)
            .bind(SECRET)
            .fetch_one(self.pool())
            .await?)
    }

    /// The other instances that were heard of within `expiry` milliseconds.
    pub async fn peers(&self, own_id: &str, expiry: i64) -> Result<Vec<PeerRow>, StoreError> {
        let _timer = self.timer("peers");
        let query = self.sql(
            "SELECT id, address, heartbeat_at FROM instances \
             WHERE id <> $1 AND stopped_at IS NULL AND heartbeat_at > {now} - $2 ORDER BY id",
        );
        let rows = sqlx::query(query)
            .bind(own_id)
            .bind(expiry)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(PeerRow {
                    id: row.try_get("id")?,
                    address: row.try_get("address")?,
                    heartbeat_at: row.try_get("heartbeat_at")?,
                })
            })
            .collect()
    }

    /// Whether an instance whose place this one took, for it advertises the same address, is alive.
    pub async fn replaced_is_alive(&self, own_id: &str, expiry: i64) -> Result<bool, StoreError> {
        let query = self.sql(
            "SELECT COUNT(*) FROM instances \
             WHERE replaced_by = $1 AND stopped_at IS NULL AND heartbeat_at > {now} - $2",
        );
        let count: i64 = sqlx::query_scalar(query)
            .bind(own_id)
            .bind(expiry)
            .fetch_one(self.pool())
            .await?;
        Ok(count > 0)
    }

    /// Takes another instance for gone before its heartbeat expired, if nothing was heard of it since
    /// `heartbeat_at`. One that lives nevertheless finds out with its next heartbeat.
    pub async fn presume_gone(&self, id: &str, heartbeat_at: i64) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE instances SET stopped_at = {now} \
             WHERE id = $1 AND heartbeat_at = $2 AND stopped_at IS NULL",
        );
        let done = sqlx::query(update)
            .bind(id)
            .bind(heartbeat_at)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The executors of an application that are connected to other instances which were heard of within
    /// `expiry` milliseconds.
    pub async fn executors_elsewhere(
        &self,
        app_id: &str,
        own_id: &str,
        expiry: i64,
    ) -> Result<Vec<ElsewhereRow>, StoreError> {
        let _timer = self.timer("executors_elsewhere");
        let query = self.sql(
            "SELECT e.executor_id, e.app_version, e.hostname, e.language, e.sdk_version, e.unresponsive_since, \
               e.instance_id \
             FROM executors e JOIN instances i ON i.id = e.instance_id \
             WHERE e.app_id = $1 AND e.state = 'HEALTHY' AND e.instance_id <> $2 \
               AND i.stopped_at IS NULL AND i.heartbeat_at > {now} - $3",
        );
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(own_id)
            .bind(expiry)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ElsewhereRow {
                    executor_id: row.try_get("executor_id")?,
                    version: row.try_get("app_version")?,
                    hostname: row.try_get("hostname")?,
                    language: row.try_get("language")?,
                    sdk_version: row.try_get("sdk_version")?,
                    unresponsive_since: row.try_get("unresponsive_since")?,
                    instance_id: row.try_get("instance_id")?,
                })
            })
            .collect()
    }

    /// The sessions that are written down as this instance's.
    pub async fn sessions_of(&self, instance_id: &str) -> Result<HashSet<String>, StoreError> {
        let _timer = self.timer("sessions_of");
        let query = "SELECT session_id FROM executors WHERE instance_id = $1 AND state = 'HEALTHY'";
        let ids: Vec<Option<String>> = sqlx::query_scalar(query)
            .bind(instance_id)
            .fetch_all(self.pool())
            .await?;
        Ok(ids.into_iter().flatten().collect())
    }

    /// The dead executors whose recovery an instance has claimed.
    pub async fn driven_by(&self, instance_id: &str) -> Result<Vec<DrivenRow>, StoreError> {
        let _timer = self.timer("driven_by");
        let query = "SELECT e.app_id, e.executor_id, e.app_version, r.assigned_version \
             FROM executors e LEFT JOIN recoveries r ON r.id = e.recovery_id \
             WHERE e.claim_instance = $1 AND e.state = 'DEAD'";
        let rows = sqlx::query(query)
            .bind(instance_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DrivenRow {
                    key: ExecutorKey {
                        app_id: row.try_get("app_id")?,
                        executor_id: row.try_get("executor_id")?,
                        version: row.try_get("app_version")?,
                    },
                    assigned_version: row.try_get("assigned_version")?,
                })
            })
            .collect()
    }

    /// For each application with executors connected to other instances: when one of those was last
    /// written, epoch milliseconds.
    pub async fn arrivals_elsewhere(
        &self,
        own_id: &str,
    ) -> Result<HashMap<String, i64>, StoreError> {
        let _timer = self.timer("arrivals_elsewhere");
        let query = "SELECT app_id, MAX(updated_at) AS latest FROM executors \
             WHERE state = 'HEALTHY' AND instance_id <> $1 GROUP BY app_id";
        let rows = sqlx::query(query)
            .bind(own_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("app_id")?, row.try_get("latest")?)))
            .collect()
    }

    /// Which of these API keys, or applications, do not exist any more.
    pub async fn vanished(
        &self,
        keys: &HashSet<String>,
        apps: &HashSet<String>,
    ) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let gone_keys = self.missing("SELECT id FROM api_keys", keys).await?;
        let gone_apps = self.missing("SELECT id FROM applications", apps).await?;
        Ok((gone_keys, gone_apps))
    }

    async fn missing(
        &self,
        all: &'static str,
        wanted: &HashSet<String>,
    ) -> Result<Vec<String>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=wanted.len()).map(|n| format!("${n}")).collect();
        let places = places.join(", ");
        let sql = sqlx::AssertSqlSafe(format!("{all} WHERE id IN ({places})"));
        // As many parameters as there are ids: not a statement worth keeping.
        let mut query = sqlx::query_scalar(sql).persistent(false);
        for id in wanted {
            query = query.bind(id);
        }
        let found: Vec<String> = query.fetch_all(self.pool()).await?;
        let found: HashSet<String> = found.into_iter().collect();
        Ok(wanted.difference(&found).cloned().collect())
    }
}
