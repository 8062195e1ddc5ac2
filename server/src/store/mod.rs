//! The server's own state, in Postgres or SQLite. The only place with SQL.
//!
//! Queries are written once, with `$n` placeholders and columns of type `TEXT` and `BIGINT` only
//! (JSON as text, flags as 0 or 1, times as epoch milliseconds by the *database's* clock), which
//! both engines read alike. Where they differ, [`Store::now_expr`] and [`Store::dialect`] help.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use crate::config::Secret;
use crate::telemetry::Metrics;

pub mod alerting;
pub mod alerts;
pub mod apps;
pub mod archive;
pub mod audit;
pub mod autoscaling;
pub mod channels;
pub mod domains;
pub mod executors;
pub mod idempotency;
pub mod instances;
pub mod keys;
pub mod members;
pub mod metrics;
pub mod operations;
pub mod orgs;
pub mod outbox;
pub mod peers;
pub mod pool;
mod recent;
pub mod recoveries;
pub mod roles;
pub mod rounds;
pub mod schema;
pub mod system;
pub mod users;
pub mod views;

use pool::Pool;
pub use pool::Tx;
use recent::Recent;

/// Which engine holds the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Shared by any number of instances.
    Postgres,
    /// Embedded; one instance.
    Sqlite,
}

/// The server's database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    dialect: Dialect,
    metrics: Metrics,
    keys: Arc<Recent<String, keys::KeyRow>>,
    apps: Arc<Recent<(String, String), apps::AppRow>>,
}

/// A failure of the store. Its text never holds a password or a bound value.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or has no connection to spare. Worth trying again.
    #[error("the server's database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A row with this unique value exists already.
    #[error("the value is taken")]
    Taken,
    /// The row that was to be changed, or one that it refers to, does not exist.
    #[error("the row does not exist")]
    NotFound,
    /// A stored value does not read as what it should be.
    #[error("{table}.{column} holds a value that this version cannot read")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The schema is newer than this binary.
    #[error(
        "the database's schema is at version {found}, newer than this binary knows ({known}); \
         run the newer segno, take the schema back with its `segno migrate --to {known}`, or restore the database \
         from before its upgrade"
    )]
    NewerSchema {
        /// The version found.
        found: i64,
        /// The newest version this binary knows.
        known: i64,
    },
    /// The schema is older than this binary, and migrating was not allowed.
    #[error(
        "the database's schema is at version {found} and this binary needs {known}; \
         run `segno migrate`, or start without --no-migrate"
    )]
    OlderSchema {
        /// The version found (0: none).
        found: i64,
        /// The newest version this binary knows.
        known: i64,
    },
    /// There is no such version of the schema.
    #[error("--to: there is no version {wanted} of the schema; the newest is {known}")]
    NoSuchSchema {
        /// The version asked for.
        wanted: i64,
        /// The newest version this binary knows.
        known: i64,
    },
    /// The way back was asked for through a transaction pooler.
    #[error(
        "going back needs a session of its own: give the database's own address, without pooler=transaction"
    )]
    Pooled,
    /// Something was to be done that only an operator alone with the database may do.
    #[error(
        "an instance serves on this database, at {address}; stop it first (one that was killed counts for ten seconds)"
    )]
    Serving {
        /// Where it listens.
        address: String,
    },
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[source] MigrateError),
    /// The embedded database's directory cannot be made.
    #[error("cannot create the data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else: a fault of ours.
    #[error("database error: {0}")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            // A connection that ends while it is being made is a protocol error to sqlx.
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Taken,
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                Self::NotFound
            }
            sqlx::Error::Database(database) if is_outage(database.code().as_deref()) => {
                Self::Unavailable(error)
            }
            _ => Self::Other(error),
        }
    }
}

/// Postgres: connection exceptions, out of resources, shutting down, no such database, database closed
/// for connections. SQLite: busy,
/// locked, I/O error, disk full, cannot open.
fn is_outage(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    if code.len() == 5 {
        return ["08", "53", "57P", "3D", "55000"]
            .iter()
            .any(|class| code.starts_with(class));
    }
    // SQLite's extended codes hold the primary one in their low byte.
    let primary = code.parse::<u32>().map(|code| code & 0xff);
    matches!(primary, Ok(5 | 6 | 10 | 13 | 14))
}

impl Store {
    /// Connects to `url` (`postgres://…`, `sqlite://…`) without touching the schema. The file of an
    /// embedded database and its directory are created if missing. Postgres: with `pooler=transaction` in
    /// the query a transaction pooler may stand between.
    pub async fn connect(url: &Secret, metrics: Metrics) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);

        let dialect = if url.expose().starts_with("sqlite:") {
            Dialect::Sqlite
        } else {
            Dialect::Postgres
        };
        let (text, pooled) = match dialect {
            Dialect::Postgres => without_pooler(url.expose()),
            Dialect::Sqlite => (sqlite_url(url.expose())?, false),
        };
        let options = AnyConnectOptions::from_str(&text)?
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        let mut pool = AnyPoolOptions::new()
            .max_connections(if dialect == Dialect::Sqlite { 4 } else { 10 })
            .acquire_timeout(Duration::from_secs(5));
        if dialect == Dialect::Sqlite {
            pool = pool.after_connect(|connection, _| {
                Box::pin(async move {
                    // NORMAL is durable against a crash of the process; a power cut may lose the
                    // last commits but never corrupts.
                    connection
                        .execute(
                            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
                             PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
                        )
                        .await?;
                    Ok(())
                })
            });
        }
        Ok(Self {
            pool: Pool::connect(pool, options, pooled).await?,
            dialect,
            metrics,
            keys: Arc::default(),
            apps: Arc::default(),
        })
    }

    /// Answers when the database does: for readiness.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let _timer = self.timer("ping");
        sqlx::query_scalar::<_, i64>(self.sql("SELECT {now}"))
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Begins a transaction. On SQLite it takes the write lock at once, so that a transaction that
    /// reads first cannot fail when it writes.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self.dialect {
            Dialect::Postgres => self.pool.begin().await?,
            Dialect::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
        })
    }

    /// Commits a transaction.
    pub async fn commit(&self, tx: Tx) -> Result<(), StoreError> {
        let _timer = self.timer("commit");
        let done = tx.commit().await;
        // Also after a failure: it may have been the answer that was lost, not the commit.
        self.forget_recent();
        Ok(done?)
    }

    /// To be called after changes of keys or applications that [`Store::commit`] does not see.
    fn forget_recent(&self) {
        self.keys.forget();
        self.apps.forget();
    }

    /// The connection pool, for single statements.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Which engine this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// SQL for the database's clock in epoch milliseconds (BIGINT).
    pub fn now_expr(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => {
                "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)"
            }
            Dialect::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }

    /// `template` with each `{now}` replaced by [`Store::now_expr`]. The template must be a constant
    /// of ours: values are bound, never formatted in.
    pub fn sql(&self, template: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(template.replace("{now}", self.now_expr()))
    }

    /// The database's clock, epoch milliseconds.
    pub async fn now(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(self.sql("SELECT {now}"))
            .fetch_one(&self.pool)
            .await?)
    }

    /// Measures one operation, from now until the guard is dropped.
    pub fn timer(&self, operation: &'static str) -> StoreTimer {
        StoreTimer {
            metrics: self.metrics.clone(),
            operation,
            started: Instant::now(),
        }
    }

    /// Closes all connections, after letting running statements end.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// See [`Store::timer`].
pub struct StoreTimer {
    metrics: Metrics,
    operation: &'static str,
    started: Instant,
}

impl Drop for StoreTimer {
    fn drop(&mut self) {
        self.metrics.store(self.operation, self.started.elapsed());
    }
}

/// The URL without our `pooler=transaction`, and whether it was there.
fn without_pooler(url: &str) -> (String, bool) {
    const ASKED: &str = "pooler=transaction";
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), false);
    };
    let others: Vec<&str> = query.split('&').filter(|part| *part != ASKED).collect();
    let pooled = others.len() < query.split('&').count();
    match others.is_empty() {
        true => (base.to_owned(), pooled),
        false => (format!("{base}?{}", others.join("&")), pooled),
    }
}

/// Accepts `sqlite:path`, `sqlite://path` and `sqlite://path?mode=…`; makes the directory, and the
/// file unless a mode says otherwise.
fn sqlite_url(url: &str) -> Result<String, StoreError> {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(parent) = Path::new(path).parent()
        && !parent.as_os_str().is_empty()
    {
        std::fs::create_dir_all(parent).map_err(|source| StoreError::DataDir {
            path: parent.display().to_string(),
            source,
        })?;
    }
    let query = if query.contains("mode=") {
        query.to_owned()
    } else if query.is_empty() {
        "mode=rwc".to_owned()
    } else {
        format!("{query}&mode=rwc")
    };
    Ok(format!("sqlite://{path}?{query}"))
}
