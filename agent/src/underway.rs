//! What a run is doing between two checkpoints, which no table says.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use segno_protocol::WaitingOn;
use tokio::sync::Notify;

use crate::message::NO_TOPIC;

/// What a durable call does.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    /// Writes a checkpoint, and is done in a moment.
    Checkpoint,
    Step(Cow<'static, str>),
    Sleep,
    /// Waits for a message of this topic.
    Message(String),
    /// Waits for this event of a workflow.
    Event(String, String),
    /// Waits for an entry of this stream of a workflow.
    Stream(String, String),
    /// Waits for the end of this workflow, or the first of several.
    Workflow(String),
}

impl Doing {
    fn is_wait(&self) -> bool {
        matches!(self, Self::Sleep | Self::Message(_) | Self::Event(..))
    }
}

/// How many runs of a process do nothing but wait. They take memory and no more: they do not count against
/// what a process may do at a time, or those that sleep would keep everything else from being done, and those
/// that wait for queued ones would wait for ever.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    count: AtomicUsize,
    /// Somebody wants to know when there is one more.
    wanted: AtomicBool,
    more: Notify,
}

impl Waiting {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// From now on [`more`](Self::more) is told once.
    pub(crate) fn want_more(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Completes when there was one more since it was wanted.
    pub(crate) async fn more(&self) {
        self.more.notified().await;
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        if self.wanted.load(Ordering::Acquire) && self.wanted.swap(false, Ordering::AcqRel) {
            self.more.notify_one();
        }
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A durable call under way. Times are epoch milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    position: Option<i32>,
    doing: Doing,
    since: i64,
    until: Option<i64>,
    /// The attempt, from 1, of how many.
    attempts: Option<(u32, u32)>,
    /// Between two attempts.
    retrying: bool,
}

impl Call {
    /// Whether it does nothing but wait.
    fn waits(&self) -> bool {
        self.retrying || !matches!(self.doing, Doing::Checkpoint | Doing::Step(_))
    }

    /// In the words of the control plane.
    pub(crate) fn waiting_on(&self) -> WaitingOn {
        let (kind, text) = match &self.doing {
            Doing::Checkpoint => (
                "database",
                "it waits for its checkpoint to be written".to_owned(),
            ),
            Doing::Step(name) if self.retrying => {
                ("retry", format!("step `{name}` failed and is tried again"))
            }
            Doing::Step(name) => ("step", format!("step `{name}` is running")),
            Doing::Sleep => ("sleep", "it sleeps".to_owned()),
            Doing::Message(topic) if topic == NO_TOPIC => (
                "message",
                "it waits for a message without a topic".to_owned(),
            ),
            Doing::Message(topic) => ("message", format!("it waits for a message on `{topic}`")),
            Doing::Event(id, key) => (
                "event",
                format!("it waits for the event `{key}` of workflow `{id}`"),
            ),
            Doing::Stream(id, key) => (
                "event",
                format!("it waits for the next entry of stream `{key}` of workflow `{id}`"),
            ),
            Doing::Workflow(id) => ("workflow", format!("it waits for workflow `{id}` to end")),
        };
        let attempts = self.attempts.filter(|(_, of)| *of > 1);
        WaitingOn {
            kind: kind.to_owned(),
            text,
            since: Some(self.since),
            until: self.until,
            step: self.position.map(i64::from),
            attempt: attempts.map(|(attempt, _)| i64::from(attempt)),
            max_attempts: attempts.map(|(_, of)| i64::from(of)),
        }
    }
}

/// The durable calls of a run that are under way, in the order in which they began.
#[derive(Debug)]
pub(crate) struct Underway {
    /// With their numbers. Few: often one, seldom more than a run does at a time.
    calls: Mutex<Vec<(u64, Call)>>,
    waiting: Arc<Waiting>,
    /// Whether this run is one of `waiting`; changes under the lock of the calls.
    counted: AtomicBool,
}

impl Underway {
    /// Of a run that is counted among those that wait whenever it does.
    pub(crate) fn counted_in(waiting: Arc<Waiting>) -> Self {
        Self {
            calls: Mutex::default(),
            waiting,
            counted: AtomicBool::new(false),
        }
    }

    /// Notes a call that begins now, in epoch milliseconds.
    pub(crate) fn enter(&self, position: Option<i32>, doing: Doing, now: i64) -> Active<'_> {
        let number = self.change(|calls| {
            let number = calls.last().map_or(0, |(last, _)| last + 1);
            let call = Call {
                position,
                doing,
                since: now,
                until: None,
                attempts: None,
                retrying: false,
            };
            calls.push((number, call));
            number
        });
        Active {
            underway: self,
            number,
        }
    }

    /// Changes the calls, and tells if the run has begun or ceased to do nothing but wait.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<(u64, Call)>) -> T) -> T {
        let mut calls = self.lock();
        let changed = change(&mut calls);
        let waits = !calls.is_empty() && calls.iter().all(|(_, call)| call.waits());
        match (self.counted.swap(waits, Ordering::Relaxed), waits) {
            (false, true) => self.waiting.add(),
            (true, false) => self.waiting.remove(),
            _ => {}
        }
        changed
    }

    /// The first; one that only writes its checkpoint if there is no other.
    pub(crate) fn first(&self) -> Option<Call> {
        let calls = self.lock();
        let waits = calls
            .iter()
            .find(|(_, call)| !matches!(call.doing, Doing::Checkpoint));
        waits.or(calls.first()).map(|(_, call)| call.clone())
    }

    /// Whether all of them only wait, for longer than until this instant.
    pub(crate) fn only_waits_beyond(&self, instant: i64) -> bool {
        self.lock().iter().all(|(_, call)| {
            call.doing.is_wait() && call.until.is_some_and(|until| until > instant)
        })
    }

    /// Whether there are any and all of them only wait, beyond this instant.
    pub(crate) fn only_waits(&self, now: i64) -> bool {
        let calls = self.lock();
        let waits = |call: &Call| call.waits() && call.until.is_none_or(|until| until > now);
        !calls.is_empty() && calls.iter().all(|(_, call)| waits(call))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Call)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if *self.counted.get_mut() {
            self.waiting.remove();
        }
    }
}

/// A durable call that is under way, until this is dropped.
pub(crate) struct Active<'a> {
    underway: &'a Underway,
    number: u64,
}

impl Active<'_> {
    /// When it ends at the latest.
    pub(crate) fn until(&self, instant: i64) {
        self.change(|call| call.until = Some(instant));
    }

    /// An attempt begins.
    pub(crate) fn attempt(&self, attempt: u32, of: u32) {
        self.change(|call| {
            call.attempts = Some((attempt, of));
            call.retrying = false;
            call.until = None;
        });
    }

    /// An attempt failed; the next begins at this instant.
    pub(crate) fn retry_at(&self, attempt: u32, of: u32, instant: i64) {
        self.change(|call| {
            call.attempts = Some((attempt, of));
            call.retrying = true;
            call.until = Some(instant);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Call)) {
        self.underway.change(|calls| {
            if let Some(place) = place(calls, self.number) {
                change(&mut calls[place].1);
            }
        });
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.underway.change(|calls| {
            if let Some(place) = place(calls, self.number) {
                calls.remove(place);
            }
        });
    }
}

/// Where the call of this number is. The numbers ascend.
fn place(calls: &[(u64, Call)], number: u64) -> Option<usize> {
    calls
        .binary_search_by_key(&number, |(number, _)| *number)
        .ok()
}
