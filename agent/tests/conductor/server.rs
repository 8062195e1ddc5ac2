//! The server's end: accepts or rejects executors, asks them, reads what they log.
#![allow(unreachable_pub)]

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use segno::conductor::{Conductor, ConductorConfig, ConductorHandle, Hooks, Timing};
use segno_protocol::{
    Message as ProtocolMessage, Reply, decode_envelope, decode_response, encode_request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Handshake, Response};

use crate::database_support::Fixture;

pub const KEY: &str = "segno-test-key-that-no-log-may-show";

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that is logged while the tests run, by libraries too, at the most verbose level.
pub static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    #[derive(Clone)]
    struct Writer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Writer(Arc::clone(&log));
    tracing_subscriber::fmt()
        .with_env_filter("trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    log
});

pub fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

pub struct Server {
    pub listener: TcpListener,
    pub address: String,
}

impl Server {
    pub async fn start() -> Self {
        LazyLock::force(&LOG);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    pub async fn tcp(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept())
            .await
            .expect("nobody dialled")
            .unwrap()
            .0
    }

    pub async fn accept(&self) -> Peer {
        let mut path = String::new();
        let note = |request: &Handshake, response: Response| {
            path = request.uri().path().to_owned();
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(self.tcp().await, note)
            .await
            .unwrap();
        Peer {
            socket,
            path,
            asked: 0,
            types: Vec::new(),
        }
    }

    /// Answers one handshake with a status.
    pub async fn reject(&self, status: &str, headers: &str, body: &[u8]) {
        let mut tcp = self.tcp().await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        tcp.write_all(answer.as_bytes()).await.unwrap();
        tcp.write_all(body).await.unwrap();
        tcp.shutdown().await.unwrap();
    }
}

/// An executor, seen from the server.
pub struct Peer {
    pub socket: WebSocketStream<TcpStream>,
    pub path: String,
    pub asked: usize,
    pub types: Vec<&'static str>,
}

impl Peer {
    pub async fn send<M: ProtocolMessage>(&mut self, message: &M) -> String {
        self.asked += 1;
        self.types.push(M::TYPE);
        let id = format!("r{}", self.asked);
        self.socket
            .send(Message::text(encode_request(&id, message)))
            .await
            .unwrap();
        id
    }

    pub async fn ask<M: ProtocolMessage>(&mut self, message: &M) -> Reply<M::Response> {
        let id = self.send(message).await;
        let text = self.text().await;
        let envelope = decode_envelope(&text).unwrap();
        assert_eq!(
            (envelope.r#type.as_deref(), envelope.request_id.as_str()),
            (Some(M::TYPE), id.as_str())
        );
        decode_response::<M>(&text).unwrap()
    }

    /// Asks something that must work.
    pub async fn get<M: ProtocolMessage>(&mut self, message: &M) -> M::Response {
        let reply = self.ask(message).await;
        assert_eq!(reply.error_message, None, "{}", M::TYPE);
        reply.body.unwrap()
    }

    /// Asks something that must fail; returns the reason.
    pub async fn refused<M: ProtocolMessage>(&mut self, message: &M) -> String {
        let reason = self.ask(message).await.error_message.expect(M::TYPE);
        assert!(!reason.contains('\n'), "one line: {reason}");
        reason
    }

    pub async fn text(&mut self) -> String {
        loop {
            match timeout(PATIENCE, self.socket.next())
                .await
                .expect("no answer")
                .unwrap()
                .unwrap()
            {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

pub fn config(server: &Server) -> ConductorConfig {
    ConductorConfig {
        url: format!("ws://{}/conductor/v1alpha1/", server.address),
        key: KEY.to_owned(),
        app_name: "shop".to_owned(),
        executor_id: "exec-1".to_owned(),
        app_version: "v1".to_owned(),
        metadata: Some(serde_json::from_str("{\"zone\": \"b\"}").unwrap()),
    }
}

pub fn quick() -> Timing {
    Timing {
        handshake: Duration::from_secs(5),
        ping: Duration::from_millis(100),
        silence: Duration::from_secs(10),
        retry_first: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
        ..Timing::default()
    }
}

pub fn spawn(server: &Server, f: &Fixture, hooks: Hooks) -> ConductorHandle {
    Conductor::spawn_with(config(server), f.db.clone(), hooks, quick()).unwrap()
}

pub async fn eventually(condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "it did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
