//! How a process learns at once that another one changed a queue or a run: notifications on Postgres, a
//! watch of the file's change counter on SQLite. Both only shorten the wait for the next poll.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::{Runtime, recovery};
use crate::system_database::Pool;

/// Channel on which processes of this library tell each other to look. Not one of the channels that the
/// official SDKs use.
pub(super) const CHANNEL: &str = "segno_wake";

/// How often the change counter of an SQLite file is read.
const WATCH: Duration = Duration::from_millis(50);

/// Announcements this close together become one.
const COALESCE: Duration = Duration::from_millis(10);

pub(super) fn spawn(runtime: &Arc<Runtime>) {
    match runtime.db.system.pool() {
        Pool::Postgres(pool) => {
            runtime.spawn(listen(runtime.clone(), pool.clone()));
            runtime.spawn(announce(runtime.clone()));
        }
        Pool::Sqlite { readers, .. } => runtime.spawn(watch(runtime.clone(), readers.clone())),
    }
}

/// Passes on this process's announcements.
async fn announce(runtime: Arc<Runtime>) {
    loop {
        runtime.announce.notified().await;
        tokio::time::sleep(COALESCE).await;
        recovery::announce(&runtime.db.system).await;
    }
}

/// Looks whenever anybody announces something. A lost connection is made anew; what was missed meanwhile
/// is looked for then.
async fn listen(runtime: Arc<Runtime>, pool: PgPool) {
    loop {
        let error = match listen_once(&runtime, &pool).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        tracing::debug!(%error, "cannot listen for notifications; polling until it works again");
        tokio::time::sleep(super::POLL).await;
    }
}

async fn listen_once(runtime: &Runtime, pool: &PgPool) -> Result<(), sqlx::Error> {
    // A connection of its own: one taken from the pool for good would be missing there.
    let single = sqlx::postgres::PgPoolOptions::new().max_connections(1);
    let single = single
        .connect_with((*pool.connect_options()).clone())
        .await?;
    let mut listener = PgListener::connect_with(&single).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // `None` means that the connection was lost and made anew.
        listener.try_recv().await?;
        runtime.wake();
    }
}

/// Reads the file's change counter, which moves when another connection commits.
async fn watch(runtime: Arc<Runtime>, readers: SqlitePool) {
    loop {
        if let Err(error) = watch_once(&runtime, &readers).await {
            tracing::debug!(%error, "cannot watch the database file; polling until it works again");
        }
        tokio::time::sleep(super::POLL).await;
    }
}

async fn watch_once(runtime: &Runtime, readers: &SqlitePool) -> Result<(), sqlx::Error> {
    // In memory there is one connection for everything and no other process.
    if readers.options().get_max_connections() <= 1 {
        return std::future::pending().await;
    }
    let mut connection = readers.acquire().await?;
    let mut seen = version(&mut connection).await?;
    loop {
        tokio::time::sleep(WATCH).await;
        let now = version(&mut connection).await?;
        if now != seen {
            seen = now;
            runtime.wake();
        }
    }
}

/// The counter is comparable only on one and the same connection.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(connection)
        .await
}
