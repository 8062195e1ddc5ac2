//! Registered queues.

use uuid::Uuid;

use super::{DatabaseError, Row, Scope, Statement, SystemDatabase, Transaction};

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

/// What registering a queue does to one that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueConflict {
    /// Its settings are replaced.
    Update,
    /// It stays as it is.
    Keep,
}

const COLUMNS: &str = "SELECT name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, \
    priority_enabled, partition_queue, polling_interval_sec, application_name, ";

const PARTITION_LIMITS: &str = "partition_concurrency, partition_worker_concurrency, partition_rate_limit_max, \
    partition_rate_limit_period_sec";

const NO_PARTITION_LIMITS: &str = "CAST(NULL AS INTEGER) AS partition_concurrency, \
    CAST(NULL AS INTEGER) AS partition_worker_concurrency, CAST(NULL AS INTEGER) AS partition_rate_limit_max, \
    CAST(NULL AS DOUBLE PRECISION) AS partition_rate_limit_period_sec";

/// A limit as a column holds it.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Count(Option<i64>),
    Seconds(Option<f64>),
}

impl SystemDatabase {
    /// Lists queues by name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn list_queues(&self, scope: &Scope) -> Result<Vec<QueueRow>, DatabaseError> {
        let statement = self
            .select_queues()
            .push(" WHERE TRUE")
            .and_scope("application_name", scope)
            .push(" ORDER BY name");
        self.read(statement)
            .await?
            .iter()
            .map(QueueRow::read)
            .collect()
    }

    /// Makes a queue of `application` known. Its owner in `row` does not matter.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if the name belongs to another application.
    pub async fn register_queue(
        &self,
        row: &QueueRow,
        application: &str,
        conflict: QueueConflict,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.begin().await?;
        self.require_own_queue(&mut transaction, &row.name, application)
            .await?;
        let limits = self.partition_limits(row)?;
        let columns: String = limits
            .iter()
            .map(|(column, _)| format!(", {column}"))
            .collect();
        let mut insert = self
            .sql(
                "INSERT INTO @queues (queue_id, name, concurrency, worker_concurrency, rate_limit_max, \
                 rate_limit_period_sec, priority_enabled, partition_queue, polling_interval_sec, application_name",
            )
            .push(&columns)
            .push(") VALUES (")
            .bind(Uuid::new_v4().to_string())
            .push(", ")
            .bind(&row.name)
            .push(", ")
            .bind(row.concurrency)
            .push(", ")
            .bind(row.worker_concurrency)
            .push(", ")
            .bind(row.rate_limit_max)
            .push(", ")
            .bind(row.rate_limit_period_sec)
            .push(", ")
            // What older SDKs ask for: they ignore priorities and partitions otherwise.
            .bind(true)
            .push(", ")
            .bind(row.has_partition_limits())
            .push(", ")
            .bind(row.polling_interval_sec)
            .push(", ")
            .bind(application);
        for (_, limit) in &limits {
            insert = match *limit {
                Limit::Count(count) => insert.push(", ").bind(count),
                Limit::Seconds(seconds) => insert.push(", ").bind(seconds),
            };
        }
        let insert = insert.push(") ON CONFLICT (name) DO ");
        let updates: String = limits
            .iter()
            .map(|(column, _)| format!("{column} = excluded.{column}, "))
            .collect();
        let insert = match conflict {
            QueueConflict::Keep => insert.push("NOTHING"),
            QueueConflict::Update => insert
                .push(
                    "UPDATE SET concurrency = excluded.concurrency, worker_concurrency = excluded.worker_concurrency, \
                     rate_limit_max = excluded.rate_limit_max, rate_limit_period_sec = excluded.rate_limit_period_sec, \
                     priority_enabled = excluded.priority_enabled, partition_queue = excluded.partition_queue, \
                     polling_interval_sec = excluded.polling_interval_sec, ",
                )
                .push(&updates)
                .push("updated_at = NOW_MS, application_name = COALESCE(")
                .push("queues.application_name, excluded.application_name)"),
        };
        transaction.execute(insert).await?;
        self.require_own_queue(&mut transaction, &row.name, application)
            .await?;
        transaction.commit().await
    }

    /// Removes a queue of `application` or of nobody; what is enqueued on it stays. False if there is none.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if the name belongs to another application.
    pub async fn delete_queue(&self, name: &str, application: &str) -> Result<bool, DatabaseError> {
        let mut transaction = self.begin().await?;
        self.require_own_queue(&mut transaction, name, application)
            .await?;
        let delete = self.sql("DELETE FROM @queues WHERE name = ").bind(name);
        let deleted = transaction.execute(delete).await?;
        transaction.commit().await?;
        Ok(deleted > 0)
    }

    /// The columns for limits of partitions, which tables before version 108 lack.
    fn partition_limits(
        &self,
        row: &QueueRow,
    ) -> Result<Vec<(&'static str, Limit)>, DatabaseError> {
        if !self.has_partition_limits() {
            return match row.has_partition_limits() {
                false => Ok(Vec::new()),
                true => Err(DatabaseError::Invalid(format!(
                    "the queue {:?} has limits of partitions, which these tables of another SDK cannot hold \
                     (they came with version 108)",
                    row.name
                ))),
            };
        }
        Ok(vec![
            (
                "partition_concurrency",
                Limit::Count(row.partition_concurrency),
            ),
            (
                "partition_worker_concurrency",
                Limit::Count(row.partition_worker_concurrency),
            ),
            (
                "partition_rate_limit_max",
                Limit::Count(row.partition_rate_limit_max),
            ),
            (
                "partition_rate_limit_period_sec",
                Limit::Seconds(row.partition_rate_limit_period_sec),
            ),
        ])
    }

    fn select_queues(&self) -> Statement {
        let limits = if self.has_partition_limits() {
            PARTITION_LIMITS
        } else {
            NO_PARTITION_LIMITS
        };
        self.sql(COLUMNS).push(limits).push(" FROM @queues")
    }

    async fn require_own_queue(
        &self,
        transaction: &mut Transaction,
        name: &str,
        application: &str,
    ) -> Result<(), DatabaseError> {
        let owner = self
            .sql("SELECT application_name FROM @queues WHERE name = ")
            .bind(name);
        let rows = transaction.fetch(owner).await?;
        let owner = rows
            .first()
            .map(|row| row.text("application_name"))
            .transpose()?
            .flatten();
        match owner {
            Some(owner) if owner != application => Err(DatabaseError::Conflict(format!(
                "the queue {name:?} belongs to the application {owner:?} of the same system database; \
                 choose another name"
            ))),
            _ => Ok(()),
        }
    }

    /// The run that holds a deduplication id of a queue.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn deduplication_holder(
        &self,
        queue: &str,
        deduplication_id: &str,
    ) -> Result<Option<String>, DatabaseError> {
        let statement = self
            .sql("SELECT workflow_uuid FROM @workflow_status WHERE queue_name = ")
            .bind(queue)
            .push(" AND deduplication_id = ")
            .bind(deduplication_id);
        self.read(statement)
            .await?
            .first()
            .map(|row| row.required("workflow_uuid"))
            .transpose()
    }

    /// Reads one queue, of any application.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn get_queue(&self, name: &str) -> Result<Option<QueueRow>, DatabaseError> {
        let statement = self.select_queues().push(" WHERE name = ").bind(name);
        self.read(statement)
            .await?
            .first()
            .map(QueueRow::read)
            .transpose()
    }
}

impl QueueRow {
    fn has_partition_limits(&self) -> bool {
        self.partition_concurrency.is_some()
            || self.partition_worker_concurrency.is_some()
            || self.partition_rate_limit_max.is_some()
    }

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
