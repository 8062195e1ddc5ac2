//! Retention, export and import.

use std::collections::HashSet;

use crate::database_support::{Fixture, strings};
use crate::{listed, rows, with_history};
use segno::system_database::{DatabaseError, Retention, Scope, WorkflowFilter};

crate::on_both_databases!(
    retention_deletes_finished_history,
    old_active_workflows_are_cancelled,
    exports_can_be_imported,
    bad_imports_change_nothing
);

async fn retention_deletes_finished_history(f: &Fixture) {
    for n in 1..=9 {
        let time = format!("{}", n * 100);
        f.workflow(
            &format!("done-{n}"),
            "SUCCESS",
            &[("completed_at", &time), ("created_at", "1")],
        )
        .await;
        f.run(&format!("INSERT INTO @operation_outputs (workflow_uuid, function_id, retention_timestamp) VALUES ('done-{n}', 0, {time})")).await;
    }
    f.workflow(
        "no-time",
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
        &[("updated_at", "50")],
    )
    .await;
    f.workflow(
        "active",
        "PENDING",
        &[("created_at", "1"), ("updated_at", "1")],
    )
    .await;
    f.workflow(
        "foreign",
        "SUCCESS",
        &[("completed_at", "1"), ("application_name", "'other'")],
    )
    .await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES ('orphan', 'x', 5), ('young-orphan', 'x', 5000)").await;

    let round = |finished_before, keep_newest| Retention {
        finished_before,
        keep_newest,
        batch_size: 2,
        scope: Scope::of("shop"),
    };
    assert_eq!(f.db.delete_history(&round(None, None)).await.unwrap(), 0);
    assert_eq!(
        f.db.delete_history(&round(Some(400), None)).await.unwrap(),
        4
    );
    assert_eq!(
        f.texts("SELECT workflow_uuid FROM @workflow_input").await,
        ["young-orphan"]
    );
    // Six are left; of both limits the stricter one counts.
    assert_eq!(
        f.db.delete_history(&round(Some(500), Some(2)))
            .await
            .unwrap(),
        4
    );
    let left = listed(f, WorkflowFilter::default()).await;
    assert_eq!(
        left.into_iter().collect::<HashSet<_>>(),
        ["active", "foreign", "done-8", "done-9"]
            .map(str::to_owned)
            .into()
    );
    assert_eq!(
        f.texts("SELECT workflow_uuid FROM @operation_outputs ORDER BY 1")
            .await,
        ["done-8", "done-9"]
    );
}

async fn old_active_workflows_are_cancelled(f: &Fixture) {
    f.workflow("old", "DELAYED", &[("created_at", "100")]).await;
    f.workflow("young", "PENDING", &[("created_at", "101")])
        .await;
    f.workflow("done", "SUCCESS", &[("created_at", "1")]).await;
    f.workflow(
        "foreign",
        "PENDING",
        &[("created_at", "1"), ("application_name", "'other'")],
    )
    .await;
    assert_eq!(
        f.db.cancel_workflows_created_before(100, &Scope::of("shop"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(f.status("old", &["status"]).await, "CANCELLED");
    assert_eq!(f.status("young", &["status"]).await, "PENDING");
    assert_eq!(f.status("foreign", &["status"]).await, "PENDING");
}

async fn exports_can_be_imported(f: &Fixture) {
    with_history(f).await;
    f.workflow(
        "child",
        "SUCCESS",
        &[("parent_workflow_id", "'src'"), ("output", "'inline'")],
    )
    .await;
    let before = f.db.get_workflow("src", true, true).await.unwrap().unwrap();
    let steps = f.db.list_steps("src", true, None, None).await.unwrap();
    assert!(matches!(
        f.db.export_workflow("unknown", true).await,
        Err(DatabaseError::NotFound { .. })
    ));
    let blob = f.db.export_workflow("src", true).await.unwrap();

    let taken = f.db.import_workflows(&blob).await.unwrap_err();
    assert!(matches!(taken, DatabaseError::Conflict(_)), "{taken}");
    f.db.delete_workflows(&strings(&["src"]), true)
        .await
        .unwrap();
    assert_eq!(
        f.db.import_workflows(&blob).await.unwrap(),
        ["src", "child"]
    );

    assert_eq!(
        f.db.get_workflow("src", true, true).await.unwrap().unwrap(),
        before
    );
    assert_eq!(
        f.db.list_steps("src", true, None, None).await.unwrap(),
        steps
    );
    assert_eq!(f.db.workflow_streams("src").await.unwrap()[0].1.len(), 2);
    assert_eq!(
        f.texts("SELECT value FROM @workflow_events_history ORDER BY 1")
            .await,
        ["first", "second", "x"]
    );
    assert_eq!(
        f.db.get_workflow("child", false, true)
            .await
            .unwrap()
            .unwrap()
            .output
            .as_deref(),
        Some("inline")
    );
    assert!(
        f.db.workflow_messages("src").await.unwrap().is_empty(),
        "messages are not exported"
    );
}

fn packed(json: &serde_json::Value) -> String {
    use base64::Engine as _;
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(json.to_string().as_bytes()).unwrap();
    base64::engine::general_purpose::STANDARD.encode(encoder.finish().unwrap())
}

async fn bad_imports_change_nothing(f: &Fixture) {
    let good = serde_json::json!({"workflow_status": {
        "workflow_uuid": "ts", "status": "SUCCESS", "created_at": "1700000000000", "priority": 0, "was_forked_from": false,
        "output": "{\"json\":1}", "serialization": "js_superjson", "attributes": {"k": 1}, "some_new_column": 3}});
    let with = |key: &str, value: serde_json::Value| {
        let mut workflow = good.clone();
        workflow[key] = value;
        packed(&serde_json::json!([good, workflow]))
    };
    for bad in [
        "no base64!".to_owned(),
        "aGVsbG8=".to_owned(),
        packed(&serde_json::json!({})),
        packed(&serde_json::json!([good, {}])),
        packed(
            &serde_json::json!([good, {"workflow_status": {"workflow_uuid": "x", "created_at": "soon"}}]),
        ),
        with(
            "workflow_status",
            serde_json::json!({"workflow_uuid": "t2", "status": 3, "created_at": []}),
        ),
        with(
            "operation_outputs",
            serde_json::json!([{"workflow_uuid": "somebody else", "function_id": 0}]),
        ),
    ] {
        f.db.import_workflows(&bad).await.unwrap_err();
    }
    assert_eq!(rows(f).await, 0);

    f.db.import_workflows(&packed(&serde_json::json!([good])))
        .await
        .unwrap();
    let row = f.db.get_workflow("ts", true, true).await.unwrap().unwrap();
    assert_eq!(
        (row.created_at, row.output.as_deref()),
        (1_700_000_000_000, Some("{\"json\":1}"))
    );
    assert_eq!(
        f.texts("SELECT output FROM @workflow_output").await,
        ["{\"json\":1}"]
    );
}
