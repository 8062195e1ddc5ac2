//! The statements for a batch of one, which most batches are where little happens at a time. What sorts several costs
//! as much processor time as the rows.
//!
//! As the quick statement (see `quick`) they insert without looking first. Each gives back a row if it has written.

use super::quick::{Answer, has_details, numbered};
use super::{Item, OutcomeRow, StartRow, StepRow, Work};

/// Both tables in one commit, as everywhere. For `?`, `@` and `{+…}` see `quick`.
const START: &str = r"
WITH ins AS (
  INSERT INTO @workflow_status
         (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
          serialization, creator_xid, owner_xid, recovery_attempts, created_at, updated_at{+inputs})
  SELECT s.id, s.status, s.name, s.queue, NULLIF(s.application, ''), s.version, NULLIF(s.executor, ''), '',
         'portable_json', s.token, CASE WHEN s.status = 'PENDING' THEN s.token END,
         CASE WHEN s.status = 'PENDING' THEN 1 ELSE 0 END, s.now, s.now{+s.inputs}
    FROM (SELECT ?::text AS id, ?::text AS status, ?::text AS name, ?::text AS inputs, ?::text AS token,
                 ?::text AS queue, ?::text AS version, ?::text AS executor, ?::text AS application, NOW_MS AS now) s)
INSERT INTO @workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES (?::text, ?::text, NOW_MS)
RETURNING 1";

/// The workflow is locked before the row is written.
const STEP: &str = r"
INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms,
       completed_at_epoch_ms, output, error, child_workflow_id, serialization, application_name, retention_timestamp)
SELECT workflow_uuid, ?::int, ?::text, ?::bigint, ?::bigint, ?::text, ?::text, ?::text, ?::text, ?::text, NOW_MS
  FROM @workflow_status WHERE workflow_uuid = ?::text AND owner_xid = ?::text FOR NO KEY UPDATE
RETURNING 1";

const OUTCOME: &str = r"
WITH done AS (
  UPDATE @workflow_status w
     SET status = o.status, deduplication_id = NULL, owner_xid = NULL, updated_at = o.now,
         completed_at = o.now{+output = o.output}{+error = o.error}
    FROM (SELECT ?::text AS status, ?::text AS output, ?::text AS error, NOW_MS AS now) o
   WHERE w.workflow_uuid = ?::text AND w.status = 'PENDING' AND w.owner_xid = ?::text
  RETURNING w.workflow_uuid)
INSERT INTO @workflow_output (workflow_uuid, output, error, retention_timestamp)
SELECT workflow_uuid, ?::text, ?::text, NOW_MS FROM done
RETURNING 1";

/// Tells the statements apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Start,
    Step,
    Outcome,
}

/// The statement for a kind.
pub(super) fn statement(kind: Kind) -> String {
    numbered(match kind {
        Kind::Start => START,
        Kind::Step => STEP,
        Kind::Outcome => OUTCOME,
    })
}

/// The item that is all of a batch.
pub(super) enum Single<'a> {
    Start(&'a StartRow),
    Step(&'a StepRow),
    Outcome(&'a OutcomeRow),
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl<'a> Single<'a> {
    /// `None` if there are several items, or if it takes more than these statements do: a start that has something out
    /// of the ordinary, an effect.
    pub(super) fn new(items: &'a [Item]) -> Option<Self> {
        let [item] = items else { return None };
        match &item.work {
            Work::Start(row) if is_plain(row) => Some(Self::Start(row)),
            Work::Step(row) => Some(Self::Step(row)),
            Work::Outcome(row) => Some(Self::Outcome(row)),
            Work::Start(_) | Work::Effect(_) | Work::Send(_) => None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Start(_) => Kind::Start,
            Self::Step(_) => Kind::Step,
            Self::Outcome(_) => Kind::Outcome,
        }
    }

    /// Binds the parameters of its statement, in their order.
    pub(super) fn bind<'q>(&self, query: Query<'q>, app: &'q str) -> Query<'q>
    where
        'a: 'q,
    {
        match *self {
            Self::Start(row) => query
                .bind(&*row.workflow_id)
                .bind(row.status.as_str())
                .bind(&*row.name)
                .bind(&*row.inputs)
                .bind(&*row.token)
                .bind(row.queue.as_deref())
                .bind(row.app_version.as_deref())
                .bind(&*row.executor_id)
                .bind(app)
                .bind(&*row.workflow_id)
                .bind(&*row.inputs),
            Self::Step(row) => query
                .bind(row.position)
                .bind(&*row.name)
                .bind(row.started_at)
                .bind(row.completed_at)
                .bind(row.output.as_deref())
                .bind(row.error.as_deref())
                .bind(row.child.as_deref())
                .bind(&*row.format)
                .bind(app)
                .bind(&*row.workflow_id)
                .bind(&*row.token),
            Self::Outcome(row) => query
                .bind(row.status.as_str())
                .bind(row.output.as_deref())
                .bind(row.error.as_deref())
                .bind(&*row.workflow_id)
                .bind(&*row.token)
                .bind(row.output.as_deref())
                .bind(row.error.as_deref()),
        }
    }

    /// What it means that the statement has or has not written.
    pub(super) fn answer(&self, written: bool) -> Answer {
        Answer {
            starts: written,
            steps: written,
            outcomes: (!written).then(Vec::new),
        }
    }
}

/// Whether a start has nothing but a name, an input and perhaps a queue.
fn is_plain(row: &StartRow) -> bool {
    row.id_is_new && row.parent.is_none() && row.deduplication_id.is_none() && !has_details(row)
}
