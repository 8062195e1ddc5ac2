//! Alerting rules.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// A stored rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingRuleRow {
    /// Its id.
    pub id: String,
    /// The application it watches.
    pub app_id: String,
    /// The application that is told.
    pub receiving_app_id: String,
    /// Its type.
    pub rule_type: String,
    /// Its condition, a JSON object.
    pub metadata: String,
    /// Seconds between two alerts, if it says so.
    pub min_interval_secs: Option<i64>,
    /// When its handler was last told, epoch milliseconds.
    pub last_fired_at: Option<i64>,
    /// When its channels were last told, epoch milliseconds.
    pub told_at: Option<i64>,
}

/// A rule to be stored.
#[derive(Clone, Debug)]
pub struct NewAlertingRule<'a> {
    /// See [`AlertingRuleRow::app_id`].
    pub app_id: &'a str,
    /// See [`AlertingRuleRow::receiving_app_id`].
    pub receiving_app_id: &'a str,
    /// See [`AlertingRuleRow::rule_type`].
    pub rule_type: &'a str,
    /// See [`AlertingRuleRow::metadata`].
    pub metadata: String,
    /// See [`AlertingRuleRow::min_interval_secs`].
    pub min_interval_secs: Option<i64>,
}

fn read(row: &AnyRow) -> Result<AlertingRuleRow, StoreError> {
    Ok(AlertingRuleRow {
        id: row.try_get("id")?,
        app_id: row.try_get("app_id")?,
        receiving_app_id: row.try_get("receiving_app_id")?,
        rule_type: row.try_get("rule_type")?,
        metadata: row.try_get("metadata")?,
        min_interval_secs: row.try_get("min_interval_secs")?,
        last_fired_at: row.try_get("last_fired_at")?,
        told_at: row.try_get("told_at")?,
    })
}

impl Store {
    /// The rules that watch an application, the oldest first.
    pub async fn alerting_rules(&self, app_id: &str) -> Result<Vec<AlertingRuleRow>, StoreError> {
        let _timer = self.timer("alerting_rules");
        let query = "SELECT id, app_id, receiving_app_id, rule_type, metadata, min_interval_secs, last_fired_at, told_at \
             FROM alerting_rules WHERE app_id = $1 ORDER BY created_at, id";
        let rows = sqlx::query(query)
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Ids of the applications that rules watch.
    pub async fn watched_apps(&self) -> Result<Vec<String>, StoreError> {
        let _timer = self.timer("watched_apps");
        let query = "SELECT DISTINCT app_id FROM alerting_rules";
        Ok(sqlx::query_scalar(query).fetch_all(self.pool()).await?)
    }

    /// Stores a rule; returns it.
    pub async fn insert_alerting_rule(
        &self,
        tx: &mut Tx,
        rule: NewAlertingRule<'_>,
    ) -> Result<AlertingRuleRow, StoreError> {
        let stored = AlertingRuleRow {
            id: Uuid::new_v4().to_string(),
            app_id: rule.app_id.to_owned(),
            receiving_app_id: rule.receiving_app_id.to_owned(),
            rule_type: rule.rule_type.to_owned(),
            metadata: rule.metadata,
            min_interval_secs: rule.min_interval_secs,
            last_fired_at: None,
            told_at: None,
        };
        let insert = self.sql(
            "INSERT INTO alerting_rules \
               (id, app_id, receiving_app_id, rule_type, metadata, min_interval_secs, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, {now})",
        );
        sqlx::query(insert)
            .bind(&stored.id)
            .bind(&stored.app_id)
            .bind(&stored.receiving_app_id)
            .bind(&stored.rule_type)
            .bind(&stored.metadata)
            .bind(stored.min_interval_secs)
            .execute(&mut **tx)
            .await?;
        Ok(stored)
    }

    /// Deletes a rule of an application; [`StoreError::NotFound`] if there is no such.
    pub async fn delete_alerting_rule(
        &self,
        tx: &mut Tx,
        app_id: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM alerting_rules WHERE app_id = $1 AND id = $2")
            .bind(app_id)
            .bind(id)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    /// Says that a rule fired now.
    pub async fn alerting_rule_fired(&self, id: &str) -> Result<(), StoreError> {
        let _timer = self.timer("alerting_rule_fired");
        let update = self.sql("UPDATE alerting_rules SET last_fired_at = {now} WHERE id = $1");
        sqlx::query(update).bind(id).execute(self.pool()).await?;
        Ok(())
    }
}
