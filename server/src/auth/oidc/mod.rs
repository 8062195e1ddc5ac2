//! Tokens of an OpenID Connect issuer: who they name, and whether to believe them.
//!
//! A token is believed if a key that the issuer publishes signed it, with an asymmetric algorithm of
//! our list, and its issuer, audience and times are right (OpenID Connect Core, RFC 7519, RFC 8725).
//! Whatever a token says about where to find its key (`jku`, `jwk`, `x5u`, `x5c`) is ignored.

use std::sync::Arc;

use url::Url;

use super::Person;
use crate::config::OidcConfig;

mod fetch;
mod keys;
mod provider;
mod token;
mod userinfo;

pub use provider::Metadata;
pub use token::TokenError;

use fetch::Fetcher;
use provider::Provider;
use userinfo::Emails;

/// The issuer of user tokens. Cheap to clone.
#[derive(Clone)]
pub struct Oidc {
    inner: Arc<Inner>,
}

struct Inner {
    config: OidcConfig,
    fetcher: Fetcher,
    provider: Arc<Provider>,
    emails: Emails,
}

impl Oidc {
    /// Begins to ask the issuer for its keys, in the background: it may be down for now.
    pub fn new(config: OidcConfig) -> Self {
        let fetcher = Fetcher::new();
        let provider = Arc::new(Provider::new(&config, fetcher.clone()));
        provider.clone().refresh_in_background();
        Self {
            inner: Arc::new(Inner {
                config,
                fetcher,
                provider,
                emails: Emails::default(),
            }),
        }
    }

    /// Whose tokens are believed.
    pub fn config(&self) -> &OidcConfig {
        &self.inner.config
    }

    /// The person whom a token names, if it is to be believed.
    pub async fn verify(&self, token: &str) -> Result<Person, TokenError> {
        token::verify(token, &self.inner.config, &self.inner.provider).await
    }

    /// The e-mail address of a person: from their token, else from the issuer's userinfo endpoint.
    /// None if the issuer does not tell, or has not verified it.
    pub async fn email(&self, person: &Person) -> Option<String> {
        if person.email.is_some() {
            return person.email.clone();
        }
        let metadata = self.inner.provider.metadata().await?;
        let endpoint = metadata.userinfo_endpoint.as_ref()?;
        self.inner
            .emails
            .ask(&self.inner.fetcher, endpoint, person)
            .await
    }

    /// What the issuer's discovery document says; none as long as it could not be read.
    pub async fn metadata(&self) -> Option<Arc<Metadata>> {
        self.inner.provider.metadata().await
    }

    /// Origins that a browser talks to while somebody logs in.
    pub fn browser_origins(&self) -> Vec<String> {
        let issuer = Url::parse(&self.inner.config.issuer).ok();
        let metadata = self.inner.provider.known_metadata();
        let endpoints = metadata.iter().flat_map(|metadata| {
            [&metadata.token_endpoint, &metadata.userinfo_endpoint]
                .into_iter()
                .flatten()
        });
        let mut origins: Vec<String> = issuer
            .iter()
            .chain(endpoints)
            .map(|url| url.origin().ascii_serialization())
            .collect();
        origins.sort();
        origins.dedup();
        origins
    }
}

/// Issuers are compared without the slash that some write at the end.
fn same_issuer(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}
