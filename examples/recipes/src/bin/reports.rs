//! Schedules: a report for each region every minute, once however many processes run, and made up for after all of
//! them were down.
//!
//! ```sh
//! cargo run --bin reports
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segno::{Builder, Ctx, Schedule, Scheduled, Segno};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Region(String);

/// `tick.scheduled_at` is the time for which the run was meant, whenever it runs: it says what to report.
#[segno::workflow]
async fn report(ctx: Ctx, tick: Scheduled<Region>) -> segno::Result<String> {
    let minute = tick
        .scheduled_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        / 60;
    let region = &tick.context.0;
    let sales = ctx
        .step("sum up", || async { Ok(sales(region, minute)) })
        .await?;
    let line = format!("{region}, minute {minute}: {sales} sold");
    ctx.step("publish", || async {
        println!("{line}");
        Ok(())
    })
    .max_attempts(3)
    .await?;
    Ok(line)
}

/// Stands for a query.
fn sales(region: &str, minute: u64) -> u64 {
    region.bytes().map(u64::from).sum::<u64>() % 50 + minute % 10
}

fn reports() -> Builder {
    let every_minute = |region: &str| {
        Schedule::new(format!("report-{region}"), "0 * * * * *", report)
            .timezone("Europe/Paris")
            .automatic_backfill()
            .context(Region(region.into()))
    };
    Segno::named("reports")
        .workflows(segno::workflows![report])
        .schedule(every_minute("north"))
        .schedule(every_minute("south"))
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://reports.db".into());
    let app = reports().database_url(url).launch().await?;
    // The last three minutes again, for the north; ids make it the same runs if they were there.
    let now = SystemTime::now();
    let missed = now - Duration::from_secs(180)..now;
    app.schedules().backfill("report-north", missed).await?;
    tokio::signal::ctrl_c().await?;
    app.shutdown(Duration::from_secs(5)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use segno::{Status, testing};

    use super::*;

    #[tokio::test]
    async fn every_crash_is_survived() {
        let tick = || Scheduled {
            scheduled_at: UNIX_EPOCH + Duration::from_secs(600),
            context: Region("north".into()),
        };
        // Without its schedules: only this run is looked at.
        let app = || Segno::named("reports").workflows(segno::workflows![report]);
        let trials = || testing::crash_everywhere(app, report, tick());
        let line = "north, minute 10: 5 sold";
        assert_eq!(trials().await.unwrap(), line);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert_eq!(trials().on_postgres(postgres).await.unwrap(), line);
    }

    #[tokio::test]
    async fn a_report_for_each_region_and_minute() {
        let app = testing::launch(reports()).await.unwrap();
        app.advance(Duration::from_secs(301)).await.unwrap();
        let done = app.workflows().status(Status::Success).await.unwrap();
        assert_eq!(done.len(), 10, "{done:#?}");
    }
}
