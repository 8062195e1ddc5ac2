//! The REST API, as a user of the product calls it.

use anyhow::Context;
use chrono::{DateTime, Utc};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// An executor as `listExecutors` shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executor {
    /// Its id.
    pub executor_id: String,
    /// The version it runs.
    pub app_version: String,
    /// `HEALTHY`, `DISCONNECTED` or `DEAD`.
    pub status: String,
}

/// One offer inside a [`Recovery`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Who was asked.
    pub executor_id: String,
    /// When.
    pub at: DateTime<Utc>,
    /// What came of it.
    pub outcome: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The record of one loss.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// Its id.
    pub id: String,
    /// Who was lost.
    pub executor_id: String,
    /// The version it ran.
    pub app_version: String,
    /// `GRACE`, `REJOINED`, `DISPATCHING`, `RECOVERED`, `NOTHING_PENDING`, `STRANDED` or `ABANDONED`.
    pub status: String,
    /// Why it is stranded.
    pub reason: Option<String>,
    /// How many workflows wait, once somebody could be asked.
    pub pending_workflows: Option<i64>,
    /// When the executor was last there.
    pub disconnected_at: DateTime<Utc>,
    /// When grace ended.
    pub dead_at: Option<DateTime<Utc>>,
    /// When somebody was asked to take over.
    pub dispatched_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub completed_at: Option<DateTime<Utc>>,
    /// Who took over.
    pub recovered_by: Option<String>,
    /// Every offer.
    pub attempts: Vec<Attempt>,
}

impl Recovery {
    /// Nothing more will happen to it.
    pub fn is_final(&self) -> bool {
        ["RECOVERED", "NOTHING_PENDING", "REJOINED", "ABANDONED"].contains(&self.status.as_str())
    }
}

/// The API of one server, with an admin key.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    server: String,
    key: String,
}

impl Api {
    /// `server` is e.g. `http://127.0.0.1:8090`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(server: String, key: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .build()?;
        Ok(Self { http, server, key })
    }

    /// One call; the status and the body, which is null when empty.
    ///
    /// # Errors
    /// When the server does not answer, or not with JSON.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.server))
            .bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?
        };
        Ok((status, value))
    }

    async fn expect(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (status, value) = self.call(method.clone(), path, body).await?;
        anyhow::ensure!(status.is_success(), "{method} {path}: {status} {value}");
        Ok(value)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let value = self.expect(Method::GET, path, None).await?;
        serde_json::from_value(value.clone()).with_context(|| format!("GET {path}: {value}"))
    }

    /// Registers an application with a grace period in seconds.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn register(&self, app: &str, grace_secs: u64) -> anyhow::Result<()> {
        let path = app_path(app);
        self.expect(Method::PUT, &path, None).await?;
        let settings = json!({ "executorTimeoutSecs": grace_secs });
        self.expect(Method::PATCH, &path, Some(&settings)).await?;
        Ok(())
    }

    /// Makes an API key; without permissions named it may connect executors and nothing else.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_key(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("/v2/orgs/local/tokens/{name}");
        let value = self.expect(Method::POST, &path, None).await?;
        let token = value["token"].as_str().context("no token in the answer")?;
        Ok(token.to_owned())
    }

    /// All executors of an application.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn executors(&self, app: &str) -> anyhow::Result<Vec<Executor>> {
        self.get(&format!("{}/executors", app_path(app))).await
    }

    /// All records, newest first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn recoveries(&self, app: &str) -> anyhow::Result<Vec<Recovery>> {
        self.get(&format!("{}/recoveries?limit=1000", app_path(app)))
            .await
    }

    /// The newest record of an executor's loss.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn recovery_of(&self, app: &str, executor: &str) -> anyhow::Result<Option<Recovery>> {
        let path = format!("{}/recoveries?executorId={executor}", app_path(app));
        let found: Vec<Recovery> = self.get(&path).await?;
        Ok(found.into_iter().next())
    }

    /// `POST …/recoveries/{id}/{action}`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn act_on_recovery(
        &self,
        app: &str,
        id: &str,
        action: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let path = format!("{}/recoveries/{id}/{action}", app_path(app));
        self.expect(Method::POST, &path, Some(body)).await
    }

    /// Whether the server says it can serve.
    pub async fn is_ready(&self) -> bool {
        let answer = self
            .http
            .get(format!("{}/readyz", self.server))
            .send()
            .await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

fn app_path(app: &str) -> String {
    format!("/v2/orgs/local/apps/{app}")
}
