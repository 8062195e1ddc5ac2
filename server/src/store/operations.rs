//! Operations on many workflows, and how far each has come. See the migration for the columns.
//!
//! Whoever drives an operation holds its claim and states it with every change; a change by somebody
//! whose claim is lost, or of an operation that was aborted, changes nothing.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::{Store, StoreError};

/// What is done to each workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Cancel it
    Cancel,
    /// Resume it
    Resume,
    /// Delete it
    Delete,
    /// Fork it
    Fork,
}

impl OperationKind {
    /// As stored and as on the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Fork => "fork",
        }
    }
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationState {
    /// Nobody is connected who could do it; it goes on when somebody is
    WaitingForExecutor,
    /// It is being done
    Running,
    /// Every workflow was tried
    Done,
    /// Somebody stopped it
    Aborted,
    /// The workflows could not be selected
    Failed,
}

impl OperationState {
    /// As stored and as on the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForExecutor => "WAITING_FOR_EXECUTOR",
            Self::Running => "RUNNING",
            Self::Done => "DONE",
            Self::Aborted => "ABORTED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Aborted | Self::Failed)
    }
}

fn unreadable(column: &'static str) -> StoreError {
    StoreError::Unreadable {
        table: "operations",
        column,
    }
}

impl FromStr for OperationKind {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        [Self::Cancel, Self::Resume, Self::Delete, Self::Fork]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| unreadable("kind"))
    }
}

impl FromStr for OperationState {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        [
            Self::WaitingForExecutor,
            Self::Running,
            Self::Done,
            Self::Aborted,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| unreadable("state"))
    }
}

/// An operation to be written down.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// Its id.
    pub id: String,
    /// The application.
    pub app_id: String,
    /// What is done.
    pub kind: OperationKind,
    /// To which workflows: JSON.
    pub selection: String,
    /// How: JSON.
    pub options: String,
    /// Whether they are only selected.
    pub dry_run: bool,
    /// At most so many.
    pub limit: i64,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Who asked for it.
    pub requested_by: String,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct OperationRow {
    /// What was asked for.
    pub wanted: NewOperation,
    /// Where it stands.
    pub state: OperationState,
    /// How many workflows were selected; none before that.
    pub total: Option<i64>,
    /// Whether more match than the limit allows.
    pub truncated: bool,
    /// So many worked.
    pub succeeded: i64,
    /// So many did not.
    pub failed: i64,
    /// Some of what was selected: JSON.
    pub sample: Option<String>,
    /// Why it waits, or failed.
    pub message: Option<String>,
    /// Epoch milliseconds, like all times.
    pub created_at: i64,
    /// When it was first driven.
    pub started_at: Option<i64>,
    /// When it became final.
    pub completed_at: Option<i64>,
}

/// One workflow of an operation.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its place.
    pub seq: i64,
    /// Its id.
    pub workflow_id: String,
}

/// A workflow that is meant.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Its id.
    pub workflow_id: String,
    /// Why it cannot be done.
    pub error: Option<String>,
}

/// What became of one workflow: an error, unless it worked.
pub type Outcome = (Item, Option<String>);

const COLUMNS: &str = "SELECT id, app_id, kind, state, selection, options, dry_run, most, reason, requested_by, \
     total, truncated, succeeded, failed, sample, message, created_at, started_at, completed_at FROM operations";

fn read(row: &AnyRow) -> Result<OperationRow, StoreError> {
    Ok(OperationRow {
        wanted: NewOperation {
            id: row.try_get("id")?,
            app_id: row.try_get("app_id")?,
            kind: row.try_get::<String, _>("kind")?.parse()?,
            selection: row.try_get("selection")?,
            options: row.try_get("options")?,
            dry_run: row.try_get::<i64, _>("dry_run")? != 0,
            limit: row.try_get("most")?,
            reason: row.try_get("reason")?,
            requested_by: row.try_get("requested_by")?,
        },
        state: row.try_get::<String, _>("state")?.parse()?,
        total: row.try_get("total")?,
        truncated: row.try_get::<i64, _>("truncated")? != 0,
        succeeded: row.try_get("succeeded")?,
        failed: row.try_get("failed")?,
        sample: row.try_get("sample")?,
        message: row.try_get("message")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        completed_at: row.try_get("completed_at")?,
    })
}

impl Store {
    /// Writes an operation down; it waits for somebody to drive it.
    pub async fn insert_operation(&self, new: &NewOperation) -> Result<(), StoreError> {
        let _timer = self.timer("insert_operation");
        let insert = self.sql(
            "INSERT INTO operations (id, app_id, kind, state, selection, options, dry_run, most, reason, \
               requested_by, created_at) VALUES ($1, $2, $3, 'WAITING_FOR_EXECUTOR', $4, $5, $6, $7, $8, $9, {now})",
        );
        sqlx::query(insert)
            .bind(&new.id)
            .bind(&new.app_id)
            .bind(new.kind.as_str())
            .bind(&new.selection)
            .bind(&new.options)
            .bind(i64::from(new.dry_run))
            .bind(new.limit)
            .bind(new.reason.as_deref())
            .bind(&new.requested_by)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Operations of an application, the newest first.
    pub async fn operations(
        &self,
        app_id: &str,
        state: Option<OperationState>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let _timer = self.timer("operations");
        let query = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE app_id = $1 AND ($2 = '' OR state = $2) ORDER BY created_at DESC, id LIMIT $3 OFFSET $4"
        ));
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(state.map_or("", OperationState::as_str))
            .bind(limit)
            .bind(offset)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// One operation.
    pub async fn operation(
        &self,
        app_id: &str,
        id: &str,
    ) -> Result<Option<OperationRow>, StoreError> {
        let _timer = self.timer("operation");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE app_id = $1 AND id = $2"));
        let row = sqlx::query(query)
            .bind(app_id)
            .bind(id)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Some of an operation's failures: workflow id and error.
    pub async fn operation_errors(
        &self,
        id: &str,
        limit: i64,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let query = "SELECT workflow_id, COALESCE(error, '') AS error FROM operation_items \
             WHERE operation_id = $1 AND outcome = 'FAILED' ORDER BY seq LIMIT $2";
        let rows = sqlx::query(query)
            .bind(id)
            .bind(limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("workflow_id")?, row.try_get("error")?)))
            .collect()
    }

    /// Operations that nobody drives, the oldest first. `expiry`: milliseconds of silence after which
    /// an instance is gone and its claims are void.
    pub async fn operations_due(&self, expiry: i64) -> Result<Vec<OperationRow>, StoreError> {
        let _timer = self.timer("operations_due");
        let query = sqlx::AssertSqlSafe(
            format!(
                "{COLUMNS} WHERE state IN ('WAITING_FOR_EXECUTOR', 'RUNNING') AND (claim_until IS NULL \
                   OR claim_until < {{now}} OR NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = claim_instance \
                     AND i.stopped_at IS NULL AND i.heartbeat_at > {{now}} - $1)) ORDER BY created_at LIMIT 100"
            )
            .replace("{now}", self.now_expr()),
        );
        let rows = sqlx::query(query)
            .bind(expiry)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Claims an operation for `ttl` milliseconds; it runs. `false` if another was faster, or it is over.
    pub async fn claim_operation(
        &self,
        id: &str,
        instance_id: &str,
        ttl: i64,
        expiry: i64,
    ) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE operations SET state = 'RUNNING', claim_instance = $2, claim_until = {now} + $3, message = NULL, \
               started_at = COALESCE(started_at, {now}) \
             WHERE id = $1 AND state IN ('WAITING_FOR_EXECUTOR', 'RUNNING') AND (claim_until IS NULL \
               OR claim_until < {now} OR NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = claim_instance \
                 AND i.stopped_at IS NULL AND i.heartbeat_at > {now} - $4))",
        );
        let done = sqlx::query(update)
            .bind(id)
            .bind(instance_id)
            .bind(ttl)
            .bind(expiry)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Prolongs a claim. `false` if it is lost, or the operation was aborted.
    pub async fn renew_operation(
        &self,
        id: &str,
        instance_id: &str,
        ttl: i64,
    ) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE operations SET claim_until = {now} + $3 \
             WHERE id = $1 AND claim_instance = $2 AND state = 'RUNNING'",
        );
        let done = sqlx::query(update)
            .bind(id)
            .bind(instance_id)
            .bind(ttl)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a claim back: the operation waits for somebody to do it. `message` says for whom.
    pub async fn release_operation(
        &self,
        id: &str,
        instance_id: &str,
        message: &str,
    ) -> Result<(), StoreError> {
        let update = "UPDATE operations SET state = 'WAITING_FOR_EXECUTOR', claim_instance = NULL, \
               claim_until = NULL, message = $3 WHERE id = $1 AND claim_instance = $2 AND state = 'RUNNING'";
        sqlx::query(update)
            .bind(id)
            .bind(instance_id)
            .bind(message)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Writes down which workflows are meant: all at once, so that a restart finds all or none. `false`
    /// if the claim is lost.
    pub async fn select_operation(
        &self,
        id: &str,
        instance_id: &str,
        selected: &[Selected],
        total: i64,
        truncated: bool,
        sample: &str,
    ) -> Result<bool, StoreError> {
        /// Rows of one statement: SQLite takes 32766 values.
        const ROWS: usize = 1000;
        let _timer = self.timer("select_operation");
        let mut tx = self.begin().await?;
        let update = "UPDATE operations SET total = $3, truncated = $4, sample = $5, failed = $6 \
             WHERE id = $1 AND claim_instance = $2 AND state = 'RUNNING' AND total IS NULL";
        let done = sqlx::query(update)
            .bind(id)
            .bind(instance_id)
            .bind(total)
            .bind(i64::from(truncated))
            .bind(sample)
            .bind(
                i64::try_from(selected.iter().filter(|one| one.error.is_some()).count())
                    .unwrap_or(0),
            )
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let mut seq: i64 = 0;
        for rows in selected.chunks(ROWS) {
            let values: Vec<String> = (0..rows.len())
                .map(|row| row * 4 + 2)
                .map(|at| format!("($1, ${at}, ${}, ${}, ${})", at + 1, at + 2, at + 3))
                .collect();
            let insert = sqlx::AssertSqlSafe(format!(
                "INSERT INTO operation_items (operation_id, seq, workflow_id, outcome, error) VALUES {}",
                values.join(", ")
            ));
            let mut query = sqlx::query(insert).bind(id);
            for one in rows {
                let outcome = one.error.as_ref().map(|_| "FAILED");
                query = query
                    .bind(seq)
                    .bind(&one.workflow_id)
                    .bind(outcome)
                    .bind(one.error.as_deref());
                seq += 1;
            }
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The next workflows to be done.
    pub async fn operation_items(&self, id: &str, limit: i64) -> Result<Vec<Item>, StoreError> {
        let query = "SELECT seq, workflow_id FROM operation_items \
             WHERE operation_id = $1 AND outcome IS NULL ORDER BY seq LIMIT $2";
        let rows = sqlx::query(query)
            .bind(id)
            .bind(limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Item {
                    seq: row.try_get("seq")?,
                    workflow_id: row.try_get("workflow_id")?,
                })
            })
            .collect()
    }

    /// Writes down what became of some workflows, also of an operation that was aborted meanwhile.
    pub async fn record_outcomes(&self, id: &str, outcomes: &[Outcome]) -> Result<(), StoreError> {
        let _timer = self.timer("record_outcomes");
        let (mut succeeded, mut failed) = (0_i64, 0_i64);
        let mut tx = self.begin().await?;
        for (item, error) in outcomes {
            let update = "UPDATE operation_items SET outcome = $3, error = $4 \
                 WHERE operation_id = $1 AND seq = $2 AND outcome IS NULL";
            let done = sqlx::query(update)
                .bind(id)
                .bind(item.seq)
                .bind(if error.is_some() { "FAILED" } else { "DONE" })
                .bind(error.as_deref())
                .execute(&mut *tx)
                .await?;
            let count = i64::try_from(done.rows_affected()).unwrap_or(0);
            if error.is_some() {
                failed += count;
            } else {
                succeeded += count;
            }
        }
        let update =
            "UPDATE operations SET succeeded = succeeded + $2, failed = failed + $3 WHERE id = $1";
        sqlx::query(update)
            .bind(id)
            .bind(succeeded)
            .bind(failed)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Ends an operation as its driver.
    pub async fn finish_operation(
        &self,
        id: &str,
        instance_id: &str,
        state: OperationState,
        message: Option<&str>,
    ) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE operations SET state = $3, message = $4, completed_at = {now}, claim_instance = NULL, \
               claim_until = NULL WHERE id = $1 AND claim_instance = $2 AND state = 'RUNNING'",
        );
        sqlx::query(update)
            .bind(id)
            .bind(instance_id)
            .bind(state.as_str())
            .bind(message)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Stops an operation. `false` if it is over.
    pub async fn abort_operation(&self, app_id: &str, id: &str) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE operations SET state = 'ABORTED', message = NULL, completed_at = {now} \
             WHERE app_id = $1 AND id = $2 AND state IN ('WAITING_FOR_EXECUTOR', 'RUNNING')",
        );
        let done = sqlx::query(update)
            .bind(app_id)
            .bind(id)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Deletes operations that ended 30 days ago.
    pub async fn expire_operations(&self) -> Result<u64, StoreError> {
        let _timer = self.timer("expire_operations");
        let delete = self.sql("DELETE FROM operations WHERE completed_at < {now} - 2592000000");
        Ok(sqlx::query(delete)
            .execute(self.pool())
            .await?
            .rows_affected())
    }
}
