//! Waiting for what others write for a run: messages, events, stream entries.
//!
//! Whoever waits is registered before it looks, and told to look again when something of that name is
//! written: by this process at once, by others through notifications, and in any case by a look at the
//! database from time to time, in one query for all that wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Runtime;
use crate::system_database::{DatabaseError, Dialect};

/// The net under the notifications of Postgres.
const NET: Duration = Duration::from_secs(10);

/// After a look the database is left alone several times as long as the look took: there may be very many who
/// wait, and a file that changes all the time.
const PAUSES_A_LOOK: u32 = 5;

/// Names in one query.
const CHUNK: usize = 10_000;

/// The kinds of things that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A message; the name is its topic.
    Message,
    /// An event; the name is its key.
    Event,
    /// An entry of a stream; the name is its key.
    Stream,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Message, Self::Event, Self::Stream];

    /// The channel on which every SDK announces this.
    pub(super) const fn channel(self) -> &'static str {
        match self {
            Self::Message => "dbos_notifications_channel",
            Self::Event => "dbos_workflow_events_channel",
            Self::Stream => "dbos_streams_channel",
        }
    }

    pub(super) fn of_channel(channel: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.channel() == channel)
    }
}

/// A workflow's id and a name, as they are written in notifications.
pub(super) fn key(workflow_id: &str, name: &str) -> String {
    format!("{workflow_id}::{name}")
}

/// One who waits.
#[derive(Default)]
struct Waiter {
    /// How often it was told to look, and how many of these it has acted upon.
    told: AtomicU64,
    acted: AtomicU64,
    notify: Notify,
}

impl Waiter {
    /// Whether it still has to look.
    fn is_due(&self) -> bool {
        self.told.load(Ordering::Acquire) != self.acted.load(Ordering::Acquire)
    }
}

type Waiting = HashMap<Kind, HashMap<String, Vec<Arc<Waiter>>>>;

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Arrivals {
    waiting: Mutex<Waiting>,
    look: Notify,
}

impl Arrivals {
    /// Registers a waiter. Register first, then look at the database, then wait.
    pub(crate) fn register<'a>(
        &'a self,
        kind: Kind,
        workflow_id: &str,
        name: &str,
    ) -> Registered<'a> {
        let key = key(workflow_id, name);
        let waiter = Arc::<Waiter>::default();
        let mut waiting = self.lock();
        let waiters = waiting.entry(kind).or_default().entry(key.clone());
        waiters.or_default().push(waiter.clone());
        Registered {
            arrivals: self,
            kind,
            key,
            waiter,
            seen: 0,
        }
    }

    /// Something of this name was written.
    pub(crate) fn signal(&self, kind: Kind, workflow_id: &str, name: &str) {
        self.signal_key(kind, &key(workflow_id, name));
    }

    pub(super) fn signal_key(&self, kind: Kind, key: &str) {
        let waiting = self.lock();
        let waiters = waiting.get(&kind).and_then(|keys| keys.get(key));
        for waiter in waiters.into_iter().flatten() {
            waiter.told.fetch_add(1, Ordering::AcqRel);
            waiter.notify.notify_one();
        }
    }

    /// Whether somebody was told to look and has not done so yet.
    pub(super) fn any_due(&self) -> bool {
        let waiting = self.lock();
        let mut waiters = waiting.values().flat_map(HashMap::values).flatten();
        waiters.any(|waiter| waiter.is_due())
    }

    /// Something may have been written.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    fn keys(&self, kind: Kind) -> Vec<String> {
        let waiting = self.lock();
        waiting
            .get(&kind)
            .map(|keys| keys.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter, until it is dropped.
pub(crate) struct Registered<'a> {
    arrivals: &'a Arrivals,
    kind: Kind,
    key: String,
    waiter: Arc<Waiter>,
    /// How often it was told when it looked last.
    seen: u64,
}

impl Registered<'_> {
    /// Completes when something of that name was written since the last call.
    pub(crate) async fn arrived(&mut self) {
        self.waiter.acted.store(self.seen, Ordering::Release);
        loop {
            let told = self.waiter.told.load(Ordering::Acquire);
            if told != self.seen {
                self.seen = told;
                return;
            }
            self.waiter.notify.notified().await;
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.lock();
        let Some(keys) = waiting.get_mut(&self.kind) else {
            return;
        };
        if let Some(waiters) = keys.get_mut(&self.key) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                keys.remove(&self.key);
            }
        }
    }
}

/// Looks from time to time, and whenever told to.
pub(super) async fn run(runtime: Arc<Runtime>) {
    // A peer may have made the schema without the trigger that announces messages.
    let net = if announces_messages(&runtime).await {
        NET
    } else {
        super::POLL
    };
    loop {
        tokio::select! {
            () = runtime.arrivals.look.notified() => {}
            () = tokio::time::sleep(net) => {}
        }
        let round = runtime.rounds.arrivals.begin();
        let begun = Instant::now();
        if let Err(error) = look(&runtime).await {
            tracing::debug!(%error, "could not look for messages and events; looking again");
            tokio::time::sleep(super::POLL).await;
            runtime.arrivals.look();
        }
        drop(round);
        if !runtime.clock().is_manual() {
            tokio::time::sleep(begun.elapsed() * PAUSES_A_LOOK).await;
        }
    }
}

async fn announces_messages(runtime: &Runtime) -> bool {
    let db = &runtime.db.system;
    if db.dialect() == Dialect::Sqlite {
        return false;
    }
    let table = format!("{}notifications", db.prefix());
    let trigger = db
        .sql("SELECT 1 AS one FROM pg_catalog.pg_trigger WHERE tgname = 'dbos_notifications_trigger' AND tgrelid = to_regclass(")
        .bind(table)
        .push(")");
    db.read(trigger).await.is_ok_and(|rows| !rows.is_empty())
}

async fn look(runtime: &Runtime) -> Result<(), DatabaseError> {
    let db = &runtime.db.system;
    for keys in runtime.arrivals.keys(Kind::Message).chunks(CHUNK) {
        let arrived = db
            .sql("SELECT DISTINCT destination_uuid || '::' || topic AS key FROM @notifications WHERE consumed = FALSE AND ")
            .any_of("destination_uuid", &workflows(keys));
        for row in db.read(arrived).await? {
            runtime
                .arrivals
                .signal_key(Kind::Message, &row.required("key")?);
        }
    }
    for keys in runtime.arrivals.keys(Kind::Event).chunks(CHUNK) {
        let arrived = db
            .sql("SELECT workflow_uuid || '::' || key AS key FROM @workflow_events WHERE ")
            .any_of("workflow_uuid", &workflows(keys));
        for row in db.read(arrived).await? {
            runtime
                .arrivals
                .signal_key(Kind::Event, &row.required("key")?);
        }
    }
    // Readers of streams know where they are; they look themselves.
    for key in runtime.arrivals.keys(Kind::Stream) {
        runtime.arrivals.signal_key(Kind::Stream, &key);
    }
    Ok(())
}

/// The ids in keys; one that contains the separator is cut at each of them, which only finds too much.
fn workflows(keys: &[String]) -> Vec<String> {
    keys.iter()
        .flat_map(|key| {
            key.match_indices("::")
                .map(|(at, _)| key[..at].to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}
