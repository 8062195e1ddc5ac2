//! Organizations. Without OIDC there is exactly one, `local`.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Dialect, Store, StoreError, Tx};

/// The organization of a server without OIDC.
pub const LOCAL: &str = "local";

/// One organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgRow {
    /// Stable id; part of every API key.
    pub id: String,
    /// Name, part of every path.
    pub name: String,
    /// How long audit entries are kept, in days.
    pub audit_retention_days: i64,
    /// When it was made, epoch milliseconds.
    pub created_at: i64,
}

const COLUMNS: &str = "SELECT id, name, audit_retention_days, created_at FROM organizations";

fn read(row: &AnyRow) -> Result<OrgRow, StoreError> {
    Ok(OrgRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        audit_retention_days: row.try_get("audit_retention_days")?,
        created_at: row.try_get("created_at")?,
    })
}

impl Store {
    /// The organization `local`, made on the first call.
    pub async fn local_org(&self) -> Result<OrgRow, StoreError> {
        let insert = self.sql(
            "INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, {now}) \
             ON CONFLICT (name) DO NOTHING",
        );
        sqlx::query(insert)
            .bind(Uuid::new_v4().to_string())
            .bind(LOCAL)
            .execute(self.pool())
            .await?;
        self.org_by_name(LOCAL).await?.ok_or(StoreError::NotFound)
    }

    /// The organization of that name.
    pub async fn org_by_name(&self, name: &str) -> Result<Option<OrgRow>, StoreError> {
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE name = $1"));
        let row = sqlx::query(query)
            .bind(name)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The organization of that id.
    pub async fn org_by_id(&self, id: &str) -> Result<Option<OrgRow>, StoreError> {
        let _timer = self.timer("org_by_id");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1"));
        let row = sqlx::query(query)
            .bind(id)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Makes an organization and returns its id. [`StoreError::Taken`] if the name exists.
    pub async fn insert_org(&self, tx: &mut Tx, name: &str) -> Result<String, StoreError> {
        let id = Uuid::new_v4().to_string();
        let insert =
            self.sql("INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, {now})");
        sqlx::query(insert)
            .bind(&id)
            .bind(name)
            .execute(&mut **tx)
            .await?;
        Ok(id)
    }

    /// Changes the name, how long audit entries are kept, or both. [`StoreError::Taken`] if another
    /// organization has the name.
    pub async fn update_org(
        &self,
        tx: &mut Tx,
        id: &str,
        name: Option<&str>,
        audit_retention_days: Option<i64>,
    ) -> Result<(), StoreError> {
        let update = "UPDATE organizations SET name = COALESCE($2, name), \
                      audit_retention_days = COALESCE($3, audit_retention_days) WHERE id = $1";
        let done = sqlx::query(update)
            .bind(id)
            .bind(name)
            .bind(audit_retention_days)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    /// Makes changes to an organization's members wait for each other: until `tx` ends, nobody else
    /// holds this. Several are taken in the order of their ids.
    pub(super) async fn lock_org(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        // A transaction on SQLite is alone from its beginning.
        if self.dialect() == Dialect::Postgres {
            sqlx::query("SELECT 1 FROM organizations WHERE id = $1 FOR NO KEY UPDATE")
                .bind(id)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
}

impl Store {
    /// Marks a thing that happens once in an installation's life; `true` for whoever is first.
    pub async fn claim_setting(&self, tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
        let insert = self.sql(
            "INSERT INTO settings (name, value, updated_at) VALUES ($1, '', {now}) \
             ON CONFLICT (name) DO NOTHING",
        );
        Ok(sqlx::query(insert)
            .bind(name)
            .execute(&mut **tx)
            .await?
            .rows_affected()
            == 1)
    }
}
