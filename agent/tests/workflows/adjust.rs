//! Runs that exist are changed: where they wait, what they are known by, several at once; and what a step is told.

use std::time::Duration;

use segno::{Ctx, ErrorKind, Isolation, Message, Queue, Segno, Status, WorkflowRef};
use serde_json::json;

use super::support::{Place, World, recorded, within};

on_both!(
    a_delayed_run_starts_sooner,
    a_priority_is_changed_while_it_waits,
    attributes_are_added_to_a_run,
    several_runs_are_cancelled_resumed_and_deleted_at_once,
    a_message_goes_to_forks_too,
    a_fork_finds_other_children,
    a_step_knows_its_attempt_and_may_block,
    a_transaction_is_isolated_as_asked,
    applications_share_a_database,
);

const LONG: Duration = Duration::from_secs(3600);

async fn note(ctx: Ctx<World>, what: String) -> segno::Result<()> {
    let world = ctx.state();
    ctx.step("note", || async {
        world.note(&what);
        if what == "holds" {
            world.pass("held").await;
        }
        Ok(())
    })
    .await
}

async fn noting(place: &Place, world: &World) -> Segno {
    let app = place.app(world).queue(Queue::new("one").concurrency(1));
    app.workflow("note", note).launch().await.unwrap()
}

async fn a_delayed_run_starts_sooner(place: &Place) {
    let world = World::new();
    let app = noting(place, &world).await;
    let start = app.start(note, "late".into()).id("late").queue("one");
    let run = start.delay(LONG).await.unwrap();
    assert!(app.set_delay("late", 2 * LONG).await.unwrap());
    assert_eq!(run.status().await.unwrap(), Status::Delayed);
    assert!(app.set_delay("late", Duration::ZERO).await.unwrap());
    within(run).await.unwrap();
    assert!(!app.set_delay("late", LONG).await.unwrap(), "it has ended");
    assert!(!app.set_delay("nobody", LONG).await.unwrap());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_priority_is_changed_while_it_waits(place: &Place) {
    let world = World::new();
    let app = noting(place, &world).await;
    let start = |what: &str, priority| {
        let start = app.start(note, what.to_owned()).id(what);
        start.queue("one").priority(priority)
    };
    let first = start("holds", 0).await.unwrap();
    world.saw("holds").await;
    let a = start("a", 1).await.unwrap();
    let b = start("b", 2).await.unwrap();
    assert!(app.set_priority("a", 3).await.unwrap());
    assert!(!app.set_priority("holds", 3).await.unwrap(), "it runs");
    let error = app.set_priority("a", -1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    world.open("held");
    for run in [first, a, b] {
        within(run).await.unwrap();
    }
    assert_eq!(world.effects(), ["holds", "b", "a"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn attributes_are_added_to_a_run(place: &Place) {
    let world = World::new();
    let app = noting(place, &world).await;
    let start = app.start(note, "x".into()).id("run");
    let run = start.attributes(&json!({ "tenant": "acme", "tier": 1 }));
    within(run.await.unwrap()).await.unwrap();
    let added = json!({ "tier": 2, "reviewed": true });
    app.set_attributes("run", &added).await.unwrap();
    let found = app.workflows().attribute("reviewed", true).await.unwrap();
    let all = json!({ "tenant": "acme", "tier": 2, "reviewed": true });
    assert_eq!(found[0].attributes, Some(all));

    within(app.run(note, "y".into()).id("bare")).await.unwrap();
    app.set_attributes("bare", &json!({ "tier": 3 }))
        .await
        .unwrap();
    let found = app.workflows().attribute("tier", 3).await.unwrap();
    assert_eq!(found[0].id, "bare");
    let error = app.set_attributes("nobody", &json!({})).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    let error = app.set_attributes("run", &1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn several_runs_are_cancelled_resumed_and_deleted_at_once(place: &Place) {
    let world = World::new();
    let app = noting(place, &world).await;
    let ids = ["a", "b", "c"];
    for id in ids {
        let start = app.start(note, id.to_owned()).id(id).queue("one");
        start.delay(LONG).await.unwrap();
    }
    assert_eq!(app.cancel_all(ids).await.unwrap(), 3);
    let error = app.resume_all(["a", "nobody"]).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    let statuses = app.workflows().status(Status::Cancelled).await.unwrap();
    assert_eq!(statuses.len(), 3, "all or none");
    app.resume_all(["a", "b"]).queue("one").await.unwrap();
    for id in ["a", "b"] {
        within(app.handle::<()>(id).await.unwrap()).await.unwrap();
    }
    assert_eq!(app.delete_all(ids).await.unwrap(), 3);
    assert!(app.workflows().await.unwrap().is_empty());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn awaits(ctx: Ctx, (): ()) -> segno::Result<Option<u32>> {
    ctx.set_event("state", "waiting").await;
    Ok(ctx.recv("go").timeout(LONG).await)
}

async fn tells(ctx: Ctx, id: String) -> segno::Result<()> {
    ctx.send(id, "go", &7).to_forks().await
}

async fn a_message_goes_to_forks_too(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("awaits", awaits);
    let app = app.workflow("tells", tells).launch().await.unwrap();
    let mut runs = vec![app.start(awaits, ()).id("source").await.unwrap()];
    for (of, id) in [("source", "fork"), ("fork", "fork of it")] {
        app.fork(of).id(id).await.unwrap();
        runs.push(app.handle(id).await.unwrap());
    }
    within(app.run(tells, "source".into())).await.unwrap();
    for run in runs {
        assert_eq!(within(run).await.unwrap(), Some(7));
    }
    let events = app.events("fork of it").await.unwrap();
    assert_eq!(events, [("state".to_owned(), json!("waiting"))].into());

    // Once each, under one key; the source's own is no fork's.
    app.fork("source").id("late").await.unwrap();
    let message = || Message::new("source", "go", &8).idempotency_key("k");
    app.send_all([message().to_forks()]).await.unwrap();
    app.send_all([message().to_forks()]).await.unwrap();
    let late = app.handle::<Option<u32>>("late").await.unwrap();
    assert_eq!(within(late).await.unwrap(), Some(8));
    let sent = "SELECT count(*) FROM @notifications WHERE message = '8'";
    assert_eq!(place.number(sent).await, 4);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn doubles(_ctx: Ctx, n: i64) -> segno::Result<i64> {
    Ok(n * 2)
}

async fn sums(ctx: Ctx, n: i64) -> segno::Result<i64> {
    let child = ctx.start(doubles, n).id("child").await?;
    let doubled = child.result().await?;
    ctx.step("add", || async { Ok(doubled + 1) }).await
}

async fn a_fork_finds_other_children(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("doubles", doubles);
    let app = app.workflow("sums", sums).launch().await.unwrap();
    assert_eq!(within(app.run(sums, 1).id("run")).await.unwrap(), 3);
    within(app.run(doubles, 50).id("better")).await.unwrap();
    let fork = app
        .fork("run")
        .from_step(1)
        .replace_child("child", "better");
    let id = fork.id("fork").await.unwrap();
    let fork = app.handle::<i64>(&id).await.unwrap();
    assert_eq!(within(fork).await.unwrap(), 101);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn tries(ctx: Ctx<World>, (): ()) -> segno::Result<usize> {
    assert_eq!(ctx.attempt(), None, "not in a step");
    let attempt = ctx
        .step("tries", || async {
            match ctx.attempt() {
                Some(3) => Ok(3),
                other => Err(segno::Error::message(format!("attempt {other:?}"))),
            }
        })
        .max_attempts(3)
        .interval(Duration::from_millis(1))
        .await?;
    let world = ctx.state().clone();
    let read = ctx.blocking("reads", move || {
        world.note("read");
        Ok(std::fs::read_to_string("Cargo.toml")?.len())
    });
    Ok(attempt * usize::from(read.await? > 0))
}

async fn a_step_knows_its_attempt_and_may_block(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("tries", tries);
    let app = app.launch().await.unwrap();
    assert_eq!(within(app.run(tries, ()).id("run")).await.unwrap(), 3);
    assert_eq!(recorded(&app, "run").await, ["tries", "reads"]);
    assert_eq!(world.count("read"), 1);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Reads a number and writes the next. Meanwhile, the first time, somebody else does (but on SQLite, where nobody
/// can).
async fn increments(ctx: Ctx<World>, isolation: bool) -> segno::Result<i64> {
    let world = ctx.state();
    let db = if isolation {
        world.db().isolated(Isolation::RepeatableRead)
    } else {
        world.db().clone()
    };
    let work = ctx.transaction(&db, "increment", |tx| {
        Box::pin(async move {
            let (n,): (i64,) = tx.query("SELECT n FROM numbers").fetch_one().await?;
            world.note("read");
            if world.count("read") == 1 && !world.db().is_sqlite() {
                let other = world.db().transaction(|tx| {
                    Box::pin(async {
                        Ok(tx.query("UPDATE numbers SET n = n + 10").execute().await?)
                    })
                });
                other.await?;
            }
            let update = tx.query("UPDATE numbers SET n = $1").bind(n + 1);
            update.execute().await?;
            Ok(n + 1)
        })
    });
    work.await
}

async fn a_transaction_is_isolated_as_asked(place: &Place) {
    place
        .execute("CREATE TABLE numbers (n BIGINT NOT NULL)")
        .await;
    place.execute("INSERT INTO numbers VALUES (0)").await;
    let meanwhile = if place.db.is_sqlite() { 0 } else { 10 };
    let world = World::with_db(&place.db);
    let app = Segno::named("test-app")
        .database(&place.db)
        .app_version("v1");
    let app = app.state(world.clone()).workflow("increments", increments);
    let app = app.launch().await.unwrap();
    let strict = within(app.run(increments, true)).await.unwrap();
    assert_eq!(
        strict,
        meanwhile + 1,
        "it saw what the other wrote and began anew"
    );
    assert_eq!(place.number("SELECT n FROM numbers").await, strict);
    assert_eq!(world.count("read"), if meanwhile > 0 { 2 } else { 1 });
    app.abort().await;

    // Unless asked for, the later write wins.
    let world = World::with_db(&place.db);
    let app = Segno::named("test-app")
        .database(&place.db)
        .app_version("v1");
    let app = app.state(world.clone()).workflow("increments", increments);
    let app = app.launch().await.unwrap();
    let loose = within(app.run(increments, false)).await.unwrap();
    assert_eq!(loose, strict + 1);
    assert_eq!(place.number("SELECT n FROM numbers").await, loose);
    app.abort().await;
}

const DOUBLES: WorkflowRef<i64, i64> = WorkflowRef::new("doubles");

async fn asks(ctx: Ctx, n: i64) -> segno::Result<i64> {
    let child = ctx.run(DOUBLES, n).queue("numbers").application("numbers");
    Ok(child.await? + 1)
}

async fn applications_share_a_database(place: &Place) {
    let app = |name: &str| {
        let app = Segno::named(name).database_url(&place.url);
        // Names of queues and versions are one application's.
        app.app_version(format!("v-{name}")).queue(Queue::new(name))
    };
    let numbers = app("numbers").workflow("doubles", doubles);
    let numbers = numbers.launch().await.unwrap();
    let questions = app("questions").workflow("asks", asks);
    let questions = questions.launch().await.unwrap();
    let answer = within(questions.run(asks, 4).id("asked")).await.unwrap();
    assert_eq!(answer, 9);
    let names = async |app: &Segno| {
        let runs = app.workflows().await.unwrap();
        runs.into_iter().map(|run| run.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&questions).await, ["asks"]);
    assert_eq!(names(&numbers).await, ["doubles"]);
    let all = questions.workflows().of_all_applications();
    let of_both = all.parent("asked").await.unwrap();
    assert_eq!(of_both[0].app_version.as_deref(), Some("v-numbers"));
    // A queue belongs to one of them.
    let error = questions.queues().register(Queue::new("numbers")).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("belongs to the application")
    );
    for app in [numbers, questions] {
        app.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}
