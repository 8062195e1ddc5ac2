//! Instances of the server as processes of their own, to be killed for good.

use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::server::{ADMIN, Api, SOON};

/// One instance.
pub(crate) struct Instance {
    api: Api,
    child: Child,
}

impl Deref for Instance {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `segno serve` on `address` over a database, advertising `advertised`, with API keys.
fn command(url: &str, address: SocketAddr, advertised: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segno"));
    command
        .args(["serve", "--auth", "keys"])
        .args(["--listen", &address.to_string()])
        .args(["--advertise-address", &advertised.to_string()])
        .env("SEGNO_DATABASE_URL", url)
        .env("SEGNO_ADMIN_KEY", ADMIN)
        .env("RUST_LOG", "segno_server=info,segno_server::access=off")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

impl Instance {
    /// Starts an instance and waits until it is ready.
    pub(crate) async fn start(url: &str) -> Self {
        Self::start_at(url, free_address()).await
    }

    /// Starts an instance on this address and waits until it is ready.
    pub(crate) async fn start_at(url: &str, address: SocketAddr) -> Self {
        let child = command(url, address, address).spawn().unwrap();
        let api = Api::at(address);
        api.ready().await;
        Self { api, child }
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, with SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        ended.expect("the process did not end").unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
}

/// What an instance says that does not stay up: its exit status and its last words. It listens on an
/// address of its own and advertises `advertised`.
pub(crate) async fn failure(url: &str, advertised: SocketAddr) -> (ExitStatus, String) {
    let mut child = command(url, free_address(), advertised)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut errors = child.stderr.take().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        errors.read_to_string(&mut text).await.unwrap();
        child.wait().await.unwrap()
    });
    let status = ended.await.expect("the instance goes on");
    (status, text)
}
