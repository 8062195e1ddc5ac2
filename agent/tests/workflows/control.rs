//! Cancelling, resuming, deadlines, queues.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use segno::{Ctx, ErrorKind, Status, WorkflowRef};

use super::support::{Place, World, eventually, recorded, within};

on_both!(
    cancelling_drops_the_body_at_its_next_durable_call,
    cancelling_wakes_a_sleeper,
    a_cancelled_run_goes_on_where_it_was_when_resumed,
    a_deadline_cancels_the_run_and_its_children,
    a_parent_sees_that_its_child_was_cancelled,
    a_queue_without_limits_is_worked_on_by_priority,
    a_delayed_start_waits,
    a_deduplication_id_is_held_while_the_run_is_active,
    deleting_leaves_nothing,
);

/// Tells the world when it is dropped.
struct Guard(World);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

async fn guarded(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    let _guard = Guard(world.clone());
    let one = ctx
        .step("one", || async {
            world.note("one begins");
            world.pass("one").await;
            world.note("one");
            Ok(1)
        })
        .await;
    // A body cannot take cancellation for an error and go on.
    world.note(format!("one gave {one:?}"));
    let two = ctx
        .step("two", || async {
            world.note("two");
            Ok(2)
        })
        .await?;
    Ok(one? + two)
}

async fn cancelling_drops_the_body_at_its_next_durable_call(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("guarded", guarded)
        .launch()
        .await
        .unwrap();
    let handle = app.start(guarded, ()).id("run").await.unwrap();
    world.saw("one begins").await;
    assert_eq!(app.cancel("run").await.unwrap(), 1);
    assert_eq!(handle.status().await.unwrap(), Status::Cancelled);
    assert_eq!(world.count("dropped"), 0, "a step that runs is not torn");
    world.open("one");
    let error = within(handle.result()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Cancelled { id: "run".into() });
    world.saw("dropped").await;
    assert_eq!(world.effects(), ["one begins", "one", "dropped"]);
    assert!(
        recorded(&app, "run").await.is_empty(),
        "nothing is recorded after the cancellation"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn sleeper(ctx: Ctx<World>, (): ()) -> segno::Result<()> {
    let _guard = Guard(ctx.state().clone());
    ctx.sleep(Duration::from_secs(3600)).await;
    Ok(())
}

async fn cancelling_wakes_a_sleeper(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("sleeper", sleeper)
        .launch()
        .await
        .unwrap();
    app.start(sleeper, ()).id("run").await.unwrap();
    eventually("it sleeps", || async {
        recorded(&app, "run").await == ["DBOS.sleep"]
    })
    .await;
    // As an operator's tool in another process would do it: no word to this one.
    place
        .execute("UPDATE @workflow_status SET status = 'CANCELLED', owner_xid = NULL")
        .await;
    world.saw("dropped").await;
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_cancelled_run_goes_on_where_it_was_when_resumed(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("guarded", guarded)
        .launch()
        .await
        .unwrap();
    app.start(guarded, ()).id("run").await.unwrap();
    world.saw("one begins").await;
    app.cancel("run").await.unwrap();
    world.open("one");
    world.saw("dropped").await;
    app.resume("run").await.unwrap();
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        3
    );
    assert_eq!(world.count("one"), 2, "the interrupted step ran again");
    assert_eq!(recorded(&app, "run").await, ["one", "two"]);

    let error = app.resume("nobody").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { .. }));
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn keeper(ctx: Ctx<World>, (): ()) -> segno::Result<()> {
    let _guard = Guard(ctx.state().clone());
    ctx.run(sleeper, ()).await
}

async fn a_deadline_cancels_the_run_and_its_children(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("sleeper", sleeper)
        .workflow("keeper", keeper)
        .launch()
        .await
        .unwrap();
    let error = within(
        app.run(keeper, ())
            .id("run")
            .timeout(Duration::from_millis(300)),
    )
    .await
    .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Cancelled { id: "run".into() });
    let child = app.handle::<()>("run-0").await.unwrap();
    eventually("the child is cancelled", || async {
        child.status().await.unwrap() == Status::Cancelled
    })
    .await;
    eventually("both are dropped", || async { world.count("dropped") == 2 }).await;
    let late = app
        .run(sleeper, ())
        .deadline(SystemTime::now() - Duration::from_secs(1));
    assert!(matches!(
        within(late).await.unwrap_err().kind(),
        ErrorKind::Cancelled { .. }
    ));
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn minder(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    let child = ctx.start(sleeper, ()).await?;
    let error = child.await.unwrap_err();
    Ok(format!("{:?}", error.kind()))
}

async fn a_parent_sees_that_its_child_was_cancelled(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("sleeper", sleeper)
        .workflow("minder", minder)
        .launch()
        .await
        .unwrap();
    let parent = app.start(minder, ()).id("run").await.unwrap();
    eventually("the child sleeps", || async {
        place
            .number("SELECT COUNT(*) FROM @operation_outputs WHERE workflow_uuid = 'run-0'")
            .await
            == 1
    })
    .await;
    app.cancel("run-0").await.unwrap();
    assert_eq!(
        within(parent).await.unwrap(),
        r#"AwaitedCancelled { id: "run-0" }"#
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn note(ctx: Ctx<World>, text: String) -> segno::Result<()> {
    let world = ctx.state();
    ctx.step("note", || async {
        world.note(&text);
        Ok(())
    })
    .await
}

const NOTE: WorkflowRef<String, ()> = WorkflowRef::new("note");

async fn queue(place: &Place, name: &str) {
    place
        .execute(&format!(
            "INSERT INTO @queues (queue_id, name) VALUES ('{name}', '{name}')"
        ))
        .await;
}

async fn a_queue_without_limits_is_worked_on_by_priority(place: &Place) {
    // Somebody else enqueues while nobody works.
    let client = place
        .app(&World::new())
        .executor_id("client")
        .launch()
        .await
        .unwrap();
    queue(place, "notes").await;
    for (text, priority) in [("late", 9), ("first", 0), ("soon", 5)] {
        client
            .start(NOTE, text.into())
            .id(text)
            .queue("notes")
            .priority(priority)
            .await
            .unwrap();
    }
    assert_eq!(
        client
            .handle::<()>("late")
            .await
            .unwrap()
            .status()
            .await
            .unwrap(),
        Status::Enqueued
    );

    let world = World::new();
    let app = place
        .app(&world)
        .workflow("note", note)
        .launch()
        .await
        .unwrap();
    for id in ["late", "first", "soon"] {
        within(client.handle::<()>(id).await.unwrap())
            .await
            .unwrap();
    }
    let mut started = app.workflows().queue("notes").await.unwrap();
    assert!(
        started
            .iter()
            .all(|run| run.executor_id.as_deref() == Some("one") && run.attempts == 1)
    );
    started.sort_by_key(|run| run.created_at);
    assert_eq!(world.effects().len(), 3);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    client.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_delayed_start_waits(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("note", note)
        .launch()
        .await
        .unwrap();
    queue(place, "notes").await;
    let delay = Duration::from_millis(1200);
    let begun = std::time::Instant::now();
    let handle = app
        .start(note, "x".into())
        .queue("notes")
        .delay(delay)
        .await
        .unwrap();
    assert_eq!(handle.status().await.unwrap(), Status::Delayed);
    within(handle).await.unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_deduplication_id_is_held_while_the_run_is_active(place: &Place) {
    let app = Arc::new(
        place
            .app(&World::new())
            .workflow("note", note)
            .launch()
            .await
            .unwrap(),
    );
    let enqueue = |queue: &'static str| {
        app.start(note, "x".into())
            .queue(queue)
            .deduplication_id("d")
    };
    let first = enqueue("idle").await.unwrap();
    let error = enqueue("idle").await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::Deduplicated {
            queue: "idle".into(),
            deduplication_id: "d".into()
        }
    );
    enqueue("other").await.unwrap();
    app.cancel(first.id()).await.unwrap();
    enqueue("idle").await.unwrap();
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn deleting_leaves_nothing(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("note", note)
        .launch()
        .await
        .unwrap();
    app.run(note, "x".into()).id("run").await.unwrap();
    assert_eq!(app.delete("run").await.unwrap(), 1);
    for table in [
        "workflow_status",
        "workflow_input",
        "workflow_output",
        "operation_outputs",
    ] {
        assert_eq!(
            place
                .number(&format!("SELECT COUNT(*) FROM @{table}"))
                .await,
            0,
            "{table}"
        );
    }
    assert!(matches!(
        app.handle::<()>("run").await.unwrap_err().kind(),
        ErrorKind::NotFound { .. }
    ));
    // The id is free again, and nothing of the old run is taken for the new one's.
    app.run(note, "y".into()).id("run").await.unwrap();
    assert_eq!(world.effects(), ["x", "y"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
