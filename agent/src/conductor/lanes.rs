//! How many requests are handled at once, and which never wait for the others.

use std::sync::Arc;

use segno_protocol::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Ordinary requests handled at once.
const ORDINARY: usize = 8;
/// Urgent requests handled at once, besides.
const URGENT: usize = 4;
/// Requests accepted at all; a server that sends more gets refusals.
const ACCEPTED: usize = 1024;

/// Places for requests. Listings can take long; who is dead and who takes over cannot wait for them. Who we are waits for
/// nothing at all: it needs no database, and until it is answered we are as good as dead.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    ordinary: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    lane: Option<Arc<Semaphore>>,
    _accepted: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            ordinary: Arc::new(Semaphore::new(ORDINARY)),
            urgent: Arc::new(Semaphore::new(URGENT)),
            accepted: Arc::new(Semaphore::new(ACCEPTED)),
        }
    }

    /// Takes a place in the queue without waiting; `None` if there is none left.
    pub(super) fn enter(&self, request: &Request) -> Option<Ticket> {
        let lane = match request {
            Request::ExecutorInfo(_) => {
                return Some(Ticket {
                    lane: None,
                    _accepted: None,
                });
            }
            Request::Recovery(_) | Request::ExistPendingWorkflows(_) => &self.urgent,
            _ => &self.ordinary,
        };
        let accepted = Arc::clone(&self.accepted).try_acquire_owned().ok()?;
        Some(Ticket {
            lane: Some(Arc::clone(lane)),
            _accepted: Some(accepted),
        })
    }
}

impl Ticket {
    /// Waits for one's turn, which lasts until both values are dropped; `None` if there is nothing to wait for.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let lane = Arc::clone(self.lane.as_ref()?);
        lane.acquire_owned().await.ok()
    }
}
