//! A live session under mutated frames: answers that are nearly right, requests, control frames and
//! garbage, in any order. Whoever sends them is hurt at most; a bystander and the server go on.
//!
//! A run is short; `SEGNO_FUZZ_SECONDS=600` makes it long, `SEGNO_FUZZ_SEED` repeats one.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use proptest::prelude::{Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::fake::{Fake, Socket, Workflows, dial};
use crate::server::{Database, Server, until};

#[path = "../../../protocol/tests/mutation/mod.rs"]
mod mutation;

/// Values at random, the same for the same seed.
struct Dice(TestRunner);

impl Dice {
    fn roll<T>(&mut self, strategy: &impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn mutated_frames_hurt_nobody_else() {
    let time = Duration::from_secs(setting("SEGNO_FUZZ_SECONDS").unwrap_or(5));
    let seed = setting("SEGNO_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("SEGNO_FUZZ_SEED={seed}");
    let server = Server::configured(Database::sqlite(), |config| {
        // One that was refused may come back at once: there is more to send.
        config.hub.refusal = Duration::ZERO;
        config.hub.info_deadline = Duration::from_millis(500);
    })
    .await;
    server.app("shop", 60).await;
    server.app("other", 60).await;
    let bystander = Fake::connect(&server, "other", "bystander", "v1", &Workflows::default()).await;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/golden");
    let mut frames = mutation::recorded(&golden, "response");
    frames.extend(mutation::recorded(&golden, "request"));

    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut dice = Dice(TestRunner::new_with_rng(Config::default(), rng));
    let began = Instant::now();
    let (mut sent, mut connections) = (0, 0);
    while began.elapsed() < time {
        let mut socket = dial(server.address, "/websocket/shop/any").await.unwrap();
        connections += 1;
        sent += misbehave(&server, &mut socket, &frames, &mut dice).await;
    }
    println!("{sent} frames in {connections} connections");
    assert!(sent > 0 && connections > 0);

    assert!(bystander.is_open());
    server.get("/apps/other/workflows").await;
    let status = server.status_of("other", "bystander", "v1").await;
    assert_eq!(status.as_deref(), Some("HEALTHY"));
    // The application that was misused works for somebody who behaves.
    let good = Fake::connect(&server, "shop", "good", "v1", &Workflows::default()).await;
    until("an answer", async || {
        let (status, _) = server
            .call(reqwest::Method::GET, "/apps/shop/workflows", None)
            .await;
        (status == 200).then_some(())
    })
    .await;
    drop(good);
}

/// One connection: mostly answers to what is asked, some with the right id, until it is over or enough.
async fn misbehave(
    server: &Server,
    socket: &mut Socket,
    frames: &[Value],
    dice: &mut Dice,
) -> usize {
    let mutants = mutation::mutants();
    let mut sent = 0;
    // A decent introduction gets a session; without it there is only a connection.
    let mut polite = dice.roll(&(0..4u8)) > 0;
    let asking = tokio::spawn({
        let url = format!(
            "http://{}/v2/orgs/local/apps/shop/workflows",
            server.address
        );
        async move { reqwest::get(url).await.map(|answer| answer.status()) }
    });
    let mut ids = Vec::new();
    for _ in 0..60 {
        let wait = Duration::from_millis(5);
        match tokio::time::timeout(wait, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                let request: Value = serde_json::from_str(&text).unwrap();
                ids.push(request["request_id"].as_str().unwrap().to_owned());
                if polite && request["type"] == "executor_info" {
                    polite = false;
                    let answer = json!({"type": "executor_info", "request_id": ids.last(), "executor_id": "fuzzer",
                        "application_version": "v1", "language": "python", "dbos_version": "3.2.0"});
                    if socket
                        .send(Message::text(answer.to_string()))
                        .await
                        .is_err()
                    {
                        break;
                    }
                    continue;
                }
            }
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => break,
            Ok(Some(Ok(_))) | Err(_) => {}
        }
        let id = match ids.len() {
            0 => None,
            count => Some(ids[dice.roll(&(0..count))].clone()),
        };
        let bytes = dice.roll(&mutants).bytes(frames, id.as_deref());
        let frame = match dice.roll(&(0..20u8)) {
            0 => Message::binary(bytes),
            1 => Message::Ping(bytes.into_iter().take(125).collect::<Vec<_>>().into()),
            2 => Message::Pong(bytes.into_iter().take(125).collect::<Vec<_>>().into()),
            3 => raw(bytes, dice.roll(&any::<u8>()), dice.roll(&any::<bool>())),
            _ => Message::text(String::from_utf8_lossy(&bytes).into_owned()),
        };
        if socket.send(frame).await.is_err() {
            break;
        }
        sent += 1;
    }
    // Whatever became of it, the caller gets an answer, not a hung connection, when the socket goes.
    let _ = socket.close(None).await;
    let answered = tokio::time::timeout(crate::server::SOON, asking).await;
    let status = answered
        .expect("the caller was left waiting")
        .unwrap()
        .unwrap();
    assert_ne!(status, 500, "a fault of the server's own");
    sent
}

/// A frame that breaks rules: pieces without a beginning, text that is not UTF-8.
fn raw(bytes: Vec<u8>, kind: u8, is_final: bool) -> Message {
    let kind = if kind.is_multiple_of(2) {
        Data::Text
    } else {
        Data::Continue
    };
    Message::Frame(Frame::message(bytes, OpCode::Data(kind), is_final))
}
