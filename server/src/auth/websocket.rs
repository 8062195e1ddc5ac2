//! Why an executor may not connect.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why an executor may not connect. Its text is shown to the person at the other end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebsocketReject {
    /// The key is unknown or revoked.
    #[error(
        "unknown API key: create one in the console or with `dbosctl api-key create`, and give it to the application"
    )]
    UnknownKey,
    /// The key lacks `websocket.connect`.
    #[error("this API key lacks the permission websocket.connect")]
    MayNotConnect,
    /// The key does not cover the application.
    #[error("this API key does not cover the application `{0}`")]
    OutOfScope(String),
    /// No application of this name.
    #[error(
        "there is no application `{0}`: register it in the console or with `dbosctl app register {0}`"
    )]
    UnknownApp(String),
    /// Too many wrong keys from this address.
    #[error("too many unknown API keys from this address; try again later")]
    TooManyGuesses,
    /// The server's own database is away.
    #[error("the server's database is unavailable; try again")]
    Unavailable,
}

impl WebsocketReject {
    /// The status of the refusal.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownKey => StatusCode::UNAUTHORIZED,
            Self::MayNotConnect | Self::OutOfScope(_) => StatusCode::FORBIDDEN,
            Self::UnknownApp(_) => StatusCode::NOT_FOUND,
            Self::TooManyGuesses => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::MayNotConnect => "may_not_connect",
            Self::OutOfScope(_) => "out_of_scope",
            Self::UnknownApp(_) => "unknown_app",
            Self::TooManyGuesses => "too_many_guesses",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Short plain UTF-8 text with a length: some SDKs choke on anything else.
impl IntoResponse for WebsocketReject {
    fn into_response(self) -> Response {
        let text = self.to_string();
        (
            self.status(),
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            text,
        )
            .into_response()
    }
}
