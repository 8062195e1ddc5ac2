//! Virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use segno::testing::{self, App};
use segno::{
    Builder, Ctx, Error, ErrorKind, NoAppState, Queue, Schedule, Scheduled, Segno, Status,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(testing::START_MS as u64)
}

/// Launches on an in-memory database and on Postgres, and runs the same test on both.
async fn on_both<F: Future<Output = ()>>(
    builder: impl Fn() -> Builder<NoAppState>,
    test: impl Fn(App) -> F,
) {
    test(testing::launch(builder()).await.unwrap()).await;
    let url = std::env::var("SEGNO_TEST_POSTGRES_URL").expect("SEGNO_TEST_POSTGRES_URL is not set");
    let db = testing::postgres(&url).await.unwrap();
    test(testing::launch(builder().database(&db)).await.unwrap()).await;
    testing::drop_schema(&db).await.unwrap();
}

async fn naps(ctx: Ctx, days: u32) -> segno::Result<Vec<SystemTime>> {
    let mut times = vec![ctx.now().await];
    for _ in 0..days {
        ctx.sleep(DAY).await;
        times.push(ctx.now().await);
    }
    Ok(times)
}

#[tokio::test]
async fn sleeps_pass_at_once_and_in_order() {
    let builder = || Segno::named("t").workflow("naps", naps);
    on_both(builder, |app| async move {
        let real = Instant::now();
        let run = app.start(naps, 30).await.unwrap();
        app.idle().await;
        assert_eq!(run.status().await.unwrap(), Status::Pending);
        app.advance(DAY * 30).await.unwrap();
        let times = run.await.unwrap();
        let expected: Vec<_> = (0..=30).map(|day| start() + DAY * day).collect();
        assert_eq!(times, expected);
        assert_eq!(app.now(), start() + DAY * 30);
        assert!(real.elapsed() < HOUR);
    })
    .await;
}

#[tokio::test]
async fn the_database_goes_by_the_same_clock() {
    let builder = || Segno::named("t").workflow("naps", naps);
    on_both(builder, |app| async move {
        app.run(naps, 0).id("first").await.unwrap();
        app.advance(DAY).await.unwrap();
        app.run(naps, 0).id("second").await.unwrap();
        let runs = app.workflows().await.unwrap();
        let times: Vec<_> = runs
            .iter()
            .map(|run| (run.created_at, run.completed_at.unwrap()))
            .collect();
        let second = testing::START_MS + 24 * 3_600_000;
        assert_eq!(
            times,
            [(testing::START_MS, testing::START_MS), (second, second)]
        );
    })
    .await;
}

async fn approval(ctx: Ctx, _: ()) -> segno::Result<Option<String>> {
    Ok(ctx.recv::<String>("answer").timeout(HOUR).await)
}

#[tokio::test]
async fn a_message_comes_in_time_or_not() {
    let builder = || Segno::named("t").workflow("approval", approval);
    on_both(builder, |app| async move {
        let answered = app.start(approval, ()).id("answered").await.unwrap();
        let ignored = app.start(approval, ()).id("ignored").await.unwrap();
        app.advance(HOUR / 2).await.unwrap();
        app.send("answered", "answer", "yes").await.unwrap();
        app.idle().await;
        assert_eq!(answered.status().await.unwrap(), Status::Success);
        assert_eq!(ignored.status().await.unwrap(), Status::Pending);
        app.advance(HOUR / 2).await.unwrap();
        assert_eq!(answered.await.unwrap().as_deref(), Some("yes"));
        assert_eq!(ignored.await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn deadlines_and_delays_are_kept() {
    let builder = || {
        Segno::named("t")
            .workflow("approval", approval)
            .queue(Queue::new("later"))
    };
    on_both(builder, |app| async move {
        let limited = app.start(approval, ()).timeout(HOUR / 4).await.unwrap();
        let delayed = app
            .start(approval, ())
            .queue("later")
            .delay(HOUR)
            .await
            .unwrap();
        app.advance(HOUR / 2).await.unwrap();
        assert_eq!(limited.status().await.unwrap(), Status::Cancelled);
        assert_eq!(delayed.status().await.unwrap(), Status::Delayed);
        app.advance(HOUR / 2).await.unwrap();
        assert_eq!(delayed.status().await.unwrap(), Status::Pending);
        app.advance(HOUR).await.unwrap();
        assert_eq!(delayed.await.unwrap(), None);
    })
    .await;
}

async fn note(_: Ctx, _: u32) -> segno::Result<()> {
    Ok(())
}

#[tokio::test]
async fn rate_limits_let_in_what_the_period_allows() {
    let builder = || {
        Segno::named("t")
            .workflow("note", note)
            .queue(Queue::new("slow").rate_limit(2, HOUR))
    };
    on_both(builder, |app| async move {
        app.start_all(note, 0..6).queue("slow").await.unwrap();
        let done = async || app.workflows().status(Status::Success).await.unwrap().len();
        app.idle().await;
        assert_eq!(done().await, 2);
        app.advance(HOUR + Duration::from_secs(1)).await.unwrap();
        assert_eq!(done().await, 4);
        app.advance(HOUR * 2).await.unwrap();
        assert_eq!(done().await, 6);
    })
    .await;
}

async fn tick(_: Ctx, tick: Scheduled<()>) -> segno::Result<SystemTime> {
    Ok(tick.scheduled_at)
}

#[tokio::test]
async fn schedules_fire_at_their_times() {
    let builder = || {
        Segno::named("t")
            .workflow("tick", tick)
            .schedule(Schedule::new("nightly", "0 0 2 * * *", tick))
    };
    on_both(builder, |app| async move {
        app.idle().await;
        app.advance(DAY * 3).await.unwrap();
        let runs = app.workflows().name("tick").with_payloads().await.unwrap();
        let created: Vec<_> = runs.iter().map(|run| run.created_at).collect();
        let at = |day: i64| testing::START_MS + (day * 24 + 2) * 3_600_000;
        assert_eq!(created, [at(0), at(1), at(2)]);
        assert!(runs.iter().all(|run| run.status == Status::Success));
    })
    .await;
}

#[derive(Clone, Default)]
struct Attempts(Arc<AtomicU32>);

async fn flaky(ctx: Ctx<Attempts>, fails: u32) -> segno::Result<u32> {
    ctx.step("flaky", || async {
        match ctx.state().0.fetch_add(1, Ordering::Relaxed) {
            attempt if attempt < fails => Err(Error::message("not yet")),
            attempt => Ok(attempt),
        }
    })
    .max_attempts(10)
    .interval(HOUR)
    .await
}

async fn hangs(ctx: Ctx, _: ()) -> segno::Result<()> {
    ctx.step("hangs", std::future::pending).timeout(HOUR).await
}

#[tokio::test]
async fn attempts_wait_and_time_out_by_it() {
    let app = Segno::named("t")
        .state(Attempts::default())
        .workflow("flaky", flaky)
        .workflow("hangs", hangs);
    let app = testing::launch(app).await.unwrap();
    let run = app.start(flaky, 3).await.unwrap();
    app.idle().await;
    // Three waits of the longest interval, each up to a tenth shorter or longer.
    app.advance(HOUR * 2).await.unwrap();
    assert_eq!(run.status().await.unwrap(), Status::Pending);
    app.advance(HOUR * 2).await.unwrap();
    assert_eq!(run.await.unwrap(), 3);

    // A step that runs is not idle: time is made to jump over it.
    let run = app.start(hangs, ()).await.unwrap();
    while app.steps(run.id()).await.unwrap().is_empty() {
        app.jump(HOUR).await.unwrap();
    }
    let error = run.await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::StepTimeout { .. }),
        "{error}"
    );
}
