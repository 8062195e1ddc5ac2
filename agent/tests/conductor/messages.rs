//! Every message of the catalogue and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, StreamExt as _};
use segno::conductor::Hooks;
use segno_protocol::Message as _;
use segno_protocol::{
    Alert, BackfillSchedule, BulkFork, Cancel, Delete, ExecutorInfo, ExistPendingWorkflows,
    ExportWorkflow, Fork, ForkFromFailure, ForkPoint, ForkWorkflow, GetMetrics, GetQueue,
    GetSchedule, GetStepAggregates, GetWorkflow, GetWorkflowAggregates, GetWorkflowEvents,
    GetWorkflowNotifications, GetWorkflowStreams, ImportWorkflow, ListApplicationVersions,
    ListQueuedWorkflows, ListQueues, ListSchedules, ListSteps, ListWorkflows, PauseSchedule,
    Recovery, Request, Restart, Resume, ResumeSchedule, Retention, Rewind, RewindWorkflow,
    ScheduleFilter, SegnoExplain, SetLatestApplicationVersion, StepAggregates, TriggerSchedule,
    WaitingOn, WireTime, WorkflowAggregates, WorkflowFilter,
};
use tokio_tungstenite::tungstenite::Message;

use crate::database_support::{Fixture, strings};
use crate::server::{KEY, Peer, Server, spawn};

crate::on_both_databases!(
    every_message_is_answered,
    payloads_stay_here_where_only_metadata_is_shown,
);

async fn payloads_stay_here_where_only_metadata_is_shown(f: &Fixture) {
    let server = Server::start().await;
    let hooks = Hooks {
        metadata_only: true,
        ..Hooks::default()
    };
    let _client = spawn(&server, f, hooks);
    let mut peer = server.accept().await;
    f.workflow("shown", "SUCCESS", &[("serialization", "'portable_json'")])
        .await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES ('shown', '{\"positionalArgs\":[42],\"namedArgs\":{}}')").await;
    f.run("INSERT INTO @workflow_output (workflow_uuid, output) VALUES ('shown', '42')")
        .await;
    f.run("INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, output, application_name) VALUES ('shown', 0, 'charge', '42', 'shop')").await;
    f.run(
        "INSERT INTO @workflow_events (workflow_uuid, key, value) VALUES ('shown', 'stage', '42')",
    )
    .await;
    let record = peer
        .get(&GetWorkflow {
            workflow_id: "shown".to_owned(),
            load_input: true,
            load_output: true,
        })
        .await
        .output
        .unwrap();
    assert_eq!((record.input, record.output), (None, None));
    let steps = peer
        .get(&ListSteps {
            workflow_id: "shown".to_owned(),
            load_output: true,
            limit: None,
            offset: None,
        })
        .await;
    let steps = steps.output.unwrap();
    assert_eq!((steps.len(), steps[0].output.clone()), (1, None));
    let events = peer
        .get(&GetWorkflowEvents {
            workflow_id: "shown".to_owned(),
        })
        .await;
    assert!(events.events.is_empty());
}

async fn every_message_is_answered(f: &Fixture) {
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let hooks = Hooks {
        wake: Some(Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })),
        alert: Some(Arc::new(|alert| {
            async move {
                match alert.name.as_str() {
                    "Panic" => panic!("the handler's own mistake"),
                    "Bad" => Err("pager is broken".to_owned()),
                    _ => Ok(()),
                }
            }
            .boxed()
        })),
        explain: Some(Arc::new(|id| {
            (id == "running").then(|| WaitingOn {
                kind: "sleep".to_owned(),
                ..WaitingOn::default()
            })
        })),
        metadata_only: false,
    };
    let server = Server::start().await;
    let client = spawn(&server, f, hooks);
    let mut peer = server.accept().await;
    assert_eq!(
        peer.path,
        format!("/conductor/v1alpha1/websocket/shop/{KEY}")
    );

    introduces_itself(&mut peer).await;
    client
        .connected()
        .wait_for(|connected| *connected)
        .await
        .unwrap();
    f.db.register_version("shop", "v1").await.unwrap();
    recovers(f, &mut peer).await;
    assert_eq!(woken.swap(0, Ordering::SeqCst), 1);
    shows_workflows(f, &mut peer).await;
    acts_on_workflows(f, &mut peer).await;
    assert!(woken.load(Ordering::SeqCst) >= 6, "{woken:?}");
    counts(f, &mut peer).await;
    knows_versions_queues_and_schedules(f, &mut peer).await;
    takes_alerts_and_explains(&mut peer).await;

    let untested: Vec<_> = Request::TYPES
        .iter()
        .filter(|r#type| !peer.types.contains(r#type))
        .collect();
    assert_eq!(untested, [&Retention::TYPE], "which has a test of its own");
    let (_, goodbye) = tokio::join!(client.shutdown(), peer.socket.next());
    let Some(Ok(Message::Close(Some(frame)))) = goodbye else {
        panic!("expected a close frame, got {goodbye:?}")
    };
    assert_eq!(u16::from(frame.code), segno_protocol::CLOSE_LEFT);
}

async fn introduces_itself(peer: &mut Peer) {
    let info = peer.get(&ExecutorInfo {}).await;
    assert_eq!(info.executor_id.as_deref(), Some("exec-1"));
    assert_eq!(info.application_version.as_deref(), Some("v1"));
    assert_eq!(info.language.as_deref(), Some("rust"));
    assert_eq!(
        info.dbos_version.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert!(info.hostname.is_some());
    assert_eq!(info.executor_metadata.unwrap()["zone"], "b");
}

async fn recovers(f: &Fixture, peer: &mut Peer) {
    f.workflow("lost", "PENDING", &[("executor_id", "'dead'")])
        .await;
    f.workflow(
        "foreign",
        "PENDING",
        &[("executor_id", "'dead'"), ("application_name", "'other'")],
    )
    .await;
    let exist = |version: &str| ExistPendingWorkflows {
        executor_id: "dead".to_owned(),
        application_version: version.to_owned(),
    };
    assert!(peer.get(&exist("v1")).await.exist);
    assert!(!peer.get(&exist("v2")).await.exist);
    assert!(
        peer.get(&Recovery::new(strings(&["dead"])).unwrap())
            .await
            .success
    );
    assert!(!peer.get(&exist("v1")).await.exist);
    assert_eq!(
        f.status("lost", &["status", "queue_name"]).await,
        "ENQUEUED|_dbos_internal_queue"
    );
    assert_eq!(f.status("foreign", &["status"]).await, "PENDING");
    let nobody: Recovery = serde_json::from_str("{\"executor_ids\": []}").unwrap();
    assert!(peer.get(&nobody).await.success, "nobody is nothing to do");
    assert_eq!(f.status("foreign", &["status"]).await, "PENDING");
}

async fn shows_workflows(f: &Fixture, peer: &mut Peer) {
    f.workflow(
        "shown",
        "SUCCESS",
        &[
            ("created_at", "1700000000123"),
            ("completed_at", "1700000001000"),
            ("authenticated_roles", "'[\"admin\"]'"),
            ("attributes", "'{\"k\":[1]}'"),
            ("serialization", "'portable_json'"),
            ("queue_name", "'q'"),
        ],
    )
    .await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES ('shown', '{\"positionalArgs\":[42,\"x\"],\"namedArgs\":{}}')").await;
    f.run("INSERT INTO @workflow_output (workflow_uuid, output) VALUES ('shown', '{\"ok\":true}')")
        .await;
    f.run("INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, output, started_at_epoch_ms, completed_at_epoch_ms, application_name) \
           VALUES ('shown', 0, 'charge', '7', 1700000000200, 1700000000300, 'shop')").await;
    f.run("INSERT INTO @workflow_events (workflow_uuid, key, value) VALUES ('shown', 'stage', '\"paid\"')").await;
    f.run("INSERT INTO @notifications (message_uuid, destination_uuid, topic, message, created_at_epoch_ms) VALUES ('m', 'shown', '__null__topic__', '1', 5)").await;
    f.run("INSERT INTO @streams (workflow_uuid, key, value, \"offset\") VALUES ('shown', 's', '1', 0), ('shown', 's', '2', 1)").await;

    let get = |id: &str, load| GetWorkflow {
        workflow_id: id.to_owned(),
        load_input: load,
        load_output: load,
    };
    let record = peer.get(&get("shown", true)).await.output.unwrap();
    assert_eq!(
        (
            record.input.as_deref(),
            record.output.as_deref(),
            record.error
        ),
        (Some("[42,\"x\"]"), Some("{\"ok\":true}"), None)
    );
    assert_eq!(
        (record.created_at, record.priority),
        (Some(1_700_000_000_123), Some(0))
    );
    assert_eq!(record.authenticated_roles.as_deref(), Some("[\"admin\"]"));
    assert_eq!(record.application_name.as_deref(), Some("shop"));
    let id = peer.send(&get("shown", false)).await;
    let raw: serde_json::Value = serde_json::from_str(&peer.text().await).unwrap();
    assert_eq!(raw["request_id"], id.as_str());
    assert_eq!(
        raw["output"]["CreatedAt"], "1700000000123",
        "times are text"
    );
    assert!(
        raw["output"]
            .as_object()
            .unwrap()
            .contains_key("ParentWorkflowID"),
        "every key is there"
    );
    assert_eq!(peer.get(&get("nobody", true)).await.output, None);

    let list = |body: WorkflowFilter| ListWorkflows { body };
    let ids = |page: segno_protocol::ListWorkflowsResponse| {
        page.output
            .into_iter()
            .map(|r| r.workflow_uuid)
            .collect::<Vec<_>>()
    };
    let all = WorkflowFilter::default;
    assert_eq!(
        ids(peer.get(&list(all())).await),
        ["shown", "lost"],
        "another application's are not listed"
    );
    let foreign = WorkflowFilter {
        workflow_uuids: strings(&["foreign"]),
        ..all()
    };
    assert_eq!(
        ids(peer.get(&list(foreign)).await),
        ["foreign"],
        "but found by their id"
    );
    let window = WorkflowFilter {
        start_time: Some(WireTime(1_700_000_000_123)),
        end_time: Some(WireTime(1_700_000_000_123)),
        ..all()
    };
    assert_eq!(ids(peer.get(&list(window)).await), ["shown"]);
    assert_eq!(
        ids(peer
            .get(&list(WorkflowFilter {
                sort_desc: true,
                limit: Some(1),
                ..all()
            }))
            .await),
        ["lost"]
    );
    assert_eq!(
        ids(peer.get(&ListQueuedWorkflows { body: all() }).await),
        ["lost"]
    );

    let steps = ListSteps {
        workflow_id: "shown".to_owned(),
        load_output: true,
        limit: None,
        offset: None,
    };
    let steps = peer.get(&steps).await.output.unwrap();
    assert_eq!(
        (
            steps[0].function_name.as_deref(),
            steps[0].output.as_deref()
        ),
        (Some("charge"), Some("7"))
    );
    let workflow_id = || "shown".to_owned();
    let events = peer
        .get(&GetWorkflowEvents {
            workflow_id: workflow_id(),
        })
        .await
        .events;
    assert_eq!(
        (events[0].key.as_str(), events[0].value.as_deref()),
        ("stage", Some("\"paid\""))
    );
    let messages = peer
        .get(&GetWorkflowNotifications {
            workflow_id: workflow_id(),
        })
        .await
        .notifications;
    assert_eq!(
        (
            messages[0].topic.as_deref(),
            messages[0].message.as_deref(),
            messages[0].created_at_epoch_ms
        ),
        (None, Some("1"), Some(5))
    );
    let streams = peer
        .get(&GetWorkflowStreams {
            workflow_id: workflow_id(),
        })
        .await
        .streams;
    assert_eq!(streams[0].values, ["1", "2"]);
}

async fn acts_on_workflows(f: &Fixture, peer: &mut Peer) {
    assert!(
        peer.get(&Cancel::new(strings(&["lost", "unknown"]), true).unwrap())
            .await
            .success
    );
    assert_eq!(f.status("lost", &["status"]).await, "CANCELLED");
    assert!(
        peer.get(&Resume::new(strings(&["lost"]), Some("q2".to_owned())).unwrap())
            .await
            .success
    );
    assert_eq!(
        f.status("lost", &["status", "queue_name"]).await,
        "ENQUEUED|q2"
    );
    let reason = peer
        .refused(&Resume::new(strings(&["lost", "unknown-1"]), None).unwrap())
        .await;
    assert!(reason.contains("unknown-1"), "{reason}");

    let fork = |new: Option<&str>| ForkWorkflow {
        body: Fork {
            workflow_id: "shown".to_owned(),
            start_step: 1,
            new_workflow_id: new.map(str::to_owned),
            ..Fork::default()
        },
    };
    assert_eq!(
        peer.get(&fork(Some("fork-1")))
            .await
            .new_workflow_id
            .as_deref(),
        Some("fork-1")
    );
    assert_eq!(
        f.status("fork-1", &["status", "forked_from", "application_version"])
            .await,
        "ENQUEUED|shown|v1"
    );
    assert!(
        peer.refused(&fork(Some("fork-1")))
            .await
            .contains("exists already")
    );
    let bulk = ForkFromFailure {
        body: BulkFork::new(strings(&["shown", "lost"]), ForkPoint::LastStep),
    };
    assert_eq!(peer.get(&bulk).await.forked_workflow_ids.unwrap().len(), 2);
    let bulk = ForkFromFailure {
        body: BulkFork::new(
            strings(&["shown"]),
            ForkPoint::StepName("nothing".to_owned()),
        ),
    };
    assert!(peer.refused(&bulk).await.contains("nothing"));
    assert!(
        peer.get(&Restart {
            workflow_id: "shown".to_owned()
        })
        .await
        .success
    );

    let export = ExportWorkflow {
        workflow_id: "shown".to_owned(),
        export_children: false,
    };
    let blob = peer.get(&export).await.serialized_workflow.unwrap();
    assert!(
        peer.get(&Delete::new(strings(&["shown"]), false).unwrap())
            .await
            .success
    );
    assert_eq!(f.status("shown", &["status"]).await, "");
    assert!(peer.refused(&export).await.contains("shown"));
    assert!(
        peer.get(&ImportWorkflow {
            serialized_workflow: blob
        })
        .await
        .success
    );
    assert_eq!(f.status("shown", &["status"]).await, "SUCCESS");
    assert!(
        peer.refused(&ImportWorkflow {
            serialized_workflow: "gASV".to_owned()
        })
        .await
        .contains("cannot be imported")
    );

    let rewind = |id: &str| RewindWorkflow {
        body: Rewind {
            workflow_id: id.to_owned(),
            ..Rewind::default()
        },
    };
    assert!(peer.refused(&rewind("lost")).await.contains("cancel it"));
    assert!(peer.get(&rewind("shown")).await.success);
    assert_eq!(f.status("shown", &["status"]).await, "ENQUEUED");
}

async fn counts(f: &Fixture, peer: &mut Peer) {
    f.run("DELETE FROM @workflow_status").await;
    f.run("DELETE FROM @operation_outputs").await;
    f.workflow(
        "counted",
        "SUCCESS",
        &[
            ("created_at", "1700000000000"),
            ("completed_at", "1700000000500"),
        ],
    )
    .await;
    f.run("INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, completed_at_epoch_ms, started_at_epoch_ms, application_name) \
           VALUES ('counted', 0, 'charge', 1700000000400, 1700000000100, 'shop')").await;
    let body = WorkflowAggregates {
        group_by_status: true,
        group_by_name: true,
        select_count: true,
        select_max_total_latency_ms: true,
        ..WorkflowAggregates::default()
    };
    let rows = peer.get(&GetWorkflowAggregates { body }).await.output;
    assert_eq!(
        (rows.len(), rows[0].count, rows[0].max_total_latency_ms),
        (1, Some(1), Some(500))
    );
    assert_eq!(rows[0].group["name"].as_deref(), Some("pay"));
    assert!(
        peer.refused(&GetWorkflowAggregates {
            body: WorkflowAggregates::default()
        })
        .await
        .contains("group_by")
    );
    let body = StepAggregates {
        group_by_function_name: true,
        select_max_duration_ms: true,
        ..StepAggregates::default()
    };
    let rows = peer.get(&GetStepAggregates { body }).await.output;
    assert_eq!((rows[0].max_duration_ms, rows[0].count), (Some(300), None));
    let metrics = |class: &str| GetMetrics {
        start_time: WireTime(1_700_000_000_000),
        end_time: WireTime(1_700_000_060_000),
        metric_class: class.to_owned(),
        application_name: Vec::new(),
    };
    let found = peer
        .get(&metrics(GetMetrics::WORKFLOW_STEP_COUNT))
        .await
        .metrics;
    let found: Vec<_> = found
        .iter()
        .map(|m| (m.metric_type.as_str(), m.metric_name.as_str(), m.value))
        .collect();
    assert_eq!(
        found,
        [
            ("workflow_count", "pay", 1.0),
            ("step_count", "charge", 1.0)
        ]
    );
    assert!(
        peer.refused(&metrics("other"))
            .await
            .contains("metric_class")
    );
}

async fn knows_versions_queues_and_schedules(f: &Fixture, peer: &mut Peer) {
    f.db.register_version("shop", "v0").await.unwrap();
    f.run("UPDATE @application_versions SET version_timestamp = 10 WHERE version_name = 'v0'")
        .await;
    let latest = async |peer: &mut Peer| {
        peer.get(&ListApplicationVersions {}).await.output[0]
            .version_name
            .clone()
    };
    assert_eq!(latest(peer).await, "v1");
    f.run("UPDATE @application_versions SET version_timestamp = 20 WHERE version_name = 'v1'")
        .await;
    assert!(
        peer.get(&SetLatestApplicationVersion {
            version_name: "v0".to_owned()
        })
        .await
        .success
    );
    assert_eq!(latest(peer).await, "v0");

    f.run("INSERT INTO @queues (name, concurrency, application_name) VALUES ('mail', 3, 'shop')")
        .await;
    let queues = peer.get(&ListQueues::default()).await.output;
    assert_eq!(
        (
            queues[0].name.as_str(),
            queues[0].concurrency,
            queues[0].polling_interval_sec
        ),
        ("mail", Some(3), Some(1.0))
    );
    assert!(
        peer.get(&GetQueue {
            name: "mail".to_owned()
        })
        .await
        .output
        .is_some()
    );
    assert!(
        peer.get(&GetQueue {
            name: "none".to_owned()
        })
        .await
        .output
        .is_none()
    );

    f.run("INSERT INTO @workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, context, application_name) \
           VALUES ('1', 'nightly', 'report', '0 0 * * *', '{}', 'shop')").await;
    let name = || "nightly".to_owned();
    let schedules = peer
        .get(&ListSchedules {
            body: ScheduleFilter {
                load_context: true,
                ..ScheduleFilter::default()
            },
        })
        .await
        .output;
    assert_eq!(
        (schedules.len(), schedules[0].context.as_deref()),
        (1, Some("{}"))
    );
    assert!(
        peer.get(&PauseSchedule {
            schedule_name: name()
        })
        .await
        .success
    );
    let get = GetSchedule {
        schedule_name: name(),
        load_context: false,
    };
    let schedule = peer.get(&get).await.output.unwrap();
    assert_eq!(
        (schedule.status.as_deref(), schedule.context),
        (Some("PAUSED"), None)
    );
    assert!(
        peer.get(&ResumeSchedule {
            schedule_name: name()
        })
        .await
        .success
    );
    assert_eq!(
        peer.get(&get).await.output.unwrap().status.as_deref(),
        Some("ACTIVE")
    );
    let run = peer
        .get(&TriggerSchedule {
            schedule_name: name(),
        })
        .await
        .workflow_id
        .unwrap();
    assert_eq!(
        f.status(&run, &["status", "application_version"]).await,
        "ENQUEUED|v0"
    );
    let backfill = BackfillSchedule {
        schedule_name: name(),
        start: WireTime(0),
        end: WireTime(1),
    };
    // Nothing lies between.
    let none: Vec<String> = Vec::new();
    assert_eq!(peer.get(&backfill).await.workflow_ids, none);
}

async fn takes_alerts_and_explains(peer: &mut Peer) {
    let alert = |name: &str| Alert {
        name: name.to_owned(),
        message: "text".to_owned(),
        metadata: BTreeMap::new(),
    };
    assert!(peer.get(&alert("SlowQueue")).await.success);
    assert!(
        peer.refused(&alert("Bad"))
            .await
            .contains("pager is broken")
    );
    assert!(peer.refused(&alert("Panic")).await.contains("panicked"));
    let explain = |id: &str| SegnoExplain {
        workflow_id: id.to_owned(),
    };
    assert_eq!(
        peer.get(&explain("running")).await.waiting_on.unwrap().kind,
        "sleep"
    );
    assert_eq!(peer.get(&explain("elsewhere")).await.waiting_on, None);
}
