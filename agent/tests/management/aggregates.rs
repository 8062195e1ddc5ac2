//! Counting workflows and steps.

use crate::database_support::{Fixture, strings};
use segno::system_database::{
    DatabaseError, Figure, Scope, StepFilter, StepGroup, WorkflowFilter, WorkflowGroup,
};

crate::on_both_databases!(workflows_are_counted_in_groups, steps_are_counted_in_groups);

async fn workflows_are_counted_in_groups(f: &Fixture) {
    f.workflow(
        "a",
        "SUCCESS",
        &[
            ("created_at", "1000"),
            ("started_at_epoch_ms", "1500"),
            ("completed_at", "4000"),
        ],
    )
    .await;
    f.workflow(
        "b",
        "SUCCESS",
        &[
            ("created_at", "1999"),
            ("started_at_epoch_ms", "2000"),
            ("completed_at", "3000"),
        ],
    )
    .await;
    f.workflow(
        "c",
        "PENDING",
        &[("created_at", "2000"), ("queue_name", "'q'")],
    )
    .await;
    f.workflow(
        "d",
        "SUCCESS",
        &[("created_at", "1000"), ("application_name", "'other'")],
    )
    .await;
    let filter = WorkflowFilter {
        scope: Scope::of("shop"),
        ..WorkflowFilter::default()
    };
    let figures = [
        Figure::Count,
        Figure::MinCreatedAt,
        Figure::MaxQueueWaitMs,
        Figure::MaxTotalLatencyMs,
    ];

    let rows =
        f.db.aggregate_workflows(&[WorkflowGroup::Status], None, &figures, &filter)
            .await
            .unwrap();
    assert_eq!(rows.len(), 2);
    let success = rows
        .iter()
        .find(|row| row.group["status"].as_deref() == Some("SUCCESS"))
        .unwrap();
    assert_eq!(
        (success.count, success.min_created_at),
        (Some(2), Some(1000))
    );
    assert_eq!(
        (success.max_queue_wait_ms, success.max_total_latency_ms),
        (Some(500), Some(3000))
    );
    let pending = rows
        .iter()
        .find(|row| row.group["status"].as_deref() == Some("PENDING"))
        .unwrap();
    assert_eq!(
        (pending.count, pending.max_total_latency_ms),
        (Some(1), None)
    );

    let rows =
        f.db.aggregate_workflows(&[WorkflowGroup::QueueName], Some(1000), &[], &filter)
            .await
            .unwrap();
    let mut buckets: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.group["time_bucket"].clone(),
                row.group["queue_name"].clone(),
                row.count,
            )
        })
        .collect();
    buckets.sort();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        buckets,
        [
            (text("1000"), None, Some(2)),
            (text("2000"), text("q"), Some(1))
        ]
    );
    assert_eq!(rows[0].min_created_at, None, "not asked for");

    for (groups, bucket) in [(&[][..], None), (&[WorkflowGroup::Name][..], Some(0))] {
        let refused =
            f.db.aggregate_workflows(groups, bucket, &[], &filter)
                .await
                .unwrap_err();
        assert!(matches!(refused, DatabaseError::Invalid(_)), "{refused}");
    }
    let metrics =
        f.db.workflow_and_step_counts(1000, 2000, &Scope::of("shop"))
            .await
            .unwrap();
    assert_eq!(
        metrics
            .iter()
            .map(|m| (m.metric_type, m.metric_name.as_str(), m.value))
            .collect::<Vec<_>>(),
        [("workflow_count", "pay", 2)]
    );
}

async fn steps_are_counted_in_groups(f: &Fixture) {
    for (id, name, error, started, ended, app) in [
        (0, "charge", "NULL", 1000, 1400, "'shop'"),
        (1, "charge", "'no'", 1000, 1900, "'shop'"),
        (2, "ship", "NULL", 1000, 2500, "NULL"),
        (3, "ship", "NULL", 1000, 2500, "'other'"),
    ] {
        f.run(&format!(
            "INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, error, started_at_epoch_ms, \
             completed_at_epoch_ms, application_name) VALUES ('w', {id}, '{name}', {error}, {started}, {ended}, {app})"
        ))
        .await;
    }
    let all = || StepFilter {
        scope: Scope::of("shop"),
        ..StepFilter::default()
    };
    let count = async |groups: &[StepGroup], bucket, filter: StepFilter| {
        let rows =
            f.db.aggregate_steps(
                groups,
                bucket,
                &[Figure::Count, Figure::MaxDurationMs],
                &filter,
            )
            .await
            .unwrap();
        rows.iter()
            .map(|row| {
                let group: Vec<_> = row
                    .group
                    .values()
                    .map(|value| value.clone().unwrap_or_default())
                    .collect();
                (
                    group.join(","),
                    row.count.unwrap(),
                    row.max_duration_ms.unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    let row = |group: &str, count, duration| (group.to_owned(), count, duration);
    assert_eq!(
        count(&[StepGroup::FunctionName], None, all()).await,
        [row("charge", 2, 900), row("ship", 1, 1500)]
    );
    assert_eq!(
        count(&[StepGroup::Status], None, all()).await,
        [row("ERROR", 1, 900), row("SUCCESS", 2, 1500)]
    );
    assert_eq!(
        count(&[], Some(1000), all()).await,
        [row("1000", 2, 900), row("2000", 1, 1500)]
    );
    let failed = StepFilter {
        statuses: strings(&["ERROR"]),
        workflow_id_prefixes: strings(&["w"]),
        ..all()
    };
    assert_eq!(
        count(&[StepGroup::FunctionName], None, failed).await,
        [row("charge", 1, 900)]
    );
    let window = StepFilter {
        completed_from: Some(1400),
        completed_to: Some(1400),
        ..all()
    };
    assert_eq!(
        count(&[StepGroup::FunctionName], None, window).await,
        [row("charge", 1, 400)]
    );
    let named = StepFilter {
        function_names: strings(&["ship"]),
        scope: Scope::All,
        ..StepFilter::default()
    };
    assert_eq!(
        count(&[StepGroup::FunctionName], None, named).await,
        [row("ship", 2, 1500)]
    );
    let metrics =
        f.db.workflow_and_step_counts(1400, 2500, &Scope::of("shop"))
            .await
            .unwrap();
    assert_eq!(
        metrics
            .iter()
            .map(|m| (m.metric_type, m.value))
            .collect::<Vec<_>>(),
        [("step_count", 2)]
    );
}
