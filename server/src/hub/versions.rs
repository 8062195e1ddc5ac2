//! Which version of an application is the latest, as its executors say; cached for seconds, because
//! every resumed workflow asks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FRESH: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct LatestVersions {
    known: Mutex<HashMap<String, (String, Instant)>>,
}

impl LatestVersions {
    pub(super) fn get(&self, app_id: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(app_id)
            .filter(|(_, at)| at.elapsed() < FRESH)
            .map(|(version, _)| version.clone())
    }

    pub(super) fn put(&self, app_id: &str, version: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, at)| at.elapsed() < FRESH);
        known.insert(app_id.to_owned(), (version.to_owned(), Instant::now()));
    }

    /// Somebody connected, or set another version.
    pub(super) fn forget(&self, app_id: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(app_id);
    }
}
