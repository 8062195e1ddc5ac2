//! Transactions in the system database: the caller's writes and the checkpoint in one commit.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{FromRow, Postgres, SqlSafeStr, Sqlite};
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::datasource::{self, Datasource, Open};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Execution, Recorded, StepResult, in_step};
use crate::message::{self, Message};
use crate::recorder::{self, StartRow};
use crate::step::recall;
pub use crate::system_database::Isolation;
use crate::system_database::{self, Options, Statement, SystemDatabase};
use crate::trace;
use crate::underway::Doing;

/// The database of an application: the engine's tables and, beside them, your own. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> segno::Result<()> {
/// let db = segno::Db::connect("sqlite://shop.db").await?;
/// db.transaction(|tx| Box::pin(async {
///     tx.query("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, cart TEXT)").execute().await?;
///     Ok(())
/// }))
/// .await?;
/// let app = segno::Segno::named("shop").database(&db).launch().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Db {
    pub(crate) system: SystemDatabase,
    /// Tells databases apart without connecting: one value per `connect`.
    identity: Arc<()>,
    isolation: Isolation,
}

impl Db {
    /// Connects to `postgres://…`, `postgresql://…` or `sqlite://…`; a missing database is created.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, Options::default()).await
    }

    /// As [`connect`](Self::connect), with these options.
    pub async fn connect_with(url: &str, options: Options) -> Result<Self> {
        let system = SystemDatabase::connect(url, options)
            .await
            .map_err(from_database)?;
        Ok(Self::of(system))
    }

    /// As [`connect`](Self::connect), with the engine's tables in this schema (of Postgres) instead of `dbos`.
    pub async fn connect_to_schema(url: &str, schema: &str) -> Result<Self> {
        let options = Options {
            schema: schema.to_owned(),
            ..Options::default()
        };
        Self::connect_with(url, options).await
    }

    /// The database behind connections that the application has already, to Postgres, with the engine's tables in this
    /// schema (`dbos` is usual). They are used as they are configured and stay open. A process that runs workflows makes
    /// one more, to listen for notifications.
    ///
    /// ```no_run
    /// # async fn example() -> segno::Result<()> {
    /// let pool = segno::sqlx::PgPool::connect("postgres://localhost/app").await?;
    /// let db = segno::Db::on_pool(pool.clone(), "dbos");
    /// let app = segno::Segno::named("shop").database(&db).launch().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_pool(pool: sqlx::PgPool, schema: &str) -> Self {
        Self::of(SystemDatabase::on_pool(pool, schema))
    }

    /// The engine's tables, for tools.
    pub fn system_database(&self) -> &SystemDatabase {
        &self.system
    }

    pub(crate) fn of(system: SystemDatabase) -> Self {
        Self {
            system,
            identity: Arc::new(()),
            isolation: Isolation::ReadCommitted,
        }
    }

    /// The same database, with transactions of this isolation. Those that cannot be kept apart run again.
    ///
    /// ```no_run
    /// # use segno::{Ctx, Db, Isolation};
    /// async fn book(ctx: Ctx<Db>, seat: i64) -> segno::Result<i64> {
    ///     let db = ctx.state().isolated(Isolation::Serializable);
    ///     ctx.transaction(&db, "book", |tx| Box::pin(async move {
    ///         let (taken,): (i64,) = tx.query("SELECT count(*) FROM seats WHERE seat = $1").bind(seat).fetch_one().await?;
    ///         Ok(taken)
    ///     }))
    ///     .await
    /// }
    /// ```
    pub fn isolated(&self, isolation: Isolation) -> Self {
        Self {
            isolation,
            ..self.clone()
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    /// Whether this is SQLite and not Postgres, for the few statements that differ.
    pub fn is_sqlite(&self) -> bool {
        self.system.dialect() == system_database::Dialect::Sqlite
    }

    /// Runs a transaction outside of any workflow. It may be run again after a serialization failure or
    /// deadlock; an error rolls it back.
    pub async fn transaction<'a, T, F>(&self, body: F) -> Result<T>
    where
        F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
        T: Send,
    {
        let mut backoff = Backoff::for_contention();
        loop {
            let mut tx = self.begin_transaction().await?;
            let result = body(&mut tx).await;
            let result = match result {
                Ok(value) => tx.commit().await.map(|()| value),
                Err(error) => {
                    tx.rollback().await;
                    Err(error)
                }
            };
            match result {
                Err(error) if is_contention(&error) => backoff.wait().await,
                result => return result,
            }
        }
    }

    pub(crate) async fn begin_transaction<'a>(&self) -> Result<Tx<'a>> {
        let begun = self.system.begin_isolated(self.isolation).await;
        let inner = begun.map_err(from_database)?;
        Ok(Tx {
            inner,
            system: self.system.clone(),
            borrows: PhantomData,
        })
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

/// An open transaction. `'a` is what the body that uses it borrows.
///
/// [`query`](Tx::query) runs SQL on either database; [`postgres`](Tx::postgres) and
/// [`sqlite`](Tx::sqlite) give the driver's own connection, for everything else `sqlx` can do.
pub struct Tx<'a> {
    inner: system_database::Transaction,
    system: SystemDatabase,
    // Invariant, so that `&'t mut Tx<'a>` says that `'a` outlives `'t`: the body may borrow.
    borrows: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl Tx<'_> {
    /// Sends a message to a workflow if this transaction commits, and only then. In a workflow it is sent once,
    /// with the transaction.
    ///
    /// ```no_run
    /// # use segno::Message;
    /// # async fn example(db: segno::Db) -> segno::Result<()> {
    /// db.transaction(|tx| Box::pin(async {
    ///     tx.query("UPDATE expenses SET state = 'approved' WHERE id = 7").execute().await?;
    ///     tx.send(Message::new("expense-7", "approval", &true)).await
    /// }))
    /// .await
    /// # }
    /// ```
    pub async fn send(&mut self, message: Message) -> Result<()> {
        for row in message::rows(&self.system, vec![message]).await? {
            let sent = self.system.send_in(&mut self.inner, &row).await;
            if !sent.map_err(from_database)? {
                return Err(Error::not_found("workflow", &row.destination));
            }
        }
        Ok(())
    }

    /// Puts a start on its queue; see [`Enqueue::in_transaction`](crate::Enqueue::in_transaction).
    pub(crate) async fn enqueue(&mut self, row: &StartRow, application: &str) -> Result<()> {
        let enqueued = self
            .system
            .enqueue_in(&mut self.inner, row, application)
            .await;
        match enqueued {
            Err(error) if error.is_unique_violation() => Err(Error::new(ErrorKind::Deduplicated {
                queue: row.queue.clone().unwrap_or_default(),
                deduplication_id: row.deduplication_id.clone().unwrap_or_default(),
            })),
            enqueued => enqueued.map(drop).map_err(from_database),
        }
    }

    /// A statement with `$1`, `$2`, … for its parameters, which work on both databases.
    pub fn query(&mut self, sql: impl SqlSafeStr) -> Query<'_> {
        match &mut self.inner {
            system_database::Transaction::Postgres(tx) => {
                Query(Inner::Postgres(sqlx::query(sql), tx))
            }
            system_database::Transaction::Sqlite(tx) => Query(Inner::Sqlite(sqlx::query(sql), tx)),
        }
    }

    /// The connection, if this is Postgres.
    pub fn postgres(&mut self) -> Option<&mut PgConnection> {
        match &mut self.inner {
            system_database::Transaction::Postgres(tx) => Some(tx),
            system_database::Transaction::Sqlite(_) => None,
        }
    }

    /// The connection, if this is SQLite.
    pub fn sqlite(&mut self) -> Option<&mut SqliteConnection> {
        match &mut self.inner {
            system_database::Transaction::Sqlite(tx) => Some(tx),
            system_database::Transaction::Postgres(_) => None,
        }
    }

    /// Runs a statement of the engine's.
    pub(crate) async fn execute(
        &mut self,
        statement: Statement,
    ) -> std::result::Result<u64, system_database::DatabaseError> {
        self.inner.execute(statement).await
    }

    pub(crate) async fn commit(self) -> Result<()> {
        self.inner.commit().await.map_err(from_database)
    }

    pub(crate) async fn rollback(self) {
        // Dropping would do, but only before the connection's next use; this frees its locks now.
        let _ = match self.inner {
            system_database::Transaction::Postgres(tx) => tx.rollback().await,
            system_database::Transaction::Sqlite(tx) => tx.rollback().await,
        };
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

enum Inner<'t> {
    Postgres(
        sqlx::query::Query<'static, Postgres, PgArguments>,
        &'t mut PgConnection,
    ),
    Sqlite(
        sqlx::query::Query<'static, Sqlite, SqliteArguments>,
        &'t mut SqliteConnection,
    ),
}

/// A statement in a transaction; see [`Tx::query`].
#[must_use = "a query does nothing until it is executed or fetched"]
pub struct Query<'t>(Inner<'t>);

/// A value that can be a parameter on both databases.
pub trait Parameter<'q>:
    sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres> + sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite>
{
}

impl<'q, T> Parameter<'q> for T where
    T: sqlx::Encode<'q, Postgres>
        + sqlx::Type<Postgres>
        + sqlx::Encode<'q, Sqlite>
        + sqlx::Type<Sqlite>
{
}

/// A row type that can be read from both databases: tuples, or structs with `#[derive(sqlx::FromRow)]`.
pub trait FromRows:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> FromRows for T where
    T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl Query<'_> {
    /// Binds the next parameter.
    pub fn bind<'q, T: Parameter<'q>>(self, value: T) -> Self {
        Self(match self.0 {
            Inner::Postgres(query, connection) => Inner::Postgres(query.bind(value), connection),
            Inner::Sqlite(query, connection) => Inner::Sqlite(query.bind(value), connection),
        })
    }

    /// Runs it; returns the number of rows it changed.
    pub async fn execute(self) -> Result<u64, sqlx::Error> {
        match self.0 {
            Inner::Postgres(query, connection) => {
                Ok(query.execute(connection).await?.rows_affected())
            }
            Inner::Sqlite(query, connection) => {
                Ok(query.execute(connection).await?.rows_affected())
            }
        }
    }

    /// All rows.
    pub async fn fetch_all<R: FromRows>(self) -> Result<Vec<R>, sqlx::Error> {
        match self.0 {
            Inner::Postgres(query, connection) => query
                .fetch_all(connection)
                .await?
                .iter()
                .map(|row| R::from_row(row))
                .collect(),
            Inner::Sqlite(query, connection) => query
                .fetch_all(connection)
                .await?
                .iter()
                .map(|row| R::from_row(row))
                .collect(),
        }
    }

    /// The first row; none is an error.
    pub async fn fetch_one<R: FromRows>(self) -> Result<R, sqlx::Error> {
        self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first row, if there is one.
    pub async fn fetch_optional<R: FromRows>(self) -> Result<Option<R>, sqlx::Error> {
        match self.0 {
            Inner::Postgres(query, connection) => query
                .fetch_optional(connection)
                .await?
                .map(|row| R::from_row(&row))
                .transpose(),
            Inner::Sqlite(query, connection) => query
                .fetch_optional(connection)
                .await?
                .map(|row| R::from_row(&row))
                .transpose(),
        }
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").finish_non_exhaustive()
    }
}

/// A transaction step that was called; await it. See [`Ctx::transaction`](crate::Ctx::transaction).
#[must_use = "a transaction does nothing until it is awaited"]
pub struct Transaction<'a, T>(BoxFuture<'a, Result<T>>);

impl<'a, T: Serialize + DeserializeOwned + Send + 'a> Transaction<'a, T> {
    pub(crate) fn in_datasource<D, F>(
        execution: Arc<Execution>,
        position: Option<i32>,
        source: &'a D,
        name: Cow<'static, str>,
        body: F,
    ) -> Self
    where
        D: Datasource,
        F: for<'t> Fn(&'t mut Open<'a, D::Tx>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        let driven = datasource::drive(execution, position, source, name, body);
        Self(Box::pin(driven))
    }

    pub(crate) fn new<F>(
        execution: Arc<Execution>,
        position: Option<i32>,
        db: Db,
        name: Cow<'static, str>,
        body: F,
    ) -> Self
    where
        F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        Self(Box::pin(drive(execution, position, db, name, body)))
    }
}

impl<T> Future for Transaction<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for Transaction<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

async fn drive<'a, T, F>(
    execution: Arc<Execution>,
    position: Option<i32>,
    db: Db,
    name: Cow<'static, str>,
    body: F,
) -> Result<T>
where
    T: Serialize + DeserializeOwned + Send,
    F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
{
    let (position, recorded) = execution.replay_or_misuse(position, &name).await;
    if let Some(recorded) = recorded {
        return recall(&execution, position, &name, recorded).await;
    }
    if !db.is_same(&execution.runtime.db) {
        let message = format!(
            "transaction `{name}` is on another connection than the application's system database; \
             pass one `Db` to both `.database(&db)` and the workflow, or call `transaction_in` for another database"
        );
        return execution.fail(Error::config("transaction", message)).await;
    }
    let _active = execution.enter(position, Doing::Step(name.clone()));
    let started_at = execution.now_ms();
    let span = trace::step_span(&execution, Some(position), &name);
    let attempts = attempts(&execution, position, &name, started_at, &db, body);
    let result = attempts.instrument(span.clone()).await;
    if let Err(error) = &result {
        trace::failed(&span, &execution, || error.clone());
    }
    result
}

/// Attempts until one is committed or fails for a reason of its own, which is recorded.
async fn attempts<'a, T, F>(
    execution: &Arc<Execution>,
    position: i32,
    name: &str,
    started_at: i64,
    db: &Db,
    body: F,
) -> Result<T>
where
    T: Serialize + DeserializeOwned + Send,
    F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
{
    let mut contention = Backoff::for_contention();
    let mut absence = Backoff::for_absence();
    loop {
        let error = match attempt(execution, position, name, started_at, db, &body).await {
            Ok(Attempt::Committed(value)) => return Ok(value),
            Ok(Attempt::Recorded(recorded)) => {
                let recorded = execution.readable(position, recorded).await;
                return recall(execution, position, name, recorded).await;
            }
            Ok(Attempt::NotOwner) => return execution.lose().await,
            Err(error) => error,
        };
        if is_contention(&error) {
            tracing::debug!(workflow_id = execution.id(), step = name, %error, "transaction runs again");
            execution.unless_interrupted(contention.wait()).await;
            continue;
        }
        if is_away(&error) {
            tracing::warn!(workflow_id = execution.id(), step = name, %error, retry_in = ?absence.next(), "the database is away; a transaction waits");
            execution.unless_interrupted(absence.wait()).await;
            continue;
        }
        let recorded = StepResult::Error(error.to_portable().to_string());
        if execution
            .record(position, name, started_at, recorded)
            .await
            .is_err()
        {
            return execution.fail(error).await;
        }
        return Err(error);
    }
}

/// A transaction that runs again because another was in the way is the same attempt.
pub(crate) const FIRST: u32 = 1;

enum Attempt<T> {
    Committed(T),
    /// An earlier attempt had committed after all; only its acknowledgement was lost.
    Recorded(Recorded),
    NotOwner,
}

/// One attempt in a fresh transaction: the body, then the checkpoint under the ownership check, then
/// the commit.
async fn attempt<'a, T, F>(
    execution: &Execution,
    position: i32,
    name: &str,
    started_at: i64,
    db: &Db,
    body: &F,
) -> Result<Attempt<T>>
where
    T: Serialize + Send,
    F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
{
    let mut tx = db.begin_transaction().await?;
    let value = match in_step(Some(position), FIRST, || body(&mut tx)).await {
        Ok(value) => value,
        Err(error) => {
            tx.rollback().await;
            return Err(error);
        }
    };
    let output = serde_json::to_string(&value)
        .map_err(|error| Error::serialization(&format!("output of transaction `{name}`"), error))?;
    let mut row = execution.step_row(
        position,
        name,
        started_at,
        execution.now_ms(),
        StepResult::Output(output),
    );
    let what = || format!("output of transaction `{name}`");
    let payloads = execution.runtime.payloads();
    payloads
        .result(&mut row.output, &mut row.error, what)
        .await?;
    let app = execution.runtime.app_name();
    let written = recorder::record_in(&mut tx.inner, &db.system, app, &row)
        .await
        .map_err(from_database)?;
    match written {
        recorder::InTransaction::Done => {
            let gate = execution.runtime.recorder.gate();
            let pass = gate.enter().await;
            tx.commit().await?;
            gate.leave(pass).await;
            Ok(Attempt::Committed(value))
        }
        recorder::InTransaction::NotOwner => {
            tx.rollback().await;
            Ok(Attempt::NotOwner)
        }
        recorder::InTransaction::Recorded(recorded) => {
            tx.rollback().await;
            Ok(Attempt::Recorded(recorded))
        }
    }
}

/// The engine's error for a failure of the database layer.
pub(crate) fn from_database(error: system_database::DatabaseError) -> Error {
    use system_database::DatabaseError;
    match error {
        DatabaseError::Sql(error) => Error::database(error),
        DatabaseError::NotFound { what, ids } => Error::not_found(what, &ids.join(", ")),
        DatabaseError::Url(message) => Error::config("database_url", message),
        other => {
            let message = other.to_string();
            Error::new(match other.schema_version() {
                Some(found) => ErrorKind::Schema { found, message },
                None => ErrorKind::Database { message },
            })
        }
    }
}

/// Another transaction was in the way: a fresh one may succeed.
pub(crate) fn is_contention(error: &Error) -> bool {
    error.database_error().is_some_and(recorder::is_contention)
}

/// The database is away: it may come back.
pub(crate) fn is_away(error: &Error) -> bool {
    error.database_error().is_some_and(recorder::is_away)
}
