//! The executors of `segno dev`: processes of the developer's command, made to be killed.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::guard::Guard;
use super::terminal::{Terminal, Tone};

/// One process. Its executor id is given by us, so that a line can name both the id and the process.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) pid: u32,
    /// How it ended, once it did: `killed by SIGKILL`.
    pub(super) end: Option<String>,
}

/// Who is who, shared with the narrator. Ended processes stay: their loss is told after their end.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster(Arc<Mutex<HashMap<String, Member>>>);

impl Roster {
    pub(super) fn get(&self, executor_id: &str) -> Option<Member> {
        self.lock().get(executor_id).cloned()
    }

    /// Process ids that live, oldest first.
    pub(super) fn pids(&self) -> Vec<u32> {
        let members = self.lock();
        let mut living: Vec<_> = members.values().filter(|m| m.end.is_none()).collect();
        living.sort_by_key(|m| m.number);
        living.iter().map(|m| m.pid).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process of the fleet ended.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) executor_id: String,
    pub(super) number: usize,
    pub(super) pid: u32,
    pub(super) how: String,
    pub(super) lived: Duration,
    pub(super) log: PathBuf,
}

/// Starts, watches and stops the processes.
pub(super) struct Fleet {
    program: PathBuf,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    logs: PathBuf,
    terminal: Terminal,
    roster: Roster,
    started: usize,
    handles: HashMap<String, mpsc::UnboundedSender<Signal>>,
    exits: (mpsc::UnboundedSender<Exit>, mpsc::UnboundedReceiver<Exit>),
}

impl Fleet {
    pub(super) fn new(
        command: Vec<String>,
        environment: Vec<(String, String)>,
        logs: PathBuf,
        terminal: Terminal,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("cannot find the running `segno` itself")?,
            command,
            environment,
            logs,
            terminal,
            roster: Roster::default(),
            started: 0,
            handles: HashMap::new(),
            exits: mpsc::unbounded_channel(),
        })
    }

    pub(super) fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// Starts one more process. To be called from the main thread: on Linux a child is told about
    /// the death of the *thread* that made it.
    pub(super) async fn start(&mut self) -> anyhow::Result<Member> {
        let number = self.started + 1;
        let executor_id = uuid::Uuid::new_v4().to_string();
        let log = self.logs.join(format!("executor-{number}.log"));
        let file = tokio::fs::File::create(&log)
            .await
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(&self.program)
            .args(Guard::arguments(std::process::id(), &self.command))
            .envs(self.environment.iter().cloned())
            .env("SEGNO_EXECUTOR_ID", &executor_id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C reaches the whole foreground group; they are to be stopped by us, in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.started = number;
        let pid = child.id().unwrap_or_default();
        let member = Member {
            number,
            pid,
            end: None,
        };
        self.roster
            .lock()
            .insert(executor_id.clone(), member.clone());
        self.forward(&mut child, number, file);
        self.watch(child, executor_id, member.clone(), log);
        Ok(member)
    }

    /// Every line goes to the log; only problems also to the terminal.
    fn forward(&self, child: &mut Child, number: usize, file: tokio::fs::File) {
        let file = Arc::new(tokio::sync::Mutex::new(file));
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(forward_lines(
                stdout,
                number,
                Arc::clone(&file),
                self.terminal,
            ));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_lines(stderr, number, file, self.terminal));
        }
    }

    /// The task that owns the child: signals only go to a process that is still ours.
    fn watch(&mut self, mut child: Child, executor_id: String, member: Member, log: PathBuf) {
        let (signals, mut wanted) = mpsc::unbounded_channel();
        self.handles.insert(executor_id.clone(), signals);
        let exits = self.exits.0.clone();
        let roster = self.roster();
        let born = Instant::now();
        tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    Some(signal) = wanted.recv() => {
                        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
                            let _ = kill_process(pid, signal);
                        }
                    }
                }
            };
            let how = describe(&status);
            if let Some(member) = roster.lock().get_mut(&executor_id) {
                member.end = Some(how.clone());
            }
            let _ = exits.send(Exit {
                executor_id,
                number: member.number,
                pid: member.pid,
                how,
                lived: born.elapsed(),
                log,
            });
        });
    }

    /// The next process that ends.
    pub(super) async fn next_exit(&mut self) -> Exit {
        // Never closed: `self` holds a sender.
        let Some(exit) = self.exits.1.recv().await else {
            return std::future::pending().await;
        };
        self.handles.remove(&exit.executor_id);
        exit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    pub(super) fn signal_all(&self, signal: Signal) {
        for handle in self.handles.values() {
            let _ = handle.send(signal);
        }
    }
}

/// Last lines of a log, for a process that ended at once.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

async fn forward_lines(
    from: impl AsyncRead + Unpin,
    number: usize,
    log: Arc<tokio::sync::Mutex<tokio::fs::File>>,
    terminal: Terminal,
) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(n) if n > 0) {
        let mut log = log.lock().await;
        let _ = log.write_all(&line).await;
        let _ = log.flush().await;
        drop(log);
        let text = String::from_utf8_lossy(&line);
        if is_problem(&text) {
            terminal.say(
                Tone::Attention,
                &format!("executor {number}: {}", text.trim()),
            );
        }
        line.clear();
    }
}

fn is_problem(line: &str) -> bool {
    line.contains("ERROR") || line.contains("panicked at")
}

fn describe(status: &io::Result<ExitStatus>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(error) => return format!("was lost sight of: {error}"),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended by itself".to_owned(),
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(9)) => "killed by SIGKILL".to_owned(),
        (None, Some(15)) => "killed by SIGTERM".to_owned(),
        (None, Some(11)) => "killed by SIGSEGV".to_owned(),
        (None, Some(6)) => "killed by SIGABRT".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("executor-1.log");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        assert_eq!(tail(&log, 9), "one\ntwo\nthree");
        assert_eq!(tail(&dir.path().join("absent"), 9), "");
    }
}
