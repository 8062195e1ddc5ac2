//! `Idempotency-Key`: for a day a repeat by the same caller on the same route with the same body gets
//! the first answer.
//!
//! An answer may hold a new API key, which must be in the database only as a hash. So answers are
//! sealed (AES-256-GCM) with a key made of what only the caller has: their credential and the text
//! of the idempotency key. A person's token changes within the day, so for people it is who they are
//! and that text.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::Problem;
use crate::auth::Identity as CallerIdentity;
use crate::auth::key;
use crate::state::AppState;
use crate::store::idempotency::Claim;

const HEADER: &str = "idempotency-key";
/// Longest accepted key, bytes.
const LONGEST: usize = 255;
/// Largest answer that is kept.
const LARGEST: usize = 1 << 20;
/// Headers of an answer that are part of it.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::LINK];

/// A request that carries an idempotency key.
#[derive(Clone)]
pub(super) struct Fingerprint(Option<Identity>);

#[derive(Clone)]
struct Identity {
    /// Hash of caller and key.
    id: String,
    /// Hash of method, path, query and body.
    request: String,
    /// Seals the answer.
    seal: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Reads the header, if there is one. 400 if it cannot be one.
pub(super) fn fingerprint(
    parts: &Parts,
    caller: &CallerIdentity,
    body: &[u8],
) -> Result<Fingerprint, Problem> {
    let Some(value) = parts.headers.get(HEADER) else {
        return Ok(Fingerprint(None));
    };
    if value.is_empty() || value.len() > LONGEST {
        return Err(Problem::bad_request(format!(
            "Idempotency-Key must have 1 to {LONGEST} characters"
        )));
    }
    let hash = |texts: &[&[u8]]| -> [u8; 32] {
        let mut hash = Sha256::new();
        for text in texts {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    };
    let principal = caller.principal();
    let credential = match &caller.person {
        Some(_) => principal.as_bytes(),
        None => parts
            .headers
            .get(header::AUTHORIZATION)
            .map_or(&b""[..], HeaderValue::as_bytes),
    };
    let uri = parts.uri.path_and_query().map_or("", |path| path.as_str());
    Ok(Fingerprint(Some(Identity {
        id: key::hex(&hash(&[principal.as_bytes(), value.as_bytes()])),
        request: key::hex(&hash(&[
            parts.method.as_str().as_bytes(),
            uri.as_bytes(),
            body,
        ])),
        seal: hash(&[b"segno idempotent answer", credential, value.as_bytes()]),
    })))
}

/// Runs the handler, or gives the first answer again.
pub(super) async fn once(state: &AppState, request: Request, next: Next) -> Response {
    let fingerprint = request.extensions().get::<Fingerprint>().cloned();
    let Some(Fingerprint(Some(identity))) = fingerprint else {
        return next.run(request).await;
    };
    let instance = state.recovery.instance();
    let mut second = false;
    match state
        .store
        .claim_idempotency(
            &identity.id,
            &identity.request,
            instance.id(),
            instance.expiry_ms(),
        )
        .await
    {
        Ok(Claim::Fresh) => {}
        Ok(Claim::CutOff) => second = true,
        Ok(Claim::Running) => {
            let detail = "a request with this Idempotency-Key is still being served; try again";
            return Problem::conflict(detail).into_response();
        }
        Ok(Claim::Different) => {
            let detail = "this Idempotency-Key was used for another request; use a new one";
            return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).into_response();
        }
        Ok(Claim::Answered(sealed)) => {
            let again = open(&sealed, &identity.seal).map(Answer::into_response);
            return again.unwrap_or_else(|| {
                Problem::internal(&"a stored answer cannot be read").into_response()
            });
        }
        Err(error) => return Problem::from(error).into_response(),
    }
    let once = Arc::new(AtomicBool::new(false));
    let attempt = Attempt {
        id: identity.id.clone(),
        second,
        once: once.clone(),
    };
    let response = ATTEMPT.scope(attempt, next.run(request)).await;
    keep(state, &identity, response, once.load(Ordering::Relaxed)).await
}

tokio::task_local! {
    static ATTEMPT: Attempt;
}

/// The request that is being served.
struct Attempt {
    /// Hash of caller and key.
    id: String,
    /// The instance that served it first is gone, or lost its executor, and what was asked may be done.
    second: bool,
    /// Something was done, or may have been, that must not be done twice.
    once: Arc<AtomicBool>,
}

/// Something that must not be done twice was done, or may have been. Should the request fail all the same, a
/// repeat finds [`refuse_repeat`] in its way.
pub(super) fn not_again() {
    // Without a key nobody can repeat.
    let _ = ATTEMPT.try_with(|attempt| attempt.once.store(true, Ordering::Relaxed));
}

/// Fails if what is about to be done may have been done already, by an instance that is gone: for what
/// must not be done twice and cannot be recognized.
pub(super) fn refuse_repeat() -> Result<(), Problem> {
    match ATTEMPT.try_with(|attempt| attempt.second) {
        Ok(true) => Err(Problem::conflict(
            "the first request with this Idempotency-Key was cut off, and nobody knows whether what it asked for \
             was done: look, and if it is not done send the request with a new key",
        )),
        Ok(false) | Err(_) => Ok(()),
    }
}

/// An id for what a request with an `Idempotency-Key` makes: the same for every repeat, so that what
/// was made is recognized.
pub(super) fn id_of_what_is_made() -> Option<Uuid> {
    const IDS: Uuid = Uuid::from_u128(0x2f1c_9a54_3b0d_4f7e_8a61_5c9d_7e42_10b3);
    ATTEMPT
        .try_with(|attempt| Uuid::new_v5(&IDS, attempt.id.as_bytes()))
        .ok()
}

/// Stores an answer. A failure of the server or of executors is not one: it may be tried again. `once`: though
/// something was done, or may have been, that must not be done twice.
async fn keep(state: &AppState, identity: &Identity, response: Response, once: bool) -> Response {
    let status = response.status();
    let (parts, body) = response.into_parts();
    let body = match axum::body::to_bytes(body, LARGEST).await {
        Ok(body) => body,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let outcome = match seal(&parts.headers, status, &body, &identity.seal) {
        Some(sealed) if !status.is_server_error() => {
            state.store.store_idempotent(&identity.id, &sealed).await
        }
        _ if once => state.store.cut_off_idempotency(&identity.id).await,
        _ => state.store.release_idempotency(&identity.id).await,
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "an idempotent answer could not be stored");
    }
    Response::from_parts(parts, Body::from(body))
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key)
        .ok()
        .map(LessSafeKey::new)
}

fn seal(
    headers: &axum::http::HeaderMap,
    status: StatusCode,
    body: &Bytes,
    key: &[u8; 32],
) -> Option<String> {
    let kept = KEPT.iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    });
    let answer = Answer {
        status: status.as_u16(),
        headers: kept.collect(),
        body: String::from_utf8(body.to_vec()).ok()?,
    };
    let mut sealed = serde_json::to_vec(&answer).ok()?;
    let nonce: [u8; NONCE_LEN] = rand::random();
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut sealed,
        )
        .ok()?;
    Some(STANDARD.encode([&nonce[..], &sealed].concat()))
}

fn open(sealed: &str, key: &[u8; 32]) -> Option<Answer> {
    let bytes = STANDARD.decode(sealed).ok()?;
    let (nonce, text) = bytes.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    let plain = cipher(key)?
        .open_in_place(nonce, Aad::empty(), &mut text)
        .ok()?;
    serde_json::from_slice(plain).ok()
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (
            StatusCode::from_u16(self.status).unwrap_or_default(),
            self.body,
        )
            .into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_same_key_opens_an_answer() {
        let headers = axum::http::HeaderMap::new();
        let sealed = seal(
            &headers,
            StatusCode::CREATED,
            &Bytes::from_static(b"dbos_x"),
            &[7; 32],
        )
        .unwrap();
        assert!(!sealed.contains("dbos_x"));
        assert_eq!(open(&sealed, &[7; 32]).unwrap().body, "dbos_x");
        assert!(open(&sealed, &[8; 32]).is_none());
    }
}
