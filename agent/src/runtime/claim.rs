//! Taking work from queues: the internal one, where recovered, resumed and forked runs wait, and every
//! queue of the application that has no limits.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::run::StoredInput;
use super::{POLL, Runtime};
use crate::backoff::Backoff;
use crate::clock;
use crate::execution::{Origin, Recorded};
use crate::system_database::{DatabaseError, Dialect, INTERNAL_QUEUE, Row, Scope};

/// Most rows taken by one statement: the rest is left for other executors a moment longer.
const CHUNK: usize = 100;

/// A row this process now owns.
struct Claimed {
    id: String,
    name: String,
    token: String,
    attempts: i64,
    deadline_ms: Option<i64>,
    input: StoredInput,
    /// Queue order.
    order: (i64, i64),
}

/// Takes work until shutdown begins.
pub(super) async fn run(runtime: Arc<Runtime>) {
    loop {
        let pause = POLL.mul_f64(rand::random_range(0.95..=1.05));
        tokio::select! {
            () = runtime.stopping.cancelled() => return,
            () = runtime.queue_changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let mut backoff = Backoff::for_absence();
        while let Err(error) = take_all(&runtime).await {
            if runtime.stopping.is_cancelled() {
                return;
            }
            tracing::warn!(%error, retry_in = ?backoff.next(), "could not look at the queues; looking again");
            backoff.wait().await;
        }
    }
}

/// Takes chunks until there is nothing left or this process is full.
async fn take_all(runtime: &Arc<Runtime>) -> Result<(), DatabaseError> {
    let queues = queues(runtime).await?;
    loop {
        let room = runtime
            .identity
            .capacity
            .saturating_sub(runtime.running().len())
            .min(CHUNK);
        if room == 0 || runtime.stopping.is_cancelled() {
            return Ok(());
        }
        let claimed = claim(runtime, &queues, room).await?;
        let full = claimed.len() == room;
        dispatch(runtime, claimed).await?;
        if !full {
            return Ok(());
        }
    }
}

/// The internal queue, and the application's queues without limits.
async fn queues(runtime: &Runtime) -> Result<Vec<String>, DatabaseError> {
    let rows = runtime
        .db
        .system
        .list_queues(&Scope::of(runtime.app_name()))
        .await?;
    let unlimited = rows.into_iter().filter(|queue| {
        queue.concurrency.is_none()
            && queue.worker_concurrency.is_none()
            && queue.rate_limit_max.is_none()
            && !queue.partition_queue
    });
    Ok(std::iter::once(INTERNAL_QUEUE.to_owned())
        .chain(unlimited.map(|queue| queue.name))
        .collect())
}

/// Takes up to `room` rows, in one statement: of this version (or of none, while this version is the
/// latest), of this application (or of none), and only workflows that are registered here.
async fn claim(
    runtime: &Runtime,
    queues: &[String],
    room: usize,
) -> Result<Vec<Claimed>, DatabaseError> {
    let db = &runtime.db.system;
    let names: Vec<String> = runtime
        .registry
        .iter()
        .map(|workflow| workflow.name.clone())
        .collect();
    let scope = Scope::of(runtime.app_name());
    let candidates = |statement: crate::system_database::Statement| {
        statement
            .push("SELECT workflow_uuid FROM @workflow_status WHERE status = 'ENQUEUED' AND ")
            .any_of("queue_name", queues)
            .push(" AND (application_version = ")
            .bind(runtime.app_version())
            .push(" OR (application_version IS NULL AND COALESCE((SELECT version_name FROM @application_versions WHERE TRUE")
            .and_scope("application_name", &scope)
            .push(" ORDER BY version_timestamp DESC LIMIT 1), ")
            .bind(runtime.app_version())
            .push(") = ")
            .bind(runtime.app_version())
            .push("))")
            .and_scope("application_name", &scope)
            .push(" AND ")
            .any_of("name", &names)
            .push(" AND COALESCE(class_name, '') = '' ORDER BY priority, created_at LIMIT ")
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
    };
    // A look costs a reader nothing; taking costs SQLite its one write lock.
    if db.dialect() == Dialect::Sqlite && db.read(candidates(db.sql(""))).await?.is_empty() {
        return Ok(Vec::new());
    }
    let token = Uuid::new_v4().to_string();
    let statement = candidates(db.sql("WITH candidate AS ("))
        .push_for(Dialect::Postgres, " FOR UPDATE SKIP LOCKED")
        .push(") UPDATE @workflow_status SET status = 'PENDING', owner_xid = ")
        .bind(&token)
        .push(", application_version = ")
        .bind(runtime.app_version())
        .push(", application_name = ")
        .bind(runtime.app_name())
        .push(", executor_id = ")
        .bind(runtime.executor_id())
        .push(
            ", started_at_epoch_ms = NOW_MS, updated_at = NOW_MS, rate_limited = FALSE, \
             recovery_attempts = COALESCE(recovery_attempts, 0) + 1, workflow_deadline_epoch_ms = \
             COALESCE(workflow_deadline_epoch_ms, workflow_timeout_ms + ",
        )
        .bind(clock::now_ms())
        .push(
            ") WHERE status = 'ENQUEUED' AND workflow_uuid IN (SELECT workflow_uuid FROM candidate) \
             RETURNING workflow_uuid, name, recovery_attempts, workflow_deadline_epoch_ms, serialization, \
             priority, created_at, inputs",
        );
    let rows = db.write_returning(statement).await?;
    let mut claimed = rows
        .iter()
        .map(|row| Claimed::read(row, &token))
        .collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|row| row.order);
    Ok(claimed)
}

impl Claimed {
    fn read(row: &Row, token: &str) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: row.required("workflow_uuid")?,
            name: row.required("name")?,
            token: token.to_owned(),
            attempts: row.int("recovery_attempts")?.unwrap_or(0),
            deadline_ms: row.int("workflow_deadline_epoch_ms")?,
            input: StoredInput {
                text: row.text("inputs")?,
                serialization: row.filled("serialization")?,
            },
            order: (
                row.int("priority")?.unwrap_or(0),
                row.int("created_at")?.unwrap_or(0),
            ),
        })
    }
}

/// Loads what the claimed runs have on record, in one query each for inputs and steps, and begins them.
/// After the claim has committed nobody else can add to that, so it is read once.
async fn dispatch(runtime: &Arc<Runtime>, claimed: Vec<Claimed>) -> Result<(), DatabaseError> {
    let limit = runtime
        .identity
        .max_recovery_attempts
        .map(|limit| i64::from(limit) + 1);
    let (parked, claimed): (Vec<_>, Vec<_>) = claimed
        .into_iter()
        .partition(|row| limit.is_some_and(|limit| row.attempts > limit));
    for row in parked {
        park(runtime, &row).await?;
    }
    if claimed.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = claimed.iter().map(|row| row.id.clone()).collect();
    let mut records = load_until_read(runtime, &ids).await;
    for mut row in claimed {
        let (input, history) = records.remove(&row.id).unwrap_or_default();
        if input.is_some() {
            row.input.text = input;
        }
        let Claimed {
            id,
            name,
            token,
            deadline_ms,
            input,
            ..
        } = row;
        runtime.begin(
            Origin {
                id,
                name,
                token,
                deadline_ms,
                history,
            },
            input,
        );
    }
    Ok(())
}

type Record = (Option<String>, HashMap<i32, Recorded>);

/// The rows are ours already: giving up would strand them, so this waits for the database to come back.
async fn load_until_read(runtime: &Runtime, ids: &[String]) -> HashMap<String, Record> {
    let mut backoff = Backoff::for_absence();
    loop {
        match load(runtime, ids).await {
            Ok(records) => return records,
            Err(error) => {
                tracing::warn!(%error, "could not load the history of claimed workflows; trying again");
                backoff.wait().await;
            }
        }
    }
}

async fn load(runtime: &Runtime, ids: &[String]) -> Result<HashMap<String, Record>, DatabaseError> {
    let db = &runtime.db.system;
    let mut records: HashMap<String, Record> = HashMap::new();
    let inputs = db
        .sql("SELECT workflow_uuid, inputs FROM @workflow_input WHERE ")
        .any_of("workflow_uuid", ids);
    for row in db.read(inputs).await? {
        records.entry(row.required("workflow_uuid")?).or_default().0 = row.text("inputs")?;
    }
    let steps = db
        .sql("SELECT workflow_uuid, function_id, function_name, output, error, child_workflow_id FROM @operation_outputs WHERE ")
        .any_of("workflow_uuid", ids);
    for row in db.read(steps).await? {
        let recorded = Recorded {
            name: row.required("function_name")?,
            output: row.text("output")?,
            error: row.text("error")?,
            child: row.filled("child_workflow_id")?,
        };
        let position = row
            .int("function_id")?
            .and_then(|position| i32::try_from(position).ok())
            .unwrap_or(-1);
        records
            .entry(row.required("workflow_uuid")?)
            .or_default()
            .1
            .insert(position, recorded);
    }
    Ok(records)
}

/// Sets a run aside that was dispatched too often.
async fn park(runtime: &Runtime, row: &Claimed) -> Result<(), DatabaseError> {
    let db = &runtime.db.system;
    tracing::error!(
        workflow_id = row.id,
        workflow = row.name,
        attempts = row.attempts,
        "a workflow was recovered too often and is set aside; resume it when its cause is dealt with"
    );
    let statement = db
        .sql(
            "UPDATE @workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', owner_xid = NULL, \
             deduplication_id = NULL, started_at_epoch_ms = NULL, queue_name = NULL, updated_at = NOW_MS, \
             completed_at = NOW_MS WHERE status = 'PENDING' AND workflow_uuid = ",
        )
        .bind(&row.id)
        .push(" AND owner_xid = ")
        .bind(&row.token);
    db.write(statement).await?;
    runtime.completions.look();
    Ok(())
}
