//! The store is away for a while: nobody is judged by it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use segno_server::config::Secret;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fake::{Fake, Reply, Workflows, dial};
use crate::server::{Database, Server, until};

/// A wire to a server that can be cut.
struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Wire {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { address, whole }
    }
}

#[tokio::test]
async fn time_without_the_store_counts_for_nobody() {
    let grace = Duration::from_secs(2);
    let database = Database::postgres().await;
    let url = url::Url::parse(&database.url).unwrap();
    let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let wire = Wire::to(target).await;
    let mut through = url.clone();
    through.set_ip_host(wire.address.ip()).unwrap();
    through.set_port(Some(wire.address.port())).unwrap();
    let server = Server::configured(database, |config| {
        config.database_url = Secret::new(through.to_string());
        config.recovery.heartbeat_every = Duration::from_millis(200);
        config.recovery.heartbeat_expiry = Duration::from_secs(2);
    })
    .await;
    server.app("shop", 2).await;
    let workflows = Workflows::default();
    workflows.running(2, "dies", "v1");
    workflows.running(2, "returns", "v1");
    let survivor = Fake::connect(&server, "shop", "survivor", "v1", &workflows).await;
    let dies = Fake::connect(&server, "shop", "dies", "v1", &workflows).await;
    let returns = Fake::connect(&server, "shop", "returns", "v1", &workflows).await;

    // One dies and one loses its connection while the store is away, for longer than their grace.
    wire.whole.send_replace(false);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    dies.die().await;
    returns.die().await;
    tokio::time::sleep(grace * 2).await;
    assert!(
        survivor.is_open(),
        "a healthy connection outlives the store's absence"
    );
    assert!(survivor.received("recovery").is_empty());
    assert_eq!(
        crate::fake::refused(server.address, "/websocket/shop/any")
            .await
            .0,
        503
    );

    wire.whole.send_replace(true);
    let back = Instant::now();
    let socket = until("the store to be back", async || {
        dial(server.address, "/websocket/shop/any").await.ok()
    })
    .await;
    let _back = Fake::serve(socket, "returns", "v1", "python", &workflows, |_| {
        Reply::Usual
    });
    server.until_recovery("shop", "dies", "RECOVERED").await;
    let taken = workflows.all()["dies-v1-0"].history.clone();
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(
        workflows.all()["dies-v1-0"].since - back >= grace,
        "a full grace after the store's return"
    );
    server
        .until_status("shop", "returns", "v1", Some("HEALTHY"))
        .await;
    assert!(workflows.all()["returns-v1-0"].history == ["returns"]);
    let batches = survivor.received("recovery");
    assert!(
        batches
            .iter()
            .all(|batch| batch["executor_ids"] == serde_json::json!(["dies"])),
        "{batches:?}"
    );
}
