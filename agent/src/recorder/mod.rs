//! The recorder: every start, step and outcome of this process is written here, many in one commit.
//!
//! One task takes whatever is waiting, writes it in one transaction and answers each caller after the
//! commit. There is no timer: a batch is what arrived while the last commit was in flight, so alone a
//! workflow pays one commit a step and a thousand of them share each one. On Postgres a second batch goes out
//! over another connection when enough is waiting that it pays (see [`Pace`]); it never touches a workflow that
//! the first one touches.
//!
//! What a write finds comes back in its answer: another owner, a cancelled row, a row that exists. That is
//! why nothing is read before a step. A batch the database refuses is halved until the row that it
//! refuses is alone; only its workflow hears of it. While the database is away the batch is tried again
//! and everybody waits.

mod batch;
mod effects;
mod gate;
mod postgres;
mod quick;
mod single;
mod sqlite;
mod statement;
mod transaction;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::batch::InFlight;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Payloads;
use crate::status::Status;
use crate::system_database::{Pool, SystemDatabase};

pub(crate) use gate::{Counting, Gate, Side};
pub(crate) use transaction::{InTransaction, record_in};

/// Most rows in one commit: keeps one statement's memory and lock time in bounds.
const MAX_BATCH: usize = 1024;

/// Connections that write at the same time.
const CONNECTIONS: usize = 2;

/// About what Postgres takes to write a row.
const ROW: Duration = Duration::from_micros(20);

/// Protocol errors after which a batch is taken to be their cause.
const GARBLED: u32 = 5;

/// Callers that may wait for the recorder before further ones wait to be let in.
const QUEUE: usize = 16 * 1024;

/// A workflow to be started or enqueued.
#[derive(Debug, Clone)]
pub(crate) struct StartRow {
    pub(crate) workflow_id: String,
    /// The id was made for this start: nobody else has or had it.
    pub(crate) id_is_new: bool,
    pub(crate) status: Status,
    pub(crate) name: String,
    pub(crate) inputs: String,
    /// Made by the caller, once: tells our own row from one that existed. Of a direct start it becomes
    /// the ownership token.
    pub(crate) token: String,
    pub(crate) queue: Option<String>,
    pub(crate) app_version: Option<String>,
    pub(crate) executor_id: String,
    pub(crate) timeout_ms: Option<i64>,
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) delay_until_ms: Option<i64>,
    pub(crate) priority: i32,
    pub(crate) deduplication_id: Option<String>,
    pub(crate) partition_key: Option<String>,
    pub(crate) parent: Option<ParentRow>,
    /// Attributes, a JSON object.
    pub(crate) attributes: Option<String>,
    pub(crate) caller: Caller,
    /// An existing run of the id is an error of the caller's, not joined: it becomes no child either.
    pub(crate) reject: bool,
    /// The application it is for, if it is another one.
    pub(crate) application: Option<String>,
    /// The schedule that enqueues it.
    pub(crate) schedule: Option<String>,
    /// It is debounced, with an end of the delays if there is one.
    pub(crate) debounce: Option<Option<i64>>,
}

/// On whose behalf a workflow runs, as far as its starter said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: Option<String>,
    pub(crate) assumed_role: Option<String>,
    /// A JSON array of strings.
    pub(crate) roles: Option<String>,
}

/// The workflow that starts a child; the start is a step of it.
#[derive(Debug, Clone)]
pub(crate) struct ParentRow {
    pub(crate) workflow_id: String,
    pub(crate) token: String,
    pub(crate) position: i32,
    pub(crate) started_at: i64,
}

/// A step's checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct StepRow {
    pub(crate) workflow_id: String,
    pub(crate) token: String,
    pub(crate) position: i32,
    pub(crate) name: String,
    pub(crate) started_at: i64,
    /// Fixed before the first attempt to write: by it the row is recognised as ours.
    pub(crate) completed_at: i64,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) child: Option<String>,
    /// Format of output and error.
    pub(crate) format: Cow<'static, str>,
}

/// A checkpoint that does something besides being one: what it does commits together with it.
#[derive(Debug, Clone)]
pub(crate) struct EffectRow {
    pub(crate) step: StepRow,
    /// False inside another step, which is the checkpoint of all it does: only the effect is written then,
    /// if the token still owns the workflow.
    pub(crate) recorded: bool,
    pub(crate) effect: Effect,
}

/// What a checkpoint does.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// Sets an event of the workflow to a value.
    SetEvent { key: String, value: String },
    /// Appends a value to a stream of the workflow.
    WriteStream { key: String, value: String },
    /// Takes the oldest message of a topic, which becomes the output. Without one nothing is recorded,
    /// unless this is the last try: then the output is `null`.
    Receive { topic: String, last: bool },
    /// Sends messages, all or none.
    Send(Vec<MessageRow>),
    /// Gives back the messages that calls at these positions took: they lost a race.
    GiveBack(Vec<i32>),
}

/// A message to a workflow.
#[derive(Debug, Clone)]
pub(crate) struct MessageRow {
    /// Made by the caller, once; a message whose id exists is not sent again.
    pub(crate) id: String,
    pub(crate) destination: String,
    pub(crate) topic: String,
    pub(crate) body: String,
}

/// A workflow's end.
#[derive(Debug, Clone)]
pub(crate) struct OutcomeRow {
    pub(crate) workflow_id: String,
    pub(crate) token: String,
    pub(crate) status: Status,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
}

/// What a start found.
#[derive(Debug, Clone)]
pub(crate) enum StartWritten {
    /// The row there is now: this start's own, or an earlier one of the same id.
    Row {
        mine: bool,
        name: String,
        has_class: bool,
        queue: Option<String>,
    },
    /// The parent is not owned by the execution that started the child; nothing was written.
    ParentNotOwner,
    /// The parent's step at this position is another one; nothing of value was written.
    ParentTaken,
}

/// What recording a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepWritten {
    Done,
    /// The workflow belongs to somebody else, or to nobody: cancelled, recovered, deleted.
    NotOwner,
    /// This execution recorded another step at this position.
    Taken,
}

/// What an effect found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EffectWritten {
    /// As for a step without an effect.
    Step(StepWritten),
    /// A message was taken, or none on the last try; this is on record.
    Received { text: String },
    /// There is no message yet; nothing was written.
    NothingYet,
    /// There is no such destination; nothing was written.
    NoSuchWorkflow(String),
}

/// What is to be written. In boxes, for it goes through many hands.
pub(crate) enum Work {
    Start(Box<StartRow>),
    Step(Box<StepRow>),
    Outcome(Box<OutcomeRow>),
    Effect(Box<EffectRow>),
    /// Messages from outside of any workflow.
    Send(Vec<MessageRow>),
}

enum Written {
    Start(StartWritten),
    Step(StepWritten),
    /// Whether the outcome was recorded; if not, the workflow is not ours.
    Outcome(bool),
    Effect(EffectWritten),
}

struct Item {
    work: Work,
    reply: oneshot::Sender<Result<Written>>,
}

/// How much was written, and in how many commits.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) retries: AtomicU64,
}

/// The way to the recorder's task.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Item>,
    counters: Arc<Counters>,
    gate: Gate,
    payloads: Payloads,
    in_flight: Arc<AtomicUsize>,
}

impl Recorder {
    /// Starts the task. It ends when `killed` is set or the last handle is gone.
    pub(crate) fn spawn(db: SystemDatabase, app_name: String, killed: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            backend: Backend::new(&db),
            app_name,
            counters: counters.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = killed.cancelled() => {}
                () = writer.run(receiver) => {}
            }
        });
        Self {
            sender,
            counters,
            gate: Gate::Open,
            payloads: Payloads::default(),
            in_flight: Arc::default(),
        }
    }

    /// The same recorder behind a gate, with rules for payloads.
    pub(crate) fn behind(self, gate: Gate, payloads: Payloads) -> Self {
        Self {
            gate,
            payloads,
            ..self
        }
    }

    /// What every checkpoint passes.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Callers that wait for their commit.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Commits a start.
    pub(crate) async fn start(&self, row: StartRow) -> Result<StartWritten> {
        match self.submit(Work::Start(Box::new(row))).await? {
            Written::Start(written) => Ok(written),
            _ => Err(wrong_answer()),
        }
    }

    /// Commits a step.
    pub(crate) async fn step(&self, row: Box<StepRow>) -> Result<StepWritten> {
        match self.submit(Work::Step(row)).await? {
            Written::Step(written) => Ok(written),
            _ => Err(wrong_answer()),
        }
    }

    /// Commits a checkpoint with an effect.
    pub(crate) async fn effect(&self, row: EffectRow) -> Result<EffectWritten> {
        match self.submit(Work::Effect(Box::new(row))).await? {
            Written::Effect(written) => Ok(written),
            _ => Err(wrong_answer()),
        }
    }

    /// Commits messages from outside of any workflow.
    pub(crate) async fn send(&self, messages: Vec<MessageRow>) -> Result<EffectWritten> {
        match self.submit(Work::Send(messages)).await? {
            Written::Effect(written) => Ok(written),
            _ => Err(wrong_answer()),
        }
    }

    /// Commits an outcome; false if the workflow is not ours any more.
    pub(crate) async fn outcome(&self, row: OutcomeRow) -> Result<bool> {
        match self.submit(Work::Outcome(Box::new(row))).await? {
            Written::Outcome(recorded) => Ok(recorded),
            _ => Err(wrong_answer()),
        }
    }

    /// In a box: what waits for something else after its checkpoint does not keep the room that this one took.
    fn submit(&self, work: Work) -> BoxFuture<'_, Result<Written>> {
        Box::pin(self.submit_now(work))
    }

    async fn submit_now(&self, mut work: Work) -> Result<Written> {
        let _in_flight = Waits::count(&self.in_flight);
        if let Gate::RepeatsOnly(outcome) = &self.gate {
            return gate::beyond_the_record(outcome, &work);
        }
        self.payloads.encode_work(&mut work).await?;
        let pass = self.gate.enter().await;
        let written = self.write(work).await;
        self.gate.leave(pass).await;
        match written? {
            Written::Effect(EffectWritten::Received { text }) => {
                let text = self.payloads.decode(text).await?;
                Ok(Written::Effect(EffectWritten::Received { text }))
            }
            written => Ok(written),
        }
    }

    async fn write(&self, work: Work) -> Result<Written> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(ErrorKind::ShuttingDown);
        self.sender
            .send(Item { work, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Counts a caller while it waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn count(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn wrong_answer() -> Error {
    Error::new(ErrorKind::Database {
        message: "the recorder answered another question".into(),
    })
}

enum Backend {
    Postgres(Box<postgres::Writer>),
    Sqlite(sqlite::Writer),
}

impl Backend {
    fn new(db: &SystemDatabase) -> Self {
        match db.pool() {
            Pool::Postgres(pool) => Self::Postgres(Box::new(postgres::Writer::new(pool, db))),
            Pool::Sqlite { writer, .. } => Self::Sqlite(sqlite::Writer::new(writer.clone(), db)),
        }
    }

    /// How many batches may be written at the same time.
    fn connections(&self) -> usize {
        match self {
            Self::Postgres(_) => CONNECTIONS,
            Self::Sqlite(_) => 1,
        }
    }

    /// Writes all items in one commit; one answer each, in their order.
    async fn write(&self, app: &str, items: &[Item]) -> Result<Vec<Written>, sqlx::Error> {
        match self {
            Self::Postgres(writer) => writer.write(app, items).await,
            Self::Sqlite(writer) => writer.write(app, items).await,
        }
    }
}

/// Takes in what arrives, for as long as more does: those who just got their answers bring the next items in a
/// moment, and these belong into one batch.
async fn gather(receiver: &mut mpsc::Receiver<Item>, waiting: &mut VecDeque<Item>) {
    let mut before = 0;
    while waiting.len() < MAX_BATCH && waiting.len() > before {
        before = waiting.len();
        tokio::task::yield_now().await;
        while waiting.len() < MAX_BATCH
            && let Ok(item) = receiver.try_recv()
        {
            waiting.push_back(item);
        }
    }
}

/// Decides between one large batch and several at the same time.
///
/// They share the work of writing rows among the database's processes, but commits follow one another:
/// a further batch pays when its rows take longer than a commit.
#[derive(Default)]
struct Pace {
    /// What a batch takes besides its rows: commit and round trip, as of late.
    commit: Duration,
}

impl Pace {
    fn landed(&mut self, items: usize, took: Duration) {
        let commit = took.saturating_sub(rows(items));
        self.commit = (self.commit * 7 + commit) / 8;
    }

    /// How many of the waiting items go out now; none if they had better wait for a batch on its way.
    fn size(&self, waiting: usize, free: usize, alone: bool) -> usize {
        let pays = |items: usize| rows(items) > self.commit;
        let parts = (1..=free).rev().find(|parts| pays(waiting / parts));
        match parts {
            _ if free == 0 => 0,
            Some(parts) => waiting.div_ceil(parts),
            None if alone => waiting,
            None => 0,
        }
        .min(MAX_BATCH)
    }
}

/// About what Postgres takes to write so many rows.
fn rows(count: usize) -> Duration {
    ROW * u32::try_from(count).unwrap_or(u32::MAX)
}

struct Writer {
    backend: Backend,
    app_name: String,
    counters: Arc<Counters>,
}

impl Writer {
    async fn run(self, mut receiver: mpsc::Receiver<Item>) {
        let mut waiting = VecDeque::new();
        let mut in_flight = InFlight::default();
        let mut flights = FuturesUnordered::new();
        let mut pace = Pace::default();
        let mut open = true;
        while open || !waiting.is_empty() || !flights.is_empty() {
            gather(&mut receiver, &mut waiting).await;
            let free = self.backend.connections().saturating_sub(flights.len());
            let size = pace.size(waiting.len(), free, flights.is_empty());
            if size > 0 {
                let batch = batch::take(&mut waiting, size, &in_flight, quick::fits);
                if !batch.is_empty() {
                    let flight = in_flight.launch(&batch);
                    flights.push(async {
                        let begun = Instant::now();
                        self.write(batch).await;
                        (flight, begun.elapsed())
                    });
                    continue;
                }
            }
            let room = flights.is_empty() || free > 0 && waiting.len() < MAX_BATCH;
            tokio::select! {
                Some((flight, took)) = flights.next() => {
                    pace.landed(flight.items(), took);
                    in_flight.land(&flight);
                }
                item = receiver.recv(), if open && room => match item {
                    Some(item) => waiting.push_back(item),
                    None => open = false,
                },
            }
        }
    }

    /// Writes a batch, halving it while the database refuses it.
    async fn write(&self, batch: Vec<Item>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match self.write_once_available(&part).await {
                Ok(written) => {
                    self.counters.commits.fetch_add(1, Ordering::Relaxed);
                    self.counters
                        .rows
                        .fetch_add(part.len() as u64, Ordering::Relaxed);
                    for (item, written) in part.into_iter().zip(written) {
                        // A caller that went away, such as a dropped workflow, needs no answer.
                        let _ = item.reply.send(Ok(written));
                    }
                }
                Err(error) if part.len() > 1 => {
                    tracing::debug!(rows = part.len(), %error, "a batch was refused; trying its halves");
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
                Err(error) => {
                    for item in part {
                        let refused = refusal(&item.work, &error);
                        let _ = item.reply.send(Err(refused));
                    }
                }
            }
        }
    }

    /// Writes items, trying again for as long as the database is away or another transaction is in the
    /// way. An error is a refusal of these rows.
    async fn write_once_available(&self, items: &[Item]) -> Result<Vec<Written>, sqlx::Error> {
        let mut garbled = 0;
        let mut absence = Backoff::for_absence();
        let mut contention = Backoff::for_contention();
        loop {
            let error = match self.backend.write(&self.app_name, items).await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            // A cut connection may show as a garbled one, but so does a message too large to be sent.
            garbled += u32::from(matches!(error, sqlx::Error::Protocol(_)));
            if is_away(&error) && garbled <= GARBLED {
                tracing::warn!(%error, retry_in = ?absence.next(), "the system database is away; workflows wait");
                absence.wait().await;
            } else if is_contention(&error) {
                tracing::debug!(%error, "another transaction was in the way; writing again");
                contention.wait().await;
            } else {
                return Err(error);
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The error for the one row the database does not take.
fn refusal(work: &Work, error: &sqlx::Error) -> Error {
    if let Work::Start(row) = work
        && let (Some(queue), Some(id)) = (&row.queue, &row.deduplication_id)
        && error
            .as_database_error()
            .is_some_and(|error| error.is_unique_violation())
    {
        return Error::new(ErrorKind::Deduplicated {
            queue: queue.clone(),
            deduplication_id: id.clone(),
        });
    }
    Error::new(ErrorKind::Database {
        message: error.to_string(),
    })
}

/// Another transaction was in the way: a serialization failure, a deadlock, a busy file.
pub(crate) fn is_contention(error: &sqlx::Error) -> bool {
    // 5 and 6 are SQLITE_BUSY and SQLITE_LOCKED; the rest of their extended codes follow.
    const CODES: [&str; 10] = [
        "40001", "40P01", "55P03", "5", "6", "261", "517", "773", "262", "518",
    ];
    let Some(error) = error.as_database_error() else {
        return false;
    };
    // Two writers of a stream reckoned the same offset: the second looks again.
    let same_offset = error.is_unique_violation() && error.table() == Some("streams");
    same_offset || error.code().is_some_and(|code| CODES.contains(&&*code))
}

/// The database cannot be reached, or cannot work now; it may later.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            ended_the_connection(&**error) || error.code().is_some_and(|code| away(&code))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whatever ended the connection, or kept it from being made, is not about the rows that were to be written: on a
/// full disk a new connection may fail with an internal error.
fn ended_the_connection(error: &(dyn DatabaseError + 'static)) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Connection exceptions, insufficient resources, operator intervention (but not a cancelled statement),
/// idle-in-transaction timeout; on SQLite an I/O error, a full disk, or a file that cannot be opened, as on a full
/// disk.
fn away(code: &str) -> bool {
    let postgres = code.len() == 5
        && (code.starts_with("08")
            || code.starts_with("53")
            || code.starts_with("57") && code != "57014"
            || code == "25P03");
    let sqlite = code.parse::<u32>().map(|code| code & 0xff);
    postgres || code.len() < 5 && matches!(sqlite, Ok(10 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_batch_goes_out_only_when_its_rows_take_longer_than_a_commit() {
        let mut pace = Pace::default();
        let commit = rows(40);
        for _ in 0..100 {
            pace.landed(10, commit + rows(10));
        }
        // Nothing is on its way: what waits goes, in two parts if either is worth a commit.
        assert_eq!(pace.size(1, 2, true), 1);
        assert_eq!(pace.size(60, 2, true), 60);
        assert_eq!(pace.size(100, 2, true), 50);
        // Something is: the rest waits for it until it is enough.
        assert_eq!(pace.size(30, 1, false), 0);
        assert_eq!(pace.size(50, 1, false), 50);
        assert_eq!(pace.size(50, 0, false), 0);
    }
}
