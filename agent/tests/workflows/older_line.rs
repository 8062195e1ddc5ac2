//! System databases that other SDKs made: those of the older schema line are joined as they are, and nothing is
//! migrated unasked. Postgres only: files of SQLite are this library's own.

use std::time::Duration;

use segno::{Client, Ctx, Error, ErrorKind, Migrate, Queue, Segno, Status};

use super::database_support::{PostgresDatabase, column, execute};
use super::support::{eventually, within};

/// Takes a fresh schema back to the last version of the older line.
const BACK_TO_108: &str = "
    DROP FUNCTION dbos.enqueue_workflow;
    CREATE FUNCTION dbos.enqueue_workflow(TEXT, TEXT, JSON[], JSON, TEXT, TEXT, TEXT, TEXT, BIGINT, BIGINT, TEXT,
        INTEGER, TEXT, TEXT, TEXT, BIGINT, TEXT) RETURNS TEXT LANGUAGE sql AS 'SELECT $1';
    DROP INDEX dbos.idx_application_versions_timestamp, dbos.idx_application_versions_owner_timestamp,
        dbos.idx_workflow_status_deadline, dbos.idx_workflow_status_in_flight_v2,
        dbos.idx_workflow_status_partition_dequeue_v3, dbos.idx_operation_outputs_completed_at_function_name_v2,
        dbos.idx_operation_outputs_retention;
    CREATE INDEX idx_notifications ON dbos.notifications (destination_uuid, topic);
    CREATE INDEX idx_workflow_status_in_flight ON dbos.workflow_status (queue_name, status, priority, created_at);
    CREATE INDEX idx_operation_outputs_completed_at_function_name
        ON dbos.operation_outputs (completed_at_epoch_ms, function_name);
    DROP TABLE dbos.workflow_input, dbos.workflow_output;
    ALTER TABLE dbos.workflow_status DROP COLUMN creator_xid;
    ALTER TABLE dbos.notifications DROP COLUMN consumed_by_function_id;
    ALTER TABLE dbos.operation_outputs DROP COLUMN retention_timestamp,
        ADD CONSTRAINT operation_outputs_workflow_uuid_foreign FOREIGN KEY (workflow_uuid)
        REFERENCES dbos.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE;
    COMMENT ON TABLE dbos.dbos_migrations IS NULL;
    UPDATE dbos.dbos_migrations SET version = 108;";

/// Everything that another SDK could depend on.
const CATALOG: &str = "
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
     WHERE table_schema = 'dbos'
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'dbos'
    UNION ALL SELECT 'constraint ' || conrelid::regclass::text || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'dbos'::regnamespace
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text || md5(p.prosrc)
      FROM pg_proc p WHERE pronamespace = 'dbos'::regnamespace
    UNION ALL SELECT 'version ' || version FROM dbos.dbos_migrations
    ORDER BY 1";

async fn made_by_another() -> PostgresDatabase {
    let database = PostgresDatabase::create().await;
    let db = segno::Db::connect(&database.url).await.unwrap();
    db.system_database().migrate().await.unwrap();
    execute(&database.url, BACK_TO_108).await;
    database
}

async fn double(ctx: Ctx, n: i64) -> segno::Result<i64> {
    ctx.step("double", || async {
        if n < 0 {
            return Err(Error::message("too little"));
        }
        Ok(n * 2)
    })
    .await
}

/// Everything that leaves something in the database.
async fn everything(ctx: Ctx, n: i64) -> segno::Result<i64> {
    let doubled = ctx.run(double, n).await?;
    ctx.set_event("doubled", &doubled).await;
    ctx.write_stream("log", &doubled).await;
    ctx.send(ctx.workflow_id(), "own", &1_i64).await?;
    let own = ctx.recv::<i64>("own").await.unwrap_or(0);
    let first = segno::select! {
        message = ctx.recv::<i64>("nothing") => message.unwrap_or(0),
        _ = ctx.sleep(Duration::from_millis(10)) => 7,
    };
    let queued = ctx.run(double, n).queue("work").await?;
    let told = ctx
        .recv::<i64>("last")
        .timeout(Duration::from_secs(3600))
        .await
        .unwrap_or(0);
    Ok(doubled + own + first + queued + told)
}

async fn launch(url: &str) -> Segno {
    Segno::named("shop")
        .database_url(url)
        .app_version("v1")
        .executor_id("one")
        .queue(Queue::new("work").concurrency(3))
        .workflow("double", double)
        .workflow("everything", everything)
        .launch()
        .await
        .unwrap()
}

/// Columns of a run's status row.
async fn stored(url: &str, id: &str) -> String {
    let sql = format!(
        "SELECT COALESCE(inputs, '-') || ' ' || COALESCE(output, '-') || ' ' || COALESCE(error, '-')
           FROM dbos.workflow_status WHERE workflow_uuid = '{id}'"
    );
    column(url, &sql).await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_older_line_is_joined_as_it_is() {
    let database = made_by_another().await;
    works_as_it_is(&database.url).await;
    database.drop().await;

    // One version before, queues know no limits of partitions.
    let database = made_by_another().await;
    let url = &database.url;
    let back = "ALTER TABLE dbos.queues DROP COLUMN partition_concurrency, DROP COLUMN partition_worker_concurrency,
                    DROP COLUMN partition_rate_limit_max, DROP COLUMN partition_rate_limit_period_sec;
                UPDATE dbos.dbos_migrations SET version = 107";
    execute(url, back).await;
    works_as_it_is(url).await;
    let app = launch(url).await;
    let partitioned = Queue::new("partitioned").partition_concurrency(1);
    let error = app.queues().register(partitioned).await.unwrap_err();
    assert!(error.to_string().contains("108"), "{error}");
    app.abort().await;
    database.drop().await;
}

async fn works_as_it_is(url: &str) {
    let catalog = column(url, CATALOG).await;
    let app = launch(url).await;

    // What a peer of the older line enqueues is run, and answered where it looks.
    let peer = "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, inputs, serialization, queue_name,
                    application_version, recovery_attempts, priority, owner_xid)
                VALUES ('theirs', 'ENQUEUED', 'double', '{\"positionalArgs\":[4],\"namedArgs\":{}}', 'portable_json',
                    'work', 'v1', 0, 0, 'peer')";
    execute(url, peer).await;
    app.wake();
    let theirs = app.handle::<i64>("theirs").await.unwrap();
    assert_eq!(within(theirs).await.unwrap(), 8);
    assert_eq!(
        stored(url, "theirs").await,
        r#"{"positionalArgs":[4],"namedArgs":{}} 8 -"#
    );

    // What is enqueued here, a peer can read; the same start joins.
    let elsewhere = segno::WorkflowRef::<i64, i64>::new("of_a_peer");
    for _ in 0..2 {
        let start = app.start(elsewhere, 5).id("for-them").queue("theirs");
        start.await.unwrap();
    }
    let mine = stored(url, "for-them").await;
    assert!(mine.starts_with(r#"{"positionalArgs":[5]"#), "{mine}");

    // Everything durable, over a crash in the middle.
    app.start(everything, 10).id("run").await.unwrap();
    eventually("it waits for the last message", || async {
        app.explain("run").await.unwrap().text.contains("last")
    })
    .await;
    app.abort().await;
    let app = launch(url).await;
    app.send("run", "last", &100_i64).await.unwrap();
    let run = app.handle::<i64>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), 20 + 1 + 7 + 20 + 100);
    let failing = app.run(double, -1).id("failing");
    assert!(within(failing).await.is_err());
    let failed = stored(url, "failing").await;
    assert!(failed.contains("too little"), "{failed}");
    assert_eq!(
        app.get_event::<i64>("run", "doubled").await.unwrap(),
        Some(20)
    );

    // And all that is done to runs.
    let forked = app.fork("run").from_step("double").await.unwrap();
    app.cancel(&forked).await.unwrap();
    assert_eq!(
        app.handle::<i64>(&forked)
            .await
            .unwrap()
            .status()
            .await
            .unwrap(),
        Status::Cancelled
    );
    app.resume(&forked).await.unwrap();
    app.send(&forked, "last", &0_i64).await.unwrap();
    let forked = app.handle::<i64>(&forked).await.unwrap();
    assert_eq!(within(forked).await.unwrap(), 48);
    app.rewind("theirs").await.unwrap();
    let again = app.handle::<i64>("theirs").await.unwrap();
    assert_eq!(within(again).await.unwrap(), 8);
    let export = app.export("theirs", true).await.unwrap();
    app.delete("theirs").await.unwrap();
    app.import(&export).await.unwrap();
    let listed = app.workflows().id("theirs").with_payloads().await.unwrap();
    assert_eq!(listed[0].output, Some(8.into()));
    let client = Client::connect(url).await.unwrap().application("shop");
    let start = client.start(segno::WorkflowRef::<i64, i64>::new("double"), 6);
    let handle = start.queue("work").await.unwrap();
    app.wake();
    assert_eq!(within(handle).await.unwrap(), 12);
    client.close().await;

    app.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(column(url, CATALOG).await, catalog);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_elses_schema_is_migrated_unasked() {
    let database = PostgresDatabase::create().await;
    let url = &database.url;
    launch(url).await.abort().await;
    // This library's own, as an earlier release left it, is brought up to date.
    execute(url, "UPDATE dbos.dbos_migrations SET version = 120").await;
    launch(url).await.abort().await;
    assert_eq!(
        column(url, "SELECT version::text FROM dbos.dbos_migrations").await,
        ["125"]
    );

    let theirs = "UPDATE dbos.dbos_migrations SET version = 122;
                  COMMENT ON TABLE dbos.dbos_migrations IS NULL;
                  DROP INDEX dbos.idx_application_versions_timestamp";
    execute(url, theirs).await;
    let catalog = column(url, CATALOG).await;
    let app = || Segno::named("shop").database_url(url).app_version("v1");
    let error = app().launch().await.unwrap_err();
    let expected = matches!(
        error.kind(),
        ErrorKind::Schema {
            found: Some(122),
            ..
        }
    );
    assert!(expected, "{error:?}");
    let error = error.to_string();
    assert!(
        error.contains("version 122") && error.contains("segno system migrate"),
        "{error}"
    );
    assert_eq!(column(url, CATALOG).await, catalog);

    // What lacks indexes only is worked on as it is.
    execute(url, "UPDATE dbos.dbos_migrations SET version = 123").await;
    let catalog = column(url, CATALOG).await;
    launch(url).await.abort().await;
    assert_eq!(column(url, CATALOG).await, catalog);

    app()
        .migrate(Migrate::Run)
        .launch()
        .await
        .unwrap()
        .abort()
        .await;
    assert_eq!(
        column(url, "SELECT version::text FROM dbos.dbos_migrations").await,
        ["125"]
    );
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_migration_that_was_asked_for_payloads_are_written_for_both_lines() {
    let database = made_by_another().await;
    let url = &database.url;
    let migrating = Segno::named("shop")
        .database_url(url)
        .app_version("v1")
        .migrate(Migrate::Run);
    migrating.launch().await.unwrap().abort().await;

    // Whoever comes later knows it from the database.
    let app = launch(url).await;
    let run = app.run(double, 4).id("run");
    assert_eq!(within(run).await.unwrap(), 8);
    let whole = r#"{"positionalArgs":[4],"namedArgs":{}} 8 -"#;
    assert_eq!(stored(url, "run").await, whole);
    let tables = "SELECT i.inputs || ' ' || o.output || ' -' FROM dbos.workflow_input i
                    JOIN dbos.workflow_output o USING (workflow_uuid) WHERE workflow_uuid = 'run'";
    assert_eq!(column(url, tables).await, [whole]);
    let by_sql = "SELECT dbos.enqueue_workflow('double', 'elsewhere', ARRAY['4'::json], workflow_id => 'sql')";
    assert_eq!(column(url, by_sql).await, ["sql"]);
    assert!(
        stored(url, "sql").await.contains("[4]"),
        "{}",
        stored(url, "sql").await
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    database.drop().await;
}
