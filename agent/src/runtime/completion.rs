//! Waiting for runs that this process did not execute when the wait began: one query for all that are
//! waited for, when somebody tells that runs have ended, and in any case once a second. What ends in this
//! process is told directly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::{POLL, Runtime, wakeup};
use crate::clock::{self, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Ending, Ends};
use crate::status::Status;
use crate::system_database::{DatabaseError, Row};
use crate::workflow::foreign;

/// How long the database is left alone after a look: this much, and several times as long as the look took.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSES_A_LOOK: u32 = 5;

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// With this encoded output.
    Success(Arc<str>),
    /// With an error.
    Error(Error),
    Cancelled,
    /// Set aside, for this reason if one is on record.
    Parked(Option<Error>),
}

/// How expected runs will tell of their end, and how many of them there may be before those are looked for
/// that nobody expects any more.
#[derive(Default)]
struct Expected {
    runs: HashMap<String, watch::Sender<Option<Ending>>>,
    look_at: usize,
}

type Waiters = Vec<oneshot::Sender<Result<Outcome>>>;

/// A process that waits says so this often; after twice that, it is not believed to wait any more.
const SAY_WAITING: Duration = Duration::from_secs(30);

/// Who waits for what.
pub(super) struct Completions {
    waiting: Mutex<HashMap<String, Waiters>>,
    look: Notify,
    /// Runs that were enqueued here and for whose end somebody holds a handle, until they begin here.
    expected: Mutex<Expected>,
    /// This process, among those that wait.
    instance: String,
    /// Until when another process is believed to wait, in epoch milliseconds.
    awaited_until: AtomicI64,
}

impl Default for Completions {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            look: Notify::new(),
            expected: Mutex::default(),
            instance: Uuid::new_v4().to_string(),
            awaited_until: AtomicI64::new(0),
        }
    }
}

impl Completions {
    /// Waits until `id` is at its end in the database.
    pub(super) async fn wait(&self, id: &str) -> Result<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.lock().entry(id.to_owned()).or_default().push(sender);
        self.look.notify_one();
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::ShuttingDown)))
    }

    /// A run was enqueued here: if it runs here, too, its end is told without a look at the database.
    pub(super) fn expect(&self, id: &str) -> Ends {
        let ending = watch::Sender::new(None);
        let ends = ending.subscribe();
        let mut expected = self.expected();
        if expected.runs.len() >= expected.look_at {
            expected.runs.retain(|_, ending| !ending.is_closed());
            expected.look_at = (2 * expected.runs.len()).max(1024);
        }
        expected.runs.insert(id.to_owned(), ending);
        ends
    }

    /// A run begins here; the way to tell of its end if it was expected.
    pub(super) fn begins(&self, id: &str) -> Option<watch::Sender<Option<Ending>>> {
        self.expected().runs.remove(id)
    }

    fn expected(&self) -> std::sync::MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have ended.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// A process says that it waits for runs.
    pub(super) fn heard_of_waiter(&self, instance: &str) {
        if instance != self.instance {
            let until = Clock::SYSTEM
                .now_ms()
                .saturating_add(clock::millis(SAY_WAITING * 2));
            self.awaited_until.store(until, Ordering::Relaxed);
        }
    }

    /// Whether another process should be told of runs that end here.
    pub(super) fn awaited_elsewhere(&self) -> bool {
        self.awaited_until.load(Ordering::Relaxed) > Clock::SYSTEM.now_ms()
    }

    /// A run ended in this process.
    pub(super) fn ended(&self, id: &str, ending: &Ending) {
        match ending {
            Ending::Recorded(Ok(text)) => self.resolve(id, Ok(Outcome::Success(text.clone()))),
            Ending::Recorded(Err(error)) => self.resolve(id, Ok(Outcome::Error(error.clone()))),
            // The database has the outcome, or will have it.
            Ending::Elsewhere | Ending::Panicked(_) => self.look(),
        }
    }

    /// The ids still waited for.
    fn ids(&self) -> Vec<String> {
        let mut waiting = self.lock();
        waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        waiting.keys().cloned().collect()
    }

    fn resolve(&self, id: &str, outcome: Result<Outcome>) {
        for waiter in self.lock().remove(id).unwrap_or_default() {
            let _ = waiter.send(outcome.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiters>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for ends for as long as somebody waits for one.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let mut said: Option<Instant> = None;
    loop {
        let round = runtime.rounds.completions.begin();
        let ids = runtime.completions.ids();
        if ids.is_empty() {
            drop(round);
            runtime.completions.look.notified().await;
            continue;
        }
        let begun = Instant::now();
        if said.is_none_or(|at| at.elapsed() >= SAY_WAITING) {
            said = Some(begun);
            let waiting = format!("{} {}", wakeup::WAITING, runtime.completions.instance);
            runtime.announcements.add(wakeup::CHANNEL, waiting);
        }
        if let Err(error) = look_at(&runtime, &ids).await {
            tracing::debug!(%error, "could not look for finished workflows; looking again");
        }
        drop(round);
        if !runtime.clock().is_manual() {
            tokio::time::sleep(PAUSE.max(begun.elapsed() * PAUSES_A_LOOK)).await;
        }
        tokio::select! {
            () = runtime.completions.look.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn look_at(runtime: &Runtime, ids: &[String]) -> Result<(), DatabaseError> {
    let db = &runtime.db.system;
    let query = db
        .sql(
            "SELECT w.workflow_uuid, w.status, COALESCE(o.output, w.output) AS output, \
             COALESCE(o.error, w.error) AS error, w.serialization \
             FROM @workflow_status w LEFT JOIN ",
        )
        .push(db.outputs_table())
        .push(" o ON o.workflow_uuid = w.workflow_uuid WHERE ")
        .any_of("w.workflow_uuid", ids);
    let rows = db.read(query).await?;
    let mut missing: std::collections::HashSet<&str> = ids.iter().map(String::as_str).collect();
    for row in &rows {
        let id = row.required("workflow_uuid")?;
        missing.remove(id.as_str());
        if let Some(outcome) = outcome_of(runtime, row).await? {
            runtime.completions.resolve(&id, outcome);
        }
    }
    for id in missing {
        // Whoever waits knew the row: it was deleted.
        runtime
            .completions
            .resolve(id, Err(Error::not_found("workflow", id)));
    }
    Ok(())
}

/// The outcome in a row, if the run has ended.
async fn outcome_of(
    runtime: &Runtime,
    row: &Row,
) -> Result<Option<Result<Outcome>>, DatabaseError> {
    let payloads = runtime.payloads();
    let status: Status = match row.required("status")?.parse() {
        Ok(status) => status,
        Err(error) => return Ok(Some(Err(error))),
    };
    let serialization = row.filled("serialization")?;
    let foreign = foreign(serialization.as_deref());
    Ok(match (status, foreign) {
        (Status::Success | Status::Error, Some(format)) => {
            let what = format!("its format `{format}` belongs to another language");
            Some(Err(Error::serialization("workflow result", what)))
        }
        (Status::Success, None) => {
            let text = row.text("output")?.unwrap_or_else(|| "null".to_owned());
            let text = payloads.decode(text).await;
            Some(text.map(|text| Outcome::Success(text.into())))
        }
        (Status::Error, None) => {
            let text = payloads
                .decode(row.text("error")?.unwrap_or_default())
                .await;
            let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
            Some(text.map(|text| Outcome::Error(Error::from_portable(value(text)))))
        }
        (Status::Cancelled, _) => Some(Ok(Outcome::Cancelled)),
        (Status::MaxRecoveryAttemptsExceeded, _) => {
            let reason = payloads
                .decode_some(row.filled("error")?)
                .await
                .unwrap_or_default();
            let reason = reason.and_then(|text| serde_json::from_str(&text).ok());
            Some(Ok(Outcome::Parked(reason.map(Error::from_portable))))
        }
        (Status::Delayed | Status::Enqueued | Status::Pending, _) => None,
    })
}
