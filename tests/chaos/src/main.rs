//! Chaos: instances of Segno, executors in two languages and their databases are killed, cut off, stopped and
//! filled at random while workflows run, and then it is checked what really happened.
//!
//! ```sh
//! cargo build --workspace --bins
//! target/debug/chaos --minutes 5 --seed 7 --report /tmp/chaos
//! target/debug/chaos --merge docs/reliability
//! ```

mod args;
mod callers;
mod evidence;
mod faults;
mod fleet;
mod judge;
mod oracle;
mod postgres;
mod report;
mod run;
mod truth;
mod workload;
mod world;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    if let Some(directory) = &args.merge {
        report::merge(directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    run::run(args, stopped).await
}
