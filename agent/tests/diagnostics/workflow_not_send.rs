#![allow(unused)]

use std::rc::Rc;

use segno::Ctx;

#[segno::workflow]
async fn pay(ctx: Ctx, order: u32) -> segno::Result<u32> {
    let shared = Rc::new(order);
    ctx.step("charge", || async { Ok(()) }).await?;
    Ok(*shared)
}

fn main() {}
