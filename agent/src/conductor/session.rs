//! The life of the connection: dial, serve, redial.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use segno_protocol::{MAX_MESSAGE_BYTES, Request, RequestFrame, decode_request, encode_error};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Timing;
use super::answer::Executor;
use super::backoff::{Backoff, End};
use super::handshake::{DialError, Dialer, Socket};
use super::lanes::Lanes;

/// Answers waiting to be written; handlers wait beyond that.
const OUTBOX: usize = 32;

/// How long requests in flight may take to finish at shutdown.
const FINISH: Duration = Duration::from_secs(5);

/// How long the server may take to return our close frame.
const GOODBYE: Duration = Duration::from_secs(1);

/// Keeps one connection to the control plane.
pub(super) struct Client {
    dialer: Dialer,
    executor: Arc<Executor>,
    timing: Timing,
    lanes: Lanes,
    identified: watch::Sender<bool>,
    rejection_logged: Option<(u16, Instant)>,
}

impl Client {
    pub(super) fn new(
        dialer: Dialer,
        executor: Arc<Executor>,
        timing: Timing,
        identified: watch::Sender<bool>,
    ) -> Self {
        Self {
            dialer,
            executor,
            timing,
            lanes: Lanes::new(),
            identified,
            rejection_logged: None,
        }
    }

    /// Connects and serves until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(&self.timing);
        loop {
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                dialled = self.dialer.dial(self.timing.handshake, websocket_config()) => dialled,
            };
            let end = match dialled {
                Ok(socket) => {
                    tracing::info!(
                        server = self.dialer.server(),
                        "connected to the control plane"
                    );
                    let end = self.serve(socket, &stop).await;
                    self.identified.send_replace(false);
                    end
                }
                Err(DialError { end, reason }) => {
                    self.log_failure(&end, &reason);
                    end
                }
            };
            if stop.is_cancelled() {
                return;
            }
            let wait = backoff.after(&end, rand::random_range(0.5..1.5));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn log_failure(&mut self, end: &End, reason: &str) {
        if let End::Rejected {
            status: status @ (401 | 403 | 404),
            ..
        } = end
        {
            let fresh = self.rejection_logged.is_none_or(|(last, at)| {
                last != *status || at.elapsed() >= self.timing.rejection_log
            });
            if !fresh {
                return;
            }
            self.rejection_logged = Some((*status, Instant::now()));
            tracing::error!(
                server = self.dialer.server(),
                reason,
                "the control plane refuses this application; check that it is registered under its name and that \
                 the key may connect for it. Trying on; workflows run meanwhile"
            );
            return;
        }
        tracing::warn!(
            server = self.dialer.server(),
            reason,
            "cannot connect to the control plane; trying again"
        );
    }

    async fn serve(&mut self, socket: Socket, stop: &CancellationToken) -> End {
        let since = Instant::now();
        let (sink, stream) = socket.split();
        let (outbox, letters) = mpsc::channel(OUTBOX);
        let writer = tokio::spawn(write(sink, letters, self.timing.ping));
        let session = Session {
            executor: Arc::clone(&self.executor),
            lanes: self.lanes.clone(),
            outbox,
            identified: self.identified.clone(),
            was_identified: Arc::new(AtomicBool::new(false)),
            handlers: TaskTracker::new(),
        };
        let was_identified = Arc::clone(&session.was_identified);
        let reason = session.read(stream, self.timing.silence, stop).await;
        // The writer ends with the last sender of its outbox; a handler may still hold one.
        writer.abort();
        if stop.is_cancelled() {
            tracing::info!(server = self.dialer.server(), "left the control plane");
        } else {
            tracing::warn!(
                server = self.dialer.server(),
                reason,
                "lost the control plane; reconnecting"
            );
        }
        End::Lost {
            lasted: since.elapsed(),
            identified: was_identified.load(Ordering::Relaxed),
        }
    }
}

fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// The only task that writes: answers, our pings, the goodbye.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut letters: mpsc::Receiver<Message>,
    every: Duration,
) {
    let mut ping = interval_at(Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let letter = tokio::select! {
            letter = letters.recv() => match letter {
                Some(letter) => letter,
                None => return,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        let last = matches!(letter, Message::Close(_));
        // A failure shows at the reader, too, which ends the session.
        if sink.send(letter).await.is_err() || last {
            return;
        }
    }
}

/// One connection, seen from the reader.
struct Session {
    executor: Arc<Executor>,
    lanes: Lanes,
    outbox: mpsc::Sender<Message>,
    identified: watch::Sender<bool>,
    was_identified: Arc<AtomicBool>,
    handlers: TaskTracker,
}

impl Session {
    /// Reads until the connection or we end; returns why. Never waits for a handler: pings are answered by
    /// the library while we read.
    async fn read(
        self,
        mut stream: SplitStream<Socket>,
        silence: Duration,
        stop: &CancellationToken,
    ) -> String {
        loop {
            let frame = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.say_goodbye(stream).await;
                    return "shutting down".to_owned();
                }
                frame = timeout(silence, stream.next()) => frame,
            };
            match frame {
                Err(_) => return format!("nothing was received for {} s", silence.as_secs_f32()),
                Ok(None) => return "the connection ended".to_owned(),
                Ok(Some(Err(e))) => return e.to_string(),
                Ok(Some(Ok(Message::Text(text)))) => self.accept(text.as_str()),
                Ok(Some(Ok(Message::Binary(_)))) => {
                    tracing::warn!("ignored a binary frame of the control plane");
                }
                Ok(Some(Ok(Message::Close(frame)))) => {
                    // The library sends the answer when it is polled again.
                    let _ = timeout(GOODBYE, stream.next()).await;
                    let code = frame.map_or_else(
                        || "no code".to_owned(),
                        |frame| u16::from(frame.code).to_string(),
                    );
                    return format!("the server closed the connection ({code})");
                }
                Ok(Some(Ok(_))) => {}
            }
        }
    }

    fn accept(&self, text: &str) {
        match decode_request(text) {
            Ok(frame) => self.handle(frame),
            Err(e) => {
                tracing::warn!(error = %e, "the control plane sent a request that cannot be read");
                if let Some(request_id) = &e.request_id {
                    let answer = encode_error(
                        e.r#type.as_deref().unwrap_or_default(),
                        request_id,
                        &one_line(&e.to_string()),
                    );
                    self.refuse(answer);
                }
            }
        }
    }

    fn handle(&self, frame: RequestFrame) {
        let Some(ticket) = self.lanes.enter(&frame.request) else {
            let kind = frame.request.message_type();
            self.refuse(encode_error(
                kind,
                &frame.request_id,
                "too many requests are outstanding; ask again later",
            ));
            return;
        };
        let executor = Arc::clone(&self.executor);
        let outbox = self.outbox.clone();
        let identified = self.identified.clone();
        let was_identified = Arc::clone(&self.was_identified);
        self.handlers.spawn(async move {
            let _turn = ticket.turn().await;
            let introduces = matches!(frame.request, Request::ExecutorInfo(_));
            let (kind, id) = (frame.request.message_type().to_owned(), frame.request_id.clone());
            let answer = match AssertUnwindSafe(executor.answer(frame)).catch_unwind().await {
                Ok(answer) if answer.len() > MAX_MESSAGE_BYTES => {
                    let reason = format!(
                        "the answer has {} bytes, more than the {MAX_MESSAGE_BYTES} allowed; ask for fewer rows or without payloads",
                        answer.len()
                    );
                    encode_error(&kind, &id, &reason)
                }
                Ok(answer) => answer,
                Err(_) => encode_error(&kind, &id, "the handler of this request panicked; see the executor's log"),
            };
            if outbox.send(Message::text(answer)).await.is_ok() && introduces {
                was_identified.store(true, Ordering::Relaxed);
                identified.send_replace(true);
            }
        });
    }

    /// Answers from the reader, which must not wait: a server that does not read its answers loses this one.
    fn refuse(&self, answer: String) {
        if self.outbox.try_send(Message::text(answer)).is_err() {
            tracing::warn!("dropped a refusal that the control plane does not read");
        }
    }

    /// Lets handlers finish, then closes in order, reading on so that the server's frames do not block it.
    async fn say_goodbye(self, mut stream: SplitStream<Socket>) {
        self.handlers.close();
        let finished = timeout(FINISH, self.handlers.wait());
        tokio::pin!(finished);
        loop {
            tokio::select! {
                _ = &mut finished => break,
                frame = stream.next() => if !matches!(frame, Some(Ok(_))) { return },
            }
        }
        let goodbye = CloseFrame {
            code: CloseCode::Library(segno_protocol::CLOSE_LEFT),
            reason: "stopped for good".into(),
        };
        let _ = timeout(GOODBYE, self.outbox.send(Message::Close(Some(goodbye)))).await;
        let _ = timeout(GOODBYE, async {
            while let Some(Ok(_)) = stream.next().await {}
        })
        .await;
    }
}

/// Error texts travel as one line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
