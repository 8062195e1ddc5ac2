//! The people of an organization.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Object, Path};
use super::path::{MemberPath, OrgPath, RolePath};
use super::problem::Problem;
use super::roles::RoleOutput;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::members::MemberError;

/// Who belongs to an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrgMembers {
    /// The organization
    pub org_name: String,
    /// Each member's role, by the member's name
    #[schema(value_type = HashMap<String, RoleOutput>)]
    pub users: BTreeMap<String, RoleOutput>,
}

/// One person.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Where they work, or empty
    pub company: String,
    /// E-mail address, or empty
    pub email: String,
    /// Family name, or empty
    pub family_name: String,
    /// Given name, or empty
    pub given_name: String,
    /// Stable id
    pub id: String,
    /// Name on this server
    pub name: String,
    /// Id of the organization
    pub org_id: String,
}

/// Why a membership stays as it is, for the caller.
pub(super) fn refused(error: MemberError) -> Problem {
    let detail = error.to_string();
    match error {
        MemberError::BadSecret | MemberError::NoMember | MemberError::NoRole => {
            Problem::not_found(detail)
        }
        MemberError::RoleTooHigh => Problem::forbidden(detail),
        MemberError::LastAdmin | MemberError::RoleInUse { .. } | MemberError::Changed => {
            Problem::conflict(detail)
        }
        MemberError::Store(error) => error.into(),
    }
}

/// List the members
#[utoipa::path(get, path = "/v2/orgs/{orgName}/members", operation_id = "listMembers", tag = "Orgs",
    params(OrgPath), responses((status = 200, description = "OK", body = OrgMembers)),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true))))]
async fn list_members(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Object<OrgMembers>, Problem> {
    let members = state.store.members(&caller.org.id).await?;
    let role = |(user, permissions): (crate::store::users::UserRow, _)| {
        let role = RoleOutput::new(&user.role, permissions);
        (user.name, role)
    };
    Ok(Object(OrgMembers {
        org_name: caller.org.name,
        users: members.into_iter().map(role).collect(),
    }))
}

/// Remove a member, and with it their account on this server
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/members/{username}", operation_id = "removeMember",
    tag = "Orgs", params(OrgPath, MemberPath),
    responses((status = 200, description = "Removed", body = Member)),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("user.remove"))))]
async fn remove_member(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<MemberPath>,
    audit: Audit,
) -> Result<Object<Member>, Problem> {
    let mut tx = state.store.begin().await?;
    let removed = state
        .store
        .remove_member(&mut tx, &caller.org.id, &path.username)
        .await
        .map_err(refused)?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Object(Member {
        company: removed.company,
        email: removed.email,
        family_name: removed.family_name,
        given_name: removed.given_name,
        id: removed.id,
        name: removed.name,
        org_id: removed.org_id,
    }))
}

/// Give a member another role
#[utoipa::path(put, path = "/v2/orgs/{orgName}/members/{username}/roles/{roleName}", operation_id = "grantRole",
    tag = "Roles", params(OrgPath, MemberPath, RolePath),
    responses((status = 204, description = "Granted")),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("role.grant"))))]
async fn grant_role(
    State(state): State<AppState>,
    caller: Caller,
    Path(member): Path<MemberPath>,
    Path(role): Path<RolePath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    audit.detail("role_name", role.role_name.clone());
    let mut tx = state.store.begin().await?;
    let granted = state.store.grant_role(
        &mut tx,
        &caller.org.id,
        &member.username,
        &role.role_name,
        caller.permissions,
    );
    granted.await.map_err(refused)?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(remove_member))
        .routes(routes!(grant_role))
}
