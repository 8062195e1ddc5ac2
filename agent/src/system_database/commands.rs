//! Commands on existing workflows: cancel, resume, delete. Ids are global; ownership does not matter.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    DatabaseError, Dialect, INTERNAL_QUEUE, Scope, Statement, SystemDatabase, Transaction,
};

/// What cancelling writes besides its condition. The running process is not told: it notices at its
/// next checkpoint, where its ownership token no longer matches.
pub(super) const CANCEL: &str = "UPDATE @workflow_status SET status = 'CANCELLED', owner_xid = NULL, queue_name = NULL, \
    deduplication_id = NULL, started_at_epoch_ms = NULL, updated_at = NOW_MS, completed_at = NOW_MS WHERE ";

impl SystemDatabase {
    /// Cancels workflows that have not finished; optionally all their descendants, also those of finished
    /// ones. Unknown ids are ignored. Returns the number of rows cancelled.
    ///
    /// # Errors
    /// If the database refuses; levels of descendants already visited stay cancelled.
    pub async fn cancel_workflows(
        &self,
        workflow_ids: &[String],
        with_children: bool,
    ) -> Result<u64, DatabaseError> {
        let mut cancelled = 0;
        let mut seen: HashSet<String> = workflow_ids.iter().cloned().collect();
        let mut frontier: Vec<String> = seen.iter().cloned().collect();
        while !frontier.is_empty() {
            let statement = self
                .sql(CANCEL)
                .locked_ids(&frontier)
                .push(" AND status NOT IN ('SUCCESS', 'ERROR')");
            cancelled += self.write(statement).await?;
            if !with_children {
                break;
            }
            frontier = self
                .children_of(&frontier)
                .await?
                .into_iter()
                .filter(|id| seen.insert(id.clone()))
                .collect();
        }
        Ok(cancelled)
    }

    /// Cancels every active workflow in `scope` created at or before `cutoff`. Returns how many.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn cancel_workflows_created_before(
        &self,
        cutoff: i64,
        scope: &Scope,
    ) -> Result<u64, DatabaseError> {
        let statement = self
            .sql(CANCEL)
            .push("status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND created_at <= ")
            .bind(cutoff)
            .and_scope("application_name", scope);
        self.write(statement).await
    }

    /// Enqueues workflows that have not succeeded or failed, to continue from their last checkpoint under
    /// their own version, on `queue` or the internal queue. A running one is taken from its executor.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] naming all unknown ids; then nothing is changed.
    pub async fn resume_workflows(
        &self,
        workflow_ids: &[String],
        queue: Option<&str>,
    ) -> Result<u64, DatabaseError> {
        let mut transaction = self.begin().await?;
        self.require_workflows(&mut transaction, workflow_ids)
            .await?;
        let statement = self
            .sql("UPDATE @workflow_status SET status = 'ENQUEUED', queue_name = ")
            .bind(queue.unwrap_or(INTERNAL_QUEUE))
            .push(
                ", recovery_attempts = 0, owner_xid = NULL, workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, \
                 started_at_epoch_ms = NULL, completed_at = NULL, updated_at = NOW_MS WHERE ",
            )
            .locked_ids(workflow_ids)
            .push(" AND status NOT IN ('SUCCESS', 'ERROR')");
        let resumed = transaction.execute(statement).await?;
        // Why it had been set aside is no outcome of what goes on now.
        if !self.is_older_line() {
            let reasons = self
                .sql("DELETE FROM @workflow_output WHERE ")
                .any_of("workflow_uuid", workflow_ids)
                .push(" AND EXISTS (SELECT 1 FROM @workflow_status w WHERE w.workflow_uuid = @workflow_output.workflow_uuid AND w.status = 'ENQUEUED')");
            transaction.execute(reasons).await?;
        }
        if self.inline_payloads() {
            let reasons = self
                .sql("UPDATE @workflow_status SET output = NULL, error = NULL WHERE ")
                .any_of("workflow_uuid", workflow_ids)
                .push(" AND status = 'ENQUEUED'");
            transaction.execute(reasons).await?;
        }
        transaction.commit().await?;
        Ok(resumed)
    }

    /// Moves the start of a delayed workflow. False if it is not delayed.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn set_delay(&self, workflow_id: &str, until: i64) -> Result<bool, DatabaseError> {
        let statement = self
            .sql("UPDATE @workflow_status SET delay_until_epoch_ms = ")
            .bind(until)
            .push(", updated_at = NOW_MS WHERE status = 'DELAYED' AND workflow_uuid = ")
            .bind(workflow_id);
        Ok(self.write(statement).await? > 0)
    }

    /// Gives an enqueued or delayed workflow another priority. False if it is neither.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn set_priority(
        &self,
        workflow_id: &str,
        priority: i32,
    ) -> Result<bool, DatabaseError> {
        let statement = self
            .sql("UPDATE @workflow_status SET priority = ")
            .bind(i64::from(priority))
            .push(", updated_at = NOW_MS WHERE status IN ('ENQUEUED', 'DELAYED') AND workflow_uuid = ")
            .bind(workflow_id);
        Ok(self.write(statement).await? > 0)
    }

    /// Puts attributes over those a workflow has, key by key.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] if there is no such workflow.
    pub async fn merge_attributes(
        &self,
        workflow_id: &str,
        added: Map<String, Value>,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.begin().await?;
        let lock = match self.dialect() {
            Dialect::Postgres => " FOR UPDATE",
            Dialect::Sqlite => "",
        };
        let current = self
            .sql("SELECT CAST(attributes AS TEXT) AS attributes FROM @workflow_status WHERE workflow_uuid = ")
            .bind(workflow_id)
            .push(lock);
        let rows = transaction.fetch(current).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::NotFound {
            what: "workflow",
            ids: vec![workflow_id.to_owned()],
        })?;
        // What is no object, another program wrote; it gives way.
        let mut attributes: Map<String, Value> = row
            .text("attributes")?
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        attributes.extend(added);
        let statement = self
            .sql("UPDATE @workflow_status SET attributes = ")
            .bind_json(Some(Value::Object(attributes).to_string()))
            .push(", updated_at = NOW_MS WHERE workflow_uuid = ")
            .bind(workflow_id);
        transaction.execute(statement).await?;
        transaction.commit().await
    }

    /// The forks of workflows, their forks, and so on, that exist now.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn forks_of(&self, workflow_id: &str) -> Result<Vec<String>, DatabaseError> {
        let mut seen: HashSet<String> = HashSet::from([workflow_id.to_owned()]);
        let mut forks = Vec::new();
        let mut frontier = vec![workflow_id.to_owned()];
        while !frontier.is_empty() {
            let statement = self
                .sql("SELECT workflow_uuid FROM @workflow_status WHERE ")
                .any_of("forked_from", &frontier)
                .push(" ORDER BY created_at, workflow_uuid");
            frontier.clear();
            for row in self.read(statement).await? {
                let id: String = row.required("workflow_uuid")?;
                if seen.insert(id.clone()) {
                    frontier.push(id);
                }
            }
            forks.extend(frontier.iter().cloned());
        }
        Ok(forks)
    }

    /// Deletes workflows in any state with everything that belongs to them; optionally all descendants.
    /// Unknown ids are ignored. Returns the number of workflows deleted.
    ///
    /// # Errors
    /// If the database refuses; then nothing is deleted.
    pub async fn delete_workflows(
        &self,
        workflow_ids: &[String],
        with_children: bool,
    ) -> Result<u64, DatabaseError> {
        let ids = if with_children {
            self.with_descendants(workflow_ids).await?
        } else {
            workflow_ids.to_vec()
        };
        let mut transaction = self.begin().await?;
        let deleted = self.delete_rows(&mut transaction, &ids).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    /// Deletes the rows of workflows. Events, streams and messages go with the status row.
    pub(super) async fn delete_rows(
        &self,
        transaction: &mut Transaction,
        ids: &[String],
    ) -> Result<u64, DatabaseError> {
        for table in self.side_tables() {
            let statement = self
                .sql(&format!("DELETE FROM @{table} WHERE "))
                .any_of("workflow_uuid", ids);
            transaction.execute(statement).await?;
        }
        transaction
            .execute(
                self.sql("DELETE FROM @workflow_status WHERE ")
                    .locked_ids(ids),
            )
            .await
    }

    /// The ids and those of all descendants.
    pub(super) async fn with_descendants(
        &self,
        workflow_ids: &[String],
    ) -> Result<Vec<String>, DatabaseError> {
        let mut all: Vec<String> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut frontier: Vec<String> = workflow_ids.to_vec();
        while !frontier.is_empty() {
            frontier.retain(|id| seen.insert(id.clone()));
            all.extend(frontier.iter().cloned());
            frontier = self.children_of(&frontier).await?;
        }
        Ok(all)
    }

    async fn children_of(&self, parents: &[String]) -> Result<Vec<String>, DatabaseError> {
        let statement = self
            .sql("SELECT workflow_uuid FROM @workflow_status WHERE ")
            .any_of("parent_workflow_id", parents);
        self.read(statement)
            .await?
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect()
    }

    /// Fails with all ids that do not exist.
    pub(super) async fn require_workflows(
        &self,
        transaction: &mut Transaction,
        workflow_ids: &[String],
    ) -> Result<(), DatabaseError> {
        let statement = self
            .sql("SELECT workflow_uuid FROM @workflow_status WHERE ")
            .any_of("workflow_uuid", workflow_ids);
        let rows = transaction.fetch(statement).await?;
        let found = rows
            .iter()
            .map(|row| row.required("workflow_uuid"))
            .collect::<Result<HashSet<_>, _>>()?;
        let missing: Vec<String> = workflow_ids
            .iter()
            .filter(|id| !found.contains(*id))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(DatabaseError::NotFound {
            what: "workflow",
            ids: missing,
        })
    }
}

impl Statement {
    /// Appends the condition that the row is one of `ids`. On Postgres the rows are locked in the order of
    /// their ids first, so that two commands on overlapping sets cannot deadlock.
    pub(super) fn locked_ids(self, ids: &[String]) -> Self {
        match self.dialect {
            Dialect::Sqlite => self.any_of("workflow_uuid", ids),
            Dialect::Postgres => self
                .push("workflow_uuid IN (SELECT workflow_uuid FROM @workflow_status WHERE ")
                .any_of("workflow_uuid", ids)
                .push(" ORDER BY workflow_uuid FOR UPDATE)"),
        }
    }
}
