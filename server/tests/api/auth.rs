//! Who may call what: every operation of the document is tried.

use reqwest::Method;
use segno_server::api::openapi::{SpecVersion, document};
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::server::{ADMIN, TestServer, send};

/// Every operation that a server without users has.
fn operations() -> Vec<(Method, String, Value)> {
    let mut all = every_operation("local");
    all.retain(|(_, _, operation)| !needs_users(operation));
    all
}

pub(crate) fn needs_users(operation: &Value) -> bool {
    operation["x-dbos-requires-oauth"] == true && operation["x-segno-with-keys"] != true
}

/// Every operation: method, a path in the organization that fits its parameters, and its description.
pub(crate) fn every_operation(org: &str) -> Vec<(Method, String, Value)> {
    let document = document(SpecVersion::V31);
    let parameter = regex::Regex::new(r"\{\w+\}").unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{orgName}", org).replace("{appName}", "shop");
            let path = parameter.replace_all(&path, "some").into_owned();
            all.push((method, path, operation.clone()));
        }
    }
    assert!(
        all.len() > 30,
        "the document lists {} operations",
        all.len()
    );
    all
}

#[tokio::test]
async fn every_operation_needs_a_credential() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::Keys).await;
    for (method, path, _) in operations() {
        let bare = send(server.request(method.clone(), &path)).await;
        assert_eq!(bare.status, 401, "{method} {path}: {}", bare.text);
        for credential in [
            "Bearer dbos_unknown",
            "Bearer ",
            "Basic dXNlcjpwYXNz",
            "Bearer eyJhbGciOiJub25lIn0.e30.",
        ] {
            let wrong = server
                .request(method.clone(), &path)
                .header("authorization", credential);
            assert_eq!(
                send(wrong).await.status,
                401,
                "{method} {path} with {credential}"
            );
        }
    }
}

#[tokio::test]
async fn every_operation_needs_its_permission_and_no_other() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::Keys).await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    let catalogue = server.get("/v2/orgs/local/permissions").await.json;
    let names: Vec<&str> = catalogue
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut keys = Vec::new();
    for name in names.iter().filter(|name| **name != "token.write") {
        keys.push((*name, server.key(name, &[name], &[]).await));
    }
    for (method, path, operation) in operations() {
        let needed = operation["x-segno-permission"].as_str().unwrap();
        for (held, key) in &keys {
            if *held == needed && operation["x-segno-audit"].is_string() && method == Method::DELETE
            {
                continue; // It would work, and take away what the next ones need.
            }
            let mut request = server.request(method.clone(), &path).bearer_auth(key);
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["in"] == "query" && parameter["required"] == true {
                    request = request
                        .query(&[(parameter["name"].as_str().unwrap(), "2026-01-01T00:00:00Z")]);
                }
            }
            if let Some(body) = sample_body(&operation) {
                request = request.json(&body);
            }
            let answer = send(request).await;
            if *held == needed || ["any", "authenticated"].contains(&needed) {
                assert!(
                    ![401, 403].contains(&answer.status.as_u16()),
                    "{method} {path} with {held}: {}",
                    answer.text
                );
            } else {
                assert_eq!(
                    answer.status, 403,
                    "{method} {path} with {held}: {}",
                    answer.text
                );
            }
        }
    }
}

/// A body that fits the operation's schema.
pub(crate) fn sample_body(operation: &Value) -> Option<Value> {
    let document = document(SpecVersion::V31);
    let reference =
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()?;
    let schema = &document["components"]["schemas"][reference.rsplit('/').next()?];
    let mut body = serde_json::Map::new();
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let property = &schema["properties"][name];
        let value = match (property["type"].as_str(), property["format"].as_str()) {
            _ if property["enum"].is_array() => property["enum"][0].clone(),
            (Some("array"), _) => json!([]),
            (_, Some("date-time")) => json!("2026-01-01T00:00:00Z"),
            (Some("integer"), _) => json!(1),
            _ if property["enum"].is_array() => property["enum"][0].clone(),
            _ => json!("some"),
        };
        body.insert(name.to_owned(), value);
    }
    Some(Value::Object(body))
}

#[tokio::test]
async fn every_change_is_declared_for_the_audit_log() {
    for (method, path, operation) in every_operation("local") {
        assert_eq!(
            operation["x-segno-audit"].is_string(),
            method != Method::GET,
            "{method} {path}"
        );
    }
}

/// Clients read 404 as "this server knows no users".
#[tokio::test]
async fn without_users_there_are_no_operations_on_them() {
    for auth in [AuthMode::None, AuthMode::Keys] {
        let server = TestServer::start(crate::server::Database::sqlite(), auth).await;
        let mut tried = 0;
        for (method, path, operation) in every_operation("local") {
            let locked = operation["x-dbos-requires-oauth"] == true
                && (auth == AuthMode::None || needs_users(&operation));
            if locked {
                tried += 1;
                send(server.admin(method, &path)).await.problem(404);
            }
        }
        assert_eq!(tried, if auth == AuthMode::None { 16 } else { 15 });
        server.get("/v2/nonsense").await.problem(404);
    }
}

#[tokio::test]
async fn without_authentication_headers_are_ignored() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::None).await;
    for credential in ["Bearer junk", "Basic x", "nonsense"] {
        let request = server
            .request(Method::GET, "/v2/orgs/local/apps")
            .header("authorization", credential);
        send(request).await.expect(200);
    }
    let scheme = server
        .request(Method::GET, "/v2/orgs/local/apps")
        .header("authorization", format!("bEARER {ADMIN}"));
    send(scheme).await.expect(200);
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::Keys).await;
    let scheme = server
        .request(Method::GET, "/v2/orgs/local/apps")
        .header("authorization", format!("bEARER {ADMIN}"));
    send(scheme).await.expect(200);
}

#[tokio::test]
async fn other_organizations_do_not_exist() {
    for auth in [AuthMode::None, AuthMode::Keys] {
        let server = TestServer::start(crate::server::Database::sqlite(), auth).await;
        server.get("/v2/orgs/other/apps").await.problem(404);
        server
            .put("/v2/orgs/other/apps/shop", json!({}))
            .await
            .problem(404);
    }
}

#[tokio::test]
async fn open_routes_need_nothing() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::Keys).await;
    for path in [
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/openapi.yaml",
        "/openapi-3.0.json",
        "/openapi-3.0.yaml",
        "/v2/openapi.json",
        "/v2/openapi-3.0.json",
        "/docs",
        "/schemas/Workflow.json",
        "/",
    ] {
        send(server.request(Method::GET, path)).await.expect(200);
    }
    send(server.request(Method::GET, "/metrics"))
        .await
        .problem(401);
}

#[tokio::test]
async fn metrics_are_text_for_those_who_want_text() {
    let server = TestServer::start(crate::server::Database::sqlite(), AuthMode::Keys).await;
    let key = server.key("scraper", &["metric.read"], &[]).await;
    let scrape = server
        .request(Method::GET, "/metrics")
        .bearer_auth(key)
        .header("accept", "text/plain;version=0.0.4");
    let answer = send(scrape).await.expect(200);
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
}
