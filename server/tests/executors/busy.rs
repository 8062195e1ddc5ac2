//! An executor that is busy is not dead: the Python client as it behaves under load.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{Socket, Workflows, dial};
use crate::server::{Database, Server, until};

const LIST: &str = "/apps/shop/workflows/w/steps";

/// More unhandled messages, and the client stops reading: no pong leaves it, no ping of its own is answered.
const FULL: usize = 16;
/// It reads on when so few are left.
const RESUMES: usize = 4;

/// Handles one message after the other, as Python's client does; the first `list_steps` takes `busy`.
async fn python(mut socket: Socket, workflows: Workflows, busy: Duration) {
    let mut queue: VecDeque<Value> = VecDeque::new();
    let (mut reading, mut worked) = (true, false);
    let mut free_at = Instant::now();
    loop {
        if queue.len() > FULL {
            reading = false;
        } else if queue.len() <= RESUMES {
            reading = true;
        }
        tokio::select! {
            message = socket.next(), if reading => match message {
                Some(Ok(Message::Text(text))) => queue.push_back(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_))) => socket.flush().await.unwrap(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            () = tokio::time::sleep_until(free_at.into()), if !queue.is_empty() => {
                if !worked && queue[0]["type"] == "list_steps" {
                    // It begins with this one now, and is at it for a while.
                    worked = true;
                    free_at = Instant::now() + busy;
                    continue;
                }
                let request = queue.pop_front().unwrap();
                let mut answer = match request["type"].as_str().unwrap() {
                    "executor_info" => json!({"executor_id": "busy", "application_version": "v1",
                        "hostname": "fake-host", "language": "python", "dbos_version": "3.2.0"}),
                    _ => workflows.answer(&request, "busy", "v1"),
                };
                answer["type"] = request["type"].clone();
                answer["request_id"] = request["request_id"].clone();
                if socket.send(Message::text(answer.to_string())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// It is asked for far more than it bears while it is at something long: it keeps its connection, is shown as
/// one that does not answer, and is never taken for lost.
#[tokio::test]
async fn a_busy_python_executor_is_not_taken_for_lost() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.read_deadline = Duration::from_millis(1500);
        config.hub.ping_every = Duration::from_millis(250);
        config.hub.info_deadline = Duration::from_millis(500);
        config.hub.probe_every = Duration::from_millis(500);
    })
    .await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "busy", "v1");
    let socket = dial(server.address, "/websocket/shop/any").await.unwrap();
    let busy = Duration::from_secs(5);
    let client = tokio::spawn(python(socket, workflows.clone(), busy));
    server
        .until_status("shop", "busy", "v1", Some("HEALTHY"))
        .await;

    let began = Instant::now();
    let calls: Vec<_> = (0..60)
        .map(|_| tokio::spawn(server.request(Method::GET, LIST).send()))
        .collect();
    until("it to be shown as one that does not answer", async || {
        let executors = server.get("/apps/shop/executors").await;
        let it = &executors[0];
        assert_eq!(it["status"], "HEALTHY", "{it}");
        it.get("unresponsiveSince").map(|_| ())
    })
    .await;
    assert!(began.elapsed() < busy, "it was busy meanwhile");
    until("it to answer again", async || {
        let executors = server.get("/apps/shop/executors").await;
        let it = &executors[0];
        assert_eq!(it["status"], "HEALTHY", "{it}");
        it.get("unresponsiveSince").is_none().then_some(())
    })
    .await;
    assert!(began.elapsed() > busy);
    for call in calls {
        let status = call.await.unwrap().unwrap().status();
        assert!([200, 502, 503, 504].contains(&status.as_u16()), "{status}");
    }
    assert!(!client.is_finished(), "the connection was kept");
    assert!(
        server.recoveries("shop").await.is_empty(),
        "nothing was lost"
    );
    client.abort();
}
