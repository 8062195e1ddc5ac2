//! A Postgres that can be restarted and failed over: a primary and a standby that confirms every commit.
//!
//! The standby is synchronous, so a commit that was acknowledged is on both, and a failover loses none: what
//! is lost after one is the fault of whoever uses it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

use segno_e2e::proxy::Link;
use segno_e2e::stage::free_address;

const PATIENCE: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_millis(50);
/// As root Postgres does not run.
const OWNERS: [&str; 2] = ["postgres", "nobody"];

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Clients are disconnected, everything is written down.
    Fast,
    /// As after a crash.
    Immediate,
}

impl Stop {
    fn mode(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// The programs of PostgreSQL, and who runs them.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
    owner: Option<String>,
}

impl Programs {
    /// Those that `tests/postgres.sh` finds.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../postgres.sh");
        let found = Command::new(script).arg("--find").output().await?;
        anyhow::ensure!(
            found.status.success(),
            "no PostgreSQL: install it, or set SEGNO_POSTGRES_BIN"
        );
        let directory = PathBuf::from(String::from_utf8(found.stdout)?.trim());
        let mut owner = None;
        if rustix::process::geteuid().is_root() {
            for name in OWNERS {
                let known = Command::new("id").arg("-u").arg(name).output().await?;
                if known.status.success() {
                    owner = Some(name.to_owned());
                    break;
                }
            }
            owner.as_ref().context("no user to run PostgreSQL as")?;
        }
        Ok(Self { directory, owner })
    }

    async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        directory: &Path,
    ) -> anyhow::Result<Output> {
        let path = self.directory.join(program);
        let mut command = match &self.owner {
            Some(owner) => {
                let mut command = Command::new("runuser");
                command.args(["-u", owner, "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        // A server that is started keeps what it inherits open: nobody could wait for the end of a pipe.
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{program}.log")))?;
        let status = command
            .args(arguments)
            .current_dir(directory)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .await?;
        Ok(Output {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
        })
    }

    async fn own(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(owner) = &self.owner {
            let done = Command::new("chown").arg(owner).arg(path).status().await?;
            anyhow::ensure!(done.success(), "cannot hand {} over", path.display());
        }
        Ok(())
    }
}

/// One of the two servers.
#[derive(Clone, Debug)]
struct Node {
    /// Holds the data directory; a small file system of its own if disks are to be filled.
    home: PathBuf,
    address: SocketAddr,
}

impl Node {
    fn data(&self) -> PathBuf {
        self.home.join("data")
    }
}

/// Primary and standby.
#[derive(Debug)]
pub(crate) struct Postgres {
    name: &'static str,
    programs: Programs,
    nodes: [Node; 2],
    primary: watch::Sender<usize>,
    /// One thing at a time is done to it.
    turn: Mutex<()>,
    /// Whether each node's home is a file system of its own.
    small: bool,
    logs: PathBuf,
    /// It may not answer just now.
    hurt: AtomicBool,
}

/// As long as this is there, it may not answer.
struct Hurt<'a>(&'a AtomicBool);

impl<'a> Hurt<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::SeqCst);
        Self(flag)
    }
}

impl Drop for Hurt<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Postgres {
    /// Starts a primary and its standby below `home`; `disk_mib` makes each live on a file system of that size,
    /// which takes root.
    pub(crate) async fn start(
        name: &'static str,
        programs: &Programs,
        home: &Path,
        disk_mib: Option<u32>,
    ) -> anyhow::Result<Arc<Self>> {
        let mut nodes = Vec::new();
        for letter in ["a", "b"] {
            let home = home.join(format!("{name}-{letter}"));
            std::fs::create_dir(&home)?;
            if let Some(mib) = disk_mib {
                mount(&home, mib).await?;
            }
            programs.own(&home).await?;
            nodes.push(Node {
                home,
                address: free_address()?,
            });
        }
        let nodes = <[Node; 2]>::try_from(nodes).map_err(|_| anyhow::anyhow!("two nodes"))?;
        let this = Arc::new(Self {
            name,
            programs: programs.clone(),
            nodes,
            primary: watch::Sender::new(0),
            turn: Mutex::new(()),
            small: disk_mib.is_some(),
            logs: home.to_owned(),
            hurt: AtomicBool::new(false),
        });
        this.create().await?;
        this.begin(0).await?;
        this.join(1).await?;
        Ok(this)
    }

    /// Where the primary is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.nodes[*self.primary.borrow()].address
    }

    /// For whoever wants no fault in between.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Whether it may not answer just now.
    pub(crate) fn is_hurt(&self) -> bool {
        self.hurt.load(Ordering::SeqCst)
    }

    /// Whether its disk can be filled.
    pub(crate) fn is_small(&self) -> bool {
        self.small
    }

    async fn create(&self) -> anyhow::Result<()> {
        let data = self.nodes[0].data();
        let created = self
            .programs
            .run(
                "initdb",
                &[
                    "--pgdata",
                    &data.to_string_lossy(),
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--no-sync",
                    "--wal-segsize=4",
                ],
                &self.logs,
            )
            .await?;
        anyhow::ensure!(created.status.success(), "initdb failed");
        // Processes are killed, the machine is not: what was written is there without fsync.
        let settings = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 400
shared_buffers = 64MB
fsync = off
full_page_writes = off
wal_level = replica
max_wal_senders = 8
min_wal_size = 32MB
max_wal_size = 96MB
wal_keep_size = 16MB
wal_sender_timeout = 10s
hot_standby = on
track_commit_timestamp = on
include_if_exists = 'standby.conf'
";
        let file = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&file)? + settings;
        std::fs::write(&file, text)?;
        Ok(())
    }

    /// Starts a node; waits until it answers.
    async fn begin(&self, node: usize) -> anyhow::Result<()> {
        let data = self.nodes[node].data();
        let log = self.logs.join(format!("{}-server.log", self.name));
        if !log.exists() {
            std::fs::write(&log, "")?;
            self.programs.own(&log).await?;
        }
        let options = format!("-p {}", self.nodes[node].address.port());
        let started = self
            .programs
            .run(
                "pg_ctl",
                &[
                    "start",
                    "--pgdata",
                    &data.to_string_lossy(),
                    "--wait",
                    "--timeout=180",
                    "--log",
                    &log.to_string_lossy(),
                    "--options",
                    &options,
                ],
                &self.logs,
            )
            .await?;
        anyhow::ensure!(
            started.status.success(),
            "{}: the server does not start, see {}",
            self.name,
            log.display()
        );
        Ok(())
    }

    async fn end(&self, node: usize, stop: Stop) -> anyhow::Result<()> {
        let data = self.nodes[node].data();
        let mode = format!("--mode={}", stop.mode());
        let arguments = ["stop", "--pgdata", &data.to_string_lossy(), "--wait", &mode];
        let stopped = self.programs.run("pg_ctl", &arguments, &self.logs).await?;
        // It may have ended by itself, or not within pg_ctl's minute.
        if !stopped.status.success() && self.is_running(node).await? {
            let arguments = ["kill", "KILL", &self.process_id(node)?];
            self.programs.run("pg_ctl", &arguments, &self.logs).await?;
            let end = Instant::now() + PATIENCE;
            while self.is_running(node).await? {
                anyhow::ensure!(Instant::now() < end, "{}: it does not stop", self.name);
                tokio::time::sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    fn process_id(&self, node: usize) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(self.nodes[node].data().join("postmaster.pid"))?;
        Ok(text
            .lines()
            .next()
            .context("an empty postmaster.pid")?
            .trim()
            .to_owned())
    }

    async fn is_running(&self, node: usize) -> anyhow::Result<bool> {
        let data = self.nodes[node].data();
        let arguments = ["status", "--pgdata", &data.to_string_lossy()];
        let status = self.programs.run("pg_ctl", &arguments, &self.logs).await?;
        Ok(status.status.success())
    }

    /// Makes a node the standby of the primary, from nothing, and waits until commits wait for it.
    async fn join(&self, node: usize) -> anyhow::Result<()> {
        let data = self.nodes[node].data();
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let primary = self.nodes[*self.primary.borrow()].clone();
        let source = format!(
            "host={} port={} user=postgres application_name=standby",
            primary.address.ip(),
            primary.address.port()
        );
        let copied = self
            .programs
            .run(
                "pg_basebackup",
                &[
                    "--pgdata",
                    &data.to_string_lossy(),
                    "--dbname",
                    &source,
                    "--write-recovery-conf",
                    "--wal-method=stream",
                    "--checkpoint=fast",
                    "--no-sync",
                ],
                &self.logs,
            )
            .await?;
        anyhow::ensure!(
            copied.status.success(),
            "{}: pg_basebackup failed",
            self.name
        );
        // The copy must not wait for a standby of its own once it is promoted.
        let _ = std::fs::remove_file(data.join("standby.conf"));
        self.begin(node).await?;
        self.until_streaming("streaming").await?;
        let file = primary.data().join("standby.conf");
        std::fs::write(&file, "synchronous_standby_names = 'ANY 1 (standby)'\n")?;
        self.programs.own(&file).await?;
        let data = primary.data();
        let arguments = ["reload", "--pgdata", &data.to_string_lossy()];
        self.programs.run("pg_ctl", &arguments, &self.logs).await?;
        self.until_synchronous().await
    }

    async fn until_streaming(&self, state: &'static str) -> anyhow::Result<()> {
        self.until(format!(
            "SELECT COUNT(*) FROM pg_stat_replication WHERE state = '{state}'"
        ))
        .await
    }

    async fn until_synchronous(&self) -> anyhow::Result<()> {
        self.until(
            "SELECT COUNT(*) FROM pg_stat_replication WHERE state = 'streaming' \
             AND sync_state IN ('sync', 'quorum')"
                .to_owned(),
        )
        .await
    }

    async fn until(&self, counting: String) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.count(&counting).await {
                Ok(n) if n > 0 => return Ok(()),
                result if Instant::now() > end => {
                    anyhow::bail!("{}: {counting}: {result:?}", self.name)
                }
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn count(&self, counting: &str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let (n,): (i64,) = sqlx::query_as(AssertSqlSafe(counting.to_owned()))
            .fetch_one(&mut connection)
            .await?;
        Ok(n)
    }

    /// Stops the primary and starts it again.
    pub(crate) async fn restart(&self, stop: Stop, away: Duration) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let _hurt = Hurt::new(&self.hurt);
        let primary = *self.primary.borrow();
        self.end(primary, stop).await?;
        tokio::time::sleep(away).await;
        self.begin(primary).await
    }

    /// Loses the primary, promotes the standby, and makes a new standby of what was the primary. Connections over `links`
    /// end once the new primary serves.
    pub(crate) async fn fail_over(&self, links: Vec<Arc<Link>>) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        self.until_synchronous().await?;
        let old = *self.primary.borrow();
        let new = 1 - old;
        let hurt = Hurt::new(&self.hurt);
        self.end(old, Stop::Immediate).await?;
        let data = self.nodes[new].data();
        let arguments = ["promote", "--pgdata", &data.to_string_lossy(), "--wait"];
        let promoted = self.programs.run("pg_ctl", &arguments, &self.logs).await?;
        anyhow::ensure!(promoted.status.success(), "{}: no promotion", self.name);
        self.primary.send_replace(new);
        drop(hurt);
        for link in links {
            link.sever();
        }
        self.join(old).await
    }

    /// Fills the primary's disk for a while, and sees that it runs afterwards.
    pub(crate) async fn fill_disk(&self, lasting: Duration) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let _hurt = Hurt::new(&self.hurt);
        let primary = *self.primary.borrow();
        let ballast = self.nodes[primary].home.join("ballast");
        let filled = Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}", ballast.display()))
            .args(["bs=1M", "status=none"])
            .stderr(std::process::Stdio::null())
            .status()
            .await?;
        // dd ends with an error: that is the point.
        anyhow::ensure!(!filled.success(), "the disk has no end");
        tokio::time::sleep(lasting).await;
        std::fs::remove_file(&ballast)?;
        self.revive(primary).await
    }

    /// A server without room gives up, and tries in vain to come back for as long as there is none.
    async fn revive(&self, node: usize) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.count("SELECT 1::BIGINT").await {
            anyhow::ensure!(Instant::now() < end, "{} is not back: {error:#}", self.name);
            if !self.is_running(node).await? {
                // It may find that there is no room in the very moment in which it is made.
                let _ = self.begin(node).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let standby = 1 - node;
        if !self.is_running(standby).await? {
            self.begin(standby).await?;
        }
        self.until_synchronous().await
    }

    /// Waits for whatever is being done to it.
    pub(crate) async fn settle(&self) {
        let _turn = self.turn.lock().await;
    }

    /// Creates a database.
    pub(crate) async fn create_database(&self, name: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Stops both and takes their file systems away.
    pub(crate) async fn remove(&self) {
        for node in [0, 1] {
            let _ = self.end(node, Stop::Immediate).await;
            if self.small {
                let home = &self.nodes[node].home;
                let _ = Command::new("umount")
                    .arg("--lazy")
                    .arg(home)
                    .status()
                    .await;
            }
        }
    }
}

/// A file system of `mib` in memory.
async fn mount(path: &Path, mib: u32) -> anyhow::Result<()> {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "segno-chaos"])
        .arg(path)
        .status()
        .await?;
    anyhow::ensure!(mounted.success(), "cannot mount {}", path.display());
    Ok(())
}

/// Whether file systems can be mounted here.
pub(crate) async fn can_mount(directory: &Path) -> bool {
    let probe = directory.join("probe");
    if std::fs::create_dir(&probe).is_err() || mount(&probe, 1).await.is_err() {
        return false;
    }
    let gone = Command::new("umount").arg(&probe).status().await;
    gone.is_ok_and(|status| status.success())
}
