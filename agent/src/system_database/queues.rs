//! Registered queues.

use super::{DatabaseError, Row, Scope, SystemDatabase};

/// A queue's settings. Limits that are `None` do not apply.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueRow {
    /// Name, unique in the database.
    pub name: String,
    /// Workflows running at once, everywhere.
    pub concurrency: Option<i64>,
    /// Workflows running at once in one process.
    pub worker_concurrency: Option<i64>,
    /// Starts per period.
    pub rate_limit_max: Option<i64>,
    /// The period in seconds.
    pub rate_limit_period_sec: Option<f64>,
    /// Whether priorities count; always true for queues made by newer SDKs.
    pub priority_enabled: bool,
    /// Whether the queue is partitioned.
    pub partition_queue: bool,
    /// Base interval between polls, seconds.
    pub polling_interval_sec: f64,
    /// Owner.
    pub application_name: Option<String>,
    /// Workflows running at once per partition, everywhere.
    pub partition_concurrency: Option<i64>,
    /// Workflows running at once per partition in one process.
    pub partition_worker_concurrency: Option<i64>,
    /// Starts per period and partition.
    pub partition_rate_limit_max: Option<i64>,
    /// That period in seconds.
    pub partition_rate_limit_period_sec: Option<f64>,
}

const COLUMNS: &str = "SELECT name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, \
    priority_enabled, partition_queue, polling_interval_sec, application_name, partition_concurrency, \
    partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec FROM @queues";

impl SystemDatabase {
    /// Lists queues by name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn list_queues(&self, scope: &Scope) -> Result<Vec<QueueRow>, DatabaseError> {
        let statement = self
            .sql(COLUMNS)
            .push(" WHERE TRUE")
            .and_scope("application_name", scope)
            .push(" ORDER BY name");
        self.read(statement)
            .await?
            .iter()
            .map(QueueRow::read)
            .collect()
    }

    /// Reads one queue, of any application.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn get_queue(&self, name: &str) -> Result<Option<QueueRow>, DatabaseError> {
        let statement = self.sql(COLUMNS).push(" WHERE name = ").bind(name);
        self.read(statement)
            .await?
            .first()
            .map(QueueRow::read)
            .transpose()
    }
}

impl QueueRow {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            name: row.required("name")?,
            concurrency: row.int("concurrency")?,
            worker_concurrency: row.int("worker_concurrency")?,
            rate_limit_max: row.int("rate_limit_max")?,
            rate_limit_period_sec: row.float("rate_limit_period_sec")?,
            priority_enabled: row.bool("priority_enabled")?,
            partition_queue: row.bool("partition_queue")?,
            polling_interval_sec: row.float("polling_interval_sec")?.unwrap_or(1.0),
            application_name: row.text("application_name")?,
            partition_concurrency: row.int("partition_concurrency")?,
            partition_worker_concurrency: row.int("partition_worker_concurrency")?,
            partition_rate_limit_max: row.int("partition_rate_limit_max")?,
            partition_rate_limit_period_sec: row.float("partition_rate_limit_period_sec")?,
        })
    }
}
