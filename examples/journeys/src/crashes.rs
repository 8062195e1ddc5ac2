//! A crash at every step, without the pauses.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use segno::{Segno, testing};

use super::journey;

#[tokio::test]
async fn a_journey_survives_every_crash() {
    let app = || Segno::named("journeys").workflow("journey", journey);
    let trials = || testing::crash_everywhere(app, journey, Duration::ZERO);
    assert_eq!(trials().await.unwrap(), "arrived");
    let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    assert_eq!(trials().on_postgres(postgres).await.unwrap(), "arrived");
}
