//! Autoscaling: the policy, and the number that an autoscaler reads.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::executor::{FakeExecutor, until};
use crate::server::{ADMIN, Answer, TestServer, send};

const APP: &str = "/v2/orgs/local/apps/shop";

/// The fake application's depths by version; `null` for work without one.
type Depths = Arc<Mutex<Vec<(Value, i64)>>>;

fn application(depths: Depths) -> impl Fn(&Value) -> Value {
    move |request| match request["type"].as_str().unwrap() {
        "get_queue" => match request["name"].as_str().unwrap() {
            "q" => json!({"output": {"name": "q", "worker_concurrency": 2, "concurrency": 100}}),
            "partitioned" => {
                json!({"output": {"name": "p", "worker_concurrency": 1, "partition_queue": true}})
            }
            "unlimited" => json!({"output": {"name": "unlimited", "worker_concurrency": null}}),
            _ => json!({"output": null}),
        },
        "list_application_versions" => json!({"output": [
            {"version_name": "v1", "version_timestamp": 1}, {"version_name": "v3", "version_timestamp": 3},
            {"version_name": "v2", "version_timestamp": 2},
        ]}),
        "get_workflow_aggregates" => {
            let depths = depths.lock().unwrap();
            let row = |(version, count): &(Value, i64)| json!({"group": {"application_version": version}, "count": count});
            json!({"output": depths.iter().map(row).collect::<Vec<_>>()})
        }
        _ => json!({"success": true, "exist": false, "metrics": []}),
    }
}

fn needs(answer: &Value) -> Vec<(String, i64)> {
    let need = |row: &Value| {
        (
            row["applicationVersion"].as_str().unwrap().to_owned(),
            row["desiredExecutors"].as_i64().unwrap(),
        )
    };
    answer.as_array().unwrap().iter().map(need).collect()
}

#[tokio::test]
async fn a_policy_is_checked_stored_and_removed() {
    for server in TestServer::each(AuthMode::Keys).await {
        server.put(APP, json!({})).await.expect(204);
        let path = format!("{APP}/autoscaling-policy");
        server.get(&path).await.problem(404);
        server.get(&format!("{APP}/autoscale")).await.problem(404);
        server.put(&path, json!({"queue": "q"})).await.problem(503);
        let executor =
            FakeExecutor::connect(&server, "shop", ADMIN, "v3", application(Depths::default()))
                .await;
        for queue in ["nope", "unlimited"] {
            let problem = server
                .put(&path, json!({"queue": queue}))
                .await
                .problem(400);
            assert!(
                problem["detail"].as_str().unwrap().contains(queue),
                "{problem}"
            );
        }
        let negative = json!({"queue": "q", "rollout": {"maxOldApplicationVersions": -1}});
        assert_eq!(
            server.put(&path, negative).await.faults(422),
            ["body.rollout.maxOldApplicationVersions"]
        );
        server
            .put(&path, json!({"queue": "partitioned"}))
            .await
            .expect(200);
        let policy = json!({"queue": "q", "rollout": {"maxOldApplicationVersions": 1}});
        let set = server.put(&path, policy.clone()).await.expect(200).json;
        assert_eq!(set["policy"], policy);
        drop(executor);
        assert_eq!(server.get(&path).await.expect(200).json["policy"], policy);
        server.delete(&path).await.expect(204);
        server.delete(&path).await.expect(204);
        server.get(&path).await.problem(404);

        let log = server
            .get("/v2/orgs/local/audit-logs?operation=autoscaling_policy.set")
            .await;
        let Answer { json: entries, .. } = log.expect(200);
        let statuses: Vec<&Value> = entries
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| &entry["status"])
            .collect();
        assert_eq!(
            statuses
                .iter()
                .filter(|status| **status == "success")
                .count(),
            2,
            "{entries}"
        );
        assert_eq!(entries[0]["target"]["id"], "shop");
        let reader = server.key("reader", &["application.read"], &[]).await;
        send(server.request(Method::DELETE, &path).bearer_auth(&reader))
            .await
            .problem(403);
    }
}

#[tokio::test]
async fn needs_follow_the_queue() {
    for server in TestServer::each(AuthMode::None).await {
        server.put(APP, json!({})).await.expect(204);
        let depths = Depths::default();
        let executor =
            FakeExecutor::connect(&server, "shop", "any", "v3", application(depths.clone())).await;
        let policy = format!("{APP}/autoscaling-policy");
        server.put(&policy, json!({"queue": "q"})).await.expect(200);
        let autoscale = async || {
            server
                .get(&format!("{APP}/autoscale"))
                .await
                .expect(200)
                .json
        };
        assert_eq!(needs(&autoscale().await), [("v3".to_owned(), 1)]);

        *depths.lock().unwrap() = vec![
            (json!("v3"), 4),
            (Value::Null, 1),
            (json!("v2"), 7),
            (json!("v9"), 5),
        ];
        until("the new depth is seen", async || {
            autoscale().await[0]["desiredExecutors"] == 3
        })
        .await;
        let latest = server
            .get(&format!("{APP}/autoscale/versions/latest"))
            .await
            .expect(200)
            .json;
        assert_eq!(
            (
                &latest["applicationVersion"],
                &latest["isLatest"],
                &latest["queueDepth"],
                &latest["queueName"]
            ),
            (&json!("v3"), &json!(true), &json!(5), &json!("q"))
        );
        // What KEDA's metrics-api trigger reads: the path `desiredExecutors` leads to a number.
        assert_eq!(
            latest.pointer("/desiredExecutors").unwrap().as_f64(),
            Some(3.0)
        );
        let age = chrono::Utc::now().timestamp_millis() - latest["observedAt"].as_i64().unwrap();
        assert!((-5_000..60_000).contains(&age), "{latest}");
        let version = async |name: &str| {
            server
                .get(&format!("{APP}/autoscale/versions/{name}"))
                .await
        };
        assert_eq!(
            version("v2").await.expect(200).json["desiredExecutors"],
            4,
            "the list's limit does not hold here"
        );
        assert_eq!(version("v1").await.expect(200).json["desiredExecutors"], 0);
        version("v9").await.problem(404);

        let rollout =
            json!({"maxOldApplicationVersions": 5, "maxExecutorsForOldApplicationVersions": 2});
        server
            .put(&policy, json!({"queue": "q", "rollout": rollout}))
            .await
            .expect(200);
        assert_eq!(
            needs(&autoscale().await),
            [("v3".to_owned(), 3), ("v2".to_owned(), 2)]
        );
        let sent = executor.of_type("get_workflow_aggregates").pop().unwrap();
        assert_eq!(
            (
                &sent["body"]["queue_name"],
                &sent["body"]["status"],
                &sent["body"]["application_name"]
            ),
            (
                &json!(["q"]),
                &json!(["ENQUEUED", "PENDING"]),
                &json!(["shop"])
            )
        );

        drop(executor);
        until("a wrong number is never given", async || {
            version("latest").await.status.as_u16() == 503
        })
        .await;
        server.delete(APP).await.expect(204);
        server.put(APP, json!({})).await.expect(204);
        server.get(&policy).await.problem(404);
    }
}
