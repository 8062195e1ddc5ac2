//! What the checkout talks to: stock, a payment gateway, the order table and mail.
//!
//! Gateway and mail are simulated, slowly and unreliably. Everything leaves its traces in tables of
//! the same database, and a ledger notes every execution of every step, so that one can see (and the
//! tests prove) what ran where, and how often.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segno::{Ctx, Db, Tx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::workflow::Order;

/// The application's state.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) db: Db,
    pub(crate) stock: Stock,
    pub(crate) gateway: Gateway,
    pub(crate) orders: Orders,
    pub(crate) mail: Mail,
}

/// How the simulated world behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// How long a step works.
    pub(crate) step: Duration,
    /// Share of requests that the gateway fails, 0 to 1.
    pub(crate) flakiness: f64,
}

/// Why a card was not charged.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum PayError {
    #[error("card declined")]
    Declined,
    #[error("gateway unavailable")]
    Unavailable,
    #[error(transparent)]
    Engine(#[from] segno::Error),
}

/// A card that is always declined.
pub(crate) const BAD_CARD: &str = "4000 0000 0000 0002";

impl Shop {
    /// Creates the tables that are missing.
    pub(crate) async fn open(db: Db, world: World) -> segno::Result<Self> {
        let sqlite = db.is_sqlite();
        db.transaction(|tx| Box::pin(create_tables(tx, sqlite)))
            .await?;
        let ledger = Ledger { db: db.clone() };
        let desk = Arc::new(Desk {
            db: db.clone(),
            ledger,
            world,
        });
        Ok(Self {
            db,
            stock: Stock(Arc::clone(&desk)),
            gateway: Gateway(Arc::clone(&desk)),
            orders: Orders,
            mail: Mail(desk),
        })
    }

    /// How long a step works.
    pub(crate) fn pace(&self) -> Duration {
        self.mail.0.world.step
    }
}

/// What all services share.
#[derive(Debug)]
struct Desk {
    db: Db,
    ledger: Ledger,
    world: World,
}

impl Desk {
    /// Notes the execution of a step and takes as long as such work takes.
    async fn work(&self, ctx: &Ctx<Shop>, step: &str) -> segno::Result<()> {
        self.ledger.note(ctx, step).await?;
        tokio::time::sleep(self.world.step).await;
        Ok(())
    }
}

/// Every execution of every step, finished or not: one row with an id of its own.
#[derive(Clone, Debug)]
struct Ledger {
    db: Db,
}

impl Ledger {
    async fn note(&self, ctx: &Ctx<Shop>, step: &str) -> segno::Result<()> {
        self.db
            .transaction(|tx| Box::pin(note(tx, ctx, step)))
            .await
    }
}

async fn note(tx: &mut Tx<'_>, ctx: &Ctx<Shop>, step: &str) -> segno::Result<()> {
    tx.query(
        "INSERT INTO effects (attempt, workflow_id, step, executor_id, app_version, at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(Uuid::new_v4().to_string())
    .bind(ctx.workflow_id().to_owned())
    .bind(step.to_owned())
    .bind(ctx.executor_id().to_owned())
    .bind(ctx.app_version().to_owned())
    .bind(now_ms())
    .execute()
    .await?;
    Ok(())
}

#[derive(Clone, Debug)]
pub(crate) struct Stock(Arc<Desk>);

impl Stock {
    /// Idempotent: the reservation is made under the workflow's id, so a second execution finds it.
    pub(crate) async fn reserve(&self, ctx: &Ctx<Shop>, order: &Order) -> segno::Result<()> {
        self.0.work(ctx, "reserve inventory").await?;
        let reserve = async |tx: &mut Tx<'_>| {
            let new = tx
                .query(
                    "INSERT INTO reservations (workflow_id, sku, quantity) VALUES ($1, $2, $3) \
                     ON CONFLICT (workflow_id) DO NOTHING",
                )
                .bind(ctx.workflow_id().to_owned())
                .bind(order.sku.clone())
                .bind(order.quantity)
                .execute()
                .await?;
            if new == 1 {
                change_stock(tx, &order.sku, -order.quantity).await?;
            }
            Ok(())
        };
        self.0.db.transaction(|tx| Box::pin(reserve(tx))).await
    }

    /// Puts the goods back; idempotent too.
    pub(crate) async fn release(&self, ctx: &Ctx<Shop>) -> segno::Result<()> {
        self.0.work(ctx, "release inventory").await?;
        let release = async |tx: &mut Tx<'_>| {
            let freed: Option<(String, i64)> = tx
                .query("DELETE FROM reservations WHERE workflow_id = $1 RETURNING sku, quantity")
                .bind(ctx.workflow_id().to_owned())
                .fetch_optional()
                .await?;
            match freed {
                Some((sku, quantity)) => change_stock(tx, &sku, quantity).await,
                None => Ok(()),
            }
        };
        self.0.db.transaction(|tx| Box::pin(release(tx))).await
    }
}

async fn change_stock(tx: &mut Tx<'_>, sku: &str, by: i64) -> segno::Result<()> {
    tx.query(
        "INSERT INTO stock (sku, available) VALUES ($1, $2) \
         ON CONFLICT (sku) DO UPDATE SET available = stock.available + $2",
    )
    .bind(sku.to_owned())
    .bind(by)
    .execute()
    .await?;
    Ok(())
}

/// A payment provider as they are: away now and then, sometimes *after* it has charged, and therefore
/// asked with an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Gateway(Arc<Desk>);

impl Gateway {
    pub(crate) async fn charge(&self, ctx: &Ctx<Shop>, order: &Order) -> Result<String, PayError> {
        self.0.work(ctx, "charge card").await?;
        let luck: f64 = rand::random();
        let flakiness = self.0.world.flakiness;
        if luck < flakiness * 0.7 {
            return Err(PayError::Unavailable);
        }
        if order.card == BAD_CARD {
            return Err(PayError::Declined);
        }
        let charge_id = self.book(ctx.workflow_id(), order.cents).await?;
        if luck < flakiness {
            // Charged, but the answer never arrives.
            return Err(PayError::Unavailable);
        }
        Ok(charge_id)
    }

    /// The provider's own memory: one charge for a key, however often it is asked.
    async fn book(&self, key: &str, cents: i64) -> segno::Result<String> {
        let book = async |tx: &mut Tx<'_>| {
            tx.query(
                "INSERT INTO charges (idempotency_key, charge_id, cents) VALUES ($1, $2, $3) \
                 ON CONFLICT (idempotency_key) DO NOTHING",
            )
            .bind(key.to_owned())
            .bind(format!("ch_{}", Uuid::new_v4().simple()))
            .bind(cents)
            .execute()
            .await?;
            let (charge_id,): (String,) = tx
                .query("SELECT charge_id FROM charges WHERE idempotency_key = $1")
                .bind(key.to_owned())
                .fetch_one()
                .await?;
            Ok(charge_id)
        };
        self.0.db.transaction(|tx| Box::pin(book(tx))).await
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Orders;

impl Orders {
    /// Runs inside the workflow's transaction. On purpose nothing in the table forbids a second row for
    /// one workflow: that there is none is the engine's doing.
    pub(crate) async fn create(
        &self,
        tx: &mut Tx<'_>,
        ctx: &Ctx<Shop>,
        order: &Order,
        charge_id: &str,
    ) -> segno::Result<i64> {
        note(tx, ctx, "create order").await?;
        let (order_id,): (i64,) = tx
            .query(
                "INSERT INTO orders (workflow_id, sku, quantity, cents, charge_id, at) \
                 VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            )
            .bind(ctx.workflow_id().to_owned())
            .bind(order.sku.clone())
            .bind(order.quantity)
            .bind(order.cents)
            .bind(charge_id.to_owned())
            .bind(now_ms())
            .fetch_one()
            .await?;
        Ok(order_id)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Mail(Arc<Desk>);

impl Mail {
    pub(crate) async fn confirm(
        &self,
        ctx: &Ctx<Shop>,
        to: &str,
        order_id: i64,
    ) -> segno::Result<()> {
        self.0.work(ctx, "send email").await?;
        tracing::debug!(to, order_id, "your order is on its way");
        Ok(())
    }
}

async fn create_tables(tx: &mut Tx<'_>, sqlite: bool) -> segno::Result<()> {
    if !sqlite {
        // Several processes begin at once, and Postgres' IF NOT EXISTS does not wait for the others.
        tx.query("SELECT pg_advisory_xact_lock(20240117)")
            .execute()
            .await?;
    }
    let orders = if sqlite {
        "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, workflow_id TEXT NOT NULL, \
         sku TEXT NOT NULL, quantity BIGINT NOT NULL, cents BIGINT NOT NULL, charge_id TEXT NOT NULL, \
         at BIGINT NOT NULL)"
    } else {
        "CREATE TABLE IF NOT EXISTS orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         workflow_id TEXT NOT NULL, sku TEXT NOT NULL, quantity BIGINT NOT NULL, cents BIGINT NOT NULL, \
         charge_id TEXT NOT NULL, at BIGINT NOT NULL)"
    };
    for statement in [
        orders,
        "CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, available BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS reservations (workflow_id TEXT PRIMARY KEY, sku TEXT NOT NULL, \
         quantity BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS charges (idempotency_key TEXT PRIMARY KEY, charge_id TEXT NOT NULL, \
         cents BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS effects (attempt TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, \
         step TEXT NOT NULL, executor_id TEXT NOT NULL, app_version TEXT NOT NULL, at BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS submitted (workflow_id TEXT PRIMARY KEY, at BIGINT NOT NULL)",
    ] {
        tx.query(statement).execute().await?;
    }
    Ok(())
}

/// Notes that the start of a workflow was acknowledged: from here on it must not be lost.
pub(crate) async fn acknowledge(db: &Db, workflow_id: &str) -> segno::Result<()> {
    let insert = async |tx: &mut Tx<'_>| {
        tx.query("INSERT INTO submitted (workflow_id, at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(workflow_id.to_owned())
            .bind(now_ms())
            .execute()
            .await?;
        Ok(())
    };
    db.transaction(|tx| Box::pin(insert(tx))).await
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
