//! Rows that nearly every request needs, kept for a moment: API keys by their hash, applications by name.
//!
//! This instance's own changes show at once: every commit empties the memory. Those of other instances
//! and of `segno key` show after [`KEPT`]. That something does not exist is not remembered.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a row is believed. So long may a key that was revoked elsewhere still be good here.
const KEPT: Duration = Duration::from_secs(1);
/// More rows are not kept.
const CAPACITY: usize = 4096;

pub(super) struct Recent<K, V> {
    /// Grows with every [`Self::forget`], so that what was read before one is not kept after it.
    generation: AtomicU64,
    rows: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            rows: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// The row, if it is known; else what `read` finds.
    pub(super) async fn get<F, E>(&self, key: K, read: F) -> Result<Option<V>, E>
    where
        F: Future<Output = Result<Option<V>, E>>,
    {
        if let Some((at, value)) = self.rows().get(&key)
            && at.elapsed() < KEPT
        {
            return Ok(Some(value.clone()));
        }
        let (began, generation) = (Instant::now(), self.generation.load(Ordering::Acquire));
        let found = read.await?;
        if let Some(value) = &found {
            let mut rows = self.rows();
            if rows.len() >= CAPACITY {
                rows.clear();
            }
            if self.generation.load(Ordering::Acquire) == generation {
                rows.insert(key, (began, value.clone()));
            }
        }
        Ok(found)
    }

    /// Something may have changed.
    pub(super) fn forget(&self) {
        let mut rows = self.rows();
        self.generation.fetch_add(1, Ordering::AcqRel);
        rows.clear();
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, HashMap<K, (Instant, V)>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;

    async fn get(recent: &Recent<&str, u32>, now: u32) -> u32 {
        let read = async { Ok::<_, Infallible>(Some(now)) };
        recent.get("a", read).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_row_is_kept_until_something_changes() {
        let recent = Recent::default();
        assert_eq!(get(&recent, 1).await, 1);
        assert_eq!(get(&recent, 2).await, 1);
        recent.forget();
        assert_eq!(get(&recent, 2).await, 2);
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_kept_after_it() {
        let recent = Recent::default();
        let slow = async {
            recent.forget();
            Ok::<_, Infallible>(Some(1))
        };
        assert_eq!(recent.get("a", slow).await.unwrap(), Some(1));
        assert_eq!(get(&recent, 2).await, 2);
    }

    #[tokio::test]
    async fn absence_is_not_kept() {
        let recent = Recent::<&str, u32>::default();
        let none = async { Ok::<_, Infallible>(None) };
        assert_eq!(recent.get("a", none).await.unwrap(), None);
        assert_eq!(get(&recent, 1).await, 1);
    }
}
