//! What channels are to be told, who is at it, and how every try went.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError};

/// Attempts kept of each channel, the newest.
const ATTEMPTS_KEPT: i64 = 500;

/// Something to be told, claimed by this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Its id, the same for every attempt.
    pub id: String,
    /// Whom to tell.
    pub channel_id: String,
    /// Of what.
    pub alert_id: String,
    /// `firing` or `resolved`.
    pub event: String,
    /// Everything there is to tell, JSON.
    pub notice: String,
    /// Requests before this one.
    pub attempts: i64,
    /// How long ago it was put down, milliseconds.
    pub age: i64,
}

/// One request to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Its id.
    pub id: String,
    /// What was to be delivered.
    pub delivery_id: String,
    /// The alert; none in a test.
    pub alert_id: Option<String>,
    /// `firing`, `resolved` or `test`.
    pub event: String,
    /// When, epoch milliseconds.
    pub at: i64,
    /// Whether it did.
    pub delivered: bool,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<i64>,
    /// How long it took, milliseconds.
    pub latency_ms: i64,
    /// What went wrong.
    pub error: Option<String>,
}

/// What comes after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was delivered.
    Delivered,
    /// Nothing: it never will be.
    Failed,
    /// Another attempt, in so many milliseconds.
    Again(i64),
}

fn read(row: &AnyRow) -> Result<DeliveryRow, StoreError> {
    Ok(DeliveryRow {
        id: row.try_get("id")?,
        channel_id: row.try_get("channel_id")?,
        alert_id: row.try_get("alert_id")?,
        event: row.try_get("event")?,
        notice: row.try_get("notice")?,
        attempts: row.try_get("attempts")?,
        age: row.try_get("age")?,
    })
}

impl Store {
    /// Claims what is due: of each channel one at a time, and of each alert in order. It is the
    /// caller's for `lease` milliseconds.
    pub async fn claim_deliveries(
        &self,
        holder: &str,
        lease: i64,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>, StoreError> {
        let _timer = self.timer("claim_deliveries");
        // Whoever loses a race for a row finds the outer conditions false when it gets the lock.
        let claim = self.sql(
            "UPDATE alert_deliveries SET claim_instance = $1, claim_until = {now} + $2 \
             WHERE id IN (SELECT id FROM ( \
                 SELECT d.id, ROW_NUMBER() OVER (PARTITION BY d.channel_id ORDER BY d.created_at, d.id) AS place \
                 FROM alert_deliveries d WHERE d.state = 'PENDING' AND d.next_at <= {now} \
                   AND NOT EXISTS (SELECT 1 FROM alert_deliveries busy WHERE busy.channel_id = d.channel_id \
                     AND busy.state = 'PENDING' AND busy.claim_until > {now}) \
                   AND NOT EXISTS (SELECT 1 FROM alert_deliveries older WHERE older.channel_id = d.channel_id \
                     AND older.state = 'PENDING' AND older.alert_id = d.alert_id \
                     AND older.created_at < d.created_at) \
               ) due WHERE place = 1 ORDER BY id LIMIT $3) \
               AND state = 'PENDING' AND COALESCE(claim_until, 0) <= {now} \
             RETURNING id, channel_id, alert_id, event, notice, attempts, {now} - created_at AS age",
        );
        let rows = sqlx::query(claim)
            .bind(holder)
            .bind(lease)
            .bind(limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Gives a claimed delivery back, untried, for later; in milliseconds from now.
    pub async fn postpone_delivery(
        &self,
        id: &str,
        holder: &str,
        later: i64,
    ) -> Result<(), StoreError> {
        let _timer = self.timer("postpone_delivery");
        let update = self.sql(
            "UPDATE alert_deliveries SET next_at = {now} + $3, claim_instance = NULL, claim_until = NULL \
             WHERE id = $1 AND claim_instance = $2 AND state = 'PENDING'",
        );
        sqlx::query(update)
            .bind(id)
            .bind(holder)
            .bind(later)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Writes down what came of an attempt, if the claim still stands.
    pub async fn delivery_tried(
        &self,
        id: &str,
        holder: &str,
        next: Next,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let _timer = self.timer("delivery_tried");
        let (state, later) = match next {
            Next::Delivered => ("DELIVERED", None),
            Next::Failed => ("FAILED", None),
            Next::Again(later) => ("PENDING", Some(later)),
        };
        let update = self.sql(
            "UPDATE alert_deliveries SET state = $3, attempts = attempts + 1, error = $5, \
               next_at = {now} + COALESCE(CAST($4 AS BIGINT), 0), \
               ended_at = CASE WHEN CAST($4 AS BIGINT) IS NULL THEN {now} END, \
               claim_instance = NULL, claim_until = NULL \
             WHERE id = $1 AND claim_instance = $2 AND state = 'PENDING'",
        );
        sqlx::query(update)
            .bind(id)
            .bind(holder)
            .bind(state)
            .bind(later)
            .bind(error)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// How many deliveries wait.
    pub async fn pending_deliveries(&self) -> Result<i64, StoreError> {
        let query = "SELECT COUNT(*) FROM alert_deliveries WHERE state = 'PENDING'";
        Ok(sqlx::query_scalar(query).fetch_one(self.pool()).await?)
    }

    /// Logs a request to a channel; its id and time are made here.
    pub async fn insert_attempt(
        &self,
        channel_id: &str,
        attempt: &AttemptRow,
    ) -> Result<(), StoreError> {
        let _timer = self.timer("insert_attempt");
        let insert = self.sql(
            "INSERT INTO alert_attempts \
               (id, channel_id, delivery_id, alert_id, event, at, delivered, status, latency_ms, error) \
             VALUES ($1, $2, $3, $4, $5, {now}, $6, $7, $8, $9)",
        );
        sqlx::query(insert)
            .bind(Uuid::now_v7().to_string())
            .bind(channel_id)
            .bind(&attempt.delivery_id)
            .bind(&attempt.alert_id)
            .bind(&attempt.event)
            .bind(i64::from(attempt.delivered))
            .bind(attempt.status)
            .bind(attempt.latency_ms)
            .bind(&attempt.error)
            .execute(self.pool())
            .await?;
        let trim = "DELETE FROM alert_attempts WHERE channel_id = $1 AND id IN ( \
               SELECT id FROM alert_attempts WHERE channel_id = $1 ORDER BY at DESC, id DESC \
               LIMIT 1000 OFFSET $2)";
        sqlx::query(trim)
            .bind(channel_id)
            .bind(ATTEMPTS_KEPT)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// The last requests to a channel, the newest first.
    pub async fn attempts(
        &self,
        channel_id: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let _timer = self.timer("attempts");
        let query = "SELECT id, delivery_id, alert_id, event, at, delivered, status, latency_ms, error \
             FROM alert_attempts WHERE channel_id = $1 ORDER BY at DESC, id DESC LIMIT $2 OFFSET $3";
        let rows = sqlx::query(query)
            .bind(channel_id)
            .bind(limit)
            .bind(offset)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AttemptRow {
                    id: row.try_get("id")?,
                    delivery_id: row.try_get("delivery_id")?,
                    alert_id: row.try_get("alert_id")?,
                    event: row.try_get("event")?,
                    at: row.try_get("at")?,
                    delivered: row.try_get::<i64, _>("delivered")? == 1,
                    status: row.try_get("status")?,
                    latency_ms: row.try_get("latency_ms")?,
                    error: row.try_get("error")?,
                })
            })
            .collect()
    }
}
