//! Which messages an SDK release turned out not to know, beyond what [`segno_protocol::features`]
//! tells: learned from its answer, for every executor of that language and version.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Language and version come from executors: they may not fill the memory.
const RELEASES: usize = 1024;

type Release = (String, String);

#[derive(Default)]
pub(super) struct Features {
    unknown: Mutex<HashMap<Release, HashSet<&'static str>>>,
}

impl Features {
    /// The release answered that it does not know `message`.
    pub(super) fn remember_unknown(&self, language: &str, version: &str, message: &'static str) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let release = (language.to_owned(), version.to_owned());
        if unknown.len() < RELEASES || unknown.contains_key(&release) {
            unknown.entry(release).or_default().insert(message);
        }
    }

    /// Whether the release is known not to know `message`.
    pub(super) fn is_unknown(&self, language: &str, version: &str, message: &'static str) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown
            .get(&(language.to_owned(), version.to_owned()))
            .is_some_and(|messages| messages.contains(message))
    }
}
