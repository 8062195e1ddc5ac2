//! The stock is counted by the clock: a schedule starts a run, which puts one child for each shelf on a queue that lets
//! two work at a time.

use std::time::Duration;

use segno::{Ctx, Queue, Schedule, Scheduled};

use crate::shop::Shop;

const SHELVES: u32 = 6;
/// The queue of the shelves.
const QUEUE: &str = "shelves";

/// As many people as there are to count.
pub(crate) fn queue() -> Queue {
    Queue::new(QUEUE).concurrency(2)
}

/// Stock is taken at the times of a cron expression.
pub(crate) fn schedule(cron: &str) -> Schedule {
    Schedule::new("stock-take", cron, take_stock)
}

/// Has every shelf counted, lets the dust settle, and publishes how far it is.
#[segno::workflow]
pub(crate) async fn take_stock(ctx: Ctx<Shop>, _tick: Scheduled) -> segno::Result<u32> {
    ctx.set_event("state", "counting").await;
    let counted = ctx
        .start_all(count_shelf, 1..=SHELVES)
        .queue(QUEUE)
        .results()
        .await;
    let pieces = counted.into_iter().sum::<segno::Result<u32>>()?;
    ctx.sleep(Duration::from_secs(5)).await;
    ctx.set_event("state", "counted").await;
    ctx.set_event("pieces", &pieces).await;
    Ok(pieces)
}

/// Counts what lies on one shelf.
#[segno::workflow]
pub(crate) async fn count_shelf(ctx: Ctx<Shop>, shelf: u32) -> segno::Result<u32> {
    ctx.step("walk there", async || {
        tokio::time::sleep(ctx.state().pace() / 2).await;
        Ok(())
    })
    .await?;
    ctx.step("count pieces", async || {
        tokio::time::sleep(ctx.state().pace()).await;
        Ok(shelf * 7 + rand::random_range(0..5))
    })
    .await
}
