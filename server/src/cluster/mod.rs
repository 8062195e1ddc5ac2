//! This instance among the others that share the store: its heartbeat, the store's clock, and
//! whether it may judge anybody.
//!
//! Routing between instances comes later; what recovery needs for its claims is here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// The store's clock as of an instant of ours: between two looks it runs like ours.
#[derive(Clone, Copy)]
struct Reading {
    store: i64,
    ours: Instant,
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
        let reading = Reading {
            store: store.now().await?,
            ours: Instant::now(),
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

    /// The store's clock at an instant of ours, epoch milliseconds.
    pub fn at(&self, instant: Instant) -> i64 {
        let reading = self.reading();
        match instant.checked_duration_since(reading.ours) {
            Some(later) => reading.store + millis(later),
            None => reading.store - millis(reading.ours.duration_since(instant)),
        }
    }

    /// The store's clock now, epoch milliseconds.
    pub fn now(&self) -> i64 {
        self.at(Instant::now())
    }

    /// Whether this instance could write its heartbeat lately. While it could not, it judges nobody:
    /// others may have taken over what it thinks it owns.
    pub fn is_current(&self) -> bool {
        self.reading().ours.elapsed() < self.inner.expiry / 2
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
        let began = Instant::now();
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
                inner.store.now().await?
            }
        };
        let mut reading = inner.reading.lock().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading { store, ours: began };
        Ok(())
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
