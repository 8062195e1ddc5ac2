//! Schedules: their ticks, and what is done to them while applications run.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use segno::{Builder, Ctx, ErrorKind, Schedule, Scheduled, Segno, Status};

use super::support::{Place, World, eventually, within};

on_both!(
    each_tick_is_one_run_however_many_processes_there_are,
    schedules_are_triggered_backfilled_paused_and_removed,
    missed_ticks_are_made_up_for_if_asked,
    what_could_never_tick_is_refused_at_launch,
);

async fn tick(ctx: Ctx<World>, tick: Scheduled<String>) -> segno::Result<String> {
    let at = DateTime::<Utc>::from(tick.scheduled_at);
    let text = format!("{} {}", tick.context, at.format("%F %T"));
    ctx.step("note", || async {
        ctx.state().note(&text);
        Ok(())
    })
    .await?;
    Ok(text)
}

fn app(place: &Place, world: &World, id: &str) -> Builder<World> {
    place.app(world).executor_id(id).workflow("tick", tick)
}

fn schedule(name: &str, cron: &str) -> Schedule<String> {
    Schedule::new(name, cron, tick).context("x".to_owned())
}

async fn runs(app: &Segno) -> Vec<String> {
    let runs = app.workflows().id_prefix("sched-").await.unwrap();
    runs.into_iter().map(|run| run.id).collect()
}

async fn each_tick_is_one_run_however_many_processes_there_are(place: &Place) {
    let world = World::new();
    let mut apps = Vec::new();
    for id in ["one", "two"] {
        let app = app(place, &world, id).schedule(schedule("every", "* * * * * *"));
        apps.push(app.launch().await.unwrap());
    }
    eventually("a few ticks", || async { world.effects().len() >= 3 }).await;
    apps[0].schedules().pause("every").await.unwrap();
    let mut ticks = world.effects();
    let fired = ticks.len();
    ticks.sort_unstable();
    ticks.dedup();
    assert_eq!(ticks.len(), fired, "none twice");
    for id in runs(&apps[0]).await {
        let at = id.strip_prefix("sched-every-").unwrap();
        assert!(at.ends_with('Z') && at.len() == 20, "{at}");
        at.parse::<DateTime<Utc>>().unwrap();
    }
    let info = apps[1].schedules().get("every").await.unwrap().unwrap();
    assert!(info.paused);
    assert!(info.last_fired_at.is_some());
    for app in apps {
        app.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

async fn schedules_are_triggered_backfilled_paused_and_removed(place: &Place) {
    let world = World::new();
    let yearly = || schedule("yearly", "30 2 1 1 *").timezone("Europe/Paris");
    let app = app(place, &world, "one").schedule(yearly());
    let app = app.launch().await.unwrap();
    let schedules = app.schedules();

    schedules.pause("yearly").await.unwrap();
    let run = schedules.trigger("yearly").await.unwrap();
    let run = app.handle::<String>(&run).await.unwrap();
    assert!(within(run).await.unwrap().starts_with("x 2"));

    let year = |year: &str| -> SystemTime {
        let text = format!("{year}-06-01T00:00:00Z");
        text.parse::<DateTime<Utc>>().unwrap().into()
    };
    for _ in 0..2 {
        let range = year("2020")..year("2023");
        schedules.backfill("yearly", range).await.unwrap();
    }
    eventually("all years ran", || async { world.effects().len() == 4 }).await;
    let mut ids = runs(&app).await;
    ids.retain(|id| !id.contains("trigger"));
    ids.sort_unstable();
    let expected =
        ["2021", "2022", "2023"].map(|year| format!("sched-yearly-{year}-01-01T01:30:00Z"));
    assert_eq!(ids, expected);
    assert_eq!(world.count("x 2022-01-01 01:30:00"), 1);

    // Registering it again changes it and leaves it paused.
    schedules.apply(yearly().queue("nobody")).await.unwrap();
    let listed = schedules.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].paused);
    assert_eq!(listed[0].queue.as_deref(), Some("nobody"));
    assert_eq!(listed[0].timezone.as_deref(), Some("Europe/Paris"));
    let waits = schedules.trigger("yearly").await.unwrap();
    let waits = app.handle::<String>(&waits).await.unwrap();
    assert_eq!(waits.status().await.unwrap(), Status::Enqueued);
    schedules.resume("yearly").await.unwrap();
    assert!(!schedules.get("yearly").await.unwrap().unwrap().paused);
    assert!(schedules.delete("yearly").await.unwrap());
    assert!(!schedules.delete("yearly").await.unwrap());
    let error = schedules.trigger("yearly").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound { .. }),
        "{error}"
    );
    assert!(schedules.pause("yearly").await.is_err());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn missed_ticks_are_made_up_for_if_asked(place: &Place) {
    let world = World::new();
    let declared = || {
        let kept = schedule("kept", "0 0 * * *").automatic_backfill();
        app(place, &world, "one")
            .schedule(kept)
            .schedule(schedule("missed", "0 0 * * *"))
    };
    let first = declared().launch().await.unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    let today = Utc::now().date_naive();
    let before = today - chrono::Days::new(3);
    let last = format!("UPDATE @workflow_schedules SET last_fired_at = '{before}T00:00:00Z'");
    assert_eq!(place.execute(&last).await, 2);

    let app = declared().launch().await.unwrap();
    eventually("three days are made up for", || async {
        world.effects().len() == 3
    })
    .await;
    let ids = runs(&app).await;
    assert!(
        ids.iter().all(|id| id.starts_with("sched-kept-")),
        "{ids:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn what_could_never_tick_is_refused_at_launch(place: &Place) {
    let world = World::new();
    for wrong in [
        schedule("wrong", "every day"),
        schedule("wrong", "0 0 * * *").timezone("Europe/Atlantis"),
        schedule(" ", "0 0 * * *"),
        Schedule::new("without context", "0 0 * * *", tick),
    ] {
        let launched = app(place, &world, "one").schedule(wrong).launch().await;
        let error = launched.unwrap_err();
        let ErrorKind::Config { setting, .. } = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(setting, "schedule");
    }
    place
        .execute(
            "INSERT INTO @workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, context, \
             application_name) VALUES ('x', 'theirs', 'w', '* * * * *', 'null', 'other-app')",
        )
        .await;
    let theirs = app(place, &world, "one").schedule(schedule("theirs", "0 0 * * *"));
    assert!(theirs.launch().await.is_err());
}
