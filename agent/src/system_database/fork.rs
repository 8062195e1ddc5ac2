//! Forking: a new workflow that begins with a copy of another one's first steps.

use uuid::Uuid;

use super::{DatabaseError, INTERNAL_QUEUE, SystemDatabase, Transaction};

/// A fork to make.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// Source.
    pub workflow_id: String,
    /// First step to execute again; checkpoints before it are copied.
    pub start_step: i64,
    /// Id of the fork; a random one if `None`.
    pub new_workflow_id: Option<String>,
    /// Where and as what it runs.
    pub options: ForkOptions,
}

/// Where and as what forks run.
#[derive(Debug, Clone, Default)]
pub struct ForkOptions {
    /// Code version; the source's if `None`.
    pub application_version: Option<String>,
    /// Queue; the internal one if `None`.
    pub queue_name: Option<String>,
    /// Partition of the queue.
    pub queue_partition_key: Option<String>,
    /// Start-to-completion budget.
    pub timeout_ms: Option<i64>,
    /// Children to be found in place of the recorded ones, as (recorded id, id to use).
    pub replacement_children: Vec<(String, String)>,
}

/// From where to fork, when it is not given as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForkPoint {
    /// The last step that ended with an error, else the last step.
    LastFailure,
    /// The last recorded step.
    LastStep,
    /// This step.
    Step(i64),
    /// The last step of this name.
    StepNamed(String),
}

impl SystemDatabase {
    /// Makes forks, all or none, and enqueues them. A source without owner is forked for `application`.
    /// Returns the ids in the order asked.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] for unknown sources, [`DatabaseError::Conflict`] if a given id is taken,
    /// [`DatabaseError::Invalid`] for a negative step.
    pub async fn fork_workflows(
        &self,
        forks: &[Fork],
        application: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        self.fork_all(forks.to_vec(), None, application).await
    }

    /// Forks each workflow from its own `point`. All or none; returns the ids in the order asked.
    ///
    /// # Errors
    /// As [`fork_workflows`](Self::fork_workflows), and [`DatabaseError::NotFound`] if a workflow lacks the named step.
    pub async fn fork_workflows_at(
        &self,
        workflow_ids: &[String],
        point: &ForkPoint,
        options: &ForkOptions,
        application: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let forks: Vec<Fork> = workflow_ids
            .iter()
            .map(|workflow_id| Fork {
                workflow_id: workflow_id.clone(),
                options: options.clone(),
                ..Fork::default()
            })
            .collect();
        self.fork_all(forks, Some(point), application).await
    }

    /// Makes one fork from `point`, whatever its `start_step` says.
    ///
    /// # Errors
    /// As [`fork_workflows_at`](Self::fork_workflows_at), and [`DatabaseError::Conflict`] if its id is taken.
    pub async fn fork_workflow_at(
        &self,
        fork: Fork,
        point: &ForkPoint,
        application: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        self.fork_all(vec![fork], Some(point), application).await
    }

    async fn fork_all(
        &self,
        forks: Vec<Fork>,
        point: Option<&ForkPoint>,
        application: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let mut transaction = self.begin().await?;
        let sources: Vec<String> = forks.iter().map(|fork| fork.workflow_id.clone()).collect();
        self.require_workflows(&mut transaction, &sources).await?;
        let mut ids = Vec::with_capacity(forks.len());
        for mut fork in forks {
            if let Some(point) = point {
                fork.start_step = self
                    .resolve_fork_point(&mut transaction, &fork.workflow_id, point)
                    .await?;
            }
            ids.push(self.fork_one(&mut transaction, &fork, application).await?);
        }
        transaction.commit().await?;
        Ok(ids)
    }

    async fn resolve_fork_point(
        &self,
        transaction: &mut Transaction,
        workflow_id: &str,
        point: &ForkPoint,
    ) -> Result<i64, DatabaseError> {
        let select = |choice: &str| {
            self.sql("SELECT ")
                .push(choice)
                .push(" AS step FROM @operation_outputs WHERE workflow_uuid = ")
                .bind(workflow_id)
        };
        let statement = match point {
            ForkPoint::Step(step) => return Ok(*step),
            ForkPoint::LastStep => select("MAX(function_id)"),
            ForkPoint::LastFailure => select(
                "COALESCE(MAX(CASE WHEN error IS NOT NULL THEN function_id END), MAX(function_id))",
            ),
            ForkPoint::StepNamed(name) => select("MAX(function_id)")
                .push(" AND function_name = ")
                .bind(name),
        };
        let rows = transaction.fetch(statement).await?;
        let step = rows
            .first()
            .map(|row| row.int("step"))
            .transpose()?
            .flatten();
        match (step, point) {
            (Some(step), _) => Ok(step),
            (None, ForkPoint::StepNamed(name)) => Err(DatabaseError::NotFound {
                what: "step",
                ids: vec![format!("{name:?} in workflow {workflow_id}")],
            }),
            // Nothing was recorded: start over.
            (None, _) => Ok(0),
        }
    }

    async fn fork_one(
        &self,
        transaction: &mut Transaction,
        fork: &Fork,
        application: &str,
    ) -> Result<String, DatabaseError> {
        if fork.start_step < 0 {
            return Err(DatabaseError::Invalid(format!(
                "start_step must be 0 or more, not {}",
                fork.start_step
            )));
        }
        let new_id = match fork.new_workflow_id.as_deref() {
            Some(id) if id.trim().is_empty() => {
                return Err(DatabaseError::Invalid(
                    "new_workflow_id must not be blank".to_owned(),
                ));
            }
            Some(id) => id.to_owned(),
            None => Uuid::new_v4().to_string(),
        };
        self.insert_fork(transaction, fork, &new_id, application)
            .await?;
        let marked = self
            .sql("UPDATE @workflow_status SET was_forked_from = TRUE WHERE workflow_uuid = ")
            .bind(&fork.workflow_id);
        transaction.execute(marked).await?;
        if fork.start_step > 0 {
            self.copy_history(transaction, fork, &new_id, application)
                .await?;
        }
        Ok(new_id)
    }

    async fn insert_fork(
        &self,
        transaction: &mut Transaction,
        fork: &Fork,
        new_id: &str,
        application: &str,
    ) -> Result<(), DatabaseError> {
        let options = &fork.options;
        let statement = self
            .sql(
                "INSERT INTO @workflow_status (status, recovery_attempts, name, class_name, config_name, application_id, \
                 authenticated_user, authenticated_roles, assumed_role, serialization, attributes, forked_from, workflow_uuid, \
                 application_name, application_version, queue_name, queue_partition_key, workflow_timeout_ms) \
                 SELECT 'ENQUEUED', 0, w.name, w.class_name, w.config_name, w.application_id, w.authenticated_user, \
                 w.authenticated_roles, w.assumed_role, w.serialization, w.attributes, w.workflow_uuid, ",
            )
            .bind(new_id)
            .push(", COALESCE(w.application_name, ")
            .bind(application)
            .push("), COALESCE(")
            .bind(options.application_version.clone())
            .push(", w.application_version), ")
            .bind(options.queue_name.as_deref().unwrap_or(INTERNAL_QUEUE))
            .push(", ")
            .bind(options.queue_partition_key.clone())
            .push(", ")
            .bind(options.timeout_ms)
            .push(" FROM @workflow_status AS w WHERE w.workflow_uuid = ")
            .bind(&fork.workflow_id);
        transaction.execute(statement).await.map_err(|e| {
            if e.is_unique_violation() {
                DatabaseError::Conflict(format!(
                    "a workflow with the id {new_id} exists already; choose another new_workflow_id"
                ))
            } else {
                e
            }
        })?;
        // An older SDK that deletes a workflow leaves these behind; they must not become the fork's.
        for table in self.side_tables() {
            let stale = self
                .sql(&format!("DELETE FROM @{table} WHERE workflow_uuid = "))
                .bind(new_id);
            transaction.execute(stale).await?;
        }
        if self.is_older_line() {
            let inline = self
                .sql("UPDATE @workflow_status SET inputs = (SELECT w.inputs FROM @workflow_status AS w WHERE w.workflow_uuid = ")
                .bind(&fork.workflow_id)
                .push(") WHERE workflow_uuid = ")
                .bind(new_id);
            transaction.execute(inline).await?;
            return Ok(());
        }
        let inputs = self
            .sql("INSERT INTO @workflow_input (workflow_uuid, inputs) SELECT ")
            .bind(new_id)
            .push(
                ", COALESCE(i.inputs, w.inputs) FROM @workflow_status AS w \
                 LEFT JOIN @workflow_input AS i ON i.workflow_uuid = w.workflow_uuid WHERE w.workflow_uuid = ",
            )
            .bind(&fork.workflow_id);
        transaction.execute(inputs).await?;
        if self.inline_payloads() {
            let inline = self
                .sql(
                    "UPDATE @workflow_status SET inputs = (SELECT i.inputs FROM @workflow_input AS i \
                     WHERE i.workflow_uuid = ",
                )
                .bind(new_id)
                .push(") WHERE workflow_uuid = ")
                .bind(new_id);
            transaction.execute(inline).await?;
        }
        Ok(())
    }

    /// Copies what happened before the start step: steps, event history, the events as they were then, and
    /// stream entries. Messages are not copied.
    async fn copy_history(
        &self,
        transaction: &mut Transaction,
        fork: &Fork,
        new_id: &str,
        application: &str,
    ) -> Result<(), DatabaseError> {
        let (source, start) = (&fork.workflow_id, fork.start_step);
        let steps = self
            .sql(
                "INSERT INTO @operation_outputs (function_id, function_name, output, error, child_workflow_id, \
                 started_at_epoch_ms, completed_at_epoch_ms, serialization, workflow_uuid, application_name) \
                 SELECT o.function_id, o.function_name, o.output, o.error, o.child_workflow_id, o.started_at_epoch_ms, \
                 o.completed_at_epoch_ms, o.serialization, ",
            )
            .bind(new_id)
            .push(", COALESCE(w.application_name, ")
            .bind(application)
            .push(") FROM @operation_outputs AS o JOIN @workflow_status AS w ON w.workflow_uuid = o.workflow_uuid WHERE o.workflow_uuid = ")
            .bind(source)
            .push(" AND o.function_id < ")
            .bind(start);
        let history = self
            .sql("INSERT INTO @workflow_events_history (function_id, key, value, serialization, workflow_uuid) SELECT function_id, key, value, serialization, ")
            .bind(new_id)
            .push(" FROM @workflow_events_history WHERE workflow_uuid = ")
            .bind(source)
            .push(" AND function_id < ")
            .bind(start);
        let events = self
            .sql("INSERT INTO @workflow_events (key, value, serialization, workflow_uuid) SELECT h.key, h.value, h.serialization, ")
            .bind(new_id)
            .push(" FROM @workflow_events_history AS h WHERE h.workflow_uuid = ")
            .bind(source)
            .push(
                " AND h.function_id = (SELECT MAX(n.function_id) FROM @workflow_events_history AS n \
                 WHERE n.workflow_uuid = h.workflow_uuid AND n.key = h.key AND n.function_id < ",
            )
            .bind(start)
            .push(")");
        let streams = self
            .sql("INSERT INTO @streams (key, value, \"offset\", function_id, serialization, workflow_uuid) SELECT key, value, \"offset\", function_id, serialization, ")
            .bind(new_id)
            .push(" FROM @streams WHERE workflow_uuid = ")
            .bind(source)
            .push(" AND function_id < ")
            .bind(start);
        for statement in [steps, history, events, streams] {
            transaction.execute(statement).await?;
        }
        for (recorded, replacement) in &fork.options.replacement_children {
            let replace = self
                .sql("UPDATE @operation_outputs SET child_workflow_id = ")
                .bind(replacement)
                .push(" WHERE workflow_uuid = ")
                .bind(new_id)
                .push(" AND child_workflow_id = ")
                .bind(recorded);
            transaction.execute(replace).await?;
        }
        Ok(())
    }
}
