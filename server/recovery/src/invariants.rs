//! What must hold at every step of recovery, whatever happens and in whatever order.
//!
//! Written once: the property tests and the model check every step they take, debug builds of the
//! server check every step they really take.

use crate::machine::{Answer, Case, Effect, Event, Millis, Outcome, Phase};

/// A promise that a step broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An executor was forgotten though its workflows may still be pending.
    #[error("an executor was forgotten without a `no` to whether anything is pending")]
    Forgotten,
    /// Work was offered to another application or version.
    #[error("work was offered across applications or versions")]
    OfferedAcross,
    /// Work was offered to the dead executor itself.
    #[error("work was offered to the executor it is to be taken from")]
    OfferedToItself,
    /// Work moved to another version without a person's or a policy's word.
    #[error("work was moved to another version that nobody allowed")]
    MovedUnasked,
    /// Something was done about an executor that is connected.
    #[error("something was done about an executor that is connected")]
    TouchedTheLiving,
    /// Something was done before the grace was over, or without a claim.
    #[error("an executor in grace was declared dead too early, or recovered without a claim")]
    TooEarly,
    /// A finished case did something.
    #[error("a finished case went on")]
    AfterTheEnd,
    /// Two things were asked at once, or a case waits for nothing.
    #[error("a case waits for nothing, or for two answers at once")]
    NotWaiting,
}

/// Checks one step. `Ok(())` if every promise holds.
pub fn check(
    before: &Case,
    event: &Event,
    after: &Case,
    effects: &[Effect],
    now: Millis,
) -> Result<(), Violation> {
    for effect in effects {
        nothing_is_forgotten(before, event, effect)?;
        nothing_crosses_versions(before, effect)?;
        nothing_moves_unasked(before, event, effect)?;
        nothing_before_its_time(before, event, effect, now)?;
    }
    the_living_are_left_alone(event, effects)?;
    the_end_is_the_end(before, after, effects)?;
    every_case_waits_for_one_thing(after, effects)
}

/// Forgotten is only what was answered `no` just now.
fn nothing_is_forgotten(before: &Case, event: &Event, effect: &Effect) -> Result<(), Violation> {
    let Effect::Forget { outcome } = effect else {
        return Ok(());
    };
    let denied =
        matches!(before.phase, Phase::Asking { .. }) && *event == Event::Pending(Answer::No);
    let named = match outcome {
        Outcome::Recovered => before.was_offered(),
        Outcome::NothingPending => !before.was_offered(),
        Outcome::Rejoined | Outcome::Yielded => false,
    };
    (denied && named).then_some(()).ok_or(Violation::Forgotten)
}

/// Work is offered only inside its application and version, and never to whom it is taken from.
fn nothing_crosses_versions(before: &Case, effect: &Effect) -> Result<(), Violation> {
    let Effect::Offer { to } = effect else {
        return Ok(());
    };
    let dead = &before.executor;
    if to.app_id != dead.app_id || to.version != dead.version {
        return Err(Violation::OfferedAcross);
    }
    if to.executor_id == dead.executor_id {
        return Err(Violation::OfferedToItself);
    }
    Ok(())
}

/// Another version takes over only by an operator's word or the application's policy.
fn nothing_moves_unasked(before: &Case, event: &Event, effect: &Effect) -> Result<(), Violation> {
    let Effect::Move { version } = effect else {
        return Ok(());
    };
    let by_operator = before.assigned.as_ref() == Some(version);
    let by_policy = before.latest_may && *event == Event::Latest(Some(version.clone()));
    (by_operator || by_policy)
        .then_some(())
        .ok_or(Violation::MovedUnasked)
}

/// In grace nothing happens; a claim needs the grace to be over or an operator's word; everything
/// else needs a claim.
fn nothing_before_its_time(
    before: &Case,
    event: &Event,
    effect: &Effect,
    now: Millis,
) -> Result<(), Violation> {
    let allowed = match (&before.phase, effect) {
        (Phase::Healthy, Effect::Claim) => *event == Event::Gone,
        (Phase::Grace { .. }, Effect::Claim) => {
            *event == Event::Gone || before.deadline().is_some_and(|deadline| now >= deadline)
        }
        (Phase::Healthy | Phase::Grace { .. }, _) | (_, Effect::Claim) => false,
        (Phase::Claiming, Effect::Ask) => *event == Event::Claimed,
        (Phase::Claiming, _) => false,
        _ => true,
    };
    allowed.then_some(()).ok_or(Violation::TooEarly)
}

/// When an executor is back, nothing is done.
fn the_living_are_left_alone(event: &Event, effects: &[Effect]) -> Result<(), Violation> {
    let idle = !matches!(event, Event::Connected) || effects.is_empty();
    idle.then_some(()).ok_or(Violation::TouchedTheLiving)
}

/// Nothing follows the end.
fn the_end_is_the_end(before: &Case, after: &Case, effects: &[Effect]) -> Result<(), Violation> {
    let quiet = !matches!(before.phase, Phase::Over(_)) || (effects.is_empty() && before == after);
    quiet.then_some(()).ok_or(Violation::AfterTheEnd)
}

/// Every run reaches quiet: at most one question is asked at a time, and a case that asks nothing
/// waits for the clock, for a connection, or for nothing because it is over.
fn every_case_waits_for_one_thing(after: &Case, effects: &[Effect]) -> Result<(), Violation> {
    let questions = effects.iter().filter(|effect| is_question(effect)).count();
    let resting = matches!(
        after.phase,
        Phase::Healthy | Phase::Grace { .. } | Phase::Stranded { .. } | Phase::Over(_)
    );
    let fine = if resting {
        questions == 0
    } else {
        questions <= 1
    };
    let stranded_has_time =
        !matches!(after.phase, Phase::Stranded { .. }) || after.wake_at().is_some();
    (fine && stranded_has_time)
        .then_some(())
        .ok_or(Violation::NotWaiting)
}

/// Whether the driver answers this effect with an event.
pub fn is_question(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Claim
            | Effect::Ask
            | Effect::Look
            | Effect::Offer { .. }
            | Effect::FindLatest
            | Effect::Move { .. }
    )
}
