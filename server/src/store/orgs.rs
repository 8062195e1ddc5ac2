//! Organizations. Without OIDC there is exactly one, `local`.

use uuid::Uuid;

use super::{Store, StoreError};

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
        let (id, name, audit_retention_days) = sqlx::query_as(
            "SELECT id, name, audit_retention_days FROM organizations WHERE name = $1",
        )
        .bind(LOCAL)
        .fetch_one(self.pool())
        .await?;
        Ok(OrgRow {
            id,
            name,
            audit_retention_days,
        })
    }
}

impl Store {
    /// Marks a thing that happens once in an installation's life; `true` for whoever is first.
    pub async fn claim_setting(&self, tx: &mut super::Tx, name: &str) -> Result<bool, StoreError> {
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
