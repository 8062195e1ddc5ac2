//! The store's statements against the functions that the model and the simulation trust: random
//! sequences of both must come to the same.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use segno_recovery::books::{self, Beat, Row, State};
use segno_recovery::machine::ExecutorKey;
use segno_server::config::Secret;
use segno_server::store::Store;
use segno_server::store::executors::{Connection, ExecutorState};
use segno_server::telemetry::Metrics;

use crate::server::{Database, execute};

const HOUR: i64 = 3_600_000;
const EXECUTORS: usize = 3;
const INSTANCES: u16 = 3;

fn instance(id: u16) -> String {
    format!("instance-{id}")
}

fn key(executor: usize) -> ExecutorKey {
    ExecutorKey {
        app_id: "app".to_owned(),
        executor_id: format!("e{executor}"),
        version: "v1".to_owned(),
    }
}

/// Both books. Times are not compared: the database has its own clock. So claims last for an hour or
/// ended an hour ago, and instances are gone when they are stopped.
struct Both {
    store: Store,
    rows: BTreeMap<usize, Row>,
    beats: Vec<Beat>,
    next: u16,
}

impl Both {
    async fn step(&mut self, random: &mut StdRng) {
        let executor = random.random_range(0..EXECUTORS);
        let id = random.random_range(0..INSTANCES);
        // What somebody saw who is late may be of an earlier generation.
        let seen = self.rows.get(&executor).map_or(0, |row| row.generation);
        let seen = seen.saturating_sub(u16::from(random.random_bool(0.2)));
        let until = if random.random_bool(0.8) { HOUR } else { -HOUR };
        match random.random_range(0..10) {
            0 | 1 => self.connect(executor, id).await,
            2 => self.lose(executor, random).await,
            3 => self.claim(executor, seen, id, until).await,
            4 => self.take_over(executor, seen, id, until).await,
            5 => {
                self.store.renew_claims(&instance(id), HOUR).await.unwrap();
                self.rows
                    .values_mut()
                    .for_each(|row| books::renew(row, id, HOUR));
            }
            6 => self.forget(executor, seen).await,
            7 => {
                self.store.instance_stopped(&instance(id)).await.unwrap();
                let own = self.beats.iter_mut().filter(|beat| beat.id == id);
                own.for_each(|beat| beat.stopped = true);
            }
            8 => {
                let beaten = self.store.beat(&instance(id)).await.unwrap().is_some();
                assert_eq!(beaten, books::beat(&mut self.beats, id, 0));
                if !beaten {
                    self.register(id).await;
                }
            }
            _ => {
                self.store.adopt_orphans(HOUR).await.unwrap();
                books::adopt(self.rows.values_mut(), &self.beats, 0, HOUR);
            }
        }
    }

    async fn register(&mut self, id: u16) {
        let address = format!("127.0.0.1:{id}");
        self.store
            .register_instance(&instance(id), &address)
            .await
            .unwrap();
        books::register(&mut self.beats, id, 0);
    }

    async fn connect(&mut self, executor: usize, id: u16) {
        self.next += 1;
        let (key, session, holder) = (key(executor), self.next.to_string(), instance(id));
        let connection = Connection {
            key: &key,
            hostname: None,
            language: None,
            sdk_version: None,
            metadata: None,
            session_id: &session,
            instance_id: &holder,
        };
        self.store.executors_connected(&[connection]).await.unwrap();
        let row = books::connected(self.rows.get(&executor), id, self.next);
        self.rows.insert(executor, row);
    }

    async fn lose(&mut self, executor: usize, random: &mut StdRng) {
        let session = match self.rows.get(&executor) {
            Some(row) if random.random_bool(0.8) => row.session,
            _ => 0,
        };
        let record = uuid::Uuid::new_v4().to_string();
        let now = self.store.now().await.unwrap();
        let lost = self
            .store
            .executor_lost(&key(executor), &session.to_string(), now, &record)
            .await
            .unwrap();
        let row = self.rows.get_mut(&executor);
        assert_eq!(lost, row.is_some_and(|row| books::lost(row, session, 0, 0)));
    }

    async fn claim(&mut self, executor: usize, seen: u16, id: u16, until: i64) {
        let record = uuid::Uuid::new_v4().to_string();
        let claimed = self
            .store
            .claim_dead(&key(executor), seen.into(), &instance(id), until, &record)
            .await
            .unwrap();
        let row = self.rows.get_mut(&executor);
        let expected = row.and_then(|row| books::claim_dead(row, seen, id, until));
        assert_eq!(
            claimed.map(|(generation, _)| generation),
            expected.map(i64::from)
        );
    }

    async fn take_over(&mut self, executor: usize, seen: u16, id: u16, until: i64) {
        let taken = self
            .store
            .take_over_dead(&key(executor), seen.into(), &instance(id), until)
            .await
            .unwrap();
        let row = self.rows.get_mut(&executor);
        let expected = row.and_then(|row| books::take_over(row, seen, id, until));
        assert_eq!(taken, expected.map(i64::from));
    }

    async fn forget(&mut self, executor: usize, seen: u16) {
        let forgotten = self
            .store
            .forget_dead(&key(executor), seen.into(), "none", "RECOVERED", None)
            .await
            .unwrap();
        assert_eq!(forgotten, books::may_forget(self.rows.get(&executor), seen));
        if forgotten {
            self.rows.remove(&executor);
        }
    }

    /// What can be read of the books is alike.
    async fn compare(&self) {
        let read = self.store.executors("app").await.unwrap();
        assert_eq!(read.len(), self.rows.len());
        for (executor, row) in &self.rows {
            let found = read
                .iter()
                .find(|found| found.key == key(*executor))
                .unwrap();
            let state = match row.state {
                State::Healthy => ExecutorState::Healthy,
                State::Disconnected => ExecutorState::Disconnected,
                State::Dead => ExecutorState::Dead,
            };
            assert_eq!(found.state, state);
            assert_eq!(found.generation, i64::from(row.generation));
            assert_eq!(found.instance_id, Some(instance(row.instance)));
            if state == ExecutorState::Disconnected {
                assert_eq!(found.grace_from.is_some(), row.grace_from.is_some());
                assert_eq!(found.noticed_at.is_some(), row.noticed_at.is_some());
            }
            let claimed = self
                .store
                .is_claimed(&key(*executor), found.generation)
                .await;
            assert_eq!(
                claimed.unwrap(),
                books::is_claimed(Some(row), row.generation, 0)
            );
        }
        for id in 0..INSTANCES {
            let free = self
                .store
                .dead_unclaimed(&instance(id), HOUR)
                .await
                .unwrap();
            for (executor, row) in &self.rows {
                let is_free = free.iter().any(|found| found.key == key(*executor));
                let expected = books::is_unclaimed(row, &self.beats, id, 0, HOUR);
                assert_eq!(is_free, expected, "{row:?}, {:?}", self.beats);
            }
        }
    }
}

async fn the_statements_do_what_the_functions_do(database: Database, seeds: u64) {
    let url = Secret::new(&database.url);
    let store = Store::connect(&url, Metrics::new().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    let org = store.local_org().await.unwrap();
    let app = format!(
        "INSERT INTO applications (id, org_id, name, created_at, updated_at) VALUES ('app', '{}', 'shop', 0, 0)",
        org.id
    );
    execute(&database.url, app).await;
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(seed);
        for table in ["executors", "recoveries", "instances"] {
            execute(&database.url, format!("DELETE FROM {table}")).await;
        }
        let mut both = Both {
            store: store.clone(),
            rows: BTreeMap::new(),
            beats: Vec::new(),
            next: 0,
        };
        for id in 0..INSTANCES {
            both.register(id).await;
        }
        for _ in 0..60 {
            both.step(&mut random).await;
            both.compare().await;
        }
    }
    store.close().await;
}

#[tokio::test]
async fn the_statements_do_what_the_functions_do_sqlite() {
    the_statements_do_what_the_functions_do(Database::sqlite(), 20).await;
}

#[tokio::test]
async fn the_statements_do_what_the_functions_do_postgres() {
    the_statements_do_what_the_functions_do(Database::postgres().await, 10).await;
}
