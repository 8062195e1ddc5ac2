//! Saved views of applications' workflow lists.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Tx};

/// A stored view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    /// Its name, unique in the application.
    pub name: String,
    /// The query string of the list's address.
    pub query: String,
    /// Who saved it last, as displayed in the audit log.
    pub saved_by: String,
    /// When, epoch milliseconds.
    pub updated_at: i64,
}

fn read(row: &AnyRow) -> Result<ViewRow, StoreError> {
    Ok(ViewRow {
        name: row.try_get("name")?,
        query: row.try_get("query")?,
        saved_by: row.try_get("saved_by")?,
        updated_at: row.try_get("updated_at")?,
    })
}

impl Store {
    /// The views of an application, by name.
    pub async fn views(&self, app_id: &str) -> Result<Vec<ViewRow>, StoreError> {
        let _timer = self.timer("views");
        let query = "SELECT name, query, saved_by, updated_at FROM workflow_views \
                     WHERE app_id = $1 ORDER BY name";
        let rows = sqlx::query(query)
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Saves a view, in the place of one of that name; returns it. `None`: the application has `most`
    /// views already.
    pub async fn save_view(
        &self,
        tx: &mut Tx,
        app_id: &str,
        (name, query, saved_by): (&str, &str, &str),
        most: i64,
    ) -> Result<Option<ViewRow>, StoreError> {
        let upsert = self.sql(
            "INSERT INTO workflow_views (app_id, name, query, saved_by, updated_at) \
             SELECT $1, $2, $3, $4, {now} \
             WHERE (SELECT COUNT(*) FROM workflow_views WHERE app_id = $1 AND name <> $2) < $5 \
             ON CONFLICT (app_id, name) DO UPDATE SET query = $3, saved_by = $4, updated_at = {now} \
             RETURNING name, query, saved_by, updated_at",
        );
        let row = sqlx::query(upsert)
            .bind(app_id)
            .bind(name)
            .bind(query)
            .bind(saved_by)
            .bind(most)
            .fetch_optional(&mut **tx)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Deletes a view; [`StoreError::NotFound`] if there is no such.
    pub async fn delete_view(
        &self,
        tx: &mut Tx,
        app_id: &str,
        name: &str,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM workflow_views WHERE app_id = $1 AND name = $2")
            .bind(app_id)
            .bind(name)
            .execute(&mut **tx)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }
}
