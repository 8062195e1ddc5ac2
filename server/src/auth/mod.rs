//! Who is calling and what they may do.
//!
//! API keys (`dbos_…`) are the only credential for now; the place of OIDC tokens is
//! [`Auth::caller`], beside the keys. Which permission a route needs is declared on the route and
//! enforced by [`crate::api::gate`], so that a handler cannot forget it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::problem::Problem;
use crate::config::{AuthMode, Config, Secret};
use crate::store::apps::AppRow;
use crate::store::keys::NewKey;
use crate::store::orgs::OrgRow;
use crate::store::{Store, StoreError};

mod guess;
pub mod key;
mod permission;

pub use permission::{Permission, Permissions};

use guess::{Guesses, Verdict};

/// Id of an API key in the store.
pub type KeyId = String;

/// The applications a credential covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppScope {
    /// Every application of the organization.
    All,
    /// These application ids; possibly none are left.
    Only(Vec<String>),
}

impl AppScope {
    /// Whether the application of this id is covered.
    pub fn covers(&self, app_id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(apps) => apps.iter().any(|app| app == app_id),
        }
    }
}

/// Who is calling, as the audit log names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `user` or `api_key`.
    pub kind: &'static str,
    /// Stable id.
    pub id: String,
    /// E-mail, or name of the key.
    pub display: String,
}

/// An authenticated caller. Handlers take it as an extractor.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The caller's organization.
    pub org: OrgRow,
    /// Who.
    pub subject: Subject,
    /// What they may do.
    pub permissions: Permissions,
    /// On which applications.
    pub scope: AppScope,
    /// The caller's address.
    pub source_ip: String,
}

/// The server's authenticator. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    mode: AuthMode,
    org: OrgRow,
    /// Hash of the key given by the operator.
    admin_hash: Option<String>,
    guesses: Guesses,
}

/// Why an executor may not connect. Its text is shown to the person at the other end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebsocketReject {
    /// The key is unknown or revoked.
    #[error(
        "unknown API key: create one in the console or with `dbosctl api-key create`, and give it to the application"
    )]
    UnknownKey,
    /// The key lacks `websocket.connect`.
    #[error("this API key lacks the permission websocket.connect")]
    MayNotConnect,
    /// The key does not cover the application.
    #[error("this API key does not cover the application `{0}`")]
    OutOfScope(String),
    /// No application of this name.
    #[error(
        "there is no application `{0}`: register it in the console or with `dbosctl app register {0}`"
    )]
    UnknownApp(String),
    /// Too many wrong keys from this address.
    #[error("too many unknown API keys from this address; try again later")]
    TooManyGuesses,
    /// The server's own database is away.
    #[error("the server's database is unavailable; try again")]
    Unavailable,
}

impl WebsocketReject {
    /// The status of the refusal.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownKey => StatusCode::UNAUTHORIZED,
            Self::MayNotConnect | Self::OutOfScope(_) => StatusCode::FORBIDDEN,
            Self::UnknownApp(_) => StatusCode::NOT_FOUND,
            Self::TooManyGuesses => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::MayNotConnect => "may_not_connect",
            Self::OutOfScope(_) => "out_of_scope",
            Self::UnknownApp(_) => "unknown_app",
            Self::TooManyGuesses => "too_many_guesses",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Short plain UTF-8 text with a length: some SDKs choke on anything else.
impl IntoResponse for WebsocketReject {
    fn into_response(self) -> Response {
        let text = self.to_string();
        (
            self.status(),
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            text,
        )
            .into_response()
    }
}

impl Auth {
    /// Prepares authentication: makes the organization `local` and, in mode `keys` without a given
    /// admin key, generates one on the very first start. The new key is returned to be shown once.
    pub async fn start(
        config: &Config,
        store: &Store,
    ) -> Result<(Self, Option<Secret>), StoreError> {
        let org = store.local_org().await?;
        let generated = if config.auth == AuthMode::Keys && config.admin_key.is_none() {
            first_admin_key(store, &org).await?
        } else {
            None
        };
        let inner = Inner {
            mode: config.auth,
            org,
            admin_hash: config
                .admin_key
                .as_ref()
                .map(|admin| key::hash(admin.expose())),
            guesses: Guesses::default(),
        };
        let auth = Self {
            inner: Arc::new(inner),
        };
        Ok((auth, generated))
    }

    /// How callers are authenticated.
    pub fn mode(&self) -> AuthMode {
        self.inner.mode
    }

    /// The organization of a server without OIDC.
    pub fn org(&self) -> &OrgRow {
        &self.inner.org
    }

    /// The caller that `headers` identify; 401 if they do not.
    pub async fn caller(
        &self,
        store: &Store,
        headers: &HeaderMap,
        source: IpAddr,
    ) -> Result<Caller, Problem> {
        if self.inner.mode == AuthMode::None {
            return Ok(self.administrator(source, "user", "local", "local"));
        }
        let token = bearer(headers).ok_or_else(|| {
            Problem::unauthorized("an API key is required: Authorization: Bearer dbos_…")
        })?;
        match self.key(store, token, None).await {
            Ok(Known::Operator) => {
                Ok(self.administrator(source, "api_key", "SEGNO_ADMIN_KEY", "SEGNO_ADMIN_KEY"))
            }
            Ok(Known::Stored(row)) => Ok(Caller {
                org: self.inner.org.clone(),
                subject: Subject {
                    kind: "api_key",
                    id: row.id,
                    display: row.name,
                },
                permissions: row.permissions,
                scope: row.scope,
                source_ip: source.to_string(),
            }),
            Err(KeyError::Unknown | KeyError::TooManyGuesses) => Err(Problem::unauthorized(
                "the API key is unknown or was revoked",
            )),
            Err(KeyError::Store(error)) => Err(error.into()),
        }
    }

    /// Admits an executor: its application, and the id of the key it came with (none when the key is
    /// not one of the store's). `peer` is the address that wrong keys are counted against.
    pub async fn websocket(
        &self,
        store: &Store,
        app_name: &str,
        key: &str,
        peer: Option<IpAddr>,
    ) -> Result<(AppRow, Option<KeyId>), WebsocketReject> {
        let known = if self.inner.mode == AuthMode::None {
            Known::Operator
        } else {
            self.key(store, key, peer)
                .await
                .map_err(|error| match error {
                    KeyError::Unknown => WebsocketReject::UnknownKey,
                    KeyError::TooManyGuesses => WebsocketReject::TooManyGuesses,
                    KeyError::Store(_) => WebsocketReject::Unavailable,
                })?
        };
        if let Known::Stored(row) = &known
            && !row.permissions.contains(Permission::WebsocketConnect)
        {
            return Err(WebsocketReject::MayNotConnect);
        }
        let app = store
            .app_by_name(&self.inner.org.id, app_name)
            .await
            .map_err(|_| WebsocketReject::Unavailable)?;
        match (known, app) {
            (Known::Operator, Some(app)) => Ok((app, None)),
            (Known::Stored(row), Some(app)) if row.scope.covers(&app.id) => Ok((app, Some(row.id))),
            // A scoped key learns nothing about names outside its scope.
            (Known::Stored(row), _) if row.scope != AppScope::All => {
                Err(WebsocketReject::OutOfScope(app_name.to_owned()))
            }
            _ => Err(WebsocketReject::UnknownApp(app_name.to_owned())),
        }
    }

    fn administrator(&self, source: IpAddr, kind: &'static str, id: &str, display: &str) -> Caller {
        Caller {
            org: self.inner.org.clone(),
            subject: Subject {
                kind,
                id: id.to_owned(),
                display: display.to_owned(),
            },
            permissions: Permissions::all(),
            scope: AppScope::All,
            source_ip: source.to_string(),
        }
    }

    /// Looks a key up. With `peer`, unknown ones count against that address.
    async fn key(
        &self,
        store: &Store,
        text: &str,
        peer: Option<IpAddr>,
    ) -> Result<Known, KeyError> {
        let hash = key::hash(text);
        if self
            .inner
            .admin_hash
            .as_ref()
            .is_some_and(|admin| key::same(admin, &hash))
        {
            return Ok(Known::Operator);
        }
        match self.inner.guesses.look(&hash, peer) {
            Verdict::KnownWrong => return Err(KeyError::Unknown),
            Verdict::TooMany => return Err(KeyError::TooManyGuesses),
            Verdict::Ask => {}
        }
        match store.key_by_hash(&hash).await.map_err(KeyError::Store)? {
            Some(row) => Ok(Known::Stored(row)),
            None => {
                self.inner.guesses.wrong(hash, peer);
                Err(KeyError::Unknown)
            }
        }
    }
}

enum Known {
    /// The operator's key, or a server that asks for none.
    Operator,
    Stored(crate::store::keys::KeyRow),
}

enum KeyError {
    Unknown,
    TooManyGuesses,
    Store(StoreError),
}

/// The token of `Authorization: Bearer …`; the scheme in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Makes the administrator's key of a new installation; `None` if that was done before. The row in
/// `settings` makes exactly one of several starting instances do it.
async fn first_admin_key(store: &Store, org: &OrgRow) -> Result<Option<Secret>, StoreError> {
    let mut tx = store.begin().await?;
    if !store.claim_setting(&mut tx, "first_admin_key").await? {
        return Ok(None);
    }
    let text = key::generate(&org.id);
    let new = NewKey {
        org_id: &org.id,
        name: "admin",
        hash: &key::hash(text.expose()),
        permissions: Permissions::all(),
        scope: &AppScope::All,
        admin: true,
    };
    store.insert_key(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(Some(text))
}
