//! Where requests to channels may go. Whoever may make a channel could otherwise have the server knock
//! at doors that only the server reaches.
//!
//! Names are resolved here, and a connection is made only to an address that passed, so that a name
//! cannot mean one thing when it is checked and another when it is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What is allowed beyond public addresses over TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Whether plain `http` may be used.
    pub http: bool,
    /// Whether loopback, private and shared networks may be reached. Link-local addresses, and with
    /// them the metadata services of clouds, stay out of reach.
    pub private: bool,
}

/// Why a URL or an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a URL.
    #[error("it is not a URL")]
    NotAUrl,
    /// Not https, or not even http.
    #[error("it must begin with https:// (http:// needs SEGNO_ALERT_ALLOW_HTTP on the server)")]
    Scheme,
    /// A user or a password.
    #[error("it must not hold a user name or a password; use headers")]
    UserInfo,
    /// An address that is not public.
    #[error(
        "{0} is not a public address (internal targets need SEGNO_ALERT_ALLOW_PRIVATE_NETWORKS on the server)"
    )]
    Address(String),
}

/// A kind of address by who can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// Of this machine, this site or this provider.
    Private,
    /// Never a receiver of alerts.
    Never,
}

/// Blocks of IPv4 that are not public (IANA's special-purpose registry), and one public address that
/// is a metadata service (Azure).
const V4: [([u8; 4], u8, Reach); 17] = [
    ([0, 0, 0, 0], 8, Reach::Never),
    ([10, 0, 0, 0], 8, Reach::Private),
    ([100, 64, 0, 0], 10, Reach::Private),
    ([127, 0, 0, 0], 8, Reach::Private),
    ([168, 63, 129, 16], 32, Reach::Never),
    ([169, 254, 0, 0], 16, Reach::Never),
    ([172, 16, 0, 0], 12, Reach::Private),
    ([192, 0, 0, 0], 24, Reach::Never),
    ([192, 0, 2, 0], 24, Reach::Never),
    ([192, 88, 99, 0], 24, Reach::Never),
    ([192, 168, 0, 0], 16, Reach::Private),
    ([198, 18, 0, 0], 15, Reach::Private),
    ([198, 51, 100, 0], 24, Reach::Never),
    ([203, 0, 113, 0], 24, Reach::Never),
    ([100, 100, 100, 200], 32, Reach::Never),
    ([224, 0, 0, 0], 4, Reach::Never),
    ([240, 0, 0, 0], 4, Reach::Never),
];

fn reach_v4(address: Ipv4Addr) -> Reach {
    let bits = u32::from(address);
    let within = |block: &&([u8; 4], u8, Reach)| {
        let mask = u32::MAX << (32 - u32::from(block.1));
        bits & mask == u32::from(Ipv4Addr::from(block.0))
    };
    // The narrowest block decides.
    let block = V4.iter().filter(within).max_by_key(|block| block.1);
    block.map_or(Reach::Public, |block| block.2)
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let embedded = Ipv4Addr::from(((segments[6] as u32) << 16) | segments[7] as u32);
    // Metadata service of AWS, in the block of private addresses.
    let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match segments {
        _ if address == Ipv6Addr::LOCALHOST => Reach::Private,
        _ if address == metadata => Reach::Never,
        // IPv4 in IPv6, and addresses that a NAT64 translates: what counts is who is meant.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => reach_v4(embedded),
        [first, ..] if first & 0xfe00 == 0xfc00 => Reach::Private,
        // Protocol assignments and Teredo, documentation, 6to4.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => Reach::Never,
        [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Never,
        [first, ..] if first & 0xe000 == 0x2000 => Reach::Public,
        // Link-local, site-local, multicast, unspecified, discard-only, local NAT64, all the rest.
        _ => Reach::Never,
    }
}

impl Guard {
    /// Reads and checks a URL, as far as that is possible without resolving its name.
    pub fn url(&self, text: &str) -> Result<Url, Refusal> {
        let url = Url::parse(text).map_err(|_| Refusal::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if self.http => {}
            _ => return Err(Refusal::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(url),
            None => return Err(Refusal::NotAUrl),
        };
        match self.allows(address) {
            true => Ok(url),
            false => Err(Refusal::Address(address.to_string())),
        }
    }

    /// Whether a connection may be made to an address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let reach = match address {
            IpAddr::V4(address) => reach_v4(address),
            IpAddr::V6(address) => reach_v6(address),
        };
        match reach {
            Reach::Public => true,
            Reach::Private => self.private,
            Reach::Never => false,
        }
    }
}

/// The only resolver that requests to channels use.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let (allowed, refused): (Vec<_>, Vec<_>) = found
                .into_iter()
                .partition(|address| guard.allows(address.ip()));
            match (allowed.is_empty(), refused.first()) {
                (true, Some(address)) => Err(Refusal::Address(address.ip().to_string()).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allows(guard: Guard, address: &str) -> bool {
        guard.allows(address.parse().unwrap())
    }

    const INTERNAL: [&str; 12] = [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.1",
        "::1",
        "fd12:3456::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "198.18.0.1",
        "100.127.255.255",
    ];
    const NEVER: [&str; 22] = [
        "0.0.0.0",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::7f00:1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "100::1",
        "3fff::1",
    ];

    #[test]
    fn only_public_addresses_are_reached() {
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(allows(Guard::default(), address), "{address}");
        }
        for address in INTERNAL.iter().chain(&NEVER) {
            assert!(!allows(Guard::default(), address), "{address}");
        }
    }

    #[test]
    fn internal_targets_are_reached_where_that_is_allowed_and_metadata_never() {
        let guard = Guard {
            private: true,
            ..Guard::default()
        };
        for address in INTERNAL {
            assert!(allows(guard, address), "{address}");
        }
        for address in NEVER {
            assert!(!allows(guard, address), "{address}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_read() {
        let guard = Guard::default();
        for url in [
            "https://127.0.0.1/x",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://１２７.0.0.1/",
        ] {
            assert!(matches!(guard.url(url), Err(Refusal::Address(_))), "{url}");
        }
        assert_eq!(guard.url("http://example.com/"), Err(Refusal::Scheme));
        assert_eq!(guard.url("file:///etc/passwd"), Err(Refusal::Scheme));
        assert_eq!(guard.url("https://u@example.com/"), Err(Refusal::UserInfo));
        assert_eq!(guard.url("https://:p@example.com/"), Err(Refusal::UserInfo));
        assert_eq!(guard.url("not a url"), Err(Refusal::NotAUrl));
        assert!(guard.url("https://hooks.example.com/services/x").is_ok());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused() {
        let resolved = Guard::default().resolve("localhost".parse().unwrap()).await;
        let refusal = resolved.err().unwrap().to_string();
        assert!(refusal.contains("not a public address"), "{refusal}");
        let guard = Guard {
            private: true,
            ..Guard::default()
        };
        assert!(guard.resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
