//! Databases for tests: a fresh one each, dropped at the end.
#![allow(clippy::unwrap_used, dead_code)]

use segno::system_database::{Options, SystemDatabase};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A database of its own on the Postgres of the test run.
pub struct PostgresDatabase {
    admin_url: String,
    name: String,
    /// URL of the fresh, empty database.
    pub url: String,
}

impl PostgresDatabase {
    pub async fn create() -> Self {
        let admin_url = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap_or_else(|_| {
            panic!(
                "SEGNO_TEST_POSTGRES_URL is not set; it must name a Postgres superuser connection, for example \
                 postgres://postgres@127.0.0.1:5432/postgres (`make test` starts one)"
            )
        });
        let name = format!("segno_agent_{}", uuid::Uuid::new_v4().simple());
        execute(&admin_url, &format!("CREATE DATABASE {name}")).await;
        let mut url = url::Url::parse(&admin_url).unwrap();
        url.set_path(&name);
        Self { admin_url, name, url: url.to_string() }
    }

    pub async fn drop(self) {
        execute(&self.admin_url, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await;
    }
}

pub async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// One text value per row of the first column.
pub async fn column(url: &str, sql: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}

pub async fn connect(url: &str) -> SystemDatabase {
    SystemDatabase::connect(url, Options::default()).await.unwrap()
}
