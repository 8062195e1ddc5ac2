//! What was measured, as JSON for machines and as a table for people.

use serde::Serialize;

use crate::database::Store;
use crate::load::Outcome;

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) stores: Vec<Measured>,
}

/// Where it ran: figures of one machine say little about another.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    /// Load average over the last minute when the run began: others at work.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_before = load.split(' ').next().and_then(|text| text.parse().ok());
        Ok(Self {
            processors: std::thread::available_parallelism()?.get(),
            load_before: load_before.unwrap_or(0.0),
        })
    }
}

/// Everything about one store.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) store: Store,
    pub(crate) start: Start,
    /// Resident memory without executors, bytes.
    pub(crate) resident_empty: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) idle: Idle,
    pub(crate) direct: Outcome,
    pub(crate) relayed: Relayed,
    pub(crate) most: Outcome,
    pub(crate) storm: Storm,
}

/// The server from nothing to ready.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    /// Size of the program, console included if it was built with one.
    pub(crate) binary_bytes: u64,
    /// On an empty store: with all migrations, seconds.
    pub(crate) first: f64,
    /// On the store as it is, seconds.
    pub(crate) median: f64,
    pub(crate) slowest: f64,
}

/// So many idle executors.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) executors: usize,
    /// Until all were connected, seconds; they dial at 1,000 a second and process.
    pub(crate) connected_in: f64,
    pub(crate) resident: u64,
    /// (resident - resident_empty) / executors, bytes.
    pub(crate) each: u64,
}

/// The server with all executors and nothing to do.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) executors: usize,
    pub(crate) seconds: f64,
    /// Share of one processor.
    pub(crate) processor: f64,
    /// The same for each 1,000 executors.
    pub(crate) processor_per_thousand: f64,
    /// Connections lost meanwhile: should be none.
    pub(crate) lost: u64,
}

/// Calls at a fixed rate.
#[derive(Debug, Serialize)]
pub(crate) struct Relayed {
    pub(crate) rate: u32,
    pub(crate) outcome: Outcome,
    /// Share of one processor.
    pub(crate) processor: f64,
    /// Resident memory afterwards.
    pub(crate) resident_after: u64,
}

/// The server was killed and started at once.
#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) executors: usize,
    /// Until the new process was ready, seconds.
    pub(crate) ready_in: f64,
    /// From the kill until the last executor had its connection back.
    pub(crate) connected_in: f64,
    /// From the kill until the API shows all of them HEALTHY.
    pub(crate) healthy_in: f64,
    pub(crate) dials: u64,
    pub(crate) refused: u64,
    /// Executors declared dead: each is a false death.
    pub(crate) false_deaths: usize,
    /// Offers of their work.
    pub(crate) offers: u64,
    /// Processor time of the new process until then, seconds.
    pub(crate) processor_time: f64,
    pub(crate) resident_after: u64,
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn mib(bytes: u64) -> f64 {
    kib(bytes) / 1024.0
}

pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Measured {
    /// Prints the table.
    pub(crate) fn print(&self) {
        println!("\n{:?}", self.store);
        println!(
            "  start to /readyz        {:7.0} ms (slowest {:.0}; {:.0} with all migrations)   program {:.1} MiB",
            self.start.median * 1000.0,
            self.start.slowest * 1000.0,
            self.start.first * 1000.0,
            mib(self.start.binary_bytes)
        );
        println!(
            "  without executors       {:7.1} MiB",
            mib(self.resident_empty)
        );
        for step in &self.steps {
            println!(
                "  {:6} idle executors   {:7.1} MiB   {:5.1} KiB each   connected in {:.1} s",
                step.executors,
                mib(step.resident),
                kib(step.each),
                step.connected_in
            );
        }
        let idle = &self.idle;
        println!(
            "  processor at idle       {:6.1} % of one, {:.2} % for 1,000 executors, {} lost",
            idle.processor * 100.0,
            idle.processor_per_thousand * 100.0,
            idle.lost
        );
        println!(
            "  {:26}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "milliseconds", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, spread) in [
            ("direct", &self.direct.total),
            ("relayed", &self.relayed.outcome.total),
            ("added by the relay", &self.relayed.outcome.added),
            ("sent late by callers", &self.relayed.outcome.late),
        ] {
            println!(
                "  {name:26}{:9.2}{:9.2}{:9.2}{:9.2}{:9.2}",
                ms(spread.p50_us),
                ms(spread.p90_us),
                ms(spread.p99_us),
                ms(spread.p999_us),
                ms(spread.max_us)
            );
        }
        let relayed = &self.relayed;
        println!(
            "  at {}/s: {:.0}/s answered, {} failed, {:.0} % of one processor, {:.1} MiB afterwards",
            relayed.rate,
            relayed.outcome.per_second,
            relayed.outcome.failed,
            relayed.processor * 100.0,
            mib(relayed.resident_after)
        );
        println!(
            "  at most: {:.0}/s, {} failed",
            self.most.per_second, self.most.failed
        );
        let storm = &self.storm;
        println!(
            "  restart: ready in {:.1} s, {} connected in {:.1} s, all HEALTHY in {:.1} s ({} dials, {} refused); \
             {} false deaths, {} offers; {:.1} s of processor, {:.1} MiB",
            storm.ready_in,
            storm.executors,
            storm.connected_in,
            storm.healthy_in,
            storm.dials,
            storm.refused,
            storm.false_deaths,
            storm.offers,
            storm.processor_time,
            mib(storm.resident_after)
        );
    }
}
