//! Processes that can be killed, and their output when a test fails.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A binary of this workspace, in the target directory that this test was built into.
///
/// # Errors
/// When it was not built, with the command that builds it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // …/debug/deps/recovery-0123 -> …/debug; programs are there themselves.
    let directory = test.parent().context("the test has no directory")?;
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    let binary = directory.join(name);
    anyhow::ensure!(
        binary.exists(),
        "{} is missing: run `cargo build {}--bin {name}` first",
        binary.display(),
        if directory.ends_with("release") {
            "--release "
        } else {
            ""
        },
    );
    Ok(binary)
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    pid: u32,
}

impl Process {
    /// Starts `command` with its output in `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            pid,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // `id` is None once it was waited for: then the number may be somebody else's.
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.with_context(|| format!("{} has ended", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// `kill -9`, and the certainty that it is dead. Returns when it was sent, in epoch milliseconds.
    ///
    /// # Errors
    /// When it was not running any more.
    pub async fn kill(&mut self) -> anyhow::Result<i64> {
        let at = crate::now_ms();
        self.signal(Signal::KILL)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(
            status.signal() == Some(9),
            "{} had ended before: {status}",
            self.name
        );
        Ok(at)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        tokio::time::timeout(deadline, self.child.wait())
            .await
            .with_context(|| format!("{} still runs after {deadline:?}", self.name))?
            .map_err(Into::into)
    }

    /// SIGTERM, then the exit status.
    ///
    /// # Errors
    /// When it does not end within `deadline`.
    pub async fn stop(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(deadline).await
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "---- last output of {} ----\n{}",
                self.name,
                tail.join("\n")
            );
        }
    }
}
