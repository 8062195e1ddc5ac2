//! The careful statement that writes a batch on Postgres and finds out for each item what is in its way. It is
//! put together from parts: one for each kind of item that is in the batch.
//!
//! The parts of a statement do not see each other's writes; `batch::take` therefore never lets two items
//! in that write one row, or of which one should see the other's.

use crate::system_database::SystemDatabase;

pub(super) const STARTS: usize = 1;
pub(super) const STEPS: usize = 2;
pub(super) const OUTCOMES: usize = 4;
pub(super) const EVENTS: usize = 8;
pub(super) const STREAMS: usize = 16;
pub(super) const RECEIVES: usize = 32;
pub(super) const MESSAGES: usize = 64;
pub(super) const RETURNS: usize = 128;

/// The batch's starts as rows. All parts take the same parameters, used or not.
const START: &str = r"
start AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::bigint[], $10::bigint[], $11::bigint[], $12::int[], $13::text[], $14::text[], $15::text[],
                       $16::text[], $17::int[], $18::bigint[], $52::text[], $53::text[], $54::text[], $55::text[],
                       $56::bool[], $57::text[], $58::text[], $59::bool[], $60::bigint[]) WITH ORDINALITY
    AS s(id, status, name, inputs, token, queue, version, executor, timeout_ms, deadline_ms, delay_ms, priority,
         dedup, partition, parent, parent_token, parent_position, parent_started, attributes, caller, role, roles,
         reject, application, schedule, debounced, debounce_deadline, ord))";

const STEP: &str = r"
step AS (
  SELECT * FROM unnest($19::text[], $20::text[], $21::int[], $22::text[], $23::bigint[], $24::bigint[], $25::text[],
                       $26::text[], $27::text[], $28::text[], $29::bool[]) WITH ORDINALITY
    AS s(id, token, position, name, started, completed, output, error, child, format, recorded, ord))";

const OUTCOME: &str = r"
outcome AS (
  SELECT * FROM unnest($30::text[], $31::text[], $32::text[], $33::text[], $34::text[]) WITH ORDINALITY
    AS o(id, token, status, output, error, ord))";

/// Locks every workflow that is written on behalf of its owner, in id order so that batches of several
/// processes cannot deadlock, and shows who owns it now.
const OWN: &str = r"
own AS (
  SELECT workflow_uuid, owner_xid FROM @workflow_status
   WHERE workflow_uuid = ANY($15::text[] || $19::text[] || $30::text[])
   ORDER BY workflow_uuid FOR NO KEY UPDATE)";

// Where an id is compared with `ANY` and, as an expression (`|| ''`), with another part's, the index is to be
// used with the list of ids, once: with both it would be searched for each id with the whole list again.

/// A start that meets an existing row updates nothing in effect but returns that row; one that made a new
/// row also removes what a deleted workflow of the same id may have left behind.
const INSERT: &str = r"
ins AS (
  INSERT INTO @workflow_status AS w
         (workflow_uuid, status, name, queue_name, application_name, application_version, executor_id, application_id,
          serialization{-, creator_xid}, owner_xid, recovery_attempts, workflow_timeout_ms, workflow_deadline_epoch_ms,
          delay_until_epoch_ms, priority, deduplication_id, queue_partition_key, parent_workflow_id, attributes,
          authenticated_user, assumed_role, authenticated_roles, schedule_name, is_debounced,
          debounce_deadline_epoch_ms{+inputs})
  SELECT s.id, s.status, s.name, s.queue, COALESCE(s.application, NULLIF($35, '')), s.version, NULLIF(s.executor, ''), '',
         'portable_json'{-, s.token},
         {-CASE WHEN s.status = 'PENDING' THEN }s.token{- END}, CASE WHEN s.status = 'PENDING' THEN 1 ELSE 0 END,
         s.timeout_ms, s.deadline_ms, s.delay_ms, s.priority, s.dedup, s.partition, s.parent, s.attributes::jsonb,
         s.caller, s.role, s.roles, s.schedule, s.debounced, s.debounce_deadline{+s.inputs}
    FROM start s
   WHERE s.parent IS NULL
      OR EXISTS (SELECT 1 FROM own WHERE own.workflow_uuid = s.parent AND own.owner_xid = s.parent_token)
   ORDER BY s.id
  ON CONFLICT (workflow_uuid) DO UPDATE SET CREATOR = w.CREATOR
  RETURNING workflow_uuid, name, class_name, config_name, queue_name, CREATOR AS creator_xid, (xmax = 0) AS fresh),
stale_steps AS (
  DELETE FROM @operation_outputs o USING ins
   WHERE ins.fresh AND o.workflow_uuid || '' = ins.workflow_uuid AND o.workflow_uuid = ANY($1::text[])){-,
stale_output AS (
  DELETE FROM @workflow_output o USING ins
   WHERE ins.fresh AND o.workflow_uuid || '' = ins.workflow_uuid AND o.workflow_uuid = ANY($1::text[])),
input AS (
  INSERT INTO @workflow_input (workflow_uuid, inputs)
  SELECT s.id, s.inputs FROM start s JOIN ins ON ins.workflow_uuid = s.id AND ins.fresh
  ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs, retention_timestamp = excluded.retention_timestamp)}";

/// The latest value of each event, and the one this step gave it.
const SET_EVENTS: &str = r"
event AS (SELECT * FROM unnest($37::bigint[], $38::text[], $39::text[]) AS e(step, key, value)),
latest_event AS (
  INSERT INTO @workflow_events (workflow_uuid, key, value, serialization)
  SELECT s.id, e.key, e.value, 'portable_json' FROM event e JOIN step s ON s.ord = e.step
    JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token
   ORDER BY s.id, e.key
  ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization),
event_history AS (
  INSERT INTO @workflow_events_history (workflow_uuid, function_id, key, value, serialization)
  SELECT s.id, s.position, e.key, e.value, 'portable_json' FROM event e JOIN step s ON s.ord = e.step
    JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token
   ORDER BY s.id, e.key
  ON CONFLICT (workflow_uuid, function_id, key)
  DO UPDATE SET value = excluded.value, serialization = excluded.serialization)";

/// Entries after the last one. A step on record has written its entry already: this is a retry whose first
/// answer was lost.
const WRITE_STREAMS: &str = r#"
entry AS (SELECT * FROM unnest($40::bigint[], $41::text[], $42::text[]) WITH ORDINALITY AS e(step, key, value, ord)),
appended AS (
  INSERT INTO @streams (workflow_uuid, key, value, "offset", function_id, serialization)
  SELECT s.id, e.key, e.value,
         (COALESCE((SELECT max(x."offset") FROM @streams x WHERE x.workflow_uuid = s.id AND x.key = e.key), -1)
          + row_number() OVER (PARTITION BY s.id, e.key ORDER BY e.ord))::int,
         s.position, 'portable_json'
    FROM entry e JOIN step s ON s.ord = e.step JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token
   WHERE NOT s.recorded OR NOT EXISTS (
           SELECT 1 FROM @operation_outputs x WHERE x.workflow_uuid = s.id AND x.function_id = s.position))"#;

/// Takes the oldest message of each topic; in the order of arrival where the clock does not tell.
const TAKE_MESSAGES: &str = r"
receive AS (SELECT * FROM unnest($43::bigint[], $44::text[], $45::bool[]) AS r(step, topic, last)),
oldest AS (
  SELECT r.step, s.position, m.message_uuid
    FROM receive r JOIN step s ON s.ord = r.step JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token
    CROSS JOIN LATERAL (
      SELECT n.message_uuid FROM @notifications n
       WHERE n.destination_uuid = s.id AND n.topic = r.topic AND n.consumed = FALSE
       ORDER BY n.created_at_epoch_ms, n.ctid LIMIT 1) m
   WHERE NOT EXISTS (
           SELECT 1 FROM @operation_outputs x WHERE x.workflow_uuid = s.id AND x.function_id = s.position)),
taken AS (
  UPDATE @notifications n SET consumed = TRUE{-, consumed_by_function_id = o.position}
    FROM oldest o WHERE n.message_uuid = o.message_uuid AND n.consumed = FALSE
  RETURNING o.step, n.message, n.serialization)";

/// Sends all messages of an item or, if one has no destination, none.
const SEND_MESSAGES: &str = r"
message AS (
  SELECT * FROM unnest($46::bigint[], $47::bigint[], $48::text[], $49::text[], $50::text[], $51::text[]) WITH ORDINALITY
    AS m(item, step, id, destination, topic, body, ord)),
unknown AS (
  SELECT m.item, min(m.step) AS step, min(m.destination) AS destination FROM message m
   WHERE NOT EXISTS (SELECT 1 FROM @workflow_status d WHERE d.workflow_uuid = m.destination) GROUP BY m.item),
sent AS (
  INSERT INTO @notifications (message_uuid, destination_uuid, topic, message, serialization)
  SELECT m.id, m.destination, m.topic, m.body, 'portable_json' FROM message m
   WHERE NOT EXISTS (SELECT 1 FROM unknown u WHERE u.item = m.item) AND OWNED_STEP
   ORDER BY m.ord
  ON CONFLICT (message_uuid) DO NOTHING)";

/// A message sent by a step goes only if the step's token owns the workflow.
const OWNED_STEP: &str = "(m.step IS NULL OR EXISTS (SELECT 1 FROM step s \
    JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token WHERE s.ord = m.step))";

/// Messages that calls took which lost a race go back; where such a call stood is on record with the race.
const GIVE_BACK: &str = r"
returned AS (SELECT * FROM unnest($61::bigint[], $62::int[]) AS r(step, position)),
given_back AS (
  UPDATE @notifications n SET consumed = FALSE{-, consumed_by_function_id = NULL}
    FROM returned r JOIN step s ON s.ord = r.step JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token
   WHERE n.destination_uuid = s.id AND {-n.consumed_by_function_id = r.position}{=FALSE})";

/// The start of a child is a step of its parent.
const RECORD_CHILDREN: &str = r"
  SELECT s.parent, s.parent_position, s.name, s.parent_started, $36::bigint, NULL, NULL, s.id, NULL, $35
    FROM start s JOIN ins ON ins.workflow_uuid = s.id AND ins.name = s.name
                         AND COALESCE(ins.class_name, '') = '' AND COALESCE(ins.config_name, '') = ''
                         AND (NOT s.reject OR ins.creator_xid = s.token)
   WHERE s.parent IS NOT NULL";

const FINISH: &str = r"
done AS (
  UPDATE @workflow_status w
     SET status = o.status, deduplication_id = NULL, owner_xid = NULL, updated_at = NOW_MS, completed_at = NOW_MS{+output = o.output}{+error = o.error}
    FROM outcome o JOIN own ON own.workflow_uuid = o.id AND own.owner_xid = o.token
   WHERE w.workflow_uuid || '' = o.id AND w.workflow_uuid = ANY($30::text[])
     AND w.status || '' = 'PENDING' AND w.owner_xid = o.token
  RETURNING w.workflow_uuid){-,
output AS (
  INSERT INTO @workflow_output (workflow_uuid, output, error)
  SELECT o.id, o.output, o.error FROM outcome o JOIN done ON done.workflow_uuid = o.id
  ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error,
                                            retention_timestamp = excluded.retention_timestamp)}";

const ANSWER_STARTS: &str = r"
SELECT 0 AS kind, s.ord, ins.workflow_uuid IS NOT NULL AS owned, COALESCE(r.child_workflow_id = s.id, TRUE) AS mine,
       ins.creator_xid IS NOT DISTINCT FROM s.token AS flag, ins.name AS text,
       COALESCE(ins.class_name, '') <> '' OR COALESCE(ins.config_name, '') <> '' AS has_class, ins.queue_name
  FROM start s LEFT JOIN ins ON ins.workflow_uuid = s.id
  LEFT JOIN recorded r ON r.workflow_uuid = s.parent AND r.function_id = s.parent_position";

const ANSWER_OUTCOMES: &str = r"
SELECT 2 AS kind, o.ord, done.workflow_uuid IS NOT NULL AS owned, TRUE AS mine, FALSE AS flag, NULL AS text,
       FALSE AS has_class, NULL AS queue_name
  FROM outcome o LEFT JOIN done ON done.workflow_uuid = o.id";

const ANSWER_SENDS: &str = r"
SELECT 3 AS kind, i.item AS ord, TRUE AS owned, TRUE AS mine, FALSE AS flag, u.destination AS text,
       FALSE AS has_class, NULL AS queue_name
  FROM (SELECT DISTINCT item FROM message WHERE step IS NULL) i LEFT JOIN unknown u ON u.item = i.item";

/// The steps to record: rows whose token is not the owner's are simply not written, nor those that found no
/// message yet or have nobody to send to.
fn record_steps(receives: bool, messages: bool) -> String {
    let (output, format, joins, found) = if receives {
        (
            "CASE WHEN t.step IS NOT NULL THEN t.message ELSE s.output END",
            "CASE WHEN t.step IS NOT NULL THEN t.serialization ELSE s.format END",
            " LEFT JOIN receive rc ON rc.step = s.ord LEFT JOIN taken t ON t.step = s.ord",
            " AND (rc.step IS NULL OR rc.last OR t.step IS NOT NULL)",
        )
    } else {
        ("s.output", "s.format", "", "")
    };
    let addressed = if messages {
        " AND NOT EXISTS (SELECT 1 FROM unknown u WHERE u.step = s.ord)"
    } else {
        ""
    };
    format!(
        "
  SELECT s.id, s.position, s.name, s.started, s.completed, {output}, s.error, s.child, {format}, $35
    FROM step s JOIN own ON own.workflow_uuid = s.id AND own.owner_xid = s.token{joins}
   WHERE s.recorded{found}{addressed}"
    )
}

/// What is on record now, and the text that only an effect's caller needs: the message it took, or the
/// destination that does not exist.
fn answer_steps(receives: bool, messages: bool) -> String {
    let (received, receive) = if receives {
        (
            "CASE WHEN rc.step IS NOT NULL THEN r.output END",
            "\n  LEFT JOIN receive rc ON rc.step = s.ord",
        )
    } else {
        ("NULL", "")
    };
    let (unknown, message) = if messages {
        ("u.destination", "\n  LEFT JOIN unknown u ON u.step = s.ord")
    } else {
        ("NULL", "")
    };
    let answered = if receives || messages {
        // What was not recorded on purpose is no other step's record either.
        "r.completed_at_epoch_ms IS NULL OR r.completed_at_epoch_ms = s.completed"
    } else {
        "COALESCE(r.completed_at_epoch_ms = s.completed, NOT s.recorded)"
    };
    format!(
        "
SELECT 1 AS kind, s.ord, own.owner_xid IS NOT DISTINCT FROM s.token AS owned, {answered} AS mine,
       r.workflow_uuid IS NOT NULL AS flag, COALESCE({unknown}, {received})::text AS text, FALSE AS has_class,
       NULL AS queue_name
  FROM step s LEFT JOIN own ON own.workflow_uuid = s.id
  LEFT JOIN recorded r ON r.workflow_uuid = s.id AND r.function_id = s.position{receive}{message}"
    )
}

/// The statement for a batch with these kinds of items.
pub(super) fn statement(kinds: usize) -> String {
    let has = |kind: usize| kinds & kind != 0;
    let (starts, steps, outcomes) = (has(STARTS), has(STEPS), has(OUTCOMES));
    let (receives, messages) = (has(RECEIVES), has(MESSAGES));
    let record_steps = record_steps(receives, messages);
    let recorded = match (steps, starts) {
        (true, true) => format!("{record_steps} UNION ALL{RECORD_CHILDREN}"),
        (true, false) => record_steps,
        (false, _) => RECORD_CHILDREN.to_owned(),
    };
    let recorded = format!(
        "\nrecorded AS (INSERT INTO @operation_outputs AS o (workflow_uuid, function_id, function_name, \
         started_at_epoch_ms, completed_at_epoch_ms, output, error, child_workflow_id, serialization, \
         application_name){recorded}
  ON CONFLICT (workflow_uuid, function_id) DO UPDATE SET completed_at_epoch_ms = o.completed_at_epoch_ms
  RETURNING workflow_uuid, function_id, completed_at_epoch_ms, child_workflow_id, output)"
    );
    let sends = SEND_MESSAGES.replace("OWNED_STEP", if steps { OWNED_STEP } else { "TRUE" });
    let answer_steps = answer_steps(receives, messages);
    let parts = [
        (starts, START),
        (steps, STEP),
        (outcomes, OUTCOME),
        (true, OWN),
        (starts, INSERT),
        (has(EVENTS), SET_EVENTS),
        (has(STREAMS), WRITE_STREAMS),
        (receives, TAKE_MESSAGES),
        (messages, &sends),
        (has(RETURNS), GIVE_BACK),
        (starts || steps, &recorded),
        (outcomes, FINISH),
    ];
    let answers = [
        (starts, ANSWER_STARTS),
        (steps, &answer_steps),
        (outcomes, ANSWER_OUTCOMES),
        (messages, ANSWER_SENDS),
    ];
    format!(
        "WITH {}{}",
        join(&parts, ","),
        join(&answers, "\nUNION ALL")
    )
}

/// Fits a statement to the line of the schema.
///
/// Payloads have tables of their own. SDKs older than those look for them in the status row: for them `{+…}` is
/// one more column there, and nothing where nobody is. `{-…}` stands where the tables are of the newer line,
/// `{=…}` where they are of the older one; `CREATOR` is the column that tells who made a row.
pub(super) fn fit(text: &str, db: &SystemDatabase) -> String {
    let older = db.is_older_line();
    let mut parts = text.split('{');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (part, rest) = part.split_once('}').unwrap_or((part, ""));
        let (kind, part) = part.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" if db.inline_payloads() => {
                whole.push_str(", ");
                whole.push_str(part);
            }
            "-" if !older => whole.push_str(part),
            "=" if older => whole.push_str(part),
            _ => {}
        }
        whole.push_str(rest);
    }
    whole.replace("CREATOR", db.creator())
}

fn join(parts: &[(bool, &str)], separator: &str) -> String {
    let present: Vec<_> = parts
        .iter()
        .filter(|(present, _)| *present)
        .map(|(_, part)| *part)
        .collect();
    present.join(separator)
}
