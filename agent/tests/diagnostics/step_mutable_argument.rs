#![allow(unused)]

use segno::Ctx;

#[segno::step]
async fn charge(ctx: &Ctx, log: &mut Vec<u64>) -> segno::Result<()> {
    log.push(1);
    Ok(())
}

fn main() {}
