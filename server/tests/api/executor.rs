//! An executor that answers what a test tells it to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::server::TestServer;

type Answers = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// Waits until `holds` says so.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    if tokio::time::timeout(limit, waiting).await.is_err() {
        panic!("not in time: {what}");
    }
}

/// A connected executor; it leaves when dropped.
pub(crate) struct FakeExecutor {
    task: JoinHandle<()>,
    id: String,
    /// Every request but `executor_info`, without its id.
    pub(crate) requests: Arc<Mutex<Vec<Value>>>,
    closed: mpsc::Receiver<()>,
    /// While it is set, nothing is read and nothing answered.
    pub(crate) silent: Arc<AtomicBool>,
}

impl FakeExecutor {
    /// Connects as an executor of `app` that runs `version`, and waits until the server knows it.
    /// `answers` makes the members of an answer from a request.
    pub(crate) async fn connect(
        server: &TestServer,
        app: &str,
        key: &str,
        version: &str,
        answers: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self::of_release(server, app, key, version, ("python", "3.2.0"), answers).await
    }

    /// The same, of another SDK and release.
    pub(crate) async fn of_release(
        server: &TestServer,
        app: &str,
        key: &str,
        version: &str,
        release: (&'static str, &'static str),
        answers: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let executor = Self::dial(server, app, key, version, release, answers).await;
        until("the executor is listed", async || {
            let path = format!("/v2/orgs/local/apps/{app}/executors");
            let listed = server.get(&path).await.expect(200).json;
            let mut rows = listed.as_array().unwrap().iter();
            rows.any(|row| row["executorId"] == executor.id && row["status"] == "HEALTHY")
        })
        .await;
        executor
    }

    /// Connects, and does not wait until the server knows it.
    pub(crate) async fn dial(
        server: &TestServer,
        app: &str,
        key: &str,
        version: &str,
        release: (&'static str, &'static str),
        answers: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let url = format!(
            "{}/conductor/v1alpha1/websocket/{app}/{key}",
            server.base.replace("http://", "ws://")
        );
        let (socket, _) = connect_async(url).await.unwrap();
        let (mut sink, mut stream) = socket.split();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen): (Answers, _) = (Arc::new(answers), requests.clone());
        let (close, closed) = mpsc::channel(1);
        let (id, version) = (format!("fake-{}", uuid::Uuid::new_v4()), version.to_owned());
        let known = id.clone();
        let silent = Arc::new(AtomicBool::new(false));
        let quiet = silent.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let Message::Text(text) = message else {
                    continue;
                };
                let request: Value = serde_json::from_str(&text).unwrap();
                while quiet.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                let mut answer = if request["type"] == "executor_info" {
                    json!({"executor_id": id, "application_version": version, "hostname": "fake", "language": release.0,
                        "dbos_version": release.1})
                } else {
                    let mut plain = request.clone();
                    plain.as_object_mut().unwrap().remove("request_id");
                    seen.lock().unwrap().push(plain);
                    answers(&request)
                };
                answer["type"] = request["type"].clone();
                answer["request_id"] = request["request_id"].clone();
                if sink.send(Message::text(answer.to_string())).await.is_err() {
                    break;
                }
            }
            close.send(()).await.ok();
        });
        Self {
            task,
            id: known,
            requests,
            closed,
            silent,
        }
    }

    /// The requests so far of one type.
    pub(crate) fn of_type(&self, kind: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request["type"] == kind)
            .cloned()
            .collect()
    }

    /// Waits until the server closes the connection.
    pub(crate) async fn closed(&mut self) {
        let closed = tokio::time::timeout(std::time::Duration::from_secs(10), self.closed.recv());
        closed.await.expect("the server closes the connection");
    }
}

impl Drop for FakeExecutor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
