//! A batch on Postgres: one statement, so one round trip and one commit.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Mutex;

use super::{Item, OutcomeRow, StartRow, StartWritten, StepRow, StepWritten, Work, Written};
use crate::clock;
use crate::system_database::Dialect;

/// The batch's starts as rows. All parts take the same parameters, used or not.
const START: &str = r"
start AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::bigint[], $10::bigint[], $11::bigint[], $12::int[], $13::text[], $14::text[], $15::text[],
                       $16::text[], $17::int[], $18::bigint[]) WITH ORDINALITY
    AS s(id, status, name, inputs, token, queue, version, executor, timeout_ms, deadline_ms, delay_ms, priority,
         dedup, partition, parent, parent_token, parent_position, parent_started, ord))";

const STEP: &str = r"
step AS (
  SELECT * FROM unnest($19::text[], $20::text[], $21::int[], $22::text[], $23::bigint[], $24::bigint[], $25::text[],
                       $26::text[], $27::text[]) WITH ORDINALITY
    AS s(id, token, position, name, started, completed, output, error, child, ord))";

const OUTCOME: &str = r"
outcome AS (
  SELECT * FROM unnest($28::text[], $29::text[], $30::text[], $31::text[], $32::text[]) WITH ORDINALITY
    AS o(id, token, status, output, error, ord))";

/// Locks every workflow that is written on behalf of its owner, in id order so that batches of several
/// processes cannot deadlock, and shows who owns it now.
const OWN: &str = r"
own AS (
  SELECT workflow_uuid, owner_xid FROM @workflow_status
   WHERE workflow_uuid = ANY($15::text[] || $19::text[] || $28::text[])
   ORDER BY workflow_uuid FOR NO KEY UPDATE)";

/// A start that meets an existing row updates nothing in effect but returns that row; one that made a new
/// row also removes what a deleted workflow of the same id may have left behind.
const INSERT: &str = r"
ins AS (
  INSERT INTO @workflow_status AS w
         (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
          serialization, creator_xid, owner_xid, recovery_attempts, workflow_timeout_ms, workflow_deadline_epoch_ms,
          delay_until_epoch_ms, priority, deduplication_id, queue_partition_key, parent_workflow_id)
  SELECT s.id, s.status, s.name, s.queue, $33, s.version, s.executor, '', 'portable_json', s.token,
         CASE WHEN s.status = 'PENDING' THEN s.token END, CASE WHEN s.status = 'PENDING' THEN 1 ELSE 0 END,
         s.timeout_ms, s.deadline_ms, s.delay_ms, s.priority, s.dedup, s.partition, s.parent
    FROM start s
   WHERE s.parent IS NULL
      OR EXISTS (SELECT 1 FROM own WHERE own.workflow_uuid = s.parent AND own.owner_xid = s.parent_token)
   ORDER BY s.id
  ON CONFLICT (workflow_uuid) DO UPDATE SET creator_xid = w.creator_xid
  RETURNING workflow_uuid, name, class_name, config_name, queue_name, creator_xid, (xmax = 0) AS fresh),
stale_steps AS (
  DELETE FROM @operation_outputs o USING ins
   WHERE ins.fresh AND o.workflow_uuid = ins.workflow_uuid AND o.workflow_uuid = ANY($1::text[])),
stale_output AS (
  DELETE FROM @workflow_output o USING ins
   WHERE ins.fresh AND o.workflow_uuid = ins.workflow_uuid AND o.workflow_uuid = ANY($1::text[])),
input AS (
  INSERT INTO @workflow_input (workflow_uuid, inputs)
  SELECT s.id, s.inputs FROM start s JOIN ins ON ins.workflow_uuid = s.id AND ins.fresh
  ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs, retention_timestamp = excluded.retention_timestamp)";

/// Rows whose token is not the owner's are simply not written.
const RECORD_STEPS: &str = r"
  SELECT s.id, s.position, s.name, s.started, s.completed, s.output, s.error, s.child, 'portable_json', $33
    FROM step s JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token";

/// The start of a child is a step of its parent.
const RECORD_CHILDREN: &str = r"
  SELECT s.parent, s.parent_position, s.name, s.parent_started, $34, NULL, NULL, s.id, NULL, $33
    FROM start s JOIN ins ON ins.workflow_uuid = s.id AND ins.name = s.name
                         AND COALESCE(ins.class_name, '') = '' AND COALESCE(ins.config_name, '') = ''
   WHERE s.parent IS NOT NULL";

const FINISH: &str = r"
done AS (
  UPDATE @workflow_status w
     SET status = o.status, deduplication_id = NULL, owner_xid = NULL, updated_at = NOW_MS, completed_at = NOW_MS
    FROM outcome o JOIN own ON own.workflow_uuid = o.id AND own.owner_xid = o.token
   WHERE w.workflow_uuid = o.id AND w.workflow_uuid = ANY($28::text[])
     AND w.status = 'PENDING' AND w.owner_xid = o.token
  RETURNING w.workflow_uuid),
output AS (
  INSERT INTO @workflow_output (workflow_uuid, output, error)
  SELECT o.id, o.output, o.error FROM outcome o JOIN done ON done.workflow_uuid = o.id
  ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error,
                                            retention_timestamp = excluded.retention_timestamp)";

const ANSWER_STARTS: &str = r"
SELECT 0 AS kind, s.ord, ins.workflow_uuid IS NOT NULL AS owned, COALESCE(r.child_workflow_id = s.id, TRUE) AS mine,
       ins.creator_xid IS NOT DISTINCT FROM s.token AS creator, ins.name,
       COALESCE(ins.class_name, '') <> '' OR COALESCE(ins.config_name, '') <> '' AS has_class, ins.queue_name
  FROM start s LEFT JOIN ins ON ins.workflow_uuid = s.id
  LEFT JOIN recorded r ON r.workflow_uuid = s.parent AND r.function_id = s.parent_position";

const ANSWER_STEPS: &str = r"
SELECT 1 AS kind, s.ord, own.owner_xid IS NOT DISTINCT FROM s.token AS owned,
       COALESCE(r.completed_at_epoch_ms = s.completed, FALSE) AS mine, FALSE AS creator, NULL AS name,
       FALSE AS has_class, NULL AS queue_name
  FROM step s LEFT JOIN own ON own.workflow_uuid = s.id
  LEFT JOIN recorded r ON r.workflow_uuid = s.id AND r.function_id = s.position";

const ANSWER_OUTCOMES: &str = r"
SELECT 2 AS kind, o.ord, done.workflow_uuid IS NOT NULL AS owned, TRUE AS mine, FALSE AS creator, NULL AS name,
       FALSE AS has_class, NULL AS queue_name
  FROM outcome o LEFT JOIN done ON done.workflow_uuid = o.id";

/// The statement for a batch with these kinds of items.
///
/// The parts of a statement do not see each other's writes; `batch::take` therefore never lets two items
/// in that write one workflow's row.
fn statement(starts: bool, steps: bool, outcomes: bool) -> String {
    let recorded = match (steps, starts) {
        (true, true) => format!("{RECORD_STEPS} UNION ALL{RECORD_CHILDREN}"),
        (true, false) => RECORD_STEPS.to_owned(),
        (false, _) => RECORD_CHILDREN.to_owned(),
    };
    let recorded = format!(
        "\nrecorded AS (INSERT INTO @operation_outputs AS o (workflow_uuid, function_id, function_name, \
         started_at_epoch_ms, completed_at_epoch_ms, output, error, child_workflow_id, serialization, \
         application_name){recorded}
  ON CONFLICT (workflow_uuid, function_id) DO UPDATE SET completed_at_epoch_ms = o.completed_at_epoch_ms
  RETURNING workflow_uuid, function_id, completed_at_epoch_ms, child_workflow_id)"
    );
    let parts = [
        (starts, START),
        (steps, STEP),
        (outcomes, OUTCOME),
        (true, OWN),
        (starts, INSERT),
        (starts || steps, &recorded),
        (outcomes, FINISH),
    ];
    let answers = [
        (starts, ANSWER_STARTS),
        (steps, ANSWER_STEPS),
        (outcomes, ANSWER_OUTCOMES),
    ];
    let present = |parts: &[(bool, &str)], separator: &str| {
        let present: Vec<_> = parts
            .iter()
            .filter(|(present, _)| *present)
            .map(|(_, part)| *part)
            .collect();
        present.join(separator)
    };
    format!(
        "WITH {}{}",
        present(&parts, ","),
        present(&answers, "\nUNION ALL")
    )
}

pub(super) struct Writer {
    options: PgConnectOptions,
    /// The recorder's own connection, once it is made and until it breaks. Not from the pool, which
    /// checks a connection with a round trip whenever it is given back.
    connection: Mutex<Option<PgConnection>>,
    /// One for each set of kinds that may be in a batch; see [`Sorted::kinds`].
    statements: [Arc<str>; 8],
}

impl Writer {
    /// `pool` tells where to connect; `prefix` is what precedes a table's name.
    pub(super) fn new(pool: &PgPool, prefix: &str) -> Self {
        let now = Dialect::Postgres.now_ms();
        let statements = std::array::from_fn(|kinds| {
            let statement = statement(kinds & 1 != 0, kinds & 2 != 0, kinds & 4 != 0);
            statement.replace('@', prefix).replace("NOW_MS", now).into()
        });
        let options = (*pool.connect_options()).clone();
        Self {
            options,
            connection: Mutex::new(None),
            statements,
        }
    }

    /// A connection on which batch statements are planned once and not for every batch, always by index:
    /// planning costs more than the writing, and statistics of a table that was small a moment ago must
    /// not lead to reading all of it.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let settings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
                        SET idle_in_transaction_session_timeout = '60s'";
        sqlx::raw_sql(settings).execute(&mut connection).await?;
        Ok(connection)
    }

    pub(super) async fn write(
        &self,
        app: &str,
        items: &[Item],
    ) -> Result<Vec<Written>, sqlx::Error> {
        let mut sorted = Sorted::default();
        for (index, item) in items.iter().enumerate() {
            match &item.work {
                Work::Start(row) => sorted.starts.push((index, row)),
                Work::Step(row) => sorted.steps.push((index, row)),
                Work::Outcome(row) => sorted.outcomes.push((index, row)),
            }
        }
        let query = sqlx::query(AssertSqlSafe(self.statements[sorted.kinds()].clone()));
        let query = bind_starts(query, &sorted.starts);
        let query = bind_steps(query, &sorted.steps);
        let query = bind_outcomes(query, &sorted.outcomes)
            .bind(app)
            .bind(clock::now_ms());
        let mut slot = self.connection.lock().await;
        // Taken out while in use: dropped half-way or broken, it is not used again.
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let rows = query.fetch_all(&mut connection).await;
        if !rows.as_ref().is_err_and(super::is_away) {
            *slot = Some(connection);
        }
        sorted.answers(items.len(), &rows?)
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// One column of some rows, as an array parameter.
fn column<'a, R, T>(rows: &[(usize, &'a R)], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|(_, row)| field(row)).collect()
}

fn bind_starts<'q>(query: Query<'q>, rows: &[(usize, &StartRow)]) -> Query<'q> {
    let parent = |row: &StartRow| row.parent.clone();
    query
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.inputs.as_str()))
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.queue.as_deref()))
        .bind(column(rows, |row| row.app_version.as_deref()))
        .bind(column(rows, |row| row.executor_id.as_str()))
        .bind(column(rows, |row| row.timeout_ms))
        .bind(column(rows, |row| row.deadline_ms))
        .bind(column(rows, |row| row.delay_until_ms))
        .bind(column(rows, |row| row.priority))
        .bind(column(rows, |row| row.deduplication_id.as_deref()))
        .bind(column(rows, |row| row.partition_key.as_deref()))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.workflow_id)
        }))
        .bind(column(rows, |row| parent(row).map(|parent| parent.token)))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.position)
        }))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.started_at)
        }))
}

fn bind_steps<'q>(query: Query<'q>, rows: &[(usize, &StepRow)]) -> Query<'q> {
    query
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.position))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.completed_at))
        .bind(column(rows, |row| row.output.as_deref()))
        .bind(column(rows, |row| row.error.as_deref()))
        .bind(column(rows, |row| row.child.as_deref()))
}

fn bind_outcomes<'q>(query: Query<'q>, rows: &[(usize, &OutcomeRow)]) -> Query<'q> {
    query
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.output.as_deref()))
        .bind(column(rows, |row| row.error.as_deref()))
}

/// The items of a batch by kind, each with its place in the batch.
#[derive(Default)]
struct Sorted<'a> {
    starts: Vec<(usize, &'a StartRow)>,
    steps: Vec<(usize, &'a StepRow)>,
    outcomes: Vec<(usize, &'a OutcomeRow)>,
}

impl Sorted<'_> {
    /// Which kinds there are, as a number below 8.
    fn kinds(&self) -> usize {
        let bit = |empty: bool, bit: usize| if empty { 0 } else { bit };
        bit(self.starts.is_empty(), 1)
            | bit(self.steps.is_empty(), 2)
            | bit(self.outcomes.is_empty(), 4)
    }

    /// The answers in the order of the batch.
    fn answers(&self, count: usize, rows: &[PgRow]) -> Result<Vec<Written>, sqlx::Error> {
        let mut answers: Vec<Option<Written>> =
            std::iter::repeat_with(|| None).take(count).collect();
        for row in rows {
            let kind: i32 = row.try_get("kind")?;
            let ordinal: i64 = row.try_get("ord")?;
            let nth = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
            let place = match kind {
                0 => self.starts.get(nth).map(|(index, _)| *index),
                1 => self.steps.get(nth).map(|(index, _)| *index),
                _ => self.outcomes.get(nth).map(|(index, _)| *index),
            };
            if let Some(answer) = place.and_then(|index| answers.get_mut(index)) {
                *answer = Some(answer_of(kind, row)?);
            }
        }
        let answers: Option<Vec<Written>> = answers.into_iter().collect();
        answers.ok_or_else(|| {
            sqlx::Error::Decode("the batch statement left an item unanswered".into())
        })
    }
}

fn answer_of(kind: i32, row: &PgRow) -> Result<Written, sqlx::Error> {
    let owned: bool = row.try_get("owned")?;
    let mine: bool = row.try_get("mine")?;
    Ok(match kind {
        0 if !owned => Written::Start(StartWritten::ParentNotOwner),
        0 => {
            let name: Option<String> = row.try_get("name")?;
            let creator: bool = row.try_get("creator")?;
            let has_class: bool = row.try_get("has_class")?;
            let queue = row.try_get("queue_name")?;
            if mine {
                Written::Start(StartWritten::Row {
                    mine: creator,
                    name: name.unwrap_or_default(),
                    has_class,
                    queue,
                })
            } else {
                Written::Start(StartWritten::ParentTaken)
            }
        }
        1 if !owned => Written::Step(StepWritten::NotOwner),
        1 if !mine => Written::Step(StepWritten::Taken),
        1 => Written::Step(StepWritten::Done),
        _ => Written::Outcome(owned),
    })
}
