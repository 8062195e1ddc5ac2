//! The server is killed and comes back on the same store.

use std::time::{Duration, Instant};

use crate::fake::{Fake, Workflows};
use crate::server::{Database, Server};

/// Everybody has a full grace from the moment the server is back, a death meanwhile is found, and
/// who reconnects is left alone.
async fn deaths_during_downtime_are_found(database: Database, within: Duration) {
    let mut server = Server::start(database).await;
    server.app("shop", 2).await;
    let workflows = Workflows::default();
    workflows.running(2, "dies", "v1");
    workflows.running(2, "returns", "v1");
    let dies = Fake::connect(&server, "shop", "dies", "v1", &workflows).await;
    let returns = Fake::connect(&server, "shop", "returns", "v1", &workflows).await;
    server.kill();
    drop((dies, returns));
    // The server is away for longer than the grace.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.run().await;
    let back = Instant::now();
    let helper = Fake::connect(&server, "shop", "returns", "v1", &workflows).await;
    let record = server.until_recovery("shop", "dies", "RECOVERED").await;
    let taken = workflows.all()["dies-v1-0"].since;
    assert!(
        taken - back > Duration::from_millis(1500),
        "dead {:?} after the return",
        taken - back
    );
    assert!(
        taken - back < within,
        "found {:?} after the return",
        taken - back
    );
    assert_eq!(record["recoveredBy"], "returns");
    let records = server.recoveries("shop").await;
    assert_eq!(
        records.len(),
        1,
        "no record for who came back in time: {records:?}"
    );
    assert_eq!(workflows.pending("returns", "v1"), 4);
    drop(helper);
}

#[tokio::test]
async fn deaths_during_downtime_are_found_sqlite() {
    deaths_during_downtime_are_found(Database::sqlite(), Duration::from_secs(6)).await;
}

/// On Postgres others might still be alive: the dead instance's silence is waited for first.
#[tokio::test]
async fn deaths_during_downtime_are_found_postgres() {
    deaths_during_downtime_are_found(Database::postgres().await, Duration::from_secs(17)).await;
}

/// A stranded recovery and one in grace survive the server's own death.
#[tokio::test]
async fn what_was_stranded_is_still_known() {
    let mut server = Server::start(Database::sqlite()).await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(3, "victim", "v1");
    Fake::connect(&server, "shop", "victim", "v1", &workflows)
        .await
        .die()
        .await;
    let stranded = server.until_recovery("shop", "victim", "STRANDED").await;
    server.kill();
    server.run().await;
    let _right = Fake::connect(&server, "shop", "right", "v1", &workflows).await;
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["id"], stranded["id"]);
    assert_eq!(record["recoveredBy"], "right");
    assert_eq!(workflows.pending("right", "v1"), 3);
}
