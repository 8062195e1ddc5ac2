//! Deleting the history of finished workflows.

use super::{DatabaseError, Scope, SystemDatabase};

/// What to delete. Of two limits the one that deletes more wins.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// Delete workflows that finished before this, epoch milliseconds.
    pub finished_before: Option<i64>,
    /// Keep about this many of the most recently finished ones.
    pub keep_newest: Option<i64>,
    /// Workflows per transaction.
    pub batch_size: i64,
    /// Whose workflows.
    pub scope: Scope,
}

/// When a workflow finished. Some SDKs leave the time of a dead-lettered one empty.
const FINISHED_AT: &str = "COALESCE(completed_at, updated_at)";
const FINISHED: &str = "status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')";

impl SystemDatabase {
    /// Deletes finished workflows in batches, oldest first, then payloads and steps that were left without
    /// their workflow by SDKs that delete only the latter. Returns the number of workflows deleted.
    ///
    /// Safe to run in several processes at once.
    ///
    /// # Errors
    /// If the database refuses; batches already deleted stay deleted.
    pub async fn delete_history(&self, retention: &Retention) -> Result<u64, DatabaseError> {
        let by_rows = match retention.keep_newest.filter(|rows| *rows > 0) {
            Some(rows) => {
                self.finish_time_of_nth_newest(rows, &retention.scope)
                    .await?
            }
            None => None,
        };
        let Some(cutoff) = retention.finished_before.max(by_rows) else {
            return Ok(0);
        };
        let batch_size = retention.batch_size.max(1);
        let mut deleted = 0;
        loop {
            let statement = self
                .sql(&format!("SELECT workflow_uuid FROM @workflow_status WHERE {FINISHED} AND {FINISHED_AT} < "))
                .bind(cutoff)
                .and_scope("application_name", &retention.scope)
                .push(&format!(" ORDER BY {FINISHED_AT} LIMIT "))
                .bind(batch_size);
            let rows = self.read(statement).await?;
            let ids = rows
                .iter()
                .map(|row| row.required("workflow_uuid"))
                .collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                break;
            }
            deleted += self.delete_finished(&ids).await?;
        }
        self.delete_orphans(cutoff, batch_size).await?;
        Ok(deleted)
    }

    /// Deletes those of `ids` that are still finished: one may have been resumed or rewound meanwhile.
    async fn delete_finished(&self, ids: &[String]) -> Result<u64, DatabaseError> {
        let mut transaction = self.begin().await?;
        let delete = self
            .sql("DELETE FROM @workflow_status WHERE ")
            .locked_ids(ids)
            .push(&format!(" AND {FINISHED} RETURNING workflow_uuid"));
        let rows = transaction.fetch(delete).await?;
        let gone = rows
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect::<Result<Vec<_>, _>>()?;
        self.delete_rows(&mut transaction, &gone).await?;
        transaction.commit().await?;
        Ok(gone.len() as u64)
    }

    async fn finish_time_of_nth_newest(
        &self,
        rows: i64,
        scope: &Scope,
    ) -> Result<Option<i64>, DatabaseError> {
        let statement = self
            .sql(&format!(
                "SELECT {FINISHED_AT} AS finished_at FROM @workflow_status WHERE {FINISHED}"
            ))
            .and_scope("application_name", scope)
            .push(&format!(" ORDER BY {FINISHED_AT} DESC LIMIT 1 OFFSET "))
            .bind(rows - 1);
        self.read(statement)
            .await?
            .first()
            .map(|row| row.int("finished_at"))
            .transpose()
            .map(Option::flatten)
    }

    /// A payload is never stamped earlier than its workflow was created, so an old one without a workflow
    /// does not belong to one that is just being inserted.
    async fn delete_orphans(&self, cutoff: i64, batch_size: i64) -> Result<(), DatabaseError> {
        // On the older line they go with their workflow, and have no time of their own.
        let tables = if self.is_older_line() {
            &[]
        } else {
            self.side_tables()
        };
        for table in tables {
            loop {
                let statement = self
                    .sql(&format!(
                        "DELETE FROM @{table} WHERE workflow_uuid IN (SELECT p.workflow_uuid FROM @{table} AS p \
                         WHERE NOT EXISTS (SELECT 1 FROM @workflow_status AS w WHERE w.workflow_uuid = p.workflow_uuid) \
                         AND p.retention_timestamp < "
                    ))
                    .bind(cutoff)
                    .push(" LIMIT ")
                    .bind(batch_size)
                    .push(") AND retention_timestamp < ")
                    .bind(cutoff);
                if self.write(statement).await? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}
