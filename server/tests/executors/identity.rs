//! One that claims another's id.

use std::time::Duration;

use crate::fake::{Fake, Workflows, dial, refused};
use crate::server::{Database, Server};

#[tokio::test]
async fn the_newest_connection_of_an_executor_wins() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(3, "e1", "v1");
    let mut elder = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    let other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    let newer = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    elder.closed().await;
    // Well beyond the grace: the replaced connection must not count as a loss.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(newer.is_open() && other.is_open());
    assert!(server.recoveries("shop").await.is_empty());
    assert_eq!(workflows.pending("e1", "v1"), 3);
    assert!(other.received("recovery").is_empty());
}

#[tokio::test]
async fn an_id_is_its_application_s_own() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    server.app("other", 60).await;
    let workflows = Workflows::default();
    let one = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    let two = Fake::connect(&server, "other", "e1", "v1", &workflows).await;
    server.get("/apps/shop/workflows").await;
    assert!(one.is_open() && two.is_open());
}

/// Two processes with one id would evict each other for ever: the elder stays, and the newer is told
/// at the handshake.
#[tokio::test]
async fn two_processes_with_one_id_do_not_evict_each_other_for_ever() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Fake::connect(&server, "shop", "e1", "v1", &workflows).await);
    }
    for replaced in &mut sessions[..3] {
        replaced.closed().await;
    }
    // Three replacements in the window: this one is turned away.
    let mut turned_away = Fake::odd(&server, "shop", "e1", "v1", &workflows, |_| {
        crate::fake::Reply::Usual
    })
    .await;
    turned_away.closed().await;
    assert!(sessions[3].is_open());
    let (status, body) = refused(server.address, "/websocket/shop/any").await;
    assert_eq!(status, 503, "{body}");
    // Another key from the same address is another place.
    assert!(
        dial(server.address, "/websocket/shop/another")
            .await
            .is_ok()
    );
    server.get("/apps/shop/workflows").await;
}

/// The id returned with other code: the old version's work is still the old version's.
#[tokio::test]
async fn another_version_under_the_id_is_another_executor() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "e1", "v1");
    let old = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    old.die().await;
    let _new = Fake::connect(&server, "shop", "e1", "v2", &workflows).await;
    let record = server.until_recovery("shop", "e1", "STRANDED").await;
    assert_eq!(record["appVersion"], "v1");
    assert_eq!(record["reason"], "NO_MATCHING_VERSION");
    assert_eq!(
        workflows.pending("e1", "v1"),
        2,
        "nothing ran under the wrong version"
    );
    let helper = Fake::connect(&server, "shop", "helper", "v1", &workflows).await;
    let record = server.until_recovery("shop", "e1", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "helper");
    assert_eq!(workflows.pending("helper", "v1"), 2);
    assert_eq!(
        server.status_of("shop", "e1", "v2").await.as_deref(),
        Some("HEALTHY")
    );
    drop(helper);
}
