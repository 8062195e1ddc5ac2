//! First answers of requests that carried an `Idempotency-Key`.

use super::{Store, StoreError, Tx};

/// How long a first answer is kept, and, shorter, how long a request may be running before it counts
/// as lost, also where its instance lives. Milliseconds.
const KEEP_MS: i64 = 24 * 3600 * 1000;
const RUNNING_MS: i64 = 10 * 60 * 1000;

/// What is known of an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Not seen before: the caller goes on, and then stores or releases.
    Fresh,
    /// The instance that served the request is gone; nobody knows whether it did what was asked. The
    /// caller goes on as with [`Claim::Fresh`], but must not do twice what may be done only once.
    CutOff,
    /// Another request with this key is being served.
    Running,
    /// The key was used for another request.
    Different,
    /// The sealed first answer.
    Answered(String),
}

impl Store {
    /// Claims `id` (a hash of caller and key) for the request whose hash is given, which `instance_id`
    /// serves. `expiry`: milliseconds of silence after which an instance is gone.
    pub async fn claim_idempotency(
        &self,
        id: &str,
        request_hash: &str,
        instance_id: &str,
        expiry: i64,
    ) -> Result<Claim, StoreError> {
        let _timer = self.timer("claim_idempotency");
        let mut tx = self.begin().await?;
        let drop_old =
            self.sql("DELETE FROM idempotency_keys WHERE id = $1 AND expires_at <= {now}");
        sqlx::query(drop_old).bind(id).execute(&mut *tx).await?;
        let claim = loop {
            if self
                .insert_idempotency(&mut tx, id, request_hash, instance_id)
                .await?
            {
                break Claim::Fresh;
            }
            if self
                .take_over_idempotency(&mut tx, id, request_hash, instance_id, expiry)
                .await?
            {
                break Claim::CutOff;
            }
            let known: Option<(String, Option<String>)> =
                sqlx::query_as("SELECT request_hash, response FROM idempotency_keys WHERE id = $1")
                    .bind(id)
                    .fetch_optional(&mut *tx)
                    .await?;
            match known {
                Some((hash, _)) if hash != request_hash => break Claim::Different,
                Some((_, Some(sealed))) => break Claim::Answered(sealed),
                Some((_, None)) => break Claim::Running,
                // Whoever had it gave it up just now.
                None => {}
            }
        };
        tx.commit().await?;
        Ok(claim)
    }

    /// Whether the key was free, and is the caller's now.
    async fn insert_idempotency(
        &self,
        tx: &mut Tx,
        id: &str,
        request_hash: &str,
        instance_id: &str,
    ) -> Result<bool, StoreError> {
        let insert = self.sql(
            "INSERT INTO idempotency_keys (id, request_hash, started_at, expires_at, instance_id) \
             VALUES ($1, $2, {now}, {now} + $3, $4) ON CONFLICT (id) DO NOTHING",
        );
        let done = sqlx::query(insert)
            .bind(id)
            .bind(request_hash)
            .bind(KEEP_MS)
            .bind(instance_id)
            .execute(&mut **tx)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes over a request that has no answer and whose instance is gone. One at a time: whoever is
    /// faster is the instance that serves it from now on.
    async fn take_over_idempotency(
        &self,
        tx: &mut Tx,
        id: &str,
        request_hash: &str,
        instance_id: &str,
        expiry: i64,
    ) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE idempotency_keys SET instance_id = $3, started_at = {now} \
             WHERE id = $1 AND request_hash = $2 AND response IS NULL \
               AND (started_at <= {now} - $5 OR NOT EXISTS (SELECT 1 FROM instances \
                 WHERE id = idempotency_keys.instance_id AND stopped_at IS NULL AND heartbeat_at > {now} - $4))",
        );
        let done = sqlx::query(update)
            .bind(id)
            .bind(request_hash)
            .bind(instance_id)
            .bind(expiry)
            .bind(RUNNING_MS)
            .execute(&mut **tx)
            .await?;
        Ok(done.rows_affected() == 1)
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

    /// Ends a request without an answer, as if its instance were gone: a repeat is told that what was asked for
    /// may be done.
    pub async fn cut_off_idempotency(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE idempotency_keys SET instance_id = '' WHERE id = $1")
            .bind(id)
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
