//! Schedules: runs at the times of a cron expression, once per tick however many processes there are.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::app::Segno;
use crate::clock;
use crate::cron::Ticks;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::system_database::{ScheduleFilter, ScheduleRow, Scope};
use crate::transaction::from_database;
use crate::workflow::{Target, TargetKey};

/// What a scheduled workflow is given: the tick, and the value its schedule was made with.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled<C = ()> {
    /// The time for which the run was scheduled; it may start later.
    pub scheduled_at: SystemTime,
    /// The schedule's context.
    pub context: C,
}

/// As two arguments, which is how every SDK passes them.
impl<C: Serialize> Serialize for Scheduled<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = DateTime::<Utc>::from(self.scheduled_at);
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        (at, &self.context).serialize(serializer)
    }
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for Scheduled<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, context) = <(DateTime<Utc>, C)>::deserialize(deserializer)?;
        Ok(Self {
            scheduled_at: at.into(),
            context,
        })
    }
}

/// A schedule, for [`Builder::schedule`](crate::Builder::schedule) or [`Schedules::apply`].
///
/// ```
/// # use segno::{Ctx, Schedule, Scheduled, Segno};
/// async fn report(ctx: Ctx, tick: Scheduled<String>) -> segno::Result<()> { Ok(()) }
///
/// let app = Segno::named("reports").workflow("report", report).schedule(
///     Schedule::new("nightly", "0 0 2 * * *", report) // every night at two
///         .timezone("Europe/Paris")
///         .automatic_backfill()
///         .context("emea".to_owned()),
/// );
/// ```
#[must_use = "a schedule is registered by `Builder::schedule` or `Schedules::apply`"]
pub struct Schedule<C = ()> {
    declared: Declared,
    context: PhantomData<fn() -> C>,
}

/// A schedule without the type of its context.
#[derive(Debug)]
pub(crate) struct Declared {
    name: String,
    cron: String,
    workflow: TargetKey,
    timezone: Option<String>,
    automatic_backfill: bool,
    queue: Option<String>,
    /// Without a value, whether `null` would do.
    context: std::result::Result<Value, bool>,
}

impl<C: Serialize + DeserializeOwned> Schedule<C> {
    /// A schedule that starts `workflow` at the times of a cron expression: five fields, or six with the
    /// seconds first. In UTC, unless [`timezone`](Self::timezone) says otherwise.
    pub fn new<M, W>(name: impl Into<String>, cron: impl Into<String>, workflow: W) -> Self
    where
        W: Target<M, Input = Scheduled<C>>,
    {
        let null_will_do = serde_json::from_value::<C>(Value::Null).is_ok();
        Self {
            declared: Declared {
                name: name.into(),
                cron: cron.into(),
                workflow: workflow.key(),
                timezone: None,
                automatic_backfill: false,
                queue: None,
                context: Err(null_will_do),
            },
            context: PhantomData,
        }
    }

    /// The value that every run is given.
    pub fn context(mut self, context: C) -> Self {
        // What cannot be written is found out when the schedule is registered.
        self.declared.context = serde_json::to_value(context).map_err(|_| false);
        self
    }

    /// The time zone of the cron expression, by its IANA name.
    pub fn timezone(mut self, name: impl Into<String>) -> Self {
        self.declared.timezone = Some(name.into());
        self
    }

    /// Makes up for ticks that were missed while no process ran.
    pub fn automatic_backfill(mut self) -> Self {
        self.declared.automatic_backfill = true;
        self
    }

    /// Puts the runs on a queue.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.declared.queue = Some(name.into());
        self
    }

    pub(crate) fn declared(self) -> Declared {
        self.declared
    }
}

impl<C> fmt::Debug for Schedule<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.declared).finish()
    }
}

impl Declared {
    fn row(self, runtime: &Runtime) -> Result<ScheduleRow> {
        let refuse = |what: String| Error::config("schedule", format!("`{}`: {what}", self.name));
        if self.name.trim().is_empty() {
            return Err(refuse("the name must not be blank".to_owned()));
        }
        Ticks::parse(&self.cron, self.timezone.as_deref()).map_err(refuse)?;
        let context = match self.context {
            Ok(context) => context,
            Err(true) => Value::Null,
            Err(false) => {
                let what = "its workflow needs a value; give one with `.context(..)`";
                return Err(refuse(what.to_owned()));
            }
        };
        Ok(ScheduleRow {
            schedule_id: Uuid::new_v4().to_string(),
            workflow_name: runtime.registry.resolve(&self.workflow)?,
            schedule_name: self.name,
            schedule: self.cron,
            status: "ACTIVE".to_owned(),
            context: context.to_string(),
            automatic_backfill: self.automatic_backfill,
            cron_timezone: self.timezone,
            queue_name: self.queue,
            ..ScheduleRow::default()
        })
    }
}

/// Makes these schedules known, all or none.
pub(crate) async fn apply(runtime: &Runtime, schedules: Vec<Declared>) -> Result<()> {
    let rows = schedules
        .into_iter()
        .map(|schedule| schedule.row(runtime))
        .collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let applied = runtime
        .db
        .system
        .apply_schedules(&rows, runtime.app_name())
        .await;
    applied.map_err(from_database)?;
    runtime.schedules_changed();
    Ok(())
}

/// A schedule as it is registered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name.
    pub name: String,
    /// The workflow it starts.
    pub workflow: String,
    /// Its cron expression.
    pub cron: String,
    /// The time zone of that; UTC if none.
    pub timezone: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Its last tick, RFC 3339.
    pub last_fired_at: Option<String>,
    /// Whether missed ticks are made up for.
    pub automatic_backfill: bool,
    /// Queue of its runs.
    pub queue: Option<String>,
    /// What its runs are given.
    pub context: Option<Value>,
}

impl From<ScheduleRow> for ScheduleInfo {
    fn from(row: ScheduleRow) -> Self {
        Self {
            name: row.schedule_name,
            workflow: row.workflow_name,
            cron: row.schedule,
            timezone: row.cron_timezone,
            paused: row.status == "PAUSED",
            last_fired_at: row.last_fired_at,
            automatic_backfill: row.automatic_backfill,
            queue: row.queue_name,
            context: serde_json::from_str(&row.context).ok(),
        }
    }
}

/// The schedules of an application; see [`Segno::schedules`].
#[derive(Clone, Copy)]
pub struct Schedules<'a> {
    runtime: &'a Arc<Runtime>,
}

impl Schedules<'_> {
    /// Makes a schedule known, or changes it. Whether it is paused and when it last fired stays.
    pub async fn apply<C: Serialize + DeserializeOwned>(
        &self,
        schedule: Schedule<C>,
    ) -> Result<()> {
        apply(self.runtime, vec![schedule.declared()]).await
    }

    /// All schedules of this application, by name.
    pub async fn list(&self) -> Result<Vec<ScheduleInfo>> {
        let filter = ScheduleFilter {
            scope: Scope::of(self.runtime.app_name()),
            ..ScheduleFilter::default()
        };
        let rows = self.runtime.db.system.list_schedules(&filter).await;
        Ok(rows
            .map_err(from_database)?
            .into_iter()
            .map(ScheduleInfo::from)
            .collect())
    }

    /// The schedule of this name.
    pub async fn get(&self, name: &str) -> Result<Option<ScheduleInfo>> {
        let row = self.runtime.db.system.get_schedule(name).await;
        Ok(row.map_err(from_database)?.map(ScheduleInfo::from))
    }

    /// Lets it tick no more until it is resumed.
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.set_paused(name, true).await
    }

    /// Lets a paused schedule tick again, from now on.
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        let system = &self.runtime.db.system;
        let found = system.set_schedule_paused(name, paused).await;
        if !found.map_err(from_database)? {
            return Err(Error::not_found("schedule", name));
        }
        self.runtime.schedules_changed();
        Ok(())
    }

    /// Removes a schedule; false if there was none. Its runs stay.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        let deleted = self.runtime.db.system.delete_schedule(name).await;
        self.runtime.schedules_changed();
        deleted.map_err(from_database)
    }

    /// Starts one run now, paused or not. Gives its id.
    pub async fn trigger(&self, name: &str) -> Result<String> {
        let app = self.runtime.app_name();
        let run = self.runtime.db.system.trigger_schedule(name, app).await;
        self.runtime.wake_all();
        run.map_err(from_database)
    }

    /// Starts the runs of all ticks after the beginning and before the end of a range, except those that
    /// exist.
    pub async fn backfill(&self, name: &str, range: Range<SystemTime>) -> Result<()> {
        let millis = |instant: SystemTime| {
            clock::millis(instant.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
        };
        let app = self.runtime.app_name();
        let system = &self.runtime.db.system;
        let (start, end) = (millis(range.start), millis(range.end));
        let runs = system.backfill_schedule(name, start, end, app).await;
        self.runtime.wake_all();
        runs.map(drop).map_err(from_database)
    }
}

impl fmt::Debug for Schedules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

impl Segno {
    /// The application's schedules, to be listed and changed while it runs.
    ///
    /// ```no_run
    /// # use std::time::SystemTime;
    /// # async fn example(app: segno::Segno, from: SystemTime) -> segno::Result<()> {
    /// app.schedules().pause("nightly").await?;
    /// app.schedules().trigger("nightly").await?;
    /// app.schedules().backfill("nightly", from..SystemTime::now()).await
    /// # }
    /// ```
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules {
            runtime: self.runtime(),
        }
    }
}
