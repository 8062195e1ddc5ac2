//! What can go wrong between a caller and the system database.

/// An error of the system database, worded for the person who has to fix it.
///
/// No message contains connection strings or payloads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The database refused a statement or could not be reached.
    #[error("system database: {0}")]
    Sql(#[from] sqlx::Error),

    /// The system database URL cannot be used.
    #[error("system database URL: {0}")]
    Url(String),

    /// The schema is of a version that this library does not migrate.
    #[error(
        "the system database schema {schema:?} is at version {found}, older than 100, where version \
         numbers mean different things to different SDKs; start (or run the `migrate` command of) the \
         newest official SDK that uses this database once, it brings the schema up to date"
    )]
    SchemaTooOld {
        /// Schema name.
        schema: String,
        /// Recorded version.
        found: i64,
    },

    /// Migrating was not asked for, and the schema is not current.
    #[error(
        "the system database schema {schema:?} is at version {found} but version {needed} is required; \
         run the migration with a role that may change the schema (`segno system migrate`), or allow migrating at start"
    )]
    SchemaOutdated {
        /// Schema name.
        schema: String,
        /// Recorded version, 0 when there is none.
        found: i64,
        /// Version this library needs.
        needed: i64,
    },

    /// The schema is not current, and another SDK made it.
    #[error(
        "the system database schema {schema:?} is at version {found}, version {needed} is required, and another SDK made \
         it, so it is not migrated unasked: upgrade that SDK, or run `segno system migrate` (in code: \
         `Migrate::Run`), which its processes are prepared for"
    )]
    SchemaOfAnother {
        /// Schema name.
        schema: String,
        /// Recorded version.
        found: i64,
        /// Version this library needs.
        needed: i64,
    },

    /// Tables exist, but no version is recorded, or the tables are not the ones known here.
    #[error("the system database schema {schema:?} cannot be used: {reason}")]
    SchemaUnusable {
        /// Schema name.
        schema: String,
        /// What was found, and what to do.
        reason: String,
    },

    /// Something that was addressed by name does not exist.
    #[error("no such {what}: {}", ids.join(", "))]
    NotFound {
        /// Kind of thing: `workflow`, `schedule`, …
        what: &'static str,
        /// All missing ids.
        ids: Vec<String>,
    },

    /// The request contradicts what is stored.
    #[error("{0}")]
    Conflict(String),

    /// An argument is not acceptable; the message names it.
    #[error("{0}")]
    Invalid(String),
}

impl DatabaseError {
    /// The version of tables that cannot be worked on, if that is what is wrong and if there is one.
    pub(crate) fn schema_version(&self) -> Option<Option<i64>> {
        match self {
            Self::SchemaTooOld { found, .. }
            | Self::SchemaOutdated { found, .. }
            | Self::SchemaOfAnother { found, .. } => Some(Some(*found)),
            Self::SchemaUnusable { .. } => Some(None),
            _ => None,
        }
    }

    /// SQLSTATE (Postgres) or extended result code (SQLite) of a refused statement.
    #[must_use]
    pub fn sql_code(&self) -> Option<String> {
        match self {
            Self::Sql(sqlx::Error::Database(e)) => e.code().map(|code| code.into_owned()),
            _ => None,
        }
    }

    /// True if a table does not exist.
    #[must_use]
    pub(crate) fn is_undefined_table(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(e)) => {
                e.code().as_deref() == Some("42P01") || e.message().starts_with("no such table")
            }
            _ => false,
        }
    }

    /// True if a unique constraint refused the statement.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}
