//! Runs that only wait take memory and no more: whatever else there is to do goes on beside them.

use std::time::Duration;

use futures_util::future::join_all;
use segno::{Builder, Ctx, Queue};

use super::support::{Place, World, eventually, within};

on_both!(
    those_that_wait_keep_nothing_from_being_done,
    parents_wait_for_more_children_than_run_at_once,
    a_process_that_recovers_more_than_it_runs_at_once_begins_at_once
);

/// More than a process executes at a time.
const MANY: u32 = 1200;
const QUEUE: &str = "work";
const HOUR: Duration = Duration::from_secs(3600);

async fn waits(ctx: Ctx<World>, _: u32) -> segno::Result<u32> {
    ctx.state().note("waits");
    Ok(ctx.recv::<u32>("go").timeout(HOUR).await.unwrap_or(0))
}

async fn sleeps(ctx: Ctx<World>, _: u32) -> segno::Result<()> {
    ctx.state().note("sleeps");
    ctx.sleep(HOUR).await;
    Ok(())
}

async fn works(ctx: Ctx<World>, n: u32) -> segno::Result<u32> {
    ctx.step("work", || async { Ok(n) }).await
}

async fn parent(ctx: Ctx<World>, n: u32) -> segno::Result<u32> {
    ctx.run(works, n).queue(QUEUE).await
}

fn app(place: &Place, world: &World) -> Builder<World> {
    place
        .app(world)
        .queue(Queue::new(QUEUE))
        .workflow("waits", waits)
        .workflow("sleeps", sleeps)
        .workflow("works", works)
        .workflow("parent", parent)
}

async fn all(world: &World, what: &str, count: u32) {
    eventually(what, || async { world.count(what) == count as usize }).await;
}

async fn those_that_wait_keep_nothing_from_being_done(place: &Place) {
    let world = World::new();
    let app = app(place, &world).launch().await.unwrap();
    let waiting = join_all((0..MANY).map(|n| {
        let start = app.start(waits, n).id(format!("waits-{n}"));
        start.queue(QUEUE).into_future()
    }));
    let sleeping = join_all((0..MANY).map(|n| app.start(sleeps, n).queue(QUEUE).into_future()));
    let (waiting, sleeping) = tokio::join!(waiting, sleeping);
    assert!(sleeping.iter().all(Result::is_ok));
    all(&world, "waits", MANY).await;
    all(&world, "sleeps", MANY).await;
    let new = app.start(works, 7).queue(QUEUE).await.unwrap();
    assert_eq!(within(new).await.unwrap(), 7);
    let messages = (0..MANY).map(|n| segno::Message::new(format!("waits-{n}"), "go", &n));
    app.send_all(messages.collect::<Vec<_>>()).await.unwrap();
    for (n, run) in waiting.into_iter().enumerate() {
        assert_eq!(within(run.unwrap()).await.unwrap() as usize, n);
    }
    app.abort().await;
}

async fn parents_wait_for_more_children_than_run_at_once(place: &Place) {
    let app = app(place, &World::new()).launch().await.unwrap();
    let parents = (0..MANY).map(|n| app.run(parent, n).queue(QUEUE).into_future());
    for (n, result) in within(join_all(parents)).await.into_iter().enumerate() {
        assert_eq!(result.unwrap() as usize, n);
    }
    app.abort().await;
}

async fn a_process_that_recovers_more_than_it_runs_at_once_begins_at_once(place: &Place) {
    let first = app(place, &World::new()).launch().await.unwrap();
    let starts = join_all((0..2 * MANY).map(|n| first.start(sleeps, n).into_future())).await;
    assert!(starts.iter().all(Result::is_ok));
    eventually("all sleep", || async {
        let slept = "SELECT COUNT(*) FROM @operation_outputs";
        place.number(slept).await == i64::from(2 * MANY)
    })
    .await;
    first.abort().await;

    let world = World::new();
    let second = app(place, &world).launch().await.unwrap();
    let new = second.start(works, 7).queue(QUEUE).await.unwrap();
    assert_eq!(within(new).await.unwrap(), 7);
    all(&world, "sleeps", 2 * MANY).await;
    second.abort().await;
}
