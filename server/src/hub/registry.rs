//! Who is connected to this instance.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;

use super::session::Session;

/// So many replacements in the window mean two processes of one id.
const FLAPPING: usize = 3;

/// Of more executors than this only so many are compared, picked by chance: the least busy of a few is
/// nearly as idle as the least busy of all.
const COMPARED: usize = 16;

/// An executor: its application, id and version. Another version is another executor.
type Key = (String, String, String);

pub(super) struct Registry {
    window: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_app: HashMap<String, Roster>,
    by_key: HashMap<Key, Arc<Session>>,
    replacements: HashMap<Key, VecDeque<Instant>>,
    arrived: Vec<Arc<Session>>,
    departed: BTreeMap<u64, Arc<Session>>,
}

/// The executors of an application, in the order in which they came.
#[derive(Default)]
struct Roster {
    all: Vec<Arc<Session>>,
    by_version: HashMap<String, Vec<Arc<Session>>>,
}

/// Some executors of an application.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) sessions: Vec<Arc<Session>>,
    /// There are no others.
    pub(super) is_all: bool,
}

/// What became of a session that wants to speak for its executor.
pub(super) enum Bound {
    /// It does.
    New,
    /// It does, and this older one does no more.
    Replaced(Arc<Session>),
    /// It does not: two processes share the id, and the elder stays.
    Refused(Arc<Session>),
}

impl Registry {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `session` the one that speaks for its executor: the newest wins, unless two processes
    /// evict each other in turn.
    pub(super) fn bind(&self, session: &Arc<Session>, now: Instant) -> Bound {
        let mut state = self.state();
        let key = key_of(session);
        let elder = state.by_key.get(&key).cloned();
        if let Some(elder) = &elder
            && state.is_flapping(&key, now, self.window)
        {
            return Bound::Refused(elder.clone());
        }
        if let Some(elder) = &elder {
            state.remove(elder);
        }
        state
            .by_app
            .entry(key.0.clone())
            .or_default()
            .add(session.clone());
        state.arrived.push(session.clone());
        state.by_key.insert(key, session.clone());
        match elder {
            Some(elder) => Bound::Replaced(elder),
            None => Bound::New,
        }
    }

    /// A session is replaced by one at another instance.
    pub(super) fn note_replacement(&self, session: &Session, now: Instant) {
        self.state().is_flapping(&key_of(session), now, self.window);
    }

    /// A session ended. Does nothing if another speaks for its executor by now.
    pub(super) fn unbind(&self, session: &Arc<Session>) {
        let mut state = self.state();
        let current = state.by_key.get(&key_of(session));
        if current.is_some_and(|current| current.serial() == session.serial()) {
            state.remove(session);
        }
    }

    pub(super) fn find(
        &self,
        app_id: &str,
        executor_id: &str,
        version: &str,
    ) -> Option<Arc<Session>> {
        let key = (
            app_id.to_owned(),
            executor_id.to_owned(),
            version.to_owned(),
        );
        self.state().by_key.get(&key).cloned()
    }

    pub(super) fn of_app(&self, app_id: &str) -> Vec<Arc<Session>> {
        let state = self.state();
        state
            .by_app
            .get(app_id)
            .map(|roster| roster.all.clone())
            .unwrap_or_default()
    }

    /// Executors of an application, of one version or of any, to compare: all, or of many a few picked
    /// by chance.
    pub(super) fn some_of(&self, app_id: &str, version: Option<&str>) -> Choice {
        let state = self.state();
        let Some(roster) = state.by_app.get(app_id) else {
            return Choice::default();
        };
        let sessions = match version {
            Some(version) => roster
                .by_version
                .get(version)
                .map_or(&[][..], Vec::as_slice),
            None => &roster.all,
        };
        let chosen: Vec<_> = sessions
            .choose_multiple(&mut rand::rng(), COMPARED)
            .cloned()
            .collect();
        Choice {
            is_all: chosen.len() == sessions.len(),
            sessions: chosen,
        }
    }

    /// All executors of an application, of one version or of any.
    pub(super) fn all_of(&self, app_id: &str, version: Option<&str>) -> Vec<Arc<Session>> {
        let mut all = self.of_app(app_id);
        all.retain(|session| version.is_none_or(|version| session.identity().version == version));
        all
    }

    /// Whether anybody of an application is connected.
    pub(super) fn has_any(&self, app_id: &str) -> bool {
        self.state()
            .by_app
            .get(app_id)
            .is_some_and(|roster| roster.all.iter().any(|session| !session.is_ending()))
    }

    /// All sessions, in the order in which they came.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.state().by_key.values().cloned().collect();
        all.sort_by_key(|session| session.serial());
        all
    }

    /// The sessions that came since the last call, gone again or not.
    pub(super) fn take_arrived(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut self.state().arrived)
    }

    pub(super) fn take_departed(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut self.state().departed)
            .into_values()
            .collect()
    }
}

impl State {
    /// Notes one more replacement and tells whether there were too many lately. A refused one counts
    /// too, so that the elder keeps its place while the other goes on trying.
    fn is_flapping(&mut self, key: &Key, now: Instant, window: Duration) -> bool {
        let recent = |at: &Instant| now.duration_since(*at) < window;
        self.replacements
            .retain(|_, times| times.back().is_some_and(recent));
        let times = self.replacements.entry(key.clone()).or_default();
        times.retain(recent);
        let flapping = times.len() >= FLAPPING;
        times.push_back(now);
        if times.len() > FLAPPING {
            times.pop_front();
        }
        flapping
    }

    fn remove(&mut self, session: &Arc<Session>) {
        let key = key_of(session);
        self.by_key.remove(&key);
        if let Some(roster) = self.by_app.get_mut(&key.0) {
            roster.remove(session);
            if roster.all.is_empty() {
                self.by_app.remove(&key.0);
            }
        }
        self.departed.insert(session.serial(), session.clone());
    }
}

impl Roster {
    fn add(&mut self, session: Arc<Session>) {
        let version = &session.identity().version;
        match self.by_version.get_mut(version) {
            Some(sessions) => insert(sessions, session.clone()),
            None => {
                let version = version.clone();
                self.by_version.insert(version, vec![session.clone()]);
            }
        }
        insert(&mut self.all, session);
    }

    fn remove(&mut self, session: &Session) {
        take_out(&mut self.all, session);
        let version = &session.identity().version;
        if let Some(sessions) = self.by_version.get_mut(version) {
            take_out(sessions, session);
            if sessions.is_empty() {
                self.by_version.remove(version);
            }
        }
    }
}

/// Nearly always at the end: serials grow.
fn insert(sessions: &mut Vec<Arc<Session>>, session: Arc<Session>) {
    let at = sessions.partition_point(|other| other.serial() < session.serial());
    sessions.insert(at, session);
}

fn take_out(sessions: &mut Vec<Arc<Session>>, session: &Session) {
    if let Ok(at) = sessions.binary_search_by_key(&session.serial(), |other| other.serial()) {
        sessions.remove(at);
    }
}

fn key_of(session: &Session) -> Key {
    let identity = session.identity();
    (
        session.app_id().to_owned(),
        identity.executor_id.clone(),
        identity.version.clone(),
    )
}
