//! Health, readiness and the server's own metrics.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Kind, Problem};
use crate::state::AppState;

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
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Routes that need no credential and are not in the document.
pub(super) fn open_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}
