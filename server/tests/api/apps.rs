//! Applications: register, list, get, change, delete.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::json;

use crate::server::{TestServer, send};

const SHOP: &str = "/v2/orgs/local/apps/shop";

#[tokio::test]
async fn registering_twice_is_registering_once() {
    for server in TestServer::each(AuthMode::None).await {
        let first = server.put(SHOP, json!({})).await.expect(204);
        assert_eq!(first.text, "");
        assert!(!first.headers.contains_key("content-type"));
        send(server.request(Method::PUT, SHOP)).await.expect(204);

        let apps = server.get("/v2/orgs/local/apps").await.expect(200).json;
        assert_eq!(apps.as_array().unwrap().len(), 1);
        let app = server.get(SHOP).await.expect(200);
        let link = "</schemas/Application.json>; rel=\"describedBy\"";
        assert_eq!(app.headers["link"], link);
        let app = app.json;
        assert_eq!(app, apps[0]);
        for (field, value) in [
            ("dbosCloud", json!(false)),
            ("executorTimeoutSecs", json!(60)),
            ("gcRowsThreshold", json!(null)),
            ("gcTimeThresholdMs", json!(null)),
            ("globalTimeoutMs", json!(null)),
            ("language", json!(null)),
            ("name", json!("shop")),
            ("privateMode", json!(false)),
            ("status", json!("UNAVAILABLE")),
            ("recoveryPolicy", json!("same-version")),
        ] {
            assert_eq!(app.get(field), Some(&value), "{field}");
        }
        assert!(app["id"].is_string() && app["orgId"].is_string());
    }
}

#[tokio::test]
async fn a_repeat_changes_only_a_private_mode_that_it_gives() {
    for server in TestServer::each(AuthMode::None).await {
        server
            .put(SHOP, json!({"privateMode": true}))
            .await
            .expect(204);
        server.put(SHOP, json!({})).await.expect(204);
        assert_eq!(server.get(SHOP).await.json["privateMode"], true);
        server
            .put(SHOP, json!({"privateMode": false}))
            .await
            .expect(204);
        assert_eq!(server.get(SHOP).await.json["privateMode"], false);
    }
}

#[tokio::test]
async fn settings_change_one_by_one() {
    for server in TestServer::each(AuthMode::None).await {
        server.put(SHOP, json!({})).await.expect(204);
        let before = server.get(SHOP).await.json;
        server
            .patch(
                SHOP,
                json!({"executorTimeoutSecs": 42, "privateMode": true}),
            )
            .await
            .expect(204);
        let mut expected = before.clone();
        expected["executorTimeoutSecs"] = json!(42);
        expected["privateMode"] = json!(true);
        assert_eq!(server.get(SHOP).await.json, expected);

        server
            .patch(
                SHOP,
                json!({"gcRowsThreshold": 1000, "recoveryPolicy": "latest"}),
            )
            .await
            .expect(204);
        let app = server.get(SHOP).await.json;
        assert_eq!(
            (&app["gcRowsThreshold"], &app["recoveryPolicy"]),
            (&json!(1000), &json!("latest"))
        );
        server
            .patch(SHOP, json!({"gcRowsThreshold": null}))
            .await
            .expect(204);
        assert_eq!(
            server.get(SHOP).await.json["gcRowsThreshold"],
            1000,
            "null leaves"
        );
        server
            .patch(SHOP, json!({"gcRowsThreshold": -1}))
            .await
            .expect(204);
        assert_eq!(
            server.get(SHOP).await.json["gcRowsThreshold"],
            json!(null),
            "negative clears"
        );
        server.patch(SHOP, json!({})).await.expect(204);
        server.patch(SHOP, app).await.faults(422);

        server
            .patch(SHOP, json!({"executorTimeoutSecs": 0}))
            .await
            .problem(400);
        server
            .patch(SHOP, json!({"globalTimeoutMs": 0}))
            .await
            .problem(400);
        server
            .patch(SHOP, json!({"recoveryPolicy": "any"}))
            .await
            .faults(422);
        send(server.request(Method::PATCH, SHOP)).await.problem(400);
    }
}

#[tokio::test]
async fn names_are_checked() {
    for server in TestServer::each(AuthMode::None).await {
        let long = "a".repeat(256);
        let too_long = "a".repeat(257);
        for name in ["ab", "UPPER", "a%2Fb", "a%20b", &too_long] {
            let faults = server
                .put(&format!("/v2/orgs/local/apps/{name}"), json!({}))
                .await
                .faults(422);
            assert!(
                faults.iter().all(|place| place == "path.appName"),
                "{name}: {faults:?}"
            );
        }
        for name in ["a-b_c", &"a".repeat(31), &long] {
            server
                .put(&format!("/v2/orgs/local/apps/{name}"), json!({}))
                .await
                .expect(204);
        }
    }
}

#[tokio::test]
async fn a_deleted_application_is_gone() {
    for server in TestServer::each(AuthMode::None).await {
        server.put(SHOP, json!({})).await.expect(204);
        server
            .patch(SHOP, json!({"executorTimeoutSecs": 5}))
            .await
            .expect(204);
        let id = server.get(SHOP).await.json["id"].clone();
        server.delete(SHOP).await.expect(204);
        server.get(SHOP).await.problem(404);
        server.delete(SHOP).await.problem(404);
        server.put(SHOP, json!({})).await.expect(204);
        let again = server.get(SHOP).await.json;
        assert_ne!(again["id"], id);
        assert_eq!(again["executorTimeoutSecs"], 60);
    }
}

#[tokio::test]
async fn state_outlives_the_server() {
    for server in TestServer::each(AuthMode::None).await {
        server.put(SHOP, json!({})).await.expect(204);
        let before = server.get(SHOP).await.json;
        let database = server.stop().await;
        let server = TestServer::start(database, AuthMode::None).await;
        assert_eq!(server.get(SHOP).await.json, before);
    }
}
