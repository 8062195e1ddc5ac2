//! Application versions, as the application's own database knows them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use segno_protocol::{ListApplicationVersions, SetLatestApplicationVersion, VersionRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body};
use super::forward;
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::state::AppState;
use crate::store::apps::AppRow;

/// A version of an application.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationVersion {
    /// When it was first seen
    pub created_at: Timestamp,
    /// Its id
    pub version_id: String,
    /// What executors call it
    pub version_name: String,
    /// When it was last made the latest
    pub version_timestamp: Timestamp,
}

/// Which version is to be the latest.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchLatestVersionInputBody {
    /// Its name
    pub version_name: String,
}

/// Latest first.
pub(super) async fn versions(
    state: &AppState,
    app: &AppRow,
) -> Result<Vec<VersionRecord>, Problem> {
    let mut versions = forward::read(&state.hub, app, &ListApplicationVersions {})
        .await?
        .output;
    versions.sort_by_key(|version| std::cmp::Reverse(version.version_timestamp));
    Ok(versions)
}

/// List an application's versions, latest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/versions", operation_id = "listAppVersions",
    tag = "Applications", params(AppPath),
    responses((status = 200, description = "OK", body = [ApplicationVersion])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_versions(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<ApplicationVersion>>, Problem> {
    let version = |record: VersionRecord| {
        let seen = record.created_at.or(record.version_timestamp).unwrap_or(0);
        ApplicationVersion {
            created_at: Timestamp::from_ms(seen),
            version_id: record.version_id.unwrap_or_default(),
            version_name: record.version_name,
            version_timestamp: Timestamp::from_ms(record.version_timestamp.unwrap_or(seen)),
        }
    };
    Ok(Json(
        versions(&state, &app)
            .await?
            .into_iter()
            .map(version)
            .collect(),
    ))
}

/// Make a version the latest
#[utoipa::path(patch, path = "/v2/orgs/{orgName}/apps/{appName}/versions/latest", operation_id = "setLatestAppVersion",
    tag = "Applications", params(AppPath), request_body = PatchLatestVersionInputBody,
    responses((status = 204, description = "It is the latest")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("application.set_latest_version"))))]
async fn set_latest(
    State(state): State<AppState>,
    App(app): App,
    audit: Audit,
    Body(body): Body<PatchLatestVersionInputBody>,
) -> Result<StatusCode, Problem> {
    audit.detail("version_name", body.version_name.clone());
    // Some SDKs ignore a name that they do not know.
    let known = versions(&state, &app).await?;
    if !known
        .iter()
        .any(|version| version.version_name == body.version_name)
    {
        return Err(Problem::not_found(format!(
            "`{}` has no version {:?}",
            app.name, body.version_name
        )));
    }
    let message = SetLatestApplicationVersion {
        version_name: body.version_name,
    };
    forward::succeeded(forward::write(&state.hub, &app, &message, true).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_versions))
        .routes(routes!(set_latest))
}
