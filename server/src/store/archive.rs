//! All that the server knows, out of one store and into another, whichever engines they are.
//!
//! Tables are copied as they are: columns are texts and whole numbers on both engines. Secrets that are
//! sealed stay sealed, keys are hashes.

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row};

use super::{Dialect, Store, StoreError, Tx};

/// What is copied, each table after those that it refers to. Instances are copied as having stopped: they
/// tell since when their executors have not been heard of.
const TABLES: [&str; 29] = [
    "settings",
    "organizations",
    "applications",
    "api_keys",
    "api_key_apps",
    "users",
    "roles",
    "join_secrets",
    "domain_claims",
    "removed_members",
    "alert_channels",
    "alerting_rules",
    "alerting_rule_channels",
    "alerts",
    "alert_deliveries",
    "alert_attempts",
    "autoscaling_policies",
    "policy_rounds",
    "app_metrics",
    "workflow_views",
    "instances",
    "executors",
    "abandoned_executors",
    "evictions",
    "recoveries",
    "recovery_attempts",
    "operations",
    "operation_items",
    "audit_log",
];

/// What is not: answers to requests that are over.
#[cfg(test)]
const LEFT_OUT: [&str; 1] = ["idempotency_keys"];

/// Bound values of one statement: both engines take more.
const VALUES_AT_ONCE: usize = 10_000;

/// A table and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, in the order in which rows have them.
    pub columns: Vec<Column>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it holds whole numbers; texts if not.
    pub number: bool,
}

impl Store {
    /// The tables that are copied and exist, in the order in which they can be filled.
    pub async fn archived_tables(&self) -> Result<Vec<Table>, StoreError> {
        let mut tables = Vec::new();
        for name in TABLES {
            let columns = self.columns(name).await?;
            if !columns.is_empty() {
                tables.push(Table {
                    name: name.to_owned(),
                    columns,
                });
            }
        }
        Ok(tables)
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, StoreError> {
        let query = match self.dialect() {
            Dialect::Postgres => {
                "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind \
                 FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
            }
            Dialect::Sqlite => "SELECT name, type AS kind FROM pragma_table_info($1) ORDER BY cid",
        };
        let rows = sqlx::query(query)
            .bind(table)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                let kind: String = row.try_get("kind")?;
                Ok(Column {
                    name: row.try_get("name")?,
                    number: kind.eq_ignore_ascii_case("bigint"),
                })
            })
            .collect()
    }

    /// Begins a transaction in which everything is read as it was at one moment.
    pub async fn snapshot(&self) -> Result<Tx, StoreError> {
        Ok(match self.dialect() {
            Dialect::Postgres => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                self.pool().begin_with(begin).await?
            }
            Dialect::Sqlite => self.pool().begin().await?,
        })
    }

    /// Gives each row of `table` to `take`, in the order of the first columns.
    pub async fn read_rows<E: From<StoreError>>(
        &self,
        tx: &mut Tx,
        table: &Table,
        mut take: impl FnMut(Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        let query = format!(
            "SELECT {} FROM {} ORDER BY 1, 2",
            listed(table),
            copied(table)
        );
        // Names of tables are ours, names of columns the database's own.
        let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut **tx);
        while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
            take(values(table, &row)?)?;
        }
        Ok(())
    }

    /// How many rows each table holds that holds any; instances that stopped do not count.
    pub async fn held(&self, tables: &[Table]) -> Result<Vec<(String, i64)>, StoreError> {
        let mut held = Vec::new();
        for table in tables.iter().filter(|table| table.name != "instances") {
            let query = format!("SELECT COUNT(*) FROM {}", copied(table));
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(query))
                .fetch_one(self.pool())
                .await?;
            if count > 0 {
                held.push((table.name.clone(), count));
            }
        }
        Ok(held)
    }

    /// Fails while an instance heard of within `expiry` milliseconds serves on this store.
    pub async fn check_nobody_serves(
        &self,
        tables: &[Table],
        expiry: i64,
    ) -> Result<(), StoreError> {
        match tables.iter().any(|table| table.name == "instances") {
            true => self.refuse_while_serving(expiry).await,
            false => Ok(()),
        }
    }

    /// Deletes what the tables hold.
    pub async fn clear(&self, tx: &mut Tx, tables: &[Table]) -> Result<(), StoreError> {
        for table in tables.iter().rev() {
            let delete = format!("DELETE FROM {}", copied(table));
            sqlx::query(AssertSqlSafe(delete))
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }

    /// Adds rows to a table; each must have a value for every column of `table`.
    pub async fn write_rows(
        &self,
        tx: &mut Tx,
        table: &Table,
        rows: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        let width = table.columns.len();
        for some in rows.chunks((VALUES_AT_ONCE / width.max(1)).max(1)) {
            let places: Vec<String> = (0..some.len())
                .map(|row| {
                    let places = (1..=width).map(|column| format!("${}", row * width + column));
                    format!("({})", places.collect::<Vec<_>>().join(", "))
                })
                .collect();
            let insert = format!(
                "INSERT INTO {} ({}) VALUES {}",
                table.name,
                listed(table),
                places.join(", ")
            );
            let mut query = sqlx::query(AssertSqlSafe(insert));
            for row in some {
                for (column, value) in table.columns.iter().zip(row) {
                    query = bound(query, column, value);
                }
            }
            query.execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// Counts all instances as stopped, for their server is another one.
    pub async fn stop_copied_instances(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let update = self.sql("UPDATE instances SET stopped_at = {now} WHERE stopped_at IS NULL");
        sqlx::query(update).execute(&mut **tx).await?;
        Ok(())
    }
}

/// The table, without the row that stays where it is: instances of one server must not accept what those of
/// another sign.
fn copied(table: &Table) -> String {
    match table.name.as_str() {
        "settings" => format!("settings WHERE name <> '{}'", super::peers::SECRET),
        name => name.to_owned(),
    }
}

fn listed(table: &Table) -> String {
    let names: Vec<&str> = table
        .columns
        .iter()
        .map(|each| each.name.as_str())
        .collect();
    names.join(", ")
}

fn values(table: &Table, row: &AnyRow) -> Result<Vec<Value>, StoreError> {
    let value = |(index, column): (usize, &Column)| -> Result<Value, StoreError> {
        Ok(match column.number {
            true => row.try_get::<Option<i64>, _>(index)?.into(),
            false => row.try_get::<Option<String>, _>(index)?.into(),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

fn bound<'q>(
    query: Query<'q, Any, AnyArguments>,
    column: &Column,
    value: &Value,
) -> Query<'q, Any, AnyArguments> {
    match column.number {
        true => query.bind(value.as_i64()),
        false => query.bind(value.as_str().map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Secret;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn every_table_is_copied_or_left_out_on_purpose() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("x.db").display());
        let store = Store::connect(&Secret::new(url), Metrics::new().unwrap())
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let query = "SELECT name FROM sqlite_master WHERE type = 'table' \
                     AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations' ORDER BY name";
        let mut there: Vec<String> = sqlx::query_scalar(query)
            .fetch_all(store.pool())
            .await
            .unwrap();
        let mut known: Vec<&str> = TABLES.into_iter().chain(LEFT_OUT).collect();
        known.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, known);
        for table in store.archived_tables().await.unwrap() {
            // Neither engine may write them differently.
            assert!(table.columns.iter().all(|column| {
                column
                    .name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            }));
        }
        store.close().await;
    }
}
