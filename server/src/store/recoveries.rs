//! The record of every loss of an executor. It outlives the executor's row.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Tx};
use crate::recovery::machine::{ExecutorKey, Millis, Reason};

/// Where a recovery stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecoveryStatus {
    /// The executor is lost and waited for.
    Grace,
    /// It came back.
    Rejoined,
    /// It is dead; its work is being handed over.
    Dispatching,
    /// Its work was taken over.
    Recovered,
    /// It had no work.
    NothingPending,
    /// Nobody can take its work; not final.
    Stranded,
    /// An operator gave the work up.
    Abandoned,
}

impl RecoveryStatus {
    /// As stored and as on the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grace => "GRACE",
            Self::Rejoined => "REJOINED",
            Self::Dispatching => "DISPATCHING",
            Self::Recovered => "RECOVERED",
            Self::NothingPending => "NOTHING_PENDING",
            Self::Stranded => "STRANDED",
            Self::Abandoned => "ABANDONED",
        }
    }
}

impl fmt::Display for RecoveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecoveryStatus {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "GRACE" => Self::Grace,
            "REJOINED" => Self::Rejoined,
            "DISPATCHING" => Self::Dispatching,
            "RECOVERED" => Self::Recovered,
            "NOTHING_PENDING" => Self::NothingPending,
            "STRANDED" => Self::Stranded,
            "ABANDONED" => Self::Abandoned,
            _ => {
                return Err(StoreError::Unreadable {
                    table: "recoveries",
                    column: "status",
                });
            }
        })
    }
}

pub(crate) fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoExecutor => "NO_EXECUTOR",
        Reason::NoMatchingVersion => "NO_MATCHING_VERSION",
        Reason::NotConfirmed => "NOT_CONFIRMED",
    }
}

fn read_reason(text: Option<String>) -> Result<Option<Reason>, StoreError> {
    Ok(match text.as_deref() {
        None => None,
        Some("NO_EXECUTOR") => Some(Reason::NoExecutor),
        Some("NO_MATCHING_VERSION") => Some(Reason::NoMatchingVersion),
        Some("NOT_CONFIRMED") => Some(Reason::NotConfirmed),
        Some(_) => {
            return Err(StoreError::Unreadable {
                table: "recoveries",
                column: "reason",
            });
        }
    })
}

/// One record.
#[derive(Clone, Debug)]
pub struct RecoveryRow {
    /// Its id.
    pub id: String,
    /// Whose.
    pub key: ExecutorKey,
    /// The lost executor's host.
    pub hostname: Option<String>,
    /// Where it stands.
    pub status: RecoveryStatus,
    /// Why it is stranded.
    pub reason: Option<Reason>,
    /// Workflows pending when somebody was last asked.
    pub pending_workflows: Option<i64>,
    /// When the executor was last there.
    pub disconnected_at: Millis,
    /// When its grace was over.
    pub dead_at: Option<Millis>,
    /// When its work was first offered.
    pub dispatched_at: Option<Millis>,
    /// When the record was closed.
    pub completed_at: Option<Millis>,
    /// Who took the work.
    pub recovered_by: Option<String>,
    /// The version an operator assigned.
    pub assigned_version: Option<String>,
    /// Offers so far.
    pub attempts: Vec<AttemptRow>,
}

/// One offer.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    /// Who was asked.
    pub executor_id: String,
    /// When.
    pub at: Millis,
    /// `ACCEPTED`, `FAILED` or `STILL_PENDING`; `FORKED` for a move to another version.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct RecoveryFilter {
    /// Only in this state.
    pub status: Option<RecoveryStatus>,
    /// Only of this executor.
    pub executor_id: Option<String>,
    /// Only of this version.
    pub app_version: Option<String>,
    /// Only of executors lost at or after this.
    pub since: Option<Millis>,
    /// At most so many.
    pub limit: i64,
    /// Without the first so many.
    pub offset: i64,
}

const COLUMNS: &str = "SELECT id, app_id, executor_id, app_version, hostname, status, reason, pending_workflows, \
     disconnected_at, dead_at, dispatched_at, completed_at, recovered_by, assigned_version FROM recoveries";

fn read(row: &AnyRow) -> Result<RecoveryRow, StoreError> {
    Ok(RecoveryRow {
        id: row.try_get("id")?,
        key: ExecutorKey {
            app_id: row.try_get("app_id")?,
            executor_id: row.try_get("executor_id")?,
            version: row.try_get("app_version")?,
        },
        hostname: row.try_get("hostname")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        reason: read_reason(row.try_get("reason")?)?,
        pending_workflows: row.try_get("pending_workflows")?,
        disconnected_at: row.try_get("disconnected_at")?,
        dead_at: row.try_get("dead_at")?,
        dispatched_at: row.try_get("dispatched_at")?,
        completed_at: row.try_get("completed_at")?,
        recovered_by: row.try_get("recovered_by")?,
        assigned_version: row.try_get("assigned_version")?,
        attempts: Vec::new(),
    })
}

impl Store {
    /// The records of an application, newest first.
    pub async fn recoveries(
        &self,
        app_id: &str,
        filter: &RecoveryFilter,
    ) -> Result<Vec<RecoveryRow>, StoreError> {
        let _timer = self.timer("recoveries");
        let query = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE app_id = $1 AND status = COALESCE(CAST($2 AS TEXT), status) \
               AND executor_id = COALESCE(CAST($3 AS TEXT), executor_id) \
               AND app_version = COALESCE(CAST($4 AS TEXT), app_version) AND disconnected_at >= $5 \
             ORDER BY disconnected_at DESC, id DESC LIMIT $6 OFFSET $7"
        ));
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(filter.status.map(RecoveryStatus::as_str))
            .bind(filter.executor_id.as_deref())
            .bind(filter.app_version.as_deref())
            .bind(filter.since.unwrap_or(i64::MIN))
            .bind(filter.limit)
            .bind(filter.offset)
            .fetch_all(self.pool())
            .await?;
        let mut records: Vec<RecoveryRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
        let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let mut attempts = self.attempts_of(&ids).await?;
        for record in &mut records {
            record.attempts = attempts.remove(&record.id).unwrap_or_default();
        }
        Ok(records)
    }

    /// One record of an application.
    pub async fn recovery(
        &self,
        app_id: &str,
        id: &str,
    ) -> Result<Option<RecoveryRow>, StoreError> {
        let _timer = self.timer("recovery");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE app_id = $1 AND id = $2"));
        let row = sqlx::query(query)
            .bind(app_id)
            .bind(id)
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let mut record = read(&row)?;
        record.attempts = self
            .attempts_of(&[id])
            .await?
            .remove(id)
            .unwrap_or_default();
        Ok(Some(record))
    }

    /// The offers of some records, in order, by record.
    async fn attempts_of(
        &self,
        ids: &[&str],
    ) -> Result<HashMap<String, Vec<AttemptRow>>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let places: Vec<String> = (1..=ids.len()).map(|n| format!("${n}")).collect();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT recovery_id, executor_id, at, outcome, error FROM recovery_attempts \
             WHERE recovery_id IN ({}) ORDER BY recovery_id, seq",
            places.join(", ")
        )));
        for id in ids {
            query = query.bind(*id);
        }
        let mut by_record: HashMap<String, Vec<AttemptRow>> = HashMap::new();
        for row in query.fetch_all(self.pool()).await? {
            by_record
                .entry(row.try_get("recovery_id")?)
                .or_default()
                .push(AttemptRow {
                    executor_id: row.try_get("executor_id")?,
                    at: row.try_get("at")?,
                    outcome: row.try_get("outcome")?,
                    error: row.try_get("error")?,
                });
        }
        Ok(by_record)
    }

    /// Opens the record of a loss.
    pub(super) async fn open_recovery(
        &self,
        tx: &mut Tx,
        id: &str,
        key: &ExecutorKey,
        disconnected_at: Millis,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recoveries (id, app_id, executor_id, app_version, hostname, status, disconnected_at) \
             SELECT $1, app_id, executor_id, app_version, hostname, 'GRACE', $5 FROM executors \
             WHERE app_id = $2 AND executor_id = $3 AND app_version = $4 \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id)
        .bind(&key.app_id)
        .bind(&key.executor_id)
        .bind(&key.version)
        .bind(disconnected_at)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Grace is over. The record is opened if the loss happened while no instance was looking.
    pub(super) async fn recovery_dead(
        &self,
        tx: &mut Tx,
        id: &str,
        key: &ExecutorKey,
        disconnected_at: Millis,
    ) -> Result<(), StoreError> {
        self.open_recovery(tx, id, key, disconnected_at).await?;
        let update = self.sql(
            "UPDATE recoveries SET status = 'DISPATCHING', dead_at = {now} WHERE id = $1 AND status = 'GRACE'",
        );
        sqlx::query(update).bind(id).execute(&mut **tx).await?;
        Ok(())
    }

    /// The executor came back.
    pub(super) async fn recovery_rejoined(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE recoveries SET status = 'REJOINED', reason = NULL, completed_at = {now} \
             WHERE id = $1 AND status IN ('GRACE', 'DISPATCHING', 'STRANDED')",
        );
        sqlx::query(update).bind(id).execute(&mut **tx).await?;
        Ok(())
    }

    /// Closes a record.
    pub(super) async fn close_recovery(
        &self,
        tx: &mut Tx,
        id: &str,
        status: &'static str,
        recovered_by: Option<&str>,
    ) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE recoveries SET status = $2, reason = NULL, completed_at = {now}, recovered_by = $3 WHERE id = $1",
        );
        sqlx::query(update)
            .bind(id)
            .bind(status)
            .bind(recovered_by)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Something is being offered.
    pub async fn recovery_dispatching(&self, id: &str) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE recoveries SET status = 'DISPATCHING', reason = NULL, \
               dispatched_at = COALESCE(dispatched_at, {now}) \
             WHERE id = $1 AND status IN ('DISPATCHING', 'STRANDED')",
        );
        sqlx::query(update).bind(id).execute(self.pool()).await?;
        Ok(())
    }

    /// Nobody can take the work.
    pub async fn recovery_stranded(&self, id: &str, reason: Reason) -> Result<(), StoreError> {
        let update = "UPDATE recoveries SET status = 'STRANDED', reason = $2 \
             WHERE id = $1 AND status IN ('DISPATCHING', 'STRANDED')";
        sqlx::query(update)
            .bind(id)
            .bind(reason_text(reason))
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// So many workflows are pending.
    pub async fn recovery_counted(&self, id: &str, pending: i64) -> Result<(), StoreError> {
        let update = "UPDATE recoveries SET pending_workflows = $2 \
             WHERE id = $1 AND status IN ('DISPATCHING', 'STRANDED')";
        sqlx::query(update)
            .bind(id)
            .bind(pending)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Somebody was asked, so long ago, to take the work; `outcome` as in [`AttemptRow`].
    ///
    /// By the database's clock like the record's other times, lest an attempt seem to come before its dispatch.
    pub async fn recovery_attempt(
        &self,
        id: &str,
        executor_id: &str,
        ago: Duration,
        outcome: &'static str,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let insert = self.sql(
            "INSERT INTO recovery_attempts (recovery_id, seq, executor_id, at, outcome, error) \
             SELECT $1, COALESCE(MAX(seq), 0) + 1, $2, {now} - $3, $4, $5 FROM recovery_attempts \
             WHERE recovery_id = $1",
        );
        sqlx::query(insert)
            .bind(id)
            .bind(executor_id)
            .bind(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
            .bind(outcome)
            .bind(error)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// The last offer did not move everything.
    pub async fn recovery_still_pending(&self, id: &str) -> Result<(), StoreError> {
        let update = "UPDATE recovery_attempts SET outcome = 'STILL_PENDING' \
             WHERE recovery_id = $1 AND outcome = 'ACCEPTED' \
               AND seq = (SELECT MAX(seq) FROM recovery_attempts WHERE recovery_id = $1)";
        sqlx::query(update).bind(id).execute(self.pool()).await?;
        Ok(())
    }

    /// An operator lets `version` take over. `false` if the recovery is over, or not yet begun.
    pub async fn assign_recovery(
        &self,
        app_id: &str,
        id: &str,
        version: &str,
    ) -> Result<bool, StoreError> {
        let update = "UPDATE recoveries SET assigned_version = $3 \
             WHERE app_id = $1 AND id = $2 AND status IN ('DISPATCHING', 'STRANDED')";
        let done = sqlx::query(update)
            .bind(app_id)
            .bind(id)
            .bind(version)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// An operator gives the work up: the record is closed and the dead executor forgotten. `false`
    /// if the recovery is over, or not yet begun.
    pub async fn abandon_recovery(
        &self,
        app_id: &str,
        id: &str,
        note: &str,
    ) -> Result<bool, StoreError> {
        let _timer = self.timer("abandon_recovery");
        let mut tx = self.begin().await?;
        let update = self.sql(
            "UPDATE recoveries SET status = 'ABANDONED', reason = NULL, note = $3, completed_at = {now} \
             WHERE app_id = $1 AND id = $2 AND status IN ('DISPATCHING', 'STRANDED')",
        );
        let done = sqlx::query(update)
            .bind(app_id)
            .bind(id)
            .bind(note)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        // Beyond the life of the record: the work may be there for good.
        let remember = self.sql(
            "INSERT INTO abandoned_executors (app_id, executor_id, app_version, abandoned_at) \
             SELECT app_id, executor_id, app_version, {now} FROM recoveries WHERE app_id = $1 AND id = $2 \
             ON CONFLICT (app_id, executor_id, app_version) DO UPDATE SET abandoned_at = excluded.abandoned_at",
        );
        sqlx::query(remember)
            .bind(app_id)
            .bind(id)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM executors WHERE app_id = $1 AND recovery_id = $2 AND state = 'DEAD'",
        )
        .bind(app_id)
        .bind(id)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets that an application's work was given up where nothing of it is left: `pending` is all
    /// who have any, ids with versions.
    pub async fn forget_abandoned(
        &self,
        app_id: &str,
        pending: &HashSet<(String, String)>,
    ) -> Result<(), StoreError> {
        let query = "SELECT executor_id, app_version FROM abandoned_executors WHERE app_id = $1";
        let abandoned: Vec<(String, String)> = sqlx::query_as(query)
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        for (executor_id, version) in abandoned.iter().filter(|owner| !pending.contains(*owner)) {
            let delete = "DELETE FROM abandoned_executors \
                 WHERE app_id = $1 AND executor_id = $2 AND app_version = $3";
            sqlx::query(delete)
                .bind(app_id)
                .bind(executor_id)
                .bind(version)
                .execute(self.pool())
                .await?;
        }
        Ok(())
    }

    /// How many recoveries are under way, by status.
    pub async fn open_recoveries(&self) -> Result<Vec<(RecoveryStatus, i64)>, StoreError> {
        let query = "SELECT status, COUNT(*) AS n FROM recoveries \
             WHERE status IN ('GRACE', 'DISPATCHING', 'STRANDED') GROUP BY status";
        let rows = sqlx::query(query).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok((
                    row.try_get::<String, _>("status")?.parse()?,
                    row.try_get("n")?,
                ))
            })
            .collect()
    }

    /// Deletes records closed 30 days ago, and uneventful ones after a day.
    pub async fn expire_recoveries(&self) -> Result<u64, StoreError> {
        let _timer = self.timer("expire_recoveries");
        let delete = self.sql(
            "DELETE FROM recoveries WHERE completed_at < {now} - 2592000000 \
               OR (status IN ('REJOINED', 'NOTHING_PENDING') AND dispatched_at IS NULL \
                   AND completed_at < {now} - 86400000)",
        );
        Ok(sqlx::query(delete)
            .execute(self.pool())
            .await?
            .rows_affected())
    }
}
