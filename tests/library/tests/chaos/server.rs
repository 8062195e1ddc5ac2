//! A Postgres of the test's own, which may crash.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tempfile::TempDir;
use tokio::process::Command;

pub struct Server {
    programs: PathBuf,
    home: TempDir,
    port: u16,
}

impl Server {
    /// On loopback and on these addresses.
    pub async fn start(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("../postgres.sh");
        let found = Command::new(find).arg("--find").output().await?;
        anyhow::ensure!(
            found.status.success(),
            "no PostgreSQL programs found: set SEGNO_POSTGRES_BIN or install PostgreSQL"
        );
        let programs = PathBuf::from(String::from_utf8(found.stdout)?.trim());
        let home = tempfile::Builder::new().prefix("segno-chaos-").tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let server = Self {
            programs,
            home,
            port,
        };
        if is_root() {
            let own = Command::new("chown")
                .arg("postgres")
                .arg(server.home.path())
                .status()
                .await?;
            anyhow::ensure!(
                own.success(),
                "PostgreSQL does not run as root, and there is no user `postgres`"
            );
        }
        let data = server.data();
        let options = [
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--pgdata",
        ];
        server.run("initdb", &options, &data).await?;
        let listen: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let settings = format!(
            "listen_addresses = '127.0.0.1{}{}'\nport = {port}\nunix_socket_directories = ''\n\
             max_connections = 200\nfsync = off\n",
            if listen.is_empty() { "" } else { "," },
            listen.join(","),
        );
        append(&data.join("postgresql.conf"), &settings)?;
        append(&data.join("pg_hba.conf"), "host all all 10.0.0.0/8 trust\n")?;
        server.revive().await?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The database, at an address of the server.
    pub fn url(&self, address: IpAddr) -> String {
        format!("postgres://postgres@{address}:{}/postgres", self.port)
    }

    /// All its processes die at once; nothing is written any more.
    pub async fn crash(&self) -> anyhow::Result<()> {
        self.run(
            "pg_ctl",
            &["stop", "--mode=immediate", "--silent", "--pgdata"],
            &self.data(),
        )
        .await
    }

    /// Starts it again; it recovers by its log.
    pub async fn revive(&self) -> anyhow::Result<()> {
        let log = format!("--log={}", self.home.path().join("server.log").display());
        self.run(
            "pg_ctl",
            &["start", "--wait", "--silent", &log, "--pgdata"],
            &self.data(),
        )
        .await
    }

    async fn run(&self, program: &str, arguments: &[&str], last: &Path) -> anyhow::Result<()> {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command
            .current_dir(self.home.path())
            .args(arguments)
            .arg(last);
        // The server inherits what it is started with.
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let status = status
            .await
            .with_context(|| format!("cannot start {}", program.display()))?;
        anyhow::ensure!(
            status.success(),
            "{} {arguments:?} failed",
            program.display()
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = ["stop", "--mode=immediate", "--silent", "--pgdata"];
        let program = self.programs.join("pg_ctl");
        let mut command = if is_root() {
            let mut command = std::process::Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            std::process::Command::new(program)
        };
        let _ = command
            .current_dir(self.home.path())
            .args(stop)
            .arg(self.data())
            .status();
    }
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Whether this is root, which Postgres does not run as, and which may make networks.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
