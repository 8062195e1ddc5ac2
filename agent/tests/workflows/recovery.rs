//! Who runs what: two processes, versions, hand-back, runs that are given up.

use std::time::Duration;

use segno::{Ctx, ErrorKind, Status};

use super::support::{Place, World, eventually, recorded, within};

on_both!(
    of_two_executions_the_one_without_the_row_stops_and_learns_the_outcome,
    what_still_runs_at_shutdown_is_handed_back,
    shutdown_does_not_wait_for_sleepers,
    shutdown_waits_for_what_can_finish_and_refuses_what_is_new,
    work_waits_for_an_executor_of_its_version,
    work_without_a_version_goes_to_the_latest,
    an_executor_leaves_what_it_does_not_know,
    a_run_that_kills_its_process_is_set_aside,
    a_start_is_recovered_for_others_on_command,
    settings_that_cannot_work_are_refused_at_launch,
);

async fn two(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    let one = ctx
        .step("one", || async {
            world.note("one begins");
            world.pass("one").await;
            world.note("one");
            Ok(1)
        })
        .await?;
    let two = ctx
        .step("two", || async {
            world.note("two");
            Ok(2)
        })
        .await?;
    Ok(one + two)
}

async fn of_two_executions_the_one_without_the_row_stops_and_learns_the_outcome(place: &Place) {
    let slow = World::new();
    let first = place
        .app(&slow)
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    let handle = first.start(two, ()).id("run").await.unwrap();
    slow.saw("one begins").await;

    // A second process comes up under the same id and takes the run, while the first still works on it.
    let quick = World::new();
    quick.open("one");
    let second = place
        .app(&quick)
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    // Both listen to the queue that it was returned to, and the first may be the faster one: then once more.
    let mut begun = 1;
    while quick.count("one begins") == 0 {
        eventually("one of the two takes it", || async {
            quick.count("one begins") > 0 || slow.count("one begins") > begun
        })
        .await;
        if quick.count("one begins") == 0 {
            begun = slow.count("one begins");
            let own = [second.executor_id().to_owned()];
            assert_eq!(second.recover(&own).await.unwrap(), 1);
        }
    }
    assert_eq!(
        within(second.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        3
    );
    assert_eq!(quick.effects(), ["one begins", "one", "two"]);

    slow.open("one");
    assert_eq!(within(handle).await.unwrap(), 3);
    assert_eq!(slow.count("two"), 0, "the loser went no further");
    assert_eq!(recorded(&second, "run").await, ["one", "two"]);
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    second.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn what_still_runs_at_shutdown_is_handed_back(place: &Place) {
    let stuck = World::new();
    let leaving = place
        .app(&stuck)
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    for run in 0..3 {
        leaving
            .start(two, ())
            .id(format!("run-{run}"))
            .await
            .unwrap();
    }
    eventually("all run", || async { stuck.count("one begins") == 3 }).await;

    let world = World::new();
    world.open("one");
    let staying = place
        .app(&world)
        .executor_id("two")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    leaving.shutdown(Duration::from_millis(50)).await.unwrap();
    for run in 0..3 {
        assert_eq!(
            within(staying.handle::<u32>(&format!("run-{run}")).await.unwrap())
                .await
                .unwrap(),
            3
        );
    }
    assert_eq!(world.count("one"), 3);
    staying.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn shutdown_waits_for_what_can_finish_and_refuses_what_is_new(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    let handle = app.start(two, ()).id("run").await.unwrap();
    world.saw("one begins").await;
    let leaving = tokio::spawn({
        let app = app.clone();
        async move { app.shutdown(Duration::from_secs(50)).await }
    });
    eventually("new work is refused", || async {
        matches!(app.start(two, ()).id("x").await, Err(error) if *error.kind() == ErrorKind::ShuttingDown)
    })
    .await;
    world.open("one");
    assert_eq!(within(handle).await.unwrap(), 3);
    within(leaving).await.unwrap().unwrap();
}

async fn sleeper(ctx: Ctx<World>, seconds: u64) -> segno::Result<()> {
    ctx.sleep(Duration::from_secs(seconds)).await;
    Ok(())
}

async fn shutdown_does_not_wait_for_sleepers(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("sleeper", sleeper)
        .launch()
        .await
        .unwrap();
    app.start(sleeper, 3600).id("long").await.unwrap();
    app.start(sleeper, 1).id("short").await.unwrap();
    eventually("both sleep", || async {
        place
            .number("SELECT COUNT(*) FROM @operation_outputs")
            .await
            == 2
    })
    .await;
    let begun = std::time::Instant::now();
    app.shutdown(Duration::from_secs(50)).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}",
        begun.elapsed()
    );
    let count = async |id: &str, status: &str| {
        let count = "SELECT COUNT(*) FROM @workflow_status WHERE workflow_uuid = ";
        place
            .number(&format!("{count}'{id}' AND status = '{status}'"))
            .await
    };
    assert_eq!(count("long", "ENQUEUED").await, 1);
    assert_eq!(count("short", "SUCCESS").await, 1);
}

async fn work_waits_for_an_executor_of_its_version(place: &Place) {
    let old = World::new();
    let crashing = place.app(&old).workflow("two", two).launch().await.unwrap();
    crashing.start(two, ()).id("run").await.unwrap();
    old.saw("one begins").await;
    crashing.abort().await;

    // The same executor id under another version: neither recovered nor, once enqueued, taken.
    let new = World::new();
    new.open("one");
    let v2 = place
        .app(&new)
        .app_version("v2")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    let handle = v2.handle::<u32>("run").await.unwrap();
    assert_eq!(v2.recover(&["one".into()]).await.unwrap(), 0);
    assert_eq!(handle.status().await.unwrap(), Status::Pending);
    v2.resume("run").await.unwrap();
    // What v2 enqueues for itself afterwards is done before the other version's run is even begun.
    within(v2.run(two, ()).id("other").queue("_dbos_internal_queue"))
        .await
        .unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Enqueued);

    let world = World::new();
    world.open("one");
    let v1 = place
        .app(&world)
        .executor_id("three")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    assert_eq!(within(handle).await.unwrap(), 3);
    assert_eq!(world.count("two"), 1);
    v1.shutdown(Duration::from_secs(5)).await.unwrap();
    v2.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn work_without_a_version_goes_to_the_latest(place: &Place) {
    let (old, new) = (World::new(), World::new());
    old.open("one");
    new.open("one");
    let v1 = place.app(&old).workflow("two", two).launch().await.unwrap();
    let v2 = place
        .app(&new)
        .executor_id("two")
        .app_version("v2")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    for run in 0..5 {
        // As a client of another language enqueues.
        place
            .execute(&format!(
                "INSERT INTO @workflow_status (workflow_uuid, status, name, queue_name, serialization, application_name) \
                 VALUES ('run-{run}', 'ENQUEUED', 'two', '_dbos_internal_queue', 'portable_json', 'test-app')"
            ))
            .await;
        v1.wake();
        v2.wake();
        assert_eq!(
            within(v1.handle::<u32>(&format!("run-{run}")).await.unwrap())
                .await
                .unwrap(),
            3
        );
    }
    assert!(old.effects().is_empty());
    assert!(
        v1.workflows()
            .await
            .unwrap()
            .iter()
            .all(|run| run.app_version.as_deref() == Some("v2"))
    );
    v1.shutdown(Duration::from_secs(5)).await.unwrap();
    v2.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn an_executor_leaves_what_it_does_not_know(place: &Place) {
    let world = World::new();
    world.open("one");
    let app = place
        .app(&world)
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    for (id, name, application) in [("a", "unknown", "test-app"), ("b", "two", "another-app")] {
        place
            .execute(&format!(
                "INSERT INTO @workflow_status (workflow_uuid, status, name, queue_name, application_version, application_name) \
                 VALUES ('{id}', 'ENQUEUED', '{name}', '_dbos_internal_queue', 'v1', '{application}')"
            ))
            .await;
    }
    // Later in the queue, and yet done: the others were looked at and left.
    within(app.run(two, ()).queue("_dbos_internal_queue"))
        .await
        .unwrap();
    for id in ["a", "b"] {
        assert_eq!(
            app.handle::<u32>(id).await.unwrap().status().await.unwrap(),
            Status::Enqueued
        );
    }
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn doomed(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    world.note("begins");
    if world.count("begins") <= 3 {
        panic!("out of luck");
    }
    Ok(1)
}

async fn a_run_that_kills_its_process_is_set_aside(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("doomed", doomed)
        .max_recovery_attempts(2)
        .launch()
        .await
        .unwrap();
    let error = within(app.run(doomed, ()).id("run")).await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::Panicked {
            id: "run".into(),
            message: "out of luck".into()
        }
    );
    let handle = app.handle::<u32>("run").await.unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Pending);
    for attempts in 2..=3 {
        assert_eq!(app.recover(&["one".into()]).await.unwrap(), 1);
        eventually("it ran again", || async {
            let run = app.workflows().id_prefix("run").await.unwrap().remove(0);
            world.count("begins") == attempts && run.status == Status::Pending
        })
        .await;
    }
    assert_eq!(app.recover(&["one".into()]).await.unwrap(), 1);
    let error = within(handle.result()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::AwaitedParked { id: "run".into() });
    assert_eq!(world.count("begins"), 3, "it was not run a fourth time");
    app.resume("run").await.unwrap();
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        1
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_start_is_recovered_for_others_on_command(place: &Place) {
    let dead = World::new();
    let crashing = place
        .app(&dead)
        .executor_id("dead")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    crashing.start(two, ()).id("run").await.unwrap();
    dead.saw("one begins").await;
    crashing.abort().await;

    let world = World::new();
    world.open("one");
    let app = place
        .app(&world)
        .executor_id("alive")
        .workflow("two", two)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        app.recover(&["dead".into(), "never lived".into()])
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        3
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn settings_that_cannot_work_are_refused_at_launch(place: &Place) {
    let world = World::new();
    let twice = place
        .app(&world)
        .workflow("two", two)
        .workflow("too", two)
        .launch()
        .await
        .unwrap_err();
    assert!(twice.to_string().contains("`two` and as `too`"), "{twice}");
    let twice = place
        .app(&world)
        .workflow("two", two)
        .workflow("two", doomed)
        .launch()
        .await
        .unwrap_err();
    assert!(twice.to_string().contains("two functions"), "{twice}");
    let url = place
        .app(&world)
        .database_url("mysql://user:secret@host/db")
        .launch()
        .await
        .unwrap_err();
    assert!(
        url.to_string().starts_with("database_url") && !url.to_string().contains("secret"),
        "{url}"
    );
    let server = place
        .app(&world)
        .control_plane("not a url", "key")
        .launch()
        .await
        .unwrap_err();
    assert!(
        matches!(server.kind(), ErrorKind::Config { setting, .. } if setting == "control_plane"),
        "{server}"
    );
}
