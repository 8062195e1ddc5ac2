//! Alerting rules: what they may say, when they fire, and who is told how often.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use segno_server::config::{AuthMode, Config};
use segno_server::policies;
use serde_json::{Value, json};

use crate::executor::{FakeExecutor, until};
use crate::server::{Database, TestServer, execute, send};

const SHOP: &str = "/v2/orgs/local/apps/shop";
const RULES: &str = "/v2/orgs/local/apps/shop/alerting-rules";

fn fast(config: &mut Config) {
    config.policies = policies::Options {
        tick: Duration::from_millis(20),
        alerts_every: Duration::from_millis(100),
        probe: Duration::from_millis(300),
        settle: Duration::ZERO,
        ..policies::Options::default()
    };
}

async fn start(database: Database) -> TestServer {
    let server = TestServer::start_with(database, AuthMode::None, fast).await;
    for app in ["shop", "pager"] {
        server
            .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
            .await
            .expect(204);
    }
    server
}

fn idle(_: &Value) -> Value {
    json!({"success": true, "exist": false, "output": [], "metrics": []})
}

/// Answers like an application with so many failed and so many waiting workflows.
fn troubled(counts: Arc<Mutex<(i64, i64)>>) -> impl Fn(&Value) -> Value {
    move |request| {
        if request["type"] != "get_workflow_aggregates" {
            return idle(request);
        }
        let (failed, waiting) = *counts.lock().unwrap();
        let rows = match request["body"]["status"][0].as_str() {
            Some("ERROR") => json!([{"group": {"status": "ERROR"}, "count": failed},
                {"group": {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}, "count": 1}]),
            Some("ENQUEUED") => json!([{"group": {"status": "ENQUEUED"}, "count": waiting}]),
            _ => json!([]),
        };
        json!({"output": rows})
    }
}

async fn evaluated(executor: &FakeExecutor, more: usize) {
    let asked = || executor.of_type("get_workflow_aggregates").len();
    let before = asked();
    until("more evaluations", async || asked() >= before + more).await;
}

#[tokio::test]
async fn rules_are_made_listed_and_deleted() {
    for server in TestServer::each(AuthMode::Keys).await {
        for app in ["shop", "pager"] {
            server
                .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
                .await
                .expect(204);
        }
        let ids = (
            server.get(SHOP).await.json["id"].clone(),
            server.get("/v2/orgs/local/apps/pager").await.json["id"].clone(),
        );
        let body = json!({"ruleType": "WorkflowFailure", "receivingAppName": "pager", "minIntervalSecs": 60,
            "ruleMetadata": {"workflowName": "checkout", "threshold": "3"}});
        let made = server.post(RULES, body).await.expect(201).json;
        let id = made["id"].as_str().unwrap().to_owned();
        assert_eq!(
            made,
            json!({"appId": ids.0, "id": id, "lastFiredAt": null, "minIntervalSecs": 60,
            "receivingAppId": ids.1, "ruleType": "WorkflowFailure",
            "ruleMetadata": {"workflow_name": "checkout", "threshold": 3, "period_secs": 60}})
        );
        assert_eq!(server.get(RULES).await.expect(200).json, json!([made]));
        let own = json!({"ruleType": "StrandedRecovery", "ruleMetadata": {}});
        assert_eq!(
            server.post(RULES, own).await.expect(201).json["receivingAppId"],
            ids.0
        );

        let refused =
            async |body: Value, status: u16| server.post(RULES, body).await.problem(status);
        refused(
            json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}}),
            400,
        )
        .await;
        refused(json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}, "receivingAppName": "shop"}), 400).await;
        refused(json!({"ruleType": "SlowQueue", "ruleMetadata": {}}), 400).await;
        refused(
            json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 1, "zzz": 1}}),
            400,
        )
        .await;
        refused(json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 1}, "receivingAppName": "nope"}), 404).await;
        refused(json!({"ruleType": "Nope", "ruleMetadata": {}}), 422).await;
        refused(json!({"ruleType": "SlowQueue"}), 422).await;

        let scoped = server
            .key("scoped", &["application.write"], &["shop"])
            .await;
        let foreign = json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 1}, "receivingAppName": "pager"});
        let request = server
            .request(Method::POST, RULES)
            .bearer_auth(&scoped)
            .json(&foreign);
        send(request).await.problem(404);

        server.delete(&format!("{RULES}/{id}")).await.expect(204);
        server.delete(&format!("{RULES}/{id}")).await.problem(404);
        let log = server
            .get(&format!("/v2/orgs/local/audit-logs?target={id}"))
            .await
            .expect(200)
            .json;
        let done: BTreeSet<(String, String)> = log
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["operation"].to_string(), entry["status"].to_string()))
            .collect();
        let expected = [
            ("alerting_rule.create", "success"),
            ("alerting_rule.delete", "failure"),
            ("alerting_rule.delete", "success"),
        ];
        assert_eq!(
            done,
            expected
                .iter()
                .map(|(a, b)| (json!(a).to_string(), json!(b).to_string()))
                .collect()
        );

        let unresponsive = json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}, "receivingAppName": "pager"});
        server.post(RULES, unresponsive).await.expect(201);
        server.delete("/v2/orgs/local/apps/pager").await.expect(204);
        assert_eq!(
            server
                .get(RULES)
                .await
                .expect(200)
                .json
                .as_array()
                .unwrap()
                .len(),
            1,
            "the receiver's rule went with it"
        );
    }
}

#[tokio::test]
async fn failures_are_told_once_in_an_interval() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = start(database).await;
        let counts = Arc::new(Mutex::new((1, 0)));
        let shop =
            FakeExecutor::connect(&server, "shop", "any", "v1", troubled(counts.clone())).await;
        let rule = json!({"ruleType": "WorkflowFailure", "ruleMetadata": {"threshold": 3, "period_secs": 3600}, "receivingAppName": "pager"});
        server.post(RULES, rule).await.expect(201);
        evaluated(&shop, 2).await;
        let sent = &shop.of_type("get_workflow_aggregates")[0]["body"];
        assert_eq!(
            sent["status"],
            json!(["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
        );
        assert_eq!(sent["application_name"], json!(["shop"]));
        let since = chrono::DateTime::parse_from_rfc3339(sent["completed_after"].as_str().unwrap())
            .unwrap();
        let ago = (chrono::Utc::now() - since.with_timezone(&chrono::Utc)).num_seconds();
        assert!((3595..3700).contains(&ago), "{ago}");

        // Nobody is there to be told: tried again, and not counted as fired.
        counts.lock().unwrap().0 = 4;
        evaluated(&shop, 3).await;
        assert_eq!(server.get(RULES).await.json[0]["lastFiredAt"], Value::Null);
        let pager = FakeExecutor::connect(&server, "pager", "any", "v1", idle).await;
        until("the alert", async || !pager.of_type("alert").is_empty()).await;
        until("it is written down", async || {
            server.get(RULES).await.json[0]["lastFiredAt"].is_string()
        })
        .await;
        let alert = pager.of_type("alert").pop().unwrap();
        assert_eq!(alert["name"], "WorkflowFailure");
        assert!(alert["message"].as_str().unwrap().contains("shop"));
        assert_eq!(
            alert["metadata"],
            json!({"workflow_name": "*", "failed_workflow_count": "5", "threshold": "3", "period_secs": "3600"})
        );

        // Within its interval the rule is silent; another one, evaluated in the same rounds, is the clock.
        let clock = json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 60}});
        server.post(RULES, clock).await.expect(201);
        evaluated(&shop, 3).await;
        assert_eq!(pager.of_type("alert").len(), 1);
        assert!(shop.of_type("alert").is_empty());
        let text = server.get("/metrics").await.expect(200).text;
        assert!(
            text.contains("segno_alerts_total{outcome=\"delivered\",rule=\"WorkflowFailure\"} 1"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_slow_queue_is_told_again_after_the_interval() {
    let server = start(Database::sqlite()).await;
    let counts = Arc::new(Mutex::new((0, 2)));
    let shop = FakeExecutor::connect(&server, "shop", "any", "v1", troubled(counts)).await;
    let rule = json!({"ruleType": "SlowQueue", "ruleMetadata": {"queue_name": "q", "threshold_secs": 600}, "minIntervalSecs": 1});
    server.post(RULES, rule).await.expect(201);
    until("a second alert", async || shop.of_type("alert").len() >= 2).await;
    let sent = &shop.of_type("get_workflow_aggregates")[0]["body"];
    assert_eq!(
        (&sent["status"], &sent["queue_name"]),
        (&json!(["ENQUEUED"]), &json!(["q"]))
    );
    assert!(sent["end_time"].is_string());
    let alert = &shop.of_type("alert")[0];
    assert_eq!(
        alert["metadata"],
        json!({"queue_name": "q", "stuck_workflow_count": "2", "threshold_secs": "600"})
    );
}

#[tokio::test]
async fn a_silent_application_is_told_to_another() {
    let server = start(Database::sqlite()).await;
    let rule = json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}, "receivingAppName": "pager", "minIntervalSecs": 3600});
    server.post(RULES, rule.clone()).await.expect(201);
    server
        .put("/v2/orgs/local/apps/never", json!({}))
        .await
        .expect(204);
    server
        .post("/v2/orgs/local/apps/never/alerting-rules", rule)
        .await
        .expect(201);
    let pager = FakeExecutor::connect(&server, "pager", "any", "v1", idle).await;
    let shop = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
    let clock = json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 60}});
    server.post(RULES, clock).await.expect(201);
    evaluated(&shop, 3).await;
    assert!(pager.of_type("alert").is_empty());
    drop(shop);
    until("the alert", async || !pager.of_type("alert").is_empty()).await;
    let alerts = pager.of_type("alert");
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        alerts[0]["metadata"],
        json!({"application_name": "shop", "connected_executor_count": "0"})
    );
}

#[tokio::test]
async fn stranded_work_is_told() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = start(database).await;
        let shop = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
        let id = server.get(SHOP).await.json["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let row = |name: &str, pending: &str, dead_at: i64| {
            format!(
                "INSERT INTO recoveries (id, app_id, executor_id, app_version, status, reason, pending_workflows, \
                disconnected_at, dead_at) VALUES ('{name}', '{id}', '{name}', 'v0', 'STRANDED', 'NO_MATCHING_VERSION', \
                {pending}, {dead_at}, {dead_at})"
            )
        };
        let now = chrono::Utc::now().timestamp_millis();
        // Too few, and unknown for too short a time.
        execute(&server.database.url, row("few", "4", now)).await;
        execute(&server.database.url, row("young", "NULL", now)).await;
        let rule = json!({"ruleType": "StrandedRecovery", "ruleMetadata": {"min_workflows": 5}, "minIntervalSecs": 3600});
        server.post(RULES, rule).await.expect(201);
        let clock = json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 60}});
        server.post(RULES, clock).await.expect(201);
        evaluated(&shop, 3).await;
        assert!(shop.of_type("alert").is_empty());
        execute(&server.database.url, row("many", "7", now)).await;
        execute(&server.database.url, row("unknown", "NULL", now - 600_000)).await;
        until("the alert", async || !shop.of_type("alert").is_empty()).await;
        let alert = shop.of_type("alert").pop().unwrap();
        let told = alert["metadata"]["executor_id"].as_str().unwrap();
        assert!(["many", "unknown"].contains(&told), "{alert}");
        assert_eq!(alert["metadata"]["reason"], "NO_MATCHING_VERSION");
        assert_eq!(alert["metadata"]["application_version"], "v0");
    }
}

#[tokio::test]
async fn a_handler_that_may_have_run_is_not_called_again() {
    let server = start(Database::sqlite()).await;
    let counts = Arc::new(Mutex::new((9, 0)));
    let shop = FakeExecutor::connect(&server, "shop", "any", "v1", troubled(counts)).await;
    let fails = |request: &Value| match request["type"].as_str().unwrap() {
        "alert" => json!({"success": false, "error_message": "the handler raised"}),
        _ => idle(request),
    };
    let one = FakeExecutor::connect(&server, "pager", "any", "v1", fails).await;
    let two = FakeExecutor::connect(&server, "pager", "any", "v1", fails).await;
    let rule = json!({"ruleType": "WorkflowFailure", "ruleMetadata": {"period_secs": 3600}, "receivingAppName": "pager"});
    server.post(RULES, rule).await.expect(201);
    let clock = json!({"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 60}});
    server.post(RULES, clock).await.expect(201);
    let alerts = || one.of_type("alert").len() + two.of_type("alert").len();
    until("the alert", async || alerts() > 0).await;
    evaluated(&shop, 3).await;
    assert_eq!(alerts(), 1);
}

/// Releases without aggregates are asked for the workflows themselves: some of them, without payloads.
#[tokio::test]
async fn without_aggregates_workflows_are_counted_in_a_list() {
    let server = start(Database::sqlite()).await;
    let answers = |request: &Value| match request["type"].as_str().unwrap() {
        "list_workflows" => json!({"output": [{"WorkflowUUID": "a", "Status": "ERROR"},
            {"WorkflowUUID": "b", "Status": "ERROR"}, {"WorkflowUUID": "c", "Status": "ERROR"}]}),
        "get_workflow_aggregates" => json!({"error_message": "Unknown message type"}),
        _ => idle(request),
    };
    // One is known not to know the question, the other says so.
    for (app, release) in [("shop", "2.10.0"), ("pager", "3.2.0")] {
        let release = ("python", release);
        let executor = FakeExecutor::of_release(&server, app, "any", "v1", release, answers).await;
        let rules = format!("/v2/orgs/local/apps/{app}/alerting-rules");
        let metadata = json!({"threshold": 3, "workflow_name": "checkout"});
        let rule = json!({"ruleType": "WorkflowFailure", "ruleMetadata": metadata});
        server.post(&rules, rule).await.expect(201);
        until("the alert", async || !executor.of_type("alert").is_empty()).await;
        let alert = executor.of_type("alert").pop().unwrap();
        assert_eq!(alert["metadata"]["failed_workflow_count"], "3");
        let sent = &executor.of_type("list_workflows")[0]["body"];
        assert_eq!(
            (&sent["load_input"], &sent["load_output"], &sent["limit"]),
            (&json!(false), &json!(false), &json!(1000))
        );
        assert_eq!(
            (&sent["status"], &sent["workflow_name"]),
            (
                &json!(["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]),
                &json!(["checkout"])
            )
        );
        assert!(sent["completed_after"].is_string());
        let asked = executor.of_type("get_workflow_aggregates").len();
        assert!(
            if app == "shop" {
                asked == 0
            } else {
                asked == 1
            },
            "{app}: {asked}"
        );
    }
}

#[tokio::test]
async fn executors_that_are_connected_and_silent_are_no_application() {
    let server = start(Database::sqlite()).await;
    let rule = json!({"ruleType": "UnresponsiveApplication", "ruleMetadata": {}, "receivingAppName": "pager",
        "minIntervalSecs": 3600});
    server.post(RULES, rule).await.expect(201);
    let pager = FakeExecutor::connect(&server, "pager", "any", "v1", idle).await;
    let one = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
    let two = FakeExecutor::connect(&server, "shop", "any", "v1", idle).await;
    let alerts = format!("{SHOP}/alerts");
    // One that answers is enough, for as long as there is one.
    one.silent.store(true, Ordering::SeqCst);
    let answered = async || -> u64 {
        let metrics = server.get("/metrics").await.expect(200).text;
        let line =
            "segno_executor_request_seconds_count{message=\"executor_info\",outcome=\"ok\"} ";
        let count = metrics.lines().find_map(|each| each.strip_prefix(line));
        count.map_or(0, |count| count.parse().unwrap())
    };
    let before = answered().await;
    until("three more probes", async || answered().await >= before + 3).await;
    assert_eq!(server.get(&alerts).await.expect(200).json, json!([]));
    two.silent.store(true, Ordering::SeqCst);
    until("the alert", async || !pager.of_type("alert").is_empty()).await;
    assert_eq!(
        pager.of_type("alert")[0]["metadata"],
        json!({"application_name": "shop", "connected_executor_count": "2"})
    );
    two.silent.store(false, Ordering::SeqCst);
    until("it is over", async || {
        let shown = server.get(&alerts).await.json;
        shown[0]["state"] == "resolved"
    })
    .await;
}
