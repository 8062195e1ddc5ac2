//! For whoever sits before the console or writes a script: how to log in here, and who one is.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Object;
use super::problem::Problem;
use crate::auth::oidc::Metadata;
use crate::auth::{AppScope, Identity, Permission};
use crate::config::AuthMode;
use crate::state::AppState;

/// Who is calling, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfInfo {
    /// Ids of the applications that the credential covers; absent: all
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_ids: Option<Vec<String>>,
    /// E-mail of the user or name of the key
    pub display: String,
    /// Id of the user or key
    pub id: String,
    /// What sort of caller
    pub kind: CallerKind,
    /// How this server authenticates
    pub mode: Mode,
    /// The user's name here; absent for keys, and before registration
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The caller's organization; absent for a person who has not registered
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_name: Option<String>,
    /// What the caller may do
    pub permissions: Vec<String>,
    /// The user's role; absent for keys
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// What sort of caller.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallerKind {
    /// A person, or everybody where nobody is authenticated.
    User,
    /// An API key.
    ApiKey,
}

/// How a server authenticates its callers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not at all.
    None,
    /// By API keys.
    Keys,
    /// By tokens of an OpenID Connect issuer, and by API keys.
    Oidc,
}

impl From<AuthMode> for Mode {
    fn from(mode: AuthMode) -> Self {
        match mode {
            AuthMode::None => Self::None,
            AuthMode::Keys => Self::Keys,
            AuthMode::Oidc => Self::Oidc,
        }
    }
}

/// Tell who is calling, and what they may do
#[utoipa::path(get, path = "/v2/self", operation_id = "getSelf", tag = "Users",
    responses((status = 200, description = "OK", body = SelfInfo)),
    extensions(("x-segno-permission" = json!("authenticated")), ("x-segno-extension" = json!(true))))]
async fn get_self(
    State(state): State<AppState>,
    identity: Identity,
) -> Result<Object<SelfInfo>, Problem> {
    let caller = identity.caller.as_ref();
    let permissions = caller.map(|caller| caller.permissions).unwrap_or_default();
    Ok(Object(SelfInfo {
        app_ids: caller.and_then(|caller| match &caller.scope {
            AppScope::All => None,
            AppScope::Only(apps) => Some(apps.clone()),
        }),
        kind: match identity.subject.kind {
            "api_key" => CallerKind::ApiKey,
            _ => CallerKind::User,
        },
        mode: state.auth.mode().into(),
        name: identity.user.as_ref().map(|user| user.name.clone()),
        org_name: caller.map(|caller| caller.org.name.clone()),
        permissions: permissions
            .iter()
            .map(Permission::name)
            .map(str::to_owned)
            .collect(),
        role: identity.user.map(|user| user.role),
        display: identity.subject.display,
        id: identity.subject.id,
    }))
}

/// How a browser logs in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionConfig {
    mode: Mode,
    /// In mode `oidc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<Login>,
}

/// The endpoints are null as long as the issuer's discovery document could not be read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    issuer: String,
    audience: String,
    client_id: Option<String>,
    scopes: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
}

async fn session_config(State(state): State<AppState>) -> Json<SessionConfig> {
    let oidc = match state.auth.oidc() {
        None => None,
        Some(oidc) => {
            let metadata = oidc.metadata().await;
            let endpoint = |pick: fn(&Metadata) -> &Option<url::Url>| {
                let url = metadata.as_deref().and_then(|known| pick(known).as_ref());
                url.map(ToString::to_string)
            };
            let config = oidc.config();
            Some(Login {
                issuer: config.issuer.clone(),
                audience: config.audience.clone(),
                client_id: config.client_id.clone(),
                scopes: config.scopes.clone(),
                authorization_endpoint: endpoint(|known| &known.authorization_endpoint),
                token_endpoint: endpoint(|known| &known.token_endpoint),
                end_session_endpoint: endpoint(|known| &known.end_session_endpoint),
            })
        }
    };
    Json(SessionConfig {
        mode: state.auth.mode().into(),
        oidc,
    })
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_self))
}

/// What the console asks before anybody has logged in; not in the document.
pub(super) fn open_routes() -> Router<AppState> {
    Router::new().route("/console/session-config", get(session_config))
}
