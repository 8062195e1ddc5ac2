//! The REST API as `segno dev` reads it: the demo shows nothing that a user could not ask for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

/// The API of one application.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Executor {
    pub(super) executor_id: String,
    pub(super) app_version: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) language: Option<String>,
}

impl Executor {
    pub(super) fn is_healthy(&self) -> bool {
        self.status == "HEALTHY"
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recovery {
    pub(super) id: String,
    pub(super) executor_id: String,
    pub(super) app_version: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) pending_workflows: Option<i64>,
    pub(super) disconnected_at: DateTime<Utc>,
    pub(super) dead_at: Option<DateTime<Utc>>,
    pub(super) dispatched_at: Option<DateTime<Utc>>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) recovered_by: Option<String>,
}

impl Recovery {
    /// Nothing more will happen to this record.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self.status.as_str(),
            "RECOVERED" | "NOTHING_PENDING" | "REJOINED" | "ABANDONED"
        )
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workflow {
    pub(super) workflow_id: String,
    pub(super) status: String,
    pub(super) executor_id: Option<String>,
    #[serde(default)]
    pub(super) completed_at: Option<DateTime<Utc>>,
}

impl Workflow {
    pub(super) fn is_active(&self) -> bool {
        matches!(self.status.as_str(), "PENDING" | "ENQUEUED" | "DELAYED")
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) step_id: i32,
    pub(super) step_name: String,
    pub(super) completed_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Aggregate {
    group: Option<std::collections::HashMap<String, Option<String>>>,
    #[serde(default)]
    count: i64,
}

impl Client {
    /// `server` is e.g. `http://127.0.0.1:8090`.
    pub(super) fn new(server: &str, app: &str) -> anyhow::Result<Self> {
        let app = percent_encoding::utf8_percent_encode(app, percent_encoding::NON_ALPHANUMERIC);
        Ok(Self {
            // Loopback only: a proxy from the environment would be asked in vain.
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(std::time::Duration::from_secs(10))
                .build()?,
            base: format!("{server}/v2/orgs/local/apps/{app}"),
        })
    }

    /// Address of the application's resource.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Registers the application and sets how long a lost executor may take to come back.
    pub(super) async fn register(&self, grace_secs: u32) -> anyhow::Result<()> {
        checked(self.http.put(&self.base).send().await?).await?;
        let settings = json!({ "executorTimeoutSecs": grace_secs });
        checked(self.http.patch(&self.base).json(&settings).send().await?).await?;
        Ok(())
    }

    pub(super) async fn executors(&self) -> anyhow::Result<Vec<Executor>> {
        self.get("/executors").await
    }

    /// Newest first.
    pub(super) async fn recoveries(&self) -> anyhow::Result<Vec<Recovery>> {
        self.get("/recoveries").await
    }

    /// Workflows that stand under an executor's name and are not over.
    pub(super) async fn pending_of(
        &self,
        executor_id: &str,
        version: &str,
    ) -> anyhow::Result<Vec<Workflow>> {
        let filter =
            json!({ "executorId": [executor_id], "appVersion": [version], "status": ["PENDING"] });
        self.search(&filter).await
    }

    pub(super) async fn workflows(&self, ids: &[String]) -> anyhow::Result<Vec<Workflow>> {
        self.search(&json!({ "workflowIds": ids })).await
    }

    pub(super) async fn steps(&self, workflow_id: &str) -> anyhow::Result<Vec<Step>> {
        let id =
            percent_encoding::utf8_percent_encode(workflow_id, percent_encoding::NON_ALPHANUMERIC);
        self.get(&format!("/workflows/{id}/steps")).await
    }

    /// How many workflows there are in each status.
    pub(super) async fn tally(&self) -> anyhow::Result<std::collections::BTreeMap<String, i64>> {
        let body = json!({ "groupByStatus": true, "selectCount": true });
        let rows: Vec<Aggregate> = self.post("/workflows/aggregates", &body).await?;
        let named = rows.into_iter().filter_map(|row| {
            let status = row.group?.remove("status")??;
            Some((status, row.count))
        });
        Ok(named.collect())
    }

    async fn search(&self, filter: &serde_json::Value) -> anyhow::Result<Vec<Workflow>> {
        self.post("/workflows/search", filter).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.base);
        Ok(checked(self.http.get(url).send().await?)
            .await?
            .json()
            .await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.post(url).json(body).send().await?;
        Ok(checked(answer).await?.json().await?)
    }
}

/// An error answer becomes an error that carries the problem's own words.
async fn checked(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    anyhow::bail!("{status}: {text}")
}
