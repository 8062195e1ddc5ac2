//! Saved views of the workflow list: filters with a name, shared by everybody who may read the
//! application.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::extract::{App, Body, Object, Path};
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::views::ViewRow;

/// Views an application may have: more would be a list to search, not to choose from.
const MOST: i64 = 200;

/// A saved view.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Its name
    pub name: String,
    /// The query string of the console's workflow list, without the question mark
    pub query: String,
    /// Who saved it last
    pub saved_by: String,
    /// When
    pub updated_at: Timestamp,
}

impl From<ViewRow> for View {
    fn from(row: ViewRow) -> Self {
        Self {
            name: row.name,
            query: row.query,
            saved_by: row.saved_by,
            updated_at: Timestamp::from_ms(row.updated_at),
        }
    }
}

/// What a view shows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaveViewInputBody {
    /// The query string of the console's workflow list, without the question mark
    #[schema(max_length = 4000)]
    pub query: String,
}

/// `…/views/{viewName}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct ViewPath {
    /// Name of the view, percent-encoded
    #[param(min_length = 1, max_length = 80)]
    pub view_name: String,
}

/// List the saved views of an application's workflows, by name
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/views", operation_id = "listViews",
    tag = "Workflows", params(AppPath), responses((status = 200, description = "OK", body = [View])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_views(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<View>>, Problem> {
    let rows = state.store.views(&app.id).await?;
    Ok(Json(rows.into_iter().map(View::from).collect()))
}

/// Save a view, in the place of one of the same name
#[utoipa::path(put, path = "/v2/orgs/{orgName}/apps/{appName}/views/{viewName}", operation_id = "saveView",
    tag = "Workflows", params(AppPath, ViewPath), request_body = SaveViewInputBody,
    responses((status = 200, description = "Saved", body = View)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("view.save"))))]
async fn save_view(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<ViewPath>,
    audit: Audit,
    Body(body): Body<SaveViewInputBody>,
) -> Result<Object<View>, Problem> {
    let mut tx = state.store.begin().await?;
    let view = (
        path.view_name.as_str(),
        body.query.as_str(),
        caller.subject.display.as_str(),
    );
    let saved = state.store.save_view(&mut tx, &app.id, view, MOST).await?;
    let saved = saved.ok_or_else(|| {
        Problem::conflict(format!(
            "an application has at most {MOST} views; delete one that nobody needs"
        ))
    })?;
    audit.target("view", &path.view_name);
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Object(saved.into()))
}

/// Delete a saved view
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/apps/{appName}/views/{viewName}", operation_id = "deleteView",
    tag = "Workflows", params(AppPath, ViewPath), responses((status = 204, description = "Deleted")),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("view.delete"))))]
async fn delete_view(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<ViewPath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let mut tx = state.store.begin().await?;
    audit.target("view", &path.view_name);
    state
        .store
        .delete_view(&mut tx, &app.id, &path.view_name)
        .await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_views))
        .routes(routes!(save_view, delete_view))
}
