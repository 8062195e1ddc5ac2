//! An executor dies: its workflows go on in another of the same version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::fake::{Fake, Reply, Workflows};
use crate::server::{Database, Server};

async fn server(database: Database, grace: u32) -> (Server, Workflows) {
    let server = Server::start(database).await;
    server.app("shop", grace).await;
    (server, Workflows::default())
}

/// Death, offer, proof: on both engines.
async fn a_dead_executors_workflows_go_on(database: Database) {
    let (server, workflows) = server(database, 1).await;
    server.app("other", 1).await;
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let survivor = Fake::connect(&server, "shop", "survivor", "v1", &workflows).await;
    let stranger = Fake::connect(&server, "shop", "stranger", "v2", &workflows).await;
    let foreigner = Fake::connect(&server, "other", "foreigner", "v1", &workflows).await;
    workflows.running(5, "victim", "v1");
    workflows.running(2, "survivor", "v1");
    let died = Instant::now();
    victim.die().await;

    server
        .until_status("shop", "victim", "v1", Some("DISCONNECTED"))
        .await;
    let grace = server.until_recovery("shop", "victim", "GRACE").await;
    assert_eq!(grace["deadAt"], json!(null));
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    let took = workflows.all()["victim-v1-0"].since - died;
    assert!(
        took >= Duration::from_secs(1),
        "taken {took:?} after the loss, in grace"
    );
    assert!(
        took < Duration::from_secs(4),
        "taken {took:?} after the loss"
    );

    assert_eq!(record["id"], grace["id"], "one record per loss");
    assert_eq!(record["recoveredBy"], "survivor");
    assert_eq!(record["pendingWorkflows"], 5);
    assert_eq!(record["hostname"], "fake-host");
    assert_eq!(record["reason"], json!(null));
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(record["attempts"][0]["executorId"], "survivor");
    assert_eq!(record["attempts"][0]["outcome"], "ACCEPTED");
    let times: Vec<&str> = ["disconnectedAt", "deadAt", "dispatchedAt", "completedAt"]
        .map(|name| record[name].as_str().unwrap())
        .into();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        server.status_of("shop", "victim", "v1").await,
        None,
        "forgotten"
    );
    assert_eq!(workflows.pending("survivor", "v1"), 7);
    assert!(workflows.all().values().all(|row| row.history.len() <= 2));

    let recovery = survivor.received("recovery");
    assert_eq!(recovery.len(), 1);
    assert_eq!(recovery[0]["executor_ids"], json!(["victim"]));
    for untouched in [&stranger, &foreigner] {
        assert!(untouched.is_open() && untouched.received("recovery").is_empty());
    }
    let path = format!("/apps/shop/recoveries/{}", record["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await["status"], "RECOVERED");
}

#[tokio::test]
async fn a_dead_executors_workflows_go_on_sqlite() {
    a_dead_executors_workflows_go_on(Database::sqlite()).await;
}

#[tokio::test]
async fn a_dead_executors_workflows_go_on_postgres() {
    a_dead_executors_workflows_go_on(Database::postgres().await).await;
}

#[tokio::test]
async fn nothing_pending_means_nothing_to_offer() {
    let (server, workflows) = server(Database::sqlite(), 1).await;
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    victim.die().await;
    let record = server
        .until_recovery("shop", "victim", "NOTHING_PENDING")
        .await;
    assert_eq!(record["pendingWorkflows"], 0);
    assert_eq!(record["attempts"], json!([]));
    assert!(other.received("recovery").is_empty());
    server.until_status("shop", "victim", "v1", None).await;
}

async fn coming_back_in_grace_recovers_nothing(database: Database) {
    let (server, workflows) = server(database, 3).await;
    workflows.running(3, "e1", "v1");
    let _other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    for _ in 0..3 {
        let lost = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
        lost.die().await;
        server
            .until_status("shop", "e1", "v1", Some("DISCONNECTED"))
            .await;
    }
    let _back = Fake::connect(&server, "shop", "e1", "v1", &workflows).await;
    // Longer than any of the graces that had begun.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    let records = server.recoveries("shop").await;
    assert_eq!(records.len(), 3, "one record per loss");
    assert!(
        records.iter().all(|record| record["status"] == "REJOINED"),
        "{records:?}"
    );
    assert!(records.iter().all(|record| record["deadAt"].is_null()));
    assert_eq!(workflows.pending("e1", "v1"), 3);
}

#[tokio::test]
async fn coming_back_in_grace_recovers_nothing_sqlite() {
    coming_back_in_grace_recovers_nothing(Database::sqlite()).await;
}

#[tokio::test]
async fn coming_back_in_grace_recovers_nothing_postgres() {
    coming_back_in_grace_recovers_nothing(Database::postgres().await).await;
}

/// It returns while its work is being offered: the offer under way ends, nothing more is offered, and
/// nobody asks whether the living one has work.
#[tokio::test]
async fn coming_back_after_the_offer_ends_the_recovery() {
    let (server, workflows) = server(Database::sqlite(), 1).await;
    workflows.running(3, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    // Takes the offer and never answers it.
    let behave = |request: &Value| match request["type"] == "recovery" {
        true => Reply::Nothing,
        false => Reply::Usual,
    };
    let mut slow = Fake::odd(&server, "shop", "slow", "v1", &workflows, behave).await;
    server
        .until_status("shop", "slow", "v1", Some("HEALTHY"))
        .await;
    victim.die().await;
    slow.asked("recovery").await;
    let asked_before = slow.received("exist_pending_workflows").len();
    let _back = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    server.until_recovery("shop", "victim", "REJOINED").await;
    let _another = Fake::connect(&server, "shop", "another", "v1", &workflows).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        workflows.pending("victim", "v1"),
        3,
        "nothing is taken from one that is back"
    );
    assert_eq!(slow.received("exist_pending_workflows").len(), asked_before);
    assert_eq!(slow.received("recovery").len(), 1);
}

/// `success: false`, an error, a lost connection: the next one is asked; `exist: false` beside an
/// error is no answer.
#[tokio::test]
async fn failures_go_to_the_next_and_an_error_is_never_a_no() {
    let (server, workflows) = server(Database::sqlite(), 1).await;
    workflows.running(4, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let offers = Arc::new(AtomicUsize::new(0));
    let counted = offers.clone();
    let bad = move |request: &Value| match request["type"].as_str() {
        Some("recovery") => {
            counted.fetch_add(1, Ordering::SeqCst);
            Reply::Json(json!({"success": false}))
        }
        Some("exist_pending_workflows") => Reply::Json(
            json!({"exist": false, "error_message": "OperationalError: the database is away"}),
        ),
        _ => Reply::Usual,
    };
    let _bad = Fake::odd(&server, "shop", "bad", "v1", &workflows, bad).await;
    server
        .until_status("shop", "bad", "v1", Some("HEALTHY"))
        .await;
    victim.die().await;
    // Nobody can say: stranded, not forgotten.
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    assert_eq!(record["reason"], "NO_EXECUTOR");
    assert_eq!(record["pendingWorkflows"], json!(null));
    assert_eq!(
        server.status_of("shop", "victim", "v1").await.as_deref(),
        Some("DEAD")
    );
    let _good = Fake::connect(&server, "shop", "good", "v1", &workflows).await;
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "good");
    let attempts = record["attempts"].as_array().unwrap();
    assert_eq!(
        attempts.len(),
        offers.load(Ordering::SeqCst) + 1,
        "{attempts:?}"
    );
    assert!(
        attempts
            .iter()
            .filter(|a| a["executorId"] == "bad")
            .all(|a| a["outcome"] == "FAILED")
    );
    assert_eq!(workflows.pending("good", "v1"), 4);
}

/// Everybody says yes and nothing moves: offered three times, then shown; when it moves at last, done.
#[tokio::test]
async fn what_does_not_move_is_not_called_recovered() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.recovery.retry = (Duration::from_millis(500), Duration::from_millis(500));
    })
    .await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "victim", "v1");
    let victim = Fake::connect(&server, "shop", "victim", "v1", &workflows).await;
    let lies = Arc::new(AtomicBool::new(true));
    let lying = lies.clone();
    let behave = move |request: &Value| match request["type"] == "recovery"
        && lying.load(Ordering::SeqCst)
    {
        true => Reply::Json(json!({"success": true})),
        false => Reply::Usual,
    };
    let _liar = Fake::odd(&server, "shop", "liar", "v1", &workflows, behave).await;
    server
        .until_status("shop", "liar", "v1", Some("HEALTHY"))
        .await;
    victim.die().await;
    let record = server.until_recovery("shop", "victim", "STRANDED").await;
    assert_eq!(record["reason"], "NOT_CONFIRMED");
    assert_eq!(record["pendingWorkflows"], 2);
    assert!(
        record["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|a| a["outcome"] == "STILL_PENDING")
    );
    lies.store(false, Ordering::SeqCst);
    let record = server.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "liar");
    assert_eq!(workflows.pending("liar", "v1"), 2);
}

/// A node is lost: its executors travel together, and not all to one recoverer.
#[tokio::test]
async fn many_that_die_together_are_batched_and_spread() {
    let (server, workflows) = server(Database::sqlite(), 1).await;
    let mut survivors = Vec::new();
    for n in 0..3 {
        survivors
            .push(Fake::connect(&server, "shop", &format!("survivor{n}"), "v1", &workflows).await);
    }
    let mut victims = Vec::new();
    for n in 0..60 {
        let id = format!("victim{n}");
        workflows.running(1, &id, "v1");
        victims.push(Fake::odd(&server, "shop", &id, "v1", &workflows, |_| Reply::Usual).await);
    }
    for n in 0..60 {
        server
            .until_status("shop", &format!("victim{n}"), "v1", Some("HEALTHY"))
            .await;
    }
    drop(victims);
    for n in 0..60 {
        let record = server
            .until_recovery("shop", &format!("victim{n}"), "RECOVERED")
            .await;
        assert_eq!(record["pendingWorkflows"], 1);
    }
    let mut recovered = 0;
    for survivor in &survivors {
        let batches = survivor.received("recovery");
        assert!(!batches.is_empty(), "{} was left out", survivor.id);
        for batch in batches {
            let ids = batch["executor_ids"].as_array().unwrap().len();
            assert!((1..=20).contains(&ids), "{ids} ids in one request");
            recovered += ids;
        }
    }
    assert_eq!(recovered, 60, "each was offered once");
    assert_eq!(
        server
            .get("/apps/shop/executors")
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

/// A recoverer that dies in turn hands on what it had taken.
#[tokio::test]
async fn a_recoverer_that_dies_is_recovered_in_turn() {
    let (server, workflows) = server(Database::sqlite(), 1).await;
    workflows.running(3, "first", "v1");
    let first = Fake::connect(&server, "shop", "first", "v1", &workflows).await;
    let second = Fake::connect(&server, "shop", "second", "v1", &workflows).await;
    first.die().await;
    server.until_recovery("shop", "first", "RECOVERED").await;
    let _third = Fake::connect(&server, "shop", "third", "v1", &workflows).await;
    second.die().await;
    server.until_recovery("shop", "second", "RECOVERED").await;
    assert_eq!(workflows.pending("third", "v1"), 3);
}

#[tokio::test]
async fn an_evicted_executor_is_dead_at_once_and_kept_out() {
    let (server, workflows) = server(Database::sqlite(), 600).await;
    workflows.running(2, "wedged", "v1");
    let mut wedged = Fake::connect(&server, "shop", "wedged", "v1", &workflows).await;
    let other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    let (status, body) = server
        .post(
            "/apps/shop/executors/wedged/evict",
            json!({"reason": "stuck"}),
        )
        .await;
    assert_eq!(status, 204, "{body}");
    wedged.closed().await;
    let record = server.until_recovery("shop", "wedged", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "other");
    assert_eq!(workflows.pending("other", "v1"), 2);
    let mut again = Fake::odd(&server, "shop", "wedged", "v1", &workflows, |_| {
        Reply::Usual
    })
    .await;
    again.closed().await;
    assert_eq!(server.status_of("shop", "wedged", "v1").await, None);
    assert!(other.is_open());
    let (status, _) = server
        .post(
            "/apps/shop/executors/nobody/evict",
            json!({"reason": "stuck"}),
        )
        .await;
    assert_eq!(status, 404);
}

/// Who stops in good order and says so is not waited for; a close code that SDKs send before they dial again
/// says nothing.
async fn who_leaves_for_good_is_not_waited_for(database: Database) {
    let (server, workflows) = server(database, 600).await;
    let leaves = Fake::connect(&server, "shop", "leaves", "v1", &workflows).await;
    let mut redials = Fake::connect(&server, "shop", "redials", "v1", &workflows).await;
    let _other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    workflows.running(2, "leaves", "v1");
    workflows.running(2, "redials", "v1");
    redials.send(close(1000));
    redials.closed().await;
    leaves.send(close(segno_protocol::CLOSE_LEFT));
    let record = server.until_recovery("shop", "leaves", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "other");
    assert_eq!(record["pendingWorkflows"], 2);
    server.until_status("shop", "leaves", "v1", None).await;
    server
        .until_status("shop", "redials", "v1", Some("DISCONNECTED"))
        .await;
    assert_eq!(workflows.pending("redials", "v1"), 2);
    // The next process of that name is as welcome as any.
    let _again = Fake::connect(&server, "shop", "leaves", "v1", &workflows).await;
}

fn close(code: u16) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: "".into(),
    }))
}

#[tokio::test]
async fn who_leaves_for_good_is_not_waited_for_sqlite() {
    who_leaves_for_good_is_not_waited_for(Database::sqlite()).await;
}

#[tokio::test]
async fn who_leaves_for_good_is_not_waited_for_postgres() {
    who_leaves_for_good_is_not_waited_for(Database::postgres().await).await;
}

/// An instance whose question for the time had to wait must not believe that it is as late as it was to be when the answer
/// came: what it writes down would be in the future.
#[tokio::test]
async fn nobody_is_lost_in_the_future() {
    let server = Server::configured(Database::postgres().await, |config| {
        config.recovery.heartbeat_every = Duration::from_secs(2);
        config.recovery.heartbeat_expiry = Duration::from_secs(20);
    })
    .await;
    server.app("shop", 600).await;
    let workflows = Workflows::default();
    let leaves = Fake::connect(&server, "shop", "leaves", "v1", &workflows).await;
    let _other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    let held = "BEGIN; LOCK TABLE instances IN EXCLUSIVE MODE; SELECT pg_sleep(3.5); COMMIT";
    server.execute(held).await;
    leaves.send(close(segno_protocol::CLOSE_LEFT));
    let record = server
        .until_recovery("shop", "leaves", "NOTHING_PENDING")
        .await;
    let times: Vec<&str> = ["disconnectedAt", "deadAt", "completedAt"]
        .map(|name| record[name].as_str().unwrap())
        .into();
    assert!(times.is_sorted(), "{times:?}");
}

/// Nor must it believe that a grace is over which is not.
#[tokio::test]
async fn grace_is_never_cut_short() {
    let server = Server::configured(Database::postgres().await, |config| {
        config.recovery.heartbeat_every = Duration::from_secs(4);
        config.recovery.heartbeat_expiry = Duration::from_secs(20);
    })
    .await;
    server.app("shop", 4).await;
    let workflows = Workflows::default();
    let dies = Fake::connect(&server, "shop", "dies", "v1", &workflows).await;
    let _other = Fake::connect(&server, "shop", "other", "v1", &workflows).await;
    // The second heartbeat, four seconds after the first, waits for two, and is the last before the end of grace.
    tokio::time::sleep(Duration::from_millis(2800)).await;
    dies.die().await;
    let held = "BEGIN; LOCK TABLE instances IN EXCLUSIVE MODE; SELECT pg_sleep(2.9); COMMIT";
    server.execute(held).await;
    let record = server
        .until_recovery("shop", "dies", "NOTHING_PENDING")
        .await;
    let [lost, dead] = ["disconnectedAt", "deadAt"].map(|name| {
        let time = record[name].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(time).unwrap()
    });
    let grace = (dead - lost).num_milliseconds();
    assert!(grace >= 4000, "dead after {grace} ms of 4000");
}

/// A safety net: pending work whose executor is in no book is found and recovered; the rows of
/// processes without a control plane are left alone.
#[tokio::test]
async fn work_of_executors_nobody_knows_is_found() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.recovery.sweep_every = Duration::from_millis(500);
    })
    .await;
    server.app("shop", 1).await;
    let workflows = Workflows::default();
    workflows.running(2, "forgotten", "v1");
    workflows.running(2, "local", "v1");
    workflows.running(2, "finder", "v1");
    let finder = Fake::connect(&server, "shop", "finder", "v1", &workflows).await;
    let record = server
        .until_recovery("shop", "forgotten", "RECOVERED")
        .await;
    assert_eq!(record["recoveredBy"], "finder");
    assert_eq!(workflows.pending("local", "v1"), 2);
    assert_eq!(finder.received("recovery").len(), 1);
}
