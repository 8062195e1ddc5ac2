//! Listing workflows and what belongs to them.

use crate::database_support::{Fixture, strings};
use crate::{listed, with_history};
use segno::system_database::{Listing, Scope, WorkflowFilter};

crate::on_both_databases!(
    every_filter_selects,
    listings_are_ordered_and_paged,
    payloads_are_read_from_either_place,
    contents_are_listed
);

async fn every_filter_selects(f: &Fixture) {
    f.workflow(
        "a-1",
        "SUCCESS",
        &[
            ("created_at", "1000"),
            ("completed_at", "5000"),
            ("started_at_epoch_ms", "2000"),
            ("authenticated_user", "'bea'"),
            ("executor_id", "'e1'"),
            ("queue_name", "'q'"),
            ("schedule_name", "'nightly'"),
            ("was_forked_from", "TRUE"),
            (
                "attributes",
                "'{\"zone\": {\"id\": 7}, \"tags\": [\"x\", \"y\"], \"n\": null}'",
            ),
        ],
    )
    .await;
    f.workflow(
        "A_2",
        "PENDING",
        &[
            ("created_at", "2000"),
            ("queue_name", "'q'"),
            ("parent_workflow_id", "'a-1'"),
            ("forked_from", "'a-1'"),
            ("application_version", "'v2'"),
            ("attributes", "'{\"zone\": {\"id\": 8}}'"),
        ],
    )
    .await;
    f.workflow(
        "c-3",
        "ERROR",
        &[("created_at", "3000"), ("application_name", "'other'")],
    )
    .await;
    f.workflow(
        "d-4",
        "ENQUEUED",
        &[
            ("created_at", "4000"),
            ("application_name", "NULL"),
            ("application_version", "NULL"),
        ],
    )
    .await;
    f.run("UPDATE @workflow_status SET name = 'ship' WHERE workflow_uuid = 'd-4'")
        .await;

    let all = WorkflowFilter::default;
    let list = |values: &[&str]| strings(values);
    let attributes = |text: &str| serde_json::from_str(text).unwrap();
    let cases: Vec<(WorkflowFilter, &[&str])> = vec![
        (all(), &["a-1", "A_2", "c-3", "d-4"]),
        (
            WorkflowFilter {
                ids: list(&["c-3", "a-1", "zzz"]),
                ..all()
            },
            &["a-1", "c-3"],
        ),
        (
            WorkflowFilter {
                id_prefixes: list(&["a", "d-"]),
                ..all()
            },
            &["a-1", "d-4"],
        ),
        (
            WorkflowFilter {
                id_prefixes: list(&["_", "%"]),
                ..all()
            },
            &[],
        ),
        (
            WorkflowFilter {
                statuses: list(&["ERROR", "PENDING"]),
                ..all()
            },
            &["A_2", "c-3"],
        ),
        (
            WorkflowFilter {
                names: list(&["ship"]),
                ..all()
            },
            &["d-4"],
        ),
        (
            WorkflowFilter {
                application_versions: list(&["v2"]),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                authenticated_users: list(&["bea"]),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                forked_from: list(&["a-1"]),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                parent_workflow_ids: list(&["a-1"]),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                queue_names: list(&["q"]),
                statuses: list(&["PENDING"]),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                executor_ids: list(&["e1"]),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                schedule_names: list(&["nightly"]),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                scope: Scope::of("shop"),
                ..all()
            },
            &["a-1", "A_2", "d-4"],
        ),
        (
            WorkflowFilter {
                scope: Scope::of("nobody"),
                ..all()
            },
            &["d-4"],
        ),
        (
            WorkflowFilter {
                created_from: Some(2000),
                created_to: Some(3000),
                ..all()
            },
            &["A_2", "c-3"],
        ),
        (
            WorkflowFilter {
                completed_from: Some(5000),
                completed_to: Some(5000),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                completed_to: Some(4999),
                ..all()
            },
            &[],
        ),
        (
            WorkflowFilter {
                dequeued_from: Some(2000),
                dequeued_to: Some(2000),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                was_forked_from: Some(true),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                was_forked_from: Some(false),
                ..all()
            },
            &["A_2", "c-3", "d-4"],
        ),
        (
            WorkflowFilter {
                is_fork: Some(true),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                has_parent: Some(false),
                ..all()
            },
            &["a-1", "c-3", "d-4"],
        ),
        (
            WorkflowFilter {
                has_parent: Some(true),
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                queues_only: true,
                ..all()
            },
            &["A_2"],
        ),
        (
            WorkflowFilter {
                queues_only: true,
                statuses: list(&["SUCCESS"]),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"zone\": {\"id\": 7}}"),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"zone\": {\"id\": \"7\"}}"),
                ..all()
            },
            &[],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"zone\": {}}"),
                ..all()
            },
            &["a-1", "A_2"],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"tags\": [\"y\"], \"n\": null}"),
                ..all()
            },
            &["a-1"],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"tags\": [\"z\"]}"),
                ..all()
            },
            &[],
        ),
        (
            WorkflowFilter {
                attributes: attributes("{\"it's\\\"odd\": 1}"),
                ..all()
            },
            &[],
        ),
    ];
    for (filter, expected) in cases {
        let case = format!("{filter:?}");
        assert_eq!(listed(f, filter).await, expected, "{case}");
    }
}

async fn listings_are_ordered_and_paged(f: &Fixture) {
    for (id, created) in [("w3", "300"), ("w1", "100"), ("w2b", "200"), ("w2a", "200")] {
        f.workflow(id, "SUCCESS", &[("created_at", created)]).await;
    }
    let page = async |descending, limit, offset| {
        let listing = Listing {
            descending,
            limit,
            offset,
            ..Listing::default()
        };
        let rows =
            f.db.list_workflows(&WorkflowFilter::default(), &listing)
                .await
                .unwrap();
        rows.into_iter()
            .map(|row| row.workflow_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(page(false, None, None).await, ["w1", "w2a", "w2b", "w3"]);
    assert_eq!(page(true, Some(2), Some(1)).await, ["w2b", "w2a"]);
    assert_eq!(page(false, None, Some(3)).await, ["w3"]);
    assert_eq!(page(false, Some(0), None).await.len(), 4, "0 is no limit");
}

async fn payloads_are_read_from_either_place(f: &Fixture) {
    f.workflow(
        "inline",
        "SUCCESS",
        &[
            ("inputs", "'in'"),
            ("output", "'out'"),
            ("serialization", "'portable_json'"),
        ],
    )
    .await;
    f.workflow(
        "aside",
        "ERROR",
        &[("class_name", "''"), ("queue_name", "''")],
    )
    .await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES ('aside', 'side in')")
        .await;
    f.run("INSERT INTO @workflow_output (workflow_uuid, error) VALUES ('aside', 'side error')")
        .await;

    let inline =
        f.db.get_workflow("inline", true, true)
            .await
            .unwrap()
            .unwrap();
    assert_eq!(
        (
            inline.inputs.as_deref(),
            inline.output.as_deref(),
            inline.error
        ),
        (Some("in"), Some("out"), None)
    );
    let aside =
        f.db.get_workflow("aside", true, true)
            .await
            .unwrap()
            .unwrap();
    assert_eq!(
        (
            aside.inputs.as_deref(),
            aside.output,
            aside.error.as_deref()
        ),
        (Some("side in"), None, Some("side error"))
    );
    assert_eq!(
        (aside.class_name, aside.queue_name),
        (None, None),
        "empty text is nothing"
    );
    let bare =
        f.db.get_workflow("aside", false, false)
            .await
            .unwrap()
            .unwrap();
    assert_eq!((bare.inputs, bare.error), (None, None));
    assert_eq!(f.db.get_workflow("nobody", true, true).await.unwrap(), None);
}

async fn contents_are_listed(f: &Fixture) {
    with_history(f).await;
    let events = f.db.workflow_events("src").await.unwrap();
    assert_eq!(
        events
            .iter()
            .map(|(key, v)| (key.as_str(), v.value.as_str()))
            .collect::<Vec<_>>(),
        [("late", "x"), ("stage", "second")]
    );
    let messages = f.db.workflow_messages("src").await.unwrap();
    let messages: Vec<_> = messages
        .iter()
        .map(|m| {
            (
                m.topic.as_deref(),
                m.message.value.as_str(),
                m.consumed,
                m.created_at,
            )
        })
        .collect();
    assert_eq!(
        messages,
        [
            (Some("t"), "early", true, 1),
            (Some("t"), "late", true, 2),
            (None, "unread", false, 3)
        ]
    );
    let streams = f.db.workflow_streams("src").await.unwrap();
    assert_eq!(streams.len(), 1);
    assert_eq!(
        streams[0]
            .1
            .iter()
            .map(|v| v.value.as_str())
            .collect::<Vec<_>>(),
        ["first", "second"],
        "without the end mark"
    );
    assert!(f.db.workflow_events("unknown").await.unwrap().is_empty());
    let page =
        f.db.list_steps("src", true, Some(2), Some(1))
            .await
            .unwrap();
    assert_eq!(
        page.iter()
            .map(|s| (s.function_id, s.output.as_deref(), s.error.as_deref()))
            .collect::<Vec<_>>(),
        [(1, Some("r1"), None), (2, None, Some("no"))]
    );
}
