//! The history of alerts: one row for each time that a rule's condition held.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::alerting::AlertingRuleRow;
use super::apps::AppRow;
use super::{Store, StoreError, Tx};

/// How long what is over is kept, milliseconds.
const KEPT: i64 = 30 * 24 * 3600 * 1000;

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    /// Its id.
    pub id: String,
    /// The rule that found it; possibly deleted since.
    pub rule_id: String,
    /// What that rule watched.
    pub rule_type: String,
    /// What it found, for people.
    pub message: String,
    /// What it found, for programs: a JSON object of texts.
    pub metadata: String,
    /// What became of telling the handler: its application, how it went, when.
    pub handler: Option<(String, String, i64)>,
    /// When the condition was first seen to hold, epoch milliseconds.
    pub since: i64,
    /// When it was last seen to hold, epoch milliseconds.
    pub seen_at: i64,
    /// When it was seen to hold no more, epoch milliseconds.
    pub resolved_at: Option<i64>,
}

/// What a channel was, or is to be, told of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldRow {
    /// The channel's name.
    pub channel: String,
    /// `firing` or `resolved`.
    pub event: String,
    /// `PENDING`, `DELIVERED` or `FAILED`.
    pub state: String,
    /// Requests so far.
    pub attempts: i64,
    /// Why the last one did not do.
    pub error: Option<String>,
    /// When it was put down to be told, epoch milliseconds.
    pub created_at: i64,
    /// When that ended, epoch milliseconds.
    pub ended_at: Option<i64>,
}

/// Which alerts are wanted.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// Only those that hold, or only those that do not.
    pub firing: Option<bool>,
    /// Only of this rule.
    pub rule_id: Option<String>,
    /// At most so many.
    pub limit: i64,
    /// Without the first so many.
    pub offset: i64,
}

/// What a rule found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a AlertingRuleRow,
    /// The application it watches.
    pub app: &'a AppRow,
    /// For people.
    pub message: &'a str,
    /// For programs: a JSON object of texts.
    pub metadata: &'a str,
}

fn read(row: &AnyRow) -> Result<AlertRow, StoreError> {
    let app: Option<String> = row.try_get("handler_app")?;
    let outcome: Option<String> = row.try_get("handler_outcome")?;
    let at: Option<i64> = row.try_get("handler_at")?;
    Ok(AlertRow {
        id: row.try_get("id")?,
        rule_id: row.try_get("rule_id")?,
        rule_type: row.try_get("rule_type")?,
        message: row.try_get("message")?,
        metadata: row.try_get("metadata")?,
        handler: app
            .zip(outcome)
            .zip(at)
            .map(|((app, outcome), at)| (app, outcome, at)),
        since: row.try_get("since")?,
        seen_at: row.try_get("seen_at")?,
        resolved_at: row.try_get("resolved_at")?,
    })
}

impl Store {
    /// The alerts of an application, the newest first.
    pub async fn alerts(
        &self,
        app_id: &str,
        filter: &AlertFilter,
    ) -> Result<Vec<AlertRow>, StoreError> {
        let _timer = self.timer("alerts");
        let query = "SELECT id, rule_id, rule_type, message, metadata, handler_app, handler_outcome, handler_at, \
               since, seen_at, resolved_at FROM alerts \
             WHERE app_id = $1 AND rule_id = COALESCE(CAST($2 AS TEXT), rule_id) \
               AND ($3 < 0 OR CASE WHEN resolved_at IS NULL THEN 1 ELSE 0 END = $3) \
             ORDER BY since DESC, id DESC LIMIT $4 OFFSET $5";
        let rows = sqlx::query(query)
            .bind(app_id)
            .bind(filter.rule_id.as_deref())
            .bind(filter.firing.map_or(-1_i64, i64::from))
            .bind(filter.limit)
            .bind(filter.offset)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// What channels were told of these alerts, by alert, in order.
    pub async fn told(&self, alerts: &[&str]) -> Result<HashMap<String, Vec<ToldRow>>, StoreError> {
        if alerts.is_empty() {
            return Ok(HashMap::new());
        }
        let _timer = self.timer("told");
        let places: Vec<String> = (1..=alerts.len()).map(|n| format!("${n}")).collect();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT d.alert_id, c.name, d.event, d.state, d.attempts, d.error, d.created_at, d.ended_at \
             FROM alert_deliveries d JOIN alert_channels c ON c.id = d.channel_id \
             WHERE d.alert_id IN ({}) ORDER BY d.alert_id, d.created_at, c.name",
            places.join(", ")
        )));
        for id in alerts {
            query = query.bind(*id);
        }
        let mut by_alert: HashMap<String, Vec<ToldRow>> = HashMap::new();
        for row in query.fetch_all(self.pool()).await? {
            by_alert
                .entry(row.try_get("alert_id")?)
                .or_default()
                .push(ToldRow {
                    channel: row.try_get("name")?,
                    event: row.try_get("event")?,
                    state: row.try_get("state")?,
                    attempts: row.try_get("attempts")?,
                    error: row.try_get("error")?,
                    created_at: row.try_get("created_at")?,
                    ended_at: row.try_get("ended_at")?,
                });
        }
        Ok(by_alert)
    }

    /// A rule's condition holds: notes it, and puts down what its channels are to be told. They are
    /// told once, and again when the rule's own interval says so. Returns the alert's id and whether
    /// somebody is to be told; `None` if the rule is gone.
    pub async fn alert_seen(&self, found: Found<'_>) -> Result<Option<(String, bool)>, StoreError> {
        let _timer = self.timer("alert_seen");
        let rule = found.rule;
        let mut tx = self.begin().await?;
        // Locks the rule: no other instance, and no deletion, comes between.
        let lock = self.sql(
            "UPDATE alerting_rules SET told_at = told_at WHERE id = $1 \
             RETURNING COALESCE(told_at, -1) AS told_at, {now} AS at",
        );
        let Some(locked) = sqlx::query(lock)
            .bind(&rule.id)
            .fetch_optional(&mut *tx)
            .await?
        else {
            return Ok(None);
        };
        let (told_at, now): (i64, i64) = (locked.try_get("told_at")?, locked.try_get("at")?);
        let upsert = "INSERT INTO alerts (id, app_id, rule_id, rule_type, message, metadata, since, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7) \
             ON CONFLICT (rule_id) WHERE resolved_at IS NULL DO UPDATE SET \
               message = excluded.message, metadata = excluded.metadata, seen_at = excluded.seen_at \
             RETURNING id, told, since";
        let alert = sqlx::query(upsert)
            .bind(Uuid::now_v7().to_string())
            .bind(&found.app.id)
            .bind(&rule.id)
            .bind(&rule.rule_type)
            .bind(found.message)
            .bind(found.metadata)
            .bind(now)
            .fetch_one(&mut *tx)
            .await?;
        let id: String = alert.try_get("id")?;
        let told = alert.try_get::<i64, _>("told")? == 1;
        let pause = rule.min_interval_secs.unwrap_or(0).saturating_mul(1000);
        let again = rule.min_interval_secs.is_some_and(|secs| secs > 0);
        let is_due = (!told || again) && (told_at < 0 || told_at.saturating_add(pause) <= now);
        let mut tells = false;
        if is_due {
            let organization: String =
                sqlx::query_scalar("SELECT name FROM organizations WHERE id = $1")
                    .bind(&found.app.org_id)
                    .fetch_one(&mut *tx)
                    .await?;
            let notice = json!({"alertId": id, "event": "firing", "ruleId": rule.id, "ruleType": rule.rule_type,
                "message": found.message, "metadata": object(found.metadata), "organization": organization,
                "application": found.app.name, "since": alert.try_get::<i64, _>("since")?, "at": now});
            tells = self
                .tell_channels_of(&mut tx, &rule.id, &id, &notice)
                .await?;
        }
        if tells {
            let update = "UPDATE alerts SET told = 1 WHERE id = $1";
            sqlx::query(update).bind(&id).execute(&mut *tx).await?;
            let update = "UPDATE alerting_rules SET told_at = $2 WHERE id = $1";
            sqlx::query(update)
                .bind(&rule.id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
        }
        self.commit(tx).await?;
        Ok(Some((id, tells)))
    }

    /// Puts a notice down for each channel of a rule; whether there is one.
    async fn tell_channels_of(
        &self,
        tx: &mut Tx,
        rule_id: &str,
        alert_id: &str,
        notice: &Value,
    ) -> Result<bool, StoreError> {
        let query = "SELECT channel_id FROM alerting_rule_channels WHERE rule_id = $1";
        let channels: Vec<String> = sqlx::query_scalar(query)
            .bind(rule_id)
            .fetch_all(&mut **tx)
            .await?;
        for channel_id in &channels {
            self.insert_delivery(tx, channel_id, alert_id, "firing", notice)
                .await?;
        }
        Ok(!channels.is_empty())
    }

    async fn insert_delivery(
        &self,
        tx: &mut Tx,
        channel_id: &str,
        alert_id: &str,
        event: &'static str,
        notice: &Value,
    ) -> Result<(), StoreError> {
        let insert = self.sql(
            "INSERT INTO alert_deliveries (id, channel_id, alert_id, event, notice, state, next_at, created_at) \
             VALUES ($1, $2, $3, $4, $5, 'PENDING', {now}, {now})",
        );
        sqlx::query(insert)
            .bind(Uuid::now_v7().to_string())
            .bind(channel_id)
            .bind(alert_id)
            .bind(event)
            .bind(notice.to_string())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// A rule's condition does not hold, or nobody watches it any more: its alert is over, and the
    /// channels that were told of it are told that. Whether there are such.
    pub async fn alert_over(&self, rule_id: &str) -> Result<bool, StoreError> {
        let query = "SELECT COUNT(*) FROM alerts WHERE rule_id = $1 AND resolved_at IS NULL";
        let firing: i64 = sqlx::query_scalar(query)
            .bind(rule_id)
            .fetch_one(self.pool())
            .await?;
        if firing == 0 {
            return Ok(false);
        }
        let _timer = self.timer("alert_over");
        let mut tx = self.begin().await?;
        let tells = self.end_alert(&mut tx, rule_id).await?;
        self.commit(tx).await?;
        Ok(tells)
    }

    /// See [`Store::alert_over`]; within a transaction.
    pub async fn end_alert(&self, tx: &mut Tx, rule_id: &str) -> Result<bool, StoreError> {
        let update = self.sql(
            "UPDATE alerts SET resolved_at = {now} WHERE rule_id = $1 AND resolved_at IS NULL \
             RETURNING id, {now} AS at",
        );
        let ended = sqlx::query(update)
            .bind(rule_id)
            .fetch_optional(&mut **tx)
            .await?;
        let Some(ended) = ended else {
            return Ok(false);
        };
        let (id, now): (String, i64) = (ended.try_get("id")?, ended.try_get("at")?);
        // What each was last told is what is over.
        let query = "SELECT d.channel_id, d.notice FROM alert_deliveries d \
             WHERE d.alert_id = $1 AND d.event = 'firing' ORDER BY d.created_at";
        let rows = sqlx::query(query).bind(&id).fetch_all(&mut **tx).await?;
        let mut told: HashMap<String, String> = HashMap::new();
        for row in rows {
            told.insert(row.try_get("channel_id")?, row.try_get("notice")?);
        }
        for (channel_id, notice) in &told {
            let mut notice = Value::Object(object(notice));
            notice["event"] = json!("resolved");
            notice["at"] = json!(now);
            self.insert_delivery(tx, channel_id, &id, "resolved", &notice)
                .await?;
        }
        Ok(!told.is_empty())
    }

    /// Ends the alerts of all rules that go with an application: those that watch it, and those that tell
    /// it. Whether channels are told.
    pub async fn end_alerts_of_app(&self, tx: &mut Tx, app_id: &str) -> Result<bool, StoreError> {
        let query = "SELECT id FROM alerting_rules WHERE app_id = $1 OR receiving_app_id = $1";
        let rules: Vec<String> = sqlx::query_scalar(query)
            .bind(app_id)
            .fetch_all(&mut **tx)
            .await?;
        let mut told = false;
        for rule_id in rules {
            told |= self.end_alert(tx, &rule_id).await?;
        }
        Ok(told)
    }

    /// Notes how telling the handler of an application of a rule's alert went.
    pub async fn alert_handled(
        &self,
        rule_id: &str,
        app: &str,
        outcome: &'static str,
    ) -> Result<(), StoreError> {
        let update = self.sql(
            "UPDATE alerts SET handler_app = $2, handler_outcome = $3, handler_at = {now} \
             WHERE rule_id = $1 AND resolved_at IS NULL",
        );
        sqlx::query(update)
            .bind(rule_id)
            .bind(app)
            .bind(outcome)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Forgets what was over 30 days ago, and ends alerts whose rule is gone.
    pub async fn expire_alerts(&self) -> Result<(), StoreError> {
        let _timer = self.timer("expire_alerts");
        let orphans = "SELECT rule_id FROM alerts WHERE resolved_at IS NULL \
             AND rule_id NOT IN (SELECT id FROM alerting_rules)";
        let orphans: Vec<String> = sqlx::query_scalar(orphans).fetch_all(self.pool()).await?;
        for rule_id in orphans {
            self.alert_over(&rule_id).await?;
        }
        for delete in [
            "DELETE FROM alerts WHERE resolved_at < {now} - $1",
            "DELETE FROM alert_deliveries WHERE ended_at < {now} - $1",
            "DELETE FROM alert_attempts WHERE at < {now} - $1",
        ] {
            let delete = self.sql(delete);
            sqlx::query(delete).bind(KEPT).execute(self.pool()).await?;
        }
        Ok(())
    }
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}
