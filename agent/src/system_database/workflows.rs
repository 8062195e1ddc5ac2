//! Listing and reading workflows.

use serde_json::Value as Json;

use super::{DatabaseError, Dialect, Row, Scope, Statement, SystemDatabase};

/// A workflow as stored. Times are epoch milliseconds; payloads are still encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowRow {
    /// Workflow id.
    pub workflow_id: String,
    /// `PENDING`, `SUCCESS`, …
    pub status: String,
    /// Registered name.
    pub name: Option<String>,
    /// Class of a method workflow.
    pub class_name: Option<String>,
    /// Configured instance of a method workflow.
    pub config_name: Option<String>,
    /// User on whose behalf it runs.
    pub authenticated_user: Option<String>,
    /// Role that was assumed.
    pub assumed_role: Option<String>,
    /// Roles as JSON text.
    pub authenticated_roles: Option<String>,
    /// Encoded arguments, if asked for.
    pub inputs: Option<String>,
    /// Encoded result, if asked for and there is one.
    pub output: Option<String>,
    /// Encoded error, if asked for and there is one.
    pub error: Option<String>,
    /// Format of the three payloads.
    pub serialization: Option<String>,
    /// Executor that runs or last ran it.
    pub executor_id: Option<String>,
    /// When the row was made.
    pub created_at: i64,
    /// When its status was last written.
    pub updated_at: i64,
    /// When it was last taken from a queue.
    pub started_at: Option<i64>,
    /// When it ended.
    pub completed_at: Option<i64>,
    /// Code version that must run it.
    pub application_version: Option<String>,
    /// Owner.
    pub application_name: Option<String>,
    /// How often it was dispatched.
    pub recovery_attempts: i64,
    /// Queue it waits in or came from.
    pub queue_name: Option<String>,
    /// Partition of the queue.
    pub queue_partition_key: Option<String>,
    /// Holds this id in its queue while active.
    pub deduplication_id: Option<String>,
    /// 0 is the most urgent.
    pub priority: i64,
    /// Start-to-completion budget.
    pub timeout_ms: Option<i64>,
    /// When it is cancelled if it still runs.
    pub deadline: Option<i64>,
    /// Earliest start of a delayed workflow.
    pub delay_until: Option<i64>,
    /// Workflow that this one is a fork of.
    pub forked_from: Option<String>,
    /// Whether forks were taken from it.
    pub was_forked_from: bool,
    /// Workflow that started this one.
    pub parent_workflow_id: Option<String>,
    /// Schedule that enqueued it.
    pub schedule_name: Option<String>,
    /// User attributes as JSON text.
    pub attributes: Option<String>,
}

/// What to list. All conditions hold at once; an empty list is no condition.
#[derive(Debug, Clone, Default)]
pub struct WorkflowFilter {
    /// Ids.
    pub ids: Vec<String>,
    /// Beginnings of ids.
    pub id_prefixes: Vec<String>,
    /// Status names.
    pub statuses: Vec<String>,
    /// Registered names.
    pub names: Vec<String>,
    /// Code versions.
    pub application_versions: Vec<String>,
    /// Users.
    pub authenticated_users: Vec<String>,
    /// Sources of forks.
    pub forked_from: Vec<String>,
    /// Parents.
    pub parent_workflow_ids: Vec<String>,
    /// Queues.
    pub queue_names: Vec<String>,
    /// Executors.
    pub executor_ids: Vec<String>,
    /// Schedules.
    pub schedule_names: Vec<String>,
    /// Owners.
    pub scope: Scope,
    /// Created at or after.
    pub created_from: Option<i64>,
    /// Created at or before.
    pub created_to: Option<i64>,
    /// Completed at or after.
    pub completed_from: Option<i64>,
    /// Completed at or before.
    pub completed_to: Option<i64>,
    /// Last dequeued at or after.
    pub dequeued_from: Option<i64>,
    /// Last dequeued at or before.
    pub dequeued_to: Option<i64>,
    /// Whether forks were taken from it.
    pub was_forked_from: Option<bool>,
    /// Whether it is a fork.
    pub is_fork: Option<bool>,
    /// Whether another workflow started it.
    pub has_parent: Option<bool>,
    /// Attributes that it must have, compared as JSON containment.
    pub attributes: Option<serde_json::Map<String, Json>>,
    /// Only those in a queue; active ones unless `statuses` says otherwise.
    pub queues_only: bool,
    /// Names of steps of which one failed.
    pub failed_steps: Vec<String>,
}

/// Order, page and payloads of a listing.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Newest first.
    pub descending: bool,
    /// At most this many rows.
    pub limit: Option<i64>,
    /// Skip this many.
    pub offset: Option<i64>,
    /// Read the arguments.
    pub load_input: bool,
    /// Read result and error.
    pub load_output: bool,
}

const COLUMNS: &str = "w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.authenticated_user, \
    w.assumed_role, w.authenticated_roles, w.serialization, w.executor_id, w.created_at, w.updated_at, \
    w.started_at_epoch_ms, w.completed_at, w.application_version, w.application_name, w.recovery_attempts, \
    w.queue_name, w.queue_partition_key, w.deduplication_id, w.priority, w.workflow_timeout_ms, \
    w.workflow_deadline_epoch_ms, w.delay_until_epoch_ms, w.forked_from, w.was_forked_from, w.parent_workflow_id, \
    w.schedule_name, CAST(w.attributes AS TEXT) AS attributes";

impl SystemDatabase {
    /// Lists workflows by creation time.
    ///
    /// # Errors
    /// If the database refuses or takes longer than 30 seconds.
    pub async fn list_workflows(
        &self,
        filter: &WorkflowFilter,
        listing: &Listing,
    ) -> Result<Vec<WorkflowRow>, DatabaseError> {
        let mut statement = self
            .select_workflows(listing)
            .push(" WHERE TRUE")
            .and_workflow_filter(filter);
        // The id makes the order of rows of one millisecond, and so the pages, stable.
        statement = statement.push(if listing.descending {
            " ORDER BY w.created_at DESC, w.workflow_uuid DESC"
        } else {
            " ORDER BY w.created_at, w.workflow_uuid"
        });
        statement = statement.page(listing.limit, listing.offset);
        // A lookup by id is cheap however large the table.
        let rows = if filter.ids.is_empty() {
            self.read_listing(statement).await
        } else {
            self.read(statement).await
        }?;
        rows.iter().map(WorkflowRow::read).collect()
    }

    /// Reads one workflow of any application.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn get_workflow(
        &self,
        workflow_id: &str,
        load_input: bool,
        load_output: bool,
    ) -> Result<Option<WorkflowRow>, DatabaseError> {
        let listing = Listing {
            load_input,
            load_output,
            ..Listing::default()
        };
        let statement = self
            .select_workflows(&listing)
            .push(" WHERE w.workflow_uuid = ")
            .bind(workflow_id);
        self.read(statement)
            .await?
            .first()
            .map(WorkflowRow::read)
            .transpose()
    }

    fn select_workflows(&self, listing: &Listing) -> Statement {
        // Unloaded payloads are selected as nulls, so that every row reads alike.
        let inputs = if listing.load_input {
            "COALESCE(i.inputs, w.inputs)"
        } else {
            "CAST(NULL AS TEXT)"
        };
        let (output, error) = if listing.load_output {
            ("COALESCE(o.output, w.output)", "COALESCE(o.error, w.error)")
        } else {
            ("CAST(NULL AS TEXT)", "CAST(NULL AS TEXT)")
        };
        let payloads = format!(
            ", {inputs} AS inputs, {output} AS output, {error} AS error FROM @workflow_status AS w"
        );
        let mut statement = self.sql("SELECT ").push(COLUMNS).push(&payloads);
        if listing.load_input {
            statement = statement
                .push(" LEFT JOIN ")
                .push(self.inputs_table())
                .push(" AS i ON i.workflow_uuid = w.workflow_uuid");
        }
        if listing.load_output {
            statement = statement
                .push(" LEFT JOIN ")
                .push(self.outputs_table())
                .push(" AS o ON o.workflow_uuid = w.workflow_uuid");
        }
        statement
    }
}

impl WorkflowRow {
    pub(super) fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            workflow_id: row.required("workflow_uuid")?,
            status: row.required("status")?,
            name: row.text("name")?,
            class_name: row.filled("class_name")?,
            config_name: row.filled("config_name")?,
            authenticated_user: row.filled("authenticated_user")?,
            assumed_role: row.filled("assumed_role")?,
            authenticated_roles: row.filled("authenticated_roles")?,
            inputs: row.text("inputs")?,
            output: row.text("output")?,
            error: row.text("error")?,
            serialization: row.filled("serialization")?,
            executor_id: row.filled("executor_id")?,
            created_at: row.int("created_at")?.unwrap_or(0),
            updated_at: row.int("updated_at")?.unwrap_or(0),
            started_at: row.int("started_at_epoch_ms")?,
            completed_at: row.int("completed_at")?,
            application_version: row.filled("application_version")?,
            application_name: row.text("application_name")?,
            recovery_attempts: row.int("recovery_attempts")?.unwrap_or(0),
            queue_name: row.filled("queue_name")?,
            queue_partition_key: row.text("queue_partition_key")?,
            deduplication_id: row.text("deduplication_id")?,
            priority: row.int("priority")?.unwrap_or(0),
            timeout_ms: row.int("workflow_timeout_ms")?,
            deadline: row.int("workflow_deadline_epoch_ms")?,
            delay_until: row.int("delay_until_epoch_ms")?,
            forked_from: row.filled("forked_from")?,
            was_forked_from: row.bool("was_forked_from")?,
            parent_workflow_id: row.filled("parent_workflow_id")?,
            schedule_name: row.filled("schedule_name")?,
            attributes: row.text("attributes")?,
        })
    }
}

impl Statement {
    /// Appends the conditions of `filter` on the table `w`, each after `AND`.
    pub(super) fn and_workflow_filter(self, filter: &WorkflowFilter) -> Self {
        let lists = [
            ("w.workflow_uuid", &filter.ids),
            ("w.status", &filter.statuses),
            ("w.name", &filter.names),
            ("w.application_version", &filter.application_versions),
            ("w.authenticated_user", &filter.authenticated_users),
            ("w.forked_from", &filter.forked_from),
            ("w.parent_workflow_id", &filter.parent_workflow_ids),
            ("w.queue_name", &filter.queue_names),
            ("w.executor_id", &filter.executor_ids),
            ("w.schedule_name", &filter.schedule_names),
        ];
        let bounds = [
            ("w.created_at >= ", filter.created_from),
            ("w.created_at <= ", filter.created_to),
            ("w.completed_at >= ", filter.completed_from),
            ("w.completed_at <= ", filter.completed_to),
            ("w.started_at_epoch_ms >= ", filter.dequeued_from),
            ("w.started_at_epoch_ms <= ", filter.dequeued_to),
        ];
        let mut statement = self;
        for (column, values) in lists {
            if !values.is_empty() {
                statement = statement.push(" AND ").any_of(column, values);
            }
        }
        for (condition, bound) in bounds {
            if let Some(bound) = bound {
                statement = statement.push(" AND ").push(condition).bind(bound);
            }
        }
        statement = statement
            .and_prefix("w.workflow_uuid", &filter.id_prefixes)
            .and_scope("w.application_name", &filter.scope);
        if let Some(was_forked_from) = filter.was_forked_from {
            statement = statement
                .push(" AND w.was_forked_from = ")
                .bind(was_forked_from);
        }
        if let Some(is_fork) = filter.is_fork {
            statement = statement.push(" AND w.forked_from IS ").push(if is_fork {
                "NOT NULL"
            } else {
                "NULL"
            });
        }
        if let Some(has_parent) = filter.has_parent {
            statement = statement
                .push(" AND w.parent_workflow_id IS ")
                .push(if has_parent { "NOT NULL" } else { "NULL" });
        }
        if let Some(attributes) = &filter.attributes {
            statement = statement.and_attributes(attributes);
        }
        if !filter.failed_steps.is_empty() {
            statement = statement
                .push(
                    " AND EXISTS (SELECT 1 FROM @operation_outputs s WHERE s.workflow_uuid = w.workflow_uuid \
                     AND s.error IS NOT NULL AND ",
                )
                .any_of("s.function_name", &filter.failed_steps)
                .push(")");
        }
        if filter.queues_only {
            statement = statement.push(" AND w.queue_name IS NOT NULL AND w.queue_name <> ''");
            if filter.statuses.is_empty() {
                statement = statement.push(" AND w.status IN ('ENQUEUED', 'PENDING', 'DELAYED')");
            }
        }
        statement
    }

    /// Appends that `column` begins with one of `prefixes`. `LIKE` is avoided: it ignores case on SQLite.
    pub(super) fn and_prefix(self, column: &str, prefixes: &[String]) -> Self {
        let mut statement = self;
        for (n, prefix) in prefixes.iter().enumerate() {
            statement = statement.push(if n == 0 { " AND (" } else { " OR " });
            statement = statement
                .push("substr(")
                .push(column)
                .push(", 1, length(")
                .bind(prefix)
                .push(")) = ")
                .bind(prefix);
        }
        if prefixes.is_empty() {
            statement
        } else {
            statement.push(")")
        }
    }

    /// Appends that `w.attributes` contains `wanted`.
    fn and_attributes(self, wanted: &serde_json::Map<String, Json>) -> Self {
        match self.dialect {
            Dialect::Postgres => {
                let wanted = Json::Object(wanted.clone()).to_string();
                self.push(" AND w.attributes @> ").bind_json(Some(wanted))
            }
            Dialect::Sqlite => self
                .push(" AND json_type(w.attributes) = 'object'")
                .and_contains_members("$", wanted),
        }
    }

    /// SQLite has no containment operator: one condition per leaf does the same. An element of a wanted
    /// array must be equal to one of the stored elements.
    fn and_contains_members(self, path: &str, wanted: &serde_json::Map<String, Json>) -> Self {
        let mut statement = self;
        for (key, value) in wanted {
            let path = format!("{path}.\"{}\"", key.replace('"', "\\\""));
            statement = match value {
                Json::Object(members) => statement
                    .push(" AND json_type(w.attributes, ")
                    .bind(&path)
                    .push(") = 'object'")
                    .and_contains_members(&path, members),
                Json::Array(elements) => {
                    let mut statement = statement
                        .push(" AND json_type(w.attributes, ")
                        .bind(&path)
                        .push(") = 'array'");
                    for element in elements {
                        statement = statement
                            .push(" AND EXISTS (SELECT 1 FROM json_each(w.attributes, ")
                            .bind(&path)
                            .push(") AS e WHERE json_quote(CASE WHEN e.type IN ('array', 'object') THEN json(e.value) ELSE e.value END) = json(")
                            .bind(element.to_string())
                            .push("))");
                    }
                    statement
                }
                leaf => statement
                    .push(" AND (w.attributes -> ")
                    .bind(&path)
                    .push(") = json(")
                    .bind(leaf.to_string())
                    .push(")"),
            };
        }
        statement
    }

    /// Appends `LIMIT` and `OFFSET`; a limit of 0 or less is none.
    pub(super) fn page(self, limit: Option<i64>, offset: Option<i64>) -> Self {
        let limit = limit.filter(|limit| *limit > 0);
        let offset = offset.filter(|offset| *offset > 0);
        let mut statement = self;
        if limit.is_some() || offset.is_some() {
            // SQLite knows OFFSET only after LIMIT.
            statement = statement.push(" LIMIT ").bind(limit.unwrap_or(i64::MAX));
        }
        if offset.is_some() {
            statement = statement.push(" OFFSET ").bind(offset);
        }
        statement
    }
}
