//! Runs one workload through the library and prints one line of JSON. The drivers in ../peers take the same
//! command line and print the same line for other libraries; see ../README.md.

mod workflows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use futures_util::future::try_join_all;
use segno::{Handle, Queue, Segno};
use serde::Serialize;

use workflows::{Outcome, one, ten, zero};

const QUEUE: &str = "bench";

#[derive(Debug, Parser)]
#[command(about = "Measures workflows a second", version)]
struct Args {
    /// What to run
    #[arg(long)]
    workload: Workload,

    /// Workflows to measure
    #[arg(long)]
    n: u32,

    /// Callers, each with one workflow at a time (W4: enqueuers, each with its share)
    #[arg(long)]
    concurrency: u32,

    /// The Postgres database to run on, or `sqlite:` and a file
    #[arg(long)]
    db: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[clap(rename_all = "UPPER")]
enum Workload {
    /// No steps
    W1,
    /// One step
    W2,
    /// Ten steps, one after another
    W3,
    /// One step, through a durable queue
    W4,
}

#[derive(Serialize)]
struct Figures {
    sdk: &'static str,
    version: &'static str,
    workload: Workload,
    n: u32,
    concurrency: u32,
    seconds: f64,
    wf_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.n > 0, "--n is at least 1");
    anyhow::ensure!(args.concurrency > 0, "--concurrency is at least 1");
    let app = Segno::named("bench")
        .database_url(&args.db)
        .queue(Queue::new(QUEUE))
        .workflow("zero", zero)
        .workflow("one", one)
        .workflow("ten", ten)
        .launch()
        .await
        .map_err(failed)?;
    let warm_up = args.concurrency.saturating_mul(2).max(20);
    measure(&app, args.workload, warm_up, args.concurrency).await?;
    let began = Instant::now();
    let mut latencies = measure(&app, args.workload, args.n, args.concurrency).await?;
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let figures = Figures {
        sdk: "segno",
        version: env!("CARGO_PKG_VERSION"),
        workload: args.workload,
        n: args.n,
        concurrency: args.concurrency,
        seconds,
        wf_per_s: f64::from(args.n) / seconds,
        p50_ms: percentile(&latencies, 50),
        p99_ms: percentile(&latencies, 99),
    };
    println!("{}", serde_json::to_string(&figures)?);
    let left = app.shutdown(Duration::from_secs(30)).await;
    left.map_err(failed)
}

/// Runs `n` workflows from `callers` callers and returns how long each took.
async fn measure(
    app: &Segno,
    workload: Workload,
    n: u32,
    callers: u32,
) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicU32::new(0));
    let callers = (0..callers.min(n)).map(|_| {
        let (app, next) = (app.clone(), next.clone());
        tokio::spawn(async move {
            if workload == Workload::W4 {
                enqueue_share(&app, &next, n).await
            } else {
                call_share(&app, workload, &next, n).await
            }
        })
    });
    let mut latencies = Vec::with_capacity(usize::try_from(n)?);
    for share in try_join_all(callers).await? {
        latencies.extend(share?);
    }
    Ok(latencies)
}

/// The next input, until there were `n`.
fn take(next: &AtomicU32, n: u32) -> Option<u32> {
    let input = next.fetch_add(1, Ordering::Relaxed);
    (input < n).then_some(input)
}

/// Starts one workflow after another and awaits each one's result.
async fn call_share(
    app: &Segno,
    workload: Workload,
    next: &AtomicU32,
    n: u32,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while let Some(input) = take(next, n) {
        let began = Instant::now();
        let (outcome, steps) = match workload {
            Workload::W1 => (app.run(zero, input).await.map_err(failed)?, 0),
            Workload::W2 => (app.run(one, input).await.map_err(failed)?, 1),
            Workload::W3 | Workload::W4 => (app.run(ten, input).await.map_err(failed)?, 10),
        };
        latencies.push(began.elapsed());
        check(&outcome, input, steps)?;
    }
    Ok(latencies)
}

/// Enqueues one workflow after another, then awaits the results in the same order.
async fn enqueue_share(app: &Segno, next: &AtomicU32, n: u32) -> anyhow::Result<Vec<Duration>> {
    let mut enqueued: Vec<(u32, Instant, Handle<Outcome>)> = Vec::new();
    while let Some(input) = take(next, n) {
        let began = Instant::now();
        let handle = app.start(one, input).queue(QUEUE).await.map_err(failed)?;
        enqueued.push((input, began, handle));
    }
    let mut latencies = Vec::with_capacity(enqueued.len());
    for (input, began, handle) in enqueued {
        let outcome = handle.await.map_err(failed)?;
        latencies.push(began.elapsed());
        check(&outcome, input, 1)?;
    }
    Ok(latencies)
}

fn check(outcome: &Outcome, input: u32, steps: u32) -> anyhow::Result<()> {
    anyhow::ensure!(
        *outcome == Outcome::expected(input, steps),
        "the workflow of {input} answered {outcome:?}"
    );
    Ok(())
}

/// The library's error carries what a workflow failed with; here its text is enough.
fn failed(error: segno::Error) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

/// Milliseconds under which so many of a hundred are; of sorted ones.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted
        .get(rank)
        .context("nothing was measured")
        .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
}
