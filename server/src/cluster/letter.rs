//! What instances send each other is signed with a secret that only the shared store holds.
//!
//! A letter names its sender and its receiver, so that one that reaches another process than it was
//! meant for (two instances that advertise one address) is refused; it is good for half a minute by
//! the store's clock, and once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::config::Secret;

const LETTER: HeaderName = HeaderName::from_static("x-segno-letter");
const SIGNATURE: HeaderName = HeaderName::from_static("x-segno-signature");
/// How long a letter is good, milliseconds to either side: every instance reads the store's clock.
const GOOD_FOR: i64 = 30_000;

#[derive(Serialize, Deserialize)]
struct Letter<T> {
    from: String,
    to: String,
    /// The store's clock, epoch milliseconds.
    at: i64,
    nonce: String,
    /// SHA-256 of the body.
    body: String,
    content: T,
}

/// Why a letter is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("the request is not signed by an instance on this store")]
    Unsigned,
    #[error("the request is meant for another instance")]
    Misdirected,
    #[error("the request is older than half a minute, or was received before")]
    Stale,
}

/// Signs letters of this instance and reads those to it.
pub(super) struct Post {
    own_id: String,
    key: hmac::Key,
    /// Nonces of letters that are still good, and until when they are.
    seen: Mutex<HashMap<String, i64>>,
}

impl Post {
    pub(super) fn new(own_id: &str, secret: &Secret) -> Self {
        Self {
            own_id: own_id.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()),
            seen: Mutex::default(),
        }
    }

    /// The headers of a request to `path` of another instance.
    pub(super) fn write<T: Serialize>(
        &self,
        to: &str,
        path: &str,
        now: i64,
        content: T,
        body: &[u8],
    ) -> Option<HeaderMap> {
        let letter = Letter {
            from: self.own_id.clone(),
            to: to.to_owned(),
            at: now,
            nonce: Uuid::new_v4().simple().to_string(),
            body: digest(body),
            content,
        };
        let text = BASE64.encode(serde_json::to_vec(&letter).ok()?);
        let signature = BASE64.encode(hmac::sign(&self.key, &signed(path, &text)));
        let mut headers = HeaderMap::new();
        headers.insert(LETTER, HeaderValue::try_from(text).ok()?);
        headers.insert(SIGNATURE, HeaderValue::try_from(signature).ok()?);
        Some(headers)
    }

    /// What a request says, and the digest that its body must have; before the body is read.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &HeaderMap,
        now: i64,
    ) -> Result<(T, String), Distrust> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(letter), Some(signature)) = (text(LETTER), text(SIGNATURE)) else {
            return Err(Distrust::Unsigned);
        };
        let signature = BASE64.decode(signature).map_err(|_| Distrust::Unsigned)?;
        hmac::verify(&self.key, &signed(path, letter), &signature)
            .map_err(|_| Distrust::Unsigned)?;
        let bytes = BASE64.decode(letter).map_err(|_| Distrust::Unsigned)?;
        let letter: Letter<T> = serde_json::from_slice(&bytes).map_err(|_| Distrust::Unsigned)?;
        if letter.to != self.own_id {
            return Err(Distrust::Misdirected);
        }
        if !self.is_new(&letter.nonce, letter.at, now) {
            return Err(Distrust::Stale);
        }
        Ok((letter.content, letter.body))
    }

    fn is_new(&self, nonce: &str, at: i64, now: i64) -> bool {
        if (now - at).abs() > GOOD_FOR {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= 4096 {
            seen.retain(|_, until| *until >= now);
        }
        seen.insert(nonce.to_owned(), at + GOOD_FOR).is_none()
    }
}

pub(super) fn digest(body: &[u8]) -> String {
    BASE64.encode(Sha256::digest(body))
}

fn signed(path: &str, letter: &str) -> Vec<u8> {
    // Neither holds a line break.
    format!("{path}\n{letter}").into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn post(id: &str, secret: &str) -> Post {
        Post::new(id, &Secret::new(secret))
    }

    #[test]
    fn a_letter_is_read_once_by_whom_it_is_meant_for() {
        let (a, b, c) = (post("a", "s"), post("b", "s"), post("c", "s"));
        let headers = a.write("b", "/p", 1_000, 7, b"body").unwrap();
        assert_eq!(
            c.read::<i32>("/p", &headers, 1_000),
            Err(Distrust::Misdirected)
        );
        let (content, body) = b.read::<i32>("/p", &headers, 1_000).unwrap();
        assert_eq!((content, body), (7, digest(b"body")));
        assert_eq!(b.read::<i32>("/p", &headers, 1_000), Err(Distrust::Stale));
    }

    #[test]
    fn nobody_else_can_write_one() {
        let (a, b, stranger) = (post("a", "s"), post("b", "s"), post("a", "guessed"));
        let forged = stranger.write("b", "/p", 0, 7, b"").unwrap();
        assert_eq!(b.read::<i32>("/p", &forged, 0), Err(Distrust::Unsigned));
        let elsewhere = a.write("b", "/q", 0, 7, b"").unwrap();
        assert_eq!(b.read::<i32>("/p", &elsewhere, 0), Err(Distrust::Unsigned));
        let old = a.write("b", "/p", 0, 7, b"").unwrap();
        assert_eq!(b.read::<i32>("/p", &old, 30_001), Err(Distrust::Stale));
        assert_eq!(
            b.read::<i32>("/p", &HeaderMap::new(), 0),
            Err(Distrust::Unsigned)
        );
    }
}
