//! A database for the measurement, watched from another one so that watching is not counted.

use std::time::Duration;

use anyhow::Context;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

/// How long a backend may sit on what it has counted (PGSTAT_IDLE_INTERVAL), and a little more.
pub(crate) const SETTLE: Duration = Duration::from_secs(11);

/// A database of its own.
pub(crate) struct Scratch {
    name: String,
    url: String,
    /// Connected to another database of the same server.
    watcher: PgPool,
}

/// Postgres' own counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Transactions that committed in this database, readers included.
    pub(crate) commits: i64,
    /// Bytes of write-ahead log, of the whole server.
    pub(crate) wal_bytes: i64,
}

impl Counters {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            commits: self.commits - earlier.commits,
            wal_bytes: self.wal_bytes - earlier.wal_bytes,
        }
    }
}

impl Scratch {
    pub(crate) async fn create(server: &str) -> anyhow::Result<Self> {
        let watcher = PgPool::connect(server).await?;
        let name = format!("segno_bench_{}", Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&watcher)
            .await?;
        let (base, _) = server
            .rsplit_once('/')
            .context("the URL names no database")?;
        Ok(Self {
            url: format!("{base}/{name}"),
            name,
            watcher,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Server and settings that decide what a commit costs.
    pub(crate) async fn describe(&self) -> anyhow::Result<String> {
        let (text,): (String,) = sqlx::query_as(
            "SELECT 'PostgreSQL ' || current_setting('server_version') || ', fsync ' || current_setting('fsync') \
             || ', synchronous_commit ' || current_setting('synchronous_commit')",
        )
        .fetch_one(&self.watcher)
        .await?;
        Ok(text)
    }

    /// The counters, all work until now included: a backend that went idle reports within ten seconds.
    pub(crate) async fn settled(&self) -> anyhow::Result<Counters> {
        tokio::time::sleep(SETTLE).await;
        self.read().await
    }

    /// The counters as they are.
    pub(crate) async fn read(&self) -> anyhow::Result<Counters> {
        let (commits, wal_bytes): (i64, i64) = sqlx::query_as(
            "SELECT xact_commit, (SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint) \
             FROM pg_stat_database WHERE datname = $1",
        )
        .bind(&self.name)
        .fetch_one(&self.watcher)
        .await?;
        Ok(Counters { commits, wal_bytes })
    }

    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(drop))
            .execute(&self.watcher)
            .await?;
        Ok(())
    }
}
