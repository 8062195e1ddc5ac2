#![allow(unused)]

use segno::Ctx;

#[segno::workflow]
fn pay(ctx: Ctx, order: u32) -> segno::Result<u32> {
    Ok(order)
}

fn main() {}
