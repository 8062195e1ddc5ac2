//! People who have registered: each is a member of exactly one organization.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::roles::read_permissions;
use super::{Store, StoreError, Tx};
use crate::auth::{Permissions, role};

/// One person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Stable id.
    pub id: String,
    /// Who vouches for them.
    pub issuer: String,
    /// Their id there.
    pub subject: String,
    /// Name, unique on this server.
    pub name: String,
    /// E-mail address, or empty.
    pub email: String,
    /// Given name, or empty.
    pub given_name: String,
    /// Family name, or empty.
    pub family_name: String,
    /// Company, or empty.
    pub company: String,
    /// Their organization.
    pub org_id: String,
    /// Name of their role.
    pub role: String,
    /// When they registered, epoch milliseconds.
    pub created_at: i64,
}

impl UserRow {
    /// How logs and lists name them: by e-mail if there is one.
    pub fn display(&self) -> &str {
        match self.email.as_str() {
            "" => &self.name,
            email => email,
        }
    }
}

/// A person to be stored.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    /// Who vouches for them.
    pub issuer: &'a str,
    /// Their id there.
    pub subject: &'a str,
    /// Name, unique on this server.
    pub name: &'a str,
    /// E-mail address, or empty.
    pub email: &'a str,
    /// Given name, or empty.
    pub given_name: &'a str,
    /// Family name, or empty.
    pub family_name: &'a str,
    /// Company, or empty.
    pub company: &'a str,
}

pub(super) const COLUMNS: &str = "SELECT users.id, issuer, subject, users.name, email, given_name, family_name, \
     company, users.org_id, role, users.created_at, roles.permissions FROM users \
     LEFT JOIN roles ON roles.org_id = users.org_id AND roles.name = users.role";

/// A row of [`COLUMNS`]: a person, and what their role lets them do.
pub(super) fn read(row: &AnyRow) -> Result<(UserRow, Permissions), StoreError> {
    let user = UserRow {
        id: row.try_get("id")?,
        issuer: row.try_get("issuer")?,
        subject: row.try_get("subject")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        given_name: row.try_get("given_name")?,
        family_name: row.try_get("family_name")?,
        company: row.try_get("company")?,
        org_id: row.try_get("org_id")?,
        role: row.try_get("role")?,
        created_at: row.try_get("created_at")?,
    };
    let own: Option<String> = row.try_get("permissions")?;
    let permissions = match (role::built_in(&user.role), own) {
        (Some(permissions), _) => permissions,
        (None, Some(text)) => read_permissions(&text)?,
        (None, None) => Permissions::default(),
    };
    Ok((user, permissions))
}

impl Store {
    /// The account of a person, and what their role lets them do.
    pub async fn user_by_identity(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<(UserRow, Permissions)>, StoreError> {
        let _timer = self.timer("user_by_identity");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE issuer = $1 AND subject = $2"));
        let row = sqlx::query(query)
            .bind(issuer)
            .bind(subject)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The members of an organization by name, and what their roles let them do.
    pub async fn members(&self, org_id: &str) -> Result<Vec<(UserRow, Permissions)>, StoreError> {
        let _timer = self.timer("members");
        let query = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE users.org_id = $1 ORDER BY users.name"
        ));
        let rows = sqlx::query(query)
            .bind(org_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Stores a person as a member of an organization and returns their id. [`StoreError::Taken`] if
    /// they or their name are registered already.
    pub(super) async fn insert_user(
        &self,
        tx: &mut Tx,
        user: &NewUser<'_>,
        org_id: &str,
        role: &str,
    ) -> Result<String, StoreError> {
        let id = Uuid::new_v4().to_string();
        let insert = self.sql(
            "INSERT INTO users (id, issuer, subject, name, email, given_name, family_name, company, org_id, role, \
               created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, {now})",
        );
        sqlx::query(insert)
            .bind(&id)
            .bind(user.issuer)
            .bind(user.subject)
            .bind(user.name)
            .bind(user.email)
            .bind(user.given_name)
            .bind(user.family_name)
            .bind(user.company)
            .bind(org_id)
            .bind(role)
            .execute(&mut **tx)
            .await?;
        Ok(id)
    }

    /// Notes the address that the issuer now gives for a person.
    pub async fn set_user_email(&self, id: &str, email: &str) -> Result<(), StoreError> {
        let _timer = self.timer("set_user_email");
        sqlx::query("UPDATE users SET email = $2 WHERE id = $1")
            .bind(id)
            .bind(email)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
