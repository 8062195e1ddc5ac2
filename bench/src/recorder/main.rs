//! What a checkpoint costs: workflows of ten steps on Postgres, at rising concurrency, beside the same
//! writes made the plain way, one commit a step. See ../../README.md for what the figures mean.

mod engine;
mod plain;
mod postgres;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;

use postgres::{Counters, SETTLE, Scratch};

#[derive(Debug, Parser)]
struct Args {
    /// A Postgres on which a database may be created
    #[arg(long, env = "SEGNO_TEST_POSTGRES_URL", hide_env_values = true)]
    postgres: String,

    /// Steps of each workflow
    #[arg(long, default_value_t = 10)]
    steps: u32,

    /// Workflows that run at a time, once for each
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    concurrency: Vec<usize>,

    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// One line of the table.
struct Figure {
    name: &'static str,
    concurrency: usize,
    /// Measured ones, and the time they took.
    workflows: u64,
    elapsed: Duration,
    /// Those of the warm-up, whose commits are counted too.
    warmed_up: u64,
    used: Counters,
    /// What the engine would have committed in that time without any work.
    idle_commits: f64,
}

impl Figure {
    fn per_second(&self) -> f64 {
        self.workflows as f64 / self.elapsed.as_secs_f64()
    }

    fn commits_per_workflow(&self) -> f64 {
        (self.used.commits as f64 - self.idle_commits) / self.all_workflows()
    }

    fn wal_per_workflow(&self) -> f64 {
        self.used.wal_bytes as f64 / self.all_workflows()
    }

    fn all_workflows(&self) -> f64 {
        (self.workflows + self.warmed_up).max(1) as f64
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = Scratch::create(&args.postgres)
        .await
        .context("cannot prepare a database")?;
    let result = measure_all(&args, &scratch).await;
    scratch.remove().await?;
    result
}

async fn measure_all(args: &Args, scratch: &Scratch) -> anyhow::Result<()> {
    println!("{}", scratch.describe().await?);
    println!(
        "workflows of {} steps, {} s each\n",
        args.steps, args.seconds
    );
    let engine = engine::Engine::launch(scratch.url())
        .await
        .map_err(anyhow::Error::msg)?;
    let idle = idle(scratch).await?;
    let plain = plain::Plain::connect(scratch.url()).await?;
    let mut figures = Vec::new();
    // Side by side, so that whatever else this machine does weighs on both.
    for &concurrency in &args.concurrency {
        let run = || {
            let (engine, steps) = (engine.clone(), args.steps);
            async move { engine.run(steps).await.map_err(anyhow::Error::msg) }
        };
        figures.push(measure(args, scratch, "segno", idle, concurrency, run).await?);
        let run = || {
            let (plain, steps) = (plain.clone(), args.steps);
            async move { plain.run(steps).await }
        };
        figures.push(measure(args, scratch, "plain", idle, concurrency, run).await?);
    }
    engine.shutdown().await.map_err(anyhow::Error::msg)?;
    print(&figures, idle);
    Ok(())
}

/// Commits a second that the engine makes without any work: its looks at queues and runs.
async fn idle(scratch: &Scratch) -> anyhow::Result<f64> {
    let before = scratch.settled().await?;
    let used = scratch.settled().await?.since(before);
    Ok(used.commits as f64 / SETTLE.as_secs_f64())
}

/// Keeps `concurrency` workflows running for the time given, after a short warm-up.
async fn measure<F, Fut>(
    args: &Args,
    scratch: &Scratch,
    name: &'static str,
    idle: f64,
    concurrency: usize,
    run: F,
) -> anyhow::Result<Figure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let before = scratch.read().await?;
    let counting = Instant::now();
    let warmed_up = keep_busy(concurrency, Duration::from_millis(500), &run).await?;
    let began = Instant::now();
    let workflows = keep_busy(concurrency, Duration::from_secs(args.seconds), &run).await?;
    let elapsed = began.elapsed();
    let used = scratch.settled().await?.since(before);
    let idle_commits = idle * counting.elapsed().as_secs_f64();
    Ok(Figure {
        name,
        concurrency,
        workflows,
        elapsed,
        warmed_up,
        used,
        idle_commits,
    })
}

/// Counts the workflows that ended; the last ones are waited for.
async fn keep_busy<F, Fut>(concurrency: usize, time: Duration, run: &F) -> anyhow::Result<u64>
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let end = Instant::now() + time;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        running.spawn(run());
    }
    let mut ended = 0;
    while let Some(workflow) = running.join_next().await {
        workflow??;
        ended += 1;
        if Instant::now() < end {
            running.spawn(run());
        }
    }
    Ok(ended)
}

fn print(figures: &[Figure], idle: f64) {
    println!(
        "{:8} {:>11} {:>12} {:>17} {:>13}",
        "", "concurrency", "workflows/s", "commits/workflow", "WAL/workflow"
    );
    for figure in figures {
        println!(
            "{:8} {:>11} {:>12.1} {:>17.2} {:>10.1} kB",
            figure.name,
            figure.concurrency,
            figure.per_second(),
            figure.commits_per_workflow(),
            figure.wal_per_workflow() / 1024.0,
        );
    }
    println!("\nidle engine: {idle:.1} commits/s (not included above)");
    for engine in figures.iter().filter(|f| f.name == "segno") {
        let plain = figures
            .iter()
            .find(|f| f.name == "plain" && f.concurrency == engine.concurrency);
        if let Some(plain) = plain {
            println!(
                "segno : plain at concurrency {:<3}  {:>5.2} times the workflows, {:.3} of the commits",
                engine.concurrency,
                engine.per_second() / plain.per_second(),
                engine.commits_per_workflow() / plain.commits_per_workflow(),
            );
        }
    }
}
