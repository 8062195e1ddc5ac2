//! Roles that an organization has made for itself. The two built-in ones are in
//! [`crate::auth::role`].

use sqlx::Row;

use super::members::MemberError;
use super::{Store, StoreError, Tx};
use crate::auth::{Permission, Permissions};

/// One role of an organization's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    /// Name, unique in the organization.
    pub name: String,
    /// What its holders may do.
    pub permissions: Permissions,
}

/// Permissions as they are stored: a JSON array of names.
pub(super) fn read_permissions(text: &str) -> Result<Permissions, StoreError> {
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| StoreError::Unreadable {
        table: "roles",
        column: "permissions",
    })?;
    // A name that this version does not know grants nothing.
    Ok(names
        .iter()
        .filter_map(|name| Permission::parse(name))
        .collect())
}

impl Store {
    /// An organization's own roles by name.
    pub async fn roles(&self, org_id: &str) -> Result<Vec<RoleRow>, StoreError> {
        let _timer = self.timer("roles");
        let rows =
            sqlx::query("SELECT name, permissions FROM roles WHERE org_id = $1 ORDER BY name")
                .bind(org_id)
                .fetch_all(self.pool())
                .await?;
        rows.iter()
            .map(|row| {
                Ok(RoleRow {
                    name: row.try_get("name")?,
                    permissions: read_permissions(row.try_get("permissions")?)?,
                })
            })
            .collect()
    }

    /// Stores a role. [`StoreError::Taken`] if the organization has one of that name.
    pub async fn insert_role(
        &self,
        tx: &mut Tx,
        org_id: &str,
        role: &RoleRow,
    ) -> Result<(), StoreError> {
        let names: Vec<&str> = role.permissions.iter().map(Permission::name).collect();
        let insert = self.sql(
            "INSERT INTO roles (org_id, name, permissions, created_at) VALUES ($1, $2, $3, {now})",
        );
        sqlx::query(insert)
            .bind(org_id)
            .bind(&role.name)
            .bind(serde_json::Value::from(names).to_string())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Deletes a role that no member holds. [`MemberError::RoleInUse`] if one does.
    pub async fn delete_role(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
    ) -> Result<(), MemberError> {
        self.lock_org(tx, org_id).await?;
        let holders: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE org_id = $1 AND role = $2")
                .bind(org_id)
                .bind(name)
                .fetch_one(&mut **tx)
                .await
                .map_err(StoreError::from)?;
        if holders > 0 {
            return Err(MemberError::RoleInUse { holders });
        }
        let done = sqlx::query("DELETE FROM roles WHERE org_id = $1 AND name = $2")
            .bind(org_id)
            .bind(name)
            .execute(&mut **tx)
            .await
            .map_err(StoreError::from)?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound.into()),
            _ => Ok(()),
        }
    }

    /// The permissions of an organization's own role, as seen by a transaction.
    pub(super) async fn role_in(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
    ) -> Result<Option<Permissions>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT permissions FROM roles WHERE org_id = $1 AND name = $2")
                .bind(org_id)
                .bind(name)
                .fetch_optional(&mut **tx)
                .await?;
        text.as_deref().map(read_permissions).transpose()
    }
}
