//! The console: the files of `web/dist`, embedded in the binary.
//!
//! A debug build reads them from the source tree instead, so that the console can be rebuilt without
//! the server. A build that found none says how to make them.

use std::io::Read;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What the console may load and reach: its own files and this server, and the issuer where people log
/// in; nothing else. No inline script or style, so that text which slipped into the page as HTML could
/// still do nothing. `connect-src` comes last, for the issuer's origins to be added.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'";

/// The page that stands in for the console brings its style along and needs nothing else.
const MISSING_CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";
const MISSING: &str = include_str!("missing.html");

/// Files whose names hold a hash of their content never change.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// No page of the console lies deeper; a longer address gets an answer no larger than for this one.
const DEEPEST: usize = 32;

/// The build leaves scripts and styles in their packed forms alone, or they would be in the binary three times.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

/// Answers a request for a page of the console. `reached`: the origins, beside this server, that it
/// talks to when somebody logs in.
pub fn serve(request: &Request, reached: &[String]) -> Response {
    let mut response = answer(request, Dist::get);
    let headers = response.headers_mut();
    // The page that stands in for the console reaches nobody.
    if !reached.is_empty()
        && headers
            .get(header::CONTENT_SECURITY_POLICY)
            .is_some_and(|policy| policy == CSP)
        && let Ok(policy) = HeaderValue::from_str(&format!("{CSP} {}", reached.join(" ")))
    {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn answer(request: &Request, file: impl Fn(&str) -> Option<EmbeddedFile>) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return crate::api::Problem::not_found(
            "there is nothing here; the API is under /v2, see /docs",
        )
        .into_response();
    }
    let path = request.uri().path();
    if let Some(asset) = path.strip_prefix("/assets/") {
        let name = format!("assets/{asset}");
        return match compressed(&name, request.headers(), &file) {
            // A page of an older build asks for files that are gone: it has to learn that, not to get HTML.
            None => (
                StatusCode::NOT_FOUND,
                "this file belongs to another version of the console; reload the page",
            )
                .into_response(),
            Some(found) => respond(request, &name, found, FOREVER),
        };
    }
    // Every other address is a page, and the console itself knows which.
    match file("index.html") {
        None => missing(path),
        Some(page) => respond(request, "index.html", located(page, path), "no-cache"),
    }
}

/// The page for an address: it refers to its files upwards from there, so that it finds them whatever
/// prefix a proxy took off. The console tells the prefix from where its script came from.
fn located(mut page: EmbeddedFile, path: &str) -> Found {
    let depth = path.bytes().filter(|byte| *byte == b'/').count().max(1) - 1;
    let above = if depth == 0 {
        "./".to_owned()
    } else {
        "../".repeat(depth.min(DEEPEST))
    };
    let html = String::from_utf8_lossy(&page.data);
    page.data = html
        .replace("\"./assets/", &format!("\"{above}assets/"))
        .into_bytes()
        .into();
    Found {
        file: page,
        encoding: None,
        depth,
    }
}

/// A file in one encoding.
struct Found {
    file: EmbeddedFile,
    encoding: Option<&'static str>,
    /// How far below the console's root the address is that it answers.
    depth: usize,
}

/// The smallest form of a file that the client takes. The build has made the compressed ones.
fn compressed(
    name: &str,
    headers: &HeaderMap,
    file: &impl Fn(&str) -> Option<EmbeddedFile>,
) -> Option<Found> {
    for (encoding, suffix) in [("br", "br"), ("gzip", "gz")] {
        if accepts(headers, encoding)
            && let Some(found) = file(&format!("{name}.{suffix}"))
        {
            return Some(Found {
                file: found,
                encoding: Some(encoding),
                depth: 0,
            });
        }
    }
    let plain = file(name).or_else(|| unpacked(file(&format!("{name}.gz"))?));
    plain.map(|file| Found {
        file,
        encoding: None,
        depth: 0,
    })
}

/// For the few clients that take nothing packed.
fn unpacked(mut file: EmbeddedFile) -> Option<EmbeddedFile> {
    let mut plain = Vec::new();
    GzDecoder::new(&*file.data).read_to_end(&mut plain).ok()?;
    file.data = plain.into();
    Some(file)
}

/// Whether `Accept-Encoding` names the encoding and does not refuse it with `q=0`.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(encoding));
            let refused = parts.any(|part| {
                part.strip_prefix("q=")
                    .and_then(|quality| quality.parse::<f32>().ok())
                    .is_some_and(|quality| quality <= 0.0)
            });
            named && !refused
        })
}

fn respond(request: &Request, name: &str, found: Found, cache: &'static str) -> Response {
    let tag = entity_tag(&found);
    let unchanged = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(found.file.data).into_response()
    };
    let headers = response.headers_mut();
    for (header, value) in [
        (header::CONTENT_TYPE, content_type(name)),
        (header::CACHE_CONTROL, cache),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(header, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(encoding) = found.encoding.filter(|_| !unchanged) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

/// Names the bytes that are sent, so each encoding and each depth has its own.
fn entity_tag(found: &Found) -> String {
    let hash = found.file.metadata.sha256_hash();
    let hex: String = hash
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let encoding = found.encoding.unwrap_or_default();
    format!("\"{hex}-{}{encoding}\"", found.depth)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn missing(path: &str) -> Response {
    let status = if path == "/" {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(MISSING_CSP),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    (status, headers, MISSING).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rust_embed::Metadata;

    use super::*;

    /// A build with a page and one script, which is there packed only. The content is the name.
    fn build(name: &str) -> Option<EmbeddedFile> {
        [
            "index.html",
            "assets/app-1a2b.js.br",
            "assets/app-1a2b.js.gz",
        ]
        .contains(&name)
        .then(|| EmbeddedFile {
            data: match name.ends_with(".gz") {
                true => packed(name).into(),
                false => name.as_bytes().to_vec().into(),
            },
            metadata: Metadata::__rust_embed_new([name.len() as u8; 32], None, None),
        })
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut all = flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast());
        all.read_to_end(&mut packed).unwrap();
        packed
    }

    fn get(path: &str, headers: &[(HeaderName, &str)]) -> Response {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        answer(&request.body(Body::empty()).unwrap(), build)
    }

    async fn bytes(response: Response) -> Vec<u8> {
        axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap()
            .to_vec()
    }

    async fn body(response: Response) -> String {
        String::from_utf8(bytes(response).await).unwrap()
    }

    #[tokio::test]
    async fn every_address_is_a_page_of_the_console() {
        for path in ["/", "/apps/shop/workflows/a%2Fb", "/keys"] {
            let response = get(path, &[]);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "text/html; charset=utf-8"
            );
            assert_eq!(body(response).await, "index.html");
        }
    }

    #[tokio::test]
    async fn the_smallest_accepted_form_is_sent() {
        for (accepted, sent, encoding) in [
            (
                "gzip, deflate, br, zstd",
                "assets/app-1a2b.js.br",
                Some("br"),
            ),
            ("gzip", "assets/app-1a2b.js.gz", Some("gzip")),
            ("br;q=0, gzip;q=0.5", "assets/app-1a2b.js.gz", Some("gzip")),
            ("identity", "assets/app-1a2b.js.gz", None),
        ] {
            let response = get(
                "/assets/app-1a2b.js",
                &[(header::ACCEPT_ENCODING, accepted)],
            );
            assert_eq!(
                response
                    .headers()
                    .get(header::CONTENT_ENCODING)
                    .map(|value| value.to_str().unwrap()),
                encoding
            );
            assert_eq!(response.headers()[header::CACHE_CONTROL], FOREVER);
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "text/javascript; charset=utf-8"
            );
            let expected = match encoding {
                Some("gzip") => packed(sent),
                _ => sent.as_bytes().to_vec(),
            };
            assert_eq!(bytes(response).await, expected, "{accepted}");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let tag = get("/", &[]).headers()[header::ETAG]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            get("/", &[(header::IF_NONE_MATCH, &tag)]).status(),
            StatusCode::NOT_MODIFIED
        );
    }

    #[tokio::test]
    async fn a_page_refers_upwards_to_its_files() {
        let page = |name: &str| {
            build(name).map(|file| EmbeddedFile {
                data: b"<script src=\"./assets/app-1a2b.js\">".as_slice().into(),
                metadata: file.metadata,
            })
        };
        for (path, src) in [
            ("/", "./assets/app-1a2b.js"),
            ("/keys", "./assets/app-1a2b.js"),
            ("/apps/shop", "../assets/app-1a2b.js"),
            ("/apps/shop/workflows/a%2Fb", "../../../assets/app-1a2b.js"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let html = body(answer(&request, page)).await;
            assert_eq!(html, format!("<script src=\"{src}\">"), "{path}");
        }
    }

    #[test]
    fn a_file_of_another_build_is_not_answered_with_a_page() {
        assert_eq!(
            get("/assets/app-0000.js", &[]).status(),
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            get("/assets/../index.html", &[]).status(),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn scripts_come_from_this_server_only() {
        let response = get("/", &[]);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[tokio::test]
    async fn a_build_without_the_console_says_how_to_make_it() {
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let response = answer(&request, |_| None);
        assert_eq!(response.status(), StatusCode::OK);
        assert!(body(response).await.contains("make console"));
    }

    #[test]
    fn writing_to_a_page_is_a_problem_of_the_api() {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/")
            .body(Body::empty())
            .unwrap();
        let response = answer(&request, build);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
