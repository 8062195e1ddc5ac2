//! The main job: a dead executor's workflows finish elsewhere, on the same code version.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use segno_e2e::oracle::{Oracle, Workflow};
use segno_e2e::proxy::Proxy;
use segno_e2e::stage::{APP, Casting, Executor, PATIENCE};
use segno_e2e::{Stage, eventually, now_ms, turn};

/// Starts `first` checkouts on an executor and waits until it is in the middle of them: steps of half a
/// second, one of them checkpointed.
async fn busy(stage: &mut Stage, casting: Casting) -> (Executor, Oracle) {
    let executor = stage
        .start(Casting {
            first: 8,
            step_ms: 500,
            ..casting
        })
        .await
        .unwrap();
    let oracle = stage.oracle().await.unwrap();
    in_the_middle(&oracle, &executor.id).await;
    (executor, oracle)
}

async fn in_the_middle(oracle: &Oracle, executor: &str) {
    eventually("a checkpoint of a running workflow", PATIENCE, async || {
        Ok(oracle.is_in_the_middle(executor).await?.then_some(()))
    })
    .await
    .unwrap();
}

async fn finished(oracle: &Oracle, ids: &[String]) -> Vec<Workflow> {
    eventually("the workflows to finish", PATIENCE, async || {
        let all = oracle.workflows().await?;
        let ours: Vec<_> = all.into_iter().filter(|w| ids.contains(&w.id)).collect();
        let open: Vec<_> = ours.iter().filter(|w| !w.is_over()).collect();
        anyhow::ensure!(open.is_empty() && ours.len() == ids.len(), "{open:?}");
        Ok(Some(ours))
    })
    .await
    .unwrap()
}

async fn assert_clean(oracle: &Oracle) {
    let verdict = oracle.judge().await.unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert!(
        verdict.workflows > 0 && verdict.executions >= verdict.workflows * 4,
        "{verdict:#?}"
    );
}

fn versions_of(effects: &[segno_e2e::oracle::Effect], ids: &[String]) -> BTreeSet<String> {
    effects
        .iter()
        .filter(|e| ids.contains(&e.workflow_id))
        .map(|e| e.app_version.clone())
        .collect()
}

#[tokio::test]
async fn a_killed_executors_workflows_finish_in_another_of_its_version() {
    let _turn = turn().await;
    let mut stage = Stage::postgres(1).await.unwrap();
    let survivor = stage.start(Casting::default()).await.unwrap();
    let (mut victim, oracle) = busy(&mut stage, Casting::default()).await;
    let killed_at = victim.process.kill().await.unwrap();
    let pending = oracle.pending_of(&victim.id).await.unwrap();
    assert!(!pending.is_empty());

    let record = stage
        .recovery(&victim.id, "over", |r| r.is_final())
        .await
        .unwrap();
    assert_eq!(record.status, "RECOVERED");
    assert_eq!(record.app_version, "v1");
    assert_eq!(record.recovered_by.as_deref(), Some(survivor.id.as_str()));
    assert_eq!(record.pending_workflows, Some(pending.len() as i64));
    assert_eq!(record.attempts.len(), 1, "{record:?}");
    assert_eq!(record.attempts[0].executor_id, survivor.id);
    let dead_at = record.dead_at.unwrap().timestamp_millis();
    // Grace is a second; times are the server's database's, which may round.
    assert!(
        dead_at - record.disconnected_at.timestamp_millis() >= 990,
        "{record:?}"
    );
    assert!(
        record.dispatched_at.unwrap().timestamp_millis() >= dead_at,
        "{record:?}"
    );

    finished(&oracle, &pending).await;
    let effects = oracle.effects().await.unwrap();
    let moved = effects
        .iter()
        .filter(|e| e.executor_id == survivor.id && pending.contains(&e.workflow_id))
        .map(|e| e.at)
        .min()
        .unwrap();
    assert!(
        moved - killed_at <= 2000,
        "back in motion only after {} ms",
        moved - killed_at
    );
    assert!(
        effects
            .iter()
            .all(|e| e.executor_id != victim.id || e.at <= killed_at + 50),
        "the dead do not work"
    );
    assert_clean(&oracle).await;
    stage.close().await.unwrap();
}

#[tokio::test]
async fn work_of_a_version_that_nobody_runs_is_stranded_until_one_connects() {
    let _turn = turn().await;
    let mut stage = Stage::postgres(1).await.unwrap();
    let _other = stage
        .start(Casting {
            version: "v2",
            ..Casting::default()
        })
        .await
        .unwrap();
    let (mut victim, oracle) = busy(&mut stage, Casting::default()).await;
    victim.process.kill().await.unwrap();
    let pending = oracle.pending_of(&victim.id).await.unwrap();

    let record = stage
        .recovery(&victim.id, "stranded", |r| r.status == "STRANDED")
        .await
        .unwrap();
    assert_eq!(record.reason.as_deref(), Some("NO_MATCHING_VERSION"));
    assert_eq!(record.pending_workflows, Some(pending.len() as i64));
    assert_eq!(
        stage.status(&victim.id, "v1").await.unwrap().as_deref(),
        Some("DEAD")
    );
    let still = oracle.pending_of(&victim.id).await.unwrap();
    assert_eq!(still.len(), pending.len(), "nobody may have touched them");

    let before = now_ms();
    let rescuer = stage
        .launch(&Casting {
            step_ms: 500,
            ..Casting::default()
        })
        .unwrap();
    stage.connected(&rescuer, "v1").await.unwrap();
    let connected_at = now_ms();
    finished(&oracle, &pending).await;
    let effects = oracle.effects().await.unwrap();
    for id in &pending {
        let next = effects
            .iter()
            .filter(|e| &e.workflow_id == id && e.executor_id == rescuer.id);
        let end = oracle
            .workflows()
            .await
            .unwrap()
            .into_iter()
            .find(|w| &w.id == id);
        // One whose last step was done has only its outcome left.
        let next = next
            .map(|e| e.at)
            .min()
            .or(end.unwrap().completed_at)
            .unwrap();
        assert!(next > before, "{id} moved before anybody could move it");
        assert!(
            next - connected_at <= 2000,
            "{id} moved {} ms after the connect",
            next - connected_at
        );
    }
    let versions = versions_of(&effects, &pending);
    assert_eq!(
        versions,
        BTreeSet::from(["v1".to_owned()]),
        "nothing runs under the wrong version"
    );
    let record = stage
        .recovery(&victim.id, "over", |r| r.is_final())
        .await
        .unwrap();
    assert_eq!(record.status, "RECOVERED");
    assert_eq!(record.recovered_by.as_deref(), Some(rescuer.id.as_str()));
    assert_clean(&oracle).await;
    stage.close().await.unwrap();
}

#[tokio::test]
async fn an_executor_that_reconnects_in_grace_keeps_its_work() {
    let _turn = turn().await;
    let mut stage = Stage::postgres(6).await.unwrap();
    let proxy = Proxy::start(stage.address()).await.unwrap();
    let _other = stage.start(Casting::default()).await.unwrap();
    let casting = Casting {
        server: Some(proxy.address()),
        ..Casting::default()
    };
    let (mut executor, oracle) = busy(&mut stage, casting).await;
    let pending = oracle.pending_of(&executor.id).await.unwrap();
    proxy.cut();
    stage
        .recovery(&executor.id, "in grace", |r| r.status == "GRACE")
        .await
        .unwrap();
    assert_eq!(
        stage.status(&executor.id, "v1").await.unwrap().as_deref(),
        Some("DISCONNECTED")
    );
    proxy.mend();
    let record = stage
        .recovery(&executor.id, "rejoined", |r| r.is_final())
        .await
        .unwrap();
    assert_eq!(record.status, "REJOINED");
    assert_eq!(record.dispatched_at, None);
    assert!(record.attempts.is_empty(), "{record:?}");
    finished(&oracle, &pending).await;
    let effects = oracle.effects().await.unwrap();
    let elsewhere = effects
        .iter()
        .find(|e| pending.contains(&e.workflow_id) && e.executor_id != executor.id);
    assert!(elsewhere.is_none(), "{elsewhere:?}");
    assert!(executor.process.is_running().unwrap());
    assert_clean(&oracle).await;
    stage.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_taken_from_an_executor_that_returns_after_its_recovery() {
    let _turn = turn().await;
    let mut stage = Stage::postgres(1).await.unwrap();
    let proxy = Proxy::start(stage.address()).await.unwrap();
    let other = stage.start(Casting::default()).await.unwrap();
    let casting = Casting {
        server: Some(proxy.address()),
        rate: 3.0,
        step_ms: 500,
        ..Casting::default()
    };
    let (executor, oracle) = busy(&mut stage, casting).await;
    // Cut off for longer than grace: it works on, and is taken for dead.
    proxy.cut();
    let first = stage
        .recovery(&executor.id, "over", |r| r.is_final())
        .await
        .unwrap();
    assert_eq!(first.status, "RECOVERED");
    proxy.mend();
    stage.connected(&executor, "v1").await.unwrap();
    let returned_at = now_ms();
    // What it starts from now on is its own, for longer than another grace.
    let own = eventually("work begun after the return", PATIENCE, async || {
        let effects = oracle.effects().await?;
        let begun: BTreeSet<_> = effects
            .iter()
            .filter(|e| e.step == "reserve inventory" && e.at > returned_at)
            .map(|e| e.workflow_id.clone())
            .collect();
        Ok((begun.len() >= 9).then(|| begun.into_iter().collect::<Vec<_>>()))
    })
    .await
    .unwrap();
    finished(&oracle, &own).await;
    let effects = oracle.effects().await.unwrap();
    let taken = effects
        .iter()
        .find(|e| own.contains(&e.workflow_id) && e.executor_id == other.id);
    assert!(taken.is_none(), "{taken:?}");
    let records = stage.api.recoveries(APP).await.unwrap();
    assert_eq!(records.len(), 1, "one loss, one record: {records:?}");
    stage.close().await.unwrap();
}

#[tokio::test]
async fn an_id_that_returns_with_another_version_leaves_nothing_forgotten() {
    let _turn = turn().await;
    let mut stage = Stage::postgres(1).await.unwrap();
    let id = "shop-0".to_owned();
    let (mut old, oracle) = busy(
        &mut stage,
        Casting {
            id: Some(id.clone()),
            ..Casting::default()
        },
    )
    .await;
    old.process.kill().await.unwrap();
    let pending = oracle.pending_of(&id).await.unwrap();
    let _new = stage
        .start(Casting {
            id: Some(id.clone()),
            version: "v2",
            ..Casting::default()
        })
        .await
        .unwrap();
    let record = stage
        .recovery(&id, "stranded", |r| r.status == "STRANDED")
        .await
        .unwrap();
    assert_eq!(
        (record.app_version.as_str(), record.pending_workflows),
        ("v1", Some(pending.len() as i64))
    );
    assert_eq!(
        stage.status(&id, "v2").await.unwrap().as_deref(),
        Some("HEALTHY")
    );
    let rescuer = stage.start(Casting::default()).await.unwrap();
    finished(&oracle, &pending).await;
    let record = stage.recovery(&id, "over", |r| r.is_final()).await.unwrap();
    assert_eq!(record.recovered_by.as_deref(), Some(rescuer.id.as_str()));
    let versions = versions_of(&oracle.effects().await.unwrap(), &pending);
    assert_eq!(versions, BTreeSet::from(["v1".to_owned()]));
    assert_clean(&oracle).await;
    stage.close().await.unwrap();
}

#[tokio::test]
async fn workflows_run_on_without_the_server_and_a_death_meanwhile_is_found() {
    const GRACE_MS: i64 = 3000;
    let _turn = turn().await;
    let mut stage = Stage::postgres(3).await.unwrap();
    let alive = stage
        .start(Casting {
            rate: 2.0,
            ..Casting::default()
        })
        .await
        .unwrap();
    let (mut victim, oracle) = busy(&mut stage, Casting::default()).await;
    stage.server().kill().await.unwrap();
    let down_at = now_ms();
    victim.process.kill().await.unwrap();
    let pending = oracle.pending_of(&victim.id).await.unwrap();
    assert!(!pending.is_empty());
    // Out of the critical path: checkouts begin and end while there is no server.
    eventually(
        "a checkout that began and ended without a server",
        PATIENCE,
        async || {
            let effects = oracle.effects().await?;
            let done = oracle.workflows().await?.into_iter().find(|w| {
                let began = effects
                    .iter()
                    .filter(|e| e.workflow_id == w.id)
                    .map(|e| e.at)
                    .min();
                w.is_over() && began.is_some_and(|at| at > down_at)
            });
            Ok(done.map(|_| ()))
        },
    )
    .await
    .unwrap();

    let restarted_at = stage.restart_server().await.unwrap();
    stage.connected(&alive, "v1").await.unwrap();
    let record = stage
        .recovery(&victim.id, "over", |r| r.is_final())
        .await
        .unwrap();
    assert_eq!(record.status, "RECOVERED");
    assert_eq!(record.recovered_by.as_deref(), Some(alive.id.as_str()));
    let dead_at = record.dead_at.unwrap().timestamp_millis();
    assert!(
        dead_at - restarted_at >= GRACE_MS,
        "declared dead {} ms after the restart",
        dead_at - restarted_at
    );
    finished(&oracle, &pending).await;
    let lost_living = stage.api.recovery_of(APP, &alive.id).await.unwrap();
    assert!(
        lost_living.is_none_or(|r| r.dead_at.is_none()),
        "the living was declared dead"
    );

    let mut alive = alive;
    assert!(
        alive
            .process
            .stop(Duration::from_secs(30))
            .await
            .unwrap()
            .success()
    );
    let last = stage.start(Casting::default()).await.unwrap();
    let all: Vec<String> = oracle
        .workflows()
        .await
        .unwrap()
        .into_iter()
        .map(|w| w.id)
        .collect();
    finished(&oracle, &all).await;
    drop(last);
    assert_clean(&oracle).await;
    stage.close().await.unwrap();
}
