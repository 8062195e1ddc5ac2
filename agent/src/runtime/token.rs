//! Tokens by which a process knows what it owns.

use uuid::{Builder, Uuid};

/// Bytes of a token that all tokens of a runtime have in common.
const SHARED: usize = 6;

/// Characters that these take in a token, the hyphen between them included.
const PREFIX: usize = 13;

/// Makes the tokens of one runtime. They are random UUIDs, for to everybody else an owner is a text to compare, but begin
/// alike: so a runtime knows its own from those of another one under the same executor id, such as its predecessor.
pub(super) struct Tokens {
    shared: [u8; SHARED],
}

impl Tokens {
    pub(super) fn new() -> Self {
        let mut shared = [0; SHARED];
        shared.copy_from_slice(&Uuid::new_v4().as_bytes()[..SHARED]);
        Self { shared }
    }

    /// One that nobody has.
    pub(super) fn next(&self) -> String {
        let mut bytes = *Uuid::new_v4().as_bytes();
        bytes[..SHARED].copy_from_slice(&self.shared);
        Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// What all of them begin with.
    pub(super) fn prefix(&self) -> String {
        let mut token = self.next();
        token.truncate(PREFIX);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_runtime_differ_and_begin_alike() {
        let tokens = Tokens::new();
        let (one, other) = (tokens.next(), tokens.next());
        assert_ne!(one, other);
        assert!(one.starts_with(&tokens.prefix()) && other.starts_with(&tokens.prefix()));
        assert!(!one.starts_with(&Tokens::new().prefix()));
        let version = Uuid::parse_str(&one).map(|token| token.get_version_num());
        assert_eq!(version, Ok(4));
    }
}
