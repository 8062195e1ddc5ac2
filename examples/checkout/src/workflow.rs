//! The checkout itself: what a reader came for.

use std::time::Duration;

use segno::Ctx;
use serde::{Deserialize, Serialize};

use crate::shop::{PayError, Shop};

/// What a customer wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    pub(crate) cents: i64,
    pub(crate) card: String,
    pub(crate) email: String,
}

/// What a customer gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) order_id: i64,
    pub(crate) charge_id: String,
}

/// Whatever happens to this process, an order is charged once, created once, and goes on in another
/// process after its last finished step.
#[segno::workflow]
pub(crate) async fn checkout(ctx: Ctx<Shop>, order: Order) -> segno::Result<Receipt> {
    let shop = ctx.state();

    ctx.step("reserve inventory", || shop.stock.reserve(&ctx, &order))
        .await?;

    // The gateway fails now and then. It knows this workflow's id, so a repeated request is no second charge.
    let charged = ctx
        .try_step("charge card", || shop.gateway.charge(&ctx, &order))
        .max_attempts(10)
        .interval(Duration::from_millis(200))
        .max_interval(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .retry_if(|error| matches!(error, PayError::Unavailable))
        .await;
    let charge_id = match charged {
        Ok(charge_id) => charge_id,
        Err(error) => {
            ctx.step("release inventory", || shop.stock.release(&ctx))
                .await?;
            return Err(error.into());
        }
    };

    // The order and the checkpoint commit together: exactly once.
    let order_id = ctx
        .transaction(&shop.db, "create order", |tx| {
            Box::pin(shop.orders.create(tx, &ctx, &order, &charge_id))
        })
        .await?;

    ctx.step("send email", || {
        shop.mail.confirm(&ctx, &order.email, order_id)
    })
    .max_attempts(3)
    .await?;

    Ok(Receipt {
        order_id,
        charge_id,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use segno::{Builder, Db, Error, Segno, testing};

    use super::*;
    use crate::shop::{BAD_CARD, World};

    async fn shop(db: Db) -> segno::Result<Builder<Shop>> {
        let world = World {
            step: Duration::ZERO,
            flakiness: 0.0,
        };
        let shop = Shop::open(db.clone(), world).await?;
        Ok(Segno::named("checkout")
            .database(&db)
            .state(shop)
            .workflows(segno::workflows![checkout]))
    }

    fn order(card: &str) -> Order {
        Order {
            sku: "lamp".into(),
            quantity: 1,
            cents: 4900,
            card: card.into(),
            email: "ada@example.com".into(),
        }
    }

    async fn orders(app: Segno) -> segno::Result<i64> {
        let count = app.db().transaction(|tx| {
            Box::pin(async {
                let (count,): (i64,) = tx.query("SELECT COUNT(*) FROM orders").fetch_one().await?;
                Ok(count)
            })
        });
        count.await
    }

    async fn has_orders(app: Segno, expected: i64) -> segno::Result<()> {
        match orders(app).await? {
            count if count == expected => Ok(()),
            count => Err(Error::message(format!(
                "{count} orders instead of {expected}"
            ))),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_checkout_makes_one_order_wherever_the_process_dies() {
        let good = || testing::crash_everywhere_with(shop, checkout, order("4242 4242 4242 4242"));
        let one_order = |app, _| has_orders(app, 1);
        good().any_result().check(one_order).await.unwrap();
        let url = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        good()
            .any_result()
            .check(one_order)
            .on_postgres(url)
            .await
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_declined_card_makes_no_order_wherever_the_process_dies() {
        let bad = testing::crash_everywhere_with(shop, checkout, order(BAD_CARD));
        let error = bad.check(|app, _| has_orders(app, 0)).await.unwrap_err();
        assert!(error.to_string().contains("declined"), "{error}");
    }
}
