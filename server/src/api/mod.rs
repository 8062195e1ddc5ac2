//! HTTP in, HTTP out: one file per resource. Extract, call one service function, map. No SQL, no
//! websocket.
//!
//! Each file offers `router()` with its operations. A handler is an ordinary axum handler with a
//! `#[utoipa::path]` that declares, besides the usual, `x-segno-permission` and, unless it is a GET,
//! `x-segno-audit` (see [`gate`]). It takes what it needs from [`extract`] (`App`, `Path`, `Query`,
//! `Body`, [`Caller`](crate::auth::Caller), [`Audit`]) and returns `Result<_, Problem>`.
//! Parameters and bodies are checked against the document's schemas before the handler runs, so
//! limits belong into the `#[param]` and `#[schema]` attributes.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

pub mod aggregates;
pub mod alerting;
pub mod alerts;
pub mod apps;
pub mod audit;
pub mod audit_log;
pub mod autoscaling;
pub mod bulk;
pub mod channels;
pub mod deployments;
pub mod executors;
pub mod explain;
mod explain_queue;
pub mod extract;
pub mod filter;
pub mod forward;
pub mod gate;
mod idempotency;
pub mod legacy;
pub mod metrics;
pub mod openapi;
pub mod operations;
pub mod path;
pub mod problem;
pub mod queues;
pub mod recoveries;
pub mod schedules;
pub mod session;
pub mod steps;
pub mod stream;
pub mod system;
pub mod time;
pub mod tokens;
mod validate;
pub mod versions;
pub mod views;
pub mod workflows;

pub use audit::Audit;
pub use gate::Undeclared;
pub use problem::Problem;

/// Every operation of the document.
fn operations() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(apps::router())
        .merge(tokens::router())
        .merge(executors::router())
        .merge(recoveries::router())
        .merge(versions::router())
        .merge(deployments::router())
        .merge(workflows::router())
        .merge(views::router())
        .merge(explain::router())
        .merge(bulk::router())
        .merge(operations::router())
        .merge(aggregates::router())
        .merge(steps::router())
        .merge(stream::router())
        .merge(queues::router())
        .merge(autoscaling::router())
        .merge(alerting::router())
        .merge(alerts::router())
        .merge(channels::router())
        .merge(metrics::router())
        .merge(schedules::router())
        .merge(audit_log::router())
        .merge(session::router())
        .merge(legacy::router())
        .merge(system::router())
}

/// The API: all operations behind the gate, the document, health. Fails if a route does not declare
/// what it needs.
pub fn router(state: &AppState) -> Result<Router<AppState>, Undeclared> {
    let (router, api) = operations().split_for_parts();
    let document = openapi::finish(serde_json::to_value(api).unwrap_or_default());
    let operations = Arc::new(gate::Operations::of(&document)?);
    Ok(router
        .route_layer(from_fn_with_state((state.clone(), operations), gate::gate))
        .merge(openapi::routes(Arc::new(openapi::published(document))))
        .merge(system::open_routes())
        .merge(session::open_routes())
        .method_not_allowed_fallback(method_not_allowed))
}

async fn method_not_allowed() -> impl IntoResponse {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take this method; the header Allow names those that it takes",
    )
}
