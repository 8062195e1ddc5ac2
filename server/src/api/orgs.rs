//! The organization itself, and the ways into it.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Body, Created, Object, Path};
use super::members::refused;
use super::path::OrgPath;
use super::problem::Problem;
use super::time::Timestamp;
use super::users::plan;
use crate::auth::{Caller, Identity, key};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::members::MemberError;
use crate::store::orgs::LOCAL;

/// What clients show as limits; there are none.
const UNLIMITED: i32 = 1_000_000;
/// How long a join secret is good, in milliseconds: a week.
const SECRET_LIFETIME_MS: i64 = 7 * 86_400_000;

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// How long audit entries are kept
    pub audit_log_retention_days: i32,
    /// When it was made
    pub created_at: Timestamp,
    /// Always empty here
    pub default_rds_instance_class_type: String,
    /// Stable id
    pub id: String,
    /// Not limited here
    pub max_apps: i32,
    /// Not limited here
    pub max_conductor_apps: i32,
    /// Not limited here
    pub max_database_instances: i32,
    /// Not limited here
    pub max_team_members: i32,
    /// Not limited here
    pub max_vms: i32,
    /// Name, part of every path
    pub name: String,
    /// Always `team`: nothing is limited here
    #[schema(schema_with = plan)]
    pub subscription_plan: &'static str,
}

/// What is to be changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateOrgInputBody {
    /// How long audit entries are kept
    #[schema(minimum = 7, maximum = 3650)]
    pub audit_log_retention_days: Option<i32>,
    /// The new name; every later path holds it
    #[schema(min_length = 3, max_length = 30, pattern = "^[a-z0-9_]+$")]
    pub new_name: Option<String>,
}

/// The way in.
#[derive(Deserialize, ToSchema)]
pub struct JoinOrgInputBody {
    /// A join secret of the organization
    pub secret: String,
}

/// A new join secret. This is the only time that it is shown.
#[derive(Serialize, ToSchema)]
pub struct GenerateSecretOutputBody {
    /// The secret; it lets one person in, within a week
    pub secret: String,
}

/// Show the organization
#[utoipa::path(get, path = "/v2/orgs/{orgName}", operation_id = "getOrg", tag = "Orgs",
    params(OrgPath), responses((status = 200, description = "OK", body = Organization)),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true))))]
async fn get_org(caller: Caller) -> Object<Organization> {
    let org = caller.org;
    Object(Organization {
        audit_log_retention_days: i32::try_from(org.audit_retention_days).unwrap_or(i32::MAX),
        created_at: Timestamp::from_ms(org.created_at),
        default_rds_instance_class_type: String::new(),
        id: org.id,
        max_apps: UNLIMITED,
        max_conductor_apps: UNLIMITED,
        max_database_instances: UNLIMITED,
        max_team_members: UNLIMITED,
        max_vms: UNLIMITED,
        name: org.name,
        subscription_plan: "team",
    })
}

/// Rename the organization, or change how long its audit log is kept
#[utoipa::path(patch, path = "/v2/orgs/{orgName}", operation_id = "updateOrg", tag = "Orgs",
    params(OrgPath), request_body = UpdateOrgInputBody,
    responses((status = 204, description = "Changed")),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("organization.update"))))]
async fn update_org(
    State(state): State<AppState>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<UpdateOrgInputBody>,
) -> Result<StatusCode, Problem> {
    if let Some(name) = &body.new_name {
        audit.detail("new_name", name.clone());
    }
    if let Some(days) = body.audit_log_retention_days {
        audit.detail("audit_log_retention_days", days);
    }
    let name = body
        .new_name
        .as_deref()
        .filter(|name| *name != caller.org.name);
    if name.is_some() && caller.org.name == LOCAL {
        return Err(Problem::conflict(
            "the organization `local` keeps its name: without --auth oidc clients find it by that",
        ));
    }
    let days = body.audit_log_retention_days.map(i64::from);
    let mut tx = state.store.begin().await?;
    let updated = state.store.update_org(&mut tx, &caller.org.id, name, days);
    updated.await.map_err(|error| match error {
        StoreError::Taken => Problem::conflict("another organization has this name"),
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Leave one's organization for the one whose join secret one holds
#[utoipa::path(post, path = "/v2/orgs/{orgName}/join", operation_id = "joinOrg", tag = "Orgs",
    params(OrgPath), request_body = JoinOrgInputBody,
    responses((status = 204, description = "Joined")),
    extensions(("x-segno-permission" = json!("user")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("user.join"))))]
async fn join_org(
    State(state): State<AppState>,
    identity: Identity,
    Path(path): Path<OrgPath>,
    audit: Audit,
    Body(body): Body<JoinOrgInputBody>,
) -> Result<StatusCode, Problem> {
    let Some(user) = &identity.user else {
        return Err(Problem::forbidden(
            "register first: POST /v2/users with a name and this secret",
        ));
    };
    audit.target("user", &user.name);
    audit.detail("organization_name", path.org_name.clone());
    // Whoever holds no secret of it does not learn whether the organization exists.
    let unknown = || refused(MemberError::BadSecret);
    let org = state.store.org_by_name(&path.org_name).await?;
    let org = org.ok_or_else(unknown)?;
    if org.id == user.org_id {
        return Err(Problem::conflict("you are a member of this organization"));
    }
    let mut tx = state.store.begin().await?;
    let hash = key::hash(&body.secret);
    let joined = state.store.join(&mut tx, user, &org.id, &hash).await;
    joined.map_err(refused)?;
    // Both organizations see it: one has lost a member, the other has won one.
    audit.record(&state.store, &mut tx).await?;
    audit.organization(&org.id);
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Make a join secret, which lets one person in
#[utoipa::path(post, path = "/v2/orgs/{orgName}/secrets", operation_id = "generateSecret", tag = "Orgs",
    params(OrgPath), responses((status = 201, description = "Created", body = GenerateSecretOutputBody)),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("organization.generate_secret"))))]
async fn generate_secret(
    State(state): State<AppState>,
    caller: Caller,
    audit: Audit,
) -> Result<Created<GenerateSecretOutputBody>, Problem> {
    let random: [u8; 32] = rand::random();
    let secret = format!("join_{}", URL_SAFE_NO_PAD.encode(random));
    let mut tx = state.store.begin().await?;
    let hash = key::hash(&secret);
    let stored = state
        .store
        .insert_secret(&mut tx, &caller.org.id, &hash, SECRET_LIFETIME_MS);
    stored.await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Created {
        object: GenerateSecretOutputBody { secret },
        location: Vec::new(),
    })
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_org, update_org))
        .routes(routes!(join_org))
        .routes(routes!(generate_secret))
}
