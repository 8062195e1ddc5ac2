//! A person's own account.

use axum::extract::State;
use rand::Rng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Body, Created, Object};
use super::members::refused;
use super::problem::Problem;
use super::roles::RoleOutput;
use super::time::Timestamp;
use crate::auth::{Identity, Permission, Person, key};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::members::{Door, MemberError};
use crate::store::users::NewUser;

/// Who wants an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterUserInputBody {
    /// Where they work
    pub company: Option<String>,
    /// Family name
    pub family_name: Option<String>,
    /// Given name
    pub given_name: Option<String>,
    /// Name on this server, unique
    #[schema(min_length = 3, max_length = 30, pattern = "^[a-z0-9_]+$")]
    pub name: String,
    /// Join secret of an organization; without one, the organization that claims the domain of the
    /// e-mail address, or a new one
    pub secret: Option<String>,
}

/// The new account.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegisterUserOutputBody {
    /// Its id
    pub id: String,
}

/// A person's account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserProfile {
    /// When they registered
    pub created_at: Timestamp,
    /// E-mail address, or empty
    pub email: String,
    /// Never true here: nobody stands above the organizations
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_dbos_admin: Option<bool>,
    /// Name on this server
    pub name: String,
    /// Id of the organization
    pub org_id: String,
    /// Name of the organization
    pub org_name: String,
    /// What they may do
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleOutput>,
    /// Always `team`: nothing is limited here
    #[schema(schema_with = plan)]
    pub subscription_plan: &'static str,
}

/// The plans that clients know.
pub(super) fn plan() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["free", "pro", "past_limit", "team"]))
        .build()
}

/// Longest given name, family name and company, in characters.
const LONGEST: usize = 200;

/// Register the person whose token this is
#[utoipa::path(post, path = "/v2/users", operation_id = "registerUser", tag = "Users",
    request_body = RegisterUserInputBody,
    responses((status = 201, description = "Created", body = RegisterUserOutputBody)),
    extensions(("x-segno-permission" = json!("user")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("user.join"))))]
async fn register_user(
    State(state): State<AppState>,
    identity: Identity,
    audit: Audit,
    Body(body): Body<RegisterUserInputBody>,
) -> Result<Created<RegisterUserOutputBody>, Problem> {
    audit.target("user", &body.name);
    let person = person(&identity)?;
    if identity.user.is_some() {
        return Err(Problem::conflict("you are registered already"));
    }
    let [company, family_name, given_name] =
        [body.company, body.family_name, body.given_name].map(Option::unwrap_or_default);
    if [&company, &family_name, &given_name]
        .iter()
        .any(|text| text.chars().count() > LONGEST)
    {
        return Err(Problem::bad_request(format!(
            "company, familyName and givenName hold at most {LONGEST} characters"
        )));
    }
    let email = email(&state, person).await;
    let domain = email
        .rsplit_once('@')
        .map(|(_, domain)| domain.to_lowercase());
    let user = NewUser {
        issuer: &person.issuer,
        subject: &person.subject,
        name: &body.name,
        email: &email,
        given_name: &given_name,
        family_name: &family_name,
        company: &company,
    };
    let secret = body.secret.filter(|secret| !secret.is_empty());
    let hash = secret.as_deref().map(key::hash);
    let org_name = org_name(&body.name);
    let door = match &hash {
        Some(hash) => Door::Secret(hash),
        None => Door::Domain(domain.as_deref(), &org_name),
    };
    let mut tx = state.store.begin().await?;
    let joined = match state.store.register(&mut tx, &user, &door).await {
        Ok(joined) => joined,
        Err(MemberError::Store(StoreError::Taken)) => {
            return Err(Problem::conflict(format!(
                "the name `{}` is taken; choose another one",
                body.name
            )));
        }
        Err(error) => return Err(refused(error)),
    };
    audit.organization(&joined.org_id);
    audit.subject(
        &joined.user_id,
        if email.is_empty() { &body.name } else { &email },
    );
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Created {
        object: RegisterUserOutputBody { id: joined.user_id },
        location: Vec::new(),
    })
}

/// The person behind a route for people; the gate lets nobody else through.
pub(super) fn person(identity: &Identity) -> Result<&Person, Problem> {
    let person = identity.person.as_ref();
    person.ok_or_else(|| Problem::forbidden("this is for people, not for API keys"))
}

/// The trusted address of a person, or nothing.
async fn email(state: &AppState, person: &Person) -> String {
    match state.auth.oidc() {
        Some(oidc) => oidc.email(person).await.unwrap_or_default(),
        None => String::new(),
    }
}

/// A name for a founder's organization: their own, cut to leave room, and something random.
fn org_name(founder: &str) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let tail: String = (0..8)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect();
    let head: String = founder.chars().take(21).collect();
    format!("{head}_{tail}")
}

/// Show the account of the person whose token this is
#[utoipa::path(get, path = "/v2/users/me", operation_id = "getCurrentUser", tag = "Users",
    responses((status = 200, description = "OK", body = UserProfile)),
    extensions(("x-segno-permission" = json!("user")), ("x-dbos-requires-oauth" = json!(true))))]
async fn get_current_user(
    State(state): State<AppState>,
    identity: Identity,
) -> Result<Object<UserProfile>, Problem> {
    let person = person(&identity)?;
    let (Some(mut user), Some(caller)) = (identity.user.clone(), &identity.caller) else {
        return Err(Problem::not_found(
            "you have logged in but are not registered here: POST /v2/users with a name, and the join \
             secret if you were given one",
        ));
    };
    if user.email.is_empty() {
        user.email = email(&state, person).await;
        if !user.email.is_empty() {
            state.store.set_user_email(&user.id, &user.email).await?;
        }
    }
    Ok(Object(UserProfile {
        created_at: Timestamp::from_ms(user.created_at),
        email: user.email,
        is_dbos_admin: None,
        name: user.name,
        org_id: caller.org.id.clone(),
        org_name: caller.org.name.clone(),
        role: Some(RoleOutput::new(&user.role, caller.permissions)),
        subscription_plan: "team",
    }))
}

/// The names on the wire.
pub(super) fn names(permissions: crate::auth::Permissions) -> Vec<String> {
    permissions
        .iter()
        .map(Permission::name)
        .map(str::to_owned)
        .collect()
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(register_user))
        .routes(routes!(get_current_user))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_generated_name_is_one_that_paths_take() {
        let pattern = regex::Regex::new("^[a-z0-9_]{3,30}$").unwrap();
        for founder in ["ann", "a_name_of_thirty_characters_00"] {
            let name = org_name(founder);
            assert!(pattern.is_match(&name), "{name}");
            assert_ne!(name, org_name(founder));
        }
    }
}
