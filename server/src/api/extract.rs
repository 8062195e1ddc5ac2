//! What handlers take and give. Everything that can be wrong with a request was found by the
//! [`gate`](super::gate) before, so these extractors only hand over.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::audit::Audit;
use super::gate::Admitted;
use super::problem::Problem;
use crate::auth::{Caller, Identity};
use crate::state::AppState;
use crate::store::apps::AppRow;

/// The application that the path names; the caller may see it and do what the route declares.
#[derive(Clone, Debug)]
pub struct App(pub AppRow);

/// The path's parameters, decoded.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

/// The query's parameters.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

/// The JSON body. A body that may be missing and is missing reads as `{}`.
#[derive(Clone, Debug)]
pub struct Body<T>(pub T);

fn admitted(parts: &Parts) -> Result<&Admitted, Problem> {
    // Only a route outside the gate lacks it; `gate::Operations` refuses to start with one.
    parts
        .extensions
        .get::<Admitted>()
        .ok_or_else(|| Problem::internal(&"a handler was reached without passing the gate"))
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    T::deserialize(value).map_err(|error| {
        // The schema allowed what the type refuses: the two disagree.
        Problem::bad_request(format!("validation failed: {error}"))
    })
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let caller = admitted(parts)?.identity.caller.clone();
        caller.ok_or_else(|| {
            Problem::internal(&"a route for unregistered callers asked for their organization")
        })
    }
}

impl FromRequestParts<AppState> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        Ok(admitted(parts)?.identity.clone())
    }
}

impl FromRequestParts<AppState> for App {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let app = admitted(parts)?.app.clone();
        app.map(Self).ok_or_else(|| {
            Problem::internal(&"a route without {appName} asked for its application")
        })
    }
}

impl FromRequestParts<AppState> for Audit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        let audit = admitted(parts)?.audit.clone();
        audit.ok_or_else(|| {
            Problem::internal(&"a route without x-segno-audit asked for its audit entry")
        })
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        read(&admitted(parts)?.path).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        read(&admitted(parts)?.query).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for Body<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        read(&admitted(parts)?.body).map(Self)
    }
}

/// An object as a whole answer. A `Link` says where its schema is: the member `$schema`, which the
/// document allows, would have to be an absolute URL, and the server does not know the one it is
/// reached at.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<T: Serialize + ToSchema> IntoResponse for Object<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response =
                    ([(header::CONTENT_TYPE, "application/json")], body).into_response();
                let link = format!("</schemas/{}.json>; rel=\"describedBy\"", T::name());
                if let Ok(link) = HeaderValue::from_str(&link) {
                    response.headers_mut().insert(header::LINK, link);
                }
                response
            }
            Err(error) => Problem::internal(&error).into_response(),
        }
    }
}

/// 201 with the new thing, and where it is if it has a place of its own.
#[derive(Debug)]
pub struct Created<T> {
    /// The answer.
    pub object: T,
    /// Segments of the path of what was made, not yet percent-encoded; empty: no `Location`.
    pub location: Vec<String>,
}

impl<T: Serialize + ToSchema> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut response = Object(self.object).into_response();
        if response.status() == StatusCode::OK {
            *response.status_mut() = StatusCode::CREATED;
        }
        if !self.location.is_empty() {
            let path: String = self
                .location
                .iter()
                .map(|part| format!("/{}", encode_segment(part)))
                .collect();
            if let Ok(path) = HeaderValue::from_str(&path) {
                response.headers_mut().insert(header::LOCATION, path);
            }
        }
        response
    }
}

/// Percent-encodes one segment of a path.
pub fn encode_segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(text, KEEP).to_string()
}
