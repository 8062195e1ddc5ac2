//! The application's database, shrunk to what a hand-over needs: how much is pending under whom, and when it
//! was given to somebody else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

/// What all executors of a measurement share.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: Mutex<HashMap<String, Row>>,
}

#[derive(Debug, Default)]
struct Row {
    pending: u64,
    /// It was cut off, or left.
    gone: Option<Instant>,
    taken: Option<Instant>,
    /// Offers while it was there.
    false_offers: usize,
}

impl Ledger {
    fn rows(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workflows that run on an executor.
    pub(super) fn start(&self, executor_id: &str, workflows: u64) {
        let row = Row {
            pending: workflows,
            ..Row::default()
        };
        self.rows().insert(executor_id.to_owned(), row);
    }

    /// It is lost from now on.
    pub(super) fn lose(&self, executor_id: &str) {
        if let Some(row) = self.rows().get_mut(executor_id) {
            row.gone = Some(Instant::now());
        }
    }

    /// How many workflows are pending under an executor.
    pub(crate) fn pending(&self, executor_id: &Value) -> u64 {
        let id = executor_id.as_str().unwrap_or_default();
        self.rows().get(id).map_or(0, |row| row.pending)
    }

    /// Somebody is asked to recover these executors: what was pending under them is theirs.
    pub(crate) fn take(&self, executor_ids: &Value) {
        let now = Instant::now();
        let mut rows = self.rows();
        for id in executor_ids.as_array().into_iter().flatten() {
            let Some(row) = id.as_str().and_then(|id| rows.get_mut(id)) else {
                continue;
            };
            match row.gone {
                Some(_) => {
                    row.taken.get_or_insert(now);
                    row.pending = 0;
                }
                None => row.false_offers += 1,
            }
        }
    }

    /// From the loss to the hand-over, of everybody who was lost; none for those whose work nobody has.
    pub(super) fn waits(&self) -> Vec<Option<std::time::Duration>> {
        let wait = |row: &Row| {
            let gone = row.gone?;
            Some(row.taken.map(|taken| taken.duration_since(gone)))
        };
        self.rows().values().filter_map(wait).collect()
    }

    /// Offers of work of executors that were there.
    pub(super) fn false_offers(&self) -> usize {
        self.rows().values().map(|row| row.false_offers).sum()
    }
}
