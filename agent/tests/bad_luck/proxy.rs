//! A proxy before Postgres that delivers what it is sent, and cuts the connection before the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// In the parameters of what a test wants to lose the answer to.
pub const MARK: &str = "cut-the-answer";

#[derive(Default)]
struct Plan {
    /// Text in a message whose answer is lost, every third time.
    mark: Mutex<Option<String>>,
    seen: AtomicUsize,
    cuts: AtomicUsize,
    /// Every connection is ended, and each new one as soon as it is made.
    hung_up: watch::Sender<bool>,
    hung_up_on: AtomicUsize,
}

pub struct Proxy {
    /// The database through the proxy.
    pub url: String,
    plan: Arc<Plan>,
}

impl Proxy {
    pub async fn before(url: &str) -> Self {
        let upstream = url::Url::parse(url).unwrap();
        let host = upstream.host_str().unwrap_or("127.0.0.1").to_owned();
        let to = (host, upstream.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut through = upstream;
        through.set_host(Some("127.0.0.1")).unwrap();
        through
            .set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let plan = Arc::<Plan>::default();
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.hung_up.borrow() {
                    shared.hung_up_on.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let server = TcpStream::connect((to.0.as_str(), to.1)).await.unwrap();
                let shared = shared.clone();
                tokio::spawn(async move {
                    let mut hung_up = shared.hung_up.subscribe();
                    tokio::select! {
                        () = pass(client, server, shared.clone()) => {}
                        _ = hung_up.wait_for(|hung_up| *hung_up) => {}
                    }
                });
            }
        });
        Self {
            url: through.to_string(),
            plan,
        }
    }

    pub fn cut_answers_to(&self, mark: &str) {
        *self.plan.mark.lock().unwrap() = Some(mark.to_owned());
    }

    pub fn heal(&self) {
        *self.plan.mark.lock().unwrap() = None;
    }

    pub fn hang_up(&self, hung_up: bool) {
        self.plan.hung_up.send_replace(hung_up);
    }

    /// Connections that were made and ended at once.
    pub fn hung_up_on(&self) -> usize {
        self.plan.hung_up_on.load(Ordering::Relaxed)
    }

    pub fn cuts(&self) -> usize {
        self.plan.cuts.load(Ordering::Relaxed)
    }
}

impl Plan {
    /// Whether the answer to this is to be lost.
    fn dooms(&self, message: &[u8]) -> bool {
        let mark = self.mark.lock().unwrap().clone();
        let Some(mark) = mark else { return false };
        let marked = message
            .windows(mark.len())
            .any(|window| window == mark.as_bytes());
        marked && self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, plan: Arc<Plan>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut doomed = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    doomed |= plan.dooms(&asked[..read]);
                    if server.write_all(&asked[..read]).await.is_err() {
                        return;
                    }
                }
            },
            read = server.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                // It was done, and nobody learns of it.
                Ok(_) if doomed => {
                    plan.cuts.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(read) => {
                    if client.write_all(&answered[..read]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}
