//! What every frame has: `type`, `request_id` and, in responses, `error_message`.

pub use crate::catalogue::RequestFrame;
use crate::{Message, lenient};
use serde::{Deserialize, Serialize};

/// What every SDK answers to a type it does not know, word for word; the only feature probe there is.
pub const UNKNOWN_TYPE: &str = "Unknown message type";

/// The members that every response has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Envelope {
    /// The request's type, repeated. A wrong one is an error of the sender.
    #[serde(default, rename = "type", deserialize_with = "lenient::text")]
    pub r#type: Option<String>,
    /// The request's id, repeated.
    pub request_id: String,
    /// Why the request failed, wholly or partly. Empty text is read as none.
    #[serde(default, deserialize_with = "lenient::name")]
    pub error_message: Option<String>,
}

/// A response: what went wrong, and the data if it could be read.
#[derive(Clone, Debug)]
pub struct Reply<R> {
    /// To be looked at first: next to an error the data hold empty-looking values.
    pub error_message: Option<String>,
    /// None only next to an error.
    pub body: Option<R>,
}

/// A response that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not a response of the executor protocol: {0}")]
pub struct DecodeError(String);

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self(reason(&error))
    }
}

/// What is wrong with a text, in one line. A parser's words may repeat a value of any size, and these go
/// into answers and logs: of a long one beginning and end are kept (the end says where).
pub(crate) fn reason(error: &serde_json::Error) -> String {
    const HEAD: usize = 200;
    const TAIL: usize = 50;
    let text: Vec<char> = error
        .to_string()
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    if text.len() <= HEAD + TAIL {
        return text.into_iter().collect();
    }
    let (head, tail) = (&text[..HEAD], &text[text.len() - TAIL..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// A request that cannot be read. The type and id are there if they could be, so that it can be answered.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the request: {reason}")]
pub struct RequestError {
    /// The `type` member, if there was one.
    pub r#type: Option<String>,
    /// The `request_id` member, if there was one.
    pub request_id: Option<String>,
    /// What is wrong with it, one line of at most about 250 characters.
    pub reason: String,
}

// `type` and `request_id` come first: Java looks for a type in the first 200 characters.
#[derive(Serialize)]
struct Frame<'a, T> {
    r#type: &'a str,
    request_id: &'a str,
    #[serde(flatten)]
    body: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
}

fn encode<T: Serialize>(r#type: &str, request_id: &str, body: &T, error: Option<&str>) -> String {
    let frame = Frame {
        r#type,
        request_id,
        body,
        error_message: error,
    };
    // Cannot fail: all keys are strings and no `Serialize` of this crate returns an error.
    serde_json::to_string(&frame).unwrap_or_default()
}

/// A request as the text of one frame.
pub fn encode_request<M: Message>(request_id: &str, message: &M) -> String {
    encode(M::TYPE, request_id, message, None)
}

/// A response as the text of one frame.
pub fn encode_response<M: Message>(request_id: &str, response: &M::Response) -> String {
    encode(M::TYPE, request_id, response, None)
}

/// A response that failed, wholly or partly: `response` holds empty-looking values and `error_message`
/// one line of what failed and why.
pub fn encode_failure<M: Message>(
    request_id: &str,
    response: &M::Response,
    error_message: &str,
) -> String {
    encode(M::TYPE, request_id, response, Some(error_message))
}

/// The answer to a request that could not be read, or whose type is unknown.
pub fn encode_error(r#type: &str, request_id: &str, error_message: &str) -> String {
    #[derive(Serialize)]
    struct Nothing {}
    encode(r#type, request_id, &Nothing {}, Some(error_message))
}

/// Reads who a response is for. Skips over the data without keeping them.
pub fn decode_envelope(text: &str) -> Result<Envelope, DecodeError> {
    Ok(serde_json::from_str(text)?)
}

/// Reads the response to a request of type `M`.
pub fn decode_response<M: Message>(text: &str) -> Result<Reply<M::Response>, DecodeError> {
    let envelope = decode_envelope(text)?;
    match serde_json::from_str(text) {
        Ok(body) => Ok(Reply {
            error_message: envelope.error_message,
            body: Some(body),
        }),
        Err(_) if envelope.error_message.is_some() => Ok(Reply {
            error_message: envelope.error_message,
            body: None,
        }),
        Err(error) => Err(error.into()),
    }
}

/// Reads a request.
pub fn decode_request(text: &str) -> Result<RequestFrame, RequestError> {
    RequestFrame::parse(text)
}

/// The type and id of a request.
pub(crate) fn address(text: &str) -> Result<(String, String), RequestError> {
    #[derive(Deserialize)]
    struct Address {
        #[serde(default, rename = "type", deserialize_with = "lenient::name")]
        r#type: Option<String>,
        #[serde(default, deserialize_with = "lenient::text")]
        request_id: Option<String>,
    }
    let failed = |r#type, request_id, reason: &str| RequestError {
        r#type,
        request_id,
        reason: reason.to_owned(),
    };
    match serde_json::from_str(text) {
        Ok(Address {
            r#type: Some(r#type),
            request_id: Some(id),
        }) => Ok((r#type, id)),
        Ok(Address {
            r#type: None,
            request_id,
        }) => Err(failed(None, request_id, "`type` is missing")),
        Ok(Address {
            r#type,
            request_id: None,
        }) => Err(failed(r#type, None, "`request_id` is missing")),
        Err(error) => Err(failed(None, None, &reason(&error))),
    }
}
