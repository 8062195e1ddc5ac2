//! A run from beginning to end.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use segno_e2e::{eventually, now_ms};
use tokio::time::sleep;

use crate::args::Args;
use crate::callers::Callers;
use crate::fleet::Language;
use crate::judge::{self, Records, Times};
use crate::oracle::{self, Traces, Verdict};
use crate::report::Report;
use crate::truth::Millis;
use crate::workload::Workload;
use crate::world::World;
use crate::{evidence, faults, report};

/// For everything to be well again, on a busy machine.
const HEALING: Duration = Duration::from_secs(300);

/// Runs, prints the page, and takes everything down; fails after any violation.
pub(crate) async fn run(args: Args, stopped: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    let seed = args
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let directory = tempfile::Builder::new().prefix("segno-chaos.").tempdir()?;
    // PostgreSQL may run as somebody else.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    println!("seed {seed}, files in {}", directory.path().display());
    let keep = args.keep;
    let directory = directory.keep();
    let world = World::build(args, seed, &directory).await?;
    for (fault, why) in &world.skipped {
        println!("not run: {fault}: {why}");
    }
    let outcome = tokio::select! {
        outcome = play(&world) => outcome,
        () = stopped => Err(anyhow::anyhow!("stopped")),
    };
    world.close().await;
    let logs = directory.join("logs");
    let clean = match outcome {
        Ok(report) => conclude(&report, &world.args, &logs)?,
        Err(error) => {
            println!("{}", evidence::last_words(&logs)?);
            println!(
                "the run failed: {error:#}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored"
            );
            false
        }
    };
    if clean && !keep {
        std::fs::remove_dir_all(&directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed}, files are kept in {}", directory.display());
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what a run came to, and whether it is clean.
fn conclude(report: &Report, args: &Args, logs: &Path) -> anyhow::Result<bool> {
    println!("{}", report.page());
    if let Some(directory) = &args.report {
        report.write(directory)?;
    }
    for found in report.violations.values() {
        let found: Vec<&String> = found.iter().collect();
        print!("{}", evidence::about(&found, logs)?);
    }
    let (good, bad) = report::VERDICTS
        .iter()
        .partition::<Vec<&str>, _>(|kind| report.violations.get(**kind).is_none_or(Vec::is_empty));
    // Counted by tests/run.py as a test program's line is.
    println!(
        "test result: {}. {} passed; {} failed; 0 ignored",
        if bad.is_empty() { "ok" } else { "FAILED" },
        good.len(),
        bad.len()
    );
    Ok(report.is_clean())
}

async fn play(world: &Arc<World>) -> anyhow::Result<Report> {
    let commit = commit();
    let began = chrono::Utc::now();
    world.open().await?;
    println!(
        "everybody is there after {} s",
        (chrono::Utc::now() - began).num_seconds()
    );
    let workload = Arc::new(Workload::default());
    let load = tokio::spawn(Arc::clone(&workload).run(Arc::clone(world)));
    let callers = Callers::new(world)?;
    let calling = tokio::spawn(Arc::clone(&callers).run());
    let watching = tokio::spawn(watch(Arc::clone(world)));
    let faulty = Instant::now();
    faults::run(world, Duration::from_secs_f64(world.args.minutes * 60.0)).await;
    let faulty = faulty.elapsed();
    let healed = heal(world).await?;
    println!("healed in {:.1} s", healed.as_secs_f64());
    load.abort();
    calling.abort();
    come_to_rest(world).await?;
    watching.abort();
    let mut report = judge(world, &workload, &callers).await?;
    report.commit = commit;
    report.began = began.format("%Y-%m-%d %H:%M").to_string();
    report.minutes = faulty.as_secs_f64() / 60.0;
    report.heal_seconds = healed.as_secs_f64();
    Ok(report)
}

/// Looks at the histories again and again, and tells how it goes.
async fn watch(world: Arc<World>) {
    let began = Instant::now();
    for round in 1_u64.. {
        sleep(Duration::from_secs(10)).await;
        let mut open = Vec::new();
        for language in world.languages() {
            // The database may be away.
            let Ok((unfinished, gaps)) = oracle::look(&world.app_postgres, language).await else {
                continue;
            };
            open.push(format!("{} {unfinished}", language.app()));
            for gap in gaps {
                world
                    .truth
                    .violation(format!("a history with a gap: {gap}"));
            }
        }
        if round % 3 == 0 {
            let counts = world.truth.counts();
            println!(
                "{:4.0} s: open {}; {} faults, {} executors killed",
                began.elapsed().as_secs_f64(),
                open.join(", "),
                counts.values().sum::<u64>(),
                counts.get("executor killed").copied().unwrap_or_default()
            );
        }
    }
}

/// Mends everything and waits until all is well and all that was begun is over.
async fn heal(world: &World) -> anyhow::Result<Duration> {
    world.segno_postgres.settle().await;
    world.app_postgres.settle().await;
    world.mend();
    let began = Instant::now();
    let by = now_ms();
    eventually("everything to heal", HEALING, async || {
        for language in world.languages() {
            resume_cancelled(world, language).await?;
            let open = oracle::still_open(&world.app_postgres, language, by).await?;
            anyhow::ensure!(open == 0, "{open} workflows of {} are open", language.app());
        }
        recoveries_are_over(world).await?;
        world
            .everybody_is_healthy()
            .await
            .map(|all| all.then_some(()))
    })
    .await?;
    Ok(began.elapsed())
}

/// No new errands; those that were started end.
async fn come_to_rest(world: &World) -> anyhow::Result<()> {
    world.quiet.store(true, Ordering::SeqCst);
    let before: Vec<_> = world.slots.iter().map(|slot| slot.place.id()).collect();
    for (slot, id) in world.slots.iter().zip(&before) {
        if let Some(id) = id {
            world.truth.told_to_end(id.clone());
        }
        slot.place.strike(Signal::TERM, Duration::ZERO, false)?;
    }
    eventually("everything to come to rest", HEALING, async || {
        let now = world.slots.iter().map(|slot| slot.place.id());
        let followed = now
            .zip(&before)
            .all(|(now, before)| now.is_some() && now != *before);
        anyhow::ensure!(followed, "executors are still ending");
        for language in world.languages() {
            resume_cancelled(world, language).await?;
            let open = oracle::still_open(&world.app_postgres, language, Millis::MAX).await?;
            anyhow::ensure!(open == 0, "{open} workflows of {} are open", language.app());
        }
        recoveries_are_over(world).await?;
        world
            .everybody_is_healthy()
            .await
            .map(|all| all.then_some(()))
    })
    .await
}

async fn recoveries_are_over(world: &World) -> anyhow::Result<()> {
    for language in world.languages() {
        for status in ["GRACE", "DISPATCHING", "STRANDED"] {
            let path = format!(
                "/v2/orgs/local/apps/{}/recoveries?status={status}&limit=1",
                language.app()
            );
            let (code, body) = world.api.call(Method::GET, &path, None).await?;
            let over = code.is_success() && body.as_array().is_some_and(Vec::is_empty);
            anyhow::ensure!(over, "GET {path}: {code} {body}");
        }
    }
    Ok(())
}

/// A caller that never learned whether its cancellation was done did not resume.
async fn resume_cancelled(world: &World, language: Language) -> anyhow::Result<()> {
    for id in oracle::cancelled(&world.app_postgres, language).await? {
        if world.is_busy(&id) {
            continue;
        }
        let path = format!(
            "/v2/orgs/local/apps/{}/workflows/{id}/resume",
            language.app()
        );
        let body = serde_json::json!({});
        let (code, answer) = world.api.call(Method::POST, &path, Some(&body)).await?;
        anyhow::ensure!(code.is_success(), "POST {path}: {code} {answer}");
    }
    Ok(())
}

async fn judge(
    world: &Arc<World>,
    workload: &Workload,
    callers: &Callers,
) -> anyhow::Result<Report> {
    let (lives, kills, done) = (world.truth.lives(), world.truth.kills(), callers.done());
    let grace_ms = Millis::try_from(world.args.grace)? * 1000;
    let (mut records, mut times) = (Records::default(), Times::default());
    let mut verdicts = Vec::new();
    for language in world.languages() {
        let traces = Traces::read(&world.app_postgres, language).await?;
        let outside = match language {
            Language::Rust => workload.acknowledged(),
            Language::Python => Default::default(),
        };
        verdicts.push(traces.judge(&outside, &lives, &done));
        let of_app = judge::records(world, language).await?;
        let killed: Vec<_> = kills
            .iter()
            .filter(|kill| kill.language == language)
            .collect();
        let cloned: Vec<_> = killed.iter().map(|kill| (*kill).clone()).collect();
        let who_was_told = world.truth.who_was_told();
        records.check(&of_app, &lives, &cloned, &who_was_told, grace_ms);
        times.measure(world, &killed, &of_app, &traces);
    }
    let mut seen = world.truth.violations();
    seen.extend(judge::panics(&world.home.join("logs"))?);
    Ok(assemble(world, &verdicts, records, times, &done, seen))
}

fn assemble(
    world: &World,
    verdicts: &[Verdict],
    records: Records,
    times: Times,
    done: &crate::callers::Done,
    seen: Vec<String>,
) -> Report {
    let all = |of: fn(&Verdict) -> &Vec<String>| -> Vec<String> {
        verdicts.iter().flat_map(|each| of(each).clone()).collect()
    };
    let sum =
        |of: fn(&Verdict) -> usize| -> u64 { verdicts.iter().map(|each| of(each) as u64).sum() };
    let found = [
        ("lost", all(|v| &v.lost)),
        ("failed", all(|v| &v.failed)),
        ("duplicated", all(|v| &v.duplicated)),
        (
            "executed after the checkpoint",
            all(|v| &v.after_checkpoint),
        ),
        ("wrong version", all(|v| &v.wrong_version)),
        ("broken history", all(|v| &v.broken_history)),
        ("mutation not once", all(|v| &v.mutations)),
        ("false death", records.false_deaths.clone()),
        ("record untrue", records.untrue),
        ("death unnoticed", records.unnoticed),
        ("seen on the way", seen),
    ];
    let per_language = world.args.executors * crate::fleet::VERSIONS.len();
    Report {
        seed: world.seed,
        commit: String::new(),
        began: String::new(),
        minutes: 0.0,
        grace_seconds: world.args.grace,
        instances: world.args.instances,
        executors: world
            .languages()
            .into_iter()
            .map(|language| (format!("{language:?}"), per_language))
            .collect(),
        workflows: sum(|v| v.workflows),
        forks: sum(|v| v.forks),
        acknowledged_starts: sum(|v| v.acknowledged),
        executions_of_steps: sum(|v| v.executions_of_steps),
        faults: owned(world.truth.counts()),
        skipped_faults: world
            .skipped
            .iter()
            .map(|(fault, why)| ((*fault).to_owned(), (*why).to_owned()))
            .collect(),
        recoveries: records.by_status,
        deaths: records.deaths,
        false_deaths: records.false_deaths.len() as u64,
        calls: done.answers.clone(),
        mutations: done.mutations,
        mutations_repeated: done.repeated,
        mutations_replayed: done.replayed,
        mutations_unanswered: done.unanswered,
        mutations_undecided: done.undecided,
        begun_unknowing: sum(|v| v.begun_unknowing),
        heal_seconds: 0.0,
        times,
        violations: found
            .into_iter()
            .map(|(kind, found)| (kind.to_owned(), found))
            .collect(),
    }
}

fn owned(counts: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(k, n)| (k.to_owned(), n)).collect()
}

/// Of the working copy, where there is one.
fn commit() -> String {
    let asked = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
        ])
        .output();
    asked.map_or_else(
        |_| "unknown".to_owned(),
        |answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
    )
}
