//! The instance that holds the executor's connection dies while a change is under way, at several moments: a
//! call never lies, and a repeat with its key, at another instance, does nothing twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::key;
use crate::fake::{Fake, Reply, Workflows, dial};
use crate::process::Instance;
use crate::server::{Database, until};

const PATH: &str = "/apps/shop";

/// When the instance dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before it is asked.
    Before,
    /// It stands still, is asked, and dies: the executor is never asked.
    Unread,
    /// The executor was asked, and has not answered.
    Asked,
    /// The executor has answered, and the answer lies in the dead instance's socket.
    Answered,
}

const MOMENTS: [Moment; 4] = [
    Moment::Before,
    Moment::Unread,
    Moment::Asked,
    Moment::Answered,
];

/// A change, and the message that asks an executor for it.
struct Change {
    message: &'static str,
    path: &'static str,
    body: Value,
}

/// One that does the same when it is done twice, one that can be recognized, and one of which neither is true.
fn changes() -> [Change; 3] {
    let change = |message, path, body| Change {
        message,
        path,
        body,
    };
    [
        change("cancel", "/workflows/w-v1-0/cancel", json!({})),
        change(
            "fork_workflow",
            "/workflows/w-v1-0/fork",
            json!({"startStep": 2, "appVersion": "v1"}),
        ),
        change("trigger_schedule", "/schedules/nightly/trigger", json!({})),
    ]
}

/// What the executors of an application really did, and whether they may answer.
#[derive(Clone)]
struct Application {
    workflows: Workflows,
    triggered: Arc<Mutex<Vec<Value>>>,
    silent: Arc<Mutex<bool>>,
}

impl Application {
    fn new() -> Self {
        let workflows = Workflows::default();
        workflows.running(1, "w", "v1");
        Self {
            workflows,
            triggered: Arc::default(),
            silent: Arc::default(),
        }
    }

    /// Connects an executor that does what it is asked, and answers unless it is to be silent.
    async fn connect(&self, at: &Instance, id: &str) -> Fake {
        let key = key(at, id).await;
        let socket = dial(at.address, &format!("/websocket/shop/{key}"))
            .await
            .unwrap();
        let (application, own_id) = (self.clone(), id.to_owned());
        let behave = move |request: &Value| {
            let answer = match request["type"].as_str().unwrap() {
                "trigger_schedule" => {
                    let mut triggered = application.triggered.lock().unwrap();
                    triggered.push(request.clone());
                    json!({"workflow_id": format!("run-{}", triggered.len())})
                }
                "cancel" | "fork_workflow" => application.workflows.answer(request, &own_id, "v1"),
                _ => return Reply::Usual,
            };
            match *application.silent.lock().unwrap() {
                true => Reply::Nothing,
                false => Reply::Json(answer),
            }
        };
        let fake = Fake::serve(socket, id, "v1", "python", &self.workflows, behave);
        at.until_status("shop", id, "v1", Some("HEALTHY")).await;
        fake
    }

    /// How often a change was made.
    fn made(&self, message: &str) -> usize {
        let rows = self.workflows.all();
        match message {
            "trigger_schedule" => self.triggered.lock().unwrap().len(),
            "fork_workflow" => rows
                .values()
                .filter(|row| row.forked_from.is_some())
                .count(),
            _ => rows
                .values()
                .filter(|row| row.status == "CANCELLED")
                .count(),
        }
    }
}

async fn the_owner_dies(moment: Moment, change: &Change) {
    let case = format!("{} when the instance dies {moment:?}", change.message);
    let database = Database::postgres().await;
    let mut owner = Instance::start(&database.url).await;
    let asked = Instance::start(&database.url).await;
    owner.app("shop", 60).await;
    let application = Application::new();
    let mut far = application.connect(&owner, "far").await;
    asked
        .until_status("shop", "far", "v1", Some("HEALTHY"))
        .await;
    until("the other instance to reach the executor", async || {
        let path = format!("{PATH}/workflows/w-v1-0");
        let (status, _) = asked.call(Method::GET, &path, None).await;
        (status == 200).then_some(())
    })
    .await;
    let call = || {
        asked
            .request(Method::POST, &format!("{PATH}{}", change.path))
            .header("idempotency-key", "the-same")
            .json(&change.body)
            .send()
    };

    *application.silent.lock().unwrap() = moment == Moment::Asked;
    let first = match moment {
        Moment::Before => {
            owner.kill().await;
            tokio::spawn(call())
        }
        Moment::Unread => {
            owner.signal(Signal::STOP);
            let first = tokio::spawn(call());
            // The request is with the instance that stands still; nothing tells when it got there.
            tokio::time::sleep(Duration::from_millis(300)).await;
            first
        }
        Moment::Asked => {
            let first = tokio::spawn(call());
            far.asked(change.message).await;
            first
        }
        Moment::Answered => {
            // It stands still as soon as the executor has been asked; an answer may be faster than that.
            let first = tokio::spawn(call());
            far.asked(change.message).await;
            owner.signal(Signal::STOP);
            first
        }
    };
    if moment != Moment::Before {
        owner.kill().await;
    }
    let first = first.await.unwrap().expect("the asked instance answers");
    let (status, body) = (first.status(), first.text().await.unwrap());
    let is_failure = [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status);
    assert!(status.is_success() || is_failure, "{case}: {status} {body}");
    let made = application.made(change.message);
    let expected = match (moment, status.is_success()) {
        (_, true) => 1..=1,
        (Moment::Before | Moment::Unread, false) => 0..=0,
        (Moment::Asked | Moment::Answered, false) => 1..=1,
    };
    assert!(
        expected.contains(&made),
        "{case}: {status}, made {made} times"
    );

    *application.silent.lock().unwrap() = false;
    drop(far);
    let _near = application.connect(&asked, "near").await;
    let again = call().await.unwrap();
    let (repeated, text) = (again.status(), again.text().await.unwrap());
    assert!(
        application.made(change.message) <= 1,
        "{case}: done twice; {status}, then {repeated} {text}"
    );
    if repeated.is_success() {
        assert_eq!(application.made(change.message), 1, "{case}: {repeated}");
        assert!(
            !status.is_success() || text == body,
            "{case}: {body}, then {text}"
        );
    } else {
        // Nobody can tell: said so, and only of what cannot be recognized.
        assert_eq!(repeated, StatusCode::CONFLICT, "{case}: {text}");
        assert!(text.contains("nobody knows whether"), "{case}: {text}");
        assert_eq!(change.message, "trigger_schedule", "{case}: {text}");
    }
    if moment == Moment::Before {
        assert!(
            repeated.is_success(),
            "{case}: nothing was done, and it can be repeated"
        );
    }
}

#[tokio::test]
async fn a_cancellation_is_made_once_or_not_at_all() {
    for moment in MOMENTS {
        the_owner_dies(moment, &changes()[0]).await;
    }
}

#[tokio::test]
async fn a_fork_is_made_once_or_not_at_all() {
    for moment in MOMENTS {
        the_owner_dies(moment, &changes()[1]).await;
    }
}

#[tokio::test]
async fn a_trigger_is_made_once_or_not_at_all() {
    for moment in MOMENTS {
        the_owner_dies(moment, &changes()[2]).await;
    }
}
