//! The schema: forwards, back, and tried without leaving a trace.
//!
//! Migrations only add, so an instance of the release before goes on working on a newer schema while
//! instances are replaced one by one. Each migration but the first has a way back, `NNNN_name.down.sql`.
//! Postgres does one migrator's work at a time under an advisory lock. SQLite has none: there each
//! migration and its bookkeeping are one transaction, and whoever finds itself overtaken looks again.

use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::{Acquire, AssertSqlSafe, Executor};

use super::{Dialect, Store, StoreError};

static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long a trial waits for a lock that a running server holds, rather than hold up that server.
const TRIAL_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";

/// A migration that was tried and taken back.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

impl Store {
    /// Brings the schema up to date. Several instances may call it at once: one does the work.
    /// Refuses a schema newer than this binary.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.refuse_newer().await?;
        self.forward(self.newest()).await
    }

    /// Takes the schema to version `target`, forwards or back; back only while no instance heard of within
    /// `expiry` milliseconds serves. What the migrations that are taken back had added is lost.
    pub async fn migrate_to(&self, target: i64, expiry: i64) -> Result<(), StoreError> {
        self.refuse_newer().await?;
        if !self.forwards().any(|known| known.version == target) {
            return Err(StoreError::NoSuchSchema {
                wanted: target,
                known: self.newest(),
            });
        }
        if target >= self.schema_version().await? {
            return self.forward(target).await;
        }
        if self.pool.is_pooled() {
            return Err(StoreError::Pooled);
        }
        self.refuse_while_serving(expiry).await?;
        self.migrator()
            .undo(self.pool.inner(), target)
            .await
            .map_err(|error| self.explained(error))
    }

    /// Applies what is missing in a transaction that is rolled back: would it work on what is stored?
    pub async fn try_migrations(&self) -> Result<Vec<Trial>, StoreError> {
        self.refuse_newer().await?;
        let found = self.schema_version().await?;
        let mut tx = self.begin().await?;
        if self.dialect() == Dialect::Postgres {
            (&mut *tx).execute(TRIAL_LOCK_TIMEOUT).await?;
        }
        let mut trials = Vec::new();
        for migration in self.forwards().filter(|known| known.version > found) {
            let started = Instant::now();
            let failed = |error| {
                StoreError::Migrate(MigrateError::ExecuteMigration(error, migration.version))
            };
            (&mut *tx)
                .execute(migration.sql.clone())
                .await
                .map_err(failed)?;
            trials.push(Trial {
                version: migration.version,
                name: migration.description.to_string(),
                took: started.elapsed(),
            });
        }
        drop(tx);
        Ok(trials)
    }

    /// Fails unless the schema is exactly the one this binary knows.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        self.refuse_newer().await?;
        let found = self.schema_version().await?;
        let known = self.newest();
        if found < known {
            return Err(StoreError::OlderSchema { found, known });
        }
        Ok(())
    }

    /// The newest migration applied; 0 for an empty database.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        let table = match self.dialect() {
            Dialect::Postgres => {
                "SELECT COUNT(*) FROM information_schema.tables \
                 WHERE table_name = '_sqlx_migrations' AND table_schema = current_schema()"
            }
            Dialect::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
        };
        if sqlx::query_scalar::<_, i64>(table)
            .fetch_one(self.pool())
            .await?
            == 0
        {
            return Ok(0);
        }
        let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
        Ok(sqlx::query_scalar(newest).fetch_one(self.pool()).await?)
    }

    /// What the schema's migrations are at, and the newest that this binary knows.
    pub async fn schema(&self) -> Result<(i64, i64), StoreError> {
        Ok((self.schema_version().await?, self.newest()))
    }

    /// Fails if the schema is newer than this binary.
    pub(super) async fn refuse_newer(&self) -> Result<(), StoreError> {
        let (found, known) = self.schema().await?;
        if found > known {
            return Err(StoreError::NewerSchema { found, known });
        }
        Ok(())
    }

    /// Fails while an instance heard of within `expiry` milliseconds serves on this store.
    pub(super) async fn refuse_while_serving(&self, expiry: i64) -> Result<(), StoreError> {
        match self.peers("", expiry).await?.into_iter().next() {
            Some(instance) => Err(StoreError::Serving {
                address: instance.address,
            }),
            None => Ok(()),
        }
    }

    /// Applies what is missing up to `target`.
    async fn forward(&self, target: i64) -> Result<(), StoreError> {
        loop {
            let before = self.schema_version().await?;
            let done = match self.pool.is_pooled() {
                false => self.migrator().run_to(target, self.pool.inner()).await,
                true => self.forward_in_one(target).await,
            };
            match done {
                Err(MigrateError::ExecuteMigration(..))
                    if self.dialect() == Dialect::Sqlite
                        && self.schema_version().await? > before => {}
                done => return done.map_err(|error| self.explained(error)),
            }
        }
    }

    /// All migrations in one transaction, so that they, and the lock around them, are in one session though a
    /// pooler stands between. Of what is prepared meanwhile nothing is left there for others to stumble upon.
    async fn forward_in_one(&self, target: i64) -> Result<(), MigrateError> {
        /// Of all instances; any number would do.
        const LOCK: i64 = 0x5e60;

        // Not to be used again: it believes that its statements are still prepared.
        let mut connection = self.pool.inner().acquire().await?.detach();
        let mut tx = connection.begin().await?;
        let lock = AssertSqlSafe(format!("SELECT pg_advisory_xact_lock({LOCK})"));
        tx.execute(lock).await?;
        let migrator = self.migrator();
        let migrated = migrator.run_direct(Some(target), &mut *tx, false).await;
        if migrated.is_ok() {
            tx.execute("DEALLOCATE ALL").await?;
            tx.commit().await?;
        }
        migrated
    }

    fn explained(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(found) => StoreError::NewerSchema {
                found,
                known: self.newest(),
            },
            other => StoreError::Migrate(other),
        }
    }

    fn migrator(&self) -> &'static Migrator {
        match self.dialect() {
            Dialect::Postgres => &POSTGRES,
            Dialect::Sqlite => &SQLITE,
        }
    }

    /// The migrations, without the ways back.
    fn forwards(&self) -> impl Iterator<Item = &'static Migration> {
        let all = self.migrator().iter();
        all.filter(|migration| migration.migration_type.is_up_migration())
    }

    fn newest(&self) -> i64 {
        let versions = self.forwards().map(|migration| migration.version);
        versions.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_but_the_first_has_a_way_back_on_both_engines() {
        let numbers = |migrator: &Migrator, back: bool| {
            let chosen = migrator
                .iter()
                .filter(|each| each.migration_type.is_down_migration() == back);
            chosen.map(|each| each.version).collect::<Vec<_>>()
        };
        for migrator in [&POSTGRES, &SQLITE] {
            let forwards = numbers(migrator, false);
            assert_eq!(numbers(migrator, true), forwards[1..]);
        }
        assert_eq!(numbers(&POSTGRES, false), numbers(&SQLITE, false));
    }
}
