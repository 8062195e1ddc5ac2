//! Databases for tests: a fresh one each, dropped at the end.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, unused_macros)]

use segno::system_database::{Options, Pool, SystemDatabase};
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
        Self {
            admin_url,
            name,
            url: url.to_string(),
        }
    }

    pub async fn drop(self) {
        execute(
            &self.admin_url,
            &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
        )
        .await;
    }
}

pub async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// One text value per row of the first column.
pub async fn column(url: &str, sql: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    rows
}

pub async fn connect(url: &str) -> SystemDatabase {
    SystemDatabase::connect(url, Options::default())
        .await
        .unwrap()
}

/// A migrated system database of either kind, with direct access for arranging and inspecting rows.
pub struct Fixture {
    pub db: SystemDatabase,
    postgres: Option<PostgresDatabase>,
    // Kept so that the file lives as long as the test.
    _folder: Option<tempfile::TempDir>,
}

impl Fixture {
    pub async fn postgres() -> Self {
        let postgres = PostgresDatabase::create().await;
        let db = connect(&postgres.url).await;
        db.migrate().await.unwrap();
        Self {
            db,
            postgres: Some(postgres),
            _folder: None,
        }
    }

    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = connect(&format!(
            "sqlite://{}",
            folder.path().join("app.db").display()
        ))
        .await;
        db.migrate().await.unwrap();
        Self {
            db,
            postgres: None,
            _folder: Some(folder),
        }
    }

    pub async fn memory() -> Self {
        let db = connect("sqlite::memory:").await;
        db.migrate().await.unwrap();
        Self {
            db,
            postgres: None,
            _folder: None,
        }
    }

    /// Runs statements; `@name` is a table.
    pub async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(self.expand(sql));
        match self.db.pool() {
            Pool::Postgres(pool) => sqlx::raw_sql(sql).execute(pool).await.map(|_| ()),
            Pool::Sqlite { writer, .. } => sqlx::raw_sql(sql).execute(writer).await.map(|_| ()),
        }
        .unwrap();
    }

    /// The first column of every row as text; null is `-`. Integers must be cast.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(self.expand(sql));
        let rows: Vec<Option<String>> = match self.db.pool() {
            Pool::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await,
            Pool::Sqlite { writer, .. } => sqlx::query_scalar(sql).fetch_all(writer).await,
        }
        .unwrap();
        rows.into_iter()
            .map(|text| text.unwrap_or_else(|| "-".to_owned()))
            .collect()
    }

    /// Columns of one workflow, joined by `|`; null is `-`.
    pub async fn status(&self, id: &str, columns: &[&str]) -> String {
        let list: Vec<String> = columns
            .iter()
            .map(|column| format!("COALESCE(CAST({column} AS TEXT), '-')"))
            .collect();
        let list = list.join(" || '|' || ");
        self.texts(&format!(
            "SELECT {list} FROM @workflow_status WHERE workflow_uuid = '{id}'"
        ))
        .await
        .join("\n")
    }

    /// Inserts a workflow of the application `shop`; `more` are further columns as SQL literals.
    pub async fn workflow(&self, id: &str, status: &str, more: &[(&str, &str)]) {
        let mut columns = vec!["workflow_uuid", "status", "name"];
        let (id, status) = (format!("'{id}'"), format!("'{status}'"));
        let mut values = vec![id.as_str(), status.as_str(), "'pay'"];
        for (column, value) in [
            ("application_name", "'shop'"),
            ("application_version", "'v1'"),
        ] {
            if !more.iter().any(|(given, _)| *given == column) {
                columns.push(column);
                values.push(value);
            }
        }
        columns.extend(more.iter().map(|(column, _)| *column));
        values.extend(more.iter().map(|(_, value)| *value));
        self.run(&format!(
            "INSERT INTO @workflow_status ({}) VALUES ({})",
            columns.join(", "),
            values.join(", ")
        ))
        .await;
    }

    fn expand(&self, sql: &str) -> String {
        sql.replace('@', self.db.prefix())
    }

    pub async fn drop(self) {
        self.db.close().await;
        if let Some(postgres) = self.postgres {
            postgres.drop().await;
        }
    }
}

pub fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Declares every test once for Postgres and once for SQLite, in a file and in memory.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                let fixture = $crate::database_support::Fixture::postgres().await;
                super::$test(&fixture).await;
                fixture.drop().await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                let fixture = $crate::database_support::Fixture::memory().await;
                super::$test(&fixture).await;
                fixture.drop().await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                let fixture = $crate::database_support::Fixture::sqlite().await;
                super::$test(&fixture).await;
                fixture.drop().await;
            })+
        }
    };
}

/// Runs a test on the databases of the test kit.
pub async fn with_test_database<F: Future<Output = ()>>(
    on_postgres: bool,
    test: impl FnOnce(segno::Db) -> F,
) {
    let db = if on_postgres {
        let url = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap_or_else(|_| {
            panic!("SEGNO_TEST_POSTGRES_URL is not set; `make test` starts a Postgres")
        });
        segno::testing::postgres(&url).await
    } else {
        segno::testing::database().await
    };
    let db = db.unwrap();
    test(db.clone()).await;
    segno::testing::drop_schema(&db).await.unwrap();
}

/// Declares every test once for each database of the test kit.
#[macro_export]
macro_rules! on_both_test_databases {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                $crate::database_support::with_test_database(true, super::$test).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                $crate::database_support::with_test_database(false, super::$test).await;
            })+
        }
    };
}
