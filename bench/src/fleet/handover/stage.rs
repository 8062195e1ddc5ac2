//! Instances, executors that live, and executors that are going to be lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;
use tokio::task::JoinSet;

use super::{HandoverArgs, Ledger};
use crate::APP;
use crate::database::{Scratch, Store};
use crate::executor::{self, Counters, Dial, Doomed};
use crate::server::{self, Server};

/// A source address that crowds do not use.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Registers an application with this grace, seconds, and makes a key for it.
pub(super) async fn register(server: &Server, app: &str, grace: u64) -> anyhow::Result<String> {
    let key = server.prepare(app).await?;
    let settings = json!({"executorTimeoutSecs": grace});
    server
        .call("PATCH", &format!("/apps/{app}"), Some(settings))
        .await?;
    Ok(key)
}

pub(super) struct Stage {
    pub(super) servers: Vec<Server>,
    pub(super) key: String,
    pub(super) grace: Duration,
    ledger: Arc<Ledger>,
    counters: Arc<Counters>,
    living: JoinSet<()>,
    connected: usize,
    scratch: Scratch,
}

impl Stage {
    /// So many instances on one Postgres.
    pub(super) async fn set(args: &HandoverArgs, instances: usize) -> anyhow::Result<Self> {
        let binary = server::binary(args.server_binary.as_deref())?;
        let scratch = Scratch::create(Store::Postgres, args.postgres.as_deref()).await?;
        let first = Server::start(&binary, &scratch.url, scratch.directory.path()).await?;
        let mut servers = vec![first];
        while servers.len() < instances {
            servers.push(servers[0].start_another().await?);
        }
        Self::over(servers, scratch, args.grace).await
    }

    /// One `relay`, see bench/relay.sh.
    pub(super) async fn set_relay(args: &HandoverArgs, binary: &Path) -> anyhow::Result<Self> {
        let scratch = Scratch::create(Store::Postgres, args.postgres.as_deref()).await?;
        let started = Server::start_relay(binary, &scratch.url, scratch.directory.path()).await;
        match started {
            Ok(server) => Self::over(vec![server], scratch, args.grace).await,
            Err(error) => {
                scratch.remove().await?;
                Err(error)
            }
        }
    }

    async fn over(servers: Vec<Server>, scratch: Scratch, grace: u64) -> anyhow::Result<Self> {
        let key = register(&servers[0], APP, grace).await?;
        Ok(Self {
            servers,
            key,
            grace: Duration::from_secs(grace),
            ledger: Arc::default(),
            counters: Arc::default(),
            living: JoinSet::new(),
            connected: 0,
            scratch,
        })
    }

    pub(super) async fn clear(mut self) -> anyhow::Result<()> {
        self.living.abort_all();
        while self.living.join_next().await.is_some() {}
        drop(self.servers);
        self.scratch.remove().await
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    fn dial(&self, servers: Vec<SocketAddr>) -> Arc<Dial> {
        Arc::new(Dial {
            servers,
            source: SOURCE,
            app: APP.to_owned(),
            key: self.key.clone(),
        })
    }

    /// Adds executors that live, spread over all instances; they dial the next one when theirs is gone.
    pub(super) fn live(&mut self, count: usize) {
        let dial = self.dial(self.addresses());
        for number in 0..count {
            let (dial, counters, ledger) =
                (dial.clone(), self.counters.clone(), self.ledger.clone());
            self.living.spawn(async move {
                executor::run(&dial, number, &counters, Some(&ledger)).await;
            });
        }
        self.connected += count;
    }

    /// Adds executors that are going to be lost, spread over these instances, with so many workflows each.
    pub(super) fn doom(
        &mut self,
        count: usize,
        workflows: u64,
        instances: &[SocketAddr],
    ) -> Vec<Doomed> {
        let dial = self.dial(instances.to_vec());
        let doomed = (0..count).map(|number| {
            let (counters, ledger) = (self.counters.clone(), self.ledger.clone());
            let doomed = Doomed::connect(dial.clone(), number, counters, ledger);
            self.ledger.start(&doomed.id, workflows);
            doomed
        });
        let doomed = doomed.collect();
        self.connected += count;
        doomed
    }

    /// Waits until the API of an instance shows everybody, and nobody else.
    pub(super) async fn until_healthy(&self, at: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let (healthy, others) = crate::fleet_of(&self.servers[at], APP).await?;
            if (healthy, others) == (self.connected, 0) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!(
                    "{healthy} of {} executors are HEALTHY, {others} others are shown",
                    self.connected
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// They die now.
    pub(super) fn kill<'a>(&mut self, doomed: impl IntoIterator<Item = &'a Doomed>) {
        for one in doomed {
            self.ledger.lose(&one.id);
            one.die();
            self.connected -= 1;
        }
    }

    /// It stops in good order now.
    pub(super) fn leave(&mut self, doomed: &Doomed) {
        self.ledger.lose(&doomed.id);
        doomed.leave();
        self.connected -= 1;
    }

    /// Waits until the work of all who were lost is with somebody, or for too long; how long each waited.
    pub(super) async fn until_taken(&self) -> Vec<Option<Duration>> {
        let began = Instant::now();
        loop {
            let waits = self.ledger.waits();
            let done = waits.iter().all(Option::is_some);
            if done || began.elapsed() > self.grace + PATIENCE {
                return waits;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Offers of work of executors that were there.
    pub(super) fn false_offers(&self) -> usize {
        self.ledger.false_offers()
    }
}
