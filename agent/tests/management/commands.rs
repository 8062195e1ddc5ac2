//! Cancel, resume, delete, recovery.

use std::collections::HashSet;

use crate::database_support::{Fixture, strings};
use crate::{rows, with_history};
use segno::system_database::{DatabaseError, Scope};

crate::on_both_databases!(
    cancel_stops_what_has_not_finished,
    cancel_reaches_descendants,
    resume_enqueues_what_has_not_finished,
    delete_leaves_nothing_behind,
    recovery_takes_only_its_own
);

const CANCELLED: [&str; 5] = [
    "status",
    "owner_xid",
    "queue_name",
    "deduplication_id",
    "started_at_epoch_ms",
];

async fn cancel_stops_what_has_not_finished(f: &Fixture) {
    let active = [
        ("owner_xid", "'token'"),
        ("queue_name", "'q'"),
        ("started_at_epoch_ms", "5"),
        ("application_name", "'other'"),
    ];
    f.workflow(
        "running",
        "PENDING",
        &[&active[..], &[("deduplication_id", "'d'")]].concat(),
    )
    .await;
    f.workflow("waiting", "ENQUEUED", &active).await;
    f.workflow("done", "SUCCESS", &active).await;
    f.workflow("failed", "ERROR", &active).await;

    let ids = strings(&["running", "waiting", "done", "failed", "unknown"]);
    assert_eq!(f.db.cancel_workflows(&ids, false).await.unwrap(), 2);
    assert_eq!(f.status("running", &CANCELLED).await, "CANCELLED|-|-|-|-");
    assert_eq!(f.status("waiting", &CANCELLED).await, "CANCELLED|-|-|-|-");
    assert_ne!(f.status("running", &["completed_at"]).await, "-");
    assert_eq!(f.status("done", &CANCELLED).await, "SUCCESS|token|q|-|5");
    assert_eq!(f.status("failed", &CANCELLED).await, "ERROR|token|q|-|5");
}

async fn cancel_reaches_descendants(f: &Fixture) {
    f.workflow("root", "PENDING", &[]).await;
    f.workflow(
        "finished-child",
        "SUCCESS",
        &[("parent_workflow_id", "'root'")],
    )
    .await;
    f.workflow(
        "grandchild",
        "DELAYED",
        &[("parent_workflow_id", "'finished-child'")],
    )
    .await;
    // A cycle cannot come about by itself, but must not hang either.
    f.run("UPDATE @workflow_status SET parent_workflow_id = 'grandchild' WHERE workflow_uuid = 'root'").await;

    assert_eq!(
        f.db.cancel_workflows(&strings(&["root"]), true)
            .await
            .unwrap(),
        2
    );
    assert_eq!(f.status("root", &["status"]).await, "CANCELLED");
    assert_eq!(f.status("finished-child", &["status"]).await, "SUCCESS");
    assert_eq!(f.status("grandchild", &["status"]).await, "CANCELLED");
}

async fn resume_enqueues_what_has_not_finished(f: &Fixture) {
    let spent = [
        ("recovery_attempts", "101"),
        ("owner_xid", "'token'"),
        ("workflow_deadline_epoch_ms", "1"),
        ("started_at_epoch_ms", "5"),
        ("completed_at", "6"),
        ("queue_partition_key", "'k'"),
    ];
    f.workflow("parked", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", &spent)
        .await;
    f.workflow("running", "PENDING", &spent).await;
    f.workflow("done", "SUCCESS", &spent).await;
    let columns = [
        "status",
        "queue_name",
        "recovery_attempts",
        "owner_xid",
        "workflow_deadline_epoch_ms",
        "started_at_epoch_ms",
        "completed_at",
        "queue_partition_key",
        "application_version",
    ];

    let refused =
        f.db.resume_workflows(&strings(&["parked", "x", "y"]), None)
            .await
            .unwrap_err();
    assert!(
        matches!(&refused, DatabaseError::NotFound { ids, .. } if ids == &["x", "y"]),
        "{refused}"
    );
    assert_eq!(
        f.status("parked", &["status"]).await,
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
        "nothing was changed"
    );

    assert_eq!(
        f.db.resume_workflows(&strings(&["parked", "done"]), None)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        f.status("parked", &columns).await,
        "ENQUEUED|_dbos_internal_queue|0|-|-|-|-|k|v1"
    );
    assert_eq!(
        f.status("done", &["status", "owner_xid"]).await,
        "SUCCESS|token"
    );
    assert_eq!(
        f.db.resume_workflows(&strings(&["running"]), Some("fast"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        f.status("running", &columns).await,
        "ENQUEUED|fast|0|-|-|-|-|k|v1"
    );
}

async fn delete_leaves_nothing_behind(f: &Fixture) {
    with_history(f).await;
    f.workflow("child", "PENDING", &[("parent_workflow_id", "'src'")])
        .await;
    f.workflow("bystander", "PENDING", &[]).await;
    assert_eq!(
        f.db.delete_workflows(&strings(&["unknown"]), true)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        f.db.delete_workflows(&strings(&["src"]), true)
            .await
            .unwrap(),
        2
    );
    assert_eq!(rows(f).await, 1, "only the bystander is left");

    f.workflow("parent", "SUCCESS", &[]).await;
    f.workflow("kept", "PENDING", &[("parent_workflow_id", "'parent'")])
        .await;
    assert_eq!(
        f.db.delete_workflows(&strings(&["parent"]), false)
            .await
            .unwrap(),
        1
    );
    assert_eq!(f.status("kept", &["status"]).await, "PENDING");
}

async fn recovery_takes_only_its_own(f: &Fixture) {
    let of = |executor: &'static str, queue: &'static str| {
        [
            ("executor_id", executor),
            ("queue_name", queue),
            ("owner_xid", "'t'"),
            ("started_at_epoch_ms", "5"),
        ]
    };
    f.workflow("direct", "PENDING", &of("'dead'", "NULL")).await;
    f.workflow("blank", "PENDING", &of("'dead'", "''")).await;
    f.workflow("queued", "PENDING", &of("'dead2'", "'q'")).await;
    f.workflow(
        "unowned",
        "PENDING",
        &[&of("'dead'", "NULL")[..], &[("application_name", "NULL")]].concat(),
    )
    .await;
    f.workflow("alive", "PENDING", &of("'alive'", "NULL")).await;
    f.workflow(
        "version",
        "PENDING",
        &[
            &of("'dead'", "NULL")[..],
            &[("application_version", "'v2'")],
        ]
        .concat(),
    )
    .await;
    f.workflow(
        "foreign",
        "PENDING",
        &[
            &of("'dead'", "NULL")[..],
            &[("application_name", "'other'")],
        ]
        .concat(),
    )
    .await;
    f.workflow("waiting", "ENQUEUED", &of("'dead'", "'q'"))
        .await;
    let shop = Scope::of("shop");
    let exist = async |executor: &str, version: &str| {
        f.db.exist_pending_workflows(executor, version, &shop)
            .await
            .unwrap()
    };
    assert!(exist("dead", "v1").await);
    assert!(exist("dead", "v2").await);
    assert!(!exist("dead", "v3").await);
    assert!(!exist("dead3", "v1").await);

    assert!(
        f.db.recover_executors(&[], "v1", &shop)
            .await
            .unwrap()
            .is_empty(),
        "nobody is not everybody"
    );
    let dead = strings(&["dead", "dead2", "dead3"]);
    let recovered: HashSet<_> =
        f.db.recover_executors(&dead, "v1", &shop)
            .await
            .unwrap()
            .into_iter()
            .collect();
    assert_eq!(
        recovered,
        ["direct", "blank", "queued", "unowned"]
            .map(str::to_owned)
            .into()
    );
    let columns = [
        "status",
        "queue_name",
        "owner_xid",
        "started_at_epoch_ms",
        "executor_id",
    ];
    assert_eq!(
        f.status("direct", &columns).await,
        "ENQUEUED|_dbos_internal_queue|-|-|dead"
    );
    assert_eq!(
        f.status("blank", &["queue_name"]).await,
        "_dbos_internal_queue"
    );
    assert_eq!(f.status("queued", &columns).await, "ENQUEUED|q|-|-|dead2");
    for untouched in ["alive", "version", "foreign"] {
        assert_eq!(
            f.status(untouched, &["status", "owner_xid"]).await,
            "PENDING|t",
            "{untouched}"
        );
    }
    assert!(!exist("dead", "v1").await);
    assert!(
        f.db.recover_executors(&dead, "v1", &shop)
            .await
            .unwrap()
            .is_empty(),
        "a second time finds nothing"
    );
}
