//! The database's clock in tests: a row of a table of its own, which takes the place of the server's clock
//! in every statement and in the tables' defaults.

use std::time::Duration;

use super::{DatabaseError, Dialect, Pool, SystemDatabase};
use crate::clock::Clock;

/// The clock as SQL.
pub(super) const NOW: &str = "(SELECT now_ms FROM @segno_test_clock)";

/// Columns that the database stamps by itself.
const STAMPED: [(&str, &str); 9] = [
    ("workflow_status", "created_at"),
    ("workflow_status", "updated_at"),
    ("notifications", "created_at_epoch_ms"),
    ("queues", "created_at"),
    ("queues", "updated_at"),
    ("workflow_input", "retention_timestamp"),
    ("workflow_output", "retention_timestamp"),
    ("operation_outputs", "retention_timestamp"),
    ("application_versions", "version_timestamp"),
];

impl SystemDatabase {
    /// The same database under a clock that stands still at this instant until it is moved. For a schema
    /// that was made for the test.
    pub(crate) async fn under_test_clock(mut self, now_ms: i64) -> Result<Self, DatabaseError> {
        let create =
            self.sql("CREATE TABLE IF NOT EXISTS @segno_test_clock (now_ms BIGINT NOT NULL)");
        self.write(create).await?;
        let empty = self.sql("DELETE FROM @segno_test_clock");
        self.write(empty).await?;
        let insert = self
            .sql("INSERT INTO @segno_test_clock (now_ms) VALUES (")
            .bind(now_ms)
            .push(")");
        self.write(insert).await?;
        match self.dialect() {
            Dialect::Postgres => self.stamp_by_function().await?,
            Dialect::Sqlite => self.stamp_by_triggers().await?,
        }
        self.clock = Clock::manual(now_ms);
        Ok(self)
    }

    /// Completes when the database does nothing more for this schema: what a process asked for before it died may
    /// be done, and lock rows, some time after.
    pub(crate) async fn settled(&self) -> Result<(), DatabaseError> {
        if self.dialect() == Dialect::Sqlite {
            return Ok(());
        }
        let mut at_rest = 0;
        while at_rest < 3 {
            let busy = self
                .sql(
                    "SELECT COUNT(*) AS busy FROM pg_catalog.pg_stat_activity WHERE datname = current_database() \
                     AND pid <> pg_backend_pid() AND state <> 'idle' AND strpos(query, ",
                )
                .bind(self.schema())
                .push(") > 0");
            let rows = self.read(busy).await?;
            let busy = rows.first().map(|row| row.int("busy")).transpose()?;
            at_rest = match busy.flatten() {
                Some(0) => at_rest + 1,
                _ => 0,
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Moves both clocks: the database's first, so that whoever wakes up finds it moved.
    pub(crate) async fn move_clock(&self, now_ms: i64) -> Result<(), DatabaseError> {
        let moved = self
            .sql("UPDATE @segno_test_clock SET now_ms = ")
            .bind(now_ms);
        self.write(moved).await?;
        self.clock.set(now_ms);
        Ok(())
    }

    async fn stamp_by_function(&self) -> Result<(), DatabaseError> {
        let mut script = vec![
            "CREATE OR REPLACE FUNCTION @segno_test_now() RETURNS BIGINT LANGUAGE sql STABLE AS \
             'SELECT now_ms FROM @segno_test_clock'"
                .to_owned(),
        ];
        script.extend(STAMPED.map(|(table, column)| {
            format!("ALTER TABLE @{table} ALTER COLUMN {column} SET DEFAULT @segno_test_now()")
        }));
        self.script(&script).await
    }

    /// SQLite allows no query in a default: a trigger replaces what the default said.
    async fn stamp_by_triggers(&self) -> Result<(), DatabaseError> {
        let real = Dialect::Sqlite.now_ms();
        let triggers = STAMPED.map(|(table, column)| {
            format!(
                "CREATE TRIGGER IF NOT EXISTS segno_test_{table}_{column} AFTER INSERT ON {table} \
                 WHEN abs(NEW.{column} - {real}) < 5000 \
                 BEGIN UPDATE {table} SET {column} = (SELECT now_ms FROM segno_test_clock) WHERE rowid = NEW.rowid; END"
            )
        });
        self.script(&triggers).await
    }

    async fn script(&self, statements: &[String]) -> Result<(), DatabaseError> {
        for statement in statements {
            let text = statement.replace('@', self.prefix());
            let text = sqlx::AssertSqlSafe(text);
            match self.pool() {
                Pool::Postgres(pool) => sqlx::raw_sql(text).execute(pool).await.map(drop)?,
                Pool::Sqlite { writer, .. } => {
                    sqlx::raw_sql(text).execute(writer).await.map(drop)?
                }
            }
        }
        Ok(())
    }
}
