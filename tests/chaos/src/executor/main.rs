//! An application of the chaos runs on this library: errands, started directly and through a queue.
//!
//! `executor.py` is the same in Python. An errand leaves its traces in the schema `chaos` of the application's
//! database: every execution of every step in `effects`, and in `ledger` one row of its transaction, whose
//! uniqueness nothing but the engine sees to.

use std::time::Duration;

use clap::Parser;
use segno::{Ctx, Db, Queue, Segno, Tx};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The queue of both applications.
const QUEUE: &str = "errands";
/// Queued errands that one process runs at a time.
const AT_ONCE: u32 = 50;
/// Between two attempts at what the database refused.
const AGAIN: Duration = Duration::from_millis(200);
/// What running errands get on shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The control plane, the executor's id and the version come in the library's own variables.
#[derive(Debug, Parser)]
struct Args {
    /// Name of the application
    #[arg(long)]
    app: String,
    /// Its database
    #[arg(long, env = "SEGNO_SYSTEM_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Errands a second that this process starts, directly and through the queue by turns
    #[arg(long)]
    rate: f64,
    /// Longest that a step works, in milliseconds
    #[arg(long)]
    step_ms: u64,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Errand {
    step_ms: u64,
}

#[segno::workflow]
async fn errand(ctx: Ctx<Db>, errand: Errand) -> segno::Result<String> {
    let mut said = Vec::new();
    for step in ["first", "second"] {
        said.push(ctx.step(step, || work(&ctx, step, &errand)).await?);
    }
    let settled = ctx
        .transaction(ctx.state(), "settle", |tx| Box::pin(settle(tx, &ctx)))
        .await?;
    said.push(settled);
    said.push(ctx.step("third", || work(&ctx, "third", &errand)).await?);
    Ok(said.join(" "))
}

/// Notes that a step was executed, then takes its time.
async fn work(ctx: &Ctx<Db>, step: &str, errand: &Errand) -> segno::Result<String> {
    // The same row however often it is tried: an answer that is lost may have been a yes.
    let attempt = Uuid::new_v4().to_string();
    let once = || {
        ctx.state()
            .transaction(|tx| Box::pin(note(tx, ctx, step, &attempt)))
    };
    while let Err(error) = once().await {
        tracing::debug!(%error, "an effect is not written yet");
        tokio::time::sleep(AGAIN).await;
    }
    let longest = errand.step_ms.max(1);
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..longest))).await;
    Ok(step.to_owned())
}

async fn settle(tx: &mut Tx<'_>, ctx: &Ctx<Db>) -> segno::Result<String> {
    note(tx, ctx, "settle", &Uuid::new_v4().to_string()).await?;
    tx.query(
        "INSERT INTO chaos.ledger (workflow_id, executor_id, app_version) VALUES ($1, $2, $3)",
    )
    .bind(ctx.workflow_id().to_owned())
    .bind(ctx.executor_id().to_owned())
    .bind(ctx.app_version().to_owned())
    .execute()
    .await?;
    Ok("settled".to_owned())
}

async fn note(tx: &mut Tx<'_>, ctx: &Ctx<Db>, step: &str, attempt: &str) -> segno::Result<()> {
    tx.query(
        "INSERT INTO chaos.effects (attempt, workflow_id, step, executor_id, app_version) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(attempt.to_owned())
    .bind(ctx.workflow_id().to_owned())
    .bind(step.to_owned())
    .bind(ctx.executor_id().to_owned())
    .bind(ctx.app_version().to_owned())
    .execute()
    .await?;
    Ok(())
}

/// Starts errands, directly and through the queue by turns, and notes which starts were acknowledged.
async fn start_errands(app: Segno, db: Db, rate: f64, errand: Errand) {
    let prefix = Uuid::new_v4().simple().to_string();
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tick.tick().await;
        let how = if number % 2 == 0 { "direct" } else { "queued" };
        let id = format!("{}.{how}.{prefix}-{number}", app.app_version());
        tokio::spawn(start_one(app.clone(), db.clone(), id, errand.clone()));
    }
}

async fn start_one(app: Segno, db: Db, id: String, errand: Errand) {
    let start = || app.start(crate::errand, errand.clone()).id(id.clone());
    loop {
        let started = if id.contains(".direct.") {
            start().await.map(drop)
        } else {
            start().queue(QUEUE).await.map(drop)
        };
        match started {
            Ok(()) => break,
            Err(error) => tracing::debug!(%id, %error, "not started yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    while let Err(error) = db.transaction(|tx| Box::pin(acknowledge(tx, &id))).await {
        tracing::debug!(%id, %error, "a start is not noted yet");
        tokio::time::sleep(AGAIN).await;
    }
}

/// From here on it must not be lost.
async fn acknowledge(tx: &mut Tx<'_>, id: &str) -> segno::Result<()> {
    tx.query("INSERT INTO chaos.submitted (workflow_id) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(id.to_owned())
        .execute()
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let db = Db::connect(&args.database_url).await?;
    let app = Segno::named(args.app)
        .database(&db)
        .state(db.clone())
        .workflows(segno::workflows![errand])
        // Whoever comes back after a while does not choke on what has gathered.
        .queue(Queue::new(QUEUE).worker_concurrency(AT_ONCE))
        .launch()
        .await?;
    // The harness reads it: whoever ends before this has found its database away.
    println!("launched {}", app.executor_id());
    let mut terminate = signal(SignalKind::terminate())?;
    let errands = Errand {
        step_ms: args.step_ms,
    };
    if args.rate > 0.0 {
        tokio::spawn(start_errands(app.clone(), db, args.rate, errands));
    }
    terminate.recv().await;
    app.shutdown(DRAIN).await
}
