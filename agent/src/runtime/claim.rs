//! Taking work from queues: one statement for all queues without limits, among them the internal one,
//! where recovered, resumed and forked runs wait; one transaction for each queue with limits, see
//! `limits`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{self, Limits};
use super::run::StoredInput;
use super::{POLL, Runtime};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::execution::{Origin, Recorded};
use crate::metrics::Counters;
use crate::recorder::Caller;
use crate::system_database::{
    DatabaseError, Dialect, INTERNAL_QUEUE, QueueRow, Row, Scope, Statement,
};
use crate::transaction::from_database;

/// Most rows taken by one statement: the rest is left for other executors a moment longer.
const CHUNK: usize = 200;

/// Runs that a process has taken at most, those included that only wait and do not count otherwise: keeps its
/// memory in bounds.
const RESIDENT: usize = 200_000;

/// The queues are not looked at more often than this, however many runs are enqueued and end: what came
/// meanwhile is taken together.
const PACE: Duration = Duration::from_millis(4);

/// A row this process now owns.
pub(super) struct Claimed {
    origin: Origin,
    attempts: i64,
    input: StoredInput,
    /// Queue order.
    order: (i64, i64),
}

/// Takes work until shutdown begins.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let mut next_look = Instant::now();
    loop {
        let pause = POLL.mul_f64(rand::random_range(0.95..=1.05));
        tokio::select! {
            () = runtime.stopping.cancelled() => return,
            () = runtime.queue_changed.notified() => tokio::time::sleep_until(next_look).await,
            () = runtime.waiting().more() => tokio::time::sleep_until(next_look).await,
            () = runtime.clock().moved() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let _round = runtime.rounds.claims.begin();
        next_look = Instant::now() + PACE;
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
    let (limited, unlimited): (Vec<_>, Vec<_>) = queues(runtime)
        .await?
        .into_iter()
        .partition(|(_, limits)| limits.any());
    let unlimited: Vec<String> = std::iter::once(INTERNAL_QUEUE.to_owned())
        .chain(unlimited.into_iter().map(|(queue, _)| queue))
        .collect();
    loop {
        let room = room(runtime);
        if room == 0 {
            break;
        }
        let claimed = claim(runtime, &unlimited, room).await?;
        let full = claimed.len() == room;
        dispatch(runtime, claimed).await?;
        if !full {
            break;
        }
    }
    limits::take(runtime, &limited).await
}

/// How many more runs this process may take now.
pub(super) fn room(runtime: &Runtime) -> usize {
    let (capacity, waiting) = (runtime.identity.capacity, runtime.waiting());
    if runtime.stopping.is_cancelled() || capacity == 0 {
        return 0;
    }
    let free = || {
        let running = runtime.running().len();
        let busy = running.saturating_sub(waiting.count());
        let free = capacity.saturating_sub(busy);
        free.min(RESIDENT.saturating_sub(running))
    };
    if free() == 0 {
        // Before the last look: whoever begins to wait after it tells.
        waiting.want_more();
    }
    free().min(CHUNK)
}

/// The application's queues that this process listens to, with their limits.
async fn queues(runtime: &Runtime) -> Result<Vec<(String, Limits)>, DatabaseError> {
    let rows = runtime
        .db
        .system
        .list_queues(&Scope::of(runtime.app_name()))
        .await?;
    let heard = |queue: &QueueRow| {
        let listened = runtime.identity.listen_queues.as_ref();
        listened.is_none_or(|queues| queues.contains(&queue.name))
    };
    Ok(rows
        .into_iter()
        .filter(heard)
        .map(|queue| (queue.name.clone(), Limits::of(&queue)))
        .collect())
}

/// Which rows of queues this process may take: of this version (or of none, while this version is the
/// latest), of this application (or of none), and only workflows that are registered here. Each is locked
/// as `lock` says.
///
/// On Postgres every queue is read along its index in the order in which it is worked on, so that a long
/// queue costs no more than a short one.
pub(super) fn candidates(
    runtime: &Runtime,
    statement: Statement,
    queues: &[String],
    partition: Option<&str>,
    room: usize,
    lock: &str,
) -> Statement {
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    if statement.dialect() == Dialect::Sqlite || queues.len() == 1 {
        return of_queues(runtime, statement, queues, partition, limit).push(lock);
    }
    let queues = queues.to_vec();
    let statement = statement
        .push("SELECT c.workflow_uuid FROM unnest(CAST(")
        .bind_list(&queues)
        .push(" AS text[])) AS q(name) CROSS JOIN LATERAL (");
    of_queues(runtime, statement, &[], partition, limit)
        .push(lock)
        .push(") c ORDER BY c.priority, c.created_at LIMIT ")
        .bind(limit)
}

/// The candidates of these queues; without any, of the one that is `q` in the statement around this.
fn of_queues(
    runtime: &Runtime,
    statement: Statement,
    queues: &[String],
    partition: Option<&str>,
    limit: i64,
) -> Statement {
    let names: Vec<String> = runtime
        .registry
        .iter()
        .map(|workflow| workflow.name.clone())
        .collect();
    let scope = Scope::of(runtime.app_name());
    let columns = if queues.is_empty() {
        "workflow_uuid, priority, created_at"
    } else {
        "workflow_uuid"
    };
    let statement = statement
        .push("SELECT ")
        .push(columns)
        .push(" FROM @workflow_status WHERE status = 'ENQUEUED' AND ");
    let mut statement = match queues {
        [] => statement.push("queue_name = q.name"),
        [queue] => statement.push("queue_name = ").bind(queue),
        _ => statement.any_of("queue_name", queues),
    };
    if let Some(partition) = partition {
        statement = statement
            .push(" AND queue_partition_key = ")
            .bind(partition);
    }
    statement
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
        .bind(limit)
}

/// How candidates are locked: SQLite has one writer at a time.
pub(super) fn lock(dialect: Dialect, lock: &'static str) -> &'static str {
    match dialect {
        Dialect::Postgres => lock,
        Dialect::Sqlite => "",
    }
}

/// Makes the candidates this process's own.
pub(super) fn take_candidates(
    runtime: &Runtime,
    candidates: Statement,
    token: &str,
    rate_limited: bool,
) -> Statement {
    candidates
        .push(") UPDATE @workflow_status SET status = 'PENDING', owner_xid = ")
        .bind(token)
        .push(", application_version = ")
        .bind(runtime.app_version())
        .push(", application_name = ")
        .bind(runtime.app_name())
        .push(", executor_id = ")
        .bind(runtime.executor_id())
        .push(", started_at_epoch_ms = NOW_MS, updated_at = NOW_MS, rate_limited = ")
        .bind(rate_limited)
        .push(
            ", recovery_attempts = COALESCE(recovery_attempts, 0) + 1, workflow_deadline_epoch_ms = \
             COALESCE(workflow_deadline_epoch_ms, workflow_timeout_ms + ",
        )
        .bind(runtime.clock().now_ms())
        .push(
            ") WHERE status = 'ENQUEUED' AND workflow_uuid IN (SELECT workflow_uuid FROM candidate) \
             RETURNING workflow_uuid, name, recovery_attempts, workflow_deadline_epoch_ms, serialization, \
             priority, created_at, inputs, queue_name, queue_partition_key, authenticated_user, assumed_role, \
             authenticated_roles, CAST(attributes AS TEXT) AS attributes",
        )
}

/// The rows that a statement of [`take_candidates`] returned, in queue order.
pub(super) fn read_claimed(rows: &[Row], token: &str) -> Result<Vec<Claimed>, DatabaseError> {
    let mut claimed = rows
        .iter()
        .map(|row| Claimed::read(row, token))
        .collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|row| row.order);
    Ok(claimed)
}

/// Takes up to `room` rows of queues without limits, in one statement.
async fn claim(
    runtime: &Runtime,
    queues: &[String],
    room: usize,
) -> Result<Vec<Claimed>, DatabaseError> {
    let db = &runtime.db.system;
    let look = candidates(runtime, db.sql(""), queues, None, room, "");
    // A look costs a reader nothing; taking costs SQLite its one write lock.
    if db.dialect() == Dialect::Sqlite && db.read(look).await?.is_empty() {
        return Ok(Vec::new());
    }
    let token = runtime.new_token();
    let with = db.sql("WITH candidate AS (");
    let lock = lock(db.dialect(), " FOR UPDATE SKIP LOCKED");
    let candidates = candidates(runtime, with, queues, None, room, lock);
    let take = take_candidates(runtime, candidates, &token, false);
    read_claimed(&db.write_returning(take).await?, &token)
}

impl Claimed {
    fn read(row: &Row, token: &str) -> Result<Self, DatabaseError> {
        let origin = Origin {
            id: row.required("workflow_uuid")?,
            name: row.required("name")?,
            token: token.to_owned(),
            deadline_ms: row.int("workflow_deadline_epoch_ms")?,
            history: HashMap::new(),
            queue: row.filled("queue_name")?,
            partition: row.text("queue_partition_key")?,
            attributes: row.filled("attributes")?,
            caller: Caller {
                user: row.filled("authenticated_user")?,
                assumed_role: row.filled("assumed_role")?,
                roles: row.filled("authenticated_roles")?,
            },
        };
        Ok(Self {
            origin,
            attempts: row.int("recovery_attempts")?.unwrap_or(0),
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
pub(super) async fn dispatch(
    runtime: &Arc<Runtime>,
    claimed: Vec<Claimed>,
) -> Result<(), DatabaseError> {
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
    let ids: Vec<String> = claimed.iter().map(|row| row.origin.id.clone()).collect();
    let mut records = load_until_read(runtime, &ids).await;
    for mut row in claimed {
        let (input, history) = records.remove(&row.origin.id).unwrap_or_default();
        if input.is_some() {
            row.input.text = input;
        }
        row.origin.history = history;
        Counters::count(&runtime.counters.dequeued);
        runtime.begin(row.origin, row.input);
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
        .sql("SELECT workflow_uuid, inputs FROM ")
        .push(db.inputs_table())
        .push(" WHERE ")
        .any_of("workflow_uuid", ids);
    let steps = db
        .sql("SELECT workflow_uuid, function_id, function_name, output, error, child_workflow_id FROM @operation_outputs WHERE ")
        .any_of("workflow_uuid", ids);
    let (inputs, steps) = tokio::try_join!(db.read(inputs), db.read(steps))?;
    for row in inputs {
        records.entry(row.required("workflow_uuid")?).or_default().0 = row.text("inputs")?;
    }
    for row in steps {
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

impl Runtime {
    /// What a run would begin from, as its rows have it.
    pub(crate) async fn stored(&self, id: &str) -> Result<(Origin, StoredInput), Error> {
        let row = self
            .db
            .system
            .sql(
                "SELECT workflow_uuid, name, recovery_attempts, workflow_deadline_epoch_ms, serialization, priority, \
                 created_at, inputs, queue_name, queue_partition_key, authenticated_user, assumed_role, \
                 authenticated_roles, CAST(attributes AS TEXT) AS attributes FROM @workflow_status WHERE workflow_uuid = ",
            )
            .bind(id);
        let read = async {
            let rows = self.db.system.read(row).await?;
            let claimed = rows.first().map(|row| Claimed::read(row, "")).transpose()?;
            let records = load(self, std::slice::from_ref(&id.to_owned())).await?;
            Ok((claimed, records))
        };
        let (claimed, mut records) = read.await.map_err(from_database)?;
        let mut claimed = claimed.ok_or_else(|| Error::not_found("workflow", id))?;
        let (input, history) = records.remove(id).unwrap_or_default();
        claimed.origin.history = history;
        claimed.input.text = input.or(claimed.input.text);
        Ok((claimed.origin, claimed.input))
    }
}

/// Sets a run aside that was dispatched too often.
async fn park(runtime: &Runtime, row: &Claimed) -> Result<(), DatabaseError> {
    let db = &runtime.db.system;
    tracing::error!(
        workflow_id = row.origin.id,
        workflow = row.origin.name,
        attempts = row.attempts,
        "a workflow was recovered too often and is set aside; resume it when its cause is dealt with"
    );
    let statement = db
        .sql(
            "UPDATE @workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', owner_xid = NULL, \
             deduplication_id = NULL, started_at_epoch_ms = NULL, queue_name = NULL, updated_at = NOW_MS, \
             completed_at = NOW_MS WHERE status = 'PENDING' AND workflow_uuid = ",
        )
        .bind(&row.origin.id)
        .push(" AND owner_xid = ")
        .bind(&row.origin.token);
    db.write(statement).await?;
    runtime.completions.look();
    Ok(())
}
