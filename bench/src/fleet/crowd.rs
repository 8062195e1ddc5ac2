//! Executors in processes of their own: the child's side and the parent's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::executor::{self, Counters, Counts, Dial};

/// How often a child says where it stands.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A process full of executors.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrowdArgs {
    /// The instances' addresses
    #[arg(long, value_delimiter = ',')]
    servers: Vec<SocketAddr>,
    /// The address to dial from
    #[arg(long)]
    source: IpAddr,
    /// The application
    #[arg(long)]
    app: String,
    /// How many executors
    #[arg(long)]
    count: usize,
    /// First dials a second; later ones follow the SDKs' habits
    #[arg(long)]
    per_second: u32,
}

/// The child: runs its executors until its standard input ends.
pub(crate) async fn run(args: CrowdArgs) -> anyhow::Result<()> {
    let mut key = String::new();
    let mut stdin = BufReader::new(tokio::io::stdin());
    // Not an argument: those are visible to everybody on the machine.
    stdin.read_line(&mut key).await?;
    let dial: &'static Dial = Box::leak(Box::new(Dial {
        servers: args.servers,
        source: args.source,
        app: args.app,
        key: key.trim().to_owned(),
    }));
    let counters: &'static Counters = Box::leak(Box::default());
    tokio::spawn(async move {
        let began = Instant::now();
        for number in 0..args.count {
            let at = began + Duration::from_secs_f64(number as f64 / f64::from(args.per_second));
            tokio::time::sleep_until(at.into()).await;
            tokio::spawn(executor::run(dial, number, counters, None));
        }
    });
    let tell = async {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            println!(
                "{}",
                serde_json::to_string(&counters.now()).unwrap_or_default()
            );
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        _ = stdin.read_to_end(&mut rest) => Ok(()),
        () = tell => Ok(()),
    }
}

/// The parent's hold on a child; dropping it ends the child.
struct Process {
    counts: Arc<Mutex<Counts>>,
    _child: Child,
}

/// All executors of a measurement.
pub(crate) struct Crowd {
    servers: Vec<SocketAddr>,
    app: String,
    key: String,
    each: usize,
    size: usize,
    processes: Vec<Process>,
}

impl Crowd {
    /// Nobody yet. `each`: executors a process.
    pub(crate) fn new(servers: &[SocketAddr], app: &str, key: &str, each: usize) -> Self {
        Self {
            servers: servers.to_vec(),
            app: app.to_owned(),
            key: key.to_owned(),
            each,
            size: 0,
            processes: Vec::new(),
        }
    }

    /// How many executors there should be.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// What all of them did.
    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for process in &self.processes {
            let counts = *process
                .counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.known += counts.known;
            all.dials += counts.dials;
            all.refused += counts.refused;
            all.lost += counts.lost;
            all.answers += counts.answers;
            all.offers += counts.offers;
        }
        all
    }

    /// Adds processes until there are `size` executors, and waits until the server knows them all.
    pub(crate) async fn grow(&mut self, size: usize) -> anyhow::Result<()> {
        while self.size < size {
            let count = (size - self.size).min(self.each);
            self.spawn(count).await?;
            self.size += count;
        }
        self.until_known(Duration::from_secs(300)).await?;
        Ok(())
    }

    /// Waits until everybody is connected; how long that took.
    pub(crate) async fn until_known(&self, limit: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while self.counts().known < self.size as u64 {
            if began.elapsed() > limit {
                bail!(
                    "only {} of {} executors connected: {:?}",
                    self.counts().known,
                    self.size,
                    self.counts()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }

    async fn spawn(&mut self, count: usize) -> anyhow::Result<()> {
        use tokio::io::AsyncWriteExt;

        // A source address each, for one has fewer than 30,000 ports.
        let host = u8::try_from(self.processes.len() + 2).context("too many processes")?;
        let servers: Vec<String> = self.servers.iter().map(SocketAddr::to_string).collect();
        let mut child = Command::new(std::env::current_exe()?)
            .arg("crowd")
            .args(["--servers", &servers.join(",")])
            .args(["--source", &Ipv4Addr::new(127, 0, 0, host).to_string()])
            .args(["--app", &self.app])
            .args(["--count", &count.to_string()])
            .args(["--per-second", "1000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process of executors")?;
        let stdin = child.stdin.as_mut().context("no standard input")?;
        stdin
            .write_all(format!("{}\n", self.key).as_bytes())
            .await?;
        let stdout = child.stdout.take().context("no standard output")?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let told = counts.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(now) = serde_json::from_str(&line) {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
            }
        });
        self.processes.push(Process {
            counts,
            _child: child,
        });
        Ok(())
    }
}
