//! The keys that an issuer publishes (RFC 7517), and which of them may have signed what.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// Most keys that are taken from one set.
const MOST: usize = 100;
/// Shortest RSA modulus that is trusted, as base64 characters: 2048 bits (RFC 7518, 3.3).
const LEAST_MODULUS: usize = 2048usize.div_ceil(6);

/// A set of keys; those for other purposes or of kinds we do not take are left out.
#[derive(Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    kind: Kind,
    /// The only algorithm it is for, if it says so.
    only: Option<KeyAlgorithm>,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

impl Keys {
    /// Reads the members of `keys`.
    pub(super) fn read(set: Vec<Value>) -> Self {
        let keys = set
            .into_iter()
            .filter_map(|value| serde_json::from_value(value).ok())
            .filter_map(|jwk| Key::read(&jwk));
        Self {
            keys: keys.take(MOST).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of that id. A token without a key id means the only key that fits, if there is one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        match id {
            Some(id) => fitting
                .find(|key| key.id.as_deref() == Some(id))
                .map(|key| &key.key),
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(&only.key),
                _ => None,
            },
        }
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|uses| uses.contains(&KeyOperations::Verify));
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if rsa.n.len() >= LEAST_MODULUS => Kind::Rsa,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Kind::P256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => Kind::P384,
            _ => return None,
        };
        (signs && verifies).then_some(())?;
        Some(Self {
            id: common.key_id.clone(),
            kind,
            only: common.key_algorithm,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => Kind::Rsa,
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => Kind::Rsa,
            Algorithm::ES256 => Kind::P256,
            Algorithm::ES384 => Kind::P384,
            _ => return false,
        };
        let name = KeyAlgorithm::from(algorithm);
        self.kind == kind && self.only.is_none_or(|only| only == name)
    }
}
