//! A shop whose checkout survives the death of the process it runs in.
//!
//! ```sh
//! checkout --rate 2                      # alone, on ./checkout.db
//! segno dev --app checkout -- checkout   # three of them with a control plane
//! ```

mod load;
mod shop;
mod stock;
mod workflow;

use std::time::Duration;

use clap::Parser;
use segno::{Db, Segno};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use crate::load::Load;
use crate::shop::{Shop, World};

/// The control plane, the executor's id and the application's version are read from SEGNO_CONDUCTOR_URL,
/// SEGNO_CONDUCTOR_KEY, SEGNO_EXECUTOR_ID and SEGNO_APP_VERSION.
#[derive(Debug, Parser)]
struct Args {
    /// Name under which the application is registered
    #[arg(long, env = "SEGNO_APP_NAME", default_value = "checkout")]
    app_name: String,

    /// postgres://… or sqlite://…, for the engine's tables and the shop's
    #[arg(
        long,
        env = "SEGNO_SYSTEM_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://checkout.db"
    )]
    database_url: String,

    /// Version of this code, instead of a hash over the workflows
    #[arg(long)]
    app_version: Option<String>,

    /// New checkouts a second
    #[arg(long, env = "CHECKOUT_RATE", default_value_t = 2.0)]
    rate: f64,

    /// Checkouts started at once, before the stream
    #[arg(long, env = "CHECKOUT_FIRST", default_value_t = 0)]
    first: u32,

    /// Checkouts of this process that may be open at a time
    #[arg(long, env = "CHECKOUT_OPEN", default_value_t = 100)]
    open: usize,

    /// How long a step works, in milliseconds
    #[arg(long, env = "CHECKOUT_STEP_MS", default_value_t = 900)]
    step_ms: u64,

    /// Share of requests that the payment gateway fails
    #[arg(long, env = "CHECKOUT_FLAKINESS", default_value_t = 0.25)]
    flakiness: f64,

    /// Share of customers whose card is declined
    #[arg(long, env = "CHECKOUT_DECLINED", default_value_t = 0.02)]
    declined: f64,

    /// When stock is taken, as a cron expression such as `0 * * * *`; never without it
    #[arg(long, env = "CHECKOUT_STOCK_TAKES")]
    stock_takes: Option<String>,

    /// Beginning of the carts' ids [default: random]
    #[arg(long)]
    prefix: Option<String>,

    /// Seconds that running checkouts may take to finish on shutdown; the rest is handed back
    #[arg(long, env = "CHECKOUT_DRAIN_SECS", default_value_t = 5)]
    drain_secs: u64,
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .init();
    let args = Args::parse();

    let db = Db::connect(&args.database_url).await?;
    let world = World {
        step: Duration::from_millis(args.step_ms),
        flakiness: args.flakiness,
    };
    let shop = Shop::open(db.clone(), world).await?;
    let mut builder = Segno::named(args.app_name)
        .database(&db)
        .state(shop)
        .workflows(segno::workflows![workflow::checkout]);
    if let Some(version) = args.app_version {
        builder = builder.app_version(version);
    }
    if let Some(cron) = &args.stock_takes {
        builder = builder
            .workflows(segno::workflows![stock::take_stock, stock::count_shelf])
            .queue(stock::queue())
            .schedule(stock::schedule(cron));
    }
    let app = builder.launch().await?;
    tracing::info!(
        executor_id = app.executor_id(),
        version = app.app_version(),
        "the shop is open"
    );

    let load = Load {
        rate: args.rate,
        first: args.first,
        declined: args.declined,
        open: args.open,
        prefix: args
            .prefix
            .unwrap_or_else(|| format!("cart-{}", &Uuid::new_v4().to_string()[..8])),
    };
    let customers = tokio::spawn(load.run(app.clone(), db));
    asked_to_stop().await?;
    customers.abort();
    tracing::info!("closing: open checkouts finish here or are handed back");
    app.shutdown(Duration::from_secs(args.drain_secs)).await
}

/// Ctrl-C, or SIGTERM from whoever runs us.
async fn asked_to_stop() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
