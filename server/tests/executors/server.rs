//! A server under test, in a runtime of its own so that it can be killed like a process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use segno_server::config::{AuthMode, Config, Secret};
use serde_json::{Value, json};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: &str = "dbos_test-administrator-0123456789abcdefghijklmnop";
/// Nothing in these tests takes longer, unless it never comes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Where the server keeps its state; dropped with this value.
pub(crate) struct Database {
    pub(crate) url: String,
    _directory: Option<tempfile::TempDir>,
    drop: Option<(String, String)>,
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

    pub(crate) async fn postgres() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var("SEGNO_TEST_POSTGRES_URL").expect(
            "SEGNO_TEST_POSTGRES_URL must name a Postgres on which databases may be created, \
             e.g. postgres://postgres@127.0.0.1:5432/postgres",
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("segno_executors_{}_{number}", std::process::id());
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

/// Does something to a database behind the server's back.
pub(crate) async fn execute(url: &str, sql: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((base, name)) = self.drop.take() else {
            return;
        };
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

/// The API of a running server.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
}

impl Api {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
        }
    }

    /// Waits until the server takes requests.
    pub(crate) async fn ready(&self) {
        // A connection to a killed one may still be in the client's pool.
        let url = format!("http://{}/readyz", self.address);
        until("the server to be ready", async || {
            let answer = self.client.get(&url).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// A request as the administrator.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/v2/orgs/local{path}", self.address);
        self.client.request(method, url).bearer_auth(ADMIN)
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Registers an application with this grace.
    pub(crate) async fn app(&self, name: &str, grace_secs: u32) {
        let path = format!("/apps/{name}");
        let (status, body) = self.call(Method::PUT, &path, Some(json!({}))).await;
        assert!(status.is_success(), "{body}");
        let settings = json!({"executorTimeoutSecs": grace_secs});
        let (status, body) = self.call(Method::PATCH, &path, Some(settings)).await;
        assert!(status.is_success(), "{body}");
    }

    /// An executor's status, by its id and version.
    pub(crate) async fn status_of(
        &self,
        app: &str,
        executor_id: &str,
        version: &str,
    ) -> Option<String> {
        let executors = self.get(&format!("/apps/{app}/executors")).await;
        let is_it = |e: &&Value| e["executorId"] == executor_id && e["appVersion"] == version;
        let found = executors.as_array().unwrap().iter().find(is_it)?;
        Some(found["status"].as_str().unwrap().to_owned())
    }

    /// Waits until an executor has this status; `None`: until it is forgotten.
    pub(crate) async fn until_status(
        &self,
        app: &str,
        executor_id: &str,
        version: &str,
        status: Option<&str>,
    ) {
        let what = format!("{executor_id} {version} to be {status:?}");
        until(&what, async || {
            (self.status_of(app, executor_id, version).await.as_deref() == status).then_some(())
        })
        .await;
    }

    pub(crate) async fn recoveries(&self, app: &str) -> Vec<Value> {
        let records = self.get(&format!("/apps/{app}/recoveries")).await;
        records.as_array().unwrap().clone()
    }

    /// Waits for a record of this executor in this state, and returns it.
    pub(crate) async fn until_recovery(&self, app: &str, executor_id: &str, status: &str) -> Value {
        until(
            &format!("a recovery of {executor_id} to be {status}"),
            async || {
                let records = self.recoveries(app).await;
                records
                    .into_iter()
                    .find(|r| r["executorId"] == executor_id && r["status"] == status)
            },
        )
        .await
    }
}

impl std::ops::Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// A running server.
pub(crate) struct Server {
    api: Api,
    config: Config,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
    database: Database,
}

impl Server {
    /// A server without authentication over `database`.
    pub(crate) async fn start(database: Database) -> Self {
        Self::configured(database, |_| {}).await
    }

    pub(crate) async fn configured(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::local(&database.url);
        // A stranded recovery is tried again by arrivals; the timer is not to help.
        config.recovery.retry = (Duration::from_secs(60), Duration::from_secs(60));
        change(&mut config);
        if config.auth == AuthMode::Keys {
            config.admin_key = Some(Secret::new(ADMIN));
        }
        let mut server = Self {
            api: Api::at(SocketAddr::from(([127, 0, 0, 1], 0))),
            config,
            runtime: None,
            shutdown: CancellationToken::new(),
            database,
        };
        server.run().await;
        server
    }

    /// Starts it (again) on the same address and store.
    pub(crate) async fn run(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        self.shutdown = CancellationToken::new();
        let (config, shutdown, address) =
            (self.config.clone(), self.shutdown.clone(), self.api.address);
        let (tell, told) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            // A killed runtime lets go of its sockets a moment later.
            let began = Instant::now();
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) if began.elapsed() > SOON => panic!("{address}: {error}"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            tell.send(listener.local_addr().unwrap()).unwrap();
            if let Err(error) = segno_server::serve(config, listener, shutdown).await {
                panic!("the server failed: {error:#}");
            }
        });
        self.api.address = told.await.unwrap();
        self.runtime = Some(runtime);
        self.api.ready().await;
    }

    /// Does something to its store behind its back.
    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.database.url, sql.to_owned()).await;
    }

    /// Ends it as kill -9 would: no goodbye to anybody, nothing written.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Looks until there is something to see; panics if it does not come.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < SOON, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
