//! E-mail domains whose people join the organization when they register. Nobody above the
//! organizations could decide on a claim, so each is approved at once; the first one has the domain.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{Body, Created, Object, Path};
use super::path::{DomainPath, OrgPath};
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::domains::ClaimRow;

/// A claim.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainClaim {
    /// When it was decided
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// By whom
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Why
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_note: Option<String>,
    /// The domain, lower case
    pub domain: String,
    /// Stable id
    pub id: String,
    /// The organization
    pub org_name: String,
    /// When it was requested
    pub requested_at: Timestamp,
    /// By whom
    pub requested_by: String,
    /// Always `approved` here
    #[schema(schema_with = status)]
    pub status: &'static str,
}

fn status() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["pending", "approved", "denied"]))
        .build()
}

impl DomainClaim {
    fn new(row: ClaimRow, org_name: &str) -> Self {
        Self {
            decided_at: Some(Timestamp::from_ms(row.requested_at)),
            decided_by: Some("segno".to_owned()),
            decision_note: None,
            domain: row.domain,
            id: row.id,
            org_name: org_name.to_owned(),
            requested_at: Timestamp::from_ms(row.requested_at),
            requested_by: row.requested_by,
            status: "approved",
        }
    }
}

/// All claims of an organization.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListDomainClaimsOutputBody {
    /// By domain
    pub claims: Vec<DomainClaim>,
}

/// What is claimed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RequestDomainClaimInputBody {
    /// The domain, exactly as it stands behind the @
    #[schema(min_length = 4, max_length = 253)]
    pub domain: String,
}

/// List the claimed e-mail domains
#[utoipa::path(get, path = "/v2/orgs/{orgName}/domain-claims", operation_id = "listDomainClaims",
    tag = "Orgs", params(OrgPath),
    responses((status = 200, description = "OK", body = ListDomainClaimsOutputBody)),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true))))]
async fn list_domain_claims(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Object<ListDomainClaimsOutputBody>, Problem> {
    let rows = state.store.domain_claims(&caller.org.id).await?;
    let claims = rows
        .into_iter()
        .map(|row| DomainClaim::new(row, &caller.org.name));
    Ok(Object(ListDomainClaimsOutputBody {
        claims: claims.collect(),
    }))
}

/// Claim an e-mail domain: whoever registers with an address of it joins the organization
#[utoipa::path(post, path = "/v2/orgs/{orgName}/domain-claims", operation_id = "requestDomainClaim",
    tag = "Orgs", params(OrgPath), request_body = RequestDomainClaimInputBody,
    responses((status = 201, description = "Created", body = DomainClaim)),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("domain_claim.create"))))]
async fn request_domain_claim(
    State(state): State<AppState>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<RequestDomainClaimInputBody>,
) -> Result<Created<DomainClaim>, Problem> {
    let domain = body.domain.to_lowercase();
    audit.target("domain_claim", &domain);
    if !is_domain(&domain) {
        return Err(Problem::bad_request(format!(
            "`{domain}` is no domain such as example.com"
        )));
    }
    let mut tx = state.store.begin().await?;
    let claimed =
        state
            .store
            .insert_domain_claim(&mut tx, &caller.org.id, &domain, &caller.subject.display);
    let row = claimed.await.map_err(|error| match error {
        StoreError::Taken => Problem::conflict(format!("the domain `{domain}` is claimed already")),
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Created {
        object: DomainClaim::new(row, &caller.org.name),
        location: Vec::new(),
    })
}

/// Labels of letters of any script, digits and hyphens, at least two of them.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    text.contains('.') && text.split('.').all(label)
}

/// Give an e-mail domain up; nobody who has joined by it leaves
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/domain-claims/{domain}", operation_id = "releaseDomainClaim",
    tag = "Orgs", params(OrgPath, DomainPath),
    responses((status = 204, description = "Released")),
    extensions(("x-segno-permission" = json!("organization.write")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-audit" = json!("domain_claim.delete"))))]
async fn release_domain_claim(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<DomainPath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let domain = path.domain.to_lowercase();
    audit.target("domain_claim", &domain);
    let mut tx = state.store.begin().await?;
    let released = state
        .store
        .delete_domain_claim(&mut tx, &caller.org.id, &domain);
    released.await.map_err(|error| match error {
        StoreError::NotFound => {
            Problem::not_found(format!("the organization has not claimed `{domain}`"))
        }
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_domain_claims, request_domain_claim))
        .routes(routes!(release_domain_claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_from_other_texts() {
        for good in ["example.com", "a.b.example", "bücher.example", "x-y.de"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in [
            "example",
            "@example.com",
            "a..b",
            "-a.de",
            "a.de.",
            "a b.de",
            "https://a.de",
        ] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
