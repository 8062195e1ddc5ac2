#![allow(unused)]

use segno::Ctx;

#[segno::workflow]
async fn pay(ctx: Ctx, card: &str) -> segno::Result<u32> {
    Ok(card.len() as u32)
}

fn main() {}
