#![allow(unused)]

use segno::{Ctx, Segno};

#[derive(Clone)]
struct Gateway;

async fn pay(ctx: Ctx<Gateway>, order: u32) -> segno::Result<u32> {
    Ok(order)
}

fn main() {
    let _ = Segno::named("shop").workflow("pay", pay);
}
