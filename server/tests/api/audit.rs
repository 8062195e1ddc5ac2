//! Every change leaves one entry, done or refused; reads leave none.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::server::{Database, TestServer, send};

const LOG: &str = "/v2/orgs/local/audit-logs";

async fn entries(server: &TestServer) -> Vec<Value> {
    server
        .get(LOG)
        .await
        .expect(200)
        .json
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn changes_are_recorded_with_target_and_details() {
    for server in TestServer::each(AuthMode::Keys).await {
        let shop = "/v2/orgs/local/apps/shop";
        server
            .put(shop, json!({"privateMode": true}))
            .await
            .expect(204);
        server.put(shop, json!({})).await.expect(204);
        server
            .patch(shop, json!({"executorTimeoutSecs": 5}))
            .await
            .expect(204);
        server.get(shop).await.expect(200);
        server
            .post(&format!("{shop}/workflows/search"), json!({}))
            .await
            .expect(503);
        let key = server.key("ci", &["metric.read"], &["shop"]).await;
        server
            .patch("/v2/orgs/local/tokens/ci", json!({"newName": "ci2"}))
            .await
            .expect(204);
        server.delete("/v2/orgs/local/tokens/ci2").await.expect(204);
        server.delete(shop).await.expect(204);

        let log = entries(&server).await;
        let brief: Vec<(&str, &str, &str)> = log
            .iter()
            .rev()
            .map(|entry| {
                let text =
                    |value: &'static str| entry.pointer(value).and_then(Value::as_str).unwrap();
                (text("/operation"), text("/target/type"), text("/target/id"))
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("application.create", "application", "shop"),
                ("application.update", "application", "shop"),
                ("application.update", "application", "shop"),
                ("token.create", "token", "ci"),
                ("token.update", "token", "ci"),
                ("token.revoke", "token", "ci2"),
                ("application.delete", "application", "shop"),
            ]
        );
        assert!(log.iter().all(|entry| entry["status"] == "success"));
        let create = log.last().unwrap();
        assert_eq!(
            create["details"],
            json!({"application_name": "shop", "private_mode": true})
        );
        assert_eq!(create["sourceIp"], "127.0.0.1");
        assert_eq!(create["subject"]["type"], "api_key");
        assert_eq!(
            log[3]["details"],
            json!({"permissions": ["metric.read"], "applications": ["shop"]})
        );
        assert_eq!(log[1]["details"], Value::Null);
        assert!(!format!("{log:?}").contains(&key), "no secrets");
    }
}

#[tokio::test]
async fn refused_and_failed_changes_are_recorded_as_failures() {
    for server in TestServer::each(AuthMode::Keys).await {
        server
            .put("/v2/orgs/local/apps/shop", json!({}))
            .await
            .expect(204);
        let key = server.key("reader", &["application.read"], &[]).await;
        let cancel = "/v2/orgs/local/apps/shop/workflows/w1/cancel";
        send(server.request(Method::POST, cancel).bearer_auth(&key))
            .await
            .problem(403);
        server.post(cancel, json!({})).await.problem(503);
        server.post(cancel, json!({"zzz": 1})).await.problem(422);
        server
            .post(
                "/v2/orgs/local/apps/shop/workflows/bulk-delete",
                json!({"workflowIds": ["a", "b"]}),
            )
            .await
            .problem(503);
        // Nobody knows who that was: no entry.
        send(server.request(Method::POST, cancel))
            .await
            .problem(401);

        let log = entries(&server).await;
        let failed: Vec<&Value> = log
            .iter()
            .filter(|entry| entry["status"] == "failure")
            .collect();
        assert_eq!(failed.len(), 4, "{failed:?}");
        assert_eq!(failed[0]["operation"], "workflow.bulk_delete");
        assert_eq!(failed[0]["details"]["workflow_ids"], json!(["a", "b"]));
        assert_eq!(failed[0].get("target"), None);
        let denied = failed[3];
        assert_eq!(denied["operation"], "workflow.cancel");
        assert_eq!(denied["target"], json!({"type": "workflow", "id": "w1"}));
        assert_eq!(denied["subject"]["display"], "reader");
    }
}

#[tokio::test]
async fn the_log_is_filtered_and_paged() {
    for server in TestServer::each(AuthMode::Keys).await {
        for app in ["one", "two", "three"] {
            server
                .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
                .await
                .expect(204);
        }
        server.delete("/v2/orgs/local/apps/two").await.expect(204);
        let count = async |query: &str| {
            let found = server.get(&format!("{LOG}?{query}")).await.expect(200).json;
            found.as_array().unwrap().len()
        };
        assert_eq!(count("operation=application.create").await, 3);
        assert_eq!(count("target=two").await, 2);
        assert_eq!(count("target=two&operation=application.delete").await, 1);
        assert_eq!(count("subject=SEGNO_ADMIN_KEY").await, 4);
        assert_eq!(count("subject=somebody").await, 0);
        assert_eq!(count("limit=1&offset=3").await, 1);
        assert_eq!(count("limit=2&offset=3").await, 1);
        let log = entries(&server).await;
        let time = log[0]["emitTime"].as_str().unwrap();
        assert!(count(&format!("startTime={time}")).await >= 1, "inclusive");
        let before = count(&format!("endTime={time}")).await;
        let at_last = log.iter().filter(|entry| entry["emitTime"] == time).count();
        assert_eq!(before, 4 - at_last, "exclusive");
        assert_eq!(
            server.get(&format!("{LOG}?limit=1001")).await.faults(422),
            ["query.limit"]
        );
        assert_eq!(
            server.get(&format!("{LOG}?limit=0")).await.faults(422),
            ["query.limit"]
        );
    }
}

#[tokio::test]
async fn without_authentication_there_is_no_log_to_read() {
    let server = TestServer::start(Database::sqlite(), AuthMode::None).await;
    server.get(LOG).await.problem(404);
}

#[tokio::test]
async fn the_callers_address_is_taken_from_trusted_proxies_only() {
    for (trusted, expected) in [(true, "192.0.2.7"), (false, "127.0.0.1")] {
        let server = TestServer::start_with(Database::sqlite(), AuthMode::Keys, |config| {
            if trusted {
                config.trusted_proxies =
                    vec!["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
            }
        })
        .await;
        let register = server
            .admin(Method::PUT, "/v2/orgs/local/apps/shop")
            .header("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.0.0.1");
        send(register).await.expect(204);
        assert_eq!(entries(&server).await[0]["sourceIp"], expected);
    }
}
