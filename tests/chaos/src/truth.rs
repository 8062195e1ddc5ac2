//! What really was the case, noted by whoever causes it: who was reachable when.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fleet::Language;

/// Epoch milliseconds.
pub(crate) type Millis = i64;

/// One executor process's life.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) language: Language,
    pub(crate) version: String,
    /// When it became reachable (true) or ceased to be: connected over whole links to an instance that works.
    pub(crate) reachable: Vec<(Millis, bool)>,
    /// The same of its own database.
    pub(crate) served: Vec<(Millis, bool)>,
}

/// Whether it was so all the time from `from` to `to`.
fn throughout(changes: &[(Millis, bool)], from: Millis, to: Millis) -> bool {
    let mut at_start = false;
    for (at, so) in changes {
        if *at <= from {
            at_start = *so;
        } else if *at <= to && !so {
            return false;
        }
    }
    at_start
}

impl Life {
    fn note(&mut self, reachable: bool, served: bool) {
        for (changes, now) in [(&mut self.reachable, reachable), (&mut self.served, served)] {
            if changes.last().is_none_or(|(_, before)| *before != now) {
                changes.push((segno_e2e::now_ms(), now));
            }
        }
    }

    /// Whether it was reachable all the time from `from` to `to`.
    pub(crate) fn was_reachable(&self, from: Millis, to: Millis) -> bool {
        throughout(&self.reachable, from, to)
    }

    /// Whether it ran, and its database answered it, all that time.
    pub(crate) fn was_served(&self, from: Millis, to: Millis) -> bool {
        throughout(&self.served, from, to)
    }
}

/// A kill, and what it hit.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) executor: String,
    pub(crate) language: Language,
    pub(crate) at: Millis,
    /// Workflows that ran under its name just then, where the database could be asked.
    pub(crate) running: Vec<String>,
    /// Whether a process under the same id followed.
    pub(crate) came_back: bool,
}

/// A fault that lasted.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    pub(crate) from: Millis,
    /// `Millis::MAX` while it goes on.
    pub(crate) to: Millis,
}

/// Everything that is noted.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    lives: Mutex<HashMap<String, Life>>,
    kills: Mutex<Vec<Kill>>,
    /// Executors that were told to end, and may say goodbye.
    told_to_end: Mutex<HashSet<String>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    episodes: Mutex<Vec<Episode>>,
    violations: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Truth {
    /// An executor of this id is, or is not, reachable from now on, and served by its database.
    pub(crate) fn observe(
        &self,
        executor: &str,
        language: Language,
        version: &str,
        reachable: bool,
        served: bool,
    ) {
        let mut lives = lock(&self.lives);
        let life = lives.entry(executor.to_owned()).or_insert_with(|| Life {
            language,
            version: version.to_owned(),
            reachable: Vec::new(),
            served: Vec::new(),
        });
        life.note(reachable, served);
    }

    pub(crate) fn lives(&self) -> HashMap<String, Life> {
        lock(&self.lives).clone()
    }

    /// An executor is told to end.
    pub(crate) fn told_to_end(&self, executor: String) {
        lock(&self.told_to_end).insert(executor);
    }

    pub(crate) fn who_was_told(&self) -> HashSet<String> {
        lock(&self.told_to_end).clone()
    }

    /// An executor's process is gone.
    pub(crate) fn gone(&self, executor: &str) {
        if let Some(life) = lock(&self.lives).get_mut(executor) {
            life.note(false, false);
        }
    }

    pub(crate) fn killed(&self, kill: Kill) {
        lock(&self.kills).push(kill);
    }

    pub(crate) fn came_back(&self, executor: &str) {
        for kill in lock(&self.kills).iter_mut() {
            if kill.executor == executor {
                kill.came_back = true;
            }
        }
    }

    pub(crate) fn kills(&self) -> Vec<Kill> {
        lock(&self.kills).clone()
    }

    /// One more of a kind of fault.
    pub(crate) fn count(&self, fault: &'static str) {
        *lock(&self.counts).entry(fault).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// A fault that lasts begins; the answer ends it.
    pub(crate) fn begin(&self) -> usize {
        let mut episodes = lock(&self.episodes);
        episodes.push(Episode {
            from: segno_e2e::now_ms(),
            to: Millis::MAX,
        });
        episodes.len() - 1
    }

    pub(crate) fn end(&self, episode: usize) {
        if let Some(episode) = lock(&self.episodes).get_mut(episode) {
            episode.to = segno_e2e::now_ms();
        }
    }

    /// Whether nothing lasting was broken between `from` and `to`.
    pub(crate) fn was_calm(&self, from: Millis, to: Millis) -> bool {
        lock(&self.episodes)
            .iter()
            .all(|each| each.to < from || each.from > to)
    }

    /// Something that must never be was seen.
    pub(crate) fn violation(&self, what: String) {
        eprintln!("VIOLATION: {what}");
        lock(&self.violations).push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_was_away_in_between_was_not_reachable() {
        let life = Life {
            language: Language::Rust,
            version: "v1".into(),
            reachable: vec![(10, true), (20, false), (30, true)],
            served: Vec::new(),
        };
        assert!(life.was_reachable(10, 19));
        assert!(!life.was_reachable(5, 15), "it was not there yet");
        assert!(!life.was_reachable(15, 35));
        assert!(!life.was_reachable(25, 28));
        assert!(life.was_reachable(30, 99));
    }
}
