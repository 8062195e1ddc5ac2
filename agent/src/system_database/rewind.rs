//! Rewinding: running a finished workflow again from one of its steps, under its own id.

use super::{DatabaseError, INTERNAL_QUEUE, SystemDatabase, Transaction};

/// From where to run a workflow again, and where.
#[derive(Debug, Clone, Default)]
pub struct Rewind {
    /// The workflow.
    pub workflow_id: String,
    /// First step to execute again.
    pub start_step: i64,
    /// Code version; unchanged if `None`.
    pub application_version: Option<String>,
    /// Queue; the internal one if `None`.
    pub queue_name: Option<String>,
    /// Partition of the queue; cleared if `None`.
    pub queue_partition_key: Option<String>,
}

impl SystemDatabase {
    /// Forgets what a finished workflow did from a step on and enqueues it again. Unread messages and those
    /// it read from that step on are lost; children are found again under their ids.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`], [`DatabaseError::Conflict`] if it has not finished or changes meanwhile.
    pub async fn rewind_workflow(&self, rewind: &Rewind) -> Result<(), DatabaseError> {
        let (id, start) = (&rewind.workflow_id, rewind.start_step);
        if start < 0 {
            return Err(DatabaseError::Invalid(format!(
                "start_step must be 0 or more, not {start}"
            )));
        }
        let mut transaction = self.begin().await?;
        let status = self
            .sql("SELECT status FROM @workflow_status WHERE workflow_uuid = ")
            .bind(id);
        let rows = transaction.fetch(status).await?;
        let Some(row) = rows.first() else {
            return Err(DatabaseError::NotFound {
                what: "workflow",
                ids: vec![id.clone()],
            });
        };
        let status = row.required("status")?;
        if matches!(status.as_str(), "PENDING" | "ENQUEUED" | "DELAYED") {
            return Err(DatabaseError::Conflict(format!(
                "workflow {id} is {status}; cancel it before rewinding it"
            )));
        }
        self.forget_from(&mut transaction, id, start).await?;
        let enqueue = self
            .sql("UPDATE @workflow_status SET status = 'ENQUEUED', queue_name = ")
            .bind(rewind.queue_name.as_deref().unwrap_or(INTERNAL_QUEUE))
            .push(", queue_partition_key = ")
            .bind(rewind.queue_partition_key.clone())
            .push(", application_version = COALESCE(")
            .bind(rewind.application_version.clone())
            .push(
                ", application_version), recovery_attempts = 0, owner_xid = NULL, workflow_deadline_epoch_ms = NULL, \
                 deduplication_id = NULL, started_at_epoch_ms = NULL, completed_at = NULL, output = NULL, error = NULL, \
                 updated_at = NOW_MS WHERE workflow_uuid = ",
            )
            .bind(id)
            .push(" AND status = ")
            .bind(&status);
        if transaction.execute(enqueue).await? != 1 {
            return Err(DatabaseError::Conflict(format!(
                "workflow {id} changed while it was being rewound; try again"
            )));
        }
        transaction.commit().await
    }

    async fn forget_from(
        &self,
        transaction: &mut Transaction,
        id: &str,
        start: i64,
    ) -> Result<(), DatabaseError> {
        let changed_events = self
            .sql(
                "DELETE FROM @workflow_events WHERE key IN (SELECT h.key FROM @workflow_events_history AS h \
                 WHERE h.function_id >= ",
            )
            .bind(start)
            .push(" AND h.workflow_uuid = ")
            .bind(id)
            .push(") AND workflow_uuid = ")
            .bind(id);
        let earlier_events = self
            .sql(
                "INSERT INTO @workflow_events (workflow_uuid, key, value, serialization) \
                 SELECT h.workflow_uuid, h.key, h.value, h.serialization FROM @workflow_events_history AS h \
                 WHERE h.workflow_uuid = ",
            )
            .bind(id)
            .push(
                " AND h.function_id = (SELECT MAX(n.function_id) FROM @workflow_events_history AS n \
                 WHERE n.workflow_uuid = h.workflow_uuid AND n.key = h.key AND n.function_id < ",
            )
            .bind(start)
            .push(") ON CONFLICT (workflow_uuid, key) DO NOTHING");
        let closed_streams = self
            .sql("DELETE FROM @streams WHERE value IN ('\"__DBOS_STREAM_CLOSED__\"', '__DBOS_STREAM_CLOSED__') AND workflow_uuid = ")
            .bind(id)
            .push(" AND function_id >= ")
            .bind(start);
        let messages = self
            .sql("DELETE FROM @notifications WHERE destination_uuid = ")
            .bind(id)
            .push(" AND consumed = FALSE");
        let from = |table: &str| {
            self.sql(&format!("DELETE FROM @{table} WHERE workflow_uuid = "))
                .bind(id)
                .push(" AND function_id >= ")
                .bind(start)
        };
        let (steps, history) = (from("operation_outputs"), from("workflow_events_history"));
        for statement in [
            changed_events,
            earlier_events,
            closed_streams,
            steps,
            history,
            messages,
        ] {
            transaction.execute(statement).await?;
        }
        // The older line does not know by which step a message was taken, and keeps outcomes in the status row.
        if !self.is_older_line() {
            let taken = self
                .sql("DELETE FROM @notifications WHERE destination_uuid = ")
                .bind(id)
                .push(" AND consumed_by_function_id >= ")
                .bind(start);
            let output = self
                .sql("DELETE FROM @workflow_output WHERE workflow_uuid = ")
                .bind(id);
            transaction.execute(taken).await?;
            transaction.execute(output).await?;
        }
        Ok(())
    }
}
