#![allow(unused)]

use segno::Ctx;

#[segno::workflow]
async fn pay(ctx: Ctx, order: u32) -> Result<u32, String> {
    Err("no".into())
}

fn main() {}
