//! Rounds of periodic work on an application: whose turn it is, and how far the last one came.

use sqlx::Row;

use super::{Store, StoreError};

/// A round that this instance may do until its lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// How far the last round that succeeded came, epoch milliseconds; none before the first.
    pub done_until: Option<i64>,
    /// The store's clock, epoch milliseconds.
    pub now: i64,
}

impl Store {
    /// Takes the round of `job` on an application if it is due and nobody else has it. The next one
    /// is due `every` from now; the round is the caller's until it is done, at most for `lease`. Both
    /// in milliseconds. `None`: not now, or the application is gone.
    pub async fn claim_round(
        &self,
        app_id: &str,
        job: &'static str,
        holder: &str,
        every: i64,
        lease: i64,
    ) -> Result<Option<Round>, StoreError> {
        let _timer = self.timer("claim_round");
        let claim = self.sql(
            "INSERT INTO policy_rounds (app_id, job, holder, lease_until, due_at) \
             VALUES ($1, $2, $3, {now} + $5, {now} + $4) \
             ON CONFLICT (app_id, job) DO UPDATE SET \
               holder = $3, lease_until = {now} + $5, due_at = {now} + $4 \
             WHERE policy_rounds.lease_until <= {now} AND policy_rounds.due_at <= {now} \
             RETURNING done_until, lease_until - $5 AS began_at",
        );
        let claimed = sqlx::query(claim)
            .bind(app_id)
            .bind(job)
            .bind(holder)
            .bind(every)
            .bind(lease)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::from);
        match claimed {
            Ok(Some(row)) => Ok(Some(Round {
                done_until: row.try_get("done_until")?,
                now: row.try_get("began_at")?,
            })),
            Ok(None) | Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a round back. `done_until`: how far it came; `None` if it failed, or it does not matter.
    pub async fn end_round(
        &self,
        app_id: &str,
        job: &'static str,
        holder: &str,
        done_until: Option<i64>,
    ) -> Result<(), StoreError> {
        let _timer = self.timer("end_round");
        let update = self.sql(
            "UPDATE policy_rounds SET holder = NULL, lease_until = {now}, \
               done_until = COALESCE($4, done_until) \
             WHERE app_id = $1 AND job = $2 AND holder = $3",
        );
        sqlx::query(update)
            .bind(app_id)
            .bind(job)
            .bind(holder)
            .bind(done_until)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
