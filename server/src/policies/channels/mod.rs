//! Channels: where alerts go beside applications' handlers.
//!
//! What a channel is to be told is put down in the outbox, in the transaction that notes the alert.
//! [`worker`] empties it, on every instance: each delivery is claimed first, so that it is sent once
//! unless an instance dies between sending and writing that down. Receivers tell repeats by the id,
//! which is the same for every attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cluster::Instance;
use crate::store::channels::ChannelRow;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

mod channel;
mod guard;
mod notice;
mod seal;
mod send;
mod template;
mod worker;

pub use channel::{Kind, Secrets, Settings, Severity, Wanted, apply};
pub use guard::{Guard, Refusal};
pub use notice::{Event, Notice};
pub use seal::{SealError, Sealer, is_sealed};
pub use send::{Answer, Channel, Sender, Verdict};

/// How channels are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where requests may go.
    pub guard: Guard,
    /// Between two looks into the outbox.
    pub tick: Duration,
    /// For one request, its answer included.
    pub timeout: Duration,
    /// First and longest pause before another attempt.
    pub retry: (Duration, Duration),
    /// A notice older than this is no news any more.
    pub give_up_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guard: Guard::default(),
            tick: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            retry: (Duration::from_secs(5), Duration::from_secs(600)),
            give_up_after: Duration::from_secs(6 * 3600),
        }
    }
}

/// A handle on channels. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    store: Store,
    instance: Instance,
    metrics: Metrics,
    sealer: Sealer,
    sender: Sender,
    nudge: Notify,
}

/// A stored channel that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its secrets cannot be read.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// Another version of the server wrote it.
    #[error("the channel was written by another version of the server")]
    Unreadable,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tested {
    /// The receiver's answer, or what went wrong.
    Answer(Answer),
    /// The channel was used too often in the last minute.
    Crowded,
}

impl Channels {
    /// Prepares channels. Fails only where TLS cannot be set up.
    pub fn new(
        options: Options,
        store: Store,
        instance: Instance,
        metrics: Metrics,
        sealer: Sealer,
    ) -> reqwest::Result<Self> {
        let sender = Sender::new(options.guard, options.timeout)?;
        let nudge = Notify::new();
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                store,
                instance,
                metrics,
                sealer,
                sender,
                nudge,
            }),
        })
    }

    /// Starts telling them; it stops after `shutdown`, with what is under way finished.
    pub fn start(&self, shutdown: CancellationToken) -> JoinHandle<()> {
        worker::start(self.clone(), shutdown)
    }

    /// Something was put into the outbox.
    pub fn nudge(&self) {
        self.inner.nudge.notify_one();
    }

    /// Where requests may go.
    pub fn guard(&self) -> Guard {
        self.inner.options.guard
    }

    /// A stored channel, with its secrets.
    pub fn open(&self, row: &ChannelRow) -> Result<Channel, OpenError> {
        let secrets = self.inner.sealer.open(&row.id, &row.secrets)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == row.kind);
        let read = || -> Option<Channel> {
            Some(Channel {
                id: row.id.clone(),
                kind: kind?,
                settings: serde_json::from_str(&row.settings).ok()?,
                secrets: serde_json::from_str(secrets.expose()).ok()?,
            })
        };
        read().ok_or(OpenError::Unreadable)
    }

    /// A channel's secrets in the form in which they are stored.
    pub fn seal(&self, channel_id: &str, secrets: &Secrets) -> Result<String, SealError> {
        let plain = serde_json::to_string(secrets).map_err(|_| SealError::Cipher)?;
        self.inner.sealer.seal(channel_id, &plain)
    }

    /// Tells a channel at once that somebody tries it, and logs what came of it.
    pub async fn test(&self, channel: &Channel, organization: &str) -> Result<Tested, StoreError> {
        let inner = &self.inner;
        if !inner
            .store
            .take_channel_turn(&channel.id, channel.settings.per_minute)
            .await?
        {
            return Ok(Tested::Crowded);
        }
        let id = Uuid::now_v7().to_string();
        let now = inner.instance.now();
        let notice = Notice::test(&id, organization, now);
        let answer = inner.sender.test(channel, &id, &notice, now / 1000).await;
        let outcome = match answer.verdict {
            Verdict::Delivered => "delivered",
            Verdict::Later(_) | Verdict::Refused => "failed",
        };
        inner
            .metrics
            .alert_delivery(channel.kind.name(), outcome, answer.latency);
        let attempt = worker::attempt(&id, None, Event::Test.name(), &answer);
        inner.store.insert_attempt(&channel.id, &attempt).await?;
        Ok(Tested::Answer(answer))
    }
}
