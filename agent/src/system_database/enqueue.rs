//! Starts and messages that are written in a transaction of the application's own.

use super::{DatabaseError, SystemDatabase, Transaction};
use crate::recorder::{MessageRow, StartRow};

impl SystemDatabase {
    /// Enqueues a run; false if there is one of its id. A deduplication id that is held is a unique violation.
    pub(crate) async fn enqueue_in(
        &self,
        transaction: &mut Transaction,
        row: &StartRow,
        application: &str,
    ) -> Result<bool, DatabaseError> {
        let application = row.application.as_deref().unwrap_or(application);
        let texts = [
            ("workflow_uuid", Some(row.workflow_id.as_str())),
            ("status", Some(row.status.as_str())),
            ("name", Some(row.name.as_str())),
            ("queue_name", row.queue.as_deref()),
            (
                "application_name",
                Some(application).filter(|name| !name.is_empty()),
            ),
            ("application_version", row.app_version.as_deref()),
            ("application_id", Some("")),
            ("serialization", Some(crate::workflow::PORTABLE)),
            (self.creator(), Some(row.token.as_str())),
            ("deduplication_id", row.deduplication_id.as_deref()),
            ("queue_partition_key", row.partition_key.as_deref()),
            ("authenticated_user", row.caller.user.as_deref()),
            ("assumed_role", row.caller.assumed_role.as_deref()),
            ("authenticated_roles", row.caller.roles.as_deref()),
        ];
        let numbers = [
            ("workflow_timeout_ms", row.timeout_ms),
            ("workflow_deadline_epoch_ms", row.deadline_ms),
            ("delay_until_epoch_ms", row.delay_until_ms),
            ("recovery_attempts", Some(0)),
        ];
        let columns = texts.iter().map(|(column, _)| *column);
        let columns: Vec<&str> = columns
            .chain(numbers.iter().map(|(column, _)| *column))
            .collect();
        let mut insert = self
            .sql("INSERT INTO @workflow_status (priority, attributes, ")
            .push(&columns.join(", "))
            .push(") VALUES (CAST(")
            .bind(i64::from(row.priority))
            .push(" AS INTEGER), ")
            .bind_json(row.attributes.clone());
        for (_, text) in texts {
            insert = insert.push(", ").bind(text);
        }
        for (_, number) in numbers {
            insert = insert.push(", ").bind(number);
        }
        let insert = insert.push(") ON CONFLICT (workflow_uuid) DO NOTHING");
        if transaction.execute(insert).await? == 0 {
            return Ok(false);
        }
        self.store_input(transaction, &row.workflow_id, &row.inputs)
            .await?;
        Ok(true)
    }

    /// Sends a message; false if its destination does not exist.
    pub(crate) async fn send_in(
        &self,
        transaction: &mut Transaction,
        row: &MessageRow,
    ) -> Result<bool, DatabaseError> {
        let destination = self
            .sql("SELECT 1 AS one FROM @workflow_status WHERE workflow_uuid = ")
            .bind(&row.destination);
        if transaction.fetch(destination).await?.is_empty() {
            return Ok(false);
        }
        let send = self
            .sql("INSERT INTO @notifications (message_uuid, destination_uuid, topic, message, serialization) VALUES (")
            .bind(&row.id)
            .push(", ")
            .bind(&row.destination)
            .push(", ")
            .bind(&row.topic)
            .push(", ")
            .bind(&row.body)
            .push(", ")
            .bind(crate::workflow::PORTABLE)
            .push(") ON CONFLICT (message_uuid) DO NOTHING");
        transaction.execute(send).await?;
        Ok(true)
    }
}
