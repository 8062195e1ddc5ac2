//! Operations on many workflows: they wait, go on after a restart, can be previewed and stopped.

use reqwest::Method;
use segno_server::config::AuthMode;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Workflows};
use crate::server::{Database, Server, until};
use crate::stream::Events;

const PATH: &str = "/apps/shop/operations";

async fn begin(server: &Server, body: Value) -> Value {
    let (status, operation) = server.post(PATH, body).await;
    assert_eq!(status, 201, "{operation}");
    operation
}

async fn look(server: &Server, operation: &Value) -> Value {
    server
        .get(&format!("{PATH}/{}", operation["id"].as_str().unwrap()))
        .await
}

async fn until_state(server: &Server, operation: &Value, state: &str) -> Value {
    until(&format!("an operation to be {state}"), async || {
        let now = look(server, operation).await;
        (now["state"] == state).then_some(now)
    })
    .await
}

fn with_status(workflows: &Workflows, status: &str) -> usize {
    let rows = workflows.all();
    rows.values().filter(|row| row.status == status).count()
}

/// With nobody there it waits; a server that dies half-way goes on where it was.
async fn it_waits_and_survives_a_restart(database: Database) {
    let mut server = Server::start(database).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    workflows.running(100, "gone", "v1");
    workflows.running(3, "other", "v2");
    let body =
        json!({"kind": "cancel", "filter": {"appVersion": ["v1"]}, "reason": "a bad deploy"});
    let operation = begin(&server, body).await;
    assert_eq!(operation["state"], "WAITING_FOR_EXECUTOR");
    assert_eq!(
        operation["counts"],
        json!({"total": null, "succeeded": 0, "failed": 0, "remaining": null})
    );
    assert_eq!(operation["filter"], json!({"appVersion": ["v1"]}));
    server.kill();
    server.run().await;
    assert_eq!(
        look(&server, &operation).await["state"],
        "WAITING_FOR_EXECUTOR"
    );

    // This one answers some and then no more.
    let mut left = 40;
    let tired = Fake::odd(&server, "shop", "tired", "v1", &workflows, move |request| {
        if request["type"] != "cancel" {
            return Reply::Usual;
        }
        if left == 0 {
            return Reply::Nothing;
        }
        left -= 1;
        Reply::Usual
    })
    .await;
    let half_way = until("some progress", async || {
        let now = look(&server, &operation).await;
        (now["counts"]["succeeded"] == 32).then_some(now)
    })
    .await;
    assert_eq!(half_way["state"], "RUNNING");
    assert_eq!(half_way["counts"]["total"], 100);
    assert_eq!(half_way["counts"]["remaining"], 68);
    server.kill();
    drop(tired);
    server.run().await;
    let fresh = Fake::connect(&server, "shop", "fresh", "v1", &workflows).await;
    let done = until_state(&server, &operation, "DONE").await;
    assert_eq!(
        done["counts"],
        json!({"total": 100, "succeeded": 100, "failed": 0, "remaining": 0})
    );
    assert!(done["completedAt"].is_string() && done["startedAt"].is_string());
    assert_eq!(
        fresh.received("cancel").len(),
        68,
        "what was done is not done again"
    );
    assert_eq!(with_status(&workflows, "CANCELLED"), 100);
    assert_eq!(
        with_status(&workflows, "PENDING"),
        3,
        "what does not match is left alone"
    );
}

#[tokio::test]
async fn it_waits_and_survives_a_restart_sqlite() {
    it_waits_and_survives_a_restart(Database::sqlite()).await;
}

#[tokio::test]
async fn it_waits_and_survives_a_restart_postgres() {
    it_waits_and_survives_a_restart(Database::postgres().await).await;
}

async fn a_dry_run_counts_and_changes_nothing(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    workflows.running(1200, "e", "v1");
    let executor = Fake::connect(&server, "shop", "e", "v1", &workflows).await;
    let filter = json!({"status": ["PENDING"]});
    let preview = begin(
        &server,
        json!({"kind": "delete", "filter": filter, "dryRun": true}),
    )
    .await;
    assert_eq!(preview["state"], "DONE", "{preview}");
    assert_eq!(preview["counts"]["total"], 1200);
    assert_eq!(preview["truncated"], false);
    let sample = preview["sample"].as_array().unwrap();
    assert_eq!(sample.len(), 10);
    assert_eq!(
        (&sample[0]["status"], &sample[0]["appVersion"]),
        (&json!("PENDING"), &json!("v1"))
    );
    let few = begin(
        &server,
        json!({"kind": "delete", "filter": filter, "dryRun": true, "limit": 700}),
    )
    .await;
    assert_eq!(
        (&few["counts"]["total"], &few["truncated"]),
        (&json!(700), &json!(true))
    );
    assert!(executor.received("delete").is_empty());

    let mut events = Events::follow(&server, "any").await;
    let done = begin(
        &server,
        json!({"kind": "delete", "filter": filter, "limit": 700}),
    )
    .await;
    let told = events.until("operation", "DONE").await;
    assert_eq!(
        (&told["operationId"], &told["counts"]["succeeded"]),
        (&done["id"], &json!(700))
    );
    assert_eq!(workflows.all().len(), 500);
    let listed = server.get(PATH).await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[0]["id"], done["id"], "the newest first");
    let waiting = server
        .get(&format!("{PATH}?state=WAITING_FOR_EXECUTOR"))
        .await;
    assert_eq!(waiting, json!([]));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing_sqlite() {
    a_dry_run_counts_and_changes_nothing(Database::sqlite()).await;
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing_postgres() {
    a_dry_run_counts_and_changes_nothing(Database::postgres().await).await;
}

/// Only a few requests are under way at a time, and an abort ends it at once.
async fn it_is_bounded_and_can_be_aborted(database: Database) {
    let server = Server::start(database).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    workflows.running(50, "e", "v1");
    let mut mute = Fake::odd(
        &server,
        "shop",
        "e",
        "v1",
        &workflows,
        |request| match &request["type"] {
            kind if kind == "cancel" => Reply::Nothing,
            _ => Reply::Usual,
        },
    )
    .await;
    let operation = begin(
        &server,
        json!({"kind": "cancel", "filter": {"status": ["PENDING"]}}),
    )
    .await;
    mute.asked("cancel").await;
    let abort = format!("{PATH}/{}/abort", operation["id"].as_str().unwrap());
    let (status, aborted) = server.post(&abort, json!({})).await;
    assert_eq!(
        (status.as_u16(), &aborted["state"]),
        (200, &json!("ABORTED")),
        "{aborted}"
    );
    let (status, _) = server.post(&abort, json!({})).await;
    assert_eq!(status, 409);
    let (status, _) = server.post(&format!("{PATH}/none/abort"), json!({})).await;
    assert_eq!(status, 404);
    assert!(mute.received("cancel").len() <= 8, "a few at a time");
    mute.die().await;
    // Another is done meanwhile, so what is left of the first would be seen.
    let fresh = Fake::connect(&server, "shop", "e", "v1", &workflows).await;
    let next = begin(
        &server,
        json!({"kind": "resume", "filter": {"status": ["PENDING"]}}),
    )
    .await;
    until_state(&server, &next, "DONE").await;
    assert!(fresh.received("cancel").is_empty());
    assert_eq!(with_status(&workflows, "ENQUEUED"), 50);
}

#[tokio::test]
async fn it_is_bounded_and_can_be_aborted_sqlite() {
    it_is_bounded_and_can_be_aborted(Database::sqlite()).await;
}

#[tokio::test]
async fn it_is_bounded_and_can_be_aborted_postgres() {
    it_is_bounded_and_can_be_aborted(Database::postgres().await).await;
}

/// Who began and who stopped it is in the audit log; one that waits is stopped like any other.
#[tokio::test]
async fn it_is_audited() {
    let server =
        Server::configured(Database::sqlite(), |config| config.auth = AuthMode::Keys).await;
    server.app("shop", 60).await;
    let body =
        json!({"kind": "cancel", "filter": {"status": ["PENDING"]}, "reason": "a bad deploy"});
    let operation = begin(&server, body).await;
    let abort = format!("{PATH}/{}/abort", operation["id"].as_str().unwrap());
    let (status, aborted) = server.post(&abort, json!({})).await;
    assert_eq!(
        (status.as_u16(), &aborted["state"]),
        (200, &json!("ABORTED"))
    );
    let log = server.get("/audit-logs").await;
    let entries = log
        .as_array()
        .or_else(|| log["entries"].as_array())
        .unwrap();
    for name in ["operation.create", "operation.abort"] {
        let entry = entries.iter().find(|entry| entry["operation"] == name);
        let entry = entry.unwrap_or_else(|| panic!("no {name} in {log}"));
        assert_eq!(entry["details"]["operation_id"], operation["id"], "{entry}");
    }
}

#[tokio::test]
async fn what_means_everything_or_nothing_is_refused() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    for body in [
        json!({"kind": "cancel"}),
        json!({"kind": "cancel", "filter": {}}),
        json!({"kind": "cancel", "filter": {"status": [], "attributes": {}, "sortDesc": true}}),
        json!({"kind": "cancel", "filter": {"workflowIdPrefix": ["a", ""]}}),
        json!({"kind": "cancel", "filter": {"queuesOnly": false}}),
        json!({"kind": "cancel", "filter": {"status": ["PENDING"], "limit": 5}}),
        json!({"kind": "cancel", "workflowIds": []}),
        json!({"kind": "cancel", "workflowIds": ["w"], "filter": {"status": ["PENDING"]}}),
        json!({"kind": "cancel", "workflowIds": ["w"], "options": {"queueName": "q"}}),
        json!({"kind": "fork", "workflowIds": ["w"], "options": {"fromStep": 1, "fromLastStep": true}}),
    ] {
        let (status, problem) = server.post(PATH, body.clone()).await;
        assert_eq!(status, 400, "{body}: {problem}");
    }
    let (status, _) = server
        .post(PATH, json!({"kind": "explode", "workflowIds": ["w"]}))
        .await;
    assert_eq!(status, 422);
    assert_eq!(server.get(PATH).await, json!([]));
}

#[tokio::test]
async fn forks_have_ids_of_their_own_and_unknown_workflows_are_told() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    workflows.running(2, "e", "v1");
    let executor = Fake::connect(&server, "shop", "e", "v1", &workflows).await;
    let ids = json!(["e-v1-0", "nobody", "e-v1-1", "e-v1-0"]);
    let body =
        json!({"kind": "fork", "workflowIds": ids, "options": {"appVersion": "v2", "fromStep": 2}});
    let operation = begin(&server, body).await;
    let done = until_state(&server, &operation, "DONE").await;
    assert_eq!(
        done["counts"],
        json!({"total": 3, "succeeded": 2, "failed": 1, "remaining": 0})
    );
    assert_eq!(
        done["errors"],
        json!([{"workflowId": "nobody", "message": "there is no such workflow"}])
    );
    let forks: Vec<_> = workflows
        .all()
        .into_values()
        .filter(|row| row.forked_from.is_some())
        .collect();
    assert_eq!(forks.len(), 2);
    assert!(forks.iter().all(|fork| fork.version == "v2"));
    assert_eq!(executor.received("fork_workflow").len(), 2);
}

/// An executor that goes takes nothing with it: what it was not seen to do is done when one is back.
#[tokio::test]
async fn it_waits_again_when_everybody_leaves() {
    let server = Server::start(Database::sqlite()).await;
    server.app("shop", 60).await;
    let workflows = Workflows::default();
    workflows.running(20, "e", "v1");
    let mut mute = Fake::odd(
        &server,
        "shop",
        "e",
        "v1",
        &workflows,
        |request| match &request["type"] {
            kind if kind == "cancel" => Reply::Nothing,
            _ => Reply::Usual,
        },
    )
    .await;
    let operation = begin(
        &server,
        json!({"kind": "cancel", "filter": {"status": ["PENDING"]}}),
    )
    .await;
    mute.asked("cancel").await;
    mute.die().await;
    let waiting = until_state(&server, &operation, "WAITING_FOR_EXECUTOR").await;
    assert_eq!(waiting["message"], "no executor is connected");
    assert_eq!(waiting["counts"]["remaining"], 20);
    let _back = Fake::connect(&server, "shop", "e", "v1", &workflows).await;
    let done = until_state(&server, &operation, "DONE").await;
    assert_eq!(done["counts"]["succeeded"], 20);
    let path = format!("{PATH}/{}", operation["id"].as_str().unwrap());
    let (status, _) = server
        .call(Method::GET, &path.replace("shop", "none"), None)
        .await;
    assert_eq!(status, 404);
}
