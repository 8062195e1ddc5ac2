//! What may come out differently the next time and must not: values, races, changes of code, whom a run
//! is for.

use std::time::{Duration, SystemTime};

use segno::{Ctx, ErrorKind, OnConflict, WorkflowRef};
use serde_json::json;

use super::support::{Place, World, eventually, recorded, within};

on_both!(
    time_ids_and_chance_are_those_of_the_first_execution,
    the_winner_of_a_race_wins_it_again,
    a_message_taken_by_the_loser_of_a_race_is_not_lost,
    runs_stay_on_their_side_of_a_patch,
    the_first_of_several_children_stays_the_first,
    children_are_started_together,
    a_start_joins_or_refuses_a_run_of_its_id,
    a_held_deduplication_id_gives_its_holder,
    attributes_and_user_come_along,
    a_step_may_be_told_of_its_cancellation,
);

const LONG: Duration = Duration::from_secs(3600);

/// Waits at a gate inside a step.
async fn gate(ctx: &Ctx<World>, name: &str) -> segno::Result<()> {
    ctx.step("gate", || async {
        ctx.state().note(name);
        ctx.state().pass(name).await;
        Ok(())
    })
    .await
}

async fn values(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    let now = ctx.now().await;
    assert!(now <= SystemTime::now());
    let values = format!("{now:?} {} {}", ctx.uuid().await, ctx.random().await);
    ctx.state().note(&values);
    gate(&ctx, "gate").await?;
    Ok(values)
}

async fn time_ids_and_chance_are_those_of_the_first_execution(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("values", values);
    let app = app.launch().await.unwrap();
    app.start(values, ()).id("run").await.unwrap();
    world.saw("gate").await;
    app.abort().await;

    let again = World::new();
    again.open("gate");
    let app = place.app(&again).workflow("values", values);
    let app = app.launch().await.unwrap();
    let run = app.handle::<String>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), world.effects()[0]);
    assert_eq!(
        recorded(&app, "run").await,
        ["DBOS.now", "DBOS.randomUUID", "DBOS.random", "gate"]
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn race(ctx: Ctx<World>, (): ()) -> segno::Result<&'static str> {
    // The arms may use `?` and borrow.
    let winner = segno::select! {
        message = ctx.recv::<u32>("a").timeout(LONG) => match message {
            Some(_) => "message",
            None => return Err(segno::Error::message("never")),
        },
        done = ctx.step("work", || async {
            ctx.state().pass("work").await;
            Ok(())
        }) => {
            done?;
            "step"
        },
        () = ctx.sleep(LONG) => "sleep",
    };
    ctx.state().note(winner);
    gate(&ctx, "gate").await?;
    Ok(winner)
}

async fn the_winner_of_a_race_wins_it_again(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("race", race_text);
    let app = app.launch().await.unwrap();
    app.start(race_text, ()).id("run").await.unwrap();
    world.open("work");
    world.saw("step").await;
    world.saw("gate").await;
    app.abort().await;

    // Now the message would be first.
    let world = World::new();
    let other = place.app(&World::new()).executor_id("two");
    let other = other.launch().await.unwrap();
    other.send("run", "a", &1).await.unwrap();
    world.open("gate");
    let app = place.app(&world).workflow("race", race_text);
    let app = app.launch().await.unwrap();
    let run = app.handle::<String>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), "step");
    assert_eq!(world.effects(), ["step", "gate"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn race_text(ctx: Ctx<World>, input: ()) -> segno::Result<String> {
    race(ctx, input).await.map(str::to_owned)
}

/// Both arms are ready at once; what the loser took is received afterwards.
async fn both_ready(ctx: Ctx<World>, (): ()) -> segno::Result<Vec<Option<u32>>> {
    gate(&ctx, "sent").await?;
    let first = segno::select! {
        a = ctx.recv::<u32>("a").timeout(LONG) => a,
        b = ctx.recv::<u32>("b").timeout(LONG) => b,
    };
    let a = ctx.recv("a").timeout(Duration::ZERO).await;
    let b = ctx.recv("b").timeout(Duration::ZERO).await;
    let mut received = vec![first, a, b];
    received.retain(Option::is_some);
    received.sort_unstable();
    Ok(received)
}

async fn a_message_taken_by_the_loser_of_a_race_is_not_lost(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("both_ready", both_ready);
    let app = app.launch().await.unwrap();
    let mut runs = Vec::new();
    for number in 0..20 {
        let run = app.start(both_ready, ()).id(format!("run-{number}"));
        let run = run.await.unwrap();
        app.send(run.id(), "a", &1).await.unwrap();
        app.send(run.id(), "b", &2).await.unwrap();
        runs.push(run);
    }
    world.open("sent");
    for run in runs {
        assert_eq!(within(run).await.unwrap(), [Some(1), Some(2)]);
    }
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn before_patch(ctx: Ctx<World>, (): ()) -> segno::Result<&'static str> {
    ctx.step("one", || async { Ok(()) }).await?;
    gate(&ctx, "gate").await?;
    Ok("old")
}

async fn version_one(ctx: Ctx<World>, input: ()) -> segno::Result<String> {
    before_patch(ctx, input).await.map(str::to_owned)
}

/// The change puts another step before the gate.
async fn version_two(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    ctx.step("one", || async { Ok(()) }).await?;
    let new = ctx.patch("extra").await;
    if new {
        ctx.step("extra", || async { Ok(()) }).await?;
    }
    gate(&ctx, "gate").await?;
    Ok(if new { "new" } else { "old" }.to_owned())
}

/// No run needs the old path any more.
async fn version_three(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    ctx.step("one", || async { Ok(()) }).await?;
    ctx.deprecate_patch("extra");
    ctx.step("extra", || async { Ok(()) }).await?;
    gate(&ctx, "gate").await?;
    Ok("new".to_owned())
}

async fn runs_stay_on_their_side_of_a_patch(place: &Place) {
    // A run passes the place of the change, up to inside its gate, before the change.
    let world = World::new();
    let app = place.app(&world).workflow("changing", version_one);
    let app = app.launch().await.unwrap();
    let old = app.start(version_one, ()).id("old").await.unwrap();
    world.saw("gate").await;
    drop(old);
    // Two steps are on record: a replay of the new code finds the gate where the patch would be.
    world.open("gate");
    eventually("it has ended", || async {
        recorded(&app, "old").await.len() == 2
    })
    .await;
    app.abort().await;

    let world = World::new();
    let app = place.app(&world).workflow("changing", version_two);
    let app = app.launch().await.unwrap();
    let fork = app.fork("old").from_step(2).id("old-fork").await.unwrap();
    let fork = app.handle::<String>(&fork).await.unwrap();
    assert_eq!(within(fork).await.unwrap(), "old");
    app.start(version_two, ()).id("new").await.unwrap();
    world.saw("gate").await;
    app.abort().await;

    let world = World::new();
    world.open("gate");
    let app = place.app(&world).workflow("changing", version_two);
    let app = app.launch().await.unwrap();
    let new = app.handle::<String>("new").await.unwrap();
    assert_eq!(within(new).await.unwrap(), "new");
    assert_eq!(
        recorded(&app, "new").await,
        ["one", "DBOS.patch-extra", "extra", "gate"]
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    let app = place.app(&world).workflow("changing", version_three);
    let app = app.launch().await.unwrap();
    let marked = app.fork("new").from_step(3).await.unwrap();
    let marked = app.handle::<String>(&marked).await.unwrap();
    assert_eq!(within(marked).await.unwrap(), "new");
    let fresh = app.start(version_three, ()).id("fresh").await.unwrap();
    assert_eq!(within(fresh).await.unwrap(), "new");
    assert_eq!(recorded(&app, "fresh").await, ["one", "extra", "gate"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn child(ctx: Ctx<World>, gate: String) -> segno::Result<String> {
    ctx.step("pass", || async {
        ctx.state().pass(&gate).await;
        Ok(())
    })
    .await?;
    Ok(gate)
}

async fn first_of(ctx: Ctx<World>, gates: Vec<String>) -> segno::Result<(String, usize)> {
    let children = ctx.start_all(child, gates).await?;
    let first = ctx.wait_first(&children).await?;
    let first = first.result().await?;
    ctx.state().note(&first);
    gate(&ctx, "gate").await?;
    ctx.wait_all(&children).await?;
    Ok((first, children.len()))
}

async fn the_first_of_several_children_stays_the_first(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("child", child);
    let app = app.workflow("first_of", first_of).launch().await.unwrap();
    let gates = ["a", "b", "c"].map(str::to_owned).to_vec();
    app.start(first_of, gates).id("run").await.unwrap();
    world.open("b");
    world.saw("gate").await;
    app.abort().await;

    let world = World::new();
    for gate in ["a", "c", "gate"] {
        world.open(gate);
    }
    let app = place.app(&world).workflow("child", child);
    let app = app.workflow("first_of", first_of).launch().await.unwrap();
    let run = app.handle::<(String, usize)>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), ("b".to_owned(), 3));
    assert_eq!(
        recorded(&app, "run").await,
        [
            "child",
            "child",
            "child",
            "DBOS.waitFirst",
            "DBOS.getResult",
            "gate",
            "DBOS.waitAll"
        ]
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn double(_: Ctx<World>, number: u32) -> segno::Result<u32> {
    if number == 13 {
        return Err(segno::Error::message("unlucky"));
    }
    Ok(number * 2)
}

async fn doubles(ctx: Ctx<World>, numbers: Vec<u32>) -> segno::Result<Vec<Option<u32>>> {
    let results = ctx.start_all(double, numbers).results().await;
    Ok(results.into_iter().map(Result::ok).collect())
}

async fn children_are_started_together(place: &Place) {
    let app = place.app(&World::new()).workflow("double", double);
    let app = app.workflow("doubles", doubles).launch().await.unwrap();
    let numbers: Vec<u32> = (0..50).collect();
    let run = app.start(doubles, numbers).id("run").await.unwrap();
    let results = within(run).await.unwrap();
    assert_eq!(results[12..15], [Some(24), None, Some(28)]);
    assert_eq!(results.len(), 50);
    let steps = app.steps("run").await.unwrap();
    assert_eq!(steps[7].child_id.as_deref(), Some("run-7"));
    assert_eq!(steps[50 + 7].child_id.as_deref(), Some("run-7"));
    let handles = app.start_all(double, [1, 2]).timeout(LONG).await.unwrap();
    assert_eq!(within(handles[1].result()).await.unwrap(), 4);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn starts_again(ctx: Ctx<World>, id: String) -> segno::Result<String> {
    let start = ctx.start(double, 1).id(id);
    let error = start.on_conflict(OnConflict::Reject).await.unwrap_err();
    gate(&ctx, "gate").await?;
    Ok(error.to_string())
}

async fn a_start_joins_or_refuses_a_run_of_its_id(place: &Place) {
    let world = World::new();
    world.open("gate");
    let app = place.app(&world).workflow("double", double);
    let app = app.workflow("again", starts_again).launch().await.unwrap();
    assert_eq!(within(app.run(double, 4).id("run")).await.unwrap(), 8);
    assert_eq!(within(app.run(double, 5).id("run")).await.unwrap(), 8);
    let refused = app.start(double, 5).id("run");
    let error = refused.on_conflict(OnConflict::Reject).await.unwrap_err();
    let kind = ErrorKind::WorkflowIdInUse {
        id: "run".into(),
        status: "SUCCESS".into(),
    };
    assert_eq!(*error.kind(), kind);
    let again = app.start(starts_again, "run".into()).id("again");
    let text = within(again.await.unwrap()).await.unwrap();
    assert_eq!(text, error.to_string());
    let steps = app.steps("again").await.unwrap();
    assert_eq!(*steps[0].error.as_ref().unwrap().kind(), kind);
    assert_eq!(steps[0].child_id, None);
    let fresh = app.start(double, 6).on_conflict(OnConflict::Reject);
    assert_eq!(within(fresh.await.unwrap()).await.unwrap(), 12);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn holder_of(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    let start = ctx.start(double, 2).queue("nobody listens");
    let held = start.deduplication_id("d").return_existing().await?;
    Ok(held.id().to_owned())
}

async fn a_held_deduplication_id_gives_its_holder(place: &Place) {
    let app = place.app(&World::new()).workflow("double", double);
    let app = app.workflow("holder", holder_of).launch().await.unwrap();
    let enqueue = || {
        let start = app.start(double, 2).queue("nobody listens");
        start.deduplication_id("d").return_existing()
    };
    let first = enqueue().await.unwrap();
    assert_eq!(enqueue().await.unwrap().id(), first.id());
    let run = app.start(holder_of, ()).id("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), first.id());
    let steps = app.steps("run").await.unwrap();
    assert_eq!(steps[0].child_id.as_deref(), Some(first.id()));
    app.cancel(first.id()).await.unwrap();
    assert_ne!(enqueue().await.unwrap().id(), first.id());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn whose(ctx: Ctx<World>, down: bool) -> segno::Result<(String, Vec<String>, String)> {
    if down {
        // A function that starts itself is named by its contract.
        const WHOSE: WorkflowRef<bool, (String, Vec<String>, String)> = WorkflowRef::new("whose");
        return ctx.run(WHOSE, false).await;
    }
    let user = ctx.authenticated_user().unwrap_or_default().to_owned();
    let attributes = serde_json::Value::from(ctx.attributes().clone());
    Ok((user, ctx.authenticated_roles(), attributes.to_string()))
}

async fn attributes_and_user_come_along(place: &Place) {
    let app = place.app(&World::new()).workflow("whose", whose);
    let app = app.launch().await.unwrap();
    let start = |down| {
        let start = app.start(whose, down).authenticated_as("ada", ["admin"]);
        start.attributes(&json!({ "order": 7 }))
    };
    let of = |attributes: &str| {
        (
            "ada".to_owned(),
            vec!["admin".to_owned()],
            attributes.to_owned(),
        )
    };
    let own = within(start(false).await.unwrap()).await.unwrap();
    assert_eq!(own, of(r#"{"order":7}"#));
    // A child is for the same user, and has attributes of its own.
    let child = within(start(true).await.unwrap()).await.unwrap();
    assert_eq!(child, of("{}"));
    // The same from a row, after a queue.
    app.queues().register(segno::Queue::new("q")).await.unwrap();
    let queued = within(start(false).queue("q").await.unwrap()).await;
    assert_eq!(queued.unwrap(), of(r#"{"order":7}"#));
    let error = app.start(whose, false).attributes("text").await;
    assert!(matches!(
        error.unwrap_err().kind(),
        ErrorKind::Config { .. }
    ));
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn attentive(ctx: Ctx<World>, preempt: bool) -> segno::Result<()> {
    let world = ctx.state();
    let token = ctx.cancellation_token();
    let step = ctx.step("long", || async {
        world.note("begun");
        if preempt {
            std::future::pending::<()>().await;
        }
        token.cancelled().await;
        world.note("told");
        Ok(())
    });
    if preempt {
        return step.preemptible().await;
    }
    step.await
}

async fn a_step_may_be_told_of_its_cancellation(place: &Place) {
    for (preempt, told) in [(false, 1), (true, 0)] {
        let world = World::new();
        let app = place.app(&world).workflow("attentive", attentive);
        let app = app.launch().await.unwrap();
        let run = app.start(attentive, preempt).await.unwrap();
        world.saw("begun").await;
        run.cancel().await.unwrap();
        let error = within(run.result()).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Cancelled { .. }),
            "{error}"
        );
        // Waits until nothing runs any more: without the token that would be for ever.
        within(app.shutdown(Duration::from_secs(600)))
            .await
            .unwrap();
        assert_eq!(world.count("told"), told);
    }
}
