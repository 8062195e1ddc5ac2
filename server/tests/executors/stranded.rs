//! Work that nobody can take is shown, never dropped, and goes on the moment somebody can.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::fake::{Fake, Workflows};
use crate::server::{Database, Server, until};

/// The only survivors run another version; then one of the right version comes.
async fn stranded_until_a_matching_executor_connects(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(7, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let survivor = Fake::connect(&server, "shop", "survivor", "v2", &workflows).await;
    victim.die().await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    assert_eq!(record["reason"], "NO_MATCHING_VERSION");
    assert_eq!(record["pendingWorkflows"], 7);
    assert_eq!(record["completedAt"], json!(null));
    assert_eq!(
        server.status_of("shop", "victim", "v1").await.as_deref(),
        Some("DEAD")
    );
    // Another of the wrong version changes nothing.
    let _wrong = Fake::connect(&server, "shop", "wrong", "v3", &workflows).await;
    assert_eq!(workflows.pending("victim", "v1"), 7);
    assert!(survivor.received("recovery").is_empty());

    let connecting = Instant::now();
    let right = Fake::odd(&server, "shop", "right", "v1", &workflows, |_| {
        crate::fake::Reply::Usual
    })
    .await;
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    let took = workflows.all()["victim-v1-0"].since - connecting;
    assert!(
        took < Duration::from_secs(2),
        "taken {took:?} after it connected"
    );
    assert_eq!(record["recoveredBy"], "right");
    assert_eq!(record["pendingWorkflows"], 7);
    assert_eq!(workflows.pending("right", "v1"), 7);
    assert!(
        workflows
            .all()
            .values()
            .all(|row| row.history == ["victim", "right"])
    );
    drop(right);
}

#[tokio::test]
async fn stranded_until_a_matching_executor_connects_sqlite() {
    stranded_until_a_matching_executor_connects(Database::sqlite()).await;
}

#[tokio::test]
async fn stranded_until_a_matching_executor_connects_postgres() {
    stranded_until_a_matching_executor_connects(Database::postgres().await).await;
}

#[tokio::test]
async fn with_nobody_left_it_waits_for_anybody() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "victim", "v1");
    Fake::connect(&server, "shop", "victim", "v1", &workflows)
        .await
        .die()
        .await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    assert_eq!(record["reason"], "NO_EXECUTOR");
    let _next = Fake::connect(&server, "shop", "next", "v1", &workflows).await;
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "next");
}

#[tokio::test]
async fn a_stranded_executor_that_returns_has_its_work_back() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "victim", "v1");
    Fake::connect(&server, "shop", "victim", "v1", &workflows)
        .await
        .die()
        .await;
    let stranded = server.until_recovery("shop", "victim", "STRANDED").await;
    let _back = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let record = server.until_recovery("shop", "victim", "REJOINED").await;
    assert_eq!(record["id"], stranded["id"]);
    assert_eq!(record["reason"], json!(null));
    let _other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    assert_eq!(workflows.pending("victim", "v1"), 2);
}

#[tokio::test]
async fn an_operator_lets_another_version_take_over() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(3, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let _survivor = Fake::connect(&server, "shop", "survivor", "v2", &workflows).await;
    victim.die().await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    let path = format!(
        "/apps/shop/recoveries/{}/assign",
        record["id"].as_str().unwrap()
    );
    let (status, body) = server.post(&path, json!({"appVersion": "v2"})).await;
    assert_eq!(status, 202, "{body}");
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "survivor");
    let last = record["attempts"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["outcome"], &last["executorId"]),
        (&json!("FORKED"), &json!("survivor"))
    );
    let rows = workflows.all();
    let forks: Vec<_> = rows
        .values()
        .filter(|row| row.forked_from.is_some())
        .collect();
    assert_eq!(forks.len(), 3);
    assert!(
        forks
            .iter()
            .all(|fork| fork.version == "v2" && fork.status == "ENQUEUED")
    );
    let originals: Vec<_> = rows
        .values()
        .filter(|row| row.forked_from.is_none())
        .collect();
    assert!(
        originals
            .iter()
            .all(|row| row.status == "CANCELLED" && row.history == ["victim"])
    );
    // It is over.
    let (status, _) = server.post(&path, json!({"appVersion": "v3"})).await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn the_policy_may_let_the_latest_version_take_over() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let settings = json!({"recoveryPolicy": "latest"});
    let (status, _) = server
        .call(Method::PATCH, "/apps/shop", Some(settings))
        .await;
    assert!(status.is_success());
    let workflows = Workflows::default();
    workflows.running(2, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let _survivor = Fake::connect(&server, "shop", "survivor", "v2", &workflows).await;
    victim.die().await;
    server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(
        workflows
            .all()
            .values()
            .filter(|row| row.version == "v2")
            .count(),
        2
    );
}

#[tokio::test]
async fn abandoned_work_is_left_alone() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.recovery.sweep_every = Duration::from_millis(300);
    })
    .await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(3, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let _survivor = Fake::connect(&server, "shop", "survivor", "v2", &workflows).await;
    victim.die().await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    let path = format!(
        "/apps/shop/recoveries/{}/abandon",
        record["id"].as_str().unwrap()
    );
    let (status, body) = server.post(&path, json!({"reason": "test data"})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["status"], "ABANDONED");
    assert_eq!(server.status_of("shop", "victim", "v1").await, None);
    let other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(other.received("recovery").is_empty());
    assert_eq!(workflows.pending("victim", "v1"), 3);
    assert_eq!(
        server.recoveries("shop").await.len(),
        1,
        "the sweep does not dig it up"
    );
    let (status, _) = server.post(&path, json!({"reason": "again"})).await;
    assert_eq!(status, 409);
    let (status, _) = server
        .post(
            "/apps/shop/recoveries/nothing/abandon",
            json!({"reason": "x"}),
        )
        .await;
    assert_eq!(status, 404);
    // Neither does it when the record is too old to be kept.
    server.execute("DELETE FROM recoveries").await;
    let asked = other.received("get_workflow_aggregates").len();
    until("four more sweeps", async || {
        (other.received("get_workflow_aggregates").len() >= asked + 4).then_some(())
    })
    .await;
    assert!(server.recoveries("shop").await.is_empty());
    assert_eq!(server.status_of("shop", "victim", "v1").await, None);
}
