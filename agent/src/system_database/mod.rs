//! The system database: where workflows, steps and messages are checkpointed.
//!
//! On Postgres it is the database (schema `dbos` unless named otherwise) that the official DBOS
//! Transact SDKs use too, so everything here keeps to their rules. On SQLite it is a file of our own
//! with the same tables.
//!
//! One concept a file; queries are written once through the `statement` module and run on either database.

mod aggregates;
mod commands;
mod contents;
mod debounce;
mod enqueue;
mod error;
mod fork;
mod migrations;
mod newer;
mod queues;
mod recovery;
mod retention;
mod rewind;
mod schedules;
mod scope;
mod statement;
mod steps;
mod test_clock;
mod transfer;
mod versions;
mod workflows;

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Postgres, Sqlite};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::recorder::is_contention;

pub use aggregates::{Aggregate, Figure, Metric, StepFilter, StepGroup, WorkflowGroup};
pub(crate) use contents::STREAM_CLOSED;
pub use contents::{MessageRow, Stored};
pub(crate) use debounce::{Bounce, Bounced};
pub use error::DatabaseError;
pub use fork::{Fork, ForkOptions, ForkPoint};
pub use queues::{QueueConflict, QueueRow};
pub use retention::Retention;
pub use rewind::Rewind;
pub use schedules::{ScheduleFilter, ScheduleRow};
pub use scope::Scope;
pub use statement::Dialect;
pub(crate) use statement::{Row, Statement};
pub use steps::StepRow;
pub use versions::VersionRow;
pub use workflows::{Listing, WorkflowFilter, WorkflowRow};

/// The queue that recovered, resumed and forked workflows go to when they have none of their own.
pub const INTERNAL_QUEUE: &str = "_dbos_internal_queue";

/// Version of the schema that this library creates and needs.
pub const SCHEMA_VERSION: i64 = migrations::CURRENT;

/// How long a listing may run on the server before it is abandoned (Postgres only).
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);

/// How to connect to a system database.
#[derive(Debug, Clone)]
pub struct Options {
    /// Postgres schema; any name. Not used on SQLite.
    pub schema: String,
    /// Size of the connection pool (of the readers on SQLite, which has one writer besides).
    pub max_connections: u32,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// Whether a database that does not exist is created.
    pub create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "dbos".to_owned(),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(30),
            create: true,
        }
    }
}

/// The connections behind a [`SystemDatabase`].
#[derive(Debug, Clone)]
pub enum Pool {
    /// A pool of Postgres connections.
    Postgres(PgPool),
    /// SQLite: any number of readers and exactly one writer, so that writers of one process never
    /// meet in `SQLITE_BUSY`. In memory both are the same single connection.
    Sqlite {
        /// For statements that only read.
        readers: SqlitePool,
        /// For everything else.
        writer: SqlitePool,
    },
}

/// What all handles of one database know of its tables once they were looked at.
#[derive(Debug, Default)]
struct Line {
    /// They are of the line up to 108 and stay so.
    older: AtomicBool,
    /// And even lack what came with 108.
    oldest: AtomicBool,
    /// They are not, but SDKs of that line are about.
    inline: AtomicBool,
}

/// A connected system database; cheap to clone.
#[derive(Debug, Clone)]
pub struct SystemDatabase {
    pool: Pool,
    schema: String,
    prefix: String,
    clock: Clock,
    line: Arc<Line>,
}

impl SystemDatabase {
    /// Connects to `postgres://…`, `postgresql://…`, `sqlite://path` or `sqlite::memory:`.
    ///
    /// A missing database is created if [`Options::create`] says so and the role may do that. Tables are not touched: call
    /// [`migrate`](Self::migrate) or [`verify`](Self::verify) next.
    ///
    /// # Errors
    /// [`DatabaseError::Url`] if the URL is malformed, [`DatabaseError::Sql`] if nothing answers there.
    pub async fn connect(url: &str, options: Options) -> Result<Self, DatabaseError> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => Self::connect_postgres(url, options).await,
            "sqlite" => Self::connect_sqlite(url, options).await,
            _ => Err(DatabaseError::Url(
                "it must begin with postgres://, postgresql:// or sqlite://".to_owned(),
            )),
        }
    }

    async fn connect_postgres(url: &str, options: Options) -> Result<Self, DatabaseError> {
        // The parser's own message may quote the URL, password included.
        let connect = PgConnectOptions::from_str(url).map_err(|_| {
            DatabaseError::Url(
                "not a valid Postgres URL (postgres://user:password@host:5432/database)".to_owned(),
            )
        })?;
        if options.create {
            create_database_if_missing(&connect).await?;
        } else {
            // The pool would try for as long as it may; whoever names the wrong database hears of it at once.
            let connection = sqlx::PgConnection::connect_with(&connect).await?;
            connection.close().await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(2))
            .acquire_timeout(options.acquire_timeout)
            // A ping costs a round trip: only connections that sat idle are worth one.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            // A stuck client must not hold row locks for ever.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query("SET idle_in_transaction_session_timeout = '60s'")
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            })
            .connect_with(connect)
            .await?;
        Ok(Self::on_pool(pool, &options.schema))
    }

    /// The system database in this schema of a Postgres that the application has connections to already.
    pub fn on_pool(pool: PgPool, schema: &str) -> Self {
        Self {
            pool: Pool::Postgres(pool),
            schema: schema.to_owned(),
            prefix: format!("{}.", quote_identifier(schema)),
            clock: Clock::SYSTEM,
            line: Arc::default(),
        }
    }

    async fn connect_sqlite(url: &str, options: Options) -> Result<Self, DatabaseError> {
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let connect = SqliteConnectOptions::from_str(url)
            .map_err(|e| {
                DatabaseError::Url(format!("not a valid SQLite URL (sqlite://path): {e}"))
            })?
            .create_if_missing(options.create)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30))
            .synchronous(SqliteSynchronous::Full);
        let connect = if in_memory {
            connect
        } else {
            connect.journal_mode(SqliteJournalMode::Wal)
        };
        if !in_memory
            && options.create
            && let Some(folder) = connect
                .get_filename()
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder).map_err(|e| {
                DatabaseError::Url(format!(
                    "cannot create the folder {}: {e}",
                    folder.display()
                ))
            })?;
        }
        let single = || {
            SqlitePoolOptions::new()
                // After a commit that failed (on a full disk, say) SQLite has rolled back by itself; a connection
                // that does not know this could never begin again. In memory it is the database itself.
                .before_acquire(move |connection, _| {
                    let stuck = connection.is_in_transaction() && !in_memory;
                    Box::pin(async move { Ok(!stuck) })
                })
                .max_connections(1)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(options.acquire_timeout)
                .test_before_acquire(false)
        };
        let several = || {
            SqlitePoolOptions::new()
                .max_connections(options.max_connections.max(1))
                .acquire_timeout(options.acquire_timeout)
                .test_before_acquire(false)
        };
        let writer = open_sqlite(single, &connect, options.acquire_timeout).await?;
        let readers = if in_memory {
            writer.clone()
        } else {
            open_sqlite(several, &connect, options.acquire_timeout).await?
        };
        Ok(Self {
            pool: Pool::Sqlite { readers, writer },
            schema: options.schema,
            prefix: String::new(),
            clock: Clock::SYSTEM,
            line: Arc::default(),
        })
    }

    /// Creates the schema, or brings it up to [`SCHEMA_VERSION`]. Safe to call from any number of
    /// processes at once, of other SDKs too.
    ///
    /// # Errors
    /// [`DatabaseError::SchemaTooOld`] below version 100, [`DatabaseError::SchemaUnusable`] for tables
    /// of another layout.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        migrations::migrate(self).await
    }

    /// Creates the schema in an empty database and brings one up to date that this library made. One of the
    /// older line (versions 107 and 108) is joined as it is, and so is one that lacks indexes only (123 on); any other
    /// is left alone.
    ///
    /// # Errors
    /// [`DatabaseError::SchemaOfAnother`] if it would have to be migrated and is somebody else's.
    pub async fn join(&self) -> Result<(), DatabaseError> {
        migrations::join(self).await
    }

    /// Checks that the schema is current or such as [`join`](Self::join) works on, without changing anything.
    ///
    /// # Errors
    /// [`DatabaseError::SchemaOutdated`] if it is not.
    pub async fn verify(&self) -> Result<(), DatabaseError> {
        migrations::verify(self).await
    }

    /// The version of the schema that is recorded in the database; 0 if there is none.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn schema_version(&self) -> Result<i64, DatabaseError> {
        migrations::version(self).await
    }

    /// Drops everything of the engine's, recorded workflows included, and creates it anew.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn reset(&self) -> Result<(), DatabaseError> {
        migrations::reset(self).await
    }

    /// Lets a role of Postgres do what an application and its clients do, but not change the schema: launch
    /// with [`Migrate::Verify`](crate::Migrate::Verify) under it.
    ///
    /// # Errors
    /// [`DatabaseError::Invalid`] on SQLite, which has no roles.
    pub async fn grant_to(&self, role: &str) -> Result<(), DatabaseError> {
        migrations::grant_to(self, role).await
    }

    /// Makes the table that transactions outside the system database leave their results in.
    pub(crate) async fn create_transaction_records(&self) -> Result<(), DatabaseError> {
        migrations::create_transaction_records(self).await
    }

    /// How many workflows of all applications there are, by status.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn count_by_status(
        &self,
    ) -> Result<std::collections::BTreeMap<String, i64>, DatabaseError> {
        let count =
            self.sql("SELECT status, COUNT(*) AS count FROM @workflow_status GROUP BY status");
        let rows = self.read_listing(count).await?;
        rows.iter()
            .map(|row| Ok((row.required("status")?, row.int("count")?.unwrap_or(0))))
            .collect()
    }

    /// The Postgres schema name.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Whether inputs and outcomes are written into the status row as well, where SDKs read them that are older
    /// than the tables of their own (Postgres; migrations up to 108).
    #[must_use]
    pub fn inline_payloads(&self) -> bool {
        self.line.inline.load(Ordering::Relaxed) || self.is_older_line()
    }

    pub(crate) fn write_inline_payloads(&self) {
        self.line.inline.store(true, Ordering::Relaxed);
    }

    /// Whether the tables are of the older schema line and stay so, for the SDKs that made them: payloads are in
    /// the status row, and nowhere else.
    #[must_use]
    pub fn is_older_line(&self) -> bool {
        self.line.older.load(Ordering::Relaxed)
    }

    /// Whether queues can hold limits of partitions.
    fn has_partition_limits(&self) -> bool {
        !self.line.oldest.load(Ordering::Relaxed)
    }

    /// Fits everything to tables of this version.
    fn fit_to(&self, version: i64) {
        self.line
            .older
            .store(migrations::OLDER_LINE.contains(&version), Ordering::Relaxed);
        self.line
            .oldest
            .store(version < *migrations::OLDER_LINE.end(), Ordering::Relaxed);
    }

    /// The column that tells who made a row. The older line has none; there the first owner does.
    pub(crate) fn creator(&self) -> &'static str {
        if self.is_older_line() {
            "owner_xid"
        } else {
            "creator_xid"
        }
    }

    /// Where inputs are read from.
    pub(crate) fn inputs_table(&self) -> &'static str {
        if self.is_older_line() {
            "@workflow_status"
        } else {
            "@workflow_input"
        }
    }

    /// Where results and errors are read from.
    pub(crate) fn outputs_table(&self) -> &'static str {
        if self.is_older_line() {
            "@workflow_status"
        } else {
            "@workflow_output"
        }
    }

    /// The tables whose rows do not go with their workflow's row by themselves.
    fn side_tables(&self) -> &'static [&'static str] {
        const ALL: [&str; 3] = ["workflow_input", "workflow_output", "operation_outputs"];
        if self.is_older_line() {
            &ALL[2..]
        } else {
            &ALL
        }
    }

    /// Writes the input of a workflow whose row is there, wherever somebody looks for it.
    async fn store_input(
        &self,
        transaction: &mut Transaction,
        workflow_id: &str,
        inputs: &str,
    ) -> Result<(), DatabaseError> {
        if !self.is_older_line() {
            let input = self
                .sql("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES (")
                .bind(workflow_id)
                .push(", ")
                .bind(inputs)
                .push(") ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs");
            transaction.execute(input).await?;
        }
        if self.inline_payloads() {
            let inline = self
                .sql("UPDATE @workflow_status SET inputs = ")
                .bind(inputs)
                .push(" WHERE workflow_uuid = ")
                .bind(workflow_id);
            transaction.execute(inline).await?;
        }
        Ok(())
    }

    /// What precedes a table name in SQL: `"dbos".` on Postgres, nothing on SQLite.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The kind of database.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.pool {
            Pool::Postgres(_) => Dialect::Postgres,
            Pool::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// The connections.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Postgres(pool) => pool.close().await,
            Pool::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }

    /// Begins a statement with `sql`.
    pub(crate) fn sql(&self, sql: &str) -> Statement {
        Statement::new(self.dialect(), &self.prefix, self.now_sql()).push(sql)
    }

    /// The process's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The database's clock as SQL, in epoch milliseconds; table names in it are written `@name`.
    pub(crate) fn now_sql(&self) -> &'static str {
        if self.clock.is_manual() {
            test_clock::NOW
        } else {
            self.dialect().now_ms()
        }
    }

    /// Runs a statement that only reads.
    pub(crate) async fn read(&self, statement: Statement) -> Result<Vec<Row>, DatabaseError> {
        match &self.pool {
            Pool::Postgres(pool) => statement.fetch_postgres(pool).await,
            Pool::Sqlite { readers, .. } => statement.fetch_sqlite(readers).await,
        }
    }

    /// Runs a listing: as [`read`](Self::read), but the server gives up after 30 seconds.
    pub(crate) async fn read_listing(
        &self,
        statement: Statement,
    ) -> Result<Vec<Row>, DatabaseError> {
        let Pool::Postgres(pool) = &self.pool else {
            return self.read(statement).await;
        };
        let mut transaction = begin_postgres(pool, Isolation::ReadCommitted).await?;
        let limit = format!(
            "SET LOCAL statement_timeout = {}",
            LISTING_TIMEOUT.as_millis()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(limit))
            .execute(&mut *transaction)
            .await?;
        let rows = statement.fetch_postgres(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Runs a single writing statement; returns the number of rows it changed.
    pub(crate) async fn write(&self, statement: Statement) -> Result<u64, DatabaseError> {
        match &self.pool {
            Pool::Postgres(pool) => statement.execute_postgres(pool).await,
            Pool::Sqlite { writer, .. } => statement.execute_sqlite(writer).await,
        }
    }

    /// Runs a single writing statement with `RETURNING`.
    pub(crate) async fn write_returning(
        &self,
        statement: Statement,
    ) -> Result<Vec<Row>, DatabaseError> {
        match &self.pool {
            Pool::Postgres(pool) => statement.fetch_postgres(pool).await,
            Pool::Sqlite { writer, .. } => statement.fetch_sqlite(writer).await,
        }
    }

    /// Begins a writing transaction; dropped without [`Transaction::commit`] it is rolled back.
    pub(crate) async fn begin(&self) -> Result<Transaction, DatabaseError> {
        self.begin_isolated(Isolation::ReadCommitted).await
    }

    /// As [`begin`](Self::begin), kept apart from other transactions as strictly as said. On SQLite there is
    /// one writer at a time.
    pub(crate) async fn begin_isolated(
        &self,
        isolation: Isolation,
    ) -> Result<Transaction, DatabaseError> {
        Ok(match &self.pool {
            Pool::Postgres(pool) => Transaction::Postgres(begin_postgres(pool, isolation).await?),
            // Taking the write lock at once avoids failing later on an upgrade of the lock.
            Pool::Sqlite { writer, .. } => {
                Transaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
        })
    }
}

/// Begins in a task of its own. Where a caller gives up while the database begins, sqlx forgets that it asked and
/// returns the connection to the pool, in an open transaction: whatever came next there would never be committed.
async fn begin_postgres(
    pool: &PgPool,
    isolation: Isolation,
) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, DatabaseError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(isolation.begin()).await });
    match begun.await {
        Ok(transaction) => Ok(transaction?),
        // The process ends.
        Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
    }
}

/// How strictly a transaction is kept apart from others on Postgres. On SQLite each is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Each statement sees what was committed before it began: what there is unless asked for more.
    #[default]
    ReadCommitted,
    /// All statements see the same.
    RepeatableRead,
    /// As if there were no others.
    Serializable,
}

impl Isolation {
    fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "BEGIN",
            Self::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Self::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }
}

/// A writing transaction on either database.
pub(crate) enum Transaction {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    /// Runs a statement and returns its rows.
    pub(crate) async fn fetch(&mut self, statement: Statement) -> Result<Vec<Row>, DatabaseError> {
        match self {
            Self::Postgres(transaction) => statement.fetch_postgres(&mut **transaction).await,
            Self::Sqlite(transaction) => statement.fetch_sqlite(&mut **transaction).await,
        }
    }

    /// Runs a statement and returns the number of rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64, DatabaseError> {
        match self {
            Self::Postgres(transaction) => statement.execute_postgres(&mut **transaction).await,
            Self::Sqlite(transaction) => statement.execute_sqlite(&mut **transaction).await,
        }
    }

    /// Makes everything durable.
    pub(crate) async fn commit(self) -> Result<(), DatabaseError> {
        match self {
            Self::Postgres(transaction) => transaction.commit().await?,
            Self::Sqlite(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

/// Quotes a name for SQL.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Creates the database that `options` names if the server says it does not exist.
async fn create_database_if_missing(options: &PgConnectOptions) -> Result<(), DatabaseError> {
    const UNDEFINED_DATABASE: &str = "3D000";
    const DUPLICATE_DATABASE: &str = "42P04";
    let code = |e: &sqlx::Error| {
        e.as_database_error()
            .and_then(|e| e.code())
            .map(|c| c.into_owned())
    };

    let missing = match sqlx::PgConnection::connect_with(options).await {
        Ok(connection) => return Ok(connection.close().await?),
        Err(e) if code(&e).as_deref() == Some(UNDEFINED_DATABASE) => e,
        Err(e) => return Err(e.into()),
    };
    let Some(name) = options.get_database() else {
        return Err(missing.into());
    };
    let maintenance = options.clone().database("postgres");
    let create = format!("CREATE DATABASE {}", quote_identifier(name));
    let created = async {
        let mut connection = sqlx::PgConnection::connect_with(&maintenance).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut connection)
            .await?;
        connection.close().await
    }
    .await;
    match created {
        Ok(()) => Ok(()),
        // Another process was faster (the catalog's own unique index may report it, too).
        Err(e) if matches!(code(&e).as_deref(), Some(DUPLICATE_DATABASE | "23505")) => Ok(()),
        Err(e) => {
            tracing::warn!(database = name, error = %e, "could not create the missing system database");
            Err(missing.into())
        }
    }
}

/// Opens a SQLite file that other processes may be opening for the first time too.
///
/// The switch to WAL does not wait for locks as other statements do: SQLite answers "busy" at once, for
/// waiting might be a deadlock. So it is tried again, until `limit` has passed.
async fn open_sqlite(
    pool: impl Fn() -> SqlitePoolOptions,
    connect: &SqliteConnectOptions,
    limit: Duration,
) -> Result<SqlitePool, sqlx::Error> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut backoff = Backoff::for_contention();
    loop {
        match pool().connect_with(connect.clone()).await {
            Err(error) if is_contention(&error) && tokio::time::Instant::now() < deadline => {
                backoff.wait().await;
            }
            opened => return opened,
        }
    }
}
