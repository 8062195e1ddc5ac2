//! `Idempotency-Key`.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::server::{Answer, TestServer, send};

async fn create(server: &TestServer, name: &str, key: &str, body: Value) -> Answer {
    let request = server.admin(Method::POST, &format!("/v2/orgs/local/tokens/{name}"));
    send(request.header("idempotency-key", key).json(&body)).await
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer() {
    for server in TestServer::each(AuthMode::Keys).await {
        let first = create(&server, "ci", "k1", json!({})).await.expect(201);
        let again = create(&server, "ci", "k1", json!({})).await.expect(201);
        assert_eq!(first.text, again.text);
        assert_eq!(first.headers["content-type"], again.headers["content-type"]);
        let tokens = server.get("/v2/orgs/local/tokens").await.json;
        assert_eq!(tokens.as_array().unwrap().len(), 1);
        create(&server, "ci", "k2", json!({})).await.problem(409);
        create(&server, "ci", "k1", json!({"permissions": ["metric.read"]}))
            .await
            .problem(422);
        create(&server, "other", "k1", json!({})).await.problem(422);
        create(&server, "other", &"k".repeat(256), json!({}))
            .await
            .problem(400);
    }
}

#[tokio::test]
async fn callers_do_not_share_keys() {
    for server in TestServer::each(AuthMode::Keys).await {
        let key = server
            .key("writer", &["application.write", "application.read"], &[])
            .await;
        let register = |app: &str, bearer: &str| {
            let path = format!("/v2/orgs/local/apps/{app}");
            server
                .request(Method::PUT, &path)
                .bearer_auth(bearer)
                .header("idempotency-key", "same")
        };
        send(register("one", &key)).await.expect(204);
        send(register("two", crate::server::ADMIN))
            .await
            .expect(204);
        assert_eq!(
            server
                .get("/v2/orgs/local/apps")
                .await
                .json
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
}

#[tokio::test]
async fn two_at_once_do_it_once() {
    for server in TestServer::each(AuthMode::Keys).await {
        let tries = (0..8).map(|_| create(&server, "ci", "same", json!({})));
        let answers = futures_util::future::join_all(tries).await;
        let made: Vec<&Answer> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .collect();
        assert!(!made.is_empty());
        assert!(made.iter().all(|answer| answer.text == made[0].text));
        for answer in &answers {
            assert!(
                [201, 409].contains(&answer.status.as_u16()),
                "{}",
                answer.text
            );
        }
    }
}

#[tokio::test]
async fn a_failure_of_executors_may_be_tried_again() {
    for server in TestServer::each(AuthMode::Keys).await {
        server
            .put("/v2/orgs/local/apps/shop", json!({}))
            .await
            .expect(204);
        let cancel = || {
            let path = "/v2/orgs/local/apps/shop/workflows/w/cancel";
            server
                .admin(Method::POST, path)
                .header("idempotency-key", "again")
        };
        send(cancel()).await.problem(503);
        send(cancel()).await.problem(503);
    }
}

/// One gives the key up in the moment in which another finds it taken.
#[tokio::test]
async fn failures_at_once_are_failures_and_nothing_else() {
    for server in TestServer::each(AuthMode::Keys).await {
        server
            .put("/v2/orgs/local/apps/shop", json!({}))
            .await
            .expect(204);
        let insist = || async {
            for _ in 0..40 {
                let path = "/v2/orgs/local/apps/shop/workflows/w/cancel";
                let cancel = server
                    .admin(Method::POST, path)
                    .header("idempotency-key", "hot");
                let answer = send(cancel).await;
                let status = answer.status.as_u16();
                assert!([409, 503].contains(&status), "{status}: {}", answer.text);
            }
        };
        futures_util::future::join_all((0..8).map(|_| insist())).await;
    }
}
