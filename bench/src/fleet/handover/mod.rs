//! How fast the work of lost executors gets to others: from the loss to the moment at which another executor
//! is asked to recover it. Simulated executors, real instances on one Postgres, many repetitions.

mod ledger;
mod report;
mod stage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

pub(crate) use ledger::Ledger;
use report::{Handovers, Mass, Move, Report};
use stage::{Stage, register};

use crate::crowd::Crowd;
use crate::load;
use crate::report::Machine;

/// Executors that live, and may be asked to recover.
const LIVING: usize = 20;
/// Of those that live while very many die.
const LIVING_OF_MANY: usize = 200;
/// Executors that die with their instance, each time.
const WITH_INSTANCE: usize = 25;
/// Callers of the API, and their calls a second altogether.
const CALLERS: u32 = 100;
const CALLS: u32 = 300;
/// The application of everybody who is only there.
const OTHERS: &str = "others";

#[derive(Args, Clone, Debug)]
pub(crate) struct HandoverArgs {
    /// The server's binary [default: `segno` beside this one]
    #[arg(long)]
    pub(super) server_binary: Option<PathBuf>,

    /// A Postgres on which a database may be created
    #[arg(long, env = "SEGNO_TEST_POSTGRES_URL", hide_env_values = true)]
    pub(super) postgres: Option<String>,

    /// How long a lost executor is waited for, seconds: the application's `executorTimeoutSecs`
    #[arg(long, default_value_t = 5)]
    pub(super) grace: u64,

    /// What is measured
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "killed,with-instance,stopped,many"
    )]
    only: Vec<Scenario>,

    /// Executors killed, and stopped, one after the other
    #[arg(long, default_value_t = 300)]
    repetitions: usize,

    /// Instances killed, one after the other, each with 25 executors
    #[arg(long, default_value_t = 10)]
    rounds: usize,

    /// Executors that die all at once, with ten workflows each
    #[arg(long, default_value_t = 1000)]
    dead: usize,

    /// Executors of another application that are connected meanwhile; cut to what the file limit allows
    #[arg(long, default_value_t = 13_800)]
    others: usize,

    /// Instances among which they are spread, once for each number
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    instances: Vec<usize>,

    /// The program of the open control plane `relay`, for comparison (bench/relay.sh builds it); none if empty
    #[arg(long, default_value = "")]
    relay: String,

    /// Writes the figures there as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// An executor is killed
    Killed,
    /// An executor is killed, and at the same moment the instance that holds its connection
    WithInstance,
    /// An executor stops in good order and says so
    Stopped,
    /// Very many are killed at once
    Many,
}

/// Measures what is asked for, and prints it.
pub(crate) async fn measure(args: HandoverArgs, files: u64) -> anyhow::Result<()> {
    let mut report = Report::new(Machine::now()?, args.grace);
    report.print_head();
    for scenario in &args.only {
        match scenario {
            Scenario::Killed => {
                report.add(killed("killed", &args, Stage::set(&args, 1).await?).await?);
                compare(&mut report, &args).await;
            }
            Scenario::WithInstance => report.add(with_instance(&args).await?),
            Scenario::Stopped => report.add(stopped(&args).await?),
            Scenario::Many => {
                for instances in &args.instances {
                    report.add_mass(many(&args, *instances, files).await?);
                }
            }
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One after the other at odd intervals, so that no round of the server's is always or never met.
async fn odd_pause() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(10..50))).await;
}

/// The same executors and the same grace with the other control plane, if there is one. That it fails is no
/// failure of ours.
async fn compare(report: &mut Report, args: &HandoverArgs) {
    if args.relay.is_empty() {
        return println!("  dbos-relay: not measured, for there is no program of it");
    }
    let measured = async {
        let stage = Stage::set_relay(args, args.relay.as_ref()).await?;
        killed("killed, dbos-relay", args, stage).await
    };
    match measured.await {
        Ok(figures) => report.compare(figures),
        Err(error) => println!("  dbos-relay: not measured: {error:#}"),
    }
}

async fn killed(name: &str, args: &HandoverArgs, mut stage: Stage) -> anyhow::Result<Handovers> {
    stage.live(LIVING);
    let doomed = stage.doom(args.repetitions, 1, &stage.addresses());
    stage.until_healthy(0).await?;
    for one in &doomed {
        stage.kill([one]);
        odd_pause().await;
    }
    let waits = stage.until_taken().await;
    let figure = Handovers::of(name, &waits, stage.grace, 500, stage.false_offers());
    stage.clear().await?;
    Ok(figure)
}

async fn stopped(args: &HandoverArgs) -> anyhow::Result<Handovers> {
    let mut stage = Stage::set(args, 1).await?;
    stage.live(LIVING);
    let doomed = stage.doom(args.repetitions, 1, &stage.addresses());
    stage.until_healthy(0).await?;
    for one in &doomed {
        stage.leave(one);
        odd_pause().await;
    }
    let waits = stage.until_taken().await;
    let figure = Handovers::of(
        "stopped",
        &waits,
        Duration::ZERO,
        1000,
        stage.false_offers(),
    );
    stage.clear().await?;
    Ok(figure)
}

/// Two instances; now the one and now the other is killed with executors of its own, and started again.
async fn with_instance(args: &HandoverArgs) -> anyhow::Result<Handovers> {
    let mut stage = Stage::set(args, 2).await?;
    stage.live(LIVING);
    for round in 0..args.rounds {
        let (dies, stays) = (round % 2, (round + 1) % 2);
        let at = stage.servers[dies].address;
        let doomed = stage.doom(WITH_INSTANCE, 1, &[at]);
        stage.until_healthy(stays).await?;
        odd_pause().await;
        stage.kill(&doomed);
        stage.servers[dies].crash().await?;
        stage.until_taken().await;
        stage.servers[dies].restart().await?;
        stage.until_healthy(stays).await?;
    }
    let waits = stage.until_taken().await;
    let false_offers = stage.false_offers();
    let figure = Handovers::of("with instance", &waits, stage.grace, 2000, false_offers);
    stage.clear().await?;
    Ok(figure)
}

/// Very many die at once, while others are connected and callers call.
async fn many(args: &HandoverArgs, instances: usize, files: u64) -> anyhow::Result<Mass> {
    let mut stage = Stage::set(args, instances).await?;
    let addresses = stage.addresses();
    let most = usize::try_from(files.saturating_sub(crate::SPARE_FILES)).unwrap_or(usize::MAX);
    let room = (most * instances).saturating_sub(args.dead + LIVING_OF_MANY);
    let key = register(&stage.servers[0], OTHERS, args.grace).await?;
    let mut others = Crowd::new(&addresses, OTHERS, &key, 4000);
    others.grow(args.others.min(room)).await?;
    stage.live(LIVING_OF_MANY);
    let doomed = stage.doom(args.dead, 10, &addresses);
    stage.until_healthy(0).await?;
    let before = calls(&stage, 5).await?;
    let lost = others.counts().lost;
    let began = Instant::now();
    stage.kill(&doomed);
    let time = args.grace + 8;
    let over = async {
        let waits = stage.until_taken().await;
        stage.until_healthy(0).await?;
        anyhow::Ok((waits, began.elapsed()))
    };
    let (over, meanwhile) = tokio::join!(over, calls(&stage, time));
    let (waits, settled) = over?;
    let figures = Handovers::of(
        &format!("{} at once, {instances} instances", args.dead),
        &waits,
        stage.grace,
        10_000,
        stage.false_offers(),
    );
    let lost = others.counts().lost - lost;
    if others.counts().offers > 0 {
        bail!("work of executors that are connected was offered");
    }
    let mass = Mass {
        instances,
        connected: others.size() + LIVING_OF_MANY + args.dead,
        handovers: figures,
        settled_in: settled.as_secs_f64(),
        lost_meanwhile: lost,
        before,
        meanwhile: meanwhile?,
        moved: match instances {
            1 => None,
            _ => Some(moved(&mut stage, &others).await?),
        },
    };
    drop(others);
    stage.clear().await?;
    Ok(mass)
}

/// One of several instances is killed: everybody whom it held dials another one, and nobody is taken for dead.
async fn moved(stage: &mut Stage, others: &Crowd) -> anyhow::Result<Move> {
    let (limit, before) = (Duration::from_secs(60), others.counts());
    let Some(mut dead) = stage.servers.pop() else {
        bail!("there is no instance to be killed");
    };
    let began = Instant::now();
    dead.crash().await?;
    let settle = async {
        // Everybody notices the loss before anybody can be counted as back.
        tokio::time::sleep(Duration::from_millis(500)).await;
        others.until_known(limit).await?;
        let connected_in = began.elapsed();
        while crate::fleet_of(&stage.servers[0], OTHERS).await? != (others.size(), 0) {
            if began.elapsed() > limit {
                bail!("not everybody is HEALTHY after an instance died");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok((connected_in, began.elapsed()))
    };
    let (settled, meanwhile) = tokio::join!(settle, calls(stage, stage.grace.as_secs() + 5));
    let (connected_in, healthy_in) = settled?;
    Ok(Move {
        executors: others.counts().lost - before.lost,
        connected_in: connected_in.as_secs_f64(),
        healthy_in: healthy_in.as_secs_f64(),
        false_deaths: crate::deaths(&stage.servers[0], OTHERS).await?,
        meanwhile: meanwhile?,
    })
}

/// What callers of all instances get.
async fn calls(stage: &Stage, seconds: u64) -> anyhow::Result<load::Outcome> {
    let (addresses, key) = (stage.addresses(), stage.key.clone());
    let time = Duration::from_secs(seconds);
    tokio::task::spawn_blocking(move || {
        load::relayed(&addresses, crate::APP, &key, CALLERS, Some(CALLS), time)
    })
    .await?
}
