//! `segno queue`: the queues in a system database, without a server.

use std::time::Duration;

use clap::{Args, Subcommand};
use segno::system_database::{Aggregate, Figure, QueueRow, Scope, WorkflowFilter, WorkflowGroup};
use segno::{Client, Error, OnQueueConflict, Queue};
use serde_json::{Value, json};

use super::database::Common;
use super::output::{self, Column};

#[derive(Subcommand)]
pub(super) enum QueueCommand {
    /// List queues with their limits and how much is in them
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Make a queue, or give it these limits instead of those it has
    Set(Box<Set>),
    /// Remove a queue; what is on it waits until there is a queue of that name again
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
pub(super) struct Set {
    /// Its name
    name: String,
    /// Most workflows at once, in all processes together
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Most workflows at once in each process
    #[arg(long, value_name = "COUNT")]
    worker_concurrency: Option<u32>,
    /// Most starts in a period, such as 600/60 (in 60 seconds)
    #[arg(long, value_name = "STARTS/SECONDS", value_parser = rate)]
    rate_limit: Option<(u32, Duration)>,
    /// Most workflows at once of each partition key
    #[arg(long, value_name = "COUNT")]
    partition_concurrency: Option<u32>,
    /// Most workflows at once of each partition key in each process
    #[arg(long, value_name = "COUNT")]
    partition_worker_concurrency: Option<u32>,
    /// Most starts of each partition key in a period
    #[arg(long, value_name = "STARTS/SECONDS", value_parser = rate)]
    partition_rate_limit: Option<(u32, Duration)>,
    #[command(flatten)]
    common: Common,
}

/// `600/60`: so many in so many seconds.
fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || "write a rate as STARTS/SECONDS, such as 600/60".to_owned();
    let (starts, seconds) = text.split_once('/').ok_or_else(wrong)?;
    let starts = starts.parse().map_err(|_| wrong())?;
    let seconds: f64 = seconds.parse().map_err(|_| wrong())?;
    let period = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Ok((starts, period))
}

const LISTED: [Column; 8] = [
    ("QUEUE", "name"),
    ("APPLICATION", "application"),
    ("WAITING", "waiting"),
    ("RUNNING", "running"),
    ("CONCURRENCY", "concurrency"),
    ("PER WORKER", "workerConcurrency"),
    ("RATE", "rateLimit"),
    ("PARTITIONED", "partitioned"),
];

const WAITING: [&str; 2] = ["ENQUEUED", "DELAYED"];
const RUNNING: [&str; 1] = ["PENDING"];

pub(super) async fn run(command: QueueCommand) -> segno::Result<()> {
    match command {
        QueueCommand::List { common } => list(&common).await,
        QueueCommand::Set(set) => self::set(*set).await,
        QueueCommand::Delete { name, common } => {
            let client = owner(&common, &name).await?;
            if !client.queues().delete(&name).await? {
                return Err(Error::message(format!("there is no queue `{name}`")));
            }
            let line = format!("deleted: {name}");
            output::done(common.output, &line, &json!({ "deleted": name }))
        }
    }
}

async fn list(common: &Common) -> segno::Result<()> {
    let client = common.client().await?;
    let system = client.db().system_database();
    let scope = Scope::of(client.name());
    let mut queues: Vec<Value> = system
        .list_queues(&scope)
        .await?
        .iter()
        .map(shown)
        .collect();
    let groups = [WorkflowGroup::QueueName, WorkflowGroup::Status];
    let filter = WorkflowFilter {
        scope,
        statuses: WAITING
            .iter()
            .chain(&RUNNING)
            .map(|status| (*status).to_owned())
            .collect(),
        ..WorkflowFilter::default()
    };
    let counts = system
        .aggregate_workflows(&groups, None, &[Figure::Count], &filter)
        .await?;
    for queue in &mut queues {
        let count = |statuses: &[&str]| -> i64 {
            let value = |row: &Aggregate, key: &str| row.group.get(key).cloned().flatten();
            let on_queue = counts
                .iter()
                .filter(|row| value(row, "queue_name").as_deref() == queue["name"].as_str());
            let of = on_queue.filter(|row| {
                value(row, "status").is_some_and(|status| statuses.contains(&status.as_str()))
            });
            of.filter_map(|row| row.count).sum()
        };
        let (waiting, running) = (count(&WAITING), count(&RUNNING));
        queue["waiting"] = waiting.into();
        queue["running"] = running.into();
    }
    output::list(common.output, &LISTED, &queues)
}

async fn set(set: Set) -> segno::Result<()> {
    let client = owner(&set.common, &set.name).await?;
    let mut queue = Queue::new(&set.name).on_conflict(OnQueueConflict::AlwaysUpdate);
    if let Some(runs) = set.concurrency {
        queue = queue.concurrency(runs);
    }
    if let Some(runs) = set.worker_concurrency {
        queue = queue.worker_concurrency(runs);
    }
    if let Some((starts, period)) = set.rate_limit {
        queue = queue.rate_limit(starts, period);
    }
    if let Some(runs) = set.partition_concurrency {
        queue = queue.partition_concurrency(runs);
    }
    if let Some(runs) = set.partition_worker_concurrency {
        queue = queue.partition_worker_concurrency(runs);
    }
    if let Some((starts, period)) = set.partition_rate_limit {
        queue = queue.partition_rate_limit(starts, period);
    }
    client.queues().register(queue).await?;
    let system = client.db().system_database();
    let row = system.get_queue(&set.name).await?;
    let row = row.ok_or_else(|| Error::message(format!("there is no queue `{}`", set.name)))?;
    let line = format!("set: {}", set.name);
    output::done(set.common.output, &line, &shown(&row))
}

/// A client in the name of the queue's application, which alone may change it, unless another one was named.
async fn owner(common: &Common, queue: &str) -> segno::Result<Client> {
    let client = common.client().await?;
    if common.application.is_some() {
        return Ok(client);
    }
    let row = client.db().system_database().get_queue(queue).await?;
    Ok(match row.and_then(|row| row.application_name) {
        Some(name) => client.application(name),
        None => client,
    })
}

fn shown(row: &QueueRow) -> Value {
    let rate = |starts: Option<i64>, period: Option<f64>| {
        starts
            .zip(period)
            .map(|(starts, seconds)| format!("{starts}/{seconds} s"))
    };
    json!({
        "name": row.name,
        "application": row.application_name,
        "concurrency": row.concurrency,
        "workerConcurrency": row.worker_concurrency,
        "rateLimit": rate(row.rate_limit_max, row.rate_limit_period_sec),
        "partitioned": row.partition_queue,
        "partitionConcurrency": row.partition_concurrency,
        "partitionWorkerConcurrency": row.partition_worker_concurrency,
        "partitionRateLimit": rate(row.partition_rate_limit_max, row.partition_rate_limit_period_sec),
    })
}
