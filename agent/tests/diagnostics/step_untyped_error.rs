#![allow(unused)]

use segno::Ctx;

#[derive(Debug, thiserror::Error)]
#[error("declined")]
struct Declined;

async fn pay(ctx: Ctx, cents: u64) -> segno::Result<()> {
    ctx.try_step("charge", || async { Err::<(), _>(Declined) }).await?;
    Ok(())
}

fn main() {}
