//! First answers of requests that carried an `Idempotency-Key`.

use super::{Store, StoreError};

/// How long a first answer is kept, and, shorter, how long a request may be running before it
/// counts as lost with its instance. Milliseconds.
const KEEP_MS: i64 = 24 * 3600 * 1000;
const RUNNING_MS: i64 = 10 * 60 * 1000;

/// What is known of an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Not seen before: the caller goes on, and then stores or releases.
    Fresh,
    /// Another request with this key is being served.
    Running,
    /// The key was used for another request.
    Different,
    /// The sealed first answer.
    Answered(String),
}

impl Store {
    /// Claims `id` (a hash of caller and key) for the request whose hash is given.
    pub async fn claim_idempotency(
        &self,
        id: &str,
        request_hash: &str,
    ) -> Result<Claim, StoreError> {
        let _timer = self.timer("claim_idempotency");
        let mut tx = self.begin().await?;
        let drop_old = self.sql(
            "DELETE FROM idempotency_keys WHERE id = $1 AND \
             (expires_at <= {now} OR (response IS NULL AND started_at <= {now} - $2))",
        );
        sqlx::query(drop_old)
            .bind(id)
            .bind(RUNNING_MS)
            .execute(&mut *tx)
            .await?;
        let insert = self.sql(
            "INSERT INTO idempotency_keys (id, request_hash, started_at, expires_at) \
             VALUES ($1, $2, {now}, {now} + $3) ON CONFLICT (id) DO NOTHING",
        );
        let inserted = sqlx::query(insert)
            .bind(id)
            .bind(request_hash)
            .bind(KEEP_MS)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        let claim = if inserted == 1 {
            Claim::Fresh
        } else {
            let (hash, response): (String, Option<String>) =
                sqlx::query_as("SELECT request_hash, response FROM idempotency_keys WHERE id = $1")
                    .bind(id)
                    .fetch_one(&mut *tx)
                    .await?;
            match response {
                _ if hash != request_hash => Claim::Different,
                None => Claim::Running,
                Some(sealed) => Claim::Answered(sealed),
            }
        };
        tx.commit().await?;
        Ok(claim)
    }

    /// Keeps the sealed first answer.
    pub async fn store_idempotent(&self, id: &str, sealed: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE idempotency_keys SET response = $2 WHERE id = $1")
            .bind(id)
            .bind(sealed)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Gives a key up, so that the request may be tried again.
    pub async fn release_idempotency(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM idempotency_keys WHERE id = $1")
            .bind(id)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Deletes keys past their time; returns how many.
    pub async fn expire_idempotency(&self) -> Result<u64, StoreError> {
        let delete = self.sql("DELETE FROM idempotency_keys WHERE expires_at <= {now}");
        Ok(sqlx::query(delete)
            .execute(self.pool())
            .await?
            .rows_affected())
    }
}
