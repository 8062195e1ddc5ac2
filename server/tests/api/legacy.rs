//! The routes `v1alpha1`, under both of their roots.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::executor::FakeExecutor;
use crate::server::{Database, TestServer, send};

const APP: &str = "/v1alpha1/api/local/applications/shop";

fn record(id: &str) -> Value {
    json!({"WorkflowUUID": id, "Status": "SUCCESS", "WorkflowName": "checkout", "CreatedAt": "1767323045678",
        "UpdatedAt": "1767323046000", "ApplicationVersion": "v1", "ExecutorID": "e1"})
}

fn application(request: &Value) -> Value {
    match request["type"].as_str().unwrap() {
        "list_application_versions" => json!({"output": [{"version_id": "1", "version_name": "v1",
            "version_timestamp": 1, "created_at": 1}]}),
        "list_workflows" => json!({"output": [record("w1")]}),
        "get_workflow" if request["workflow_id"] == "w1" => json!({"output": record("w1")}),
        "get_workflow" => json!({"output": null}),
        "list_steps" => {
            json!({"output": [{"function_id": 1, "function_name": "charge", "output": "1"}]})
        }
        "fork_workflow" => json!({"new_workflow_id": "f1"}),
        _ => json!({"success": true, "exist": false, "metrics": []}),
    }
}

async fn server(auth: AuthMode) -> TestServer {
    let server = TestServer::start(Database::sqlite(), auth).await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    server
}

#[tokio::test]
async fn old_tools_find_list_and_act_under_both_roots() {
    for root in ["", "/conductor"] {
        let server = server(AuthMode::None).await;
        let path = |rest: &str| format!("{root}{APP}{rest}");
        let profile = server
            .get(&format!("{root}/v1alpha1/user/profile"))
            .await
            .expect(200);
        assert_eq!(profile.json["Organization"], "local");
        assert!(profile.json["Name"].is_string());
        let apps = format!("{root}/v1alpha1/api/local/applications");
        let listed = server.get(&apps).await.expect(200).json;
        assert_eq!(
            (&listed[0]["application_name"], &listed[0]["status"]),
            (&json!("shop"), &json!("UNAVAILABLE"))
        );
        assert_eq!(listed[0]["executor_timeout_secs"], 60);
        assert!(listed[0].get("gc_rows_threshold").is_none());

        let executor = FakeExecutor::connect(&server, "shop", "any", "v1", application).await;
        let executors = server.get(&path("/executors")).await.expect(200).json;
        assert_eq!(executors[0]["dbos_version"], "3.2.0");
        assert!(
            executors[0]["updated_at"]
                .as_str()
                .unwrap()
                .parse::<i64>()
                .is_ok()
        );

        let filter = json!({"workflow_name": "checkout", "status": "SUCCESS", "limit": 10, "sort_desc": true,
            "start_time": "2026-01-02T03:04:05Z", "workflow_uuids": ["w1"], "load_input": null});
        let found = server.post(&path("/workflows/"), filter).await.expect(200);
        assert_eq!(found.json[0]["WorkflowUUID"], "w1");
        assert_eq!(found.json[0]["CreatedAt"], "1767323045678");
        let sent = &executor.of_type("list_workflows")[0]["body"];
        assert_eq!(
            (
                &sent["workflow_name"],
                &sent["limit"],
                &sent["application_name"]
            ),
            (&json!(["checkout"]), &json!(10), &json!(["shop"]))
        );
        server
            .post(&path("/workflows/"), json!({"limit": "ten"}))
            .await
            .problem(422);

        let one = server.get(&path("/workflows/w1")).await.expect(200).json;
        assert_eq!(one["Status"], "SUCCESS");
        server.get(&path("/workflows/nope")).await.problem(404);
        let steps = server
            .get(&path("/workflows/w1/steps"))
            .await
            .expect(200)
            .json;
        assert_eq!(steps[0]["function_name"], "charge");
        for action in ["cancel", "resume"] {
            let path = path(&format!("/workflows/w1/{action}"));
            send(server.request(Method::POST, &path)).await.expect(204);
            assert_eq!(executor.of_type(action)[0]["workflow_id"], "w1");
        }
        let fork = json!({"start_step": 2, "application_version": "v1"});
        let forked = server.post(&path("/workflows/w1/fork"), fork).await;
        assert_eq!(forked.expect(200).json, json!({"workflow_id": "f1"}));
        assert_eq!(
            executor.of_type("fork_workflow")[0]["body"]["start_step"],
            2
        );
    }
}

#[tokio::test]
async fn permissions_and_the_audit_log_are_as_with_their_successors() {
    let server = server(AuthMode::Keys).await;
    send(server.request(Method::GET, "/v1alpha1/api/local/applications"))
        .await
        .problem(401);
    server
        .get("/v1alpha1/api/other/applications")
        .await
        .problem(404);
    let reader = server.key("reader", &["application.read"], &["shop"]).await;
    server
        .put("/v2/orgs/local/apps/bank", json!({}))
        .await
        .expect(204);
    let apps = server
        .get_with(&reader, "/v1alpha1/api/local/applications")
        .await;
    assert_eq!(apps.expect(200).json.as_array().unwrap().len(), 1);
    server
        .get_with(&reader, "/v1alpha1/api/local/applications/bank/executors")
        .await
        .problem(403);
    server
        .get_with(&reader, "/v1alpha1/api/local/audit-logs")
        .await
        .problem(403);
    let cancel = server
        .request(Method::POST, &format!("{APP}/workflows/w1/cancel"))
        .bearer_auth(&reader);
    send(cancel).await.problem(403);
    let profile = server.get_with(&reader, "/v1alpha1/user/profile").await;
    assert_eq!(
        profile.expect(200).json,
        json!({"Name": "reader", "Organization": "local"})
    );

    let log = server
        .get("/v1alpha1/api/local/audit-logs?operation=workflow.cancel&page_size=5")
        .await
        .expect(200)
        .json;
    let entry = &log["entries"][0];
    assert_eq!(
        (&entry["status"], &entry["subject"]["display"]),
        (&json!("failure"), &json!("reader"))
    );
    assert_eq!(entry["target"], json!({"type": "workflow", "id": "w1"}));
    assert_eq!(entry["details"]["application_name"], "shop");
    assert!(entry["emit_time"].is_string() && entry["source_ip"].is_string());
    let newer = server
        .get("/v2/orgs/local/audit-logs?operation=workflow.cancel")
        .await
        .json;
    assert_eq!(newer[0]["id"], entry["id"]);
    server
        .get("/v1alpha1/api/local/audit-logs?page_size=1001")
        .await
        .problem(422);
    let document = server.get("/openapi.json").await.expect(200).text;
    assert!(!document.contains("v1alpha1") && !document.contains("Legacy"));
}
