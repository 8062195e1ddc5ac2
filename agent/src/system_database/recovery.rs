//! Returning the workflows of executors to their queues, and asking whether there are any.

use super::{DatabaseError, INTERNAL_QUEUE, Scope, Statement, SystemDatabase};

impl SystemDatabase {
    /// Puts the running workflows of `executor_ids` back to where they came from, or on the internal queue,
    /// to go on from their last checkpoint. Only those of `application_version` and in `scope`: another
    /// version's workflows wait for an executor of theirs. No executor ids: nothing. Returns the ids.
    ///
    /// # Errors
    /// If the database refuses; then nothing is changed.
    pub async fn recover_executors(
        &self,
        executor_ids: &[String],
        application_version: &str,
        scope: &Scope,
    ) -> Result<Vec<String>, DatabaseError> {
        if executor_ids.is_empty() {
            return Ok(Vec::new());
        }
        let whose = self
            .give_back()
            .any_of("executor_id", executor_ids)
            .push(" AND application_version = ")
            .bind(application_version)
            .and_scope("application_name", scope);
        self.given_back(whose).await
    }

    /// As [`recover_executors`](Self::recover_executors), for one executor, and without what is owned under a token that
    /// begins with `own`: that is being executed.
    ///
    /// # Errors
    /// If the database refuses; then nothing is changed.
    pub(crate) async fn recover_not_owned(
        &self,
        executor_id: &str,
        own: &str,
        application_version: &str,
        scope: &Scope,
    ) -> Result<Vec<String>, DatabaseError> {
        let whose = self
            .give_back()
            .push("executor_id = ")
            .bind(executor_id)
            .push(" AND application_version = ")
            .bind(application_version)
            .push(" AND owner_xid NOT LIKE ")
            .bind(format!("{own}%"))
            .and_scope("application_name", scope);
        self.given_back(whose).await
    }

    /// The beginning of a statement that gives running workflows back; which, is still to be said.
    fn give_back(&self) -> Statement {
        self.sql(
                "UPDATE @workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL, \
                 updated_at = NOW_MS, queue_name = COALESCE(NULLIF(queue_name, ''), ",
            )
            .bind(INTERNAL_QUEUE)
            .push(") WHERE status = 'PENDING' AND ")
    }

    async fn given_back(&self, statement: Statement) -> Result<Vec<String>, DatabaseError> {
        self.write_returning(statement.push(" RETURNING workflow_uuid"))
            .await?
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect()
    }

    /// Whether any workflow is running under this executor id and version.
    ///
    /// # Errors
    /// If the database refuses, which must not be taken for "no".
    pub async fn exist_pending_workflows(
        &self,
        executor_id: &str,
        application_version: &str,
        scope: &Scope,
    ) -> Result<bool, DatabaseError> {
        let statement = self
            .sql("SELECT 1 AS found FROM @workflow_status WHERE status = 'PENDING' AND executor_id = ")
            .bind(executor_id)
            .push(" AND application_version = ")
            .bind(application_version)
            .and_scope("application_name", scope)
            .push(" LIMIT 1");
        Ok(!self.read(statement).await?.is_empty())
    }
}
