//! One workflow of twenty steps. Kill the process: another one goes on with the step after the last finished one.

#[cfg(test)]
mod crashes;

use std::time::Duration;

use segno::{Ctx, Segno};

async fn journey(ctx: Ctx, pause: Duration) -> segno::Result<String> {
    for number in 1..=20 {
        ctx.step("count", || async move {
            println!("{}: step {number}", std::process::id());
            tokio::time::sleep(pause).await;
            Ok(())
        })
        .await?;
    }
    println!("{}: arrived", std::process::id());
    Ok("arrived".to_owned())
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    // The control plane is found by SEGNO_CONDUCTOR_URL and SEGNO_CONDUCTOR_KEY.
    let app = Segno::named("journeys")
        .database_url("sqlite://journeys.db")
        .workflow("journey", journey)
        .launch()
        .await?;
    if std::env::var_os("START").is_some() {
        app.start(journey, Duration::from_secs(1)).await?;
    }
    std::future::pending().await
}
