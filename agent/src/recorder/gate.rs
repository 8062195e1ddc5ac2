//! What checkpoints pass on their way in and out: open in production; in tests it counts them, and can stop
//! everything at one of them as the death of the process would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{OutcomeRow, Work, Written};
use crate::error::{Error, ErrorKind, Result};

/// On which side of a write the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Nothing was written.
    Before,
    /// It was committed, but nobody learned that.
    After,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) enum Gate {
    #[default]
    Open,
    /// Counts checkpoints from 0 and may stop at one.
    Counting(Arc<Counting>),
    /// Nothing is written: a run may only repeat what is on record, and end, with this outcome.
    RepeatsOnly(Arc<Mutex<Option<OutcomeRow>>>),
}

/// A gate that counts.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    passed: AtomicU64,
    crash_at: Option<(u64, Side)>,
    /// The process is as good as dead.
    crashed: CancellationToken,
}

impl Counting {
    /// Stops everything at this checkpoint, if there is one.
    pub(crate) fn new(crash_at: Option<(u64, Side)>) -> Arc<Self> {
        Arc::new(Self {
            crash_at,
            ..Self::default()
        })
    }

    /// How many checkpoints there were.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    /// Completes when the crash point is reached.
    pub(crate) async fn crashed(&self) {
        self.crashed.cancelled().await;
    }
}

impl Gate {
    /// A checkpoint is about to be written. Returns its number, or never.
    pub(crate) async fn enter(&self) -> u64 {
        let Self::Counting(counting) = self else {
            return 0;
        };
        let number = counting.passed.fetch_add(1, Ordering::AcqRel);
        counting.stop_at(number, Side::Before).await;
        number
    }

    /// The checkpoint of this number was written. Returns, or never.
    pub(crate) async fn leave(&self, number: u64) {
        if let Self::Counting(counting) = self {
            counting.stop_at(number, Side::After).await;
        }
    }

    /// How many checkpoints there were; 0 unless they are counted.
    pub(crate) fn passed(&self) -> u64 {
        match self {
            Self::Counting(counting) => counting.passed(),
            Self::Open | Self::RepeatsOnly(_) => 0,
        }
    }
}

impl Counting {
    async fn stop_at(&self, number: u64, side: Side) {
        if self.crash_at == Some((number, side)) {
            self.crashed.cancel();
        }
        if self.crashed.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

/// The answer to a write in a run that may only repeat: its outcome is taken, anything else is more than is
/// on record.
pub(super) fn beyond_the_record(
    outcome: &Mutex<Option<OutcomeRow>>,
    work: &Work,
) -> Result<Written> {
    let (step, asked) = match work {
        Work::Outcome(row) => {
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some((**row).clone());
            return Ok(Written::Outcome(true));
        }
        Work::Step(row) => (row.position, row.name.clone()),
        Work::Effect(row) => (row.step.position, row.step.name.clone()),
        Work::Start(row) => {
            let position = row.parent.as_ref().map(|parent| parent.position);
            (position.unwrap_or_default(), row.name.clone())
        }
        Work::Send(_) => (0, "DBOS.send".to_owned()),
    };
    Err(Error::new(ErrorKind::NotRecorded { step, asked }))
}
