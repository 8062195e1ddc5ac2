//! The server's own database, made for a measurement and dropped after it.

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Which engine the server keeps its state in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Postgres,
    Sqlite,
}

/// A database of its own.
pub(crate) struct Scratch {
    pub(crate) url: String,
    /// Where the server writes its log, and SQLite its file.
    pub(crate) directory: tempfile::TempDir,
    /// On Postgres: the server, and the name to drop.
    made: Option<(String, String)>,
}

impl Scratch {
    pub(crate) async fn create(store: Store, postgres: Option<&str>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        if store == Store::Sqlite {
            let url = format!("sqlite://{}/segno.db", directory.path().display());
            return Ok(Self {
                url,
                directory,
                made: None,
            });
        }
        let server = postgres.context("--postgres (SEGNO_TEST_POSTGRES_URL) is needed")?;
        let name = format!("segno_fleet_{}", uuid::Uuid::new_v4().simple());
        execute(server, format!("CREATE DATABASE {name}")).await?;
        let (base, _) = server
            .rsplit_once('/')
            .context("the URL names no database")?;
        Ok(Self {
            url: format!("{base}/{name}"),
            directory,
            made: Some((server.to_owned(), name)),
        })
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        if let Some((server, name)) = self.made {
            execute(
                &server,
                format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            )
            .await?;
        }
        Ok(())
    }
}

async fn execute(server: &str, sql: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
