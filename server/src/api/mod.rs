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
pub mod domains;
pub mod executors;
pub mod explain;
mod explain_queue;
pub mod extract;
pub mod filter;
pub mod forward;
pub mod gate;
mod idempotency;
pub mod legacy;
pub mod members;
pub mod metrics;
pub mod openapi;
pub mod operations;
pub mod orgs;
pub mod path;
pub mod problem;
pub mod queues;
pub mod recoveries;
pub mod roles;
pub mod schedules;
pub mod session;
pub mod steps;
pub mod stream;
pub mod system;
pub mod time;
pub mod tokens;
pub mod users;
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
        .merge(users::router())
        .merge(orgs::router())
        .merge(members::router())
        .merge(roles::router())
        .merge(domains::router())
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
        .merge(open_routes(document))
        .method_not_allowed_fallback(method_not_allowed))
}

/// What needs no credential and is not in the document.
fn open_routes(document: serde_json::Value) -> Router<AppState> {
    Router::new()
        .merge(openapi::routes(Arc::new(openapi::published(document))))
        .merge(system::open_routes())
        .merge(session::open_routes())
}

async fn method_not_allowed() -> impl IntoResponse {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take this method; the header Allow names those that it takes",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use regex::Regex;

    use super::*;

    /// Method and path of every route. axum has no other way to list them than how it shows a router.
    fn walk(router: &Router<AppState>) -> BTreeSet<(String, String)> {
        let shown = format!("{router:?}");
        // What follows is for paths that do not exist; its routes are counted from 0 again.
        let (shown, _) = shown.split_once("fallback_router").unwrap();
        let path = Regex::new(r#"RouteId\((\d+)\): "([^"]+)""#).unwrap();
        let methods =
            Regex::new(r#"RouteId\((\d+)\): MethodRouter.*?allow_header: Bytes\(b"([A-Z,]+)"\)"#);
        let paths: std::collections::HashMap<&str, &str> = path
            .captures_iter(shown)
            .map(|found| found.extract())
            .map(|(_, [id, path])| (id, path))
            .collect();
        let mut routes = BTreeSet::new();
        for (_, [id, allowed]) in methods
            .unwrap()
            .captures_iter(shown)
            .map(|found| found.extract())
        {
            for method in allowed.split(',').filter(|method| *method != "HEAD") {
                routes.insert((method.to_owned(), paths[id].to_owned()));
            }
        }
        assert!(
            paths
                .values()
                .all(|path| routes.iter().any(|(_, known)| known == path))
        );
        routes
    }

    /// A route that nobody declared is not served: it is neither an operation of the document, which
    /// the gate guards, nor one of the few that need no credential.
    #[test]
    fn every_route_is_declared_or_known_to_be_open() {
        let (router, api) = operations().split_for_parts();
        let mut document = openapi::finish(serde_json::to_value(api).unwrap());
        gate::Operations::of(&document).unwrap();
        let mut declared = BTreeSet::new();
        openapi::each_operation(&mut document, |method, path, _| {
            declared.insert((method.to_uppercase(), path.to_owned()));
        });
        assert!(declared.len() > 75, "{}", declared.len());
        assert_eq!(walk(&router), declared);

        let open = walk(&open_routes(document));
        let open: BTreeSet<&str> = open.iter().map(|(_, path)| path.as_str()).collect();
        let known = [
            "/console/session-config",
            "/docs",
            "/healthz",
            "/openapi-3.0.json",
            "/openapi-3.0.yaml",
            "/openapi.json",
            "/openapi.yaml",
            "/readyz",
            "/schemas/{file}",
            "/v2/openapi-3.0.json",
            "/v2/openapi.json",
        ];
        assert_eq!(open, known.into());
    }

    #[test]
    fn an_undeclared_route_is_found() {
        let sneaky = Router::new().route("/v2/sneaky", axum::routing::post(async || "done"));
        let all = walk(&operations().split_for_parts().0.merge(sneaky));
        assert!(all.contains(&("POST".to_owned(), "/v2/sneaky".to_owned())));
    }
}
