//! Operations that an executor carries out: what it is asked, and what comes of its answer.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::executor::FakeExecutor;
use crate::server::{ADMIN, Database, TestServer, send};

const APP: &str = "/v2/orgs/local/apps/shop";

async fn server() -> TestServer {
    let server = TestServer::start(Database::sqlite(), AuthMode::None).await;
    server.put(APP, json!({})).await.expect(204);
    server
}

fn record(id: &str) -> Value {
    json!({"WorkflowUUID": id, "Status": "SUCCESS", "WorkflowName": "checkout", "Input": "(1,)", "Output": "'done'",
        "CreatedAt": "1767323045678", "UpdatedAt": "1767323046000", "CompletedAt": "undefined", "Priority": "7",
        "ApplicationVersion": "v1", "ExecutorID": "e1", "WorkflowTimeoutMS": "30000", "Attributes": "{\"a\":1}"})
}

/// Answers like an application with two versions, the latest first, and one workflow, `w1`.
fn application(request: &Value) -> Value {
    match request["type"].as_str().unwrap() {
        "list_application_versions" => json!({"output": [
            {"version_id": "2", "version_name": "v2", "version_timestamp": 1_767_323_045_679_i64, "created_at": 1_767_323_045_001_i64},
            {"version_id": "1", "version_name": "v1", "version_timestamp": 1_767_323_045_678_i64, "created_at": 1_767_323_045_000_i64},
        ]}),
        "get_workflow" if request["workflow_id"] == "w1" => json!({"output": record("w1")}),
        "get_workflow" => json!({"output": null}),
        "list_workflows" => json!({"output": [record("w1"), record("w2")]}),
        "list_steps" => {
            json!({"output": [{"function_id": 1, "function_name": "charge", "output": "1", "error": null,
            "child_workflow_id": null, "started_at_epoch_ms": "1767323045678", "completed_at_epoch_ms": null}]})
        }
        "fork_workflow" if request["body"]["workflow_id"] == "w1" => {
            json!({"new_workflow_id": "a/b c"})
        }
        "fork_workflow" => json!({"new_workflow_id": null, "error_message":
            "Exception encountered\nTraceback (most recent call last):\n  File \"x\"\nDBOSError: Workflow x does not exist"}),
        "export_workflow" => json!({"error_message": "Unknown message type"}),
        "get_workflow_events" => json!({"events": [{"key": "k", "value": "v"}]}),
        "get_workflow_notifications" => json!({"notifications": [
            {"topic": null, "message": "m", "created_at_epoch_ms": 1_767_323_045_678_i64, "consumed": true}]}),
        "get_workflow_streams" => json!({"streams": [{"key": "s", "values": ["1", "2"]}]}),
        "get_workflow_aggregates" => {
            json!({"output": [{"group": {"status": "SUCCESS", "queue_name": null}, "count": 3}]})
        }
        "get_queue" if request["name"] == "q/1" => {
            json!({"output": {"name": "q/1", "concurrency": 4, "priority_enabled": true}})
        }
        "get_queue" => json!({"output": null}),
        "list_schedules" => {
            json!({"output": [{"schedule_id": "1", "schedule_name": "nightly", "workflow_name": "w",
            "schedule": "0 0 * * *", "status": "ACTIVE", "last_fired_at": "2026-01-02 03:04:05"}]})
        }
        "get_schedule" => {
            let (every, zone) = match request["schedule_name"].as_str() {
                Some("nightly") => ("0 0 * * *", json!("Europe/Berlin")),
                Some("always") => ("* * * * * *", Value::Null),
                Some("foreign") => ("when the moon is full", Value::Null),
                _ => return json!({"output": null}),
            };
            json!({"output": {"schedule_id": "1", "schedule_name": request["schedule_name"], "workflow_name": "w",
                "schedule": every, "status": "ACTIVE", "cron_timezone": zone}})
        }
        "trigger_schedule" => json!({"workflow_id": "sched-1"}),
        "backfill_schedule" => json!({"workflow_ids": ["a", "b"]}),
        "fork_from_failure" => json!({"forked_workflow_ids": ["f1", "f2"]}),
        "import_workflow" => {
            json!({"success": false, "error_message": "binascii.Error: Incorrect padding"})
        }
        "exist_pending_workflows" => json!({"exist": false}),
        _ => json!({"success": true}),
    }
}

async fn backfills_are_bounded(server: &TestServer, executor: &FakeExecutor) {
    let before = executor.of_type("backfill_schedule").len();
    let fill = async |name: &str, from: &str, to: &str| {
        let window = json!({"startTime": from, "endTime": to});
        let path = format!("{APP}/schedules/{name}/backfill");
        server.post(&path, window).await
    };
    let (start, soon, later) = (
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:30:00Z",
        "2026-01-01T03:00:00Z",
    );
    fill("always", start, soon).await.expect(200);
    let refused = fill("always", start, later).await.problem(400);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("10000"), "{detail}");
    fill("nightly", "2000-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
        .await
        .expect(200);
    // What cannot be counted fires every second, for all we know.
    fill("foreign", start, soon).await.expect(200);
    let refused = fill("foreign", start, later).await.problem(400);
    assert!(refused["detail"].as_str().unwrap().contains("moon"));
    fill("nope", start, soon).await.problem(404);
    assert_eq!(executor.of_type("backfill_schedule").len(), before + 3);
}

#[tokio::test]
async fn old_clients_restart_a_workflow_as_a_fork() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let restart = |id: &str| format!("{APP}/workflows/{id}/restart");
    send(server.request(Method::POST, &restart("w1")))
        .await
        .expect(204);
    let sent = &executor.of_type("fork_workflow")[0]["body"];
    assert_eq!(
        (
            &sent["workflow_id"],
            &sent["start_step"],
            &sent["application_version"]
        ),
        (&json!("w1"), &json!(1), &json!("v1"))
    );
    send(server.request(Method::POST, &restart("nope")))
        .await
        .problem(404);
    let document = server.get("/openapi.json").await.expect(200);
    assert!(!document.text.contains("restartWorkflow"));
}

#[tokio::test]
async fn without_an_executor_everything_is_503_at_once() {
    let server = server().await;
    for path in [
        "versions",
        "workflows",
        "workflows/w1",
        "workflows/w1/steps",
        "queues",
        "schedules/x",
    ] {
        let answer = server.get(&format!("{APP}/{path}")).await;
        assert!(answer.headers.contains_key("retry-after"));
        let problem = answer.problem(503);
        assert!(
            problem["detail"].as_str().unwrap().contains("`shop`"),
            "{problem}"
        );
        assert_eq!(problem["type"], "urn:segno:problem:no-executor");
    }
    server
        .post(&format!("{APP}/workflows/w1/cancel"), json!({}))
        .await
        .problem(503);
    assert_eq!(
        server
            .get(&format!("{APP}/workflows?limit=0"))
            .await
            .expect(200)
            .json,
        json!([])
    );
}

#[tokio::test]
async fn a_workflow_is_shown_as_clients_know_it() {
    let server = server().await;
    let _executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    assert_eq!(server.get(APP).await.json["status"], "AVAILABLE");
    let workflow = server
        .get(&format!("{APP}/workflows/w1"))
        .await
        .expect(200)
        .json;
    let expected = json!({
        "applicationName": null, "appVersion": "v1", "assumedRole": null, "attributes": "{\"a\":1}", "completedAt": null,
        "createdAt": "2026-01-02T03:04:05.678Z", "deadline": null, "deduplicationId": null, "delayUntil": null,
        "dequeuedAt": null, "error": null, "executorId": "e1", "forkedFrom": null, "input": "(1,)", "output": "'done'",
        "parentWorkflowId": null, "priority": 7, "queueName": null, "queuePartitionKey": null, "roles": null,
        "scheduleName": null, "status": "SUCCESS", "timeoutMs": 30000, "updatedAt": "2026-01-02T03:04:06.000Z",
        "user": null, "wasForkedFrom": false, "workflowClass": null, "workflowConfig": null, "workflowId": "w1",
        "workflowName": "checkout",
    });
    assert_eq!(workflow, expected);
    let unknown = server
        .get(&format!("{APP}/workflows/nope"))
        .await
        .problem(404);
    assert!(unknown["detail"].as_str().unwrap().contains("nope"));
}

#[tokio::test]
async fn filters_reach_the_executor_as_it_reads_them() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let body = json!({"workflowIds": ["a"], "workflowName": ["n"], "user": ["u"], "status": ["NOPE"], "appVersion": ["v"],
        "queueName": [], "forkedFrom": null, "startTime": "2026-01-02T05:04:05.6789+02:00", "endTime": "2026-01-02T03:04:05.6789Z",
        "limit": 10, "offset": 20, "sortDesc": true, "loadInput": true, "hasParent": false, "attributes": {"k": 1}});
    let found = server
        .post(&format!("{APP}/workflows/search"), body)
        .await
        .expect(200)
        .json;
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert!(found[0].get("$schema").is_none());
    let sent = executor.of_type("list_workflows").pop().unwrap();
    assert_eq!(
        sent["body"],
        json!({"workflow_uuids": ["a"], "workflow_name": ["n"], "authenticated_user": ["u"], "status": ["NOPE"],
            "application_version": ["v"], "application_name": ["shop"], "start_time": "2026-01-02T03:04:05.679+00:00",
            "end_time": "2026-01-02T03:04:05.678+00:00", "limit": 10, "offset": 20, "sort_desc": true, "load_input": true,
            "load_output": false, "queues_only": false, "has_parent": false, "attributes": {"k": 1}})
    );
    send(server.request(Method::POST, &format!("{APP}/workflows/search")))
        .await
        .expect(200);
    let sent = executor.of_type("list_workflows").pop().unwrap();
    assert_eq!(
        sent["body"],
        json!({"application_name": ["shop"], "sort_desc": false, "load_input": false, "load_output": false, "queues_only": false})
    );
    server
        .get(&format!(
            "{APP}/workflows?status=ERROR&loadOutput=1&limit=5"
        ))
        .await
        .expect(200);
    let sent = executor.of_type("list_workflows").pop().unwrap();
    assert_eq!(
        (&sent["body"]["status"], &sent["body"]["load_output"]),
        (&json!(["ERROR"]), &json!(true))
    );
}

#[tokio::test]
async fn ids_may_be_any_text() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v2", application).await;
    server
        .post(
            &format!("{APP}/workflows/a%2Fb%20%25%C3%BC/cancel"),
            json!({"cancelChildren": true}),
        )
        .await
        .expect(204);
    let sent = executor.of_type("cancel").pop().unwrap();
    assert_eq!(
        (&sent["workflow_id"], &sent["cancel_children"]),
        (&json!("a/b %ü"), &json!(true))
    );
    server
        .delete(&format!("{APP}/workflows/search?deleteChildren=T"))
        .await
        .expect(204);
    let sent = executor.of_type("delete").pop().unwrap();
    assert_eq!(
        (&sent["workflow_id"], &sent["delete_children"]),
        (&json!("search"), &json!(true))
    );
}

#[tokio::test]
async fn resuming_needs_the_latest_version() {
    let server = server().await;
    let old = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let refused = server
        .post(&format!("{APP}/workflows/w1/resume"), json!({}))
        .await
        .problem(503);
    assert!(
        refused["detail"].as_str().unwrap().contains("v2"),
        "{refused}"
    );
    send(server.request(Method::POST, &format!("{APP}/workflows/w1/cancel")))
        .await
        .expect(204);
    let new = FakeExecutor::connect(&server, "shop", "any", "v2", application).await;
    send(server.request(Method::POST, &format!("{APP}/workflows/w1/resume")))
        .await
        .expect(204);
    server
        .post(
            &format!("{APP}/workflows/bulk-resume"),
            json!({"workflowIds": ["a", "b"], "queueName": "q"}),
        )
        .await
        .expect(204);
    assert_eq!(
        (old.of_type("resume").len(), new.of_type("resume").len()),
        (0, 2)
    );
    assert_eq!(new.of_type("resume")[1]["workflow_ids"], json!(["a", "b"]));
}

#[tokio::test]
async fn forks_name_their_place() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let forked = send(server.request(Method::POST, &format!("{APP}/workflows/w1/fork")))
        .await
        .expect(201);
    assert_eq!(forked.json["workflowId"], "a/b c");
    assert_eq!(
        forked.headers["location"],
        format!("{APP}/workflows/a%2Fb%20c").as_str()
    );
    let sent = &executor.of_type("fork_workflow")[0]["body"];
    assert_eq!(
        sent,
        &json!({"workflow_id": "w1", "start_step": 0, "application_version": null, "new_workflow_id": null})
    );
    let unknown = server
        .post(
            &format!("{APP}/workflows/nope/fork"),
            json!({"startStep": 2}),
        )
        .await
        .problem(404);
    assert_eq!(unknown["detail"], "DBOSError: Workflow x does not exist");
    for step in [json!(-1), json!(1 << 30), json!(1.5), json!("2")] {
        let faults = server
            .post(
                &format!("{APP}/workflows/w1/fork"),
                json!({"startStep": step}),
            )
            .await
            .faults(422);
        assert_eq!(faults, ["body.startStep"]);
    }
}

#[tokio::test]
async fn versions_come_latest_first_and_only_known_ones_become_it() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let versions = server
        .get(&format!("{APP}/versions"))
        .await
        .expect(200)
        .json;
    assert_eq!(versions[0]["versionName"], "v2");
    assert_eq!(versions[0]["versionTimestamp"], "2026-01-02T03:04:05.679Z");
    server
        .patch(
            &format!("{APP}/versions/latest"),
            json!({"versionName": "nope"}),
        )
        .await
        .problem(404);
    server
        .patch(
            &format!("{APP}/versions/latest"),
            json!({"versionName": "v1"}),
        )
        .await
        .expect(204);
    let sent = executor.of_type("set_latest_application_version");
    assert_eq!(
        sent,
        [json!({"type": "set_latest_application_version", "version_name": "v1"})]
    );
}

#[tokio::test]
async fn what_a_workflow_did_is_shown() {
    let server = server().await;
    let _executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let of = async |what: &str| {
        server
            .get(&format!("{APP}/workflows/w1/{what}"))
            .await
            .expect(200)
            .json
    };
    assert_eq!(
        of("steps").await,
        json!([{"childWorkflowId": null, "completedAt": null, "error": null, "output": "1",
            "startedAt": "2026-01-02T03:04:05.678Z", "stepId": 1, "stepName": "charge"}])
    );
    assert_eq!(of("events").await, json!([{"key": "k", "value": "v"}]));
    assert_eq!(
        of("notifications").await[0]["createdAt"],
        "2026-01-02T03:04:05.678Z"
    );
    assert_eq!(
        of("streams").await,
        json!([{"key": "s", "values": ["1", "2"]}])
    );
}

#[tokio::test]
async fn private_applications_keep_their_payloads() {
    let server = server().await;
    server
        .patch(APP, json!({"privateMode": true}))
        .await
        .expect(204);
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    server.get(&format!("{APP}/workflows/w1")).await.expect(200);
    server
        .get(&format!("{APP}/workflows?loadInput=true&loadOutput=true"))
        .await
        .expect(200);
    server
        .get(&format!("{APP}/workflows/w1/steps"))
        .await
        .expect(200);
    for what in ["events", "notifications", "streams"] {
        assert_eq!(
            server
                .get(&format!("{APP}/workflows/w1/{what}"))
                .await
                .expect(200)
                .json,
            json!([])
        );
    }
    server
        .get(&format!("{APP}/workflows/w1/export"))
        .await
        .problem(403);
    server
        .get(&format!("{APP}/schedules?loadContext=true"))
        .await
        .expect(200);
    let requests = executor.requests.lock().unwrap().clone();
    let text = Value::from(requests.clone()).to_string();
    assert!(
        !text.contains("\"load_input\":true") && !text.contains("\"load_output\":true"),
        "{text}"
    );
    assert!(
        !text.contains("\"load_context\":true") && !text.contains("get_workflow_events"),
        "{text}"
    );
}

#[tokio::test]
async fn an_sdk_that_is_too_old_is_named() {
    let server = server().await;
    let _executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let problem = server
        .get(&format!("{APP}/workflows/w1/export"))
        .await
        .problem(501);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("python") && detail.contains("3.2.0"),
        "{detail}"
    );
}

#[tokio::test]
async fn queues_schedules_aggregates_and_bulk() {
    let server = server().await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
    let queue = server
        .get(&format!("{APP}/queues/q%2F1"))
        .await
        .expect(200)
        .json;
    assert_eq!(
        (&queue["concurrency"], &queue["pollingIntervalSecs"]),
        (&json!(4), &json!(1.0))
    );
    assert_eq!(queue["partitionConcurrency"], Value::Null);
    server.get(&format!("{APP}/queues/nope")).await.problem(404);

    let schedules = server
        .get(&format!("{APP}/schedules?status=ACTIVE"))
        .await
        .expect(200)
        .json;
    assert_eq!(schedules[0]["cronExpression"], "0 0 * * *");
    assert_eq!(schedules[0]["lastFiredAt"], "2026-01-02T03:04:05.000Z");
    let triggered = send(server.request(Method::POST, &format!("{APP}/schedules/nightly/trigger")))
        .await
        .expect(201);
    assert_eq!(triggered.json["workflowId"], "sched-1");
    assert_eq!(
        triggered.headers["location"],
        format!("{APP}/workflows/sched-1").as_str()
    );
    let window =
        json!({"startTime": "2026-01-02T03:00:00+01:00", "endTime": "2026-01-03T00:00:00Z"});
    let filled = server
        .post(&format!("{APP}/schedules/nightly/backfill"), window)
        .await
        .expect(200)
        .json;
    assert_eq!(filled["workflowIds"], json!(["a", "b"]));
    assert_eq!(
        executor.of_type("backfill_schedule")[0]["start"],
        "2026-01-02T02:00:00.000+00:00"
    );
    let backwards = json!({"startTime": "2026-01-03T00:00:00Z", "endTime": "2026-01-02T00:00:00Z"});
    server
        .post(&format!("{APP}/schedules/nightly/backfill"), backwards)
        .await
        .problem(400);

    backfills_are_bounded(&server, &executor).await;

    let aggregates = format!("{APP}/workflows/aggregates");
    server.post(&aggregates, json!({})).await.problem(400);
    server
        .post(&aggregates, json!({"timeBucketSizeMs": 0}))
        .await
        .problem(400);
    let rows = server
        .post(
            &aggregates,
            json!({"groupByStatus": true, "workflowName": ["n"]}),
        )
        .await
        .expect(200)
        .json;
    assert_eq!(
        rows,
        json!([{"group": {"status": "SUCCESS", "queue_name": null}, "count": 3}])
    );
    let sent = &executor.of_type("get_workflow_aggregates")[0]["body"];
    assert_eq!(
        (&sent["name"], &sent["select_count"]),
        (&json!(["n"]), &json!(true))
    );

    let bulk = async |what: &str, body: Value| {
        server
            .post(&format!("{APP}/workflows/bulk-{what}"), body)
            .await
    };
    bulk("cancel", json!({"workflowIds": []})).await.expect(204);
    assert!(
        executor.of_type("cancel").is_empty(),
        "nothing is sent for an empty list"
    );
    bulk("cancel", json!({"workflowIds": ["a", "b"]}))
        .await
        .expect(204);
    let sent = executor.of_type("cancel").pop().unwrap();
    assert_eq!(
        (&sent["workflow_id"], &sent["workflow_ids"]),
        (&json!("a"), &json!(["a", "b"]))
    );
    let forked = bulk("fork-from-failure", json!({"workflowIds": ["a", "b"]}))
        .await
        .expect(200)
        .json;
    assert_eq!(forked["workflowIds"], json!(["f1", "f2"]));
    assert_eq!(
        executor.of_type("fork_from_failure")[0]["body"],
        json!({"workflow_ids": ["a", "b"], "from_last_failure": true})
    );
    bulk(
        "fork-from-failure",
        json!({"workflowIds": ["a"], "fromLastStep": true, "fromStep": 1}),
    )
    .await
    .problem(400);
    let garbage = server
        .post(
            &format!("{APP}/workflows/import"),
            json!({"serializedWorkflow": "garbage"}),
        )
        .await;
    garbage.problem(400);
}

#[tokio::test]
async fn executors_are_admitted_by_key_and_dropped_with_it() {
    for server in TestServer::each(AuthMode::Keys).await {
        for app in ["shop", "bank"] {
            server
                .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
                .await
                .expect(204);
        }
        let ws = server.base.replace("http://", "ws://");
        let refused = async |app: &str, key: &str| {
            let error = tokio_tungstenite::connect_async(format!("{ws}/websocket/{app}/{key}"))
                .await
                .unwrap_err();
            match error {
                tokio_tungstenite::tungstenite::Error::Http(response) => {
                    let body = String::from_utf8(response.body().clone().unwrap()).unwrap();
                    assert!(!body.contains(key), "{body}");
                    assert!(response.headers().contains_key("content-length"));
                    (response.status().as_u16(), body)
                }
                other => panic!("{other}"),
            }
        };
        let key = server.key("executor", &[], &["shop"]).await;
        let reader = server.key("reader", &["application.read"], &[]).await;
        assert_eq!(refused("shop", "dbos_wrong").await.0, 401);
        assert_eq!(refused("shop", &reader).await.0, 403);
        assert_eq!(refused("bank", &key).await.0, 403);
        let (status, body) = refused("nope", ADMIN).await;
        assert_eq!(status, 404);
        assert!(body.contains("register"), "{body}");

        let mut executor = FakeExecutor::connect(&server, "shop", &key, "v1", application).await;
        server
            .delete("/v2/orgs/local/tokens/executor")
            .await
            .expect(204);
        executor.closed().await;
        assert_eq!(refused("shop", &key).await.0, 401);

        let mut executor = FakeExecutor::connect(&server, "bank", ADMIN, "v1", application).await;
        server.delete("/v2/orgs/local/apps/bank").await.expect(204);
        executor.closed().await;
        assert_eq!(refused("bank", ADMIN).await.0, 404);
    }
}

#[tokio::test]
async fn a_scoped_key_cannot_reach_another_applications_workflow_by_id() {
    let server = TestServer::start(Database::sqlite(), AuthMode::Keys).await;
    server.put(APP, json!({})).await.expect(204);
    let foreign = |request: &Value| {
        let mut record = record("theirs");
        record["ApplicationName"] = json!("bank");
        match request["type"].as_str().unwrap() {
            "get_workflow" => json!({"output": record}),
            "list_workflows" => json!({"output": [record]}),
            _ => application(request),
        }
    };
    let executor = FakeExecutor::connect(&server, "shop", ADMIN, "v2", foreign).await;
    let key = server
        .key(
            "shop",
            &["application.read", "application.write"],
            &["shop"],
        )
        .await;
    server
        .get_with(&key, &format!("{APP}/workflows/theirs"))
        .await
        .problem(404);
    server
        .get_with(&key, &format!("{APP}/workflows/theirs/steps"))
        .await
        .problem(404);
    let cancel = server
        .request(Method::POST, &format!("{APP}/workflows/theirs/cancel"))
        .bearer_auth(&key);
    send(cancel).await.problem(404);
    assert!(executor.of_type("cancel").is_empty());
    server
        .get(&format!("{APP}/workflows/theirs"))
        .await
        .expect(200);
}
