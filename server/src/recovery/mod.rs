//! The heart: notices that an executor died and hands its workflows to a healthy one that runs the
//! same application version. Nothing is called recovered before it was seen to have moved.
//!
//! - [`machine`] decides. It is a pure function of a case, an event and the time.
//! - [`driver`] feeds it with what happens and carries out what it decides.
//! - [`invariants`] says what must hold whatever happens; tests and debug builds check it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod driver;
pub mod invariants;
pub mod machine;
mod news;

pub use news::{News, NewsKind};

/// Limits and intervals of recovery.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between two writes of this instance's heartbeat.
    pub heartbeat_every: Duration,
    /// An instance silent for so long is dead, and its claims are void.
    pub heartbeat_expiry: Duration,
    /// Between two sweeps over `PENDING` rows for owners that nobody knows.
    pub sweep_every: Duration,
    /// First and longest pause before a stranded recovery is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_secs(2),
            heartbeat_expiry: Duration::from_secs(10),
            sweep_every: Duration::from_secs(600),
            retry: (Duration::from_secs(2), Duration::from_secs(60)),
        }
    }
}
