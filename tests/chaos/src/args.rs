//! What a run is like.

use std::path::PathBuf;

use clap::Parser;

/// Kills, cuts and fills everything at random while applications work, then checks what happened.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// How long there are faults
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,

    /// Decides what is hurt when, and how [default: a random one, which is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// Directory that gets report-SEED.json and report-SEED.md
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,

    /// Instead of a run: sums the reports of this directory up in its README.md
    #[arg(long, value_name = "DIR", conflicts_with = "report")]
    pub(crate) merge: Option<PathBuf>,

    /// Instances of Segno
    #[arg(long, default_value_t = 3)]
    pub(crate) instances: usize,

    /// Executors of each language and version (two versions each)
    #[arg(long, default_value_t = 2)]
    pub(crate) executors: usize,

    /// Workflows started a second
    #[arg(long, default_value_t = 20.0)]
    pub(crate) rate: f64,

    /// Longest that a step works, milliseconds
    #[arg(long, default_value_t = 300)]
    pub(crate) step_ms: u64,

    /// Seconds that a lost executor gets before it is dead
    #[arg(long, default_value_t = 5)]
    pub(crate) grace: u64,

    /// REST calls a second
    #[arg(long, default_value_t = 4.0)]
    pub(crate) calls: f64,

    /// Multiplies the pauses between faults
    #[arg(long, default_value_t = 1.0)]
    pub(crate) calmer: f64,

    /// Only these faults, by the names in the report (to look at one)
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Python with the official SDK [default: the environment that tests/sdk makes]
    #[arg(long)]
    pub(crate) python: Option<PathBuf>,

    /// Keep databases' and processes' files after a clean run too
    #[arg(long)]
    pub(crate) keep: bool,
}
