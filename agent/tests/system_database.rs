//! Creating, migrating and refusing schemas of the system database.
#![allow(clippy::unwrap_used)]

mod database_support;

use database_support::{PostgresDatabase, column, connect, execute};
use segno::system_database::{DatabaseError, Options, SystemDatabase};

/// Everything that another SDK could depend on: columns, indexes, constraints, functions, triggers.
const CATALOG: &str = "
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
           || COALESCE(column_default, '-') FROM information_schema.columns WHERE table_schema = 'dbos'
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'dbos'
    UNION ALL SELECT 'constraint ' || conrelid::regclass::text || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'dbos'::regnamespace
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text || ' ' || COALESCE(p.proconfig::text, '-') || md5(p.prosrc)
      FROM pg_proc p WHERE pronamespace = 'dbos'::regnamespace
    UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1";

const VERSION: &str = "SELECT version::text FROM dbos.dbos_migrations";

#[tokio::test]
async fn a_fresh_database_gets_the_complete_schema_once() {
    let database = PostgresDatabase::create().await;
    let db = connect(&database.url).await;
    assert!(matches!(
        db.verify().await,
        Err(DatabaseError::SchemaOutdated {
            found: 0,
            needed: 125,
            ..
        })
    ));

    // Several processes may start at once.
    let (a, b, c) = tokio::join!(
        db.migrate(),
        async { connect(&database.url).await.migrate().await },
        db.migrate()
    );
    a.and(b).and(c).unwrap();

    db.verify().await.unwrap();
    assert_eq!(column(&database.url, VERSION).await, ["125"]);
    let before = column(&database.url, CATALOG).await;
    db.migrate().await.unwrap();
    assert_eq!(column(&database.url, CATALOG).await, before);
    db.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_missing_database_is_created() {
    let database = PostgresDatabase::create().await;
    let url = format!("{}_other", database.url);
    connect(&url).await.migrate().await.unwrap();
    assert_eq!(column(&url, VERSION).await, ["125"]);
    let name = url.rsplit('/').next().unwrap();
    execute(&database.url, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    database.drop().await;
}

#[tokio::test]
async fn the_schema_may_have_any_name() {
    let database = PostgresDatabase::create().await;
    let options = Options {
        schema: "we\"ird Name".to_owned(),
        ..Options::default()
    };
    let db = SystemDatabase::connect(&database.url, options)
        .await
        .unwrap();
    db.migrate().await.unwrap();
    db.verify().await.unwrap();
    assert_eq!(
        column(
            &database.url,
            "SELECT version::text FROM \"we\"\"ird Name\".dbos_migrations"
        )
        .await,
        ["125"]
    );
    let id = column(
        &database.url,
        "SELECT \"we\"\"ird Name\".enqueue_workflow('w', 'q')",
    )
    .await;
    assert_eq!(id.len(), 1);
    db.close().await;
    database.drop().await;
}

/// Takes a current schema back to what version 100 looked like, as far as the shared migrations go.
const BACK_TO_100: &str = "
    DROP FUNCTION dbos.enqueue_workflow;
    CREATE FUNCTION dbos.enqueue_workflow(TEXT, TEXT, JSON[], JSON, TEXT, TEXT, TEXT, TEXT, BIGINT, BIGINT, TEXT,
        INTEGER, TEXT, TEXT, TEXT, BIGINT) RETURNS TEXT LANGUAGE sql AS 'SELECT $1';
    DROP INDEX dbos.idx_application_versions_timestamp, dbos.idx_application_versions_owner_timestamp,
        dbos.idx_workflow_status_deadline, dbos.idx_workflow_status_in_flight_v2,
        dbos.idx_workflow_status_partition_dequeue_v3, dbos.idx_operation_outputs_completed_at_function_name_v2,
        dbos.idx_operation_outputs_retention, dbos.uq_application_versions_owner_version,
        dbos.uq_application_versions_unclaimed_version;
    CREATE INDEX idx_notifications ON dbos.notifications (destination_uuid, topic);
    CREATE INDEX idx_workflow_status_in_flight ON dbos.workflow_status (queue_name, status, priority, created_at);
    CREATE INDEX idx_operation_outputs_completed_at_function_name
        ON dbos.operation_outputs (completed_at_epoch_ms, function_name);
    DROP TABLE dbos.workflow_input, dbos.workflow_output;
    ALTER TABLE dbos.workflow_status DROP COLUMN creator_xid;
    ALTER TABLE dbos.notifications DROP COLUMN consumed_by_function_id;
    ALTER TABLE dbos.operation_outputs DROP COLUMN retention_timestamp, DROP COLUMN application_name,
        ADD CONSTRAINT operation_outputs_workflow_uuid_foreign FOREIGN KEY (workflow_uuid)
        REFERENCES dbos.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE;
    ALTER TABLE dbos.queues DROP COLUMN application_name, DROP COLUMN partition_concurrency,
        DROP COLUMN partition_worker_concurrency, DROP COLUMN partition_rate_limit_max,
        DROP COLUMN partition_rate_limit_period_sec;
    ALTER TABLE dbos.workflow_schedules DROP COLUMN application_name;
    ALTER TABLE dbos.application_versions DROP COLUMN application_name;
    UPDATE dbos.dbos_migrations SET version = 100;";

#[tokio::test]
async fn a_schema_of_a_shared_version_is_brought_up_to_date() {
    let database = PostgresDatabase::create().await;
    let db = connect(&database.url).await;
    db.migrate().await.unwrap();
    let fresh = column(&database.url, CATALOG).await;

    execute(&database.url, BACK_TO_100).await;
    assert!(matches!(
        db.verify().await,
        Err(DatabaseError::SchemaOutdated { found: 100, .. })
    ));
    db.migrate().await.unwrap();

    // SDKs of the older line may be about: what SQL enqueues is written for them, too.
    let others = |catalog: Vec<String>| -> Vec<String> {
        let is_enqueue = |line: &String| line.starts_with("function dbos.enqueue_workflow");
        catalog
            .into_iter()
            .filter(|line| !is_enqueue(line))
            .collect()
    };
    assert_eq!(others(column(&database.url, CATALOG).await), others(fresh));
    assert_eq!(column(&database.url, VERSION).await, ["125"]);
    let id = column(&database.url, "SELECT dbos.enqueue_workflow('w', 'q')").await;
    let inputs = "SELECT w.inputs = i.inputs FROM dbos.workflow_status w JOIN dbos.workflow_input i USING (workflow_uuid)";
    let same = format!("SELECT ({inputs})::text WHERE '{}' <> ''", id[0]);
    assert_eq!(column(&database.url, &same).await, ["true"]);
    db.close().await;
    database.drop().await;
}

#[tokio::test]
async fn schemas_of_others_are_left_alone() {
    let database = PostgresDatabase::create().await;
    let db = connect(&database.url).await;

    db.migrate().await.unwrap();
    execute(
        &database.url,
        "UPDATE dbos.dbos_migrations SET version = 300",
    )
    .await;
    db.migrate().await.unwrap();
    db.verify().await.unwrap();
    assert_eq!(
        column(&database.url, VERSION).await,
        ["300"],
        "a newer schema is accepted as it is"
    );

    execute(
        &database.url,
        "UPDATE dbos.dbos_migrations SET version = 41",
    )
    .await;
    let refusal = db.migrate().await.unwrap_err();
    assert!(
        matches!(refusal, DatabaseError::SchemaTooOld { found: 41, .. }),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("newest official SDK"));
    assert_eq!(column(&database.url, VERSION).await, ["41"]);

    execute(&database.url, "DELETE FROM dbos.dbos_migrations").await;
    let refusal = db.migrate().await.unwrap_err();
    assert!(
        matches!(refusal, DatabaseError::SchemaUnusable { .. }),
        "{refusal}"
    );

    execute(
        &database.url,
        "ALTER TABLE dbos.workflow_status ADD COLUMN shard_key TEXT",
    )
    .await;
    let refusal = db.migrate().await.unwrap_err();
    assert!(refusal.to_string().contains("shard_key"), "{refusal}");
    db.close().await;
    database.drop().await;
}

#[tokio::test]
async fn plain_sql_clients_can_enqueue_and_send() {
    let database = PostgresDatabase::create().await;
    let url = &database.url;
    let db = connect(url).await;
    db.migrate().await.unwrap();

    let id = column(
        url,
        "SELECT dbos.enqueue_workflow('pay', 'orders', ARRAY['1'::json, '\"x\"'::json], '{\"k\": 2}'::json, \
         workflow_id => 'w1', deduplication_id => 'd1', application_name => 'shop')",
    )
    .await;
    assert_eq!(id, ["w1"]);
    let row = "SELECT concat_ws('|', status, name, queue_name, recovery_attempts, priority, serialization, application_name, \
               coalesce(s.inputs, 'null'), (i.inputs::json->'positionalArgs'->>1), (i.inputs::json->'namedArgs'->>'k')) \
               FROM dbos.workflow_status s JOIN dbos.workflow_input i USING (workflow_uuid)";
    assert_eq!(
        column(url, row).await,
        ["ENQUEUED|pay|orders|0|0|portable_json|shop|null|x|2"]
    );

    let again = column(
        url,
        "SELECT dbos.enqueue_workflow('pay', 'orders', workflow_id => 'w1')",
    )
    .await;
    assert_eq!(again, ["w1"]);
    let duplicate = refused(
        url,
        "SELECT dbos.enqueue_workflow('pay', 'orders', deduplication_id => 'd1')",
    )
    .await;
    assert_eq!(
        duplicate,
        ("23505".to_owned(), "DBOS queue duplicated".to_owned())
    );
    let delayed = column(
        url,
        "SELECT dbos.enqueue_workflow('pay', 'orders', delay_until_epoch_ms => 1)",
    )
    .await;
    let status = format!(
        "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = '{}'",
        delayed[0]
    );
    assert_eq!(column(url, &status).await, ["DELAYED"]);
    for bad in [
        "'', 'q'",
        "'w', ''",
        "'w', 'q', named_args => '[]'",
        "'w', 'q', workflow_id => ''",
    ] {
        refused(url, &format!("SELECT dbos.enqueue_workflow({bad})")).await;
    }

    execute(url, "SELECT dbos.send_message('w1', '{\"a\": 1}', message_id => 'm'); SELECT dbos.send_message('w1', '2', 't', 'm')")
        .await;
    let messages = "SELECT concat_ws('|', destination_uuid, topic, message, serialization, consumed) FROM dbos.notifications";
    assert_eq!(
        column(url, messages).await,
        ["w1|__null__topic__|{\"a\": 1}|portable_json|f"]
    );
    let missing = refused(url, "SELECT dbos.send_message('nobody', '1')").await;
    assert_eq!(
        missing,
        ("23503".to_owned(), "DBOS non-existent workflow".to_owned())
    );
    db.close().await;
    database.drop().await;
}

async fn refused(url: &str, sql: &str) -> (String, String) {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap_err();
    let error = error.into_database_error().unwrap();
    (
        error.code().unwrap().into_owned(),
        error.message().to_owned(),
    )
}

#[tokio::test]
async fn sqlite_gets_the_same_tables_in_a_file_or_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("new/app.db").display());
    let (one, two) = (connect(&url).await, connect(&url).await);
    assert!(matches!(
        one.verify().await,
        Err(DatabaseError::SchemaOutdated { found: 0, .. })
    ));
    let (a, b) = tokio::join!(one.migrate(), two.migrate());
    a.and(b).unwrap();
    one.verify().await.unwrap();
    two.verify().await.unwrap();

    let memory = connect("sqlite::memory:").await;
    memory.migrate().await.unwrap();
    memory.verify().await.unwrap();
}

/// The processes of one machine share the file, and may all find it missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sqlite_file_may_be_opened_by_many_at_once() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("app.db").display());
        let mut openers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let url = url.clone();
            openers.spawn(async move {
                let db = SystemDatabase::connect(&url, Options::default()).await?;
                db.migrate().await?;
                db.verify().await
            });
        }
        for outcome in openers.join_all().await {
            outcome.unwrap();
        }
    }
}

#[tokio::test]
async fn a_bad_url_is_explained_without_repeating_it() {
    for url in [
        "mysql://u:secret@h/d",
        "postgres://u:secret@h:port/d",
        "secret",
    ] {
        let error = SystemDatabase::connect(url, Options::default())
            .await
            .unwrap_err();
        assert!(matches!(error, DatabaseError::Url(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
