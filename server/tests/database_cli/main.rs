//! `segno workflow` and `segno system`: the real binary on a real system database, without a server.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use segno::{Ctx, Error, Segno, Status};
use serde_json::{Value, json};
use sqlx::Connection as _;

/// A system database, and the binary that works on it.
struct Place {
    url: String,
    /// On SQLite, kept so that the file lives as long as the test.
    folder: Option<tempfile::TempDir>,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("app.db").display());
        Self {
            url,
            folder: Some(folder),
        }
    }

    /// A database that does not exist yet.
    fn postgres() -> Self {
        let mut url = url::Url::parse(&postgres_url()).unwrap();
        url.set_path(&format!("segno_cli_{}", uuid::Uuid::new_v4().simple()));
        Self {
            url: url.to_string(),
            folder: None,
        }
    }

    async fn drop(self) {
        if self.folder.is_none() {
            let name = self.url.rsplit('/').next().unwrap();
            let mut admin = sqlx::PgConnection::connect(&postgres_url()).await.unwrap();
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
                .execute(&mut admin)
                .await
                .unwrap();
        }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_segno"));
        command
            .args(arguments)
            .env("SEGNO_SYSTEM_DATABASE_URL", &self.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// Standard error of a command that must fail with this code.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        String::from_utf8(output.stderr).unwrap()
    }

    async fn app(&self) -> Segno {
        Segno::named("shop")
            .database_url(&self.url)
            .app_version("v1")
            .executor_id("one")
            .workflow("order", order)
            .workflow("approval", approval)
            .launch()
            .await
            .unwrap()
    }
}

async fn order(ctx: Ctx, cents: i64) -> segno::Result<i64> {
    let price = ctx.step("price", || async { Ok(cents * 2) }).await?;
    ctx.step("charge", || async {
        if price < 0 {
            return Err(Error::message("card declined"));
        }
        Ok(price)
    })
    .await
}

async fn approval(ctx: Ctx, _: ()) -> segno::Result<bool> {
    let approved = ctx
        .recv::<bool>("approval")
        .timeout(Duration::from_secs(3600))
        .await;
    Ok(approved.unwrap_or(false))
}

fn postgres_url() -> String {
    std::env::var("SEGNO_TEST_POSTGRES_URL")
        .expect("SEGNO_TEST_POSTGRES_URL must name a Postgres on which databases may be created; `make test` starts one")
}

/// Declares every test once for each database.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let place = super::Place::postgres();
                super::$test(&place).await;
                place.drop().await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let place = super::Place::sqlite();
                super::$test(&place).await;
                place.drop().await;
            })+
        }
    };
}

on_both_databases!(
    workflows_are_looked_at_and_changed,
    queues_are_listed_set_and_removed,
    the_tables_are_made_checked_and_emptied,
);

async fn workflows_are_looked_at_and_changed(place: &Place) {
    let missing = place.fails(1, &["workflow", "list"]);
    let reason = match &place.folder {
        Some(_) => "segno system migrate",
        None => "does not exist",
    };
    assert!(missing.contains(reason), "{missing}");
    place.done(&["system", "migrate"]);

    let app = place.app().await;
    assert_eq!(app.run(order, 21).id("good").await.unwrap(), 42);
    assert!(app.run(order, -1).id("bad").await.is_err());
    let waiting = app.start(approval, ()).id("waiting").await.unwrap();

    // Tables for people, JSON for programs.
    let table = place.done(&["workflow", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID") && lines.len() == 4, "{table}");
    assert!(
        table.contains("waiting") && table.contains("PENDING"),
        "{table}"
    );
    let listed = place.json(&["workflow", "list", "--status", "error", "--name", "order"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["id"], "bad");
    assert!(
        listed[0].get("input").is_none(),
        "payloads only when asked for"
    );
    let since = place.json(&["workflow", "list", "--until", "1h"]);
    assert_eq!(since, Value::Array(Vec::new()));

    let got = place.json(&["workflow", "get", "good"]);
    assert_eq!(
        (&got["status"], &got["output"]),
        (&"SUCCESS".into(), &42.into())
    );
    let steps = place.json(&["workflow", "steps", "bad"]);
    let names: Vec<_> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["name"].clone())
        .collect();
    assert_eq!(names, ["price", "charge"]);
    assert_eq!(steps[1]["error"], "card declined");
    assert!(
        place
            .done(&["workflow", "steps", "bad"])
            .contains("card declined")
    );
    assert!(!place.done(&["workflow", "explain", "waiting"]).is_empty());

    place.done(&["workflow", "cancel", "waiting"]);
    assert_eq!(waiting.status().await.unwrap(), Status::Cancelled);
    place.done(&["workflow", "resume", "waiting"]);
    app.wake();
    app.send("waiting", "approval", &true).await.unwrap();
    assert!(app.handle::<bool>("waiting").await.unwrap().await.unwrap());

    let fork = place.json(&[
        "workflow", "fork", "bad", "--step", "charge", "--new-id", "again",
    ]);
    assert_eq!(fork["id"], "again");
    app.wake();
    assert!(app.handle::<i64>("again").await.unwrap().await.is_err());
    let from_failure = place.done(&["workflow", "fork", "bad", "--from-failure"]);
    app.wake();
    assert!(
        app.handle::<i64>(&from_failure)
            .await
            .unwrap()
            .await
            .is_err()
    );

    let export = place.done(&["workflow", "export", "good"]);
    place.done(&["workflow", "delete", "good", "bad"]);
    let gone = place.fails(1, &["workflow", "get", "good"]);
    assert!(gone.contains("there is no workflow `good`"), "{gone}");
    let imported = place.run(&["workflow", "import"], &export);
    assert_eq!(String::from_utf8_lossy(&imported.stdout).trim(), "good");
    assert_eq!(place.json(&["workflow", "get", "good"])["output"], 42);

    for command in [
        "cancel", "resume", "delete", "fork", "steps", "export", "explain",
    ] {
        let error = place.fails(1, &["workflow", command, "nobody"]);
        assert!(error.contains("nobody"), "{command}: {error}");
    }
    // All or nothing.
    place.fails(1, &["workflow", "delete", "good", "nobody"]);
    assert_eq!(place.json(&["workflow", "get", "good"])["output"], 42);
    let unfinished = app.start(approval, ()).id("unfinished").await.unwrap();
    place.fails(1, &["workflow", "cancel", "unfinished", "nobody"]);
    assert_eq!(unfinished.status().await.unwrap(), Status::Pending);
    place.done(&["workflow", "cancel", "unfinished"]);
    place.fails(1, &["workflow", "resume", "unfinished", "nobody"]);
    assert_eq!(unfinished.status().await.unwrap(), Status::Cancelled);
    place.fails(2, &["workflow", "cancel"]);
    let wrong = place.fails(1, &["workflow", "list", "--status", "SOON"]);
    assert!(wrong.contains("SOON"), "{wrong}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn queues_are_listed_set_and_removed(place: &Place) {
    place.done(&["system", "migrate"]);
    let app = place.app().await;
    let set = place.json(&[
        "queue",
        "set",
        "orders",
        "-a",
        "shop",
        "--concurrency",
        "5",
        "--rate-limit",
        "600/60",
    ]);
    assert_eq!(
        (&set["concurrency"], &set["rateLimit"]),
        (&5.into(), &"600/60 s".into())
    );
    let later = app.start(order, 1).id("later").queue("orders");
    later.delay(Duration::from_secs(3600)).await.unwrap();
    let listed = place.json(&["queue", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let row = &listed[0];
    assert_eq!(
        [
            &row["name"],
            &row["application"],
            &row["waiting"],
            &row["running"]
        ],
        [&json!("orders"), &json!("shop"), &json!(1), &json!(0)]
    );

    // Its application need not be named: its name tells.
    let set = place.json(&["queue", "set", "orders", "--worker-concurrency", "2"]);
    assert_eq!(
        (&set["concurrency"], &set["workerConcurrency"]),
        (&Value::Null, &2.into())
    );
    assert_eq!(app.queues().list().await.unwrap().len(), 1);
    let wrong = place.fails(1, &["queue", "set", "orders", "--concurrency", "0"]);
    assert!(wrong.contains("at least 1"), "{wrong}");
    let wrong = place.fails(2, &["queue", "set", "orders", "--rate-limit", "often"]);
    assert!(wrong.contains("STARTS/SECONDS"), "{wrong}");
    let theirs = place.fails(1, &["queue", "delete", "orders", "-a", "another"]);
    assert!(theirs.contains("orders"), "{theirs}");
    place.done(&["queue", "delete", "orders"]);
    assert_eq!(place.json(&["queue", "list"]), Value::Array(Vec::new()));
    let gone = place.fails(1, &["queue", "delete", "orders"]);
    assert!(gone.contains("orders"), "{gone}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn the_tables_are_made_checked_and_emptied(place: &Place) {
    place.done(&["system", "migrate"]);
    assert!(place.done(&["system", "migrate"]).contains("version"));
    let app = place.app().await;
    app.run(order, 1).await.unwrap();
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    let status = place.json(&["system", "status"]);
    assert_eq!(
        (&status["current"], &status["workflows"]["SUCCESS"]),
        (&true.into(), &1.into())
    );

    let refused = place.fails(1, &["system", "reset"]);
    assert!(refused.contains("--yes"), "{refused}");
    place.done(&["system", "reset", "--yes"]);
    assert_eq!(place.json(&["workflow", "list"]), Value::Array(Vec::new()));
    let nobody = place.fails(1, &["system", "migrate", "--grant-to", "segno_nobody"]);
    let reason = match &place.folder {
        Some(_) => "SQLite has no roles",
        None => "segno_nobody",
    };
    assert!(nobody.contains(reason), "{nobody}");

    // A password never shows.
    let url = "postgres://user:hunter2@127.0.0.1:1/none";
    let error = place.fails(1, &["system", "status", "--system-database-url", url]);
    assert!(!error.contains("hunter2"), "{error}");
}
