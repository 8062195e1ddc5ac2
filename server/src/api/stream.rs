//! What changes in an application, as it happens: server-sent events for consoles and scripts.
//!
//! Nothing is replayed. Whoever connects, or missed something, reads the lists anew and then follows.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::App;
use super::operations::Operation;
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::{Identity, Permission};
use crate::recovery::machine::Reason;
use crate::recovery::{News, NewsKind};
use crate::state::AppState;
use crate::store::apps::AppRow;
use crate::store::executors::ExecutorState;
use crate::store::operations::OperationRow;
use crate::store::recoveries::RecoveryStatus;

/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How soon a revoked key's stream ends.
const RECHECK: Duration = Duration::from_secs(5);

/// Follow what changes, as server-sent events
///
/// `ready` comes first: from then on nothing is left out, and what was read before may be old. Then
/// `executor` (`executorId`, `appVersion`, `status`: an executor's, or `GONE` when it is forgotten,
/// `unresponsive`, `at`), `recovery` (`recoveryId`, `executorId`, `appVersion`, `status`, `reason`,
/// `pendingWorkflows`, `recoveredBy`, `at`), `operation` (`operationId`, `kind`, `status`: its state,
/// `dryRun`, `counts`, `message`) and `missed` (`count`): the reader was too slow, and reads
/// everything anew. A caller follows at most 32 streams at a time.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/stream", operation_id = "streamChanges",
    tag = "Applications", params(AppPath),
    responses((status = 200, description = "Events, until either side closes", body = String, content_type = "text/event-stream")),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn stream_changes(
    State(state): State<AppState>,
    identity: Identity,
    App(app): App,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = state.streams.enter(&identity).ok_or_else(|| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "this caller follows {} streams already; close one, or share it",
                state.streams.most
            ),
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from(10))
    })?;
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    recheck.reset();
    let ready = json!({"at": Timestamp::from_ms(state.recovery.instance().now())});
    let feed = Feed {
        news: state.recovery.subscribe(),
        operations: state.operations.subscribe(),
        source: identity
            .source_ip
            .parse()
            .unwrap_or(IpAddr::from([0, 0, 0, 0])),
        waiting: VecDeque::from([event("ready", &ready)]),
        state,
        app,
        headers,
        recheck,
        _place: place,
    };
    let events = stream::unfold(feed, Feed::next);
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Proxies that collect answers before passing them on would hold events back.
    let unbuffered = [(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    )];
    Ok((unbuffered, sse).into_response())
}

/// How many streams each caller follows on this instance. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    most: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// One stream among those of its caller, until dropped.
struct Place {
    streams: Streams,
    caller: String,
}

impl Streams {
    /// So many for each caller, at most.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without authentication everybody is one subject: the address tells them apart.
    fn enter(&self, caller: &Identity) -> Option<Place> {
        let caller = format!("{} {}", caller.subject.id, caller.source_ip);
        let mut open = self.open();
        let count = open.entry(caller.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place {
            streams: self.clone(),
            caller,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

/// One reader.
struct Feed {
    state: AppState,
    app: AppRow,
    headers: HeaderMap,
    source: IpAddr,
    news: broadcast::Receiver<News>,
    operations: broadcast::Receiver<OperationRow>,
    waiting: VecDeque<Event>,
    recheck: Interval,
    _place: Place,
}

impl Feed {
    /// The next event, or the end: the server stops, the application is gone, or the caller may no
    /// longer read it.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let shutdown = self.state.shutdown.clone();
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((Ok(event), self));
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                _ = self.recheck.tick() => {
                    if !self.may_read().await {
                        return None;
                    }
                }
                news = self.news.recv() => match news {
                    Ok(news) if news.kind == NewsKind::Missed => self.waiting.push_back(missed(1)),
                    Ok(news) if news.app_id == self.app.id => self.waiting.extend(told(&news)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => self.waiting.push_back(missed(count)),
                    Err(RecvError::Closed) => return None,
                },
                changed = self.operations.recv() => match changed {
                    Ok(row) if row.wanted.app_id == self.app.id => self.waiting.push_back(operation(row)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => self.waiting.push_back(missed(count)),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    /// Keys are revoked and applications deleted while somebody reads. A store that is away is no
    /// reason to end.
    async fn may_read(&self) -> bool {
        let state = &self.state;
        match state.store.app_by_id(&self.app.id).await {
            Ok(None) => return false,
            Ok(Some(_)) => {}
            Err(_) => return true,
        }
        let identity = state
            .auth
            .identify(&state.store, &self.headers, self.source)
            .await;
        match identity {
            Ok(identity) => identity.caller.is_some_and(|caller| {
                caller.org.id == self.app.org_id
                    && caller.permissions.contains(Permission::ApplicationRead)
                    && caller.scope.covers(&self.app.id)
            }),
            Err(problem) => problem.status() == StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(data)
}

fn missed(count: u64) -> Event {
    event("missed", &json!({"count": count}))
}

fn operation(row: OperationRow) -> Event {
    let operation = Operation::from(row);
    let data = json!({"operationId": operation.id, "kind": operation.kind, "status": operation.state,
        "dryRun": operation.dry_run, "counts": operation.counts, "message": operation.message});
    event("operation", &data)
}

/// The events that a piece of news makes.
fn told(news: &News) -> impl Iterator<Item = Event> {
    let with = |mut members: Value| {
        members["at"] = json!(Timestamp::from_ms(news.at));
        members["executorId"] = json!(news.executor_id);
        members["appVersion"] = json!(news.app_version);
        members
    };
    let executor = of_executor(&news.kind).map(|members| event("executor", &with(members)));
    let recovery = of_recovery(&news.kind).map(|members| event("recovery", &with(members)));
    executor.into_iter().chain(recovery)
}

fn of_executor(kind: &NewsKind) -> Option<Value> {
    let status = match kind {
        NewsKind::Connected | NewsKind::Unresponsive | NewsKind::Responsive => {
            json!(ExecutorState::Healthy)
        }
        NewsKind::Disconnected => json!(ExecutorState::Disconnected),
        NewsKind::Dead { .. } => json!(ExecutorState::Dead),
        NewsKind::Recovered { .. }
        | NewsKind::NothingPending { .. }
        | NewsKind::Abandoned { .. } => json!("GONE"),
        NewsKind::Missed
        | NewsKind::Rejoined { .. }
        | NewsKind::Dispatching { .. }
        | NewsKind::Stranded { .. } => return None,
    };
    Some(json!({"status": status, "unresponsive": *kind == NewsKind::Unresponsive}))
}

fn of_recovery(kind: &NewsKind) -> Option<Value> {
    let record = |id: &str,
                  status,
                  reason: Option<Reason>,
                  pending: Option<i64>,
                  by: Option<&str>| {
        json!({"recoveryId": id, "status": status, "reason": reason, "pendingWorkflows": pending, "recoveredBy": by})
    };
    let plain = |id: &str, status| record(id, status, None, None, None);
    Some(match kind {
        NewsKind::Missed
        | NewsKind::Connected
        | NewsKind::Disconnected
        | NewsKind::Unresponsive
        | NewsKind::Responsive => return None,
        NewsKind::Rejoined { recovery_id } => plain(recovery_id, RecoveryStatus::Rejoined),
        NewsKind::Dead { recovery_id } => plain(recovery_id, RecoveryStatus::Dispatching),
        NewsKind::Dispatching {
            recovery_id,
            pending,
            ..
        } => record(
            recovery_id,
            RecoveryStatus::Dispatching,
            None,
            *pending,
            None,
        ),
        NewsKind::Recovered {
            recovery_id,
            recovered_by,
            pending,
            ..
        } => record(
            recovery_id,
            RecoveryStatus::Recovered,
            None,
            *pending,
            recovered_by.as_deref(),
        ),
        NewsKind::NothingPending { recovery_id } => {
            plain(recovery_id, RecoveryStatus::NothingPending)
        }
        NewsKind::Stranded {
            recovery_id,
            reason,
            pending,
        } => record(
            recovery_id,
            RecoveryStatus::Stranded,
            Some(*reason),
            *pending,
            None,
        ),
        NewsKind::Abandoned { recovery_id } => plain(recovery_id, RecoveryStatus::Abandoned),
    })
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stream_changes))
}
