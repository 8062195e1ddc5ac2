//! Executors under load are killed one after the other; nothing may be lost, doubled or repeated.
//!
//! `SEGNO_E2E_KILLS` overrides the number of kills (50 on Postgres, 10 on SQLite), `SEGNO_E2E_SEED` the
//! seed that is printed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use segno_e2e::api::Recovery;
use segno_e2e::oracle::{Effect, Oracle, Workflow};
use segno_e2e::stage::{Casting, Executor, PATIENCE};
use segno_e2e::{Stage, eventually, stats, turn};

const FLEET: usize = 3;
const GRACE_MS: i64 = 1000;

#[tokio::test]
async fn fifty_kills_on_postgres() {
    let _turn = turn().await;
    let stage = Stage::postgres(1).await.unwrap();
    kill_again_and_again("postgres", stage, 50).await;
}

#[tokio::test]
async fn ten_kills_on_sqlite() {
    let _turn = turn().await;
    let stage = Stage::sqlite(1).await.unwrap();
    kill_again_and_again("sqlite", stage, 10).await;
}

struct Kill {
    victim: String,
    at: i64,
    pending: Vec<String>,
    record: Recovery,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
    )
}

async fn kill_again_and_again(name: &str, mut stage: Stage, kills: u64) {
    let kills = number("SEGNO_E2E_KILLS").unwrap_or(kills);
    let seed = number("SEGNO_E2E_SEED").unwrap_or_else(rand::random);
    println!("{name}: {kills} kills, SEGNO_E2E_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let load = Casting {
        rate: 3.0,
        ..Casting::default()
    };
    let mut fleet = Vec::new();
    // The first sets the tables up, the oracle its triggers; only then is there anything to notice.
    fleet.push(stage.start(Casting::default()).await.unwrap());
    let oracle = stage.oracle().await.unwrap();
    for _ in 0..FLEET {
        fleet.push(stage.start(load.clone()).await.unwrap());
    }
    assert!(
        fleet
            .remove(0)
            .process
            .stop(PATIENCE)
            .await
            .unwrap()
            .success()
    );

    let begun = Instant::now();
    let mut done = Vec::new();
    for n in 1..=kills {
        let victim = fleet.remove(rng.random_range(0..fleet.len()));
        let pause = Duration::from_millis(rng.random_range(0..400));
        let kill = kill_one(&stage, &oracle, victim, pause).await;
        fleet.push(stage.start(load.clone()).await.unwrap());
        let record = stage
            .recovery(&kill.victim, "over", Recovery::is_final)
            .await;
        let record = record.unwrap_or_else(|error| panic!("kill {n} (seed {seed}): {error:#}"));
        assert!(
            ["RECOVERED", "NOTHING_PENDING"].contains(&record.status.as_str()),
            "{record:?}"
        );
        done.push(Kill { record, ..kill });
    }
    let elapsed = begun.elapsed();
    come_to_rest(&mut stage, &oracle, fleet).await;

    let verdict = oracle.judge().await.unwrap();
    let workflows = oracle.workflows().await.unwrap();
    let effects = oracle.effects().await.unwrap();
    println!(
        "{name}: {} kills in {:.0} s, {} workflows, {} executions of steps, {} workflows taken over",
        done.len(),
        elapsed.as_secs_f64(),
        verdict.workflows,
        verdict.executions,
        done.iter().map(|kill| kill.pending.len()).sum::<usize>(),
    );
    println!(
        "{name}: {} lost, {} outcomes twice, {} checkpointed steps repeated, {} failed",
        verdict.lost.len(),
        verdict.outcomes_twice.len(),
        verdict.steps_repeated.len(),
        verdict.failed.len(),
    );
    report_times(name, &done, &workflows, &effects);
    assert!(verdict.is_clean(), "seed {seed}: {verdict:#?}");
    // Everything was seen: clean because nothing went wrong, not because nobody looked.
    assert_eq!(verdict.outcomes, verdict.workflows as i64, "{verdict:#?}");
    assert_eq!(
        verdict.checkpoints,
        verdict.workflows as i64 * 4,
        "{verdict:#?}"
    );
    assert!(verdict.acknowledged as u64 > kills, "{verdict:#?}");
    let taken = done.iter().filter(|kill| !kill.pending.is_empty()).count();
    assert!(
        taken * 10 >= done.len() * 9,
        "only {taken} kills hit work: the loop proves nothing"
    );
    stage.close().await.unwrap();
}

/// Kills in the middle of a workflow, after a pause that the seed decides.
async fn kill_one(stage: &Stage, oracle: &Oracle, mut victim: Executor, pause: Duration) -> Kill {
    eventually("the victim to work", PATIENCE, async || {
        Ok(oracle.is_in_the_middle(&victim.id).await?.then_some(()))
    })
    .await
    .unwrap();
    // Not a wait for something: it spreads the kills over all moments of a step.
    tokio::time::sleep(pause).await;
    let at = victim.process.kill().await.unwrap();
    let pending = oracle.pending_of(&victim.id).await.unwrap();
    let record = stage.recovery(&victim.id, "known", |_| true).await.unwrap();
    Kill {
        victim: victim.id,
        at,
        pending,
        record,
    }
}

/// Ends the load as a deployment does; what is left is handed back, and one last executor finishes it.
async fn come_to_rest(stage: &mut Stage, oracle: &Oracle, fleet: Vec<Executor>) {
    for mut executor in fleet {
        let status = executor
            .process
            .stop(Duration::from_secs(30))
            .await
            .unwrap();
        assert!(status.success(), "{} ended with {status}", executor.id);
    }
    let _last = stage.start(Casting::default()).await.unwrap();
    eventually("every workflow to end", PATIENCE, async || {
        let open = oracle
            .workflows()
            .await?
            .into_iter()
            .filter(|w| !w.is_over())
            .count();
        anyhow::ensure!(open == 0, "{open} are open");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

fn report_times(name: &str, kills: &[Kill], workflows: &[Workflow], effects: &[Effect]) {
    let ends: HashMap<&str, i64> = workflows
        .iter()
        .filter_map(|w| Some((w.id.as_str(), w.completed_at?)))
        .collect();
    let noticed: Vec<i64> = kills
        .iter()
        .map(|k| k.record.disconnected_at.timestamp_millis() - k.at)
        .collect();
    let dead = kills
        .iter()
        .filter_map(|k| Some(k.record.dead_at?.timestamp_millis() - k.at));
    let dead: Vec<i64> = dead.collect();
    let mut motion = Vec::new();
    for kill in kills {
        for id in &kill.pending {
            let next = effects
                .iter()
                .filter(|e| &e.workflow_id == id && e.at > kill.at && e.executor_id != kill.victim)
                .map(|e| e.at)
                .min();
            // One whose last step was done has only its outcome left.
            let next = next.or_else(|| ends.get(id.as_str()).copied()).unwrap();
            motion.push(next - kill.at);
        }
    }
    let after_grace: Vec<i64> = motion.iter().map(|ms| ms - GRACE_MS).collect();
    println!(
        "{name}: kill to disconnected     {}",
        stats::summary(&noticed)
    );
    println!("{name}: kill to dead (1 s grace) {}", stats::summary(&dead));
    println!(
        "{name}: kill to next step        {}",
        stats::summary(&motion)
    );
    println!(
        "{name}: end of grace to next step {}",
        stats::summary(&after_grace)
    );
}
