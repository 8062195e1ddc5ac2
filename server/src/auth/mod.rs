//! Who is calling and what they may do.
//!
//! Two sorts of credentials: API keys (`dbos_…`), of which each belongs to an organization, and, in
//! mode `oidc`, tokens of the issuer, which name a person. Which permission a route needs is declared
//! on the route and enforced by [`crate::api::gate`], so that a handler cannot forget it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::problem::Problem;
use crate::config::{AuthMode, Config, Secret};
use crate::store::apps::AppRow;
use crate::store::keys::{KeyRow, NewKey};
use crate::store::orgs::OrgRow;
use crate::store::{Store, StoreError};

mod guess;
mod identity;
pub mod key;
pub mod oidc;
mod permission;
pub mod role;
mod websocket;

pub use identity::{AppScope, Caller, Identity, Person, Subject};
pub use oidc::Oidc;
pub use permission::{Permission, Permissions};
pub use websocket::WebsocketReject;

use guess::{Guesses, Verdict};
use oidc::TokenError;

/// Id of an API key in the store.
pub type KeyId = String;

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
    /// In mode `oidc`.
    oidc: Option<Oidc>,
    /// What executors present.
    dials: Guesses,
    /// What callers of the API present.
    calls: Guesses,
}

/// What a credential turned out to be.
enum Known {
    /// The operator's key, or a server that asks for none.
    Operator,
    Stored(KeyRow),
}

enum KeyError {
    Unknown,
    TooManyGuesses,
    Store(StoreError),
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
        let settings = config
            .oidc
            .as_ref()
            .filter(|_| config.auth == AuthMode::Oidc);
        let inner = Inner {
            mode: config.auth,
            org,
            admin_hash: config
                .admin_key
                .as_ref()
                .map(|admin| key::hash(admin.expose())),
            oidc: settings.cloned().map(Oidc::new),
            dials: Guesses::executors(),
            calls: Guesses::callers(),
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

    /// The organization `local`: the only one of a server without OIDC.
    pub fn org(&self) -> &OrgRow {
        &self.inner.org
    }

    /// The issuer of user tokens, in mode `oidc`.
    pub fn oidc(&self) -> Option<&Oidc> {
        self.inner.oidc.as_ref()
    }

    /// Whoever `headers` identify; 401 if they do not.
    pub async fn identify(
        &self,
        store: &Store,
        headers: &HeaderMap,
        source: IpAddr,
    ) -> Result<Identity, Problem> {
        if self.inner.mode == AuthMode::None {
            return Ok(self.administrator(source, "user", "local"));
        }
        let token = bearer(headers)?;
        // An address that stands for many callers (a proxy on this machine) is not held to account.
        let peer = (!source.is_loopback() && !source.is_unspecified()).then_some(source);
        match &self.inner.oidc {
            Some(oidc) if !token.starts_with(key::PREFIX) => {
                self.person(store, oidc, token, source, peer).await
            }
            _ => self.key_holder(store, token, source, peer).await,
        }
    }

    /// The holder of an API key.
    async fn key_holder(
        &self,
        store: &Store,
        token: &str,
        source: IpAddr,
        peer: Option<IpAddr>,
    ) -> Result<Identity, Problem> {
        let row = match self.key(store, &self.inner.calls, token, peer).await {
            Ok(Known::Operator) => {
                return Ok(self.administrator(source, "api_key", "SEGNO_ADMIN_KEY"));
            }
            Ok(Known::Stored(row)) => row,
            Err(KeyError::Unknown) => {
                return Err(Problem::unauthorized(
                    "the API key is unknown or was revoked",
                ));
            }
            Err(KeyError::TooManyGuesses) => return Err(too_many()),
            Err(KeyError::Store(error)) => return Err(error.into()),
        };
        let org = if row.org_id == self.inner.org.id {
            self.inner.org.clone()
        } else {
            store
                .org_by_id(&row.org_id)
                .await?
                .ok_or_else(|| Problem::unauthorized("the API key is unknown or was revoked"))?
        };
        let subject = Subject {
            kind: "api_key",
            id: row.id,
            display: row.name,
        };
        Ok(Identity {
            subject: subject.clone(),
            person: None,
            user: None,
            caller: Some(Caller {
                org,
                subject,
                permissions: row.permissions,
                scope: row.scope,
            }),
            source_ip: source.to_string(),
        })
    }

    /// The person whom a token of the issuer names.
    async fn person(
        &self,
        store: &Store,
        oidc: &Oidc,
        token: &str,
        source: IpAddr,
        peer: Option<IpAddr>,
    ) -> Result<Identity, Problem> {
        let calls = &self.inner.calls;
        let hash = key::hash(token);
        match calls.look(&hash, peer) {
            Verdict::Ask => {}
            Verdict::KnownWrong => return Err(TokenError::Invalid("not valid").into()),
            Verdict::TooMany => return Err(too_many()),
        }
        let person = match oidc.verify(token).await {
            Ok(person) => person,
            Err(error) => {
                if !matches!(error, TokenError::Unavailable) {
                    calls.wrong(error.is_final().then_some(hash), peer);
                }
                return Err(error.into());
            }
        };
        calls.right(hash);
        let account = store
            .user_by_identity(&person.issuer, &person.subject)
            .await?;
        let mut identity = Identity {
            subject: Subject {
                kind: "user",
                id: person.subject.clone(),
                display: person.email.clone().unwrap_or(person.subject.clone()),
            },
            person: Some(person),
            user: None,
            caller: None,
            source_ip: source.to_string(),
        };
        if let Some((mut user, permissions)) = account {
            let org = store.org_by_id(&user.org_id).await?;
            let told = identity.person.as_ref().and_then(|p| p.email.clone());
            if let Some(email) = told.filter(|email| *email != user.email) {
                store.set_user_email(&user.id, &email).await?;
                user.email = email;
            }
            identity.subject.id.clone_from(&user.id);
            identity.subject.display = user.display().to_owned();
            identity.caller = org.map(|org| Caller {
                org,
                subject: identity.subject.clone(),
                permissions,
                scope: AppScope::All,
            });
            identity.user = Some(user);
        }
        Ok(identity)
    }

    /// Admits an executor: its application, and the id of the key it came with (none when the key is
    /// not one of the store's). The application is looked for in the key's organization, for the
    /// address that executors dial does not name one. `peer` is the address that wrong keys are
    /// counted against.
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
            self.key(store, &self.inner.dials, key, peer)
                .await
                .map_err(|error| match error {
                    KeyError::Unknown => WebsocketReject::UnknownKey,
                    KeyError::TooManyGuesses => WebsocketReject::TooManyGuesses,
                    KeyError::Store(_) => WebsocketReject::Unavailable,
                })?
        };
        let org_id = match &known {
            Known::Operator => &self.inner.org.id,
            Known::Stored(row) if row.permissions.contains(Permission::WebsocketConnect) => {
                &row.org_id
            }
            Known::Stored(_) => return Err(WebsocketReject::MayNotConnect),
        };
        let app = store
            .app_by_name(org_id, app_name)
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

    /// An administrator of the organization `local`, by the name `name`.
    fn administrator(&self, source: IpAddr, kind: &'static str, name: &str) -> Identity {
        let subject = Subject {
            kind,
            id: name.to_owned(),
            display: name.to_owned(),
        };
        Identity {
            subject: subject.clone(),
            person: None,
            user: None,
            caller: Some(Caller {
                org: self.inner.org.clone(),
                subject,
                permissions: Permissions::all(),
                scope: AppScope::All,
            }),
            source_ip: source.to_string(),
        }
    }

    /// Looks a key up. With `peer`, unknown ones count against that address.
    async fn key(
        &self,
        store: &Store,
        guesses: &Guesses,
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
        match guesses.look(&hash, peer) {
            Verdict::KnownWrong => return Err(KeyError::Unknown),
            Verdict::TooMany => return Err(KeyError::TooManyGuesses),
            Verdict::Ask => {}
        }
        match store.key_by_hash(&hash).await.map_err(KeyError::Store)? {
            Some(row) => {
                guesses.right(hash);
                Ok(Known::Stored(row))
            }
            None => {
                guesses.wrong(Some(hash), peer);
                Err(KeyError::Unknown)
            }
        }
    }
}

fn too_many() -> Problem {
    let detail = "too many wrong credentials from this address; try again later";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("60"))
}

/// The token of `Authorization: Bearer …`; the scheme in any case. A request with two of these headers
/// is refused, for a proxy before us may have looked at the other one.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || {
        Problem::unauthorized(
            "a credential is required: Authorization: Bearer, and an API key (dbos_…) or a user's token",
        )
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing());
    };
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(missing())
    }
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
