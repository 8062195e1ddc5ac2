//! One websocket: a reader task, a writer task, and the requests that travel on it.
//!
//! The reader does nothing that could wait for anything but the socket, so pings are answered at
//! once (the websocket library queues the pong, the reader's next poll sends it). The writer sends
//! what the [`Outbox`] lets go, and pings of our own. Either ends the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
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
/// A close frame gets so long to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The executor closed it, or the network did.
    Closed,
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
            Self::Silent => "silent for longer than the read deadline",
            Self::TooLarge => "message too large",
            Self::Misbehaved => "protocol violated",
            Self::Ours(reason) => reason,
        }
    }

    fn close_code(self) -> CloseCode {
        match self {
            Self::Closed => CloseCode::Normal,
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
    ended: CancellationToken,
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

/// The command path: does the executor answer requests, not only pings?
#[derive(Clone, Copy, Debug)]
struct Health {
    last_answer: Instant,
    unresponsive_since: Option<Instant>,
}

impl Link {
    fn new(held: Arc<Held>) -> Self {
        let now = Instant::now();
        Self {
            outbox: Mutex::default(),
            wake: Notify::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
            opened: now,
            last_frame: AtomicU64::new(0),
            health: Mutex::new(Health {
                last_answer: now,
                unresponsive_since: None,
            }),
            suspect: Notify::new(),
            garbage: Mutex::default(),
            large: Arc::new(Semaphore::new(1)),
            held,
        }
    }

    /// Starts to serve an upgraded connection. `span` names it in the log, without its key.
    pub(super) async fn open(
        connection: Upgraded,
        options: &Options,
        budget: Arc<Budget>,
        span: tracing::Span,
    ) -> Arc<Self> {
        use tracing::Instrument;

        let link = Arc::new(Self::new(Held::new(budget)));
        let config = WebSocketConfig::default()
            .max_frame_size(Some(options.max_message))
            .max_message_size(Some(options.max_message));
        let io = Metered::new(TokioIo::new(connection), link.held.clone());
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (sink, stream) = socket.split();
        let reader = link
            .clone()
            .read(stream, options.read_deadline)
            .instrument(span.clone());
        let writer = link.clone().write(sink, options.clone()).instrument(span);
        let both = link.clone();
        tokio::spawn(async move {
            let writer = tokio::spawn(writer);
            reader.await;
            // The writer sees `ending` and says goodbye within its deadline.
            let _ = writer.await;
            both.outbox().close();
            both.ended.cancel();
        });
        link
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
            Err(_) => match self.outbox().give_up(&request_id) {
                Some(_) => {
                    self.suspect.notify_one();
                    Err(CallError::TimedOut)
                }
                None => Err(CallError::NotSent("it is busy with earlier requests")),
            },
        }
    }

    /// Ends the connection. The first reason counts.
    pub(super) fn close(&self, end: End) {
        let _ = self.end.set((end, Instant::now()));
        self.ending.cancel();
        // Whoever waits is told at once, not when the close frame has left.
        self.outbox().close();
    }

    /// Waits until both tasks are over.
    pub(super) async fn ended(&self) -> End {
        self.ended.cancelled().await;
        self.end()
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
            let health = *self.health();
            let wait = match health.unresponsive_since {
                // It is asked again and again, so that it is used again as soon as it can be.
                Some(_) => every / 4,
                None => every.saturating_sub(health.last_answer.elapsed()),
            };
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = self.suspect.notified() => {}
                () = tokio::time::sleep(wait) => {
                    if self.health().unresponsive_since.is_none() && self.health().last_answer.elapsed() < every {
                        continue;
                    }
                }
            }
            self.outbox().forget_lost(Instant::now());
            let asked = Instant::now();
            let answer = probe().await;
            let unresponsive = matches!(answer, Err(CallError::TimedOut | CallError::NotSent(_)))
                && !self.is_ending()
                && self.health().last_answer < asked;
            let was = self.health().unresponsive_since;
            if unresponsive && was.is_none() {
                self.health().unresponsive_since = Some(asked);
                changed(true);
            } else if !unresponsive && was.is_some() {
                self.health().unresponsive_since = None;
                changed(false);
            }
        }
    }

    async fn read(self: Arc<Self>, mut stream: SplitStream<Socket>, deadline: Duration) {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.ending.cancelled() => return,
                frame = timeout(deadline, stream.next()) => frame,
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
                            self.clone().text(text).await;
                        }
                        Message::Binary(data) => {
                            self.held.release();
                            self.garbage("a binary frame", data.len());
                        }
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                        Message::Close(_) => {
                            self.close(End::Closed);
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

    async fn write(self: Arc<Self>, mut sink: SplitSink<Socket, Message>, options: Options) {
        let mut pings = interval(options.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        loop {
            let frame = tokio::select! {
                biased;
                () = self.ending.cancelled() => break,
                _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
                frame = self.next_frame() => Message::Text(frame.into()),
            };
            match timeout(options.write_deadline, sink.send(frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.close(End::Closed),
                Err(_) => {
                    tracing::warn!("the executor takes no frames: the connection ends");
                    self.close(End::Silent);
                }
            }
        }
        let goodbye = Message::Close(Some(CloseFrame {
            code: self.end().close_code(),
            reason: Utf8Bytes::from_static(self.end().reason()),
        }));
        // The peer may be gone; then there is nobody to say goodbye to.
        let _ = timeout(CLOSE_DEADLINE, sink.send(goodbye)).await;
    }

    async fn next_frame(&self) -> String {
        loop {
            let frame = self.outbox().next(Instant::now());
            if let Some(frame) = frame {
                return frame;
            }
            self.wake.notified().await;
        }
    }
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
            self.link.outbox().give_up(self.request_id);
        }
    }
}
