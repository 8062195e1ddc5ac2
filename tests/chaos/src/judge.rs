//! After the run: what Segno recorded, compared with what was the case.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use segno_e2e::api::Recovery;

use crate::fleet::Language;
use crate::oracle::Traces;
use crate::truth::{Kill, Life, Millis};
use crate::world::World;

/// Who was reachable for so long, to the end, was not dead.
const REACHABLE: Millis = 2000;
/// Times are rounded.
const ROUNDING: Millis = 20;
/// What is broken shortly before and after a kill has a part in what comes of it.
const BEFORE: Millis = 3000;

/// What was measured, in milliseconds.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Times {
    /// From a kill to the end of the connection, as recorded.
    pub(crate) detection: Vec<i64>,
    /// From the end of grace to the next step elsewhere, of each workflow that the killed one was running.
    pub(crate) hand_over: Vec<i64>,
    /// The same of kills around which nothing else was broken.
    pub(crate) hand_over_calm: Vec<i64>,
}

/// What became of the recovery records.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Records {
    pub(crate) by_status: std::collections::BTreeMap<String, u64>,
    /// Records with a death.
    pub(crate) deaths: u64,
    /// Deaths of executors that were reachable.
    pub(crate) false_deaths: Vec<String>,
    /// Anything else in the records that is not true.
    pub(crate) untrue: Vec<String>,
    /// Killed with work, and no record says so.
    pub(crate) unnoticed: Vec<String>,
}

/// All records of an application, from the API.
pub(crate) async fn records(world: &World, language: Language) -> anyhow::Result<Vec<Recovery>> {
    const PAGE: usize = 500;
    let mut all: Vec<Recovery> = Vec::new();
    loop {
        let path = format!(
            "/v2/orgs/local/apps/{}/recoveries?limit={PAGE}&offset={}",
            language.app(),
            all.len()
        );
        let (status, body) = world.api.call(reqwest::Method::GET, &path, None).await?;
        anyhow::ensure!(status.is_success(), "GET {path}: {status} {body}");
        let page: Vec<Recovery> = serde_json::from_value(body)?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

impl Records {
    /// Compares the records of an application with the lives of its executors.
    pub(crate) fn check(
        &mut self,
        records: &[Recovery],
        lives: &HashMap<String, Life>,
        kills: &[Kill],
        told_to_end: &HashSet<String>,
        grace_ms: Millis,
    ) {
        for record in records {
            *self.by_status.entry(record.status.clone()).or_default() += 1;
            if !record.is_final() {
                self.untrue.push(format!("not over in the end: {record:?}"));
            }
            if record.dead_at.is_some() {
                self.deaths += 1;
                // Whoever says goodbye is not waited for.
                let grace_ms = if told_to_end.contains(&record.executor_id) {
                    0
                } else {
                    grace_ms
                };
                self.check_death(record, lives, grace_ms);
            }
            for attempt in &record.attempts {
                let life = lives.get(&attempt.executor_id);
                if life.is_some_and(|life| life.version != record.app_version) {
                    self.untrue
                        .push(format!("offered to another version: {record:?}"));
                }
                if attempt.executor_id == record.executor_id {
                    self.untrue.push(format!("offered to the dead: {record:?}"));
                }
            }
        }
        for kill in kills {
            let told = records
                .iter()
                .any(|record| record.executor_id == kill.executor && record.dead_at.is_some());
            let connected = lives
                .get(&kill.executor)
                .is_some_and(|life| life.was_reachable(kill.at - REACHABLE, kill.at - 100));
            if !kill.came_back && !kill.running.is_empty() && connected && !told {
                self.unnoticed
                    .push(format!("{} with {:?}", kill.executor, kill.running));
            }
        }
    }

    fn check_death(&mut self, record: &Recovery, lives: &HashMap<String, Life>, grace_ms: Millis) {
        let Some(dead_at) = record.dead_at.map(|at| at.timestamp_millis()) else {
            return;
        };
        let waited = dead_at - record.disconnected_at.timestamp_millis();
        if waited < grace_ms - ROUNDING {
            self.untrue
                .push(format!("dead after {waited} ms of grace: {record:?}"));
        }
        let Some(life) = lives.get(&record.executor_id) else {
            return;
        };
        if life.was_reachable(dead_at - REACHABLE, dead_at) {
            let changes: Vec<_> = life
                .reachable
                .iter()
                .filter(|(at, _)| (dead_at - 60_000..dead_at + 5000).contains(at))
                .map(|(at, so)| (at - dead_at, *so))
                .collect();
            self.false_deaths.push(format!(
                "{record:?}; reachable, relative to death: {changes:?}"
            ));
        }
    }
}

impl Times {
    /// What the kills of an application's executors took.
    pub(crate) fn measure(
        &mut self,
        world: &World,
        kills: &[&Kill],
        records: &[Recovery],
        traces: &Traces,
    ) {
        let grace_ms = Millis::try_from(world.args.grace).unwrap_or_default() * 1000;
        let mut motion: HashMap<&str, Vec<(Millis, &str)>> = HashMap::new();
        for effect in &traces.effects {
            motion
                .entry(&effect.workflow_id)
                .or_default()
                .push((effect.at, &effect.executor_id));
        }
        // One whose last step was done has only its outcome left.
        for change in traces.changes.iter().filter(|c| c.new == "SUCCESS") {
            motion
                .entry(&change.workflow_id)
                .or_default()
                .push((change.at, ""));
        }
        for kill in kills.iter().filter(|kill| !kill.came_back) {
            let record = records.iter().find(|record| {
                record.executor_id == kill.executor
                    && record.disconnected_at.timestamp_millis() >= kill.at - ROUNDING
                    && record.dead_at.is_some()
            });
            let Some(record) = record else { continue };
            self.detection
                .push(record.disconnected_at.timestamp_millis() - kill.at);
            let end_of_grace = kill.at + grace_ms;
            let calm = world
                .truth
                .was_calm(kill.at - BEFORE, end_of_grace + BEFORE);
            for workflow in &kill.running {
                let moves = motion.get(workflow.as_str()).into_iter().flatten();
                let next = moves
                    .filter(|(at, who)| *at > kill.at && *who != kill.executor)
                    .map(|(at, _)| *at)
                    .min();
                let Some(next) = next else { continue };
                self.hand_over.push(next - end_of_grace);
                if calm {
                    self.hand_over_calm.push(next - end_of_grace);
                }
            }
        }
    }
}

/// Lines of logs that no fault explains.
pub(crate) fn panics(logs: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let path = entry?.path();
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let lines = text.lines().filter(|line| line.contains("panicked at"));
        found.extend(lines.map(|line| format!("{}: {line}", path.display())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(dead_at: Millis) -> Recovery {
        let time = |ms| chrono::DateTime::from_timestamp_millis(ms).unwrap();
        serde_json::from_value(serde_json::json!({
            "id": "r", "executorId": "e", "appVersion": "v1", "status": "RECOVERED", "reason": null,
            "pendingWorkflows": 1, "disconnectedAt": time(10_000), "deadAt": time(dead_at),
            "dispatchedAt": null, "completedAt": null, "recoveredBy": null, "attempts": [],
        }))
        .unwrap()
    }

    fn checked(dead_at: Millis, reachable: Vec<(Millis, bool)>) -> Records {
        let life = Life {
            language: Language::Rust,
            version: "v1".into(),
            reachable,
            served: Vec::new(),
        };
        let mut records = Records::default();
        let lives = HashMap::from([("e".to_owned(), life)]);
        records.check(&[record(dead_at)], &lives, &[], &HashSet::new(), 5000);
        records
    }

    #[test]
    fn a_death_of_one_who_is_there_is_false() {
        let gone = checked(15_000, vec![(0, true), (10_000, false)]);
        assert!(gone.false_deaths.is_empty() && gone.untrue.is_empty());
        let back = checked(15_000, vec![(0, true), (10_000, false), (11_000, true)]);
        assert_eq!(back.false_deaths.len(), 1);
        let early = checked(14_000, vec![(0, true), (10_000, false)]);
        assert_eq!(early.untrue.len(), 1);
    }
}
