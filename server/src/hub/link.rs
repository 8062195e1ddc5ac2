//! One websocket: a reader, a writer, and the requests that travel on it.
//!
//! The reader does nothing that could wait for anything but the socket, so pings are answered at
//! once (the websocket library queues the pong, the reader's next poll sends it). The writer sends
//! what the [`Outbox`] lets go, and pings of our own. Either ends the other. Both run in the session's
//! one task, side by side: an idle executor costs a server of thousands little more than its buffer.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use segno_recovery::liveness::{Health, Probe};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Options;
use super::meter::{Budget, Held, Metered, OverBudget};
use super::outbox::{CallError, Incoming, Manners, Outbox, Outgoing, Priority};

/// Messages above this are looked at on a thread of their own, one at a time for each socket.
const LARGE: usize = 256 << 10;
/// So much garbage in a row and the connection ends.
const GARBAGE: u32 = 50;
/// What an idle connection holds to read into. Larger messages get memory of their own, and give it
/// back.
const READ_BUFFER: usize = 4 << 10;
/// Messages above this must not leave their memory to the connection (see [`Link::next_message`]).
const KEEP: usize = 2 * READ_BUFFER;
/// Larger requests are sent in pieces of so many bytes, for the websocket library keeps what the
/// largest frame took. No smaller: a busy Python executor bears 16 frames, pieces included.
const FRAGMENT: usize = segno_protocol::MAX_MESSAGE_BYTES / 16;
/// A close frame gets so long to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The executor closed it, or the network did.
    Closed,
    /// The executor closed it and said that it does not come back.
    Left,
    /// Nothing was heard for longer than the read deadline.
    Silent,
    /// A message was larger than one may be.
    TooLarge,
    /// Frames that break the websocket protocol, or nothing but garbage.
    Misbehaved,
    /// We closed it, for this reason.
    Ours(&'static str),
}

impl End {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "connection closed",
            Self::Left => "the executor has stopped",
            Self::Silent => "silent for longer than the read deadline",
            Self::TooLarge => "message too large",
            Self::Misbehaved => "protocol violated",
            Self::Ours(reason) => reason,
        }
    }

    fn close_code(self) -> CloseCode {
        match self {
            Self::Closed | Self::Left => CloseCode::Normal,
            Self::Silent | Self::Ours(_) => CloseCode::Away,
            Self::TooLarge => CloseCode::Size,
            Self::Misbehaved => CloseCode::Policy,
        }
    }
}

pub(super) struct Link {
    outbox: Mutex<Outbox>,
    wake: Notify,
    ending: CancellationToken,
    end: OnceLock<(End, Instant)>,
    opened: Instant,
    /// Milliseconds from `opened` to the last frame, of whatever kind.
    last_frame: AtomicU64,
    health: Mutex<Health>,
    suspect: Notify,
    garbage: Mutex<u32>,
    large: Arc<Semaphore>,
    held: Arc<Held>,
}

type Socket = WebSocketStream<Metered<TokioIo<Upgraded>>>;

impl Link {
    fn new(held: Arc<Held>) -> Self {
        let now = Instant::now();
        Self {
            outbox: Mutex::default(),
            wake: Notify::new(),
            ending: CancellationToken::new(),
            end: OnceLock::new(),
            opened: now,
            last_frame: AtomicU64::new(0),
            health: Mutex::new(Health::new(now)),
            suspect: Notify::new(),
            garbage: Mutex::default(),
            large: Arc::new(Semaphore::new(1)),
            held,
        }
    }

    /// A link on an upgraded connection, and what makes it work: to be run until it ends. `span` names
    /// it in the log, without its key.
    pub(super) async fn open(
        connection: Upgraded,
        options: &Options,
        budget: Arc<Budget>,
        span: tracing::Span,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + use<>) {
        use tracing::Instrument;

        let link = Arc::new(Self::new(Held::new(budget)));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(options.max_message))
            .max_message_size(Some(options.max_message));
        let io = Metered::new(TokioIo::new(connection), link.held.clone());
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (sink, stream) = socket.split();
        let reader = link.clone().read(stream, options.read_deadline);
        let writer = link
            .clone()
            .write(sink, options.ping_every, options.write_deadline);
        let traffic = async move {
            // The writer sees that the reader ended, and says goodbye within its deadline.
            tokio::join!(reader, writer);
        };
        (link, traffic.instrument(span))
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adapts what is sent to the executor's SDK, once that is known.
    pub(super) fn set_manners(&self, manners: Manners) {
        self.outbox().set_manners(manners);
    }

    /// Sends a request and waits for its answer, until `deadline`. Dropping the future gives the
    /// request up.
    pub(super) async fn call(
        &self,
        message: &'static str,
        priority: Priority,
        encode: impl FnOnce(&str) -> String,
        deadline: Duration,
    ) -> Result<Utf8Bytes, CallError> {
        let request_id = Uuid::new_v4().simple().to_string();
        let outgoing = Outgoing {
            message,
            priority,
            text: encode(&request_id),
            request_id: request_id.clone(),
        };
        let receiver = self.outbox().push(outgoing)?;
        self.wake.notify_one();
        let mut guard = GiveUp {
            link: self,
            request_id: &request_id,
            armed: true,
        };
        let answer = timeout(deadline, receiver).await;
        guard.armed = false;
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => match self.give_up(&request_id) {
                Some(_) => {
                    self.suspect.notify_one();
                    Err(CallError::TimedOut)
                }
                None => Err(CallError::NotSent("it is busy with earlier requests")),
            },
        }
    }

    /// Nobody waits for the answer any more, which may let another request go.
    fn give_up(&self, request_id: &str) -> Option<Instant> {
        let sent = self.outbox().give_up(request_id);
        self.wake.notify_one();
        sent
    }

    /// Ends the connection. The first reason counts.
    pub(super) fn close(&self, end: End) {
        let _ = self.end.set((end, Instant::now()));
        self.ending.cancel();
        // Whoever waits is told at once, not when the close frame has left.
        self.outbox().close();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Why it ended.
    pub(super) fn end(&self) -> End {
        self.end.get().map_or(End::Closed, |(end, _)| *end)
    }

    /// When the peer was last there, once the connection ended: a close is a sign of life, silence
    /// is none.
    pub(super) fn lost_at(&self) -> Instant {
        match self.end.get() {
            Some((End::Silent, _)) | None => self.last_frame(),
            Some((_, at)) => *at,
        }
    }

    /// When the last frame came.
    fn last_frame(&self) -> Instant {
        self.opened + Duration::from_millis(self.last_frame.load(Ordering::Relaxed))
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outbox().outstanding()
    }

    /// Requests sent or waiting.
    pub(super) fn load(&self) -> usize {
        self.outbox().load()
    }

    pub(super) fn unresponsive_since(&self) -> Option<Instant> {
        self.health().unresponsive_since
    }

    /// Proves the command path from time to time, and at once when a request timed out; `probe` asks
    /// and tells whether an answer came. Runs until the connection ends. `changed` is told whenever
    /// the verdict changes.
    pub(super) async fn keep_probing<F>(
        &self,
        every: Duration,
        probe: impl Fn() -> F,
        changed: impl Fn(bool),
    ) where
        F: Future<Output = Result<(), CallError>>,
    {
        while !self.ending.is_cancelled() {
            let pause = self.health().pause(every, Instant::now());
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = self.suspect.notified() => {}
                () = tokio::time::sleep(pause) => {
                    if !self.health().is_due(every, Instant::now()) {
                        continue;
                    }
                }
            }
            self.outbox().forget_lost(Instant::now());
            let asked = Instant::now();
            let answer = probe().await;
            let outcome = match answer {
                _ if self.is_ending() => Probe::Ended,
                Err(CallError::TimedOut | CallError::NotSent(_)) => Probe::Unanswered,
                Err(CallError::Lost) => Probe::Ended,
                Ok(()) | Err(CallError::TooLarge | CallError::Garbled(_)) => Probe::Answered,
            };
            let (judged, is_new) = {
                let mut health = self.health();
                let (judged, is_new) = health.judged(asked, outcome);
                *health = judged;
                (judged, is_new)
            };
            if is_new {
                changed(judged.unresponsive_since.is_some());
            }
        }
    }

    async fn read(self: Arc<Self>, mut stream: SplitStream<Socket>, deadline: Duration) {
        let mut large = None;
        loop {
            let frame = tokio::select! {
                biased;
                () = self.ending.cancelled() => return,
                frame = timeout(deadline, Self::next_message(&mut stream, &mut large)) => frame,
            };
            let end = match frame {
                Err(_) => End::Silent,
                Ok(None) => End::Closed,
                Ok(Some(Err(error))) => self.broken(&error),
                Ok(Some(Ok(message))) => {
                    let elapsed = self.opened.elapsed().as_millis();
                    self.last_frame.store(
                        u64::try_from(elapsed).unwrap_or(u64::MAX),
                        Ordering::Relaxed,
                    );
                    match message {
                        Message::Text(text) => {
                            self.held.release();
                            large = (text.len() > KEEP).then(|| text.clone());
                            self.clone().text(text).await;
                        }
                        Message::Binary(data) => {
                            self.held.release();
                            self.garbage("a binary frame", data.len());
                        }
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                        Message::Close(frame) => {
                            self.close(closed(frame.as_ref()));
                            return;
                        }
                    }
                    continue;
                }
            };
            self.close(end);
            return;
        }
    }

    /// The next message. `large`: the one before, if it was. A message is a slice of what it was read
    /// into, and the websocket library would go on reading into that memory for good, all 128 MiB of it,
    /// were it free. So it is held until the library has looked for the next frame and, finding its
    /// memory in use and full (see [`Metered`]), taken a small one.
    async fn next_message(
        stream: &mut SplitStream<Socket>,
        large: &mut Option<Utf8Bytes>,
    ) -> Option<Result<Message, Error>> {
        poll_fn(|context| {
            let message = stream.poll_next_unpin(context);
            *large = None;
            message
        })
        .await
    }

    fn broken(&self, error: &Error) -> End {
        match error {
            Error::Capacity(error) => {
                tracing::warn!(%error, "message too large: the connection ends");
                self.outbox().fail_oldest_too_large();
                End::TooLarge
            }
            Error::Io(error)
                if error
                    .get_ref()
                    .is_some_and(|error| error.is::<OverBudget>()) =>
            {
                tracing::warn!(%error, "the connection ends");
                End::TooLarge
            }
            // A peer that vanishes without a close frame is daily business, not a violation.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Closed,
            Error::Protocol(error) => {
                tracing::warn!(%error, "the websocket protocol was violated: the connection ends");
                End::Misbehaved
            }
            Error::Utf8(_) => {
                tracing::warn!("a text frame is not UTF-8: the connection ends");
                End::Misbehaved
            }
            _ => End::Closed,
        }
    }

    /// Takes an incoming text; a large one without holding up the socket.
    async fn text(self: Arc<Self>, text: Utf8Bytes) {
        if self.outbox().outstanding() == 0 {
            return self.garbage("a message that answers nothing", text.len());
        }
        if text.len() <= LARGE {
            return self.answer(text);
        }
        let Ok(permit) = self.large.clone().acquire_owned().await else {
            return;
        };
        tokio::task::spawn_blocking(move || {
            self.answer(text);
            drop(permit);
        });
    }

    fn answer(&self, text: Utf8Bytes) {
        let envelope = match segno_protocol::decode_envelope(text.as_str()) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::debug!(%error, "unreadable message");
                return self.garbage(
                    "a message that is not JSON or has no request_id",
                    text.len(),
                );
            }
        };
        let length = text.len();
        let incoming = self
            .outbox()
            .answer(&envelope.request_id, envelope.r#type.as_deref(), text);
        match incoming {
            Incoming::Answer | Incoming::Late => {
                self.health().last_answer = Instant::now();
                *self.garbage.lock().unwrap_or_else(PoisonError::into_inner) = 0;
                if self.health().unresponsive_since.is_some() {
                    self.suspect.notify_one();
                }
            }
            Incoming::Unknown => self.garbage("an answer to no request of ours", length),
            Incoming::WrongType => {
                self.garbage("an answer of another type than its question", length)
            }
        }
        // A place became free.
        self.wake.notify_one();
    }

    /// Something that makes no sense came. It is ignored, until there is too much of it.
    fn garbage(&self, what: &'static str, bytes: usize) {
        let count = {
            let mut garbage = self.garbage.lock().unwrap_or_else(PoisonError::into_inner);
            *garbage += 1;
            *garbage
        };
        if count.is_power_of_two() {
            tracing::warn!(what, bytes, count, "ignored a malformed frame");
        }
        if count >= GARBAGE {
            tracing::warn!(count, "nothing but malformed frames: the connection ends");
            self.close(End::Misbehaved);
        }
    }

    async fn write(
        self: Arc<Self>,
        mut sink: SplitSink<Socket, Message>,
        ping_every: Duration,
        deadline: Duration,
    ) {
        let mut pings = interval(ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        loop {
            let request = tokio::select! {
                biased;
                () = self.ending.cancelled() => break,
                _ = pings.tick() => None,
                request = self.next_request() => Some(request),
            };
            let frames = match request {
                None => vec![Message::Ping(bytes::Bytes::new())],
                Some(text) => frames(text),
            };
            for frame in frames {
                match timeout(deadline, sink.send(frame)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => self.close(End::Closed),
                    Err(_) => {
                        tracing::warn!("the executor takes no frames: the connection ends");
                        self.close(End::Silent);
                    }
                }
                break;
            }
        }
        let goodbye = Message::Close(Some(CloseFrame {
            code: self.end().close_code(),
            reason: Utf8Bytes::from_static(self.end().reason()),
        }));
        // The peer may be gone; then there is nobody to say goodbye to.
        let _ = timeout(CLOSE_DEADLINE, sink.send(goodbye)).await;
    }

    async fn next_request(&self) -> String {
        loop {
            let frame = self.outbox().next(Instant::now());
            if let Some(frame) = frame {
                return frame;
            }
            self.wake.notified().await;
        }
    }
}

/// What a close frame of the executor means. Only a code that no SDK sends without meaning it tells a stop
/// from a connection that is given up.
fn closed(frame: Option<&CloseFrame>) -> End {
    match frame {
        Some(frame) if u16::from(frame.code) == segno_protocol::CLOSE_LEFT => End::Left,
        _ => End::Closed,
    }
}

/// A request as one frame, or a large one in pieces, cut between characters.
fn frames(text: String) -> Vec<Message> {
    if text.len() <= FRAGMENT {
        return vec![Message::Text(text.into())];
    }
    let text = Utf8Bytes::from(text);
    let (all, mut from) = (bytes::Bytes::from(text.clone()), 0);
    let mut frames = Vec::new();
    while from < all.len() {
        let to = text.floor_char_boundary((from + FRAGMENT).min(all.len()));
        let kind = if from == 0 {
            Data::Text
        } else {
            Data::Continue
        };
        let frame = Frame::message(all.slice(from..to), OpCode::Data(kind), to == all.len());
        frames.push(Message::Frame(frame));
        from = to;
    }
    frames
}

/// Gives a request up when its caller goes away.
struct GiveUp<'a> {
    link: &'a Link,
    request_id: &'a str,
    armed: bool,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.link.give_up(self.request_id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_large_request_leaves_in_pieces_cut_between_characters() {
        let text = "é".repeat(FRAGMENT / 2 + 10) + &"x".repeat(FRAGMENT);
        let pieces: Vec<Frame> = frames(format!("x{text}"))
            .into_iter()
            .map(|message| match message {
                Message::Frame(frame) => frame,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces.len(), 3);
        let last = pieces.len() - 1;
        for (n, piece) in pieces.iter().enumerate() {
            let header = piece.header();
            let kind = if n == 0 { Data::Text } else { Data::Continue };
            assert_eq!(header.opcode, OpCode::Data(kind));
            assert_eq!(header.is_final, n == last);
            assert!(std::str::from_utf8(piece.payload()).is_ok());
            assert!(piece.payload().len() <= FRAGMENT);
        }
        let whole: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.payload().to_vec())
            .collect();
        assert_eq!(whole, format!("x{text}").into_bytes());
        assert_eq!(frames("{}".to_owned()), [Message::text("{}")]);
    }
}
