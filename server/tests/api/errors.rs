//! What is wrong with a request is said completely, and in one form.

use std::time::Duration;

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Database, TestServer, send};

const BULK: &str = "/v2/orgs/local/apps/shop/workflows/bulk-cancel";

async fn server() -> TestServer {
    let server = TestServer::start(Database::sqlite(), AuthMode::None).await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    server
}

#[tokio::test]
async fn unknown_paths_are_problems_and_the_root_is_a_page() {
    let server = server().await;
    for path in [
        "/v2/nonsense",
        "/v2",
        "/v1/x",
        "/v1alpha1/x",
        "/v2/users/me",
        "/conductor/v2/nonsense",
        "/v2/orgs/local/roles",
    ] {
        server.get(path).await.problem(404);
    }
    let page = server.get("/").await.expect(200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src") && !policy.contains("unsafe-eval"),
        "{policy}"
    );
}

#[tokio::test]
async fn a_wrong_method_is_405_and_names_the_right_ones() {
    let server = server().await;
    let answer = server.post("/v2/orgs/local/apps", json!({})).await;
    assert!(
        answer.headers["allow"].to_str().unwrap().contains("GET"),
        "{:?}",
        answer.headers
    );
    answer.problem(405);
    let answer = server.post("/v2/orgs/local/apps/shop", json!({})).await;
    let allow = answer.headers["allow"].to_str().unwrap().to_owned();
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        assert!(allow.contains(method), "{method} in {allow}");
    }
    answer.problem(405);
}

#[tokio::test]
async fn all_faults_are_listed_at_once() {
    let server = server().await;
    let faults = server
        .post(BULK, json!({"workflowIds": "x", "zzz": 1}))
        .await
        .faults(422);
    assert_eq!(faults, ["body.workflowIds", "body.zzz"]);
    let faults = server
        .post(
            "/v2/orgs/UP/apps/ab/workflows/bulk-cancel",
            json!({"workflowIds": [1, "a", 2]}),
        )
        .await
        .faults(422);
    for place in [
        "path.orgName",
        "path.appName",
        "body.workflowIds[0]",
        "body.workflowIds[2]",
    ] {
        assert!(faults.contains(&place.to_owned()), "{place} in {faults:?}");
    }
    assert_eq!(server.post(BULK, json!({})).await.faults(422), ["body"]);
    assert_eq!(server.post(BULK, json!(7)).await.faults(422), ["body"]);
    let list = "/v2/orgs/local/apps/shop/workflows?limit=ten&sortDesc=maybe&offset=-1&unknown=1";
    let faults = server.get(list).await.faults(422);
    assert_eq!(faults, ["query.limit", "query.offset", "query.sortDesc"]);
    let search = server
        .post(
            "/v2/orgs/local/apps/shop/workflows/search",
            json!({"startTime": "yesterday", "limit": -1}),
        )
        .await;
    assert_eq!(search.faults(422), ["body.limit", "body.startTime"]);
}

#[tokio::test]
async fn bodies_are_json_complete_and_not_too_large() {
    let server = server().await;
    let raw = |body: &'static str, content_type: &'static str| {
        server
            .request(Method::POST, BULK)
            .header("content-type", content_type)
            .body(body)
    };
    let truncated = send(raw("{\"workflowIds\": [", "application/json")).await;
    assert_eq!(truncated.faults(400), ["body"]);
    let missing = send(server.request(Method::POST, BULK)).await.problem(400);
    assert_eq!(missing["detail"], "request body is required");
    send(raw("{}", "text/plain")).await.problem(415);
    for accepted in [
        "application/json; charset=utf-8",
        "application/merge-patch+json",
    ] {
        send(raw("{\"workflowIds\": []}", accepted))
            .await
            .expect(204);
    }
    send(
        server
            .request(Method::POST, BULK)
            .body("{\"workflowIds\": []}"),
    )
    .await
    .expect(204);
    let large = format!("{{\"workflowIds\": [\"{}\"]}}", "x".repeat(2 << 20));
    send(server.request(Method::POST, BULK).body(large.clone()))
        .await
        .problem(413);
    let import = server.request(Method::POST, "/v2/orgs/local/apps/shop/workflows/import");
    let blob = json!({"serializedWorkflow": "x".repeat(5 << 20)});
    send(import.json(&blob)).await.problem(503);
}

#[tokio::test]
async fn a_body_without_length_is_limited_too() {
    let server = server().await;
    let chunks = (0..32).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 << 10]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    send(server.request(Method::POST, BULK).body(body))
        .await
        .problem(413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let server = server().await;
    let mut socket = tokio::net::TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST {BULK} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(15), read)
        .await
        .expect("an answer")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_says_that_it_is_the_last() {
    let server = server().await;
    let mut socket = tokio::net::TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = "POST /v2/nonsense HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );

    let read = server.post(BULK, json!({"workflowIds": 1})).await;
    assert!(
        read.headers.get("connection").is_none(),
        "{:?}",
        read.headers
    );
    read.problem(422);
}

#[tokio::test]
async fn an_accept_header_that_excludes_json_is_406() {
    let server = server().await;
    let ask = |accept: &'static str| {
        server
            .request(Method::GET, "/v2/orgs/local/apps")
            .header("accept", accept)
    };
    send(ask("text/html")).await.problem(406);
    send(ask("application/json;q=0")).await.problem(406);
    for accept in [
        "*/*",
        "application/*",
        "application/json",
        "text/html, application/json;q=0.5",
        "application/problem+json",
    ] {
        send(ask(accept)).await.expect(200);
    }
}

#[tokio::test]
async fn clients_may_send_back_what_they_got() {
    let server = server().await;
    let app = "/v2/orgs/local/apps/shop";
    server
        .put(
            app,
            json!({"$schema": "http://x/schemas/PutAppInputBody.json"}),
        )
        .await
        .expect(204);
    server
        .patch(
            app,
            json!({"executorTimeoutSecs": null, "privateMode": null}),
        )
        .await
        .expect(204);
}

#[tokio::test]
async fn the_managed_prefix_is_accepted() {
    let server = server().await;
    server
        .get("/conductor/v2/orgs/local/apps/shop")
        .await
        .expect(200);
    server.get("/conductor/healthz").await.expect(200);
}

#[tokio::test]
async fn requests_carry_an_id_back() {
    let server = server().await;
    let given = server
        .request(Method::GET, "/healthz")
        .header("x-request-id", "abc-1");
    assert_eq!(send(given).await.headers["x-request-id"], "abc-1");
    let bad = server
        .request(Method::GET, "/healthz")
        .header("x-request-id", "a b");
    assert_ne!(send(bad).await.headers["x-request-id"], "a b");
}

#[tokio::test]
async fn metrics_name_operations_not_paths() {
    let server = server().await;
    server.get("/v2/orgs/local/apps/shop").await.expect(200);
    server.get("/v2/some-unknown-path").await.expect(404);
    let text = server.get("/metrics").await.expect(200).text;
    assert!(
        text.contains("segno_http_request_seconds_count{operation=\"getApp\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("operation=\"other\",status=\"404\""),
        "{text}"
    );
    assert!(!text.contains("some-unknown-path"));
    assert!(text.contains("segno_store_seconds_count"));
}
