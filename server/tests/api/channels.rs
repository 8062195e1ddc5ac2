//! Alert channels: what they may be, what they are told, how often, and where they may not lead.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::hmac;
use segno_server::config::{AuthMode, Config, Secret};
use segno_server::policies;
use segno_server::policies::channels::Guard;
use serde_json::{Value, json};
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection};

use crate::executor::{FakeExecutor, until};
use crate::receiver::{Receiver, status};
use crate::server::{Database, TestServer, send};

const CHANNELS: &str = "/v2/orgs/local/alert-channels";
const RULES: &str = "/v2/orgs/local/apps/shop/alerting-rules";
const ALERTS: &str = "/v2/orgs/local/apps/shop/alerts";
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const ROUTING: &str = "0123456789abcdef0123456789abcdef";

fn fast(config: &mut Config) {
    config.policies = policies::Options {
        tick: Duration::from_millis(20),
        alerts_every: Duration::from_millis(100),
        settle: Duration::ZERO,
        ..policies::Options::default()
    };
    config.channels = policies::channels::Options {
        guard: Guard {
            http: true,
            private: true,
        },
        tick: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        retry: (Duration::from_millis(20), Duration::from_millis(100)),
        ..policies::channels::Options::default()
    };
}

async fn start(database: Database) -> TestServer {
    let server = TestServer::start_with(database, AuthMode::None, fast).await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    server
}

/// An application of which so many workflows failed.
async fn failing(server: &TestServer, failed: Arc<Mutex<i64>>) -> FakeExecutor {
    FakeExecutor::connect(server, "shop", "any", "v1", move |request| {
        match request["type"].as_str() {
            Some("get_workflow_aggregates") => {
                json!({"output": [{"group": {"status": "ERROR"}, "count": *failed.lock().unwrap()}]})
            }
            _ => json!({"success": true, "exist": false, "output": [], "metrics": []}),
        }
    })
    .await
}

fn rule(channels: &[&str]) -> Value {
    json!({"ruleType": "WorkflowFailure", "ruleMetadata": {"threshold": 3}, "channels": channels})
}

fn webhook(url: &str) -> Value {
    json!({"name": "hook", "kind": "webhook", "url": url, "signingSecret": SIGNING})
}

#[tokio::test]
async fn channels_are_made_changed_and_deleted_without_showing_secrets() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = TestServer::start_with(database, AuthMode::Keys, |config| {
            config.encryption_key = Some(Secret::new("e".repeat(32)));
        })
        .await;
        let body = json!({"name": "hook", "kind": "webhook", "url": "https://example.com/in?token=topsecret",
            "signingSecret": SIGNING, "headers": {"X-Team": "teamsecret"}, "maxPerMinute": 5});
        let made = server.post(CHANNELS, body.clone()).await.expect(201);
        assert_eq!(made.headers["location"], format!("{CHANNELS}/hook"));
        assert_eq!(made.json["origin"], "https://example.com");
        assert_eq!(made.json["headerNames"], json!(["x-team"]));
        assert_eq!(made.json["sendResolved"], true);
        server.post(CHANNELS, body).await.problem(409);
        let pager = json!({"name": "pager", "kind": "pagerduty", "routingKey": ROUTING, "severity": "info"});
        let pager = server.post(CHANNELS, pager).await.expect(201);
        assert_eq!(pager.json["origin"], "https://events.pagerduty.com");
        let change =
            json!({"sendResolved": false, "signingSecret": format!("{SIGNING} {SIGNING}")});
        let changed = server
            .patch(&format!("{CHANNELS}/hook"), change)
            .await
            .expect(200);
        assert_eq!(
            (&changed.json["sendResolved"], &changed.json["maxPerMinute"]),
            (&json!(false), &json!(5))
        );
        let listed = server.get(CHANNELS).await.expect(200);
        let one = server.get(&format!("{CHANNELS}/hook")).await.expect(200);
        let audit = server.get("/v2/orgs/local/audit-logs").await.expect(200);
        for answer in [&made, &pager, &changed, &listed, &one, &audit] {
            for secret in ["topsecret", "teamsecret", SIGNING, ROUTING] {
                assert!(!answer.text.contains(secret), "{}", answer.text);
            }
        }
        let stored = stored(&server.database.url).await;
        assert!(
            !stored.contains("topsecret") && !stored.contains(ROUTING),
            "{stored}"
        );
        let operations: BTreeSet<&str> = audit
            .json
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["operation"].as_str().unwrap())
            .collect();
        assert!(operations.is_superset(&["alert_channel.create", "alert_channel.update"].into()));

        server.delete(&format!("{CHANNELS}/hook")).await.expect(204);
        for request in [
            server.delete(&format!("{CHANNELS}/hook")).await,
            server.get(&format!("{CHANNELS}/hook")).await,
            server.get(&format!("{CHANNELS}/hook/deliveries")).await,
            server
                .post(&format!("{CHANNELS}/hook/test"), json!({}))
                .await,
        ] {
            request.problem(404);
        }
        refused(&server).await;
    }
}

async fn stored(url: &str) -> String {
    install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT settings, secrets FROM alert_channels")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    format!("{rows:?}")
}

/// What cannot be a channel, and who cannot make one.
async fn refused(server: &TestServer) {
    let https = "https://example.com/x";
    for (body, word) in [
        (
            json!({"name": "x", "kind": "webhook", "url": https}),
            "signingSecret",
        ),
        (json!({"name": "x", "kind": "slack"}), "url"),
        (
            json!({"name": "x", "kind": "slack", "url": "http://example.com"}),
            "SEGNO_ALERT_ALLOW_HTTP",
        ),
        (
            json!({"name": "x", "kind": "slack", "url": "https://u:p@example.com"}),
            "password",
        ),
        (
            json!({"name": "x", "kind": "slack", "url": "https://127.0.0.1/"}),
            "public",
        ),
        (
            json!({"name": "x", "kind": "slack", "url": "https://169.254.169.254/"}),
            "public",
        ),
        (
            json!({"name": "x", "kind": "slack", "url": https, "template": "{}"}),
            "template",
        ),
        (
            json!({"name": "x", "kind": "json", "url": https}),
            "template",
        ),
        (
            json!({"name": "x", "kind": "json", "url": https, "template": "{{ nope }}"}),
            "undefined",
        ),
        (
            json!({"name": "x", "kind": "pagerduty", "routingKey": "short"}),
            "routingKey",
        ),
    ] {
        let problem = server.post(CHANNELS, body.clone()).await.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{body}: {detail}");
    }
    let unknown = json!({"name": "x", "kind": "carrier-pigeon"});
    server.post(CHANNELS, unknown).await.problem(422);

    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    let missing = server.post(RULES, rule(&["nope"])).await.problem(404);
    assert!(missing["detail"].as_str().unwrap().contains("nope"));
    let scoped = server
        .key(
            "narrow",
            &["application.write", "application.read"],
            &["shop"],
        )
        .await;
    let slack = json!({"name": "x", "kind": "slack", "url": https});
    let request = server
        .request(Method::POST, CHANNELS)
        .bearer_auth(&scoped)
        .json(&slack);
    send(request).await.problem(403);
}

#[tokio::test]
async fn an_alert_reaches_every_kind_of_channel_and_so_does_its_end() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = start(database).await;
        // The first two requests to the webhook fail.
        let failures = Arc::new(AtomicUsize::new(2));
        let left = failures.clone();
        let receiver = Receiver::start(move |request| {
            let fails = request.path == "/hook"
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_ok();
            match fails {
                true => status(503, "not now"),
                false => status(200, "ok"),
            }
        })
        .await;
        let template = r#"{"about": {{ application }}, "n": {{ metadata.failed_workflow_count }}, "is": {{ state }}}"#;
        for channel in [
            webhook(&receiver.url("/hook")),
            json!({"name": "slack", "kind": "slack", "url": receiver.url("/slack")}),
            json!({"name": "pager", "kind": "pagerduty", "url": receiver.url("/pager"), "routingKey": ROUTING}),
            json!({"name": "json", "kind": "json", "url": receiver.url("/json"), "template": template,
                "headers": {"Authorization": "Key 12345"}, "sendResolved": false}),
        ] {
            server.post(CHANNELS, channel).await.expect(201);
        }
        let failed = Arc::new(Mutex::new(0));
        let _shop = failing(&server, failed.clone()).await;
        let channels = ["hook", "json", "pager", "slack"];
        let made = server.post(RULES, rule(&channels)).await.expect(201).json;
        assert_eq!(made["channels"], json!(channels));
        assert_eq!(server.get(RULES).await.json[0]["channels"], json!(channels));

        *failed.lock().unwrap() = 5;
        until("everybody is told", async || {
            let told = |path| !receiver.at(path).is_empty();
            told("/slack") && told("/pager") && told("/json") && receiver.at("/hook").len() == 3
        })
        .await;
        signed(&receiver);
        let body = receiver.at("/json")[0].clone();
        assert_eq!(
            body.json(),
            json!({"about": "shop", "n": "5", "is": "firing"})
        );
        assert_eq!(body.header("authorization"), "Key 12345");
        let slack = receiver.at("/slack")[0].json();
        assert!(slack["text"].as_str().unwrap().contains("shop"), "{slack}");
        let trigger = receiver.at("/pager")[0].json();
        assert_eq!(
            (&trigger["routing_key"], &trigger["event_action"]),
            (&json!(ROUTING), &json!("trigger"))
        );
        assert_eq!(trigger["payload"]["severity"], "error");
        assert_eq!(
            trigger["payload"]["custom_details"]["failed_workflow_count"],
            "5"
        );

        *failed.lock().unwrap() = 0;
        until("everybody is told that it is over", async || {
            let twice = |path| receiver.at(path).len() == 2;
            twice("/slack") && twice("/pager") && receiver.at("/hook").len() == 4
        })
        .await;
        let resolve = receiver.at("/pager")[1].json();
        assert_eq!(
            (&resolve["event_action"], &resolve["dedup_key"]),
            (&json!("resolve"), &trigger["dedup_key"])
        );
        assert_eq!(receiver.at("/hook")[3].json()["type"], "alert.resolved");
        until("all is written down", async || {
            let alerts = server.get(ALERTS).await.expect(200).json;
            let deliveries = alerts[0]["deliveries"].as_array().unwrap().clone();
            deliveries.len() == 8 && deliveries.iter().all(|each| each["state"] == "DELIVERED")
        })
        .await;
        history(&server, made["id"].as_str().unwrap()).await;
    }
}

/// The signature is one that a receiver's own library computes, and repeats bear the same id.
fn signed(receiver: &Receiver) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"01234567890123456789012345678901");
    let tries = receiver.at("/hook");
    for request in &tries {
        let (id, time) = (
            request.header("webhook-id"),
            request.header("webhook-timestamp"),
        );
        assert_eq!(id, tries[0].header("webhook-id"));
        let age = chrono::Utc::now().timestamp() - time.parse::<i64>().unwrap();
        assert!((-5..60).contains(&age), "{age}");
        let signature = request.header("webhook-signature");
        let signature = STANDARD
            .decode(signature.strip_prefix("v1,").unwrap())
            .unwrap();
        let text = format!("{id}.{time}.{}", request.text);
        hmac::verify(&key, text.as_bytes(), &signature).unwrap();
    }
    let body = tries[0].json();
    assert_eq!(body["type"], "alert.firing");
    assert_eq!(body["data"]["ruleType"], "WorkflowFailure");
    assert_eq!(body["data"]["metadata"]["threshold"], "3");
}

async fn history(server: &TestServer, rule_id: &str) {
    let alerts = server.get(ALERTS).await.json;
    assert_eq!(alerts.as_array().unwrap().len(), 1, "{alerts}");
    let alert = &alerts[0];
    assert_eq!(
        (&alert["state"], &alert["ruleId"]),
        (&json!("resolved"), &json!(rule_id))
    );
    assert_eq!(alert["handler"]["outcome"], "delivered");
    assert!(alert["resolvedAt"].as_str() >= alert["since"].as_str());
    let firing = server.get(&format!("{ALERTS}?state=firing")).await;
    assert_eq!(firing.expect(200).json, json!([]));
    server
        .get(&format!("{ALERTS}?state=nope"))
        .await
        .problem(422);

    let log = server.get(&format!("{CHANNELS}/hook/deliveries")).await;
    let log = log.expect(200).json;
    let shown: Vec<(&Value, &Value, &Value)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|each| (&each["event"], &each["delivered"], &each["status"]))
        .collect();
    let (firing, resolved) = (json!("firing"), json!("resolved"));
    let (yes, no, ok, busy) = (json!(true), json!(false), json!(200), json!(503));
    assert_eq!(
        shown,
        [
            (&resolved, &yes, &ok),
            (&firing, &yes, &ok),
            (&firing, &no, &busy),
            (&firing, &no, &busy)
        ]
    );
    assert!(log[2]["error"].as_str().unwrap().contains("not now"));
    for line in [
        "segno_alert_delivery_seconds_count{kind=\"webhook\",outcome=\"retried\"} 2",
        "segno_alert_delivery_seconds_count{kind=\"webhook\",outcome=\"delivered\"} 2",
        "segno_alert_outbox 0",
    ] {
        until(line, async || {
            let metrics = server.get("/metrics").await.expect(200).text;
            metrics.contains(line)
        })
        .await;
    }
}

#[tokio::test]
async fn a_channel_is_told_once_and_again_only_at_the_rules_interval() {
    let server = start(Database::sqlite()).await;
    let receiver = Receiver::start(|_| status(200, "")).await;
    server
        .post(CHANNELS, webhook(&receiver.url("/hook")))
        .await
        .expect(201);
    let failed = Arc::new(Mutex::new(9));
    let shop = failing(&server, failed).await;
    let once = server.post(RULES, rule(&["hook"])).await.expect(201).json;
    until("it is told", async || !receiver.at("/hook").is_empty()).await;
    let asked = shop.of_type("get_workflow_aggregates").len();
    until("five more evaluations", async || {
        shop.of_type("get_workflow_aggregates").len() >= asked + 5
    })
    .await;
    assert_eq!(receiver.at("/hook").len(), 1);

    // Deleting the rule is the end of what it found.
    let id = once["id"].as_str().unwrap();
    server.delete(&format!("{RULES}/{id}")).await.expect(204);
    until("the end is told", async || receiver.at("/hook").len() == 2).await;
    assert_eq!(receiver.at("/hook")[1].json()["type"], "alert.resolved");

    let mut again = rule(&[]);
    again["minIntervalSecs"] = json!(1);
    let again = server.post(RULES, again).await.expect(201).json;
    let of = format!("{RULES}/{}/channels", again["id"].as_str().unwrap());
    let set = server.put(&of, json!({"channels": ["hook"]})).await;
    assert_eq!(set.expect(200).json["channels"], json!(["hook"]));
    until("it is repeated", async || receiver.at("/hook").len() >= 4).await;
    let unset = server.put(&of, json!({"channels": []})).await.expect(200);
    assert_eq!(unset.json["channels"], Value::Null);

    // So is deleting the application.
    server.delete("/v2/orgs/local/apps/shop").await.expect(204);
    until("the end is told", async || {
        let last = receiver.at("/hook").pop().unwrap();
        last.json()["type"] == "alert.resolved" && last.json()["data"]["ruleId"] == again["id"]
    })
    .await;
}

#[tokio::test]
async fn an_application_alone_can_be_watched_with_a_channel() {
    let server = start(Database::sqlite()).await;
    let receiver = Receiver::start(|_| status(200, "")).await;
    server
        .post(CHANNELS, webhook(&receiver.url("/hook")))
        .await
        .expect(201);
    let shop = failing(&server, Arc::default()).await;
    let rule =
        json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}, "channels": ["hook"]});
    let made = server.post(RULES, rule).await.expect(201).json;
    let of = format!("{RULES}/{}/channels", made["id"].as_str().unwrap());
    server.put(&of, json!({"channels": []})).await.problem(400);
    drop(shop);
    until("its silence is told", async || {
        !receiver.at("/hook").is_empty()
    })
    .await;
    let _back = failing(&server, Arc::default()).await;
    until("its return is told", async || {
        receiver.at("/hook").len() == 2
    })
    .await;
    let kinds: Vec<Value> = receiver
        .at("/hook")
        .iter()
        .map(|each| each.json()["type"].clone())
        .collect();
    assert_eq!(kinds, ["alert.firing", "alert.resolved"]);
}

#[tokio::test]
async fn a_test_tells_what_the_other_side_said() {
    let server = start(Database::sqlite()).await;
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/echo" => status(400, &format!("you sent {}", request.text)),
        "/moved" => Response::builder()
            .status(307)
            .header("location", "/elsewhere")
            .body(Body::empty())
            .unwrap(),
        "/endless" => Response::new(Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>("x".repeat(1000))
        }))),
        "/silent" => Response::new(Body::from_stream(futures_util::stream::pending::<
            std::io::Result<String>,
        >())),
        _ => status(202, "fine"),
    })
    .await;
    let test = async |name: &str, body: Value| {
        let made = server.post(CHANNELS, body).await;
        made.expect(201);
        let path = format!("{CHANNELS}/{name}/test");
        server.post(&path, json!({})).await.expect(200).json
    };
    let slack = |name: &str| json!({"name": name, "kind": "slack", "url": receiver.url(&format!("/{name}"))});
    let fine = test("fine", slack("fine")).await;
    assert_eq!(
        (&fine["delivered"], &fine["status"], &fine["answer"]),
        (&json!(true), &json!(202), &json!("fine"))
    );
    assert!(fine["latencyMs"].is_i64() && fine["error"].is_null());
    let moved = test("moved", slack("moved")).await;
    assert_eq!(
        (&moved["delivered"], &moved["status"]),
        (&json!(false), &json!(307))
    );
    assert!(receiver.at("/elsewhere").is_empty(), "not followed");
    let endless = test("endless", slack("endless")).await;
    assert_eq!(endless["answer"].as_str().unwrap().len(), 500);
    let silent = test("silent", slack("silent")).await;
    assert_eq!(
        (&silent["delivered"], &silent["status"]),
        (&json!(true), &json!(200))
    );

    let pager = json!({"name": "pager", "kind": "pagerduty", "url": receiver.url("/pager"), "routingKey": ROUTING});
    assert_eq!(test("pager", pager).await["delivered"], true);
    let actions: Vec<Value> = receiver
        .at("/pager")
        .iter()
        .map(|each| each.json()["event_action"].clone())
        .collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    let echo = json!({"name": "echo", "kind": "pagerduty", "url": receiver.url("/echo"), "routingKey": ROUTING});
    let echo = test("echo", echo).await;
    assert!(
        echo["error"].as_str().unwrap().contains("(hidden)"),
        "{echo}"
    );
    assert!(!echo.to_string().contains(ROUTING), "{echo}");

    let log = server
        .get(&format!("{CHANNELS}/fine/deliveries"))
        .await
        .expect(200);
    assert_eq!(log.json[0]["event"], "test");
    assert_eq!(log.json[0]["alertId"], Value::Null);
}

#[tokio::test]
async fn nothing_inside_is_reached() {
    let receiver = Receiver::start(|_| status(200, "inside")).await;
    let server = TestServer::start_with(Database::sqlite(), AuthMode::None, |config| {
        fast(config);
        config.channels.guard.private = false;
    })
    .await;
    let direct = json!({"name": "direct", "kind": "slack", "url": receiver.url("/")});
    server.post(CHANNELS, direct).await.problem(400);
    // A name is only known to lead inside when it is resolved.
    let url = format!("http://localhost:{}/", receiver.port);
    let named = json!({"name": "named", "kind": "slack", "url": url});
    server.post(CHANNELS, named).await.expect(201);
    let tested = server
        .post(&format!("{CHANNELS}/named/test"), json!({}))
        .await
        .expect(200)
        .json;
    assert_eq!(
        (&tested["delivered"], &tested["status"]),
        (&json!(false), &Value::Null)
    );
    assert!(
        tested["error"]
            .as_str()
            .unwrap()
            .contains("not a public address"),
        "{tested}"
    );
    assert!(receiver.at("/").is_empty());
}

#[tokio::test]
async fn a_channel_gets_no_more_than_it_wants() {
    let server = start(Database::sqlite()).await;
    let receiver = Receiver::start(|_| status(200, "")).await;
    let mut body = webhook(&receiver.url("/hook"));
    body["maxPerMinute"] = json!(2);
    server.post(CHANNELS, body).await.expect(201);
    let test = format!("{CHANNELS}/hook/test");
    for _ in 0..2 {
        server.post(&test, json!({})).await.expect(200);
    }
    let crowded = server.post(&test, json!({})).await;
    assert!(crowded.headers.contains_key("retry-after"));
    crowded.problem(429);
    // An alert waits for its turn instead.
    let _shop = failing(&server, Arc::new(Mutex::new(9))).await;
    server.post(RULES, rule(&["hook"])).await.expect(201);
    until("it is put down", async || {
        server.get(ALERTS).await.json[0]["deliveries"][0]["state"] == "PENDING"
    })
    .await;
    let clock = receiver.at("/hook").len();
    assert_eq!(clock, 2);
}

#[tokio::test]
async fn what_cannot_be_delivered_is_given_up_in_the_end() {
    let server = TestServer::start_with(Database::sqlite(), AuthMode::None, |config| {
        fast(config);
        config.channels.give_up_after = Duration::from_millis(500);
    })
    .await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/gone" => status(410, "no such hook"),
        _ => status(500, "broken"),
    })
    .await;
    let broken = webhook(&receiver.url("/broken"));
    server.post(CHANNELS, broken).await.expect(201);
    let gone = json!({"name": "gone", "kind": "slack", "url": receiver.url("/gone")});
    server.post(CHANNELS, gone).await.expect(201);
    let _shop = failing(&server, Arc::new(Mutex::new(9))).await;
    server
        .post(RULES, rule(&["gone", "hook"]))
        .await
        .expect(201);
    until("both failed", async || {
        let alerts = server.get(ALERTS).await.json;
        let deliveries = alerts[0]["deliveries"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        deliveries.len() == 2 && deliveries.iter().all(|each| each["state"] == "FAILED")
    })
    .await;
    assert_eq!(receiver.at("/gone").len(), 1, "refused for good");
    assert!(receiver.at("/broken").len() > 1, "tried again");
}

/// Two instances on one database, one receiver.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn two_instances_deliver_once() {
    let database = Database::postgres().await;
    let url = database.url.clone();
    let first = start(database).await;
    let second = TestServer::start_with(Database::at(&url), AuthMode::None, |config| {
        fast(config);
        config.advertise_address = "127.0.0.2".to_owned();
    })
    .await;
    let receiver = Receiver::start(|_| status(200, "")).await;
    for n in 0..4 {
        let mut body = webhook(&receiver.url("/hook"));
        body["name"] = json!(format!("hook-{n}"));
        body["maxPerMinute"] = json!(600);
        first.post(CHANNELS, body).await.expect(201);
    }
    let failed = Arc::new(Mutex::new(9));
    let _here = failing(&first, failed.clone()).await;
    let _there = failing(&second, failed.clone()).await;
    for _ in 0..5 {
        let all = rule(&["hook-0", "hook-1", "hook-2", "hook-3"]);
        first.post(RULES, all).await.expect(201);
    }
    let ids = || -> Vec<String> {
        let requests = receiver.at("/hook");
        requests
            .iter()
            .map(|each| each.header("webhook-id").to_owned())
            .collect()
    };
    until("all twenty are told", async || ids().len() >= 20).await;
    *failed.lock().unwrap() = 0;
    until("the end of all is told", async || ids().len() >= 40).await;
    let distinct: BTreeSet<String> = ids().into_iter().collect();
    assert_eq!((ids().len(), distinct.len()), (40, 40));
    second.stop().await;
}
