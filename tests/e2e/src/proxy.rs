//! A TCP proxy on a wire that can be hurt: cut, held back, slowed down, refused.
//!
//! A [`Link`] is what is hurt, a [`Proxy`] is where connections come in. A connection may run over several
//! links (an executor's own, then that of the instance it was balanced to) and suffers from each.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// What one direction of a slow link may hold before whoever writes has to wait.
const HELD: usize = 256;
/// A process on this machine accepts at once, or is stopped.
const CONNECT: Duration = Duration::from_secs(30);

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    #[default]
    Whole,
    /// Every connection ends, and each new one at once.
    Cut,
    /// Nothing passes, neither data nor the end of a connection, until it is whole again.
    Silent,
    /// Data arrive late: towards the target, and back.
    Slow {
        /// Towards the target.
        there: Duration,
        /// From the target.
        back: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    condition: Condition,
    /// Connections with a smaller serial are half open for ever.
    deaf_below: u64,
    /// Connections with a smaller serial end.
    severed_below: u64,
}

/// Something that connections run over. Serials of its connections grow.
#[derive(Debug, Default)]
pub struct Link {
    state: watch::Sender<State>,
    serial: AtomicU64,
}

impl Link {
    /// Makes it so for all connections, old and new.
    pub fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        self.state.borrow().condition
    }

    /// Ends all present connections. New ones are fine.
    pub fn sever(&self) {
        let next = self.serial.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.severed_below = next);
    }

    /// Makes all present connections half open: nothing passes on them any more, and an end that closes is
    /// not noticed at the other. New connections are fine.
    pub fn deafen(&self) {
        let next = self.serial.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.deaf_below = next);
    }
}

/// One connection's place on a link.
#[derive(Clone, Debug)]
struct Span {
    state: watch::Receiver<State>,
    serial: u64,
}

impl Span {
    fn on(link: &Link) -> Self {
        Self {
            serial: link.serial.fetch_add(1, Ordering::SeqCst),
            state: link.state.subscribe(),
        }
    }

    fn now(&self) -> (Condition, bool) {
        let state = *self.state.borrow();
        (state.condition, self.serial < state.deaf_below)
    }

    fn delay(&self, there: bool) -> Duration {
        match self.now().0 {
            Condition::Slow { there: late, .. } if there => late,
            Condition::Slow { back, .. } => back,
            _ => Duration::ZERO,
        }
    }

    fn is_clear(&self) -> bool {
        let (condition, deaf) = self.now();
        condition == Condition::Whole && !deaf
    }

    async fn passable(&mut self) {
        let serial = self.serial;
        let passable =
            |state: &State| state.condition != Condition::Silent && serial >= state.deaf_below;
        if self.state.wait_for(passable).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn cut(&mut self) {
        let serial = self.serial;
        let cut = |state: &State| state.condition == Condition::Cut || serial < state.severed_below;
        if self.state.wait_for(cut).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where a new connection goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Who listens there.
    pub target: SocketAddr,
    /// Links besides the proxy's own that lead there.
    pub links: Vec<Arc<Link>>,
}

type Route = dyn Fn() -> Option<Destination> + Send + Sync;

/// A connection that is established from end to end.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Whom it reached.
    pub target: SocketAddr,
    spans: Vec<Span>,
    late: Arc<Late>,
}

/// Until when something is on its way that was read while a link was slow, even if it is whole since.
#[derive(Debug, Default)]
struct Late(Mutex<Option<Instant>>);

impl Late {
    fn until(&self, due: Instant) {
        let mut until = lock(&self.0);
        *until = (*until).max(Some(due));
    }

    fn is_over(&self) -> bool {
        lock(&self.0).is_none_or(|until| until <= Instant::now())
    }
}

impl Wire {
    /// Whether everything passes at once.
    pub fn is_clear(&self) -> bool {
        self.spans.iter().all(Span::is_clear) && self.late.is_over()
    }
}

/// Forwards connections over its own link, and those of where they go.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    refused: watch::Sender<bool>,
    wires: Arc<Mutex<BTreeMap<u64, Wire>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, in front of `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        Self::start_routed(move || {
            Some(Destination {
                target,
                links: Vec::new(),
            })
        })
        .await
    }

    /// Listens on a free port and asks `route` where each new connection goes; without an answer it ends.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start_routed(
        route: impl Fn() -> Option<Destination> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let address = crate::stage::free_address()?;
        let listener = TcpListener::bind(address).await?;
        let link = Arc::new(Link::default());
        let (refused, refusal) = watch::channel(false);
        let wires = Arc::default();
        let gate = Gate {
            link: Arc::clone(&link),
            wires: Arc::clone(&wires),
            route: Arc::new(route),
        };
        let task = tokio::spawn(serve(listener, address, gate, refusal));
        Ok(Self {
            address,
            link,
            refused,
            wires,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own link.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.link.set(Condition::Cut);
    }

    /// Forwards again, and is there again.
    pub fn mend(&self) {
        self.link.set(Condition::Whole);
        self.refuse(false);
    }

    /// Whether nothing listens here any more: new connections are refused, old ones go on.
    pub fn refuse(&self, refused: bool) {
        self.refused.send_replace(refused);
    }

    /// Whether its own link is whole.
    pub fn is_clear(&self) -> bool {
        self.link.condition() == Condition::Whole
    }

    /// Whether new connections are refused.
    pub fn is_refusing(&self) -> bool {
        *self.refused.borrow()
    }

    /// Connections that are established from end to end.
    pub fn wires(&self) -> Vec<Wire> {
        lock(&self.wires).values().cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Gate {
    link: Arc<Link>,
    wires: Arc<Mutex<BTreeMap<u64, Wire>>>,
    route: Arc<Route>,
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
    mut refusal: watch::Receiver<bool>,
) {
    let mut listener = Some(listener);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Some(open) = &listener else {
            if refusal.wait_for(|refused| !refused).await.is_err() {
                return;
            }
            // Nobody else takes a port of this range; what is in the way is a connection of old.
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((inbound, _)) = accepted {
                    connections.spawn(forward(inbound, gate.clone()));
                }
            }
            refused = refusal.wait_for(|refused| *refused) => {
                if refused.is_err() {
                    return;
                }
                drop(refused);
                listener = None;
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(inbound: TcpStream, gate: Gate) {
    let Some(destination) = (gate.route)() else {
        return;
    };
    let mut spans = vec![Span::on(&gate.link)];
    spans.extend(destination.links.iter().map(|link| Span::on(link)));
    let mut alarms = spans.clone();
    let cut = futures_util::future::select_all(
        alarms
            .iter_mut()
            .map(|span| Box::pin(span.cut()) as Pin<Box<dyn Future<Output = ()> + Send>>),
    );
    tokio::select! {
        _ = cut => {}
        () = relay(inbound, destination.target, spans, &gate.wires) => {}
    }
}

/// Takes a wire off the list, however its connection ends.
struct Listed<'a> {
    wires: &'a Mutex<BTreeMap<u64, Wire>>,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(self.wires).remove(&self.number);
    }
}

async fn relay(
    inbound: TcpStream,
    target: SocketAddr,
    spans: Vec<Span>,
    wires: &Mutex<BTreeMap<u64, Wire>>,
) {
    for mut span in spans.clone() {
        span.passable().await;
    }
    let Ok(Ok(outbound)) = timeout(CONNECT, TcpStream::connect(target)).await else {
        return;
    };
    let _ = inbound.set_nodelay(true);
    let _ = outbound.set_nodelay(true);
    let number = spans.first().map_or(0, |span| span.serial);
    let late = Arc::<Late>::default();
    let wire = Wire {
        target,
        spans: spans.clone(),
        late: Arc::clone(&late),
    };
    lock(wires).insert(number, wire);
    let _listed = Listed { wires, number };
    let (from_client, to_client) = inbound.into_split();
    let (from_target, to_target) = outbound.into_split();
    let there = pump(from_client, to_target, spans.clone(), &late, true);
    let back = pump(from_target, to_client, spans, &late, false);
    tokio::join!(there, back);
}

/// One direction: what was read is written when it is due and the links let it pass.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut spans: Vec<Span>,
    held_until: &Late,
    there: bool,
) {
    let (send, mut held) = mpsc::channel::<(Instant, Option<Bytes>)>(HELD);
    let slowness = spans.clone();
    let read = async move {
        loop {
            let mut buffer = BytesMut::with_capacity(16 << 10);
            let data = match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => None,
                Ok(_) => Some(buffer.freeze()),
            };
            let late: Duration = slowness.iter().map(|span| span.delay(there)).sum();
            let ended = data.is_none();
            let due = Instant::now() + late;
            if !late.is_zero() {
                held_until.until(due);
            }
            if send.send((due, data)).await.is_err() || ended {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, data)) = held.recv().await {
            sleep_until(due).await;
            for span in &mut spans {
                span.passable().await;
            }
            let Some(data) = data else { break };
            if to.write_all(&data).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::select! {
        // Nobody takes what is read any more: the reader has nothing left to do.
        () = write => {}
        () = async { read.await; std::future::pending().await } => {}
    }
}
