//! Where settings come from, seen through the binary.

use std::path::Path;

use tempfile::TempDir;

use crate::cli::{run, segno_in, serve, terminate};

const KEY: &str = "dbos_0123456789012345678901234567890123456789";

fn write(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The line of `config check` about a setting: its value and where that is from.
fn line<'a>(table: &'a str, setting: &str) -> Vec<&'a str> {
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|words| words.first() == Some(&setting));
    found.unwrap_or_else(|| panic!("{setting}: {table}"))[1..].to_vec()
}

#[tokio::test]
async fn flags_go_before_variables_before_secret_files_before_upstream_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let secret = write(&dir, "key.txt", &format!("{KEY}\n"));
    let file = write(
        &dir,
        "segno.toml",
        r#"
            listen = "127.0.0.1:1"
            log = "warn"
            log_format = "json"
            advertise-address = "in-the-file"
            trusted_proxies = ["10.0.0.1", "10.0.0.2"]
            no_migrate = true
            metrics_period = 7
            admin_key = "dbos_of_the_file_of_the_file_of_the_file_of_the_file"
            [oidc]
            issuer = "https://login.example"
            audience = "segno"
        "#,
    );
    let (ok, table, error) = run(segno_in(&dir)
        .env("SEGNO_CONFIG", &file)
        .env("SEGNO_LISTEN", "127.0.0.1:2")
        .env("SEGNO_LOG", "error")
        .env("SEGNO_AUTH", "")
        .env("SEGNO_ADMIN_KEY_FILE", &secret)
        .env("DBOS__ADVERTISE_ADDRESS", "http://peer:9/")
        .env("DBOS_OAUTH_ENABLED", "true")
        .args(["config", "check", "--listen", "127.0.0.1:3"]))
    .await;
    assert!(ok, "{error}");
    assert_eq!(line(&table, "listen"), ["127.0.0.1:3", "--listen"]);
    assert_eq!(line(&table, "log"), ["error", "SEGNO_LOG"]);
    assert_eq!(line(&table, "log_format"), ["json", &file]);
    assert_eq!(line(&table, "auth"), ["oidc", "DBOS_OAUTH_ENABLED"]);
    assert_eq!(
        line(&table, "advertise_address"),
        ["peer:9", "DBOS__ADVERTISE_ADDRESS"]
    );
    assert_eq!(
        line(&table, "trusted_proxies"),
        ["10.0.0.1,10.0.0.2", &file]
    );
    assert_eq!(line(&table, "no_migrate"), ["true", &file]);
    assert_eq!(line(&table, "metrics_period"), ["7", &file]);
    assert_eq!(
        line(&table, "oidc_issuer"),
        ["https://login.example", &file]
    );
    assert_eq!(line(&table, "data_dir"), ["./.segno", "default"]);
    assert_eq!(
        line(&table, "admin_key"),
        ["(hidden)", "SEGNO_ADMIN_KEY_FILE", &format!("({secret})")]
    );
    assert!(
        !table.contains("dbos_0123") && !table.contains("of_the_file"),
        "{table}"
    );
}

/// What `config check` says is what `serve` does.
#[tokio::test]
async fn a_server_goes_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "key.txt", KEY);
    let file = write(
        &dir,
        "segno.toml",
        "auth = 'keys'\nadmin_key_file = 'key.txt'\ndata_dir = 'state'",
    );
    let (mut child, base, _lines, log) = serve(segno_in(&dir).env("SEGNO_CONFIG", &file)).await;
    assert!(!log.contains(KEY), "{log}");
    let apps = format!("{base}/v2/orgs/local/apps");
    let ask = reqwest::Client::new().get(apps).bearer_auth(KEY);
    assert_eq!(ask.send().await.unwrap().status(), 200);
    assert!(Path::new(&dir.path().join("state/segno.db")).exists());
    terminate(&child);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("segno.toml");
    let cases = [
        ("lisen = '127.0.0.1:1'", "did you mean `listen`?"),
        ("[oidc]\nisuer = 'https://x'", "did you mean `oidc_issuer`?"),
        ("xyz = 1", "there is no setting `xyz`"),
        ("listen_file = 'x'", "there is no setting `listen_file`"),
        ("listen = 1979-05-27", "`listen` must be a text"),
        ("auth = 'keys'\nlisten = oops", "(line 2)"),
        (
            "admin_key_file = 'nowhere.txt'",
            "admin_key_file: nowhere.txt: ",
        ),
        ("admin_key_file = 1", "`admin_key_file` must be a path"),
        ("auth = 'key'", "comes from "),
        ("admin_key = 'dbos_short'", "at least 32 characters"),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let (ok, _, error) =
            run(segno_in(&dir).args(["config", "check", "--config", "segno.toml"])).await;
        assert!(!ok && error.contains(expected), "{text}: {error}");
        assert!(
            error.contains("segno.toml") || text.starts_with("admin_key"),
            "{text}: {error}"
        );
        assert!(!error.contains("dbos_short"), "{error}");
    }
    let (ok, _, error) = run(segno_in(&dir).args(["serve", "--config", "nowhere.toml"])).await;
    assert!(!ok && error.contains("--config: nowhere.toml: "), "{error}");
    let (ok, _, error) = run(segno_in(&dir)
        .env("SEGNO_ADMIN_KEY", KEY)
        .env("SEGNO_ADMIN_KEY_FILE", "key.txt")
        .args(["config", "check"]))
    .await;
    assert!(
        !ok && error.contains("SEGNO_ADMIN_KEY and SEGNO_ADMIN_KEY_FILE are both set"),
        "{error}"
    );
}

/// The list of settings that people read is the one that the program goes by.
#[tokio::test]
async fn the_reference_lists_every_setting_of_serve() {
    let dir = tempfile::tempdir().unwrap();
    let (_, table, _) = run(segno_in(&dir).args(["config", "reference"])).await;
    let (_, help, _) = run(segno_in(&dir).args(["serve", "--help"])).await;
    let variables = |text: &str| {
        let mut names: Vec<String> = text
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .filter(|word| word.starts_with("SEGNO_") && !word.ends_with("_FILE"))
            .filter(|word| *word != "SEGNO_CONFIG")
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(variables(&table), variables(&help));
    assert!(table.contains("`SEGNO_ADMIN_KEY_FILE`"), "{table}");
    assert!(
        table.contains("| `listen` | `--listen` | `SEGNO_LISTEN` | 0.0.0.0:8090 |"),
        "{table}"
    );
}
