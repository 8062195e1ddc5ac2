//! Dialling: TCP, TLS and the websocket upgrade.
//!
//! The upgrade is written here rather than left to the websocket library because the key is part of the
//! request line, and the library logs that line when tracing is at its most verbose.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::{Host, Url};

use super::backoff::End;
use super::{ConductorConfig, ConductorError};

/// Letters, digits and `-._~` stay as they are in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An answer's head that is longer is no answer to a handshake.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How much of a rejection's text is worth logging.
const MAX_REASON_BYTES: usize = 512;

/// A plain or encrypted byte stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connected websocket.
pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why there is no connection, fit for a log.
#[derive(Debug)]
pub(super) struct DialError {
    pub(super) end: End,
    pub(super) reason: String,
}

impl DialError {
    fn unreachable(reason: impl Into<String>) -> Self {
        Self {
            end: End::Unreachable,
            reason: reason.into(),
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::unreachable(error.to_string())
    }
}

/// Knows the way to the control plane.
pub(super) struct Dialer {
    host: String,
    port: u16,
    encrypted: bool,
    /// Value of the `Host` header.
    authority: String,
    /// Path of the request, the key included.
    path: String,
    /// Credentials of the URL, for a proxy in front of the server.
    authorization: Option<String>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Dialer {
    pub(super) fn new(config: &ConductorConfig) -> Result<Self, ConductorError> {
        if config.app_name.is_empty() {
            return Err(ConductorError::Empty("application name"));
        }
        if config.key.is_empty() {
            return Err(ConductorError::Empty("control plane key"));
        }
        let url = Url::parse(config.url.trim()).map_err(|e| ConductorError::Url(e.to_string()))?;
        let encrypted = match url.scheme() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => {
                return Err(ConductorError::Url(
                    "the scheme must be ws or wss".to_owned(),
                ));
            }
        };
        let (host, shown) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), name.to_owned()),
            Some(Host::Ipv4(address)) => (address.to_string(), address.to_string()),
            Some(Host::Ipv6(address)) => (address.to_string(), format!("[{address}]")),
            None => return Err(ConductorError::Url("it names no host".to_owned())),
        };
        let segment = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        let path = format!(
            "{}/websocket/{}/{}",
            url.path().trim_end_matches('/'),
            segment(&config.app_name),
            segment(&config.key)
        );
        let authorization = (!url.username().is_empty()).then(|| {
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let credentials = format!(
                "{}:{}",
                decode(url.username()),
                decode(url.password().unwrap_or_default())
            );
            format!("Basic {}", STANDARD.encode(credentials))
        });
        Ok(Self {
            port: url.port().unwrap_or(if encrypted { 443 } else { 80 }),
            authority: url
                .port()
                .map_or(shown.clone(), |port| format!("{shown}:{port}")),
            host,
            encrypted,
            path,
            authorization,
            tls: OnceCell::new(),
        })
    }

    /// Where we dial, without the path: fit for a log.
    pub(super) fn server(&self) -> &str {
        &self.authority
    }

    /// Dials once, within `limit`.
    pub(super) async fn dial(
        &self,
        limit: Duration,
        websocket: WebSocketConfig,
    ) -> Result<Socket, DialError> {
        tokio::time::timeout(limit, self.connect(websocket))
            .await
            .unwrap_or_else(|_| {
                Err(DialError::unreachable(format!(
                    "no connection within {} s",
                    limit.as_secs_f32()
                )))
            })
    }

    async fn connect(&self, websocket: WebSocketConfig) -> Result<Socket, DialError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = if self.encrypted {
            let name = ServerName::try_from(self.host.clone())
                .map_err(|_| DialError::unreachable("the host is no valid TLS server name"))?;
            let tls = TlsConnector::from(self.tls_config().await?);
            Box::new(tls.connect(name, tcp).await?)
        } else {
            Box::new(tcp)
        };
        let rest = self.upgrade(&mut stream).await?;
        Ok(WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(websocket)).await)
    }

    /// Trust comes from the system, or from the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    async fn tls_config(&self) -> Result<Arc<ClientConfig>, DialError> {
        let config = self.tls.get_or_try_init(|| async {
            let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
                .await
                .map_err(|e| DialError::unreachable(e.to_string()))?;
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(loaded.certs);
            if added == 0 {
                return Err(DialError::unreachable(
                    "the system has no trusted certificates; install them (package ca-certificates) or set SSL_CERT_FILE",
                ));
            }
            // Named explicitly: with two providers compiled in, the default one is a panic.
            let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| DialError::unreachable(e.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Arc::new(config))
        });
        Ok(Arc::clone(config.await?))
    }

    /// Asks for the upgrade; returns what the server sent after its answer.
    async fn upgrade(&self, stream: &mut Box<dyn Stream>) -> Result<Vec<u8>, DialError> {
        let key = generate_key();
        let authorization = self
            .authorization
            .as_ref()
            .map(|value| format!("Authorization: {value}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nUser-Agent: segno/{}\r\n{authorization}\r\n",
            self.path,
            self.authority,
            env!("CARGO_PKG_VERSION"),
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut received = Vec::with_capacity(1024);
        let answer = loop {
            if stream.read_buf(&mut received).await? == 0 {
                return Err(DialError::unreachable(
                    "the server hung up during the handshake",
                ));
            }
            if let Some(answer) = Answer::parse(&received)? {
                break answer;
            }
            if received.len() > MAX_HEAD_BYTES {
                return Err(DialError::unreachable(
                    "the server's answer is no websocket handshake",
                ));
            }
        };
        let mut rest = received.split_off(answer.head_length);
        if answer.status != 101 {
            while answer.body_length > rest.len() && rest.len() < MAX_REASON_BYTES {
                if stream.read_buf(&mut rest).await? == 0 {
                    break;
                }
            }
            return Err(answer.rejection(&rest));
        }
        if answer.accept.as_deref() != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(DialError::unreachable(
                "the server's answer does not belong to our handshake",
            ));
        }
        Ok(rest)
    }
}

/// The head of the server's answer.
struct Answer {
    status: u16,
    head_length: usize,
    body_length: usize,
    accept: Option<String>,
    retry_after: Option<Duration>,
}

impl Answer {
    /// `None` while the head is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, DialError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head_length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(e) => {
                return Err(DialError::unreachable(format!(
                    "the server does not speak HTTP ({e})"
                )));
            }
        };
        let header = |name: &str| {
            let found = response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok().map(str::trim)
        };
        Ok(Some(Self {
            status: response.code.unwrap_or_default(),
            head_length,
            body_length: header("content-length")
                .and_then(|value| value.parse().ok())
                .unwrap_or(0),
            accept: header("sec-websocket-accept").map(str::to_owned),
            retry_after: header("retry-after").and_then(retry_after),
        }))
    }

    fn rejection(&self, body: &[u8]) -> DialError {
        let text: String = String::from_utf8_lossy(&body[..body.len().min(MAX_REASON_BYTES)])
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let end = End::Rejected {
            status: self.status,
            retry_after: self.retry_after,
        };
        DialError {
            end,
            reason: format!("HTTP status {} {}", self.status, text.trim()),
        }
    }
}

/// Seconds, or a date; an hour at most, so that a wrong clock does not keep us away.
fn retry_after(value: &str) -> Option<Duration> {
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
            (date.with_timezone(&chrono::Utc) - chrono::Utc::now())
                .to_std()
                .ok()?
        }
    };
    Some(wait.min(Duration::from_secs(3600)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(url: &str) -> ConductorConfig {
        ConductorConfig {
            url: url.to_owned(),
            key: "a/b c".to_owned(),
            app_name: "shop".to_owned(),
            executor_id: "e".to_owned(),
            app_version: "v".to_owned(),
            metadata: None,
        }
    }

    #[test]
    fn the_address_is_appended_to_any_base() {
        for (base, authority, port, path) in [
            (
                "ws://host:8090",
                "host:8090",
                8090,
                "/websocket/shop/a%2Fb%20c",
            ),
            (
                "wss://host/conductor/v1//?x=1",
                "host",
                443,
                "/conductor/v1/websocket/shop/a%2Fb%20c",
            ),
            ("http://[::1]:80/", "[::1]", 80, "/websocket/shop/a%2Fb%20c"),
            ("ws://u:p%40@h", "h", 80, "/websocket/shop/a%2Fb%20c"),
        ] {
            let dialer = Dialer::new(&config(base)).unwrap();
            assert_eq!(
                (dialer.server(), dialer.port, dialer.path.as_str()),
                (authority, port, path),
                "{base}"
            );
        }
        let dialer = Dialer::new(&config("ws://u:p%40@h")).unwrap();
        assert_eq!(
            dialer.authorization.unwrap(),
            format!("Basic {}", STANDARD.encode("u:p@"))
        );
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_without_repeating_it() {
        for url in ["", "host:8090", "ftp://secret", "ws://"] {
            let error = Dialer::new(&config(url)).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", config("ws://u:hidden@h")).contains("hidden"));
        assert!(!format!("{:?}", config("ws://h")).contains("a/b c"));
    }

    #[test]
    fn an_answer_is_read_when_its_head_is_complete() {
        assert!(
            Answer::parse(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n")
                .unwrap()
                .is_none()
        );
        let bytes = b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nbusy";
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.body_length), (503, 4));
        let error = answer.rejection(&bytes[answer.head_length..]);
        assert_eq!(
            error.end,
            End::Rejected {
                status: 503,
                retry_after: Some(Duration::from_secs(5))
            }
        );
        assert_eq!(error.reason, "HTTP status 503 busy");
        assert!(Answer::parse(b"\x00\x01nonsense\r\n\r\n").is_err());
    }
}
