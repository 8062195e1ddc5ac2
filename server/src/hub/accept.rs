//! The handshake: from a request line to an accepted socket, or to a status and one line of text.
//!
//! The key travels in the path, so this runs before anything that writes paths down, and hands the
//! path on only if it is not one of these.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::penalty::Place;
use super::session::{self, Admitted};
use crate::state::AppState;

/// Middleware that serves `…/websocket/{app}/{key}` under any prefix and lets everything else pass.
/// Must be the outermost layer: what lies inside never sees a key.
pub async fn intercept(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let Some((app, key)) = target(request.uri().path(), upgrade) else {
        return next.run(request).await;
    };
    if request.method() != Method::GET {
        let allow = [(header::ALLOW, "GET")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "executors connect with GET").into_response();
    }
    accept(state, request, app, key).await
}

async fn accept(state: AppState, request: Request, app: String, key: String) -> Response {
    let (mut parts, _) = request.into_parts();
    let metrics = &state.metrics;
    let address = crate::api::source_ip(&state, &parts);
    let place = Place {
        key_hash: hash(&key),
        address,
    };
    if state.shutdown.is_cancelled() {
        metrics.websocket_refused("shutting_down");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
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
    let admission = timeout(deadline, state.auth.websocket(&state.store, &app, &key, peer)).await;
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
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the server's database is slow; try again");
        }
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &state).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            metrics.websocket_refused("no_websocket");
            return rejection.into_response();
        }
    };
    let hub = state.hub.clone();
    let limit = hub.inner.options.max_message;
    let admitted = Admitted {
        app_id: app.id,
        app_name: app.name,
        key_id,
        place,
    };
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| session::serve(hub, admitted, socket))
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
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn hash(key: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
    short
}

/// Application and key of a path `…/websocket/{app}/{key}`: any prefix, repeated slashes, a slash at
/// the end, both segments percent-encoded or not.
fn target(path: &str, upgrade: bool) -> Option<(String, String)> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let first = segments.clone().next();
    let key = segments.next_back()?;
    let app = segments.next_back()?;
    if segments.next_back() != Some("websocket") {
        return None;
    }
    // An application may be called `websocket`: its REST paths are not ours.
    if first == Some("v2") && !upgrade {
        return None;
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
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
        for path in ["/", "/websocket", "/websocket/shop", "/websockets/shop/k", "/v2/orgs/local"] {
            assert_eq!(read(path), None, "{path}");
        }
        assert_eq!(target("/v2/orgs/local/apps/websocket/workflows/w", false), None);
    }
}
