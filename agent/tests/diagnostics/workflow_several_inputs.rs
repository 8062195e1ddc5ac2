#![allow(unused)]

use segno::Ctx;

#[segno::workflow]
async fn pay(ctx: Ctx, order: u32, card: String) -> segno::Result<u32> {
    Ok(order)
}

fn main() {}
