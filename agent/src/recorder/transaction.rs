//! A step's checkpoint inside the transaction that does the step's work.

use super::StepRow;
use crate::execution::Recorded;
use crate::system_database::{DatabaseError, Dialect, SystemDatabase, Transaction};

/// What the checkpoint of a transaction found.
pub(crate) enum InTransaction {
    /// Written; it stands when the transaction commits.
    Done,
    /// The workflow belongs to somebody else now.
    NotOwner,
    /// The step is on record already.
    Recorded(Recorded),
}

/// Writes `row` if its token still owns the workflow, locking the workflow's row to the end of the
/// transaction.
pub(crate) async fn record_in(
    transaction: &mut Transaction,
    db: &SystemDatabase,
    app: &str,
    row: &StepRow,
) -> Result<InTransaction, DatabaseError> {
    let owner = db
        .sql("SELECT 1 AS one FROM @workflow_status WHERE workflow_uuid = ")
        .bind(&row.workflow_id)
        .push(" AND owner_xid = ")
        .bind(&row.token)
        .push_for(Dialect::Postgres, " FOR NO KEY UPDATE");
    if transaction.fetch(owner).await?.is_empty() {
        return Ok(InTransaction::NotOwner);
    }
    let insert = db
        .sql(
            "INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms, \
             completed_at_epoch_ms, output, error, serialization, application_name) VALUES (",
        )
        .bind(&row.workflow_id)
        .push(", ")
        .bind(i64::from(row.position))
        .push(", ")
        .bind(&row.name)
        .push(", ")
        .bind(row.started_at)
        .push(", ")
        .bind(row.completed_at)
        .push(", ")
        .bind(row.output.as_deref())
        .push(", ")
        .bind(row.error.as_deref())
        .push(", ")
        .bind(&*row.format)
        .push(", ")
        .bind(app)
        .push(") ON CONFLICT (workflow_uuid, function_id) DO NOTHING");
    if transaction.execute(insert).await? == 1 {
        return Ok(InTransaction::Done);
    }
    let existing = db
        .sql("SELECT function_name, output, error, child_workflow_id FROM @operation_outputs WHERE workflow_uuid = ")
        .bind(&row.workflow_id)
        .push(" AND function_id = ")
        .bind(i64::from(row.position));
    let found = transaction.fetch(existing).await?;
    let Some(found) = found.first() else {
        return Ok(InTransaction::NotOwner);
    };
    Ok(InTransaction::Recorded(Recorded {
        name: found.required("function_name")?,
        output: found.text("output")?,
        error: found.text("error")?,
        child: found.text("child_workflow_id")?,
    }))
}
