//! How channels' secrets are stored. They must be used, so a hash will not do: they are sealed
//! (AES-256-GCM) with `SEGNO_ENCRYPTION_KEY`, where the operator gave one, and plain where not: then
//! whoever reads the database reads them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::config::Secret;

const PLAIN: &str = "plain:";
const SEALED: &str = "aes256gcm:";

/// Seals and opens secrets.
#[derive(Clone, Debug, Default)]
pub struct Sealer {
    key: Option<Secret>,
}

/// A stored secret that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed, and there is no key.
    #[error(
        "the channel's secrets are encrypted and the server has no SEGNO_ENCRYPTION_KEY; give it, or set the \
         secrets again"
    )]
    NoKey,
    /// It was sealed with another key, or damaged.
    #[error(
        "the channel's secrets were encrypted with another SEGNO_ENCRYPTION_KEY; give that one, or set the \
         secrets again"
    )]
    OtherKey,
    /// The cipher failed.
    #[error("the channel's secrets could not be encrypted")]
    Cipher,
}

impl Sealer {
    /// With the operator's key, if there is one.
    pub fn new(key: Option<Secret>) -> Self {
        Self { key }
    }

    /// `plain` in the form in which it is stored. `owner` is bound to it: moved to another owner's row
    /// it does not open.
    pub fn seal(&self, owner: &str, plain: &str) -> Result<String, SealError> {
        let Some(key) = &self.key else {
            return Ok(format!("{PLAIN}{plain}"));
        };
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.as_bytes().to_vec();
        cipher(key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(owner.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| SealError::Cipher)?;
        let text = STANDARD.encode([&nonce[..], &sealed].concat());
        Ok(format!("{SEALED}{text}"))
    }

    /// What [`Sealer::seal`] was given.
    pub fn open(&self, owner: &str, stored: &str) -> Result<Secret, SealError> {
        if let Some(plain) = stored.strip_prefix(PLAIN) {
            return Ok(Secret::new(plain));
        }
        let key = self.key.as_ref().ok_or(SealError::NoKey)?;
        let text = stored.strip_prefix(SEALED).ok_or(SealError::OtherKey)?;
        let bytes = STANDARD.decode(text).map_err(|_| SealError::OtherKey)?;
        let (nonce, sealed) = bytes
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::OtherKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::OtherKey)?;
        let mut sealed = sealed.to_vec();
        let plain = cipher(key)?
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::OtherKey)?;
        let plain = std::str::from_utf8(plain).map_err(|_| SealError::OtherKey)?;
        Ok(Secret::new(plain))
    }
}

/// Whether a stored secret is encrypted.
pub fn is_sealed(stored: &str) -> bool {
    stored.starts_with(SEALED)
}

fn cipher(key: &Secret) -> Result<LessSafeKey, SealError> {
    let mut hash = Sha256::new();
    hash.update(b"segno channel secrets\0");
    hash.update(key.expose());
    UnboundKey::new(&AES_256_GCM, &hash.finalize())
        .map(LessSafeKey::new)
        .map_err(|_| SealError::Cipher)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_same_key_and_owner_open_a_secret() {
        let sealer = Sealer::new(Some(Secret::new("k".repeat(32))));
        let stored = sealer.seal("one", "https://hooks/secret").unwrap();
        assert!(!stored.contains("secret"));
        assert_eq!(
            sealer.open("one", &stored).unwrap().expose(),
            "https://hooks/secret"
        );
        assert_eq!(sealer.open("two", &stored), Err(SealError::OtherKey));
        assert_eq!(
            Sealer::default().open("one", &stored),
            Err(SealError::NoKey)
        );
        let other = Sealer::new(Some(Secret::new("l".repeat(32))));
        assert_eq!(other.open("one", &stored), Err(SealError::OtherKey));
        // A key that comes later does not shut out what was stored before.
        let plain = Sealer::default().seal("one", "x").unwrap();
        assert_eq!(sealer.open("one", &plain).unwrap().expose(), "x");
    }
}
