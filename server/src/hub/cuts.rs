//! What was cut off: revoked keys, deleted applications, evicted executors.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer than a handshake and `executor_info` together can take.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Ids of keys and applications that were cut off lately. A connection that was admitted just before
/// and introduces itself just after must not slip through.
#[derive(Default)]
pub(super) struct Cuts {
    at: Mutex<HashMap<String, Instant>>,
}

impl Cuts {
    pub(super) fn cut(&self, id: &str) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.retain(|_, at| at.elapsed() < REMEMBERED);
        at.insert(id.to_owned(), Instant::now());
    }

    /// Whether the application or key was cut off after `opened`.
    pub(super) fn was_cut(&self, app_id: &str, key_id: Option<&str>, opened: Instant) -> bool {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        [Some(app_id), key_id]
            .into_iter()
            .flatten()
            .any(|id| at.get(id).is_some_and(|at| *at >= opened))
    }
}

/// Executors that an operator evicted: an id with its version, of an application.
#[derive(Default)]
pub(super) struct Evictions {
    until: Mutex<HashMap<(String, String, String), Instant>>,
}

impl Evictions {
    pub(super) fn evict(&self, key: (&str, &str, &str), until: Instant) {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, until| *until > now);
        all.insert(
            (key.0.to_owned(), key.1.to_owned(), key.2.to_owned()),
            until,
        );
    }

    pub(super) fn is_evicted(&self, key: (&str, &str, &str), now: Instant) -> bool {
        let all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        !all.is_empty()
            && all
                .get(&(key.0.to_owned(), key.1.to_owned(), key.2.to_owned()))
                .is_some_and(|until| *until > now)
    }
}
