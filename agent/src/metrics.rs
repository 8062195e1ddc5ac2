//! What this process has done since launch, in figures.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::app::{RecorderStats, Segno};
use crate::error::Error;

/// Counters of a runtime.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) dequeued: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    set_aside: AtomicU64,
    pub(crate) stopped: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) step_failures: AtomicU64,
}

impl Counters {
    /// One more.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// An outcome that was recorded.
    pub(crate) fn outcome(&self, error: Option<&Error>) {
        Self::count(match error {
            None => &self.succeeded,
            Some(error) if error.parks() => &self.set_aside,
            Some(_) => &self.failed,
        });
    }
}

/// Figures of an application in this process; see [`Segno::metrics`]. Written with `{}` they are in the text
/// format of Prometheus.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Name of the application.
    pub application: String,
    /// Runs that are here now, those that wait or sleep included.
    pub running: u64,
    /// Runs that began here directly.
    pub started: u64,
    /// Runs that were taken from a queue, recovered ones included.
    pub dequeued: u64,
    /// Runs that ended here with a result.
    pub succeeded: u64,
    /// Runs that ended here with an error.
    pub failed: u64,
    /// Runs that were set aside here: their code differs from their record, or they cannot be read.
    pub set_aside: u64,
    /// Runs that stopped here because they were cancelled, taken over or handed back.
    pub stopped: u64,
    /// Runs whose code panicked.
    pub panicked: u64,
    /// Runs of dead executors that were returned to their queues by this process.
    pub recovered: u64,
    /// Attempts of steps that succeeded; replayed steps do not count.
    pub steps: u64,
    /// Attempts of steps that failed.
    pub step_failures: u64,
    /// What the recorder wrote.
    pub recorder: RecorderStats,
    /// The whole process, where the system tells (Linux).
    pub process: Option<ProcessMetrics>,
}

/// Figures of the whole process.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ProcessMetrics {
    /// Memory in use, bytes.
    pub resident_memory_bytes: u64,
    /// Time on processors since its start, seconds.
    pub cpu_seconds: f64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessMetrics {
    /// What `/proc` says of this process.
    fn read() -> Option<Self> {
        // The unit of times in /proc, the same on every Linux of today.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, the program's name, may contain anything; after its parenthesis is the third.
        let (_, rest) = stat.rsplit_once(") ")?;
        let field = |number: usize| rest.split(' ').nth(number - 3)?.parse::<u64>().ok();
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        let ticks = field(14)?.saturating_add(field(15)?);
        Some(Self {
            resident_memory_bytes: kib.saturating_mul(1024),
            cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            threads: field(20)?,
        })
    }
}

impl Segno {
    /// What this process has done since launch, to be shown by the application's own `/metrics`, say.
    ///
    /// ```no_run
    /// # fn example(app: segno::Segno) {
    /// let figures = app.metrics();
    /// println!("{} runs here", figures.running);
    /// println!("{figures}"); // for Prometheus
    /// # }
    /// ```
    pub fn metrics(&self) -> Metrics {
        let runtime = self.runtime();
        let counters = &runtime.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            application: self.name().to_owned(),
            running: runtime.running_count() as u64,
            started: read(&counters.started),
            dequeued: read(&counters.dequeued),
            succeeded: read(&counters.succeeded),
            failed: read(&counters.failed),
            set_aside: read(&counters.set_aside),
            stopped: read(&counters.stopped),
            panicked: read(&counters.panicked),
            recovered: read(&counters.recovered),
            steps: read(&counters.steps),
            step_failures: read(&counters.step_failures),
            recorder: self.recorder_stats(),
            process: ProcessMetrics::read(),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let application = label(&self.application);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, f64)]| {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            samples
                .iter()
                .try_for_each(|(labels, value)| match *labels {
                    "-" => writeln!(f, "{name} {value}"),
                    "" => writeln!(f, "{name}{{application=\"{application}\"}} {value}"),
                    labels => writeln!(
                        f,
                        "{name}{{application=\"{application}\",{labels}}} {value}"
                    ),
                })
        };
        let count = |value: u64| value as f64;
        family(
            "segno_workflows_running",
            "gauge",
            "Runs in this process now.",
            &[("", count(self.running))],
        )?;
        let begun = [
            ("how=\"started\"", count(self.started)),
            ("how=\"dequeued\"", count(self.dequeued)),
        ];
        family(
            "segno_workflows_begun_total",
            "counter",
            "Runs that began in this process.",
            &begun,
        )?;
        let ended = [
            ("how=\"succeeded\"", count(self.succeeded)),
            ("how=\"failed\"", count(self.failed)),
            ("how=\"set_aside\"", count(self.set_aside)),
            ("how=\"stopped\"", count(self.stopped)),
            ("how=\"panicked\"", count(self.panicked)),
        ];
        family(
            "segno_workflows_ended_total",
            "counter",
            "Runs that ended in this process.",
            &ended,
        )?;
        let recovered = [("", count(self.recovered))];
        family(
            "segno_workflows_recovered_total",
            "counter",
            "Runs of dead executors returned to their queues.",
            &recovered,
        )?;
        let steps = [
            ("outcome=\"success\"", count(self.steps)),
            ("outcome=\"error\"", count(self.step_failures)),
        ];
        family(
            "segno_step_attempts_total",
            "counter",
            "Attempts of steps.",
            &steps,
        )?;
        let recorder = self.recorder;
        family(
            "segno_recorder_commits_total",
            "counter",
            "Commits of checkpoints.",
            &[("", count(recorder.commits))],
        )?;
        family(
            "segno_recorder_rows_total",
            "counter",
            "Checkpoints committed.",
            &[("", count(recorder.rows))],
        )?;
        family(
            "segno_recorder_retries_total",
            "counter",
            "Batches written again.",
            &[("", count(recorder.retries))],
        )?;
        let Some(process) = self.process else {
            return Ok(());
        };
        let memory = [("-", count(process.resident_memory_bytes))];
        family(
            "process_resident_memory_bytes",
            "gauge",
            "Memory in use.",
            &memory,
        )?;
        family(
            "process_cpu_seconds_total",
            "counter",
            "Time on processors.",
            &[("-", process.cpu_seconds)],
        )?;
        family(
            "process_open_fds",
            "gauge",
            "Open files and sockets.",
            &[("-", count(process.open_fds))],
        )?;
        family(
            "process_threads",
            "gauge",
            "Threads.",
            &[("-", count(process.threads))],
        )
    }
}

/// A value as a label has it.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
