//! What a run finds on record when it goes on in another process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segno::{Ctx, ErrorKind, Status};

use super::steps::PayError;
use super::support::{Place, World, eventually, recorded, within};

on_both!(
    completed_steps_do_not_run_again,
    a_typed_error_is_the_same_error_after_a_replay,
    a_transaction_happens_exactly_once,
    a_sleep_lasts_only_as_long_as_it_had_left,
    a_child_is_found_again,
    other_code_at_the_same_position_sets_the_run_aside,
    a_fork_keeps_what_came_before_its_step,
);

async fn three(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    let one = ctx
        .step("one", || async {
            world.note("one");
            Ok(1)
        })
        .await?;
    let two = ctx
        .step("two", || async {
            world.note("two begins");
            world.pass("two").await;
            world.note("two");
            Ok(2)
        })
        .await?;
    let three = ctx
        .step("three", || async {
            world.note("three");
            Ok(3)
        })
        .await?;
    Ok(one + two + three)
}

/// Runs `three` in a process that crashes in its second step, then in one that has a free hand.
async fn completed_steps_do_not_run_again(place: &Place) {
    let before = World::new();
    let crashing = place
        .app(&before)
        .workflow("three", three)
        .launch()
        .await
        .unwrap();
    let lost = crashing.start(three, ()).id("run").await.unwrap();
    before.saw("two begins").await;
    crashing.abort().await;
    assert!(matches!(
        within(lost).await.unwrap_err().kind(),
        ErrorKind::ShuttingDown
    ));

    let after = World::new();
    after.open("two");
    let app = place
        .app(&after)
        .workflow("three", three)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        6
    );
    assert_eq!(before.effects(), ["one", "two begins"]);
    assert_eq!(after.effects(), ["two begins", "two", "three"]);
    assert_eq!(recorded(&app, "run").await, ["one", "two", "three"]);
    assert_eq!(
        app.workflows().id_prefix("run").await.unwrap()[0].attempts,
        2
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn pay(ctx: Ctx<World>, (): ()) -> segno::Result<String> {
    let world = ctx.state();
    let paid: Result<(), PayError> = ctx
        .try_step("pay", || async {
            world.note("charged");
            Err(PayError::Declined {
                reason: "no cover".into(),
            })
        })
        .await;
    let plain = ctx
        .step::<(), _, _>("plain", || async {
            Err("not a number".parse::<u32>().unwrap_err().into())
        })
        .await;
    ctx.step("wait", || async {
        world.note("waiting");
        world.pass("wait").await;
        Ok(())
    })
    .await?;
    match (paid, plain) {
        (Err(PayError::Declined { reason }), Err(plain)) => Ok(format!("{reason}; {plain}")),
        other => Err(segno::Error::message(format!("{other:?}"))),
    }
}

async fn a_typed_error_is_the_same_error_after_a_replay(place: &Place) {
    let before = World::new();
    let crashing = place
        .app(&before)
        .workflow("pay", pay)
        .launch()
        .await
        .unwrap();
    crashing.start(pay, ()).id("run").await.unwrap();
    before.saw("waiting").await;
    crashing.abort().await;

    let after = World::new();
    after.open("wait");
    let app = place
        .app(&after)
        .workflow("pay", pay)
        .launch()
        .await
        .unwrap();
    let text = within(app.handle::<String>("run").await.unwrap())
        .await
        .unwrap();
    assert_eq!(text, "no cover; invalid digit found in string");
    assert_eq!(after.effects(), ["waiting"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn count(ctx: Ctx<World>, by: i64) -> segno::Result<i64> {
    let world = ctx.state();
    let total = ctx
        .transaction(world.db(), "add", |tx| {
            Box::pin(async move {
                world.note("added");
                let sql = "UPDATE counter SET total = total + $1 RETURNING total";
                let (total,): (i64,) = tx.query(sql).bind(by).fetch_one().await?;
                Ok(total)
            })
        })
        .await?;
    ctx.step("wait", || async {
        world.note("waiting");
        world.pass("wait").await;
        Ok(())
    })
    .await?;
    Ok(total)
}

async fn a_transaction_happens_exactly_once(place: &Place) {
    place
        .execute("CREATE TABLE counter (total BIGINT NOT NULL)")
        .await;
    place.execute("INSERT INTO counter VALUES (0)").await;
    let before = World::with_db(&place.db);
    let crashing = place
        .app(&before)
        .database(&place.db)
        .workflow("count", count)
        .launch()
        .await
        .unwrap();
    crashing.start(count, 7).id("run").await.unwrap();
    before.saw("waiting").await;
    crashing.abort().await;

    let after = World::with_db(&place.db);
    after.open("wait");
    let app = place
        .app(&after)
        .database(&place.db)
        .workflow("count", count)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        within(app.handle::<i64>("run").await.unwrap())
            .await
            .unwrap(),
        7
    );
    assert_eq!(after.effects(), ["waiting"]);
    assert_eq!(place.number("SELECT total FROM counter").await, 7);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

const NAP: Duration = Duration::from_secs(3);

async fn nap(ctx: Ctx<World>, (): ()) -> segno::Result<u128> {
    ctx.sleep(NAP).await;
    let woke = || async { Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis()) };
    ctx.step("woke", woke).await
}

async fn a_sleep_lasts_only_as_long_as_it_had_left(place: &Place) {
    let crashing = place
        .app(&World::new())
        .workflow("nap", nap)
        .launch()
        .await
        .unwrap();
    crashing.start(nap, ()).id("run").await.unwrap();
    eventually("the sleep is recorded", || async {
        recorded(&crashing, "run").await == ["DBOS.sleep"]
    })
    .await;
    let wake_at = crashing.steps("run").await.unwrap()[0]
        .completed_at
        .unwrap();
    // Far enough into the sleep that one that began anew would be told from one that went on.
    tokio::time::sleep(NAP / 2).await;
    crashing.abort().await;

    let app = place
        .app(&World::new())
        .workflow("nap", nap)
        .launch()
        .await
        .unwrap();
    let woke = within(app.handle::<u128>("run").await.unwrap())
        .await
        .unwrap();
    let late = i64::try_from(woke).unwrap() - wake_at;
    assert!((0..1400).contains(&late), "woke {late} ms after its time");
    assert_eq!(recorded(&app, "run").await, ["DBOS.sleep", "woke"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn child(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    ctx.step("work", || async {
        world.note("child works");
        Ok(4)
    })
    .await
}

async fn parent(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    let result = ctx.run(child, ()).await?;
    ctx.step("wait", || async {
        world.note("waiting");
        world.pass("wait").await;
        Ok(())
    })
    .await?;
    Ok(result)
}

async fn a_child_is_found_again(place: &Place) {
    let before = World::new();
    let crashing = place
        .app(&before)
        .workflow("child", child)
        .workflow("parent", parent)
        .launch()
        .await
        .unwrap();
    crashing.start(parent, ()).id("run").await.unwrap();
    before.saw("waiting").await;
    // What the parent has on record does not depend on the child's row.
    assert_eq!(crashing.delete("run-0").await.unwrap(), 1);
    crashing.abort().await;

    let after = World::new();
    after.open("wait");
    let app = place
        .app(&after)
        .workflow("child", child)
        .workflow("parent", parent)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        4
    );
    assert_eq!(after.effects(), ["waiting"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn three_changed(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    let caught = ctx
        .step("renamed", || async {
            world.note("renamed");
            Ok(1)
        })
        .await;
    world.note("went on");
    Ok(caught.unwrap_or(0))
}

async fn other_code_at_the_same_position_sets_the_run_aside(place: &Place) {
    let before = World::new();
    let crashing = place
        .app(&before)
        .workflow("three", three)
        .launch()
        .await
        .unwrap();
    crashing.start(three, ()).id("run").await.unwrap();
    before.saw("two begins").await;
    crashing.abort().await;

    let after = World::new();
    let app = place
        .app(&after)
        .workflow("three", three_changed)
        .launch()
        .await
        .unwrap();
    let handle = app.handle::<u32>("run").await.unwrap();
    let error = within(handle.result()).await.unwrap_err();
    let expected = ErrorKind::Nondeterminism {
        step: 0,
        recorded: "one".into(),
        asked: "renamed".into(),
        on_record: vec!["0 one".into()],
        asked_for: vec!["0 renamed".into()],
    };
    assert_eq!(*error.kind(), expected);
    let parked = Status::MaxRecoveryAttemptsExceeded;
    assert_eq!(handle.status().await.unwrap(), parked);
    let run = &app.workflows().id("run").with_payloads().await.unwrap()[0];
    assert_eq!(*run.error.as_ref().unwrap().kind(), expected);
    assert!(
        after.effects().is_empty(),
        "the body could not catch it: {:?}",
        after.effects()
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    // Nothing is lost: the right code brings it to its end.
    before.open("two");
    let app = place
        .app(&before)
        .workflow("three", three)
        .launch()
        .await
        .unwrap();
    app.resume("run").await.unwrap();
    assert_eq!(
        within(app.handle::<u32>("run").await.unwrap())
            .await
            .unwrap(),
        6
    );
    assert_eq!(before.count("one"), 1);
    let run = &app.workflows().id("run").with_payloads().await.unwrap()[0];
    assert!(run.error.is_none(), "{run:?}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_fork_keeps_what_came_before_its_step(place: &Place) {
    let world = World::new();
    world.open("two");
    let app = place
        .app(&world)
        .workflow("three", three)
        .launch()
        .await
        .unwrap();
    assert_eq!(within(app.run(three, ()).id("run")).await.unwrap(), 6);
    let all = world.effects().len();

    let fork = app.fork("run").from_step(2).id("fork").await.unwrap();
    assert_eq!(fork, "fork");
    assert_eq!(
        within(app.handle::<u32>("fork").await.unwrap())
            .await
            .unwrap(),
        6
    );
    assert_eq!(world.effects()[all..], ["three"]);

    let fork = app.fork("run").from_step("two").await.unwrap();
    assert_eq!(
        within(app.handle::<u32>(&fork).await.unwrap())
            .await
            .unwrap(),
        6
    );
    assert_eq!(world.effects()[all + 1..], ["two begins", "two", "three"]);
    assert_eq!(app.workflows().forked_from("run").await.unwrap().len(), 2);

    let error = app.fork("nobody").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { id, .. } if id == "nobody"),
        "{error:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
