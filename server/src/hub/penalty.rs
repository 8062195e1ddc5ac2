//! Places that are refused at the handshake for a while.
//!
//! Who an executor is, is known only after the handshake; a refusal must happen at it, because Go
//! redials a connection that was accepted and closed without any pause. So it is remembered by key
//! and address, and only for seconds: others may dial with the same key from the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// More places than this are not remembered; an attacker must not fill the memory.
const PLACES: usize = 4096;

/// Where a dial comes from. The key is a hash: its text is never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) key_hash: [u8; 16],
    pub(super) address: IpAddr,
}

pub(super) struct PenaltyBox {
    refusal: Duration,
    until: Mutex<HashMap<Place, Instant>>,
}

impl PenaltyBox {
    pub(super) fn new(refusal: Duration) -> Self {
        Self {
            refusal,
            until: Mutex::default(),
        }
    }

    /// Refuses dials from `place` from now on, for a while.
    pub(super) fn refuse(&self, place: Place, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= PLACES {
            until.retain(|_, end| *end > now);
        }
        if until.len() < PLACES {
            until.insert(place, now + self.refusal);
        }
    }

    /// Whether a dial from `place` is refused now.
    pub(super) fn is_refused(&self, place: &Place, now: Instant) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.get(place) {
            Some(end) if *end > now => true,
            Some(_) => {
                until.remove(place);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends() {
        let penalties = PenaltyBox::new(Duration::from_secs(10));
        let place = Place {
            key_hash: [1; 16],
            address: IpAddr::from([127, 0, 0, 1]),
        };
        let other = Place {
            key_hash: [2; 16],
            ..place
        };
        let now = Instant::now();
        penalties.refuse(place, now);
        assert!(penalties.is_refused(&place, now + Duration::from_secs(9)));
        assert!(!penalties.is_refused(&other, now));
        assert!(!penalties.is_refused(&place, now + Duration::from_secs(10)));
    }
}
