//! Events, messages and streams of a workflow, as stored.

use super::{DatabaseError, Row, SystemDatabase};
use crate::message::NO_TOPIC;

/// The value that ends a stream, in both spellings found in databases; the first is the one to write.
pub(crate) const STREAM_CLOSED: [&str; 2] =
    ["\"__DBOS_STREAM_CLOSED__\"", "__DBOS_STREAM_CLOSED__"];

/// A value that is still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Text as stored.
    pub value: String,
    /// Its format.
    pub serialization: Option<String>,
}

impl Stored {
    /// Columns `value` and `serialization`.
    pub(crate) fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            value: row.required("value")?,
            serialization: row.filled("serialization")?,
        })
    }
}

/// A message to a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Topic, if it has one.
    pub topic: Option<String>,
    /// The message.
    pub message: Stored,
    /// When it was sent, epoch milliseconds.
    pub created_at: i64,
    /// Whether the workflow has received it.
    pub consumed: bool,
}

impl SystemDatabase {
    /// The current value of every event of a workflow, by key.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn workflow_events(
        &self,
        workflow_id: &str,
    ) -> Result<Vec<(String, Stored)>, DatabaseError> {
        let statement = self
            .sql("SELECT key, value, serialization FROM @workflow_events WHERE workflow_uuid = ")
            .bind(workflow_id)
            .push(" ORDER BY key");
        let rows = self.read(statement).await?;
        rows.iter()
            .map(|row| Ok((row.required("key")?, Stored::read(row)?)))
            .collect()
    }

    /// All messages to a workflow, oldest first.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn workflow_messages(
        &self,
        workflow_id: &str,
    ) -> Result<Vec<MessageRow>, DatabaseError> {
        let statement = self
            .sql("SELECT topic, message, serialization, created_at_epoch_ms, consumed FROM @notifications WHERE destination_uuid = ")
            .bind(workflow_id)
            .push(" ORDER BY created_at_epoch_ms, message_uuid");
        let rows = self.read(statement).await?;
        rows.iter()
            .map(|row| {
                Ok(MessageRow {
                    topic: row.text("topic")?.filter(|topic| topic != NO_TOPIC),
                    message: Stored {
                        value: row.required("message")?,
                        serialization: row.filled("serialization")?,
                    },
                    created_at: row.int("created_at_epoch_ms")?.unwrap_or(0),
                    consumed: row.bool("consumed")?,
                })
            })
            .collect()
    }

    /// The entries of every stream of a workflow, in the order written; the end marks are left out.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn workflow_streams(
        &self,
        workflow_id: &str,
    ) -> Result<Vec<(String, Vec<Stored>)>, DatabaseError> {
        let statement = self
            .sql("SELECT key, value, serialization FROM @streams WHERE workflow_uuid = ")
            .bind(workflow_id)
            .push(" ORDER BY key, \"offset\"");
        let mut streams: Vec<(String, Vec<Stored>)> = Vec::new();
        for row in self.read(statement).await? {
            let key = row.required("key")?;
            if streams.last().is_none_or(|(last, _)| *last != key) {
                streams.push((key, Vec::new()));
            }
            let value = row.required("value")?;
            if let Some((_, values)) = streams.last_mut()
                && !STREAM_CLOSED.contains(&value.as_str())
            {
                values.push(Stored {
                    value,
                    serialization: row.filled("serialization")?,
                });
            }
        }
        Ok(streams)
    }
}
