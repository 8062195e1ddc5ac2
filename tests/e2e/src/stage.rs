//! A server, an application's database, and the executors on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use uuid::Uuid;

use crate::api::{Api, Recovery};
use crate::database::Database;
use crate::eventually;
use crate::oracle::Oracle;
use crate::process::{Process, binary};

/// The application's name.
pub const APP: &str = "checkout";

/// Long enough for anything that is going to happen on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything one test needs, on ports and databases of its own.
#[derive(Debug)]
pub struct Stage {
    /// The REST API, as admin.
    pub api: Api,
    /// The application's database.
    pub app_database: Database,
    address: SocketAddr,
    server: Process,
    server_database: Database,
    admin_key: String,
    key: String,
    logs: tempfile::TempDir,
    started: usize,
}

/// An executor and its id.
#[derive(Debug)]
pub struct Executor {
    /// The process.
    pub process: Process,
    /// Its executor id.
    pub id: String,
}

/// How to start an executor. Steps are fast and cards never declined unless the test says otherwise.
#[derive(Clone, Debug)]
pub struct Casting {
    /// Application version.
    pub version: &'static str,
    /// Executor id; a fresh one when `None`.
    pub id: Option<String>,
    /// New checkouts a second.
    pub rate: f64,
    /// Checkouts started at once.
    pub first: u32,
    /// Milliseconds a step works.
    pub step_ms: u64,
    /// Where the control plane is, when not at the server itself.
    pub server: Option<SocketAddr>,
}

impl Default for Casting {
    fn default() -> Self {
        Self {
            version: "v1",
            id: None,
            rate: 0.0,
            first: 0,
            step_ms: 250,
            server: None,
        }
    }
}

impl Stage {
    /// On Postgres, for the server's state too.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn postgres(grace_secs: u64) -> anyhow::Result<Self> {
        Self::build(
            Database::postgres().await?,
            Database::postgres().await?,
            grace_secs,
        )
        .await
    }

    /// On SQLite, for the server's state too.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn sqlite(grace_secs: u64) -> anyhow::Result<Self> {
        Self::build(Database::sqlite()?, Database::sqlite()?, grace_secs).await
    }

    async fn build(
        server_database: Database,
        app_database: Database,
        grace_secs: u64,
    ) -> anyhow::Result<Self> {
        let logs = tempfile::tempdir()?;
        let address = free_address()?;
        let admin_key = format!(
            "dbos_{}{}",
            Uuid::new_v4().simple(),
            Uuid::new_v4().simple()
        );
        let server = start_server(address, &server_database, &admin_key, logs.path())?;
        let api = Api::new(format!("http://{address}"), admin_key.clone())?;
        let mut stage = Self {
            api,
            app_database,
            address,
            server,
            server_database,
            admin_key,
            key: String::new(),
            logs,
            started: 0,
        };
        stage.ready().await?;
        stage.api.register(APP, grace_secs).await?;
        stage.key = stage.api.create_key("executors").await?;
        Ok(stage)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's process.
    pub fn server(&mut self) -> &mut Process {
        &mut self.server
    }

    /// Starts the server again, on the same port and state. Returns when it began to listen.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart_server(&mut self) -> anyhow::Result<i64> {
        let started_at = crate::now_ms();
        self.server = start_server(
            self.address,
            &self.server_database,
            &self.admin_key,
            self.logs.path(),
        )?;
        self.ready().await?;
        Ok(started_at)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let Self { api, server, .. } = self;
        let ready = eventually("the server to be ready", PATIENCE, async || {
            anyhow::ensure!(server.is_running()?, "the server has ended");
            Ok(api.is_ready().await.then_some(()))
        });
        ready.await.with_context(|| self.server.output())
    }

    /// Starts an executor and waits until the server shows it healthy.
    ///
    /// # Errors
    /// When it does not connect.
    pub async fn start(&mut self, casting: Casting) -> anyhow::Result<Executor> {
        let executor = self.launch(&casting)?;
        self.connected(&executor, casting.version).await?;
        Ok(executor)
    }

    /// Waits until an executor is healthy under its id and version.
    ///
    /// # Errors
    /// When it is not within [`PATIENCE`].
    pub async fn connected(&self, executor: &Executor, version: &str) -> anyhow::Result<()> {
        let connected = eventually(
            format!("executor {} to connect", executor.id),
            PATIENCE,
            async || {
                Ok(
                    (self.status(&executor.id, version).await?.as_deref() == Some("HEALTHY"))
                        .then_some(()),
                )
            },
        );
        connected.await.with_context(|| executor.process.output())
    }

    /// The status the server shows for an executor.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn status(&self, id: &str, version: &str) -> anyhow::Result<Option<String>> {
        let all = self.api.executors(APP).await?;
        let found = all
            .into_iter()
            .find(|e| e.executor_id == id && e.app_version == version);
        Ok(found.map(|executor| executor.status))
    }

    /// Starts an executor without waiting for anything.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(&mut self, casting: &Casting) -> anyhow::Result<Executor> {
        self.started += 1;
        let number = self.started;
        let id = casting
            .id
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string());
        let server = casting.server.unwrap_or(self.address);
        let mut command = Command::new(binary("checkout")?);
        command
            .env("SEGNO_APP_NAME", APP)
            .env("SEGNO_SYSTEM_DATABASE_URL", self.app_database.url())
            .env("SEGNO_CONDUCTOR_URL", format!("ws://{server}"))
            .env("SEGNO_CONDUCTOR_KEY", &self.key)
            .env("SEGNO_EXECUTOR_ID", &id)
            .args(["--app-version", casting.version])
            .args(["--rate", &casting.rate.to_string()])
            .args(["--first", &casting.first.to_string()])
            .args(["--step-ms", &casting.step_ms.to_string()])
            .args(["--prefix", &format!("{}-{number}", casting.version)])
            .args(["--flakiness", "0.1", "--declined", "0", "--drain-secs", "1"]);
        let name = format!("executor-{number}");
        let process = Process::start(&name, command, self.log(&name))?;
        Ok(Executor { process, id })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.path().join(format!("{name}.log"))
    }

    /// Who knows what really happened. Needs a database that an executor has set up.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn oracle(&self) -> anyhow::Result<Oracle> {
        Oracle::open(&self.app_database).await
    }

    /// The record of an executor's loss, once it is as asked.
    ///
    /// # Errors
    /// When it is not within [`PATIENCE`], with the record as it then was.
    pub async fn recovery(
        &self,
        executor: &str,
        what: &str,
        is: impl Fn(&Recovery) -> bool,
    ) -> anyhow::Result<Recovery> {
        eventually(
            format!("the recovery of {executor} to be {what}"),
            PATIENCE,
            async || {
                let found = self.api.recovery_of(APP, executor).await?;
                match found {
                    Some(record) if is(&record) => Ok(Some(record)),
                    other => anyhow::bail!("it is {other:?}"),
                }
            },
        )
        .await
    }

    /// Drops the databases; to be called when nothing failed, so that a failure can be looked at.
    ///
    /// # Errors
    /// When a database cannot be dropped.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.server.kill().await?;
        self.app_database.remove().await?;
        self.server_database.remove().await
    }
}

fn start_server(
    address: SocketAddr,
    database: &Database,
    admin_key: &str,
    logs: &Path,
) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("segno")?);
    command
        .arg("serve")
        .env("SEGNO_LISTEN", address.to_string())
        .env("SEGNO_DATABASE_URL", database.url())
        .env("SEGNO_AUTH", "keys")
        .env("SEGNO_ADMIN_KEY", admin_key);
    Process::start("server", command, logs.join("server.log"))
}

/// A port below those that the system hands out by itself, so that it is still free after a restart.
///
/// # Errors
/// When none of many is free.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..200 {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(15_000..30_000)));
        if std::net::TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port is free")
}
