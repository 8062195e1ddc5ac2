//! Who belongs to which organization: joining, leaving, changing roles. Changes to one organization's
//! members wait for each other, so that two of them together cannot take its last administrator.

use super::users::{NewUser, UserRow};
use super::{Store, StoreError, Tx, users};
use crate::auth::{Permissions, role};

/// Why a membership stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The organization would be left without an administrator.
    #[error(
        "the last administrator of an organization can neither be removed nor demoted, nor leave it to others"
    )]
    LastAdmin,
    /// The secret is unknown, was used, has expired or is another organization's.
    #[error("the join secret is unknown, was used already, or has expired: ask for a new one")]
    BadSecret,
    /// There is no member of that name.
    #[error("the organization has no such member")]
    NoMember,
    /// There is no role of that name.
    #[error("the organization has no such role")]
    NoRole,
    /// The role holds a permission that whoever grants it lacks.
    #[error("the role holds permissions that you lack")]
    RoleTooHigh,
    /// Members hold the role.
    #[error("{holders} members hold this role: give them another one first")]
    RoleInUse {
        /// How many.
        holders: i64,
    },
    /// The person's membership was changed by someone else just now.
    #[error("the membership changed just now; try again")]
    Changed,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for MemberError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// How a new person comes into an organization.
#[derive(Clone, Debug)]
pub enum Door<'a> {
    /// With a join secret, given by its hash.
    Secret(&'a str),
    /// By the domain (lower case) of their verified e-mail address if it is claimed; else as the
    /// founder of an organization of this name.
    Domain(Option<&'a str>, &'a str),
}

/// Where somebody has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Id of the user.
    pub user_id: String,
    /// Id of the organization.
    pub org_id: String,
}

impl Store {
    /// Registers a person. [`StoreError::Taken`] if they or the name are registered already.
    pub async fn register(
        &self,
        tx: &mut Tx,
        user: &NewUser<'_>,
        door: &Door<'_>,
    ) -> Result<Joined, MemberError> {
        let (org_id, role) = match door {
            Door::Secret(hash) => {
                let org = self.use_secret(tx, hash, None).await?;
                (org, role::MEMBER)
            }
            Door::Domain(domain, name) => match self.claimant(tx, user, *domain).await? {
                Some(org) => (org, role::MEMBER),
                None => (self.insert_org(tx, name).await?, role::ADMIN),
            },
        };
        self.lock_org(tx, &org_id).await?;
        let user_id = self.insert_user(tx, user, &org_id, role).await?;
        Ok(Joined { user_id, org_id })
    }

    /// The organization that claims `domain`, unless it has removed this person.
    async fn claimant(
        &self,
        tx: &mut Tx,
        user: &NewUser<'_>,
        domain: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let Some(domain) = domain else {
            return Ok(None);
        };
        let org = sqlx::query_scalar(
            "SELECT org_id FROM domain_claims WHERE domain = $1 AND NOT EXISTS (\
               SELECT 1 FROM removed_members WHERE removed_members.org_id = domain_claims.org_id \
               AND issuer = $2 AND subject = $3)",
        )
        .bind(domain)
        .bind(user.issuer)
        .bind(user.subject)
        .fetch_optional(&mut **tx)
        .await?;
        Ok(org)
    }

    /// Moves a person from the organization they are seen in to the one whose secret they hold.
    pub async fn join(
        &self,
        tx: &mut Tx,
        user: &UserRow,
        org_id: &str,
        secret_hash: &str,
    ) -> Result<(), MemberError> {
        let mut both = [user.org_id.as_str(), org_id];
        both.sort_unstable();
        for org in both {
            self.lock_org(tx, org).await?;
        }
        let now = self.member(tx, &user.org_id, &user.name).await;
        let now = now.map_err(|error| match error {
            MemberError::NoMember => MemberError::Changed,
            other => other,
        })?;
        if now.role == role::ADMIN
            && self.admins(tx, &user.org_id).await? == 1
            && self.count(tx, &user.org_id).await? > 1
        {
            return Err(MemberError::LastAdmin);
        }
        self.use_secret(tx, secret_hash, Some(org_id)).await?;
        sqlx::query("UPDATE users SET org_id = $2, role = $3 WHERE id = $1")
            .bind(&user.id)
            .bind(org_id)
            .bind(role::MEMBER)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Ends a membership, and with it the person's account here.
    pub async fn remove_member(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
    ) -> Result<UserRow, MemberError> {
        self.lock_org(tx, org_id).await?;
        let member = self.member(tx, org_id, name).await?;
        self.spare_last_admin(tx, &member).await?;
        sqlx::query("DELETE FROM users WHERE id = $1")
            .bind(&member.id)
            .execute(&mut **tx)
            .await?;
        let insert = self.sql(
            "INSERT INTO removed_members (org_id, issuer, subject, removed_at) VALUES ($1, $2, $3, {now}) \
             ON CONFLICT (org_id, issuer, subject) DO NOTHING",
        );
        sqlx::query(insert)
            .bind(org_id)
            .bind(&member.issuer)
            .bind(&member.subject)
            .execute(&mut **tx)
            .await?;
        Ok(member)
    }

    /// Gives a member another role, of which `giver` must hold every permission.
    pub async fn grant_role(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
        new: &str,
        giver: Permissions,
    ) -> Result<(), MemberError> {
        self.lock_org(tx, org_id).await?;
        let member = self.member(tx, org_id, name).await?;
        let permissions = match role::built_in(new) {
            Some(permissions) => permissions,
            None => self
                .role_in(tx, org_id, new)
                .await?
                .ok_or(MemberError::NoRole)?,
        };
        if !giver.includes(permissions) {
            return Err(MemberError::RoleTooHigh);
        }
        if new != role::ADMIN {
            self.spare_last_admin(tx, &member).await?;
        }
        sqlx::query("UPDATE users SET role = $2 WHERE id = $1")
            .bind(&member.id)
            .bind(new)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    async fn spare_last_admin(&self, tx: &mut Tx, member: &UserRow) -> Result<(), MemberError> {
        if member.role == role::ADMIN && self.admins(tx, &member.org_id).await? == 1 {
            return Err(MemberError::LastAdmin);
        }
        Ok(())
    }

    async fn member(&self, tx: &mut Tx, org_id: &str, name: &str) -> Result<UserRow, MemberError> {
        let query = sqlx::AssertSqlSafe(format!(
            "{} WHERE users.org_id = $1 AND users.name = $2",
            users::COLUMNS
        ));
        let row = sqlx::query(query)
            .bind(org_id)
            .bind(name)
            .fetch_optional(&mut **tx)
            .await?
            .ok_or(MemberError::NoMember)?;
        Ok(users::read(&row)?.0)
    }

    async fn admins(&self, tx: &mut Tx, org_id: &str) -> Result<i64, StoreError> {
        let count = "SELECT COUNT(*) FROM users WHERE org_id = $1 AND role = $2";
        Ok(sqlx::query_scalar(count)
            .bind(org_id)
            .bind(role::ADMIN)
            .fetch_one(&mut **tx)
            .await?)
    }

    async fn count(&self, tx: &mut Tx, org_id: &str) -> Result<i64, StoreError> {
        let count = "SELECT COUNT(*) FROM users WHERE org_id = $1";
        Ok(sqlx::query_scalar(count)
            .bind(org_id)
            .fetch_one(&mut **tx)
            .await?)
    }

    /// Uses a join secret up; its organization. With `org_id`, only one of that organization.
    async fn use_secret(
        &self,
        tx: &mut Tx,
        hash: &str,
        org_id: Option<&str>,
    ) -> Result<String, MemberError> {
        let delete = self.sql(
            "DELETE FROM join_secrets WHERE secret_hash = $1 AND expires_at > {now} \
             AND (CAST($2 AS TEXT) IS NULL OR org_id = $2) RETURNING org_id",
        );
        let org: Option<String> = sqlx::query_scalar(delete)
            .bind(hash)
            .bind(org_id)
            .fetch_optional(&mut **tx)
            .await?;
        org.ok_or(MemberError::BadSecret)
    }

    /// Stores a join secret, by its hash, for `lifetime_ms` milliseconds.
    pub async fn insert_secret(
        &self,
        tx: &mut Tx,
        org_id: &str,
        hash: &str,
        lifetime_ms: i64,
    ) -> Result<(), StoreError> {
        let expired = self.sql("DELETE FROM join_secrets WHERE expires_at <= {now}");
        sqlx::query(expired).execute(&mut **tx).await?;
        let insert = self.sql(
            "INSERT INTO join_secrets (secret_hash, org_id, created_at, expires_at) \
             VALUES ($1, $2, {now}, {now} + $3)",
        );
        sqlx::query(insert)
            .bind(hash)
            .bind(org_id)
            .bind(lifetime_ms)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}
