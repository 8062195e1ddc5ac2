//! Retention and the global timeout: what executors are told, how often, and by whom.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use segno_server::config::{AuthMode, Config};
use segno_server::policies;
use serde_json::{Value, json};

use crate::executor::{FakeExecutor, until};
use crate::server::{Database, TestServer};

const APP: &str = "/v2/orgs/local/apps/shop";

fn fast(config: &mut Config) {
    config.policies = policies::Options {
        tick: Duration::from_millis(20),
        timeouts_every: Duration::from_millis(100),
        garbage_every: Duration::from_secs(3600),
        ..policies::Options::default()
    };
}

async fn start(database: Database) -> TestServer {
    let server = TestServer::start_with(database, AuthMode::None, fast).await;
    server.put(APP, json!({})).await.expect(204);
    server
}

fn idle(_: &Value) -> Value {
    json!({"success": true, "exist": false, "metrics": []})
}

#[tokio::test]
async fn timeouts_come_often_and_garbage_rarely() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = start(database).await;
        let limits =
            json!({"gcTimeThresholdMs": 86_400_000, "gcRowsThreshold": 1000, "globalTimeoutMs": 5});
        server.patch(APP, limits).await.expect(204);
        let before = chrono::Utc::now().timestamp_millis();
        let executor = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
        until("three rounds", async || {
            executor.of_type("retention").len() >= 3
        })
        .await;
        let after = chrono::Utc::now().timestamp_millis();
        let rounds = executor.of_type("retention");
        let about = |value: &Value, ago: i64| {
            let cutoff = value.as_i64().unwrap() + ago;
            (before - 5000..=after + 5000).contains(&cutoff)
        };
        let first = &rounds[0]["body"];
        assert!(about(&first["gc_cutoff_epoch_ms"], 86_400_000), "{first}");
        assert_eq!(first["gc_rows_threshold"], 1000);
        assert!(
            about(&first["timeout_cutoff_epoch_ms"], 60_000),
            "at least a minute ago: {first}"
        );
        for later in &rounds[1..] {
            let body = later["body"].as_object().unwrap();
            assert_eq!(
                (&body["gc_cutoff_epoch_ms"], &body["gc_rows_threshold"]),
                (&Value::Null, &Value::Null)
            );
            assert!(body["timeout_cutoff_epoch_ms"].is_i64());
        }
    }
}

#[tokio::test]
async fn nobody_is_bothered_without_a_limit_and_garbage_alone_is_sent_once() {
    let server = start(Database::sqlite()).await;
    server
        .put("/v2/orgs/local/apps/bank", json!({}))
        .await
        .expect(204);
    server
        .patch(APP, json!({"gcRowsThreshold": 7}))
        .await
        .expect(204);
    server
        .patch("/v2/orgs/local/apps/bank", json!({"globalTimeoutMs": 1}))
        .await
        .expect(204);
    server
        .put("/v2/orgs/local/apps/free", json!({}))
        .await
        .expect(204);
    let free = FakeExecutor::connect(&server, "free", "any", "v1", idle).await;
    let shop = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
    let bank = FakeExecutor::connect(&server, "bank", "any", "v1", idle).await;
    // The other application's rounds are the clock.
    until("five rounds of another application", async || {
        bank.of_type("retention").len() >= 5
    })
    .await;
    let sent = shop.of_type("retention");
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        sent[0]["body"],
        json!({"gc_cutoff_epoch_ms": null, "gc_rows_threshold": 7, "timeout_cutoff_epoch_ms": null})
    );
    assert!(free.of_type("retention").is_empty());
}

/// Two instances on one database, each with an executor of the application.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_round_is_one_executors_and_one_instances() {
    let database = Database::postgres().await;
    let url = database.url.clone();
    let first = start(database).await;
    first
        .patch(APP, json!({"globalTimeoutMs": 1000}))
        .await
        .expect(204);
    let second = TestServer::start_with(Database::at(&url), AuthMode::None, |config| {
        fast(config);
        config.advertise_address = "127.0.0.2".to_owned();
    })
    .await;
    // How many are at work, and how many were at most.
    let working = Arc::new(Mutex::new((0_usize, 0_usize)));
    let slowly = |working: Arc<Mutex<(usize, usize)>>| {
        move |request: &Value| {
            if request["type"] == "retention" {
                let mut counts = working.lock().unwrap();
                counts.0 += 1;
                counts.1 = counts.1.max(counts.0);
                drop(counts);
                std::thread::sleep(Duration::from_millis(250));
                working.lock().unwrap().0 -= 1;
            }
            idle(request)
        }
    };
    let executors = [
        FakeExecutor::connect(&first, "shop", "any", "v1", slowly(working.clone())).await,
        FakeExecutor::connect(&first, "shop", "any", "v1", slowly(working.clone())).await,
        FakeExecutor::connect(&second, "shop", "any", "v1", slowly(working.clone())).await,
    ];
    let rounds = || {
        executors
            .iter()
            .map(|executor| executor.of_type("retention").len())
            .sum::<usize>()
    };
    until("six rounds", async || rounds() >= 6).await;
    assert_eq!(working.lock().unwrap().1, 1, "one at a time");
    second.stop().await;
}

#[tokio::test]
async fn a_round_without_an_answer_is_not_followed_by_another() {
    let server = start(Database::sqlite()).await;
    server
        .patch(APP, json!({"globalTimeoutMs": 1000}))
        .await
        .expect(204);
    server
        .put("/v2/orgs/local/apps/bank", json!({}))
        .await
        .expect(204);
    server
        .patch("/v2/orgs/local/apps/bank", json!({"globalTimeoutMs": 1000}))
        .await
        .expect(204);
    // Takes the order and dies: whether its database is still at work, nobody knows.
    let dying = FakeExecutor::connect(&server, "shop", "any", "v1", |request| {
        assert!(request["type"] != "retention", "dies with the order");
        idle(request)
    })
    .await;
    until("the order", async || !dying.of_type("retention").is_empty()).await;
    let other = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
    let bank = FakeExecutor::connect(&server, "bank", "any", "v1", idle).await;
    until("five rounds of another application", async || {
        bank.of_type("retention").len() >= 5
    })
    .await;
    assert!(other.of_type("retention").is_empty());
}

#[tokio::test]
async fn limits_that_reach_beyond_the_application_are_told() {
    let server = start(Database::sqlite()).await;
    let warnings = async || server.get(APP).await.expect(200).json["warnings"].clone();
    let java = ("java", "1.0.0");
    let executor = FakeExecutor::of_release(&server, "shop", "any", "v1", java, idle).await;
    assert_eq!(warnings().await, Value::Null, "nothing is limited");
    server
        .patch(APP, json!({"globalTimeoutMs": 100_000}))
        .await
        .expect(204);
    let told = warnings().await;
    let told = told[0].as_str().unwrap();
    assert!(told.contains("java SDK 1.0.0 cancels"), "{told}");
    drop(executor);
    until("the executor is gone", async || {
        warnings().await == Value::Null
    })
    .await;
    // Newer releases keep the timeout to the application, and delete in the whole database.
    let python = ("python", "3.2.0");
    let _executor = FakeExecutor::of_release(&server, "shop", "any", "v1", python, idle).await;
    assert_eq!(warnings().await, Value::Null);
    server
        .patch(APP, json!({"gcRowsThreshold": 10}))
        .await
        .expect(204);
    let told = warnings().await;
    assert!(told[0].as_str().unwrap().contains("deletes"), "{told}");
}
