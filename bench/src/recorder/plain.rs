//! The same rows in the same tables the plain way: every start, step and outcome reads and commits for
//! itself, over a pool of connections. This is the least that a library without a recorder does.

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// As large as the engines' own pools usually are.
const CONNECTIONS: u32 = 20;

#[derive(Clone)]
pub(crate) struct Plain {
    pool: PgPool,
}

impl Plain {
    /// The tables must exist: the engine ran before.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect(url)
            .await?;
        Ok(Self { pool })
    }

    pub(crate) async fn run(&self, steps: u32) -> anyhow::Result<()> {
        let id = Uuid::new_v4().to_string();
        sqlx::query(
            "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, executor_id, \
             application_version, recovery_attempts) VALUES ($1, 'PENDING', 'plain', 'plain', 'plain', 1)",
        )
        .bind(&id)
        .execute(&self.pool)
        .await?;
        for n in 0..i32::try_from(steps)? {
            self.step(&id, n).await?;
        }
        sqlx::query(
            "UPDATE dbos.workflow_status SET status = 'SUCCESS', output = '45' \
             WHERE workflow_uuid = $1 AND status = 'PENDING'",
        )
        .bind(&id)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Was it recorded before, is the workflow still to run? Then the checkpoint.
    async fn step(&self, id: &str, n: i32) -> anyhow::Result<()> {
        let known: Option<(Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT s.status, o.output FROM dbos.workflow_status s LEFT JOIN dbos.operation_outputs o \
             ON o.workflow_uuid = s.workflow_uuid AND o.function_id = $2 WHERE s.workflow_uuid = $1",
        )
        .bind(id)
        .bind(n)
        .fetch_optional(&self.pool)
        .await?;
        anyhow::ensure!(
            matches!(&known, Some((Some(status), None)) if status == "PENDING"),
            "{known:?}"
        );
        sqlx::query(
            "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, output) \
             VALUES ($1, $2, 'count', $3)",
        )
        .bind(id)
        .bind(n)
        .bind(n.to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
