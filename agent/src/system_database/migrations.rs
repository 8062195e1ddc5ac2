//! Creating and migrating the schema.
//!
//! `dbos_migrations` holds one number. From 100 on it means the same to every SDK; below, it does not,
//! so such schemas are left to the SDK that made them. A number is a promise that everything up to it
//! is there, hence it is written in the transaction that completes it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _, Sqlite};

use super::{DatabaseError, Dialect, Pool, SystemDatabase, newer, quote_identifier};

/// The version that this library creates and migrates to.
pub(super) const CURRENT: i64 = 125;

/// The oldest version whose number is shared between the SDKs.
const OLDEST_SHARED: i64 = 100;

/// The last versions of the older line, in which payloads are in the status row. SDKs of that line go no further.
pub(super) const OLDER_LINE: std::ops::RangeInclusive<i64> = 107..=108;

/// From here on there are only indexes to come: another SDK's tables do as they are.
const COMPLETE: i64 = 123;

/// What the comment on the table of versions says of a schema that this library made.
const MADE_HERE: &str = "made by segno";

/// And of one that it migrated from the older line, whose SDKs may still be about.
const SHARED_WITH_OLDER: &str =
    "migrated by segno from the older line; payloads are written for both";

/// Session-level advisory lock under which the Python and Java SDKs migrate too.
const MIGRATION_LOCK: i64 = 1_234_567_890;

/// How long to wait for a peer that is migrating before going on without the lock, as peers do.
const LOCK_WAIT: Duration = Duration::from_secs(30);

const POSTGRES_TABLES: &str = include_str!("schema/postgres_tables.sql");
const POSTGRES_ENQUEUE: &str = include_str!("schema/postgres_enqueue_workflow.sql");
const POSTGRES_SEND: &str = include_str!("schema/postgres_send_message.sql");
pub(super) const SQLITE_TABLES: &str = include_str!("schema/sqlite_tables.sql");

/// One step between two shared versions.
struct Migration {
    version: i64,
    /// Index DDL that must run outside a transaction, one statement at a time.
    online: bool,
    statements: &'static [&'static str],
}

const fn step(version: i64, statements: &'static [&'static str]) -> Migration {
    Migration {
        version,
        online: false,
        statements,
    }
}

const fn online(version: i64, statements: &'static [&'static str]) -> Migration {
    Migration {
        version,
        online: true,
        statements,
    }
}

/// Version 100 is where we begin, so 101 is the first to apply.
const SHARED: &[Migration] = &[
    step(
        101,
        &[
            "ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS application_name TEXT DEFAULT NULL",
        ],
    ),
    step(
        102,
        &[
            "ALTER TABLE {schema}.workflow_schedules ADD COLUMN IF NOT EXISTS application_name TEXT DEFAULT NULL",
        ],
    ),
    step(
        103,
        &[
            "ALTER TABLE {schema}.application_versions ADD COLUMN IF NOT EXISTS application_name TEXT DEFAULT NULL",
        ],
    ),
    step(
        104,
        &[
            "ALTER TABLE {schema}.operation_outputs ADD COLUMN IF NOT EXISTS application_name TEXT DEFAULT NULL",
        ],
    ),
    step(
        105,
        &["{drop_enqueue_16}", "{drop_enqueue_17}", "{enqueue_inline}"],
    ),
    step(
        106,
        &[
            "CREATE UNIQUE INDEX IF NOT EXISTS uq_application_versions_owner_version \
                 ON {schema}.application_versions (application_name, version_name) WHERE application_name IS NOT NULL",
        ],
    ),
    online(
        107,
        &[
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_application_versions_unclaimed_version \
                   ON {schema}.application_versions (version_name) WHERE application_name IS NULL",
        ],
    ),
    step(
        108,
        &["ALTER TABLE {schema}.queues \
                 ADD COLUMN IF NOT EXISTS partition_concurrency INTEGER DEFAULT NULL, \
                 ADD COLUMN IF NOT EXISTS partition_worker_concurrency INTEGER DEFAULT NULL, \
                 ADD COLUMN IF NOT EXISTS partition_rate_limit_max INTEGER DEFAULT NULL, \
                 ADD COLUMN IF NOT EXISTS partition_rate_limit_period_sec DOUBLE PRECISION DEFAULT NULL"],
    ),
    step(
        109,
        &[
            "CREATE TABLE IF NOT EXISTS {schema}.workflow_input (workflow_uuid TEXT PRIMARY KEY, inputs TEXT, \
         retention_timestamp BIGINT NOT NULL DEFAULT {now_ms})",
            "CREATE TABLE IF NOT EXISTS {schema}.workflow_output (workflow_uuid TEXT PRIMARY KEY, output TEXT, error TEXT, \
         retention_timestamp BIGINT NOT NULL DEFAULT {now_ms})",
            "CREATE INDEX IF NOT EXISTS idx_workflow_input_retention ON {schema}.workflow_input (retention_timestamp)",
            "CREATE INDEX IF NOT EXISTS idx_workflow_output_retention ON {schema}.workflow_output (retention_timestamp)",
        ],
    ),
    step(
        110,
        &["ALTER TABLE {schema}.operation_outputs \
                 ADD COLUMN IF NOT EXISTS retention_timestamp BIGINT NOT NULL DEFAULT {now_ms}"],
    ),
    online(
        111,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_operation_outputs_retention \
                   ON {schema}.operation_outputs (retention_timestamp)",
        ],
    ),
    step(
        112,
        &[
            "ALTER TABLE {schema}.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_fkey",
            "ALTER TABLE {schema}.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_foreign",
        ],
    ),
    step(113, &["{drop_enqueue_17}", "{enqueue}"]),
    online(
        114,
        &["DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_notifications"],
    ),
    online(
        115,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_in_flight_v2 \
                   ON {schema}.workflow_status (queue_name, status, priority, created_at) INCLUDE (application_name) \
                   WHERE status IN ('ENQUEUED', 'PENDING')",
        ],
    ),
    online(
        116,
        &["DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_in_flight"],
    ),
    online(
        117,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_partition_dequeue_v3 \
                   ON {schema}.workflow_status \
                   (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid) INCLUDE (application_name) \
                   WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL",
        ],
    ),
    online(
        118,
        &["DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_partition_dequeue_v2"],
    ),
    online(
        119,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_operation_outputs_completed_at_function_name_v2 \
                   ON {schema}.operation_outputs (completed_at_epoch_ms, function_name) INCLUDE (application_name)",
        ],
    ),
    online(
        120,
        &[
            "DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_operation_outputs_completed_at_function_name",
        ],
    ),
    step(
        121,
        &[
            "ALTER TABLE {schema}.notifications ADD COLUMN IF NOT EXISTS consumed_by_function_id INTEGER",
        ],
    ),
    online(
        122,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_deadline \
                   ON {schema}.workflow_status (workflow_deadline_epoch_ms) \
                   WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL",
        ],
    ),
    step(
        123,
        &[
            "ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS creator_xid TEXT DEFAULT NULL",
        ],
    ),
    online(
        124,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_application_versions_timestamp \
                   ON {schema}.application_versions (version_timestamp DESC)",
        ],
    ),
    online(
        125,
        &[
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_application_versions_owner_timestamp \
                   ON {schema}.application_versions (application_name, version_timestamp DESC)",
        ],
    ),
];

/// Fills the placeholders of a piece of Postgres DDL.
fn render(schema: &str, sql: &str) -> String {
    let argument_types_16 = "TEXT, TEXT, JSON[], JSON, TEXT, TEXT, TEXT, TEXT, BIGINT, BIGINT, TEXT, INTEGER, TEXT, TEXT, TEXT, BIGINT";
    let store_inputs = "INSERT INTO {schema}.workflow_input (workflow_uuid, inputs) VALUES (v_id, v_envelope) \
                        ON CONFLICT (workflow_uuid) DO NOTHING;";
    let enqueue = |column: &str, value: &str, side_table: &str| {
        POSTGRES_ENQUEUE
            .replace("{inline_column}", column)
            .replace("{inline_value}", value)
            .replace("{side_table}", side_table)
    };
    sql.replace(
        "{enqueue_both}",
        &enqueue("inputs,", "v_envelope,", store_inputs),
    )
    .replace("{enqueue_inline}", &enqueue("inputs,", "v_envelope,", ""))
    .replace("{enqueue}", &enqueue("", "", store_inputs))
    .replace(
        "{drop_enqueue_16}",
        &format!("DROP FUNCTION IF EXISTS {{schema}}.enqueue_workflow({argument_types_16})"),
    )
    .replace(
        "{drop_enqueue_17}",
        &format!("DROP FUNCTION IF EXISTS {{schema}}.enqueue_workflow({argument_types_16}, TEXT)"),
    )
    .replace("{schema}", &quote_identifier(schema))
    .replace("{now_ms}", Dialect::Postgres.now_ms())
}

pub(super) async fn migrate(db: &SystemDatabase) -> Result<(), DatabaseError> {
    match db.pool() {
        Pool::Postgres(pool) => {
            let mut connection = pool.acquire().await?;
            migrate_postgres(&mut connection, db.schema()).await?;
        }
        Pool::Sqlite { .. } => migrate_sqlite(db).await?,
    }
    settle(db, version(db).await?).await
}

/// Creates and updates what is this library's own; joins the older line; leaves the rest alone.
pub(super) async fn join(db: &SystemDatabase) -> Result<(), DatabaseError> {
    let found = version(db).await?;
    let ours = found == 0 || mark(db).await?.as_deref() == Some(MADE_HERE);
    if ours && found < CURRENT {
        return migrate(db).await;
    }
    if is_usable(found) {
        return settle(db, found).await;
    }
    Err(DatabaseError::SchemaOfAnother {
        schema: db.schema().to_owned(),
        found,
        needed: CURRENT,
    })
}

/// Whether tables of this version can be worked on as they are.
fn is_usable(version: i64) -> bool {
    version >= COMPLETE || OLDER_LINE.contains(&version)
}

/// Works from now on as tables of this version want it.
async fn settle(db: &SystemDatabase, version: i64) -> Result<(), DatabaseError> {
    newer::refuse_incomplete(db, version).await?;
    db.fit_to(version);
    if OLDER_LINE.contains(&version) {
        let schema = db.schema();
        tracing::info!(
            schema,
            version,
            "joining tables of the older line as they are"
        );
    } else if mark(db).await?.as_deref() == Some(SHARED_WITH_OLDER) {
        db.write_inline_payloads();
    }
    Ok(())
}

/// What this library left on the table of versions.
async fn mark(db: &SystemDatabase) -> Result<Option<String>, DatabaseError> {
    let Pool::Postgres(pool) = db.pool() else {
        return Ok(Some(MADE_HERE.to_owned()));
    };
    let row = sqlx::query("SELECT obj_description(to_regclass($1), 'pg_class')")
        .bind(format!("{}dbos_migrations", db.prefix()))
        .fetch_one(pool)
        .await?;
    Ok(row.try_get(0)?)
}

/// The recorded version; 0 if there is none.
pub(super) async fn version(db: &SystemDatabase) -> Result<i64, DatabaseError> {
    match db.pool() {
        Pool::Postgres(pool) => {
            let mut connection = pool.acquire().await?;
            refuse_foreign_layout(&mut connection, db.schema()).await?;
            postgres_version(&mut connection, db.schema()).await
        }
        Pool::Sqlite { readers, .. } => sqlite_version(readers).await,
    }
}

/// Drops the engine's tables and creates them anew.
pub(super) async fn reset(db: &SystemDatabase) -> Result<(), DatabaseError> {
    match db.pool() {
        Pool::Postgres(pool) => {
            let schema = quote_identifier(db.schema());
            let mut connection = pool.acquire().await?;
            refuse_foreign_layout(&mut connection, db.schema()).await?;
            run_script(
                &mut connection,
                format!("DROP SCHEMA IF EXISTS {schema} CASCADE"),
            )
            .await?;
        }
        Pool::Sqlite { writer, .. } => {
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::raw_sql("PRAGMA defer_foreign_keys = ON")
                .execute(&mut *transaction)
                .await?;
            for line in SQLITE_TABLES.lines() {
                let table = line.strip_prefix("CREATE TABLE ");
                let Some(table) = table.and_then(|rest| rest.split_whitespace().next()) else {
                    continue;
                };
                let drop = format!("DROP TABLE IF EXISTS {table}");
                sqlx::raw_sql(AssertSqlSafe(drop))
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
        }
    }
    migrate(db).await
}

/// Makes the table of a datasource, and the schema it is in, where they are missing.
pub(super) async fn create_transaction_records(db: &SystemDatabase) -> Result<(), DatabaseError> {
    let table = db.dialect().transaction_records(db.prefix());
    let pool = match db.pool() {
        Pool::Postgres(pool) => pool,
        Pool::Sqlite { writer, .. } => {
            sqlx::raw_sql(AssertSqlSafe(table)).execute(writer).await?;
            return Ok(());
        }
    };
    let mut connection = pool.acquire().await?;
    // A role that may not create anything need not, where an owner did.
    let known = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{}datasource_outputs", db.prefix()))
        .fetch_one(&mut *connection)
        .await?;
    if known.try_get::<bool, _>(0)? {
        return Ok(());
    }
    let schema = quote_identifier(db.schema());
    let script = format!("CREATE SCHEMA IF NOT EXISTS {schema}; {table}");
    match run_script(&mut connection, script.clone()).await {
        // Two that find nothing at the same time: the slower one looks again.
        Err(error) if already_exists(&error) => run_script(&mut connection, script).await,
        created => created,
    }
}

/// Grants a role the use of the tables and functions, and no more.
pub(super) async fn grant_to(db: &SystemDatabase, role: &str) -> Result<(), DatabaseError> {
    let Pool::Postgres(pool) = db.pool() else {
        let message = "SQLite has no roles; use the file's permissions".to_owned();
        return Err(DatabaseError::Invalid(message));
    };
    let (schema, role) = (quote_identifier(db.schema()), quote_identifier(role));
    let script = [
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"),
        format!("REVOKE INSERT, UPDATE, DELETE ON {schema}.dbos_migrations FROM {role};"),
        format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};"),
    ];
    run_script(&mut *pool.acquire().await?, script.join("\n")).await
}

pub(super) async fn verify(db: &SystemDatabase) -> Result<(), DatabaseError> {
    let found = version(db).await?;
    if is_usable(found) {
        return settle(db, found).await;
    }
    Err(DatabaseError::SchemaOutdated {
        schema: db.schema().to_owned(),
        found,
        needed: CURRENT,
    })
}

async fn migrate_postgres(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<(), DatabaseError> {
    refuse_foreign_layout(connection, schema).await?;
    if postgres_version(connection, schema).await? >= CURRENT {
        return Ok(());
    }
    let locked = lock(connection).await?;
    let outcome = migrate_locked(connection, schema).await;
    if locked {
        sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(MIGRATION_LOCK)
            .execute(connection)
            .await?;
    }
    outcome
}

async fn migrate_locked(connection: &mut PgConnection, schema: &str) -> Result<(), DatabaseError> {
    // A peer may have done it while we waited.
    let found = postgres_version(connection, schema).await?;
    match found {
        CURRENT.. => Ok(()),
        OLDEST_SHARED..CURRENT => apply_shared(connection, schema, found).await,
        1.. => Err(DatabaseError::SchemaTooOld {
            schema: schema.to_owned(),
            found,
        }),
        _ => match create_postgres(connection, schema).await {
            // TypeScript, Go and Rust SDKs do not lock: one of them may have been faster.
            Err(e) if already_exists(&e) => match postgres_version(connection, schema).await? {
                CURRENT.. => Ok(()),
                _ => Err(DatabaseError::SchemaUnusable {
                    schema: schema.to_owned(),
                    reason: format!(
                        "it holds workflow tables, but no version is recorded ({e}); another SDK is creating it \
                         right now (start again when it is done) or was interrupted (start that SDK once more, \
                         or drop the schema if it holds nothing of value)"
                    ),
                }),
            },
            other => other,
        },
    }
}

/// Waits for the lock; false if it could not be had in time.
async fn lock(connection: &mut PgConnection) -> Result<bool, DatabaseError> {
    let give_up = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        let row = sqlx::query("SELECT pg_try_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if row.try_get::<bool, _>(0)? {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= give_up {
            tracing::warn!(
                "another process has held the migration lock for 30 s; migrating without it"
            );
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The recorded version; a missing schema, table or row reads as 0.
async fn postgres_version(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<i64, DatabaseError> {
    let table = format!("{}.dbos_migrations", quote_identifier(schema));
    let row = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut *connection)
        .await?;
    if !row.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let query = format!("SELECT MAX(version) FROM {table}");
    let row = sqlx::query::<Postgres>(AssertSqlSafe(query))
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
}

/// Refuses a database of the sharded layout, whose rules are not known here.
async fn refuse_foreign_layout(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<(), DatabaseError> {
    let found = sqlx::query(
        "SELECT 1 FROM information_schema.columns \
         WHERE table_schema = $1 AND table_name = 'workflow_status' AND column_name = 'shard_key'",
    )
    .bind(schema)
    .fetch_optional(connection)
    .await?;
    if found.is_none() {
        return Ok(());
    }
    Err(DatabaseError::SchemaUnusable {
        schema: schema.to_owned(),
        reason: "its workflow_status table has a column shard_key, a layout of another product; \
                 use a database or schema of its own"
            .to_owned(),
    })
}

async fn create_postgres(connection: &mut PgConnection, schema: &str) -> Result<(), DatabaseError> {
    // Asking first spares a role that may not create schemas from needing to.
    let exists = sqlx::query("SELECT 1 FROM pg_namespace WHERE nspname = $1")
        .bind(schema)
        .fetch_optional(&mut *connection)
        .await?;
    let create_schema = if exists.is_some() {
        ""
    } else {
        "CREATE SCHEMA {schema};"
    };
    // An older SDK that crashed early leaves an empty version table behind.
    let version_table = "DROP TABLE IF EXISTS {schema}.dbos_migrations;";
    let script = [
        "BEGIN;",
        &render(schema, create_schema),
        &render(schema, version_table),
        &render(schema, POSTGRES_TABLES),
        &render(schema, "{enqueue}"),
        &render(schema, POSTGRES_SEND),
        &render(
            schema,
            &format!(
                "INSERT INTO {{schema}}.dbos_migrations (version) VALUES ({CURRENT}); \
                 COMMENT ON TABLE {{schema}}.dbos_migrations IS '{MADE_HERE}';"
            ),
        ),
        "COMMIT;",
    ]
    .join("\n");
    run_script(connection, script).await?;
    tracing::info!(
        schema,
        version = CURRENT,
        "created the system database schema"
    );
    Ok(())
}

async fn apply_shared(
    connection: &mut PgConnection,
    schema: &str,
    found: i64,
) -> Result<(), DatabaseError> {
    if found <= *OLDER_LINE.end() {
        // First: whoever comes when the tables are there knows for whom to write.
        let comment =
            format!("COMMENT ON TABLE {{schema}}.dbos_migrations IS '{SHARED_WITH_OLDER}'");
        run_script(connection, render(schema, &comment)).await?;
    }
    for migration in SHARED.iter().filter(|migration| migration.version > found) {
        let version = migration.version;
        let bump = render(
            schema,
            &format!(
                "UPDATE {{schema}}.dbos_migrations SET version = {version} WHERE version < {version}"
            ),
        );
        if migration.online {
            drop_invalid_indexes(connection, schema).await?;
            for statement in migration.statements {
                run_script(connection, render(schema, statement)).await?;
            }
            run_script(connection, bump).await?;
        } else {
            let mut script = "BEGIN;\n".to_owned();
            for statement in migration.statements {
                script.push_str(render(schema, statement).trim_end().trim_end_matches(';'));
                script.push_str(";\n");
            }
            script.push_str(&format!("{bump};\nCOMMIT;"));
            run_script(connection, script).await?;
        }
        tracing::info!(schema, version, "migrated the system database schema");
    }
    if found <= *OLDER_LINE.end() {
        // What is enqueued by SQL is looked for in both places, too.
        let both = "BEGIN; {drop_enqueue_17}; {enqueue_both} COMMIT;";
        run_script(connection, render(schema, both)).await?;
    }
    Ok(())
}

/// An index whose concurrent build was interrupted exists but serves nobody.
async fn drop_invalid_indexes(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<(), DatabaseError> {
    let rows = sqlx::query(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND NOT i.indisvalid",
    )
    .bind(schema)
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let name: String = row.try_get(0)?;
        let index = format!("{}.{}", quote_identifier(schema), quote_identifier(&name));
        run_script(
            connection,
            format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
        )
        .await?;
    }
    Ok(())
}

/// Runs DDL by the simple protocol; a failed script leaves no open transaction behind.
async fn run_script(connection: &mut PgConnection, script: String) -> Result<(), DatabaseError> {
    let outcome = sqlx::raw_sql(AssertSqlSafe(script))
        .execute(&mut *connection)
        .await;
    if outcome.is_err() {
        // Outside a transaction this is only a warning of the server.
        let _ = sqlx::raw_sql("ROLLBACK").execute(connection).await;
    }
    outcome?;
    Ok(())
}

/// Duplicate table, object, function, schema, or the catalog's own unique indexes.
fn already_exists(error: &DatabaseError) -> bool {
    matches!(
        error.sql_code().as_deref(),
        Some("42P07" | "42710" | "42723" | "42P06" | "23505")
    )
}

async fn sqlite_version<'c, E>(on: E) -> Result<i64, DatabaseError>
where
    E: sqlx::Executor<'c, Database = Sqlite> + Copy,
{
    let table = sqlx::query(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dbos_migrations'",
    )
    .fetch_optional(on)
    .await?;
    if table.is_none() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT MAX(version) FROM dbos_migrations")
        .fetch_one(on)
        .await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
}

/// The file is ours alone and began at [`CURRENT`], so there is only creation.
async fn migrate_sqlite(db: &SystemDatabase) -> Result<(), DatabaseError> {
    let Pool::Sqlite { readers, writer } = db.pool() else {
        return Ok(());
    };
    if sqlite_version(readers).await? >= CURRENT {
        return Ok(());
    }
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let table = sqlx::query(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dbos_migrations'",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    if table.is_some() {
        let row = sqlx::query("SELECT MAX(version) FROM dbos_migrations")
            .fetch_one(&mut *transaction)
            .await?;
        let found = row.try_get::<Option<i64>, _>(0)?.unwrap_or(0);
        if found >= CURRENT {
            return Ok(());
        }
        return Err(DatabaseError::SchemaTooOld {
            schema: "main".to_owned(),
            found,
        });
    }
    let tables = SQLITE_TABLES.replace("{now_ms}", Dialect::Sqlite.now_ms());
    sqlx::raw_sql(AssertSqlSafe(tables))
        .execute(&mut *transaction)
        .await?;
    let record = format!("INSERT INTO dbos_migrations (version) VALUES ({CURRENT})");
    sqlx::raw_sql(AssertSqlSafe(record))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
