//! Reading the checkpointed steps of a workflow.

use super::{DatabaseError, Row, SystemDatabase};

/// A step as stored. Times are epoch milliseconds; payloads are still encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRow {
    /// Position in the workflow.
    pub function_id: i64,
    /// Step name; operations of the library are called `DBOS.…`.
    pub function_name: String,
    /// Encoded result, if asked for and there is one.
    pub output: Option<String>,
    /// Encoded error, if asked for and there is one.
    pub error: Option<String>,
    /// Format of the payloads.
    pub serialization: Option<String>,
    /// Workflow that was started or awaited.
    pub child_workflow_id: Option<String>,
    /// When it began.
    pub started_at: Option<i64>,
    /// When it ended.
    pub completed_at: Option<i64>,
}

impl SystemDatabase {
    /// Lists the steps of a workflow in order; none if the workflow does not exist.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn list_steps(
        &self,
        workflow_id: &str,
        load_output: bool,
        limit: Option<i64>,
        offset: Option<i64>,
    ) -> Result<Vec<StepRow>, DatabaseError> {
        let payloads = if load_output {
            "output, error"
        } else {
            "CAST(NULL AS TEXT) AS output, CAST(NULL AS TEXT) AS error"
        };
        let statement = self
            .sql("SELECT function_id, function_name, serialization, child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms, ")
            .push(payloads)
            .push(" FROM @operation_outputs WHERE workflow_uuid = ")
            .bind(workflow_id)
            .push(" ORDER BY function_id")
            .page(limit, offset);
        self.read(statement)
            .await?
            .iter()
            .map(StepRow::read)
            .collect()
    }
}

impl StepRow {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            function_id: row.int("function_id")?.unwrap_or(0),
            function_name: row.required("function_name")?,
            output: row.text("output")?,
            error: row.text("error")?,
            serialization: row.filled("serialization")?,
            child_workflow_id: row.filled("child_workflow_id")?,
            started_at: row.int("started_at_epoch_ms")?,
            completed_at: row.int("completed_at_epoch_ms")?,
        })
    }
}
