//! Settings of `segno serve`. Where they come from besides flags: see [`sources`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use url::Url;

use crate::http::{connections, tls};
use crate::{hub, policies, recovery};

mod oidc;
pub mod sources;

pub use oidc::{OidcArgs, OidcConfig};
/// Enough for a page of consoles, too few to exhaust the server's sockets.
const STREAMS_PER_CALLER: usize = 32;
/// Between two collections of stored metrics, seconds.
const METRICS_PERIOD: u32 = 300;

/// Who may call the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// API keys only; one organization, `local`.
    Keys,
    /// User tokens of an OpenID Connect issuer, and API keys.
    Oidc,
    /// Everybody is the administrator of the organization `local`.
    None,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// A secret text. `Debug` and `Display` hide it, so it cannot reach a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where the server keeps its own state; options of every command that opens the store.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// postgres://… (?pooler=transaction: through such a pooler) or sqlite://… [default: SQLite in the data directory]
    #[arg(long, env = "SEGNO_DATABASE_URL", hide_env_values = true)]
    database_url: Option<Secret>,

    /// Directory of the embedded database
    #[arg(long, env = "SEGNO_DATA_DIR", default_value = "./.segno")]
    data_dir: PathBuf,
}

impl StoreArgs {
    /// The database these options name.
    pub fn database_url(&self) -> Result<Secret, ConfigError> {
        let Some(url) = self.database_url.clone() else {
            let file = self.data_dir.join("segno.db");
            return Ok(Secret::new(format!("sqlite://{}", file.display())));
        };
        let scheme = url.expose().split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" | "sqlite" => Ok(url),
            _ => Err(ConfigError::DatabaseScheme),
        }
    }
}

/// Options of `segno serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "SEGNO_LISTEN", default_value = "0.0.0.0:8090")]
    listen: SocketAddr,

    #[command(flatten)]
    store: StoreArgs,

    /// `host` or `host:port` at which other instances reach this one
    #[arg(long, env = "SEGNO_ADVERTISE_ADDRESS", default_value = "127.0.0.1")]
    advertise_address: String,

    /// Who may call
    #[arg(long, env = "SEGNO_AUTH", default_value = "keys")]
    auth: AuthMode,

    /// An administrator's key: `dbos_` and at least 32 more characters
    #[arg(long, env = "SEGNO_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<Secret>,

    #[command(flatten)]
    oidc: OidcArgs,

    /// Serve HTTPS with this certificate and those between it and a root (PEM); read again when it changes
    #[arg(
        long,
        env = "SEGNO_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,

    /// Private key of the certificate (PEM)
    #[arg(
        long,
        env = "SEGNO_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,

    /// Proxies whose X-Forwarded-For is believed (addresses, separated by commas)
    #[arg(long, env = "SEGNO_TRUSTED_PROXIES", value_delimiter = ',')]
    trusted_proxies: Vec<IpAddr>,

    /// Let alerts go to http:// too, not only to https://
    #[arg(long, env = "SEGNO_ALERT_ALLOW_HTTP")]
    alert_allow_http: bool,

    /// Let alerts go to loopback and private networks
    #[arg(long, env = "SEGNO_ALERT_ALLOW_PRIVATE_NETWORKS")]
    alert_allow_private_networks: bool,

    /// Encrypts secrets that the server must be able to use, such as those of alert channels: at least
    /// 32 characters, the same on all instances. Without it they are stored as they are
    #[arg(long, env = "SEGNO_ENCRYPTION_KEY", hide_env_values = true)]
    encryption_key: Option<Secret>,

    /// Open connections, executors included, beyond which idle ones are closed and others refused
    /// [default: what the limit of open files allows]
    #[arg(long, env = "SEGNO_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,

    /// The same for each client address, trusted proxies excepted [default: no limit]
    #[arg(long, env = "SEGNO_MAX_CONNECTIONS_PER_ADDRESS", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections_per_address: Option<u32>,

    /// Seconds between two collections of the metrics that are stored
    #[arg(long, env = "SEGNO_METRICS_PERIOD", default_value_t = METRICS_PERIOD, value_parser = clap::value_parser!(u32).range(1..))]
    metrics_period: u32,

    /// Refuse to start on an older schema instead of migrating it
    #[arg(long, env = "SEGNO_NO_MIGRATE")]
    no_migrate: bool,
}

/// Everything `serve` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on. Whoever binds the listener uses it; `serve` asks the listener.
    pub listen: SocketAddr,
    /// The server's own database.
    pub database_url: Secret,
    /// Host, or host and port, at which peers reach this instance.
    pub advertise_address: String,
    /// Who may call.
    pub auth: AuthMode,
    /// Whose user tokens are believed; there in mode `oidc`.
    pub oidc: Option<OidcConfig>,
    /// The administrator's key given by the operator, if any.
    pub admin_key: Option<Secret>,
    /// Certificate and key, if HTTPS is served.
    pub tls: Option<tls::Files>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether `serve` brings the schema up to date.
    pub migrate: bool,
    /// Bounds on connections, executors' and others.
    pub connections: connections::Limits,
    /// Timing of executors' connections; only tests change it.
    pub hub: hub::Options,
    /// Timing of recovery; only tests change it.
    pub recovery: recovery::Options,
    /// Cadence of periodic work on applications.
    pub policies: policies::Options,
    /// Where alerts may go, and how hard it is tried.
    pub channels: policies::channels::Options,
    /// Streams of changes that one caller may follow at a time; only tests change it.
    pub streams_per_caller: usize,
    /// Encrypts secrets that must be used, if the operator gave one.
    pub encryption_key: Option<Secret>,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The database URL has a scheme we cannot use.
    #[error(
        "--database-url (SEGNO_DATABASE_URL) must begin with postgres://, postgresql:// or sqlite://"
    )]
    DatabaseScheme,
    /// The admin key is too weak or holds characters that do not survive a URL path.
    #[error(
        "SEGNO_ADMIN_KEY must be `dbos_` followed by at least 32 characters of A-Z a-z 0-9 _ and -; \
         for example: dbos_$(openssl rand -hex 32)"
    )]
    AdminKey,
    /// A setting without which nobody could log in.
    #[error("--auth oidc needs {name}: {what}")]
    OidcMissing {
        /// The setting.
        name: &'static str,
        /// What it holds.
        what: &'static str,
    },
    /// The address of the issuer or of its keys cannot be one.
    #[error("{name} must be an http:// or https:// address without credentials and fragment")]
    OidcAddress {
        /// The setting.
        name: &'static str,
    },
    /// The encryption key is too weak.
    #[error(
        "SEGNO_ENCRYPTION_KEY must have at least 32 characters; for example: $(openssl rand -hex 32)"
    )]
    EncryptionKey,
    /// A file that settings are read from is not as it should be.
    #[error("{named_by}: {}: {reason}", path.display())]
    File {
        /// The setting that names it.
        named_by: String,
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
    /// The same secret is given in two ways.
    #[error("{one} and {other} are both set; unset one of them")]
    Twice {
        /// One variable.
        one: String,
        /// The other.
        other: String,
    },
    /// An upstream variable that does not parse.
    #[error("{name} must be {expected}")]
    Upstream {
        /// The variable.
        name: &'static str,
        /// What it should look like.
        expected: &'static str,
    },
}

impl ServeArgs {
    /// Checks what is given, and that it goes together.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let oidc = match self.auth {
            AuthMode::Oidc => Some(self.oidc.resolve()?),
            AuthMode::Keys | AuthMode::None => None,
        };
        Config {
            listen: self.listen,
            database_url: self.store.database_url()?,
            advertise_address: self.advertise_address,
            auth: self.auth,
            oidc,
            admin_key: self.admin_key,
            tls: self
                .tls_certificate
                .zip(self.tls_key)
                .map(|(certificate, key)| tls::Files { certificate, key }),
            trusted_proxies: self.trusted_proxies,
            migrate: !self.no_migrate,
            connections: connections::Limits {
                max: self.max_connections.map(|max| max as usize),
                max_per_address: self.max_connections_per_address.map(|max| max as usize),
                ..connections::Limits::default()
            },
            hub: hub::Options::default(),
            recovery: recovery::Options::default(),
            policies: policies::Options {
                metrics_every: Duration::from_secs(self.metrics_period.into()),
                ..policies::Options::default()
            },
            channels: policies::channels::Options {
                guard: policies::channels::Guard {
                    http: self.alert_allow_http,
                    private: self.alert_allow_private_networks,
                },
                ..policies::channels::Options::default()
            },
            streams_per_caller: STREAMS_PER_CALLER,
            encryption_key: self.encryption_key,
        }
        .checked()
    }
}

impl Config {
    /// A server without credentials over `database_url`, listening on a loopback port of the
    /// system's choice: what `segno dev` and tests start from.
    pub fn local(database_url: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database_url: Secret::new(database_url),
            advertise_address: "127.0.0.1".to_owned(),
            auth: AuthMode::None,
            oidc: None,
            admin_key: None,
            tls: None,
            trusted_proxies: Vec::new(),
            migrate: true,
            connections: connections::Limits::default(),
            hub: hub::Options::default(),
            recovery: recovery::Options::default(),
            policies: policies::Options::default(),
            channels: policies::channels::Options::default(),
            streams_per_caller: STREAMS_PER_CALLER,
            encryption_key: None,
        }
    }

    /// `host:port` at which peers reach this instance, which listens on `port`.
    pub fn advertised(&self, port: u16) -> String {
        let address = &self.advertise_address;
        let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
        });
        match has_port {
            true => address.clone(),
            false if address.contains(':') && !address.starts_with('[') => {
                format!("[{address}]:{port}")
            }
            false => format!("{address}:{port}"),
        }
    }

    /// Refuses settings that contradict each other or are too weak.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        if self.auth == AuthMode::Oidc && self.oidc.is_none() {
            self.oidc = Some(OidcArgs::default().resolve()?);
        }
        let weak = |key: &Secret| {
            key.expose()
                .strip_prefix("dbos_")
                .is_none_or(|rest| rest.len() < 32 || !rest.bytes().all(is_key_byte))
        };
        if self.admin_key.as_ref().is_some_and(weak) {
            return Err(ConfigError::AdminKey);
        }
        let short = |key: &Secret| key.expose().len() < 32;
        if self.encryption_key.as_ref().is_some_and(short) {
            return Err(ConfigError::EncryptionKey);
        }
        Ok(self)
    }
}

/// Keys travel unescaped in the path of the websocket URL.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The upstream variable may be a URL; peers need its host and port.
fn host_of(text: &str) -> String {
    let Ok(url) = Url::parse(text) else {
        return text.to_owned();
    };
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_hide_themselves() {
        let secret = Secret::new("postgres://u:p@h/db");
        assert_eq!(format!("{secret} {secret:?}"), "(hidden) (hidden)");
    }

    #[test]
    fn a_weak_admin_key_is_refused() {
        let with = |key: &str| Config {
            admin_key: Some(Secret::new(key)),
            ..Config::local("sqlite://x")
        };
        assert!(with(&format!("dbos_{}", "a".repeat(32))).checked().is_ok());
        for bad in ["short", "dbos_short", &format!("dbos_{}/", "a".repeat(32))] {
            assert!(
                matches!(with(bad).checked(), Err(ConfigError::AdminKey)),
                "{bad}"
            );
        }
    }

    #[test]
    fn oidc_without_an_issuer_names_the_setting() {
        let config = Config {
            auth: AuthMode::Oidc,
            ..Config::local("sqlite://x")
        };
        let error = config.checked().unwrap_err().to_string();
        assert!(error.contains("SEGNO_OIDC_ISSUER"), "{error}");
    }

    #[test]
    fn the_advertised_address_gets_the_listening_port() {
        let at = |address: &str| {
            let config = Config {
                advertise_address: address.to_owned(),
                ..Config::local("sqlite://x")
            };
            config.advertised(8090)
        };
        assert_eq!(at("10.0.0.1"), "10.0.0.1:8090");
        assert_eq!(at("10.0.0.1:9"), "10.0.0.1:9");
        assert_eq!(at("fd00::1"), "[fd00::1]:8090");
        assert_eq!(at("[fd00::1]:9"), "[fd00::1]:9");
    }

    #[test]
    fn an_advertised_url_becomes_host_and_port() {
        assert_eq!(host_of("http://peer.internal:9000/x"), "peer.internal:9000");
        assert_eq!(host_of("peer"), "peer");
        assert_eq!(host_of("10.0.0.1:8090"), "10.0.0.1:8090");
    }
}
