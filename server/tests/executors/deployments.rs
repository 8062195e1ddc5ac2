//! What each application version still holds.

use serde_json::{Value, json};

use crate::fake::{Fake, Workflows};
use crate::server::{Database, Server};

async fn deployment(server: &Server, version: &str) -> Option<Value> {
    let all = server.get("/apps/shop/deployments").await;
    let all = all.as_array().unwrap();
    all.iter().find(|d| d["appVersion"] == version).cloned()
}

async fn an_old_version_drains(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 1).await;
    let (status, _) = server
        .call(reqwest::Method::GET, "/apps/shop/deployments", None)
        .await;
    assert_eq!(status, 503, "with nobody to ask, nothing is called drained");

    let workflows = Workflows::default();
    workflows.running(3, "old", "v1");
    workflows.waiting(2, "ENQUEUED", Some("v1"));
    workflows.waiting(1, "DELAYED", Some("v1"));
    workflows.waiting(4, "ENQUEUED", None);
    let old = Fake::connect(&server, "shop", "old", "v1", &workflows).await;
    let _new = Fake::connect(&server, "shop", "new", "v2", &workflows).await;
    workflows.latest("v2");

    let all = server.get("/apps/shop/deployments").await;
    let names: Vec<&Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["appVersion"])
        .collect();
    assert_eq!(names, ["v2", "v1"], "the latest first");
    let v1 = deployment(&server, "v1").await.unwrap();
    assert_eq!(v1["isLatest"], false);
    assert_eq!(
        v1["workflows"],
        json!({"pending": 3, "enqueued": 2, "delayed": 1})
    );
    assert_eq!(
        v1["executors"],
        json!({"healthy": 1, "disconnected": 0, "dead": 0})
    );
    assert_eq!(
        (&v1["stranded"], &v1["drained"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(v1["oldestActiveAt"], "2026-01-02T03:04:05.000Z");
    let v2 = deployment(&server, "v2").await.unwrap();
    assert_eq!(v2["isLatest"], true);
    assert_eq!(
        v2["workflows"]["enqueued"], 4,
        "what is bound to no version is for the latest"
    );

    old.die().await;
    server.until_status("shop", "old", "v1", Some("DEAD")).await;
    let v1 = deployment(&server, "v1").await.unwrap();
    assert_eq!(
        v1["executors"],
        json!({"healthy": 0, "disconnected": 0, "dead": 1})
    );
    assert_eq!(v1["stranded"], 6, "nobody is left to take them");

    let _again = Fake::connect(&server, "shop", "again", "v1", &workflows).await;
    let v1 = deployment(&server, "v1").await.unwrap();
    assert_eq!(v1["stranded"], 0);
    workflows.end_all("v1");
    let v1 = deployment(&server, "v1").await.unwrap();
    assert_eq!(
        (&v1["drained"], &v1["oldestActiveAt"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn an_old_version_drains_sqlite() {
    an_old_version_drains(Database::sqlite()).await;
}

#[tokio::test]
async fn an_old_version_drains_postgres() {
    an_old_version_drains(Database::postgres().await).await;
}
