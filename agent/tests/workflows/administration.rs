//! What operators do to runs and versions, and what they are told.

use std::time::Duration;

use segno::system_database::WorkflowGroup;
use segno::{Ctx, ErrorKind, Queue, Reason, Status};

use super::support::{Place, World, eventually, recorded, within};

on_both!(
    a_run_is_rewound_to_a_step_under_its_own_id,
    a_run_is_moved_to_another_database,
    runs_are_counted_by_what_they_have_in_common,
    the_latest_version_is_chosen,
    what_a_run_waits_for_is_told,
    runs_are_found_by_what_is_known_of_them,
    old_runs_are_deleted_where_that_is_wanted,
);

async fn three(ctx: Ctx<World>, fails: bool) -> segno::Result<u32> {
    let world = ctx.state();
    for step in ["one", "two", "three"] {
        ctx.step(step, || async {
            world.note(step);
            if fails && step == "two" && world.count("two") == 1 {
                return Err(segno::Error::message("the first time"));
            }
            Ok(())
        })
        .await?;
        ctx.set_event("at", step).await;
    }
    Ok(3)
}

async fn a_run_is_rewound_to_a_step_under_its_own_id(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("three", three);
    let app = app.launch().await.unwrap();
    let run = app.start(three, true).id("run").await.unwrap();
    assert_eq!(
        within(run.result()).await.unwrap_err().to_string(),
        "the first time"
    );
    app.rewind("run").to_failure().await.unwrap();
    let again = app.handle::<u32>("run").await.unwrap();
    assert_eq!(within(again).await.unwrap(), 3);
    assert_eq!(world.effects(), ["one", "two", "two", "three"]);

    app.rewind("run").to_step("three").await.unwrap();
    let again = app.handle::<u32>("run").await.unwrap();
    assert_eq!(within(again).await.unwrap(), 3);
    assert_eq!(world.count("three"), 2);
    assert_eq!(world.count("two"), 2);
    assert_eq!(
        recorded(&app, "run").await,
        [
            "one",
            "DBOS.setEvent",
            "two",
            "DBOS.setEvent",
            "three",
            "DBOS.setEvent"
        ]
    );
    let error = app.rewind("run").to_step("four").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    assert!(app.rewind("nobody").await.is_err());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_run_is_moved_to_another_database(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("three", three);
    let app = app.launch().await.unwrap();
    let run = app.start(three, false).id("run").await.unwrap();
    within(run).await.unwrap();
    let exported = app.export("run", true).await.unwrap();

    let elsewhere = Place::sqlite().await;
    let other = elsewhere.app(&World::new()).workflow("three", three);
    let other = other.launch().await.unwrap();
    assert_eq!(other.import(&exported).await.unwrap(), ["run"]);
    let moved = other.handle::<u32>("run").await.unwrap();
    assert_eq!(within(moved).await.unwrap(), 3);
    assert_eq!(recorded(&other, "run").await, recorded(&app, "run").await);
    let event = other.get_event::<String>("run", "at").await.unwrap();
    assert_eq!(event.as_deref(), Some("three"));
    assert!(
        other.import(&exported).await.is_err(),
        "it is there already"
    );
    assert!(other.import("nonsense").await.is_err());
    other.shutdown(Duration::from_secs(5)).await.unwrap();
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn runs_are_counted_by_what_they_have_in_common(place: &Place) {
    let world = World::new();
    world.note("two"); // nothing fails
    let app = place.app(&world).workflow("three", three);
    let app = app.launch().await.unwrap();
    for _ in 0..3 {
        within(app.run(three, false)).await.unwrap();
    }
    app.start(three, false).queue("nobody").await.unwrap();
    let rows = app.aggregate().name("three").by(WorkflowGroup::Status);
    let mut counts: Vec<_> = rows
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.group["status"].clone().unwrap(), row.count.unwrap()))
        .collect();
    counts.sort();
    assert_eq!(
        counts,
        [("ENQUEUED".to_owned(), 1), ("SUCCESS".to_owned(), 3)]
    );
    assert!(app.aggregate().await.is_err(), "by nothing");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn the_latest_version_is_chosen(place: &Place) {
    let world = World::new();
    let first = place.app(&world).executor_id("old").launch().await.unwrap();
    let second = place.app(&world).app_version("v2").launch().await.unwrap();
    assert_eq!(second.versions().list().await.unwrap(), ["v2", "v1"]);
    first.versions().set_latest("v1").await.unwrap();
    assert_eq!(
        second.versions().latest().await.unwrap().as_deref(),
        Some("v1")
    );
    let error = first.versions().set_latest("v3").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    second.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn waits(ctx: Ctx<World>, (): ()) -> segno::Result<()> {
    let world = ctx.state();
    let hour = Duration::from_secs(3600);
    ctx.recv::<()>("go").timeout(hour).await;
    ctx.step("flaky", || async {
        world.note("flaky");
        if world.count("flaky") == 1 {
            return Err(segno::Error::message("once"));
        }
        world.pass("flaky").await;
        Ok(())
    })
    .max_attempts(3)
    .interval(Duration::from_millis(1))
    .await?;
    ctx.sleep(hour).await;
    Ok(())
}

async fn what_a_run_waits_for_is_told(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("waits", waits);
    let app = app.queue(Queue::new("q").concurrency(1));
    let app = app.launch().await.unwrap();
    app.start(waits, ()).id("run").await.unwrap();
    let says = async |id: &str, text: &str| {
        eventually(text, || async {
            app.explain(id).await.unwrap().text == text
        })
        .await;
        app.explain(id).await.unwrap()
    };
    let told = says("run", "it waits for a message on `go`").await;
    assert_eq!(told.reason, Reason::Running);
    eventually("its deadline is known", || async {
        app.explain("run").await.unwrap().until.is_some()
    })
    .await;
    app.send("run", "go", &()).await.unwrap();
    says("run", "step `flaky` is running (attempt 2 of 3)").await;
    world.open("flaky");
    assert!(says("run", "it sleeps").await.until.is_some());
    app.cancel("run").await.unwrap();
    assert_eq!(app.explain("run").await.unwrap().reason, Reason::Ended);

    let full = app.start(waits, ()).id("first").queue("q").await.unwrap();
    says("first", "it waits for a message on `go`").await;
    app.start(waits, ()).id("second").queue("q").await.unwrap();
    assert_eq!(
        says("second", "it is the oldest that waits on `q`")
            .await
            .reason,
        Reason::Queued
    );
    full.cancel().await.unwrap();
    says("second", "it waits for a message on `go`").await;
    app.start(waits, ())
        .id("lost")
        .queue("nowhere")
        .await
        .unwrap();
    let lost = says("lost", "nobody registered its queue `nowhere`").await;
    assert_eq!(lost.reason, Reason::UnknownQueue);
    let later = app.start(waits, ()).id("later").queue("q");
    later.delay(Duration::from_secs(3600)).await.unwrap();
    let later = app.explain("later").await.unwrap();
    assert_eq!(later.reason, Reason::Delayed);
    assert!(later.until.is_some());
    let old = app.start(waits, ()).id("old").queue("q").app_version("v0");
    assert_eq!(old.await.unwrap().status().await.unwrap(), Status::Enqueued);
    let old = app.explain("old").await.unwrap();
    assert_eq!(old.reason, Reason::OtherVersion);
    let error = app.explain("nobody").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    app.abort().await;
}

async fn runs_are_found_by_what_is_known_of_them(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("three", three);
    let app = app.launch().await.unwrap();
    let failed = app.start(three, true).id("failed").attributes(
        &[("order", 7)]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>(),
    );
    let failed = failed.authenticated_as("ada", ["admin"]).await.unwrap();
    within(failed.result()).await.unwrap_err();
    within(app.run(three, false).id("fine")).await.unwrap();
    let fork = app.fork("failed").from_step("two").await.unwrap();
    within(app.handle::<u32>(&fork).await.unwrap())
        .await
        .unwrap();

    let ids = async |listing: segno::Workflows<'_>| {
        let mut ids: Vec<_> = listing
            .await
            .unwrap()
            .into_iter()
            .map(|run| run.id)
            .collect();
        ids.retain(|id| *id != fork);
        ids
    };
    assert_eq!(ids(app.workflows().failed_at("two")).await, ["failed"]);
    assert!(ids(app.workflows().failed_at("one")).await.is_empty());
    assert_eq!(ids(app.workflows().attribute("order", 7)).await, ["failed"]);
    assert!(ids(app.workflows().attribute("order", 8)).await.is_empty());
    assert_eq!(
        ids(app.workflows().authenticated_user("ada")).await,
        ["failed"]
    );
    assert_eq!(
        ids(app.workflows().is_fork(false)).await,
        ["failed", "fine"]
    );
    assert!(
        ids(app.workflows().is_fork(true)).await.is_empty(),
        "but the fork"
    );
    assert_eq!(ids(app.workflows().id("fine")).await, ["fine"]);
    let listed = app.workflows().id("failed").await.unwrap();
    assert_eq!(
        listed[0].attributes,
        Some(serde_json::json!({ "order": 7 }))
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn old_runs_are_deleted_where_that_is_wanted(place: &Place) {
    let world = World::new();
    world.note("two"); // nothing fails
    let app = || place.app(&world).workflow("three", three);
    let first = app().launch().await.unwrap();
    for id in ["old", "new"] {
        within(first.run(three, false).id(id)).await.unwrap();
    }
    let age = "UPDATE @workflow_status SET completed_at = completed_at - 7200000 WHERE workflow_uuid = 'old'";
    assert_eq!(place.execute(age).await, 1);
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    let keeping = app().retention(Duration::from_secs(3600));
    let keeping = keeping.launch().await.unwrap();
    eventually("the old one is gone", || async {
        keeping.workflows().await.unwrap().len() == 1
    })
    .await;
    assert_eq!(keeping.workflows().await.unwrap()[0].id, "new");
    assert_eq!(
        place.number("SELECT COUNT(*) FROM @workflow_output").await,
        1
    );
    keeping.shutdown(Duration::from_secs(5)).await.unwrap();
}
