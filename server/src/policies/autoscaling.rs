//! How many executors an application needs, by the depth of one queue. Nothing is scaled here: an
//! autoscaler asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Autoscalers poll; an answer so young is as good as a new one.
const FRESH: Duration = Duration::from_secs(1);

/// How many executors old application versions may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// So many old versions are kept alive at most.
    pub old_versions: usize,
    /// So many executors each of them may have; none: no limit.
    pub executors: Option<i64>,
}

/// What is known about the queue at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// When, epoch milliseconds.
    pub observed_at: i64,
    /// How many workflows one executor runs at once; at least 1.
    pub worker_concurrency: i64,
    /// How many all of them run at once, if there is a limit.
    pub concurrency: Option<i64>,
    /// Registered versions, the latest first; at least one.
    pub versions: Vec<String>,
    /// Workflows waiting or running, by version.
    pub depths: BTreeMap<String, i64>,
}

/// What one version needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The version.
    pub version: String,
    /// Whether it is the latest.
    pub is_latest: bool,
    /// Workflows waiting or running.
    pub depth: i64,
    /// So many executors do it.
    pub executors: i64,
}

impl Load {
    /// What a registered version needs; `None` if it is not registered.
    pub fn need(&self, version: &str, rollout: Rollout) -> Option<Need> {
        let place = self.versions.iter().position(|known| known == version)?;
        let is_latest = place == 0;
        let depth = self.depths.get(version).copied().unwrap_or(0);
        let executors = ceiling(depth, self.worker_concurrency);
        let useful = self
            .concurrency
            .map(|most| ceiling(most.max(0), self.worker_concurrency));
        let executors = executors.min(useful.unwrap_or(i64::MAX));
        let executors = if is_latest {
            executors.max(1)
        } else {
            executors.min(rollout.executors.unwrap_or(i64::MAX))
        };
        Some(Need {
            version: version.to_owned(),
            is_latest,
            depth,
            executors,
        })
    }

    /// What the latest version needs, then the newest old ones that have work.
    pub fn needs(&self, rollout: Rollout) -> Vec<Need> {
        let all = self
            .versions
            .iter()
            .filter_map(|version| self.need(version, rollout));
        let (latest, old): (Vec<Need>, Vec<Need>) = all.partition(|need| need.is_latest);
        let busy = old.into_iter().filter(|need| need.depth > 0);
        latest
            .into_iter()
            .chain(busy.take(rollout.old_versions))
            .collect()
    }
}

fn ceiling(work: i64, each: i64) -> i64 {
    work.saturating_add(each - 1) / each
}

/// Application id and queue.
type Key = (String, String);
/// When it was looked at, and what was seen.
type Look = (Instant, Arc<Load>);

/// The last load of each application, for a moment. Cheap to clone.
#[derive(Clone, Default)]
pub struct Loads {
    known: Arc<Mutex<HashMap<Key, Look>>>,
}

impl Loads {
    /// The load of an application's queue, if it was looked at just now.
    pub fn get(&self, app_id: &str, queue: &str) -> Option<Arc<Load>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, load) = known.get(&(app_id.to_owned(), queue.to_owned()))?;
        (at.elapsed() < FRESH).then(|| load.clone())
    }

    /// Remembers it.
    pub fn put(&self, app_id: &str, queue: &str, load: Arc<Load>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < FRESH);
        known.insert(
            (app_id.to_owned(), queue.to_owned()),
            (Instant::now(), load),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(depths: &[(&str, i64)]) -> Load {
        Load {
            observed_at: 0,
            worker_concurrency: 2,
            concurrency: None,
            versions: ["v3", "v2", "v1"].map(str::to_owned).to_vec(),
            depths: depths
                .iter()
                .map(|(version, depth)| ((*version).to_owned(), *depth))
                .collect(),
        }
    }

    fn executors(load: &Load, version: &str, rollout: Rollout) -> i64 {
        load.need(version, rollout).unwrap().executors
    }

    #[test]
    fn the_latest_has_at_least_one_and_an_old_version_without_work_none() {
        let rollout = Rollout::default();
        assert_eq!(executors(&load(&[("v3", 5)]), "v3", rollout), 3);
        assert_eq!(executors(&load(&[]), "v3", rollout), 1);
        assert_eq!(executors(&load(&[]), "v2", rollout), 0);
        assert_eq!(executors(&load(&[("v2", 1)]), "v2", rollout), 1);
        assert_eq!(load(&[("v9", 1)]).need("v9", rollout), None);
    }

    #[test]
    fn limits_hold() {
        let mut limited = load(&[("v3", 100), ("v2", 100)]);
        limited.concurrency = Some(5);
        assert_eq!(executors(&limited, "v3", Rollout::default()), 3);
        let rollout = |executors| Rollout {
            old_versions: 1,
            executors: Some(executors),
        };
        assert_eq!(executors(&limited, "v2", rollout(2)), 2);
        assert_eq!(executors(&limited, "v2", rollout(0)), 0);
        assert_eq!(
            executors(&limited, "v3", rollout(0)),
            3,
            "the latest is not an old one"
        );
    }

    #[test]
    fn old_versions_are_listed_newest_first_and_only_with_work() {
        let load = load(&[("v1", 1), ("v2", 1)]);
        let listed = |load: &Load, old_versions| {
            let rollout = Rollout {
                old_versions,
                executors: None,
            };
            load.needs(rollout)
                .into_iter()
                .map(|need| need.version)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&load, 0), ["v3"]);
        assert_eq!(listed(&load, 1), ["v3", "v2"]);
        assert_eq!(listed(&load, 9), ["v3", "v2", "v1"]);
        let mut quiet = load;
        quiet.depths.remove("v2");
        assert_eq!(listed(&quiet, 1), ["v3", "v1"]);
    }
}
