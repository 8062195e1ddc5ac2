//! Versions, queues and schedules.

use crate::database_support::{Fixture, strings};
use segno::system_database::{DatabaseError, ScheduleFilter, Scope};

crate::on_both_databases!(
    versions_are_unique_and_the_newest_is_latest,
    queues_and_schedules_are_read,
    schedules_are_paused_and_triggered
);

async fn versions_are_unique_and_the_newest_is_latest(f: &Fixture) {
    let shop = Scope::of("shop");
    let names = async |scope: &Scope| {
        f.db.list_versions(scope)
            .await
            .unwrap()
            .into_iter()
            .map(|v| v.version_name)
            .collect::<Vec<_>>()
    };
    assert_eq!(f.db.latest_version(&shop).await.unwrap(), None);
    f.db.register_version("shop", "v1").await.unwrap();
    f.run("UPDATE @application_versions SET version_timestamp = 10")
        .await;
    f.db.register_version("shop", "v2").await.unwrap();
    f.db.register_version("shop", "v1").await.unwrap();
    assert_eq!(
        names(&shop).await,
        ["v2", "v1"],
        "launching a known version again does not promote it"
    );
    assert_eq!(
        f.db.latest_version(&shop).await.unwrap().as_deref(),
        Some("v2")
    );

    f.run("UPDATE @application_versions SET version_timestamp = 20 WHERE version_name = 'v2'")
        .await;
    f.db.set_latest_version("shop", "v1").await.unwrap();
    assert_eq!(names(&shop).await, ["v1", "v2"]);
    f.db.set_latest_version("shop", "unknown").await.unwrap();
    assert_eq!(names(&shop).await.len(), 2);

    for refused in [
        f.db.register_version("other", "v1").await,
        f.db.set_latest_version("other", "v1").await,
    ] {
        assert!(matches!(refused, Err(DatabaseError::Conflict(reason)) if reason.contains("shop")));
    }
    f.run("INSERT INTO @application_versions (version_id, version_name, version_timestamp) VALUES ('u', 'unclaimed', 5)").await;
    assert_eq!(names(&Scope::of("other")).await, ["unclaimed"]);
    f.db.register_version("other", "unclaimed").await.unwrap();
    assert_eq!(names(&shop).await, ["v1", "v2"], "it has an owner now");
    assert_eq!(
        f.db.list_versions(&Scope::of("other")).await.unwrap()[0].version_timestamp,
        5
    );
}

async fn queues_and_schedules_are_read(f: &Fixture) {
    f.run("INSERT INTO @queues (name, concurrency, rate_limit_max, rate_limit_period_sec, polling_interval_sec, partition_concurrency, application_name) \
           VALUES ('mail', 3, 5, 0.5, 2.5, 1, 'shop'), ('foreign', NULL, NULL, NULL, 1.0, NULL, 'other')")
        .await;
    let queues = f.db.list_queues(&Scope::of("shop")).await.unwrap();
    assert_eq!(queues.len(), 1);
    assert_eq!(
        (
            queues[0].name.as_str(),
            queues[0].concurrency,
            queues[0].partition_concurrency
        ),
        ("mail", Some(3), Some(1))
    );
    assert_eq!(
        (
            queues[0].rate_limit_period_sec,
            queues[0].polling_interval_sec
        ),
        (Some(0.5), 2.5)
    );
    assert_eq!(
        f.db.get_queue("foreign")
            .await
            .unwrap()
            .unwrap()
            .worker_concurrency,
        None
    );
    assert!(f.db.get_queue("none").await.unwrap().is_none());

    for (name, workflow, status, app) in [
        ("a-daily", "report", "ACTIVE", "'shop'"),
        ("b-daily", "clean", "PAUSED", "NULL"),
        ("c", "clean", "ACTIVE", "'other'"),
    ] {
        f.run(&format!(
            "INSERT INTO @workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, status, context, application_name) \
             VALUES ('{name}', '{name}', '{workflow}', '0 0 * * *', '{status}', 'null', {app})"
        ))
        .await;
    }
    let list = async |filter: ScheduleFilter| {
        f.db.list_schedules(&filter)
            .await
            .unwrap()
            .into_iter()
            .map(|s| s.schedule_name)
            .collect::<Vec<_>>()
    };
    let all = || ScheduleFilter {
        scope: Scope::of("shop"),
        ..ScheduleFilter::default()
    };
    assert_eq!(list(all()).await, ["a-daily", "b-daily"]);
    assert_eq!(
        list(ScheduleFilter {
            statuses: strings(&["PAUSED"]),
            ..all()
        })
        .await,
        ["b-daily"]
    );
    assert_eq!(
        list(ScheduleFilter {
            workflow_names: strings(&["report"]),
            ..all()
        })
        .await,
        ["a-daily"]
    );
    assert_eq!(
        list(ScheduleFilter {
            name_prefixes: strings(&["b", "c"]),
            scope: Scope::All,
            ..all()
        })
        .await,
        ["b-daily", "c"]
    );
}

async fn schedules_are_paused_and_triggered(f: &Fixture) {
    f.run("INSERT INTO @workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, context, queue_name, application_name) \
           VALUES ('1', 'nightly', 'report', '0 0 * * *', '{\"deep\": true}', 'q', 'shop'), ('2', 'pickled', 'x', '0 0 * * *', 'gASV', NULL, 'shop')")
        .await;
    assert!(f.db.set_schedule_paused("nightly", true).await.unwrap());
    assert_eq!(
        f.db.get_schedule("nightly").await.unwrap().unwrap().status,
        "PAUSED"
    );
    assert!(!f.db.set_schedule_paused("unknown", true).await.unwrap());

    assert!(matches!(
        f.db.trigger_schedule("unknown", "shop").await,
        Err(DatabaseError::NotFound { .. })
    ));
    assert!(matches!(
        f.db.trigger_schedule("pickled", "shop").await,
        Err(DatabaseError::Invalid(_))
    ));
    assert!(matches!(
        f.db.trigger_schedule("nightly", "shop").await,
        Err(DatabaseError::Conflict(_))
    ));
    f.db.register_version("shop", "v9").await.unwrap();
    let (one, two) = (
        f.db.trigger_schedule("nightly", "shop").await.unwrap(),
        f.db.trigger_schedule("nightly", "shop").await.unwrap(),
    );
    assert_ne!(one, two);
    assert!(one.starts_with("sched-nightly-trigger-"), "{one}");
    let columns = [
        "status",
        "name",
        "queue_name",
        "schedule_name",
        "application_version",
        "application_name",
        "serialization",
    ];
    assert_eq!(
        f.status(&one, &columns).await,
        "ENQUEUED|report|q|nightly|v9|shop|portable_json"
    );
    let inputs =
        f.db.get_workflow(&one, true, false)
            .await
            .unwrap()
            .unwrap()
            .inputs
            .unwrap();
    let inputs: serde_json::Value = serde_json::from_str(&inputs).unwrap();
    assert_eq!(
        inputs["positionalArgs"][1],
        serde_json::json!({"deep": true})
    );
}
