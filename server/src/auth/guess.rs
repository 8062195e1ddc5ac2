//! Wrong credentials: SDKs with a revoked key redial every second for ever, so their refusals are
//! answered from memory; and an address that tries many different ones is slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wrong credential is remembered. They are random, so a wrong one does not become right.
const REMEMBER: Duration = Duration::from_secs(60);
/// How long a right one is: its holder is let through although the address is slowed down.
const TRUST: Duration = Duration::from_secs(600);
/// Most wrong ones, most right ones, and most addresses, that are remembered at once.
const CAPACITY: usize = 10_000;

/// What is known about a credential before it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ask,
    KnownWrong,
    TooMany,
}

pub(super) struct Guesses {
    /// Different wrong credentials an address may try in a row.
    burst: f64,
    /// How fast that allowance comes back.
    per_second: f64,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Hash of a wrong credential → when to forget it.
    wrong: HashMap<String, Instant>,
    /// Hash of a right one → when to forget it.
    right: HashMap<String, Instant>,
    /// Address → allowance left, as of then.
    addresses: HashMap<IpAddr, (f64, Instant)>,
}

impl Guesses {
    /// For keys in websocket addresses.
    pub(super) fn executors() -> Self {
        Self::new(30.0, 0.5)
    }

    /// For the API: many people may share an address, and their tokens expire.
    pub(super) fn callers() -> Self {
        Self::new(200.0, 2.0)
    }

    fn new(burst: f64, per_second: f64) -> Self {
        Self {
            burst,
            per_second,
            memory: Mutex::default(),
        }
    }

    pub(super) fn look(&self, hash: &str, peer: Option<IpAddr>) -> Verdict {
        let now = Instant::now();
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let holds =
            |known: &HashMap<String, Instant>| known.get(hash).is_some_and(|until| *until > now);
        if holds(&memory.wrong) {
            return Verdict::KnownWrong;
        }
        match peer {
            Some(peer) if self.allowance(&memory, peer, now) < 1.0 && !holds(&memory.right) => {
                Verdict::TooMany
            }
            _ => Verdict::Ask,
        }
    }

    /// Counts a wrong credential against the address; `hash` if it will stay wrong.
    pub(super) fn wrong(&self, hash: Option<String>, peer: Option<IpAddr>) {
        let now = Instant::now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = hash {
            remember(&mut memory.wrong, hash, now, REMEMBER);
        }
        let Some(peer) = peer else { return };
        if memory.addresses.len() >= CAPACITY {
            let full = Duration::from_secs_f64(self.burst / self.per_second);
            memory
                .addresses
                .retain(|_, (_, since)| now.duration_since(*since) < full);
        }
        let left = self.allowance(&memory, peer, now) - 1.0;
        if memory.addresses.len() < CAPACITY || memory.addresses.contains_key(&peer) {
            memory.addresses.insert(peer, (left.max(0.0), now));
        }
    }

    /// Notes that a credential was right.
    pub(super) fn right(&self, hash: String) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        remember(&mut memory.right, hash, Instant::now(), TRUST);
    }

    fn allowance(&self, memory: &Memory, peer: IpAddr, now: Instant) -> f64 {
        memory
            .addresses
            .get(&peer)
            .map_or(self.burst, |(left, since)| {
                let back = now.duration_since(*since).as_secs_f64() * self.per_second;
                (left + back).min(self.burst)
            })
    }
}

fn remember(known: &mut HashMap<String, Instant>, hash: String, now: Instant, time: Duration) {
    if known.len() >= CAPACITY && !known.contains_key(&hash) {
        known.retain(|_, until| *until > now);
    }
    if known.len() < CAPACITY || known.contains_key(&hash) {
        known.insert(hash, now + time);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wrong(guesses: &Guesses, text: &str, peer: Option<IpAddr>) {
        guesses.wrong(Some(text.to_owned()), peer);
    }

    #[test]
    fn a_wrong_key_is_answered_from_memory() {
        let guesses = Guesses::executors();
        assert_eq!(guesses.look("a", None), Verdict::Ask);
        wrong(&guesses, "a", None);
        assert_eq!(guesses.look("a", None), Verdict::KnownWrong);
        assert_eq!(guesses.look("b", None), Verdict::Ask);
    }

    #[test]
    fn an_address_that_guesses_is_slowed_down_alone() {
        let guesses = Guesses::executors();
        let (bad, good) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for n in 0..40 {
            wrong(&guesses, &format!("k{n}"), Some(bad));
        }
        assert_eq!(guesses.look("new", Some(bad)), Verdict::TooMany);
        assert_eq!(guesses.look("new", Some(good)), Verdict::Ask);
        assert_eq!(
            guesses.look("k1", Some(bad)),
            Verdict::KnownWrong,
            "answered, not slowed down"
        );
    }

    #[test]
    fn whoever_was_right_before_is_not_slowed_down_by_others() {
        let guesses = Guesses::callers();
        let shared = "10.0.0.1".parse().unwrap();
        guesses.right("mine".to_owned());
        for _ in 0..300 {
            guesses.wrong(None, Some(shared));
        }
        assert_eq!(guesses.look("other", Some(shared)), Verdict::TooMany);
        assert_eq!(guesses.look("mine", Some(shared)), Verdict::Ask);
    }
}
