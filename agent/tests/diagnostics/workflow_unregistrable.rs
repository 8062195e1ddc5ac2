#![allow(unused)]

use segno::{Ctx, Segno};

async fn pay(order: u32) -> segno::Result<u32> {
    Ok(order)
}

fn main() {
    let _ = Segno::named("shop").workflow("pay", pay);
}
