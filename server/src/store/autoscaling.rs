//! Autoscaling policies: at most one an application.

use sqlx::Row;

use super::{Store, StoreError, Tx};

/// A stored policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalingPolicyRow {
    /// The queue whose depth decides.
    pub queue_name: String,
    /// What it says about old application versions, a JSON object.
    pub rollout: Option<String>,
}

impl Store {
    /// The policy of an application.
    pub async fn autoscaling_policy(
        &self,
        app_id: &str,
    ) -> Result<Option<AutoscalingPolicyRow>, StoreError> {
        let _timer = self.timer("autoscaling_policy");
        let query = "SELECT queue_name, rollout FROM autoscaling_policies WHERE app_id = $1";
        let row = sqlx::query(query)
            .bind(app_id)
            .fetch_optional(self.pool())
            .await?;
        row.map(|row| {
            Ok(AutoscalingPolicyRow {
                queue_name: row.try_get("queue_name")?,
                rollout: row.try_get("rollout")?,
            })
        })
        .transpose()
    }

    /// Sets the policy of an application, in the place of an earlier one.
    pub async fn set_autoscaling_policy(
        &self,
        tx: &mut Tx,
        app_id: &str,
        policy: &AutoscalingPolicyRow,
    ) -> Result<(), StoreError> {
        let upsert = self.sql(
            "INSERT INTO autoscaling_policies (app_id, queue_name, rollout, updated_at) \
             VALUES ($1, $2, $3, {now}) \
             ON CONFLICT (app_id) DO UPDATE SET queue_name = $2, rollout = $3, updated_at = {now}",
        );
        sqlx::query(upsert)
            .bind(app_id)
            .bind(&policy.queue_name)
            .bind(policy.rollout.as_deref())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Removes the policy of an application, if there is one.
    pub async fn delete_autoscaling_policy(
        &self,
        tx: &mut Tx,
        app_id: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM autoscaling_policies WHERE app_id = $1")
            .bind(app_id)
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}
