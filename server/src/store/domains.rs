//! E-mail domains whose people join an organization when they register.

use sqlx::Row;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRow {
    /// Stable id.
    pub id: String,
    /// The domain, lower case.
    pub domain: String,
    /// Who claimed it, as the audit log names them.
    pub requested_by: String,
    /// When, epoch milliseconds.
    pub requested_at: i64,
}

impl Store {
    /// An organization's claims by domain.
    pub async fn domain_claims(&self, org_id: &str) -> Result<Vec<ClaimRow>, StoreError> {
        let _timer = self.timer("domain_claims");
        let rows = sqlx::query(
            "SELECT id, domain, requested_by, requested_at FROM domain_claims \
             WHERE org_id = $1 ORDER BY domain",
        )
        .bind(org_id)
        .fetch_all(self.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ClaimRow {
                    id: row.try_get("id")?,
                    domain: row.try_get("domain")?,
                    requested_by: row.try_get("requested_by")?,
                    requested_at: row.try_get("requested_at")?,
                })
            })
            .collect()
    }

    /// Claims a domain (lower case). [`StoreError::Taken`] if it is claimed, by whomever.
    pub async fn insert_domain_claim(
        &self,
        tx: &mut Tx,
        org_id: &str,
        domain: &str,
        requested_by: &str,
    ) -> Result<ClaimRow, StoreError> {
        let id = Uuid::new_v4().to_string();
        let insert = self.sql(
            "INSERT INTO domain_claims (id, org_id, domain, requested_by, requested_at) \
             VALUES ($1, $2, $3, $4, {now}) RETURNING requested_at",
        );
        let requested_at = sqlx::query_scalar(insert)
            .bind(&id)
            .bind(org_id)
            .bind(domain)
            .bind(requested_by)
            .fetch_one(&mut **tx)
            .await?;
        Ok(ClaimRow {
            id,
            domain: domain.to_owned(),
            requested_by: requested_by.to_owned(),
            requested_at,
        })
    }

    /// Gives a domain up. [`StoreError::NotFound`] if the organization has not claimed it.
    pub async fn delete_domain_claim(
        &self,
        tx: &mut Tx,
        org_id: &str,
        domain: &str,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM domain_claims WHERE org_id = $1 AND domain = $2")
            .bind(org_id)
            .bind(domain)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }
}
