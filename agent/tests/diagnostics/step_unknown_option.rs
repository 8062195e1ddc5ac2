#![allow(unused)]

use segno::Ctx;

#[segno::step(attempts = 3)]
async fn charge(ctx: &Ctx, cents: u64) -> segno::Result<u64> {
    Ok(cents)
}

fn main() {}
