//! Settings of `--auth oidc`: whose tokens are believed, and how the console logs in.

use clap::Args;
use url::Url;

use super::ConfigError;

/// What the console asks for unless told otherwise. Many issuers give refresh tokens only for
/// `offline_access`, but some refuse the word, so it is for the operator to add.
const SCOPES: &str = "openid profile email";

/// Options of `segno serve` for mode `oidc`.
#[derive(Args, Clone, Debug, Default)]
pub struct OidcArgs {
    /// Issuer whose user tokens are accepted, e.g. https://login.example.com/realms/acme
    #[arg(long, env = "SEGNO_OIDC_ISSUER")]
    oidc_issuer: Option<String>,

    /// Audience that user tokens must name
    #[arg(long, env = "SEGNO_OIDC_AUDIENCE")]
    oidc_audience: Option<String>,

    /// Client id with which the console logs in (public client, authorization code with PKCE)
    #[arg(long, env = "SEGNO_OIDC_CLIENT_ID")]
    oidc_client_id: Option<String>,

    /// Scopes that the console asks for [default: openid profile email]
    #[arg(long, env = "SEGNO_OIDC_SCOPES")]
    oidc_scopes: Option<String>,

    /// Where the issuer's keys are [default: as the issuer's discovery document says]
    #[arg(long, env = "SEGNO_OIDC_JWKS_URL")]
    oidc_jwks_url: Option<String>,
}

/// Whose tokens are believed, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcConfig {
    /// The issuer, as it was given.
    pub issuer: String,
    /// What tokens must name as their audience.
    pub audience: String,
    /// The console's client id; without one nobody can log in there.
    pub client_id: Option<String>,
    /// Scopes that the console asks for, separated by spaces.
    pub scopes: String,
    /// Where the keys are, if not where discovery says.
    pub jwks_url: Option<Url>,
}

impl OidcArgs {
    /// Checks what is given.
    pub(super) fn resolve(self) -> Result<OidcConfig, ConfigError> {
        let given = |own: Option<String>| {
            own.map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let missing = |name, what| ConfigError::OidcMissing { name, what };
        let issuer = given(self.oidc_issuer).ok_or_else(|| {
            missing(
                "--oidc-issuer (SEGNO_OIDC_ISSUER)",
                "the URL of the identity provider, without /.well-known",
            )
        })?;
        let audience = given(self.oidc_audience).ok_or_else(|| {
            missing(
                "--oidc-audience (SEGNO_OIDC_AUDIENCE)",
                "the audience that the provider writes into tokens for this server",
            )
        })?;
        web_address("--oidc-issuer (SEGNO_OIDC_ISSUER)", &issuer)?;
        let jwks_url = given(self.oidc_jwks_url)
            .map(|text| web_address("--oidc-jwks-url (SEGNO_OIDC_JWKS_URL)", &text))
            .transpose()?;
        Ok(OidcConfig {
            issuer,
            audience,
            client_id: given(self.oidc_client_id),
            scopes: given(self.oidc_scopes).unwrap_or_else(|| SCOPES.to_owned()),
            jwks_url,
        })
    }
}

impl OidcConfig {
    /// What is left to defaults when only these are known.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            client_id: None,
            scopes: SCOPES.to_owned(),
            jwks_url: None,
        }
    }
}

fn web_address(name: &'static str, text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    url.ok_or(ConfigError::OidcAddress { name })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(issuer: &str, audience: &str) -> OidcArgs {
        OidcArgs {
            oidc_issuer: Some(issuer.to_owned()),
            oidc_audience: Some(audience.to_owned()),
            ..OidcArgs::default()
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = args("", "segno").resolve().unwrap_err().to_string();
        assert!(error.contains("SEGNO_OIDC_ISSUER"), "{error}");
        let error = args("https://login.example.com", " ")
            .resolve()
            .unwrap_err();
        assert!(error.to_string().contains("SEGNO_OIDC_AUDIENCE"), "{error}");
    }

    #[test]
    fn an_issuer_is_a_web_address() {
        for bad in [
            "login.example.com",
            "ftp://x/",
            "https://u:p@x/",
            "https://x/#y",
        ] {
            let error = args(bad, "segno").resolve().unwrap_err().to_string();
            assert!(error.contains("SEGNO_OIDC_ISSUER"), "{error}");
            assert!(!error.contains("u:p"), "{error}");
        }
        let good = args("https://login.example.com/", "segno")
            .resolve()
            .unwrap();
        assert_eq!(good.issuer, "https://login.example.com/");
        assert_eq!(good.scopes, SCOPES);
    }
}
