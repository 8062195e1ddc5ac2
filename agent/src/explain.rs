//! Why a run is not moving.

use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segno_protocol::WaitingOn;

use crate::app::Segno;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::status::Status;
use crate::system_database::{
    INTERNAL_QUEUE, Listing, Scope, SystemDatabase, WorkflowFilter, WorkflowRow,
};
use crate::transaction::from_database;

/// Most runs of a queue that are counted.
const LOOK: i64 = 10_000;

/// The kind of reason for which a run stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It ended.
    Ended,
    /// It was recovered too often and is set aside; resume it to go on.
    Parked,
    /// Its delay is not over.
    Delayed,
    /// It waits on a queue.
    Queued,
    /// Nobody registered the queue it is on.
    UnknownQueue,
    /// Its code version is not the one that runs here.
    OtherVersion,
    /// It runs in this process, which knows what it does.
    Running,
    /// Another executor runs it, or is said to.
    Elsewhere,
}

/// Why a run is not moving: for programs and for people.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// For programs.
    pub reason: Reason,
    /// For people, one sentence.
    pub text: String,
    /// Since when, where that is known.
    pub since: Option<SystemTime>,
    /// When that ends by itself, if it does.
    pub until: Option<SystemTime>,
}

/// What a run in this process waits for.
pub(crate) fn waiting_on(runtime: &Weak<Runtime>, id: &str) -> Option<WaitingOn> {
    let call = runtime.upgrade()?.execution(id)?.doing();
    call.map(|call| call.waiting_on())
}

fn instant(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl Explanation {
    fn new(reason: Reason, text: impl Into<String>, since: i64) -> Self {
        Self {
            reason,
            text: text.into(),
            since: Some(instant(since)),
            until: None,
        }
    }
}

impl Segno {
    /// Tells why a run is not moving: what it waits for, which executor has it, or what keeps its queue.
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// println!("{}", app.explain("checkout-7").await?.text);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain(&self, id: &str) -> Result<Explanation> {
        let runtime = self.runtime();
        let system = &runtime.db.system;
        let filter = WorkflowFilter {
            ids: vec![id.to_owned()],
            ..WorkflowFilter::default()
        };
        let rows = system.list_workflows(&filter, &Listing::default()).await;
        let rows = rows.map_err(from_database)?;
        let Some(row) = rows.first() else {
            return Err(Error::not_found("workflow", id));
        };
        let status: Status = row.status.parse()?;
        Ok(match status {
            Status::Success => Explanation::new(Reason::Ended, "it succeeded", row.updated_at),
            Status::Error => Explanation::new(Reason::Ended, "it failed", row.updated_at),
            Status::Cancelled => {
                let text = "it was cancelled; resume it to go on";
                Explanation::new(Reason::Ended, text, row.updated_at)
            }
            Status::MaxRecoveryAttemptsExceeded => {
                let text = format!(
                    "it was started {} times without getting to its end; resume it to try again",
                    row.recovery_attempts
                );
                Explanation::new(Reason::Parked, text, row.updated_at)
            }
            Status::Delayed => delayed(row),
            Status::Enqueued => enqueued(runtime, system, row).await?,
            Status::Pending => pending(runtime, row),
        })
    }
}

fn delayed(row: &WorkflowRow) -> Explanation {
    Explanation {
        until: row.delay_until.map(instant),
        ..Explanation::new(Reason::Delayed, "its delay is not over", row.created_at)
    }
}

async fn enqueued(
    runtime: &Runtime,
    system: &SystemDatabase,
    row: &WorkflowRow,
) -> Result<Explanation> {
    let queue = row.queue_name.as_deref().unwrap_or(INTERNAL_QUEUE);
    let known = queue == INTERNAL_QUEUE
        || system
            .get_queue(queue)
            .await
            .map_err(from_database)?
            .is_some();
    if !known {
        let text = format!("nobody registered its queue `{queue}`");
        return Ok(Explanation::new(Reason::UnknownQueue, text, row.created_at));
    }
    if let Some(version) = &row.application_version
        && version != runtime.app_version()
    {
        let text = format!(
            "it waits on `{queue}` for an executor of version `{version}`; this one is `{}`",
            runtime.app_version()
        );
        return Ok(Explanation::new(Reason::OtherVersion, text, row.created_at));
    }
    let ahead = WorkflowFilter {
        queue_names: vec![queue.to_owned()],
        statuses: vec![Status::Enqueued.as_str().to_owned()],
        created_to: Some(row.created_at),
        scope: Scope::of(runtime.app_name()),
        ..WorkflowFilter::default()
    };
    let listing = Listing {
        limit: Some(LOOK),
        ..Listing::default()
    };
    let ahead = system.list_workflows(&ahead, &listing).await;
    let ahead = ahead.map_err(from_database)?.len().saturating_sub(1);
    let text = match ahead {
        0 => format!("it is the oldest that waits on `{queue}`"),
        _ => format!("{ahead} older runs wait on `{queue}`"),
    };
    Ok(Explanation::new(Reason::Queued, text, row.created_at))
}

fn pending(runtime: &Runtime, row: &WorkflowRow) -> Explanation {
    let Some(execution) = runtime.execution(&row.workflow_id) else {
        let executor = row.executor_id.as_deref().unwrap_or("nobody");
        let text = format!("executor `{executor}` has it");
        return Explanation::new(Reason::Elsewhere, text, row.updated_at);
    };
    let Some(waiting) = execution.doing().map(|call| call.waiting_on()) else {
        let text = "its code runs between two durable calls";
        return Explanation::new(Reason::Running, text, row.updated_at);
    };
    let attempt = waiting.attempt.zip(waiting.max_attempts);
    let text = match attempt {
        Some((attempt, of)) => format!("{} (attempt {attempt} of {of})", waiting.text),
        None => waiting.text,
    };
    Explanation {
        reason: Reason::Running,
        text,
        since: waiting.since.map(instant),
        until: waiting.until.map(instant),
    }
}
