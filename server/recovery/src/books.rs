//! What is written down about executors and instances, and whose claim stands: what the store's
//! statements do to their rows, as functions.
//!
//! The server's statements are SQL, so that two instances cannot both succeed. That they do what
//! these functions do is checked by a test that runs random sequences of both
//! (`server/tests/executors/books.rs`); what follows from them, by the model and the simulation.

use crate::machine::Millis;

/// Names an instance, in one of its lives.
pub type InstanceId = u16;
/// Names a session.
pub type SessionId = u16;

/// The three states of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Connected.
    Healthy,
    /// Lost, and waited for.
    Disconnected,
    /// Lost for longer than the grace, and not yet recovered.
    Dead,
}

/// One executor's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where it stands.
    pub state: State,
    /// Grows with every change of responsibility.
    pub generation: u16,
    /// The instance that holds, or last held, its socket.
    pub instance: InstanceId,
    /// The session that speaks, or spoke last, for it.
    pub session: SessionId,
    /// Grace counts from here.
    pub grace_from: Option<Millis>,
    /// When the loss was found out.
    pub noticed_at: Option<Millis>,
    /// Who drives its recovery, and until when.
    pub claim: Option<(InstanceId, Millis)>,
}

/// One instance's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// The instance.
    pub id: InstanceId,
    /// Since when executors have a chance to be seen.
    pub serving_since: Millis,
    /// When it was last heard of.
    pub heartbeat_at: Millis,
    /// Whether it said goodbye, or another took its place.
    pub stopped: bool,
}

impl Beat {
    /// Whether it counts as alive. `expiry`: silence after which an instance is gone.
    pub fn is_alive(&self, now: Millis, expiry: Millis) -> bool {
        !self.stopped && self.heartbeat_at > now - expiry
    }
}

/// `Store::register_instance`.
pub fn register(beats: &mut Vec<Beat>, id: InstanceId, now: Millis) {
    let fresh = Beat {
        id,
        serving_since: now,
        heartbeat_at: now,
        stopped: false,
    };
    match beats.iter_mut().find(|beat| beat.id == id) {
        Some(beat) => *beat = fresh,
        None => beats.push(fresh),
    }
}

/// `Store::beat`: `false` if others took the instance for dead.
pub fn beat(beats: &mut [Beat], id: InstanceId, now: Millis) -> bool {
    let own = beats.iter_mut().find(|beat| beat.id == id && !beat.stopped);
    own.map(|beat| beat.heartbeat_at = now).is_some()
}

/// `Store::executors_connected`, of one executor.
pub fn connected(row: Option<&Row>, instance: InstanceId, session: SessionId) -> Row {
    Row {
        state: State::Healthy,
        generation: row.map_or(0, |row| row.generation + 1),
        instance,
        session,
        grace_from: None,
        noticed_at: None,
        claim: None,
    }
}

/// `Store::insert_unknown_executor`: the row of an executor of which only its work was ever seen.
pub fn unknown(now: Millis) -> Row {
    Row {
        state: State::Disconnected,
        generation: 0,
        instance: InstanceId::MAX,
        session: SessionId::MAX,
        grace_from: Some(now),
        noticed_at: Some(now),
        claim: None,
    }
}

/// `Store::executor_lost`: `false` if the session does not speak for the executor any more.
pub fn lost(row: &mut Row, session: SessionId, at: Millis, now: Millis) -> bool {
    let speaks = row.state == State::Healthy && row.session == session;
    if speaks {
        row.state = State::Disconnected;
        row.grace_from = Some(at);
        row.noticed_at = Some(now);
    }
    speaks
}

/// `Store::adopt_orphans`: the executors of instances that are gone are lost since their instance was
/// last heard of, and nobody's grace counts from before somebody served.
pub fn adopt<'a>(
    rows: impl Iterator<Item = &'a mut Row>,
    beats: &[Beat],
    now: Millis,
    expiry: Millis,
) {
    let alive = beats.iter().filter(|beat| beat.is_alive(now, expiry));
    let served_since = alive.map(|beat| beat.serving_since).min();
    for row in rows {
        let holder = beats.iter().find(|beat| beat.id == row.instance);
        if let Some(holder) = holder
            && row.state == State::Healthy
            && !holder.is_alive(now, expiry)
        {
            row.state = State::Disconnected;
            row.generation += 1;
            row.grace_from = Some(holder.heartbeat_at);
            row.noticed_at = Some(now);
        }
        if let (Some(since), State::Disconnected) = (served_since, row.state) {
            row.grace_from = row.grace_from.map(|from| from.max(since));
        }
    }
}

/// `Store::claim_dead`: the new generation, if the row still is as `generation` saw it.
pub fn claim_dead(
    row: &mut Row,
    generation: u16,
    instance: InstanceId,
    until: Millis,
) -> Option<u16> {
    if row.generation != generation || row.state == State::Dead {
        return None;
    }
    row.state = State::Dead;
    row.generation += 1;
    row.claim = Some((instance, until));
    Some(row.generation)
}

/// `Store::dead_unclaimed`: whether `instance` may take over the recovery.
pub fn is_unclaimed(
    row: &Row,
    beats: &[Beat],
    instance: InstanceId,
    now: Millis,
    expiry: Millis,
) -> bool {
    row.state == State::Dead
        && row.claim.is_none_or(|(holder, until)| {
            let alive = beats
                .iter()
                .any(|beat| beat.id == holder && beat.is_alive(now, expiry));
            holder == instance || until < now || !alive
        })
}

/// `Store::take_over_dead`: the new generation, if nobody was faster.
pub fn take_over(
    row: &mut Row,
    generation: u16,
    instance: InstanceId,
    until: Millis,
) -> Option<u16> {
    if row.generation != generation || row.state != State::Dead {
        return None;
    }
    row.generation += 1;
    row.claim = Some((instance, until));
    Some(row.generation)
}

/// `Store::renew_claims`, of one row.
pub fn renew(row: &mut Row, instance: InstanceId, until: Millis) {
    if row.state == State::Dead && row.claim.is_some_and(|(holder, _)| holder == instance) {
        row.claim = Some((instance, until));
    }
}

/// `Store::is_claimed`: whether a claim still stands.
pub fn is_claimed(row: Option<&Row>, generation: u16, now: Millis) -> bool {
    row.is_some_and(|row| {
        row.state == State::Dead
            && row.generation == generation
            && row.claim.is_some_and(|(_, until)| until > now)
    })
}

/// `Store::forget_dead`: whether the row goes.
pub fn may_forget(row: Option<&Row>, generation: u16) -> bool {
    row.is_some_and(|row| row.state == State::Dead && row.generation == generation)
}
