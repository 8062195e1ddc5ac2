//! What a fleet of executors costs the server: memory, processor, latency, and a restart under all of
//! them. See ../../README.md for what the figures mean.

mod crowd;
mod database;
mod executor;
mod handover;
mod load;
mod report;
mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crowd::{Crowd, CrowdArgs};
use database::{Scratch, Store};
use handover::HandoverArgs;
use report::{Idle, Machine, Measured, Relayed, Report, Start, Step, Storm};
use server::Server;

const APP: &str = "bench";
/// Files that the server needs beside its executors' sockets.
const SPARE_FILES: u64 = 1000;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    child: Option<Role>,
    #[command(flatten)]
    args: MeasureArgs,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// How fast the work of lost executors gets to others
    Handover(HandoverArgs),
    /// A process of synthetic executors
    #[command(hide = true)]
    Crowd(CrowdArgs),
}

#[derive(Args, Debug)]
struct MeasureArgs {
    /// The server's binary [default: `segno` beside this one]
    #[arg(long)]
    server_binary: Option<PathBuf>,

    /// A Postgres on which a database may be created
    #[arg(long, env = "SEGNO_TEST_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,

    /// Where the server keeps its state, once for each
    #[arg(long, value_delimiter = ',', default_value = "postgres,sqlite")]
    stores: Vec<Store>,

    /// Connected executors, one step after the other; cut to what the file limit allows
    #[arg(long, value_delimiter = ',', default_value = "1000,15000")]
    executors: Vec<usize>,

    /// Executors in each process
    #[arg(long, default_value_t = 4000)]
    each: usize,

    /// Seconds of rest before memory is read: every executor is pinged and probed meanwhile
    #[arg(long, default_value_t = 35)]
    settle: u64,

    /// Seconds over which the idle server is watched
    #[arg(long, default_value_t = 30)]
    idle: u64,

    /// Relayed requests a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,

    /// Seconds of requests
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// Longest wait for everybody after the restart, seconds
    #[arg(long, default_value_t = 120)]
    storm_limit: u64,

    /// Writes the figures there as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let files = raise_file_limit();
    match cli.child {
        Some(Role::Crowd(args)) => crowd::run(args).await,
        Some(Role::Handover(args)) => handover::measure(args, files).await,
        None => measure_all(cli.args, files).await,
    }
}

/// Allows as many open files as the system lets this process and its children have; how many.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    // Refused only beyond the maximum, which this is.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    );
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

async fn measure_all(args: MeasureArgs, files: u64) -> anyhow::Result<()> {
    let binary = server::binary(args.server_binary.as_deref())?;
    let most = usize::try_from(files.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX);
    let mut steps: Vec<usize> = args.executors.iter().map(|n| (*n).min(most)).collect();
    steps.sort_unstable();
    steps.dedup();
    if steps.last() < args.executors.iter().max() {
        println!("Only {files} open files are allowed: at most {most} executors.");
    }
    let mut report = Report {
        machine: Machine::now()?,
        stores: Vec::new(),
    };
    println!("{:?}", report.machine);
    for store in &args.stores {
        let scratch = Scratch::create(*store, args.postgres.as_deref()).await?;
        let measured = Run {
            args: &args,
            steps: &steps,
            scratch: &scratch,
        }
        .measure(*store, &binary)
        .await;
        scratch.remove().await?;
        let measured = measured?;
        measured.print();
        report.stores.push(measured);
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

struct Run<'a> {
    args: &'a MeasureArgs,
    steps: &'a [usize],
    scratch: &'a Scratch,
}

impl Run<'_> {
    async fn measure(&self, store: Store, binary: &std::path::Path) -> anyhow::Result<Measured> {
        let directory = self.scratch.directory.path();
        let began = Instant::now();
        let mut server = Server::start(binary, &self.scratch.url, directory).await?;
        let first = began.elapsed();
        let start = self.start(&mut server, first, binary).await?;
        let key = server.prepare(APP).await?;
        rest(2).await;
        let resident_empty = server.resident()?;
        let mut crowd = Crowd::new(&[server.address], APP, &key, self.args.each);
        let mut steps = Vec::new();
        for executors in self.steps {
            steps.push(
                self.step(&server, &mut crowd, *executors, resident_empty)
                    .await?,
            );
        }
        let idle = self.idle(&server, &crowd).await?;
        let direct = self.direct(&key).await?;
        let relayed = self.relayed(&server, &key).await?;
        let most = self.load(&server, &key, None, 5).await?;
        rest(2).await;
        let storm = self.storm(&mut server, &crowd).await?;
        Ok(Measured {
            store,
            start,
            resident_empty,
            steps,
            idle,
            direct,
            relayed,
            most,
            storm,
        })
    }

    /// From nothing to `/readyz`, on a store that is new and on one that is there.
    async fn start(
        &self,
        server: &mut Server,
        first: Duration,
        binary: &std::path::Path,
    ) -> anyhow::Result<Start> {
        const ROUNDS: usize = 9;
        let mut again = Vec::new();
        for _ in 0..ROUNDS {
            again.push(server.crash_and_restart().await?);
        }
        again.sort_unstable();
        Ok(Start {
            binary_bytes: std::fs::metadata(binary)?.len(),
            first: first.as_secs_f64(),
            median: again[ROUNDS / 2].as_secs_f64(),
            slowest: again[ROUNDS - 1].as_secs_f64(),
        })
    }

    async fn step(
        &self,
        server: &Server,
        crowd: &mut Crowd,
        executors: usize,
        empty: u64,
    ) -> anyhow::Result<Step> {
        let began = Instant::now();
        crowd.grow(executors).await?;
        let connected_in = began.elapsed().as_secs_f64();
        rest(self.args.settle).await;
        let resident = server.resident()?;
        Ok(Step {
            executors,
            connected_in,
            resident,
            each: resident.saturating_sub(empty) / executors as u64,
        })
    }

    async fn idle(&self, server: &Server, crowd: &Crowd) -> anyhow::Result<Idle> {
        let (began, used) = (Instant::now(), server.processor_time()?);
        let lost = crowd.counts().lost;
        rest(self.args.idle).await;
        let seconds = began.elapsed().as_secs_f64();
        let processor = (server.processor_time()? - used).as_secs_f64() / seconds;
        Ok(Idle {
            executors: crowd.size(),
            seconds,
            processor,
            processor_per_thousand: processor * 1000.0 / crowd.size().max(1) as f64,
            lost: crowd.counts().lost - lost,
        })
    }

    /// The same executor without a server between.
    async fn direct(&self, key: &str) -> anyhow::Result<load::Outcome> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let mut alone = Crowd::new(&[listener.local_addr()?], APP, key, 1);
        let (rate, time) = (
            self.args.rate,
            Duration::from_secs(self.args.seconds.min(10)),
        );
        let measuring = tokio::task::spawn_blocking(move || load::direct(&listener, rate, time));
        alone.grow(1).await?;
        measuring.await?
    }

    async fn relayed(&self, server: &Server, key: &str) -> anyhow::Result<Relayed> {
        // Connections, caches and code are warm before anything counts.
        self.load(server, key, Some(self.args.rate), 3).await?;
        let (began, used) = (Instant::now(), server.processor_time()?);
        let outcome = self
            .load(server, key, Some(self.args.rate), self.args.seconds)
            .await?;
        let used = (server.processor_time()? - used).as_secs_f64();
        Ok(Relayed {
            rate: self.args.rate,
            outcome,
            processor: used / began.elapsed().as_secs_f64(),
            resident_after: server.resident()?,
        })
    }

    async fn load(
        &self,
        server: &Server,
        key: &str,
        rate: Option<u32>,
        seconds: u64,
    ) -> anyhow::Result<load::Outcome> {
        let (address, key) = (server.address, key.to_owned());
        let time = Duration::from_secs(seconds);
        tokio::task::spawn_blocking(move || {
            load::relayed(&[address], APP, &key, load::CALLERS, rate, time)
        })
        .await?
    }

    async fn storm(&self, server: &mut Server, crowd: &Crowd) -> anyhow::Result<Storm> {
        let before = crowd.counts();
        let began = Instant::now();
        let ready_in = server.crash_and_restart().await?.as_secs_f64();
        let limit = Duration::from_secs(self.args.storm_limit);
        // Everybody notices the loss before anybody can be counted as back.
        while crowd.counts().lost < before.lost + crowd.size() as u64 {
            if began.elapsed() > limit {
                bail!("not everybody noticed the restart: {:?}", crowd.counts());
            }
            rest_ms(20).await;
        }
        crowd.until_known(limit).await?;
        let connected_in = began.elapsed().as_secs_f64();
        while healthy(server).await? < crowd.size() {
            if began.elapsed() > limit {
                bail!("only {} are HEALTHY", healthy(server).await?);
            }
            rest_ms(200).await;
        }
        let healthy_in = began.elapsed().as_secs_f64();
        let processor_time = server.processor_time()?.as_secs_f64();
        // A late verdict would come by now.
        rest(5).await;
        let dead = deaths(server, APP).await?;
        let after = crowd.counts();
        Ok(Storm {
            executors: crowd.size(),
            ready_in,
            connected_in,
            healthy_in,
            dials: after.dials - before.dials,
            refused: after.refused - before.refused,
            false_deaths: dead,
            offers: after.offers,
            processor_time,
            resident_after: server.resident()?,
        })
    }
}

/// How many executors the API shows as HEALTHY.
async fn healthy(server: &Server) -> anyhow::Result<usize> {
    Ok(fleet_of(server, APP).await?.0)
}

/// How many executors the API shows as HEALTHY, and how many as anything else.
async fn fleet_of(server: &Server, app: &str) -> anyhow::Result<(usize, usize)> {
    let all = server
        .call("GET", &format!("/apps/{app}/executors"), None)
        .await?;
    let all = all.as_array().context("the executors are no list")?;
    let healthy = all
        .iter()
        .filter(|executor| executor["status"] == "HEALTHY")
        .count();
    Ok((healthy, all.len() - healthy))
}

/// How many executors of an application were declared dead, of the last thousand that were lost.
async fn deaths(server: &Server, app: &str) -> anyhow::Result<usize> {
    let recoveries = server
        .call("GET", &format!("/apps/{app}/recoveries?limit=1000"), None)
        .await?;
    Ok(recoveries.as_array().map_or(0, |all| {
        all.iter().filter(|one| !one["deadAt"].is_null()).count()
    }))
}

async fn rest(seconds: u64) {
    rest_ms(seconds * 1000).await;
}

async fn rest_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
