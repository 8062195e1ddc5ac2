//! Crashes: one where a test wants it, and one at every checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use segno::{Builder, Ctx, Db, Error, NoAppState, Queue, Segno, Status, testing};

const HOUR: Duration = Duration::from_secs(3600);

async fn expense(ctx: Ctx, cents: u64) -> segno::Result<bool> {
    ctx.set_event("state", "waiting").await;
    let approved = ctx.recv::<bool>("approval").timeout(HOUR * 72).await;
    Ok(approved.unwrap_or(false) && cents < 1_000_000)
}

fn expenses() -> Builder<NoAppState> {
    Segno::named("t")
        .workflow("expense", expense)
        .queue(Queue::new("later"))
}

#[tokio::test]
async fn a_run_goes_on_after_a_crash_and_its_handle_stays_good() {
    let app = testing::launch(expenses()).await.unwrap();
    let run = app.start(expense, 9900).id("e-1").await.unwrap();
    app.idle().await;
    app.crash().await.unwrap();
    app.idle().await;
    assert_eq!(run.status().await.unwrap(), Status::Pending);
    app.send("e-1", "approval", &true).await.unwrap();
    assert!(run.await.unwrap());

    let run = app.start(expense, 9900).id("e-2").await.unwrap();
    app.idle().await;
    app.crash().await.unwrap();
    app.crash().await.unwrap();
    app.advance(HOUR * 73).await.unwrap();
    assert!(!run.await.unwrap());
}

/// What a dead process of this executor id sent, the database may do later than its successor recovered what it left.
#[tokio::test]
async fn what_a_dead_process_took_late_is_recovered() {
    for db in both().await {
        let app = testing::launch(expenses().database(&db)).await.unwrap();
        app.start(expense, 1).id("own").await.unwrap();
        let late = app
            .start(expense, 1)
            .id("late")
            .queue("later")
            .delay(HOUR * 100)
            .await
            .unwrap();
        app.idle().await;
        let taken = "UPDATE workflow_status SET status = 'PENDING', executor_id = 'test', application_version = 'test', \
                     owner_xid = '6ba7b810-9dad-41d1-80b4-00c04fd430c8' WHERE workflow_uuid = 'late'";
        db.transaction(|tx| Box::pin(async move { Ok(tx.query(taken).execute().await?) }))
            .await
            .unwrap();
        app.send("late", "approval", &true).await.unwrap();
        app.advance(Duration::from_secs(9)).await.unwrap();
        assert_eq!(late.status().await.unwrap(), Status::Pending);
        app.advance(Duration::from_secs(1)).await.unwrap();
        assert!(late.await.unwrap());

        app.advance(HOUR).await.unwrap();
        let own = app.workflows().id("own").await.unwrap();
        assert_eq!((own[0].status, own[0].attempts), (Status::Pending, 1));
        testing::drop_schema(&db).await.unwrap();
    }
}

async fn both() -> [Db; 2] {
    let url = std::env::var("SEGNO_TEST_POSTGRES_URL").expect("SEGNO_TEST_POSTGRES_URL is not set");
    [
        testing::database().await.unwrap(),
        testing::postgres(&url).await.unwrap(),
    ]
}

/// Counts what really happened, in the database and outside of it.
#[derive(Clone)]
struct World {
    db: Db,
}

async fn child(ctx: Ctx<World>, n: u32) -> segno::Result<u32> {
    ctx.step("double", || async { Ok(n * 2) }).await
}

/// Everything durable there is.
async fn everything(ctx: Ctx<World>, n: u32) -> segno::Result<Vec<u32>> {
    let (a, b) = tokio::try_join!(
        ctx.step("a", || async { Ok(n) }),
        ctx.step("b", || async { Ok(n + 1) })
    )?;
    let failed = ctx
        .step("fails", || async { Err::<(), _>(Error::message("no")) })
        .max_attempts(3)
        .await;
    assert!(failed.is_err());
    ctx.transaction(&ctx.state().db, "count", |tx| {
        Box::pin(async {
            tx.query("INSERT INTO effects (id) VALUES ($1)")
                .bind(ctx.workflow_id().to_owned())
                .execute()
                .await?;
            Ok(())
        })
    })
    .await?;
    let doubled = ctx.run(child, n).await?;
    let children = ctx.start_all(child, [1, 2]).await?;
    ctx.wait_all(&children).await?;
    ctx.set_event("progress", &a).await;
    ctx.write_stream("log", &b).await;
    ctx.sleep(HOUR).await;
    let first = segno::select! {
        message = ctx.recv::<u32>("answer").timeout(HOUR) => message.unwrap_or(0),
        _ = ctx.sleep(HOUR * 2) => 7,
    };
    ctx.send(ctx.workflow_id(), "self", &1_u32).await?;
    let own = ctx.recv::<u32>("self").await.unwrap_or(0);
    let patched = u32::from(ctx.patch("new").await);
    Ok(vec![a, b, doubled, first, own, patched])
}

/// Less than everything: each run has to make its tables first.
async fn something(ctx: Ctx<World>, n: u32) -> segno::Result<u32> {
    ctx.step("step", || async { Ok(()) }).await?;
    ctx.transaction(&ctx.state().db, "count", |tx| {
        Box::pin(async {
            tx.query("INSERT INTO effects (id) VALUES ($1)")
                .bind(ctx.workflow_id().to_owned())
                .execute()
                .await?;
            Ok(())
        })
    })
    .await?;
    ctx.sleep(HOUR).await;
    ctx.run(child, n).await
}

async fn world(db: Db) -> segno::Result<Builder<World>> {
    db.transaction(|tx| {
        Box::pin(async {
            tx.query("CREATE TABLE IF NOT EXISTS effects (id TEXT)")
                .execute()
                .await?;
            tx.query("DELETE FROM effects").execute().await?;
            Ok(())
        })
    })
    .await?;
    Ok(Segno::named("t")
        .database(&db)
        .state(World { db })
        .workflow("everything", everything)
        .workflow("something", something)
        .workflow("child", child))
}

async fn counted_once(app: Segno, _: String) -> segno::Result<()> {
    let count = app.db().transaction(|tx| {
        Box::pin(async {
            let (count,): (i64,) = tx.query("SELECT COUNT(*) FROM effects").fetch_one().await?;
            Ok(count)
        })
    });
    match count.await? {
        1 => Ok(()),
        other => Err(Error::message(format!(
            "the transaction happened {other} times"
        ))),
    }
}

#[tokio::test]
async fn every_checkpoint_survives_a_crash_on_either_side() {
    let result = testing::crash_everywhere_with(world, everything, 3)
        .check(counted_once)
        .await
        .unwrap();
    assert_eq!(result, [3, 4, 6, 0, 1, 1]);

    let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    // A little of it: each run makes a schema of its own.
    let doubled = testing::crash_everywhere_with(world, child, 3)
        .on_postgres(postgres)
        .await
        .unwrap();
    assert_eq!(doubled, 6);
}

#[tokio::test]
async fn what_happens_outside_is_done_meanwhile() {
    let approved = testing::crash_everywhere(expenses, expense, 9900)
        .meanwhile(|app, id| async move {
            app.send(id, "approval", &true)
                .idempotency_key("click")
                .await
        })
        .await
        .unwrap();
    assert!(approved);
}

#[tokio::test]
async fn a_workflow_that_is_not_deterministic_is_found_out() {
    async fn counts(ctx: Ctx<Arc<AtomicU32>>, _: ()) -> segno::Result<()> {
        let execution = ctx.state().fetch_add(1, Ordering::Relaxed);
        ctx.step(format!("execution {execution}"), || async { Ok(()) })
            .await?;
        ctx.step("then", || async { Ok(()) }).await
    }
    let app = || {
        Segno::named("t")
            .state(Arc::<AtomicU32>::default())
            .workflow("counts", counts)
    };
    let error = testing::crash_everywhere(app, counts, ())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("checkpoint"), "{error}");
    assert!(
        error.contains("execution 0") && error.contains("execution 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_workflow_that_waits_for_nobody_is_found_out() {
    async fn forever(ctx: Ctx, _: ()) -> segno::Result<()> {
        let other = segno::WorkflowRef::<(), ()>::new("nobody");
        ctx.run(other, ()).queue("nowhere").await
    }
    let app = || Segno::named("t").workflow("forever", forever);
    let error = testing::crash_everywhere(app, forever, ())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing more happens by itself"), "{error}");
    assert!(error.contains("waits for workflow"), "{error}");
}
