//! What happens at one instance is told to the others as it happens, over one connection for each
//! pair and direction: for streams of changes, and so that nobody waits for the next look at the store.
//!
//! It only makes things faster. What must not be missed is in the store, and looked for there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Peers;
use super::forward::refuse;
use crate::recovery::News;
use crate::state::AppState;
use crate::store::operations::OperationRow;
use crate::store::peers::PeerRow;
use crate::{operations, recovery};

const PATH: &str = "/cluster/news";
/// Silence after which a line shows that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Silence after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(7);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(250);
/// Longest line.
const LINE: usize = 64 << 10;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Something happened to an executor.
    News(News),
    /// An operation changed; how it stands is in the store.
    Operation { app_id: String, id: String },
    /// The listener was too slow, and missed something.
    Missed,
    /// Nothing happened.
    Alive,
}

/// For other instances; everybody else is refused.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route(PATH, routing::get(tell))
}

async fn tell(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let peers = &state.peers;
    let now = peers.instance().now();
    if let Err(distrust) = peers.post().read::<()>(PATH, &headers, now) {
        return refuse(distrust);
    }
    let told = Told {
        news: state.recovery.subscribe_own(),
        operations: state.operations.subscribe_own(),
        shutdown: state.shutdown.clone(),
    };
    let lines = stream::unfold(told, Told::next);
    (StatusCode::OK, Body::from_stream(lines)).into_response()
}

/// What one listener is told.
struct Told {
    news: broadcast::Receiver<News>,
    operations: broadcast::Receiver<OperationRow>,
    shutdown: CancellationToken,
}

impl Told {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let line = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            news = self.news.recv() => match news {
                Ok(news) => Line::News(news),
                Err(RecvError::Lagged(_)) => Line::Missed,
                Err(RecvError::Closed) => return None,
            },
            changed = self.operations.recv() => match changed {
                Ok(row) => Line::Operation { app_id: row.wanted.app_id, id: row.wanted.id },
                Err(RecvError::Lagged(_)) => Line::Missed,
                Err(RecvError::Closed) => return None,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => Line::Alive,
        };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok(Bytes::from(text)), self))
    }
}

/// Listens to every other instance until `shutdown`.
pub(crate) async fn follow(
    peers: Peers,
    recovery: recovery::Handle,
    operations: operations::Handle,
    shutdown: CancellationToken,
) {
    let mut followed: HashMap<String, JoinHandle<()>> = HashMap::new();
    while !shutdown.is_cancelled() {
        let alive = peers.alive();
        followed.retain(|id, task| {
            let stays = alive.iter().any(|peer| peer.id == *id);
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in alive {
            followed.entry(peer.id.clone()).or_insert_with(|| {
                let listener = Listener {
                    peers: peers.clone(),
                    peer,
                    recovery: recovery.clone(),
                    operations: operations.clone(),
                };
                tokio::spawn(listener.listen_forever())
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    for task in followed.into_values() {
        task.abort();
    }
}

/// Listens to one other instance.
struct Listener {
    peers: Peers,
    peer: PeerRow,
    recovery: recovery::Handle,
    operations: operations::Handle,
}

/// How listening ended.
enum Ended {
    /// Nothing listens at the address.
    Refused,
    /// The connection was there and broke.
    Broken,
    /// Anything else.
    Failed,
}

impl Listener {
    async fn listen_forever(self) {
        let mut met = false;
        loop {
            match self.listen().await {
                Ended::Broken => {
                    met = true;
                    // What happened meanwhile nobody told us.
                    self.recovery.missed();
                    tokio::time::sleep(AGAIN / 5).await;
                }
                // It was there, and now nothing listens where it was: its process is gone.
                Ended::Refused if met => {
                    self.presume_gone().await;
                    tokio::time::sleep(AGAIN).await;
                }
                Ended::Refused | Ended::Failed => tokio::time::sleep(AGAIN * 4).await,
            }
        }
    }

    async fn listen(&self) -> Ended {
        let now = self.peers.instance().now();
        let Some(headers) = self.peers.post().write(&self.peer.id, PATH, now, (), b"") else {
            return Ended::Failed;
        };
        let asked = self
            .peers
            .client()
            .get(self.peers.url(&self.peer, PATH))
            .headers(headers)
            .send();
        let response = match timeout(SILENCE, asked).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => response,
            Ok(Ok(response)) => {
                let (address, status) = (&self.peer.address, response.status());
                tracing::debug!(%address, %status, "another instance does not talk to this one");
                return Ended::Failed;
            }
            Ok(Err(error)) if is_refused(&error) => return Ended::Refused,
            Ok(Err(_)) | Err(_) => return Ended::Failed,
        };
        // From here on nothing is missed; before, something may have been.
        self.recovery.missed();
        let mut pieces = response.bytes_stream();
        let mut text = Vec::new();
        while let Ok(Some(Ok(piece))) = timeout(SILENCE, pieces.next()).await {
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                self.hear(&line).await;
            }
            if text.len() > LINE {
                break;
            }
        }
        Ended::Broken
    }

    async fn hear(&self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Line::News(news)) => self.recovery.heard(news),
            Ok(Line::Operation { app_id, id }) => self.operations.heard(&app_id, &id).await,
            Ok(Line::Missed) => self.recovery.missed(),
            Ok(Line::Alive) => {}
            // A newer release has more to tell.
            Err(error) => tracing::debug!(%error, "news that this version cannot read"),
        }
    }

    async fn presume_gone(&self) {
        let Ok(alive) = self.peers.look().await else {
            return;
        };
        let Some(row) = alive.into_iter().find(|row| row.id == self.peer.id) else {
            return;
        };
        match self
            .peers
            .store()
            .presume_gone(&row.id, row.heartbeat_at)
            .await
        {
            Ok(true) => {
                tracing::warn!(
                    address = %row.address, instance = %row.id,
                    "nothing listens any more where another instance was: it is gone"
                );
                self.recovery.look_now();
                // Not to be looked up as alive, and not to be asked.
                let _ = self.peers.look().await;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "an instance that is gone cannot be written down")
            }
        }
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}
