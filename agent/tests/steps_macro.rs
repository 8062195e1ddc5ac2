//! `#[segno::step]` and `#[segno::workflow]` in use.
#![allow(clippy::unwrap_used)]

mod database_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use segno::{Ctx, Db, Segno, testing};
use serde::{Deserialize, Serialize};

crate::on_both_test_databases!(functions_are_steps_under_their_names);

#[derive(Clone, Default)]
struct Shop {
    calls: Arc<AtomicU32>,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
enum PayError {
    #[error("gateway unavailable")]
    Unavailable,
    #[error(transparent)]
    Engine(#[from] segno::Error),
}

fn is_unavailable(error: &PayError) -> bool {
    matches!(error, PayError::Unavailable)
}

/// Fails twice.
#[segno::step(name = "charge card", max_attempts = 5, interval = Duration::from_secs(60), retry_if = is_unavailable)]
async fn charge(ctx: &Ctx<Shop>, card: &str, cents: u64) -> Result<String, PayError> {
    if ctx.state().calls.fetch_add(1, Ordering::Relaxed) < 2 {
        return Err(PayError::Unavailable);
    }
    Ok(format!("{card}:{cents}"))
}

#[segno::step]
async fn double<S: Send + Sync>(_ctx: &Ctx<S>, values: Vec<u32>) -> segno::Result<Vec<u32>> {
    let doubled: Result<Vec<u32>, std::num::TryFromIntError> = values
        .iter()
        .map(|value| u32::try_from(u64::from(*value) * 2))
        .collect();
    Ok(doubled?)
}

#[segno::workflow(name = "pay")]
async fn pay_by_card(ctx: Ctx<Shop>, card: String) -> segno::Result<(String, Vec<u32>)> {
    let (charge, doubled) = tokio::join!(charge(&ctx, &card, 500), double(&ctx, vec![1, 2]));
    let again = double(&ctx, doubled?)
        .timeout(Duration::from_secs(5))
        .await?;
    Ok((charge?, again))
}

async fn functions_are_steps_under_their_names(db: Db) {
    let shop = Shop::default();
    let app = Segno::named("shop")
        .database(&db)
        .state(shop.clone())
        .workflows(segno::workflows![pay_by_card]);
    let app = testing::launch(app).await.unwrap();
    let run = app.start(pay_by_card, "4242".into()).await.unwrap();
    app.advance(Duration::from_secs(600)).await.unwrap();
    assert_eq!(
        run.result().await.unwrap(),
        ("4242:500".to_owned(), vec![4, 8])
    );
    assert_eq!(shop.calls.load(Ordering::Relaxed), 3);
    let steps: Vec<_> = run
        .steps()
        .await
        .unwrap()
        .into_iter()
        .map(|step| step.name)
        .collect();
    assert_eq!(steps, ["charge card", "double", "double"]);
    let runs = app.workflows().await.unwrap();
    assert_eq!(runs[0].name, pay_by_card::NAME);
    assert_eq!(pay_by_card::NAME, "pay");
    assert_eq!(pay_by_card::FINGERPRINT.len(), 32);
}
