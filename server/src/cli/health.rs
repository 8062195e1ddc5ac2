//! `segno healthcheck`: one request, so that the image needs no other tool for its health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

#[derive(Args)]
pub(super) struct Healthcheck {
    /// The server's base URL [default: on this machine, where and how the settings of `serve` say]
    #[arg(long, env = "SEGNO_URL")]
    url: Option<String>,

    /// Where the server listens
    #[arg(
        long,
        env = "SEGNO_LISTEN",
        default_value = "0.0.0.0:8090",
        hide = true
    )]
    listen: SocketAddr,

    /// Whether it serves HTTPS
    #[arg(long, env = "SEGNO_TLS_CERTIFICATE", hide = true)]
    tls_certificate: Option<PathBuf>,
}

impl Healthcheck {
    fn base(&self) -> String {
        if let Some(url) = &self.url {
            return url.clone();
        }
        let scheme = match self.tls_certificate {
            Some(_) => "https",
            None => "http",
        };
        let mut address = self.listen;
        // Who listens everywhere listens here.
        match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        format!("{scheme}://{address}")
    }
}

/// Any certificate will do on the machine itself: it is in the server's name, and the question is whether the
/// server answers.
pub(super) async fn run(args: Healthcheck) -> anyhow::Result<()> {
    let base = args.base();
    let url =
        url::Url::parse(&base).context("--url must be a URL such as http://127.0.0.1:8090")?;
    let local = args.url.is_none()
        || match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => bail!("--url has no host"),
        };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .no_proxy()
        .danger_accept_invalid_certs(local)
        .build()?;
    let health = format!("{}/healthz", base.trim_end_matches('/'));
    let answer = client.get(health).send().await.map_err(|error| {
        // With what it was caused by: "error sending request" alone tells nothing.
        anyhow::Error::new(error.without_url()).context(format!("cannot ask {url}"))
    })?;
    if answer.status() != reqwest::StatusCode::OK {
        bail!("not healthy: {}", answer.status());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_asks_where_the_settings_say() {
        let asked = |listen: &str, tls: bool| {
            let args = Healthcheck {
                url: None,
                listen: listen.parse().unwrap(),
                tls_certificate: tls.then(PathBuf::new),
            };
            args.base()
        };
        assert_eq!(asked("0.0.0.0:8090", false), "http://127.0.0.1:8090");
        assert_eq!(asked("[::]:8443", true), "https://[::1]:8443");
        assert_eq!(asked("10.0.0.7:80", false), "http://10.0.0.7:80");
    }
}
