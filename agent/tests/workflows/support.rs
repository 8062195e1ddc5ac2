//! A database per test, and a world that sees what workflows do and decides when they may go on.

use std::collections::HashMap;
use std::future::{Future, IntoFuture};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segno::{Builder, Db, Segno, StepInfo};
use tokio::sync::{Semaphore, watch};

use super::database_support::PostgresDatabase;

/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A fresh database, reachable from any number of applications and processes.
pub struct Place {
    pub url: String,
    pub db: Db,
    postgres: Option<PostgresDatabase>,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub async fn postgres() -> Self {
        let postgres = PostgresDatabase::create().await;
        let url = postgres.url.clone();
        let db = Db::connect(&url).await.unwrap();
        Self {
            url,
            db,
            postgres: Some(postgres),
            _folder: None,
        }
    }

    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("app.db").display());
        let db = Db::connect(&url).await.unwrap();
        Self {
            url,
            db,
            postgres: None,
            _folder: Some(folder),
        }
    }

    /// The same place through connections made now.
    pub async fn reconnected(&self) -> Self {
        let db = Db::connect(&self.url).await.unwrap();
        Self {
            url: self.url.clone(),
            db,
            postgres: None,
            _folder: None,
        }
    }

    /// An application of this database; version and executor id are those of every test unless changed.
    pub fn app(&self, world: &World) -> Builder<World> {
        Segno::named("test-app")
            .database_url(&self.url)
            .app_version("v1")
            .executor_id("one")
            .state(world.clone())
    }

    /// Runs a statement; `@` stands for the schema's prefix.
    pub async fn execute(&self, sql: &str) -> u64 {
        let sql = self.expand(sql);
        self.db
            .transaction(|tx| {
                let sql = sql.clone();
                Box::pin(
                    async move { Ok(tx.query(segno::sqlx::AssertSqlSafe(sql)).execute().await?) },
                )
            })
            .await
            .unwrap()
    }

    /// The first column of the first row.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = self.expand(sql);
        self.db
            .transaction(|tx| {
                let sql = sql.clone();
                Box::pin(async move {
                    let (number,): (i64,) = tx
                        .query(segno::sqlx::AssertSqlSafe(sql))
                        .fetch_one()
                        .await?;
                    Ok(number)
                })
            })
            .await
            .unwrap()
    }

    fn expand(&self, sql: &str) -> String {
        sql.replace('@', if self.db.is_sqlite() { "" } else { "dbos." })
    }

    pub async fn drop(self) {
        if let Some(postgres) = self.postgres {
            postgres.drop().await;
        }
    }
}

/// What a process's workflows did, and the gates they wait at.
#[derive(Clone)]
pub struct World {
    effects: watch::Sender<Vec<String>>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    pub db: Option<Db>,
}

impl World {
    pub fn new() -> Self {
        Self {
            effects: watch::Sender::new(Vec::new()),
            gates: Arc::default(),
            db: None,
        }
    }

    /// A world whose workflows run transactions on `db`.
    pub fn with_db(db: &Db) -> Self {
        Self {
            db: Some(db.clone()),
            ..Self::new()
        }
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// Something happened that would be seen outside.
    pub fn note(&self, effect: impl Into<String>) {
        self.effects
            .send_modify(|effects| effects.push(effect.into()));
    }

    pub fn effects(&self) -> Vec<String> {
        self.effects.borrow().clone()
    }

    pub fn count(&self, effect: &str) -> usize {
        self.effects
            .borrow()
            .iter()
            .filter(|seen| *seen == effect)
            .count()
    }

    /// Waits until `effect` has happened.
    pub async fn saw(&self, effect: &str) {
        let mut effects = self.effects.subscribe();
        within(effects.wait_for(|effects| effects.iter().any(|seen| seen == effect)))
            .await
            .unwrap();
    }

    /// Waits at a gate until somebody opens it, once for all.
    pub async fn pass(&self, gate: &str) {
        let gate = self.gate(gate);
        let _permit = gate.acquire().await.unwrap();
    }

    pub fn open(&self, gate: &str) {
        self.gate(gate).add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn gate(&self, gate: &str) -> Arc<Semaphore> {
        self.gates
            .lock()
            .unwrap()
            .entry(gate.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(0)))
            .clone()
    }
}

/// Fails instead of hanging.
pub async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(STUCK, future).await.expect("stuck")
}

/// Waits for a condition that only the database knows.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + STUCK;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Names of recorded steps by position.
pub async fn recorded(app: &Segno, id: &str) -> Vec<String> {
    let names = |steps: Vec<StepInfo>| {
        assert!(
            steps
                .iter()
                .enumerate()
                .all(|(index, step)| step.position == index as i64),
            "{steps:?}"
        );
        steps.into_iter().map(|step| step.name).collect()
    };
    names(app.steps(id).await.unwrap())
}

/// Declares every test once for each database.
#[macro_export]
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let place = $crate::support::Place::postgres().await;
                super::$test(&place).await;
                place.drop().await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let place = $crate::support::Place::sqlite().await;
                super::$test(&place).await;
                place.drop().await;
            })+
        }
    };
}
