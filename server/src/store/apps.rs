//! Applications.

use std::fmt;
use std::str::FromStr;

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Dialect, Store, StoreError, Tx};

/// Who may take over the workflows of a dead executor.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryPolicy {
    /// Only an executor that runs the same application version.
    #[default]
    SameVersion,
    /// If there is none, one that runs the latest version.
    Latest,
}

impl fmt::Display for RecoveryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameVersion => "same-version",
            Self::Latest => "latest",
        })
    }
}

impl FromStr for RecoveryPolicy {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "same-version" => Ok(Self::SameVersion),
            "latest" => Ok(Self::Latest),
            _ => Err(StoreError::Unreadable {
                table: "applications",
                column: "recovery_policy",
            }),
        }
    }
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRow {
    /// Stable id.
    pub id: String,
    /// The organization it belongs to.
    pub org_id: String,
    /// Name, unique in the organization.
    pub name: String,
    /// Language of its executors, as they say; none before the first.
    pub language: Option<String>,
    /// Grace between a lost connection and death, in seconds.
    pub executor_timeout_secs: i64,
    /// Who may take over.
    pub recovery_policy: RecoveryPolicy,
    /// Completed workflows created longer ago (ms) are deleted.
    pub gc_time_threshold_ms: Option<i64>,
    /// Only so many completed workflows are kept.
    pub gc_rows_threshold: Option<i64>,
    /// Workflows not complete so long (ms) after creation are cancelled.
    pub global_timeout_ms: Option<i64>,
    /// Whether payloads must not travel to the server.
    pub private_mode: bool,
    /// When it was registered, epoch milliseconds.
    pub created_at: i64,
}

/// What an update changes; `None` leaves a value, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct AppPatch {
    /// See [`AppRow::executor_timeout_secs`].
    pub executor_timeout_secs: Option<i64>,
    /// See [`AppRow::recovery_policy`].
    pub recovery_policy: Option<RecoveryPolicy>,
    /// See [`AppRow::gc_time_threshold_ms`].
    pub gc_time_threshold_ms: Option<Option<i64>>,
    /// See [`AppRow::gc_rows_threshold`].
    pub gc_rows_threshold: Option<Option<i64>>,
    /// See [`AppRow::global_timeout_ms`].
    pub global_timeout_ms: Option<Option<i64>>,
    /// See [`AppRow::private_mode`].
    pub private_mode: Option<bool>,
}

const COLUMNS: &str = "SELECT id, org_id, name, language, executor_timeout_secs, recovery_policy, \
     gc_time_threshold_ms, gc_rows_threshold, global_timeout_ms, private_mode, created_at \
     FROM applications";

fn read(row: &AnyRow) -> Result<AppRow, StoreError> {
    Ok(AppRow {
        id: row.try_get("id")?,
        org_id: row.try_get("org_id")?,
        name: row.try_get("name")?,
        language: row.try_get("language")?,
        executor_timeout_secs: row.try_get("executor_timeout_secs")?,
        recovery_policy: row.try_get::<String, _>("recovery_policy")?.parse()?,
        gc_time_threshold_ms: row.try_get("gc_time_threshold_ms")?,
        gc_rows_threshold: row.try_get("gc_rows_threshold")?,
        global_timeout_ms: row.try_get("global_timeout_ms")?,
        private_mode: row.try_get::<i64, _>("private_mode")? != 0,
        created_at: row.try_get("created_at")?,
    })
}

impl Store {
    /// The application of that name in an organization, as of the last second.
    pub async fn app_by_name(
        &self,
        org_id: &str,
        name: &str,
    ) -> Result<Option<AppRow>, StoreError> {
        let key = (org_id.to_owned(), name.to_owned());
        self.apps.get(key, self.read_app(org_id, name)).await
    }

    async fn read_app(&self, org_id: &str, name: &str) -> Result<Option<AppRow>, StoreError> {
        let _timer = self.timer("app_by_name");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE org_id = $1 AND name = $2"));
        let row = sqlx::query(query)
            .bind(org_id)
            .bind(name)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The application of that id.
    pub async fn app_by_id(&self, id: &str) -> Result<Option<AppRow>, StoreError> {
        let _timer = self.timer("app_by_id");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1"));
        let row = sqlx::query(query)
            .bind(id)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// All applications of an organization, by name.
    pub async fn apps(&self, org_id: &str) -> Result<Vec<AppRow>, StoreError> {
        let _timer = self.timer("apps");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE org_id = $1 ORDER BY name"));
        let rows = sqlx::query(query)
            .bind(org_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Registers an application; `false` if it was registered already (and is left as it was).
    pub async fn insert_app(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
        private_mode: bool,
    ) -> Result<bool, StoreError> {
        let insert = self.sql(
            "INSERT INTO applications (id, org_id, name, private_mode, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, {now}, {now}) ON CONFLICT (org_id, name) DO NOTHING",
        );
        let done = sqlx::query(insert)
            .bind(Uuid::new_v4().to_string())
            .bind(org_id)
            .bind(name)
            .bind(i64::from(private_mode))
            .execute(&mut **tx)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The id of the application of that name, as seen by a transaction.
    pub async fn app_in(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        let id = sqlx::query_scalar("SELECT id FROM applications WHERE org_id = $1 AND name = $2")
            .bind(org_id)
            .bind(name)
            .fetch_optional(&mut **tx)
            .await?;
        Ok(id)
    }

    /// Changes what `patch` holds. [`StoreError::NotFound`] if the application is gone.
    pub async fn update_app(
        &self,
        tx: &mut Tx,
        id: &str,
        patch: &AppPatch,
    ) -> Result<(), StoreError> {
        // A flag beside each nullable value tells "clear it" from "leave it".
        let update = self.sql(
            "UPDATE applications SET \
               executor_timeout_secs = COALESCE($2, executor_timeout_secs), \
               recovery_policy = COALESCE($3, recovery_policy), \
               private_mode = COALESCE($4, private_mode), \
               gc_time_threshold_ms = CASE WHEN $5 = 1 THEN $6 ELSE gc_time_threshold_ms END, \
               gc_rows_threshold = CASE WHEN $7 = 1 THEN $8 ELSE gc_rows_threshold END, \
               global_timeout_ms = CASE WHEN $9 = 1 THEN $10 ELSE global_timeout_ms END, \
               updated_at = {now} \
             WHERE id = $1",
        );
        let flag = |value: &Option<Option<i64>>| i64::from(value.is_some());
        let done = sqlx::query(update)
            .bind(id)
            .bind(patch.executor_timeout_secs)
            .bind(patch.recovery_policy.map(|policy| policy.to_string()))
            .bind(patch.private_mode.map(i64::from))
            .bind(flag(&patch.gc_time_threshold_ms))
            .bind(patch.gc_time_threshold_ms.flatten())
            .bind(flag(&patch.gc_rows_threshold))
            .bind(patch.gc_rows_threshold.flatten())
            .bind(flag(&patch.global_timeout_ms))
            .bind(patch.global_timeout_ms.flatten())
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    /// Remembers the language of an application's executors.
    pub async fn set_app_language(&self, id: &str, language: &str) -> Result<(), StoreError> {
        let _timer = self.timer("set_app_language");
        let done = sqlx::query(
            "UPDATE applications SET language = $2 \
             WHERE id = $1 AND (language IS NULL OR language <> $2)",
        )
        .bind(id)
        .bind(language)
        .execute(self.pool())
        .await?;
        if done.rows_affected() > 0 {
            self.forget_recent();
        }
        Ok(())
    }

    /// Deletes an application and everything that hangs on it.
    pub async fn delete_app(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        // Whoever keeps the books of an executor holds its row and then refers to the application. In the
        // other order, as the deletion's cascade would go, the two could wait for each other for ever.
        if self.dialect() == Dialect::Postgres {
            sqlx::query("SELECT 1 FROM executors WHERE app_id = $1 ORDER BY executor_id, app_version FOR UPDATE")
                .bind(id)
                .execute(&mut **tx)
                .await?;
        }
        let done = sqlx::query("DELETE FROM applications WHERE id = $1")
            .bind(id)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }
}
