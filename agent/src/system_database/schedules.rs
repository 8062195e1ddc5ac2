//! Schedules stored in the database.

use chrono::{SecondsFormat, Utc};
use serde_json::{Value as Json, json};

use super::{DatabaseError, INTERNAL_QUEUE, Row, Scope, SystemDatabase};

/// A schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Key.
    pub schedule_id: String,
    /// Name, unique in the database.
    pub schedule_name: String,
    /// Workflow that it enqueues.
    pub workflow_name: String,
    /// Class of that workflow.
    pub workflow_class_name: Option<String>,
    /// Cron expression of five fields, or six with seconds first.
    pub schedule: String,
    /// `ACTIVE` or `PAUSED`.
    pub status: String,
    /// Value passed to every run, in the format of the SDK that made the schedule (JSON for ours).
    pub context: String,
    /// Time of the last tick, ISO 8601.
    pub last_fired_at: Option<String>,
    /// Whether missed ticks are made up for at start.
    pub automatic_backfill: bool,
    /// IANA time zone; UTC if `None`.
    pub cron_timezone: Option<String>,
    /// Queue of its runs; the internal one if `None`.
    pub queue_name: Option<String>,
    /// Owner.
    pub application_name: Option<String>,
}

/// What schedules to list. All conditions hold at once; an empty list is no condition.
#[derive(Debug, Clone, Default)]
pub struct ScheduleFilter {
    /// `ACTIVE`, `PAUSED`.
    pub statuses: Vec<String>,
    /// Workflows.
    pub workflow_names: Vec<String>,
    /// Beginnings of names.
    pub name_prefixes: Vec<String>,
    /// Owners.
    pub scope: Scope,
}

const COLUMNS: &str = "SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, \
    last_fired_at, automatic_backfill, cron_timezone, queue_name, application_name FROM @workflow_schedules WHERE ";

impl SystemDatabase {
    /// Lists schedules by name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn list_schedules(
        &self,
        filter: &ScheduleFilter,
    ) -> Result<Vec<ScheduleRow>, DatabaseError> {
        let mut statement = self.sql(COLUMNS).push("TRUE");
        if !filter.statuses.is_empty() {
            statement = statement.push(" AND ").any_of("status", &filter.statuses);
        }
        if !filter.workflow_names.is_empty() {
            statement = statement
                .push(" AND ")
                .any_of("workflow_name", &filter.workflow_names);
        }
        let statement = statement
            .and_prefix("schedule_name", &filter.name_prefixes)
            .and_scope("application_name", &filter.scope)
            .push(" ORDER BY schedule_name");
        self.read(statement)
            .await?
            .iter()
            .map(ScheduleRow::read)
            .collect()
    }

    /// Reads one schedule, of any application.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn get_schedule(&self, name: &str) -> Result<Option<ScheduleRow>, DatabaseError> {
        let statement = self.sql(COLUMNS).push("schedule_name = ").bind(name);
        self.read(statement)
            .await?
            .first()
            .map(ScheduleRow::read)
            .transpose()
    }

    /// Pauses a schedule or lets it go on. False if there is none of that name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn set_schedule_paused(
        &self,
        name: &str,
        paused: bool,
    ) -> Result<bool, DatabaseError> {
        let statement = self
            .sql("UPDATE @workflow_schedules SET status = ")
            .bind(if paused { "PAUSED" } else { "ACTIVE" })
            .push(" WHERE schedule_name = ")
            .bind(name);
        Ok(self.write(statement).await? > 0)
    }

    /// Enqueues one run of a schedule now, paused or not. Every call is a new run. Returns its workflow id.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] without such a schedule; [`DatabaseError::Invalid`] if another language's
    /// SDK made it (only that one can pass on its context); [`DatabaseError::Conflict`] if no version of the
    /// application is known that could run it.
    pub async fn trigger_schedule(
        &self,
        name: &str,
        application: &str,
    ) -> Result<String, DatabaseError> {
        let Some(schedule) = self.get_schedule(name).await? else {
            return Err(DatabaseError::NotFound {
                what: "schedule",
                ids: vec![name.to_owned()],
            });
        };
        let context: Json = serde_json::from_str(&schedule.context).map_err(|_| {
            DatabaseError::Invalid(format!(
                "the context of the schedule {name:?} is not JSON, so an SDK of another language made it; \
                 trigger it through an executor of that language"
            ))
        })?;
        let owner = schedule.application_name.as_deref().unwrap_or(application);
        let Some(version) = self.latest_version(&Scope::of(owner)).await? else {
            return Err(DatabaseError::Conflict(format!(
                "the application {owner:?} has no registered version yet"
            )));
        };
        let now = Utc::now();
        let workflow_id = format!(
            "sched-{name}-trigger-{}",
            now.to_rfc3339_opts(SecondsFormat::Nanos, true)
        );
        let tick = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let inputs = json!({ "positionalArgs": [tick, context], "namedArgs": {} }).to_string();

        let mut transaction = self.begin().await?;
        let status = self
            .sql(
                "INSERT INTO @workflow_status (status, recovery_attempts, serialization, workflow_uuid, name, class_name, \
                 queue_name, schedule_name, application_name, application_version) VALUES ('ENQUEUED', 0, 'portable_json', ",
            )
            .bind(&workflow_id)
            .push(", ")
            .bind(&schedule.workflow_name)
            .push(", ")
            .bind(schedule.workflow_class_name.clone())
            .push(", ")
            .bind(schedule.queue_name.as_deref().unwrap_or(INTERNAL_QUEUE))
            .push(", ")
            .bind(name)
            .push(", ")
            .bind(owner)
            .push(", ")
            .bind(version)
            .push(")");
        transaction.execute(status).await?;
        let input = self
            .sql("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES (")
            .bind(&workflow_id)
            .push(", ")
            .bind(inputs)
            .push(")");
        transaction.execute(input).await?;
        transaction.commit().await?;
        Ok(workflow_id)
    }
}

impl ScheduleRow {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            schedule_id: row.required("schedule_id")?,
            schedule_name: row.required("schedule_name")?,
            workflow_name: row.required("workflow_name")?,
            workflow_class_name: row.filled("workflow_class_name")?,
            schedule: row.required("schedule")?,
            status: row.required("status")?,
            context: row.required("context")?,
            last_fired_at: row.filled("last_fired_at")?,
            automatic_backfill: row.bool("automatic_backfill")?,
            cron_timezone: row.filled("cron_timezone")?,
            queue_name: row.filled("queue_name")?,
            application_name: row.text("application_name")?,
        })
    }
}
