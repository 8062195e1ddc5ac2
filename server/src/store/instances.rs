//! Instances of the server: who is alive, and since when executors had a chance to be seen.

use super::{Dialect, Store, StoreError};

impl Store {
    /// Says that a new instance takes the place of those before it: what they claimed is free at once,
    /// instead of when their heartbeat expires.
    ///
    /// Those are the instances of the same address, where only one process can listen, and on SQLite all.
    /// One that is alive nevertheless (two that advertise the same address by mistake) finds out with its
    /// next heartbeat and writes itself down anew; then the newcomer gives way (see
    /// [`Store::replaced_is_alive`]). Claims are fenced by their generation.
    pub async fn replace_instances(&self, id: &str, address: &str) -> Result<(), StoreError> {
        let _timer = self.timer("replace_instances");
        let replaced = match self.dialect() {
            Dialect::Sqlite => {
                let all = "UPDATE instances SET stopped_at = {now}, replaced_by = $1 WHERE stopped_at IS NULL AND id <> $1";
                sqlx::query(self.sql(all))
                    .bind(id)
                    .execute(self.pool())
                    .await?
            }
            Dialect::Postgres => {
                let here = "UPDATE instances SET stopped_at = {now}, replaced_by = $1 \
                            WHERE stopped_at IS NULL AND id <> $1 AND address = $2";
                sqlx::query(self.sql(here))
                    .bind(id)
                    .bind(address)
                    .execute(self.pool())
                    .await?
            }
        };
        if replaced.rows_affected() > 0 {
            tracing::info!(
                address,
                "takes the place of an instance that did not say goodbye"
            );
        }
        Ok(())
    }

    /// Writes an instance down as serving from now on.
    pub async fn register_instance(&self, id: &str, address: &str) -> Result<(), StoreError> {
        let _timer = self.timer("register_instance");
        let insert = self.sql(
            "INSERT INTO instances (id, address, serving_since, heartbeat_at) VALUES ($1, $2, {now}, {now}) \
             ON CONFLICT (id) DO UPDATE SET serving_since = {now}, heartbeat_at = {now}, stopped_at = NULL",
        );
        sqlx::query(insert)
            .bind(id)
            .bind(address)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Says that an instance is alive; returns the database's clock. `None` if the instance is not
    /// in the books: others took it for dead.
    pub async fn beat(&self, id: &str) -> Result<Option<i64>, StoreError> {
        let _timer = self.timer("beat");
        let update = self.sql(
            "UPDATE instances SET heartbeat_at = {now} WHERE id = $1 AND stopped_at IS NULL \
             RETURNING heartbeat_at",
        );
        Ok(sqlx::query_scalar(update)
            .bind(id)
            .fetch_optional(self.pool())
            .await?)
    }

    /// Says that an instance stops in good order.
    pub async fn instance_stopped(&self, id: &str) -> Result<(), StoreError> {
        let update = self.sql("UPDATE instances SET stopped_at = {now} WHERE id = $1");
        sqlx::query(update).bind(id).execute(self.pool()).await?;
        Ok(())
    }

    /// Counts the executors of instances that are gone as lost since their instance was last heard
    /// of, and gives every lost one its full grace from the moment somebody served again. Returns how
    /// many were found lost.
    ///
    /// `expiry`: milliseconds of silence after which an instance is gone.
    pub async fn adopt_orphans(&self, expiry: i64) -> Result<u64, StoreError> {
        let _timer = self.timer("adopt_orphans");
        // Another instance may be writing some of them down as connected, several at a time. Whoever
        // locks several does it in the same order, or the two could wait for each other.
        let lost = self.sql(match self.dialect() {
            Dialect::Postgres => {
                "UPDATE executors SET state = 'DISCONNECTED', noticed_at = {now}, updated_at = {now}, \
                   unresponsive_since = NULL, generation = generation + 1, \
                   disconnected_at = COALESCE((SELECT heartbeat_at FROM instances WHERE id = executors.instance_id), {now}), \
                   grace_from = COALESCE((SELECT heartbeat_at FROM instances WHERE id = executors.instance_id), {now}) \
                 WHERE (app_id, executor_id, app_version) IN (SELECT app_id, executor_id, app_version FROM executors \
                   WHERE state = 'HEALTHY' AND instance_id IN (SELECT id FROM instances \
                     WHERE stopped_at IS NOT NULL OR heartbeat_at <= {now} - $1) \
                   ORDER BY executor_id, app_version, app_id FOR UPDATE)"
            }
            Dialect::Sqlite => {
                "UPDATE executors SET state = 'DISCONNECTED', noticed_at = {now}, updated_at = {now}, \
                   unresponsive_since = NULL, generation = generation + 1, \
                   disconnected_at = COALESCE((SELECT heartbeat_at FROM instances WHERE id = executors.instance_id), {now}), \
                   grace_from = COALESCE((SELECT heartbeat_at FROM instances WHERE id = executors.instance_id), {now}) \
                 WHERE state = 'HEALTHY' AND instance_id IN (SELECT id FROM instances \
                   WHERE stopped_at IS NOT NULL OR heartbeat_at <= {now} - $1)"
            }
        });
        let adopted = sqlx::query(lost)
            .bind(expiry)
            .execute(self.pool())
            .await?
            .rows_affected();
        // Time in which nobody served, or the database was away, counts for nobody.
        let forgive = self.sql(match self.dialect() {
            Dialect::Postgres => {
                "UPDATE executors SET grace_from = (SELECT MIN(serving_since) FROM instances \
                   WHERE stopped_at IS NULL AND heartbeat_at > {now} - $1) \
                 WHERE (app_id, executor_id, app_version) IN (SELECT app_id, executor_id, app_version FROM executors \
                   WHERE state = 'DISCONNECTED' AND grace_from < (SELECT MIN(serving_since) FROM instances \
                     WHERE stopped_at IS NULL AND heartbeat_at > {now} - $1) \
                   ORDER BY executor_id, app_version, app_id FOR UPDATE)"
            }
            Dialect::Sqlite => {
                "UPDATE executors SET grace_from = (SELECT MIN(serving_since) FROM instances \
                   WHERE stopped_at IS NULL AND heartbeat_at > {now} - $1) \
                 WHERE state = 'DISCONNECTED' AND grace_from < (SELECT MIN(serving_since) FROM instances \
                   WHERE stopped_at IS NULL AND heartbeat_at > {now} - $1)"
            }
        });
        sqlx::query(forgive)
            .bind(expiry)
            .execute(self.pool())
            .await?;
        Ok(adopted)
    }

    /// Forgets instances gone for a day, unless executors are still written down as theirs.
    pub async fn expire_instances(&self) -> Result<(), StoreError> {
        let delete = self.sql(
            "DELETE FROM instances WHERE heartbeat_at < {now} - 86400000 AND NOT EXISTS \
               (SELECT 1 FROM executors WHERE instance_id = instances.id AND state = 'HEALTHY')",
        );
        sqlx::query(delete).execute(self.pool()).await?;
        Ok(())
    }
}
