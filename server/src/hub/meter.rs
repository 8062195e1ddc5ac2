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

/// A connection whose incoming bytes are counted, and read frame by frame: no read goes past the end of
/// a frame's head, nor past that of its payload. So the websocket library, which reads a large payload
/// into memory of just its size, has nothing else in there, and can let go of it.
pub(super) struct Metered<S> {
    inner: S,
    held: Arc<Held>,
    place: Place,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, held: Arc<Held>) -> Self {
        Self {
            inner,
            held,
            place: Place::default(),
        }
    }
}

/// Where in a frame the next byte belongs (RFC 6455, 5.2).
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    /// What is known of the head; of no more than its length and mask are of interest.
    head: [u8; 10],
    have: usize,
    /// Bytes of the payload to come; only then is the head over.
    payload: u64,
}

impl Place {
    /// How many bytes may be read at once.
    fn left(&self) -> usize {
        match self.payload {
            0 => self.head_length() - self.have,
            left => usize::try_from(left).unwrap_or(usize::MAX),
        }
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// Bytes came, no more than [`Self::left`].
    fn advance(&mut self, bytes: &[u8]) {
        if self.payload > 0 {
            self.payload = self.payload.saturating_sub(bytes.len() as u64);
            return;
        }
        for byte in bytes {
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
        }
        if self.have < 2 || self.have < self.head_length() {
            return;
        }
        let [_, short, long @ ..] = self.head;
        self.payload = match short & 0x7f {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long),
            short => u64::from(short),
        };
        self.have = 0;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buf.remaining().min(this.place.left());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        this.place.advance(part.filled());
        buf.advance(count);
        if this.held.add(count) {
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

    /// Where the reads of a stream of frames end.
    fn cuts(mut bytes: &[u8]) -> Vec<usize> {
        let mut place = Place::default();
        let mut cuts = Vec::new();
        while !bytes.is_empty() {
            let (read, rest) = bytes.split_at(place.left().min(bytes.len()));
            place.advance(read);
            cuts.push(read.len());
            bytes = rest;
        }
        cuts
    }

    #[test]
    fn reads_end_where_heads_and_payloads_do() {
        let masked_ping = [0x89, 0x84, 1, 2, 3, 4, b'b', b'e', b'a', b't'];
        assert_eq!(cuts(&masked_ping), [2, 4, 4]);
        assert_eq!(
            cuts(&[0x8a, 0, 0x8a, 0]),
            [2, 2],
            "nothing in them, not masked"
        );
        let mut medium = vec![0x81, 0xfe, 0x01, 0x00, 1, 2, 3, 4];
        medium.extend([0; 256]);
        medium.extend(masked_ping);
        assert_eq!(cuts(&medium), [2, 6, 256, 2, 4, 4]);
        let mut large = vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        large.extend([0; 65536]);
        assert_eq!(cuts(&large), [2, 12, 65536]);
    }

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
