//! Keys never reach a log, at any level.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{Fake, Reply, Workflows, dial, refused};
use crate::server::{ADMIN, until};

#[tokio::test]
async fn keys_are_logged_at_no_level() {
    let directory = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut server = Command::new(env!("CARGO_BIN_EXE_segno"))
        .args(["serve", "--listen", &address.to_string(), "--data-dir"])
        .arg(directory.path())
        .env("SEGNO_ADMIN_KEY", ADMIN)
        .env("RUST_LOG", "trace")
        .env("SEGNO_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut out, mut err) = (server.stdout.take().unwrap(), server.stderr.take().unwrap());
    let reading = tokio::spawn(async move {
        let (mut first, mut second) = (String::new(), String::new());
        let (one, two) = tokio::join!(
            out.read_to_string(&mut first),
            err.read_to_string(&mut second)
        );
        one.unwrap();
        two.unwrap();
        first + &second
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("http://{address}");
    until("the server to be ready", async || {
        client.get(format!("{base}/readyz")).send().await.ok()
    })
    .await;
    let put = client
        .put(format!("{base}/v2/orgs/local/apps/shop"))
        .bearer_auth(ADMIN)
        .json(&json!({}));
    assert!(put.send().await.unwrap().status().is_success());

    let wrong = "dbos_wrong-0123456789012345678901234567890123";
    let path = |key: &str| format!("/any/websocket/shop/{key}");
    assert_eq!(refused(address, &path(wrong)).await.0, 401);
    assert_eq!(
        refused(address, &format!("/websocket/nowhere/{ADMIN}"))
            .await
            .0,
        404
    );
    let plain = client
        .get(format!("{base}{}", path(ADMIN)))
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 426);
    let mut connected = Fake::serve(
        dial(address, &path(ADMIN)).await.unwrap(),
        "e1",
        "v1",
        "python",
        &Workflows::default(),
        |_| Reply::Usual,
    );
    connected.asked("executor_info").await;
    connected.send(Message::text("garbage"));
    let bad = dial(address, &path(ADMIN)).await.unwrap();
    let mut nameless = Fake::serve(bad, "", "v1", "python", &Workflows::default(), |_| {
        Reply::Usual
    });
    nameless.closed().await;

    server.kill().await.unwrap();
    let log = reading.await.unwrap();
    assert!(
        log.contains("executor connected"),
        "the log is there:\n{log}"
    );
    assert!(
        log.contains("malformed frame") && log.contains("TRACE"),
        "at every level:\n{log}"
    );
    for key in [ADMIN, wrong] {
        let secret = &key[5..];
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a key was logged");
    }
}
