//! A bound on the memory that unfinished messages hold, over all sessions.
//!
//! One message may be large and arrives bit by bit; a thousand of them at once must not take the
//! server down. Whoever would go beyond the common budget loses its connection: its executor redials,
//! and its requests are asked again elsewhere as after any lost connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What all sessions together may hold.
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }
}

/// What one session holds.
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Held {
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            bytes: AtomicUsize::new(0),
        })
    }

    /// More bytes of an unfinished message came; `false` if that is too much for all.
    fn add(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let before = self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        before.saturating_add(bytes) <= self.budget.limit
    }

    /// The message is complete.
    pub(super) fn release(&self) {
        let bytes = self.bytes.swap(0, Ordering::AcqRel);
        self.budget.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// The error of a read beyond the budget.
#[derive(Debug, thiserror::Error)]
#[error("unfinished messages of all executors hold too much memory")]
pub(super) struct OverBudget;

/// A connection whose incoming bytes are counted.
pub(super) struct Metered<S> {
    inner: S,
    held: Arc<Held>,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, held: Arc<Held>) -> Self {
        Self { inner, held }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if self.held.add(buf.filled().len() - before) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other(OverBudget)))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_budget_is_common_and_given_back() {
        let budget = Budget::new(10);
        let (one, two) = (Held::new(budget.clone()), Held::new(budget.clone()));
        let (mut from, to) = tokio::io::duplex(64);
        let mut to = Metered::new(to, one.clone());
        from.write_all(b"12345678").await.unwrap();
        let mut bytes = [0; 8];
        to.read_exact(&mut bytes).await.unwrap();
        assert!(!two.add(3));
        drop(two);
        one.release();
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
        from.write_all(b"12345678").await.unwrap();
        to.read_exact(&mut bytes).await.unwrap();
        from.write_all(b"123").await.unwrap();
        let refused = to.read_exact(&mut bytes[..3]).await.unwrap_err();
        assert!(refused.get_ref().unwrap().is::<OverBudget>());
    }
}
