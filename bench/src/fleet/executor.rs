//! One synthetic executor: it dials, answers and redials as the SDK whose language it bears does.
//!
//! What it says is what the official clients put on the wire; how long it waits, for a pong or before
//! it dials again, are their figures too. Only its database is missing, or shrunk to a [`Ledger`]: answers
//! cost it nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use crate::handover::Ledger;

/// Every SDK pings so often.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What the executors of a process did, and how many are connected now.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connected, and asked who they are: the server can use them.
    pub(crate) known: AtomicU64,
    pub(crate) dials: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) answers: AtomicU64,
    /// `recovery` requests: work of the dead that was offered.
    pub(crate) offers: AtomicU64,
}

/// [`Counters`] at a moment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) known: u64,
    pub(crate) dials: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) answers: u64,
    pub(crate) offers: u64,
}

impl Counters {
    pub(crate) fn now(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            known: read(&self.known),
            dials: read(&self.dials),
            refused: read(&self.refused),
            lost: read(&self.lost),
            answers: read(&self.answers),
            offers: read(&self.offers),
        }
    }
}

/// Whom to dial and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    /// The instances: one after the other, as a load balancer would have it.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) source: IpAddr,
    pub(crate) app: String,
    pub(crate) key: String,
}

/// How an SDK behaves on the wire.
#[derive(Clone, Copy, Debug)]
struct Manners {
    language: &'static str,
    sdk_version: &'static str,
    /// For TCP and upgrade together.
    handshake: Duration,
    first_ping: Duration,
    /// Silence after a ping that ends the connection.
    patience: Duration,
    backs_off: bool,
    pongs_twice: bool,
}

/// A fleet speaks all four languages.
const SDKS: [Manners; 4] = [
    Manners {
        language: "python",
        sdk_version: "3.2.0",
        handshake: Duration::from_secs(5),
        first_ping: PING_EVERY,
        patience: Duration::from_secs(20),
        backs_off: false,
        pongs_twice: false,
    },
    Manners {
        language: "typescript",
        sdk_version: "5.2.11",
        handshake: Duration::from_secs(5),
        first_ping: PING_EVERY,
        patience: Duration::from_secs(15),
        backs_off: false,
        pongs_twice: false,
    },
    Manners {
        language: "go",
        sdk_version: "v1.2.0",
        handshake: Duration::from_secs(10),
        first_ping: PING_EVERY,
        patience: Duration::from_secs(10),
        backs_off: true,
        pongs_twice: false,
    },
    Manners {
        language: "java",
        sdk_version: "1.0.0",
        // The real one has no limit; this one must end some day.
        handshake: Duration::from_secs(60),
        first_ping: Duration::ZERO,
        patience: Duration::from_secs(15),
        backs_off: false,
        pongs_twice: true,
    },
];

/// Runs one executor for ever.
pub(crate) async fn run(dial: &Dial, number: usize, counters: &Counters, ledger: Option<&Ledger>) {
    let manners = SDKS[number % SDKS.len()];
    let id = uuid::Uuid::new_v4().to_string();
    let (mut failures, mut turn) = (0, number);
    loop {
        counters.dials.fetch_add(1, Ordering::Relaxed);
        let server = dial.servers[turn % dial.servers.len()];
        turn += 1;
        match timeout(manners.handshake, connect(dial, server)).await {
            Ok(Ok(socket)) => {
                failures = 0;
                let mut session = Session {
                    socket,
                    manners,
                    id: &id,
                    counters,
                    ledger,
                    known: false,
                };
                session.talk().await;
                counters.lost.fetch_add(1, Ordering::Relaxed);
                if session.known {
                    counters.known.fetch_sub(1, Ordering::Relaxed);
                }
                if manners.backs_off {
                    // Go dials at once after an established connection.
                    continue;
                }
            }
            Ok(Err(_)) | Err(_) => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                failures += 1;
            }
        }
        sleep(pause(manners, failures)).await;
    }
}

/// An executor that is going to be lost.
pub(crate) struct Doomed {
    pub(crate) id: String,
    task: JoinHandle<()>,
    leave: Arc<Notify>,
}

impl Doomed {
    /// Connects to the only server of `dial` and serves that one connection.
    pub(crate) fn connect(
        dial: Arc<Dial>,
        number: usize,
        counters: Arc<Counters>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let leave = Arc::new(Notify::new());
        let (own_id, left) = (id.clone(), leave.clone());
        let task = tokio::spawn(async move {
            let server = dial.servers[number % dial.servers.len()];
            let Ok(socket) = connect(&dial, server).await else {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let mut session = Session {
                socket,
                manners: SDKS[number % SDKS.len()],
                id: &own_id,
                counters: &counters,
                ledger: Some(&ledger),
                known: false,
            };
            tokio::select! {
                () = session.talk() => counters.lost.fetch_add(1, Ordering::Relaxed),
                () = left.notified() => {
                    let goodbye = CloseFrame {
                        code: segno_protocol::CLOSE_LEFT.into(),
                        reason: "stopped for good".into(),
                    };
                    let _ = session.socket.close(Some(goodbye)).await;
                    // The server returns the frame.
                    while let Some(Ok(_)) = session.socket.next().await {}
                    0
                }
            };
        });
        Self { id, task, leave }
    }

    /// Its socket ends as the kernel ends those of a killed process: without a word.
    pub(crate) fn die(&self) {
        self.task.abort();
    }

    /// It stops in good order, as our library does.
    pub(crate) fn leave(&self) {
        self.leave.notify_one();
    }
}

/// One second, or Go's doubling to thirty with jitter.
fn pause(manners: Manners, failures: u32) -> Duration {
    if !manners.backs_off {
        return Duration::from_secs(1);
    }
    let seconds = 1 << failures.saturating_sub(1).min(5);
    Duration::from_secs(seconds.min(30)).mul_f64(rand::random_range(0.5..1.5))
}

async fn connect(dial: &Dial, server: SocketAddr) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(dial.source, 0))?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{server}/websocket/{}/{}", dial.app, dial.key);
    let config = WebSocketConfig::default()
        .read_buffer_size(2 << 10)
        .write_buffer_size(0);
    let (socket, _) =
        tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    Ok(socket)
}

struct Session<'a> {
    socket: WebSocketStream<TcpStream>,
    manners: Manners,
    id: &'a str,
    counters: &'a Counters,
    ledger: Option<&'a Ledger>,
    known: bool,
}

impl Session<'_> {
    /// Serves the connection until it ends.
    async fn talk(&mut self) {
        let mut ping_at = Instant::now() + self.manners.first_ping;
        let mut pong_by: Option<Instant> = None;
        loop {
            let wake = pong_by.map_or(ping_at, |by| by.min(ping_at));
            let message = tokio::select! {
                message = self.socket.next() => message,
                () = sleep_until(wake.into()) => {
                    if pong_by.is_some_and(|by| by <= Instant::now()) {
                        return;
                    }
                    ping_at = Instant::now() + PING_EVERY;
                    pong_by.get_or_insert(Instant::now() + self.manners.patience);
                    if self.socket.send(Message::Ping("beat".into())).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let sent = match message {
                Some(Ok(Message::Text(text))) => self.answer(&text).await,
                Some(Ok(Message::Pong(_))) => {
                    pong_by = None;
                    continue;
                }
                // The library has queued a pong; this sends it.
                Some(Ok(Message::Ping(payload))) if self.manners.pongs_twice => {
                    self.socket.send(Message::Pong(payload)).await.is_ok()
                }
                Some(Ok(Message::Ping(_))) => self.socket.flush().await.is_ok(),
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            };
            if !sent {
                return;
            }
        }
    }

    /// Answers a request; `false` if that cannot be done any more.
    async fn answer(&mut self, text: &str) -> bool {
        let began = Instant::now();
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return true;
        };
        let mut answer = self.reply(&request);
        answer["type"] = request["type"].clone();
        answer["request_id"] = request["request_id"].clone();
        if let Some(record) = answer.pointer_mut("/output/Output") {
            // Travels through the relay to whoever measures it.
            *record = began.elapsed().as_micros().to_string().into();
        }
        let sent = self
            .socket
            .send(Message::text(answer.to_string()))
            .await
            .is_ok();
        self.counters.answers.fetch_add(1, Ordering::Relaxed);
        if request["type"] == "executor_info" && !self.known {
            self.known = true;
            self.counters.known.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn reply(&self, request: &Value) -> Value {
        let (manners, ledger) = (self.manners, self.ledger);
        match request["type"].as_str().unwrap_or_default() {
            "executor_info" => json!({
                "executor_id": self.id, "application_version": "v1", "hostname": "bench-host",
                "language": manners.language, "dbos_version": manners.sdk_version,
                "executor_metadata": {"zone": "b"}, "error_message": null,
            }),
            "exist_pending_workflows" => {
                let pending = ledger.map_or(0, |ledger| ledger.pending(&request["executor_id"]));
                json!({"exist": pending > 0, "error_message": null})
            }
            "recovery" => {
                self.counters.offers.fetch_add(1, Ordering::Relaxed);
                if let Some(ledger) = ledger {
                    ledger.take(&request["executor_ids"]);
                }
                json!({"success": true, "error_message": null})
            }
            "get_workflow_aggregates" => {
                let pending = ledger.map_or(0, |ledger| {
                    ledger.pending(&request["body"]["executor_id"][0])
                });
                let row = (pending > 0)
                    .then(|| json!({"group": {"status": "PENDING"}, "count": pending}));
                json!({"output": row.into_iter().collect::<Vec<_>>(), "error_message": null})
            }
            _ => others(request),
        }
    }
}

/// What every executor answers alike.
fn others(request: &Value) -> Value {
    match request["type"].as_str().unwrap_or_default() {
        "cancel" | "resume" | "delete" => json!({"success": true, "error_message": null}),
        "get_workflow" => json!({"output": record(&request["workflow_id"]), "error_message": null}),
        "list_workflows" | "list_queued_workflows" => {
            let limit = request["body"]["limit"].as_u64().unwrap_or(10).min(100);
            let records = (0..limit).map(|n| record(&format!("workflow-{n}").into()));
            json!({"output": records.collect::<Vec<_>>(), "error_message": null})
        }
        "list_steps" => json!({"output": [], "error_message": null}),
        "get_step_aggregates" => json!({"output": [], "error_message": null}),
        "get_metrics" => json!({"metrics": [], "error_message": null}),
        "list_application_versions" => json!({"output": [{"version_id": "1", "version_name": "v1",
            "version_timestamp": 1_767_323_045_000_i64, "created_at": 1_767_323_045_000_i64}], "error_message": null}),
        _ => json!({"error_message": "Unknown message type"}),
    }
}

/// A workflow's record with every member, as Python sends it.
fn record(id: &Value) -> Value {
    json!({
        "WorkflowUUID": id, "Status": "SUCCESS", "WorkflowName": "checkout", "WorkflowClassName": null,
        "WorkflowConfigName": null, "AuthenticatedUser": null, "AssumedRole": null, "AuthenticatedRoles": null,
        "Input": "{'args': (42, 'x'), 'kwargs': {}}", "Output": "0", "Error": null, "CreatedAt": "1767323045678",
        "UpdatedAt": "1767323045901", "QueueName": null, "ApplicationVersion": "v1", "ExecutorID": "bench",
        "WorkflowTimeoutMS": null, "WorkflowDeadlineEpochMS": null, "DeduplicationID": null, "Priority": "0",
        "QueuePartitionKey": null, "ForkedFrom": null, "WasForkedFrom": false, "ParentWorkflowID": null,
        "DequeuedAt": null, "DelayUntilEpochMS": null, "CompletedAt": "1767323045901", "Attributes": null,
        "ScheduleName": null, "ApplicationName": "bench",
    })
}
