//! Behind a proxy that strips a path prefix, a path in an answer has to carry it again, or it leads
//! out of the API. Proxies tell the prefix in `X-Forwarded-Prefix` (Traefik, Envoy and Spring send it,
//! nginx on request).

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Longest prefix that is believed.
const LONGEST: usize = 256;

/// Puts the prefix that was stripped on the way in front of `Location` and the schema's `Link`.
pub(super) async fn restore(request: Request, next: Next) -> Response {
    let prefix = request
        .headers()
        .get(FORWARDED_PREFIX)
        .and_then(|value| sound(value.to_str().ok()?))
        .map(str::to_owned);
    let mut response = next.run(request).await;
    if let Some(prefix) = prefix {
        for (name, before) in [(header::LOCATION, ""), (header::LINK, "<")] {
            if let Some(whole) = prefixed(response.headers().get(&name), before, &prefix) {
                response.headers_mut().insert(name, whole);
            }
        }
    }
    response
}

/// `value` with `prefix` in front of its path, which begins after `before`; none if it has no path.
fn prefixed(value: Option<&HeaderValue>, before: &str, prefix: &str) -> Option<HeaderValue> {
    let path = value?.to_str().ok()?.strip_prefix(before)?;
    let whole = path
        .starts_with('/')
        .then(|| format!("{before}{prefix}{path}"))?;
    HeaderValue::from_str(&whole).ok()
}

/// The prefix without its last slash, if it can only be a path of this host: no scheme, no `//host`.
fn sound(prefix: &str) -> Option<&str> {
    let prefix = prefix.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte);
    let is_sound = prefix.starts_with('/')
        && !prefix.contains("//")
        && !prefix.contains("..")
        && prefix.len() <= LONGEST
        && prefix.bytes().all(plain);
    is_sound.then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_host_are_prefixes() {
        assert_eq!(sound("/conductor-api"), Some("/conductor-api"));
        assert_eq!(sound("/a/b/"), Some("/a/b"));
        for wrong in [
            "",
            "/",
            "//evil.example",
            "https://evil.example",
            "a",
            "/a//b",
            "/a/../b",
            "/a\tb",
        ] {
            assert_eq!(sound(wrong), None, "{wrong}");
        }
    }
}
