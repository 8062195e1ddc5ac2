//! The connection itself: lanes, losses, rejections, bad frames, shutdown.

use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use segno::conductor::{Conductor, Hooks, Timing};
use segno::system_database::Pool;
use segno_protocol::{
    ExecutorInfo, ListSteps, Recovery, Retention, RetentionLimits, decode_envelope,
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::database_support::{Fixture, strings};
use crate::server::{KEY, PATIENCE, Server, config, eventually, log, quick, spawn};

/// Holds a lock on a table until dropped.
async fn lock(f: &Fixture, table: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let Pool::Postgres(pool) = f.db.pool() else {
        panic!("locks tables on Postgres")
    };
    let mut transaction = pool.begin().await.unwrap();
    let sql = format!(
        "LOCK TABLE {}{table} IN ACCESS EXCLUSIVE MODE",
        f.db.prefix()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
}

fn slow() -> ListSteps {
    ListSteps {
        workflow_id: "any".to_owned(),
        load_output: true,
        limit: None,
        offset: None,
    }
}

#[tokio::test]
async fn slow_listings_do_not_delay_recovery() {
    let f = Fixture::postgres().await;
    f.workflow("lost", "PENDING", &[("executor_id", "'dead'")])
        .await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    let mut peer = server.accept().await;

    let lock = lock(&f, "operation_outputs").await;
    for _ in 0..20 {
        peer.send(&slow()).await;
    }
    assert!(
        peer.get(&Recovery::new(strings(&["dead"])).unwrap())
            .await
            .success
    );
    assert_eq!(f.status("lost", &["status"]).await, "ENQUEUED");
    peer.get(&ExecutorInfo {}).await;
    // Pings are answered meanwhile, too.
    peer.socket
        .send(Message::Ping(Bytes::from_static(b"now")))
        .await
        .unwrap();
    loop {
        if let Message::Pong(payload) = timeout(PATIENCE, peer.socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            && payload == "now"
        {
            break;
        }
    }

    lock.rollback().await.unwrap();
    for _ in 0..20 {
        assert_eq!(
            decode_envelope(&peer.text().await).unwrap().error_message,
            None
        );
    }
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

/// A process whose database hangs is still there: a server that cannot learn who it is takes it for dead.
#[tokio::test]
async fn it_introduces_itself_while_the_database_hangs() {
    let f = Fixture::postgres().await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    let mut peer = server.accept().await;
    peer.get(&ExecutorInfo {}).await;
    let lock = lock(&f, "workflow_status").await;
    // The server offers again and again what is not taken.
    for _ in 0..20 {
        peer.send(&Recovery::new(strings(&["dead"])).unwrap()).await;
        peer.send(&slow()).await;
    }
    drop(peer);
    let mut peer = server.accept().await;
    peer.get(&ExecutorInfo {}).await;
    lock.rollback().await.unwrap();
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

#[tokio::test]
async fn shutdown_answers_what_it_was_asked_before() {
    let f = Fixture::postgres().await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    let mut peer = server.accept().await;
    let lock = lock(&f, "operation_outputs").await;
    peer.send(&slow()).await;
    peer.get(&ExecutorInfo {}).await;

    let shutdown = tokio::spawn(client.shutdown());
    lock.rollback().await.unwrap();
    assert_eq!(
        decode_envelope(&peer.text().await)
            .unwrap()
            .r#type
            .as_deref(),
        Some("list_steps")
    );
    let goodbye = loop {
        match timeout(PATIENCE, peer.socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Close(frame) => break frame.unwrap(),
            Message::Ping(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(u16::from(goodbye.code), segno_protocol::CLOSE_LEFT);
    let _ = peer.socket.next().await;
    shutdown.await.unwrap();
    f.drop().await;
}

#[tokio::test]
async fn retention_runs_in_the_background_one_round_at_a_time() {
    let f = Fixture::postgres().await;
    f.workflow("old", "SUCCESS", &[("completed_at", "100")])
        .await;
    f.workflow("older", "PENDING", &[("created_at", "100")])
        .await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    let mut peer = server.accept().await;
    let limits = |rows| Retention {
        body: RetentionLimits {
            gc_cutoff_epoch_ms: Some(200),
            gc_rows_threshold: rows,
            timeout_cutoff_epoch_ms: Some(200),
            gc_batch_size: None,
        },
    };
    assert!(
        peer.refused(&limits(Some(0)))
            .await
            .contains("gc_rows_threshold")
    );

    let lock = lock(&f, "workflow_status").await;
    for _ in 0..20 {
        assert!(
            peer.get(&limits(None)).await.success,
            "answered although the round waits"
        );
    }
    lock.rollback().await.unwrap();
    eventually(async || f.status("older", &["status"]).await == "CANCELLED").await;
    assert_eq!(f.status("old", &["status"]).await, "");
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

#[tokio::test]
async fn bad_frames_are_answered_where_possible_and_end_nothing() {
    let f = Fixture::sqlite().await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    let mut peer = server.accept().await;

    let deep = "[".repeat(100_000);
    for silent in [
        "",
        "not json",
        "[]",
        "3",
        "null",
        "{}",
        "{\"type\":\"cancel\"}",
        deep.as_str(),
    ] {
        peer.socket.send(Message::text(silent)).await.unwrap();
    }
    peer.socket
        .send(Message::binary(vec![0, 159, 146, 150]))
        .await
        .unwrap();
    for (bad, reason) in [
        (
            "{\"type\":\"brew_coffee\",\"request_id\":\"x\"}",
            "Unknown message type",
        ),
        ("{\"type\":\"list_workflows\",\"request_id\":\"x\"}", "body"),
        (
            "{\"type\":\"get_workflow\",\"request_id\":\"x\",\"workflow_id\":7}",
            "invalid type",
        ),
        (
            "{\"type\":\"get_metrics\",\"request_id\":\"x\",\"start_time\":\"soon\",\"end_time\":\"\",\"metric_class\":\"\"}",
            "ISO 8601",
        ),
        (
            "{\"type\":\"fork_workflow\",\"request_id\":\"x\",\"body\":{\"workflow_id\":\"w\",\"start_step\":-1}}",
            "-1",
        ),
    ] {
        peer.socket.send(Message::text(bad)).await.unwrap();
        let text = peer.text().await;
        let envelope = decode_envelope(&text).unwrap();
        assert_eq!(envelope.request_id, "x");
        assert!(
            bad.contains(&format!("{:?}", envelope.r#type.unwrap())),
            "{text}"
        );
        assert!(envelope.error_message.unwrap().contains(reason), "{text}");
    }
    // Filters as older servers send them.
    let lenient = "{\"type\":\"list_workflows\",\"request_id\":\"y\",\"new\":1,\"body\":{\"status\":\"PENDING\",\"workflow_name\":null,\
                   \"workflow_uuids\":[],\"start_time\":\"2026-01-02T03:04:05Z\",\"limit\":0}}";
    peer.socket.send(Message::text(lenient)).await.unwrap();
    assert!(!peer.text().await.contains("error_message"));
    peer.get(&ExecutorInfo {}).await;
    assert!(
        server.listener.accept().now_or_never().is_none(),
        "it is still the first connection"
    );
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

#[tokio::test]
async fn it_returns_after_every_kind_of_loss() {
    let f = Fixture::sqlite().await;
    let server = Server::start().await;
    let timing = Timing {
        silence: Duration::from_millis(400),
        ..quick()
    };
    let client =
        Conductor::spawn_with(config(&server), f.db.clone(), Hooks::default(), timing).unwrap();
    let connected = client.connected();

    let mut peer = server.accept().await;
    peer.get(&ExecutorInfo {}).await;
    drop(peer); // TCP goes away without a close frame
    let mut peer = server.accept().await;
    peer.get(&ExecutorInfo {}).await;
    peer.socket.close(None).await.unwrap();
    let _ = peer.socket.next().await;
    drop(peer);
    drop(server.tcp().await); // hangs up during the handshake
    let mut silent = server.accept().await; // answers no ping, since nobody reads
    silent.get(&ExecutorInfo {}).await;
    connected
        .clone()
        .wait_for(|connected| *connected)
        .await
        .unwrap();
    let mut peer = server.accept().await;
    assert!(
        !*connected.borrow(),
        "unknown until it has introduced itself again"
    );
    peer.get(&ExecutorInfo {}).await;

    // Alive as long as pings are answered, well past the limit.
    let watch = async { while let Some(Ok(_)) = peer.socket.next().await {} };
    assert!(
        timeout(Duration::from_millis(1200), watch).await.is_err(),
        "the connection was given up"
    );
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

#[tokio::test]
async fn rejections_are_retried_and_logged_rarely_without_the_key() {
    let f = Fixture::sqlite().await;
    let server = Server::start().await;
    let client = spawn(&server, &f, Hooks::default());
    for _ in 0..3 {
        server
            .reject("401 Unauthorized", "", b"\xff\xfe no such key")
            .await;
    }
    server.reject("404 Not Found", "", b"").await;
    let mut peer = server.accept().await;
    peer.get(&ExecutorInfo {}).await;
    drop(peer);
    server
        .reject("503 Service Unavailable", "Retry-After: 1\r\n", b"draining")
        .await;
    let asked = Instant::now();
    let mut peer = server.accept().await;
    assert!(
        asked.elapsed() > Duration::from_millis(900),
        "Retry-After is honoured"
    );

    let log = log();
    let lines = |status: &str| {
        log.lines()
            .filter(|l| {
                l.contains(&server.address)
                    && l.contains("refuses this application")
                    && l.contains(status)
            })
            .count()
    };
    assert_eq!(
        (lines("HTTP status 401"), lines("HTTP status 404")),
        (1, 1),
        "once a minute"
    );
    let verbose = log.contains("TRACE") && log.contains("tungstenite");
    assert!(
        verbose,
        "the log is at its most verbose, libraries included"
    );
    assert!(
        !log.contains(KEY),
        "the key was logged: {:?}",
        log.lines().find(|line| line.contains(KEY))
    );
    tokio::join!(client.shutdown(), async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    f.drop().await;
}

#[tokio::test]
async fn it_stops_at_once_while_nobody_answers() {
    let f = Fixture::sqlite().await;
    let server = Server::start().await;
    let mut unreachable = config(&server);
    unreachable.url = "ws://127.0.0.1:1".to_owned();
    let client = Conductor::spawn(unreachable, f.db.clone(), Hooks::default()).unwrap();
    timeout(Duration::from_secs(5), client.shutdown())
        .await
        .unwrap();

    // A server that accepts the connection and says nothing.
    let client = spawn(&server, &f, Hooks::default());
    let _silent = server.tcp().await;
    timeout(Duration::from_secs(5), client.shutdown())
        .await
        .unwrap();
    f.drop().await;
}
