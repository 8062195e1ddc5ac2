//! Alerting rules: what they may say, and what the alert tells.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// When a rule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// So many workflows ended badly within the last seconds.
    WorkflowFailure {
        /// Only of this name.
        workflow_name: Option<String>,
        /// At least so many.
        threshold: i64,
        /// Within so many seconds.
        period_secs: i64,
    },
    /// A workflow has been waiting on a queue for so long.
    SlowQueue {
        /// Only on this queue.
        queue_name: Option<String>,
        /// Longer than so many seconds.
        threshold_secs: i64,
    },
    /// No executor is connected, or none of those connected answers.
    UnresponsiveApplication,
    /// A recovery is stranded with at least so many workflows.
    StrandedRecovery {
        /// At least so many.
        min_workflows: i64,
    },
}

/// A type of rule, and the names of the facts that its alerts tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleTypeFacts {
    /// Name of the type.
    pub name: &'static str,
    /// Keys of [`Finding::metadata`].
    pub facts: &'static [&'static str],
}

/// All of them.
pub const RULE_TYPES: [RuleTypeFacts; 4] = [
    RuleTypeFacts {
        name: "WorkflowFailure",
        facts: &[
            "workflow_name",
            "failed_workflow_count",
            "threshold",
            "period_secs",
        ],
    },
    RuleTypeFacts {
        name: "SlowQueue",
        facts: &["queue_name", "stuck_workflow_count", "threshold_secs"],
    },
    RuleTypeFacts {
        name: "UnresponsiveApplication",
        facts: &["application_name", "connected_executor_count"],
    },
    RuleTypeFacts {
        name: "StrandedRecovery",
        facts: &[
            "application_name",
            "application_version",
            "executor_id",
            "pending_workflow_count",
            "reason",
        ],
    },
];

/// A century: longer than anybody waits, short enough for arithmetic in milliseconds.
const MOST_SECS: i64 = 100 * 366 * 24 * 3600;

/// Members of a rule's metadata, taken one by one; what is left is unknown.
struct Members(Map<String, Value>);

impl Members {
    fn take(&mut self, name: &str) -> Option<Value> {
        let camel: String = name
            .split('_')
            .enumerate()
            .map(|(index, word)| match index {
                0 => word.to_owned(),
                _ => word[..1].to_uppercase() + &word[1..],
            })
            .collect();
        let given = self.0.remove(name).or_else(|| self.0.remove(&camel));
        given.filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            // What alerts show for "any" means any.
            Some(Value::String(text)) if text.is_empty() || text == "*" => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("ruleMetadata.{name} must be a string")),
        }
    }

    /// A number of at least 1, or its text.
    fn count(&mut self, name: &str, default: Option<i64>, most: i64) -> Result<i64, String> {
        let number = match self.take(name) {
            None => default,
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_i64(),
        };
        number
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| format!("ruleMetadata.{name} must be a whole number from 1 to {most}"))
    }
}

impl Condition {
    /// Reads a rule's metadata. Numbers may be text, names in camelCase. On failure, what is wrong.
    pub fn parse(rule_type: &str, metadata: &Value) -> Result<Self, String> {
        let mut members = match metadata {
            Value::Object(members) => Members(members.clone()),
            Value::Null => Members(Map::new()),
            _ => return Err("ruleMetadata must be an object".to_owned()),
        };
        let condition = match rule_type {
            "WorkflowFailure" => Self::WorkflowFailure {
                workflow_name: members.text("workflow_name")?,
                threshold: members.count("threshold", Some(1), i64::MAX)?,
                period_secs: members.count("period_secs", Some(60), MOST_SECS)?,
            },
            "SlowQueue" => Self::SlowQueue {
                queue_name: members.text("queue_name")?,
                threshold_secs: members.count("threshold_secs", None, MOST_SECS)?,
            },
            "UnresponsiveApplication" => Self::UnresponsiveApplication,
            "StrandedRecovery" => Self::StrandedRecovery {
                min_workflows: members.count("min_workflows", Some(1), i64::MAX)?,
            },
            other => return Err(format!("there is no rule type {other:?}")),
        };
        match members.0.keys().next() {
            None => Ok(condition),
            Some(unknown) => Err(format!(
                "ruleMetadata.{unknown} means nothing for {rule_type}"
            )),
        }
    }

    /// The name of the rule's type.
    pub fn rule_type(&self) -> &'static str {
        match self {
            Self::WorkflowFailure { .. } => "WorkflowFailure",
            Self::SlowQueue { .. } => "SlowQueue",
            Self::UnresponsiveApplication => "UnresponsiveApplication",
            Self::StrandedRecovery { .. } => "StrandedRecovery",
        }
    }

    /// The metadata, with defaults filled in.
    pub fn normalized(&self) -> Value {
        let mut value = match self {
            Self::WorkflowFailure {
                workflow_name,
                threshold,
                period_secs,
            } => {
                json!({"workflow_name": workflow_name, "threshold": threshold, "period_secs": period_secs})
            }
            Self::SlowQueue {
                queue_name,
                threshold_secs,
            } => {
                json!({"queue_name": queue_name, "threshold_secs": threshold_secs})
            }
            Self::UnresponsiveApplication => json!({}),
            Self::StrandedRecovery { min_workflows } => json!({"min_workflows": min_workflows}),
        };
        if let Some(members) = value.as_object_mut() {
            members.retain(|_, member| !member.is_null());
        }
        value
    }

    /// Seconds between two alerts of a rule that says nothing about it.
    pub fn own_interval_secs(&self) -> i64 {
        match self {
            Self::WorkflowFailure { period_secs, .. } => *period_secs,
            Self::SlowQueue { threshold_secs, .. } => *threshold_secs,
            Self::UnresponsiveApplication | Self::StrandedRecovery { .. } => 0,
        }
    }
}

/// What an alert tells its receiver: a sentence, and facts as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// For people.
    pub message: String,
    /// For programs.
    pub metadata: BTreeMap<String, String>,
}

impl Finding {
    /// A finding with these facts.
    pub fn new(message: String, metadata: &[(&str, &dyn ToString)]) -> Self {
        let owned = |(name, value): &(&str, &dyn ToString)| ((*name).to_owned(), value.to_string());
        Self {
            message,
            metadata: metadata.iter().map(owned).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn normalized(rule_type: &str, metadata: Value) -> Result<Value, String> {
        Condition::parse(rule_type, &metadata).map(|condition| condition.normalized())
    }

    #[test]
    fn every_spelling_is_read_and_one_is_echoed() {
        assert_eq!(
            normalized(
                "WorkflowFailure",
                json!({"workflowName": "w", "threshold": "3", "periodSecs": 90})
            )
            .unwrap(),
            json!({"workflow_name": "w", "threshold": 3, "period_secs": 90})
        );
        assert_eq!(
            normalized("WorkflowFailure", json!({"workflow_name": "*"})).unwrap(),
            json!({"threshold": 1, "period_secs": 60})
        );
        assert_eq!(
            normalized("UnresponsiveApplication", json!(null)).unwrap(),
            json!({})
        );
        assert_eq!(
            normalized("StrandedRecovery", json!({})).unwrap(),
            json!({"min_workflows": 1})
        );
    }

    #[test]
    fn nonsense_is_named() {
        for (rule_type, metadata, word) in [
            ("SlowQueue", json!({}), "threshold_secs"),
            ("SlowQueue", json!({"threshold_secs": 0}), "threshold_secs"),
            (
                "SlowQueue",
                json!({"threshold_secs": 1.5}),
                "threshold_secs",
            ),
            ("WorkflowFailure", json!({"threshold": "many"}), "threshold"),
            (
                "WorkflowFailure",
                json!({"workflow_name": 1}),
                "workflow_name",
            ),
            ("WorkflowFailure", json!({"queue_name": "q"}), "queue_name"),
            ("UnresponsiveApplication", json!([]), "object"),
            ("Nope", json!({}), "Nope"),
        ] {
            let fault = normalized(rule_type, metadata.clone()).unwrap_err();
            assert!(fault.contains(word), "{rule_type} {metadata}: {fault}");
        }
    }
}
