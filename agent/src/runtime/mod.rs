//! What runs underneath: the executions of this process, and the loops that bring in new ones.

mod arrival;
mod claim;
mod completion;
mod limits;
mod quiet;
mod recovery;
mod rounds;
mod run;
mod scheduler;
mod token;
mod wakeup;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::clock::{self, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Ending, Ends, Execution, Origin};
use crate::metrics::Counters;
use crate::payload::Payloads;
use crate::recorder::{self, Gate, Recorder, StartRow, StartWritten};
use crate::status::Status;
use crate::system_database::{DatabaseError, Row, Statement};
use crate::trace::Tracing;
use crate::transaction::{Db, from_database};
use crate::underway::Waiting;
use crate::workflow::Registry;

use arrival::Arrivals;
pub(crate) use arrival::Kind;
use completion::Completions;
pub(crate) use completion::Outcome;
use rounds::Rounds;
pub(crate) use run::StoredInput;
use token::Tokens;

/// The net under all notifications: how often things are looked at in any case.
const POLL: Duration = Duration::from_secs(1);

/// The executor id of a process that was given none and that no control plane sees. Several may have it at a time.
pub(crate) const UNNAMED: &str = "local";

/// Who this process is, and its limits.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) app_name: String,
    pub(crate) executor_id: String,
    pub(crate) app_version: String,
    /// `None` means that no run is ever parked.
    pub(crate) max_recovery_attempts: Option<u32>,
    /// Most runs this process takes from queues at once.
    pub(crate) capacity: usize,
    /// Queues this process takes work from, besides the internal one; all if `None`.
    pub(crate) listen_queues: Option<HashSet<String>>,
    /// How long runs are kept after their end; for ever if `None`.
    pub(crate) retention: Option<Duration>,
    pub(crate) payloads: Payloads,
    pub(crate) tracing: Tracing,
}

/// What a start came to.
pub(crate) enum Started {
    /// There is a run of that id; with the way to learn its end if it runs here.
    Yes(Option<Ends>),
    /// The workflow that wanted to start a child is not ours any more.
    ParentLost,
}

pub(crate) struct Runtime {
    pub(crate) db: Db,
    pub(crate) recorder: Recorder,
    pub(crate) registry: Arc<Registry>,
    identity: Identity,
    tokens: Tokens,
    pub(crate) counters: Counters,
    /// Whether runs may only repeat what is on record; see [`testing::replay`](crate::testing::replay).
    pub(crate) repeats_only: bool,
    /// What took this runtime's place when a test crashed it.
    successor: OnceLock<Arc<Runtime>>,
    running: Mutex<HashMap<String, Arc<Execution>>>,
    waiting: Arc<Waiting>,
    /// Starts that are being committed.
    starting: AtomicUsize,
    /// Executions that were dropped at shutdown and are to be handed back.
    dropped: Mutex<Vec<Arc<Execution>>>,
    /// Signalled whenever an execution ends.
    ended: Notify,
    /// There may be something to take from a queue.
    queue_changed: Notify,
    /// Something happened to runs from outside: cancelled, recovered, finished elsewhere.
    runs_changed: Notify,
    /// Schedules were changed.
    schedules: Notify,
    /// What other processes are to be told, by channel.
    announcements: wakeup::Announcements,
    /// Who waits for messages, events and stream entries.
    pub(crate) arrivals: Arrivals,
    completions: Completions,
    /// Looks at the queues, at runs, at schedules and for arrivals.
    rounds: Rounds,
    /// When the next schedule is due, in epoch milliseconds.
    next_tick: AtomicI64,
    /// No more work is taken or accepted.
    stopping: CancellationToken,
    /// When the shutdown that has begun stops waiting, in epoch milliseconds.
    shutdown_ends_at: AtomicI64,
    /// What still runs is dropped, to be handed back.
    handing_back: CancellationToken,
    /// Everything ends, as in a crash.
    killed: CancellationToken,
    tasks: TaskTracker,
}

impl Runtime {
    /// Starts everything but taking work; see [`begin_work`](Self::begin_work).
    pub(crate) fn launch(db: Db, registry: Registry, identity: Identity) -> Arc<Self> {
        Self::launch_behind(Gate::Open, db, Arc::new(registry), identity)
    }

    /// As [`launch`](Self::launch); every checkpoint passes a gate.
    pub(crate) fn launch_behind(
        gate: Gate,
        db: Db,
        registry: Arc<Registry>,
        identity: Identity,
    ) -> Arc<Self> {
        let killed = CancellationToken::new();
        let repeats_only = matches!(gate, Gate::RepeatsOnly(_));
        let recorder =
            Recorder::spawn(db.system.clone(), identity.app_name.clone(), killed.clone())
                .behind(gate, identity.payloads.clone());
        let runtime = Arc::new(Self {
            db,
            recorder,
            registry,
            identity,
            tokens: Tokens::new(),
            counters: Counters::default(),
            repeats_only,
            successor: OnceLock::new(),
            running: Mutex::default(),
            waiting: Arc::default(),
            starting: AtomicUsize::new(0),
            dropped: Mutex::default(),
            ended: Notify::new(),
            queue_changed: Notify::new(),
            runs_changed: Notify::new(),
            schedules: Notify::new(),
            announcements: wakeup::Announcements::default(),
            arrivals: Arrivals::default(),
            completions: Completions::default(),
            rounds: Rounds::default(),
            next_tick: AtomicI64::new(i64::MAX),
            stopping: CancellationToken::new(),
            shutdown_ends_at: AtomicI64::new(i64::MAX),
            handing_back: CancellationToken::new(),
            killed,
            tasks: TaskTracker::new(),
        });
        runtime.spawn(watch::run(runtime.clone()));
        runtime.spawn(completion::run(runtime.clone()));
        runtime.spawn(arrival::run(runtime.clone()));
        wakeup::spawn(&runtime);
        runtime
    }

    /// Spawns a task that ends with the runtime.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let killed = self.killed.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = killed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// The rules for payloads.
    pub(crate) fn payloads(&self) -> &Payloads {
        &self.identity.payloads
    }

    /// Who this process is, and its limits.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is done with traces.
    pub(crate) fn tracing(&self) -> &Tracing {
        &self.identity.tracing
    }

    /// The clock of this application.
    pub(crate) fn clock(&self) -> &Clock {
        self.db.system.clock()
    }

    /// This runtime, or what took its place.
    pub(crate) fn current(self: &Arc<Self>) -> &Arc<Self> {
        let mut current = self;
        while let Some(successor) = current.successor.get() {
            current = successor;
        }
        current
    }

    /// A token for what this process is about to own.
    pub(crate) fn new_token(&self) -> String {
        self.tokens.next()
    }

    pub(crate) fn app_name(&self) -> &str {
        &self.identity.app_name
    }

    pub(crate) fn app_version(&self) -> &str {
        &self.identity.app_version
    }

    pub(crate) fn executor_id(&self) -> &str {
        &self.identity.executor_id
    }

    /// An error once shutdown has begun.
    pub(crate) fn accepting(&self) -> Result<()> {
        if self.stopping.is_cancelled() {
            Err(Error::new(ErrorKind::ShuttingDown))
        } else {
            Ok(())
        }
    }

    /// Looks at the queues and at the runs of this process now.
    pub(crate) fn wake(&self) {
        self.queue_changed.notify_one();
        self.runs_changed.notify_one();
        self.completions.look();
    }

    /// As [`wake`](Self::wake), in every process of this database.
    pub(crate) fn wake_all(&self) {
        self.wake();
        self.announcements.add(wakeup::CHANNEL, String::new());
    }

    /// Looks at the schedules now, in every process of this database.
    pub(crate) fn schedules_changed(&self) {
        self.schedules.notify_one();
        self.announcements
            .add(wakeup::CHANNEL, wakeup::SCHEDULES.to_owned());
    }

    /// Takes work and fires schedules from now on: what this executor left behind was returned to its queues
    /// before, and what was declared in code is known.
    pub(crate) fn begin_work(self: &Arc<Self>) {
        self.spawn(claim::run(self.clone()));
        self.spawn(scheduler::run(self.clone()));
        self.spawn(recovery::recover_late(self.clone()));
        if let Some(keep) = self.identity.retention {
            self.spawn(watch::delete_ended(self.clone(), keep));
        }
        self.queue_changed.notify_one();
    }

    /// Tells whoever waits for it, in any process, that something was written for a run.
    pub(crate) fn wrote(&self, kind: Kind, workflow_id: &str, name: &str) {
        self.arrivals.signal(kind, workflow_id, name);
        self.announcements
            .add(kind.channel(), arrival::key(workflow_id, name));
    }

    /// Reads, waiting while the database is away.
    pub(crate) async fn read_patiently(&self, statement: Statement) -> Result<Vec<Row>> {
        let mut backoff = Backoff::for_absence();
        loop {
            match self.db.system.read(statement.clone()).await {
                Err(DatabaseError::Sql(error)) if recorder::is_away(&error) => {
                    tracing::warn!(%error, retry_in = ?backoff.next(), "the system database is away; waiting for it");
                    backoff.wait().await;
                }
                rows => return rows.map_err(from_database),
            }
        }
    }

    /// Commits a start and, if it is a direct one, begins the run.
    pub(crate) async fn start(self: &Arc<Self>, row: StartRow) -> Result<Started> {
        // In a task of its own: a caller that goes away between the commit and the run would leave a row
        // that nobody executes.
        let runtime = self.clone();
        self.starting.fetch_add(1, Ordering::Relaxed);
        let task = self.tasks.spawn(async move {
            let started = tokio::select! {
                started = runtime.start_here(row) => started,
                () = runtime.killed.cancelled() => Err(Error::new(ErrorKind::ShuttingDown)),
            };
            runtime.starting.fetch_sub(1, Ordering::Relaxed);
            runtime.ended.notify_waiters();
            started
        });
        task.await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::ShuttingDown)))
    }

    async fn start_here(self: &Arc<Self>, row: StartRow) -> Result<Started> {
        // Before it is committed: it may begin here at once.
        let expected =
            (row.status != Status::Pending).then(|| self.completions.expect(&row.workflow_id));
        let (mine, queue) = match self.recorder.start(row.clone()).await? {
            StartWritten::ParentNotOwner => return Ok(Started::ParentLost),
            StartWritten::ParentTaken => {
                let message = format!(
                    "another step of its parent is on record where `{}` was started",
                    row.name
                );
                return Err(Error::misuse(message));
            }
            StartWritten::Row {
                name, has_class, ..
            } if name != row.name || has_class => {
                let holder = if has_class {
                    format!("{name} (a method of another language)")
                } else {
                    name
                };
                return Err(Error::new(ErrorKind::WorkflowConflict {
                    id: row.workflow_id,
                    holder,
                    asked: row.name,
                }));
            }
            StartWritten::Row { mine: false, .. } if row.reject => {
                let status = self.status(&row.workflow_id).await?.to_string();
                return Err(Error::new(ErrorKind::WorkflowIdInUse {
                    id: row.workflow_id,
                    status,
                }));
            }
            StartWritten::Row { mine, queue, .. } => (mine, queue),
        };
        if queue != row.queue && !mine && row.queue.is_some() {
            tracing::warn!(workflow_id = row.workflow_id, asked = ?row.queue, stored = ?queue, "the run is on another queue already");
        }
        if !mine {
            return Ok(Started::Yes(
                self.execution(&row.workflow_id)
                    .map(|execution| execution.ends()),
            ));
        }
        if row.status != Status::Pending {
            self.wake_all();
            return Ok(Started::Yes(expected));
        }
        let origin = Origin {
            id: row.workflow_id,
            name: row.name,
            token: row.token,
            deadline_ms: row.deadline_ms,
            history: HashMap::new(),
            queue: None,
            partition: None,
            attributes: row.attributes,
            caller: row.caller,
        };
        let input = StoredInput {
            text: Some(row.inputs),
            serialization: Some(crate::workflow::PORTABLE.into()),
        };
        Counters::count(&self.counters.started);
        Ok(Started::Yes(Some(self.begin(origin, input))))
    }

    /// Runs a workflow whose row this process owns.
    pub(crate) fn begin(self: &Arc<Self>, origin: Origin, input: StoredInput) -> Ends {
        let ending = self.completions.begins(&origin.id);
        let execution = Execution::new(self.clone(), origin, ending);
        let ends = execution.ends();
        let earlier = self
            .running()
            .insert(execution.id().to_owned(), execution.clone());
        if let Some(earlier) = earlier {
            // It was taken from this process and came back before the old execution noticed.
            earlier.interrupt();
        }
        self.tasks.spawn(run::run(execution, input));
        ends
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Execution>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many runs are here.
    pub(crate) fn running_count(&self) -> usize {
        self.running().len()
    }

    /// The runs of this process that do nothing but wait.
    pub(crate) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// How many runs of a queue, or of a partition of it, are here.
    fn running_of(&self, queue: &str, partition: Option<&str>) -> i64 {
        let running = self.running();
        let of = running.values().filter(|execution| {
            let (own_queue, own_partition) = execution.queue();
            own_queue == Some(queue) && (partition.is_none() || own_partition == partition)
        });
        i64::try_from(of.count()).unwrap_or(i64::MAX)
    }

    pub(crate) fn execution(&self, id: &str) -> Option<Arc<Execution>> {
        self.running().get(id).cloned()
    }

    /// Remembers an execution whose body was dropped at shutdown.
    fn drop_for_hand_back(&self, execution: &Arc<Execution>) {
        self.dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(execution.clone());
    }

    pub(crate) fn executions(&self) -> Vec<Arc<Execution>> {
        self.running().values().cloned().collect()
    }

    /// An execution is over in this process.
    fn end(&self, execution: &Arc<Execution>, ending: Ending) {
        let mut running = self.running();
        if running
            .get(execution.id())
            .is_some_and(|current| Arc::ptr_eq(current, execution))
        {
            running.remove(execution.id());
        }
        drop(running);
        if execution.queue().0.is_some() {
            // There may be room in its queue now.
            self.queue_changed.notify_one();
        }
        if self.completions.awaited_elsewhere() {
            self.announcements
                .add(wakeup::CHANNEL, wakeup::ENDED.to_owned());
        }
        self.completions.ended(execution.id(), &ending);
        execution.end(ending);
        self.ended.notify_waiters();
    }

    /// Waits for a run's recorded outcome. `inside` a workflow a panic of the run is waited out, because
    /// recovery may yet bring it to an end, and a recorded answer could not be taken back.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        id: &str,
        local: Option<Ends>,
        inside: bool,
    ) -> Result<Outcome> {
        let running = self.execution(id).map(|execution| execution.ends());
        // A run that was enqueued here may begin here yet, or elsewhere.
        let may_end_elsewhere = running.is_none();
        if let Some(mut ends) = running.or(local) {
            let ended = ends.wait_for(Option::is_some);
            let ending = tokio::select! {
                biased;
                ending = ended => ending.ok().and_then(|ending| ending.clone()),
                outcome = self.completions.wait(id), if may_end_elsewhere => return outcome,
                () = self.killed.cancelled(), if may_end_elsewhere => None,
            };
            match ending {
                Some(Ending::Recorded(Ok(text))) => return Ok(Outcome::Success(text)),
                Some(Ending::Recorded(Err(error))) => return Ok(Outcome::Error(error)),
                Some(Ending::Panicked(message)) if !inside => {
                    return Err(Error::new(ErrorKind::Panicked {
                        id: id.to_owned(),
                        message,
                    }));
                }
                Some(Ending::Panicked(_) | Ending::Elsewhere) | None => {}
            }
        }
        loop {
            let current = self.current();
            tokio::select! {
                outcome = current.completions.wait(id) => return outcome,
                () = current.killed.cancelled() => {}
            }
            if current.successor.get().is_none() {
                return Err(Error::new(ErrorKind::ShuttingDown));
            }
        }
    }

    /// Status of a run as recorded.
    pub(crate) async fn status(&self, id: &str) -> Result<Status> {
        let query = self
            .db
            .system
            .sql("SELECT status FROM @workflow_status WHERE workflow_uuid = ")
            .bind(id);
        let rows = self.db.system.read(query).await.map_err(from_database)?;
        let row = rows
            .first()
            .ok_or_else(|| Error::not_found("workflow", id))?;
        row.required("status").map_err(from_database)?.parse()
    }

    /// Stops taking work, waits for what runs, at most for `limit`, and hands the rest back.
    ///
    /// A run that only sleeps, and for longer than that, is not waited for.
    pub(crate) async fn shutdown(&self, limit: Duration) -> Result<()> {
        let ends_at = self.clock().now_ms().saturating_add(clock::millis(limit));
        self.shutdown_ends_at.store(ends_at, Ordering::Relaxed);
        self.stopping.cancel();
        if tokio::time::timeout(limit, self.idle()).await.is_err() {
            self.handing_back.cancel();
            self.idle().await;
        }
        let handed_back = self.hand_back().await;
        self.kill();
        self.tasks.close();
        self.tasks.wait().await;
        handed_back
    }

    /// Completes when shutdown begins, with the instant at which it stops waiting.
    pub(crate) async fn shutdown_ends_at(&self) -> i64 {
        self.stopping.cancelled().await;
        self.shutdown_ends_at.load(Ordering::Relaxed)
    }

    /// Signalled to an execution that shutdown drops; it may be signalled alone, or with all others.
    pub(crate) fn handing_back(&self) -> CancellationToken {
        self.handing_back.child_token()
    }

    /// Waits until nothing runs here and nothing is being started.
    async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.running().is_empty() && self.starting.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Returns what was dropped to its queue, for any executor of this version.
    async fn hand_back(&self) -> Result<()> {
        let left =
            std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() {
            return Ok(());
        }
        let count = recovery::hand_back(self, &left)
            .await
            .map_err(from_database)?;
        tracing::info!(count, "handed running workflows back to their queues");
        wakeup::notify(&self.db.system, vec![(wakeup::CHANNEL, String::new())]).await;
        Ok(())
    }

    /// Ends everything at once, like a crash: nothing is waited for or handed back.
    pub(crate) fn kill(&self) {
        self.stopping.cancel();
        self.killed.cancel();
    }

    /// Cancels runs, and their descendants if asked.
    pub(crate) async fn cancel(&self, ids: &[String], with_children: bool) -> Result<u64> {
        let cancelled = self
            .db
            .system
            .cancel_workflows(ids, with_children)
            .await
            .map_err(from_database)?;
        self.wake_all();
        Ok(cancelled)
    }

    /// Returns the pending runs of this executor id and version to their queues.
    pub(crate) async fn recover_own(&self) -> Result<usize> {
        self.recover(std::slice::from_ref(&self.identity.executor_id))
            .await
    }

    /// The same for other executors of this version, which somebody knows to be dead.
    pub(crate) async fn recover(&self, executors: &[String]) -> Result<usize> {
        let recovered = recovery::recover(self, executors).await;
        let recovered = recovered.map_err(from_database)?;
        let count = u64::try_from(recovered).unwrap_or(u64::MAX);
        self.counters.recovered.fetch_add(count, Ordering::Relaxed);
        Ok(recovered)
    }
}
