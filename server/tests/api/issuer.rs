//! An OpenID Connect issuer: discovery, keys, userinfo; keys rotate, and it may be down.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use segno_server::config::{AuthMode, Config, OidcConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{Database, TestServer};

pub(crate) const AUDIENCE: &str = "https://segno.test/api";

/// One key pair, as PEM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KeyPair {
    pub(crate) id: &'static str,
    pub(crate) algorithm: Algorithm,
    pub(crate) pem: &'static str,
}

pub(crate) const RSA_1: KeyPair = KeyPair {
    id: "rsa-1",
    algorithm: Algorithm::RS256,
    pem: include_str!("keys/rsa-1.pem"),
};
pub(crate) const RSA_2: KeyPair = KeyPair {
    id: "rsa-2",
    algorithm: Algorithm::RS256,
    pem: include_str!("keys/rsa-2.pem"),
};
pub(crate) const RSA_SHORT: KeyPair = KeyPair {
    id: "rsa-short",
    algorithm: Algorithm::RS256,
    pem: include_str!("keys/rsa-short.pem"),
};
pub(crate) const EC_256: KeyPair = KeyPair {
    id: "ec-256",
    algorithm: Algorithm::ES256,
    pem: include_str!("keys/ec-256.pem"),
};
pub(crate) const EC_384: KeyPair = KeyPair {
    id: "ec-384",
    algorithm: Algorithm::ES384,
    pem: include_str!("keys/ec-384.pem"),
};

impl KeyPair {
    pub(crate) fn private(&self) -> EncodingKey {
        match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(self.pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(self.pem.as_bytes()),
        }
        .unwrap()
    }

    /// The public half, as it is published. It does not say what it is for.
    pub(crate) fn public(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private(), self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.id);
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    }
}

#[derive(Default)]
struct Site {
    /// Where it is.
    base: String,
    keys: Mutex<Vec<Value>>,
    userinfo: Mutex<Value>,
    down: AtomicBool,
    questions: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Issuer {
    site: Arc<Site>,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Arc::new(Site {
            base: format!("http://{}", listener.local_addr().unwrap()),
            keys: Mutex::new(vec![RSA_1.public()]),
            ..Site::default()
        });
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(discovery))
            .route("/realm/keys", get(keys))
            .route("/realm/userinfo", get(userinfo))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { site }
    }

    /// The issuer's name.
    pub(crate) fn name(&self) -> String {
        format!("{}/realm", self.site.base)
    }

    pub(crate) fn publish(&self, keys: Vec<Value>) {
        *self.site.keys.lock().unwrap() = keys;
    }

    /// What the userinfo endpoint says to everybody.
    pub(crate) fn tell(&self, userinfo: Value) {
        *self.site.userinfo.lock().unwrap() = userinfo;
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.site.down.store(down, Ordering::SeqCst);
    }

    /// How often its keys were asked for.
    pub(crate) fn questions(&self) -> usize {
        self.site.questions.load(Ordering::SeqCst)
    }

    /// The claims of a good token.
    pub(crate) fn claims(&self, subject: &str) -> Value {
        let now = jsonwebtoken::get_current_timestamp();
        json!({"iss": self.name(), "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 300,
            "email": format!("{subject}@example.com")})
    }

    /// A good token.
    pub(crate) fn token(&self, subject: &str) -> String {
        sign(&RSA_1, &self.claims(subject))
    }

    /// A server that believes this issuer.
    pub(crate) async fn server(&self, database: Database) -> TestServer {
        self.server_with(database, |_| {}).await
    }

    pub(crate) async fn server_with(
        &self,
        database: Database,
        adapt: impl FnOnce(&mut Config),
    ) -> TestServer {
        TestServer::start_with(database, AuthMode::Oidc, |config| {
            let mut oidc = OidcConfig::new(self.name(), AUDIENCE);
            oidc.client_id = Some("console".to_owned());
            config.oidc = Some(oidc);
            adapt(config);
        })
        .await
    }
}

/// A token signed by a key, with its id in the header.
pub(crate) fn sign(key: &KeyPair, claims: &Value) -> String {
    sign_with(header(key), key, claims)
}

pub(crate) fn header(key: &KeyPair) -> Header {
    let mut header = Header::new(key.algorithm);
    header.kid = Some(key.id.to_owned());
    header
}

pub(crate) fn sign_with(header: Header, key: &KeyPair, claims: &Value) -> String {
    encode(&header, claims, &key.private()).unwrap()
}

async fn discovery(State(site): State<Arc<Site>>) -> Result<Json<Value>, StatusCode> {
    let at = |path: &str| format!("{}/realm{path}", site.base);
    up(&site)?;
    Ok(Json(
        json!({"issuer": at(""), "jwks_uri": at("/keys"), "userinfo_endpoint": at("/userinfo"),
        "authorization_endpoint": at("/auth"), "token_endpoint": at("/token")}),
    ))
}

async fn keys(State(site): State<Arc<Site>>) -> Result<Json<Value>, StatusCode> {
    site.questions.fetch_add(1, Ordering::SeqCst);
    up(&site)?;
    Ok(Json(json!({"keys": *site.keys.lock().unwrap()})))
}

async fn userinfo(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    up(&site)?;
    if !headers.contains_key("authorization") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(site.userinfo.lock().unwrap().clone()))
}

fn up(site: &Site) -> Result<(), StatusCode> {
    if site.down.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    Ok(())
}
