//! Bad luck: connections that are cut at the worst moment, clocks that jump, a schema of the future. Nothing is lost, nothing happens twice.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../database_support/mod.rs"]
mod database_support;
mod full_disk;
mod input;
mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use database_support::PostgresDatabase;
use proxy::Proxy;
use segno::{Ctx, Db, ErrorKind, Message, Migrate, Segno, Status, testing};

const STUCK: Duration = Duration::from_secs(60);

async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(STUCK, future).await.expect("stuck")
}

/// Waits for a condition.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + STUCK;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An empty database of each kind, whose time the test moves.
async fn both() -> [Db; 2] {
    let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    [
        testing::database().await.unwrap(),
        testing::postgres(&postgres).await.unwrap(),
    ]
}

#[derive(Clone)]
struct World {
    db: Db,
    /// How often step bodies ran.
    ran: Arc<AtomicUsize>,
}

impl World {
    async fn on(db: &Db) -> Self {
        // Shown when the test fails.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        db.transaction(|tx| {
            Box::pin(async {
                tx.query("CREATE TABLE IF NOT EXISTS effects (name TEXT)")
                    .execute()
                    .await?;
                Ok(())
            })
        })
        .await
        .unwrap();
        Self {
            db: db.clone(),
            ran: Arc::default(),
        }
    }

    async fn effects(&self) -> i64 {
        let count = self.db.transaction(|tx| {
            Box::pin(async {
                let (count,): (i64,) = tx.query("SELECT COUNT(*) FROM effects").fetch_one().await?;
                Ok(count)
            })
        });
        count.await.unwrap()
    }

    fn app(&self) -> segno::Builder<World> {
        Segno::named("unlucky")
            .database(&self.db)
            .app_version("v1")
            .executor_id("one")
            .state(self.clone())
            .workflow("steps", steps)
            .workflow("transactions", transactions)
    }
}

/// So many steps, each of which must run once.
async fn steps(ctx: Ctx<World>, count: usize) -> segno::Result<usize> {
    let mut sum = 0;
    for number in 0..count {
        let name = format!("{} {number}", proxy::MARK);
        sum += ctx
            .step(name, || async {
                ctx.state().ran.fetch_add(1, Ordering::Relaxed);
                Ok(number)
            })
            .await?;
    }
    Ok(sum)
}

/// So many transactions, each of which must happen once.
async fn transactions(ctx: Ctx<World>, count: usize) -> segno::Result<()> {
    for number in 0..count {
        ctx.transaction(&ctx.state().db, format!("transaction {number}"), |tx| {
            Box::pin(async move {
                let name = format!("{} {number}", proxy::MARK);
                tx.query("INSERT INTO effects (name) VALUES ($1)")
                    .bind(name)
                    .execute()
                    .await?;
                Ok(())
            })
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_commit_is_never_confirmed_is_recorded_once() {
    let database = PostgresDatabase::create().await;
    let proxy = Proxy::before(&database.url).await;
    let world = World::on(&Db::connect(&proxy.url).await.unwrap()).await;
    let app = world.app().launch().await.unwrap();
    proxy.cut_answers_to(proxy::MARK);
    assert_eq!(within(app.run(steps, 20).id("run")).await.unwrap(), 190);
    assert!(proxy.cuts() >= 5, "only {} answers were cut", proxy.cuts());
    assert_eq!(world.ran.load(Ordering::Relaxed), 20, "no step ran twice");
    let recorded = app.steps("run").await.unwrap();
    assert!(
        recorded
            .iter()
            .enumerate()
            .all(|(index, step)| step.position == index as i64)
    );
    assert_eq!(recorded.len(), 20);
    app.abort().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_commit_is_never_confirmed_happens_once() {
    let database = PostgresDatabase::create().await;
    let proxy = Proxy::before(&database.url).await;
    let world = World::on(&Db::connect(&proxy.url).await.unwrap()).await;
    let app = world.app().launch().await.unwrap();
    proxy.cut_answers_to("COMMIT");
    within(app.run(transactions, 10).id("run")).await.unwrap();
    let cuts = proxy.cuts();
    proxy.heal();
    assert!(cuts >= 3, "only {cuts} answers were cut");
    assert_eq!(world.effects().await, 10);
    assert_eq!(app.steps("run").await.unwrap().len(), 10);
    app.abort().await;
    database.drop().await;
}

/// To the driver a dial that ends while it is made is a garbled connection: no fault of what was to be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_up_on_every_dial_fails_nothing() {
    let database = PostgresDatabase::create().await;
    let proxy = Proxy::before(&database.url).await;
    let world = World::on(&Db::connect(&proxy.url).await.unwrap()).await;
    let app = world.app().launch().await.unwrap();
    let run = app.start(steps, 300).id("run").await.unwrap();
    within(async {
        while world.ran.load(Ordering::Relaxed) < 5 {
            tokio::task::yield_now().await;
        }
        proxy.hang_up(true);
        while proxy.hung_up_on() < 60 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.hang_up(false);
    })
    .await;
    assert_eq!(within(run).await.unwrap(), 44_850);
    app.abort().await;
    database.drop().await;
}

/// Whoever waits for a transaction may go away at any of its awaits, within `BEGIN` too: nothing stays open, where
/// whatever else used that connection would never be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_given_up_anywhere_leaves_nothing_open() {
    let database = PostgresDatabase::create().await;
    let db = Db::connect(&database.url).await.unwrap();
    let world = World::on(&db).await;
    for polls in 1..=20 {
        let insert = db.transaction(|tx| {
            Box::pin(async move {
                let insert = tx.query("INSERT INTO effects (name) VALUES ('given up')");
                Ok(insert.execute().await?)
            })
        });
        given_up_after(polls, insert).await;
    }
    let open = "SELECT COUNT(*)::text FROM pg_stat_activity \
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let closed = eventually("all are closed", async || {
        database_support::column(&database.url, open).await == ["0"]
    });
    // Much less than it takes the server to end them.
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .unwrap();
    let before = world.effects().await;
    for _ in 0..20 {
        let effect = "INSERT INTO effects (name) VALUES ('kept')".to_owned();
        change(&db, effect).await;
    }
    let count = "SELECT COUNT(*)::text FROM effects";
    let seen = database_support::column(&database.url, count).await;
    assert_eq!(seen, [(before + 20).to_string()]);
    db.system_database().close().await;
    database.drop().await;
}

/// Polls a future so often, and drops it.
async fn given_up_after(polls: usize, future: impl Future) {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        std::task::Poll::Pending
    })
    .await;
}

async fn naps(ctx: Ctx, _: ()) -> segno::Result<u32> {
    ctx.sleep(Duration::from_secs(3600)).await;
    let woken = ctx.step("wake", || async { Ok(1) }).await?;
    ctx.sleep(Duration::from_secs(3600)).await;
    Ok(woken + 1)
}

#[tokio::test]
async fn a_clock_that_jumps_makes_things_late_and_nothing_worse() {
    for db in both().await {
        let app = Segno::named("t").database(&db).workflow("naps", naps);
        let app = testing::launch(app).await.unwrap();
        let run = app
            .start(naps, ())
            .timeout(Duration::from_secs(24 * 3600))
            .await
            .unwrap();
        app.idle().await;
        app.jump(Duration::from_secs(5 * 3600)).await.unwrap();
        app.idle().await;
        assert_eq!(
            run.steps().await.unwrap().len(),
            3,
            "it woke once, and sleeps again for an hour"
        );
        assert_eq!(run.status().await.unwrap(), Status::Pending);
        app.jump(Duration::from_secs(2 * 3600)).await.unwrap();
        assert_eq!(run.result().await.unwrap(), 2);

        // A jump over a deadline is past the deadline.
        let late = app
            .start(naps, ())
            .timeout(Duration::from_secs(600))
            .await
            .unwrap();
        app.idle().await;
        app.jump(Duration::from_secs(4 * 3600)).await.unwrap();
        app.idle().await;
        assert!(!late.status().await.unwrap().is_active());
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

/// What somebody else does to the tables.
async fn change(db: &Db, sql: String) -> u64 {
    let changed = db.transaction(|tx| {
        let sql = sql.clone();
        Box::pin(async move { Ok(tx.query(segno::sqlx::AssertSqlSafe(sql)).execute().await?) })
    });
    changed.await.unwrap()
}

/// A process whose clock went back recovers what it left behind when the clock was ahead: the wake-up times on
/// record hold, and nothing is done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_repeats_nothing() {
    let postgres = PostgresDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("app.db").display());
    for url in [&postgres.url, &sqlite] {
        let world = World::on(&Db::connect(url).await.unwrap()).await;
        let app = world.app().workflow("rests", rests).launch().await.unwrap();
        let run = app.start(rests, 400).id("run").await.unwrap();
        eventually("it sleeps", async || run.steps().await.unwrap().len() == 2).await;
        app.abort().await;
        // As if everything had been written by a clock that was an hour ahead.
        let ahead = "UPDATE @operation_outputs SET started_at_epoch_ms = started_at_epoch_ms + 3600000, \
                     completed_at_epoch_ms = completed_at_epoch_ms + 3600000 WHERE function_id = 0";
        let prefix = if world.db.is_sqlite() { "" } else { "dbos." };
        let ahead = ahead.replace('@', prefix);
        let row = format!(
            "UPDATE {prefix}workflow_status SET created_at = created_at + 3600000, updated_at = updated_at + 3600000"
        );
        for sql in [ahead, row] {
            change(&world.db, sql).await;
        }
        let app = world.app().workflow("rests", rests).launch().await.unwrap();
        let run = app.handle::<usize>("run").await.unwrap();
        assert_eq!(within(run).await.unwrap(), 2);
        assert_eq!(world.ran.load(Ordering::Relaxed), 2, "each step ran once");
        app.abort().await;
        world.db.system_database().close().await;
    }
    postgres.drop().await;
}

/// A step, a sleep, a step.
async fn rests(ctx: Ctx<World>, sleep_ms: u64) -> segno::Result<usize> {
    let work = || async {
        ctx.state().ran.fetch_add(1, Ordering::Relaxed);
        Ok(1)
    };
    let before = ctx.step("before", work).await?;
    ctx.sleep(Duration::from_millis(sleep_ms)).await;
    Ok(before + ctx.step("after", work).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_the_future_is_worked_on_and_left_as_it_is() {
    let postgres = PostgresDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("app.db").display());
    for url in [&postgres.url, &sqlite] {
        let db = Db::connect(url).await.unwrap();
        db.system_database().migrate().await.unwrap();
        let newer = format!(
            "UPDATE {}dbos_migrations SET version = 9999",
            db.system_database().prefix()
        );
        change(&db, newer).await;
        let world = World::on(&db).await;
        for migrate in [Migrate::Run, Migrate::Verify] {
            let app = world.app().migrate(migrate).launch().await.unwrap();
            assert_eq!(within(app.run(steps, 3)).await.unwrap(), 3);
            app.abort().await;
        }
        assert_eq!(db.system_database().schema_version().await.unwrap(), 9999);

        // Something that is needed is not there any more: that is said, before anything is begun.
        let prefix = db.system_database().prefix();
        let dropped =
            format!("ALTER TABLE {prefix}operation_outputs DROP COLUMN child_workflow_id");
        change(&db, dropped).await;
        for migrate in [Migrate::Run, Migrate::Verify] {
            let Err(error) = world.app().migrate(migrate).launch().await else {
                panic!("it was launched without a column");
            };
            let text = error.to_string();
            assert!(text.contains("at version 9999"), "{text}");
            assert!(
                text.contains("operation_outputs.child_workflow_id"),
                "{text}"
            );
        }
        db.system_database().close().await;
    }
    postgres.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_rights_on_the_schema_runs_an_application() {
    let database = PostgresDatabase::create().await;
    let owner = Db::connect(&database.url).await.unwrap();
    let system = owner.system_database();
    let role = format!("segno_app_{}", uuid::Uuid::new_v4().simple());
    database_support::execute(&database.url, &format!("CREATE ROLE {role} LOGIN")).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    let db = Db::connect(url.as_str()).await.unwrap();
    let app = || {
        let app = Segno::named("modest").database(&db).app_version("v1");
        app.migrate(Migrate::Verify).workflow("naps", small)
    };
    let error = app().launch().await.unwrap_err();
    let ErrorKind::Schema { found: Some(0), .. } = error.kind() else {
        panic!("{error:?}");
    };
    assert!(
        error.to_string().contains("segno system migrate"),
        "{error}"
    );
    system.migrate().await.unwrap();
    system.grant_to(&role).await.unwrap();
    let app = app().launch().await.unwrap();
    assert_eq!(within(app.run(small, 4)).await.unwrap(), 8);
    let refused = db.transaction(|tx| {
        Box::pin(async {
            tx.query("ALTER TABLE dbos.workflow_status ADD COLUMN mine TEXT")
                .execute()
                .await?;
            Ok(())
        })
    });
    assert!(
        refused
            .await
            .unwrap_err()
            .to_string()
            .contains("must be owner")
    );
    app.abort().await;
    drop(owner);
    database_support::execute(
        &database.url,
        &format!("DROP OWNED BY {role}; DROP ROLE {role}"),
    )
    .await;
    database.drop().await;
}

async fn small(ctx: Ctx, n: u32) -> segno::Result<u32> {
    ctx.set_event("n", &n).await;
    ctx.send(ctx.workflow_id(), "own", &n).await?;
    let received = ctx.recv::<u32>("own").await.unwrap_or(0);
    ctx.step("double", || async { Ok(received * 2) }).await
}

/// On both databases: what is written with a transaction stands or falls with it.
async fn starts_and_messages_go_with_the_transaction(db: Db) {
    let app = Segno::named("outbox")
        .database(&db)
        .app_version("v1")
        .workflow("small", small)
        .workflow("waits", waits)
        .queue(segno::Queue::new("q"))
        .launch()
        .await
        .unwrap();
    let waiting = app.start(waits, ()).id("waits").await.unwrap();
    let act = |commits: bool| {
        let (db, app) = (db.clone(), app.clone());
        async move {
            db.transaction(|tx| {
                let app = app.clone();
                Box::pin(async move {
                    let start = app
                        .start(small, 21)
                        .id(format!("small-{commits}"))
                        .queue("q");
                    let handle = start.in_transaction(tx).await?;
                    tx.send(Message::new("waits", "answer", &commits)).await?;
                    if commits {
                        return Ok(handle);
                    }
                    Err(segno::Error::message("rolled back"))
                })
            })
            .await
        }
    };
    let error = act(false).await.unwrap_err();
    assert_eq!(error.to_string(), "rolled back");
    assert!(app.handle::<u32>("small-false").await.is_err());
    let run = act(true).await.unwrap();
    app.wake();
    assert_eq!(within(run).await.unwrap(), 42);
    assert_eq!(within(waiting).await.unwrap(), Some(true));

    let unknown = db.transaction(|tx| Box::pin(tx.send(Message::new("nobody", "answer", &1))));
    let error = unknown.await.unwrap_err();
    assert!(
        matches!(error.kind(), segno::ErrorKind::NotFound { id, .. } if id == "nobody"),
        "{error}"
    );
    app.abort().await;
}

async fn waits(ctx: Ctx, _: ()) -> segno::Result<Option<bool>> {
    Ok(ctx.recv::<bool>("answer").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_and_messages_go_with_the_transaction_on_postgres() {
    let database = PostgresDatabase::create().await;
    starts_and_messages_go_with_the_transaction(Db::connect(&database.url).await.unwrap()).await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_and_messages_go_with_the_transaction_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("app.db").display());
    starts_and_messages_go_with_the_transaction(Db::connect(&url).await.unwrap()).await;
}
