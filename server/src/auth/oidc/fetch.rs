//! Questions to the issuer: bounded in time and size, redirected within one origin only.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder};
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::Secret;

/// Largest answer, bytes.
const LARGEST: usize = 1 << 20;
/// Until a connection stands, and until the whole answer is there.
const CONNECT: Duration = Duration::from_secs(3);
const TOTAL: Duration = Duration::from_secs(5);
const REDIRECTS: usize = 3;

/// Why the issuer gave no useful answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url}: {source}")]
    Unreachable { url: Url, source: reqwest::Error },
    #[error("{url} answered {status}")]
    Status { url: Url, status: u16 },
    #[error("the answer of {url} is larger than {LARGEST} bytes")]
    TooLarge { url: Url },
    #[error("the answer of {url} is not what it should be: {source}")]
    Unreadable { url: Url, source: serde_json::Error },
    #[error("the HTTP client could not be made: {0}")]
    NoClient(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: Result<Client, String>,
}

impl Fetcher {
    pub(super) fn new() -> Self {
        let within_origin = Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if from.as_ref() != Some(&attempt.url().origin()) {
                attempt.error("a redirect to another origin is not followed")
            } else if attempt.previous().len() > REDIRECTS {
                attempt.error("too many redirects")
            } else {
                attempt.follow()
            }
        });
        let mut builder = Client::builder()
            .redirect(within_origin)
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .user_agent(concat!("segno/", env!("CARGO_PKG_VERSION")));
        // Beside the well-known authorities those of this machine: many issuers are in-house.
        for certificate in rustls_native_certs::load_native_certs().certs {
            if let Ok(certificate) = Certificate::from_der(&certificate) {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Self {
            client: builder.build().map_err(|error| error.to_string()),
        }
    }

    /// Gets a JSON document.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, FetchError> {
        self.send(url, |request| request).await
    }

    /// Gets a JSON document about the holder of a token.
    pub(super) async fn json_with<T: DeserializeOwned>(
        &self,
        url: &Url,
        token: &Secret,
    ) -> Result<T, FetchError> {
        self.send(url, |request| request.bearer_auth(token.expose()))
            .await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        url: &Url,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, FetchError> {
        let client = self
            .client
            .as_ref()
            .map_err(|error| FetchError::NoClient(error.clone()))?;
        let unreachable = |source: reqwest::Error| FetchError::Unreachable {
            url: url.clone(),
            source: source.without_url(),
        };
        let request = client.get(url.clone()).header("accept", "application/json");
        let mut response = with(request).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(FetchError::Status {
                url: url.clone(),
                status: response.status().as_u16(),
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(FetchError::TooLarge { url: url.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|source| FetchError::Unreadable {
            url: url.clone(),
            source,
        })
    }
}
