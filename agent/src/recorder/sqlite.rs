//! A batch on SQLite: one transaction on the process's one writing connection. Statements do not leave
//! the process there, so one per row costs little; the commit is what is shared.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::effects::Effects;
use super::{
    Item, OutcomeRow, ParentRow, StartRow, StartWritten, StepRow, StepWritten, Work, Written,
};
use crate::clock::Clock;
use crate::system_database::SystemDatabase;

/// Whether a token owns a workflow.
pub(super) const OWNS: &str =
    "SELECT 1 FROM workflow_status WHERE workflow_uuid = $1 AND owner_xid = $2";

const START: &str = "INSERT INTO workflow_status
    (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
     serialization, creator_xid, owner_xid, recovery_attempts, workflow_timeout_ms, workflow_deadline_epoch_ms,
     delay_until_epoch_ms, priority, deduplication_id, queue_partition_key, parent_workflow_id, attributes,
     authenticated_user, assumed_role, authenticated_roles, schedule_name, is_debounced, debounce_deadline_epoch_ms)
    VALUES ($1, $2, $3, $4, $5, $6, NULLIF($7, ''), '', 'portable_json', $8, CASE WHEN $2 = 'PENDING' THEN $8 END,
            CASE WHEN $2 = 'PENDING' THEN 1 ELSE 0 END, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
            $21, $22)
    ON CONFLICT (workflow_uuid) DO NOTHING";

const EXISTING: &str = "SELECT name, class_name, config_name, queue_name, creator_xid FROM workflow_status WHERE workflow_uuid = $1";

const INPUT: &str = "INSERT INTO workflow_input (workflow_uuid, inputs) VALUES ($1, $2)
    ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs, retention_timestamp = excluded.retention_timestamp";

const CHILD: &str = "INSERT INTO operation_outputs
    (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, child_workflow_id,
     application_name)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (workflow_uuid, function_id) DO UPDATE SET completed_at_epoch_ms = completed_at_epoch_ms
    RETURNING child_workflow_id";

/// Inserts only if the token owns the workflow; returns nothing if not, else the completion time on record.
const STEP: &str = "INSERT INTO operation_outputs
    (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, output, error,
     child_workflow_id, serialization, application_name)
    SELECT $1, $3, $4, $5, $6, $7, $8, $9, $10, $11
      FROM workflow_status WHERE workflow_uuid = $1 AND owner_xid = $2
    ON CONFLICT (workflow_uuid, function_id) DO UPDATE SET completed_at_epoch_ms = completed_at_epoch_ms
    RETURNING completed_at_epoch_ms";

const OUTCOME: &str = "UPDATE workflow_status
    SET status = $3, deduplication_id = NULL, owner_xid = NULL, updated_at = NOW_MS, completed_at = NOW_MS
    WHERE workflow_uuid = $1 AND status = 'PENDING' AND owner_xid = $2";

const OUTPUT: &str =
    "INSERT INTO workflow_output (workflow_uuid, output, error) VALUES ($1, $2, $3)
    ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error,
                                              retention_timestamp = excluded.retention_timestamp";

pub(super) struct Writer {
    pool: SqlitePool,
    clock: Clock,
    outcome: std::sync::Arc<str>,
}

impl Writer {
    /// `pool` holds the one connection that writes.
    pub(super) fn new(pool: SqlitePool, db: &SystemDatabase) -> Self {
        let outcome = OUTCOME.replace("NOW_MS", db.now_sql()).replace('@', "");
        Self {
            pool,
            clock: db.clock().clone(),
            outcome: outcome.into(),
        }
    }

    pub(super) async fn write(
        &self,
        app: &str,
        items: &[Item],
    ) -> Result<Vec<Written>, sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut written = Vec::with_capacity(items.len());
        for item in items {
            written.push(match &item.work {
                Work::Start(row) => {
                    Written::Start(start(&mut transaction, app, row, self.clock.now_ms()).await?)
                }
                Work::Step(row) => Written::Step(step(&mut transaction, app, row).await?),
                Work::Outcome(row) => Written::Outcome(self.outcome(&mut transaction, row).await?),
                Work::Effect(row) => {
                    Written::Effect(Effects(&mut transaction, app).of_step(row).await?)
                }
                Work::Send(messages) => {
                    Written::Effect(Effects(&mut transaction, app).send(messages).await?)
                }
            });
        }
        transaction.commit().await?;
        Ok(written)
    }

    async fn outcome(
        &self,
        connection: &mut SqliteConnection,
        row: &OutcomeRow,
    ) -> Result<bool, sqlx::Error> {
        let changed = sqlx::query(sqlx::AssertSqlSafe(self.outcome.clone()))
            .bind(&row.workflow_id)
            .bind(&row.token)
            .bind(row.status.as_str())
            .execute(&mut *connection)
            .await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let output = sqlx::query(OUTPUT)
            .bind(&row.workflow_id)
            .bind(&row.output)
            .bind(&row.error);
        output.execute(connection).await?;
        Ok(true)
    }
}

async fn start(
    connection: &mut SqliteConnection,
    app: &str,
    row: &StartRow,
    now: i64,
) -> Result<StartWritten, sqlx::Error> {
    if let Some(parent) = &row.parent {
        let owner = sqlx::query(OWNS)
            .bind(&parent.workflow_id)
            .bind(&parent.token);
        if owner.fetch_optional(&mut *connection).await?.is_none() {
            return Ok(StartWritten::ParentNotOwner);
        }
    }
    let inserted = sqlx::query(START)
        .bind(&row.workflow_id)
        .bind(row.status.as_str())
        .bind(&row.name)
        .bind(&row.queue)
        .bind(
            row.application
                .as_deref()
                .or((!app.is_empty()).then_some(app)),
        )
        .bind(&row.app_version)
        .bind(&row.executor_id)
        .bind(&row.token)
        .bind(row.timeout_ms)
        .bind(row.deadline_ms)
        .bind(row.delay_until_ms)
        .bind(row.priority)
        .bind(&row.deduplication_id)
        .bind(&row.partition_key)
        .bind(row.parent.as_ref().map(|parent| &parent.workflow_id))
        .bind(&row.attributes)
        .bind(&row.caller.user)
        .bind(&row.caller.assumed_role)
        .bind(&row.caller.roles)
        .bind(&row.schedule)
        .bind(row.debounce.is_some())
        .bind(row.debounce.flatten())
        .execute(&mut *connection)
        .await?
        .rows_affected()
        == 1;
    let found = if inserted {
        // What a deleted workflow of this id may have left behind.
        for table in [
            "DELETE FROM operation_outputs WHERE workflow_uuid = $1",
            "DELETE FROM workflow_output WHERE workflow_uuid = $1",
        ] {
            sqlx::query(table)
                .bind(&row.workflow_id)
                .execute(&mut *connection)
                .await?;
        }
        sqlx::query(INPUT)
            .bind(&row.workflow_id)
            .bind(&row.inputs)
            .execute(&mut *connection)
            .await?;
        StartWritten::Row {
            mine: true,
            name: row.name.clone(),
            has_class: false,
            queue: row.queue.clone(),
        }
    } else {
        existing(connection, row).await?
    };
    match (&row.parent, &found) {
        (
            Some(parent),
            StartWritten::Row {
                name,
                has_class: false,
                mine,
                ..
            },
        ) if *name == row.name && (*mine || !row.reject) => {
            let recorded = child(connection, app, row, parent, now).await?;
            Ok(if recorded {
                found
            } else {
                StartWritten::ParentTaken
            })
        }
        _ => Ok(found),
    }
}

/// The row that was there before this start.
async fn existing(
    connection: &mut SqliteConnection,
    row: &StartRow,
) -> Result<StartWritten, sqlx::Error> {
    let found = sqlx::query(EXISTING)
        .bind(&row.workflow_id)
        .fetch_one(connection)
        .await?;
    let text = |column| {
        found
            .try_get::<Option<String>, _>(column)
            .map(Option::unwrap_or_default)
    };
    Ok(StartWritten::Row {
        mine: text("creator_xid")? == row.token,
        name: text("name")?,
        has_class: !text("class_name")?.is_empty() || !text("config_name")?.is_empty(),
        queue: found.try_get("queue_name")?,
    })
}

/// Records the start as the parent's step; false if another step is on record there.
async fn child(
    connection: &mut SqliteConnection,
    app: &str,
    row: &StartRow,
    parent: &ParentRow,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let recorded = sqlx::query(CHILD)
        .bind(&parent.workflow_id)
        .bind(parent.position)
        .bind(&row.name)
        .bind(parent.started_at)
        .bind(now)
        .bind(&row.workflow_id)
        .bind(app)
        .fetch_one(connection)
        .await?;
    let child: Option<String> = recorded.try_get(0)?;
    Ok(child.as_deref() == Some(&row.workflow_id))
}

pub(super) async fn step(
    connection: &mut SqliteConnection,
    app: &str,
    row: &StepRow,
) -> Result<StepWritten, sqlx::Error> {
    let recorded = sqlx::query(STEP)
        .bind(&row.workflow_id)
        .bind(&row.token)
        .bind(row.position)
        .bind(&row.name)
        .bind(row.started_at)
        .bind(row.completed_at)
        .bind(&row.output)
        .bind(&row.error)
        .bind(&row.child)
        .bind(&*row.format)
        .bind(app)
        .fetch_optional(connection)
        .await?;
    let Some(recorded) = recorded else {
        return Ok(StepWritten::NotOwner);
    };
    let completed_at: i64 = recorded.try_get(0)?;
    Ok(if completed_at == row.completed_at {
        StepWritten::Done
    } else {
        StepWritten::Taken
    })
}
