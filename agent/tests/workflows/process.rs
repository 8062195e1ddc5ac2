//! A process that is killed for good, and others on the same database.

use std::process::Stdio;
use std::time::Duration;

use segno::{Builder, Ctx, Db, Segno};

use super::support::{Place, World, eventually, recorded, within};

/// Where the child process finds its database.
const CHILD: &str = "SEGNO_TEST_CHILD_DATABASE";

async fn effects(ctx: Ctx<World>, last: i64) -> segno::Result<i64> {
    let world = ctx.state();
    for number in 0..last {
        // A row per attempt: the key would refuse a transaction that ran twice.
        ctx.transaction(world.db(), "row", |tx| {
            let id = ctx.workflow_id();
            Box::pin(async move {
                tx.query("INSERT INTO effects (run, number) VALUES ($1, $2)")
                    .bind(id)
                    .bind(number)
                    .execute()
                    .await?;
                Ok(())
            })
        })
        .await?;
        ctx.step("wait", || async {
            world
                .pass(if number == 2 { "blocked" } else { "free" })
                .await;
            Ok(())
        })
        .await?;
    }
    Ok(last)
}

fn app(url: &str, db: &Db, world: &World) -> Builder<World> {
    let builder = Segno::named("test-app")
        .database_url(url)
        .database(db)
        .app_version("v1")
        .executor_id("one");
    builder.state(world.clone()).workflow("effects", effects)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_postgres() {
    match std::env::var(CHILD) {
        Ok(url) => child(&url).await,
        Err(_) => {
            let place = Place::postgres().await;
            a_killed_process_loses_nothing_and_repeats_nothing(
                &place,
                "process::killed_on_postgres",
            )
            .await;
            place.drop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_sqlite() {
    match std::env::var(CHILD) {
        Ok(url) => child(&url).await,
        Err(_) => {
            let place = Place::sqlite().await;
            a_killed_process_loses_nothing_and_repeats_nothing(&place, "process::killed_on_sqlite")
                .await;
        }
    }
}

/// The same test in the process that it starts and kills.
async fn child(url: &str) {
    let db = Db::connect(url).await.unwrap();
    let world = World::with_db(&db);
    world.open("free");
    let app = app(url, &db, &world).launch().await.unwrap();
    for run in 0..5 {
        app.start(effects, 5)
            .id(format!("run-{run}"))
            .await
            .unwrap();
    }
    std::future::pending::<()>().await;
}

async fn a_killed_process_loses_nothing_and_repeats_nothing(place: &Place, test: &str) {
    place.execute("CREATE TABLE effects (run TEXT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (run, number))").await;
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, &place.url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("all runs of the child are in their third round", || async {
        place
            .number("SELECT COUNT(*) FROM effects WHERE number = 2")
            .await
            == 5
    })
    .await;
    child.kill().await.unwrap();

    let world = World::with_db(&place.db);
    world.open("free");
    world.open("blocked");
    let app = app(&place.url, &place.db, &world).launch().await.unwrap();
    for run in 0..5 {
        let id = format!("run-{run}");
        assert_eq!(
            within(app.handle::<i64>(&id).await.unwrap()).await.unwrap(),
            5
        );
        assert_eq!(recorded(&app, &id).await, ["row", "wait"].repeat(5));
    }
    assert_eq!(place.number("SELECT COUNT(*) FROM effects").await, 25);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
