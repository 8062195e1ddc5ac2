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
