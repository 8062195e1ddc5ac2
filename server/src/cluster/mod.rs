//! This instance among the others that share the store: its heartbeat, the store's clock, whether it
//! may judge anybody; who the others are ([`peers`]), how they are asked for an executor of theirs
//! ([`forward`]) and what they tell each other ([`news`]).
//!
//! Everything that counts is rows and the database's clock: no session state, no notifications, so a
//! transaction pooler may stand between. What instances tell each other directly only makes it faster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::state::AppState;
use crate::store::{Store, StoreError};

pub(crate) mod forward;
mod letter;
pub(crate) mod news;
mod peers;

pub(crate) use peers::Holders;
pub use peers::Peers;

/// What other instances may ask this one.
pub(crate) fn routes() -> Router<AppState> {
    forward::routes().merge(news::routes())
}

/// The store's clock as of an instant of ours: between two looks it runs like ours.
#[derive(Clone, Copy)]
struct Reading {
    store: i64,
    asked: Instant,
    answered: Instant,
}

/// This instance. Cheap to clone.
#[derive(Clone)]
pub struct Instance {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    address: String,
    store: Store,
    every: Duration,
    expiry: Duration,
    reading: Mutex<Reading>,
    resumptions: AtomicU64,
    /// Another instance that is alive advertises the same address.
    displaced: CancellationToken,
}

impl Instance {
    /// Writes this instance down and keeps its heart beating until `shutdown`. `expiry`: silence
    /// after which others may take it for dead.
    pub async fn join(
        store: Store,
        address: &str,
        every: Duration,
        expiry: Duration,
        shutdown: CancellationToken,
    ) -> Result<Self, StoreError> {
        let id = Uuid::new_v4().to_string();
        store.replace_instances(&id, address).await?;
        store.register_instance(&id, address).await?;
        let asked = Instant::now();
        let reading = Reading {
            store: store.now().await?,
            asked,
            answered: Instant::now(),
        };
        let instance = Self {
            inner: Arc::new(Inner {
                id,
                address: address.to_owned(),
                store,
                every,
                expiry,
                reading: Mutex::new(reading),
                resumptions: AtomicU64::new(0),
                displaced: CancellationToken::new(),
            }),
        };
        tokio::spawn(instance.clone().beat_until(shutdown));
        Ok(instance)
    }

    /// Unique among all instances and starts.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Silence after which an instance is gone, milliseconds.
    pub fn expiry_ms(&self) -> i64 {
        millis(self.inner.expiry)
    }

    /// Between two heartbeats.
    pub(crate) fn beats_every(&self) -> Duration {
        self.inner.every
    }

    /// Where peers reach this instance.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Waits until it turns out that an older instance, which is alive, advertises the same address.
    pub async fn displaced(&self) {
        self.inner.displaced.cancelled().await;
    }

    /// Whether this instance has not been able to write its heartbeat for so long that others take it
    /// for gone: they wait for its executors to show up elsewhere.
    pub fn is_given_up(&self) -> bool {
        self.reading().asked.elapsed() > self.inner.expiry
    }

    /// What the store's clock showed at an instant of ours at the latest, epoch milliseconds: for what begins a period of
    /// grace. It may be in the store's future.
    pub fn at(&self, instant: Instant) -> i64 {
        let reading = self.reading();
        reading.store + since(reading.asked, instant)
    }

    /// What the store's clock shows now at least, epoch milliseconds: for whether a period is over.
    pub fn now(&self) -> i64 {
        let reading = self.reading();
        reading.store + since(reading.answered, Instant::now())
    }

    /// Whether this instance could write its heartbeat lately. While it could not, it judges nobody:
    /// others may have taken over what it thinks it owns.
    pub fn is_current(&self) -> bool {
        self.reading().asked.elapsed() < self.inner.expiry / 2
    }

    /// How often this instance came back after it could not reach the store. What it wrote before may
    /// have been changed by others.
    pub fn resumptions(&self) -> u64 {
        self.inner.resumptions.load(Ordering::Acquire)
    }

    /// Says that this instance stops in good order.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.inner.store.instance_stopped(self.id()).await
    }

    fn reading(&self) -> Reading {
        *self
            .inner
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat_until(self, shutdown: CancellationToken) {
        let mut ticks = interval(self.inner.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let was_current = self.is_current();
            match timeout(self.inner.expiry / 2, self.beat(was_current)).await {
                Ok(Ok(())) => {
                    if away {
                        tracing::info!("the store is reachable again");
                    }
                    away = false;
                }
                Ok(Err(error)) if !away => {
                    away = true;
                    tracing::error!(%error, "cannot write the heartbeat; nobody is declared dead meanwhile");
                }
                Err(_) if !away => {
                    away = true;
                    tracing::error!("the store does not answer; nobody is declared dead meanwhile");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn beat(&self, was_current: bool) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mut asked = Instant::now();
        let beaten = if was_current {
            inner.store.beat(&inner.id).await?
        } else {
            None
        };
        let store = match beaten {
            Some(now) => now,
            None => {
                // After an absence executors get their grace anew, for they could not be seen.
                inner
                    .store
                    .register_instance(&inner.id, &inner.address)
                    .await?;
                inner.resumptions.fetch_add(1, Ordering::AcqRel);
                asked = Instant::now();
                inner.store.now().await?
            }
        };
        {
            let mut reading = inner.reading.lock().unwrap_or_else(PoisonError::into_inner);
            *reading = Reading {
                store,
                asked,
                answered: Instant::now(),
            };
        }
        if inner
            .store
            .replaced_is_alive(&inner.id, self.expiry_ms())
            .await?
        {
            inner.displaced.cancel();
        }
        Ok(())
    }
}

/// Milliseconds from one instant to another, negative if that was earlier.
fn since(from: Instant, to: Instant) -> i64 {
    match to.checked_duration_since(from) {
        Some(later) => millis(later),
        None => -millis(from.duration_since(to)),
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
