//! What is done to whom, and how often. Each kind of fault goes by its own clock; the seed decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::IndexedRandom;
use rustix::process::Signal;
use segno_e2e::proxy::{Condition, Proxy};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fleet::{Language, Slot, VERSIONS};
use crate::oracle;
use crate::postgres::{Postgres, Stop};
use crate::truth::Kill;
use crate::world::World;

/// A kind of fault, and its mean pause in seconds.
const KINDS: [(&str, f64); 20] = [
    ("executor killed", 4.0),
    ("executor ended", 35.0),
    ("executor stopped", 30.0),
    ("version wiped out", 120.0),
    ("instance killed", 30.0),
    ("instance ended", 90.0),
    ("instance stopped", 100.0),
    ("control plane killed", 400.0),
    ("store restarted", 90.0),
    ("store failed over", 300.0),
    ("application database restarted", 90.0),
    ("application database failed over", 300.0),
    ("disk filled", 300.0),
    ("link cut", 12.0),
    ("link silent", 40.0),
    ("link slow", 25.0),
    ("pongs slow", 60.0),
    ("connections half open", 45.0),
    ("connections refused", 45.0),
    ("reconnect storm", 100.0),
];

/// Nobody of the version comes before it is told to.
const WIPED_OUT: Duration = Duration::from_secs(600);

/// Runs every kind of fault until told to stop, and returns when the last one is over.
pub(crate) async fn run(world: &Arc<World>, lasting: Duration) {
    let end = Instant::now() + lasting;
    let mut tasks = JoinSet::new();
    for (kind, mean) in KINDS {
        if !world.wants(kind) {
            continue;
        }
        if kind == "disk filled" && !world.segno_postgres.is_small() {
            continue;
        }
        let world = Arc::clone(world);
        tasks.spawn(async move {
            loop {
                let luck: f64 = world.random(|rng| rng.random_range(f64::EPSILON..1.0));
                let pause = Duration::from_secs_f64(-luck.ln() * mean * world.args.calmer);
                let pause = pause.min(end.saturating_duration_since(Instant::now()));
                sleep(pause).await;
                if Instant::now() >= end {
                    return;
                }
                if let Err(error) = inflict(&world, kind).await {
                    eprintln!("{kind}: {error:#}");
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn inflict(world: &Arc<World>, kind: &'static str) -> anyhow::Result<()> {
    if kind == "executor killed" {
        return kill_executor(world).await;
    }
    let episode = world.truth.begin();
    let done = inflict_lasting(world, kind).await;
    world.truth.end(episode);
    if done? {
        world.truth.count(kind);
    }
    Ok(())
}

/// Whether there was somebody to inflict it on.
async fn inflict_lasting(world: &Arc<World>, kind: &'static str) -> anyhow::Result<bool> {
    match kind {
        "executor ended" => end_executor(world).await,
        "executor stopped" => stop_executor(world).await,
        "version wiped out" => wipe_out(world).await,
        "instance killed" => strike_instance(world, Signal::KILL).await,
        "instance ended" => strike_instance(world, Signal::TERM).await,
        "instance stopped" => stop_instance(world).await,
        "control plane killed" => kill_all_instances(world).await,
        "store restarted" => restart(world, &world.segno_postgres).await,
        "application database restarted" => restart(world, &world.app_postgres).await,
        "store failed over" => fail_over(world, &world.segno_postgres, true).await,
        "application database failed over" => fail_over(world, &world.app_postgres, false).await,
        "disk filled" => {
            let lasting = world.seconds(3.0..10.0);
            world.segno_postgres.fill_disk(lasting).await?;
            Ok(true)
        }
        "link cut" => {
            weather(world, Condition::Cut, 0.1..6.0).await;
            Ok(true)
        }
        "link silent" => {
            weather(world, Condition::Silent, 1.0..40.0).await;
            Ok(true)
        }
        "link slow" => {
            let there = world.seconds(0.01..0.8);
            let back = world.seconds(0.01..0.8);
            weather(world, Condition::Slow { there, back }, 3.0..15.0).await;
            Ok(true)
        }
        "pongs slow" => {
            let there = world.seconds(2.0..8.0);
            let back = Duration::ZERO;
            let slow = Condition::Slow { there, back };
            on_link(world, &slot(world).control, slow, 20.0..40.0).await;
            Ok(true)
        }
        "connections half open" => {
            let slot = slot(world);
            if world.random(|rng| rng.random_bool(0.7)) {
                slot.control.link().deafen();
            } else {
                slot.database.link().deafen();
                // The proxy acknowledges what it keeps, so the kernel's own limit never strikes: this is it.
                sleep(world.seconds(8.0..30.0)).await;
                slot.database.link().sever();
            }
            Ok(true)
        }
        "connections refused" => {
            let proxy = link(world);
            proxy.refuse(true);
            sleep(world.seconds(1.0..8.0)).await;
            proxy.refuse(false);
            Ok(true)
        }
        "reconnect storm" => {
            storm(world);
            Ok(true)
        }
        other => anyhow::bail!("no such fault: {other}"),
    }
}

// ---- executors ----------------------------------------------------------------------------------

/// Mostly Rust: a Python process takes seconds of a processor to start.
fn slot(world: &World) -> &Slot {
    let wanted = world.random(|rng| {
        if rng.random_bool(0.8) {
            Language::Rust
        } else {
            Language::Python
        }
    });
    let wanted = world.languages().into_iter().find(|each| *each == wanted);
    let wanted = wanted.unwrap_or(Language::Rust);
    let slots: Vec<&Slot> = world
        .slots
        .iter()
        .filter(|slot| slot.language == wanted)
        .collect();
    let index = world.random(|rng| rng.random_range(0..slots.len()));
    slots[index]
}

async fn kill_executor(world: &Arc<World>) -> anyhow::Result<()> {
    let slot = slot(world);
    let Some(_taken) = slot.place.take() else {
        return Ok(());
    };
    // Where an id can be given, some come back under it, before or after their grace is over.
    let again = slot.language == Language::Rust && world.random(|rng| rng.random_bool(0.25));
    kill(world, slot, world.seconds(0.2..8.0), again).await
}

async fn kill(world: &World, slot: &Slot, away: Duration, again: bool) -> anyhow::Result<()> {
    if !slot.place.is_up() || slot.place.id().is_none() {
        return Ok(());
    }
    let at = segno_e2e::now_ms();
    let Some(executor) = slot.place.strike(Signal::KILL, away, again)? else {
        return Ok(());
    };
    world.truth.count("executor killed");
    let running = oracle::running_under(&world.app_postgres, slot.language, &executor).await;
    world.truth.killed(Kill {
        executor,
        language: slot.language,
        at,
        running: running.unwrap_or_default(),
        came_back: false,
    });
    Ok(())
}

async fn end_executor(world: &World) -> anyhow::Result<bool> {
    let slot = slot(world);
    let Some(_taken) = slot.place.take() else {
        return Ok(false);
    };
    if !slot.place.is_up() {
        return Ok(false);
    }
    let Some(id) = slot.place.id() else {
        return Ok(false);
    };
    world.truth.told_to_end(id);
    slot.place
        .strike(Signal::TERM, world.seconds(0.2..4.0), false)?;
    Ok(true)
}

async fn stop_executor(world: &World) -> anyhow::Result<bool> {
    let slot = slot(world);
    let Some(_taken) = slot.place.take() else {
        return Ok(false);
    };
    if !slot.place.is_up() || slot.place.id().is_none() {
        return Ok(false);
    }
    slot.place.freeze(true)?;
    // Some for longer than the server waits for a sign of life and then grants.
    sleep(world.seconds(0.5..20.0)).await;
    slot.place.freeze(false)?;
    Ok(true)
}

/// Kills all executors of a version. What they leave behind must be reported as stranded; then they may come.
async fn wipe_out(world: &Arc<World>) -> anyhow::Result<bool> {
    let language = slot(world).language;
    let version = world.random(|rng| VERSIONS.choose(rng).copied().unwrap_or("v1"));
    let of_version: Vec<&Slot> = world
        .slots
        .iter()
        .filter(|slot| slot.language == language && slot.version == version)
        .collect();
    let taken: Vec<_> = of_version.iter().map(|slot| slot.place.take()).collect();
    if taken.iter().any(Option::is_none) {
        return Ok(false);
    }
    for slot in &of_version {
        kill(world, slot, WIPED_OUT, false).await?;
        slot.place.keep_away(WIPED_OUT);
    }
    let reported = oracle::stranded_is_reported(world, language, version).await;
    for slot in &of_version {
        slot.place.come_back();
    }
    if let Err(error) = reported {
        world
            .truth
            .violation(format!("stranded and not reported: {error:#}"));
    }
    Ok(true)
}

// ---- instances ----------------------------------------------------------------------------------

async fn strike_instance(world: &World, signal: Signal) -> anyhow::Result<bool> {
    let Some(instance) = world.random(|rng| world.instances.choose(rng)) else {
        return Ok(false);
    };
    let Some(_taken) = instance.place.take() else {
        return Ok(false);
    };
    let up = instance.place.is_up();
    if up {
        instance
            .place
            .strike(signal, world.seconds(0.1..10.0), false)?;
    }
    Ok(up)
}

async fn kill_all_instances(world: &World) -> anyhow::Result<bool> {
    let away = world.seconds(0.1..15.0);
    for instance in &world.instances {
        if instance.place.is_up() {
            instance.place.strike(Signal::KILL, away, false)?;
            world.truth.count("instance killed");
        }
    }
    Ok(true)
}

async fn stop_instance(world: &World) -> anyhow::Result<bool> {
    let Some(instance) = world.random(|rng| world.instances.choose(rng)) else {
        return Ok(false);
    };
    let Some(_taken) = instance.place.take() else {
        return Ok(false);
    };
    if !instance.place.is_up() {
        return Ok(false);
    }
    instance.place.freeze(true)?;
    sleep(world.seconds(0.5..20.0)).await;
    // It may have been killed meanwhile.
    let _ = instance.place.freeze(false);
    Ok(true)
}

// ---- databases ----------------------------------------------------------------------------------

async fn restart(world: &World, postgres: &Postgres) -> anyhow::Result<bool> {
    let stop = world.random(|rng| {
        if rng.random_bool(0.5) {
            Stop::Fast
        } else {
            Stop::Immediate
        }
    });
    postgres.restart(stop, world.seconds(0.0..4.0)).await?;
    Ok(true)
}

/// The old primary is gone for good: connections to it end, as they do when its machine is lost and noticed.
async fn fail_over(world: &World, postgres: &Postgres, store: bool) -> anyhow::Result<bool> {
    let proxies: Vec<&Proxy> = if store {
        world.instances.iter().map(|each| &each.store).collect()
    } else {
        world.slots.iter().map(|slot| &slot.database).collect()
    };
    let links = proxies.into_iter().map(|proxy| Arc::clone(proxy.link()));
    postgres.fail_over(links.collect()).await?;
    Ok(true)
}

// ---- links --------------------------------------------------------------------------------------

/// Any link: of an executor to the load balancer or its database, of an instance to the outside, to the other
/// instances or to its database, of callers.
fn link(world: &World) -> &Proxy {
    let of_slots = world
        .slots
        .iter()
        .flat_map(|slot| [&slot.control, &slot.database]);
    let of_instances = world.instances.iter().flat_map(|each| each.links());
    let all: Vec<&Proxy> = of_slots.chain(of_instances).chain([&world.door]).collect();
    let index = world.random(|rng| rng.random_range(0..all.len()));
    all[index]
}

async fn weather(world: &World, condition: Condition, lasting: std::ops::Range<f64>) {
    on_link(world, link(world), condition, lasting).await;
}

async fn on_link(
    world: &World,
    proxy: &Proxy,
    condition: Condition,
    lasting: std::ops::Range<f64>,
) {
    if !proxy.is_clear() {
        return;
    }
    proxy.link().set(condition);
    sleep(world.seconds(lasting)).await;
    proxy.link().set(Condition::Whole);
}

/// Everybody dials again at once.
fn storm(world: &World) {
    for slot in &world.slots {
        slot.control.link().sever();
    }
}
