//! Reading the audit log.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Query;
use super::path::OrgPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::state::AppState;
use crate::store::audit::{AuditFilter, AuditRow};

/// One entry.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditLogEntry {
    /// Particulars
    #[schema(required = true)]
    pub details: Option<Map<String, Value>>,
    /// When
    pub emit_time: Timestamp,
    /// Stable id
    pub id: String,
    /// What was done
    pub operation: String,
    /// Address of the caller
    pub source_ip: String,
    /// Whether it worked
    #[schema(schema_with = outcome)]
    pub status: String,
    /// By whom
    pub subject: AuditSubject,
    /// To what
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<AuditTarget>,
}

/// Who did it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditSubject {
    /// E-mail of the user or name of the key, at the time
    pub display: String,
    /// Id of the user or key
    pub id: String,
    /// What sort
    #[serde(rename = "type")]
    #[schema(schema_with = subject_kind)]
    pub kind: String,
}

/// What it was done to.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditTarget {
    /// Its name, or its id where it has none
    pub id: String,
    /// What sort
    #[serde(rename = "type")]
    #[schema(schema_with = target_kind)]
    pub kind: String,
}

fn one_of(words: &[&str]) -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.to_vec()))
        .build()
}

fn outcome() -> utoipa::openapi::schema::Object {
    one_of(&["success", "failure"])
}

fn subject_kind() -> utoipa::openapi::schema::Object {
    one_of(&["user", "api_key"])
}

fn target_kind() -> utoipa::openapi::schema::Object {
    one_of(&[
        "application",
        "token",
        "role",
        "user",
        "organization",
        "workflow",
        "schedule",
        "alerting_rule",
        "domain_claim",
    ])
}

impl From<AuditRow> for AuditLogEntry {
    fn from(row: AuditRow) -> Self {
        Self {
            details: row.details,
            emit_time: Timestamp::from_ms(row.emit_time),
            id: row.id,
            operation: row.operation,
            source_ip: row.source_ip,
            status: row.status,
            subject: AuditSubject {
                display: row.subject_display,
                id: row.subject_id,
                kind: row.subject_type,
            },
            target: row.target.map(|(kind, id)| AuditTarget { id, kind }),
        }
    }
}

/// Filters of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Then or later
    #[param(value_type = Option<String>, format = DateTime)]
    pub start_time: Option<Timestamp>,
    /// Earlier than
    #[param(value_type = Option<String>, format = DateTime)]
    pub end_time: Option<Timestamp>,
    /// Exactly this operation
    pub operation: Option<String>,
    /// Id or display of who did it
    pub subject: Option<String>,
    /// Id of what it was done to
    pub target: Option<String>,
    /// At most so many; absent: 100
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

/// List the audit log, newest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/audit-logs", operation_id = "listAuditLogs", tag = "Audit",
    params(OrgPath, AuditQuery), responses((status = 200, description = "OK", body = [AuditLogEntry])),
    extensions(("x-segno-permission" = json!("organization.read")), ("x-dbos-requires-oauth" = json!(true)),
        ("x-segno-with-keys" = json!(true))))]
async fn list_audit_logs(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Vec<AuditLogEntry>>, Problem> {
    let filter = AuditFilter {
        // Both bounds are whole milliseconds in the store: a finer bound is rounded up.
        start: query.start_time.map(|time| time.lower_bound().0),
        end: query.end_time.map(|time| time.lower_bound().0),
        operation: query.operation,
        subject: query.subject,
        target: query.target,
        limit: query.limit.unwrap_or(100),
        offset: query.offset.unwrap_or(0),
    };
    let rows = state.store.audit_entries(&caller.org.id, &filter).await?;
    Ok(Json(rows.into_iter().map(AuditLogEntry::from).collect()))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_audit_logs))
}
