//! Counting and measuring workflows and steps.

use std::collections::BTreeMap;

use super::workflows::WorkflowFilter;
use super::{DatabaseError, Row, Scope, Statement, SystemDatabase};

/// What rows of workflows are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowGroup {
    /// Status.
    Status,
    /// Registered name.
    Name,
    /// Queue.
    QueueName,
    /// Executor.
    ExecutorId,
    /// Code version.
    ApplicationVersion,
    /// Owner.
    ApplicationName,
}

impl WorkflowGroup {
    /// Key of the group, and column.
    fn key(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Name => "name",
            Self::QueueName => "queue_name",
            Self::ExecutorId => "executor_id",
            Self::ApplicationVersion => "application_version",
            Self::ApplicationName => "application_name",
        }
    }
}

/// What steps are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepGroup {
    /// Step name.
    FunctionName,
    /// `SUCCESS` or `ERROR`.
    Status,
}

/// A figure of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Number of rows.
    Count,
    /// Earliest creation (workflows).
    MinCreatedAt,
    /// Longest wait between creation and dequeuing (workflows).
    MaxQueueWaitMs,
    /// Longest time between creation and end (workflows).
    MaxTotalLatencyMs,
    /// Longest step (steps).
    MaxDurationMs,
}

/// A group with its figures; those not asked for are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aggregate {
    /// Value of each key that was grouped by; `time_bucket` is the bucket's start in epoch milliseconds.
    pub group: BTreeMap<String, Option<String>>,
    /// Number of rows.
    pub count: Option<i64>,
    /// Epoch milliseconds.
    pub min_created_at: Option<i64>,
    /// Milliseconds.
    pub max_queue_wait_ms: Option<i64>,
    /// Milliseconds.
    pub max_total_latency_ms: Option<i64>,
    /// Milliseconds.
    pub max_duration_ms: Option<i64>,
}

/// Which steps to aggregate.
#[derive(Debug, Clone, Default)]
pub struct StepFilter {
    /// `SUCCESS`, `ERROR`.
    pub statuses: Vec<String>,
    /// Step names.
    pub function_names: Vec<String>,
    /// Beginnings of workflow ids.
    pub workflow_id_prefixes: Vec<String>,
    /// Owners.
    pub scope: Scope,
    /// Completed at or after, epoch milliseconds.
    pub completed_from: Option<i64>,
    /// Completed at or before, epoch milliseconds.
    pub completed_to: Option<i64>,
}

/// A counter over a window of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// `workflow_count` (created in the window) or `step_count` (completed in it).
    pub metric_type: &'static str,
    /// Workflow or step name.
    pub metric_name: String,
    /// Rows.
    pub value: i64,
}

/// A step failed if it recorded an error; there is no column for it.
const STEP_STATUS: &str = "CASE WHEN o.error IS NOT NULL THEN 'ERROR' ELSE 'SUCCESS' END";

/// A key of the result with the expression that it is grouped by.
type Key = (&'static str, String);

impl SystemDatabase {
    /// Groups workflows. No figure asked for means the count.
    ///
    /// # Errors
    /// [`DatabaseError::Invalid`] without anything to group by or with a bucket below 1 ms.
    pub async fn aggregate_workflows(
        &self,
        groups: &[WorkflowGroup],
        time_bucket_ms: Option<i64>,
        figures: &[Figure],
        filter: &WorkflowFilter,
    ) -> Result<Vec<Aggregate>, DatabaseError> {
        let mut keys: Vec<Key> = groups
            .iter()
            .map(|group| (group.key(), format!("w.{}", group.key())))
            .collect();
        keys.extend(time_bucket(time_bucket_ms, "w.created_at")?);
        let statement = self
            .aggregate(&keys, figures)?
            .push(" FROM @workflow_status AS w WHERE TRUE")
            .and_workflow_filter(filter)
            .group_by(&keys);
        self.read_aggregates(statement, &keys).await
    }

    /// Groups steps, by completion time if in buckets. No figure asked for means the count.
    ///
    /// # Errors
    /// As [`aggregate_workflows`](Self::aggregate_workflows).
    pub async fn aggregate_steps(
        &self,
        groups: &[StepGroup],
        time_bucket_ms: Option<i64>,
        figures: &[Figure],
        filter: &StepFilter,
    ) -> Result<Vec<Aggregate>, DatabaseError> {
        let mut keys: Vec<Key> = groups
            .iter()
            .map(|group| match group {
                StepGroup::FunctionName => ("function_name", "o.function_name".to_owned()),
                StepGroup::Status => ("status", STEP_STATUS.to_owned()),
            })
            .collect();
        keys.extend(time_bucket(time_bucket_ms, "o.completed_at_epoch_ms")?);
        let mut statement = self
            .aggregate(&keys, figures)?
            .push(" FROM @operation_outputs AS o WHERE TRUE")
            .and_prefix("o.workflow_uuid", &filter.workflow_id_prefixes)
            .and_scope("o.application_name", &filter.scope);
        if !filter.statuses.is_empty() {
            statement = statement
                .push(" AND ")
                .any_of(&format!("({STEP_STATUS})"), &filter.statuses);
        }
        if !filter.function_names.is_empty() {
            statement = statement
                .push(" AND ")
                .any_of("o.function_name", &filter.function_names);
        }
        if let Some(from) = filter.completed_from {
            statement = statement
                .push(" AND o.completed_at_epoch_ms >= ")
                .bind(from);
        }
        if let Some(to) = filter.completed_to {
            statement = statement.push(" AND o.completed_at_epoch_ms <= ").bind(to);
        }
        self.read_aggregates(statement.group_by(&keys), &keys).await
    }

    /// Counts workflows created, and steps completed, in `[from, to)`, by name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn workflow_and_step_counts(
        &self,
        from: i64,
        to: i64,
        scope: &Scope,
    ) -> Result<Vec<Metric>, DatabaseError> {
        let sources = [
            ("workflow_count", "name", "workflow_status", "created_at"),
            (
                "step_count",
                "function_name",
                "operation_outputs",
                "completed_at_epoch_ms",
            ),
        ];
        let mut metrics = Vec::new();
        for (metric_type, name, table, time) in sources {
            let statement = self
                .sql(&format!(
                    "SELECT {name} AS name, COUNT(*) AS number FROM @{table} WHERE {time} >= "
                ))
                .bind(from)
                .push(&format!(" AND {time} < "))
                .bind(to)
                .and_scope("application_name", scope)
                .push(&format!(" GROUP BY {name} ORDER BY {name}"));
            for row in self.read_listing(statement).await? {
                metrics.push(Metric {
                    metric_type,
                    metric_name: row.required("name")?,
                    value: row.int("number")?.unwrap_or(0),
                });
            }
        }
        Ok(metrics)
    }

    fn aggregate(&self, keys: &[Key], figures: &[Figure]) -> Result<Statement, DatabaseError> {
        if keys.is_empty() {
            return Err(DatabaseError::Invalid(
                "choose at least one group_by_… field or time_bucket_size_ms".to_owned(),
            ));
        }
        let mut columns: Vec<String> = keys
            .iter()
            .map(|(key, expression)| format!("CAST({expression} AS TEXT) AS key_{key}"))
            .collect();
        let figures = if figures.is_empty() {
            &[Figure::Count][..]
        } else {
            figures
        };
        for figure in figures {
            columns.push(
                match figure {
                    Figure::Count => "COUNT(*) AS count",
                    Figure::MinCreatedAt => "MIN(w.created_at) AS min_created_at",
                    Figure::MaxQueueWaitMs => {
                        "MAX(w.started_at_epoch_ms - w.created_at) AS max_queue_wait_ms"
                    }
                    Figure::MaxTotalLatencyMs => {
                        "MAX(w.completed_at - w.created_at) AS max_total_latency_ms"
                    }
                    Figure::MaxDurationMs => {
                        "MAX(o.completed_at_epoch_ms - o.started_at_epoch_ms) AS max_duration_ms"
                    }
                }
                .to_owned(),
            );
        }
        Ok(self.sql("SELECT ").push(&columns.join(", ")))
    }

    async fn read_aggregates(
        &self,
        statement: Statement,
        keys: &[Key],
    ) -> Result<Vec<Aggregate>, DatabaseError> {
        let rows = self.read_listing(statement).await?;
        rows.iter()
            .map(|row| {
                let group = keys
                    .iter()
                    .map(|(key, _)| Ok(((*key).to_owned(), row.text(&format!("key_{key}"))?)))
                    .collect::<Result<_, DatabaseError>>()?;
                Ok(Aggregate {
                    group,
                    count: figure(row, "count")?,
                    min_created_at: figure(row, "min_created_at")?,
                    max_queue_wait_ms: figure(row, "max_queue_wait_ms")?,
                    max_total_latency_ms: figure(row, "max_total_latency_ms")?,
                    max_duration_ms: figure(row, "max_duration_ms")?,
                })
            })
            .collect()
    }
}

impl Statement {
    fn group_by(self, keys: &[Key]) -> Self {
        let expressions: Vec<&str> = keys
            .iter()
            .map(|(_, expression)| expression.as_str())
            .collect();
        let list = expressions.join(", ");
        self.push(" GROUP BY ")
            .push(&list)
            .push(" ORDER BY ")
            .push(&list)
    }
}

/// The size goes into the text: as two parameters the grouped expressions would not be the same.
fn time_bucket(size_ms: Option<i64>, column: &str) -> Result<Option<Key>, DatabaseError> {
    match size_ms {
        None => Ok(None),
        Some(size) if size > 0 => Ok(Some((
            "time_bucket",
            format!("({column} / {size}) * {size}"),
        ))),
        Some(size) => Err(DatabaseError::Invalid(format!(
            "time_bucket_size_ms must be above 0, not {size}"
        ))),
    }
}

/// A figure that may not have been selected.
fn figure(row: &Row, column: &str) -> Result<Option<i64>, DatabaseError> {
    match row.int(column) {
        Err(DatabaseError::Sql(sqlx::Error::ColumnNotFound(_))) => Ok(None),
        other => other,
    }
}
