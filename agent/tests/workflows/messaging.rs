//! Messages, events and streams: between runs, from outside, across a crash.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use segno::{Ctx, ErrorKind, Message, Topic};
use serde::{Deserialize, Serialize};

use super::support::{Place, World, eventually, recorded, within};

on_both!(
    messages_come_in_order_by_topic_and_once,
    a_message_finds_its_receiver_in_another_process,
    a_received_message_survives_a_crash_and_is_not_received_again,
    a_wait_that_times_out_yields_nothing_also_after_a_crash,
    a_workflow_sends_once,
    messages_go_all_or_none_and_once_for_a_key,
    nobody_receives_a_topic_twice_at_once,
    an_unreadable_message_ends_the_run_with_an_error,
    a_run_that_only_waits_for_a_message_is_handed_back,
    messages_of_many_workflows_share_commits,
    events_are_read_by_anyone_and_forks_see_those_of_their_time,
    an_event_read_in_a_workflow_is_recorded,
    a_stream_is_read_to_its_end,
    a_stream_written_before_and_after_a_crash_has_no_gap_and_nothing_twice,
);

const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Approval {
    Granted { by: String },
    Denied,
}

/// Receives as many messages as there are topics, in that order.
async fn collect(ctx: Ctx, topics: Vec<Option<String>>) -> segno::Result<Vec<Option<u32>>> {
    let mut received = Vec::new();
    for topic in topics {
        let topic = topic.map_or(Topic::NONE, Topic::from);
        received.push(ctx.recv(topic).timeout(LONG).await);
    }
    Ok(received)
}

async fn messages_come_in_order_by_topic_and_once(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("collect", collect);
    let app = app.launch().await.unwrap();
    let a = Some("a".to_owned());
    let b = Some("b".to_owned());
    let topics = vec![a.clone(), b, None, a.clone(), a];
    let run = app.start(collect, topics).id("run").await.unwrap();
    for number in 1..=3 {
        app.send("run", "a", &number).await.unwrap();
    }
    app.send_all([
        Message::new("run", Topic::NONE, &30),
        Message::new("run", "b", &20),
    ])
    .await
    .unwrap();
    let expected = [1, 20, 30, 2, 3].map(Some);
    assert_eq!(within(run).await.unwrap(), expected);
    assert_eq!(
        recorded(&app, "run").await,
        ["DBOS.recv", "DBOS.sleep"].repeat(5)
    );
    let steps = app.steps("run").await.unwrap();
    assert_eq!(steps[2].output, Some(20.into()));
    let consumed = "SELECT COUNT(*) FROM @notifications WHERE consumed AND consumed_by_function_id IS NOT NULL";
    assert_eq!(place.number(consumed).await, 5);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn approved(ctx: Ctx<World>, (): ()) -> segno::Result<Option<String>> {
    let answer = ctx.recv::<Approval>("approval").timeout(LONG).await;
    ctx.state().note(format!("{answer:?}"));
    let by = match answer {
        Some(Approval::Granted { by }) => Some(by),
        Some(Approval::Denied) | None => None,
    };
    ctx.step("after", || async {
        ctx.state().pass("after").await;
        Ok(())
    })
    .await?;
    Ok(by)
}

async fn a_message_finds_its_receiver_in_another_process(place: &Place) {
    let world = World::new();
    world.open("after");
    let receiver = place.app(&world).workflow("approved", approved);
    let receiver = receiver.launch().await.unwrap();
    let sender = place.app(&World::new()).executor_id("two");
    let sender = sender.launch().await.unwrap();
    let run = receiver.start(approved, ()).id("run").await.unwrap();
    eventually("the receiver waits", || async {
        recorded_anywhere(place, "DBOS.sleep").await == 1
    })
    .await;
    let granted = Approval::Granted { by: "Ada".into() };
    sender.send("run", "approval", &granted).await.unwrap();
    assert_eq!(within(run).await.unwrap().as_deref(), Some("Ada"));
    receiver.shutdown(Duration::from_secs(5)).await.unwrap();
    sender.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn recorded_anywhere(place: &Place, step: &str) -> i64 {
    let count = format!("SELECT COUNT(*) FROM @operation_outputs WHERE function_name = '{step}'");
    place.number(&count).await
}

async fn a_received_message_survives_a_crash_and_is_not_received_again(place: &Place) {
    let before = World::new();
    let app = place.app(&before).workflow("approved", approved);
    let app = app.launch().await.unwrap();
    app.start(approved, ()).id("run").await.unwrap();
    app.send("run", "approval", &Approval::Granted { by: "Ada".into() })
        .await
        .unwrap();
    app.send("run", "approval", &Approval::Denied)
        .await
        .unwrap();
    before.saw(r#"Some(Granted { by: "Ada" })"#).await;
    app.abort().await;

    let after = World::new();
    after.open("after");
    let app = place.app(&after).workflow("approved", approved);
    let app = app.launch().await.unwrap();
    let run = app.handle::<Option<String>>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap().as_deref(), Some("Ada"));
    assert_eq!(after.effects(), before.effects());
    let left = "SELECT COUNT(*) FROM @notifications WHERE NOT consumed";
    assert_eq!(place.number(left).await, 1);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn impatient(ctx: Ctx<World>, (): ()) -> segno::Result<(Option<u32>, Option<u32>)> {
    let none = ctx.recv::<u32>("x").timeout(Duration::from_millis(5)).await;
    let never = ctx.get_event(ctx.workflow_id(), "never");
    let nothing = never.timeout(Duration::ZERO).await;
    ctx.step("gate", || async {
        ctx.state().note("gate");
        ctx.state().pass("gate").await;
        Ok(())
    })
    .await?;
    Ok((none, nothing))
}

async fn a_wait_that_times_out_yields_nothing_also_after_a_crash(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("impatient", impatient);
    let app = app.launch().await.unwrap();
    app.start(impatient, ()).id("run").await.unwrap();
    world.saw("gate").await;
    // Too late: that it did not come in time is on record.
    app.send("run", "x", &7).await.unwrap();
    app.abort().await;

    let world = World::new();
    world.open("gate");
    let app = place.app(&world).workflow("impatient", impatient);
    let app = app.launch().await.unwrap();
    let run = app
        .handle::<(Option<u32>, Option<u32>)>("run")
        .await
        .unwrap();
    assert_eq!(within(run).await.unwrap(), (None, None));
    assert_eq!(
        recorded(&app, "run").await,
        [
            "DBOS.recv",
            "DBOS.sleep",
            "DBOS.getEvent",
            "DBOS.sleep",
            "gate"
        ]
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn sender(ctx: Ctx<World>, to: String) -> segno::Result<String> {
    ctx.send(&to, "a", &1).await?;
    let unknown = ctx.send("nobody", "a", &2).await.unwrap_err();
    let together = [Message::new(&to, "a", &3), Message::new("nobody", "a", &4)];
    assert!(ctx.send_all(together).await.is_err());
    ctx.step("from a step", || async { ctx.send(&to, "b", &5).await })
        .await?;
    ctx.step("gate", || async {
        ctx.state().note("gate");
        ctx.state().pass("gate").await;
        Ok(())
    })
    .await?;
    Ok(unknown.to_string())
}

async fn a_workflow_sends_once(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("sender", sender)
        .workflow("collect", collect);
    let app = app.launch().await.unwrap();
    let topics = ["a", "b"].map(|topic| Some(topic.to_owned())).to_vec();
    let receiver = app.start(collect, topics).id("receiver").await.unwrap();
    app.start(sender, "receiver".into())
        .id("run")
        .await
        .unwrap();
    world.saw("gate").await;
    assert_eq!(within(receiver).await.unwrap(), [Some(1), Some(5)]);
    app.abort().await;

    let world = World::new();
    world.open("gate");
    let app = place
        .app(&world)
        .workflow("sender", sender)
        .workflow("collect", collect);
    let app = app.launch().await.unwrap();
    let run = app.handle::<String>("run").await.unwrap();
    assert_eq!(
        within(run).await.unwrap(),
        "there is no workflow `nobody`",
        "the error is replayed, too"
    );
    assert_eq!(
        recorded(&app, "run").await,
        [
            "DBOS.send",
            "DBOS.send",
            "DBOS.sendBulk",
            "from a step",
            "gate"
        ]
    );
    assert_eq!(place.number("SELECT COUNT(*) FROM @notifications").await, 2);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn messages_go_all_or_none_and_once_for_a_key(place: &Place) {
    let app = place.app(&World::new()).workflow("collect", collect);
    let app = app.launch().await.unwrap();
    app.start(collect, vec![Some("never".into())])
        .id("a")
        .await
        .unwrap();
    app.start(collect, vec![Some("never".into())])
        .id("b")
        .await
        .unwrap();
    let count = || place.number("SELECT COUNT(*) FROM @notifications");

    let error = app.send("nobody", "x", &1).await.unwrap_err();
    let kind = ErrorKind::NotFound {
        what: "workflow".into(),
        id: "nobody".into(),
    };
    assert_eq!(*error.kind(), kind);
    let some_unknown = ["a", "nobody", "b"].map(|to| Message::new(to, "x", &1));
    assert_eq!(*app.send_all(some_unknown).await.unwrap_err().kind(), kind);
    assert_eq!(count().await, 0);

    for _ in 0..2 {
        app.send("a", "x", &1).idempotency_key("key").await.unwrap();
    }
    assert_eq!(count().await, 1);
    // A key belongs to a destination.
    app.send("b", "x", &1).idempotency_key("key").await.unwrap();
    assert_eq!(count().await, 2);
    let same = ["x", "y"].map(|topic| Message::new("a", topic, &1).idempotency_key("other"));
    let error = app.send_all(same).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    assert_eq!(count().await, 2);
    app.abort().await;
}

async fn twice(ctx: Ctx<World>, (): ()) -> segno::Result<()> {
    let (one, two) = tokio::join!(ctx.recv::<u32>("x"), ctx.recv::<u32>("x"));
    ctx.state().note(format!("{one:?} {two:?}"));
    Ok(())
}

async fn nobody_receives_a_topic_twice_at_once(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("twice", twice);
    let app = app.launch().await.unwrap();
    let error = within(app.run(twice, ())).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Misuse { .. }), "{error}");
    assert!(world.effects().is_empty());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn an_unreadable_message_ends_the_run_with_an_error(place: &Place) {
    let app = place.app(&World::new()).workflow("collect", collect);
    let app = app.launch().await.unwrap();
    let run = app.start(collect, vec![Some("a".into())]).await.unwrap();
    app.send(run.id(), "a", "not a number").await.unwrap();
    let error = within(run).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Serialization { what, .. } if what == "message on `a`"),
        "{error}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_run_that_only_waits_for_a_message_is_handed_back(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("approved", approved);
    let app = app.launch().await.unwrap();
    app.start(approved, ()).id("run").await.unwrap();
    eventually("it waits", || async {
        recorded_anywhere(place, "DBOS.sleep").await == 1
    })
    .await;
    // Long enough to hang if the wait were waited for.
    within(app.shutdown(Duration::from_secs(600)))
        .await
        .unwrap();

    let world = World::new();
    world.open("after");
    let app = place.app(&world).executor_id("two");
    let app = app.workflow("approved", approved).launch().await.unwrap();
    app.send("run", "approval", &Approval::Denied)
        .await
        .unwrap();
    let run = app.handle::<Option<String>>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), None);
    assert_eq!(world.effects(), ["Some(Denied)"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

const PAIRS: usize = 64;

/// Sends a number back and forth with its partner, and keeps what it does in events and a stream.
async fn rally(ctx: Ctx, (partner, serves): (String, bool)) -> segno::Result<u32> {
    let mut ball = 0;
    for round in 0..5 {
        if serves || round > 0 {
            ctx.send(&partner, "ball", &(ball + 1)).await?;
        }
        ball = match ctx.recv("ball").timeout(LONG).await {
            Some(ball) => ball,
            None => return Err(segno::Error::message("no ball")),
        };
        ctx.set_event("ball", &ball).await;
        ctx.write_stream("balls", &ball).await;
    }
    if !serves {
        ctx.send(&partner, "ball", &(ball + 1)).await?;
    }
    Ok(ball)
}

async fn messages_of_many_workflows_share_commits(place: &Place) {
    let app = place.app(&World::new()).workflow("rally", rally);
    let app = app.launch().await.unwrap();
    let mut runs = Vec::new();
    for pair in 0..PAIRS {
        // A message needs its receiver to exist: the one who waits is started first.
        for (own, other, serves) in [("b", "a", false), ("a", "b", true)] {
            let partner = format!("{other}-{pair}");
            let start = app.start(rally, (partner, serves));
            runs.push(start.id(format!("{own}-{pair}")).await.unwrap());
        }
    }
    for (index, ball) in within(join_all(runs.iter().map(segno::Handle::result)))
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(ball.unwrap(), if index % 2 == 0 { 9 } else { 10 });
    }
    let count = |table: &str| format!("SELECT COUNT(*) FROM @{table}");
    let runs = PAIRS as i64 * 2;
    assert_eq!(place.number(&count("notifications")).await, runs * 5);
    assert_eq!(place.number(&count("workflow_events")).await, runs);
    assert_eq!(
        place.number(&count("workflow_events_history")).await,
        runs * 5
    );
    assert_eq!(place.number(&count("streams")).await, runs * 5);
    assert_eq!(
        place.number(&count("operation_outputs")).await,
        runs * 5 * 5,
        "send, recv with its deadline, event, stream"
    );
    assert_eq!(app.get_event::<u32>("a-0", "ball").await.unwrap(), Some(10));
    let balls = app.read_stream::<u32>("a-0", "balls").into_stream();
    let balls: Vec<u32> = within(balls.try_collect::<Vec<_>>()).await.unwrap();
    assert_eq!(balls, [2, 4, 6, 8, 10]);
    let stats = app.recorder_stats();
    println!("{} rows in {} commits", stats.rows, stats.commits);
    assert!(stats.commits * 2 < stats.rows, "{stats:?}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn eventful(ctx: Ctx<World>, (): ()) -> segno::Result<()> {
    ctx.set_event("state", "begun").await;
    ctx.step("middle", || async {
        ctx.set_event("inside", &1).await;
        ctx.state().note("middle");
        ctx.state().pass("middle").await;
        Ok(())
    })
    .await?;
    ctx.set_event("state", "done").await;
    Ok(())
}

async fn events_are_read_by_anyone_and_forks_see_those_of_their_time(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("eventful", eventful);
    let app = app.launch().await.unwrap();
    let other = place.app(&World::new()).executor_id("two");
    let other = other.launch().await.unwrap();
    let state = |app: &segno::Segno, id: &str| app.get_event::<String>(id, "state").timeout(LONG);

    // The reader is there before the run.
    let early = state(&other, "run");
    let early = tokio::spawn(early);
    let run = app.start(eventful, ()).id("run").await.unwrap();
    assert_eq!(
        within(early).await.unwrap().unwrap().as_deref(),
        Some("begun")
    );
    world.saw("middle").await;
    assert_eq!(run.get_event::<u32>("inside").await.unwrap(), Some(1));
    world.open("middle");
    run.result().await.unwrap();
    assert_eq!(state(&app, "run").await.unwrap().as_deref(), Some("done"));
    assert_eq!(
        recorded(&app, "run").await,
        ["DBOS.setEvent", "middle", "DBOS.setEvent"]
    );

    let world = World::new();
    let forking = place.app(&world).executor_id("three");
    let forking = forking.workflow("eventful", eventful);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    let forking = forking.launch().await.unwrap();
    let fork = forking.fork("run").from_step("middle").await.unwrap();
    world.saw("middle").await;
    assert_eq!(
        state(&other, &fork).await.unwrap().as_deref(),
        Some("begun")
    );
    world.open("middle");
    let fork = forking.handle::<()>(&fork).await.unwrap();
    within(fork.result()).await.unwrap();
    assert_eq!(
        state(&other, fork.id()).await.unwrap().as_deref(),
        Some("done")
    );
    forking.shutdown(Duration::from_secs(5)).await.unwrap();
    other.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn watcher(ctx: Ctx<World>, run: String) -> segno::Result<String> {
    let state: Option<String> = ctx.get_event(run, "state").timeout(LONG).await;
    ctx.step("gate", || async {
        ctx.state().note("gate");
        ctx.state().pass("gate").await;
        Ok(())
    })
    .await?;
    Ok(state.unwrap_or_default())
}

async fn an_event_read_in_a_workflow_is_recorded(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("eventful", eventful)
        .workflow("watcher", watcher);
    let app = app.launch().await.unwrap();
    app.start(watcher, "run".into())
        .id("watcher")
        .await
        .unwrap();
    app.start(eventful, ()).id("run").await.unwrap();
    world.saw("gate").await;
    app.abort().await;

    let world = World::new();
    world.open("middle");
    let app = place
        .app(&world)
        .workflow("eventful", eventful)
        .workflow("watcher", watcher);
    let app = app.launch().await.unwrap();
    let run = app.handle::<()>("run").await.unwrap();
    within(run).await.unwrap();
    world.open("gate");
    let watcher = app.handle::<String>("watcher").await.unwrap();
    assert_eq!(within(watcher).await.unwrap(), "begun", "not read again");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn counts(ctx: Ctx<World>, close: bool) -> segno::Result<()> {
    ctx.write_stream("numbers", &1).await;
    ctx.step("middle", || async {
        ctx.write_stream("numbers", &2).await;
        ctx.state().note("middle");
        ctx.state().pass("middle").await;
        Ok(())
    })
    .await?;
    ctx.write_stream("numbers", &3).await;
    if close {
        ctx.close_stream("numbers").await;
        ctx.step("after", || async {
            ctx.state().pass("after").await;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn total(ctx: Ctx, run: String) -> segno::Result<u32> {
    let mut numbers = ctx.read_stream::<u32>(run, "numbers");
    let mut total = 0;
    while let Some(number) = numbers.next().await {
        total += number?;
    }
    Ok(total)
}

async fn a_stream_is_read_to_its_end(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("counts", counts);
    let app = app.workflow("total", total).launch().await.unwrap();
    let run = app.start(counts, true).id("run").await.unwrap();
    let total_of = app.start(total, "run".into()).id("total").await.unwrap();
    let mut reader = run.stream::<u32>("numbers");
    assert_eq!(within(reader.next()).await.unwrap().unwrap(), 1);
    assert_eq!(within(reader.next()).await.unwrap().unwrap(), 2);
    world.open("middle");
    assert_eq!(within(reader.next()).await.unwrap().unwrap(), 3);
    // Closed, though the run goes on.
    assert!(within(reader.next()).await.is_none());
    assert!(within(reader.next()).await.is_none());
    assert_eq!(within(total_of).await.unwrap(), 6);
    assert_eq!(recorded(&app, "total").await, ["DBOS.readStream"].repeat(4));
    world.open("after");
    within(run).await.unwrap();
    assert_eq!(
        recorded(&app, "run").await,
        [
            "DBOS.writeStream",
            "middle",
            "DBOS.writeStream",
            "DBOS.closeStream",
            "after"
        ]
    );

    // Never closed: the end of the run is the end of its stream.
    let open = app.start(counts, false).id("open").await.unwrap();
    let rest = app.read_stream::<u32>("open", "numbers").from(1);
    let rest: Vec<u32> = within(rest.into_stream().try_collect()).await.unwrap();
    assert_eq!(rest, [2, 3]);
    within(open).await.unwrap();
    let error = app.read_stream::<u32>("nobody", "numbers").next().await;
    let error = error.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_stream_written_before_and_after_a_crash_has_no_gap_and_nothing_twice(place: &Place) {
    let world = World::new();
    let app = place.app(&world).workflow("counts", counts);
    let app = app.workflow("total", total).launch().await.unwrap();
    app.start(counts, true).id("run").await.unwrap();
    app.start(total, "run".into()).id("total").await.unwrap();
    world.saw("middle").await;
    eventually("the reader has read two", || async {
        recorded_anywhere(place, "DBOS.readStream").await == 2
    })
    .await;
    app.abort().await;

    let world = World::new();
    world.open("middle");
    world.open("after");
    let app = place.app(&world).workflow("counts", counts);
    let app = app.workflow("total", total).launch().await.unwrap();
    let stream = app.read_stream::<u32>("run", "numbers").into_stream();
    let numbers: Vec<u32> = within(stream.try_collect()).await.unwrap();
    // What a step writes is written each time it runs; what the workflow writes, once.
    assert_eq!(numbers, [1, 2, 2, 3]);
    let total = app.handle::<u32>("total").await.unwrap();
    assert_eq!(within(total).await.unwrap(), 8);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
