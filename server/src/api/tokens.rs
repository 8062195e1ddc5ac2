//! API keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Body, Created, Path};
use super::path::{OrgPath, TokenPath};
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::{AppScope, Caller, Permission, Permissions, key};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::keys::NewKey;

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Ids of the applications it covers; empty: all
    pub app_ids: Vec<String>,
    /// When it was made
    pub created_at: Timestamp,
    /// What it may do
    pub permissions: Vec<String>,
    /// Name
    pub token_name: String,
}

/// A new API key. This is the only time that it is shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenCreated {
    /// The key
    pub token: String,
    /// Its name
    pub token_name: String,
}

/// What the new key may do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateTokenInputBody {
    /// Names of the applications it covers; absent or empty: all
    #[schema(schema_with = unique_names)]
    pub app_names: Option<Vec<String>>,
    /// Absent or empty: websocket.connect
    pub permissions: Option<Vec<String>>,
}

fn unique_names() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, Object, SchemaType, Type};
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(Object::with_type(Type::String))
        .unique_items(true)
        .description(Some(
            "Names of the applications it covers; absent or empty: all",
        ))
        .build()
}

/// A key's new name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateTokenInputBody {
    /// The new name
    pub new_name: String,
}

/// List the API keys
#[utoipa::path(get, path = "/v2/orgs/{orgName}/tokens", operation_id = "listTokens", tag = "Tokens",
    params(OrgPath), responses((status = 200, description = "OK", body = [Token])),
    extensions(("x-segno-permission" = json!("token.read"))))]
async fn list_tokens(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<Token>>, Problem> {
    let keys = state.store.keys(&caller.org.id, false).await?;
    let token = |key: crate::store::keys::KeyRow| Token {
        app_ids: match key.scope {
            AppScope::All => Vec::new(),
            AppScope::Only(apps) => apps,
        },
        created_at: Timestamp::from_ms(key.created_at),
        permissions: key
            .permissions
            .iter()
            .map(|permission| permission.name().to_owned())
            .collect(),
        token_name: key.name,
    };
    Ok(Json(keys.into_iter().map(token).collect()))
}

/// Create an API key; its secret is shown this once
#[utoipa::path(post, path = "/v2/orgs/{orgName}/tokens/{tokenName}", operation_id = "createToken", tag = "Tokens",
    params(OrgPath, TokenPath), request_body = Option<CreateTokenInputBody>,
    responses((status = 201, description = "Created", body = TokenCreated)),
    extensions(("x-segno-permission" = json!("token.write")), ("x-segno-audit" = json!("token.create"))))]
async fn create_token(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<TokenPath>,
    audit: Audit,
    Body(body): Body<CreateTokenInputBody>,
) -> Result<Created<TokenCreated>, Problem> {
    let apps = body.app_names.unwrap_or_default();
    let names = body.permissions.unwrap_or_default();
    audit.detail("permissions", names.clone());
    audit.detail("applications", apps.clone());
    let permissions = granted(&names, &caller)?;
    let scope = scope(&state, &caller, &apps).await?;
    let text = key::generate(&caller.org.id);
    let new = NewKey {
        org_id: &caller.org.id,
        name: &path.token_name,
        hash: &key::hash(text.expose()),
        permissions,
        scope: &scope,
        admin: false,
    };
    let mut tx = state.store.begin().await?;
    state
        .store
        .insert_key(&mut tx, &new)
        .await
        .map_err(|error| taken(error, &path.token_name))?;
    let held: Vec<&str> = permissions.iter().map(Permission::name).collect();
    audit.detail("permissions", held);
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Created {
        object: TokenCreated {
            token: text.expose().to_owned(),
            token_name: path.token_name,
        },
        location: Vec::new(),
    })
}

/// The permissions that were asked for, if they exist and the caller may give them.
fn granted(names: &[String], caller: &Caller) -> Result<Permissions, Problem> {
    if names.is_empty() {
        return Ok([Permission::WebsocketConnect].into_iter().collect());
    }
    let mut permissions = Vec::with_capacity(names.len());
    for name in names {
        let permission = Permission::parse(name).ok_or_else(|| {
            let known: Vec<&str> = Permission::ALL
                .iter()
                .map(|permission| permission.name())
                .collect();
            Problem::bad_request(format!(
                "there is no permission `{name}`; there are {}",
                known.join(", ")
            ))
        })?;
        if permission == Permission::TokenWrite {
            return Err(Problem::bad_request(
                "token.write cannot be given to an API key; only an administrator's key holds it",
            ));
        }
        if !caller.permissions.contains(permission) {
            return Err(Problem::forbidden(format!(
                "you cannot give the permission {name}, for you lack it"
            )));
        }
        permissions.push(permission);
    }
    Ok(permissions.into_iter().collect())
}

/// The applications of that name; a scoped caller cannot make a wider key.
async fn scope(state: &AppState, caller: &Caller, names: &[String]) -> Result<AppScope, Problem> {
    if names.is_empty() {
        return Ok(caller.scope.clone());
    }
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        let app = state.store.app_by_name(&caller.org.id, name).await?;
        let app = app.filter(|app| caller.scope.covers(&app.id));
        ids.push(
            app.ok_or_else(|| Problem::not_found(format!("there is no application `{name}`")))?
                .id,
        );
    }
    Ok(AppScope::Only(ids))
}

fn taken(error: StoreError, name: &str) -> Problem {
    match error {
        StoreError::Taken => Problem::conflict(format!("there is an API key `{name}` already")),
        StoreError::NotFound => Problem::not_found(format!("there is no API key `{name}`")),
        other => other.into(),
    }
}

/// Rename an API key; its secret, scope and permissions stay
#[utoipa::path(patch, path = "/v2/orgs/{orgName}/tokens/{tokenName}", operation_id = "updateToken", tag = "Tokens",
    params(OrgPath, TokenPath), request_body = UpdateTokenInputBody,
    responses((status = 204, description = "Renamed")),
    extensions(("x-segno-permission" = json!("token.write")), ("x-segno-audit" = json!("token.update"))))]
async fn update_token(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<TokenPath>,
    audit: Audit,
    Body(body): Body<UpdateTokenInputBody>,
) -> Result<StatusCode, Problem> {
    if body.new_name.is_empty() {
        return Err(Problem::bad_request("newName must not be empty"));
    }
    audit.detail("new_name", body.new_name.clone());
    let mut tx = state.store.begin().await?;
    let renamed = state
        .store
        .rename_key(&mut tx, &caller.org.id, &path.token_name, &body.new_name)
        .await;
    renamed.map_err(|error| match error {
        StoreError::Taken => taken(error, &body.new_name),
        other => taken(other, &path.token_name),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke an API key, at once
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/tokens/{tokenName}", operation_id = "deleteToken", tag = "Tokens",
    params(OrgPath, TokenPath), responses((status = 204, description = "Revoked")),
    extensions(("x-segno-permission" = json!("token.write")), ("x-segno-audit" = json!("token.revoke"))))]
async fn delete_token(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<TokenPath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let mut tx = state.store.begin().await?;
    let deleted = state
        .store
        .delete_key(&mut tx, &caller.org.id, &path.token_name, false)
        .await;
    let id = deleted.map_err(|error| taken(error, &path.token_name))?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    state.hub.close_key(&id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// List the permissions that exist
#[utoipa::path(get, path = "/v2/orgs/{orgName}/permissions", operation_id = "listPermissions", tag = "Roles",
    params(OrgPath), responses((status = 200, description = "OK", body = [String])),
    extensions(("x-segno-permission" = json!("any"))))]
async fn list_permissions() -> Json<Vec<&'static str>> {
    Json(
        Permission::ALL
            .iter()
            .map(|permission| permission.name())
            .collect(),
    )
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens))
        .routes(routes!(create_token, update_token, delete_token))
        .routes(routes!(list_permissions))
}
