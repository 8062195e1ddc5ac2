//! Malformed frames of every kind: each hurts the one who sent it at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{Fake, Reply, Workflows};
use crate::server::{Database, Server, until};

const LIST: &str = "/apps/shop/workflows";

/// A server with an executor that behaves, and what is to be shown untouched at the end.
async fn with_bystander() -> (Server, Fake, Workflows) {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    server.app("other", 60).await;
    let workflows = Workflows::default();
    let bystander = Fake::connect(&server, "other", "bystander", "v1", &workflows).await;
    (server, bystander, workflows)
}

async fn untouched(server: &Server, bystander: &Fake) {
    assert!(bystander.is_open());
    server.get("/apps/other/workflows").await;
    assert_eq!(
        server
            .status_of("other", "bystander", "v1")
            .await
            .as_deref(),
        Some("HEALTHY")
    );
}

/// Garbage that nobody asked for is ignored, and the connection lives on.
#[tokio::test]
async fn unasked_garbage_is_ignored() {
    let (server, bystander, workflows) = with_bystander().await;
    let sender = Fake::connect(&server, "shop", "sender", "v1", &workflows).await;
    for frame in [
        Message::text("not JSON"),
        Message::text(""),
        Message::text("[1,2"),
        Message::text("{}"),
        Message::text(r#"{"type":"list_workflows","request_id":7}"#),
        Message::text(r#"{"type":"no_such_type","request_id":"unknown"}"#),
        Message::text(r#"{"type":"recovery","request_id":"unknown","success":true}"#),
        Message::binary(vec![0, 159, 146, 150]),
        Message::binary(b"{\"type\":\"executor_info\"}".to_vec()),
    ] {
        sender.send(frame);
    }
    server.get(LIST).await;
    assert!(sender.is_open());
    untouched(&server, &bystander).await;
}

#[tokio::test]
async fn nothing_but_garbage_ends_the_connection() {
    let (server, bystander, workflows) = with_bystander().await;
    let mut sender = Fake::connect(&server, "shop", "sender", "v1", &workflows).await;
    for _ in 0..60 {
        sender.send(Message::text("not JSON"));
    }
    // The code is lost if frames were still on their way.
    let code = sender.closed().await;
    assert!(matches!(code, Some(1008) | None), "{code:?}");
    untouched(&server, &bystander).await;
}

/// A hundred megabytes that answer nothing are dropped; a message beyond the limit ends the
/// connection with the code for it.
#[tokio::test]
async fn huge_frames_hurt_nobody_else() {
    let (server, bystander, workflows) = with_bystander().await;
    let mut sender = Fake::connect(&server, "shop", "sender", "v1", &workflows).await;
    sender.send(Message::text("x".repeat(100_000_000)));
    untouched(&server, &bystander).await;
    server.get(LIST).await;
    sender.send(Message::text("x".repeat((128 << 20) + 1)));
    untouched(&server, &bystander).await;
    let code = sender.closed().await;
    assert!(matches!(code, Some(1009) | None), "{code:?}");
    server
        .until_status("shop", "sender", "v1", Some("DISCONNECTED"))
        .await;
    untouched(&server, &bystander).await;
}

/// An answer that is too large fails its request with advice, and is not asked for elsewhere.
#[tokio::test]
async fn an_answer_that_is_too_large_fails_its_request_only() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.max_message = 1 << 20
    })
    .await;
    server.app("shop", 60).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let mut fakes = Vec::new();
    for id in ["a", "b"] {
        let asked = asked.clone();
        let behave = move |request: &Value| match request["type"].as_str() {
            Some("list_workflows") => {
                asked.fetch_add(1, Ordering::SeqCst);
                Reply::Json(json!({"output": [], "padding": "x".repeat(2 << 20)}))
            }
            _ => Reply::Usual,
        };
        fakes.push(Fake::odd(&server, "shop", id, "v1", &Workflows::default(), behave).await);
        server.until_status("shop", id, "v1", Some("HEALTHY")).await;
    }
    let (status, problem) = server.call(reqwest::Method::GET, LIST, None).await;
    assert_eq!(status, 502, "{problem}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    until("the connection of who answered to end", async || {
        (fakes.iter().filter(|fake| fake.is_open()).count() == 1).then_some(())
    })
    .await;
}

/// One that cannot answer sensibly is passed over where another can.
#[tokio::test]
async fn a_read_goes_on_to_the_next_executor() {
    for bad in [
        |_: &Value| Reply::Json(json!({"output": 7})),
        |_: &Value| Reply::Json(json!({"type": "cancel", "success": true})),
        |request: &Value| {
            Reply::Frame(Message::Close(None)).unless(request["type"] == "executor_info")
        },
    ] {
        let (server, bystander, workflows) = with_bystander().await;
        let behave = move |request: &Value| match request["type"] == "executor_info" {
            true => Reply::Usual,
            false => bad(request),
        };
        let _bad = Fake::odd(&server, "shop", "bad", "v1", &workflows, behave).await;
        server
            .until_status("shop", "bad", "v1", Some("HEALTHY"))
            .await;
        let _good = Fake::connect(&server, "shop", "good", "v1", &workflows).await;
        for _ in 0..6 {
            assert_eq!(server.get(LIST).await, json!([]));
        }
        untouched(&server, &bystander).await;
    }
}

impl Reply {
    fn unless(self, other: bool) -> Self {
        if other { Self::Usual } else { self }
    }
}

/// A mutation that may have been done is not repeated unless that is harmless.
#[tokio::test]
async fn only_harmless_mutations_are_repeated() {
    let (server, _bystander, workflows) = with_bystander().await;
    let forks = Arc::new(AtomicUsize::new(0));
    let counted = forks.clone();
    let mut fakes = Vec::new();
    for id in ["a", "b", "c"] {
        let forks = counted.clone();
        let behave = move |request: &Value| match request["type"].as_str() {
            Some("fork_workflow") => {
                forks.fetch_add(1, Ordering::SeqCst);
                Reply::Frame(Message::Close(None))
            }
            _ => Reply::Usual,
        };
        fakes.push(Fake::odd(&server, "shop", id, "v1", &workflows, behave).await);
        server.until_status("shop", id, "v1", Some("HEALTHY")).await;
    }
    let (status, _) = server
        .post("/apps/shop/workflows/w/fork", json!({"startStep": 2}))
        .await;
    assert_eq!(status, 502);
    assert_eq!(
        forks.load(Ordering::SeqCst),
        1,
        "a fork without an id of the caller's is not repeated"
    );
}

/// An SDK that does not know a message is asked once, and then never again by that version.
#[tokio::test]
async fn unknown_messages_are_remembered_by_release() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let socket = crate::fake::dial(server.address, "/websocket/shop/any")
        .await
        .unwrap();
    let behave = |request: &Value| match request["type"].as_str() {
        Some("list_workflows") => Reply::Json(json!({"error_message": "Unknown message type"})),
        _ => Reply::Usual,
    };
    let old = Fake::serve(socket, "old", "v1", "cobol", &Workflows::default(), behave);
    server
        .until_status("shop", "old", "v1", Some("HEALTHY"))
        .await;
    for _ in 0..3 {
        let (status, problem) = server.call(reqwest::Method::GET, LIST, None).await;
        assert_eq!(status, 501, "{problem}");
    }
    assert_eq!(old.received("list_workflows").len(), 1);
}

/// It answers pings and nothing else: it is routed around, shown so, and not recovered.
#[tokio::test]
async fn an_unresponsive_executor_is_routed_around_and_not_recovered() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.probe_every = Duration::from_millis(400);
        config.hub.info_deadline = Duration::from_millis(400);
    })
    .await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(1, "wedged", "v1");
    let wedged = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_wedged = wedged.clone();
    let behave = move |_: &Value| match is_wedged.load(Ordering::SeqCst) {
        true => Reply::Nothing,
        false => Reply::Usual,
    };
    let fake = Fake::odd(&server, "shop", "wedged", "v1", &workflows, behave).await;
    server
        .until_status("shop", "wedged", "v1", Some("HEALTHY"))
        .await;
    let _good = Fake::connect(&server, "shop", "good", "v1", &workflows).await;
    wedged.store(true, Ordering::SeqCst);
    let unresponsive = async |wanted: bool| {
        until("unresponsiveSince", async || {
            let executors = server.get("/apps/shop/executors").await;
            let it = executors
                .as_array()
                .unwrap()
                .iter()
                .find(|e| e["executorId"] == "wedged")
                .unwrap()
                .clone();
            assert_eq!(it["status"], "HEALTHY");
            (it.get("unresponsiveSince").is_some() == wanted).then_some(())
        })
        .await;
    };
    unresponsive(true).await;
    let began = Instant::now();
    for _ in 0..5 {
        server.get(LIST).await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "requests went to the wedged one"
    );
    assert!(fake.received("list_workflows").is_empty());
    assert_eq!(
        workflows.pending("wedged", "v1"),
        1,
        "it may still be working"
    );
    // It comes to itself and answers what had piled up.
    wedged.store(false, Ordering::SeqCst);
    for late in fake.received("executor_info").into_iter().skip(1) {
        let answer = json!({"type": late["type"], "request_id": late["request_id"], "executor_id": "wedged",
            "application_version": "v1"});
        fake.send(Message::text(answer.to_string()));
    }
    unresponsive(false).await;
    assert!(server.recoveries("shop").await.is_empty());
}
