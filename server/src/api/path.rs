//! Parameters of the paths.

use serde::Deserialize;
use utoipa::IntoParams;

/// `/v2/orgs/{orgName}`
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct OrgPath {
    /// Organization; `local` without OIDC
    #[param(min_length = 3, max_length = 30, pattern = "^[a-z0-9_]+$")]
    pub org_name: String,
}

/// `/v2/orgs/{orgName}/apps/{appName}`
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// Organization; `local` without OIDC
    #[param(min_length = 3, max_length = 30, pattern = "^[a-z0-9_]+$")]
    pub org_name: String,
    /// Application
    #[param(min_length = 3, max_length = 256, pattern = "^[a-z0-9-_]+$")]
    pub app_name: String,
}

/// `…/workflows/{workflowId}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct WorkflowPath {
    /// Workflow id, percent-encoded
    pub workflow_id: String,
}

/// `…/queues/{queueName}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct QueuePath {
    /// Queue name, percent-encoded
    pub queue_name: String,
}

/// `…/schedules/{scheduleName}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct SchedulePath {
    /// Schedule name, percent-encoded
    pub schedule_name: String,
}

/// `…/tokens/{tokenName}`, beside [`OrgPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct TokenPath {
    /// Name of the API key, percent-encoded
    pub token_name: String,
}

/// `…/members/{username}`, beside [`OrgPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct MemberPath {
    /// Name of the member
    #[param(min_length = 3, max_length = 30, pattern = "^[a-z0-9_]+$")]
    pub username: String,
}

/// `…/roles/{roleName}`, beside [`OrgPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct RolePath {
    /// Name of the role
    #[param(min_length = 3, max_length = 30, pattern = "^[a-zA-Z0-9_]+$")]
    pub role_name: String,
}

/// `…/domain-claims/{domain}`, beside [`OrgPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct DomainPath {
    /// The domain
    #[param(min_length = 4, max_length = 253)]
    pub domain: String,
}
