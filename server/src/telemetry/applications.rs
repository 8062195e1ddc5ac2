//! What applications do, minute by minute, for `GET /v1/metrics`.
//!
//! The figures come from the application's own database, so they are fetched only when somebody
//! scrapes: by five questions to one executor, once an application and minute, shared by all
//! scrapers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use segno_protocol::{
    AggregateFilter, GetStepAggregates, GetWorkflowAggregates, Message, StepAggregateRow,
    StepAggregates, WireTime, WorkflowAggregateRow, WorkflowAggregates, features,
};

use super::exposition::{Gauges, Sample};
use crate::hub::{Class, Hub, HubError, SessionInfo, Target};
use crate::store::apps::AppRow;

const PREFIX: &str = "dbos_conductor_v1_";
/// A window is a minute of the clock.
const MINUTE: i64 = 60_000;
/// One scrape waits no longer for one application; its figures are there for the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one question to an executor.
const DEADLINE: Duration = Duration::from_secs(20);
/// Executors asked in a minute before the application is given up for that minute.
const ATTEMPTS: usize = 2;
/// Groups taken from one answer: an application that makes up names may not flood the scraper.
const GROUPS: usize = 5_000;

/// One kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Created in the window, a second.
    WorkflowStarted,
    /// Taken from a queue in the window, a second.
    WorkflowDequeued,
    /// Ended well in the window, a second.
    WorkflowSuccess,
    /// Ended badly in the window, a second.
    WorkflowFailed,
    /// Cancelled in the window, a second.
    WorkflowCancelled,
    /// On a queue now.
    WorkflowEnqueued,
    /// Running now.
    WorkflowPending,
    /// Creation of the oldest on a queue.
    WorkflowOldestEnqueued,
    /// Creation of the oldest running.
    WorkflowOldestPending,
    /// Longest time on a queue, of those that ended well in the window.
    WorkflowMaxQueueWait,
    /// Longest time from creation to end, of those that ended well in the window.
    WorkflowMaxTotalLatency,
    /// Steps that ended well in the window, a second.
    StepSuccess,
    /// Steps that ended badly in the window, a second.
    StepFailed,
    /// Longest step that ended well in the window.
    StepMaxDuration,
    /// Executors now, as the server sees them.
    ExecutorCount,
}

/// How values of one series join, and what they mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A count of the window; shown a second.
    Rate,
    /// The largest of the window, milliseconds; shown in seconds.
    Longest,
    /// A count of now.
    Count,
    /// The smallest of now, epoch milliseconds; shown in seconds.
    Oldest,
}

impl Family {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 15] = [
        Self::WorkflowStarted,
        Self::WorkflowDequeued,
        Self::WorkflowSuccess,
        Self::WorkflowFailed,
        Self::WorkflowCancelled,
        Self::WorkflowEnqueued,
        Self::WorkflowPending,
        Self::WorkflowOldestEnqueued,
        Self::WorkflowOldestPending,
        Self::WorkflowMaxQueueWait,
        Self::WorkflowMaxTotalLatency,
        Self::StepSuccess,
        Self::StepFailed,
        Self::StepMaxDuration,
        Self::ExecutorCount,
    ];

    /// The full name.
    pub fn name(self) -> String {
        format!("{PREFIX}{}", self.about().0)
    }

    fn kind(self) -> Kind {
        self.about().1
    }

    fn about(self) -> (&'static str, Kind, &'static str) {
        use Kind::{Count, Longest, Oldest, Rate};
        match self {
            Self::WorkflowStarted => (
                "workflow_started_rate",
                Rate,
                "Workflows created per second, over the last full minute",
            ),
            Self::WorkflowDequeued => (
                "workflow_dequeued_rate",
                Rate,
                "Workflows taken from a queue per second, over the last full minute",
            ),
            Self::WorkflowSuccess => (
                "workflow_success_rate",
                Rate,
                "Workflows that succeeded per second, over the last full minute",
            ),
            Self::WorkflowFailed => (
                "workflow_failed_rate",
                Rate,
                "Workflows that failed per second, over the last full minute",
            ),
            Self::WorkflowCancelled => (
                "workflow_cancelled_rate",
                Rate,
                "Workflows cancelled per second, over the last full minute",
            ),
            Self::WorkflowEnqueued => (
                "workflow_enqueued_count",
                Count,
                "Workflows waiting on a queue",
            ),
            Self::WorkflowPending => ("workflow_pending_count", Count, "Workflows running"),
            Self::WorkflowOldestEnqueued => (
                "workflow_oldest_enqueued_timestamp_seconds",
                Oldest,
                "Creation time of the oldest workflow waiting on a queue",
            ),
            Self::WorkflowOldestPending => (
                "workflow_oldest_pending_timestamp_seconds",
                Oldest,
                "Creation time of the oldest workflow running",
            ),
            Self::WorkflowMaxQueueWait => (
                "workflow_max_queue_wait_seconds",
                Longest,
                "Longest time on a queue of workflows that succeeded in the last full minute",
            ),
            Self::WorkflowMaxTotalLatency => (
                "workflow_max_total_latency_seconds",
                Longest,
                "Longest time from creation to end of workflows that succeeded in the last full minute",
            ),
            Self::StepSuccess => (
                "step_success_rate",
                Rate,
                "Steps that succeeded per second, over the last full minute",
            ),
            Self::StepFailed => (
                "step_failed_rate",
                Rate,
                "Steps that failed per second, over the last full minute",
            ),
            Self::StepMaxDuration => (
                "step_max_duration_seconds",
                Longest,
                "Longest step that succeeded in the last full minute",
            ),
            Self::ExecutorCount => (
                "executor_count",
                Count,
                "Executors, by status and application version",
            ),
        }
    }

    /// A family of these samples.
    pub fn with(self, samples: Vec<Sample>) -> Gauges {
        Gauges {
            name: self.name(),
            help: self.about().2,
            samples,
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// The figures of one application and minute.
#[derive(Debug, Default)]
pub struct Figures {
    /// End of the window, epoch milliseconds.
    end: i64,
    values: BTreeMap<(Family, Labels), i64>,
}

impl Figures {
    fn add(&mut self, family: Family, labels: Labels, value: Option<i64>) {
        let Some(value) = value else { return };
        let joined = self
            .values
            .entry((family, labels))
            .or_insert(match family.kind() {
                Kind::Rate | Kind::Count => 0,
                Kind::Longest => i64::MIN,
                Kind::Oldest => i64::MAX,
            });
        *joined = match family.kind() {
            Kind::Rate | Kind::Count => joined.saturating_add(value),
            Kind::Longest => value.max(*joined),
            Kind::Oldest => value.min(*joined),
        };
    }

    /// The samples, without the label `application`.
    pub fn samples(&self) -> impl Iterator<Item = (Family, Sample)> {
        self.values.iter().map(|((family, labels), value)| {
            let value = *value as f64;
            let (value, at) = match family.kind() {
                Kind::Rate => (value * 1000.0 / MINUTE as f64, Some(self.end)),
                Kind::Longest => (value / 1000.0, Some(self.end)),
                Kind::Count => (value, None),
                Kind::Oldest => (value / 1000.0, None),
            };
            let labels = labels.clone();
            (*family, Sample { labels, value, at })
        })
    }
}

type Fetching = Shared<BoxFuture<'static, Arc<Figures>>>;

/// Fetches figures, and keeps those of the current minute. Cheap to clone.
#[derive(Clone, Default)]
pub struct Applications {
    minutes: Arc<Mutex<HashMap<String, (i64, Fetching)>>>,
}

impl Applications {
    /// The figures of an application for the last full minute before `now` (epoch milliseconds).
    /// `None`: nobody is there to ask, or there is no answer yet.
    pub async fn figures(&self, hub: &Hub, app: &AppRow, now: i64) -> Option<Arc<Figures>> {
        let candidates = candidates(hub, app).await;
        if candidates.is_empty() {
            return None;
        }
        let fetching = self.fetching(hub, app, candidates, now - now.rem_euclid(MINUTE));
        tokio::time::timeout(PATIENCE, fetching).await.ok()
    }

    /// What is being, or was, fetched for that minute. It goes on when no scraper waits any more.
    fn fetching(&self, hub: &Hub, app: &AppRow, candidates: Vec<Target>, end: i64) -> Fetching {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, fetching)) = minutes.get(&app.id)
            && *of == end
        {
            return fetching.clone();
        }
        minutes.retain(|_, (of, _)| *of >= end - MINUTE);
        let (hub, asked) = (hub.clone(), app.clone());
        let task = tokio::spawn(async move { fetch(&hub, &asked, candidates, end).await });
        let fetching = async move { Arc::new(task.await.unwrap_or_default()) }
            .boxed()
            .shared();
        minutes.insert(app.id.clone(), (end, fetching.clone()));
        fetching
    }
}

/// Executors that know both questions, the best first.
async fn candidates(hub: &Hub, app: &AppRow) -> Vec<Target> {
    let knows = |session: &SessionInfo| {
        let language = session.language.as_deref().unwrap_or_default();
        let release = session.sdk_version.as_deref().unwrap_or_default();
        ["get_workflow_aggregates", "get_step_aggregates"]
            .iter()
            .all(|message| features::supports(language, release, message) != Some(false))
    };
    let mut sessions = hub.everywhere(&app.id).await;
    sessions.retain(knows);
    sessions.sort_by_key(|session| (session.unresponsive_for.is_some(), session.outstanding));
    let target = |session: SessionInfo| Target::Executor {
        id: session.executor_id,
        version: session.version,
    };
    sessions.into_iter().map(target).take(ATTEMPTS).collect()
}

/// Asks one executor, and another one if that fails. An application that cannot answer has no figures.
async fn fetch(hub: &Hub, app: &AppRow, candidates: Vec<Target>, end: i64) -> Figures {
    for target in candidates {
        match ask(hub, app, &target, end).await {
            Ok(figures) => return figures,
            Err(error) => {
                tracing::warn!(app = app.name, %error, "an executor gave no metrics for the minute");
            }
        }
    }
    Figures::default()
}

async fn ask(hub: &Hub, app: &AppRow, target: &Target, end: i64) -> Result<Figures, HubError> {
    let questions = Questions {
        hub,
        app,
        target,
        // Executors compare with their bounds inclusively.
        window: (Some(WireTime(end - MINUTE)), Some(WireTime(end - 1))),
    };
    let mut figures = Figures {
        end,
        ..Figures::default()
    };
    for row in questions.started().await? {
        figures.add(Family::WorkflowStarted, queue_labels(&row), row.count);
    }
    for row in questions.dequeued().await? {
        // Some SDKs note a start of those too that were never on a queue.
        if !value(&row.group, "queue_name").is_empty() {
            figures.add(Family::WorkflowDequeued, queue_labels(&row), row.count);
        }
    }
    for row in questions.ended().await? {
        outcome(&mut figures, &row);
    }
    for row in questions.active().await? {
        now(&mut figures, &row);
    }
    for row in questions.steps().await? {
        step(&mut figures, &row);
    }
    Ok(figures)
}

/// The five questions to one executor, about its application and one window.
struct Questions<'a> {
    hub: &'a Hub,
    app: &'a AppRow,
    target: &'a Target,
    window: (Option<WireTime>, Option<WireTime>),
}

impl Questions<'_> {
    async fn send<M: Message>(&self, message: &M) -> Result<M::Response, HubError> {
        let class = Class::Background(DEADLINE);
        let (app, target) = (self.app, self.target.clone());
        self.hub.request(app, target, message, class).await
    }

    /// Counts by name and queue.
    async fn workflows(
        &self,
        filter: AggregateFilter,
        more: WorkflowAggregates,
    ) -> Result<Vec<WorkflowAggregateRow>, HubError> {
        let body = WorkflowAggregates {
            group_by_name: true,
            group_by_queue_name: true,
            select_count: true,
            filter: AggregateFilter {
                application_name: vec![self.app.name.clone()],
                ..filter
            },
            ..more
        };
        let mut rows = self.send(&GetWorkflowAggregates { body }).await?.output;
        rows.truncate(GROUPS);
        Ok(rows)
    }

    async fn started(&self) -> Result<Vec<WorkflowAggregateRow>, HubError> {
        let filter = AggregateFilter {
            start_time: self.window.0,
            end_time: self.window.1,
            ..AggregateFilter::default()
        };
        self.workflows(filter, WorkflowAggregates::default()).await
    }

    async fn dequeued(&self) -> Result<Vec<WorkflowAggregateRow>, HubError> {
        let filter = AggregateFilter {
            dequeued_after: self.window.0,
            dequeued_before: self.window.1,
            ..AggregateFilter::default()
        };
        self.workflows(filter, WorkflowAggregates::default()).await
    }

    async fn ended(&self) -> Result<Vec<WorkflowAggregateRow>, HubError> {
        let outcomes = [
            "SUCCESS",
            "ERROR",
            "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
            "CANCELLED",
        ];
        let filter = AggregateFilter {
            status: outcomes.map(str::to_owned).to_vec(),
            completed_after: self.window.0,
            completed_before: self.window.1,
            ..AggregateFilter::default()
        };
        let more = WorkflowAggregates {
            group_by_status: true,
            select_max_queue_wait_ms: true,
            select_max_total_latency_ms: true,
            ..WorkflowAggregates::default()
        };
        self.workflows(filter, more).await
    }

    async fn active(&self) -> Result<Vec<WorkflowAggregateRow>, HubError> {
        let filter = AggregateFilter {
            status: ["ENQUEUED", "PENDING"].map(str::to_owned).to_vec(),
            ..AggregateFilter::default()
        };
        let more = WorkflowAggregates {
            group_by_status: true,
            select_min_created_at: true,
            ..WorkflowAggregates::default()
        };
        self.workflows(filter, more).await
    }

    async fn steps(&self) -> Result<Vec<StepAggregateRow>, HubError> {
        let body = StepAggregates {
            group_by_function_name: true,
            group_by_status: true,
            select_count: true,
            select_max_duration_ms: true,
            application_name: vec![self.app.name.clone()],
            completed_after: self.window.0,
            completed_before: self.window.1,
            ..StepAggregates::default()
        };
        let mut rows = self.send(&GetStepAggregates { body }).await?.output;
        rows.truncate(GROUPS);
        Ok(rows)
    }
}

fn step(figures: &mut Figures, row: &StepAggregateRow) {
    let labels = vec![("step_name", value(&row.group, "function_name"))];
    if value(&row.group, "status") == "SUCCESS" {
        figures.add(Family::StepSuccess, labels.clone(), row.count);
        figures.add(Family::StepMaxDuration, labels, row.max_duration_ms);
    } else {
        figures.add(Family::StepFailed, labels, row.count);
    }
}

fn outcome(figures: &mut Figures, row: &WorkflowAggregateRow) {
    let labels = queue_labels(row);
    match value(&row.group, "status").as_str() {
        "SUCCESS" => {
            figures.add(Family::WorkflowSuccess, labels.clone(), row.count);
            figures.add(
                Family::WorkflowMaxQueueWait,
                labels.clone(),
                row.max_queue_wait_ms,
            );
            figures.add(
                Family::WorkflowMaxTotalLatency,
                labels,
                row.max_total_latency_ms,
            );
        }
        "ERROR" | "MAX_RECOVERY_ATTEMPTS_EXCEEDED" => {
            figures.add(Family::WorkflowFailed, labels, row.count);
        }
        "CANCELLED" => figures.add(Family::WorkflowCancelled, labels, row.count),
        _ => {}
    }
}

fn now(figures: &mut Figures, row: &WorkflowAggregateRow) {
    match value(&row.group, "status").as_str() {
        "ENQUEUED" => {
            figures.add(Family::WorkflowEnqueued, queue_labels(row), row.count);
            figures.add(
                Family::WorkflowOldestEnqueued,
                queue_labels(row),
                row.min_created_at,
            );
        }
        "PENDING" => {
            let labels = vec![("workflow_name", value(&row.group, "name"))];
            figures.add(Family::WorkflowPending, labels.clone(), row.count);
            figures.add(Family::WorkflowOldestPending, labels, row.min_created_at);
        }
        _ => {}
    }
}

/// A value of the group; empty if there is none.
fn value(group: &BTreeMap<String, Option<String>>, name: &str) -> String {
    group.get(name).cloned().flatten().unwrap_or_default()
}

fn queue_labels(row: &WorkflowAggregateRow) -> Labels {
    vec![
        ("workflow_name", value(&row.group, "name")),
        ("queue_name", value(&row.group, "queue_name")),
    ]
}
