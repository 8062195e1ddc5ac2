//! HTTPS by the server itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::CertifiedKey;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use crate::cli::{run, segno_in, serve, terminate};

/// A new certificate in `dir`, for this machine and signed by itself.
fn issue(dir: &Path) -> String {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("certificate.pem"), cert.pem()).unwrap();
    cert.pem()
}

/// A client that believes only this certificate, and opens a connection for each request.
fn believer(certificate: &str) -> Client {
    Client::builder()
        .add_root_certificate(Certificate::from_pem(certificate.as_bytes()).unwrap())
        .tls_built_in_root_certs(false)
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

fn files(dir: &TempDir) -> [PathBuf; 2] {
    ["certificate.pem", "key.pem"].map(|name| dir.path().join(name))
}

#[tokio::test]
async fn https_and_wss_with_a_certificate_that_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let first = issue(dir.path());
    let [certificate, key] = files(&dir);
    let (mut child, base, mut log, _) = serve(
        segno_in(&dir)
            .env("SEGNO_AUTH", "none")
            .env("SEGNO_TLS_CERTIFICATE", &certificate)
            .env("SEGNO_TLS_KEY", &key),
    )
    .await;
    let secure = base.replace("http://", "https://");
    let health = format!("{secure}/healthz");
    assert_eq!(
        believer(&first).get(&health).send().await.unwrap().status(),
        200
    );
    assert!(reqwest::get(format!("{base}/healthz")).await.is_err());

    let (ok, _, error) = run(segno_in(&dir).args(["healthcheck", "--url", &secure])).await;
    assert!(ok, "{error}");
    // Without an address it asks where and how the settings of the server say.
    let listen = base.trim_start_matches("http://");
    let mut settings = segno_in(&dir);
    settings.env("SEGNO_LISTEN", listen).arg("healthcheck");
    let (ok, _, error) = run(&mut settings).await;
    assert!(!ok && error.contains("cannot ask http://"), "{error}");
    let (ok, _, error) = run(settings.env("SEGNO_TLS_CERTIFICATE", &certificate)).await;
    assert!(ok, "{error}");

    // An executor's socket: the server asks who it is.
    let app = format!("{secure}/v2/orgs/local/apps/shop");
    let made = believer(&first).put(app).json(&json!({})).send().await;
    assert!(made.unwrap().status().is_success());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(first.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let url = format!("{}/websocket/shop/any", secure.replace("https", "wss"));
    let connector = Some(Connector::Rustls(Arc::new(config)));
    let (mut socket, _) = connect_async_tls_with_config(url, None, false, connector)
        .await
        .unwrap();
    let asked = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let asked: Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked["type"], "executor_info");
    let answer = json!({"type": "executor_info", "request_id": asked["request_id"], "executor_id": "one",
        "application_version": "1", "hostname": "here", "language": "python", "dbos_version": "3.2.0"});
    socket
        .send(Message::text(answer.to_string()))
        .await
        .unwrap();

    // A key that does not go with the certificate changes nothing …
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    said(&mut log, "the old one stays").await;
    assert_eq!(
        believer(&first).get(&health).send().await.unwrap().status(),
        200
    );
    // … and a new pair is taken up, while the executor stays connected.
    let second = issue(dir.path());
    said(&mut log, "read again").await;
    assert_eq!(
        believer(&second)
            .get(&health)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert!(believer(&first).get(&health).send().await.is_err());
    terminate(&child);
    let ended = async {
        while let Some(message) = socket.next().await {
            if let Message::Close(frame) = message.unwrap() {
                return frame;
            }
        }
        None
    };
    assert!(
        ended.await.is_some(),
        "the executor is told to go elsewhere"
    );
    assert!(child.wait().await.unwrap().success());
}

/// Reads the log up to a line that says so.
async fn said(log: &mut (impl AsyncBufRead + Unpin), words: &str) {
    let found = async {
        let mut line = String::new();
        while log.read_line(&mut line).await.unwrap() > 0 && !line.contains(words) {
            line.clear();
        }
        line
    };
    let line = tokio::time::timeout(Duration::from_secs(30), found)
        .await
        .unwrap();
    assert!(line.contains(words), "the log ended");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    issue(dir.path());
    let [certificate, key] = files(&dir);
    let nowhere = dir.path().join("nowhere.pem");
    let cases = [
        (&nowhere, &key, "nowhere.pem"),
        (&certificate, &nowhere, "nowhere.pem"),
        (&key, &key, "there is no certificate in it"),
        (&certificate, &certificate, "--tls-key"),
    ];
    for (certificate, key, expected) in cases {
        let (ok, _, error) = run(segno_in(&dir)
            .args(["serve", "--listen", "127.0.0.1:0", "--tls-certificate"])
            .arg(certificate)
            .arg("--tls-key")
            .arg(key))
        .await;
        assert!(!ok && error.contains(expected), "{error}");
    }
    let (ok, _, error) = run(segno_in(&dir)
        .args(["serve", "--tls-certificate"])
        .arg(&certificate))
    .await;
    assert!(!ok && error.contains("--tls-key"), "{error}");
}
