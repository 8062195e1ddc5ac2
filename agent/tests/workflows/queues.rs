//! Queues: every limit, under several processes.

use std::time::Duration;

use segno::{Ctx, ErrorKind, OnQueueConflict, Queue, Segno, Status};

use super::support::{Place, World, eventually, within};

on_both!(
    no_more_run_at_once_than_the_queue_allows,
    no_more_run_at_once_in_a_process_than_it_allows,
    no_more_start_in_a_period_than_the_rate_allows,
    partitions_are_limited_each_for_itself,
    a_partitioned_queue_has_limits_as_a_whole_too,
    queues_are_rows_that_can_be_changed_and_removed,
    a_process_takes_only_from_queues_it_listens_to,
    many_processes_take_everything_once,
    of_many_calls_one_run_has_the_last_input,
);

/// Holds its place until the gate of its name opens.
async fn hold(ctx: Ctx<World>, name: String) -> segno::Result<()> {
    let world = ctx.state();
    ctx.step("hold", || async {
        world.note(format!("{name} begins"));
        world.pass(&name).await;
        world.note(format!("{name} ends"));
        Ok(())
    })
    .await
}

async fn executor(place: &Place, world: &World, id: &str, queue: Queue) -> Segno {
    let app = place.app(world).executor_id(id).workflow("hold", hold);
    app.queue(queue).launch().await.unwrap()
}

/// The runs that began, in that order.
fn begun(world: &World) -> Vec<String> {
    let effects = world.effects();
    let begun = effects
        .iter()
        .filter_map(|effect| effect.strip_suffix(" begins"));
    begun.map(str::to_owned).collect()
}

/// Runs of a queue in a status.
async fn count(app: &Segno, queue: &str, status: Status) -> usize {
    let runs = app.workflows().queue(queue).status(status).await;
    runs.unwrap().len()
}

async fn no_more_run_at_once_than_the_queue_allows(place: &Place) {
    let world = World::new();
    let queue = || Queue::new("two").concurrency(2);
    let apps = [
        executor(place, &world, "one", queue()).await,
        executor(place, &world, "two", queue()).await,
    ];
    let names: Vec<String> = (0..6).map(|run| format!("run-{run}")).collect();
    let runs = apps[0].start_all(hold, names.clone()).queue("two");
    let runs = runs.await.unwrap();
    for done in 0..names.len() {
        eventually("the places are taken", || async {
            begun(&world).len() == (done + 2).min(names.len())
        })
        .await;
        assert!(count(&apps[0], "two", Status::Pending).await <= 2);
        // Whoever began first has its turn.
        let next = begun(&world)[done].clone();
        world.open(&next);
        world.saw(&format!("{next} ends")).await;
    }
    for run in runs {
        within(run).await.unwrap();
    }
    for app in apps {
        app.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

async fn no_more_run_at_once_in_a_process_than_it_allows(place: &Place) {
    let queue = || Queue::new("each").worker_concurrency(1);
    let (one, two) = (World::new(), World::new());
    let first = executor(place, &one, "one", queue()).await;
    let names = ["a", "b", "c"].map(str::to_owned);
    let runs = first.start_all(hold, names).queue("each").await.unwrap();
    eventually("one is taken", || async { one.effects().len() == 1 }).await;
    let second = executor(place, &two, "two", queue()).await;
    eventually("another one is taken", || async {
        two.effects().len() == 1
    })
    .await;
    assert_eq!(one.effects().len(), 1);
    assert_eq!(count(&first, "each", Status::Enqueued).await, 1);
    for gate in ["a", "b", "c"] {
        one.open(gate);
        two.open(gate);
    }
    for run in runs {
        within(run).await.unwrap();
    }
    assert_eq!(one.effects().len() + two.effects().len(), 6);
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    second.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn no_more_start_in_a_period_than_the_rate_allows(place: &Place) {
    let world = World::new();
    let period = Duration::from_millis(1500);
    let queue = Queue::new("slow").rate_limit(2, period);
    let app = executor(place, &world, "one", queue).await;
    let names: Vec<String> = (0..5).map(|run| format!("run-{run}")).collect();
    names.iter().for_each(|name| world.open(name));
    let runs = app.start_all(hold, names).queue("slow").await.unwrap();
    for run in runs {
        within(run).await.unwrap();
    }
    // Any third start is a period after the first of the three, by the database's clock.
    let starts = "SELECT COUNT(*) FROM @workflow_status a WHERE 2 < (SELECT COUNT(*) FROM @workflow_status b \
        WHERE b.started_at_epoch_ms <= a.started_at_epoch_ms AND b.started_at_epoch_ms > a.started_at_epoch_ms - 1500)";
    assert_eq!(place.number(starts).await, 0);
    let span = "SELECT MAX(started_at_epoch_ms) - MIN(started_at_epoch_ms) FROM @workflow_status";
    assert!(place.number(span).await >= 3000);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn partitions_are_limited_each_for_itself(place: &Place) {
    let world = World::new();
    let queue = Queue::new("tenants").partition_concurrency(1);
    let app = executor(place, &world, "one", queue).await;
    let start = async |name: &str, key: &str| {
        let start = app.start(hold, name.to_owned()).id(name).queue("tenants");
        start.partition_key(key).await.unwrap()
    };
    let runs = [
        start("a1", "a").await,
        start("a2", "a").await,
        start("b1", "b").await,
    ];
    world.saw("a1 begins").await;
    world.saw("b1 begins").await;
    assert_eq!(runs[1].status().await.unwrap(), Status::Enqueued);
    // Without a key nobody takes it.
    let keyless = app
        .start(hold, "none".into())
        .queue("tenants")
        .await
        .unwrap();
    world.open("a1");
    world.saw("a2 begins").await;
    assert_eq!(keyless.status().await.unwrap(), Status::Enqueued);
    world.open("a2");
    world.open("b1");
    for run in runs {
        within(run).await.unwrap();
    }
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_partitioned_queue_has_limits_as_a_whole_too(place: &Place) {
    let world = World::new();
    let queue = || Queue::new("both").concurrency(2).partition_concurrency(1);
    let apps = [
        executor(place, &world, "one", queue()).await,
        executor(place, &world, "two", queue()).await,
    ];
    let mut runs = Vec::new();
    for key in ["a", "b", "c", "d"] {
        let start = apps[0].start(hold, key.to_owned()).queue("both");
        runs.push(start.partition_key(key).await.unwrap());
    }
    eventually("two of four partitions run", || async {
        world.effects().len() == 2
    })
    .await;
    for done in 0..4 {
        assert!(count(&apps[0], "both", Status::Pending).await <= 2);
        eventually("the next one runs", || async { begun(&world).len() > done }).await;
        world.open(&begun(&world)[done]);
    }
    for run in runs {
        within(run).await.unwrap();
    }
    for app in apps {
        app.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

async fn queues_are_rows_that_can_be_changed_and_removed(place: &Place) {
    let world = World::new();
    let app = executor(place, &world, "one", Queue::new("q").concurrency(1)).await;
    let names = ["a", "b"].map(str::to_owned);
    let runs = app.start_all(hold, names).queue("q").await.unwrap();
    eventually("one is taken", || async { world.effects().len() == 1 }).await;
    app.queues()
        .register(Queue::new("q").concurrency(2))
        .await
        .unwrap();
    eventually("now two are", || async { world.effects().len() == 2 }).await;
    let keep = Queue::new("q").on_conflict(OnQueueConflict::NeverUpdate);
    app.queues().register(keep).await.unwrap();
    let listed = app.queues().list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name(), "q");
    world.open("a");
    world.open("b");
    for run in runs {
        within(run).await.unwrap();
    }

    assert!(app.queues().delete("q").await.unwrap());
    assert!(!app.queues().delete("q").await.unwrap());
    assert!(app.queues().get("q").await.unwrap().is_none());
    let waits = app.start(hold, "a".into()).queue("q").await.unwrap();
    app.queues().register(Queue::new("q")).await.unwrap();
    within(waits).await.unwrap();

    for wrong in [
        Queue::new("q").concurrency(0),
        Queue::new("q").concurrency(1).worker_concurrency(2),
        Queue::new("q").partition_concurrency(3).concurrency(2),
        Queue::new("q").rate_limit(1, Duration::ZERO),
        Queue::new("_dbos_mine"),
        Queue::new(" "),
    ] {
        let error = app.queues().register(wrong).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    }
    place.execute("INSERT INTO @queues (queue_id, name, application_name) VALUES ('x', 'theirs', 'other-app')").await;
    assert!(app.queues().register(Queue::new("theirs")).await.is_err());
    assert!(app.queues().delete("theirs").await.is_err());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_process_takes_only_from_queues_it_listens_to(place: &Place) {
    let world = World::new();
    world.open("x");
    let app = place
        .app(&world)
        .workflow("hold", hold)
        .listen_queues(["heard"]);
    let app = app.queue(Queue::new("heard")).queue(Queue::new("unheard"));
    let app = app.launch().await.unwrap();
    let unheard = app.start(hold, "x".into()).queue("unheard").await.unwrap();
    let heard = app.start(hold, "x".into()).queue("heard").await.unwrap();
    within(heard).await.unwrap();
    assert_eq!(unheard.status().await.unwrap(), Status::Enqueued);
    // What was resumed runs on the internal queue, which everybody listens to.
    app.resume(unheard.id()).await.unwrap();
    within(unheard).await.unwrap();
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn many_processes_take_everything_once(place: &Place) {
    let world = World::new();
    let mut apps = Vec::new();
    for id in ["one", "two", "three", "four"] {
        let queue = Queue::new("busy").concurrency(3).worker_concurrency(2);
        apps.push(executor(place, &world, id, queue).await);
    }
    let names: Vec<String> = (0..40).map(|run| format!("run-{run}")).collect();
    names.iter().for_each(|name| world.open(name));
    let runs = apps[0].start_all(hold, names).queue("busy").await.unwrap();
    for run in runs {
        within(run).await.unwrap();
    }
    assert_eq!(world.effects().len(), 80, "each began and ended once");
    let twice = "SELECT COUNT(*) FROM @workflow_status WHERE recovery_attempts <> 1";
    assert_eq!(place.number(twice).await, 0);
    for app in apps {
        app.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

async fn of_many_calls_one_run_has_the_last_input(place: &Place) {
    let world = World::new();
    world.open("third");
    let app = executor(place, &world, "one", Queue::new("q")).await;
    let long = Duration::from_secs(3600);
    let calls = app.debouncer(hold).queue("q").max_wait(long);
    let first = calls.debounce("key", long, "first".into()).await.unwrap();
    let other = calls.debounce("other", long, "x".into()).await.unwrap();
    let second = calls.debounce("key", long, "second".into()).await.unwrap();
    assert_eq!(first.status().await.unwrap(), Status::Delayed);
    assert_eq!(second.id(), first.id());
    assert_ne!(other.id(), first.id());
    // Never beyond the longest wait after the first call.
    let late = "SELECT COUNT(*) FROM @workflow_status WHERE delay_until_epoch_ms > debounce_deadline_epoch_ms";
    assert_eq!(place.number(late).await, 0);
    let third = calls.debounce("key", Duration::ZERO, "third".into());
    within(third.await.unwrap()).await.unwrap();
    assert_eq!(world.effects(), ["third begins", "third ends"]);
    let next = calls.debounce("key", long, "next".into()).await.unwrap();
    assert_ne!(next.id(), first.id());

    // An id that something else holds is not taken over.
    let held = app.start(hold, "x".into()).queue("q").delay(long);
    held.deduplication_id("hold-mine").await.unwrap();
    let error = calls.debounce("mine", long, "x".into()).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Deduplicated { .. }),
        "{error}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
