//! Stored metrics of applications: counts of an interval, and depths of queues at its end.

use sqlx::Row;

use super::{Store, StoreError};

/// How long they are kept, milliseconds.
const KEPT: i64 = 30 * 24 * 3600 * 1000;

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRow {
    /// `workflow_count`, `step_count`, `recovery_count` or `queue_depth`.
    pub metric_type: String,
    /// Name of the workflow, step or queue; of a recovery, the application version.
    pub metric_name: String,
    /// Start of the interval, epoch milliseconds.
    pub time_bucket: i64,
    /// Its length in seconds.
    pub granularity: i64,
    /// How many.
    pub value: i64,
}

impl Store {
    /// The metrics of an application whose interval began within `[from, to]`, oldest first.
    pub async fn app_metrics(
        &self,
        app_id: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<MetricRow>, StoreError> {
        let _timer = self.timer("app_metrics");
        let query = "SELECT metric_type, metric_name, time_bucket, granularity, value FROM app_metrics \
             WHERE app_id = $1 AND time_bucket >= $2 AND time_bucket <= $3 \
             ORDER BY time_bucket, metric_type, metric_name";
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(from)
            .bind(to)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(MetricRow {
                    metric_type: row.try_get("metric_type")?,
                    metric_name: row.try_get("metric_name")?,
                    time_bucket: row.try_get("time_bucket")?,
                    granularity: row.try_get("granularity")?,
                    value: row.try_get("value")?,
                })
            })
            .collect()
    }

    /// Writes the metrics of one interval, all or none. What is there already stays.
    pub async fn insert_app_metrics(
        &self,
        app_id: &str,
        rows: &[MetricRow],
    ) -> Result<(), StoreError> {
        let _timer = self.timer("insert_app_metrics");
        let mut tx = self.begin().await?;
        for row in rows {
            let insert = "INSERT INTO app_metrics \
                 (app_id, time_bucket, metric_type, metric_name, granularity, value) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (app_id, time_bucket, metric_type, metric_name) DO NOTHING";
            sqlx::query(insert)
                .bind(app_id)
                .bind(row.time_bucket)
                .bind(&row.metric_type)
                .bind(&row.metric_name)
                .bind(row.granularity)
                .bind(row.value)
                .execute(&mut *tx)
                .await?;
        }
        self.commit(tx).await
    }

    /// How many recoveries of an application ended well in `[from, to)`, by application version.
    pub async fn recovered_between(
        &self,
        app_id: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let _timer = self.timer("recovered_between");
        let query = "SELECT app_version, COUNT(*) AS recovered FROM recoveries \
             WHERE app_id = $1 AND status = 'RECOVERED' AND completed_at >= $2 AND completed_at < $3 \
             GROUP BY app_version";
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(from)
            .bind(to)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("app_version")?, row.try_get("recovered")?)))
            .collect()
    }

    /// Forgets what is older than 30 days.
    pub async fn expire_app_metrics(&self) -> Result<u64, StoreError> {
        let _timer = self.timer("expire_app_metrics");
        let delete = self.sql("DELETE FROM app_metrics WHERE time_bucket < {now} - $1");
        let done = sqlx::query(delete).bind(KEPT).execute(self.pool()).await?;
        Ok(done.rows_affected())
    }
}
