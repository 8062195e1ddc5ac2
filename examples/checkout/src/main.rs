//! A shop whose checkout survives the death of the process it runs in.
//!
//! ```sh
//! checkout --rate 2                      # alone, on ./checkout.db
//! checkout --rate 0 --listen 127.0.0.1:8000
//! curl -X PUT http://127.0.0.1:8000/carts/cart-1 -H content-type:application/json \
//!   -d '{"sku": "kettle", "quantity": 1, "cents": 4900, "card": "4242 4242 4242 4242", "email": "ada@example.com"}'
//! curl http://127.0.0.1:8000/carts/cart-1
//! segno dev --app checkout -- checkout   # three of them with a control plane
//! ```

mod front;
mod load;
mod shop;
mod stock;
mod workflow;

use std::future::IntoFuture as _;
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

    /// Where the shop's front listens, such as `127.0.0.1:8000`; it has none without it
    #[arg(long, env = "CHECKOUT_LISTEN")]
    listen: Option<String>,

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
    if let Some(listen) = args.listen {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        tracing::info!("the front is at http://{}", listener.local_addr()?);
        let front = front::Front {
            app: app.clone(),
            db: db.clone(),
        };
        tokio::spawn(axum::serve(listener, front::routes(front)).into_future());
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use segno::{Builder, Scheduled, testing};

    use super::*;
    use crate::shop::BAD_CARD;
    use crate::workflow::{Order, checkout};

    /// The whole application on a test's database, in a world without delays.
    pub(crate) async fn shop(db: Db) -> segno::Result<Builder<Shop>> {
        let world = World {
            step: Duration::ZERO,
            flakiness: 0.0,
        };
        let shop = Shop::open(db.clone(), world).await?;
        let app = Segno::named("checkout").database(&db).state(shop);
        let app = app.workflows(segno::workflows![
            checkout,
            stock::take_stock,
            stock::count_shelf
        ]);
        Ok(app.queue(stock::queue()))
    }

    pub(crate) fn order(card: &str) -> Order {
        Order {
            sku: "kettle".into(),
            quantity: 2,
            cents: 4900,
            card: card.into(),
            email: "ada@example.com".into(),
        }
    }

    /// What the shop's tables say after each run: one charge and one order, or neither, and the stock to match.
    async fn sold(app: Segno, pieces: i64) -> segno::Result<()> {
        let counts = app.db().transaction(|tx| {
            Box::pin(async {
                let count = "SELECT (SELECT COUNT(*) FROM charges), (SELECT COUNT(*) FROM orders), \
                             (SELECT CAST(-COALESCE(SUM(available), 0) AS BIGINT) FROM stock)";
                Ok(tx.query(count).fetch_one::<(i64, i64, i64)>().await?)
            })
        });
        let bought = i64::from(pieces > 0);
        match counts.await? {
            found if found == (bought, bought, pieces) => Ok(()),
            found => Err(segno::Error::message(format!(
                "charges, orders, pieces: {found:?}"
            ))),
        }
    }

    #[tokio::test]
    async fn a_checkout_survives_every_crash() {
        let trials = || {
            let trials = testing::crash_everywhere_with(shop, checkout, order("4242"));
            trials.any_result().check(|app, _| sold(app, 2))
        };
        assert_eq!(trials().await.unwrap().order_id, 1);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert_eq!(trials().on_postgres(postgres).await.unwrap().order_id, 1);
    }

    #[tokio::test]
    async fn a_declined_card_survives_every_crash() {
        let trials = || {
            let trials = testing::crash_everywhere_with(shop, checkout, order(BAD_CARD));
            trials.check(|app, _| sold(app, 0))
        };
        let error = trials().await.unwrap_err();
        assert_eq!(error.to_string(), "card declined");
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        let error = trials().on_postgres(postgres).await.unwrap_err();
        assert_eq!(error.to_string(), "card declined");
    }

    #[tokio::test]
    async fn counting_a_shelf_survives_every_crash() {
        let trials = || testing::crash_everywhere_with(shop, stock::count_shelf, 3).any_result();
        assert!(trials().await.unwrap() >= 21);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert!(trials().on_postgres(postgres).await.unwrap() >= 21);
    }

    #[tokio::test]
    async fn a_stock_take_survives_every_crash() {
        let tick = || Scheduled {
            scheduled_at: std::time::UNIX_EPOCH,
            context: (),
        };
        let trials =
            || testing::crash_everywhere_with(shop, stock::take_stock, tick()).any_result();
        assert!(trials().await.unwrap() >= 147);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert!(trials().on_postgres(postgres).await.unwrap() >= 147);
    }
}
