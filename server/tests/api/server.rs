//! A server under test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use segno_server::config::{AuthMode, Config, Secret};
use serde_json::Value;
use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The administrator's key of servers in mode `keys`.
pub(crate) const ADMIN: &str = "dbos_test-administrator-0123456789abcdefghijklmnop";

/// A database that is dropped with this value.
pub(crate) struct Database {
    pub(crate) url: String,
    _directory: Option<tempfile::TempDir>,
    pub(crate) drop: Option<(String, String)>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite://{}/segno.db", directory.path().display()),
            _directory: Some(directory),
            drop: None,
        }
    }

    /// One that somebody else drops.
    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            _directory: None,
            drop: None,
        }
    }

    pub(crate) async fn postgres() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var("SEGNO_TEST_POSTGRES_URL").expect(
            "SEGNO_TEST_POSTGRES_URL must name a Postgres on which databases may be created, \
             e.g. postgres://postgres@127.0.0.1:5432/postgres",
        );
        let name = format!(
            "segno_api_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        execute(&base, format!("CREATE DATABASE {name}")).await;
        let mut url = url::Url::parse(&base).unwrap();
        url.set_path(&name);
        Self {
            url: url.to_string(),
            _directory: None,
            drop: Some((base, name)),
        }
    }
}

pub(crate) async fn execute(url: &str, sql: String) {
    install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((base, name)) = self.drop.take() else {
            return;
        };
        // A test ends inside a runtime; blocking is possible on a thread of its own only.
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(execute(&base, format!("DROP DATABASE {name} WITH (FORCE)")));
        });
        done.join().ok();
    }
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) base: String,
    pub(crate) client: Client,
    pub(crate) database: Database,
    task: Option<JoinHandle<anyhow::Result<()>>>,
    shutdown: CancellationToken,
}

/// An answer: status, headers, body as JSON (null if it is none).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    /// The answer, if it has this status; a panic that shows it otherwise.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A problem of this status, well-formed.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> Value {
        let answer = self.expect(status);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{}",
            answer.text
        );
        assert_eq!(answer.json["status"], status);
        assert!(answer.json["title"].is_string(), "{}", answer.text);
        assert!(answer.json["detail"].is_string(), "{}", answer.text);
        answer.json
    }

    /// Locations of all faults of a problem.
    #[track_caller]
    pub(crate) fn faults(self, status: u16) -> Vec<String> {
        let problem = self.problem(status);
        let errors = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("no errors in {problem}"));
        errors
            .iter()
            .map(|fault| fault["location"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl TestServer {
    /// A server on each engine.
    pub(crate) async fn each(auth: AuthMode) -> Vec<Self> {
        vec![
            Self::start(Database::sqlite(), auth).await,
            Self::start(Database::postgres().await, auth).await,
        ]
    }

    pub(crate) async fn start(database: Database, auth: AuthMode) -> Self {
        Self::start_with(database, auth, |_| {}).await
    }

    /// A server whose settings a test adapts.
    pub(crate) async fn start_with(
        database: Database,
        auth: AuthMode,
        adapt: impl FnOnce(&mut Config),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config::local(&database.url);
        config.auth = auth;
        config.admin_key = (auth == AuthMode::Keys).then(|| Secret::new(ADMIN));
        adapt(&mut config);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(segno_server::serve(config, listener, shutdown.clone()));
        let server = Self {
            base: format!("http://{address}"),
            client: Client::builder()
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
            database,
            task: Some(task),
            shutdown,
        };
        // The listener queues this until the server accepts, so nothing is polled.
        let ready = server.client.get(format!("{}/readyz", server.base)).send();
        let mut server = server;
        tokio::select! {
            ready = ready => assert_eq!(ready.unwrap().status(), 200),
            ended = server.task.as_mut().unwrap() => panic!("the server did not start: {ended:?}"),
        }
        server
    }

    /// Stops the server and gives the database back.
    pub(crate) async fn stop(mut self) -> Database {
        self.shutdown.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .expect("stops in time")
            .unwrap()
            .unwrap();
        self.database
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// A request with the administrator's key.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(ADMIN)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.admin(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.admin(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.admin(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        send(self.admin(Method::PATCH, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.admin(Method::DELETE, path)).await
    }

    /// Makes a key with these permissions and applications; its text.
    pub(crate) async fn key(&self, name: &str, permissions: &[&str], apps: &[&str]) -> String {
        let body = serde_json::json!({"permissions": permissions, "appNames": apps});
        let made = self
            .post(&format!("/v2/orgs/local/tokens/{name}"), body)
            .await
            .expect(201);
        made.json["token"].as_str().unwrap().to_owned()
    }

    /// A GET with some key.
    pub(crate) async fn get_with(&self, key: &str, path: &str) -> Answer {
        send(self.request(Method::GET, path).bearer_auth(key)).await
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    // A stream of events has no end to be read to.
    let endless = headers
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream");
    let text = if endless {
        String::new()
    } else {
        response.text().await.unwrap()
    };
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer {
        status,
        headers,
        text,
        json,
    }
}
