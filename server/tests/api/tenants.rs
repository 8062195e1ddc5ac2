//! Organizations beside each other: nobody reaches into another one, by whatever credential.

use reqwest::Method;
use segno_server::config::Secret;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;

use crate::auth::{every_operation, needs_users, sample_body};
use crate::executor::{FakeExecutor, until};
use crate::issuer::Issuer;
use crate::server::{ADMIN, Database, TestServer, send};
use crate::users::World;

/// A key of an organization, made by its administrator.
async fn key(world: &World, admin: &str, org: &str, permissions: &[&str], apps: &[&str]) -> String {
    let path = format!("/v2/orgs/{org}/tokens/{}", uuid::Uuid::new_v4());
    let body = json!({"permissions": permissions, "appNames": apps});
    let made = world.post(admin, &path, body).await.expect(201);
    made.json["token"].as_str().unwrap().to_owned()
}

const NEARLY_ALL: [&str; 7] = [
    "organization.read",
    "organization.write",
    "application.read",
    "application.write",
    "metric.read",
    "token.read",
    "websocket.connect",
];

/// A request for an operation with the parameters and the body that it needs.
async fn attempt(
    server: &TestServer,
    credential: &str,
    (method, path, operation): &(Method, String, Value),
) -> u16 {
    let mut request = server.request(method.clone(), path).bearer_auth(credential);
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" && parameter["required"] == true {
            request =
                request.query(&[(parameter["name"].as_str().unwrap(), "2026-01-01T00:00:00Z")]);
        }
    }
    if let Some(body) = sample_body(operation) {
        request = request.json(&body);
    }
    send(request).await.status.as_u16()
}

#[tokio::test]
async fn every_operation_of_another_organization_is_out_of_reach() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.found("bob", "bank").await;
        let app = Some(json!({}));
        world
            .call("ann", Method::PUT, "/v2/orgs/acme/apps/shop", app)
            .await
            .expect(204);
        let foreign = key(&world, "bob", "bank", &NEARLY_ALL, &[]).await;
        let bob = world.issuer.token("bob");
        let mut tried = 0;
        for operation in every_operation("acme") {
            if !operation.1.contains("/orgs/acme") {
                continue;
            }
            tried += 1;
            for credential in [&bob, &foreign] {
                let status = attempt(&world.server, credential, &operation).await;
                let is_join = operation.2["operationId"] == "joinOrg";
                assert!(
                    status == 404 || is_join && status == 403,
                    "{} {}: {status}",
                    operation.0,
                    operation.1
                );
            }
        }
        assert!(tried > 60, "{tried}");
        // The same names under one's own path are one's own, or nothing.
        world
            .get("bob", "/v2/orgs/bank/apps/shop")
            .await
            .problem(404);
        world
            .call("bob", Method::DELETE, "/v2/orgs/bank/members/ann", None)
            .await
            .problem(404);
        assert_eq!(world.get("bob", "/v2/orgs/bank/apps").await.json, json!([]));
        // What happened to acme is not in bank's log, nor the other way round.
        let log = world
            .get("bob", "/v2/orgs/bank/audit-logs?limit=1000")
            .await;
        let log = log.expect(200);
        assert!(!log.text.contains("ann@example.com"), "{}", log.text);
        let log = world
            .get("ann", "/v2/orgs/acme/audit-logs?limit=1000")
            .await;
        assert!(!log.expect(200).text.contains("bob@example.com"));
    }
}

#[tokio::test]
async fn two_organizations_may_use_one_name() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.found("bob", "bank").await;
        for (admin, org) in [("ann", "acme"), ("bob", "bank")] {
            let path = format!("/v2/orgs/{org}/apps/shop");
            world
                .call(admin, Method::PUT, &path, Some(json!({})))
                .await
                .expect(204);
        }
        // The address that an executor dials names the application only; the key says whose it is.
        let acme = key(&world, "ann", "acme", &[], &[]).await;
        let executor = FakeExecutor::dial(
            &world.server,
            "shop",
            &acme,
            "v1",
            ("python", "3.2.0"),
            |_| json!({}),
        )
        .await;
        let seen = async |admin: &str, org: &str| {
            let path = format!("/v2/orgs/{org}/apps/shop/executors");
            let listed = world.get(admin, &path).await.expect(200).json;
            listed.as_array().unwrap().len()
        };
        until("the executor is listed", async || {
            seen("ann", "acme").await == 1
        })
        .await;
        assert_eq!(seen("bob", "bank").await, 0);
        drop(executor);
    }
}

#[tokio::test]
async fn executors_need_a_key_of_the_organization() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    world.found("bob", "bank").await;
    for app in ["shop", "mill"] {
        let path = format!("/v2/orgs/acme/apps/{app}");
        world
            .call("ann", Method::PUT, &path, Some(json!({})))
            .await
            .expect(204);
    }
    let connect = [
        ("nonsense", "shop", "dbos_unknown".to_owned(), 401),
        ("a person's token", "shop", world.issuer.token("ann"), 401),
        (
            "a key of another organization",
            "shop",
            key(&world, "bob", "bank", &[], &[]).await,
            404,
        ),
        (
            "a key without the permission",
            "shop",
            key(&world, "ann", "acme", &["application.read"], &[]).await,
            403,
        ),
        (
            "a key for another application",
            "shop",
            key(&world, "ann", "acme", &[], &["mill"]).await,
            403,
        ),
        (
            "an application that is not registered",
            "nope",
            key(&world, "ann", "acme", &[], &[]).await,
            404,
        ),
    ];
    for (what, app, key, expected) in connect {
        let base = world.server.base.replace("http://", "ws://");
        let url = format!("{base}/websocket/{app}/{key}");
        let Err(Error::Http(refusal)) = connect_async(url).await else {
            panic!("{what} was let in");
        };
        assert_eq!(refusal.status().as_u16(), expected, "{what}");
        let text = String::from_utf8(refusal.into_body().unwrap()).unwrap();
        assert!(text.len() > 10 && !text.contains(&key), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_revoked_key_loses_its_executors() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    world
        .call(
            "ann",
            Method::PUT,
            "/v2/orgs/acme/apps/shop",
            Some(json!({})),
        )
        .await
        .expect(204);
    let made = world
        .post("ann", "/v2/orgs/acme/tokens/worker", json!({}))
        .await
        .expect(201);
    let key = made.json["token"].as_str().unwrap();
    let mut executor = FakeExecutor::dial(
        &world.server,
        "shop",
        key,
        "v1",
        ("python", "3.2.0"),
        |_| json!({}),
    )
    .await;
    until("the executor is listed", async || {
        let path = "/v2/orgs/acme/apps/shop/executors";
        world.get("ann", path).await.expect(200).json != json!([])
    })
    .await;
    world
        .call("ann", Method::DELETE, "/v2/orgs/acme/tokens/worker", None)
        .await
        .expect(204);
    executor.closed().await;
    world.server.get_with(key, "/v2/self").await.problem(401);
}

/// Each permission opens the operations that name it and no others, for roles as for keys.
#[tokio::test]
async fn every_operation_needs_its_permission_of_people_too() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    world
        .call(
            "ann",
            Method::PUT,
            "/v2/orgs/acme/apps/shop",
            Some(json!({})),
        )
        .await
        .expect(204);
    let mut people = Vec::new();
    for (n, permission) in NEARLY_ALL.iter().chain(&["token.write"]).enumerate() {
        let (person, role) = (format!("person{n}"), format!("role{n}"));
        world.invite("ann", "acme", &person).await;
        let body = json!({"name": role, "permissions": [permission]});
        world
            .post("ann", "/v2/orgs/acme/roles", body)
            .await
            .expect(201);
        world.grant("ann", "acme", &person, &role).await.expect(204);
        people.push((*permission, world.issuer.token(&person)));
    }
    for operation in every_operation("acme") {
        let needed = operation.2["x-segno-permission"].as_str().unwrap();
        if ["any", "user", "authenticated"].contains(&needed) {
            continue;
        }
        let changes = operation.0 != Method::GET;
        for (held, token) in &people {
            if *held == needed {
                if !changes {
                    let status = attempt(&world.server, token, &operation).await;
                    assert!(![401, 403].contains(&status), "{} {status}", operation.1);
                }
                continue;
            }
            let status = attempt(&world.server, token, &operation).await;
            assert_eq!(status, 403, "{} {} with {held}", operation.0, operation.1);
        }
    }
}

/// A key that the operator gives administers the organization `local`: the way in for people, when a
/// server that knew only keys begins to know them.
#[tokio::test]
async fn the_operators_key_opens_local_to_people() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let issuer = Issuer::start().await;
        let server = issuer
            .server_with(database, |config| {
                config.admin_key = Some(Secret::new(ADMIN));
            })
            .await;
        server
            .put("/v2/orgs/local/apps/shop", json!({}))
            .await
            .expect(204);
        let patch = json!({"newName": "other"});
        server.patch("/v2/orgs/local", patch).await.problem(409);
        let secret = server
            .post("/v2/orgs/local/secrets", Value::Null)
            .await
            .expect(201)
            .json["secret"]
            .clone();
        let request = server
            .request(Method::POST, "/v2/users")
            .bearer_auth(issuer.token("ann"))
            .json(&json!({"name": "ann", "secret": secret}));
        send(request).await.expect(201);
        let path = "/v2/orgs/local/members/ann/roles/organization_admin";
        server.put(path, Value::Null).await.expect(204);
        let shop = server
            .get_with(&issuer.token("ann"), "/v2/orgs/local/apps/shop")
            .await;
        shop.expect(200);
        assert!(
            every_operation("local")
                .iter()
                .any(|(_, _, operation)| needs_users(operation))
        );
    }
}
