//! One token: from its text to the person it names, or the reason why not.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::provider::Provider;
use super::same_issuer;
use crate::api::problem::{Kind, Problem};
use crate::auth::Person;
use crate::config::{OidcConfig, Secret};

/// Longest token that is looked at, bytes.
const LONGEST: usize = 16 * 1024;
/// Longest subject (OpenID Connect Core, 2).
const LONGEST_SUBJECT: usize = 255;
/// By how much clocks may differ, in seconds.
const LEEWAY: u64 = 60;

const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];

/// Why a token is not believed. Its text is for whoever sent it, and never holds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It will never be right.
    #[error("the token is {0}")]
    Invalid(&'static str),
    /// Its time is over.
    #[error("the token has expired; log in again")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; do the clocks agree?")]
    NotYet,
    /// The issuer publishes no key of that id.
    #[error("the token is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// The issuer cannot be asked for its keys.
    #[error("the identity provider cannot be reached, so tokens cannot be checked; try again")]
    Unavailable,
}

impl TokenError {
    /// Whether the same token will be refused again whatever happens.
    pub(in crate::auth) fn is_final(self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Expired)
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable => {
                Self::unavailable(Kind::IssuerUnavailable, error.to_string(), 5)
            }
            _ => Self::unauthorized(error.to_string()).with_header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            ),
        }
    }
}

/// A truth value that some issuers write as text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Verified {
    Flag(bool),
    Text(String),
    Other(serde::de::IgnoredAny),
}

/// Only what the issuer does not say to be unverified is worth anything: people can often write into
/// their profile what they like.
pub(super) fn trusted_email(email: Option<String>, verified: Option<Verified>) -> Option<String> {
    let trusted = match verified {
        None | Some(Verified::Flag(true)) => true,
        Some(Verified::Text(text)) => text.eq_ignore_ascii_case("true"),
        Some(Verified::Flag(false) | Verified::Other(_)) => false,
    };
    email.filter(|email| trusted && email.len() <= 254 && email.contains('@'))
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    email: Option<String>,
    email_verified: Option<Verified>,
}

#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

/// The person whom `token` names.
pub(super) async fn verify(
    token: &str,
    config: &OidcConfig,
    provider: &Arc<Provider>,
) -> Result<Person, TokenError> {
    if token.len() > LONGEST {
        return Err(TokenError::Invalid("too long"));
    }
    let header = decode_header(token).map_err(|_| {
        TokenError::Invalid(
            "neither an API key (dbos_…) nor a signed token (JWT) of an accepted kind",
        )
    })?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(TokenError::Invalid(
            "signed with an algorithm that is not accepted",
        ));
    }
    if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
        return Err(TokenError::Invalid("of a kind that is not understood"));
    }
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !matches!(kind.trim_start_matches("application/"), "jwt" | "at+jwt") {
        return Err(TokenError::Invalid("not an access token"));
    }
    // Only a token that claims to be of our issuer makes us ask the issuer.
    let claimed: Unverified = jsonwebtoken::dangerous::insecure_decode(token)
        .map_err(|_| TokenError::Invalid("without readable claims"))?
        .claims;
    if !same_issuer(&claimed.iss, &config.issuer) {
        return Err(TokenError::Invalid(
            "of another issuer than SEGNO_OIDC_ISSUER",
        ));
    }
    let key = provider.key(header.kid.as_deref(), header.alg).await?;
    let claims = decode::<Claims>(token, &key, &validation(header.alg, config))
        .map_err(|error| reason(error.kind()))?
        .claims;
    if claims.sub.is_empty() || claims.sub.len() > LONGEST_SUBJECT {
        return Err(TokenError::Invalid("without a usable subject"));
    }
    Ok(Person {
        issuer: claims.iss.trim_end_matches('/').to_owned(),
        subject: claims.sub,
        email: trusted_email(claims.email, claims.email_verified),
        token: Secret::new(token),
    })
}

fn validation(algorithm: Algorithm, config: &OidcConfig) -> Validation {
    let bare = config.issuer.trim_end_matches('/');
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_issuer(&[bare.to_owned(), format!("{bare}/")]);
    validation.set_audience(&[&config.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}

fn reason(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidAudience => {
            TokenError::Invalid("not for this server: its audience is not SEGNO_OIDC_AUDIENCE")
        }
        ErrorKind::InvalidIssuer => TokenError::Invalid("of another issuer than SEGNO_OIDC_ISSUER"),
        ErrorKind::MissingRequiredClaim(_) => {
            TokenError::Invalid("without one of the claims exp, iss, aud and sub")
        }
        ErrorKind::InvalidSignature => TokenError::Invalid("not signed by its issuer"),
        _ => TokenError::Invalid("not well-formed"),
    }
}
