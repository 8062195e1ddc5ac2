//! The listening socket and its connections: how many there may be, and how long each may keep us
//! waiting.
//!
//! A connection costs a file and some memory before anybody said who they are, so idle ones yield: where
//! there are as many as allowed, the one that has waited longest without a request under way makes room
//! for the newcomer. Executors' sockets never yield; they only count.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::tls::Tls;
use crate::telemetry::Metrics;

/// Largest head of a request: request line and headers together, bytes.
const HEAD: usize = 64 << 10;
/// Between two looks for connections that are overdue.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Files that connections leave to the store, the log and whatever else.
const SPARE_FILES: u64 = 128;
/// Pause when no connection can be accepted, mostly for lack of files.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// What a client is told for whom there is no room.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 5\r\nConnection: close\r\nContent-Length: 41\r\n\r\nthe server has no room for a connection.\n";

/// So many clients at a time are told that there is no room, each for no longer than this.
const REFUSALS: usize = 64;
const REFUSAL: Duration = Duration::from_secs(2);

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections in all, executors included. `None`: as many as the system allows files.
    pub max: Option<usize>,
    /// Open connections from one address, executors included; proxies excepted. `None`: no bound of
    /// its own.
    pub max_per_address: Option<usize>,
    /// From the first byte of TCP to the end of a connection's first request head.
    pub head: Duration,
    /// From an answer to the end of the next request head.
    pub keep_alive: Duration,
    /// How long a client may take nothing of what is being sent to it.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max: None,
            max_per_address: None,
            head: Duration::from_secs(10),
            // Longer than load balancers keep theirs, so that it is never us who closes first.
            keep_alive: Duration::from_secs(90),
            stall: Duration::from_secs(60),
        }
    }
}

/// Serves HTTP/1.1 on `listener` until `shutdown` is cancelled, then until every request under way has
/// been answered. `exempt`: addresses of proxies, which speak for many.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<Tls>,
    service: S,
    limits: Limits,
    exempt: Vec<IpAddr>,
    metrics: Metrics,
    shutdown: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let table = Arc::new(Table {
        max: limits.max.unwrap_or_else(allowed_files),
        limits,
        exempt,
        tls,
        epoch: Instant::now(),
        metrics,
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        state: Mutex::default(),
    });
    tracing::debug!(max = table.max, "connections allowed");
    let tasks = TaskTracker::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = looks.tick() => {
                table.end_overdue();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                table.accept(stream, peer, &service, &tasks, &shutdown);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                table.make_room(None);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// How many files this process may have open, less a few: the limit is raised to what the system lets
/// us raise it to.
fn allowed_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(SPARE_FILES).max(files / 2).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// All connections.
struct Table {
    max: usize,
    limits: Limits,
    exempt: Vec<IpAddr>,
    tls: Option<Tls>,
    epoch: Instant,
    metrics: Metrics,
    refusals: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    serial: u64,
    open: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Those that speak HTTP. An upgraded one counts on, but is not ours to end.
    http: HashMap<u64, Listed>,
}

struct Listed {
    connection: Arc<Connection>,
    /// Holds the task's memory: dropped with the entry.
    task: AbortHandle,
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn accept<S>(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        service: &S,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let Some(connection) = self.admit(peer.ip()) else {
            self.metrics.connection_refused();
            // Without a place among those who are told why, the end of the connection says enough; so it
            // does for those who would have to be told through TLS.
            if self.tls.is_none()
                && let Ok(place) = self.refusals.clone().try_acquire_owned()
            {
                tasks.spawn(refuse(stream, place));
            }
            return;
        };
        // Answers are small and whole: waiting for more to send with them only delays them.
        let _ = stream.set_nodelay(true);
        let (table, service, shutdown) = (self.clone(), service.clone(), shutdown.clone());
        let serial = connection.serial;
        // The task takes itself off the list, so the list is held until it is on it.
        let mut state = self.state();
        let ours = connection.clone();
        let task = tasks.spawn(async move {
            let tls = table.tls.as_ref().map(Tls::acceptor);
            let _listed = Unlist { table, serial };
            let stream = Watched {
                stream,
                connection: ours.clone(),
            };
            match tls {
                None => speak(stream, peer, ours, service, shutdown).await,
                // The bound on the first request's head holds for the handshake, too.
                Some(tls) => match Box::pin(tls.accept(stream)).await {
                    Ok(stream) => Box::pin(speak(stream, peer, ours, service, shutdown)).await,
                    Err(error) => tracing::debug!(%peer, %error, "no TLS"),
                },
            }
        });
        let task = task.abort_handle();
        state.http.insert(serial, Listed { connection, task });
    }

    /// Counts a new connection, unless there is no room for it.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Arc<Connection>> {
        let of_address = self.state().by_address.get(&address).copied().unwrap_or(0);
        let bounded = !self.exempt.contains(&address);
        let crowded = |most: usize| bounded && of_address >= most;
        if self.limits.max_per_address.is_some_and(crowded) && !self.make_room(Some(address)) {
            return None;
        }
        if self.state().open >= self.max && !self.make_room(None) {
            return None;
        }
        let mut state = self.state();
        state.serial += 1;
        state.open += 1;
        *state.by_address.entry(address).or_default() += 1;
        Some(Arc::new(Connection {
            table: self.clone(),
            serial: state.serial,
            address,
            phase: AtomicU8::new(FRESH),
            since: AtomicU64::new(self.now()),
            blocked: AtomicBool::new(false),
        }))
    }

    /// Ends the connection that has been without a request for longest, of an address or of all: one
    /// that never made any goes first. `false` if there is none.
    fn make_room(&self, address: Option<IpAddr>) -> bool {
        let mut state = self.state();
        let of_address =
            |listed: &&Listed| address.is_none_or(|address| listed.connection.address == address);
        let idle = |listed: &&Listed| listed.connection.phase() != BUSY;
        let longest = state
            .http
            .values()
            .filter(of_address)
            .filter(idle)
            .min_by_key(|listed| (listed.connection.phase(), listed.connection.since()));
        let serial = longest.map(|listed| listed.connection.serial);
        let ended = serial.and_then(|serial| state.http.remove(&serial));
        // The last that holds a connection counts it off, for which it needs the lock.
        drop(state);
        ended.inspect(|listed| listed.task.abort()).is_some()
    }

    /// Ends connections that kept us waiting for too long.
    fn end_overdue(&self) {
        let now = self.now();
        let is_overdue = |_: &u64, listed: &mut Listed| {
            let connection = &listed.connection;
            let limit = match (connection.phase(), connection.is_blocked()) {
                (_, true) => self.limits.stall,
                (FRESH, false) => self.limits.head,
                (IDLE, false) => self.limits.keep_alive,
                _ => return false,
            };
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            now.saturating_sub(connection.since()) > limit
        };
        // Dropped after the lock is given back: see `make_room`.
        let overdue: Vec<_> = self.state().http.extract_if(is_overdue).collect();
        for (_, listed) in &overdue {
            listed.task.abort();
        }
    }
}

/// Tells a client that there is no room for it. What it says is read to its end, or the system would end
/// the connection before the client has read our answer.
async fn refuse(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let telling = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // It may be gone, or stay: then it was told in vain.
    let _ = timeout(REFUSAL, telling).await;
}

/// Takes a connection off the list when its task is over: it ended, or became a websocket.
struct Unlist {
    table: Arc<Table>,
    serial: u64,
}

impl Drop for Unlist {
    fn drop(&mut self) {
        // Dropped after the lock is given back: see `make_room`.
        let listed = self.table.state().http.remove(&self.serial);
        drop(listed);
    }
}

/// No request yet.
const FRESH: u8 = 0;
/// Between two requests.
const IDLE: u8 = 1;
/// A request is under way.
const BUSY: u8 = 2;

/// One connection, from accept to close.
struct Connection {
    table: Arc<Table>,
    serial: u64,
    address: IpAddr,
    phase: AtomicU8,
    /// Milliseconds of the table's time: when the phase began, or something was sent after that. What
    /// is received does not count, or else a byte now and then would keep a connection for ever.
    since: AtomicU64,
    /// Something is to be sent and the peer does not take it.
    blocked: AtomicBool,
}

impl Connection {
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    fn since(&self) -> u64 {
        self.since.load(Ordering::Acquire)
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    fn enter(&self, phase: u8) {
        self.touch();
        self.phase.store(phase, Ordering::Release);
    }

    fn touch(&self) {
        self.since.store(self.table.now(), Ordering::Release);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.table.state();
        state.open -= 1;
        if let Some(count) = state.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

/// Serves one connection until it ends or becomes a websocket.
async fn speak<I, S>(
    stream: I,
    peer: SocketAddr,
    connection: Arc<Connection>,
    service: S,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let io = TokioIo::new(stream);
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        connection.enter(BUSY);
        let body = Answering(connection.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        // A length beside it may have misled whoever forwarded the request: nothing follows on this
        // connection (RFC 9112, 6.1).
        let ends = request.headers().contains_key(header::TRANSFER_ENCODING);
        let answer = service.clone().oneshot(request);
        async move {
            let mut response = answer.await?;
            if ends {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|inner| AnswerBody {
                inner,
                _answering: body,
            }))
        }
    });
    let serving = http1::Builder::new()
        .max_buf_size(HEAD)
        .header_read_timeout(None)
        .serve_connection(io, answer)
        .with_upgrades();
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// A request under way, until its answer was produced in full.
struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(IDLE);
    }
}

/// An answer's body, which tells when it is over.
struct AnswerBody {
    inner: Body,
    _answering: Answering,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that notes whether its peer takes what it is sent. It carries the connection's place in the
/// count, also after an upgrade.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let connection = &self.connection;
        match written {
            Poll::Pending => {
                if !connection.blocked.swap(true, Ordering::AcqRel) {
                    connection.touch();
                }
            }
            Poll::Ready(_) => {
                connection.blocked.store(false, Ordering::Release);
                connection.touch();
            }
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
