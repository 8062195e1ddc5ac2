//! Several instances, each a process, on one Postgres.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Workflows, dial};
use crate::process::{Instance, failure};
use crate::server::{ADMIN, Api, Database, until};
use crate::stream::Events;

const PATH: &str = "/apps/shop";

/// Connects an executor with the administrator's key, behaving as told, and waits until `seen` knows it.
async fn connect(
    at: &Api,
    seen: &Api,
    id: &str,
    workflows: &Workflows,
    behave: impl FnMut(&Value) -> Reply + Send + 'static,
) -> Fake {
    let key = key(at, id).await;
    let socket = dial(at.address, &format!("/websocket/shop/{key}"))
        .await
        .unwrap();
    let fake = Fake::serve(socket, id, "v1", "python", workflows, behave);
    seen.until_status("shop", id, "v1", Some("HEALTHY")).await;
    fake
}

/// A new key with which executors may connect.
pub(crate) async fn key(at: &Api, name: &str) -> String {
    let unique = format!("{name}-{}", uuid::Uuid::new_v4());
    let (status, made) = at.post(&format!("/tokens/{unique}"), json!({})).await;
    assert!(status.is_success(), "{made}");
    made["token"].as_str().unwrap().to_owned()
}

fn usual(_: &Value) -> Reply {
    Reply::Usual
}

struct Pair {
    a: Instance,
    b: Instance,
    workflows: Workflows,
    database: Database,
}

/// Two instances, and an application with this grace.
async fn pair(grace_secs: u32) -> Pair {
    let database = Database::postgres().await;
    let a = Instance::start(&database.url).await;
    let b = Instance::start(&database.url).await;
    a.app("shop", grace_secs).await;
    Pair {
        a,
        b,
        workflows: Workflows::default(),
        database,
    }
}

#[tokio::test]
async fn requests_reach_executors_of_another_instance() {
    let Pair {
        a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    workflows.running(2_000, "far", "v1");
    let mut far = connect(&a, &b, "far", &workflows, usual).await;
    let path = format!("{PATH}/workflows/far-v1-7");
    let found = until("the other instance to know who is there", async || {
        let (status, body) = b.call(Method::GET, &path, None).await;
        (status == 200).then_some(body)
    })
    .await;
    assert_eq!(found["workflowId"], "far-v1-7");
    // An answer of a few hundred kilobytes.
    let (status, all) = b
        .post(&format!("{PATH}/workflows/search"), json!({"limit": 1000}))
        .await;
    assert_eq!(
        (status, all.as_array().unwrap().len()),
        (StatusCode::OK, 1000)
    );
    // A change is made, once.
    let (status, body) = b.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(far.asked("cancel").await["workflow_id"], "far-v1-7");
    assert_eq!(far.received("cancel").len(), 1);
    assert_eq!(workflows.all()["far-v1-7"].status, "CANCELLED");
    let (_, app) = b.call(Method::GET, PATH, None).await;
    assert_eq!(app["status"], "AVAILABLE");

    // An executor's own error is the same from there, and its absence.
    let (status, _) = b
        .call(Method::GET, &format!("{PATH}/workflows/none"), None)
        .await;
    assert_eq!(status, 404);
    far.die().await;
    until("the absence to be told", async || {
        let (status, body) = b.call(Method::GET, &path, None).await;
        (status == 503 && body["title"] != Value::Null).then_some(())
    })
    .await;
}

/// Whoever has no part in the shared store cannot ask an instance anything.
#[tokio::test]
async fn only_instances_are_answered() {
    let Pair {
        a,
        database: _database,
        ..
    } = pair(60).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (method, path) in [(Method::POST, "request"), (Method::GET, "news")] {
        let url = format!("http://{}/cluster/{path}", a.address);
        let request = client.request(method, url).bearer_auth(ADMIN);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn the_dead_are_recovered_by_executors_of_another_instance() {
    let Pair {
        a,
        b,
        workflows,
        database: _database,
    } = pair(1).await;
    workflows.running(3, "victim", "v1");
    let victim = connect(&a, &b, "victim", &workflows, usual).await;
    let _helper = connect(&b, &a, "helper", &workflows, usual).await;
    victim.die().await;
    let record = a.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "helper");
    assert_eq!(workflows.pending("helper", "v1"), 3);
    assert!(workflows.all().values().all(|row| row.history.len() == 2));
}

/// The instance that held the dead executor's socket dies with it.
#[tokio::test]
async fn the_dead_are_recovered_though_their_instance_died_too() {
    let Pair {
        mut a,
        b,
        workflows,
        database: _database,
    } = pair(2).await;
    workflows.running(3, "victim", "v1");
    let victim = connect(&a, &b, "victim", &workflows, usual).await;
    let survivor = connect(&a, &b, "survivor", &workflows, usual).await;
    let _helper = connect(&b, &a, "helper", &workflows, usual).await;
    a.kill().await;
    victim.die().await;
    drop(survivor);
    // Who is alive dials the other instance within its grace.
    let _survivor = connect(&b, &b, "survivor", &workflows, usual).await;
    let record = b.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(workflows.pending("victim", "v1"), 0);
    assert_eq!(record["pendingWorkflows"], 3);
    let records = b.recoveries("shop").await;
    let recovered: Vec<_> = records
        .iter()
        .filter(|r| r["status"] == "RECOVERED")
        .collect();
    assert_eq!(recovered.len(), 1, "{records:?}");
}

/// An instance dies while it drives a recovery: another one takes the case over, and finishes it once.
#[tokio::test]
async fn a_case_outlives_the_instance_that_drives_it() {
    let Pair {
        mut a,
        b,
        workflows,
        database,
    } = pair(1).await;
    workflows.running(3, "victim", "v1");
    let victim = connect(&a, &a, "victim", &workflows, usual).await;
    victim.die().await;
    a.until_recovery("shop", "victim", "STRANDED").await;
    a.kill().await;
    let mut b = b;
    b.kill().await;
    let c = Instance::start(&database.url).await;
    let _helper = connect(&c, &c, "helper", &workflows, usual).await;
    let record = c.until_recovery("shop", "victim", "RECOVERED").await;
    assert_eq!(record["recoveredBy"], "helper");
    assert_eq!(c.recoveries("shop").await.len(), 1);
}

/// All instances are away for longer than the grace: whoever dials within a grace of their return is left alone,
/// and who does not is recovered after it.
#[tokio::test]
async fn everybody_has_a_full_grace_after_all_instances_were_away() {
    const GRACE: Duration = Duration::from_secs(4);
    let Pair {
        mut a,
        mut b,
        workflows,
        database,
    } = pair(4).await;
    for id in ["returns", "late", "dies"] {
        workflows.running(1, id, "v1");
    }
    let fakes = (
        connect(&a, &b, "returns", &workflows, usual).await,
        connect(&b, &a, "late", &workflows, usual).await,
        connect(&b, &a, "dies", &workflows, usual).await,
    );
    let addresses = (a.address, b.address);
    a.kill().await;
    b.kill().await;
    drop(fakes);
    tokio::time::sleep(GRACE + Duration::from_secs(1)).await;
    let a = Instance::start_at(&database.url, addresses.0).await;
    let back = Instant::now();
    let b = Instance::start_at(&database.url, addresses.1).await;
    let _returns = connect(&a, &b, "returns", &workflows, usual).await;
    // Late in its grace, which a second of the machine's own slowness must not end.
    tokio::time::sleep((GRACE / 2).saturating_sub(back.elapsed())).await;
    let _late = connect(&b, &a, "late", &workflows, usual).await;
    b.until_recovery("shop", "dies", "RECOVERED").await;
    let taken = workflows.all()["dies-v1-0"].since - back;
    assert!(taken > GRACE - Duration::from_millis(500), "{taken:?}");
    let dead: Vec<Value> = b.recoveries("shop").await;
    let dead = dead.iter().filter(|record| !record["deadAt"].is_null());
    assert_eq!(dead.count(), 1, "nobody else was taken for dead");
    for id in ["returns", "late"] {
        let rows = workflows.all();
        assert_eq!(rows[&format!("{id}-v1-0")].executor_id, id);
    }
}

#[tokio::test]
async fn what_is_cut_off_at_one_instance_is_cut_off_at_all() {
    let Pair {
        a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    let (status, made) = a.post("/tokens/revoked", json!({})).await;
    assert!(status.is_success(), "{made}");
    let token = made["token"].as_str().unwrap();
    let socket = dial(a.address, &format!("/websocket/shop/{token}"))
        .await
        .unwrap();
    let mut revoked = Fake::serve(socket, "revoked", "v1", "python", &workflows, usual);
    let mut evicted = connect(&a, &b, "evicted", &workflows, usual).await;
    b.until_status("shop", "revoked", "v1", Some("HEALTHY"))
        .await;

    let (status, _) = b.call(Method::DELETE, "/tokens/revoked", None).await;
    assert_eq!(status, 204);
    revoked.closed().await;

    let path = format!("{PATH}/executors/evicted/evict");
    let (status, body) = b.post(&path, json!({"reason": "wedged"})).await;
    assert!(status.is_success(), "{body}");
    evicted.closed().await;
    let again = key(&a, "again").await;
    let socket = dial(a.address, &format!("/websocket/shop/{again}"))
        .await
        .unwrap();
    let mut again = Fake::serve(socket, "evicted", "v1", "python", &workflows, usual);
    again.closed().await;

    let mut last = connect(&a, &b, "last", &workflows, usual).await;
    let (status, _) = b.call(Method::DELETE, PATH, None).await;
    assert_eq!(status, 204);
    last.closed().await;
}

/// Somebody connects anew while the old socket is half-open at another instance.
#[tokio::test]
async fn the_newest_connection_wins_at_whichever_instance() {
    let Pair {
        a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    let mut old = connect(&a, &b, "one", &workflows, usual).await;
    let new = connect(&b, &a, "one", &workflows, usual).await;
    old.closed().await;
    assert!(new.is_open());
    b.until_status("shop", "one", "v1", Some("HEALTHY")).await;
    assert!(b.recoveries("shop").await.is_empty());
}

#[tokio::test]
async fn streams_tell_what_happens_at_other_instances() {
    let Pair {
        mut a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    // What happened before the instances had found each other is not told: it is `missed`.
    let mut events = Events::follow(&b, ADMIN).await;
    let _one = connect(&a, &b, "one", &workflows, usual).await;
    events.until("executor", "HEALTHY").await;
    let body = json!({"kind": "cancel", "workflowIds": ["none"]});
    let (status, body) = a.post(&format!("{PATH}/operations"), body).await;
    assert_eq!(status, 201, "{body}");
    events.until("operation", "DONE").await;
    a.kill().await;
    events.missed().await;
}

#[tokio::test]
async fn an_operation_is_done_wherever_executors_are() {
    let Pair {
        a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    workflows.running(5, "far", "v1");
    let _far = connect(&a, &b, "far", &workflows, usual).await;
    let body = json!({"kind": "cancel", "filter": {"status": ["PENDING"]}});
    let (status, made) = b.post(&format!("{PATH}/operations"), body).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap();
    until("the operation to be done", async || {
        let operation = b.get(&format!("{PATH}/operations/{id}")).await;
        (operation["state"] == "DONE").then_some(())
    })
    .await;
    assert!(
        workflows
            .all()
            .values()
            .all(|row| row.status == "CANCELLED")
    );
}

#[tokio::test]
async fn who_is_asked_to_stop_sends_executors_elsewhere() {
    let Pair {
        mut a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    let mut one = connect(&a, &b, "one", &workflows, usual).await;
    a.terminate();
    assert_eq!(one.closed().await, Some(1001), "going away");
    assert!(a.ended().await.success());
    // Long before the silence of its instance would have been noticed.
    let stopped = Instant::now();
    b.until_status("shop", "one", "v1", Some("DISCONNECTED"))
        .await;
    assert!(stopped.elapsed() < Duration::from_secs(8));
    let _one = connect(&b, &b, "one", &workflows, usual).await;
}

/// Two instances that would be taken for each other: the newcomer gives way, and says why.
#[tokio::test]
async fn an_address_belongs_to_one_instance() {
    let Pair {
        mut a,
        b,
        workflows,
        database,
    } = pair(60).await;
    let one = connect(&a, &b, "one", &workflows, usual).await;
    let (status, words) = failure(&database.url, a.address).await;
    assert!(!status.success());
    assert!(words.contains("--advertise-address"), "{words}");
    assert!(words.contains(&a.address.to_string()), "{words}");
    b.until_status("shop", "one", "v1", Some("HEALTHY")).await;
    assert!(one.is_open());
    // The place of one that is dead is free at once.
    a.kill().await;
    let address = a.address;
    let _again = Instance::start_at(&database.url, address).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Pair { a, database, .. } = pair(60).await;
    crate::server::execute(
        &database.url,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99990101, 'of a later release', TRUE, 'x', 0)"
            .to_owned(),
    )
    .await;
    let other = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let (status, words) = failure(&database.url, other).await;
    assert!(!status.success());
    assert!(words.contains("newer than this binary"), "{words}");
    // The one that runs goes on: an upgrade is done while the old release serves.
    assert_eq!(a.get("/apps").await.as_array().unwrap().len(), 1);
}

/// The instance that serves a request dies. A repeat at another one does it at most once.
#[tokio::test]
async fn a_repeat_at_another_instance_does_nothing_twice() {
    let Pair {
        mut a,
        b,
        workflows,
        database: _database,
    } = pair(60).await;
    workflows.running(1, "far", "v1");
    let done = workflows.clone();
    // What it is asked to fork it forks, and the answer never comes.
    let mut far = connect(
        &b,
        &a,
        "far",
        &workflows,
        move |request| match request["type"].as_str() {
            Some("fork_workflow") => {
                done.answer(request, "far", "v1");
                Reply::Nothing
            }
            Some("trigger_schedule") => Reply::Nothing,
            _ => Reply::Usual,
        },
    )
    .await;
    let fork = |at: &Api| {
        at.request(Method::POST, &format!("{PATH}/workflows/far-v1-0/fork"))
            .header("idempotency-key", "once")
            .json(&json!({"startStep": 2, "appVersion": "v1"}))
            .send()
    };
    let trigger = |at: &Api| {
        at.request(Method::POST, &format!("{PATH}/schedules/nightly/trigger"))
            .header("idempotency-key", "twice")
            .json(&json!({}))
            .send()
    };
    let served = (tokio::spawn(fork(&a)), tokio::spawn(trigger(&a)));
    let asked = far.asked("fork_workflow").await;
    far.asked("trigger_schedule").await;
    a.kill().await;
    assert!(served.0.await.unwrap().is_err() && served.1.await.unwrap().is_err());

    drop(far);
    let near = connect(&b, &b, "near", &workflows, usual).await;
    let answer = until("the instance to be known as gone", async || {
        let answer = fork(&b).await.unwrap();
        (answer.status() != StatusCode::CONFLICT).then_some(answer)
    })
    .await;
    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["workflowId"], asked["body"]["new_workflow_id"]);
    let forks = workflows.all();
    let forks = forks.values().filter(|row| row.forked_from.is_some());
    assert_eq!(forks.count(), 1);

    let answer = trigger(&b).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let words = answer.text().await.unwrap();
    assert!(words.contains("nobody knows whether"), "{words}");
    assert!(near.received("trigger_schedule").is_empty());
}
