//! Server-sent events: what changes is told as it happens, to those who may know.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::fake::{Fake, Workflows};
use crate::server::{ADMIN, Api, Database, SOON, Server, until};

/// A reader of the stream of `shop`.
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    pub(crate) async fn follow(server: &Api, key: &str) -> Self {
        let url = format!("http://{}/v2/orgs/local/apps/shop/stream", server.address);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .get(url)
            .bearer_auth(key)
            .header("accept", "text/event-stream");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = String::new();
        let mut events = Self { response, text };
        assert_eq!(events.next().await.unwrap().0, "ready");
        events
    }

    /// The next event with its name; none when the server has ended the stream. Comments come with an
    /// empty name.
    async fn next(&mut self) -> Option<(String, Value)> {
        while !self.text.contains("\n\n") {
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await;
            let chunk = chunk.expect("an event, or a comment").unwrap()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
        let (block, rest) = self.text.split_once("\n\n").unwrap();
        let member = |name: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
        };
        let event = (
            member("event:").trim().to_owned(),
            serde_json::from_str(member("data:")).unwrap_or_default(),
        );
        self.text = rest.to_owned();
        Some(event)
    }

    /// Waits until the reader is told to read everything anew.
    pub(crate) async fn missed(&mut self) {
        while self.next().await.expect("the stream goes on").0 != "missed" {}
    }

    /// The next event of a kind in a status.
    pub(crate) async fn until(&mut self, kind: &str, status: &str) -> Value {
        loop {
            let (name, data) = self.next().await.expect("the stream goes on");
            if name == kind && data["status"] == status {
                return data;
            }
        }
    }
}

async fn a_death_is_followed(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 1).await;
    server.app("other", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "victim", "v1");
    let mut events = Events::follow(&server, "any").await;
    // Of another application nothing is told.
    let _foreign = Fake::connect(&server, "other", "foreign", "v1", &Workflows::default()).await;
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let told = events.until("executor", "HEALTHY").await;
    assert_eq!(
        (&told["executorId"], &told["appVersion"]),
        (&json!("victim"), &json!("v1"))
    );
    assert!(told["at"].is_string(), "{told}");

    victim.die().await;
    events.until("executor", "DISCONNECTED").await;
    events.until("executor", "DEAD").await;
    let stranded = events.until("recovery", "STRANDED").await;
    assert_eq!(
        (&stranded["executorId"], &stranded["reason"]),
        (&json!("victim"), &json!("NO_EXECUTOR"))
    );
    let _helper = Fake::connect(&server, "shop", "helper", "v1", &workflows).await;
    let recovered = loop {
        let (name, told) = events.next().await.unwrap();
        assert_ne!(told["executorId"], "foreign");
        if name == "recovery" && told["status"] == "RECOVERED" {
            break told;
        }
    };
    assert_eq!(recovered["recoveredBy"], "helper");
    assert_eq!(recovered["recoveryId"], stranded["recoveryId"]);
}

#[tokio::test]
async fn a_death_is_followed_sqlite() {
    a_death_is_followed(Database::sqlite()).await;
}

#[tokio::test]
async fn a_death_is_followed_postgres() {
    a_death_is_followed(Database::postgres().await).await;
}

#[tokio::test]
async fn work_given_up_is_told() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(1, "victim", "v1");
    let mut events = Events::follow(&server, "any").await;
    Fake::connect(&server, "shop", "victim", "v1", &workflows)
        .await
        .die()
        .await;
    let stranded = events.until("recovery", "STRANDED").await;
    let id = stranded["recoveryId"].as_str().unwrap();
    server
        .post(
            &format!("/apps/shop/recoveries/{id}/abandon"),
            json!({"reason": "test data"}),
        )
        .await;
    events.until("executor", "GONE").await;
    let told = events.until("recovery", "ABANDONED").await;
    assert_eq!(told["recoveryId"], id);
}

/// It lives as long as its reader may read: comments show that it does, and a revoked key ends it.
#[tokio::test]
async fn a_revoked_key_ends_the_stream() {
    let server =
        Server::configured(Database::sqlite(), |config| config.auth = AuthMode::Keys).await;
    server.app("shop", 1).await;
    let body = json!({"permissions": ["application.read"], "appNames": ["shop"]});
    let (status, key) = server.post("/tokens/reader", body).await;
    assert_eq!(status, 201, "{key}");
    let mut admin = Events::follow(&server, ADMIN).await;
    let mut reader = Events::follow(&server, key["token"].as_str().unwrap()).await;
    assert_eq!(reader.next().await.unwrap().0, "", "a comment");
    let (status, _) = server.call(Method::DELETE, "/tokens/reader", None).await;
    assert!(status.is_success());
    while let Some((name, _)) = reader.next().await {
        assert_eq!(name, "", "only comments until it ends");
    }
    assert_eq!(admin.next().await.unwrap().0, "", "the others go on");

    let (status, _) = server.call(Method::DELETE, "/apps/shop", None).await;
    assert!(status.is_success());
    while let Some((name, _)) = admin.next().await {
        assert_eq!(name, "");
    }
    let body = json!({"permissions": ["websocket.connect"]});
    server.app("shop", 1).await;
    let (_, key) = server.post("/tokens/stranger", body).await;
    let url = format!("http://{}/v2/orgs/local/apps/shop/stream", server.address);
    let request = reqwest::Client::new()
        .get(url)
        .bearer_auth(key["token"].as_str().unwrap());
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_caller_follows_so_many_streams_at_a_time() {
    let server =
        Server::configured(Database::sqlite(), |config| config.streams_per_caller = 2).await;
    server.app("shop", 60).await;
    let first = Events::follow(&server, ADMIN).await;
    let _second = Events::follow(&server, ADMIN).await;
    let third = async || server.call(Method::GET, "/apps/shop/stream", None).await;
    let (status, problem) = third().await;
    assert_eq!(status, 429, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("2 streams"));
    drop(first);
    until("a place to be free", async || {
        let url = format!("http://{}/v2/orgs/local/apps/shop/stream", server.address);
        let answer = reqwest::Client::new().get(url).send().await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;
}
