//! REST clients at the load balancer: they read, and cancel, resume and fork with an `Idempotency-Key`.
//!
//! What an instance that is killed leaves unanswered is asked again, at another instance, under the same
//! key. An answer must be true: the clients compare it with the application's database.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::IndexedRandom;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::fleet::Language;
use crate::world::World;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// For an answer that says something, over all attempts.
const INSISTENCE: Duration = Duration::from_secs(150);
/// Workflows to choose from.
const RECENT: i64 = 300;

/// What is asked of the API of a workflow.
#[derive(Clone, Debug)]
struct Candidate {
    id: String,
    language: Language,
    version: String,
}

/// What callers did, for the judge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Keys of cancellations sent, by workflow.
    pub(crate) cancels: HashMap<String, u64>,
    /// Keys of forks sent, and of those that succeeded, by workflow.
    pub(crate) forks: HashMap<String, (u64, u64)>,
    /// Answers by status; `no answer` when the connection ended.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Mutations that were answered in the end, and those that never were.
    pub(crate) mutations: u64,
    pub(crate) unanswered: u64,
    /// Mutations of which a repeat was told that nobody knows whether they were done.
    pub(crate) undecided: u64,
    /// Mutations sent again after an answer that said nothing, and after one that said yes.
    pub(crate) repeated: u64,
    pub(crate) replayed: u64,
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Callers {
    world: Arc<World>,
    http: reqwest::Client,
    done: Mutex<Done>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of insisting.
enum Answer {
    Yes(Value),
    /// Whether it was done is not known: nothing that says anything came in time, or the server said so.
    Unknown,
    No,
}

impl Callers {
    pub(crate) fn new(world: &Arc<World>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            world: Arc::clone(world),
            http: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(2)
                .timeout(PATIENCE)
                .build()?,
            done: Mutex::default(),
        }))
    }

    pub(crate) fn done(&self) -> Done {
        lock(&self.done).clone()
    }

    /// Calls at the asked rate until dropped; a call that hangs does not hold up the others.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / self.world.args.calls));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut calls = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    calls.spawn(Arc::clone(&self).act());
                }
                Some(_) = calls.join_next() => {}
            }
        }
    }

    async fn act(self: Arc<Self>) {
        let choice = self.world.random(|rng| rng.random_range(0..100));
        let languages = self.world.languages();
        let language = self
            .world
            .random(|rng| languages.choose(rng).copied().unwrap_or(Language::Rust));
        let app = format!("/v2/orgs/local/apps/{}", language.app());
        match choice {
            0..8 => self.read(&format!("{app}/workflows?limit=20")).await,
            8..14 => self.read(&format!("{app}/executors")).await,
            14..20 => self.read(&format!("{app}/recoveries?limit=20")).await,
            _ => {
                let Some(candidate) = self.candidate(language, choice < 60).await else {
                    return;
                };
                match choice {
                    20..60 => self.look(&candidate).await,
                    60..80 => self.cancel_and_resume(&candidate).await,
                    _ => self.fork(&candidate).await,
                }
                lock(&self.world.busy).remove(&candidate.id);
            }
        }
    }

    async fn candidate(&self, language: Language, any: bool) -> Option<Candidate> {
        let url = self.world.app_postgres.url(language.database());
        let ask = async {
            let mut connection = PgConnection::connect(&url).await?;
            let sql = "SELECT workflow_uuid, application_version FROM dbos.workflow_status \
                       WHERE name = 'errand' AND ($2 OR status IN ('PENDING', 'ENQUEUED')) \
                       ORDER BY created_at DESC LIMIT $1";
            let rows: Vec<(String, Option<String>)> = sqlx::query_as(sql)
                .bind(RECENT)
                .bind(any || language == Language::Python)
                .fetch_all(&mut connection)
                .await?;
            anyhow::Ok(rows)
        };
        let rows = timeout(Duration::from_secs(5), ask).await.ok()?.ok()?;
        let (id, version) = self.world.random(|rng| rows.choose(rng).cloned())?;
        lock(&self.world.busy)
            .insert(id.clone())
            .then(|| Candidate {
                id,
                language,
                version: version.unwrap_or_default(),
            })
    }

    // ---- reading --------------------------------------------------------------------------------

    async fn read(&self, path: &str) {
        let door = self.world.door.address().to_string();
        if let Ok((status, body)) = self.once(&door, Method::GET, path, None, None).await
            && !may_fail(status)
            && !status.is_success()
        {
            self.lie(format!("GET {path}: {status} {body}"));
        }
    }

    async fn look(&self, candidate: &Candidate) {
        // An end that was read before the call is final, unless it is a cancellation.
        let Some(before) = self.status_of(candidate, Duration::from_secs(5)).await else {
            return;
        };
        let door = self.world.door.address().to_string();
        let path = workflow_path(candidate, "");
        let Ok((status, body)) = self.once(&door, Method::GET, &path, None, None).await else {
            return;
        };
        if may_fail(status) {
            return;
        }
        let said = body["status"].as_str().unwrap_or_default();
        let over = ["SUCCESS", "ERROR"].contains(&before.as_str());
        if !status.is_success() || (over && said != before) {
            self.lie(format!(
                "GET {path}: {status} {said:?}, and it was {before}"
            ));
        }
    }

    /// Straight from the database, which may be away for a while.
    async fn status_of(&self, candidate: &Candidate, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        loop {
            let url = self.world.app_postgres.url(candidate.language.database());
            let ask = async {
                let mut connection = PgConnection::connect(&url).await?;
                let sql = "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = $1";
                let row: (String,) = sqlx::query_as(sql)
                    .bind(&candidate.id)
                    .fetch_one(&mut connection)
                    .await?;
                anyhow::Ok(row.0)
            };
            if let Ok(Ok(status)) = timeout(Duration::from_secs(10), ask).await {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    // ---- changing -------------------------------------------------------------------------------

    async fn cancel_and_resume(&self, candidate: &Candidate) {
        *lock(&self.done)
            .cancels
            .entry(candidate.id.clone())
            .or_default() += 1;
        let key = Uuid::new_v4().to_string();
        let cancel = workflow_path(candidate, "/cancel");
        if !matches!(self.insist(&cancel, &json!({}), &key).await, Answer::Yes(_)) {
            return;
        }
        self.must_be(candidate, "cancelled", |status| {
            ["CANCELLED", "SUCCESS", "ERROR"].contains(&status)
        })
        .await;
        self.perhaps_again(&cancel, &json!({}), &key).await;
        let resume = workflow_path(candidate, "/resume");
        let mut key = Uuid::new_v4().to_string();
        loop {
            match self.insist(&resume, &json!({}), &key).await {
                Answer::Yes(_) => break,
                Answer::No => return,
                Answer::Unknown => {}
            }
            // As the answer advises: look, and if it is not done ask with a new key.
            let status = self.status_of(candidate, Duration::from_secs(60)).await;
            if status.as_deref() != Some("CANCELLED") {
                return;
            }
            key = Uuid::new_v4().to_string();
        }
        self.must_be(candidate, "resumed", |status| status != "CANCELLED")
            .await;
        self.perhaps_again(&resume, &json!({}), &key).await;
    }

    async fn must_be(&self, candidate: &Candidate, what: &str, is: impl Fn(&str) -> bool) {
        if let Some(status) = self.status_of(candidate, Duration::from_secs(60)).await
            && !is(&status)
        {
            self.lie(format!(
                "{} was {what}, it was said, and is {status}",
                candidate.id
            ));
        }
    }

    async fn fork(&self, candidate: &Candidate) {
        lock(&self.done)
            .forks
            .entry(candidate.id.clone())
            .or_default()
            .0 += 1;
        let key = Uuid::new_v4().to_string();
        let path = workflow_path(candidate, "/fork");
        let body = json!({ "startStep": 1, "appVersion": candidate.version });
        let Answer::Yes(answer) = self.insist(&path, &body, &key).await else {
            return;
        };
        let Some(id) = answer["workflowId"].as_str() else {
            self.lie(format!("POST {path}: no id of the fork in {answer}"));
            return;
        };
        lock(&self.done)
            .forks
            .entry(candidate.id.clone())
            .or_default()
            .1 += 1;
        let fork = Candidate {
            id: id.to_owned(),
            ..candidate.clone()
        };
        if self
            .status_of(&fork, Duration::from_secs(60))
            .await
            .is_none()
        {
            self.lie(format!("POST {path}: there is no fork {id}"));
        }
        if let Some(Answer::Yes(again)) = self.perhaps_again(&path, &body, &key).await
            && again != answer
        {
            self.lie(format!(
                "POST {path}: {answer}, and then {again} for the same key"
            ));
        }
    }

    /// A client that lost the answer asks again.
    async fn perhaps_again(&self, path: &str, body: &Value, key: &str) -> Option<Answer> {
        if !self.world.random(|rng| rng.random_bool(0.3)) {
            return None;
        }
        lock(&self.done).replayed += 1;
        Some(self.insist_again(path, body, key, true).await)
    }

    /// Asks until there is an answer that says something: first at the load balancer, then at one instance after the
    /// other.
    async fn insist(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.insist_again(path, body, key, false).await
    }

    /// `again`: it was asked under this key before. The first answer may not have been kept, should the store have been
    /// away.
    async fn insist_again(&self, path: &str, body: &Value, key: &str, again: bool) -> Answer {
        let end = Instant::now() + INSISTENCE;
        let mut doors = vec![self.world.door.address().to_string()];
        let fronts = self.world.instances.iter();
        doors.extend(fronts.map(|each| each.front.address().to_string()));
        for attempt in 0.. {
            if attempt > 0 {
                lock(&self.done).repeated += 1;
                sleep(self.world.seconds(0.2..1.5)).await;
            }
            if Instant::now() > end {
                lock(&self.done).unanswered += 1;
                return Answer::Unknown;
            }
            let door = &doors[attempt % doors.len()];
            let asked = self.once(door, Method::POST, path, Some(body), Some(key));
            let Ok((status, answer)) = asked.await else {
                continue;
            };
            let conflict = |words: &str| {
                let detail = answer["detail"].as_str().unwrap_or_default();
                status == StatusCode::CONFLICT && detail.contains(words)
            };
            if may_fail(status) || conflict("still being served") {
                continue;
            }
            // What must not be done twice is not done again after an attempt of which nobody knows what came of it.
            if (again || attempt > 0) && conflict("nobody knows whether") {
                lock(&self.done).undecided += 1;
                return Answer::Unknown;
            }
            lock(&self.done).mutations += 1;
            if status.is_success() {
                return Answer::Yes(answer);
            }
            self.lie(format!("POST {path}: {status} {answer}"));
            return Answer::No;
        }
        Answer::Unknown
    }

    async fn once(
        &self,
        door: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("http://{door}{path}"))
            .bearer_auth(&self.world.admin_key);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = async {
            let answer = request.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            anyhow::Ok((status, text))
        };
        let answer = answer.await;
        let label = match &answer {
            Ok((status, _)) => status.as_u16().to_string(),
            Err(_) => "no answer".to_owned(),
        };
        *lock(&self.done).answers.entry(label).or_default() += 1;
        let (status, text) = answer?;
        let value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Ok((status, value))
    }

    fn lie(&self, what: String) {
        self.world.truth.violation(format!("REST: {what}"));
    }
}

/// Failures that say so, and promise nothing.
fn may_fail(status: StatusCode) -> bool {
    [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

fn workflow_path(candidate: &Candidate, action: &str) -> String {
    format!(
        "/v2/orgs/local/apps/{}/workflows/{}{action}",
        candidate.language.app(),
        candidate.id
    )
}
