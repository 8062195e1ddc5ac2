//! A process of the library's chaos test: starts its share of workflows and runs whatever it finds, until it is killed.
//!
//! What it knows for certain it writes into a journal, which outlives it: `started ID` after a start was
//! acknowledged, `ran ID STEP MILLISECONDS` when a step's body begins.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures_util::{StreamExt as _, stream};
use segno::{Ctx, Db, Queue, Segno};

const QUEUE: &str = "chaos";
/// Workflows that are started and not yet over at a time.
const OPEN: usize = 64;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    database: String,

    /// Its executor id; the next process of this name recovers what this one leaves behind
    #[arg(long)]
    name: String,

    #[arg(long)]
    journal: PathBuf,

    /// Its share: the workflows with these numbers
    #[arg(long)]
    first: u64,
    #[arg(long)]
    count: u64,
}

struct World {
    db: Db,
    journal: File,
}

impl World {
    /// One line, in one write: it is there or not, whenever the process dies.
    fn note(&self, line: &str) {
        if let Err(error) = (&self.journal).write_all(format!("{line}\n").as_bytes()) {
            eprintln!("the journal cannot be written: {error}");
            std::process::abort();
        }
    }

    fn ran(&self, ctx: &Ctx<Arc<World>>, step: &str) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.note(&format!(
            "ran {} {step} {}",
            ctx.workflow_id(),
            now.as_millis()
        ));
    }
}

/// An effect in the application's own table, once.
async fn effect(ctx: &Ctx<Arc<World>>, name: &'static str) -> segno::Result<()> {
    ctx.transaction(&ctx.state().db, name, |tx| {
        let id = ctx.workflow_id();
        Box::pin(async move {
            let insert = tx.query("INSERT INTO effects (workflow_id, name) VALUES ($1, $2)");
            insert.bind(id).bind(name).execute().await?;
            Ok(())
        })
    })
    .await
}

async fn step(ctx: &Ctx<Arc<World>>, name: &'static str, value: u64) -> segno::Result<u64> {
    let work = || async {
        ctx.state().ran(ctx, name);
        tokio::time::sleep(Duration::from_millis(value % 7)).await;
        Ok(value)
    };
    ctx.step(name, work).await
}

/// Ten checkpoints of every kind; comes to `3 * number + 1`, and every seventh has a child.
async fn order(ctx: Ctx<Arc<World>>, number: u64) -> segno::Result<u64> {
    let first = step(&ctx, "first", number).await?;
    effect(&ctx, "pay").await?;
    ctx.send(ctx.workflow_id(), "own", &number).await?;
    ctx.sleep(Duration::from_millis(10 + number % 40)).await;
    let (left, right) = tokio::try_join!(step(&ctx, "left", number), step(&ctx, "right", 1))?;
    ctx.set_event("number", &number).await;
    let own = ctx.recv::<u64>("own").await.unwrap_or(0);
    if number.is_multiple_of(7) {
        ctx.run(parcel, number).queue(QUEUE).await?;
    }
    effect(&ctx, "ship").await?;
    Ok(first + left + right + own)
}

async fn parcel(ctx: Ctx<Arc<World>>, number: u64) -> segno::Result<u64> {
    effect(&ctx, "pack").await?;
    step(&ctx, "weigh", number).await
}

/// The workflows whose start is in the journal.
fn started(journal: &Path) -> std::io::Result<std::collections::HashSet<String>> {
    let file = match File::open(journal) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(error),
    };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    Ok(lines
        .filter_map(|line| line.strip_prefix("started ").map(str::to_owned))
        .collect())
}

/// Starts a workflow, every other one on the queue, and waits for its result.
async fn start(app: Segno, world: Arc<World>, number: u64) -> segno::Result<()> {
    let id = format!("order-{number}");
    let start = app.start(order, number).id(&id);
    let run = if number.is_multiple_of(2) {
        start.queue(QUEUE).await?
    } else {
        start.await?
    };
    world.note(&format!("started {id}"));
    let result = run.await?;
    if result != 3 * number + 1 {
        world.note(&format!("wrong {id} {result}"));
    }
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let args = Args::parse();
    let known = started(&args.journal)?;
    let journal = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&args.journal)?;
    let app = loop {
        // The database may be away at this very moment: the process was told to live with that.
        match launch(&args, journal.try_clone()?).await {
            Ok(launched) => break launched,
            Err(error) => {
                eprintln!("not launched: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let (app, world) = app;
    let share = args.first..args.first + args.count;
    let left = share.filter(|number| !known.contains(&format!("order-{number}")));
    let starts = stream::iter(left).map(|number| start(app.clone(), world.clone(), number));
    let mut starts = starts.buffer_unordered(OPEN);
    while let Some(result) = starts.next().await {
        if let Err(error) = result {
            world.note(&format!("failed {error}"));
        }
    }
    // Others' work, until the end.
    std::future::pending().await
}

async fn launch(args: &Args, journal: File) -> segno::Result<(Segno, Arc<World>)> {
    let db = Db::connect(&args.database).await?;
    let world = Arc::new(World {
        db: db.clone(),
        journal,
    });
    let app = Segno::named("chaos")
        .database(&db)
        .app_version("v1")
        .executor_id(&args.name)
        .state(world.clone())
        .queue(Queue::new(QUEUE))
        .workflow("order", order)
        .workflow("parcel", parcel)
        .launch()
        .await?;
    Ok((app, world))
}
