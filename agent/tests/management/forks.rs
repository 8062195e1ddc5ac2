//! Fork and rewind.

use crate::database_support::{Fixture, strings};
use crate::{listed, with_history};
use segno::system_database::{DatabaseError, Fork, ForkOptions, ForkPoint, Rewind, WorkflowFilter};

crate::on_both_databases!(
    fork_copies_what_happened_before,
    forks_are_made_all_or_none,
    forks_start_where_they_are_told,
    rewind_forgets_what_happened_since
);

async fn fork_copies_what_happened_before(f: &Fixture) {
    with_history(f).await;
    // Left behind by an SDK that deletes only the status row.
    f.run("INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name) VALUES ('new', 0, 'stale')").await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES ('new', 'stale')")
        .await;
    let fork = Fork {
        workflow_id: "src".to_owned(),
        start_step: 2,
        new_workflow_id: Some("new".to_owned()),
        options: ForkOptions {
            application_version: Some("v2".to_owned()),
            replacement_children: vec![("src-1".to_owned(), "other-child".to_owned())],
            ..ForkOptions::default()
        },
    };
    assert_eq!(f.db.fork_workflows(&[fork], "shop").await.unwrap(), ["new"]);

    let columns = [
        "status",
        "name",
        "class_name",
        "authenticated_user",
        "authenticated_roles",
        "serialization",
        "application_name",
        "application_version",
        "queue_name",
        "forked_from",
        "recovery_attempts",
        "priority",
        "workflow_timeout_ms",
        "completed_at",
        "owner_xid",
        "executor_id",
    ];
    assert_eq!(
        f.status("new", &columns).await,
        "ENQUEUED|pay|C|bea|[\"r\"]|portable_json|shop|v2|_dbos_internal_queue|src|0|0|-|-|-|-"
    );
    let row = f.db.get_workflow("new", true, true).await.unwrap().unwrap();
    assert_eq!(
        (row.inputs.as_deref(), row.output, row.error),
        (Some("arguments"), None, None)
    );
    assert!(row.attributes.unwrap().contains("\"k\""));
    assert!(
        f.db.get_workflow("src", false, false)
            .await
            .unwrap()
            .unwrap()
            .was_forked_from
    );

    let steps = f.db.list_steps("new", true, None, None).await.unwrap();
    let steps: Vec<_> = steps
        .iter()
        .map(|s| {
            (
                s.function_id,
                s.output.as_deref(),
                s.child_workflow_id.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            (0, Some("r0"), Some("src-0")),
            (1, Some("r1"), Some("other-child"))
        ]
    );
    let events = f.db.workflow_events("new").await.unwrap();
    assert_eq!(
        events
            .iter()
            .map(|(key, v)| (key.as_str(), v.value.as_str()))
            .collect::<Vec<_>>(),
        [("stage", "first")]
    );
    assert_eq!(f.db.workflow_streams("new").await.unwrap()[0].1.len(), 1);
    assert!(f.db.workflow_messages("new").await.unwrap().is_empty());
}

async fn forks_are_made_all_or_none(f: &Fixture) {
    with_history(f).await;
    f.workflow("ownerless", "SUCCESS", &[("application_name", "NULL")])
        .await;
    let fork = |source: &str, id: Option<&str>, start_step| Fork {
        workflow_id: source.to_owned(),
        start_step,
        new_workflow_id: id.map(str::to_owned),
        options: ForkOptions::default(),
    };
    let taken =
        f.db.fork_workflows(
            &[fork("src", Some("f1"), 0), fork("src", Some("src"), 0)],
            "shop",
        )
        .await
        .unwrap_err();
    assert!(matches!(taken, DatabaseError::Conflict(_)), "{taken}");
    let unknown =
        f.db.fork_workflows(&[fork("src", Some("f1"), 0), fork("x", None, 0)], "shop")
            .await
            .unwrap_err();
    assert!(
        matches!(unknown, DatabaseError::NotFound { .. }),
        "{unknown}"
    );
    let negative =
        f.db.fork_workflows(&[fork("src", None, -1)], "shop")
            .await
            .unwrap_err();
    assert!(matches!(negative, DatabaseError::Invalid(_)), "{negative}");
    assert_eq!(
        listed(
            f,
            WorkflowFilter {
                is_fork: Some(true),
                ..WorkflowFilter::default()
            }
        )
        .await,
        [] as [&str; 0]
    );
    assert_eq!(
        f.status("src", &["was_forked_from"])
            .await
            .to_lowercase()
            .replace('0', "false"),
        "false"
    );

    let ids =
        f.db.fork_workflows(&[fork("ownerless", None, 0), fork("src", None, 99)], "shop")
            .await
            .unwrap();
    assert_eq!(
        f.status(&ids[0], &["application_name", "application_version"])
            .await,
        "shop|v1"
    );
    assert_eq!(
        f.db.list_steps(&ids[0], false, None, None)
            .await
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        f.db.list_steps(&ids[1], false, None, None)
            .await
            .unwrap()
            .len(),
        4
    );
}

async fn forks_start_where_they_are_told(f: &Fixture) {
    with_history(f).await;
    f.workflow("empty", "ERROR", &[]).await;
    let copied = async |source: &str, point: ForkPoint| {
        let ids =
            f.db.fork_workflows_at(&strings(&[source]), &point, &ForkOptions::default(), "shop")
                .await?;
        Ok::<_, DatabaseError>(f.db.list_steps(&ids[0], false, None, None).await?.len())
    };
    assert_eq!(copied("src", ForkPoint::LastFailure).await.unwrap(), 2);
    assert_eq!(copied("src", ForkPoint::LastStep).await.unwrap(), 3);
    assert_eq!(copied("src", ForkPoint::Step(1)).await.unwrap(), 1);
    assert_eq!(
        copied("src", ForkPoint::StepNamed("reserve".to_owned()))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        copied("src", ForkPoint::StepNamed("charge".to_owned()))
            .await
            .unwrap(),
        2
    );
    assert_eq!(copied("empty", ForkPoint::LastFailure).await.unwrap(), 0);
    let error = copied("empty", ForkPoint::StepNamed("charge".to_owned()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("charge"), "{error}");
}

async fn rewind_forgets_what_happened_since(f: &Fixture) {
    with_history(f).await;
    f.workflow("running", "PENDING", &[]).await;
    let rewind = |id: &str, start_step| Rewind {
        workflow_id: id.to_owned(),
        start_step,
        ..Rewind::default()
    };
    assert!(matches!(
        f.db.rewind_workflow(&rewind("x", 0)).await,
        Err(DatabaseError::NotFound { .. })
    ));
    let refused =
        f.db.rewind_workflow(&rewind("running", 0))
            .await
            .unwrap_err();
    assert!(refused.to_string().contains("cancel it"), "{refused}");

    f.db.rewind_workflow(&rewind("src", 1)).await.unwrap();

    let columns = [
        "status",
        "queue_name",
        "recovery_attempts",
        "completed_at",
        "application_version",
    ];
    assert_eq!(
        f.status("src", &columns).await,
        "ENQUEUED|_dbos_internal_queue|0|-|v1"
    );
    let row = f.db.get_workflow("src", true, true).await.unwrap().unwrap();
    assert_eq!(
        (row.inputs.as_deref(), row.error),
        (Some("arguments"), None)
    );
    assert_eq!(
        f.db.list_steps("src", false, None, None)
            .await
            .unwrap()
            .len(),
        1
    );
    let events = f.db.workflow_events("src").await.unwrap();
    assert_eq!(
        events
            .iter()
            .map(|(key, v)| (key.as_str(), v.value.as_str()))
            .collect::<Vec<_>>(),
        [("stage", "first")]
    );
    assert_eq!(
        f.texts("SELECT value FROM @streams WHERE workflow_uuid = 'src' ORDER BY \"offset\"")
            .await,
        ["first", "second"]
    );
    assert_eq!(
        f.texts("SELECT message FROM @notifications").await,
        ["early"]
    );
    assert_eq!(
        f.texts("SELECT value FROM @workflow_events_history").await,
        ["first"]
    );
}
