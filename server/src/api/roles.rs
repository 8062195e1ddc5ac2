//! Roles: the two built-in ones, and an organization's own.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Body, Created, Path};
use super::members::refused;
use super::path::{OrgPath, RolePath};
use super::problem::Problem;
use super::users::names;
use crate::auth::{Caller, Permission, Permissions, role};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::members::MemberError;
use crate::store::roles::RoleRow;

/// A role.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleOutput {
    /// Whether every organization has it
    pub is_global: bool,
    /// Name
    pub name: String,
    /// What its holders may do
    pub permissions: Vec<String>,
}

impl RoleOutput {
    /// A role with the permissions that it stands for.
    pub fn new(name: &str, permissions: Permissions) -> Self {
        Self {
            is_global: role::built_in(name).is_some(),
            name: name.to_owned(),
            permissions: names(permissions),
        }
    }
}

/// A role that is to be.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateRoleInputBody {
    /// Name
    #[schema(min_length = 3, max_length = 30, pattern = "^[a-zA-Z0-9_]+$")]
    pub name: String,
    /// What its holders may do
    pub permissions: Option<Vec<String>>,
}

/// The new role.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreateRoleOutputBody {
    /// Name
    pub name: String,
    /// What its holders may do
    pub permissions: Vec<String>,
}

/// List the roles
#[utoipa::path(get, path = "/v2/orgs/{orgName}/roles", operation_id = "listRoles", tag = "Roles",
    params(OrgPath), responses((status = 200, description = "OK", body = [RoleOutput])),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true))))]
async fn list_roles(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<RoleOutput>>, Problem> {
    let built_in = [role::ADMIN, role::MEMBER]
        .into_iter()
        .filter_map(|name| Some(RoleOutput::new(name, role::built_in(name)?)));
    let own = state.store.roles(&caller.org.id).await?;
    let own = own
        .into_iter()
        .map(|role| RoleOutput::new(&role.name, role.permissions));
    Ok(Json(built_in.chain(own).collect()))
}

/// Create a role
#[utoipa::path(post, path = "/v2/orgs/{orgName}/roles", operation_id = "createRole", tag = "Roles",
    params(OrgPath), request_body = CreateRoleInputBody,
    responses((status = 201, description = "Created", body = CreateRoleOutputBody,
        headers(("Location" = String, description = "Path of the role")))),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("role.create"))))]
async fn create_role(
    State(state): State<AppState>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<CreateRoleInputBody>,
) -> Result<Created<CreateRoleOutputBody>, Problem> {
    let wanted = body.permissions.unwrap_or_default();
    audit.target("role", &body.name);
    audit.detail("permissions", wanted.clone());
    let permissions = grantable(&wanted, caller.permissions)?;
    let taken = || {
        Problem::conflict(format!(
            "there is a role `{}` already; choose another name",
            body.name
        ))
    };
    if role::built_in(&body.name).is_some() {
        return Err(taken());
    }
    let role = RoleRow {
        name: body.name.clone(),
        permissions,
    };
    let mut tx = state.store.begin().await?;
    let stored = state.store.insert_role(&mut tx, &caller.org.id, &role);
    stored.await.map_err(|error| match error {
        StoreError::Taken => taken(),
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    let location = ["v2", "orgs", &caller.org.name, "roles", &role.name];
    Ok(Created {
        location: location.map(str::to_owned).to_vec(),
        object: CreateRoleOutputBody {
            name: role.name,
            permissions: names(permissions),
        },
    })
}

/// The permissions of these names, of which `giver` must hold every one.
fn grantable(wanted: &[String], giver: Permissions) -> Result<Permissions, Problem> {
    let parse = |name: &String| {
        Permission::parse(name).ok_or_else(|| {
            let known = names(Permissions::all()).join(", ");
            Problem::bad_request(format!(
                "there is no permission `{name}`; there are {known}"
            ))
        })
    };
    let permissions: Permissions = wanted.iter().map(parse).collect::<Result<_, _>>()?;
    if !giver.includes(permissions) {
        return Err(refused(MemberError::RoleTooHigh));
    }
    Ok(permissions)
}

/// Delete a role of the organization's own that nobody holds
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/roles/{roleName}", operation_id = "deleteRole", tag = "Roles",
    params(OrgPath, RolePath), responses((status = 204, description = "Deleted")),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("role.delete"))))]
async fn delete_role(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<RolePath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    if role::built_in(&path.role_name).is_some() {
        return Err(Problem::forbidden("a built-in role cannot be deleted"));
    }
    let mut tx = state.store.begin().await?;
    let deleted = state
        .store
        .delete_role(&mut tx, &caller.org.id, &path.role_name);
    deleted.await.map_err(|error| match error {
        MemberError::Store(StoreError::NotFound) => refused(MemberError::NoRole),
        other => refused(other),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_roles, create_role))
        .routes(routes!(delete_role))
}
