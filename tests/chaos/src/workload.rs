//! Errands started from outside: by a client that survives everything and so remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use segno::{Client, WorkflowRef};
use segno_e2e::proxy::{Destination, Proxy};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::fleet::{Language, VERSIONS};
use crate::world::World;

const ERRAND: WorkflowRef<Value, String> = WorkflowRef::new("errand");
/// Of all errands, this share is started from outside; executors start the rest.
const SHARE: f64 = 0.4;
/// Starts that may wait for the database at a time.
const WAITING: usize = 500;

/// What was started from outside.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    /// Ids whose start was acknowledged.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Attempts that failed, and were made again under the same id.
    pub(crate) repeated: AtomicU64,
}

impl Workload {
    pub(crate) fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts errands of both versions by turns until dropped.
    pub(crate) async fn run(self: Arc<Self>, world: Arc<World>) -> anyhow::Result<()> {
        let postgres = Arc::clone(&world.app_postgres);
        let wire = Proxy::start_routed(move || {
            Some(Destination {
                target: postgres.address(),
                links: Vec::new(),
            })
        })
        .await?;
        let database = Language::Rust.database();
        let url = format!("postgres://postgres@{}/{database}", wire.address());
        let client = Client::connect(&url).await;
        let client = client.map_err(|error| anyhow::anyhow!("{error}"))?;
        let client = client.application(Language::Rust.app());
        let places = Arc::new(Semaphore::new(WAITING));
        let pause = Duration::from_secs_f64(1.0 / (world.args.rate * SHARE));
        let mut tick = tokio::time::interval(pause);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for number in 0_usize.. {
            tick.tick().await;
            let place = Arc::clone(&places).acquire_owned().await?;
            let version = VERSIONS[number % VERSIONS.len()];
            let (this, client) = (Arc::clone(&self), client.clone());
            let step_ms = world.args.step_ms;
            tokio::spawn(async move {
                this.start(&client, version, number, step_ms).await;
                drop(place);
            });
        }
        Ok(())
    }

    async fn start(&self, client: &Client, version: &'static str, number: usize, step_ms: u64) {
        let id = format!("{version}.outside.{number}");
        loop {
            let input = json!({ "step_ms": step_ms });
            let start = client.start(ERRAND, input).id(id.clone()).queue("errands");
            match start.app_version(version).await {
                Ok(_) => break,
                Err(error) => {
                    self.repeated.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%id, %error, "not started yet");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
    }
}
