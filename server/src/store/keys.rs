//! API keys. Only their SHA-256 is stored: a key has 256 random bits, so nothing slower is needed.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::auth::{AppScope, Permission, Permissions};

/// One API key, without its secret.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// Stable id.
    pub id: String,
    /// The organization it belongs to.
    pub org_id: String,
    /// Name, unique among the organization's keys of its sort.
    pub name: String,
    /// What it may do.
    pub permissions: Permissions,
    /// On which applications.
    pub scope: AppScope,
    /// Whether it is an administrator's key, which no API call makes or lists.
    pub admin: bool,
    /// When it was made, epoch milliseconds.
    pub created_at: i64,
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    /// The organization it belongs to.
    pub org_id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// SHA-256 of the key, hexadecimal.
    pub hash: &'a str,
    /// What it may do.
    pub permissions: Permissions,
    /// On which applications.
    pub scope: &'a AppScope,
    /// Whether it is an administrator's key.
    pub admin: bool,
}

const COLUMNS: &str =
    "SELECT id, org_id, name, permissions, app_scoped, admin, created_at FROM api_keys";

/// Reads a row; the applications of a scoped key come from [`Store::key_apps`].
fn read(row: &AnyRow) -> Result<KeyRow, StoreError> {
    let names: Vec<String> =
        serde_json::from_str(row.try_get("permissions")?).map_err(|_| StoreError::Unreadable {
            table: "api_keys",
            column: "permissions",
        })?;
    let scoped = row.try_get::<i64, _>("app_scoped")? != 0;
    Ok(KeyRow {
        id: row.try_get("id")?,
        org_id: row.try_get("org_id")?,
        name: row.try_get("name")?,
        // A name that this version does not know grants nothing.
        permissions: names
            .iter()
            .filter_map(|name| Permission::parse(name))
            .collect(),
        scope: if scoped {
            AppScope::Only(Vec::new())
        } else {
            AppScope::All
        },
        admin: row.try_get::<i64, _>("admin")? != 0,
        created_at: row.try_get("created_at")?,
    })
}

impl Store {
    /// The key whose hash this is, as of the last second.
    pub async fn key_by_hash(&self, hash: &str) -> Result<Option<KeyRow>, StoreError> {
        self.keys.get(hash.to_owned(), self.read_key(hash)).await
    }

    async fn read_key(&self, hash: &str) -> Result<Option<KeyRow>, StoreError> {
        let _timer = self.timer("key_by_hash");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE key_hash = $1"));
        let Some(row) = sqlx::query(query)
            .bind(hash)
            .fetch_optional(self.pool())
            .await?
        else {
            return Ok(None);
        };
        self.with_apps(read(&row)?).await.map(Some)
    }

    /// The organization's keys by name: the administrators' ones, or the others.
    pub async fn keys(&self, org_id: &str, admin: bool) -> Result<Vec<KeyRow>, StoreError> {
        let _timer = self.timer("keys");
        let query = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE org_id = $1 AND admin = $2 ORDER BY name"
        ));
        let rows = sqlx::query(query)
            .bind(org_id)
            .bind(i64::from(admin))
            .fetch_all(self.pool())
            .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(self.with_apps(read(row)?).await?);
        }
        Ok(keys)
    }

    async fn with_apps(&self, mut key: KeyRow) -> Result<KeyRow, StoreError> {
        if let AppScope::Only(apps) = &mut key.scope {
            *apps = sqlx::query_scalar(
                "SELECT app_id FROM api_key_apps WHERE key_id = $1 ORDER BY app_id",
            )
            .bind(&key.id)
            .fetch_all(&self.pool)
            .await?;
        }
        Ok(key)
    }

    /// Stores a key and returns its id. [`StoreError::Taken`] if the name exists.
    pub async fn insert_key(&self, tx: &mut Tx, key: &NewKey<'_>) -> Result<String, StoreError> {
        let id = Uuid::new_v4().to_string();
        let names: Vec<&str> = key.permissions.iter().map(Permission::name).collect();
        let insert = self.sql(
            "INSERT INTO api_keys (id, org_id, name, key_hash, permissions, app_scoped, admin, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, {now})",
        );
        sqlx::query(insert)
            .bind(&id)
            .bind(key.org_id)
            .bind(key.name)
            .bind(key.hash)
            .bind(serde_json::Value::from(names).to_string())
            .bind(i64::from(matches!(key.scope, AppScope::Only(_))))
            .bind(i64::from(key.admin))
            .execute(&mut **tx)
            .await?;
        if let AppScope::Only(apps) = key.scope {
            for app in apps {
                sqlx::query("INSERT INTO api_key_apps (key_id, app_id) VALUES ($1, $2)")
                    .bind(&id)
                    .bind(app)
                    .execute(&mut **tx)
                    .await?;
            }
        }
        Ok(id)
    }

    /// Renames a key. [`StoreError::NotFound`], or [`StoreError::Taken`].
    pub async fn rename_key(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
        new: &str,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE api_keys SET name = $3 WHERE org_id = $1 AND name = $2 AND admin = 0",
        )
        .bind(org_id)
        .bind(name)
        .bind(new)
        .execute(&mut **tx)
        .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    /// Revokes a key and returns its id. [`StoreError::NotFound`] if there is none.
    pub async fn delete_key(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
        admin: bool,
    ) -> Result<String, StoreError> {
        let id: String = sqlx::query_scalar(
            "DELETE FROM api_keys WHERE org_id = $1 AND name = $2 AND admin = $3 RETURNING id",
        )
        .bind(org_id)
        .bind(name)
        .bind(i64::from(admin))
        .fetch_one(&mut **tx)
        .await?;
        Ok(id)
    }
}
