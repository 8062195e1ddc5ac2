//! Executors: connected, lost, dead. See the migration for the columns.
//!
//! Whoever changes a row states the generation, or the session, that they saw; a change of what is
//! no longer so changes nothing, and the caller is told.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Dialect, Store, StoreError, Tx};
use crate::recovery::machine::{ExecutorKey, Millis};

/// The three states of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutorState {
    /// Connected.
    Healthy,
    /// Lost, and waited for.
    Disconnected,
    /// Lost for longer than the grace, and not yet recovered.
    Dead,
}

impl fmt::Display for ExecutorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "HEALTHY",
            Self::Disconnected => "DISCONNECTED",
            Self::Dead => "DEAD",
        })
    }
}

impl FromStr for ExecutorState {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "HEALTHY" => Ok(Self::Healthy),
            "DISCONNECTED" => Ok(Self::Disconnected),
            "DEAD" => Ok(Self::Dead),
            _ => Err(StoreError::Unreadable {
                table: "executors",
                column: "state",
            }),
        }
    }
}

/// One executor.
#[derive(Clone, Debug)]
pub struct ExecutorRow {
    /// Application, id and version.
    pub key: ExecutorKey,
    /// Its host.
    pub hostname: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// Version of its SDK.
    pub sdk_version: Option<String>,
    /// What its user attached to it, a JSON object.
    pub metadata: Option<String>,
    /// Where it stands.
    pub state: ExecutorState,
    /// Grows with every change of responsibility.
    pub generation: i64,
    /// The instance that holds, or last held, its socket.
    pub instance_id: Option<String>,
    /// Since when it has let requests time out.
    pub unresponsive_since: Option<Millis>,
    /// When it was last there, if it is not.
    pub disconnected_at: Option<Millis>,
    /// Grace counts from here.
    pub grace_from: Option<Millis>,
    /// When the loss was found out.
    pub noticed_at: Option<Millis>,
    /// The record of its loss.
    pub recovery_id: Option<String>,
    /// When it was first seen.
    pub created_at: Millis,
    /// When its row last changed.
    pub updated_at: Millis,
}

/// A connection to be written down.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    /// Application, id and version.
    pub key: &'a ExecutorKey,
    /// Its host.
    pub hostname: Option<&'a str>,
    /// Its language.
    pub language: Option<&'a str>,
    /// Version of its SDK.
    pub sdk_version: Option<&'a str>,
    /// What its user attached to it, a JSON object.
    pub metadata: Option<String>,
    /// The session.
    pub session_id: &'a str,
    /// The instance that holds the socket.
    pub instance_id: &'a str,
}

const COLUMNS: &str = "SELECT app_id, executor_id, app_version, hostname, language, sdk_version, metadata, \
     state, generation, instance_id, unresponsive_since, disconnected_at, grace_from, noticed_at, recovery_id, \
     created_at, updated_at FROM executors";

/// At most so many executors are written at a time: both engines take far more parameters, but a group
/// is also what is done again when it fails.
pub const GROUP: usize = 256;

/// `count` rows of parameters for `VALUES`, each of `width` and then `rest`.
fn rows(count: usize, width: usize, rest: &str) -> String {
    let mut text = String::new();
    for row in 0..count {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=width {
            if column > 1 {
                text.push_str(", ");
            }
            text.push_str(&format!("${}", row * width + column));
        }
        if !rest.is_empty() {
            text.push_str(", ");
        }
        text.push_str(rest);
        text.push(')');
    }
    text
}

fn key(row: &AnyRow) -> Result<ExecutorKey, StoreError> {
    Ok(ExecutorKey {
        app_id: row.try_get("app_id")?,
        executor_id: row.try_get("executor_id")?,
        version: row.try_get("app_version")?,
    })
}

fn read(row: &AnyRow) -> Result<ExecutorRow, StoreError> {
    Ok(ExecutorRow {
        key: key(row)?,
        hostname: row.try_get("hostname")?,
        language: row.try_get("language")?,
        sdk_version: row.try_get("sdk_version")?,
        metadata: row.try_get("metadata")?,
        state: row.try_get::<String, _>("state")?.parse()?,
        generation: row.try_get("generation")?,
        instance_id: row.try_get("instance_id")?,
        unresponsive_since: row.try_get("unresponsive_since")?,
        disconnected_at: row.try_get("disconnected_at")?,
        grace_from: row.try_get("grace_from")?,
        noticed_at: row.try_get("noticed_at")?,
        recovery_id: row.try_get("recovery_id")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// A lost executor that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoined {
    /// The recovery that ends with it.
    pub recovery_id: String,
    /// How long it was away, milliseconds; none if it had been declared dead.
    pub in_grace: Option<Millis>,
}

impl Store {
    /// The executors of an application, the longest known first.
    pub async fn executors(&self, app_id: &str) -> Result<Vec<ExecutorRow>, StoreError> {
        let _timer = self.timer("executors");
        let query = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE app_id = $1 ORDER BY created_at, executor_id"
        ));
        let rows = sqlx::query(query)
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Writes connections of different executors down, in one transaction: the executors are healthy,
    /// and recoveries of them that were under way end as rejoined. Returns for each that recovery.
    /// [`StoreError::NotFound`] if the application of one of them is gone; then nothing was written.
    ///
    /// To be called with connections in the order of their keys, and no more than [`GROUP`] of them.
    pub async fn executors_connected(
        &self,
        connections: &[Connection<'_>],
    ) -> Result<Vec<Option<Rejoined>>, StoreError> {
        let _timer = self.timer("executors_connected");
        let mut tx = self.begin().await?;
        let mut open = self.open_recoveries_of(&mut tx, connections).await?;
        let values = rows(connections.len(), 9, "'HEALTHY', {now}, {now}");
        let upsert = format!(
            "INSERT INTO executors (app_id, executor_id, app_version, hostname, language, sdk_version, metadata, \
               instance_id, session_id, state, created_at, updated_at) \
             VALUES {values} \
             ON CONFLICT (app_id, executor_id, app_version) DO UPDATE SET \
               hostname = excluded.hostname, language = excluded.language, \
               sdk_version = excluded.sdk_version, metadata = excluded.metadata, \
               state = 'HEALTHY', instance_id = excluded.instance_id, session_id = excluded.session_id, \
               generation = executors.generation + 1, unresponsive_since = NULL, disconnected_at = NULL, \
               grace_from = NULL, noticed_at = NULL, dead_at = NULL, recovery_id = NULL, \
               claim_instance = NULL, claim_until = NULL, updated_at = {{now}}"
        );
        let upsert = upsert.replace("{now}", self.now_expr());
        let mut query = sqlx::query(sqlx::AssertSqlSafe(upsert)).persistent(connections.len() == 1);
        for connection in connections {
            let key = connection.key;
            query = query
                .bind(&key.app_id)
                .bind(&key.executor_id)
                .bind(&key.version)
                .bind(connection.hostname)
                .bind(connection.language)
                .bind(connection.sdk_version)
                .bind(connection.metadata.as_deref())
                .bind(connection.instance_id)
                .bind(connection.session_id);
        }
        query.execute(&mut *tx).await?;
        let back = format!(
            "DELETE FROM abandoned_executors WHERE (app_id, executor_id, app_version) IN (VALUES {})",
            rows(connections.len(), 3, "")
        );
        self.of_keys(back, connections).execute(&mut *tx).await?;
        let mut rejoined = Vec::with_capacity(connections.len());
        for connection in connections {
            let recovery = open.remove(connection.key);
            if let Some(recovery) = &recovery {
                self.recovery_rejoined(&mut tx, &recovery.recovery_id)
                    .await?;
            }
            rejoined.push(recovery);
        }
        tx.commit().await?;
        Ok(rejoined)
    }

    /// The recoveries of executors that are connecting, by executor. Their rows are locked, in the same
    /// order by everybody: a claim must not open a record between this look and the change.
    async fn open_recoveries_of(
        &self,
        tx: &mut Tx,
        connections: &[Connection<'_>],
    ) -> Result<HashMap<ExecutorKey, Rejoined>, StoreError> {
        let keys = rows(connections.len(), 3, "");
        let lock = match self.dialect() {
            Dialect::Postgres => "FOR UPDATE",
            Dialect::Sqlite => "",
        };
        let select = format!(
            "SELECT app_id, executor_id, app_version, recovery_id, \
               CASE WHEN state = 'DISCONNECTED' THEN {now} - grace_from END AS in_grace FROM executors \
             WHERE (app_id, executor_id, app_version) IN (VALUES {keys}) \
             ORDER BY executor_id, app_version, app_id {lock}",
            now = self.now_expr()
        );
        let mut found = HashMap::new();
        let select = self.of_keys(select, connections);
        for row in select.fetch_all(&mut **tx).await? {
            if let Some(recovery_id) = row.try_get("recovery_id")? {
                let rejoined = Rejoined {
                    recovery_id,
                    in_grace: row.try_get("in_grace")?,
                };
                found.insert(key(&row)?, rejoined);
            }
        }
        Ok(found)
    }

    /// A statement about executors, with their keys for parameters.
    fn of_keys<'q>(
        &self,
        sql: String,
        connections: &'q [Connection<'_>],
    ) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(connections.len() == 1);
        for Connection { key, .. } in connections {
            query = query
                .bind(&key.app_id)
                .bind(&key.executor_id)
                .bind(&key.version);
        }
        query
    }

    /// Writes down that a session is gone since `at`, or since now if that is in the future, and opens the record of
    /// the loss. `false` if the session does not speak for the executor any more: then nothing is lost.
    pub async fn executor_lost(
        &self,
        key: &ExecutorKey,
        session_id: &str,
        at: Millis,
        recovery_id: &str,
    ) -> Result<bool, StoreError> {
        let _timer = self.timer("executor_lost");
        let mut tx = self.begin().await?;
        let update = self.sql(
            "UPDATE executors SET state = 'DISCONNECTED', \
               disconnected_at = CASE WHEN $5 < {now} THEN $5 ELSE {now} END, \
               grace_from = CASE WHEN $5 < {now} THEN $5 ELSE {now} END, \
               noticed_at = {now}, unresponsive_since = NULL, recovery_id = $6, updated_at = {now} \
             WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 AND session_id = $4 \
               AND state = 'HEALTHY' RETURNING disconnected_at",
        );
        let since = sqlx::query_scalar(update)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(session_id)
            .bind(at)
            .bind(recovery_id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(since) = since else {
            return Ok(false);
        };
        self.open_recovery(&mut tx, recovery_id, key, since).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Notes, or clears, since when a connected executor has let requests time out.
    pub async fn set_unresponsive(
        &self,
        key: &ExecutorKey,
        session_id: &str,
        since: Option<Millis>,
    ) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE executors SET unresponsive_since = CASE WHEN $5 > {now} THEN {now} ELSE $5 END, updated_at = {now} \
             WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 AND session_id = $4 \
               AND state = 'HEALTHY'",
        );
        sqlx::query(update)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(session_id)
            .bind(since)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Lost executors whose grace is over before `ahead` milliseconds from now, with the grace
    /// (milliseconds) of their application; the longest overdue first.
    pub async fn executors_due(
        &self,
        ahead: i64,
        limit: i64,
    ) -> Result<Vec<(ExecutorRow, i64)>, StoreError> {
        let _timer = self.timer("executors_due");
        let query = self.sql(
            "SELECT e.app_id, e.executor_id, e.app_version, e.hostname, e.language, e.sdk_version, e.metadata, \
               e.state, e.generation, e.instance_id, e.unresponsive_since, e.disconnected_at, e.grace_from, \
               e.noticed_at, e.recovery_id, e.created_at, e.updated_at, a.executor_timeout_secs * 1000 AS grace \
             FROM executors e JOIN applications a ON a.id = e.app_id \
             WHERE e.state = 'DISCONNECTED' AND e.grace_from + a.executor_timeout_secs * 1000 <= {now} + $1 \
             ORDER BY e.grace_from LIMIT $2",
        );
        let rows = sqlx::query(query)
            .bind(ahead)
            .bind(limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| Ok((read(row)?, row.try_get("grace")?)))
            .collect()
    }

    /// Declares an executor dead and claims its recovery for `ttl` milliseconds, if it still is as
    /// `generation` saw it. Returns the new generation and the record's id; `None` if it is not.
    pub async fn claim_dead(
        &self,
        key: &ExecutorKey,
        generation: i64,
        instance_id: &str,
        ttl: i64,
        fallback_id: &str,
    ) -> Result<Option<(i64, String)>, StoreError> {
        let _timer = self.timer("claim_dead");
        let mut tx = self.begin().await?;
        let update = self.sql(
            "UPDATE executors SET state = 'DEAD', dead_at = {now}, generation = generation + 1, \
               disconnected_at = COALESCE(disconnected_at, {now}), \
               recovery_id = COALESCE(recovery_id, $7), claim_instance = $5, claim_until = {now} + $6, \
               unresponsive_since = NULL, updated_at = {now} \
             WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 AND generation = $4 \
               AND state <> 'DEAD' \
             RETURNING recovery_id, disconnected_at",
        );
        let row = sqlx::query(update)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(generation)
            .bind(instance_id)
            .bind(ttl)
            .bind(fallback_id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let recovery_id: String = row.try_get("recovery_id")?;
        self.recovery_dead(&mut tx, &recovery_id, key, row.try_get("disconnected_at")?)
            .await?;
        tx.commit().await?;
        Ok(Some((generation + 1, recovery_id)))
    }

    /// Dead executors that nobody drives: their claim ran out, its holder is gone, or it is
    /// `instance_id`'s own.
    pub async fn dead_unclaimed(
        &self,
        instance_id: &str,
        expiry: i64,
    ) -> Result<Vec<ExecutorRow>, StoreError> {
        let _timer = self.timer("dead_unclaimed");
        let query = sqlx::AssertSqlSafe(
            format!(
                "{COLUMNS} WHERE state = 'DEAD' AND (claim_instance = $1 OR claim_instance IS NULL \
                   OR claim_until < {{now}} OR NOT EXISTS (SELECT 1 FROM instances \
                     WHERE id = executors.claim_instance AND stopped_at IS NULL AND heartbeat_at > {{now}} - $2)) \
                 LIMIT 1000"
            )
            .replace("{now}", self.now_expr()),
        );
        let rows = sqlx::query(query)
            .bind(instance_id)
            .bind(expiry)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Takes over the recovery of a dead executor. `None` if somebody else was faster.
    pub async fn take_over_dead(
        &self,
        key: &ExecutorKey,
        generation: i64,
        instance_id: &str,
        ttl: i64,
    ) -> Result<Option<i64>, StoreError> {
        let _timer = self.timer("take_over_dead");
        let update = self.sql(
            "UPDATE executors SET generation = generation + 1, claim_instance = $5, claim_until = {now} + $6 \
             WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 AND generation = $4 AND state = 'DEAD'",
        );
        let done = sqlx::query(update)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(generation)
            .bind(instance_id)
            .bind(ttl)
            .execute(self.pool())
            .await?;
        Ok((done.rows_affected() == 1).then_some(generation + 1))
    }

    /// Keeps all claims of an instance for another `ttl` milliseconds.
    pub async fn renew_claims(&self, instance_id: &str, ttl: i64) -> Result<(), StoreError> {
        let _timer = self.timer("renew_claims");
        let update =
            self.sql("UPDATE executors SET claim_until = {now} + $2 WHERE claim_instance = $1 AND state = 'DEAD'");
        sqlx::query(update)
            .bind(instance_id)
            .bind(ttl)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Whether a claim still stands: asked right before something is offered.
    pub async fn is_claimed(&self, key: &ExecutorKey, generation: i64) -> Result<bool, StoreError> {
        let _timer = self.timer("is_claimed");
        let query = self.sql(
            "SELECT COUNT(*) FROM executors WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 \
               AND generation = $4 AND state = 'DEAD' AND claim_until > {now}",
        );
        let count: i64 = sqlx::query_scalar(query)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(generation)
            .fetch_one(self.pool())
            .await?;
        Ok(count == 1)
    }

    /// Forgets a dead executor and closes its record. `false` if the claim does not stand any more.
    pub async fn forget_dead(
        &self,
        key: &ExecutorKey,
        generation: i64,
        recovery_id: &str,
        status: &'static str,
        recovered_by: Option<&str>,
    ) -> Result<bool, StoreError> {
        let _timer = self.timer("forget_dead");
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "DELETE FROM executors WHERE app_id = $1 AND executor_id = $2 AND app_version = $3 \
               AND generation = $4 AND state = 'DEAD'",
        )
        .bind(&key.app_id)
        .bind(&key.executor_id)
        .bind(&key.version)
        .bind(generation)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.close_recovery(&mut tx, recovery_id, status, recovered_by)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ids and versions of all executors of all applications: applications may share a database, and
    /// then the one's executors show in the other's workflows.
    pub async fn known_executors(&self) -> Result<Vec<(String, String)>, StoreError> {
        let _timer = self.timer("known_executors");
        let query = "SELECT executor_id, app_version FROM executors \
             UNION SELECT executor_id, app_version FROM abandoned_executors";
        let rows = sqlx::query(query).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| Ok((row.try_get("executor_id")?, row.try_get("app_version")?)))
            .collect()
    }

    /// Writes an executor down that was never seen, only its work: it has its grace to show up.
    pub async fn insert_unknown_executor(&self, key: &ExecutorKey) -> Result<bool, StoreError> {
        let _timer = self.timer("insert_unknown_executor");
        let insert = self.sql(
            "INSERT INTO executors (app_id, executor_id, app_version, state, disconnected_at, grace_from, \
               noticed_at, created_at, updated_at) \
             VALUES ($1, $2, $3, 'DISCONNECTED', {now}, {now}, {now}, {now}, {now}) \
             ON CONFLICT (app_id, executor_id, app_version) DO NOTHING",
        );
        let done = sqlx::query(insert)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All versions of an executor id, of an application.
    pub async fn executors_by_id(
        &self,
        app_id: &str,
        executor_id: &str,
    ) -> Result<Vec<ExecutorRow>, StoreError> {
        let query =
            sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE app_id = $1 AND executor_id = $2"));
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(executor_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Notes that an operator evicted an executor: its dials are refused for `ttl` milliseconds.
    pub async fn evict_executor(
        &self,
        key: &ExecutorKey,
        ttl: i64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let expired = self.sql("DELETE FROM evictions WHERE until < {now}");
        sqlx::query(expired).execute(self.pool()).await?;
        let insert = self.sql(
            "INSERT INTO evictions (app_id, executor_id, app_version, until, reason) \
             VALUES ($1, $2, $3, {now} + $4, $5) \
             ON CONFLICT (app_id, executor_id, app_version) DO UPDATE SET until = excluded.until, reason = excluded.reason",
        );
        sqlx::query(insert)
            .bind(&key.app_id)
            .bind(&key.executor_id)
            .bind(&key.version)
            .bind(ttl)
            .bind(reason)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Evictions that stand, with the milliseconds they still have.
    pub async fn evictions(&self) -> Result<Vec<(ExecutorKey, i64)>, StoreError> {
        let query = self.sql(
            "SELECT app_id, executor_id, app_version, until - {now} AS left_ms FROM evictions WHERE until > {now}",
        );
        let rows = sqlx::query(query).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| Ok((key(row)?, row.try_get("left_ms")?)))
            .collect()
    }
}
