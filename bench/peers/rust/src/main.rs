//! The workloads of ../../README.md through the official Rust crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use dbos::{Config, DBOS, Enqueue, Error, QueueConflict, QueueOptions, StartOptions, WorkflowRef};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;

const QUEUE: &str = "bench";

#[derive(Parser)]
struct Args {
    #[arg(long)]
    workload: String,
    #[arg(long)]
    n: u32,
    #[arg(long)]
    concurrency: u32,
    #[arg(long)]
    db: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StepOutput {
    step: u32,
    value: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Outcome {
    input: u32,
    steps: u32,
    sum: u64,
}

async fn run(input: u32, steps: u32) -> dbos::Result<Outcome> {
    let mut sum = 0;
    for step in 0..steps {
        let body = move || async move {
            let value = input + step;
            Ok::<_, Error>(StepOutput { step, value })
        };
        sum += u64::from(dbos::step("add", body).await?.value);
    }
    Ok(Outcome { input, steps, sum })
}

type Workflow = WorkflowRef<u32, Outcome>;

#[derive(Clone)]
struct Workflows {
    zero: Workflow,
    one: Workflow,
    ten: Workflow,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dbos = DBOS::new(Config {
        app_version: Some("bench".to_owned()),
        ..Config::new("bench", &args.db)
    });
    let workflows = Workflows {
        zero: dbos.register_workflow("zero", |input: u32| run(input, 0))?,
        one: dbos.register_workflow("one", |input: u32| run(input, 1))?,
        ten: dbos.register_workflow("ten", |input: u32| run(input, 10))?,
    };
    dbos.launch().await?;
    let conflict = QueueConflict::UpdateIfLatestVersion;
    dbos.register_queue(QUEUE, QueueOptions::default(), conflict)
        .await?;
    let warm_up = (2 * args.concurrency).max(20);
    measure(&workflows, &args, warm_up).await?;
    let began = Instant::now();
    let mut latencies = measure(&workflows, &args, args.n).await?;
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort();
    let percentile = |percent: usize| {
        latencies[(latencies.len() * percent).div_ceil(100) - 1].as_secs_f64() * 1000.0
    };
    let line = json!({
        "sdk": "dbos-rust", "version": "0.5.0", "workload": args.workload, "n": args.n,
        "concurrency": args.concurrency, "seconds": seconds, "wf_per_s": f64::from(args.n) / seconds,
        "p50_ms": percentile(50), "p99_ms": percentile(99),
    });
    println!("{line}");
    dbos.shutdown().await;
    Ok(())
}

async fn measure(workflows: &Workflows, args: &Args, n: u32) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicU32::new(0));
    let callers = (0..args.concurrency.min(n)).map(|_| {
        let (workflows, next) = (workflows.clone(), next.clone());
        let workload = args.workload.clone();
        tokio::spawn(async move {
            match &*workload {
                "W1" => call(&workflows.zero, 0, &next, n).await,
                "W2" => call(&workflows.one, 1, &next, n).await,
                "W3" => call(&workflows.ten, 10, &next, n).await,
                "W4" => enqueue(&workflows.one, &next, n).await,
                _ => anyhow::bail!("no such workload"),
            }
        })
    });
    let shares = try_join_all(callers).await?;
    let shares = shares.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(shares.into_iter().flatten().collect())
}

fn take(next: &AtomicU32, n: u32) -> Option<u32> {
    let input = next.fetch_add(1, Ordering::Relaxed);
    (input < n).then_some(input)
}

async fn call(
    workflow: &Workflow,
    steps: u32,
    next: &AtomicU32,
    n: u32,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while let Some(input) = take(next, n) {
        let began = Instant::now();
        let outcome = workflow.run(input).await?;
        latencies.push(began.elapsed());
        check(&outcome, input, steps)?;
    }
    Ok(latencies)
}

async fn enqueue(workflow: &Workflow, next: &AtomicU32, n: u32) -> anyhow::Result<Vec<Duration>> {
    let mut enqueued = Vec::new();
    while let Some(input) = take(next, n) {
        let began = Instant::now();
        let options = StartOptions {
            queue: Some(Enqueue::new(QUEUE)),
            ..StartOptions::default()
        };
        enqueued.push((input, began, workflow.start_with(input, options).await?));
    }
    let mut latencies = Vec::new();
    for (input, began, handle) in enqueued {
        let outcome = handle.result().await?;
        latencies.push(began.elapsed());
        check(&outcome, input, 1)?;
    }
    Ok(latencies)
}

fn check(outcome: &Outcome, input: u32, steps: u32) -> anyhow::Result<()> {
    let (n, count) = (u64::from(input), u64::from(steps));
    let sum = n * count + count * count.saturating_sub(1) / 2;
    anyhow::ensure!(
        *outcome == Outcome { input, steps, sum },
        "{input} answered {outcome:?}"
    );
    Ok(())
}
