//! What every HTTP request passes: its connection, prefixes, request ids, the access log, panics.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header, uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::api;
use crate::state::AppState;

pub mod connections;
mod prefix;
pub mod tls;
mod unread;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id taken over from the client.
const LONGEST_ID: usize = 128;

/// The whole application: API, executors' websocket, console.
pub fn router(state: AppState) -> Result<Router, api::Undeclared> {
    Ok(api::router(&state)?
        .merge(crate::hub::routes())
        .merge(crate::cluster::routes())
        .fallback(fallback)
        .layer(from_fn(prefix::restore))
        .layer(from_fn(unread::announce_close))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), observe))
        .with_state(state))
}

/// Makes the forms of one path alike before the router sees it: the managed product's prefix
/// `/conductor`, and repeated or trailing slashes and leading segments before `/websocket/`.
pub fn normalize_path(mut request: Request) -> Request {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    if let Some(path) = normalized(request.method(), request.uri().path(), upgrade) {
        let mut parts = request.uri().clone().into_parts();
        let with_query = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        if let Ok(path) = uri::PathAndQuery::try_from(with_query) {
            parts.path_and_query = Some(path);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

fn normalized(method: &Method, path: &str, upgrade: bool) -> Option<String> {
    if let Some(path) = crate::hub::canonical_path(path, upgrade) {
        return Some(path);
    }
    let stripped = match path.strip_prefix("/conductor") {
        Some("") => Some("/"),
        Some(rest) if rest.starts_with('/') => Some(rest),
        _ => None,
    };
    workflow_named_like_an_action(method, stripped.unwrap_or(path))
        .or_else(|| stripped.map(str::to_owned))
}

/// `GET …/workflows/search` is about the workflow `search`: only POST searches. The router prefers the
/// word whatever the method, so the id is spelled in a way that only an id can be.
fn workflow_named_like_an_action(method: &Method, path: &str) -> Option<String> {
    if method == Method::POST {
        return None;
    }
    let (parent, id) = path.rsplit_once('/')?;
    let is_action = matches!(id, "search" | "import" | "aggregates") || id.starts_with("bulk-");
    if !is_action || !parent.ends_with("/workflows") {
        return None;
    }
    let (first, rest) = id.split_at(1);
    Some(format!("{parent}/%{:02X}{rest}", first.as_bytes()[0]))
}

/// Paths of the API that do not exist are problems; everything else is the console's.
async fn fallback(State(state): State<AppState>, request: Request) -> Response {
    let path = request.uri().path();
    let is_api = ["/v2", "/v1", "/v1alpha1", "/websocket"]
        .iter()
        .any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    if is_api {
        return api::Problem::not_found("there is no such path in this server's API; see /docs")
            .into_response();
    }
    let oidc = state.auth.oidc();
    let reached = oidc
        .map(|issuer| issuer.browser_origins())
        .unwrap_or_default();
    crate::console::serve(&request, &reached)
}

fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    // The panic hook has logged the message and the place.
    api::Problem::internal(&"a handler panicked").into_response()
}

/// Request id, metrics and access log. The path of an executor's connection holds its key, so it is
/// never written anywhere.
async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let path = loggable(request.uri().path());
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0);
    let mut response = next.run(request).await;

    let took = started.elapsed();
    let status = response.status().as_u16();
    let operation = response
        .extensions()
        .get::<api::gate::OperationId>()
        .map(|id| id.0.clone());
    let operation = operation.as_deref().unwrap_or_else(|| fixed_route(&path));
    state.metrics.http(operation, status, took);
    tracing::info!(
        target: "segno_server::access",
        %method,
        %path,
        status,
        ms = took.as_millis() as u64,
        peer = peer.map(|peer| peer.to_string()),
        request_id = id.to_str().unwrap_or_default(),
        "{operation}"
    );
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The client's request id if it is harmless, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|value| {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=LONGEST_ID).contains(&value.len()) && value.as_bytes().iter().all(harmless)
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string())
            .unwrap_or(HeaderValue::from_static("none"))
    })
}

/// The path without what may be a key: everything after `websocket`, in any spelling.
fn loggable(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8_lossy()
        .to_ascii_lowercase();
    if decoded.contains("websocket") || decoded.contains("dbos_") {
        "/websocket/(hidden)".to_owned()
    } else {
        path.to_owned()
    }
}

fn fixed_route(path: &str) -> &'static str {
    match path {
        "/websocket/(hidden)" => "websocket",
        "/healthz" => "healthz",
        "/readyz" => "readyz",
        "/cluster/request" | "/cluster/news" => "cluster",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_form_of_the_websocket_path_becomes_one() {
        for path in [
            "/websocket/shop/k",
            "/conductor/v1alpha1/websocket/shop/k",
            "//websocket//shop/k/",
            "/a/b/websocket/shop/k",
        ] {
            assert_eq!(
                normalized(&Method::GET, path, true).unwrap(),
                "/websocket/shop/k",
                "{path}"
            );
        }
    }

    #[test]
    fn the_managed_prefix_is_optional() {
        assert_eq!(
            normalized(&Method::GET, "/conductor/v2/orgs/local/apps", false).unwrap(),
            "/v2/orgs/local/apps"
        );
        assert_eq!(normalized(&Method::GET, "/v2/orgs/local/apps", false), None);
        assert_eq!(normalized(&Method::GET, "/conductors/v2", false), None);
        assert_eq!(normalized(&Method::GET, "/conductor", false).unwrap(), "/");
    }

    #[test]
    fn a_workflow_may_be_named_like_an_action() {
        let shop = "/v2/orgs/local/apps/shop/workflows";
        let get = |id: &str| normalized(&Method::GET, &format!("{shop}/{id}"), false);
        assert_eq!(get("search").unwrap(), format!("{shop}/%73earch"));
        assert_eq!(get("bulk-cancel").unwrap(), format!("{shop}/%62ulk-cancel"));
        assert_eq!(get("other"), None);
        assert_eq!(
            normalized(&Method::POST, &format!("{shop}/search"), false),
            None
        );
    }

    #[test]
    fn keys_are_not_logged() {
        for path in [
            "/websocket/shop/secret",
            "/x/websocket/shop/secret/more",
            "/%77ebsocket/shop/secret",
            "/v2/dbos_secret",
        ] {
            assert!(!loggable(path).contains("secret"), "{path}");
        }
        assert_eq!(loggable("/v2/orgs/local/apps"), "/v2/orgs/local/apps");
    }
}
