//! How to log in here, and who one is.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::json;

use crate::server::{Database, TestServer, send};

#[tokio::test]
async fn anybody_learns_how_to_log_in() {
    for (auth, mode) in [(AuthMode::None, "none"), (AuthMode::Keys, "keys")] {
        let server = TestServer::start(Database::sqlite(), auth).await;
        let told = send(server.request(Method::GET, "/console/session-config")).await;
        assert_eq!(told.expect(200).json, json!({"mode": mode}));
    }
}

#[tokio::test]
async fn everybody_learns_who_they_are() {
    let server = TestServer::start(Database::sqlite(), AuthMode::Keys).await;
    let admin = server.get("/v2/self").await.expect(200).json;
    assert_eq!(
        (&admin["mode"], &admin["kind"], &admin["orgName"]),
        (&json!("keys"), &json!("api_key"), &json!("local"))
    );
    assert_eq!(admin["permissions"].as_array().unwrap().len(), 8);
    assert!(admin.get("appIds").is_none(), "{admin}");

    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    let key = server.key("reader", &["application.read"], &["shop"]).await;
    let reader = server.get_with(&key, "/v2/self").await.expect(200).json;
    assert_eq!(reader["display"], "reader");
    assert_eq!(reader["permissions"], json!(["application.read"]));
    assert_eq!(reader["appIds"].as_array().unwrap().len(), 1);
    send(server.request(Method::GET, "/v2/self"))
        .await
        .problem(401);

    let open = TestServer::start(Database::sqlite(), AuthMode::None).await;
    let everybody = send(open.request(Method::GET, "/v2/self")).await.json;
    assert_eq!(
        (
            &everybody["mode"],
            &everybody["kind"],
            &everybody["display"]
        ),
        (&json!("none"), &json!("user"), &json!("local"))
    );
}

#[tokio::test]
async fn a_request_with_two_credentials_is_refused() {
    let server = TestServer::start(Database::sqlite(), AuthMode::Keys).await;
    let twice = server
        .admin(Method::GET, "/v2/self")
        .header("authorization", "Bearer dbos_other");
    send(twice).await.problem(401);
}

/// Whoever guesses is slowed down, but nobody who was right before.
#[tokio::test]
async fn wrong_credentials_cost_an_address_its_allowance() {
    let server = TestServer::start_with(Database::sqlite(), AuthMode::Keys, |config| {
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let good = server.key("good", &["application.read"], &[]).await;
    let from = |address: &str, key: &str| {
        let request = server
            .request(Method::GET, "/v2/self")
            .header("x-forwarded-for", address)
            .bearer_auth(key);
        send(request)
    };
    from("192.0.2.1", &good).await.expect(200);
    let mut slowed = false;
    for guess in 0..400 {
        let answer = from("192.0.2.1", &format!("dbos_guess_{guess}")).await;
        slowed = answer.status == 429;
        if slowed {
            assert!(answer.headers.contains_key("retry-after"));
            break;
        }
        answer.problem(401);
    }
    assert!(slowed);
    from("192.0.2.1", &good).await.expect(200);
    from("192.0.2.2", "dbos_guess_other").await.problem(401);
}
