//! API keys.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::json;

use crate::server::{TestServer, send};

const TOKENS: &str = "/v2/orgs/local/tokens";

#[tokio::test]
async fn a_key_is_shown_once_and_holds_websocket_connect_by_default() {
    for server in TestServer::each(AuthMode::Keys).await {
        let bare = server.admin(Method::POST, &format!("{TOKENS}/ci"));
        let made = send(bare).await.expect(201).json;
        assert_eq!(made["tokenName"], "ci");
        let key = made["token"].as_str().unwrap();
        assert!(key.starts_with("dbos_"), "{key}");
        assert!(
            key.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        );
        let listed = server.get(TOKENS).await.expect(200);
        assert!(!listed.text.contains(key));
        assert_eq!(listed.json[0]["permissions"], json!(["websocket.connect"]));
        assert_eq!(listed.json[0]["appIds"], json!([]));
        assert_eq!(
            listed.json.as_array().unwrap().len(),
            1,
            "the administrator's key is not listed"
        );
        for empty in [
            json!({"permissions": null, "appNames": null}),
            json!({"permissions": [], "appNames": []}),
        ] {
            let name = empty["permissions"].is_null().to_string();
            server
                .post(&format!("{TOKENS}/{name}"), empty)
                .await
                .expect(201);
        }
        for token in server.get(TOKENS).await.json.as_array().unwrap() {
            assert_eq!(token["permissions"], json!(["websocket.connect"]));
        }
    }
}

#[tokio::test]
async fn a_scoped_key_reaches_its_applications_only() {
    for server in TestServer::each(AuthMode::Keys).await {
        for app in ["shop", "bank"] {
            server
                .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
                .await
                .expect(204);
        }
        let key = server.key("reader", &["application.read"], &["shop"]).await;
        let shop = server.get("/v2/orgs/local/apps/shop").await.json;
        assert_eq!(
            server.get(TOKENS).await.json[0]["appIds"],
            json!([shop["id"]])
        );

        server
            .get_with(&key, "/v2/orgs/local/apps/shop")
            .await
            .expect(200);
        server
            .get_with(&key, "/v2/orgs/local/apps/bank")
            .await
            .problem(403);
        server
            .get_with(&key, "/v2/orgs/local/apps/nope")
            .await
            .problem(403);
        let seen = server
            .get_with(&key, "/v2/orgs/local/apps")
            .await
            .expect(200)
            .json;
        assert_eq!(seen.as_array().unwrap().len(), 1);
        let delete = server
            .request(Method::DELETE, "/v2/orgs/local/apps/shop")
            .bearer_auth(&key);
        send(delete).await.problem(403);

        // The last application goes: the key must not become wider.
        server.delete("/v2/orgs/local/apps/shop").await.expect(204);
        server
            .get_with(&key, "/v2/orgs/local/apps/bank")
            .await
            .problem(403);
        assert_eq!(
            server.get_with(&key, "/v2/orgs/local/apps").await.json,
            json!([])
        );
        let register = server
            .request(Method::PUT, "/v2/orgs/local/apps/shop")
            .bearer_auth(&key);
        send(register).await.problem(403);
    }
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused() {
    for server in TestServer::each(AuthMode::Keys).await {
        let make = |body| server.post("/v2/orgs/local/tokens/x", body);
        make(json!({"permissions": ["nope"]})).await.problem(400);
        make(json!({"permissions": ["token.write"]}))
            .await
            .problem(400);
        make(json!({"appNames": ["nope"]})).await.problem(404);
        let faults = make(json!({"appNames": ["a", "a"], "zzz": 1}))
            .await
            .faults(422);
        assert!(
            faults.contains(&"body.appNames".to_owned()) && faults.contains(&"body.zzz".to_owned())
        );
        make(json!({})).await.expect(201);
        make(json!({})).await.problem(409);
    }
}

#[tokio::test]
async fn renaming_keeps_the_secret_and_revoking_ends_it() {
    for server in TestServer::each(AuthMode::Keys).await {
        let key = server.key("ci", &["application.read"], &[]).await;
        server.key("other", &[], &[]).await;
        server
            .patch(&format!("{TOKENS}/ci"), json!({"newName": "other"}))
            .await
            .problem(409);
        server
            .patch(&format!("{TOKENS}/nope"), json!({"newName": "x"}))
            .await
            .problem(404);
        server
            .patch(&format!("{TOKENS}/ci"), json!({"newName": "a/b c"}))
            .await
            .expect(204);
        server
            .get_with(&key, "/v2/orgs/local/apps")
            .await
            .expect(200);
        server.delete(&format!("{TOKENS}/ci")).await.problem(404);
        server
            .delete(&format!("{TOKENS}/a%2Fb%20c"))
            .await
            .expect(204);
        let refused = server.get_with(&key, "/v2/orgs/local/apps").await;
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        refused.problem(401);
    }
}

#[tokio::test]
async fn without_authentication_keys_are_made_all_the_same() {
    for server in TestServer::each(AuthMode::None).await {
        let made = server
            .post(
                &format!("{TOKENS}/ci"),
                json!({"permissions": ["metric.read"]}),
            )
            .await
            .expect(201);
        assert!(made.json["token"].as_str().unwrap().starts_with("dbos_"));
        assert_eq!(
            server.get(TOKENS).await.json[0]["permissions"],
            json!(["metric.read"])
        );
    }
}

#[tokio::test]
async fn the_catalogue_is_listed() {
    for server in TestServer::each(AuthMode::None).await {
        let listed = send(server.request(Method::GET, "/v2/orgs/local/permissions"))
            .await
            .expect(200)
            .json;
        assert_eq!(listed.as_array().unwrap().len(), 8);
        for name in ["application.read", "websocket.connect", "token.write"] {
            assert!(listed.as_array().unwrap().contains(&json!(name)), "{name}");
        }
    }
}
