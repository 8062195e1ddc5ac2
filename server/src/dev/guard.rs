//! The hidden `segno dev-executor`: becomes the application's command, tied to the life of `segno dev`.
//!
//! A developer who kills `segno dev` with -9 must not be left with orphans that go on working. The
//! kernel can deliver a signal when a parent dies, but only the child itself can ask for it; so the
//! child starts as this command, asks, and then *becomes* (exec) the application: same process id.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Arguments of `segno dev-executor`.
#[derive(Debug, clap::Args)]
pub struct Guard {
    /// Process id of the `segno dev` that started this.
    #[arg(long)]
    parent: u32,
    /// The application's command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Guard {
    /// The arguments with which `segno` becomes `command`.
    pub(super) fn arguments(parent: u32, command: &[String]) -> Vec<String> {
        let mut arguments = vec![
            "dev-executor".to_owned(),
            "--parent".to_owned(),
            parent.to_string(),
            "--".to_owned(),
        ];
        arguments.extend_from_slice(command);
        arguments
    }

    /// Becomes the command; returns only when that is impossible.
    pub fn exec(self) -> anyhow::Error {
        if let Err(error) = die_with(self.parent) {
            return error;
        }
        let Some((program, arguments)) = self.command.split_first() else {
            return anyhow::anyhow!("no command given");
        };
        let error = Command::new(program).args(arguments).exec();
        anyhow::Error::new(error).context(format!("cannot run `{program}`"))
    }
}

/// Asks for SIGTERM (so that the application still drains) when `parent` dies.
#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have died before we asked.
    let alive = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() as u32 == parent);
    anyhow::ensure!(alive, "`segno dev` ended before its executor began");
    Ok(())
}

/// No such request elsewhere: there, executors outlive a `kill -9` of `segno dev`.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> anyhow::Result<()> {
    Ok(())
}
