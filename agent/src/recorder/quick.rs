//! The quick statement: what almost every batch is, fresh starts, steps and outcomes that nothing is in the
//! way of, at the least cost. It inserts without looking first and answers with counts.
//!
//! If a row is in the way the database refuses all of it ([`Surprise::Conflict`]); if an owner has changed
//! fewer rows are written than there are items. Either way the careful statement (see `statement`) then
//! finds out for each item what there is; it knows rows that this one wrote as its own.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Item, OutcomeRow, StartRow, StepRow, Work};
use crate::workflow::PORTABLE;

/// Sets of these bits tell statements apart.
const STARTS: usize = 1;
const DETAILS: usize = 2;
const PURGE: usize = 4;
const CHILDREN: usize = 8;
const STEPS: usize = 16;
const OUTCOMES: usize = 32;
const STEP_DETAILS: usize = 64;

/// In these texts `?` is the next parameter, `@` what precedes the name of a table, and `{+…}` a further column
/// where payloads are written for older SDKs, too (see [`fit`](super::statement::fit)).
const START: &str = r"
start AS (
  SELECT * FROM unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[])
    AS s(id, status, name, inputs, token, queue, version, executor))";

/// With what only some starts have.
const DETAILED_START: &str = r"
start AS (
  SELECT * FROM unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[],
                       ?::bigint[], ?::bigint[], ?::bigint[], ?::int[], ?::text[], ?::text[],
                       ?::text[], ?::int[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::text[],
                       ?::text[], ?::text[], ?::bool[], ?::bigint[])
    AS s(id, status, name, inputs, token, queue, version, executor, timeout_ms, deadline_ms, delay_ms, priority,
         partition, parent, parent_token, parent_position, parent_started, attributes, caller, role, roles,
         application, schedule, debounced, debounce_deadline))";

/// Locks the workflows that steps are written for, in the order in which every writer of several locks them.
const OWN: &str = r"
own AS (
  SELECT workflow_uuid, owner_xid FROM @workflow_status
   WHERE workflow_uuid = ANY(?::text[]) ORDER BY workflow_uuid FOR NO KEY UPDATE)";

const INSERT: &str = r"
ins AS (
  INSERT INTO @workflow_status
         (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
          serialization, creator_xid, owner_xid, recovery_attempts, created_at, updated_at{+inputs})
  SELECT s.id, s.status, s.name, s.queue, NULLIF(?::text, ''), s.version, NULLIF(s.executor, ''), '', 'portable_json',
         s.token, CASE WHEN s.status = 'PENDING' THEN s.token END, CASE WHEN s.status = 'PENDING' THEN 1 ELSE 0 END,
         (SELECT NOW_MS), (SELECT NOW_MS){+s.inputs}
    FROM start s
  RETURNING workflow_uuid)";

const INSERT_DETAILED: &str = r"
ins AS (
  INSERT INTO @workflow_status
         (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
          serialization, creator_xid, owner_xid, recovery_attempts, created_at, updated_at, workflow_timeout_ms,
          workflow_deadline_epoch_ms, delay_until_epoch_ms, priority, queue_partition_key, parent_workflow_id,
          attributes, authenticated_user, assumed_role, authenticated_roles, schedule_name, is_debounced,
          debounce_deadline_epoch_ms{+inputs})
  SELECT s.id, s.status, s.name, s.queue, COALESCE(s.application, NULLIF(?::text, '')), s.version,
         NULLIF(s.executor, ''), '', 'portable_json', s.token, CASE WHEN s.status = 'PENDING' THEN s.token END,
         CASE WHEN s.status = 'PENDING' THEN 1 ELSE 0 END, (SELECT NOW_MS), (SELECT NOW_MS), s.timeout_ms,
         s.deadline_ms, s.delay_ms, s.priority, s.partition, s.parent, s.attributes::jsonb, s.caller, s.role, s.roles,
         s.schedule, s.debounced, s.debounce_deadline{+s.inputs}
    FROM start s WHERE_PARENT
  RETURNING workflow_uuid)";

const PARENT_OWNED: &str = "WHERE s.parent IS NULL \
    OR EXISTS (SELECT 1 FROM own WHERE own.workflow_uuid = s.parent AND own.owner_xid = s.parent_token)";

const INPUT: &str = r"
input AS (
  INSERT INTO @workflow_input (workflow_uuid, inputs, retention_timestamp)
  SELECT s.id, s.inputs, (SELECT NOW_MS) FROM start s INSERTED)";

/// Where fewer may be inserted than there are starts.
const INSERTED: &str = "JOIN ins ON ins.workflow_uuid = s.id";

/// What a deleted workflow of the same id may have left behind. Ids made for a start are nobody else's.
const PURGE_STALE: &str = r"
stale_steps AS (DELETE FROM @operation_outputs WHERE workflow_uuid = ANY(?::text[])),
stale_output AS (DELETE FROM @workflow_output WHERE workflow_uuid = ANY(?::text[]))";

/// The start of a child is a step of its parent.
const RECORD_CHILDREN: &str = r"
child AS (
  INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms,
         completed_at_epoch_ms, child_workflow_id, application_name, retention_timestamp)
  SELECT s.parent, s.parent_position, s.name, s.parent_started, ?::bigint, s.id, ?::text, (SELECT NOW_MS)
    FROM start s JOIN ins ON ins.workflow_uuid = s.id WHERE s.parent IS NOT NULL)";

const RECORD: &str = r"
recorded AS (
  INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms,
         completed_at_epoch_ms, output, error, child_workflow_id, serialization, application_name, retention_timestamp)
  SELECT s.id, s.position, s.name, s.started, s.completed, s.output, STEP_VALUES, ?::text, (SELECT NOW_MS)
    FROM (SELECT * FROM unnest(?::text[], ?::text[], ?::int[], ?::text[], ?::bigint[], ?::bigint[], ?::text[]STEP_ARRAYS)
                     AS u(id, token, position, name, started, completed, outputSTEP_COLUMNS)
           ORDER BY id) s
    JOIN_OWNED
  RETURNING 1)";

/// What only some steps have, as `STEP_VALUES`, `STEP_ARRAYS` and `STEP_COLUMNS`.
const STEP_DETAIL: [&str; 3] = [
    "s.error, s.child, s.format",
    ", ?::text[], ?::text[], ?::text[]",
    ", error, child, format",
];
const NO_STEP_DETAIL: [&str; 3] = ["NULL, NULL, 'portable_json'", "", ""];

/// In the order in which every writer of several workflows locks them: that of the database's collation. That it is
/// locked keeps the planner from anything but looking for each by its key.
const LOCK_EACH: &str = r"CROSS JOIN LATERAL (
      SELECT FROM @workflow_status w WHERE w.workflow_uuid = s.id AND w.owner_xid = s.token FOR NO KEY UPDATE) owned";

/// Beside children, whose parents are locked in the same order.
const LOCKED: &str = "JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token";

/// The ids are compared as expressions so that the index is used with the list of them, once. So is the state: an index
/// of what is pending holds, until it is swept, what was, and for a table of which it knows nothing yet the
/// planner takes it for the shortest way.
const FINISH: &str = r"
outcome AS MATERIALIZED (
  SELECT *, 'PENDING' AS before
    FROM unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[]) AS o(id, token, status, output, error)),
done AS (
  UPDATE @workflow_status w
     SET status = o.status, deduplication_id = NULL, owner_xid = NULL, updated_at = (SELECT NOW_MS),
         completed_at = (SELECT NOW_MS){+output = o.output}{+error = o.error}
    FROM outcome o
   WHERE w.workflow_uuid = ANY(?::text[]) AND w.workflow_uuid || '' = o.id AND w.owner_xid = o.token
     AND w.status = o.before
  RETURNING w.workflow_uuid, o.output, o.error),
output AS (
  INSERT INTO @workflow_output (workflow_uuid, output, error, retention_timestamp)
  SELECT workflow_uuid, output, error, (SELECT NOW_MS) FROM done)";

/// The statement for a set of kinds.
pub(super) fn statement(kinds: usize) -> String {
    let has = |kind: usize| kinds & kind != 0;
    let detailed = has(DETAILS);
    let children = has(CHILDREN);
    let insert_detailed =
        INSERT_DETAILED.replace("WHERE_PARENT", if children { PARENT_OWNED } else { "" });
    let input = INPUT.replace("INSERTED", if children { INSERTED } else { "" });
    let [values, arrays, columns] = if has(STEP_DETAILS) {
        STEP_DETAIL
    } else {
        NO_STEP_DETAIL
    };
    let record = RECORD
        .replace("STEP_VALUES", values)
        .replace("STEP_ARRAYS", arrays)
        .replace("STEP_COLUMNS", columns)
        .replace("JOIN_OWNED", if children { LOCKED } else { LOCK_EACH });
    let parts = [
        (has(STARTS) && !detailed, START),
        (has(STARTS) && detailed, DETAILED_START),
        (children, OWN),
        (has(STARTS) && !detailed, INSERT),
        (has(STARTS) && detailed, &insert_detailed),
        (has(STARTS), &input),
        (has(PURGE), PURGE_STALE),
        (children, RECORD_CHILDREN),
        (has(STEPS), &record),
        (has(OUTCOMES), FINISH),
    ];
    let parts: Vec<&str> = parts
        .iter()
        .filter(|(present, _)| *present)
        .map(|(_, part)| *part)
        .collect();
    let answer = |present: bool, query: &'static str| if present { query } else { "NULL" };
    let text = format!(
        "WITH {}\nSELECT {}, {}, {}",
        parts.join(","),
        answer(has(STARTS), "(SELECT count(*) FROM ins)"),
        answer(has(STEPS), "(SELECT count(*) FROM recorded)"),
        answer(has(OUTCOMES), "(SELECT array_agg(workflow_uuid) FROM done)"),
    );
    numbered(&text)
}

/// Numbers the parameters.
pub(super) fn numbered(text: &str) -> String {
    let mut parts = text.split('?');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        numbered.push_str(&format!("${}{part}", index + 1));
    }
    numbered
}

/// Whether an item may be in a quick statement at all.
pub(super) fn fits(work: &Work) -> bool {
    match work {
        // Whose deduplication id is taken is no surprise.
        Work::Start(row) => row.deduplication_id.is_none(),
        Work::Step(_) | Work::Outcome(_) => true,
        Work::Effect(_) | Work::Send(_) => false,
    }
}

/// The items of a batch by kind.
pub(super) struct Quick<'a> {
    starts: Vec<&'a StartRow>,
    steps: Vec<&'a StepRow>,
    outcomes: Vec<&'a OutcomeRow>,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// One column of some rows, as an array parameter.
fn column<'a, R: ?Sized, T>(rows: &[&'a R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| field(row)).collect()
}

impl<'a> Quick<'a> {
    /// `None` if an item does not fit.
    pub(super) fn new(items: &'a [Item]) -> Option<Self> {
        let mut quick = Self {
            starts: Vec::new(),
            steps: Vec::new(),
            outcomes: Vec::new(),
        };
        for item in items {
            match &item.work {
                work if !fits(work) => return None,
                Work::Start(row) => quick.starts.push(row),
                Work::Step(row) => quick.steps.push(row),
                Work::Outcome(row) => quick.outcomes.push(row),
                Work::Effect(_) | Work::Send(_) => return None,
            }
        }
        // Nearly always the database's order, too: what is sorted costs it a third to sort.
        quick
            .steps
            .sort_by(|one, other| one.workflow_id.cmp(&other.workflow_id));
        Some(quick)
    }

    pub(super) fn kinds(&self) -> usize {
        let bit = |present: bool, bit: usize| if present { bit } else { 0 };
        let children = self.starts.iter().any(|row| row.parent.is_some());
        bit(!self.starts.is_empty(), STARTS)
            | bit(children, CHILDREN)
            | bit(
                children || self.starts.iter().any(|row| has_details(row)),
                DETAILS,
            )
            | bit(self.starts.iter().any(|row| !row.id_is_new), PURGE)
            | bit(!self.steps.is_empty(), STEPS)
            | bit(
                self.steps.iter().any(|row| has_step_details(row)),
                STEP_DETAILS,
            )
            | bit(!self.outcomes.is_empty(), OUTCOMES)
    }

    /// Binds the parameters of the statement for [`kinds`](Self::kinds), in its order.
    pub(super) fn bind<'q>(&self, mut query: Query<'q>, app: &'q str, now: i64) -> Query<'q>
    where
        'a: 'q,
    {
        let kinds = self.kinds();
        if kinds & STARTS != 0 {
            query = bind_starts(query, &self.starts, kinds & DETAILS != 0);
        }
        if kinds & CHILDREN != 0 {
            let parents = self.starts.iter().filter_map(|row| row.parent.as_ref());
            let ids = parents.map(|parent| parent.workflow_id.as_str());
            let ids = ids.chain(self.steps.iter().map(|row| row.workflow_id.as_str()));
            query = query.bind(ids.collect::<Vec<_>>());
        }
        if kinds & STARTS != 0 {
            query = query.bind(app);
        }
        if kinds & PURGE != 0 {
            let given = self.starts.iter().filter(|row| !row.id_is_new);
            let ids: Vec<&str> = given.map(|row| row.workflow_id.as_str()).collect();
            query = query.bind(ids.clone()).bind(ids);
        }
        if kinds & CHILDREN != 0 {
            query = query.bind(now).bind(app);
        }
        if kinds & STEPS != 0 {
            query = bind_steps(query.bind(app), &self.steps, kinds & STEP_DETAILS != 0);
        }
        if kinds & OUTCOMES != 0 {
            query = bind_outcomes(query, &self.outcomes);
        }
        query
    }

    /// What was written.
    pub(super) fn answer(&self, row: &PgRow) -> Result<Answer, sqlx::Error> {
        let complete = |column: usize, items: usize| -> Result<bool, sqlx::Error> {
            let written: Option<i64> = row.try_get(column)?;
            Ok(written.unwrap_or(0) == i64::try_from(items).unwrap_or(i64::MAX))
        };
        let done: Option<Vec<String>> = row.try_get(2)?;
        let done = done.unwrap_or_default();
        Ok(Answer {
            starts: complete(0, self.starts.len())?,
            steps: complete(1, self.steps.len())?,
            outcomes: (done.len() < self.outcomes.len()).then_some(done),
        })
    }
}

/// What a quick statement wrote.
pub(super) struct Answer {
    /// All starts.
    pub(super) starts: bool,
    /// All steps.
    pub(super) steps: bool,
    /// The outcomes of these workflows; `None`: all.
    pub(super) outcomes: Option<Vec<String>>,
}

/// Whether a start has what only some have.
pub(super) fn has_details(row: &StartRow) -> bool {
    let StartRow {
        timeout_ms,
        deadline_ms,
        delay_until_ms,
        priority,
        partition_key,
        attributes,
        caller,
        application,
        schedule,
        debounce,
        ..
    } = row;
    timeout_ms.is_some()
        || deadline_ms.is_some()
        || delay_until_ms.is_some()
        || *priority != 0
        || partition_key.is_some()
        || attributes.is_some()
        || *caller != super::Caller::default()
        || application.is_some()
        || schedule.is_some()
        || debounce.is_some()
}

/// Whether a step has what only some have.
fn has_step_details(row: &StepRow) -> bool {
    row.error.is_some() || row.child.is_some() || row.format != PORTABLE
}

fn bind_starts<'q>(query: Query<'q>, rows: &[&'q StartRow], detailed: bool) -> Query<'q> {
    let query = query
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.inputs.as_str()))
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.queue.as_deref()))
        .bind(column(rows, |row| row.app_version.as_deref()))
        .bind(column(rows, |row| row.executor_id.as_str()));
    if !detailed {
        return query;
    }
    let parent = |row: &'q StartRow| row.parent.as_ref();
    query
        .bind(column(rows, |row| row.timeout_ms))
        .bind(column(rows, |row| row.deadline_ms))
        .bind(column(rows, |row| row.delay_until_ms))
        .bind(column(rows, |row| row.priority))
        .bind(column(rows, |row| row.partition_key.as_deref()))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.workflow_id.as_str())
        }))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.token.as_str())
        }))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.position)
        }))
        .bind(column(rows, |row| {
            parent(row).map(|parent| parent.started_at)
        }))
        .bind(column(rows, |row| row.attributes.as_deref()))
        .bind(column(rows, |row| row.caller.user.as_deref()))
        .bind(column(rows, |row| row.caller.assumed_role.as_deref()))
        .bind(column(rows, |row| row.caller.roles.as_deref()))
        .bind(column(rows, |row| row.application.as_deref()))
        .bind(column(rows, |row| row.schedule.as_deref()))
        .bind(column(rows, |row| row.debounce.is_some()))
        .bind(column(rows, |row| row.debounce.flatten()))
}

fn bind_steps<'q>(query: Query<'q>, rows: &[&'q StepRow], detailed: bool) -> Query<'q> {
    let query = query
        .bind(column(rows, |row| row.workflow_id.as_str()))
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.position))
        .bind(column(rows, |row| row.name.as_str()))
        .bind(column(rows, |row| row.started_at))
        .bind(column(rows, |row| row.completed_at))
        .bind(column(rows, |row| row.output.as_deref()));
    if !detailed {
        return query;
    }
    query
        .bind(column(rows, |row| row.error.as_deref()))
        .bind(column(rows, |row| row.child.as_deref()))
        .bind(column(rows, |row| &*row.format))
}

fn bind_outcomes<'q>(query: Query<'q>, rows: &[&'q OutcomeRow]) -> Query<'q> {
    let ids = column(rows, |row| row.workflow_id.as_str());
    query
        .bind(ids.clone())
        .bind(column(rows, |row| row.token.as_str()))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| row.output.as_deref()))
        .bind(column(rows, |row| row.error.as_deref()))
        .bind(ids)
}
