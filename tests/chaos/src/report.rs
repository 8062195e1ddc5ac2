//! The report of a run, as JSON and as a page, and the sum of several.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::judge::Times;

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) commit: String,
    pub(crate) began: String,
    pub(crate) minutes: f64,
    pub(crate) grace_seconds: u64,
    pub(crate) instances: usize,
    pub(crate) executors: BTreeMap<String, usize>,
    pub(crate) workflows: u64,
    pub(crate) forks: u64,
    pub(crate) acknowledged_starts: u64,
    pub(crate) executions_of_steps: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) skipped_faults: BTreeMap<String, String>,
    pub(crate) recoveries: BTreeMap<String, u64>,
    pub(crate) deaths: u64,
    pub(crate) false_deaths: u64,
    pub(crate) calls: BTreeMap<String, u64>,
    pub(crate) mutations: u64,
    pub(crate) mutations_repeated: u64,
    pub(crate) mutations_replayed: u64,
    pub(crate) mutations_unanswered: u64,
    pub(crate) mutations_undecided: u64,
    pub(crate) begun_unknowing: u64,
    pub(crate) heal_seconds: f64,
    pub(crate) times: Times,
    /// By kind; a clean run has none.
    pub(crate) violations: BTreeMap<String, Vec<String>>,
}

/// Everything that must be nought, as the page names it.
pub(crate) const VERDICTS: [&str; 11] = [
    "lost",
    "failed",
    "duplicated",
    "executed after the checkpoint",
    "wrong version",
    "broken history",
    "mutation not once",
    "false death",
    "record untrue",
    "death unnoticed",
    "seen on the way",
];

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.values().all(Vec::is_empty)
    }

    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory)?;
        let stem = directory.join(format!("report-{}", self.seed));
        // In one line: most of it are times, one for each kill and each workflow that it hit.
        let json = serde_json::to_string(self)? + "\n";
        std::fs::write(stem.with_extension("json"), json)?;
        std::fs::write(stem.with_extension("md"), self.page())?;
        Ok(())
    }

    /// The page of one run.
    pub(crate) fn page(&self) -> String {
        let mut page = format!("# Chaos, seed {}\n\n", self.seed);
        let _ = writeln!(
            page,
            "{} · commit `{}` · {:.0} minutes of faults · {} instances, executors: {} · grace {} s\n",
            self.began,
            self.commit,
            self.minutes,
            self.instances,
            self.executors
                .iter()
                .map(|(language, n)| format!("{n} {language}"))
                .collect::<Vec<_>>()
                .join(", "),
            self.grace_seconds,
        );
        page += &self.tables();
        for (kind, found) in &self.violations {
            for each in found.iter().take(20) {
                let _ = writeln!(page, "- **{kind}**: {each}");
            }
            if found.len() > 20 {
                let _ = writeln!(page, "- **{kind}**: … {} more", found.len() - 20);
            }
        }
        page
    }

    fn tables(&self) -> String {
        let mut page = String::new();
        page += "| must be 0 | |\n| --- | ---: |\n";
        for kind in VERDICTS {
            let found = self.violations.get(kind).map_or(0, Vec::len);
            let _ = writeln!(page, "| {kind} | {found} |");
        }
        page += "\n| work | |\n| --- | ---: |\n";
        for (what, n) in [
            ("workflows", self.workflows),
            ("of them forks made over REST", self.forks),
            ("acknowledged starts", self.acknowledged_starts),
            ("executions of steps", self.executions_of_steps),
            (
                "steps begun after their checkpoint by a process that had been stopped or cut off",
                self.begun_unknowing,
            ),
            ("REST calls", self.calls.values().sum()),
            ("cancels, resumes and forks answered", self.mutations),
            (
                "sent again after no answer or a 5xx",
                self.mutations_repeated,
            ),
            ("sent again after a yes", self.mutations_replayed),
            ("never answered within 150 s", self.mutations_unanswered),
            (
                "of which a repeat was told that nobody knows whether they were done (409)",
                self.mutations_undecided,
            ),
            ("deaths recorded", self.deaths),
        ] {
            let _ = writeln!(page, "| {what} | {n} |");
        }
        page += "\n| fault | times |\n| --- | ---: |\n";
        for (fault, n) in &self.faults {
            let _ = writeln!(page, "| {fault} | {n} |");
        }
        for (fault, why) in &self.skipped_faults {
            let _ = writeln!(page, "| {fault} | not run: {why} |");
        }
        page += "\n| seconds | p50 | p99 | max | n |\n| --- | ---: | ---: | ---: | ---: |\n";
        for (what, times) in [
            ("kill to disconnected", &self.times.detection),
            ("end of grace to next step", &self.times.hand_over),
            (
                "end of grace to next step, nothing else broken",
                &self.times.hand_over_calm,
            ),
        ] {
            let _ = writeln!(page, "| {what} | {} |", spread(times));
        }
        let _ = writeln!(
            page,
            "\nAfter the last fault everything was mended; {:.1} s later all executors were HEALTHY, all recoveries \
             over and every workflow started until then had ended.\n",
            self.heal_seconds
        );
        for (what, by) in [
            ("REST answers", &self.calls),
            ("Recovery records", &self.recoveries),
        ] {
            let list: Vec<String> = by.iter().map(|(k, n)| format!("{k}: {n}")).collect();
            let _ = writeln!(page, "{what}: {}.\n", list.join(", "));
        }
        page
    }

    fn add(&mut self, other: &Self) {
        self.minutes += other.minutes;
        self.workflows += other.workflows;
        self.forks += other.forks;
        self.acknowledged_starts += other.acknowledged_starts;
        self.executions_of_steps += other.executions_of_steps;
        self.deaths += other.deaths;
        self.false_deaths += other.false_deaths;
        self.mutations += other.mutations;
        self.mutations_repeated += other.mutations_repeated;
        self.mutations_replayed += other.mutations_replayed;
        self.mutations_unanswered += other.mutations_unanswered;
        self.mutations_undecided += other.mutations_undecided;
        self.begun_unknowing += other.begun_unknowing;
        self.heal_seconds = self.heal_seconds.max(other.heal_seconds);
        for (mine, theirs) in [
            (&mut self.faults, &other.faults),
            (&mut self.recoveries, &other.recoveries),
            (&mut self.calls, &other.calls),
        ] {
            for (key, n) in theirs {
                *mine.entry(key.clone()).or_default() += n;
            }
        }
        self.skipped_faults.extend(other.skipped_faults.clone());
        for (kind, found) in &other.violations {
            self.violations
                .entry(kind.clone())
                .or_default()
                .extend(found.iter().cloned());
        }
        let (mine, theirs) = (&mut self.times, &other.times);
        mine.detection.extend(&theirs.detection);
        mine.hand_over.extend(&theirs.hand_over);
        mine.hand_over_calm.extend(&theirs.hand_over_calm);
    }
}

/// `p50 | p99 | max | n` in seconds; nearest rank.
fn spread(times: &[i64]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted
            .get(rank - 1)
            .map_or("–".to_owned(), |ms| format!("{:.2}", *ms as f64 / 1000.0))
    };
    format!("{} | {} | {} | {}", at(50), at(99), at(100), sorted.len())
}

/// What stands above and below the generated part of the summary.
const BEGIN: &str = "<!-- begin: written by `chaos --merge` -->";
const END: &str = "<!-- end -->";

/// Sums all reports of a directory up in its README.md, between two marks.
pub(crate) fn merge(directory: &Path) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let report: Report = serde_json::from_slice(&std::fs::read(&path)?)?;
            reports.push(report);
        }
    }
    reports.sort_by(|a, b| a.began.cmp(&b.began));
    let (first, rest) = reports
        .split_first()
        .ok_or_else(|| anyhow::anyhow!("no reports in {}", directory.display()))?;
    let mut sum = first.clone();
    for report in rest {
        sum.add(report);
    }
    let mut text = format!(
        "\n{} runs, {:.1} hours of faults.\n\n",
        reports.len(),
        sum.minutes / 60.0
    );
    text += &sum.tables();
    text += "| run | seed | minutes | workflows | executors killed | instances killed or ended | violations |\n";
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for report in &reports {
        let times = |fault: &str| report.faults.get(fault).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {} `{}` | [{seed}](report-{seed}.md) | {:.0} | {} | {} | {} | {} |",
            report.began,
            report.commit,
            report.minutes,
            report.workflows,
            times("executor killed"),
            times("instance killed") + times("instance ended"),
            report.violations.values().map(Vec::len).sum::<usize>(),
            seed = report.seed,
        );
    }
    let readme = directory.join("README.md");
    let page = std::fs::read_to_string(&readme).unwrap_or_else(|_| format!("{BEGIN}\n{END}\n"));
    let (before, after) = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)))
        .ok_or_else(|| anyhow::anyhow!("{} lacks the marks", readme.display()))?;
    std::fs::write(&readme, format!("{before}{BEGIN}\n{text}\n{END}{after}"))?;
    Ok(())
}
