//! Databases of one test, dropped with it.

use std::path::PathBuf;
use std::sync::Once;

use anyhow::Context;
use sqlx::{AnyPool, AssertSqlSafe};
use uuid::Uuid;

/// The variable that names a Postgres on which databases may be created.
pub const POSTGRES_URL: &str = "SEGNO_TEST_POSTGRES_URL";

/// A database of its own, gone when dropped (SQLite) or [`remove`](Database::remove)d (Postgres).
#[derive(Debug)]
pub struct Database {
    url: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Postgres { admin: String, name: String },
    Sqlite { _directory: tempfile::TempDir },
}

impl Database {
    /// A new database on the Postgres of `SEGNO_TEST_POSTGRES_URL`.
    ///
    /// # Errors
    /// When the variable is unset, or nothing answers there.
    pub async fn postgres() -> anyhow::Result<Self> {
        let admin = std::env::var(POSTGRES_URL).with_context(|| {
            format!(
                "{POSTGRES_URL} is unset: these tests need a Postgres on which they may create databases, \
                 e.g. postgres://postgres@127.0.0.1:5432/postgres (`make test` brings one)"
            )
        })?;
        let name = format!("segno_e2e_{}", Uuid::new_v4().simple());
        let pool = connect(&admin)
            .await
            .with_context(|| format!("{POSTGRES_URL} does not answer"))?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&pool)
            .await?;
        pool.close().await;
        let (server, _) = admin
            .rsplit_once('/')
            .context("the URL names no database")?;
        Ok(Self {
            url: format!("{server}/{name}"),
            kind: Kind::Postgres {
                admin: admin.clone(),
                name,
            },
        })
    }

    /// A file in a directory of its own.
    ///
    /// # Errors
    /// When no temporary directory can be made.
    pub fn sqlite() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file: PathBuf = directory.path().join("data.db");
        Ok(Self {
            url: format!("sqlite://{}", file.display()),
            kind: Kind::Sqlite {
                _directory: directory,
            },
        })
    }

    /// `postgres://…` or `sqlite://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether this is SQLite.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite { .. })
    }

    /// What stands before the name of an engine's table.
    pub fn prefix(&self) -> &'static str {
        if self.is_sqlite() { "" } else { "dbos." }
    }

    /// Connections for looking at it. The database must exist, which a SQLite file does once somebody
    /// has written to it.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn pool(&self) -> anyhow::Result<AnyPool> {
        connect(&self.url).await
    }

    /// Drops it, whoever is still connected.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn remove(&self) -> anyhow::Result<()> {
        if let Kind::Postgres { admin, name } = &self.kind {
            let pool = connect(admin).await?;
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            sqlx::query(AssertSqlSafe(drop)).execute(&pool).await?;
            pool.close().await;
        }
        Ok(())
    }
}

/// Connections to any database for looking at it.
///
/// # Errors
/// When it cannot be reached.
pub async fn connect(url: &str) -> anyhow::Result<AnyPool> {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
    Ok(sqlx::any::AnyPoolOptions::new()
        .max_connections(3)
        .connect(url)
        .await?)
}
