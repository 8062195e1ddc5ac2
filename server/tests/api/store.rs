//! The server's own database: several instances on one, expiry, and its absence.

use reqwest::Method;
use segno_server::config::{AuthMode, Secret};
use segno_server::policies;
use segno_server::store::Store;
use segno_server::telemetry::Metrics;
use serde_json::json;

use crate::server::{ADMIN, Database, TestServer, execute, send};

async fn open(database: &Database) -> Store {
    let url = Secret::new(&database.url);
    Store::connect(&url, Metrics::new().unwrap()).await.unwrap()
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(store.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn instances_that_start_together_migrate_once_and_make_one_administrators_key() {
    let database = Database::postgres().await;
    let config = |url: &str| {
        let mut config = segno_server::config::Config::local(url);
        config.auth = AuthMode::Keys;
        config
    };
    let starts = (0..4).map(|_| async {
        let store = open(&database).await;
        store.migrate().await.unwrap();
        let (auth, key) = segno_server::auth::Auth::start(&config(&database.url), &store)
            .await
            .unwrap();
        store.close().await;
        (auth.org().id.clone(), key.is_some())
    });
    let started = futures_util::future::join_all(starts).await;
    assert!(started.iter().all(|(org, _)| *org == started[0].0));
    assert_eq!(started.iter().filter(|(_, made)| *made).count(), 1);
    let store = open(&database).await;
    assert_eq!(count(&store, "SELECT COUNT(*) FROM api_keys").await, 1);
    store.close().await;
}

#[tokio::test]
async fn old_audit_entries_and_idempotency_keys_expire() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let store = open(&database).await;
        store.migrate().await.unwrap();
        let org = store.local_org().await.unwrap();
        let now = store.now().await.unwrap();
        let day = 86_400_000;
        for (id, age) in [("old", 91 * day), ("young", 89 * day)] {
            let insert = format!(
                "INSERT INTO audit_log (id, org_id, emit_time, operation, status, subject_type, subject_id, \
                 subject_display, source_ip) VALUES ('{id}', '{}', {}, 'x', 'success', 'user', 'u', 'u', '')",
                org.id,
                now - age
            );
            execute(&database.url, insert).await;
        }
        for (id, expires) in [("old", now - 1), ("young", now + day)] {
            let insert = format!(
                "INSERT INTO idempotency_keys (id, request_hash, started_at, expires_at) VALUES ('{id}', 'h', 0, {expires})"
            );
            execute(&database.url, insert).await;
        }
        let app = format!(
            "INSERT INTO applications (id, org_id, name, created_at, updated_at) VALUES ('a', '{}', 'shop', 0, 0)",
            org.id
        );
        execute(&database.url, app).await;
        for (name, age) in [("old", 31 * day), ("young", 29 * day)] {
            let insert = format!(
                "INSERT INTO app_metrics (app_id, time_bucket, metric_type, metric_name, granularity, value) \
                 VALUES ('a', {}, 'workflow_count', '{name}', 300, 1)",
                now - age
            );
            execute(&database.url, insert).await;
        }
        policies::expire(&store).await;
        let young = "SELECT COUNT(*) FROM app_metrics WHERE metric_name = 'young'";
        assert_eq!(count(&store, young).await, 1);
        assert_eq!(count(&store, "SELECT COUNT(*) FROM app_metrics").await, 1);
        let left = "SELECT COUNT(*) FROM audit_log WHERE id = 'young'";
        assert_eq!(count(&store, left).await, 1);
        assert_eq!(count(&store, "SELECT COUNT(*) FROM audit_log").await, 1);
        assert_eq!(
            count(&store, "SELECT COUNT(*) FROM idempotency_keys").await,
            1
        );
        store.close().await;
    }
}

#[tokio::test]
async fn without_its_database_the_server_lives_and_says_so() {
    let database = Database::postgres().await;
    let (base, name) = database.drop.clone().unwrap();
    let server = TestServer::start(database, AuthMode::Keys).await;
    server
        .put("/v2/orgs/local/apps/shop", json!({}))
        .await
        .expect(204);
    // Nobody may connect any more, as when the database is gone.
    execute(
        &base,
        format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"),
    )
    .await;
    execute(
        &base,
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    )
    .await;
    send(server.request(Method::GET, "/healthz"))
        .await
        .expect(200);
    let answer = send(server.request(Method::GET, "/readyz")).await;
    assert!(answer.headers.contains_key("retry-after"));
    answer.problem(503);
    server.get("/v2/orgs/local/apps").await.problem(503);
    server
        .get_with("dbos_unknown", "/v2/orgs/local/apps")
        .await
        .problem(503);
    let url = format!(
        "{}/websocket/shop/{ADMIN}",
        server.base.replace("http://", "ws://")
    );
    match tokio_tungstenite::connect_async(url).await.unwrap_err() {
        tokio_tungstenite::tungstenite::Error::Http(response) => assert_eq!(response.status(), 503),
        other => panic!("{other}"),
    }
    execute(
        &base,
        format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"),
    )
    .await;
    server.get("/v2/orgs/local/apps").await.expect(200);
    send(server.request(Method::GET, "/readyz"))
        .await
        .expect(200);
}
