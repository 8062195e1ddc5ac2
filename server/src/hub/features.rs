//! Which messages an SDK release turned out not to know, beyond what [`segno_protocol::features`]
//! tells: learned from its answer, for every executor of that language and version.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Language and version come from executors: they may not fill the memory.
const RELEASES: usize = 1024;

/// By language, then by version.
type Unknown = HashMap<String, HashMap<String, HashSet<&'static str>>>;

#[derive(Default)]
pub(super) struct Features {
    unknown: Mutex<Unknown>,
}

impl Features {
    /// The release answered that it does not know `message`.
    pub(super) fn remember_unknown(&self, language: &str, version: &str, message: &'static str) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let known = find(&unknown, language, version).is_some();
        if known || unknown.values().map(HashMap::len).sum::<usize>() < RELEASES {
            let versions = unknown.entry(language.to_owned()).or_default();
            let messages = versions.entry(version.to_owned()).or_default();
            messages.insert(message);
        }
    }

    /// Whether the release is known not to know `message`.
    pub(super) fn is_unknown(&self, language: &str, version: &str, message: &'static str) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        find(&unknown, language, version).is_some_and(|messages| messages.contains(message))
    }
}

fn find<'a>(
    unknown: &'a Unknown,
    language: &str,
    version: &str,
) -> Option<&'a HashSet<&'static str>> {
    unknown.get(language)?.get(version)
}
