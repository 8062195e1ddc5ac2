//! The engine under measurement: a workflow whose steps do nothing, so that only checkpoints cost.

use std::time::Duration;

use segno::{Ctx, Segno};

/// A launched application.
#[derive(Clone)]
pub(crate) struct Engine {
    app: Segno,
}

async fn steps(ctx: Ctx, count: u32) -> segno::Result<u64> {
    let mut sum = 0;
    for n in 0..count {
        sum += ctx
            .step("count", || async move { Ok(u64::from(n)) })
            .await?;
    }
    Ok(sum)
}

impl Engine {
    pub(crate) async fn launch(url: &str) -> segno::Result<Self> {
        let app = Segno::named("bench")
            .database_url(url)
            .app_version("bench")
            .workflow("steps", steps)
            .launch()
            .await?;
        Ok(Self { app })
    }

    /// One workflow, from start to the recorded outcome.
    pub(crate) async fn run(&self, count: u32) -> segno::Result<()> {
        let sum = self.app.run(steps, count).await?;
        let expected = u64::from(count) * u64::from(count.saturating_sub(1)) / 2;
        assert_eq!(sum, expected, "the steps were wrong");
        Ok(())
    }

    pub(crate) async fn shutdown(&self) -> segno::Result<()> {
        self.app.shutdown(Duration::from_secs(10)).await
    }
}
