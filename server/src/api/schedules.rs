//! Schedules, as the application's own database defines them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{
    BackfillSchedule, GetSchedule, ListSchedules, PauseSchedule, ResumeSchedule, ScheduleFilter,
    ScheduleRecord, TriggerSchedule, WireTime,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Created, Object, Path, Query};
use super::forward;
use super::path::{AppPath, SchedulePath};
use super::problem::Problem;
use super::time::Timestamp;
use super::workflows::location;
use crate::auth::Caller;
use crate::hub::{Class, Target};
use crate::policies::firings;
use crate::state::AppState;

/// Executors insert one by one what a backfill enqueues.
const BACKFILL: Duration = Duration::from_secs(120);

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The application that owns it
    #[schema(required = true)]
    pub application_name: Option<String>,
    /// Whether missed firings are made up for
    pub automatic_backfill: bool,
    /// The value that each run gets, if loaded
    #[schema(required = true)]
    pub context: Option<String>,
    /// Cron, with an optional field of seconds
    pub cron_expression: String,
    /// IANA time zone
    #[schema(required = true)]
    pub cron_timezone: Option<String>,
    /// The last firing
    #[schema(required = true)]
    pub last_fired_at: Option<Timestamp>,
    /// Its id
    pub schedule_id: String,
    /// Its name
    pub schedule_name: String,
    /// ACTIVE or PAUSED
    pub status: String,
    /// Class of what it starts
    #[schema(required = true)]
    pub workflow_class: Option<String>,
    /// What it starts
    pub workflow_name: String,
}

impl From<ScheduleRecord> for Schedule {
    fn from(record: ScheduleRecord) -> Self {
        let fired = record
            .last_fired_at
            .and_then(|text| text.parse::<WireTime>().ok());
        Self {
            application_name: record.application_name,
            automatic_backfill: record.automatic_backfill,
            context: record.context,
            cron_expression: record.schedule.unwrap_or_default(),
            cron_timezone: record.cron_timezone,
            last_fired_at: fired.map(|time| Timestamp::from_ms(time.0)),
            schedule_id: record.schedule_id.unwrap_or_default(),
            schedule_name: record.schedule_name,
            status: record.status.unwrap_or_else(|| "UNKNOWN".to_owned()),
            workflow_class: record.workflow_class_name,
            workflow_name: record.workflow_name.unwrap_or_default(),
        }
    }
}

/// Filters of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ScheduleQuery {
    /// ACTIVE or PAUSED
    pub status: Option<String>,
    /// What they start
    pub workflow_name: Option<String>,
    /// Beginning of their names
    pub schedule_name_prefix: Option<String>,
    /// Whether to load the values that runs get
    pub load_context: Option<bool>,
}

/// The run that was started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerOutputBody {
    /// Its workflow id
    pub workflow_id: String,
}

/// The window whose firings are to be made up for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillInputBody {
    /// Its end
    pub end_time: Timestamp,
    /// Its start
    pub start_time: Timestamp,
}

/// The runs of the window.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillOutputBody {
    /// Their workflow ids
    pub workflow_ids: Vec<String>,
}

/// List schedules
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/schedules", operation_id = "listSchedules",
    tag = "Schedules", params(AppPath, ScheduleQuery),
    responses((status = 200, description = "OK", body = [Schedule])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_schedules(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<ScheduleQuery>,
) -> Result<Json<Vec<Schedule>>, Problem> {
    let status = query.status.as_deref();
    if status.is_some_and(|status| !matches!(status, "ACTIVE" | "PAUSED")) {
        // No schedule has another status, and Java fails on one that it does not know.
        return Ok(Json(Vec::new()));
    }
    let one = |value: Option<String>| value.into_iter().collect::<Vec<_>>();
    let body = ScheduleFilter {
        status: one(query.status),
        workflow_name: one(query.workflow_name),
        schedule_name_prefix: one(query.schedule_name_prefix),
        application_name: vec![app.name.clone()],
        load_context: query.load_context.unwrap_or(false) && !app.private_mode,
    };
    let schedules = forward::read(&state.hub, &app, &ListSchedules { body })
        .await?
        .output;
    Ok(Json(schedules.into_iter().map(Schedule::from).collect()))
}

/// Get a schedule
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/schedules/{scheduleName}", operation_id = "getSchedule",
    tag = "Schedules", params(AppPath, SchedulePath),
    responses((status = 200, description = "OK", body = Schedule)),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn get_schedule(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<SchedulePath>,
) -> Result<Object<Schedule>, Problem> {
    let message = GetSchedule {
        schedule_name: path.schedule_name,
        load_context: !app.private_mode,
    };
    let schedule = forward::read(&state.hub, &app, &message).await?.output;
    Ok(Object(
        schedule
            .ok_or_else(|| no_schedule(&message.schedule_name))?
            .into(),
    ))
}

fn no_schedule(name: &str) -> Problem {
    Problem::not_found(format!("there is no schedule `{name}`"))
}

/// Pause a schedule
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/schedules/{scheduleName}/pause", operation_id = "pauseSchedule",
    tag = "Schedules", params(AppPath, SchedulePath), responses((status = 204, description = "Paused")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("schedule.pause"))))]
async fn pause_schedule(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<SchedulePath>,
) -> Result<StatusCode, Problem> {
    let message = PauseSchedule {
        schedule_name: path.schedule_name,
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resume a schedule
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/schedules/{scheduleName}/resume", operation_id = "resumeSchedule",
    tag = "Schedules", params(AppPath, SchedulePath), responses((status = 204, description = "Resumed")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("schedule.resume"))))]
async fn resume_schedule(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<SchedulePath>,
) -> Result<StatusCode, Problem> {
    let message = ResumeSchedule {
        schedule_name: path.schedule_name,
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a run of a schedule now
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/schedules/{scheduleName}/trigger", operation_id = "triggerSchedule",
    tag = "Schedules", params(AppPath, SchedulePath),
    responses((status = 201, description = "Started", body = TriggerOutputBody,
        headers(("Location" = String, description = "Path of the workflow")))),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("schedule.trigger"))))]
async fn trigger_schedule(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<SchedulePath>,
) -> Result<Created<TriggerOutputBody>, Problem> {
    let message = TriggerSchedule {
        schedule_name: path.schedule_name,
    };
    let answer = forward::write(&state.hub, &app, &message, false).await?;
    let workflow_id = answer
        .workflow_id
        .ok_or_else(|| forward::bad_gateway("the executor did not tell the id of the workflow"))?;
    Ok(Created {
        location: location(&caller, &app, &workflow_id),
        object: TriggerOutputBody { workflow_id },
    })
}

/// Refuses a window with more firings than an executor can be asked to make up for.
fn bounded(schedule: ScheduleRecord, body: &BackfillInputBody) -> Result<(), Problem> {
    let window = (body.start_time.ms(), body.end_time.ms());
    let expression = schedule.schedule.unwrap_or_default();
    let zone = schedule.cron_timezone.as_deref();
    let found = match firings::count(&expression, zone, window, firings::MOST) {
        Ok(found) => found,
        // No schedule fires more often than every second.
        Err(reason) => {
            let seconds = usize::try_from((window.1 - window.0) / 1000).unwrap_or(usize::MAX);
            if seconds > firings::MOST {
                return Err(Problem::bad_request(format!(
                    "the firings of `{}` cannot be counted, for {reason}; backfill at most {} seconds at a time",
                    schedule.schedule_name,
                    firings::MOST
                )));
            }
            seconds
        }
    };
    if found > firings::MOST {
        return Err(Problem::bad_request(format!(
            "`{}` fires more than {} times between startTime and endTime; backfill a shorter window at a time",
            schedule.schedule_name,
            firings::MOST
        )));
    }
    Ok(())
}

/// Start a run for every firing in a window
///
/// At most 10,000 firings at a time, counted from the schedule's cron expression and time zone.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/schedules/{scheduleName}/backfill", operation_id = "backfillSchedule",
    tag = "Schedules", params(AppPath, SchedulePath), request_body = BackfillInputBody,
    responses((status = 200, description = "OK", body = BackfillOutputBody)),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("schedule.backfill"))))]
async fn backfill_schedule(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<SchedulePath>,
    audit: Audit,
    Body(body): Body<BackfillInputBody>,
) -> Result<Object<BackfillOutputBody>, Problem> {
    if body.end_time < body.start_time {
        return Err(Problem::bad_request("endTime must not be before startTime"));
    }
    let message = BackfillSchedule {
        schedule_name: path.schedule_name,
        start: body.start_time.lower_bound(),
        end: body.end_time.upper_bound(),
    };
    let asked = GetSchedule {
        schedule_name: message.schedule_name.clone(),
        load_context: false,
    };
    let schedule = forward::read(&state.hub, &app, &asked).await?.output;
    let schedule = schedule.ok_or_else(|| no_schedule(&message.schedule_name))?;
    bounded(schedule, &body)?;
    audit.detail("start_time", message.start.to_string());
    audit.detail("end_time", message.end.to_string());
    let class = Class::Background(BACKFILL);
    let answer = forward::send(&state.hub, &app, Target::AnyHealthy, &message, class).await?;
    Ok(Object(BackfillOutputBody {
        workflow_ids: answer.workflow_ids,
    }))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_schedules))
        .routes(routes!(get_schedule))
        .routes(routes!(pause_schedule))
        .routes(routes!(resume_schedule))
        .routes(routes!(trigger_schedule))
        .routes(routes!(backfill_schedule))
}
