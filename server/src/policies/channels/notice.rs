//! What there is to tell of an alert, and how each kind of channel wants to hear it.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::channel::Severity;
use crate::policies::rules::RULE_TYPES;

/// PagerDuty refuses a longer summary.
const LONGEST_SUMMARY: usize = 1024;
/// Slack refuses a longer section.
const LONGEST_SECTION: usize = 2900;

/// Why a channel is told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The rule's condition holds.
    Firing,
    /// It does not hold any more.
    Resolved,
    /// Somebody tries the channel.
    Test,
}

impl Event {
    /// As stored and told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// Everything there is to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// The alert; the same while the condition holds.
    pub alert_id: String,
    /// Why this is told.
    pub event: Event,
    /// The rule.
    pub rule_id: String,
    /// What the rule watches.
    pub rule_type: String,
    /// What it found, for people.
    pub message: String,
    /// What it found, for programs.
    pub metadata: BTreeMap<String, String>,
    /// The organization's name.
    pub organization: String,
    /// The application that is watched.
    pub application: String,
    /// When the condition was first seen to hold, epoch milliseconds.
    pub since: i64,
    /// When this was put down, epoch milliseconds.
    pub at: i64,
}

/// RFC 3339 of epoch milliseconds.
fn time(ms: i64) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

impl Notice {
    /// What a test of a channel tells.
    pub fn test(id: &str, organization: &str, now: i64) -> Self {
        Self {
            alert_id: id.to_owned(),
            event: Event::Test,
            rule_id: "test".to_owned(),
            rule_type: "Test".to_owned(),
            message: "This is a test of the channel; nothing is wrong.".to_owned(),
            metadata: BTreeMap::new(),
            organization: organization.to_owned(),
            application: "test".to_owned(),
            since: now,
            at: now,
        }
    }

    /// One of each rule type and event: what a template must be able to render.
    pub fn samples() -> Vec<Self> {
        let mut samples = vec![Self::test(
            "00000000-0000-0000-0000-000000000000",
            "local",
            0,
        )];
        for rule_type in RULE_TYPES {
            for event in [Event::Firing, Event::Resolved] {
                let facts = rule_type.facts.iter();
                samples.push(Self {
                    event,
                    rule_type: rule_type.name.to_owned(),
                    message: "a \"quoted\" sample\nof two lines".to_owned(),
                    metadata: facts
                        .map(|fact| ((*fact).to_owned(), "1".to_owned()))
                        .collect(),
                    ..samples[0].clone()
                });
            }
        }
        samples
    }

    /// A line for people.
    fn headline(&self) -> String {
        let (rule, app) = (&self.rule_type, &self.application);
        match self.event {
            Event::Firing => format!("{rule}: {app}"),
            Event::Resolved => format!("Resolved: {rule}: {app}"),
            Event::Test => "Test of an alert channel".to_owned(),
        }
    }

    /// The body of a webhook: an envelope as Standard Webhooks suggests it.
    pub fn webhook(&self) -> Value {
        json!({
            "type": format!("alert.{}", self.event.name()),
            "timestamp": time(self.at),
            "data": {
                "alertId": self.alert_id, "ruleId": self.rule_id, "ruleType": self.rule_type,
                "message": self.message, "metadata": self.metadata, "organization": self.organization,
                "application": self.application, "since": time(self.since),
            },
        })
    }

    /// The body for a Slack incoming webhook, and for what imitates one.
    pub fn slack(&self) -> Value {
        // The three characters that mean something there.
        let plain = |text: &str| {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
        };
        let facts: Vec<String> = self
            .metadata
            .iter()
            .map(|(name, value)| format!("{}: {}", plain(name), plain(value)))
            .collect();
        let context = format!("{} · since {}", plain(&self.organization), time(self.since));
        let mut blocks = vec![
            json!({"type": "header", "text": {"type": "plain_text", "text": shortened(&self.headline(), 140)}}),
            json!({"type": "section", "text": {"type": "mrkdwn",
                "text": shortened(&plain(&self.message), LONGEST_SECTION)}}),
        ];
        if !facts.is_empty() {
            let text = shortened(&facts.join("\n"), LONGEST_SECTION);
            blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": text}}));
        }
        blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": context}]}));
        let text = format!("{}: {}", plain(&self.headline()), plain(&self.message));
        json!({"text": shortened(&text, LONGEST_SECTION), "blocks": blocks})
    }

    /// An event for PagerDuty's Events API v2. A test opens nothing that stays: see [`Notice::over`].
    pub fn pagerduty(&self, routing_key: &str, severity: Option<Severity>) -> Value {
        let dedup_key = format!("segno/{}", self.alert_id);
        if self.event == Event::Resolved {
            return json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key});
        }
        let severity = match self.event {
            Event::Test => Severity::Info,
            _ => severity.unwrap_or_else(|| self.severity()),
        };
        json!({
            "routing_key": routing_key,
            "event_action": "trigger",
            "dedup_key": dedup_key,
            "client": "Segno",
            "payload": {
                "summary": shortened(&self.message, LONGEST_SUMMARY - 1),
                "source": self.application,
                "severity": severity.name(),
                "timestamp": time(self.since),
                "component": self.application,
                "group": self.organization,
                "class": self.rule_type,
                "custom_details": self.metadata,
            },
        })
    }

    /// How bad it is, unless the channel says otherwise.
    fn severity(&self) -> Severity {
        match self.rule_type.as_str() {
            "UnresponsiveApplication" | "StrandedRecovery" => Severity::Critical,
            "SlowQueue" => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// The same, over.
    pub fn over(&self) -> Self {
        Self {
            event: Event::Resolved,
            ..self.clone()
        }
    }

    /// What a template sees. Facts that the rule type does not have are there, as null, so that a
    /// misspelt one is told from an absent one.
    pub fn variables(&self) -> Value {
        let mut metadata: BTreeMap<&str, Option<&str>> = RULE_TYPES
            .iter()
            .flat_map(|rule_type| rule_type.facts)
            .map(|fact| (*fact, None))
            .collect();
        for (name, value) in &self.metadata {
            metadata.insert(name, Some(value));
        }
        json!({
            "alert_id": self.alert_id, "state": self.event.name(), "rule_id": self.rule_id,
            "rule_type": self.rule_type, "message": self.message, "metadata": metadata,
            "organization": self.organization, "application": self.application,
            "since": time(self.since), "timestamp": time(self.at), "headline": self.headline(),
            "severity": self.severity().name(),
        })
    }
}
