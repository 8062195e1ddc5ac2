//! Schedules stored in the database.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value as Json, json};

use super::{DatabaseError, INTERNAL_QUEUE, Row, Scope, SystemDatabase, Transaction};
use crate::cron::{self, Ticks};

/// Most ticks of one backfill.
const MOST_TICKS: usize = 100_000;

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
        let now = self.clock().now();
        let workflow_id = format!(
            "sched-{name}-trigger-{}",
            now.to_rfc3339_opts(SecondsFormat::Nanos, true)
        );
        let enqueue = Enqueue::of(self, &schedule, application).await?;
        let mut transaction = self.begin().await?;
        enqueue.tick(&mut transaction, &workflow_id, now).await?;
        transaction.commit().await?;
        Ok(workflow_id)
    }

    /// Enqueues the run of a tick, unless it exists, and notes when the schedule last fired.
    ///
    /// # Errors
    /// As [`trigger_schedule`](Self::trigger_schedule).
    pub(crate) async fn fire_schedule(
        &self,
        schedule: &ScheduleRow,
        tick: DateTime<Utc>,
        application: &str,
    ) -> Result<(), DatabaseError> {
        let enqueue = Enqueue::of(self, schedule, application).await?;
        let at = cron::text(tick);
        let mut transaction = self.begin().await?;
        let id = tick_id(&schedule.schedule_name, tick);
        enqueue.tick(&mut transaction, &id, tick).await?;
        let fired = self
            .sql("UPDATE @workflow_schedules SET last_fired_at = ")
            .bind(&at)
            .push(" WHERE schedule_id = ")
            .bind(&schedule.schedule_id)
            .push(" AND (last_fired_at IS NULL OR last_fired_at < ")
            .bind(&at)
            .push(")");
        transaction.execute(fired).await?;
        transaction.commit().await
    }

    /// Enqueues the runs of all ticks after `start` and before `end` (epoch milliseconds), except those that
    /// exist. Returns all their ids.
    ///
    /// # Errors
    /// As [`trigger_schedule`](Self::trigger_schedule); [`DatabaseError::Invalid`] also for more than 100,000
    /// ticks.
    pub async fn backfill_schedule(
        &self,
        name: &str,
        start: i64,
        end: i64,
        application: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let Some(schedule) = self.get_schedule(name).await? else {
            return Err(DatabaseError::NotFound {
                what: "schedule",
                ids: vec![name.to_owned()],
            });
        };
        let ticks = Ticks::parse(&schedule.schedule, schedule.cron_timezone.as_deref())
            .map_err(DatabaseError::Invalid)?;
        let instant = |millis: i64| {
            DateTime::<Utc>::from_timestamp_millis(millis).ok_or_else(|| {
                DatabaseError::Invalid(format!("{millis} is not an instant in milliseconds"))
            })
        };
        let ticks = ticks.between(instant(start)?, instant(end)?, MOST_TICKS + 1);
        if ticks.len() > MOST_TICKS {
            return Err(DatabaseError::Invalid(format!(
                "the schedule {name:?} has more than {MOST_TICKS} ticks in this range; backfill a shorter one"
            )));
        }
        let enqueue = Enqueue::of(self, &schedule, application).await?;
        let mut ids = Vec::with_capacity(ticks.len());
        for chunk in ticks.chunks(500) {
            let mut transaction = self.begin().await?;
            for tick in chunk {
                let id = tick_id(name, *tick);
                enqueue.tick(&mut transaction, &id, *tick).await?;
                ids.push(id);
            }
            transaction.commit().await?;
        }
        Ok(ids)
    }

    /// Makes schedules of `application` known, all or none. Of one that exists, the id, the status and the
    /// last tick stay. Owners in the rows do not matter.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if a name belongs to another application.
    pub async fn apply_schedules(
        &self,
        rows: &[ScheduleRow],
        application: &str,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.begin().await?;
        for row in rows {
            let insert = self
                .sql(
                    "INSERT INTO @workflow_schedules (schedule_id, schedule_name, workflow_name, workflow_class_name, \
                     schedule, status, context, automatic_backfill, cron_timezone, queue_name, application_name) VALUES (",
                )
                .bind(&row.schedule_id)
                .push(", ")
                .bind(&row.schedule_name)
                .push(", ")
                .bind(&row.workflow_name)
                .push(", ")
                .bind(row.workflow_class_name.as_deref())
                .push(", ")
                .bind(&row.schedule)
                .push(", ")
                .bind(&row.status)
                .push(", ")
                .bind(&row.context)
                .push(", ")
                .bind(row.automatic_backfill)
                .push(", ")
                .bind(row.cron_timezone.as_deref())
                .push(", ")
                .bind(row.queue_name.as_deref())
                .push(", ")
                .bind(application)
                .push(
                    ") ON CONFLICT (schedule_name) DO UPDATE SET workflow_name = excluded.workflow_name, \
                     workflow_class_name = excluded.workflow_class_name, schedule = excluded.schedule, \
                     context = excluded.context, automatic_backfill = excluded.automatic_backfill, \
                     cron_timezone = excluded.cron_timezone, queue_name = excluded.queue_name, \
                     application_name = COALESCE(workflow_schedules.application_name, excluded.application_name) \
                     RETURNING application_name",
                );
            let owner = transaction.fetch(insert).await?;
            let owner = owner.first().map(|row| row.required("application_name"));
            let owner = owner.transpose()?.unwrap_or_default();
            if owner != application {
                return Err(DatabaseError::Conflict(format!(
                    "the schedule {:?} belongs to the application {owner:?} of the same system database; \
                     choose another name",
                    row.schedule_name
                )));
            }
        }
        transaction.commit().await
    }

    /// Removes a schedule. False if there is none of that name.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn delete_schedule(&self, name: &str) -> Result<bool, DatabaseError> {
        let delete = self
            .sql("DELETE FROM @workflow_schedules WHERE schedule_name = ")
            .bind(name);
        Ok(self.write(delete).await? > 0)
    }
}

/// The run of a tick has this id in every process.
fn tick_id(schedule: &str, tick: DateTime<Utc>) -> String {
    format!("sched-{schedule}-{}", cron::text(tick))
}

/// What the runs of a schedule have in common.
struct Enqueue<'a> {
    db: &'a SystemDatabase,
    schedule: &'a ScheduleRow,
    context: Json,
    owner: &'a str,
    version: String,
}

impl<'a> Enqueue<'a> {
    /// Runs belong to the schedule's owner, or to `application` if it has none, and to its latest version.
    async fn of(
        db: &'a SystemDatabase,
        schedule: &'a ScheduleRow,
        application: &'a str,
    ) -> Result<Self, DatabaseError> {
        let name = &schedule.schedule_name;
        let context = serde_json::from_str(&schedule.context).map_err(|_| {
            DatabaseError::Invalid(format!(
                "the context of the schedule {name:?} is not JSON, so an SDK of another language made it; \
                 let an executor of that language do this"
            ))
        })?;
        let owner = schedule.application_name.as_deref().unwrap_or(application);
        let Some(version) = db.latest_version(&Scope::of(owner)).await? else {
            return Err(DatabaseError::Conflict(format!(
                "the application {owner:?} has no registered version yet"
            )));
        };
        Ok(Self {
            db,
            schedule,
            context,
            owner,
            version,
        })
    }

    /// Enqueues a run, unless one of this id exists.
    async fn tick(
        &self,
        transaction: &mut Transaction,
        workflow_id: &str,
        tick: DateTime<Utc>,
    ) -> Result<(), DatabaseError> {
        let at = tick.to_rfc3339_opts(SecondsFormat::Millis, true);
        let inputs = json!({ "positionalArgs": [at, self.context], "namedArgs": {} }).to_string();
        let schedule = self.schedule;
        let status = self
            .db
            .sql(
                "INSERT INTO @workflow_status (status, recovery_attempts, serialization, workflow_uuid, name, class_name, \
                 queue_name, schedule_name, application_name, application_version) VALUES ('ENQUEUED', 0, 'portable_json', ",
            )
            .bind(workflow_id)
            .push(", ")
            .bind(&schedule.workflow_name)
            .push(", ")
            .bind(schedule.workflow_class_name.clone())
            .push(", ")
            .bind(schedule.queue_name.as_deref().unwrap_or(INTERNAL_QUEUE))
            .push(", ")
            .bind(&schedule.schedule_name)
            .push(", ")
            .bind(self.owner)
            .push(", ")
            .bind(&self.version)
            .push(") ON CONFLICT (workflow_uuid) DO NOTHING");
        if transaction.execute(status).await? == 0 {
            return Ok(());
        }
        // What a deleted workflow of this id may have left behind.
        for table in self.db.side_tables() {
            let stale = self
                .db
                .sql(&format!("DELETE FROM @{table} WHERE workflow_uuid = "))
                .bind(workflow_id);
            transaction.execute(stale).await?;
        }
        self.db.store_input(transaction, workflow_id, &inputs).await
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
