//! Three instances and eight executors, killed, stopped and paused in an order that a seed decides: at
//! the end all work is with somebody who lives, and nobody who lived was ever recovered.
//!
//! The instances are processes and get real signals; the executors are fakes with real sockets that
//! dial any instance, as behind a load balancer. `SEGNO_CHAOS_SECS` (30) is how long things go wrong,
//! `SEGNO_CHAOS_SEED` the seed, which is printed.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cluster::key;
use crate::fake::{Fake, Reply, Workflows, dial};
use crate::process::Instance;
use crate::server::{Database, until};

const INSTANCES: usize = 3;
const EXECUTORS: usize = 8;
const WORK: usize = 3;
const GRACE_SECS: u32 = 4;

/// What everybody shares.
#[derive(Clone, Default)]
struct World {
    workflows: Workflows,
    /// Where instances listen, as a load balancer knows it.
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    living: Arc<Mutex<HashSet<String>>>,
    /// Living executors that somebody was told to recover.
    false_deaths: Arc<Mutex<Vec<String>>>,
}

/// An executor: dials anybody, again and again, until it is killed.
struct Executor {
    id: String,
    task: JoinHandle<()>,
}

impl World {
    fn start(&self, id: String, key: &str) -> Executor {
        self.living.lock().unwrap().insert(id.clone());
        self.workflows.running(WORK, &id, "v1");
        let (world, name, path) = (self.clone(), id.clone(), format!("/websocket/shop/{key}"));
        let task = tokio::spawn(async move {
            loop {
                if let Some(mut fake) = world.dial(&name, &path).await {
                    fake.closed_at_last().await;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        Executor { id, task }
    }

    async fn dial(&self, id: &str, path: &str) -> Option<Fake> {
        let address = *self.addresses.lock().unwrap().choose(&mut rand::rng())?;
        let dialled = timeout(Duration::from_secs(1), dial(address, path)).await;
        let socket = dialled.ok()?.ok()?;
        let (living, false_deaths) = (self.living.clone(), self.false_deaths.clone());
        let told = move |request: &Value| {
            if request["type"] == "recovery" {
                let living = living.lock().unwrap();
                let ids = request["executor_ids"].as_array().unwrap().iter();
                let lives = ids
                    .filter_map(Value::as_str)
                    .filter(|id| living.contains(*id));
                false_deaths
                    .lock()
                    .unwrap()
                    .extend(lives.map(str::to_owned));
            }
            Reply::Usual
        };
        Some(Fake::serve(
            socket,
            id,
            "v1",
            "python",
            &self.workflows,
            told,
        ))
    }

    fn kill(&self, executor: Executor) -> String {
        executor.task.abort();
        self.living.lock().unwrap().remove(&executor.id);
        executor.id.clone()
    }

    /// Work that is with nobody who lives.
    fn orphans(&self) -> usize {
        let living = self.living.lock().unwrap();
        let all = self.workflows.all();
        all.values()
            .filter(|row| !living.contains(&row.executor_id))
            .count()
    }

    fn set_addresses(&self, instances: &[Instance]) {
        *self.addresses.lock().unwrap() = instances.iter().map(|i| i.address).collect();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nobody_living_is_recovered() {
    let seed = number("SEGNO_CHAOS_SEED").unwrap_or_else(rand::random);
    let lasts = Duration::from_secs(number("SEGNO_CHAOS_SECS").unwrap_or(30));
    println!("SEGNO_CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let database = Database::postgres().await;
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(Instance::start(&database.url).await);
    }
    instances[0].app("shop", GRACE_SECS).await;
    let key = key(&instances[0], "executors").await;
    let world = World::default();
    world.set_addresses(&instances);
    let mut fleet: Vec<Executor> = (0..EXECUTORS)
        .map(|n| world.start(format!("e{n}"), &key))
        .collect();
    let mut born = EXECUTORS;
    until("everybody to be there", async || {
        let all = instances[0].get("/apps/shop/executors").await;
        (all.as_array().unwrap().len() == EXECUTORS).then_some(())
    })
    .await;

    let mut deaths: BTreeMap<String, Instant> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        let what = match random.random_range(0..10) {
            0..5 => {
                let dead = fleet.remove(random.random_range(0..fleet.len()));
                deaths.insert(world.kill(dead), Instant::now());
                fleet.push(world.start(format!("e{born}"), &key));
                born += 1;
                "executors killed"
            }
            5 | 6 => {
                let mut gone = instances.remove(random.random_range(0..instances.len()));
                world.set_addresses(&instances);
                gone.kill().await;
                instances.push(Instance::start(&database.url).await);
                "instances killed"
            }
            7 => {
                let mut gone = instances.remove(random.random_range(0..instances.len()));
                world.set_addresses(&instances);
                gone.terminate();
                assert!(gone.ended().await.success());
                instances.push(Instance::start(&database.url).await);
                "instances stopped"
            }
            8 => {
                let paused = &instances[random.random_range(0..instances.len())];
                paused.signal(Signal::STOP);
                sleep(Duration::from_millis(random.random_range(200..1500))).await;
                paused.signal(Signal::CONT);
                "instances paused"
            }
            _ => {
                // A process and the instance that may hold its socket, at one moment.
                let dead = fleet.remove(random.random_range(0..fleet.len()));
                let mut gone = instances.remove(random.random_range(0..instances.len()));
                world.set_addresses(&instances);
                deaths.insert(world.kill(dead), Instant::now());
                gone.kill().await;
                instances.push(Instance::start(&database.url).await);
                fleet.push(world.start(format!("e{born}"), &key));
                born += 1;
                "both killed"
            }
        };
        world.set_addresses(&instances);
        *counts.entry(what).or_default() += 1;
        sleep(Duration::from_millis(random.random_range(100..1000))).await;
    }

    let healing = Instant::now();
    until("all work to be with somebody who lives", async || {
        (world.orphans() == 0).then_some(())
    })
    .await;
    let heal = healing.elapsed();
    let at = &instances[0];
    until("every death to have a true record", async || {
        let records = at.get("/apps/shop/recoveries?limit=1000").await;
        let closed = |id: &str| {
            let mut own = records
                .as_array()
                .unwrap()
                .iter()
                .filter(|r| r["executorId"] == id);
            own.any(|r| r["status"] == "RECOVERED" || r["status"] == "NOTHING_PENDING")
        };
        deaths.keys().all(|id| closed(id)).then_some(())
    })
    .await;
    report(seed, begun.elapsed(), heal, &world, &deaths, &counts);
    let false_deaths = world.false_deaths.lock().unwrap().clone();
    assert!(
        false_deaths.is_empty(),
        "seed {seed}: {false_deaths:?} were alive"
    );
    assert_eq!(world.workflows.all().len(), born * WORK, "seed {seed}");
}

/// When the work of each of the dead was taken, after its death.
fn report(
    seed: u64,
    took: Duration,
    heal: Duration,
    world: &World,
    deaths: &BTreeMap<String, Instant>,
    counts: &BTreeMap<&str, u32>,
) {
    let mut hand_overs: Vec<u128> = Vec::new();
    for (id, row) in world.workflows.all() {
        // The first taker; later ones took it from that one. Ids begin with the first owner's.
        let owner = id.split('-').next().unwrap();
        if let (Some(death), 2) = (deaths.get(owner), row.history.len()) {
            hand_overs.push(row.since.saturating_duration_since(*death).as_millis());
        }
    }
    hand_overs.sort_unstable();
    let at = |percent: usize| match hand_overs.len() {
        0 => None,
        n => Some(hand_overs[(n * percent).div_ceil(100).max(1) - 1]),
    };
    let report = json!({
        "seed": seed, "seconds": took.as_secs(), "faults": counts, "workflows": world.workflows.all().len(),
        "deaths": deaths.len(), "lost": world.orphans(), "falseDeaths": world.false_deaths.lock().unwrap().len(),
        "graceMs": GRACE_SECS * 1000, "healMs": heal.as_millis() as u64,
        "handOverMs": {"n": hand_overs.len(), "p50": at(50), "p99": at(99), "max": at(100)},
    });
    println!("{report}");
}
