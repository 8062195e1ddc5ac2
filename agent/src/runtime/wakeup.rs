//! How a process learns at once that another one changed a queue or a run: notifications on Postgres, a
//! watch of the file's change counter on SQLite. Both only shorten the wait for the next poll.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::Notify;

use super::{Kind, Runtime};
use crate::system_database::{Pool, SystemDatabase};

/// Channel on which processes of this library tell each other to look. Not one of the channels that the
/// official SDKs use.
pub(super) const CHANNEL: &str = "segno_wake";

/// Payload on that channel when schedules were changed.
pub(super) const SCHEDULES: &str = "schedules";

/// Payload on that channel, before the name of who says so, while somebody waits for runs.
pub(super) const WAITING: &str = "waiting";

/// Payload on that channel when runs ended and somebody elsewhere waits.
pub(super) const ENDED: &str = "ended";

/// How often the change counter of an SQLite file is read.
const WATCH: Duration = Duration::from_millis(50);

/// Postgres takes no longer payloads.
const LONGEST: usize = 7999;

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

/// What other processes are to be told.
#[derive(Default)]
pub(super) struct Announcements {
    waiting: Mutex<HashSet<(&'static str, String)>>,
    added: Notify,
}

impl Announcements {
    /// Adds a notification: a channel and its payload.
    pub(super) fn add(&self, channel: &'static str, payload: String) {
        if payload.len() <= LONGEST {
            self.lock().insert((channel, payload));
            self.added.notify_one();
        }
    }

    fn take(&self) -> Vec<(&'static str, String)> {
        self.lock().drain().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<(&'static str, String)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on this process's announcements, after what they announce was committed.
async fn announce(runtime: Arc<Runtime>) {
    loop {
        runtime.announcements.added.notified().await;
        tokio::time::sleep(COALESCE).await;
        notify(&runtime.db.system, runtime.announcements.take()).await;
    }
}

/// Sends notifications. Only hints: polling finds the same later.
pub(super) async fn notify(db: &SystemDatabase, notifications: Vec<(&'static str, String)>) {
    let Pool::Postgres(pool) = db.pool() else {
        return;
    };
    let (channels, payloads): (Vec<_>, Vec<_>) = notifications.into_iter().unzip();
    let notify =
        sqlx::query("SELECT pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS n(c, p)")
            .bind(channels)
            .bind(payloads)
            .execute(pool)
            .await;
    if let Err(error) = notify {
        tracing::debug!(%error, "could not notify other processes; they find out by polling");
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
        runtime.wake();
        runtime.arrivals.look();
    }
}

async fn listen_once(runtime: &Runtime, pool: &PgPool) -> Result<(), sqlx::Error> {
    // A connection of its own: one taken from the pool for good would be missing there.
    let single = sqlx::postgres::PgPoolOptions::new().max_connections(1);
    let single = single
        .connect_with((*pool.connect_options()).clone())
        .await?;
    let mut listener = PgListener::connect_with(&single).await?;
    let channels = Kind::ALL.map(Kind::channel);
    listener
        .listen_all(channels.into_iter().chain([CHANNEL]))
        .await?;
    loop {
        // `None` means that the connection was lost and made anew.
        match listener.try_recv().await? {
            Some(notification) => match Kind::of_channel(notification.channel()) {
                Some(kind) => runtime.arrivals.signal_key(kind, notification.payload()),
                None => heard(runtime, notification.payload()),
            },
            None => {
                runtime.wake();
                runtime.arrivals.look();
            }
        }
    }
}

/// What another process of this library says.
fn heard(runtime: &Runtime, payload: &str) {
    match payload.split_once(' ') {
        Some((WAITING, instance)) => runtime.completions.heard_of_waiter(instance),
        _ if payload == ENDED => runtime.completions.look(),
        _ if payload == SCHEDULES => runtime.schedules.notify_one(),
        _ => runtime.wake(),
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
            runtime.arrivals.look();
        }
    }
}

/// The counter is comparable only on one and the same connection.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(connection)
        .await
}
