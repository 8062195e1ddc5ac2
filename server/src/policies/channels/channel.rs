//! A channel: what kind it is, what of it is shown, what is secret, and what makes one valid.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::Guard;
use super::template;

/// Where PagerDuty takes events; accounts in the EU have another place.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// Messages a minute, unless the channel says otherwise.
const PER_MINUTE: i64 = 30;
/// Longest URL, bytes.
const LONGEST_URL: usize = 2048;
const MOST_HEADERS: usize = 16;
/// Headers that are ours or the connection's.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// What a channel talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A receiver of signed webhooks (Standard Webhooks).
    Webhook,
    /// A Slack incoming webhook, or what imitates one.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty,
    /// Anything that takes a JSON body; a template makes it.
    Json,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Webhook, Self::Slack, Self::Pagerduty, Self::Json];

    /// As stored, shown and counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Pagerduty => "pagerduty",
            Self::Json => "json",
        }
    }
}

/// How PagerDuty shows an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Wake somebody.
    Critical,
    /// Broken.
    Error,
    /// May break.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// As PagerDuty spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What the API shows of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Scheme, host and port of where requests go.
    pub origin: String,
    /// Whether it is told that an alert is over.
    pub resolved: bool,
    /// Requests a minute, at most.
    pub per_minute: i64,
    /// PagerDuty: instead of the rule type's own severity.
    pub severity: Option<Severity>,
    /// JSON: what makes the body.
    pub template: Option<String>,
    /// Names of additional headers.
    pub headers: Vec<String>,
}

/// What the API never shows, in plain. Its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Where requests go.
    pub url: String,
    /// Webhook: `whsec_…`, one, or a new and an old one while receivers change over.
    pub signing: Vec<String>,
    /// PagerDuty: the integration's key.
    pub routing_key: Option<String>,
    /// Additional headers.
    pub headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Secrets {
    /// `text` without any of them, wherever they may have come from.
    pub fn hidden_in(&self, text: &str) -> String {
        let path = url::Url::parse(&self.url).map(|url| url.path().to_owned());
        let path = path.ok().filter(|path| path.len() > 8);
        let mut secrets: Vec<&str> = vec![&self.url];
        secrets.extend(path.as_deref());
        secrets.extend(self.signing.iter().map(String::as_str));
        secrets.extend(self.routing_key.as_deref());
        secrets.extend(self.headers.values().map(String::as_str));
        secrets
            .into_iter()
            .filter(|secret| secret.len() >= 4)
            .fold(text.to_owned(), |text, secret| {
                text.replace(secret, "(hidden)")
            })
    }
}

/// What somebody wants of a channel; absent members stay as they are, or are the default.
#[derive(Clone, Default)]
pub struct Wanted {
    /// See [`Secrets::url`].
    pub url: Option<String>,
    /// See [`Secrets::signing`]; separated by a space.
    pub signing_secret: Option<String>,
    /// See [`Secrets::routing_key`].
    pub routing_key: Option<String>,
    /// See [`Secrets::headers`].
    pub headers: Option<BTreeMap<String, String>>,
    /// See [`Settings::template`].
    pub template: Option<String>,
    /// See [`Settings::severity`].
    pub severity: Option<Severity>,
    /// See [`Settings::resolved`].
    pub resolved: Option<bool>,
    /// See [`Settings::per_minute`].
    pub per_minute: Option<i64>,
}

/// Applies what is wanted to what there is. On failure, which member is wrong, and how.
pub fn apply(
    kind: Kind,
    before: Option<(Settings, Secrets)>,
    wanted: Wanted,
    guard: Guard,
) -> Result<(Settings, Secrets), String> {
    unwanted(kind, &wanted)?;
    let (old, secret) = before.unzip();
    let (old, secret) = (old.as_ref(), secret.as_ref());
    let kept = |value: Option<&String>| value.filter(|text| !text.is_empty()).cloned();

    let default = (kind == Kind::Pagerduty).then(|| PAGERDUTY.to_owned());
    let url = wanted
        .url
        .or_else(|| kept(secret.map(|secret| &secret.url)))
        .or(default);
    let url = url.ok_or("url is required: where requests go")?;
    if url.len() > LONGEST_URL {
        return Err(format!("url must not be longer than {LONGEST_URL} bytes"));
    }
    let parsed = guard
        .url(&url)
        .map_err(|refusal| format!("url: {refusal}"))?;

    let signing = match wanted.signing_secret {
        Some(text) => signing_secrets(&text)?,
        None => secret.map_or(Vec::new(), |secret| secret.signing.clone()),
    };
    if kind == Kind::Webhook && signing.is_empty() {
        return Err(SIGNING.to_owned());
    }
    let routing_key = wanted
        .routing_key
        .or_else(|| secret.and_then(|secret| secret.routing_key.clone()));
    if kind == Kind::Pagerduty {
        let good = |key: &String| {
            (20..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        routing_key.as_ref().filter(|key| good(key)).ok_or(
            "routingKey is required: the integration key of a PagerDuty service (Events API v2), letters and digits",
        )?;
    }
    let headers = match wanted.headers {
        Some(headers) => checked_headers(headers)?,
        None => secret.map_or_else(BTreeMap::new, |secret| secret.headers.clone()),
    };
    let template = wanted
        .template
        .or_else(|| old.and_then(|old| old.template.clone()));
    if kind == Kind::Json {
        let text = template
            .as_ref()
            .ok_or("template is required: what makes the body")?;
        template::check(text).map_err(|fault| format!("template: {fault}"))?;
    }
    let settings = Settings {
        origin: parsed.origin().ascii_serialization(),
        resolved: wanted
            .resolved
            .or(old.map(|old| old.resolved))
            .unwrap_or(true),
        per_minute: wanted
            .per_minute
            .or(old.map(|old| old.per_minute))
            .unwrap_or(PER_MINUTE),
        severity: wanted.severity.or(old.and_then(|old| old.severity)),
        template,
        headers: headers.keys().cloned().collect(),
    };
    let secrets = Secrets {
        url,
        signing,
        routing_key,
        headers,
    };
    Ok((settings, secrets))
}

/// Members that mean nothing for the kind.
fn unwanted(kind: Kind, wanted: &Wanted) -> Result<(), String> {
    let given = [
        (
            "signingSecret",
            wanted.signing_secret.is_some(),
            &[Kind::Webhook][..],
        ),
        (
            "routingKey",
            wanted.routing_key.is_some(),
            &[Kind::Pagerduty],
        ),
        ("severity", wanted.severity.is_some(), &[Kind::Pagerduty]),
        ("template", wanted.template.is_some(), &[Kind::Json]),
        (
            "headers",
            wanted.headers.is_some(),
            &[Kind::Webhook, Kind::Json],
        ),
    ];
    let stray = given
        .iter()
        .find(|(_, given, kinds)| *given && !kinds.contains(&kind));
    stray.map_or(Ok(()), |(name, ..)| {
        Err(format!(
            "{name} means nothing for a channel of kind {}",
            kind.name()
        ))
    })
}

const SIGNING: &str = "signingSecret is required: whsec_ and 24 to 64 bytes in base64, for example \
    whsec_$(openssl rand -base64 32); two, separated by a space, while receivers change over";

fn signing_secrets(text: &str) -> Result<Vec<String>, String> {
    let secrets: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let good = |secret: &String| signing_key(secret).is_some();
    match (1..=2).contains(&secrets.len()) && secrets.iter().all(good) {
        true => Ok(secrets),
        false => Err(SIGNING.to_owned()),
    }
}

/// The bytes of `whsec_…`.
pub(super) fn signing_key(secret: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&bytes.len()).then_some(bytes)
}

fn checked_headers(headers: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if headers.len() > MOST_HEADERS {
        return Err(format!("headers: there are more than {MOST_HEADERS}"));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let reserved = RESERVED.contains(&name.as_str()) || name.starts_with("webhook-");
        if reserved || HeaderName::try_from(&name).is_err() {
            return Err(format!("headers: {name:?} cannot be set"));
        }
        if value.len() > 4096 || HeaderValue::try_from(&value).is_err() {
            return Err(format!("headers: the value of {name:?} cannot be sent"));
        }
        checked.insert(name, value);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    fn webhook() -> Wanted {
        Wanted {
            url: Some("https://example.com/hook?token=abcdef".to_owned()),
            signing_secret: Some(SECRET.to_owned()),
            ..Wanted::default()
        }
    }

    fn fault(kind: Kind, wanted: Wanted) -> String {
        apply(kind, None, wanted, Guard::default()).unwrap_err()
    }

    #[test]
    fn what_is_missing_or_stray_is_named() {
        assert!(fault(Kind::Slack, Wanted::default()).starts_with("url "));
        assert!(fault(Kind::Pagerduty, Wanted::default()).starts_with("routingKey "));
        let short = Wanted {
            signing_secret: Some("whsec_c2hvcnQ=".to_owned()),
            ..webhook()
        };
        assert!(fault(Kind::Webhook, short).starts_with("signingSecret "));
        let stray = Wanted {
            template: Some("{}".to_owned()),
            ..webhook()
        };
        assert!(fault(Kind::Webhook, stray).starts_with("template means nothing"));
        let plain = Wanted {
            url: Some("http://example.com".to_owned()),
            ..webhook()
        };
        assert!(fault(Kind::Webhook, plain).contains("SEGNO_ALERT_ALLOW_HTTP"));
        for name in ["Host", "webhook-id", "content-length", "a b"] {
            let headers = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
            let wanted = Wanted {
                headers: Some(headers),
                ..webhook()
            };
            assert!(
                fault(Kind::Webhook, wanted).starts_with("headers"),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let made = apply(Kind::Webhook, None, webhook(), Guard::default()).unwrap();
        assert_eq!(made.0.origin, "https://example.com");
        let change = Wanted {
            resolved: Some(false),
            ..Wanted::default()
        };
        let changed = apply(Kind::Webhook, Some(made.clone()), change, Guard::default()).unwrap();
        assert_eq!(changed.1, made.1);
        assert!(!changed.0.resolved);
    }

    #[test]
    fn secrets_are_hidden_in_what_others_answer() {
        let (_, secrets) = apply(Kind::Webhook, None, webhook(), Guard::default()).unwrap();
        let echoed = format!("POST https://example.com/hook?token=abcdef with {SECRET}");
        assert_eq!(secrets.hidden_in(&echoed), "POST (hidden) with (hidden)");
        assert_eq!(format!("{secrets:?}"), "(hidden)");
    }
}
