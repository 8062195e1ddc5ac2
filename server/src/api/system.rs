//! Health, readiness, the server's own metrics, and what an operator must know of the installation.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Object;
use super::path::OrgPath;
use super::problem::{Kind, Problem};
use super::time::Timestamp;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::apps::AppRow;
use crate::store::executors::ExecutorState;
use crate::store::system::{InstanceRow, LeaseRow};

/// The server's own metrics, in the Prometheus text format
#[utoipa::path(get, path = "/metrics", operation_id = "getServerMetrics", tag = "Metrics",
    responses((status = 200, description = "OK", body = String, content_type = "text/plain")),
    extensions(("x-segno-permission" = json!("metric.read")), ("x-segno-extension" = json!(true))))]
async fn metrics(State(state): State<AppState>) -> Response {
    let (mut outstanding, mut unresponsive) = (0, 0);
    for session in state.hub.connected() {
        let (waiting, silent) = session.depth();
        outstanding += waiting;
        unresponsive += usize::from(silent);
    }
    state.metrics.executors_now(outstanding, unresponsive);
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// The installation: which instances serve, who does what, and which SDKs were seen.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// Version of the server that answered
    pub version: &'static str,
    /// Id of the instance that answered
    pub instance_id: String,
    /// Its own database: Postgres or SQLite
    pub database: &'static str,
    /// The schema's version in that database
    pub schema_version: i64,
    /// The newest schema version that the server knows
    pub known_schema_version: i64,
    /// Every instance heard of in the last day
    pub instances: Vec<Instance>,
    /// Work that one instance holds now
    pub leases: Vec<Lease>,
    /// SDK releases of the executors that are known, by language and version
    pub sdks: Vec<Sdk>,
}

/// An instance of the server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its id, new with every start
    pub id: String,
    /// Where peers reach it
    pub address: String,
    /// Whether it counts as alive
    pub alive: bool,
    /// Since when it serves
    pub serving_since: Timestamp,
    /// When it was last heard of
    pub heartbeat_at: Timestamp,
    /// When it stopped in good order
    #[schema(required = true)]
    pub stopped_at: Option<Timestamp>,
    /// Executors connected to it, of all organizations
    pub executors: i64,
}

/// Work on an application that one instance holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The application
    pub app_name: String,
    /// What it is: a periodic job, `recovery` or `operation`
    pub work: String,
    /// Which executor or operation it is about
    #[schema(required = true)]
    pub subject: Option<String>,
    /// Id of the instance
    pub instance_id: String,
    /// Until when, unless it is renewed
    pub until: Timestamp,
}

/// A release of an SDK.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sdk {
    /// Its language
    #[schema(required = true)]
    pub language: Option<String>,
    /// Its version
    #[schema(required = true)]
    pub version: Option<String>,
    /// How many executors of it are connected
    pub connected: i64,
    /// The applications that use it
    pub app_names: Vec<String>,
}

/// Describe the installation
///
/// Leases and SDKs are those of the applications that the caller may read.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/system", operation_id = "getSystem", tag = "System", params(OrgPath),
    responses((status = 200, description = "OK", body = System)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn system(State(state): State<AppState>, caller: Caller) -> Result<Object<System>, Problem> {
    let store = &state.store;
    let mut apps = store.apps(&caller.org.id).await?;
    apps.retain(|app| caller.scope.covers(&app.id));
    let own = state.recovery.instance();
    let (now, expiry) = (own.now(), own.expiry_ms());
    let (schema_version, known_schema_version) = store.schema().await?;
    let instances = store.instances().await?;
    let leases = store.leases(&caller.org.id).await?;
    Ok(Object(System {
        version: env!("CARGO_PKG_VERSION"),
        instance_id: own.id().to_owned(),
        database: store.engine(),
        schema_version,
        known_schema_version,
        instances: instances
            .into_iter()
            .map(|row| instance(row, now - expiry))
            .collect(),
        leases: leases
            .into_iter()
            .filter_map(|row| lease(&apps, row))
            .collect(),
        sdks: sdks(&state, &apps).await?,
    }))
}

fn instance(row: InstanceRow, silent_before: i64) -> Instance {
    Instance {
        alive: row.stopped_at.is_none() && row.heartbeat_at > silent_before,
        id: row.id,
        address: row.address,
        serving_since: Timestamp::from_ms(row.serving_since),
        heartbeat_at: Timestamp::from_ms(row.heartbeat_at),
        stopped_at: row.stopped_at.map(Timestamp::from_ms),
        executors: row.executors,
    }
}

/// `None` for an application that the caller may not read.
fn lease(apps: &[AppRow], row: LeaseRow) -> Option<Lease> {
    let app = apps.iter().find(|app| app.id == row.app_id)?;
    Some(Lease {
        app_name: app.name.clone(),
        work: row.work,
        subject: row.subject,
        instance_id: row.holder,
        until: Timestamp::from_ms(row.until),
    })
}

async fn sdks(state: &AppState, apps: &[AppRow]) -> Result<Vec<Sdk>, Problem> {
    type Release = (Option<String>, Option<String>);
    let mut releases: BTreeMap<Release, (i64, BTreeSet<&str>)> = BTreeMap::new();
    for app in apps {
        for row in state.store.executors(&app.id).await? {
            let (connected, names) = releases.entry((row.language, row.sdk_version)).or_default();
            *connected += i64::from(row.state == ExecutorState::Healthy);
            names.insert(&app.name);
        }
    }
    let sdk = |((language, version), (connected, names)): (Release, (i64, BTreeSet<&str>))| Sdk {
        language,
        version,
        connected,
        app_names: names.into_iter().map(str::to_owned).collect(),
    };
    Ok(releases.into_iter().map(sdk).collect())
}

/// Alive: the process answers.
async fn healthz() -> Response {
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        "ok\n",
    )
        .into_response()
}

/// Ready: the store answers and nobody asked the server to stop.
async fn readyz(State(state): State<AppState>) -> Result<Response, Problem> {
    if state.shutdown.is_cancelled() {
        return Err(Problem::unavailable(
            Kind::ShuttingDown,
            "the server is shutting down",
            5,
        ));
    }
    state.store.ping().await?;
    Ok((
        StatusCode::OK,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        "ready\n",
    )
        .into_response())
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(system))
}

/// Routes that need no credential and are not in the document.
pub(super) fn open_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}
