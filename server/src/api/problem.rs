//! Error answers: RFC 9457 `application/problem+json` with the list of everything that is wrong.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::store::StoreError;

/// An error answer. `detail` tells the caller what to do.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: Option<Kind>,
    detail: String,
    errors: Vec<ErrorDetail>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Kinds of problems that programs may want to tell apart although they share a status; shown as the
/// problem's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 503: no executor of the application is connected.
    NoExecutor,
    /// 503: executors are connected, but none of the version needed.
    NoExecutorOfVersion,
    /// 503: the server's own database is away.
    StoreUnavailable,
    /// 503: the issuer of users' tokens cannot be asked for its keys.
    IssuerUnavailable,
    /// 503: this instance of the server is leaving.
    ShuttingDown,
}

impl Kind {
    /// The URI. It is a name, there is nothing to be found at it.
    pub fn uri(self) -> &'static str {
        match self {
            Self::NoExecutor => "urn:segno:problem:no-executor",
            Self::NoExecutorOfVersion => "urn:segno:problem:no-executor-of-version",
            Self::StoreUnavailable => "urn:segno:problem:store-unavailable",
            Self::IssuerUnavailable => "urn:segno:problem:issuer-unavailable",
            Self::ShuttingDown => "urn:segno:problem:shutting-down",
        }
    }
}

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Where, for example `body.workflowIds[3]` or `path.appName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The value at that place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// The body of every error answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorModel {
    /// What happened and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Everything that is wrong with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<ErrorDetail>>,
    /// A URI of this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// The text of the HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A URI of the kind of problem, where the status alone does not tell: for a 503
    /// urn:segno:problem:no-executor, no-executor-of-version, store-unavailable,
    /// issuer-unavailable or shutting-down.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl Problem {
    /// A problem of any status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind: None,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: no valid credential.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: in conflict with what exists.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 422 (or 400 for an unreadable body): the parameters or the body break the schema.
    pub fn invalid(status: StatusCode, errors: Vec<ErrorDetail>) -> Self {
        Self {
            errors,
            ..Self::new(status, "validation failed")
        }
    }

    /// 500: our fault. The cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error; the server's log tells more",
        )
    }

    /// 503, to be tried again in `seconds`.
    pub fn unavailable(kind: Kind, detail: impl Into<String>, seconds: u32) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds));
        Self {
            kind: Some(kind),
            ..problem
        }
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let model = ErrorModel {
            detail: Some(self.detail),
            errors: (!self.errors.is_empty()).then_some(self.errors),
            instance: None,
            status: Some(i64::from(self.status.as_u16())),
            title: self.status.canonical_reason().map(str::to_owned),
            kind: self.kind.map(|kind| kind.uri().to_owned()),
        };
        let body = serde_json::to_vec(&model).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response =
            (self.status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        response.headers_mut().extend(
            self.headers
                .into_iter()
                .map(|(name, value)| (Some(name), value))
                .filter_map(|(name, value)| name.map(|name| (name, value))),
        );
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(%cause, "the store is unavailable");
                Self::unavailable(
                    Kind::StoreUnavailable,
                    "the server's database is unavailable; try again",
                    2,
                )
            }
            StoreError::NotFound => Self::not_found("it does not exist, or no longer"),
            StoreError::Taken => Self::conflict("the name is taken"),
            other => Self::internal(&other),
        }
    }
}
