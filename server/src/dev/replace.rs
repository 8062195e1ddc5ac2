//! When a lost executor is replaced: what an orchestrator would do, slowed down enough to be watched.

use std::time::{Duration, Instant};

use super::fleet::{Exit, Roster};
use super::narrator::Sight;

/// A dead executor stays away at least this long, so that recovery *by the others* is seen.
const STAYS_AWAY: Duration = Duration::from_secs(10);
/// And is replaced after this even if its recovery cannot end.
const AT_MOST: Duration = Duration::from_secs(60);
/// A process that lived shorter than this did not work at all.
const LIVED: Duration = Duration::from_secs(5);
/// After so many of those in a row it is the command that is broken.
const GIVE_UP_AFTER: usize = 3;

/// A place in the fleet that waits for a new process.
struct Vacancy {
    executor_id: String,
    since: Instant,
}

/// What became of an exit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Replaced later.
    Later,
    /// The command ends again and again at once.
    Hopeless,
}

/// The vacancies and the rule.
#[derive(Default)]
pub(super) struct Replacements {
    vacancies: Vec<Vacancy>,
    short_lived: usize,
    held_back: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Wait,
    /// Start this many.
    Start(usize),
    /// Somebody deployed another version: replacements end. Said once.
    HoldBack,
}

impl Replacements {
    pub(super) fn lost(&mut self, exit: &Exit) -> Verdict {
        self.short_lived = if exit.lived < LIVED && exit.how.contains("exit status") {
            self.short_lived + 1
        } else {
            0
        };
        if self.short_lived >= GIVE_UP_AFTER {
            self.vacancies.clear();
            return Verdict::Hopeless;
        }
        self.vacancies.push(Vacancy {
            executor_id: exit.executor_id.clone(),
            since: Instant::now(),
        });
        Verdict::Later
    }

    pub(super) fn next(&mut self, sight: &Sight, roster: &Roster, now: Instant) -> Next {
        if self.vacancies.is_empty() {
            return Next::Wait;
        }
        if another_version_is_deployed(sight, roster) {
            let first = !self.held_back;
            self.held_back = true;
            return if first { Next::HoldBack } else { Next::Wait };
        }
        self.held_back = false;
        let before = self.vacancies.len();
        self.vacancies
            .retain(|vacancy| !is_due(vacancy, sight, now));
        match before - self.vacancies.len() {
            0 => Next::Wait,
            due => Next::Start(due),
        }
    }
}

/// Nobody to hand over to is a reason to come back; an unfinished hand-over is one to stay away.
fn is_due(vacancy: &Vacancy, sight: &Sight, now: Instant) -> bool {
    let away = now.duration_since(vacancy.since);
    let mut records = sight
        .recoveries
        .iter()
        .filter(|r| r.executor_id == vacancy.executor_id);
    let settled =
        records.all(|record| record.is_final() || record.reason.as_deref() == Some("NO_EXECUTOR"));
    away >= AT_MOST || (away >= STAYS_AWAY && settled)
}

/// A healthy executor that is not of this fleet runs a version that is not the fleet's: a person
/// deploys, and would be surprised by an old version that grows back.
fn another_version_is_deployed(sight: &Sight, roster: &Roster) -> bool {
    let (ours, others): (Vec<_>, Vec<_>) = sight
        .executors
        .iter()
        .partition(|e| roster.get(&e.executor_id).is_some());
    others
        .iter()
        .filter(|e| e.is_healthy())
        .any(|other| ours.iter().all(|own| own.app_version != other.app_version))
}

#[cfg(test)]
mod tests {
    use super::super::client::{Executor, Recovery};
    use super::*;

    fn exit(id: &str, lived: Duration, how: &str) -> Exit {
        Exit {
            executor_id: id.to_owned(),
            number: 1,
            pid: 1,
            how: how.to_owned(),
            lived,
            log: "executor-1.log".into(),
        }
    }

    fn recovery(id: &str, status: &str, reason: Option<&str>) -> Recovery {
        Recovery {
            id: format!("r-{id}"),
            executor_id: id.to_owned(),
            app_version: "v1".to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            pending_workflows: None,
            disconnected_at: chrono::Utc::now(),
            dead_at: None,
            dispatched_at: None,
            completed_at: None,
            recovered_by: None,
        }
    }

    fn killed(id: &str) -> (Replacements, Instant) {
        let mut replacements = Replacements::default();
        let verdict = replacements.lost(&exit(id, Duration::from_secs(30), "killed by SIGKILL"));
        assert_eq!(verdict, Verdict::Later);
        (replacements, Instant::now())
    }

    #[test]
    fn a_killed_executor_stays_away_until_its_work_is_taken() {
        let (mut replacements, now) = killed("a");
        let roster = Roster::default();
        let later = now + STAYS_AWAY;
        let open = Sight {
            recoveries: vec![recovery("a", "DISPATCHING", None)],
            ..Sight::default()
        };
        assert_eq!(replacements.next(&open, &roster, later), Next::Wait);
        let done = Sight {
            recoveries: vec![recovery("a", "RECOVERED", None)],
            ..Sight::default()
        };
        assert_eq!(replacements.next(&done, &roster, now), Next::Wait);
        assert_eq!(replacements.next(&done, &roster, later), Next::Start(1));
        assert_eq!(replacements.next(&done, &roster, later), Next::Wait);
    }

    #[test]
    fn with_nobody_left_it_comes_back_to_take_its_own_work() {
        let (mut replacements, now) = killed("a");
        let stranded = recovery("a", "STRANDED", Some("NO_EXECUTOR"));
        let sight = Sight {
            recoveries: vec![stranded],
            ..Sight::default()
        };
        assert_eq!(
            replacements.next(&sight, &Roster::default(), now + STAYS_AWAY),
            Next::Start(1)
        );
    }

    #[test]
    fn beside_another_version_nothing_is_replaced_and_it_is_said_once() {
        let (mut replacements, now) = killed("a");
        let executors = vec![Executor {
            executor_id: "by-hand".to_owned(),
            app_version: "v2".to_owned(),
            status: "HEALTHY".to_owned(),
            language: None,
        }];
        let sight = Sight {
            executors,
            ..Sight::default()
        };
        let roster = Roster::default();
        assert_eq!(
            replacements.next(&sight, &roster, now + AT_MOST),
            Next::HoldBack
        );
        assert_eq!(
            replacements.next(&sight, &roster, now + AT_MOST),
            Next::Wait
        );
        assert_eq!(
            replacements.next(&Sight::default(), &roster, now + AT_MOST),
            Next::Start(1)
        );
    }

    #[test]
    fn a_command_that_cannot_run_is_not_started_for_ever() {
        let mut replacements = Replacements::default();
        let failed = exit("a", Duration::from_millis(10), "ended with exit status 1");
        assert_eq!(replacements.lost(&failed), Verdict::Later);
        assert_eq!(replacements.lost(&failed), Verdict::Later);
        assert_eq!(replacements.lost(&failed), Verdict::Hopeless);
    }
}
