//! A fake application: executors that answer the protocol from one shared database of workflows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::server::{Api, until};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One workflow of the fake database.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) executor_id: String,
    pub(crate) version: String,
    pub(crate) status: &'static str,
    /// Executors that ran it, in order.
    pub(crate) history: Vec<String>,
    pub(crate) since: Instant,
    pub(crate) forked_from: Option<String>,
}

/// The application's own database.
#[derive(Clone, Default)]
pub(crate) struct Workflows {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    latest: Arc<Mutex<Option<String>>>,
}

/// When every fake workflow was created, epoch milliseconds.
pub(crate) const CREATED: i64 = 1_767_323_045_000;

impl Workflows {
    /// `count` workflows that run on an executor.
    pub(crate) fn running(&self, count: usize, executor_id: &str, version: &str) {
        let mut rows = self.rows.lock().unwrap();
        for n in 0..count {
            let id = format!("{executor_id}-{version}-{n}");
            rows.insert(id, row(executor_id, version, None));
        }
    }

    /// `count` workflows on a queue, or before it, with a version or none.
    pub(crate) fn waiting(&self, count: usize, status: &'static str, version: Option<&str>) {
        let mut rows = self.rows.lock().unwrap();
        for n in 0..count {
            let version = version.unwrap_or_default();
            let waiting = Row {
                status,
                ..row("", version, None)
            };
            rows.insert(format!("{status}-{version}-{n}"), waiting);
        }
    }

    /// Makes a version the latest; otherwise everybody says that their own is.
    pub(crate) fn latest(&self, version: &str) {
        *self.latest.lock().unwrap() = Some(version.to_owned());
    }

    /// Every workflow of a version ends.
    pub(crate) fn end_all(&self, version: &str) {
        let mut rows = self.rows.lock().unwrap();
        for row in rows.values_mut().filter(|row| row.version == version) {
            row.status = "SUCCESS";
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Row> {
        self.rows.lock().unwrap().clone()
    }

    /// How many are pending under an executor.
    pub(crate) fn pending(&self, executor_id: &str, version: &str) -> usize {
        let is_its = |row: &&Row| {
            row.status == "PENDING" && row.executor_id == executor_id && row.version == version
        };
        self.rows.lock().unwrap().values().filter(is_its).count()
    }

    /// What an executor does with `recovery`: takes what is pending under the ids and its own version.
    fn recover(&self, ids: &[Value], own_id: &str, own_version: &str) {
        for row in self.rows.lock().unwrap().values_mut() {
            let asked = ids.iter().any(|id| *id == row.executor_id.as_str());
            if asked && row.version == own_version && row.status == "PENDING" {
                row.executor_id = own_id.to_owned();
                row.history.push(own_id.to_owned());
                row.since = Instant::now();
            }
        }
    }

    fn matching(&self, body: &Value) -> Vec<(String, Row)> {
        let wants = |name: &str, value: &str| match body.get(name).and_then(Value::as_array) {
            Some(list) => list.iter().any(|item| item == value),
            None => true,
        };
        let mut found = self.all().into_iter().collect::<Vec<_>>();
        found.retain(|(id, row)| {
            wants("workflow_uuids", id)
                && wants("status", row.status)
                && wants("executor_id", &row.executor_id)
                && wants("app_version", &row.version)
                && wants("application_version", &row.version)
        });
        found
    }

    /// Answers a message as an executor with this id and version would.
    pub(crate) fn answer(&self, request: &Value, own_id: &str, own_version: &str) -> Value {
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        match request["type"].as_str().unwrap() {
            "exist_pending_workflows" => {
                json!({"exist": self.pending(text("executor_id"), text("application_version")) > 0})
            }
            "recovery" => {
                self.recover(
                    request["executor_ids"].as_array().unwrap(),
                    own_id,
                    own_version,
                );
                json!({"success": true})
            }
            "get_workflow_aggregates" => self.aggregates(&request["body"]),
            "list_workflows" => {
                let record = |(id, row): (String, Row)| {
                    json!({"WorkflowUUID": id, "Status": row.status, "ExecutorID": row.executor_id,
                        "ApplicationVersion": row.version})
                };
                let number = |name: &str| request["body"][name].as_u64().map(|n| n as usize);
                let (offset, limit) = (
                    number("offset").unwrap_or(0),
                    number("limit").unwrap_or(usize::MAX),
                );
                let page = self
                    .matching(&request["body"])
                    .into_iter()
                    .skip(offset)
                    .take(limit);
                json!({"output": page.map(record).collect::<Vec<_>>()})
            }
            "get_workflow" => {
                let found = self.all().remove(text("workflow_id"));
                let record = |row: Row| {
                    json!({"WorkflowUUID": text("workflow_id"), "Status": row.status, "ExecutorID": row.executor_id,
                        "ApplicationVersion": row.version})
                };
                json!({"output": found.map(record)})
            }
            "list_steps" => json!({"output": [{"function_id": 0}, {"function_id": 1}]}),
            "fork_workflow" => self.fork(&request["body"]),
            "cancel" => {
                if let Some(row) = self.rows.lock().unwrap().get_mut(text("workflow_id")) {
                    row.status = "CANCELLED";
                }
                json!({"success": true})
            }
            "resume" => {
                if let Some(row) = self.rows.lock().unwrap().get_mut(text("workflow_id")) {
                    row.status = "ENQUEUED";
                }
                json!({"success": true})
            }
            "delete" => {
                self.rows.lock().unwrap().remove(text("workflow_id"));
                json!({"success": true})
            }
            "list_application_versions" => {
                let latest = self.latest.lock().unwrap().clone();
                let name = latest.unwrap_or_else(|| own_version.to_owned());
                json!({"output": [{"version_id": "1", "version_name": name, "version_timestamp": 1, "created_at": 1}]})
            }
            _ => json!({"error_message": "Unknown message type"}),
        }
    }

    fn aggregates(&self, body: &Value) -> Value {
        let mut groups: BTreeMap<[Option<String>; 3], i64> = BTreeMap::new();
        let by = |member: &str, value: &str| {
            (body[member] == true && !value.is_empty()).then(|| value.to_owned())
        };
        for (_, row) in self.matching(body) {
            let group = [
                by("group_by_executor_id", &row.executor_id),
                by("group_by_application_version", &row.version),
                by("group_by_status", row.status),
            ];
            *groups.entry(group).or_default() += 1;
        }
        let rows = groups.into_iter().map(|([executor_id, version, status], count)| {
            json!({"group": {"executor_id": executor_id, "application_version": version, "status": status},
                "count": count, "min_created_at": CREATED})
        });
        json!({"output": rows.collect::<Vec<_>>()})
    }

    fn fork(&self, body: &Value) -> Value {
        let (id, new) = (
            body["workflow_id"].as_str().unwrap(),
            body["new_workflow_id"].as_str().unwrap(),
        );
        assert_eq!(body["start_step"], 2, "one past the last recorded step");
        let version = body["application_version"].as_str().unwrap();
        let mut rows = self.rows.lock().unwrap();
        if rows.contains_key(new) {
            return json!({"error_message": "conflicting workflow id"});
        }
        rows.insert(
            new.to_owned(),
            Row {
                status: "ENQUEUED",
                ..row("", version, Some(id))
            },
        );
        json!({"new_workflow_id": new})
    }
}

fn row(executor_id: &str, version: &str, forked_from: Option<&str>) -> Row {
    Row {
        executor_id: executor_id.to_owned(),
        version: version.to_owned(),
        status: "PENDING",
        history: vec![executor_id.to_owned()],
        since: Instant::now(),
        forked_from: forked_from.map(str::to_owned),
    }
}

/// What a fake does with a request.
pub(crate) enum Reply {
    /// Answers with these members; `type` and `request_id` are added unless they are given.
    Json(Value),
    /// Sends exactly this.
    Frame(Message),
    /// Never answers.
    Nothing,
    /// Answers as the application would.
    Usual,
}

/// A connected fake executor. Dropping it cuts the connection without a goodbye.
pub(crate) struct Fake {
    pub(crate) id: String,
    requests: watch::Receiver<Vec<Value>>,
    end: watch::Receiver<Option<Option<u16>>>,
    task: JoinHandle<()>,
    send: tokio::sync::mpsc::UnboundedSender<Message>,
}

impl Fake {
    /// Connects an executor that behaves, and waits until the server knows it.
    pub(crate) async fn connect(
        server: &Api,
        app: &str,
        id: &str,
        version: &str,
        workflows: &Workflows,
    ) -> Self {
        let fake = Self::odd(server, app, id, version, workflows, |_| Reply::Usual).await;
        server.until_status(app, id, version, Some("HEALTHY")).await;
        fake
    }

    /// Connects an executor that answers as `behave` says.
    pub(crate) async fn odd(
        server: &Api,
        app: &str,
        id: &str,
        version: &str,
        workflows: &Workflows,
        behave: impl FnMut(&Value) -> Reply + Send + 'static,
    ) -> Self {
        let socket = dial(server.address, &format!("/websocket/{app}/any"))
            .await
            .unwrap();
        Self::serve(socket, id, version, "python", workflows, behave)
    }

    pub(crate) fn serve(
        socket: Socket,
        id: &str,
        version: &str,
        language: &str,
        workflows: &Workflows,
        behave: impl FnMut(&Value) -> Reply + Send + 'static,
    ) -> Self {
        let (sink, stream) = socket.split();
        let (seen, requests) = watch::channel(Vec::new());
        let (ended, end) = watch::channel(None);
        let (send, outgoing) = tokio::sync::mpsc::unbounded_channel();
        let who = Who {
            id: id.to_owned(),
            version: version.to_owned(),
            language: language.to_owned(),
            workflows: workflows.clone(),
        };
        let task = tokio::spawn(async move {
            let code = talk(sink, stream, outgoing, seen, who, behave).await;
            ended.send_replace(Some(code));
        });
        Self {
            id: id.to_owned(),
            requests,
            end,
            task,
            send,
        }
    }

    /// Requests of a type received so far.
    pub(crate) fn received(&self, kind: &str) -> Vec<Value> {
        self.requests
            .borrow()
            .iter()
            .filter(|request| request["type"] == kind)
            .cloned()
            .collect()
    }

    /// Waits for a request of a type.
    pub(crate) async fn asked(&mut self, kind: &str) -> Value {
        let has = |all: &Vec<Value>| all.iter().any(|request| request["type"] == kind);
        let all = tokio::time::timeout(crate::server::SOON, self.requests.wait_for(has)).await;
        let all = all
            .unwrap_or_else(|_| panic!("{} was not asked {kind}", self.id))
            .unwrap();
        all.iter()
            .find(|request| request["type"] == kind)
            .cloned()
            .unwrap()
    }

    /// Sends a frame that nobody asked for.
    pub(crate) fn send(&self, message: Message) {
        self.send.send(message).unwrap();
    }

    /// Waits until the connection is over; the close code, if there was one.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        let ended =
            tokio::time::timeout(crate::server::SOON, self.end.wait_for(Option::is_some)).await;
        ended.expect("the connection did not end").unwrap().unwrap()
    }

    /// Waits until the connection is over, however long that takes.
    pub(crate) async fn closed_at_last(&mut self) {
        // An error: the other end is gone, and the connection with it.
        let _ = self.end.wait_for(Option::is_some).await;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Dies: the socket goes without a close frame.
    pub(crate) async fn die(self) {
        self.task.abort();
        let task = &self.task;
        until("the fake to be gone", async || {
            task.is_finished().then_some(())
        })
        .await;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Who {
    id: String,
    version: String,
    language: String,
    workflows: Workflows,
}

async fn talk(
    mut sink: SplitSink<Socket, Message>,
    mut stream: SplitStream<Socket>,
    mut outgoing: tokio::sync::mpsc::UnboundedReceiver<Message>,
    seen: watch::Sender<Vec<Value>>,
    who: Who,
    mut behave: impl FnMut(&Value) -> Reply,
) -> Option<u16> {
    loop {
        let message = tokio::select! {
            Some(message) = outgoing.recv() => {
                if sink.send(message).await.is_err() {
                    return None;
                }
                continue;
            }
            message = stream.next() => message,
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return None,
        };
        let request: Value = serde_json::from_str(&text).unwrap();
        let reply = behave(&request);
        let answer = match reply {
            Reply::Nothing => None,
            Reply::Frame(frame) => Some(frame),
            Reply::Json(body) => Some(complete(&request, body)),
            Reply::Usual if request["type"] == "executor_info" => Some(complete(
                &request,
                json!({
                    "executor_id": who.id, "application_version": who.version, "hostname": "fake-host",
                    "language": who.language, "dbos_version": "3.2.0", "executor_metadata": {"zone": "b"},
                }),
            )),
            Reply::Usual => Some(complete(
                &request,
                who.workflows.answer(&request, &who.id, &who.version),
            )),
        };
        seen.send_modify(|all| all.push(request));
        if let Some(answer) = answer
            && sink.send(answer).await.is_err()
        {
            return None;
        }
    }
}

/// Adds what every response has.
fn complete(request: &Value, body: Value) -> Message {
    let mut members: Map<String, Value> = body.as_object().unwrap().clone();
    for name in ["type", "request_id"] {
        members.entry(name).or_insert(request[name].clone());
    }
    Message::text(Value::Object(members).to_string())
}

/// Opens a websocket.
pub(crate) async fn dial(address: SocketAddr, path: &str) -> Result<Socket, Error> {
    let request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    let config = WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None);
    tokio_tungstenite::connect_async_with_config(request, Some(config), true)
        .await
        .map(|(socket, _)| socket)
}

/// Dials and is refused: the status and the body.
pub(crate) async fn refused(address: SocketAddr, path: &str) -> (u16, String) {
    match dial(address, path).await {
        Err(Error::Http(response)) => {
            let length: usize = response.headers()["content-length"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let body = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
            assert!(length >= body.len(), "the length is told");
            (response.status().as_u16(), body)
        }
        Err(other) => panic!("refused without an answer: {other}"),
        Ok(_) => panic!("accepted"),
    }
}
