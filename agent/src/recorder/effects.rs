//! Effects of checkpoints on SQLite; on Postgres they are parts of the batch's one statement.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::sqlite::{OWNS, step};
use super::{Effect, EffectRow, EffectWritten, MessageRow, StepRow, StepWritten};

const ON_RECORD: &str = "SELECT completed_at_epoch_ms, output FROM operation_outputs
    WHERE workflow_uuid = $1 AND function_id = $2";

const SET_EVENT: &str = "INSERT INTO workflow_events (workflow_uuid, key, value, serialization)
    VALUES ($1, $2, $3, 'portable_json')
    ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization";

const EVENT_HISTORY: &str =
    "INSERT INTO workflow_events_history (workflow_uuid, key, value, function_id, serialization)
    VALUES ($1, $2, $3, $4, 'portable_json')
    ON CONFLICT (workflow_uuid, function_id, key)
    DO UPDATE SET value = excluded.value, serialization = excluded.serialization";

const WRITE_STREAM: &str = r#"INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization)
    SELECT $1, $2, $3, COALESCE(MAX("offset"), -1) + 1, $4, 'portable_json'
      FROM streams WHERE workflow_uuid = $1 AND key = $2"#;

const TAKE: &str = "UPDATE notifications SET consumed = TRUE, consumed_by_function_id = $3
    WHERE rowid = (SELECT rowid FROM notifications WHERE destination_uuid = $1 AND topic = $2 AND consumed = FALSE
                   ORDER BY created_at_epoch_ms, rowid LIMIT 1)
    RETURNING message, serialization";

const GIVE_BACK: &str = "UPDATE notifications SET consumed = FALSE, consumed_by_function_id = NULL
    WHERE destination_uuid = $1 AND consumed_by_function_id = $2";

const EXISTS: &str = "SELECT 1 FROM workflow_status WHERE workflow_uuid = $1";

const SEND: &str =
    "INSERT INTO notifications (message_uuid, destination_uuid, topic, message, serialization)
    VALUES ($1, $2, $3, $4, 'portable_json') ON CONFLICT (message_uuid) DO NOTHING";

/// Writes effects on a connection, for an application.
pub(super) struct Effects<'c>(pub(super) &'c mut SqliteConnection, pub(super) &'c str);

impl Effects<'_> {
    /// An effect and the checkpoint it belongs to.
    pub(super) async fn of_step(&mut self, row: &EffectRow) -> Result<EffectWritten, sqlx::Error> {
        let owner = sqlx::query(OWNS)
            .bind(&row.step.workflow_id)
            .bind(&row.step.token);
        if owner.fetch_optional(&mut *self.0).await?.is_none() {
            return Ok(EffectWritten::Step(StepWritten::NotOwner));
        }
        if row.recorded
            && let Some(found) = self.on_record(row).await?
        {
            return Ok(found);
        }
        let mut step_row = row.step.clone();
        match &row.effect {
            Effect::SetEvent { key, value } => self.set_event(&row.step, key, value).await?,
            Effect::WriteStream { key, value } => {
                let write = sqlx::query(WRITE_STREAM)
                    .bind(&row.step.workflow_id)
                    .bind(key)
                    .bind(value)
                    .bind(row.step.position);
                write.execute(&mut *self.0).await?;
            }
            Effect::Receive { topic, last } => match self.take(&row.step, topic).await? {
                Some((message, format)) => {
                    step_row.output = Some(message);
                    step_row.format = format.into();
                }
                None if *last => {}
                None => return Ok(EffectWritten::NothingYet),
            },
            Effect::GiveBack(positions) => {
                for position in positions {
                    let give_back = sqlx::query(GIVE_BACK)
                        .bind(&row.step.workflow_id)
                        .bind(position);
                    give_back.execute(&mut *self.0).await?;
                }
            }
            Effect::Send(messages) => match self.send(messages).await? {
                EffectWritten::Step(_) => {}
                unknown => return Ok(unknown),
            },
        }
        if !row.recorded {
            return Ok(EffectWritten::Step(StepWritten::Done));
        }
        let written = step(&mut *self.0, self.1, &step_row).await?;
        Ok(match (&row.effect, step_row.output) {
            (Effect::Receive { .. }, Some(text)) => EffectWritten::Received { text },
            _ => EffectWritten::Step(written),
        })
    }

    /// What an earlier attempt wrote whose answer was lost, or another step at this position.
    async fn on_record(&mut self, row: &EffectRow) -> Result<Option<EffectWritten>, sqlx::Error> {
        let found = sqlx::query(ON_RECORD)
            .bind(&row.step.workflow_id)
            .bind(row.step.position);
        let Some(found) = found.fetch_optional(&mut *self.0).await? else {
            return Ok(None);
        };
        let completed_at: i64 = found.try_get(0)?;
        let output: Option<String> = found.try_get(1)?;
        Ok(Some(match (&row.effect, output) {
            _ if completed_at != row.step.completed_at => EffectWritten::Step(StepWritten::Taken),
            (Effect::Receive { .. }, Some(text)) => EffectWritten::Received { text },
            _ => EffectWritten::Step(StepWritten::Done),
        }))
    }

    async fn set_event(
        &mut self,
        step: &StepRow,
        key: &str,
        value: &str,
    ) -> Result<(), sqlx::Error> {
        let event = |sql: &'static str| {
            sqlx::query(sql)
                .bind(&step.workflow_id)
                .bind(key)
                .bind(value)
        };
        event(SET_EVENT).execute(&mut *self.0).await?;
        let history = event(EVENT_HISTORY).bind(step.position);
        history.execute(&mut *self.0).await?;
        Ok(())
    }

    async fn take(
        &mut self,
        step: &StepRow,
        topic: &str,
    ) -> Result<Option<(String, String)>, sqlx::Error> {
        let taken = sqlx::query(TAKE)
            .bind(&step.workflow_id)
            .bind(topic)
            .bind(step.position);
        let Some(taken) = taken.fetch_optional(&mut *self.0).await? else {
            return Ok(None);
        };
        let format: Option<String> = taken.try_get(1)?;
        let format = format.unwrap_or_else(|| step.format.clone().into_owned());
        Ok(Some((taken.try_get(0)?, format)))
    }

    /// All messages, or none if one has no destination.
    pub(super) async fn send(
        &mut self,
        messages: &[MessageRow],
    ) -> Result<EffectWritten, sqlx::Error> {
        for message in messages {
            let exists = sqlx::query(EXISTS).bind(&message.destination);
            if exists.fetch_optional(&mut *self.0).await?.is_none() {
                let destination = message.destination.clone();
                return Ok(EffectWritten::NoSuchWorkflow(destination));
            }
        }
        for message in messages {
            let send = sqlx::query(SEND)
                .bind(&message.id)
                .bind(&message.destination)
                .bind(&message.topic)
                .bind(&message.body);
            send.execute(&mut *self.0).await?;
        }
        Ok(EffectWritten::Step(StepWritten::Done))
    }
}
