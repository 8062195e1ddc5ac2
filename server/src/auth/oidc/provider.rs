//! What the issuer says about itself: its discovery document and its keys, kept for a while.
//!
//! They are asked for again when a token names an unknown key (keys rotate) and when they grow old
//! (withdrawn keys must go). One question runs at a time, and junk tokens cannot make it many: after a
//! few in a row there is one every [`REFILL`]. While the issuer is down its last keys stay good.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::fetch::{FetchError, Fetcher};
use super::keys::Keys;
use super::{TokenError, same_issuer};
use crate::config::OidcConfig;

/// Keys older than this are asked for again, in the background, when they are used.
const FRESH: Duration = Duration::from_secs(300);
/// Questions that may follow each other at once, and how fast that allowance comes back.
const BURST: u32 = 4;
const REFILL: Duration = Duration::from_secs(5);

/// The issuer's discovery document (OpenID Connect Discovery 1.0, 3), as far as we need it.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    issuer: String,
    #[serde(default, deserialize_with = "address")]
    jwks_uri: Option<Url>,
    /// Tells a person's e-mail address.
    #[serde(default, deserialize_with = "address")]
    pub userinfo_endpoint: Option<Url>,
    /// Where a browser goes to log in.
    #[serde(default, deserialize_with = "address")]
    pub authorization_endpoint: Option<Url>,
    /// Where it gets its tokens.
    #[serde(default, deserialize_with = "address")]
    pub token_endpoint: Option<Url>,
    /// Where it goes to log out.
    #[serde(default, deserialize_with = "address")]
    pub end_session_endpoint: Option<Url>,
}

/// An address that cannot be one counts as absent.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| Url::parse(&text).ok()))
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Clone, Default)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    keys: Arc<Keys>,
    /// When the keys were read.
    at: Option<Instant>,
}

/// How often the issuer may be asked, and how the last question ended.
struct Allowance {
    left: u32,
    since: Instant,
    answered: bool,
}

pub(super) struct Provider {
    issuer: String,
    jwks_url: Option<Url>,
    fetcher: Fetcher,
    known: RwLock<Known>,
    asking: Mutex<Allowance>,
}

/// Why the issuer's answers cannot be used.
#[derive(Debug, thiserror::Error)]
enum ProviderError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "the document at {at} is of the issuer {found}: SEGNO_OIDC_ISSUER must be exactly that"
    )]
    OtherIssuer { at: Url, found: String },
    #[error("the issuer's discovery document names no jwks_uri")]
    NoKeys,
    #[error("{0} is not https, but the issuer is")]
    Insecure(Url),
    #[error("the issuer's address is not one")]
    Address,
}

impl Provider {
    pub(super) fn new(config: &OidcConfig, fetcher: Fetcher) -> Self {
        Self {
            issuer: config.issuer.clone(),
            jwks_url: config.jwks_url.clone(),
            fetcher,
            known: RwLock::default(),
            asking: Mutex::new(Allowance {
                left: BURST,
                since: Instant::now(),
                answered: false,
            }),
        }
    }

    /// The key that is said to have signed a token.
    pub(super) async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, TokenError> {
        let known = self.known();
        if let Some(key) = known.keys.find(id, algorithm) {
            if known.at.is_some_and(|at| at.elapsed() > FRESH) {
                self.clone().refresh_in_background();
            }
            return Ok(key.clone());
        }
        let answered = self.refresh(known.at).await;
        let known = self.known();
        match known.keys.find(id, algorithm) {
            Some(key) => Ok(key.clone()),
            None if answered => Err(TokenError::UnknownKey),
            None => Err(TokenError::Unavailable),
        }
    }

    /// The discovery document, asked for if it was never read.
    pub(super) async fn metadata(&self) -> Option<Arc<Metadata>> {
        if let Some(metadata) = self.known_metadata() {
            return Some(metadata);
        }
        self.refresh(self.known().at).await;
        self.known_metadata()
    }

    pub(super) fn known_metadata(&self) -> Option<Arc<Metadata>> {
        self.known().metadata
    }

    pub(super) fn refresh_in_background(self: Arc<Self>) {
        let seen = self.known().at;
        tokio::spawn(async move { self.refresh(seen).await });
    }

    fn known(&self) -> Known {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the issuer, unless somebody has since the keys of `seen` were looked at, or it was asked too
    /// often. Whether the last question was answered.
    async fn refresh(&self, seen: Option<Instant>) -> bool {
        let mut allowance = self.asking.lock().await;
        if self.known().at != seen {
            return true;
        }
        if !allowance.take(Instant::now()) {
            return allowance.answered;
        }
        let result = self.ask().await;
        allowance.answered = result.is_ok();
        if let Err(error) = &result {
            tracing::warn!(%error, "the issuer of user tokens cannot be asked for its keys");
        }
        allowance.answered
    }

    async fn ask(&self) -> Result<(), ProviderError> {
        let metadata = self.discover().await;
        if let Ok(metadata) = &metadata {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.metadata = Some(metadata.clone());
        }
        let url = match (&self.jwks_url, metadata) {
            (Some(url), _) => url.clone(),
            (None, Ok(metadata)) => metadata.jwks_uri.clone().ok_or(ProviderError::NoKeys)?,
            (None, Err(error)) => return Err(error),
        };
        let set: KeySet = self.fetcher.json(&url).await?;
        let keys = Keys::read(set.keys);
        if keys.is_empty() {
            tracing::warn!(%url, "the issuer publishes no key that could sign tokens");
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.keys = Arc::new(keys);
        known.at = Some(Instant::now());
        Ok(())
    }

    async fn discover(&self) -> Result<Arc<Metadata>, ProviderError> {
        let text = format!(
            "{}/.well-known/openid-configuration",
            self.issuer.trim_end_matches('/')
        );
        let url = Url::parse(&text).map_err(|_| ProviderError::Address)?;
        let metadata: Metadata = self.fetcher.json(&url).await?;
        if !same_issuer(&metadata.issuer, &self.issuer) {
            return Err(ProviderError::OtherIssuer {
                at: url,
                found: metadata.issuer,
            });
        }
        if url.scheme() == "https" {
            for address in [&metadata.jwks_uri, &metadata.userinfo_endpoint] {
                if let Some(address) = address
                    && address.scheme() != "https"
                {
                    return Err(ProviderError::Insecure(address.clone()));
                }
            }
        }
        Ok(Arc::new(metadata))
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let back = now.duration_since(self.since).as_secs() / REFILL.as_secs();
        if back > 0 {
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(back).min(BURST);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_cannot_make_many_questions() {
        let start = Instant::now();
        let mut allowance = Allowance {
            left: BURST,
            since: start,
            answered: true,
        };
        let asked = (0..60_000).filter(|ms| allowance.take(start + Duration::from_millis(*ms)));
        let most = BURST as usize + 60 / REFILL.as_secs() as usize;
        assert!((1..=most).contains(&asked.count()));
    }
}
