//! The recorder under load and under fire.

use std::time::Duration;

use futures_util::future::join_all;
use segno::{Ctx, Db, Status};

use super::database_support;
use super::support::{Place, World, within};

on_both!(
    many_workflows_share_a_commit,
    a_row_the_database_refuses_hurts_only_its_workflow
);

const STEPS: usize = 10;
const CONCURRENCY: usize = 64;

async fn ten(ctx: Ctx<World>, number: usize) -> segno::Result<usize> {
    let mut sum = 0;
    for step in 0..STEPS {
        sum += ctx.step("add", || async { Ok(number + step) }).await?;
    }
    Ok(sum)
}

async fn many_workflows_share_a_commit(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("ten", ten)
        .launch()
        .await
        .unwrap();
    let runs = (0..CONCURRENCY).map(|number| app.run(ten, number).into_future());
    for (number, sum) in within(join_all(runs)).await.into_iter().enumerate() {
        assert_eq!(sum.unwrap(), number * STEPS + 45);
    }
    let stats = app.recorder_stats();
    println!("{} rows in {} commits", stats.rows, stats.commits);
    assert_eq!(stats.rows as usize, CONCURRENCY * (STEPS + 2));
    assert!(stats.commits * 4 < stats.rows, "{stats:?}");
    let recorded = place
        .number("SELECT COUNT(*) FROM @operation_outputs")
        .await;
    assert_eq!(recorded as usize, CONCURRENCY * STEPS);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn poisonous(ctx: Ctx<World>, poison: bool) -> segno::Result<u32> {
    let world = ctx.state();
    ctx.step("together", || async {
        world.note("ready");
        world.pass("together").await;
        Ok(())
    })
    .await?;
    ctx.step(if poison { "poison" } else { "food" }, || async { Ok(3) })
        .await
}

/// Makes the database refuse steps named `poison`, as it would refuse text it cannot store.
async fn refuse_poison(db: &Db, place: &Place) {
    if db.is_sqlite() {
        place
            .execute(
                "CREATE TRIGGER poison BEFORE INSERT ON operation_outputs \
                 WHEN NEW.function_name = 'poison' AND NEW.error IS NULL BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
            )
            .await;
        return;
    }
    place
        .execute(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'poisoned' USING ERRCODE = '22000'; END $$",
        )
        .await;
    place
        .execute(
            "CREATE TRIGGER poison BEFORE INSERT ON @operation_outputs FOR EACH ROW \
             WHEN (NEW.function_name = 'poison' AND NEW.error IS NULL) EXECUTE FUNCTION poison()",
        )
        .await;
}

async fn a_row_the_database_refuses_hurts_only_its_workflow(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("poisonous", poisonous)
        .launch()
        .await
        .unwrap();
    refuse_poison(&place.db, place).await;
    let runs = (0..20).map(|number| {
        app.run(poisonous, number == 7)
            .id(format!("run-{number}"))
            .into_future()
    });
    let runs = tokio::spawn(join_all(runs.collect::<Vec<_>>()));
    super::support::eventually("all are ready", || async { world.count("ready") == 20 }).await;
    world.open("together");
    for (number, result) in within(runs).await.unwrap().into_iter().enumerate() {
        match (number, result) {
            (7, Err(error)) => assert!(error.to_string().contains("poisoned"), "{error}"),
            (7, Ok(_)) => panic!("the poison was swallowed"),
            (_, result) => assert_eq!(result.unwrap(), 3),
        }
    }
    assert_eq!(
        app.workflows().status(Status::Success).await.unwrap().len(),
        19
    );
    // Why is on record.
    let steps = app.steps("run-7").await.unwrap();
    assert!(
        steps[1]
            .error
            .as_ref()
            .unwrap()
            .to_string()
            .contains("poisoned"),
        "{steps:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Every connection to the database is cut again and again while workflows run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing() {
    let place = Place::postgres().await;
    let app = place
        .app(&World::new())
        .workflow("ten", ten)
        .launch()
        .await
        .unwrap();
    let admin = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    let database = place.url.rsplit('/').next().unwrap();
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    let cutting = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            database_support::execute(&admin, &cut).await;
        }
    });
    // Until several cuts have fallen into a write, however fast this machine is.
    let mut rounds = 0;
    while app.recorder_stats().retries < 3 {
        let runs = (0..4).map(|run| app.run(ten, 0).id(format!("{rounds}-{run}")).into_future());
        for sum in within(join_all(runs)).await {
            assert_eq!(sum.unwrap(), 45);
        }
        rounds += 1;
    }
    cutting.abort();
    let _ = cutting.await;
    // The place's own connections were cut like all others; these counts are read through new ones.
    let fresh = place.reconnected().await;
    let unfinished = "SELECT COUNT(*) FROM @workflow_status WHERE status <> 'SUCCESS'";
    assert_eq!(fresh.number(unfinished).await, 0);
    let steps = fresh
        .number("SELECT COUNT(*) FROM @operation_outputs")
        .await;
    assert_eq!(steps, rounds * 4 * STEPS as i64);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    place.drop().await;
}
