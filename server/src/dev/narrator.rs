//! Tells, as it happens, what becomes of executors and of the work of lost ones.
//!
//! Level-triggered: it looks at the API five times a second and says what changed. All times it
//! tells are the server's own, so looking late makes no recovery look slower or faster than it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::client::{Client, Executor, Recovery, Step, Workflow};
use super::fleet::Roster;
use super::terminal::{Terminal, Tone, count, seconds, short};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A line of numbers when nothing else was said for this long.
const TALLY_AFTER: Duration = Duration::from_secs(20);
/// Workflows of one loss whose steps are compared before and after.
const COMPARE_AT_MOST: usize = 25;

/// The last look, for whoever decides about replacements.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    pub(super) executors: Vec<Executor>,
    pub(super) recoveries: Vec<Recovery>,
}

/// What the narrator needs to give exact commands.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    /// Starts one more executor; `{version}` stands for the version.
    pub(super) start_version: Option<String>,
    /// Seconds an executor may be away.
    pub(super) grace_secs: u32,
}

/// What is known of one loss, and what was already said of it.
#[derive(Default)]
struct Loss {
    told_lost: bool,
    told_dead: bool,
    told_dispatched: bool,
    told_stranded: Option<String>,
    told_end: bool,
    told_motion: bool,
    told_finished: bool,
    work: BTreeMap<String, Work>,
}

/// One workflow that stood under a lost executor's name.
#[derive(Default)]
struct Work {
    checkpointed: Vec<Step>,
    taken_by: Option<String>,
    over: Option<Workflow>,
}

pub(super) struct Narrator {
    client: Client,
    terminal: Terminal,
    roster: Roster,
    hints: Hints,
    known: HashMap<(String, String), bool>,
    versions: BTreeSet<String>,
    losses: HashMap<String, Loss>,
    explained_stranded: bool,
    last_line: Instant,
    last_tally: BTreeMap<String, i64>,
    first_look: bool,
    unanswered: usize,
}

impl Narrator {
    pub(super) fn new(client: Client, terminal: Terminal, roster: Roster, hints: Hints) -> Self {
        Self {
            client,
            terminal,
            roster,
            hints,
            known: HashMap::new(),
            versions: BTreeSet::new(),
            losses: HashMap::new(),
            explained_stranded: false,
            last_line: Instant::now(),
            last_tally: BTreeMap::new(),
            first_look: true,
            unanswered: 0,
        }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self, sight: watch::Sender<Sight>) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.look(&sight).await {
                Ok(()) => self.unanswered = 0,
                Err(error) => {
                    self.unanswered += 1;
                    // One failed look is nothing; the next is in 200 ms.
                    if self.unanswered == 10 {
                        let text = format!("the server does not answer: {error:#}");
                        self.say(Tone::Attention, &text);
                    }
                }
            }
        }
    }

    async fn look(&mut self, sight: &watch::Sender<Sight>) -> anyhow::Result<()> {
        let executors = self.client.executors().await?;
        let recoveries = self.client.recoveries().await?;
        self.tell_arrivals(&executors);
        for recovery in recoveries.iter().rev() {
            self.tell_recovery(recovery, &executors).await;
        }
        self.first_look = false;
        sight.send_replace(Sight {
            executors,
            recoveries,
        });
        self.tell_tally().await;
        Ok(())
    }

    fn say(&mut self, tone: Tone, text: &str) {
        self.last_line = Instant::now();
        self.terminal.say(tone, text);
    }

    fn say_at(&mut self, at: DateTime<Utc>, tone: Tone, text: &str) {
        self.last_line = Instant::now();
        self.terminal.say_at(at, tone, text);
    }

    fn name(&self, executor_id: &str) -> String {
        self.terminal.bold(short(executor_id))
    }

    fn process(&self, executor_id: &str) -> String {
        self.roster
            .get(executor_id)
            .map(|member| format!("executor {}, pid {}, ", member.number, member.pid))
            .unwrap_or_default()
    }

    fn tell_arrivals(&mut self, executors: &[Executor]) {
        for executor in executors {
            let key = (executor.executor_id.clone(), executor.app_version.clone());
            let was_healthy = self.known.insert(key, executor.is_healthy());
            if was_healthy.is_some() || !executor.is_healthy() {
                continue;
            }
            let text = format!(
                "{} connected ({}version {}{})",
                self.name(&executor.executor_id),
                self.process(&executor.executor_id),
                short(&executor.app_version),
                executor
                    .language
                    .as_ref()
                    .map(|l| format!(", {l}"))
                    .unwrap_or_default(),
            );
            self.say(Tone::Good, &text);
            let is_new = self.versions.insert(executor.app_version.clone());
            if is_new && self.versions.len() > 1 {
                self.tell_new_version(executor, executors);
            }
        }
    }

    fn tell_new_version(&mut self, newcomer: &Executor, executors: &[Executor]) {
        let old = executors
            .iter()
            .find(|e| e.is_healthy() && e.app_version != newcomer.app_version);
        let Some(old) = old else { return };
        let mut text = format!(
            "version {} is deployed beside {}. Work stays with the version it began under.",
            self.terminal.bold(short(&newcomer.app_version)),
            short(&old.app_version),
        );
        let pids = self.roster.pids();
        if self.roster.get(&newcomer.executor_id).is_none() && !pids.is_empty() {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            text.push_str(&format!(
                "\nThe executors above are no longer replaced, as after a deployment.\
                 \nTake the old version away and see what becomes of its work:  {}",
                self.terminal.bold(&format!("kill -9 {}", pids.join(" "))),
            ));
        }
        self.say(Tone::Attention, &text);
    }

    async fn tell_recovery(&mut self, recovery: &Recovery, executors: &[Executor]) {
        let mut loss = self.losses.remove(&recovery.id).unwrap_or_default();
        // What ended before we looked for the first time is history, not news.
        if self.first_look && recovery.is_final() {
            loss.told_end = true;
            loss.told_finished = true;
        }
        let done = loss.told_end && (loss.told_finished || loss.work.is_empty());
        if !done {
            self.tell_loss(&mut loss, recovery).await;
            self.tell_dead(&mut loss, recovery);
            self.tell_stranded(&mut loss, recovery, executors);
            self.tell_dispatched(&mut loss, recovery);
            self.tell_end(&mut loss, recovery);
            // One failed look at the workflows is made good by the next.
            let _ = self.follow(&mut loss, recovery).await;
        }
        self.losses.insert(recovery.id.clone(), loss);
    }

    async fn tell_loss(&mut self, loss: &mut Loss, recovery: &Recovery) {
        if loss.told_lost || recovery.status == "NOTHING_PENDING" {
            return;
        }
        loss.told_lost = true;
        let pending = self
            .client
            .pending_of(&recovery.executor_id, &recovery.app_version)
            .await
            .unwrap_or_default();
        for workflow in pending {
            let mut work = Work::default();
            if loss.work.len() < COMPARE_AT_MOST {
                let steps = self
                    .client
                    .steps(&workflow.workflow_id)
                    .await
                    .unwrap_or_default();
                work.checkpointed = steps;
            }
            loss.work.insert(workflow.workflow_id, work);
        }
        let how = self
            .roster
            .get(&recovery.executor_id)
            .and_then(|member| member.end)
            .unwrap_or_else(|| "connection lost".to_owned());
        let steps: usize = loss.work.values().map(|w| w.checkpointed.len()).sum();
        let name = self.name(&recovery.executor_id);
        let process = self.process(&recovery.executor_id);
        if loss.work.is_empty() {
            let text = format!("{name} is gone ({process}{how}). It held no workflow.");
            return self.say_at(recovery.disconnected_at, Tone::Bad, &text);
        }
        let text = format!(
            "{name} is gone ({process}{how}). {} {} waiting, {} of them checkpointed. It has {} s to come back.",
            count(loss.work.len(), "workflow"),
            if loss.work.len() == 1 { "is" } else { "are" },
            count(steps, "step"),
            self.hints.grace_secs,
        );
        self.say_at(recovery.disconnected_at, Tone::Bad, &text);
    }

    fn tell_dead(&mut self, loss: &mut Loss, recovery: &Recovery) {
        let untold = !loss.told_dead && !loss.work.is_empty();
        let Some(dead_at) = recovery.dead_at.filter(|_| untold) else {
            return;
        };
        loss.told_dead = true;
        let text = format!(
            "{} is dead: {} without a sign of life.",
            self.name(&recovery.executor_id),
            seconds(recovery.disconnected_at, dead_at),
        );
        self.say_at(dead_at, Tone::Bad, &text);
    }

    fn tell_dispatched(&mut self, loss: &mut Loss, recovery: &Recovery) {
        let Some(at) = recovery.dispatched_at.filter(|_| !loss.told_dispatched) else {
            return;
        };
        let Some(taker) = recovery.recovered_by.as_deref() else {
            return;
        };
        loss.told_dispatched = true;
        let what = match recovery.pending_workflows {
            Some(n) => count(usize::try_from(n).unwrap_or_default(), "workflow"),
            None => "the workflows".to_owned(),
        };
        let process = self.process(taker);
        let process = process.trim_end_matches(", ");
        let text = format!(
            "{what} of {} handed to {}{}, same version {}.",
            short(&recovery.executor_id),
            self.name(taker),
            if process.is_empty() {
                String::new()
            } else {
                format!(" ({process})")
            },
            short(&recovery.app_version),
        );
        self.say_at(at, Tone::Motion, &text);
    }

    fn tell_stranded(&mut self, loss: &mut Loss, recovery: &Recovery, executors: &[Executor]) {
        if recovery.status != "STRANDED" {
            return;
        }
        let reason = recovery.reason.clone().unwrap_or_default();
        if loss.told_stranded.as_ref() == Some(&reason) {
            return;
        }
        loss.told_stranded = Some(reason.clone());
        let what = match recovery.pending_workflows {
            Some(n) => count(usize::try_from(n).unwrap_or_default(), "workflow"),
            None => "the work".to_owned(),
        };
        let why = match reason.as_str() {
            "NO_EXECUTOR" => "no executor is connected that could be asked".to_owned(),
            "NO_MATCHING_VERSION" => format!(
                "it needs version {}, which nobody runs",
                self.terminal.bold(short(&recovery.app_version))
            ),
            "NOT_CONFIRMED" => "it was offered, and still stands under the old name".to_owned(),
            other => other.to_owned(),
        };
        let mut text = format!(
            "{what} of {} STRANDED: {why} ({reason}).",
            self.name(&recovery.executor_id),
        );
        if reason == "NO_MATCHING_VERSION" && !self.explained_stranded {
            self.explained_stranded = true;
            text.push_str("\nNothing is lost, and nothing runs under the wrong code.");
            text.push_str(&self.ways_out(recovery, executors));
        }
        self.say(Tone::Attention, &text);
    }

    fn ways_out(&self, recovery: &Recovery, executors: &[Executor]) -> String {
        let mut text = String::from("\nThe ways out:");
        if let Some(start) = &self.hints.start_version {
            text.push_str(&format!(
                "\n  bring the version back   {}",
                start.replace("{version}", &recovery.app_version)
            ));
        }
        let post = format!(
            "curl -X POST -H 'content-type: application/json' {}/recoveries/{}",
            self.client.base(),
            recovery.id
        );
        if let Some(other) = executors.iter().find(|e| e.is_healthy()) {
            text.push_str(&format!(
                "\n  fork it to {:<13} {post}/assign -d '{{\"appVersion\":\"{}\"}}'",
                short(&other.app_version),
                other.app_version,
            ));
        }
        text.push_str(&format!(
            "\n  give it up               {post}/abandon -d '{{\"reason\":\"not wanted\"}}'"
        ));
        text
    }

    fn tell_end(&mut self, loss: &mut Loss, recovery: &Recovery) {
        if loss.told_end || !recovery.is_final() {
            return;
        }
        loss.told_end = true;
        let name = self.name(&recovery.executor_id);
        let at = recovery.completed_at.unwrap_or_else(Utc::now);
        let away = seconds(recovery.disconnected_at, at);
        let (tone, text) = match recovery.status.as_str() {
            "NOTHING_PENDING" => (
                Tone::Quiet,
                format!("{name} left, and left nothing behind."),
            ),
            "REJOINED" => {
                loss.work.clear();
                (
                    Tone::Good,
                    format!("{name} is back after {away}. Nothing was taken from it."),
                )
            }
            "ABANDONED" => {
                loss.work.clear();
                (Tone::Quiet, format!("the work of {name} was given up."))
            }
            // Nobody took it over as it was: an operator (or the application's policy) moved it.
            _ if recovery.recovered_by.is_none() => {
                loss.work.clear();
                let text = format!(
                    "the work of {name} goes on as forks under the version it was assigned to; \
                     the originals end as CANCELLED."
                );
                (Tone::Motion, text)
            }
            _ => (
                Tone::Quiet,
                format!(
                    "recovery of {name} confirmed after {away}: nothing is left under its name."
                ),
            ),
        };
        self.say_at(at, tone, &text);
    }

    /// Watches the workflows of a loss until each has moved, and each is over.
    async fn follow(&mut self, loss: &mut Loss, recovery: &Recovery) -> anyhow::Result<()> {
        let open: Vec<String> = loss
            .work
            .iter()
            .filter(|(_, work)| work.over.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        if open.is_empty() || recovery.dispatched_at.is_none() {
            return Ok(());
        }
        for workflow in self.client.workflows(&open).await? {
            let Some(work) = loss.work.get_mut(&workflow.workflow_id) else {
                continue;
            };
            let owner = workflow
                .executor_id
                .clone()
                .filter(|id| *id != recovery.executor_id);
            if workflow.status != "ENQUEUED" && work.taken_by.is_none() {
                work.taken_by = owner;
            }
            if !workflow.is_active() {
                work.over = Some(workflow);
            }
        }
        if !loss.told_motion
            && loss
                .work
                .values()
                .all(|w| w.taken_by.is_some() || w.over.is_some())
        {
            loss.told_motion = true;
            self.tell_motion(loss, recovery);
        }
        if loss.work.values().all(|w| w.over.is_some()) {
            loss.told_finished = true;
            self.tell_finished(loss, recovery).await;
        }
        Ok(())
    }

    fn tell_motion(&mut self, loss: &Loss, recovery: &Recovery) {
        let mut takers: BTreeMap<&str, usize> = BTreeMap::new();
        for taker in loss.work.values().filter_map(|w| w.taken_by.as_deref()) {
            *takers.entry(taker).or_default() += 1;
        }
        let shares: Vec<String> = takers
            .iter()
            .map(|(id, n)| format!("{n} in {}", self.name(id)))
            .collect();
        let text = format!(
            "{} of {} back in motion {} after the loss: {}.",
            count(loss.work.len(), "workflow"),
            short(&recovery.executor_id),
            seconds(recovery.disconnected_at, Utc::now()),
            shares.join(", "),
        );
        self.say(Tone::Motion, &text);
    }

    async fn tell_finished(&mut self, loss: &Loss, recovery: &Recovery) {
        let over = || loss.work.values().filter_map(|w| w.over.as_ref());
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for workflow in over() {
            *ends.entry(workflow.status.as_str()).or_default() += 1;
        }
        let ends: Vec<String> = ends
            .iter()
            .map(|(status, n)| format!("{n} {status}"))
            .collect();
        let last = over()
            .filter_map(|w| w.completed_at)
            .max()
            .unwrap_or_else(Utc::now);
        let (kept, repeated) = self.compare(loss).await;
        let steps = match (kept, repeated) {
            (_, 1..) => format!("{repeated} checkpointed steps were recorded anew: that is a bug"),
            (0, 0) => "none had a checkpoint yet".to_owned(),
            (n, 0) => format!("{} kept, none ran again", count(n, "checkpointed step")),
        };
        let text = format!(
            "all {} of {} finished ({}), the last {} after the loss; {steps}.",
            count(loss.work.len(), "workflow"),
            short(&recovery.executor_id),
            ends.join(", "),
            seconds(recovery.disconnected_at, last),
        );
        let tone = if repeated == 0 { Tone::Good } else { Tone::Bad };
        self.say_at(last, tone, &text);
    }

    /// How many steps that were checkpointed at the loss stand unchanged, and how many do not.
    async fn compare(&self, loss: &Loss) -> (usize, usize) {
        let (mut kept, mut repeated) = (0, 0);
        for (id, work) in loss.work.iter().filter(|(_, w)| !w.checkpointed.is_empty()) {
            let Ok(now) = self.client.steps(id).await else {
                continue;
            };
            for step in &work.checkpointed {
                if now.contains(step) {
                    kept += 1;
                } else {
                    repeated += 1;
                }
            }
        }
        (kept, repeated)
    }

    async fn tell_tally(&mut self) {
        if self.last_line.elapsed() < TALLY_AFTER {
            return;
        }
        self.last_line = Instant::now();
        let Ok(tally) = self.client.tally().await else {
            return;
        };
        if tally.is_empty() || tally == self.last_tally {
            return;
        }
        let parts: Vec<String> = tally
            .iter()
            .map(|(s, n)| format!("{n} {}", s.to_lowercase()))
            .collect();
        self.terminal
            .say(Tone::Quiet, &format!("workflows: {}", parts.join(", ")));
        self.last_tally = tally;
    }
}
