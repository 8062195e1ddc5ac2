//! Requests to executors whose socket another instance holds: passed on to that instance, once.
//!
//! What travels is the executor's message, not the caller's REST request: whoever asks an executor
//! anything, a handler, a recovery, a periodic job, an operation, does it through
//! [`Hub::request`](crate::hub::Hub::request) and need not know where the socket is. Who is calling,
//! the audit entry and the first answer for an `Idempotency-Key` stay with the instance that was asked.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use futures_util::StreamExt;
use segno_protocol::Request as Catalogue;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Peers;
use super::letter::{Distrust, digest};
use crate::hub::{Class, HubError, Relayed, Target};
use crate::state::AppState;
use crate::store::peers::PeerRow;

const PATH: &str = "/cluster/request";
/// The other instance keeps the deadline; this is for one that does not answer.
const SLACK: Duration = Duration::from_millis(500);

/// What an executor is to be asked, by another instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) app_id: String,
    pub(crate) app_name: String,
    pub(crate) target: Target,
    /// The message's type.
    pub(crate) message: String,
    pub(crate) class: Class,
    /// For everything, milliseconds.
    pub(crate) within_ms: u64,
}

/// Why another instance gave no answer.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    /// It was surely not reached.
    Unreached,
    /// It was reached, and the connection ended.
    Lost,
    /// It did not answer in time.
    TimedOut,
    /// Its answer was larger than a message may be.
    TooLarge,
    /// It has no answer either. `last`: nobody else may be asked.
    Failed { error: HubError, last: bool },
}

#[derive(Serialize, Deserialize)]
struct Failed {
    error: Fault,
    last: bool,
}

/// [`HubError`] on the wire.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Fault {
    NoExecutor,
    NoExecutorOfVersion {
        version: String,
    },
    NoAnswer {
        tried: usize,
        reason: String,
        /// An older release does not tell; then it may be.
        #[serde(default = "unknown")]
        may_be_done: bool,
    },
    Remote {
        message: String,
    },
    UnknownMessage {
        message: String,
        language: String,
        sdk_version: String,
    },
    TooLarge {
        limit: usize,
    },
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        match error {
            HubError::NoExecutor => Self::NoExecutor,
            HubError::NoExecutorOfVersion(version) => Self::NoExecutorOfVersion { version },
            HubError::NoAnswer {
                tried,
                reason,
                may_be_done,
            } => Self::NoAnswer {
                tried,
                reason,
                may_be_done,
            },
            HubError::Remote { message } => Self::Remote { message },
            HubError::UnknownMessage {
                r#type,
                language,
                sdk_version,
            } => Self::UnknownMessage {
                message: r#type.to_owned(),
                language,
                sdk_version,
            },
            HubError::TooLarge { limit } => Self::TooLarge { limit },
        }
    }
}

impl From<Fault> for HubError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoExecutor => Self::NoExecutor,
            Fault::NoExecutorOfVersion { version } => Self::NoExecutorOfVersion(version),
            Fault::NoAnswer {
                tried,
                reason,
                may_be_done,
            } => Self::NoAnswer {
                tried,
                reason,
                may_be_done,
            },
            Fault::Remote { message } => Self::Remote { message },
            Fault::UnknownMessage {
                message,
                language,
                sdk_version,
            } => Self::UnknownMessage {
                r#type: known(&message).unwrap_or("of another release"),
                language,
                sdk_version,
            },
            Fault::TooLarge { limit } => Self::TooLarge { limit },
        }
    }
}

fn unknown() -> bool {
    true
}

fn known(message: &str) -> Option<&'static str> {
    Catalogue::TYPES
        .iter()
        .copied()
        .find(|known| *known == message)
}

impl Peers {
    /// Has another instance put `text`, a message without a request id, to an executor of its own.
    pub(crate) async fn ask(
        &self,
        peer: &PeerRow,
        order: &Order,
        text: String,
        largest: usize,
    ) -> Result<Utf8Bytes, Unanswered> {
        let within = Duration::from_millis(order.within_ms) + SLACK;
        timeout(within, self.exchange(peer, order, text, largest))
            .await
            .unwrap_or(Err(Unanswered::TimedOut))
    }

    async fn exchange(
        &self,
        peer: &PeerRow,
        order: &Order,
        text: String,
        largest: usize,
    ) -> Result<Utf8Bytes, Unanswered> {
        let now = self.instance().now();
        let headers = self
            .post()
            .write(&peer.id, PATH, now, order, text.as_bytes())
            .ok_or(Unanswered::Unreached)?;
        let sent = self
            .client()
            .post(self.url(peer, PATH))
            .headers(headers)
            .body(text)
            .send()
            .await;
        let response = sent.map_err(|error| {
            tracing::debug!(peer = %peer.address, %error, "an instance cannot be reached");
            match error.is_connect() {
                true => Unanswered::Unreached,
                false => Unanswered::Lost,
            }
        })?;
        let status = response.status();
        let limit = if status == StatusCode::OK {
            largest
        } else {
            1 << 20
        };
        let body = collect(response, limit).await?;
        match status {
            StatusCode::OK => Utf8Bytes::try_from(body).map_err(|_| Unanswered::Lost),
            StatusCode::BAD_GATEWAY => {
                let failed: Failed = serde_json::from_slice(&body).map_err(|_| Unanswered::Lost)?;
                Err(Unanswered::Failed {
                    error: failed.error.into(),
                    last: failed.last,
                })
            }
            StatusCode::INTERNAL_SERVER_ERROR => Err(Unanswered::Lost),
            // Refused before anything was done.
            _ => {
                tracing::warn!(
                    peer = %peer.address, %status,
                    "an instance does not take requests of this one: do all advertise addresses of their own, \
                     and reach each other there?"
                );
                Err(Unanswered::Unreached)
            }
        }
    }
}

/// The body, piece by piece, as long as it is not too large.
async fn collect(response: reqwest::Response, largest: usize) -> Result<Bytes, Unanswered> {
    let length = response.content_length().unwrap_or(0);
    if usize::try_from(length).unwrap_or(usize::MAX) > largest {
        return Err(Unanswered::TooLarge);
    }
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Unanswered::Lost)?;
        if body.len() + piece.len() > largest {
            return Err(Unanswered::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Bytes::from(body))
}

/// For other instances; everybody else is refused.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route(PATH, routing::post(serve))
}

async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let began = Instant::now();
    let peers = &state.peers;
    let read = peers
        .post()
        .read::<Order>(PATH, &parts.headers, peers.instance().now());
    let (order, expected) = match read {
        Ok(read) => read,
        Err(distrust) => return refuse(distrust),
    };
    if state.shutdown.is_cancelled() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(message) = known(&order.message) else {
        // A newer release asks for what this one does not know; another instance may.
        return StatusCode::NOT_IMPLEMENTED.into_response();
    };
    let until = began + Duration::from_millis(order.within_ms);
    let limit = state.hub.max_message();
    let Ok(Ok(body)) = timeout_at(until, axum::body::to_bytes(body, limit)).await else {
        return StatusCode::REQUEST_TIMEOUT.into_response();
    };
    let text = String::from_utf8(body.to_vec()).ok();
    let relayed = text
        .filter(|_| digest(&body) == expected)
        .and_then(|text| Relayed::new(message, text));
    let Some(relayed) = relayed else {
        return refuse(Distrust::Unsigned);
    };
    let answer = state.hub.relay(&order, &relayed, until.into_std()).await;
    match answer {
        Ok(text) => {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/json"),
            );
            (headers, Body::from(Bytes::from(text))).into_response()
        }
        Err((error, last)) => {
            let failed = Failed {
                error: error.into(),
                last,
            };
            (StatusCode::BAD_GATEWAY, Json(failed)).into_response()
        }
    }
}

pub(super) fn refuse(distrust: Distrust) -> Response {
    let status = match distrust {
        Distrust::Unsigned | Distrust::Stale => StatusCode::UNAUTHORIZED,
        Distrust::Misdirected => StatusCode::MISDIRECTED_REQUEST,
    };
    (status, distrust.to_string()).into_response()
}
