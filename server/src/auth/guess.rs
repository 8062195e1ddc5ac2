//! Wrong keys: SDKs with a revoked key redial every second for ever, so their refusals are answered
//! from memory; and an address that tries many different ones is slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wrong key is remembered. Keys are random, so a wrong one does not become right.
const REMEMBER: Duration = Duration::from_secs(60);
/// Most wrong keys, and most addresses, that are remembered at once.
const CAPACITY: usize = 10_000;
/// Different wrong keys an address may try in a row, and how fast that allowance comes back.
const BURST: f64 = 30.0;
const PER_SECOND: f64 = 0.5;

/// What is known about a key before the store is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ask,
    KnownWrong,
    TooMany,
}

#[derive(Default)]
pub(super) struct Guesses {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Hash of a wrong key → when to forget it.
    wrong: HashMap<String, Instant>,
    /// Address → allowance left, as of then.
    addresses: HashMap<IpAddr, (f64, Instant)>,
}

impl Guesses {
    pub(super) fn look(&self, hash: &str, peer: Option<IpAddr>) -> Verdict {
        let now = Instant::now();
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.wrong.get(hash).is_some_and(|until| *until > now) {
            return Verdict::KnownWrong;
        }
        match peer {
            Some(peer) if memory.allowance(peer, now) < 1.0 => Verdict::TooMany,
            _ => Verdict::Ask,
        }
    }

    pub(super) fn wrong(&self, hash: String, peer: Option<IpAddr>) {
        let now = Instant::now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.wrong.len() >= CAPACITY {
            memory.wrong.retain(|_, until| *until > now);
        }
        if memory.wrong.len() < CAPACITY {
            memory.wrong.insert(hash, now + REMEMBER);
        }
        let Some(peer) = peer else { return };
        if memory.addresses.len() >= CAPACITY {
            let full = Duration::from_secs_f64(BURST / PER_SECOND);
            memory
                .addresses
                .retain(|_, (_, since)| now.duration_since(*since) < full);
        }
        let left = memory.allowance(peer, now) - 1.0;
        if memory.addresses.len() < CAPACITY || memory.addresses.contains_key(&peer) {
            memory.addresses.insert(peer, (left.max(0.0), now));
        }
    }
}

impl Memory {
    fn allowance(&self, peer: IpAddr, now: Instant) -> f64 {
        self.addresses.get(&peer).map_or(BURST, |(left, since)| {
            let back = now.duration_since(*since).as_secs_f64() * PER_SECOND;
            (left + back).min(BURST)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_wrong_key_is_answered_from_memory() {
        let guesses = Guesses::default();
        assert_eq!(guesses.look("a", None), Verdict::Ask);
        guesses.wrong("a".to_owned(), None);
        assert_eq!(guesses.look("a", None), Verdict::KnownWrong);
        assert_eq!(guesses.look("b", None), Verdict::Ask);
    }

    #[test]
    fn an_address_that_guesses_is_slowed_down_alone() {
        let guesses = Guesses::default();
        let (bad, good) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for n in 0..40 {
            guesses.wrong(format!("k{n}"), Some(bad));
        }
        assert_eq!(guesses.look("new", Some(bad)), Verdict::TooMany);
        assert_eq!(guesses.look("new", Some(good)), Verdict::Ask);
        assert_eq!(
            guesses.look("k1", Some(bad)),
            Verdict::KnownWrong,
            "answered, not slowed down"
        );
    }
}
