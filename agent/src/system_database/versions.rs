//! Code versions of applications. The one with the greatest timestamp is the latest; names are unique in
//! the whole database.

use uuid::Uuid;

use super::{DatabaseError, Row, Scope, SystemDatabase, Transaction};

/// A code version. Times are epoch milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Key.
    pub version_id: String,
    /// What executors and workflows carry.
    pub version_name: String,
    /// Decides which one is the latest.
    pub version_timestamp: i64,
    /// When it was first seen.
    pub created_at: i64,
}

impl SystemDatabase {
    /// Lists versions, latest first.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn list_versions(&self, scope: &Scope) -> Result<Vec<VersionRow>, DatabaseError> {
        let statement = self
            .sql("SELECT version_id, version_name, version_timestamp, created_at FROM @application_versions WHERE TRUE")
            .and_scope("application_name", scope)
            .push(" ORDER BY version_timestamp DESC, version_name");
        self.read(statement)
            .await?
            .iter()
            .map(VersionRow::read)
            .collect()
    }

    /// The name of the latest version in `scope`.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn latest_version(&self, scope: &Scope) -> Result<Option<String>, DatabaseError> {
        let statement = self
            .sql("SELECT version_name FROM @application_versions WHERE TRUE")
            .and_scope("application_name", scope)
            .push(" ORDER BY version_timestamp DESC LIMIT 1");
        self.read(statement)
            .await?
            .first()
            .map(|row| row.required("version_name"))
            .transpose()
    }

    /// Makes a version known, at launch. One that is known keeps its timestamp; one without owner becomes ours.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if it belongs to another application.
    pub async fn register_version(
        &self,
        application: &str,
        version: &str,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.begin().await?;
        self.claim_version(&mut transaction, application, version)
            .await?;
        // Without a conflict target: which unique constraint guards the name is about to change.
        let insert = self
            .sql("INSERT INTO @application_versions (version_id, version_name, application_name) VALUES (")
            .bind(Uuid::new_v4().to_string())
            .push(", ")
            .bind(version)
            .push(", ")
            .bind(application)
            .push(") ON CONFLICT DO NOTHING");
        transaction.execute(insert).await?;
        self.require_own_version(&mut transaction, application, version)
            .await?;
        transaction.commit().await
    }

    /// Makes a known version the latest. An unknown one changes nothing.
    ///
    /// # Errors
    /// [`DatabaseError::Conflict`] if it belongs to another application.
    pub async fn set_latest_version(
        &self,
        application: &str,
        version: &str,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.begin().await?;
        self.claim_version(&mut transaction, application, version)
            .await?;
        self.require_own_version(&mut transaction, application, version)
            .await?;
        let latest = self
            .sql(
                "UPDATE @application_versions SET version_timestamp = NOW_MS WHERE version_name = ",
            )
            .bind(version)
            .push(" AND application_name = ")
            .bind(application);
        transaction.execute(latest).await?;
        transaction.commit().await
    }

    async fn claim_version(
        &self,
        transaction: &mut Transaction,
        application: &str,
        version: &str,
    ) -> Result<(), DatabaseError> {
        let claim = self
            .sql("UPDATE @application_versions SET application_name = ")
            .bind(application)
            .push(" WHERE application_name IS NULL AND version_name = ")
            .bind(version);
        transaction.execute(claim).await?;
        Ok(())
    }

    async fn require_own_version(
        &self,
        transaction: &mut Transaction,
        application: &str,
        version: &str,
    ) -> Result<(), DatabaseError> {
        let owner = self
            .sql("SELECT application_name FROM @application_versions WHERE version_name = ")
            .bind(version);
        let rows = transaction.fetch(owner).await?;
        let owners = rows
            .iter()
            .map(|row| row.required("application_name"))
            .collect::<Result<Vec<_>, _>>()?;
        match owners.first() {
            Some(other) if !owners.iter().any(|owner| owner == application) => {
                Err(DatabaseError::Conflict(format!(
                    "the application version {version:?} belongs to the application {other:?} of the same system database; \
                 versions must differ between applications"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl VersionRow {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            version_id: row.required("version_id")?,
            version_name: row.required("version_name")?,
            version_timestamp: row.int("version_timestamp")?.unwrap_or(0),
            created_at: row.int("created_at")?.unwrap_or(0),
        })
    }
}
