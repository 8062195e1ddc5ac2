//! Channels: where alerts go beside applications' handlers, and which rules use which.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Tx};

/// A stored channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRow {
    /// Its id.
    pub id: String,
    /// Its organization.
    pub org_id: String,
    /// Its name, unique there.
    pub name: String,
    /// What it talks to.
    pub kind: String,
    /// What the API shows of it, JSON.
    pub settings: String,
    /// What the API never shows, as [`crate::policies::channels::Sealer`] writes it.
    pub secrets: String,
    /// When it was made, epoch milliseconds.
    pub created_at: i64,
    /// When it was last changed, epoch milliseconds.
    pub updated_at: i64,
}

const COLUMNS: &str =
    "SELECT id, org_id, name, kind, settings, secrets, created_at, updated_at FROM alert_channels";

fn read(row: &AnyRow) -> Result<ChannelRow, StoreError> {
    Ok(ChannelRow {
        id: row.try_get("id")?,
        org_id: row.try_get("org_id")?,
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        settings: row.try_get("settings")?,
        secrets: row.try_get("secrets")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

impl Store {
    /// The channels of an organization, by name.
    pub async fn channels(&self, org_id: &str) -> Result<Vec<ChannelRow>, StoreError> {
        let _timer = self.timer("channels");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE org_id = $1 ORDER BY name"));
        let rows = sqlx::query(query)
            .bind(org_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// A channel by its name.
    pub async fn channel(
        &self,
        org_id: &str,
        name: &str,
    ) -> Result<Option<ChannelRow>, StoreError> {
        let _timer = self.timer("channel");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE org_id = $1 AND name = $2"));
        let row = sqlx::query(query)
            .bind(org_id)
            .bind(name)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A channel by its id.
    pub async fn channel_by_id(&self, id: &str) -> Result<Option<ChannelRow>, StoreError> {
        let _timer = self.timer("channel");
        let query = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1"));
        let row = sqlx::query(query)
            .bind(id)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Stores a channel, its times by the database's clock; returns it. [`StoreError::Taken`] if the
    /// name is.
    pub async fn insert_channel(
        &self,
        tx: &mut Tx,
        channel: &ChannelRow,
    ) -> Result<ChannelRow, StoreError> {
        let insert = self.sql(
            "INSERT INTO alert_channels (id, org_id, name, kind, settings, secrets, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, {now}, {now}) \
             RETURNING id, org_id, name, kind, settings, secrets, created_at, updated_at",
        );
        let row = sqlx::query(insert)
            .bind(&channel.id)
            .bind(&channel.org_id)
            .bind(&channel.name)
            .bind(&channel.kind)
            .bind(&channel.settings)
            .bind(&channel.secrets)
            .fetch_one(&mut **tx)
            .await?;
        read(&row)
    }

    /// Changes a channel unless somebody else did since it was read; returns it.
    /// [`StoreError::NotFound`] if it is gone or was changed.
    pub async fn update_channel(
        &self,
        tx: &mut Tx,
        before: &ChannelRow,
        settings: &str,
        secrets: &str,
    ) -> Result<ChannelRow, StoreError> {
        let update = self.sql(
            "UPDATE alert_channels SET settings = $4, secrets = $5, updated_at = {now} \
             WHERE id = $1 AND settings = $2 AND secrets = $3 \
             RETURNING id, org_id, name, kind, settings, secrets, created_at, updated_at",
        );
        let row = sqlx::query(update)
            .bind(&before.id)
            .bind(&before.settings)
            .bind(&before.secrets)
            .bind(settings)
            .bind(secrets)
            .fetch_one(&mut **tx)
            .await?;
        read(&row)
    }

    /// Deletes a channel with all that it still had to tell; [`StoreError::NotFound`] if there is none.
    pub async fn delete_channel(
        &self,
        tx: &mut Tx,
        org_id: &str,
        name: &str,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM alert_channels WHERE org_id = $1 AND name = $2")
            .bind(org_id)
            .bind(name)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    /// Takes the right to tell a channel something now, of which there are `per_minute` a minute, all
    /// at once or spread. `false`: they are used up.
    ///
    /// This is the generic cell rate algorithm: `free_at` is when the channel would be unused again.
    pub async fn take_channel_turn(&self, id: &str, per_minute: i64) -> Result<bool, StoreError> {
        let _timer = self.timer("take_channel_turn");
        let each = 60_000 / per_minute.max(1);
        let update = self.sql(
            "UPDATE alert_channels SET free_at = CASE WHEN free_at > {now} THEN free_at ELSE {now} END + $2 \
             WHERE id = $1 AND free_at <= {now} + 60000 - $2",
        );
        let done = sqlx::query(update)
            .bind(id)
            .bind(each)
            .execute(self.pool())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Names of the channels of an application's rules, by rule.
    pub async fn rule_channels(
        &self,
        app_id: &str,
    ) -> Result<HashMap<String, Vec<String>>, StoreError> {
        let _timer = self.timer("rule_channels");
        let query = "SELECT u.rule_id, c.name FROM alerting_rule_channels u \
             JOIN alerting_rules r ON r.id = u.rule_id JOIN alert_channels c ON c.id = u.channel_id \
             WHERE r.app_id = $1 ORDER BY u.rule_id, c.name";
        let rows = sqlx::query(query)
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        let mut by_rule: HashMap<String, Vec<String>> = HashMap::new();
        for row in rows {
            by_rule
                .entry(row.try_get("rule_id")?)
                .or_default()
                .push(row.try_get("name")?);
        }
        Ok(by_rule)
    }

    /// Lets a rule use exactly these channels.
    pub async fn set_rule_channels(
        &self,
        tx: &mut Tx,
        rule_id: &str,
        channel_ids: &[String],
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM alerting_rule_channels WHERE rule_id = $1")
            .bind(rule_id)
            .execute(&mut **tx)
            .await?;
        for channel_id in channel_ids {
            let insert = "INSERT INTO alerting_rule_channels (rule_id, channel_id) VALUES ($1, $2)";
            sqlx::query(insert)
                .bind(rule_id)
                .bind(channel_id)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }
}
