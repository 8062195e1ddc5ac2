//! Hostile input below the protocol: sockets that say nothing, heads that never end, requests that mean
//! two things. None of it may disturb a connected executor or a caller.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use segno_server::config::AuthMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::fake::{Fake, Reply, Workflows, refused};
use crate::server::{ADMIN, Database, SOON, Server, until};

/// Half-open sockets thrown at the server.
const FLOOD: usize = 10_000;
/// Connections it may have meanwhile.
const ROOM: usize = 1_000;

async fn open(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// A connection from another address of this machine.
async fn open_from(source: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// Everything the server says until it ends the connection.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // Closed with something unread shows as a reset.
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// What the server says to these bytes. If they are a request of HTTP/1.1, they ask for the end of the
/// connection themselves, or deserve it.
async fn say(server: &Server, bytes: &str) -> String {
    let mut stream = open(server.address).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    until_closed(&mut stream).await
}

/// The statuses of all answers in there.
fn statuses(answer: &str) -> Vec<u16> {
    answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|rest| rest[..3].parse().unwrap())
        .collect()
}

async fn with_executor(server: &Server) -> Fake {
    server.app("shop", 60).await;
    Fake::connect(server, "shop", "e1", "v1", &Workflows::default()).await
}

async fn undisturbed(server: &Server, executor: &Fake) {
    assert!(executor.is_open());
    server.get("/apps/shop/workflows").await;
    let status = server.status_of("shop", "e1", "v1").await;
    assert_eq!(status.as_deref(), Some("HEALTHY"));
}

#[tokio::test]
async fn heads_that_do_not_end_are_cut_off() {
    let head = Duration::from_millis(1500);
    let server = Server::configured(Database::sqlite(), |config| {
        config.connections.head = head;
    })
    .await;
    let executor = with_executor(&server).await;
    let began = Instant::now();
    let mut silent = open(server.address).await;
    let mut half = open(server.address).await;
    half.write_all(b"GET /healthz HTT").await.unwrap();
    let mut nearly = open(server.address).await;
    nearly
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = open(server.address).await.into_split();
    // A byte now and then is no progress.
    let trickle = tokio::spawn(async move {
        write
            .write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            .await
            .unwrap();
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for stream in [&mut silent, &mut half, &mut nearly] {
        assert_eq!(until_closed(stream).await, "");
    }
    let mut rest = Vec::new();
    let _ = timeout(SOON, read.read_to_end(&mut rest)).await.unwrap();
    assert!(began.elapsed() >= head, "{:?}", began.elapsed());
    drop(read);
    timeout(SOON, trickle).await.unwrap().unwrap();
    undisturbed(&server, &executor).await;
}

#[tokio::test]
async fn a_connection_between_two_requests_may_rest_for_longer() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.connections.head = Duration::from_millis(100);
        config.connections.keep_alive = Duration::from_secs(2);
    })
    .await;
    let mut stream = open(server.address).await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        let count = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            buffer[..count].starts_with(b"HTTP/1.1 200"),
            "{count} bytes"
        );
        // Longer than a first head may take, and than the server takes to look.
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(until_closed(&mut stream).await, "");
}

/// 10,000 sockets that are opened and say nothing, or half a line. The server has room for a tenth, so
/// that this process, which holds both ends, stays below the usual limit of 20,000 files.
#[tokio::test]
async fn a_flood_of_half_open_sockets_disturbs_nobody() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.connections.max = Some(ROOM);
    })
    .await;
    let executor = with_executor(&server).await;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Other tests of this process need files, too.
    let room = usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(ROOM + 2_000);
    let flood = FLOOD.min(room);
    if flood < FLOOD {
        println!("only {flood} sockets of {FLOOD}: {files} files are allowed");
    }
    assert!(flood > ROOM, "{files} files are too few for this test");

    let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, 77));
    let mut sockets = Vec::with_capacity(flood);
    for number in 0..flood {
        let Ok(mut socket) = open_from(source, server.address).await else {
            continue;
        };
        if number % 2 == 0 {
            // The server may have ended it by now.
            let _ = socket.write_all(b"GET /heal").await;
        }
        sockets.push(socket);
        if number % 1000 == 0 {
            undisturbed(&server, &executor).await;
        }
    }
    assert!(
        sockets.len() > flood * 9 / 10,
        "only {} sockets",
        sockets.len()
    );
    // A caller who comes now gets a connection and an answer.
    let fresh = say(
        &server,
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&fresh.await), [200]);
    // So does an executor.
    let late = Fake::connect(&server, "shop", "late", "v1", &Workflows::default()).await;
    assert!(late.is_open());
    undisturbed(&server, &executor).await;
    assert!(server.recoveries("shop").await.is_empty());
}

#[tokio::test]
async fn one_address_cannot_take_all_the_room() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.connections.max_per_address = Some(6);
    })
    .await;
    server.app("shop", 60).await;
    let (mut executors, workflows) = (Vec::new(), Workflows::default());
    for number in 0..6 {
        let id = format!("e{number}");
        // There was the caller's connection, too; it yields, for it rests between two requests.
        let fake = Fake::odd(&server, "shop", &id, "v1", &workflows, |_| Reply::Usual);
        executors.push(fake.await);
    }
    // Websockets never yield: here is no room any more.
    let (status, body) = refused(server.address, "/websocket/shop/any").await;
    assert_eq!(status, 503, "{body}");
    let elsewhere = IpAddr::from(Ipv4Addr::new(127, 0, 0, 78));
    let mut caller = open_from(elsewhere, server.address).await.unwrap();
    let request =
        "GET /v2/orgs/local/apps/shop/executors HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    caller.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(statuses(&until_closed(&mut caller).await), [200]);
    // Somebody leaves: there is room again.
    executors.pop().unwrap().die().await;
    until("room for a caller", async || {
        let mut again = open(server.address).await;
        again.write_all(request.as_bytes()).await.ok()?;
        (statuses(&until_closed(&mut again).await) == [200]).then_some(())
    })
    .await;
    assert!(executors.iter().all(Fake::is_open));
}

#[tokio::test]
async fn what_is_no_websocket_handshake_gets_an_answer_that_says_so() {
    let server = Server::start(Database::sqlite()).await;
    let executor = with_executor(&server).await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for (what, status, first, headers) in [
        (
            "nothing asked",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            String::new(),
        ),
        (
            "no version",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            format!("{upgrade}{key}"),
        ),
        (
            "an old version",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n"),
        ),
        (
            "no key",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            format!("{upgrade}{version}"),
        ),
        (
            "another protocol",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{key}{version}"),
        ),
        (
            "no Connection: Upgrade",
            426,
            "GET /websocket/shop/any HTTP/1.1",
            format!("Connection: keep-alive\r\nUpgrade: websocket\r\n{key}{version}"),
        ),
        (
            "a POST",
            405,
            "POST /websocket/shop/any HTTP/1.1",
            format!("{upgrade}{key}{version}"),
        ),
        (
            "HTTP/1.0",
            426,
            "GET /websocket/shop/any HTTP/1.0",
            format!("{upgrade}{key}{version}"),
        ),
        (
            "an unknown application",
            404,
            "GET /websocket/nobody/any HTTP/1.1",
            format!("{upgrade}{key}{version}"),
        ),
    ] {
        let mut stream = open(server.address).await;
        let request = format!("{first}\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let count = timeout(SOON, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).to_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status}"))
                || answer.starts_with(&format!("http/1.0 {status}")),
            "{what}: {answer}"
        );
        assert!(answer.contains("content-length: "), "{what}: {answer}");
        if status == 426 {
            assert!(answer.contains("upgrade: websocket"), "{what}: {answer}");
        }
    }
    undisturbed(&server, &executor).await;
}

/// Two readers of one request must not see two different requests in it.
#[tokio::test]
async fn a_request_with_two_meanings_is_refused_or_is_the_last() {
    let server = Server::start(Database::sqlite()).await;
    let executor = with_executor(&server).await;
    let post = "POST /v2/orgs/local/apps/shop/workflows/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for bad in [
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "Content-Length: 2, 3\r\n\r\n{}",
        "Content-Length: +2\r\n\r\n{}",
        "Content-Length: 0x2\r\n\r\n{}",
        "Content-Length: -2\r\n\r\n{}",
        "Content-Length: 18446744073709551618\r\n\r\n{}",
        "Content-Length:\r\n 2\r\n\r\n{}",
        "Content-Length : 2\r\n\r\n{}",
        "X: y\r\n Content-Length: 2\r\n\r\n{}",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nZ\r\n{}\r\n0\r\n\r\n",
    ] {
        let answer = say(&server, &format!("{post}{bad}{smuggled}")).await;
        assert_eq!(statuses(&answer), [400], "{bad:?}: {answer}");
    }
    // Length and chunks together: the chunks count, and nothing after them does.
    for both in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let answer = say(
            &server,
            &format!("{post}{both}2\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        )
        .await;
        assert_eq!(statuses(&answer), [200], "{both:?}: {answer}");
    }
    undisturbed(&server, &executor).await;
}

#[tokio::test]
async fn heads_have_a_size() {
    let server = Server::start(Database::sqlite()).await;
    let executor = with_executor(&server).await;
    let long = "x".repeat(200_000);
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    for (what, request, expected) in [
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
            &[431, 400][..],
        ),
        (
            "many headers",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
            &[431],
        ),
        (
            "a long target",
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            &[414, 431],
        ),
        (
            "a long method",
            format!("{long} / HTTP/1.1\r\nHost: x\r\n\r\n"),
            &[400, 431],
        ),
        (
            "a NUL",
            "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "another version",
            "GET / HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "TLS",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
            &[400],
        ),
    ] {
        let mut stream = open(server.address).await;
        // The server may have had enough before all of it was sent; then its answer may be lost.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = until_closed(&mut stream).await;
        let lost = request.len() > 100_000 && answer.is_empty();
        assert!(
            lost || statuses(&answer)
                .iter()
                .all(|status| expected.contains(status))
                && !answer.is_empty(),
            "{what}: {answer}"
        );
    }
    undisturbed(&server, &executor).await;
}

#[tokio::test]
async fn garbage_after_a_request_ends_the_connection_after_its_answer() {
    let server = Server::start(Database::sqlite()).await;
    let executor = with_executor(&server).await;
    let good = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = say(
        &server,
        &format!("{good}{good}\u{1}\u{2} garbage\r\n\r\n{good}"),
    )
    .await;
    assert_eq!(statuses(&answer), [200, 200, 400], "{answer}");
    undisturbed(&server, &executor).await;
}

#[tokio::test]
async fn a_body_that_trickles_or_stops_is_not_waited_for() {
    let server = Server::start(Database::sqlite()).await;
    let executor = with_executor(&server).await;
    let head = "POST /v2/orgs/local/apps/shop/workflows/search HTTP/1.1\r\nHost: x\r\n\
        Content-Type: application/json\r\n";
    let mut stopped = open(server.address).await;
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\nff\r\n{{");
    stopped.write_all(chunked.as_bytes()).await.unwrap();
    let (mut read, mut write) = open(server.address).await.into_split();
    let request = format!("{head}Content-Length: 5000\r\n\r\n");
    write.write_all(request.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    undisturbed(&server, &executor).await;
    let mut answer = vec![0; 4096];
    let count = timeout(SOON, stopped.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&answer[..count]);
    assert_eq!(statuses(&text), [408], "{text}");
    let count = timeout(SOON, read.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&answer[..count]);
    assert_eq!(statuses(&text), [408], "{text}");
    drop(read);
    trickle.abort();
    undisturbed(&server, &executor).await;
}

/// Nobody becomes somebody else, or comes from elsewhere, by saying so in a header.
#[tokio::test]
async fn headers_of_proxies_and_of_ours_are_not_believed() {
    let server = Server::configured(Database::sqlite(), |config| {
        config.auth = AuthMode::Keys;
    })
    .await;
    let forged = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n\
        X-Forwarded-User: admin\r\nX-Segno-User: admin\r\nX-Segno-Internal: 1\r\nX-Segno-Forwarded-By: peer\r\n\
        X-Original-URL: /healthz\r\nX-HTTP-Method-Override: GET\r\n";
    let without_key =
        format!("GET /v2/orgs/local/apps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{forged}\r\n");
    assert_eq!(statuses(&say(&server, &without_key).await), [401]);
    let with_key = format!(
        "PUT /v2/orgs/local/apps/shop HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {ADMIN}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n{forged}\r\n{{}}"
    );
    assert_eq!(statuses(&say(&server, &with_key).await), [204]);
    let log = server.get("/audit-logs").await.to_string();
    assert!(log.contains("127.0.0.1"), "{log}");
    assert!(!log.contains("203.0.113.9"), "{log}");
}
