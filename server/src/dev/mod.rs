//! `segno dev`: the whole product on one machine, for a look and for development.
//!
//! Loopback, no authentication, embedded SQLite, one application and a few executors of it that are
//! there to be killed. It tells in the terminal what the server does about that.

mod client;
mod fleet;
mod guard;
mod narrator;
mod place;
mod replace;
mod terminal;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LogFormat};
use crate::telemetry::logging;
use client::Client;
use fleet::{Exit, Fleet};
pub use guard::Guard;
use narrator::{Hints, Narrator, Sight};
use place::{Place, relative, sqlite_url};
use replace::{Next, Replacements, Verdict};
use terminal::{Terminal, Tone, count};

/// How long executors may drain at the end before they are killed.
const DRAIN: Duration = Duration::from_secs(20);

/// Options of `segno dev`.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Name of the application, as its code gives it
    #[arg(long, default_value = "demo")]
    app: String,

    /// How many processes of COMMAND to run
    #[arg(long, default_value_t = 3)]
    executors: usize,

    /// Loopback address to listen on; another port is picked when it is taken
    #[arg(long, env = "SEGNO_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,

    /// Seconds a lost executor may take to come back before its work is given to another
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    grace: u32,

    /// Directory of the embedded databases and logs
    #[arg(long, env = "SEGNO_DATA_DIR", default_value = "./.segno")]
    data_dir: PathBuf,

    /// Open the console in the browser of this desktop, if there is one
    #[arg(long)]
    open: bool,

    /// Forget what earlier runs left in the data directory
    #[arg(long)]
    fresh: bool,

    /// The application's command and its arguments, after `--`
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs until Ctrl-C, SIGTERM or SIGHUP; then the executors drain, and the server stops last.
///
/// The server's log, chosen by `format` and `filter`, goes to a file beside the executors'.
pub async fn run(args: DevArgs, format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let terminal = Terminal::new();
    let mut stop = StopSignals::new()?;
    let place = Place::claim(&args.data_dir, args.fresh)?;
    let log = std::fs::File::create(place.logs().join("server.log"))?;
    // We look at the API five times a second; nobody wants to read that.
    let filter = if filter == "info" {
        "info,segno_server::access=warn"
    } else {
        filter
    };
    logging::init_to(format, filter, std::sync::Mutex::new(log)).map_err(anyhow::Error::msg)?;
    let listener = place::listen(args.listen, &terminal).await?;
    let address = listener.local_addr()?;

    let shutdown = CancellationToken::new();
    let mut config = Config::local(sqlite_url(&place.server_database()));
    config.listen = address;
    // Nobody looks at a demonstration for as long as it takes to see much at the usual pace.
    config.policies.metrics_every = Duration::from_secs(15);
    let mut server = tokio::spawn(crate::serve(config, listener, shutdown.clone()));

    let client = Client::new(&format!("http://{address}"), &args.app)?;
    tokio::select! {
        registered = register(&client, args.grace) => registered?,
        ended = &mut server => return ended?.context("the server stopped"),
        () = stop.next() => return Ok(()),
    }
    let environment = environment(&args, &place, address);
    write_environment_file(&place, &environment)?;
    let fleet = Fleet::new(args.command.clone(), environment, place.logs(), terminal)?;
    let mut dev = Dev {
        start_version: start_command(&args.command, &place),
        client,
        terminal,
        fleet,
        address,
        args,
    };
    let result = dev.demonstrate(&place, &mut stop, &mut server).await;
    dev.drain(&mut stop).await;
    shutdown.cancel();
    if !server.is_finished() {
        server.await??;
    }
    result
}

/// Whether somebody looks at a terminal of a desktop: not over ssh, and not in a test.
fn has_desktop() -> bool {
    let shown = ["DISPLAY", "WAYLAND_DISPLAY"];
    std::io::stdout().is_terminal()
        && (cfg!(target_os = "macos") || shown.iter().any(|name| std::env::var_os(name).is_some()))
}

type Server = tokio::task::JoinHandle<anyhow::Result<()>>;

struct Dev {
    args: DevArgs,
    address: SocketAddr,
    client: Client,
    terminal: Terminal,
    fleet: Fleet,
    /// Starts an executor of a version from another terminal.
    start_version: Option<String>,
}

impl Dev {
    /// Starts the executors, tells what happens, replaces what was lost, until asked to stop.
    async fn demonstrate(
        &mut self,
        place: &Place,
        stop: &mut StopSignals,
        server: &mut Server,
    ) -> anyhow::Result<()> {
        if !self.args.command.is_empty() {
            for _ in 0..self.args.executors {
                self.fleet.start().await?;
            }
        }
        self.introduce(place);
        if self.args.open && has_desktop() {
            // Without a browser there still is the address to read.
            open::that_detached(format!("http://{}/", self.address)).ok();
        }
        let hints = Hints {
            start_version: self.start_version.clone(),
            grace_secs: self.args.grace,
        };
        let narrator = Narrator::new(
            self.client.clone(),
            self.terminal,
            self.fleet.roster(),
            hints,
        );
        let (sight, seen) = watch::channel(Sight::default());
        let mut narrator = tokio::spawn(narrator.run(sight));
        let result = tokio::select! {
            result = self.watch(stop, server, &seen) => result,
            ended = &mut narrator => ended.context("the narration stopped"),
        };
        narrator.abort();
        result
    }

    async fn watch(
        &mut self,
        stop: &mut StopSignals,
        server: &mut Server,
        seen: &watch::Receiver<Sight>,
    ) -> anyhow::Result<()> {
        let mut replacements = Replacements::default();
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let begun = Instant::now();
        let mut wondered = self.args.command.is_empty();
        loop {
            tokio::select! {
                () = stop.next() => return Ok(()),
                ended = &mut *server => return ended?.context("the server stopped"),
                exit = self.fleet.next_exit() => self.on_exit(&mut replacements, &exit)?,
                _ = tick.tick() => {
                    let sight = seen.borrow().clone();
                    self.replace(&mut replacements, &sight).await?;
                    if !wondered && !sight.executors.is_empty() {
                        wondered = true;
                    }
                    if !wondered && begun.elapsed() > Duration::from_secs(10) {
                        wondered = true;
                        self.wonder();
                    }
                }
            }
        }
    }

    fn on_exit(&self, replacements: &mut Replacements, exit: &Exit) -> anyhow::Result<()> {
        if exit.how.contains("exit status") {
            let tail = fleet::tail(&exit.log, 8);
            let text = format!(
                "executor {} (pid {}) {}.\n{tail}",
                exit.number, exit.pid, exit.how
            );
            self.terminal.say(Tone::Attention, &text);
        }
        match replacements.lost(exit) {
            Verdict::Later => Ok(()),
            Verdict::Hopeless => anyhow::bail!(
                "`{}` ends again and again; its whole output is in {}",
                self.args.command.join(" "),
                relative(&exit.log),
            ),
        }
    }

    async fn replace(
        &mut self,
        replacements: &mut Replacements,
        sight: &Sight,
    ) -> anyhow::Result<()> {
        match replacements.next(sight, &self.fleet.roster(), Instant::now()) {
            Next::Wait => {}
            Next::HoldBack => self.terminal.say(
                Tone::Quiet,
                "another version is deployed, so lost executors of this one are not replaced.",
            ),
            Next::Start(due) => {
                for _ in 0..due {
                    let member = self.fleet.start().await?;
                    let text = format!(
                        "replacement started: executor {}, pid {}.",
                        member.number, member.pid
                    );
                    self.terminal.say(Tone::Quiet, &text);
                }
            }
        }
        Ok(())
    }

    fn wonder(&self) {
        let text = format!(
            "no executor has connected yet. Does the application call itself `{0}`? If not: --app NAME\
             \n(its name is in SEGNO_APP_NAME, the server in SEGNO_CONDUCTOR_URL; its output is in the logs).",
            self.args.app
        );
        self.terminal.say(Tone::Attention, &text);
    }

    fn introduce(&self, place: &Place) {
        let t = &self.terminal;
        let base = self.client.base();
        let address = self.address;
        let mut text = format!("\n  {} is running.\n\n", t.bold("segno dev"));
        let _ = writeln!(text, "  Where to look");
        let _ = writeln!(
            text,
            "    console      {}",
            t.bold(&format!("http://{address}/"))
        );
        let _ = writeln!(text, "    executors    curl -s {base}/executors");
        let _ = writeln!(text, "    recoveries   curl -s {base}/recoveries");
        let _ = writeln!(
            text,
            "    workflows    curl -s '{base}/workflows?sortDesc=true&limit=5'"
        );
        let _ = writeln!(text, "    the API      http://{address}/docs");
        let _ = writeln!(text, "    logs         {}", relative(&place.logs()));
        let pids: Vec<String> = self
            .fleet
            .roster()
            .pids()
            .iter()
            .map(u32::to_string)
            .collect();
        match (&self.start_version, pids.first()) {
            (Some(start), Some(pid)) => {
                let _ = writeln!(text, "\n  What to try, in another terminal");
                let _ = writeln!(text, "    kill an executor in mid-work, and watch here");
                let _ = writeln!(text, "        {}", t.bold(&format!("kill -9 {pid}")));
                let _ = writeln!(
                    text,
                    "    deploy another version beside it, then kill all of the old one"
                );
                let _ = writeln!(
                    text,
                    "        {}",
                    t.bold(&start.replace("{version}", "v2"))
                );
                let _ = writeln!(
                    text,
                    "        {}",
                    t.bold(&format!("kill -9 {}", pids.join(" ")))
                );
            }
            _ => {
                let env = relative(&place.environment_file());
                let _ = writeln!(
                    text,
                    "\n  No command was given. Start executors of `{}` with",
                    self.args.app
                );
                let _ = writeln!(text, "        . {env} && COMMAND");
            }
        }
        let _ = writeln!(text, "\n  {}", t.dim("Ctrl-C stops everything."));
        t.plain(&text);
    }

    /// Executors finish or hand back what they can; a second Ctrl-C does not wait for that.
    async fn drain(&mut self, stop: &mut StopSignals) {
        if self.fleet.is_empty() {
            return;
        }
        let text = format!(
            "stopping: {} may finish or hand back the work ({} s at most; Ctrl-C again: at once).",
            count(self.fleet.len(), "executor"),
            DRAIN.as_secs(),
        );
        self.terminal.say(Tone::Quiet, &text);
        self.fleet.signal_all(Signal::TERM);
        let deadline = tokio::time::sleep(DRAIN);
        tokio::pin!(deadline);
        let mut killed = false;
        while !self.fleet.is_empty() {
            tokio::select! {
                _ = self.fleet.next_exit() => {}
                () = stop.next(), if !killed => {
                    killed = true;
                    self.fleet.signal_all(Signal::KILL);
                }
                () = &mut deadline, if !killed => {
                    killed = true;
                    self.fleet.signal_all(Signal::KILL);
                }
            }
        }
        let how = if killed {
            "killed; their work waits for the next start"
        } else {
            "all stopped"
        };
        self.terminal.say(Tone::Quiet, how);
    }
}

/// The listener is bound before the schema is migrated; until then requests wait or fail.
async fn register(client: &Client, grace_secs: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client.register(grace_secs).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the server did not accept the application"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What executors are told, under our names and the upstream ones.
fn environment(args: &DevArgs, place: &Place, address: SocketAddr) -> Vec<(String, String)> {
    let url = format!("ws://{address}");
    let mut environment: Vec<(String, String)> = [
        ("SEGNO_APP_NAME", args.app.as_str()),
        ("SEGNO_CONDUCTOR_URL", &url),
        ("SEGNO_CONDUCTOR_KEY", "dev"),
        ("DBOS_CONDUCTOR_URL", &url),
        ("DBOS_CONDUCTOR_KEY", "dev"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    // A database of the developer's own choice stays theirs.
    let chosen = ["SEGNO_SYSTEM_DATABASE_URL", "DBOS_SYSTEM_DATABASE_URL"];
    if chosen.iter().all(|name| std::env::var_os(name).is_none()) {
        let url = sqlite_url(&place.app_database());
        environment.push(("SEGNO_SYSTEM_DATABASE_URL".to_owned(), url));
    }
    environment
}

/// The same for executors that are started by hand from another terminal.
fn write_environment_file(place: &Place, environment: &[(String, String)]) -> anyhow::Result<()> {
    let mut text =
        String::from("# Written by `segno dev`; source it to start an executor by hand.\n");
    for (name, value) in environment {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    let file = place.environment_file();
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The command that starts an executor of `{version}` from a shell in the current directory.
fn start_command(command: &[String], place: &Place) -> Option<String> {
    if command.is_empty() {
        return None;
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let mut file = relative(&place.environment_file());
    if !file.starts_with('/') {
        // POSIX shells search PATH for a name without a slash at its beginning.
        file.insert_str(0, "./");
    }
    Some(format!(
        "(. {} && SEGNO_APP_VERSION={{version}} {})",
        quoted(&file),
        words.join(" ")
    ))
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Every way in which a terminal or a supervisor says "stop".
struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("target/release/checkout"), "target/release/checkout");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
