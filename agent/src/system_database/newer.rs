//! Tables newer than this library: they are worked on as they are, as long as what it needs is still there.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::{DatabaseError, Dialect, Pool, SystemDatabase, migrations};

const POSTGRES_COLUMNS: &str = "SELECT c.relname || '.' || a.attname FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped";
const SQLITE_COLUMNS: &str = "SELECT t.name || '.' || c.name FROM sqlite_master t, pragma_table_info(t.name) c \
     WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'";

/// Refuses tables from which something was taken away since the version that is known here.
pub(super) async fn refuse_incomplete(
    db: &SystemDatabase,
    version: i64,
) -> Result<(), DatabaseError> {
    if version <= migrations::CURRENT {
        return Ok(());
    }
    let found = columns(db).await?;
    let missing: Vec<String> = known_columns()
        .await?
        .into_iter()
        .filter(|column| !found.contains(column))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DatabaseError::SchemaUnusable {
        schema: db.schema().to_owned(),
        reason: format!(
            "it is at version {version}, newer than the version {} that this library knows, and no longer has {}; \
             upgrade the crate `segno`",
            migrations::CURRENT,
            missing.join(", ")
        ),
    })
}

async fn columns(db: &SystemDatabase) -> Result<BTreeSet<String>, sqlx::Error> {
    let columns: Vec<String> = match db.pool() {
        Pool::Postgres(pool) => {
            let query = sqlx::query_scalar(POSTGRES_COLUMNS).bind(db.schema());
            query.fetch_all(pool).await?
        }
        Pool::Sqlite { readers, .. } => {
            sqlx::query_scalar(SQLITE_COLUMNS)
                .fetch_all(readers)
                .await?
        }
    };
    Ok(columns.into_iter().collect())
}

/// Those of the tables that this library makes: asked of a database in memory, for a list would be out of date one day.
async fn known_columns() -> Result<Vec<String>, sqlx::Error> {
    let mut scratch = SqliteConnection::connect("sqlite::memory:").await?;
    let tables = migrations::SQLITE_TABLES.replace("{now_ms}", Dialect::Sqlite.now_ms());
    sqlx::raw_sql(AssertSqlSafe(tables))
        .execute(&mut scratch)
        .await?;
    sqlx::query_scalar(SQLITE_COLUMNS)
        .fetch_all(&mut scratch)
        .await
}
