//! Settings from files and from the environment, and figures of a process.

use std::time::Duration;

use segno::{Ctx, Error, Queue, Segno};

use super::support::{Place, World, eventually, within};

on_both!(
    a_file_says_what_differs_between_deployments,
    figures_tell_what_a_process_has_done,
);

async fn double(ctx: Ctx<World>, n: i64) -> segno::Result<i64> {
    let tried = std::sync::atomic::AtomicU32::new(0);
    ctx.step("double", || async {
        let attempt = tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if n < 0 || attempt == 0 {
            return Err(Error::message("not yet"));
        }
        Ok(n * 2)
    })
    .max_attempts(2)
    .interval(Duration::from_millis(1))
    .await
}

fn written(folder: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("segno.toml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn a_file_says_what_differs_between_deployments(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let url = &place.url;
    let text = format!(
        r#"
        name = "shop"
        database_url = "{url}"
        app_version = "v7"
        executor_id = "from-file"
        max_recovery_attempts = 3
        retention = "30d"
        [executor_metadata]
        zone = "b"
        [[queues]]
        name = "indexing"
        concurrency = 5
        rate_limit = {{ starts = 600, period = "60s" }}
        "#
    );
    let file = written(&folder, &text);
    let app = Segno::from_file(&file)
        .unwrap()
        .state(World::new())
        .workflow("double", double);
    // What the code says goes before the file.
    let app = app.executor_id("from-code").launch().await.unwrap();
    assert_eq!(
        (app.name(), app.app_version(), app.executor_id()),
        ("shop", "v7", "from-code")
    );
    assert_eq!(
        within(app.run(double, 3).queue("indexing")).await.unwrap(),
        6
    );
    let queues = app.queues().list().await.unwrap();
    let row = place.db.system_database().get_queue("indexing").await;
    let row = row.unwrap().unwrap();
    assert_eq!(queues.len(), 1);
    assert_eq!(
        (
            row.concurrency,
            row.rate_limit_max,
            row.rate_limit_period_sec
        ),
        (Some(5), Some(600), Some(60.0))
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    // Every mistake is told by its name, and no secret with it.
    let wrong = [
        (
            "name = \"shop\"\ndatabse_url = \"postgres://u:hunter2@h/d\"",
            "databse_url",
        ),
        ("name = \"shop\"\nretention = \"soon\"", "soon"),
        ("database_url = \"x\"", "name"),
        (
            "name = \"shop\"\nconductor_key = \"${SEGNO_TEST_NO_SUCH}\"",
            "SEGNO_TEST_NO_SUCH",
        ),
        (
            "name = \"shop\"\n[[queues]]\nname = \"q\"\nrate_limit = 3",
            "rate_limit",
        ),
        ("name = hunter2", "segno.toml"),
    ];
    for (text, expected) in wrong {
        let error = Segno::from_file(written(&folder, text)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let missing = Segno::from_file(folder.path().join("none.toml"));
    assert!(missing.unwrap_err().to_string().contains("none.toml"));
}

async fn figures_tell_what_a_process_has_done(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("double", double)
        .workflow("waits", waits)
        .queue(segno::Queue::new("any"));
    let app = app.launch().await.unwrap();
    assert_eq!(within(app.run(double, 3)).await.unwrap(), 6);
    assert!(within(app.run(double, -1)).await.is_err());
    assert_eq!(within(app.run(double, 4).queue("any")).await.unwrap(), 8);
    let waiting = app.start(waits, ()).id("waiting").await.unwrap();
    let figures = app.metrics();
    assert_eq!(
        (figures.started, figures.dequeued, figures.running),
        (3, 1, 1)
    );
    assert_eq!(
        (figures.succeeded, figures.failed, figures.stopped),
        (2, 1, 0)
    );
    assert_eq!((figures.steps, figures.step_failures), (2, 4));
    assert!(figures.recorder.commits > 0);
    let process = figures.process.unwrap();
    assert!(process.resident_memory_bytes > 1_000_000 && process.threads > 1);
    assert!(process.open_fds > 2 && process.cpu_seconds > 0.0);

    let text = figures.to_string();
    for line in [
        "segno_workflows_running{application=\"test-app\"} 1",
        "segno_workflows_begun_total{application=\"test-app\",how=\"dequeued\"} 1",
        "segno_workflows_ended_total{application=\"test-app\",how=\"failed\"} 1",
        "segno_step_attempts_total{application=\"test-app\",outcome=\"error\"} 4",
    ] {
        assert!(
            text.lines().any(|written| written == line),
            "{line}\n{text}"
        );
    }
    app.cancel("waiting").await.unwrap();
    assert!(within(waiting).await.is_err());
    eventually("it stopped here", || async {
        let figures = app.metrics();
        (figures.stopped, figures.running) == (1, 0)
    })
    .await;
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn waits(ctx: Ctx<World>, _: ()) -> segno::Result<()> {
    ctx.sleep(Duration::from_secs(3600)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_brings_its_own_connections() {
    let place = Place::postgres().await;
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(2);
    let pool = options.connect(&place.url).await.unwrap();
    let db = segno::Db::on_pool(pool.clone(), "dbos");
    let app = Segno::named("shop").database(&db).state(World::new());
    let app = app.workflow("double", double).launch().await.unwrap();
    let start = app.start(double, 4).queue("work").await.unwrap();
    app.queues().register(Queue::new("work")).await.unwrap();
    assert_eq!(within(start).await.unwrap(), 8);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    // They are the application's: it closes them.
    let runs = "SELECT count(*) FROM dbos.workflow_status";
    let count: i64 = sqlx::query_scalar(runs).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);
    pool.close().await;
    place.drop().await;
}

/// Set for the process that the test starts of itself.
const CHILD: &str = "SEGNO_TEST_FROM_ENVIRONMENT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_on_postgres() {
    match std::env::var(CHILD) {
        Ok(_) => configured_child().await,
        Err(_) => {
            let place = Place::postgres().await;
            the_environment_configures(&place, "settings::configured_on_postgres").await;
            place.drop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_on_sqlite() {
    match std::env::var(CHILD) {
        Ok(_) => configured_child().await,
        Err(_) => {
            let place = Place::sqlite().await;
            the_environment_configures(&place, "settings::configured_on_sqlite").await;
        }
    }
}

async fn configured_child() {
    let app = Segno::from_env()
        .unwrap()
        .state(World::new())
        .workflow("double", double);
    let app = app.launch().await.unwrap();
    assert_eq!(app.name(), "shop-env");
    let run = app.run(double, 21).id("run");
    assert_eq!(within(run).await.unwrap(), 42);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Where and as what an application runs is for its environment to say, if the code does not.
async fn the_environment_configures(place: &Place, test: &str) {
    let schema = if place.db.is_sqlite() {
        "dbos"
    } else {
        "elsewhere"
    };
    let db = segno::Db::connect_to_schema(&place.url, schema)
        .await
        .unwrap();
    let run = || {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "yes")
            .env("SEGNO_APP_NAME", "shop-env")
            .env("SEGNO_SYSTEM_DATABASE_URL", &place.url)
            .env("SEGNO_SYSTEM_DATABASE_SCHEMA", schema)
            .env("SEGNO_MIGRATE", "verify")
            .env("SEGNO_APP_VERSION", "v-env")
            .env("DBOS__VMID", "executor-env");
        command
    };
    // The tables are not there, and are not to be made.
    assert!(!run().output().await.unwrap().status.success());
    db.system_database().migrate().await.unwrap();
    let output = run().output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let client = segno::Client::on(&db).await.unwrap();
    let found = client
        .workflows()
        .id("run")
        .of_all_applications()
        .await
        .unwrap();
    assert_eq!(found[0].executor_id.as_deref(), Some("executor-env"));
    assert_eq!(found[0].app_version.as_deref(), Some("v-env"));
    client.close().await;
}
