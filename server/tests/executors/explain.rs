//! Why a workflow is not moving, by what its executors and the server know.

use serde_json::{Value, json};

use crate::fake::{CREATED, Fake, Reply, Workflows, dial};
use crate::server::{Database, Server};

/// Far enough ahead that no test reaches it: epoch milliseconds, and as it is shown.
const LATER: i64 = 4_102_444_800_000;
const LATER_TEXT: &str = "2100-01-01T00:00:00.000Z";

async fn explain(server: &Server, id: &str) -> Value {
    server
        .get(&format!("/apps/shop/workflows/{id}/explain"))
        .await
}

fn record(members: Value) -> Value {
    let mut record = json!({"WorkflowUUID": "w", "ApplicationVersion": "v1", "ExecutorID": "e",
        "CreatedAt": CREATED.to_string(), "UpdatedAt": CREATED.to_string()});
    for (name, value) in members.as_object().unwrap() {
        record[name] = value.clone();
    }
    record
}

/// An executor `e` of `v1` whose application answers some messages as given.
async fn application(
    server: &Server,
    language: &str,
    answers: impl Fn(&Value) -> Option<Value> + Send + 'static,
) -> Fake {
    let socket = dial(server.address, "/websocket/shop/any").await.unwrap();
    let behave = move |request: &Value| answers(request).map_or(Reply::Usual, Reply::Json);
    let fake = Fake::serve(socket, "e", "v1", language, &Workflows::default(), behave);
    server
        .until_status("shop", "e", "v1", Some("HEALTHY"))
        .await;
    fake
}

/// What becomes of a pending workflow's executor is what is told of the workflow.
async fn a_lost_owner_is_told(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 600).await;
    let workflows = Workflows::default();
    workflows.running(1, "victim", "v1");
    workflows.running(1, "stranger", "v1");
    let _other = Fake::connect(&server, "shop", "other", "v2", &workflows).await;
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let told = explain(&server, "victim-v1-0").await;
    assert_eq!(told["code"], "RUNNING", "{told}");
    assert_eq!(told["details"]["lastStep"], 1);
    assert_eq!(told["details"]["executorId"], "victim");
    let told = explain(&server, "stranger-v1-0").await;
    assert_eq!(told["code"], "EXECUTOR_UNKNOWN", "{told}");

    victim.die().await;
    server
        .until_status("shop", "victim", "v1", Some("DISCONNECTED"))
        .await;
    let told = explain(&server, "victim-v1-0").await;
    assert_eq!(told["code"], "EXECUTOR_DISCONNECTED", "{told}");
    let time = |member: &str| {
        chrono::DateTime::parse_from_rfc3339(told[member].as_str().unwrap()).unwrap()
    };
    assert_eq!((time("until") - time("since")).num_seconds(), 600, "grace");

    server.app("shop", 1).await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    let told = explain(&server, "victim-v1-0").await;
    assert_eq!(told["code"], "NO_EXECUTOR_OF_VERSION", "{told}");
    assert_eq!(told["details"]["neededVersion"], "v1");
    assert_eq!(told["details"]["recoveryId"], record["id"]);
    assert_eq!(told["since"], record["deadAt"]);

    let path = format!(
        "/apps/shop/recoveries/{}/abandon",
        record["id"].as_str().unwrap()
    );
    server.post(&path, json!({"reason": "test data"})).await;
    let told = explain(&server, "victim-v1-0").await;
    assert_eq!(told["code"], "ABANDONED", "{told}");
    assert_eq!(told["details"]["recoveryId"], record["id"]);
}

#[tokio::test]
async fn a_lost_owner_is_told_sqlite() {
    a_lost_owner_is_told(Database::sqlite()).await;
}

#[tokio::test]
async fn a_lost_owner_is_told_postgres() {
    a_lost_owner_is_told(Database::postgres().await).await;
}

#[tokio::test]
async fn what_has_ended_or_is_put_off_says_so() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let _e = application(&server, "python", |request| {
        if request["type"] != "get_workflow" {
            return None;
        }
        let status = request["workflow_id"].as_str().unwrap();
        Some(match status {
            "DELAYED" => json!({"output": record(json!({"Status": status, "DelayUntilEpochMS": LATER.to_string()}))}),
            "NONE" => json!({"output": null}),
            _ => json!({"output": record(json!({"Status": status, "CompletedAt": LATER.to_string()}))}),
        })
    })
    .await;
    for (status, code) in [
        ("SUCCESS", "ENDED"),
        ("ERROR", "ENDED"),
        ("CANCELLED", "ENDED"),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "RECOVERY_LIMIT"),
    ] {
        let told = explain(&server, status).await;
        assert_eq!(
            (&told["code"], &told["since"]),
            (&json!(code), &json!(LATER_TEXT)),
            "{told}"
        );
    }
    let told = explain(&server, "DELAYED").await;
    assert_eq!(
        (&told["code"], &told["until"]),
        (&json!("DELAYED"), &json!(LATER_TEXT))
    );
    let path = "/apps/shop/workflows/NONE/explain";
    let (status, _) = server.call(reqwest::Method::GET, path, None).await;
    assert_eq!(status, 404);
}

/// A queue of concurrency 2 and a rate of 3 in a day, as many running and started as a test says.
async fn queue(server: &Server, running: usize, started: usize, version: &'static str) -> Fake {
    application(server, "python", move |request| {
        let body = &request["body"];
        let queued = |id: String, created: i64, priority: i64| {
            record(json!({"WorkflowUUID": id, "Status": "ENQUEUED", "QueueName": "mail", "ApplicationVersion": version,
                "CreatedAt": (CREATED + created).to_string(), "Priority": priority.to_string()}))
        };
        Some(match request["type"].as_str().unwrap() {
            "get_workflow" => json!({"output": queued("w".to_owned(), 5, 1)}),
            "get_queue" => json!({"output": {"name": "mail", "concurrency": 2, "rate_limit_max": 3,
                "rate_limit_period_sec": 86_400.0}}),
            "list_workflows" if body["dequeued_after"].is_string() => {
                let now = chrono::Utc::now().timestamp_millis();
                let one = |n| record(json!({"WorkflowUUID": format!("s{n}"), "DequeuedAt": (now - 1000).to_string()}));
                json!({"output": (0..started).map(one).collect::<Vec<_>>()})
            }
            "list_workflows" if body["status"] == json!(["PENDING"]) => {
                json!({"output": (0..running).map(|n| record(json!({"WorkflowUUID": format!("r{n}")}))).collect::<Vec<_>>()})
            }
            // Before it: an older one of its priority and a younger more urgent one.
            "list_workflows" => json!({"output": [queued("older".to_owned(), 1, 1), queued("urgent".to_owned(), 9, 0),
                queued("w".to_owned(), 5, 1), queued("less".to_owned(), 0, 2)]}),
            _ => return None,
        })
    })
    .await
}

#[tokio::test]
async fn a_queue_tells_the_place_and_the_limit() {
    for (running, started, version, code) in [
        (1, 0, "v1", "QUEUED"),
        (2, 0, "v1", "QUEUE_FULL"),
        (1, 3, "v1", "QUEUE_RATE_LIMITED"),
        (1, 0, "v9", "NO_EXECUTOR_OF_VERSION"),
    ] {
        let server = Server::start(Database::sqlite()).await;
        server.app("shop", 60).await;
        let _e = queue(&server, running, started, version).await;
        let told = explain(&server, "w").await;
        assert_eq!(told["code"], code, "{told}");
        assert_eq!(told["details"]["queueName"], "mail");
        assert_eq!(told["since"], "2026-01-02T03:04:05.005Z");
        match code {
            "NO_EXECUTOR_OF_VERSION" => assert_eq!(told["details"]["neededVersion"], "v9"),
            _ => assert_eq!(told["details"]["position"], 3, "{told}"),
        }
        if code == "QUEUE_FULL" {
            assert_eq!(told["details"]["limitedBy"], "concurrency");
            assert_eq!(told["details"]["limit"], 2);
        }
        assert_eq!(
            told["until"].is_string(),
            code == "QUEUE_RATE_LIMITED",
            "{told}"
        );
    }
}

/// Other SDKs do not know the question; their checkpoints tell of a wait with a time-out.
#[tokio::test]
async fn a_sleep_is_read_from_the_checkpoints() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let e = application(&server, "typescript", |request| {
        Some(match request["type"].as_str().unwrap() {
            "get_workflow" => json!({"output": record(json!({"Status": "PENDING"}))}),
            "list_steps" => json!({"output": [
                {"function_id": 0, "function_name": "charge", "output": "1"},
                {"function_id": 2, "function_name": "DBOS.sleep", "output": LATER.to_string()},
            ]}),
            _ => return None,
        })
    })
    .await;
    let told = explain(&server, "w").await;
    assert_eq!(told["code"], "WAITING_UNTIL", "{told}");
    assert_eq!(told["until"], LATER_TEXT);
    assert_eq!(told["details"]["step"], 1);
    assert!(e.received("segno_explain").is_empty());
}

#[tokio::test]
async fn a_rust_executor_is_asked() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let e = application(&server, "rust", |request| {
        Some(match request["type"].as_str().unwrap() {
            "get_workflow" => json!({"output": record(json!({"WorkflowUUID": request["workflow_id"], "Status": "PENDING"}))}),
            "segno_explain" if request["workflow_id"] == "w" => json!({"waiting_on": {"kind": "retry",
                "text": "step 7 failed and is tried again", "since": CREATED, "until": LATER, "step": 7, "attempt": 3,
                "max_attempts": 5}}),
            "segno_explain" => json!({"waiting_on": null}),
            _ => return None,
        })
    })
    .await;
    let told = explain(&server, "w").await;
    assert_eq!(told["code"], "RETRYING_STEP", "{told}");
    assert_eq!(told["text"], "step 7 failed and is tried again");
    assert_eq!(
        (&told["since"], &told["until"]),
        (&json!("2026-01-02T03:04:05.000Z"), &json!(LATER_TEXT))
    );
    let details = &told["details"];
    assert_eq!(
        (
            &details["step"],
            &details["attempt"],
            &details["maxAttempts"]
        ),
        (&json!(7), &json!(3), &json!(5))
    );
    assert_eq!(e.received("segno_explain").len(), 1);
    // One that does not know it falls back to what is recorded.
    let told = explain(&server, "other").await;
    assert_eq!(told["code"], "RUNNING", "{told}");
}
