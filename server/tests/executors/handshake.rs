//! Who gets in, and how others are told why they do not.

use std::time::{Duration, Instant};

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{Fake, Reply, Workflows, dial, refused};
use crate::server::{ADMIN, Database, Server};

#[tokio::test]
async fn any_prefix_and_superfluous_slashes_will_do() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    for (n, path) in [
        "/websocket/shop/key",
        "/conductor/v1alpha1/websocket/shop/key",
        "//websocket//shop//key/",
        "/conductor-api/websocket/%73hop/k%65y",
    ]
    .into_iter()
    .enumerate()
    {
        let socket = dial(server.address, path)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let id = format!("e{n}");
        let _fake = Fake::serve(socket, &id, "v1", "rust", &Workflows::default(), |_| {
            Reply::Usual
        });
        server
            .until_status("shop", &id, "v1", Some("HEALTHY"))
            .await;
    }
}

/// Java's client sends a length on its GET; Python and TypeScript offer compression.
#[tokio::test]
async fn a_get_with_a_length_is_accepted_and_compression_declined() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /websocket/shop/key HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Content-Length: 0\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        server.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(13).any(|bytes| bytes == b"executor_info") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(
            count > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend_from_slice(&bytes[..count]);
    }
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 101"), "{text}");
    assert!(!text.contains("sec-websocket-extensions"), "{text}");
}

#[tokio::test]
async fn a_refusal_says_why_with_the_right_status() {
    let server =
        Server::configured(Database::sqlite(), |config| config.auth = AuthMode::Keys).await;
    server.app("shop", 60).await;
    server.app("other", 60).await;
    let make = async |name: &str, body| {
        let (status, made) = server.post(&format!("/tokens/{name}"), body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    let scoped = make("scoped", json!({"appNames": ["shop"]})).await;
    let reader = make("reader", json!({"permissions": ["application.read"]})).await;

    let wrong = "dbos_0123456789012345678901234567890123456789";
    for (app, key, status, hint) in [
        ("shop", wrong, 401, "unknown API key"),
        ("shop", reader.as_str(), 403, "websocket.connect"),
        ("other", scoped.as_str(), 403, "does not cover"),
        ("nowhere", ADMIN, 404, "nowhere"),
    ] {
        let (got, body) = refused(server.address, &format!("/websocket/{app}/{key}")).await;
        assert_eq!(got, status, "{body}");
        assert!(body.contains(hint), "{body}");
        assert!(!body.contains(key), "the key is not repeated");
    }
    assert!(
        dial(server.address, &format!("/websocket/shop/{scoped}"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_revoked_key_cuts_its_sockets_and_no_others() {
    let server =
        Server::configured(Database::sqlite(), |config| config.auth = AuthMode::Keys).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    let mut connected = Vec::new();
    for name in ["one", "two"] {
        let (_, made) = server.post(&format!("/tokens/{name}"), json!({})).await;
        let path = format!("/websocket/shop/{}", made["token"].as_str().unwrap());
        let socket = dial(server.address, &path).await.unwrap();
        connected.push((
            path,
            Fake::serve(socket, name, "v1", "go", &workflows, |_| Reply::Usual),
        ));
        server
            .until_status("shop", name, "v1", Some("HEALTHY"))
            .await;
    }
    let (status, _) = server.call(Method::DELETE, "/tokens/one", None).await;
    assert!(status.is_success());
    let (path, cut) = &mut connected[0];
    cut.closed().await;
    assert_eq!(refused(server.address, path).await.0, 401);
    server
        .until_status("shop", "one", "v1", Some("DISCONNECTED"))
        .await;
    assert!(connected[1].1.is_open());
    assert_eq!(
        server.status_of("shop", "two", "v1").await.as_deref(),
        Some("HEALTHY")
    );
}

#[tokio::test]
async fn deleting_an_application_lets_its_executors_go() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    server.app("other", 60).await;
    let workflows = Workflows::default();
    let mut gone = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    let stays = Fake::connect(&server, "other", "e1", "v1", &workflows).await;
    let (status, _) = server.call(Method::DELETE, "/apps/shop", None).await;
    assert!(status.is_success());
    gone.closed().await;
    assert_eq!(refused(server.address, "/websocket/shop/any").await.0, 404);
    assert!(stays.is_open());
}

#[tokio::test]
async fn who_never_says_who_it_is_is_let_go() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.info_deadline = Duration::from_millis(300);
    })
    .await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    let other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    let mut mute = Fake::odd(&server, "shop", "mute", "v1", &workflows, |_| {
        Reply::Nothing
    })
    .await;
    mute.closed().await;
    assert!(other.is_open());
    let executors = server.get("/apps/shop/executors").await;
    assert_eq!(executors.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_impossible_identity_is_refused_and_a_fat_one_cut_to_size() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.refusal = Duration::ZERO
    })
    .await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    for info in [
        json!({"application_version": "v1"}),
        json!({"executor_id": "", "application_version": "v1"}),
        json!({"executor_id": "x".repeat(257), "application_version": "v1"}),
        json!({"executor_id": "a\u{0}b", "application_version": "v1"}),
        json!({"executor_id": "a", "application_version": "v".repeat(1025)}),
        json!({"executor_id": "a", "application_version": "v1", "error_message": "cannot"}),
    ] {
        let mut odd = Fake::odd(&server, "shop", "a", "v1", &workflows, move |_| {
            Reply::Json(info.clone())
        })
        .await;
        odd.closed().await;
    }
    assert_eq!(server.get("/apps/shop/executors").await, json!([]));

    let fat = json!({"executor_id": "fat", "application_version": "v1", "hostname": "h".repeat(10_000),
        "executor_metadata": {"much": "m".repeat(70_000)}});
    let _fat = Fake::odd(&server, "shop", "fat", "v1", &workflows, move |_| {
        Reply::Json(fat.clone())
    })
    .await;
    server
        .until_status("shop", "fat", "v1", Some("HEALTHY"))
        .await;
    let executors = server.get("/apps/shop/executors").await;
    assert_eq!(executors[0]["hostname"].as_str().unwrap().len(), 256);
    assert_eq!(executors[0]["executorMetadata"], json!(null));
}

/// The tightest client gives up ten seconds after its ping; a busy one must not be kept waiting.
#[tokio::test]
async fn pings_are_answered_while_requests_are_outstanding() {
    use futures_util::{SinkExt, StreamExt};

    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let mut socket = dial(server.address, "/websocket/shop/any").await.unwrap();
    // executor_info is outstanding all the time.
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))));
    let sent = Instant::now();
    socket.send(Message::Ping("abcd".into())).await.unwrap();
    match socket.next().await {
        Some(Ok(Message::Pong(payload))) => assert_eq!(payload, "abcd"),
        other => panic!("expected a pong, got {other:?}"),
    }
    assert!(
        sent.elapsed() < Duration::from_secs(5),
        "{:?}",
        sent.elapsed()
    );
}

#[tokio::test]
async fn silence_beyond_the_read_deadline_is_a_loss() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.hub.read_deadline = Duration::from_millis(500);
        config.hub.ping_every = Duration::from_millis(100);
    })
    .await;
    server.app("shop", 60).await;
    // The fake's socket answers pings as long as it is polled: that alone keeps it connected.
    let polled = Fake::connect(&server, "shop", "polled", "v1", &Workflows::default()).await;
    let mut stalled = dial(server.address, "/websocket/shop/any").await.unwrap();
    {
        use futures_util::{SinkExt, StreamExt};
        let Some(Ok(Message::Text(text))) = stalled.next().await else {
            panic!("no executor_info");
        };
        let request: serde_json::Value = serde_json::from_str(&text).unwrap();
        let answer = json!({"type": "executor_info", "request_id": request["request_id"],
            "executor_id": "stalled", "application_version": "v1"});
        stalled
            .send(Message::text(answer.to_string()))
            .await
            .unwrap();
    }
    server
        .until_status("shop", "stalled", "v1", Some("DISCONNECTED"))
        .await;
    assert!(polled.is_open());
}
