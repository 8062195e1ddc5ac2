//! `segno dev` as a newcomer meets it: start, look, kill -9, look again, Ctrl-C.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use segno_e2e::database::connect;
use segno_e2e::process::{Process, binary};
use segno_e2e::{eventually, turn};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

fn demo(data: &Path, name: &str, listen: &str) -> Process {
    let mut command = Command::new(binary("segno").unwrap());
    command
        .args([
            "dev",
            "--app",
            "checkout",
            "--listen",
            listen,
            "--grace",
            "1",
            "--data-dir",
        ])
        .arg(data)
        .arg("--")
        .arg(binary("checkout").unwrap())
        .args(["--rate", "2", "--step-ms", "400", "--drain-secs", "1"])
        .env_remove("SEGNO_SYSTEM_DATABASE_URL");
    Process::start(name, command, data.join(format!("{name}.out"))).unwrap()
}

async fn says(process: &Process, what: &str) -> String {
    eventually(format!("{what:?} in the output"), PATIENCE, async || {
        let output = process.output();
        anyhow::ensure!(output.contains(what), "it says:\n{output}");
        Ok(Some(output))
    })
    .await
    .unwrap()
}

/// The process ids behind the last `kill -9` that the output suggests.
fn suggested_pids(output: &str) -> Vec<i32> {
    let (_, rest) = output.rsplit_once("kill -9 ").unwrap();
    let line = rest.lines().next().unwrap();
    line.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Runs the command on the line with `mark` as a person would who copies it.
fn run_suggested(output: &str, mark: &str, data: &Path) -> Process {
    let line = output.lines().find(|line| line.contains(mark)).unwrap();
    let (_, line) = line.split_once('(').unwrap();
    // Without the subshell and its parent, so that the process started is the one that is stopped.
    let line = line
        .trim_end_matches(')')
        .replace("SEGNO_APP_VERSION", "exec env SEGNO_APP_VERSION");
    let mut command = Command::new("sh");
    command
        .args(["-c", &line])
        .env_remove("SEGNO_SYSTEM_DATABASE_URL");
    Process::start(mark, command, data.join("suggested.out")).unwrap()
}

/// Until every executor has brought a checkout to its second step; customers come faster than checkouts end.
async fn everybody_works(data: &Path) {
    let database = format!("sqlite://{}", data.join("dev/app.db").display());
    eventually("all executors to work", PATIENCE, async || {
        let pool = connect(&database).await?;
        let sql = "SELECT COUNT(DISTINCT executor_id) FROM effects WHERE step = 'charge card'";
        let working: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await?;
        pool.close().await;
        Ok((working >= 3).then_some(()))
    })
    .await
    .unwrap();
}

fn pid(raw: i32) -> Pid {
    Pid::from_raw(raw).unwrap()
}

fn lives(raw: i32) -> bool {
    test_kill_process(pid(raw)).is_ok()
}

async fn all_gone(pids: &[i32]) {
    eventually("the executors to be gone", PATIENCE, async || {
        let left: Vec<_> = pids.iter().filter(|raw| lives(**raw)).collect();
        anyhow::ensure!(left.is_empty(), "{left:?} live");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_kill_is_narrated_from_loss_to_finish_and_ctrl_c_leaves_nobody_behind() {
    let _turn = turn().await;
    let data = tempfile::tempdir().unwrap();
    let mut demo = demo(data.path(), "demo", "127.0.0.1:0");
    let output = says(&demo, "Ctrl-C stops everything").await;
    let pids = suggested_pids(&output);
    assert_eq!(pids.len(), 3);
    eventually("three executors", PATIENCE, async || {
        Ok((demo.output().matches(" connected (executor").count() == 3).then_some(()))
    })
    .await
    .unwrap();
    everybody_works(data.path()).await;
    kill_process(pid(pids[0]), Signal::KILL).unwrap();
    says(&demo, "killed by SIGKILL").await;
    says(&demo, "is dead:").await;
    says(&demo, " handed to ").await;
    says(&demo, " back in motion ").await;
    says(&demo, " finished (").await;
    let output = says(&demo, "none ran again").await;
    assert!(!output.contains('\u{1b}'), "no colours into a file");
    says(&demo, "replacement started").await;

    demo.signal(Signal::INT).unwrap();
    let status = demo.wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", demo.output());
    all_gone(&pids).await;
}

#[tokio::test]
async fn the_suggested_deployment_strands_work_and_the_suggested_way_out_frees_it() {
    let _turn = turn().await;
    let data = tempfile::tempdir().unwrap();
    let mut demo = demo(data.path(), "demo", "127.0.0.1:0");
    let output = says(&demo, "Ctrl-C stops everything").await;
    let pids = suggested_pids(&output);
    everybody_works(data.path()).await;
    let _v2 = run_suggested(&output, "SEGNO_APP_VERSION=v2", data.path());
    says(&demo, "version v2 is deployed").await;
    for raw in pids {
        kill_process(pid(raw), Signal::KILL).unwrap();
    }
    let output = says(&demo, "The ways out").await;
    assert!(
        output.contains("STRANDED") && output.contains("NO_MATCHING_VERSION"),
        "{output}"
    );
    assert!(!output.contains(" handed to "), "{output}");
    let _v1 = run_suggested(&output, "bring the version back", data.path());
    says(&demo, " handed to ").await;
    says(&demo, " finished (").await;
    assert!(
        !demo.output().contains("replacement started"),
        "{}",
        demo.output()
    );
    let status = demo.stop(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", demo.output());
}

#[tokio::test]
async fn a_second_demo_finds_its_own_port_and_data() {
    let _turn = turn().await;
    let data = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let mut first = demo(data.path(), "first", &taken);
    let mut second = demo(data.path(), "second", &taken);
    for process in [&first, &second] {
        says(process, &format!("{taken} is taken, using 127.0.0.1:")).await;
        says(process, " connected (executor").await;
    }
    for process in [&mut first, &mut second] {
        let status = process.stop(PATIENCE).await.unwrap();
        assert!(status.success(), "{status}\n{}", process.output());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn executors_do_not_outlive_a_killed_demo() {
    let _turn = turn().await;
    let data = tempfile::tempdir().unwrap();
    let mut demo = demo(data.path(), "demo", "127.0.0.1:0");
    let output = says(&demo, "Ctrl-C stops everything").await;
    let pids = suggested_pids(&output);
    says(&demo, " connected (executor").await;
    assert!(pids.iter().all(|raw| lives(*raw)));
    demo.kill().await.unwrap();
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_command_that_cannot_work_is_reported_and_given_up() {
    let _turn = turn().await;
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("segno").unwrap());
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path())
        .args(["--", "sh", "-c", "echo no such table >&2; exit 3"]);
    let mut demo = Process::start("demo", command, data.path().join("out")).unwrap();
    let status = demo.wait(PATIENCE).await.unwrap();
    assert!(!status.success());
    let output = demo.output();
    assert!(
        output.contains("exit status 3") && output.contains("no such table"),
        "{output}"
    );
}
