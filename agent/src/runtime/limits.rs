//! Taking work from queues with limits.
//!
//! Limits of this process are counted in memory. Limits of the whole fleet are counted in the database, in
//! the transaction that takes the rows, and isolated so that two processes which count at the same time
//! cannot both take the last place: one of them fails, and looks again.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;

use super::Runtime;
use super::claim::{self, Claimed, candidates, dispatch, read_claimed, room, take_candidates};
use crate::recorder::is_contention;
use crate::system_database::{DatabaseError, Isolation, QueueRow, Scope, Statement};

/// Most partitions of a queue looked at in one round.
const PARTITIONS: i64 = 8192;

/// Starts in a trailing period.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    most: i64,
    period_ms: i64,
}

impl Rate {
    fn of(most: Option<i64>, period_sec: Option<f64>) -> Option<Self> {
        let period_ms = (period_sec? * 1000.0) as i64;
        Some(Self {
            most: most?,
            period_ms,
        })
    }
}

/// A queue's limits, or those of each of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Set {
    /// Running at once, everywhere.
    concurrency: Option<i64>,
    /// Running at once in this process.
    worker: Option<i64>,
    rate: Option<Rate>,
}

impl Set {
    fn shared(&self) -> bool {
        self.concurrency.is_some() || self.rate.is_some()
    }

    fn any(&self) -> bool {
        self.shared() || self.worker.is_some()
    }
}

/// What limits a queue.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Limits {
    whole: Set,
    partition: Option<Set>,
}

impl Limits {
    pub(super) fn of(queue: &QueueRow) -> Self {
        let whole = Set {
            concurrency: queue.concurrency,
            worker: queue.worker_concurrency,
            rate: Rate::of(queue.rate_limit_max, queue.rate_limit_period_sec),
        };
        let partition = Set {
            concurrency: queue.partition_concurrency,
            worker: queue.partition_worker_concurrency,
            rate: Rate::of(
                queue.partition_rate_limit_max,
                queue.partition_rate_limit_period_sec,
            ),
        };
        match (partition.any(), queue.partition_queue) {
            (true, _) => Self {
                whole,
                partition: Some(partition),
            },
            // Queues of older SDKs: every limit is meant for each partition.
            (false, true) => Self {
                whole: Set::default(),
                partition: Some(whole),
            },
            (false, false) => Self {
                whole,
                partition: None,
            },
        }
    }

    pub(super) fn any(&self) -> bool {
        self.whole.any() || self.partition.is_some()
    }

    fn sets(&self) -> impl Iterator<Item = (bool, Set)> {
        let partition = self.partition.map(|set| (true, set));
        std::iter::once((false, self.whole)).chain(partition)
    }

    fn rate_limited(&self) -> bool {
        self.sets().any(|(_, set)| set.rate.is_some())
    }

    /// How strictly a transaction must be kept apart from others that count the same.
    fn isolation(&self) -> Isolation {
        if self.partition.is_some() && self.whole.shared() {
            // Two partitions count the same queue and take different rows.
            Isolation::Serializable
        } else if self.sets().any(|(_, set)| set.shared()) {
            Isolation::RepeatableRead
        } else {
            Isolation::ReadCommitted
        }
    }
}

/// Takes what the limits allow from each queue that has something.
pub(super) async fn take(
    runtime: &Arc<Runtime>,
    queues: &[(String, Limits)],
) -> Result<(), DatabaseError> {
    if queues.is_empty() || room(runtime) == 0 {
        return Ok(());
    }
    let waiting = with_work(runtime, queues).await?;
    let mut again = false;
    for (queue, limits) in queues.iter().filter(|(queue, _)| waiting.contains(queue)) {
        let mut partitions = match limits.partition {
            None => vec![None],
            Some(_) => partitions(runtime, queue).await?,
        };
        // No partition is always first.
        partitions.shuffle(&mut rand::rng());
        for partition in partitions {
            if room(runtime) == 0 {
                return Ok(());
            }
            match take_from(runtime, queue, partition.as_deref(), limits).await {
                Ok(claimed) => dispatch(runtime, claimed).await?,
                Err(DatabaseError::Sql(error)) if is_contention(&error) => again = true,
                Err(error) => return Err(error),
            }
        }
    }
    if again {
        look_again(runtime);
    }
    Ok(())
}

/// Another process counted at the same time: both look again, not at the same time.
fn look_again(runtime: &Arc<Runtime>) {
    let pause = Duration::from_millis(rand::random_range(20..150));
    let later = runtime.clone();
    runtime.spawn(async move {
        tokio::time::sleep(pause).await;
        later.queue_changed.notify_one();
    });
}

/// The queues among these on which anything is enqueued.
async fn with_work(
    runtime: &Runtime,
    queues: &[(String, Limits)],
) -> Result<Vec<String>, DatabaseError> {
    let db = &runtime.db.system;
    let names: Vec<String> = queues.iter().map(|(name, _)| name.clone()).collect();
    let query = db
        .sql("SELECT DISTINCT queue_name FROM @workflow_status WHERE status = 'ENQUEUED' AND ")
        .any_of("queue_name", &names);
    db.read(query)
        .await?
        .iter()
        .map(|row| row.required("queue_name"))
        .collect()
}

/// The partitions of a queue in which anything is enqueued, found from one to the next along the index.
async fn partitions(runtime: &Runtime, queue: &str) -> Result<Vec<Option<String>>, DatabaseError> {
    let db = &runtime.db.system;
    let scope = Scope::of(runtime.app_name());
    let least = |statement: Statement| {
        statement
            .push(
                "(SELECT MIN(queue_partition_key) FROM @workflow_status WHERE status = 'ENQUEUED' AND \
                 queue_partition_key IS NOT NULL AND queue_name = ",
            )
            .bind(queue)
            .and_scope("application_name", &scope)
    };
    let statement = least(db.sql("WITH RECURSIVE k(key) AS (SELECT ")).push(") UNION ALL SELECT ");
    let statement = least(statement)
        .push(
            " AND queue_partition_key > k.key) FROM k WHERE k.key IS NOT NULL) \
             SELECT key FROM k WHERE key IS NOT NULL LIMIT ",
        )
        .bind(PARTITIONS);
    db.read(statement)
        .await?
        .iter()
        .map(|row| row.text("key"))
        .collect()
}

/// Takes as many rows of a queue, or of one of its partitions, as all limits allow.
async fn take_from(
    runtime: &Runtime,
    queue: &str,
    partition: Option<&str>,
    limits: &Limits,
) -> Result<Vec<Claimed>, DatabaseError> {
    let mut most = i64::try_from(room(runtime)).unwrap_or(i64::MAX);
    for (of_partition, set) in limits.sets() {
        if let Some(worker) = set.worker {
            let partition = partition.filter(|_| of_partition);
            most = most.min(worker - runtime.running_of(queue, partition));
        }
    }
    if most <= 0 {
        return Ok(Vec::new());
    }
    let db = &runtime.db.system;
    let isolation = limits.isolation();
    let mut transaction = db.begin_isolated(isolation).await?;
    for (of_partition, set) in limits.sets() {
        let count = |statement: Statement| {
            let statement = statement.push(" AND queue_name = ").bind(queue);
            let statement = match partition.filter(|_| of_partition) {
                Some(key) => statement.push(" AND queue_partition_key = ").bind(key),
                None => statement,
            };
            statement.and_scope("application_name", &Scope::of(runtime.app_name()))
        };
        if let Some(rate) = set.rate {
            let started = db
                .sql(
                    "SELECT COUNT(*) AS n FROM @workflow_status WHERE rate_limited = TRUE AND status NOT IN \
                     ('ENQUEUED', 'DELAYED') AND started_at_epoch_ms > NOW_MS - ",
                )
                .bind(rate.period_ms);
            let rows = transaction.fetch(count(started)).await?;
            most = most.min(rate.most - number(&rows)?);
        }
        if let Some(concurrency) = set.concurrency {
            let running =
                db.sql("SELECT COUNT(*) AS n FROM @workflow_status WHERE status = 'PENDING'");
            let rows = transaction.fetch(count(running)).await?;
            most = most.min(concurrency - number(&rows)?);
        }
    }
    if most <= 0 {
        return Ok(Vec::new());
    }
    let lock = match isolation {
        Isolation::ReadCommitted => " FOR UPDATE SKIP LOCKED",
        // Whoever holds one of these rows may be about to change what was counted.
        _ => " FOR UPDATE NOWAIT",
    };
    let token = runtime.new_token();
    let with = db.sql("WITH candidate AS (");
    let queues = [queue.to_owned()];
    let most = usize::try_from(most).unwrap_or(0);
    let lock = claim::lock(db.dialect(), lock);
    let candidates = candidates(runtime, with, &queues, partition, most, lock);
    let take = take_candidates(runtime, candidates, &token, limits.rate_limited());
    let rows = transaction.fetch(take).await?;
    transaction.commit().await?;
    read_claimed(&rows, &token)
}

fn number(rows: &[crate::system_database::Row]) -> Result<i64, DatabaseError> {
    let row = rows.first().map(|row| row.int("n")).transpose()?;
    Ok(row.flatten().unwrap_or(0))
}
