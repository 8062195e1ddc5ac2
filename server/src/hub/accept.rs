//! The handshake: from a request line to an accepted socket, or to a status and one line of text.
//!
//! The key travels in the path: it is never logged, and dropped as soon as it was looked up.

use std::net::IpAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::penalty::Place;
use super::session::{self, Admitted};
use crate::state::AppState;

/// `GET /websocket/{app}/{key}`. Prefixes and superfluous slashes are taken off by
/// [`canonical_path`] before the router looks.
pub fn routes() -> Router<AppState> {
    Router::new().route("/websocket/{app}/{key}", get(connect))
}

async fn connect(State(state): State<AppState>, request: Request) -> Response {
    match target(request.uri().path(), true) {
        Some((app, key)) => accept(state, request, app, key).await,
        None => refuse(
            StatusCode::BAD_REQUEST,
            "the application or key in the path is not UTF-8",
        ),
    }
}

/// The path `/websocket/{app}/{key}` of any path an executor may dial: with any prefix, with repeated
/// slashes, with one at the end. `None` for every other path.
///
/// `upgrade`: whether the request asks for a websocket. Only then a path under `/v2` is one, for an
/// application may be called `websocket`.
pub fn canonical_path(path: &str, upgrade: bool) -> Option<String> {
    let (app, key) = segments(path, upgrade)?;
    Some(format!("/websocket/{app}/{key}"))
}

async fn accept(state: AppState, request: Request, app: String, key: String) -> Response {
    let (mut parts, _) = request.into_parts();
    let metrics = &state.metrics;
    let address = crate::api::gate::source_ip(&state, &parts);
    let place = Place {
        key_hash: hash(&key),
        address,
    };
    if state.shutdown.is_cancelled() {
        metrics.websocket_refused("shutting_down");
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server is shutting down",
        );
    }
    if state.hub.inner.penalties.is_refused(&place, Instant::now()) {
        metrics.websocket_refused("penalty");
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "a connection from here was refused moments ago (see the server's log); try again later",
        );
    }
    let deadline = state.hub.inner.options.handshake_deadline;
    let peer = (!address.is_unspecified()).then_some(address);
    let admission = timeout(
        deadline,
        state.auth.websocket(&state.store, &app, &key, peer),
    )
    .await;
    drop(key);
    let (app, key_id) = match admission {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(reject)) => {
            metrics.websocket_refused(reject.reason());
            note_refusal(&app, address, &reject.to_string());
            return reject.into_response();
        }
        Err(_) => {
            metrics.websocket_refused("unavailable");
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server's database is slow; try again",
            );
        }
    };
    let Some((on_upgrade, accept_key)) = upgrade(&mut parts) else {
        metrics.websocket_refused("no_websocket");
        let offer = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
        ];
        return (
            StatusCode::UPGRADE_REQUIRED,
            offer,
            "executors connect by a websocket",
        )
            .into_response();
    };
    let hub = state.hub.clone();
    let admitted = Admitted {
        app_id: app.id,
        app_name: app.name,
        key_id,
        place,
    };
    tokio::spawn(async move {
        // A dialler that is gone before its answer needs nothing more.
        if let Ok(upgraded) = on_upgrade.await {
            session::serve(hub, admitted, upgraded).await;
        }
    });
    let switching = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept_key),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, switching).into_response()
}

/// What a websocket handshake needs (RFC 6455, 4.2.1); `None` if it is none. Extensions, compression
/// among them, are declined by not being mentioned. A body's length is no obstacle: Java sends one.
fn upgrade(parts: &mut Parts) -> Option<(OnUpgrade, HeaderValue)> {
    let has = |name: HeaderName, word: &str| {
        let values = parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let is_websocket = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY)?;
    let accept_key = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    // HTTP/2 has none.
    let on_upgrade = parts.extensions.remove::<OnUpgrade>()?;
    is_websocket.then_some((on_upgrade, accept_key))
}

/// The application's name comes from outside and may be anything: shown shortened and escaped. Every
/// executor dials once a second for ever, so this is not a warning.
fn note_refusal(app: &str, address: IpAddr, reason: &str) {
    let app: String = app.chars().take(64).collect();
    tracing::debug!(?app, %address, reason, "refused an executor's connection");
}

/// A status and a short text with a length: a body that is not UTF-8, or has no end, stops some SDKs
/// for good.
fn refuse(status: StatusCode, text: &'static str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response()
}

fn hash(key: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
    short
}

/// Application and key of a path, as they are written in it.
fn segments(path: &str, upgrade: bool) -> Option<(&str, &str)> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let first = segments.clone().find(|segment| *segment != "conductor");
    let key = segments.next_back()?;
    let app = segments.next_back()?;
    let is_dial = segments.next_back() == Some("websocket") && (first != Some("v2") || upgrade);
    is_dial.then_some((app, key))
}

/// Application and key of a path, decoded.
fn target(path: &str, upgrade: bool) -> Option<(String, String)> {
    let (app, key) = segments(path, upgrade)?;
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(|text| text.into_owned())
    };
    Some((decode(app)?, decode(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Option<(String, String)> {
        target(path, true)
    }

    fn pair(app: &str, key: &str) -> Option<(String, String)> {
        Some((app.to_owned(), key.to_owned()))
    }

    #[test]
    fn any_prefix_and_any_number_of_slashes_will_do() {
        for path in [
            "/websocket/shop/k",
            "//websocket/shop/k",
            "/websocket/shop/k/",
            "/conductor/v1alpha1/websocket/shop/k",
            "/conductor-api//websocket//shop//k/",
            "/websocket/websocket/shop/k",
        ] {
            assert_eq!(read(path), pair("shop", "k"), "{path}");
        }
    }

    #[test]
    fn segments_are_percent_decoded() {
        assert_eq!(read("/websocket/my%20shop/k%2Fy"), pair("my shop", "k/y"));
        assert_eq!(read("/websocket/%ff/k"), None);
    }

    #[test]
    fn other_paths_pass() {
        for path in [
            "/",
            "/websocket",
            "/websocket/shop",
            "/websockets/shop/k",
            "/v2/orgs/local",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
        assert_eq!(
            canonical_path("/v2/orgs/local/apps/websocket/workflows/w", false),
            None
        );
        assert_eq!(
            canonical_path("/conductor/v2/orgs/local/apps/websocket/workflows/w", false),
            None
        );
        assert_eq!(
            canonical_path("/x/websocket/a/b/", false),
            Some("/websocket/a/b".to_owned())
        );
    }
}
