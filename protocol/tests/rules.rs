//! The rules for careful senders and tolerant readers.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use segno_protocol::*;
use serde_json::{Value, json};

fn sent<M: Message>(message: &M) -> Value {
    serde_json::from_str(&encode_request("r1", message)).unwrap()
}

#[test]
fn python_finds_every_key_it_needs() {
    let fork = ForkWorkflow {
        body: Fork {
            workflow_id: "w".into(),
            ..Fork::default()
        },
    };
    assert_eq!(
        sent(&fork)["body"],
        json!({"workflow_id": "w", "start_step": 0, "application_version": null, "new_workflow_id": null})
    );
    assert_eq!(
        sent(&Retention::default())["body"],
        json!({"gc_cutoff_epoch_ms": null, "gc_rows_threshold": null, "timeout_cutoff_epoch_ms": null})
    );
    assert_eq!(
        sent(&Cancel::new(vec!["w".into()], false).unwrap()),
        json!({"type": "cancel", "request_id": "r1", "workflow_id": "w", "cancel_children": false})
    );
    assert_eq!(
        sent(&Delete::new(vec!["w".into(), "v".into()], true).unwrap()),
        json!({"type": "delete", "request_id": "r1", "workflow_id": "w", "workflow_ids": ["w", "v"],
               "delete_children": true})
    );
}

#[test]
fn unused_filters_are_left_out_and_loads_always_said() {
    assert_eq!(
        sent(&ListWorkflows::default())["body"],
        json!({"queues_only": false, "sort_desc": false, "load_input": false, "load_output": false})
    );
    assert_eq!(sent(&ListQueues::default())["body"], json!({}));
    assert_eq!(
        sent(&ListSchedules::default())["body"],
        json!({"load_context": false})
    );
    assert_eq!(
        sent(&RewindWorkflow {
            body: Rewind {
                workflow_id: "w".into(),
                ..Rewind::default()
            }
        })["body"],
        json!({"workflow_id": "w"})
    );
}

#[test]
fn aggregates_name_ids_and_users_in_both_ways() {
    let body = WorkflowAggregates {
        group_by_status: true,
        select_count: true,
        filter: AggregateFilter {
            workflow_ids: vec!["w".into()],
            user: vec!["ada".into()],
            ..AggregateFilter::default()
        },
        ..WorkflowAggregates::default()
    };
    assert_eq!(
        sent(&GetWorkflowAggregates { body })["body"],
        json!({"group_by_status": true, "select_count": true, "workflow_ids": ["w"], "workflow_uuids": ["w"],
               "user": ["ada"], "authenticated_user": ["ada"]})
    );
}

#[test]
fn what_means_everything_to_some_sdks_cannot_be_sent() {
    assert!(Recovery::new(vec![]).is_none());
    assert!(Cancel::new(vec![], false).is_none());
    assert!(Resume::new(vec![], None).is_none());
    let fork = sent(&ForkFromFailure {
        body: BulkFork::new(vec!["w".into()], ForkPoint::LastStep),
    });
    assert_eq!(
        fork["body"],
        json!({"workflow_ids": ["w"], "from_last_step": true})
    );
}

fn received(value: Value) -> Request {
    decode_request(&value.to_string()).unwrap().request
}

#[test]
fn an_executor_reads_filters_in_any_shape() {
    let Request::ListWorkflows(list) = received(json!({
        "type": "list_workflows", "request_id": "r1", "novelty": 1,
        "body": {"status": "PENDING", "workflow_name": null, "queue_name": [], "executor_id": ["a", "b"],
                 "workflow_ids": ["w"], "user": "ada", "limit": "10", "start_time": "2026-01-02T03:04:05Z"}
    })) else {
        panic!("another message")
    };
    let body = list.body;
    assert_eq!(
        (body.status, body.workflow_name),
        (vec!["PENDING".to_owned()], vec![])
    );
    assert_eq!((body.executor_id.len(), body.queue_name.len()), (2, 0));
    assert_eq!(
        (body.workflow_uuids, body.authenticated_user),
        (vec!["w".to_owned()], vec!["ada".to_owned()])
    );
    assert_eq!(
        (body.limit, body.start_time),
        (Some(10), Some(WireTime(1_767_323_045_000)))
    );
    assert!(
        body.load_input && body.load_output,
        "loads are on when absent"
    );
}

#[test]
fn a_request_that_does_not_read_can_still_be_answered() {
    let error = decode_request(r#"{"type":"get_workflow","request_id":"r1"}"#).unwrap_err();
    assert_eq!(
        (error.r#type.as_deref(), error.request_id.as_deref()),
        (Some("get_workflow"), Some("r1"))
    );
    assert!(error.reason.contains("workflow_id"));
    assert!(decode_request("{").unwrap_err().request_id.is_none());
    assert!(
        decode_request(r#"{"request_id":"r1"}"#)
            .unwrap_err()
            .r#type
            .is_none()
    );
    assert!(
        matches!(received(json!({"type": "sing", "request_id": "r1"})), Request::Unknown { r#type } if r#type == "sing")
    );
}

#[test]
fn several_fork_points_are_refused() {
    let Request::ForkFromFailure(fork) =
        received(json!({"type": "fork_from_failure", "request_id": "r1",
        "body": {"workflow_ids": ["w"], "from_step": 1, "from_last_step": true}}))
    else {
        panic!("another message")
    };
    assert!(fork.body.point().is_err());
}

#[test]
fn a_bad_record_does_not_spoil_its_page() {
    let reply = decode_response::<ListWorkflows>(
        r#"{"type":"list_workflows","request_id":"r1","output":[{"Status":"PENDING"},{"WorkflowUUID":"w","CreatedAt":"undefined","Priority":7}]}"#,
    )
    .unwrap();
    let page = reply.body.unwrap().output;
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].created_at, page[0].priority), (None, Some(7)));
}

#[test]
fn failures_carry_both_the_error_and_empty_looking_data() {
    assert_eq!(
        encode_failure::<ExistPendingWorkflows>(
            "r1",
            &ExistPendingWorkflowsResponse::default(),
            "no database"
        ),
        r#"{"type":"exist_pending_workflows","request_id":"r1","exist":false,"error_message":"no database"}"#
    );
    assert_eq!(
        encode_error("sing", "r1", UNKNOWN_TYPE),
        r#"{"type":"sing","request_id":"r1","error_message":"Unknown message type"}"#
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in ".{0,200}") {
        let _ = decode_request(&text);
        let _ = decode_envelope(&text);
        let _ = decode_response::<ListWorkflows>(&text);
    }

    #[test]
    fn no_json_makes_a_reader_panic(index in 0..Request::TYPES.len(), body in any_json(), output in any_json()) {
        let request = json!({"type": Request::TYPES[index], "request_id": "r", "body": body, "workflow_id": output});
        let _ = decode_request(&request.to_string());
        let response = json!({"type": "x", "request_id": "r", "output": output, "success": body, "error_message": body});
        let text = response.to_string();
        let _ = decode_response::<ListWorkflows>(&text);
        let _ = decode_response::<Cancel>(&text);
        let _ = decode_response::<GetWorkflowAggregates>(&text);
        let _ = decode_response::<ExecutorInfo>(&text);
    }
}
