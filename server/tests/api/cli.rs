//! The binary itself: commands, and what never appears in its output.

use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::server::Database;

fn segno(database: &Database) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segno"));
    command
        .env_clear()
        .env("SEGNO_DATABASE_URL", &database.url)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The binary in a directory of its own, without any settings.
pub(crate) fn segno_in(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segno"));
    command.env_clear().current_dir(dir).kill_on_drop(true);
    command
}

pub(crate) async fn run(command: &mut Command) -> (bool, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Starts `segno serve` on a free port; the process and its address.
pub(crate) async fn serve(
    command: &mut Command,
) -> (
    Child,
    String,
    BufReader<tokio::process::ChildStderr>,
    String,
) {
    let mut child = command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut log = String::new();
    loop {
        let start = log.len();
        let read = lines.read_line(&mut log);
        assert!(
            tokio::time::timeout(Duration::from_secs(30), read)
                .await
                .unwrap()
                .unwrap()
                > 0,
            "{log}"
        );
        let line = &log[start..];
        if line.contains("listening")
            && let Some(address) = line.split("127.0.0.1:").nth(1)
        {
            let port: String = address.chars().take_while(char::is_ascii_digit).collect();
            return (child, format!("http://127.0.0.1:{port}"), lines, log);
        }
    }
}

pub(crate) fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[tokio::test]
async fn keys_are_managed_on_the_store() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let (ok, key, _) =
            run(segno(&database).args(["key", "create", "ci", "--permission", "application.read"]))
                .await;
        assert!(
            ok && key.starts_with("dbos_") && key.lines().count() == 1,
            "{key}"
        );
        let (ok, _, error) = run(segno(&database).args(["key", "create", "ci"])).await;
        assert!(!ok && error.contains("already"), "{error}");
        let (ok, _, error) =
            run(segno(&database).args(["key", "create", "x", "--permission", "token.write"])).await;
        assert!(!ok && error.contains("--admin"), "{error}");
        let (ok, admin, _) = run(segno(&database).args(["key", "create", "root", "--admin"])).await;
        assert!(ok);
        let (ok, list, _) = run(segno(&database).args(["key", "list"])).await;
        assert!(
            ok && list.contains("ci\tapplication.read\t(all)")
                && list.contains("root\t(administrator)"),
            "{list}"
        );
        assert!(!list.contains(key.trim()) && !list.contains(admin.trim()));

        // Nobody reads its log any more: that must not disturb it.
        let (mut child, base, _, _) = serve(segno(&database).env("SEGNO_LOG", "info")).await;
        let get = async |key: &str| {
            Client::new()
                .get(format!("{base}/v2/orgs/local/tokens"))
                .bearer_auth(key)
                .send()
                .await
                .unwrap()
        };
        assert_eq!(get(admin.trim()).await.status(), 200);
        assert_eq!(get(key.trim()).await.status(), 403);
        let (ok, _, _) = run(segno(&database).args(["key", "delete", "ci"])).await;
        assert!(ok);
        // Another process did that: the server may believe the key for another second.
        let began = Instant::now();
        while get(key.trim()).await.status() != 401 {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "a revoked key is good"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (ok, _, error) =
            run(Command::new(env!("CARGO_BIN_EXE_segno")).args(["healthcheck", "--url", &base]))
                .await;
        assert!(ok, "{error}");
        terminate(&child);
        assert!(child.wait().await.unwrap().success());
        let (ok, _, error) =
            run(Command::new(env!("CARGO_BIN_EXE_segno")).args(["healthcheck", "--url", &base]))
                .await;
        assert!(!ok && error.contains("cannot ask"), "{error}");
    }
}

#[tokio::test]
async fn the_first_start_prints_an_administrators_key_once() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let mut keys = Vec::new();
        for _ in 0..2 {
            let (mut child, base, _log, _) = serve(segno(&database).env("SEGNO_LOG", "info")).await;
            terminate(&child);
            let mut output = String::new();
            child
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut output)
                .await
                .unwrap();
            assert!(child.wait().await.unwrap().success());
            keys.push((output, base));
        }
        assert!(keys[0].0.contains("dbos_"), "{}", keys[0].0);
        assert_eq!(keys[1].0, "");
    }
}

#[tokio::test]
async fn no_key_appears_in_the_log_at_any_level() {
    let database = Database::sqlite();
    let admin = "dbos_the-operators-own-key-000000000000000000000000";
    let (mut child, base, mut lines, mut log) = serve(
        segno(&database)
            .env("SEGNO_LOG", "trace")
            .env("SEGNO_ADMIN_KEY", admin),
    )
    .await;
    let client = Client::new();
    let call = async |method: &str, path: &str, key: &str, body: Value| {
        let method = method.parse().unwrap();
        let request = client
            .request(method, format!("{base}{path}"))
            .bearer_auth(key)
            .header("idempotency-key", "secret-idempotency");
        request.json(&body).send().await.unwrap()
    };
    assert_eq!(
        call("PUT", "/v2/orgs/local/apps/shop", admin, json!({}))
            .await
            .status(),
        204
    );
    let made: Value = call("POST", "/v2/orgs/local/tokens/ci", admin, json!({}))
        .await
        .json()
        .await
        .unwrap();
    let key = made["token"].as_str().map(str::to_owned);
    // The same idempotency key was used for another request.
    assert_eq!(key, None);
    let made = client
        .post(format!("{base}/v2/orgs/local/tokens/ci"))
        .bearer_auth(admin)
        .send()
        .await
        .unwrap();
    let made: Value = made.json().await.unwrap();
    let key = made["token"].as_str().unwrap().to_owned();
    let ws = base.replace("http://", "ws://");
    let wrong = "dbos_wrong-but-still-nobodys-business";
    for (prefix, key, ok) in [
        ("", key.as_str(), true),
        ("/conductor/v1alpha1", key.as_str(), true),
        ("//x", key.as_str(), true),
        ("", admin, true),
        ("", wrong, false),
    ] {
        let dialled =
            tokio_tungstenite::connect_async(format!("{ws}{prefix}/websocket/shop/{key}")).await;
        assert_eq!(dialled.is_ok(), ok, "{prefix}");
    }
    for path in [
        "/websocket/shop/",
        "/%77ebsocket/shop/",
        "/websocket/shop/x/",
        "/v2/",
        "/",
    ] {
        client
            .get(format!("{base}{path}{key}"))
            .send()
            .await
            .unwrap();
    }
    assert_eq!(
        call("GET", "/v2/orgs/local/apps", wrong, json!({}))
            .await
            .status(),
        401
    );
    assert_eq!(
        call("DELETE", "/v2/orgs/local/tokens/ci", &key, json!({}))
            .await
            .status(),
        403
    );
    terminate(&child);
    lines.read_to_string(&mut log).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(
        log.contains("TRACE") && log.contains("stopped"),
        "the log is complete"
    );
    for secret in [admin, &key, wrong, "secret-idempotency"] {
        let at = log.find(secret);
        assert_eq!(
            at,
            None,
            "…{}",
            &log[at.unwrap_or(0).saturating_sub(300)..][..400]
        );
    }
}

#[tokio::test]
async fn unusable_settings_say_what_to_do() {
    let database = Database::sqlite();
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("SEGNO_AUTH", "oidc")], "SEGNO_OIDC_ISSUER"),
        (&[("DBOS_OAUTH_ENABLED", "true")], "SEGNO_OIDC_ISSUER"),
        (
            &[
                ("SEGNO_AUTH", "oidc"),
                ("SEGNO_OIDC_ISSUER", "https://login.example"),
                ("SEGNO_OIDC_AUDIENCE", ""),
            ],
            "SEGNO_OIDC_AUDIENCE",
        ),
        (
            &[
                ("SEGNO_AUTH", "oidc"),
                ("DBOS_OAUTH_ISSUER", "login.example"),
                ("DBOS_OAUTH_AUDIENCE", "segno"),
            ],
            "SEGNO_OIDC_ISSUER",
        ),
        (
            &[
                ("SEGNO_AUTH", "oidc"),
                ("SEGNO_OIDC_ISSUER", "https://login.example"),
                ("SEGNO_OIDC_AUDIENCE", "segno"),
                ("SEGNO_OIDC_JWKS_URL", "keys"),
            ],
            "SEGNO_OIDC_JWKS_URL",
        ),
        (&[("SEGNO_ADMIN_KEY", "dbos_short")], "32"),
        (&[("SEGNO_DATABASE_URL", "mysql://x")], "postgres://"),
        (&[("SEGNO_LOG", "=,=")], "SEGNO_LOG"),
    ];
    for (variables, expected) in cases {
        let (ok, _, error) = run(segno(&database)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .envs(variables.iter().copied()))
        .await;
        assert!(!ok && error.contains(expected), "{variables:?}: {error}");
        assert!(!error.contains("dbos_short"));
    }
}

/// The names of the upstream product will do, and an issuer that is not there does not matter yet.
#[tokio::test]
async fn a_server_for_people_starts_with_the_upstream_names() {
    let database = Database::sqlite();
    let (mut child, base, _lines, log) = serve(segno(&database).envs([
        ("DBOS_OAUTH_ENABLED", "true"),
        ("DBOS_OAUTH_ISSUER", "http://127.0.0.1:1/realm"),
        ("DBOS_OAUTH_AUDIENCE", "segno"),
    ]))
    .await;
    assert!(log.contains("SEGNO_OIDC_CLIENT_ID"), "{log}");
    let url = format!("{base}/console/session-config");
    let told: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(told["oidc"]["issuer"], "http://127.0.0.1:1/realm");
    assert_eq!(told["oidc"]["clientId"], Value::Null);
    terminate(&child);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn keys_are_made_for_any_organization() {
    let issuer = crate::issuer::Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let send = |method, path: &str, body: Value| {
        let request = server
            .request(method, path)
            .bearer_auth(issuer.token("ann"));
        crate::server::send(request.json(&body))
    };
    send(reqwest::Method::POST, "/v2/users", json!({"name": "ann"}))
        .await
        .expect(201);
    let me = send(reqwest::Method::GET, "/v2/self", Value::Null)
        .await
        .json;
    let org = me["orgName"].as_str().unwrap();
    let arguments = ["key", "create", "rescue", "--admin", "--org", org];
    let (ok, key, error) = run(segno(&server.database).args(arguments)).await;
    assert!(ok, "{error}");
    let found = server
        .get_with(key.trim(), "/v2/self")
        .await
        .expect(200)
        .json;
    assert_eq!(found["orgName"], me["orgName"]);
    assert_eq!(found["permissions"].as_array().unwrap().len(), 8);
    let (ok, listed, _) = run(segno(&server.database).args(["key", "list", "--org", org])).await;
    assert!(ok && listed.contains("rescue"), "{listed}");
    let (ok, _, error) =
        run(segno(&server.database).args(["key", "list", "--org", "nobody"])).await;
    assert!(!ok && error.contains("nobody"), "{error}");
}

#[tokio::test]
async fn a_password_in_the_database_url_is_not_shown() {
    let database = Database::sqlite();
    let url = "postgres://somebody:hunter2@127.0.0.1:1/x";
    let mut command = segno(&database);
    let (ok, out, error) = run(command
        .env("SEGNO_DATABASE_URL", url)
        .env("SEGNO_LOG", "trace")
        .args(["migrate"]))
    .await;
    assert!(!ok && error.contains("unavailable"), "{error}");
    assert!(
        !error.contains("hunter2") && !out.contains("hunter2"),
        "{error}"
    );
    let (_, help, _) = run(segno(&database)
        .env("SEGNO_DATABASE_URL", url)
        .args(["serve", "--help"]))
    .await;
    assert!(!help.contains("hunter2"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_an_older_one_on_request() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let (ok, _, error) =
            run(segno(&database).args(["serve", "--listen", "127.0.0.1:0", "--no-migrate"])).await;
        assert!(!ok && error.contains("segno migrate"), "{error}");
        let (ok, done, _) = run(segno(&database).args(["migrate"])).await;
        assert!(ok && done.contains("version"), "{done}");
        crate::server::execute(
            &database.url,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1"
                .to_owned(),
        )
        .await;
        for command in [
            &["migrate"][..],
            &["serve", "--listen", "127.0.0.1:0"],
            &["key", "list"],
        ] {
            let (ok, _, error) = run(segno(&database).args(command)).await;
            assert!(
                !ok && error.contains("9999") && error.contains("newer"),
                "{command:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_and_completions_need_no_database() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segno"));
    let (ok, text, _) = run(command
        .env_clear()
        .args(["openapi", "--spec-version", "3.0"]))
    .await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(ok && document["openapi"] == "3.0.3");
    let (ok, yaml, _) =
        run(Command::new(env!("CARGO_BIN_EXE_segno")).args(["openapi", "--yaml"])).await;
    assert!(ok && yaml.contains("openapi: 3.1.0"), "{}", &yaml[..200]);
    let (ok, script, _) =
        run(Command::new(env!("CARGO_BIN_EXE_segno")).args(["completions", "bash"])).await;
    assert!(ok && script.contains("segno"));
}
