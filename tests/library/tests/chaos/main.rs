//! Chaos: processes of an application are killed, its Postgres crashes every few seconds, its network is cut, while
//! thousands of workflows run. Nothing is lost, nothing happens twice, every record is what the program says.
//!
//! `SEGNO_CHAOS_WORKFLOWS` sets how many (10,000 take a few minutes), `SEGNO_CHAOS_SEED` repeats the plan of a run,
//! whose seed is printed.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod network;
mod oracle;
mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use network::Wire;
use oracle::{Journals, Oracle};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use segno_e2e::eventually;
use segno_e2e::process::Process;
use server::Server;
use sqlx::AssertSqlSafe;

const WORKERS: u8 = 4;
/// Everything that is left is done this long after the last blow.
const PATIENCE: Duration = Duration::from_secs(300);
/// While blows fall, the records are looked at as often.
const LOOK_EVERY: Duration = Duration::from_secs(3);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
    )
}

/// One of the processes, and what stands for its machine.
struct Worker {
    number: u8,
    wire: Wire,
    url: String,
    process: Process,
}

struct Fleet {
    folder: tempfile::TempDir,
    orders: u64,
    workers: Vec<Worker>,
}

impl Fleet {
    fn spawn(folder: &std::path::Path, orders: u64, number: u8, wire: &Wire, url: &str) -> Process {
        let count = orders.div_ceil(u64::from(WORKERS));
        let first = count * u64::from(number);
        let count = count.min(orders.saturating_sub(first));
        let path = |extension: &str| -> PathBuf { folder.join(format!("{number}.{extension}")) };
        let mut command = wire.command(env!("CARGO_BIN_EXE_segno-chaos-worker"));
        command
            .args(["--database", url, "--name", &format!("worker-{number}")])
            .args(["--first", &first.to_string(), "--count", &count.to_string()])
            .arg("--journal")
            .arg(path("journal"));
        Process::start(&format!("worker {number}"), command, path("log")).unwrap()
    }

    fn start(orders: u64, wires: Vec<Wire>, urls: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workers = (0..).zip(wires.into_iter().zip(urls));
        let workers = workers.map(|(number, (wire, url))| {
            let process = Self::spawn(folder.path(), orders, number, &wire, &url);
            Worker {
                number,
                wire,
                url,
                process,
            }
        });
        Self {
            workers: workers.collect(),
            folder,
            orders,
        }
    }

    async fn kill(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.process.kill().await.unwrap();
        worker.process = Self::spawn(
            self.folder.path(),
            self.orders,
            worker.number,
            &worker.wire,
            &worker.url,
        );
    }

    fn started(&self) -> u64 {
        Journals::read(self.folder.path()).unwrap().started.len() as u64
    }
}

/// How often each blow fell.
#[derive(Debug, Default)]
struct Blows {
    kills: u32,
    crashes: u32,
    cuts: u32,
    /// How often the records of what ran were looked at in between.
    looks: u32,
}

impl Blows {
    fn of_every_kind(&self, with_server: bool) -> bool {
        self.kills > 0 && (!with_server || self.crashes > 0 && self.cuts > 0)
    }
}

/// Blow after blow, until everything was started and every kind of blow has fallen. What was seen to be wrong
/// meanwhile is returned, too.
async fn storm(
    fleet: &mut Fleet,
    oracle: &Oracle,
    server: Option<&Server>,
    rng: &mut StdRng,
) -> (Blows, Vec<String>) {
    let mut blows = Blows::default();
    let mut wrong = Vec::new();
    let mut next_look = Instant::now() + LOOK_EVERY;
    let millis = |rng: &mut StdRng, range| Duration::from_millis(rng.random_range(range));
    let mut next_crash = Instant::now() + millis(rng, 1000..3000);
    while fleet.started() < fleet.orders || !blows.of_every_kind(server.is_some()) {
        tokio::time::sleep(millis(rng, 100..600)).await;
        if Instant::now() >= next_look {
            wrong.extend(oracle.gaps().await.unwrap());
            blows.looks += 1;
            next_look = Instant::now() + LOOK_EVERY;
        }
        let victim = rng.random_range(0..fleet.workers.len());
        match server {
            Some(server) if Instant::now() >= next_crash => {
                server.crash().await.unwrap();
                tokio::time::sleep(millis(rng, 0..1500)).await;
                server.revive().await.unwrap();
                blows.crashes += 1;
                next_crash = Instant::now() + millis(rng, 2000..6000);
            }
            Some(_) if rng.random_bool(0.3) => {
                fleet.workers[victim].wire.cut().await.unwrap();
                tokio::time::sleep(millis(rng, 100..2000)).await;
                // Or it dies where nobody hears of it.
                if rng.random_bool(0.3) {
                    fleet.kill(victim).await;
                    blows.kills += 1;
                }
                fleet.workers[victim].wire.mend().await.unwrap();
                blows.cuts += 1;
            }
            _ => {
                fleet.kill(victim).await;
                blows.kills += 1;
            }
        }
    }
    (blows, wrong)
}

async fn run(
    name: &str,
    orders: u64,
    mut fleet: Fleet,
    oracle: Oracle,
    server: Option<&Server>,
    seed: u64,
) {
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let (blows, seen) = storm(&mut fleet, &oracle, server, &mut rng).await;
    let stormed = begun.elapsed();
    let settled = eventually("every workflow to end", PATIENCE, async || {
        let (all, open) = oracle.count().await?;
        Ok((all as u64 == orders && open == 0).then_some(()))
    });
    settled
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {error:#}; {:?}", blows));
    for worker in &mut fleet.workers {
        worker.process.kill().await.unwrap();
    }
    let journals = Journals::read(fleet.folder.path()).unwrap();
    let mut wrong = oracle.judge(orders, &journals).await.unwrap();
    wrong.extend(seen);
    println!(
        "{name}: {orders} workflows, {} kills, {} crashes of Postgres, {} cuts of the network in {:.0} s, at rest after {:.0} s; \
         {} executions of steps, records looked at {} times; {} things wrong",
        blows.kills,
        blows.crashes,
        blows.cuts,
        stormed.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        journals.ran.len(),
        blows.looks,
        wrong.len(),
    );
    assert!(
        wrong.is_empty(),
        "seed {seed}: {:#?}",
        &wrong[..wrong.len().min(50)]
    );
}

/// The tables are there before the first worker is.
async fn prepare(url: &str) -> Oracle {
    let db = segno::Db::connect(url).await.unwrap();
    db.system_database().migrate().await.unwrap();
    db.system_database().close().await;
    let pool = segno_e2e::database::connect(url).await.unwrap();
    let effects = "CREATE TABLE effects (workflow_id TEXT NOT NULL, name TEXT NOT NULL)";
    sqlx::query(AssertSqlSafe(effects))
        .execute(&pool)
        .await
        .unwrap();
    let prefix = if url.starts_with("sqlite") {
        ""
    } else {
        "dbos."
    };
    Oracle { pool, prefix }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_done_twice_on_postgres() {
    let _turn = segno_e2e::turn().await;
    let orders = number("SEGNO_CHAOS_WORKFLOWS").unwrap_or(1500);
    let seed = number("SEGNO_CHAOS_SEED").unwrap_or_else(rand::random);
    let mut wires = network::links(WORKERS).await.unwrap();
    let linked = wires.len() == usize::from(WORKERS);
    let how = if linked {
        "links of network namespaces"
    } else {
        "proxies"
    };
    println!("postgres: {orders} workflows, wires are {how}, SEGNO_CHAOS_SEED={seed}");
    if !linked {
        wires.clear();
    }
    let addresses: Vec<IpAddr> = wires.iter().filter_map(Wire::address).collect();
    let server = Server::start(&addresses).await.unwrap();
    let own = server.url(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = own
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next())
        .unwrap();
    let mut urls: Vec<String> = addresses
        .iter()
        .map(|address| server.url(*address))
        .collect();
    while wires.len() < usize::from(WORKERS) {
        let wire = Wire::proxy((Ipv4Addr::LOCALHOST, port.parse().unwrap()).into())
            .await
            .unwrap();
        let Wire::Proxy(proxy) = &wire else {
            unreachable!()
        };
        urls.push(format!("postgres://postgres@{}/postgres", proxy.address()));
        wires.push(wire);
    }
    let oracle = prepare(&own).await;
    let fleet = Fleet::start(orders, wires, urls);
    run("postgres", orders, fleet, oracle, Some(&server), seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_done_twice_on_sqlite() {
    let _turn = segno_e2e::turn().await;
    let orders = number("SEGNO_CHAOS_WORKFLOWS").unwrap_or(1000);
    let seed = number("SEGNO_CHAOS_SEED").unwrap_or_else(rand::random);
    println!("sqlite: {orders} workflows, SEGNO_CHAOS_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("app.db").display());
    let oracle = prepare(&url).await;
    let wires = (0..WORKERS).map(|_| Wire::None).collect();
    let fleet = Fleet::start(orders, wires, vec![url; usize::from(WORKERS)]);
    run("sqlite", orders, fleet, oracle, None, seed).await;
}
