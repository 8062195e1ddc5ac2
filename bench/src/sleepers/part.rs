//! One part, in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use segno::{Ctx, Queue, Segno};

use crate::{Figures, Part, failed};

const HOUR: Duration = Duration::from_secs(3600);
const QUEUE: &str = "work";
/// Starts under way at a time.
const AT_ONCE: usize = 512;

/// How many workflows are about to wait.
type Arrived = Arc<AtomicU32>;

async fn sleeps(ctx: Ctx<Arrived>, n: u32) -> segno::Result<u32> {
    let n = ctx.step("prepare", || async { Ok(n) }).await?;
    ctx.state().fetch_add(1, Ordering::Relaxed);
    ctx.sleep(HOUR).await;
    Ok(n)
}

async fn waits(ctx: Ctx<Arrived>, n: u32) -> segno::Result<u32> {
    let n = ctx.step("prepare", || async { Ok(n) }).await?;
    ctx.state().fetch_add(1, Ordering::Relaxed);
    let more = ctx.recv::<u32>("more").timeout(HOUR).await;
    Ok(n + more.unwrap_or(0))
}

async fn works(ctx: Ctx<Arrived>, n: u32) -> segno::Result<u32> {
    ctx.step("work", || async { Ok(n) }).await
}

pub(crate) async fn run(
    part: Part,
    database: &str,
    n: u32,
    idle: Duration,
) -> anyhow::Result<Figures> {
    let arrived = Arrived::default();
    let empty_mib = memory("VmRSS")?;
    let begun = Instant::now();
    let app = Segno::named("sleepers")
        .database_url(database)
        .app_version("v1")
        .executor_id("one")
        .state(arrived.clone())
        .queue(Queue::new(QUEUE))
        .workflow("sleeps", sleeps)
        .workflow("waits", waits)
        .workflow("works", works)
        .launch()
        .await
        .map_err(failed)?;
    let starts = tokio::spawn(start_all(app.clone(), part, n));
    until(&arrived, 1).await;
    let first_s = begun.elapsed().as_secs_f64();
    starts.await??;
    until(&arrived, n).await;
    let all_s = begun.elapsed().as_secs_f64();

    let asked = Instant::now();
    let new = app.start(works, 1).queue(QUEUE).await.map_err(failed)?;
    new.await.map_err(failed)?;
    let new_one_ms = asked.elapsed().as_secs_f64() * 1000.0;

    let worked = processor_seconds()?;
    tokio::time::sleep(idle).await;
    let idle_cpu = (processor_seconds()? - worked) / idle.as_secs_f64();
    Ok(Figures {
        waiting: arrived.load(Ordering::Relaxed),
        first_s,
        all_s,
        new_one_ms,
        resident_mib: memory("VmRSS")?,
        peak_mib: memory("VmHWM")?,
        empty_mib,
        idle_cpu,
    })
}

async fn start_all(app: Segno, part: Part, n: u32) -> anyhow::Result<()> {
    let start = |number| {
        let app = app.clone();
        async move {
            match part {
                Part::Sleep => drop(app.start(sleeps, number).await?),
                Part::Wait => drop(app.start(waits, number).await?),
                // They are there.
                Part::Recover => {}
            }
            Ok(())
        }
    };
    let starts = stream::iter(0..n).map(start).buffer_unordered(AT_ONCE);
    starts.try_collect::<()>().await.map_err(failed)
}

async fn until(arrived: &Arrived, n: u32) {
    while arrived.load(Ordering::Relaxed) < n {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A line of this process's status, in MiB.
fn memory(line: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("only on Linux")?;
    let found = status.lines().find_map(|each| each.strip_prefix(line));
    let kib = found.and_then(|rest| rest.split_whitespace().nth(1));
    Ok(kib.context("no such line")?.parse::<f64>()? / 1024.0)
}

/// The processor time that the threads of this process have taken.
fn processor_seconds() -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").context("only on Linux")? {
        // A thread that ends meanwhile has none.
        let times = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let running = times.split(' ').next().unwrap_or_default();
        nanoseconds += running.parse::<f64>().unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}
