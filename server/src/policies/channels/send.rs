//! One request to a channel, and what its answer means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use ring::hmac;

use super::channel::{Kind, Secrets, Settings, signing_key};
use super::guard::Guard;
use super::notice::{Event, Notice};
use super::template;

/// So much of an answer is read, bytes.
const READ: usize = 4096;
/// So much of it is shown, characters.
const SHOWN: usize = 500;
/// Longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A channel ready for use.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// What it talks to.
    pub kind: Kind,
    /// What the API shows of it.
    pub settings: Settings,
    /// What it does not.
    pub secrets: Secrets,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the receiver took it, and if not, whether it may be tried again.
    pub verdict: Verdict,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// From the beginning of the request to the answer.
    pub latency: Duration,
    /// What went wrong; without secrets.
    pub error: Option<String>,
    /// The beginning of the answer's body; without secrets.
    pub body: Option<String>,
}

/// See [`Answer::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Delivered,
    /// Perhaps later; not before so long from now, if the receiver says so.
    Later(Option<Duration>),
    /// Never like this.
    Refused,
}

/// Sends to channels. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    guard: Guard,
}

impl Sender {
    /// Requests end after `timeout`. Redirects are not followed and no proxy is used: either would
    /// lead past the guard.
    pub fn new(guard: Guard, timeout: Duration) -> reqwest::Result<Self> {
        let client = Client::builder()
            .dns_resolver(Arc::new(guard))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(timeout)
            .connect_timeout(timeout / 2)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("segno/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, guard })
    }

    /// Tells a channel, once. `id` is the same for every attempt; `now` is epoch seconds.
    pub async fn send(&self, channel: &Channel, id: &str, notice: &Notice, now: i64) -> Answer {
        let started = Instant::now();
        let failed = |verdict, error: String| Answer {
            verdict,
            status: None,
            latency: started.elapsed(),
            error: Some(channel.secrets.hidden_in(&error)),
            body: None,
        };
        let body = match body(channel, notice) {
            Ok(body) => body,
            Err(fault) => return failed(Verdict::Refused, format!("template: {fault}")),
        };
        // Settings may have changed since the channel was made.
        let url = match self.guard.url(&channel.secrets.url) {
            Ok(url) => url,
            Err(refusal) => return failed(Verdict::Refused, format!("url: {refusal}")),
        };
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in &channel.secrets.headers {
            request = request.header(name, value);
        }
        if channel.kind == Kind::Webhook {
            request = request
                .header("webhook-id", id)
                .header("webhook-timestamp", now)
                .header(
                    "webhook-signature",
                    signatures(&channel.secrets, id, now, &body),
                );
        }
        match request.body(body).send().await {
            Err(error) => failed(Verdict::Later(None), reason(&error)),
            Ok(response) => {
                let latency = started.elapsed();
                judge(channel, response, latency).await
            }
        }
    }

    /// Tells a channel that somebody tries it. What a test opens at PagerDuty is closed again.
    pub async fn test(&self, channel: &Channel, id: &str, notice: &Notice, now: i64) -> Answer {
        let answer = self.send(channel, id, notice, now).await;
        if channel.kind == Kind::Pagerduty && answer.verdict == Verdict::Delivered {
            let over = self.send(channel, id, &notice.over(), now).await;
            if over.verdict != Verdict::Delivered {
                return over;
            }
        }
        answer
    }
}

fn body(channel: &Channel, notice: &Notice) -> Result<String, String> {
    Ok(match channel.kind {
        Kind::Webhook => notice.webhook().to_string(),
        Kind::Slack => notice.slack().to_string(),
        Kind::Pagerduty => {
            let key = channel.secrets.routing_key.as_deref().unwrap_or_default();
            notice.pagerduty(key, channel.settings.severity).to_string()
        }
        Kind::Json => {
            let text = channel.settings.template.as_deref().unwrap_or_default();
            template::render(text, notice)?
        }
    })
}

/// As Standard Webhooks has it: HMAC-SHA256 over id, time and body, one for each secret.
fn signatures(secrets: &Secrets, id: &str, now: i64, body: &str) -> String {
    let signed = format!("{id}.{now}.{body}");
    let keys = secrets
        .signing
        .iter()
        .filter_map(|secret| signing_key(secret));
    let signatures: Vec<String> = keys
        .map(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let tag = hmac::sign(&key, signed.as_bytes());
            format!("v1,{}", STANDARD.encode(tag.as_ref()))
        })
        .collect();
    signatures.join(" ")
}

/// What a failure comes down to, without the URL, which is a secret.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut source = std::error::Error::source(error);
    let mut deepest = None;
    while let Some(cause) = source {
        deepest = Some(cause.to_string());
        source = cause.source();
    }
    deepest.unwrap_or_else(|| "the request could not be sent".to_owned())
}

async fn judge(channel: &Channel, mut response: Response, latency: Duration) -> Answer {
    let status = response.status();
    let pause = pause(&response);
    let mut read: Vec<u8> = Vec::new();
    while read.len() < READ
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = READ - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let text = String::from_utf8_lossy(&read);
    let text: String = channel
        .secrets
        .hidden_in(text.trim())
        .chars()
        .filter(|letter| !letter.is_control() || *letter == '\n')
        .take(SHOWN)
        .collect();
    let error = match status {
        _ if status.is_success() => None,
        _ if status.is_redirection() => Some(format!(
            "{status}: redirects are not followed; give the channel its final URL"
        )),
        _ => Some(format!(
            "{status}{}{text}",
            if text.is_empty() { "" } else { ": " }
        )),
    };
    Answer {
        verdict: verdict(channel.kind, status, pause),
        status: Some(status.as_u16()),
        latency,
        error,
        body: (!text.is_empty()).then_some(text),
    }
}

/// Whether it is worth trying again. Receivers of one's own are repaired; what a vendor's API refuses
/// it will refuse again.
fn verdict(kind: Kind, status: StatusCode, pause: Option<Duration>) -> Verdict {
    let busy = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
    let own = matches!(kind, Kind::Webhook | Kind::Json);
    match status {
        _ if status.is_success() => Verdict::Delivered,
        _ if busy => Verdict::Later(pause),
        StatusCode::GONE => Verdict::Refused,
        _ if own && status.is_client_error() => Verdict::Later(pause),
        _ => Verdict::Refused,
    }
}

/// `Retry-After` in seconds; its other form, a date, nobody we talk to sends.
fn pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let pause = Duration::from_secs(seconds.trim().parse().ok()?);
    Some(pause.min(LONGEST_PAUSE))
}

impl Channel {
    /// Whether it wants to hear of an event.
    pub fn wants(&self, event: Event) -> bool {
        event != Event::Resolved || self.settings.resolved
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_that_receivers_compute() {
        let secrets = Secrets {
            url: String::new(),
            signing: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()],
            routing_key: None,
            headers: Default::default(),
        };
        let signature = signatures(
            &secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_a_vendor_refuses_is_not_tried_again() {
        let of = |kind, status: u16| verdict(kind, StatusCode::from_u16(status).unwrap(), None);
        for kind in Kind::ALL {
            assert_eq!(of(kind, 202), Verdict::Delivered);
            assert_eq!(of(kind, 503), Verdict::Later(None));
            assert_eq!(of(kind, 429), Verdict::Later(None));
            assert_eq!(of(kind, 410), Verdict::Refused);
            assert_eq!(of(kind, 302), Verdict::Refused);
        }
        assert_eq!(of(Kind::Pagerduty, 400), Verdict::Refused);
        assert_eq!(of(Kind::Slack, 404), Verdict::Refused);
        assert_eq!(of(Kind::Webhook, 404), Verdict::Later(None));
    }
}
