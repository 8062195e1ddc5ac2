//! Waiting on predicates, never on time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer.
///
/// # Errors
/// After `deadline`: what was waited for, and the last refusal. A predicate that fails is asked again,
/// since what is not there yet may answer with an error.
pub async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut predicate: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = match predicate().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() > end {
            let why = last
                .map(|error| format!("; last error: {error:#}"))
                .unwrap_or_default();
            anyhow::bail!(
                "waited {:.1} s in vain for {what}{why}",
                deadline.as_secs_f64()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
