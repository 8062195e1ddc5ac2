#![allow(unused)]

use segno::Ctx;

struct Order {
    cents: u64,
}

#[segno::workflow]
async fn pay(ctx: Ctx, order: Order) -> segno::Result<u64> {
    Ok(order.cents)
}

fn main() {}
