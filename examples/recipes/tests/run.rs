//! Each program is started as a reader would start it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use segno_e2e::eventually;
use segno_e2e::process::Process;
use serde_json::{Value, json};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

fn start(program: &str, folder: &Path, log: &str) -> Process {
    let mut command = Command::new(program);
    let database = format!("sqlite://{}", folder.join("app.db").display());
    command
        .env("DATABASE_URL", database)
        .env("LISTEN", "127.0.0.1:0");
    Process::start(log, command, folder.join(log)).unwrap()
}

/// Where a front listens, as it says itself.
async fn address(process: &Process) -> String {
    eventually("the address", PATIENCE, async || {
        let output = process.output();
        let line = output.lines().find(|line| line.starts_with("http://"));
        Ok(line.map(str::to_owned))
    })
    .await
    .unwrap()
}

async fn post(url: String, body: Option<Value>) -> u16 {
    let request = reqwest::Client::new().post(url);
    let request = match body {
        Some(body) => request
            .body(body.to_string())
            .header("content-type", "application/json"),
        None => request,
    };
    request
        .send()
        .await
        .map_or(0, |answer| answer.status().as_u16())
}

async fn get(url: &str) -> anyhow::Result<Value> {
    Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
}

async fn becomes(url: &str, value: Value) {
    eventually(format!("{url} to be {value}"), PATIENCE, async || {
        Ok((get(url).await? == value).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_widget_store_survives_its_crash_button() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_widget_store");
    let mut store = start(program, folder.path(), "first");
    let front = address(&store).await;
    assert!(
        reqwest::get(&front)
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("Crash!")
    );
    assert_eq!(post(format!("{front}/orders/one"), None).await, 202);
    becomes(&format!("{front}/orders/one"), json!("waiting for payment")).await;
    post(format!("{front}/crash"), None).await;
    store.wait(PATIENCE).await.unwrap();

    let mut store = start(program, folder.path(), "second");
    let front = address(&store).await;
    assert_eq!(
        post(format!("{front}/orders/one/payment/true"), None).await,
        204
    );
    becomes(&format!("{front}/orders/one"), json!("packing: label")).await;
    post(format!("{front}/crash"), None).await;
    store.wait(PATIENCE).await.unwrap();

    let mut store = start(program, folder.path(), "third");
    let front = address(&store).await;
    becomes(&format!("{front}/orders/one"), json!("dispatched")).await;
    assert_eq!(get(&format!("{front}/stock")).await.unwrap(), json!(11));
    store.kill().await.unwrap();
}

#[tokio::test]
async fn a_library_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = start(env!("CARGO_BIN_EXE_fan_out"), folder.path(), "library");
    assert!(library.wait(PATIENCE).await.unwrap().success());
    let output = library.output();
    assert!(
        output.contains("23 words; left out: Volume 5, Volume 10"),
        "{output}"
    );
}

#[tokio::test]
async fn an_expense_waits_for_its_approval_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_approval");
    let mut office = start(program, folder.path(), "first");
    let front = address(&office).await;
    let trip = json!({ "by": "ada", "cents": 420_000 });
    assert_eq!(
        post(format!("{front}/expenses/trip"), Some(trip)).await,
        202
    );
    becomes(
        &format!("{front}/expenses/trip"),
        json!("waiting for approval"),
    )
    .await;
    office.kill().await.unwrap();

    let mut office = start(program, folder.path(), "second");
    let front = address(&office).await;
    let answer = json!({ "by": "grace", "approved": true });
    for _ in 0..2 {
        let status = post(
            format!("{front}/expenses/trip/approval"),
            Some(answer.clone()),
        )
        .await;
        assert_eq!(status, 204);
    }
    becomes(
        &format!("{front}/expenses/trip"),
        json!("Approved { by: \"grace\" }"),
    )
    .await;
    assert_eq!(
        post(format!("{front}/expenses/none/approval"), Some(answer)).await,
        404
    );
    office.kill().await.unwrap();
}

#[tokio::test]
async fn reports_are_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut reports = start(env!("CARGO_BIN_EXE_reports"), folder.path(), "reports");
    eventually("three reports", PATIENCE, async || {
        Ok((reports.output().matches("north, minute").count() >= 3).then_some(()))
    })
    .await
    .unwrap();
    reports.kill().await.unwrap();
}
