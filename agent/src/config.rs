//! An application's settings from a file and from the environment, for what differs between deployments.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;

use crate::builder::{Builder, Migrate};
use crate::error::{Error, Result};
use crate::queue::{OnQueueConflict, Queue};
use crate::state::NoAppState;

/// The file. Every key but the name may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) name: Option<String>,
    #[serde(alias = "system_database_url")]
    pub(crate) database_url: Option<String>,
    #[serde(alias = "system_database_schema")]
    pub(crate) schema: Option<String>,
    pub(crate) migrate: Option<Migrate>,
    pub(crate) inline_payloads: Option<bool>,
    pub(crate) app_version: Option<String>,
    pub(crate) executor_id: Option<String>,
    #[serde(default)]
    pub(crate) executor_metadata: serde_json::Map<String, serde_json::Value>,
    pub(crate) conductor_url: Option<String>,
    pub(crate) conductor_key: Option<String>,
    pub(crate) metadata_only: Option<bool>,
    pub(crate) listen_queues: Option<HashSet<String>>,
    pub(crate) retention: Option<Span>,
    pub(crate) max_recovery_attempts: Option<u32>,
    pub(crate) max_payload_bytes: Option<usize>,
    #[serde(default)]
    pub(crate) queues: Vec<QueueEntry>,
}

/// `90s`, `15m`, `6h`, `30d`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            D::Error::custom(format!(
                "`{text}` is no length of time such as 90s, 15m, 6h or 30d"
            ))
        };
        let seconds = match text.chars().last().ok_or_else(wrong)? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        let seconds = count.checked_mul(seconds).ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// A queue and its limits, under the names of [`Queue`]'s methods.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueEntry {
    name: String,
    concurrency: Option<u32>,
    worker_concurrency: Option<u32>,
    rate_limit: Option<Rate>,
    partition_concurrency: Option<u32>,
    partition_worker_concurrency: Option<u32>,
    partition_rate_limit: Option<Rate>,
    polling_interval: Option<Span>,
    on_conflict: Option<OnQueueConflict>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    starts: u32,
    period: Span,
}

impl QueueEntry {
    fn queue(self) -> Queue {
        type Limit = fn(Queue, u32) -> Queue;
        let limits: [(Option<u32>, Limit); 4] = [
            (self.concurrency, Queue::concurrency),
            (self.worker_concurrency, Queue::worker_concurrency),
            (self.partition_concurrency, Queue::partition_concurrency),
            (
                self.partition_worker_concurrency,
                Queue::partition_worker_concurrency,
            ),
        ];
        let mut queue = Queue::new(self.name);
        for (given, limit) in limits {
            if let Some(runs) = given {
                queue = limit(queue, runs);
            }
        }
        if let Some(rate) = self.rate_limit {
            queue = queue.rate_limit(rate.starts, rate.period.0);
        }
        if let Some(rate) = self.partition_rate_limit {
            queue = queue.partition_rate_limit(rate.starts, rate.period.0);
        }
        if let Some(interval) = self.polling_interval {
            queue = queue.polling_interval(interval.0);
        }
        match self.on_conflict {
            Some(on_conflict) => queue.on_conflict(on_conflict),
            None => queue,
        }
    }
}

/// Reads a file and puts variables into it.
pub(crate) fn read(path: &Path) -> Result<Builder<NoAppState>> {
    let wrong = |reason: String| Error::config("file", format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // The message alone: the rest quotes the line, which may hold a secret.
    let mut table: toml::Table =
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    for (key, value) in &mut table {
        put_variables(key, value).map_err(wrong)?;
    }
    let file: File =
        serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let (key, inner) = (error.path().to_string(), error.inner());
            match key.as_str() {
                "." => wrong(inner.message().to_owned()),
                key => wrong(format!("`{key}`: {}", inner.message())),
            }
        })?;
    let name = set("SEGNO_APP_NAME").or_else(|| file.name.clone());
    let name =
        name.ok_or_else(|| wrong("it has no `name`; the application needs one".to_owned()))?;
    Ok(Builder::new(name).with_file(file))
}

/// A text that is `${NAME}` from end to end is that variable's value.
fn put_variables(key: &str, value: &mut toml::Value) -> Result<(), String> {
    match value {
        toml::Value::String(text) => {
            let name = text
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            if let Some(name) = name {
                let found = set(name);
                *text = found.ok_or_else(|| {
                    format!("`{key}` is ${{{name}}}, and that variable is not set")
                })?;
            }
            Ok(())
        }
        toml::Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| put_variables(key, item)),
        toml::Value::Table(table) => table
            .iter_mut()
            .try_for_each(|(key, value)| put_variables(key, value)),
        _ => Ok(()),
    }
}

/// A variable that is set and not empty.
pub(crate) fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl File {
    pub(crate) fn take_queues(&mut self) -> Vec<Queue> {
        std::mem::take(&mut self.queues)
            .into_iter()
            .map(QueueEntry::queue)
            .collect()
    }
}
