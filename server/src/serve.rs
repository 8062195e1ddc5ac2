//! Starting and stopping the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::Request;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower::util::MapRequestLayer;

use crate::auth::Auth;
use crate::cluster::{self, Instance, Peers};
use crate::config::{AuthMode, Config};
use crate::http::tls::Tls;
use crate::hub::Hub;
use crate::state::AppState;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::{api, http, operations, policies, recovery};

/// How long requests that are being served may take to end after the order to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// Serves on `listener` until `shutdown` is cancelled: brings the schema up to date, starts recovery
/// and the policies, accepts executors and requests. Then executors are let go (they redial another
/// instance, or this one when it is back) and requests under way are finished.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = config.checked()?;
    let address = listener
        .local_addr()
        .context("the listening socket is unusable")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    let tls = config.tls.clone().map(Tls::load).transpose()?;
    let metrics = Metrics::new()?;
    let store = Store::connect(&config.database_url, metrics.clone()).await?;
    if config.migrate {
        store.migrate().await?;
    } else {
        store.check_schema().await?;
    }
    let (auth, new_admin_key) = Auth::start(&config, &store).await?;
    if let Some(key) = new_admin_key {
        // Standard output, not the log: logs are collected and kept.
        println!(
            "Administrator's API key, shown only this once: {}",
            key.expose()
        );
    }
    warn_of_open_doors(&config, address);

    let hub = Hub::new(config.hub.clone(), metrics.clone());
    let instance = Instance::join(
        store.clone(),
        &config.advertised(address.port()),
        config.recovery.heartbeat_every,
        config.recovery.heartbeat_expiry,
        shutdown.clone(),
    )
    .await?;
    let peers = Peers::find(
        instance.clone(),
        store.clone(),
        config.tls.is_some(),
        shutdown.clone(),
    )
    .await?;
    hub.join(peers.clone());
    let recovery = recovery::start(
        config.recovery.clone(),
        store.clone(),
        hub.clone(),
        metrics.clone(),
        peers.clone(),
        shutdown.clone(),
    )
    .await?;
    let operations = operations::start(store.clone(), hub.clone(), &recovery, shutdown.clone());
    let following = tokio::spawn(cluster::news::follow(
        peers.clone(),
        recovery.clone(),
        operations.clone(),
        shutdown.clone(),
    ));
    let channels = policies::channels::Channels::new(
        config.channels.clone(),
        store.clone(),
        recovery.instance().clone(),
        metrics.clone(),
        policies::channels::Sealer::new(config.encryption_key.clone()),
    )
    .context("cannot set up TLS for the channels of alerts")?;
    let policies = policies::start(
        policies::Context {
            options: config.policies.clone(),
            store: store.clone(),
            hub: hub.clone(),
            instance: recovery.instance().clone(),
            channels: channels.clone(),
            metrics: metrics.clone(),
            started: Instant::now(),
            said: Default::default(),
        },
        shutdown.clone(),
    );
    let streams = config.streams_per_caller;
    let (limits, proxies) = (config.connections.clone(), config.trusted_proxies.clone());
    let state = AppState {
        store: store.clone(),
        hub: hub.clone(),
        peers,
        recovery: recovery.clone(),
        operations: operations.clone(),
        auth,
        config: Arc::new(config),
        metrics: metrics.clone(),
        app_metrics: Default::default(),
        loads: Default::default(),
        channels,
        streams: api::stream::Streams::new(streams),
        shutdown: shutdown.clone(),
    };
    let service = MapRequestLayer::new(http::normalize_path as fn(Request) -> Request)
        .layer(http::router(state)?);
    tracing::info!(%address, "listening");

    let (stop, closing) = (shutdown.clone(), hub.clone());
    let goodbye = async move {
        stop.cancelled().await;
        closing.close_all().await;
    };
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow(shutdown.clone()));
    }
    let server = http::connections::serve(
        listener,
        tls,
        service,
        limits,
        proxies,
        metrics,
        shutdown.clone(),
    );
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let mut displaced = false;
    tokio::select! {
        ((), ()) = async { tokio::join!(server, goodbye) } => {}
        () = instance.displaced() => displaced = true,
        () = overdue => tracing::warn!("some requests did not end in time and were dropped"),
    }
    shutdown.cancel();
    operations.stopped().await;
    recovery.stopped().await;
    policies.await.ok();
    following.await.ok();
    store.close().await;
    if displaced {
        anyhow::bail!(
            "another instance on this database is alive and advertises {} too: give each instance an address of its \
             own at which the others reach it, with --advertise-address (SEGNO_ADVERTISE_ADDRESS)",
            instance.address()
        );
    }
    tracing::info!("stopped");
    Ok(())
}

fn warn_of_open_doors(config: &Config, address: SocketAddr) {
    if config.auth == AuthMode::None && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "no authentication: everybody who reaches this address is an administrator; \
             use --auth keys, or listen on 127.0.0.1"
        );
    }
    let Some(oidc) = &config.oidc else { return };
    if oidc.client_id.is_none() {
        tracing::warn!(
            "SEGNO_OIDC_CLIENT_ID is not set: nobody can log in to the console; API keys and tokens work"
        );
    }
    let issuer = url::Url::parse(&oidc.issuer).ok();
    let local =
        |url: &url::Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if issuer.is_some_and(|url| url.scheme() == "http" && !local(&url)) {
        tracing::warn!(
            issuer = oidc.issuer,
            "the issuer's keys come over plain HTTP: whoever can change them on the way can be anybody; use https"
        );
    }
}
