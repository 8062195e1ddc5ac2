//! Retention and the global timeout: executors delete old workflows and cancel overdue ones.
//!
//! One executor a round, and never two at once for an application. A round that got no answer may
//! still be running there, so its lease is left to expire.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use segno_protocol::{Retention, RetentionLimits, features};

use super::{Context, ms};
use crate::hub::{Class, HubError, SessionInfo, Target};
use crate::store::StoreError;
use crate::store::apps::AppRow;

const JOB: &str = "retention";
/// Beside the leased rounds, when old workflows are deleted again; it is never held.
const GARBAGE: &str = "garbage";
/// Older SDKs delete while the server waits.
const DEADLINE: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(660);
/// Cut-offs keep this distance from now: the clocks of server and database differ.
const SKEW: i64 = 60_000;

/// One round.
pub(super) async fn round(context: &Context, app: &AppRow) -> Result<(), StoreError> {
    let collects = app.gc_time_threshold_ms.is_some() || app.gc_rows_threshold.is_some();
    if !collects && app.global_timeout_ms.is_none() {
        return Ok(());
    }
    let sessions = context.hub.everywhere(&app.id).await;
    for warning in warnings(app, &sessions) {
        if context.said.first(format!("{} {warning}", app.id)) {
            tracing::warn!(app = app.name, "{warning}");
        }
    }
    let Some(executor) = choose(sessions) else {
        return Ok(());
    };
    let (store, holder) = (&context.store, context.instance.id());
    let every = ms(context.options.timeouts_every);
    let claimed = store
        .claim_round(&app.id, JOB, holder, every, ms(LEASE))
        .await?;
    let Some(round) = claimed else { return Ok(()) };
    let garbage_every = context.options.garbage_every;
    let garbage_every = garbage_every.mul_f64(0.9 + 0.2 * rand::rng().random::<f64>());
    let collects = collects
        && store
            .claim_round(&app.id, GARBAGE, holder, ms(garbage_every), 0)
            .await?
            .is_some();
    let body = limits(app, round.now, collects);
    if body == RetentionLimits::default() {
        return store.end_round(&app.id, JOB, holder, None).await;
    }
    if may_still_run(context, app, executor, body).await {
        return Ok(());
    }
    store.end_round(&app.id, JOB, holder, None).await
}

/// What an operator must know of retention with the executors that are connected: some releases act on
/// everything in the database, whoever owns it.
pub fn warnings(app: &AppRow, sessions: &[SessionInfo]) -> Vec<String> {
    let deletes = app.gc_time_threshold_ms.is_some() || app.gc_rows_threshold.is_some();
    let cancels = app.global_timeout_ms.is_some();
    let mut warnings = BTreeSet::new();
    for session in sessions {
        let language = session.language.as_deref().unwrap_or("unknown");
        let release = session.sdk_version.as_deref().unwrap_or("unknown");
        let deed = match features::application_scope(language, release) {
            false if deletes && cancels => "deletes old workflows and cancels overdue ones",
            false if deletes => "deletes old workflows",
            false if cancels => "cancels overdue workflows",
            true if deletes && features::background_retention(language, release) => {
                "deletes old workflows"
            }
            _ => continue,
        };
        warnings.insert(format!(
            "the {language} SDK {release} {deed} of every application in the database: if applications \
             share it, give all of them the same limits, or each its own database"
        ));
    }
    warnings.into_iter().collect()
}

/// The executor that suffers least: older SDKs of Python and Go do nothing else meanwhile.
fn choose(mut sessions: Vec<SessionInfo>) -> Option<SessionInfo> {
    let release = |session: &SessionInfo| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        (text(&session.language), text(&session.sdk_version))
    };
    sessions.retain(|session| {
        let (language, version) = release(session);
        features::supports(&language, &version, "retention") != Some(false)
    });
    sessions.into_iter().min_by_key(|session| {
        let (language, version) = release(session);
        let in_background = features::background_retention(&language, &version);
        (
            session.unresponsive_for.is_some(),
            session.outstanding > 0,
            !in_background,
            session.outstanding,
        )
    })
}

/// What holds at `now`, epoch milliseconds; without garbage, only the timeout.
fn limits(app: &AppRow, now: i64, garbage: bool) -> RetentionLimits {
    let cutoff = |threshold: Option<i64>| threshold.map(|ago| now.saturating_sub(ago.max(SKEW)));
    RetentionLimits {
        gc_cutoff_epoch_ms: cutoff(app.gc_time_threshold_ms.filter(|_| garbage)),
        gc_rows_threshold: app.gc_rows_threshold.filter(|_| garbage),
        timeout_cutoff_epoch_ms: cutoff(app.global_timeout_ms),
        gc_batch_size: None,
    }
}

/// Asks; whether it may still be running when this returns. Newer SDKs run it in the background, and
/// keep rounds apart themselves.
async fn may_still_run(
    context: &Context,
    app: &AppRow,
    executor: SessionInfo,
    body: RetentionLimits,
) -> bool {
    let target = Target::Executor {
        id: executor.executor_id.clone(),
        version: executor.version,
    };
    let class = Class::Background(DEADLINE);
    let answer = context
        .hub
        .request(app, target, &Retention { body }, class)
        .await;
    let (app, executor_id) = (&app.name, &executor.executor_id);
    match answer {
        Ok(answer) if answer.success => tracing::debug!(app, executor_id, "retention was accepted"),
        Ok(_) => tracing::warn!(
            app,
            executor_id,
            "retention failed; its executor's log may tell why"
        ),
        Err(error) => {
            tracing::warn!(app, executor_id, %error, "retention failed");
            return matches!(error, HubError::NoAnswer { .. });
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn session(id: &str, language: &str, version: &str, outstanding: usize) -> SessionInfo {
        SessionInfo {
            app_id: "a".to_owned(),
            executor_id: id.to_owned(),
            version: "v".to_owned(),
            hostname: None,
            language: Some(language.to_owned()),
            sdk_version: Some(version.to_owned()),
            metadata: None,
            connected_for: Duration::ZERO,
            unresponsive_for: None,
            outstanding,
        }
    }

    #[test]
    fn an_idle_executor_that_works_in_the_background_is_preferred() {
        let chosen = |sessions: Vec<SessionInfo>| choose(sessions).unwrap().executor_id;
        let (old, new, busy) = (
            session("old", "python", "2.31.1", 0),
            session("new", "python", "3.2.0", 0),
            session("busy", "python", "3.2.0", 2),
        );
        assert_eq!(chosen(vec![old.clone(), busy.clone(), new]), "new");
        assert_eq!(chosen(vec![busy, old]), "old");
        assert!(choose(vec![session("ancient", "python", "1.4.0", 0)]).is_none());
    }
}
