//! Alerts: what rules found, whether it still holds, and who was told.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{App, Query};
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::state::AppState;
use crate::store::alerts::{AlertFilter, AlertRow, ToldRow};

/// Alerts listed unless the caller says otherwise.
const LISTED: i64 = 100;

/// Whether what a rule found still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It does.
    Firing,
    /// It does not.
    Resolved,
}

/// What a rule found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// What became of telling channels, in order
    pub deliveries: Vec<AlertDelivery>,
    /// What became of telling the receiving application's handler; null: it was not told
    #[schema(required = true)]
    pub handler: Option<AlertHandler>,
    /// Its id
    pub id: String,
    /// When the condition was last seen to hold
    pub last_seen_at: Timestamp,
    /// What was found, for people
    pub message: String,
    /// What was found, for programs
    pub metadata: BTreeMap<String, String>,
    /// When the condition was seen to hold no more
    #[schema(required = true)]
    pub resolved_at: Option<Timestamp>,
    /// The rule; it may be deleted
    pub rule_id: String,
    /// What the rule watched
    pub rule_type: String,
    /// When the condition was first seen to hold
    pub since: Timestamp,
    /// Whether it still holds
    pub state: AlertState,
}

/// What became of telling a handler.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertHandler {
    /// The receiving application
    pub app_name: String,
    /// When it was last told
    pub at: Timestamp,
    /// delivered, handler_failed, unanswered, or no_receiver: nobody was there
    pub outcome: String,
}

/// What became of telling a channel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertDelivery {
    /// Requests so far
    pub attempts: i64,
    /// The channel
    pub channel: String,
    /// When it was delivered, or given up
    #[schema(required = true)]
    pub ended_at: Option<Timestamp>,
    /// Why the last attempt did not do
    #[schema(required = true)]
    pub error: Option<String>,
    /// firing or resolved
    pub event: String,
    /// PENDING, DELIVERED or FAILED
    pub state: String,
}

impl From<ToldRow> for AlertDelivery {
    fn from(row: ToldRow) -> Self {
        Self {
            attempts: row.attempts,
            channel: row.channel,
            ended_at: row.ended_at.map(Timestamp::from_ms),
            error: row.error,
            event: row.event,
            state: row.state,
        }
    }
}

fn alert(row: AlertRow, told: Vec<ToldRow>) -> Alert {
    let state = match row.resolved_at {
        None => AlertState::Firing,
        Some(_) => AlertState::Resolved,
    };
    Alert {
        deliveries: told.into_iter().map(AlertDelivery::from).collect(),
        handler: row.handler.map(|(app_name, outcome, at)| AlertHandler {
            app_name,
            at: Timestamp::from_ms(at),
            outcome,
        }),
        id: row.id,
        last_seen_at: Timestamp::from_ms(row.seen_at),
        message: row.message,
        metadata: serde_json::from_str(&row.metadata).unwrap_or_default(),
        resolved_at: row.resolved_at.map(Timestamp::from_ms),
        rule_id: row.rule_id,
        rule_type: row.rule_type,
        since: Timestamp::from_ms(row.since),
        state,
    }
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AlertsQuery {
    /// firing or resolved; absent: both
    #[param(inline)]
    pub state: Option<AlertState>,
    /// Only of this rule
    pub rule_id: Option<String>,
    /// At most so many [default: 100]
    #[param(minimum = 0, maximum = 1000)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

/// List an application's alerts, newest first
///
/// One for each time that a rule's condition held, kept for 30 days after it is over.
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/alerts", operation_id = "listAlerts",
    tag = "Alerting", params(AppPath, AlertsQuery),
    responses((status = 200, description = "OK", body = [Alert])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_alerts(
    State(state): State<AppState>,
    App(app): App,
    Query(query): Query<AlertsQuery>,
) -> Result<Json<Vec<Alert>>, Problem> {
    let filter = AlertFilter {
        firing: query.state.map(|state| state == AlertState::Firing),
        rule_id: query.rule_id,
        limit: query.limit.unwrap_or(LISTED),
        offset: query.offset.unwrap_or(0),
    };
    let rows = state.store.alerts(&app.id, &filter).await?;
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut told = state.store.told(&ids).await?;
    let alerts = rows.into_iter().map(|row| {
        let told = told.remove(&row.id).unwrap_or_default();
        alert(row, told)
    });
    Ok(Json(alerts.collect()))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_alerts))
}
