//! Feeds the machine with what happens and carries out what it decides.
//!
//! One reconciler, without input: it compares who is connected with what is written, writes the
//! difference, declares dead whose grace is over, and starts a [`runner`](super::runner) for every
//! dead executor that is this instance's to recover. Nudges only shorten its sleep. It may be run by
//! several instances at once, for every change states what it saw.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::machine::{self, Case, Effect, Event, ExecutorKey};
use super::news::{News, NewsKind};
use super::runner::{self, Claim};
use super::watch::Watch;
use super::{Shared, sweep};
use crate::cluster::millis;
use crate::hub::Session;
use crate::store::StoreError;
use crate::store::executors::{Connection, ExecutorRow, GROUP, Rejoined};
use crate::store::recoveries::RecoveryStatus;

/// Between two looks when nothing nudges.
const PASS_EVERY: Duration = Duration::from_secs(1);
/// A pass that takes longer is given up and begun anew.
const PASS_DEADLINE: Duration = Duration::from_secs(60);
/// Between two rounds of housekeeping.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(600);
/// Changes written at a time: of ten connections to the store, some are left to everybody else.
const WRITES: usize = 6;
/// Dead executors declared in one pass.
const DUE: i64 = 500;
/// How long a claim lasts unless it is renewed, in expiries of an instance.
const CLAIM_EXPIRIES: i64 = 2;
/// Pause after a failed pass.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A session that is in the store.
struct Written {
    session: Arc<Session>,
    unresponsive: bool,
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    written: HashMap<u64, Written>,
    arrived: Vec<Arc<Session>>,
    departed: Vec<Arc<Session>>,
    seen_resumptions: u64,
    runners: JoinSet<ExecutorKey>,
    housekeeping_at: Instant,
    sweep_at: Instant,
    watch: Watch,
    failing: bool,
    given_up: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // The first sweep waits until everybody had time to connect.
        let sweep_at = Instant::now() + shared.options.sweep_every;
        Self {
            seen_resumptions: shared.instance.resumptions(),
            written: HashMap::new(),
            arrived: Vec::new(),
            departed: Vec::new(),
            runners: JoinSet::new(),
            housekeeping_at: Instant::now(),
            sweep_at,
            watch: Watch::default(),
            failing: false,
            given_up: false,
            shared,
        }
    }

    /// Runs until the server stops.
    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        while !shutdown.is_cancelled() {
            let sleep = match timeout(PASS_DEADLINE, self.pass()).await {
                Ok(Ok(sleep)) => {
                    self.failing = false;
                    sleep
                }
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("the store does not answer"),
            };
            let nudged = async {
                tokio::select! {
                    () = self.shared.hub.changed() => {}
                    () = self.shared.nudge.notified() => {}
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = nudged => {}
                () = tokio::time::sleep(sleep) => {}
                Some(_) = self.runners.join_next() => {}
            }
        }
        self.stop().await;
    }

    fn failed(&mut self, error: &str) -> Duration {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(error, "cannot keep the books of executors; trying again");
        }
        self.give_up_if_alone();
        AFTER_FAILURE
    }

    /// Others take this instance for gone, and wait for its executors to show up with them: so these are
    /// sent there, before they count as dead while they run. An instance that has no others keeps its
    /// sockets: nobody judges meanwhile.
    fn give_up_if_alone(&mut self) {
        let given_up = self.shared.instance.is_given_up() && self.shared.peers.any();
        if given_up && !std::mem::replace(&mut self.given_up, given_up) {
            tracing::error!(
                "the store has been out of reach for too long: executors are sent to other instances"
            );
            self.shared
                .hub
                .close_all_for("this instance cannot reach its database; another can");
        }
        self.given_up = given_up;
    }

    /// A planned stop is no loss of the executors: no record is opened for them, and the next start
    /// knows since when nobody was looking.
    async fn stop(mut self) {
        self.runners.shutdown().await;
        let leaving = timeout(Duration::from_secs(5), self.shared.instance.leave()).await;
        if !matches!(leaving, Ok(Ok(()))) {
            tracing::warn!(
                "could not say goodbye to the store; claims of this instance end with its heartbeat"
            );
        }
    }

    /// One look at everything. Returns how long nothing is to be done.
    async fn pass(&mut self) -> Result<Duration, StoreError> {
        self.watch.cuts(&self.shared).await?;
        self.write_sessions().await?;
        while self.runners.try_join_next().is_some() {}
        if !self.shared.instance.is_current() {
            self.give_up_if_alone();
            return Ok(AFTER_FAILURE);
        }
        self.given_up = false;
        self.find_astray().await?;
        let shared = self.shared.clone();
        let expiry = shared.instance.expiry_ms();
        if shared.store.adopt_orphans(expiry).await? > 0 {
            tracing::info!("executors of an instance that is gone count as disconnected");
        }
        let next_due = self.judge().await?;
        self.take_over().await?;
        shared
            .store
            .renew_claims(shared.instance.id(), expiry * CLAIM_EXPIRIES)
            .await?;
        self.watch.cases(&shared).await?;
        self.housekeeping().await?;
        Ok(next_due.min(PASS_EVERY))
    }

    /// Writes who came, went, fell silent and spoke again.
    async fn write_sessions(&mut self) -> Result<(), StoreError> {
        let resumptions = self.shared.instance.resumptions();
        if resumptions != self.seen_resumptions {
            // Others may have counted our executors as lost: write everybody down anew.
            self.written.clear();
            self.arrived = self.shared.hub.connected();
            self.seen_resumptions = resumptions;
        }
        self.departed.extend(self.shared.hub.take_departed());
        self.arrived.extend(self.shared.hub.take_arrived());
        self.arrived.extend(self.departed.iter().cloned());
        self.arrived
            .retain(|session| !self.written.contains_key(&session.serial()));
        self.arrived.sort_by_key(|session| session.serial());
        self.arrived.dedup_by_key(|session| session.serial());
        self.write_arrived().await?;
        self.write_all_departed().await?;
        self.write_responsiveness().await
    }

    /// Sessions that the books do not have any more, though they were written, are closed or written
    /// down again.
    async fn find_astray(&mut self) -> Result<(), StoreError> {
        let written = self.written.values();
        let written = written.map(|written| written.session.clone()).collect();
        for session in self.watch.astray(&self.shared, written).await? {
            self.written.remove(&session.serial());
            self.arrived.push(session);
        }
        if self.arrived.is_empty() {
            return Ok(());
        }
        self.write_sessions().await
    }

    /// Writes arrivals, many at a time; sessions of one executor in the order in which they came.
    async fn write_arrived(&mut self) -> Result<(), StoreError> {
        while !self.arrived.is_empty() {
            let mut round: BTreeMap<ExecutorKey, Arc<Session>> = BTreeMap::new();
            let mut later = Vec::new();
            for session in &self.arrived {
                match round.entry(key_of(session)) {
                    Entry::Vacant(place) => {
                        place.insert(session.clone());
                    }
                    Entry::Occupied(_) => later.push(session.clone()),
                }
            }
            let shared = &self.shared;
            let round: Vec<_> = round.into_iter().collect();
            let writes = round
                .chunks(GROUP)
                .map(<[_]>::to_vec)
                .map(|group| async move {
                    write_connections(shared, &group).await?;
                    Ok::<_, StoreError>(group)
                });
            let mut done = stream::iter(writes).buffer_unordered(WRITES);
            while let Some(group) = done.next().await {
                for (_, session) in group? {
                    let written = Written {
                        session,
                        unresponsive: false,
                    };
                    self.written.insert(written.session.serial(), written);
                }
            }
            drop(done);
            self.arrived = later;
        }
        Ok(())
    }

    /// Writes who went; sessions of one executor in the order in which they came.
    async fn write_all_departed(&mut self) -> Result<(), StoreError> {
        let mut by_executor: BTreeMap<ExecutorKey, Vec<Arc<Session>>> = BTreeMap::new();
        for session in &self.departed {
            by_executor
                .entry(key_of(session))
                .or_default()
                .push(session.clone());
        }
        let shared = &self.shared;
        let writes = by_executor.into_iter().map(|(key, sessions)| async move {
            for session in &sessions {
                write_departed(shared, &key, session).await?;
            }
            Ok::<_, StoreError>(sessions)
        });
        let mut done = stream::iter(writes).buffer_unordered(WRITES);
        let mut gone = HashSet::new();
        let mut result = Ok(());
        while let Some(sessions) = done.next().await {
            match sessions {
                Ok(sessions) => gone.extend(sessions.iter().map(|session| session.serial())),
                Err(error) => result = Err(error),
            }
        }
        drop(done);
        self.written.retain(|serial, _| !gone.contains(serial));
        self.departed
            .retain(|session| !gone.contains(&session.serial()));
        result
    }

    async fn write_responsiveness(&mut self) -> Result<(), StoreError> {
        for written in self.written.values_mut() {
            let since = written.session.unresponsive_since();
            if since.is_some() == written.unresponsive {
                continue;
            }
            let key = key_of(&written.session);
            let since_ms = since.map(|since| self.shared.instance.at(since));
            self.shared
                .store
                .set_unresponsive(&key, written.session.id(), since_ms)
                .await?;
            written.unresponsive = since.is_some();
            let kind = match since {
                Some(_) => NewsKind::Unresponsive,
                None => NewsKind::Responsive,
            };
            self.shared
                .tell(News::of(&key, self.shared.instance.now(), kind));
        }
        Ok(())
    }

    /// Declares dead whose grace is over. Returns how long until the next may be.
    async fn judge(&mut self) -> Result<Duration, StoreError> {
        let shared = self.shared.clone();
        let ahead = millis(PASS_EVERY);
        let mut next_due = PASS_EVERY;
        let mut dead = Vec::new();
        for (row, grace) in shared.store.executors_due(ahead, DUE).await? {
            if shared
                .hub
                .is_connected(&row.key.app_id, &row.key.executor_id, &row.key.version)
            {
                continue;
            }
            let case = shared.lost_case(&row, grace);
            let now = shared.instance.now();
            if let Some(left) = case
                .deadline()
                .map(|deadline| deadline - now)
                .filter(|left| *left > 0)
            {
                next_due = next_due.min(Duration::from_millis(left.unsigned_abs() + 1));
                continue;
            }
            let (case, effects) = machine::step(&case, &Event::Tick, now);
            if effects.contains(&Effect::Claim) {
                dead.push((case, row));
            }
        }
        self.declare_dead(dead).await?;
        Ok(next_due)
    }

    /// Several at a time, for each waits for a commit: where a thousand die at once, nobody shall wait for
    /// all others' turns. Those that succeeded are begun even if others failed.
    async fn declare_dead(&mut self, dead: Vec<(Case, ExecutorRow)>) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let mut claims = stream::iter(dead)
            .map(|(case, row)| {
                let shared = shared.clone();
                async move {
                    let claimed = shared.claim(&row).await;
                    (case, row.grace_from, claimed)
                }
            })
            .buffer_unordered(WRITES);
        let mut result = Ok(());
        while let Some((case, grace_from, claimed)) = claims.next().await {
            match claimed {
                Ok(Some(claim)) => {
                    if let Some(from) = grace_from {
                        let in_grace = shared.instance.now() - from;
                        shared.metrics.grace("dead", in_grace);
                    }
                    self.start(case, claim);
                }
                Ok(None) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Takes over the recovery of dead executors that nobody drives.
    async fn take_over(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let (id, expiry) = (shared.instance.id(), shared.instance.expiry_ms());
        for row in shared.store.dead_unclaimed(id, expiry).await? {
            if shared.is_driven(&row.key) {
                continue;
            }
            let Some(recovery_id) = row.recovery_id.clone() else {
                continue;
            };
            let ttl = expiry * CLAIM_EXPIRIES;
            if let Some(generation) = shared
                .store
                .take_over_dead(&row.key, row.generation, id, ttl)
                .await?
            {
                let case = Case::dead(row.key.clone(), shared.retry());
                self.start(
                    case,
                    Claim {
                        generation,
                        recovery_id,
                        language: row.language,
                    },
                );
            }
        }
        Ok(())
    }

    fn start(&mut self, case: Case, claim: Claim) {
        let key = case.executor.clone();
        let mailbox = self.shared.open_mailbox(&key);
        let shared = self.shared.clone();
        self.runners.spawn(async move {
            runner::run(&shared, case, claim, &mailbox).await;
            shared.close_mailbox(&key);
            key
        });
    }

    async fn housekeeping(&mut self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let open = store.open_recoveries().await?;
        for status in [
            RecoveryStatus::Grace,
            RecoveryStatus::Dispatching,
            RecoveryStatus::Stranded,
        ] {
            let count = open
                .iter()
                .find(|(open, _)| *open == status)
                .map_or(0, |(_, count)| *count);
            self.shared.metrics.open_recoveries(status.as_str(), count);
        }
        let now = Instant::now();
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_EVERY;
            store.expire_recoveries().await?;
            store.expire_instances().await?;
        }
        if now >= self.sweep_at {
            self.sweep_at = now + self.shared.options.sweep_every;
            tokio::spawn(sweep::sweep(self.shared.clone()));
        }
        Ok(())
    }
}

/// An executor and the session that speaks for it.
type Arrival = (ExecutorKey, Arc<Session>);

/// Writes the connections of different executors down, all at once if that can be done.
async fn write_connections(shared: &Shared, group: &[Arrival]) -> Result<(), StoreError> {
    match write_group(shared, group).await {
        Err(StoreError::NotFound) => {}
        other => return other,
    }
    // An application is gone: its executors are to go, those of others are not.
    for one in group {
        match write_group(shared, std::slice::from_ref(one)).await {
            Err(StoreError::NotFound) => one.1.close("the application was deleted"),
            other => other?,
        }
    }
    Ok(())
}

async fn write_group(shared: &Shared, group: &[Arrival]) -> Result<(), StoreError> {
    let connections: Vec<_> = group
        .iter()
        .map(|(key, session)| connection(shared, key, session))
        .collect();
    let rejoined = shared.store.executors_connected(&connections).await?;
    let languages: BTreeMap<&str, &str> = group
        .iter()
        .filter_map(|(key, session)| {
            Some((key.app_id.as_str(), session.identity().language.as_deref()?))
        })
        .collect();
    for (app_id, language) in languages {
        shared.store.set_app_language(app_id, language).await?;
    }
    let now = shared.instance.now();
    for ((key, _), rejoined) in group.iter().zip(rejoined) {
        shared.tell(News::of(key, now, NewsKind::Connected));
        if let Some(Rejoined {
            recovery_id,
            in_grace,
        }) = rejoined
        {
            if let Some(in_grace) = in_grace {
                shared.metrics.grace("rejoined", in_grace);
            }
            shared.tell(News::of(key, now, NewsKind::Rejoined { recovery_id }));
        }
        shared.arrived(key);
    }
    Ok(())
}

fn connection<'a>(
    shared: &'a Shared,
    key: &'a ExecutorKey,
    session: &'a Session,
) -> Connection<'a> {
    let identity = session.identity();
    let metadata = identity
        .metadata
        .as_ref()
        .and_then(|metadata| serde_json::to_string(metadata).ok());
    Connection {
        key,
        hostname: identity.hostname.as_deref(),
        language: identity.language.as_deref(),
        sdk_version: identity.sdk_version.as_deref(),
        metadata,
        session_id: session.id(),
        instance_id: shared.instance.id(),
    }
}

async fn write_departed(
    shared: &Shared,
    key: &ExecutorKey,
    session: &Session,
) -> Result<(), StoreError> {
    let recovery_id = Uuid::now_v7().to_string();
    let at = shared.instance.at(session.lost_at());
    if shared
        .store
        .executor_lost(key, session.id(), at, &recovery_id)
        .await?
    {
        shared.tell(News::of(key, at, NewsKind::Disconnected));
        if session.has_left() {
            write_left(shared, key, &recovery_id).await?;
        }
    }
    Ok(())
}

/// Nobody waits for an executor that said it does not come back: it is dead at once. Should this instance
/// die before that is written, its grace runs like anybody's.
async fn write_left(
    shared: &Shared,
    key: &ExecutorKey,
    recovery_id: &str,
) -> Result<(), StoreError> {
    let rows = shared
        .store
        .executors_by_id(&key.app_id, &key.executor_id)
        .await?;
    let is_it =
        |row: &&ExecutorRow| row.key == *key && row.recovery_id.as_deref() == Some(recovery_id);
    let Some(row) = rows.iter().find(is_it) else {
        return Ok(());
    };
    let case = shared.lost_case(row, 0);
    let (_, effects) = machine::step(&case, &Event::Gone, shared.instance.now());
    if effects.contains(&Effect::Claim) {
        // The pass finds the claim that it does not drive, and starts.
        shared.claim(row).await?;
    }
    Ok(())
}

pub(super) fn key_of(session: &Session) -> ExecutorKey {
    let identity = session.identity();
    ExecutorKey {
        app_id: session.app_id().to_owned(),
        executor_id: identity.executor_id.clone(),
        version: identity.version.clone(),
    }
}

impl Shared {
    /// Declares an executor dead and claims its recovery, if it still is as `row` says.
    pub(super) async fn claim(&self, row: &ExecutorRow) -> Result<Option<Claim>, StoreError> {
        let ttl = self.instance.expiry_ms() * CLAIM_EXPIRIES;
        let fallback = Uuid::now_v7().to_string();
        let claimed = self
            .store
            .claim_dead(&row.key, row.generation, self.instance.id(), ttl, &fallback)
            .await?;
        let Some((generation, recovery_id)) = claimed else {
            return Ok(None);
        };
        let kind = NewsKind::Dead {
            recovery_id: recovery_id.clone(),
        };
        self.tell(News::of(&row.key, self.instance.now(), kind));
        Ok(Some(Claim {
            generation,
            recovery_id,
            language: row.language.clone(),
        }))
    }

    /// The case of a lost executor as its row tells it.
    fn lost_case(&self, row: &ExecutorRow, grace: i64) -> Case {
        let from = row.grace_from.unwrap_or(row.updated_at);
        let since = (from, row.noticed_at.unwrap_or(from));
        Case::lost(row.key.clone(), since, grace, self.retry())
    }

    /// First and longest pause of a stranded recovery, milliseconds.
    fn retry(&self) -> (i64, i64) {
        let (first, longest) = self.options.retry;
        (millis(first), millis(longest))
    }
}
