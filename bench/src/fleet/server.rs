//! The server under measurement: a process of the release binary, seen through `/proc`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// Linux counts processor time in hundredths of a second, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// The server's binary: the given one, or `segno` beside this one.
pub(crate) fn binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let binary = match given {
        Some(binary) => binary.to_owned(),
        None => std::env::current_exe()?.with_file_name("segno"),
    };
    if !binary.exists() {
        bail!(
            "there is no {}; build it with `cargo build --release --bin segno`, or use --server-binary",
            binary.display()
        );
    }
    Ok(binary)
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Segno,
    /// See bench/relay.sh.
    Relay,
}

/// A running `segno serve`, or `relay serve`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    maker: Maker,
    binary: PathBuf,
    database_url: String,
    admin_key: String,
    log: PathBuf,
    child: Child,
    client: reqwest::Client,
}

impl Server {
    /// Starts `binary` over a database, on a free port of this machine; `directory` takes its log.
    pub(crate) async fn start(
        binary: &Path,
        database_url: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let admin_key = format!("dbos_{}", uuid::Uuid::new_v4().simple());
        Self::start_with(Maker::Segno, binary, database_url, directory, admin_key).await
    }

    /// Starts a `relay` over a database, in the same way.
    pub(crate) async fn start_relay(
        binary: &Path,
        database_url: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let run = |arguments: &'static [&'static str]| {
            Command::new(binary)
                .args(arguments)
                .env("RELAY_DATABASE_URL", without_tls(database_url))
                .output()
        };
        let migrated = run(&["migrate"]).await?;
        if !migrated.status.success() {
            bail!(
                "relay migrate: {}",
                String::from_utf8_lossy(&migrated.stderr)
            );
        }
        let made = run(&["apikey", "create", "--org", "local", "--name", "bench"]).await?;
        let text = String::from_utf8_lossy(&made.stdout);
        let key = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)))
            .find(|word| word.starts_with("dbos_"))
            .with_context(|| format!("relay apikey create tells no key: {text}"))?;
        Self::start_with(
            Maker::Relay,
            binary,
            database_url,
            directory,
            key.to_owned(),
        )
        .await
    }

    /// Starts another instance over the same database.
    pub(crate) async fn start_another(&self) -> anyhow::Result<Self> {
        let directory = self.log.parent().context("the log is nowhere")?;
        let key = self.admin_key.clone();
        Self::start_with(self.maker, &self.binary, &self.database_url, directory, key).await
    }

    async fn start_with(
        maker: Maker,
        binary: &Path,
        database_url: &str,
        directory: &Path,
        admin_key: String,
    ) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = directory.join("server.log");
        let child = spawn(maker, binary, address, database_url, &admin_key, &log)?;
        let server = Self {
            address,
            maker,
            binary: binary.to_owned(),
            database_url: database_url.to_owned(),
            admin_key,
            log,
            child,
            client: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(60))
                .build()?,
        };
        server.until_ready().await?;
        Ok(server)
    }

    /// Kills it as `kill -9` does and starts it again on the same address and database. Returns how
    /// long it took until it was ready.
    pub(crate) async fn crash_and_restart(&mut self) -> anyhow::Result<Duration> {
        self.crash().await?;
        self.restart().await
    }

    /// Kills it as `kill -9` does.
    pub(crate) async fn crash(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again on the same address and database; how long it took until it was ready.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.child = spawn(
            self.maker,
            &self.binary,
            self.address,
            &self.database_url,
            &self.admin_key,
            &self.log,
        )?;
        self.until_ready().await?;
        Ok(began.elapsed())
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let path = match self.maker {
            Maker::Segno => "readyz",
            Maker::Relay => "healthz",
        };
        let url = format!("http://{}/{path}", self.address);
        loop {
            let answer = self.client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(60) {
                bail!("the server is not ready; see {}", self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Registers the application and makes a key of its name for executors and callers.
    pub(crate) async fn prepare(&self, app: &str) -> anyhow::Result<String> {
        self.call("PUT", &format!("/apps/{app}"), Some(json!({})))
            .await?;
        if self.maker == Maker::Relay {
            // Its key is for everything.
            return Ok(self.admin_key.clone());
        }
        let body = json!({"permissions": ["websocket.connect", "application.read"]});
        let made = self
            .call("POST", &format!("/tokens/{app}"), Some(body))
            .await?;
        let key = made["token"].as_str().context("the new key has no text")?;
        Ok(key.to_owned())
    }

    /// Calls the API as the administrator.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("http://{}/v2/orgs/local{path}", self.address);
        let mut request = self
            .client
            .request(method.parse()?, &url)
            .bearer_auth(&self.admin_key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if !status.is_success() {
            bail!("{method} {path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let rollup = self.proc("smaps_rollup")?;
        let line = rollup.lines().find(|line| line.starts_with("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(kib.context("/proc tells no resident memory")? << 10)
    }

    /// Processor time used so far, in user and kernel mode.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let stat = self.proc("stat")?;
        // The command, second of all, is in parentheses and may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("/proc/…/stat is odd")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let (user, system) = ticks(11)
            .zip(ticks(12))
            .context("/proc/…/stat lacks processor times")?;
        Ok(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let id = self.child.id().context("the server ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }
}

fn spawn(
    maker: Maker,
    binary: &Path,
    address: SocketAddr,
    database_url: &str,
    admin_key: &str,
    log: &Path,
) -> anyhow::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)?;
    let mut command = Command::new(binary);
    match maker {
        Maker::Segno => command
            .arg("serve")
            .args(["--listen", &address.to_string(), "--auth", "keys"])
            .env("SEGNO_DATABASE_URL", database_url)
            .env("SEGNO_ADMIN_KEY", admin_key),
        Maker::Relay => command
            .arg("serve")
            .env("RELAY_LISTEN_ADDR", address.to_string())
            .env("RELAY_DATABASE_URL", without_tls(database_url)),
    };
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))
}

/// Go's driver insists on TLS unless it is told not to; Postgres here has none.
fn without_tls(url: &str) -> String {
    format!("{url}?sslmode=disable")
}
