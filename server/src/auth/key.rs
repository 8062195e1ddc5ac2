//! The text of an API key: `dbos_{organization id}_{256 random bits}`, of `A-Z a-z 0-9 _ -` only,
//! because SDKs put it into a URL path as it is.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// What every API key begins with, and no token of an issuer does.
pub const PREFIX: &str = "dbos_";

/// A fresh key of an organization.
pub fn generate(org_id: &str) -> Secret {
    let secret: [u8; 32] = rand::random();
    Secret::new(format!("dbos_{org_id}_{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// SHA-256 in hexadecimal: what is stored and compared.
pub fn hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares two hashes without revealing where they differ.
pub fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_survive_a_url_path_and_differ() {
        let org = "0b9f3e9e-9c0a-4d53-8b53-3f1f6f9f1d11";
        let (one, other) = (generate(org), generate(org));
        assert_ne!(one.expose(), other.expose());
        let text = one.expose();
        assert!(text.starts_with(&format!("dbos_{org}_")));
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        );
    }

    #[test]
    fn hashes_compare() {
        assert_eq!(
            hash(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(same(&hash("a"), &hash("a")));
        assert!(!same(&hash("a"), &hash("b")));
    }
}
