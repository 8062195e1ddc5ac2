//! The figures, as JSON for machines and as a table for people.

use std::time::Duration;

use serde::Serialize;

use crate::load::Outcome;
use crate::report::{Machine, ms};

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// How long a lost executor is waited for, seconds.
    grace: u64,
    handovers: Vec<Handovers>,
    masses: Vec<Mass>,
}

/// Hand-overs of one kind. Times are milliseconds beyond the grace, where there is one.
#[derive(Debug, Serialize)]
pub(super) struct Handovers {
    name: String,
    lost: usize,
    /// Nobody was asked to recover these.
    forgotten: usize,
    /// Offers of work of executors that were there.
    false_offers: usize,
    first: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    last: f64,
    aim: u32,
}

/// Very many at once.
#[derive(Debug, Serialize)]
pub(super) struct Mass {
    pub(super) instances: usize,
    /// Executors, those that died included.
    pub(super) connected: usize,
    pub(super) handovers: Handovers,
    /// Until no lost executor was shown any more, seconds from the kill.
    pub(super) settled_in: f64,
    /// Connections of others lost meanwhile: should be none.
    pub(super) lost_meanwhile: u64,
    pub(super) before: Outcome,
    pub(super) meanwhile: Outcome,
    /// Then one of several instances was killed.
    pub(super) moved: Option<Move>,
}

/// What became of the living executors of an instance that was killed.
#[derive(Debug, Serialize)]
pub(super) struct Move {
    /// How many it held, at least.
    pub(super) executors: u64,
    /// Until the last one was connected to another instance, seconds.
    pub(super) connected_in: f64,
    /// Until the API showed all of them HEALTHY.
    pub(super) healthy_in: f64,
    /// Executors declared dead: each is a false death.
    pub(super) false_deaths: usize,
    /// What callers of the other instances got.
    pub(super) meanwhile: Outcome,
}

impl Handovers {
    /// `waits`: from each loss to its hand-over. `aim`: milliseconds after `grace` for 99 of a hundred.
    pub(super) fn of(
        name: &str,
        waits: &[Option<Duration>],
        grace: Duration,
        aim: u32,
        false_offers: usize,
    ) -> Self {
        let beyond = |wait: &Duration| (wait.as_secs_f64() - grace.as_secs_f64()) * 1000.0;
        let mut all: Vec<f64> = waits.iter().flatten().map(beyond).collect();
        all.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (all.len().saturating_sub(1)) as f64 * share;
            all.get(index.round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self {
            name: name.to_owned(),
            lost: waits.len(),
            forgotten: waits.iter().filter(|wait| wait.is_none()).count(),
            false_offers,
            first: at(0.0),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            last: at(1.0),
            aim,
        }
    }

    fn print(&self) {
        let met = self.p99 <= f64::from(self.aim) && self.forgotten == 0;
        println!(
            "  {:28}{:6}{:9.0}{:9.0}{:9.0}{:9.0}{:9.0}   {:>6} {}{}",
            self.name,
            self.lost,
            self.first,
            self.p50,
            self.p90,
            self.p99,
            self.last,
            self.aim,
            if met { "met" } else { "MISSED" },
            match (self.forgotten, self.false_offers) {
                (0, 0) => String::new(),
                (forgotten, offers) =>
                    format!("; {forgotten} FORGOTTEN, {offers} offers of the living"),
            }
        );
    }
}

impl Report {
    pub(super) fn new(machine: Machine, grace: u64) -> Self {
        Self {
            machine,
            grace,
            handovers: Vec::new(),
            masses: Vec::new(),
        }
    }

    pub(super) fn print_head(&self) {
        println!("\nHand-over, grace {} s. {:?}", self.grace, self.machine);
        println!(
            "  {:28}{:>6}{:>9}{:>9}{:>9}{:>9}{:>9}   {:>6}",
            "milliseconds beyond grace", "lost", "first", "p50", "p90", "p99", "last", "aim"
        );
    }

    pub(super) fn add(&mut self, handovers: Handovers) {
        handovers.print();
        self.handovers.push(handovers);
    }

    /// The same as the last, of another control plane.
    pub(super) fn compare(&mut self, theirs: Handovers) {
        theirs.print();
        if let Some(ours) = self.handovers.last() {
            let grace = self.grace as f64 * 1000.0;
            println!(
                "  theirs : ours, beyond grace p50 {:.1}, p99 {:.1}; with the grace p50 {:.2}, p99 {:.2}",
                theirs.p50 / ours.p50,
                theirs.p99 / ours.p99,
                (grace + theirs.p50) / (grace + ours.p50),
                (grace + theirs.p99) / (grace + ours.p99),
            );
        }
        self.handovers.push(theirs);
    }

    pub(super) fn add_mass(&mut self, mass: Mass) {
        mass.handovers.print();
        println!(
            "    {} executors connected, {} of others lost meanwhile; nobody lost shown {:.1} s after the kill",
            mass.connected, mass.lost_meanwhile, mass.settled_in
        );
        print_calls("before", &mass.before);
        print_calls("meanwhile", &mass.meanwhile);
        if let Some(moved) = &mass.moved {
            println!(
                "    an instance killed: {} executors connected to others in {:.1} s, HEALTHY in {:.1} s, {} false deaths",
                moved.executors, moved.connected_in, moved.healthy_in, moved.false_deaths
            );
            print_calls("meanwhile", &moved.meanwhile);
        }
        self.masses.push(mass);
    }
}

fn print_calls(when: &str, calls: &Outcome) {
    let (total, late) = (&calls.total, &calls.late);
    println!(
        "    API {when:10} {:5} calls, {} failed; p50 {:.1}, p99 {:.1}, max {:.1} ms, of which sent late p99 {:.1} ms",
        calls.calls,
        calls.failed,
        ms(total.p50_us),
        ms(total.p99_us),
        ms(total.max_us),
        ms(late.p99_us)
    );
}
