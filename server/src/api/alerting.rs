//! Alerting rules.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::Audit;
use super::channels::no_channel;
use super::extract::{App, Body, Created, Object, Path};
use super::path::AppPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::Caller;
use crate::policies::rules::Condition;
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::alerting::{AlertingRuleRow, NewAlertingRule};

/// What a rule watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RuleType {
    /// Workflows fail.
    WorkflowFailure,
    /// Workflows wait too long on a queue.
    SlowQueue,
    /// No executor answers.
    UnresponsiveApplication,
    /// Workflows of a lost executor cannot be recovered.
    StrandedRecovery,
}

impl RuleType {
    const ALL: [Self; 4] = [
        Self::WorkflowFailure,
        Self::SlowQueue,
        Self::UnresponsiveApplication,
        Self::StrandedRecovery,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::WorkflowFailure => "WorkflowFailure",
            Self::SlowQueue => "SlowQueue",
            Self::UnresponsiveApplication => "UnresponsiveApplication",
            Self::StrandedRecovery => "StrandedRecovery",
        }
    }
}

/// A rule: when the receiving application's alert handler is called.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertingRule {
    /// Id of the application it watches
    pub app_id: String,
    /// Names of the alert channels that are told too
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub channels: Vec<String>,
    /// Its id
    pub id: String,
    /// When it last fired
    #[schema(required = true)]
    pub last_fired_at: Option<Timestamp>,
    /// Seconds between two alerts, at least
    #[schema(required = true)]
    pub min_interval_secs: Option<i32>,
    /// Id of the application that is told
    pub receiving_app_id: String,
    /// Its condition
    pub rule_metadata: Value,
    /// What it watches
    pub rule_type: RuleType,
}

impl AlertingRule {
    fn of(row: AlertingRuleRow, channels: Vec<String>) -> Result<Self, StoreError> {
        let unreadable = |column| StoreError::Unreadable {
            table: "alerting_rules",
            column,
        };
        let mut types = RuleType::ALL.into_iter();
        Ok(Self {
            app_id: row.app_id,
            channels,
            id: row.id,
            last_fired_at: row.last_fired_at.max(row.told_at).map(Timestamp::from_ms),
            min_interval_secs: row
                .min_interval_secs
                .map(|secs| i32::try_from(secs).unwrap_or(i32::MAX)),
            receiving_app_id: row.receiving_app_id,
            rule_metadata: serde_json::from_str(&row.metadata)
                .map_err(|_| unreadable("metadata"))?,
            rule_type: types
                .find(|known| known.name() == row.rule_type)
                .ok_or(unreadable("rule_type"))?,
        })
    }
}

/// A new rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateAlertInputBody {
    /// Names of the alert channels to tell too; absent: none. They are told when the condition begins to
    /// hold and when it is over, and in between only at minIntervalSecs
    #[schema(schema_with = channel_names)]
    pub channels: Option<Vec<String>>,
    /// Seconds between two alerts, at least; absent: the rule's own period
    #[schema(minimum = 0)]
    pub min_interval_secs: Option<i32>,
    /// Application whose handler is called; absent: the one that is watched
    pub receiving_app_name: Option<String>,
    /// The condition. WorkflowFailure: workflow_name, threshold, period_secs. SlowQueue: queue_name,
    /// threshold_secs. StrandedRecovery: min_workflows. UnresponsiveApplication: nothing.
    pub rule_metadata: Value,
    /// What to watch
    pub rule_type: RuleType,
}

fn channel_names() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, Object, SchemaType, Type};
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(Object::with_type(Type::String))
        .unique_items(true)
        .max_items(Some(20))
        .description(Some(
            "Names of the alert channels to tell too; absent: none. They are told when the condition begins \
             to hold and when it is over, and in between only at minIntervalSecs",
        ))
        .build()
}

/// The channels that a rule tells.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetAlertingRuleChannelsInputBody {
    /// Their names; empty: none
    #[schema(max_items = 20)]
    pub channels: Vec<String>,
}

/// `…/alerting-rules/{ruleId}`, beside [`AppPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct RulePath {
    /// Id of the rule
    pub rule_id: String,
}

/// List an application's alerting rules
#[utoipa::path(get, path = "/v2/orgs/{orgName}/apps/{appName}/alerting-rules", operation_id = "listAlertingRules",
    tag = "Alerting", params(AppPath), responses((status = 200, description = "OK", body = [AlertingRule])),
    extensions(("x-segno-permission" = json!("application.read"))))]
async fn list_rules(
    State(state): State<AppState>,
    App(app): App,
) -> Result<Json<Vec<AlertingRule>>, Problem> {
    let rows = state.store.alerting_rules(&app.id).await?;
    let mut channels = state.store.rule_channels(&app.id).await?;
    let rules: Result<Vec<AlertingRule>, StoreError> = rows
        .into_iter()
        .map(|row| {
            let channels = channels.remove(&row.id).unwrap_or_default();
            AlertingRule::of(row, channels)
        })
        .collect();
    Ok(Json(rules?))
}

/// Create an alerting rule
#[utoipa::path(post, path = "/v2/orgs/{orgName}/apps/{appName}/alerting-rules", operation_id = "createAlertingRule",
    tag = "Alerting", params(AppPath), request_body = CreateAlertInputBody,
    responses((status = 201, description = "It holds", body = AlertingRule)),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("alerting_rule.create"))))]
async fn create_rule(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    audit: Audit,
    Body(body): Body<CreateAlertInputBody>,
) -> Result<Created<AlertingRule>, Problem> {
    let condition = Condition::parse(body.rule_type.name(), &body.rule_metadata)
        .map_err(Problem::bad_request)?;
    let receiver = match &body.receiving_app_name {
        None => app.clone(),
        Some(name) => {
            let found = state.store.app_by_name(&caller.org.id, name).await?;
            let found = found.filter(|found| caller.scope.covers(&found.id));
            found.ok_or_else(|| Problem::not_found(format!("there is no application `{name}`")))?
        }
    };
    let (channels, channel_ids) = named(&state, &caller, body.channels.unwrap_or_default()).await?;
    if condition == Condition::UnresponsiveApplication
        && receiver.id == app.id
        && channels.is_empty()
    {
        return Err(nobody_to_tell());
    }
    let rule = NewAlertingRule {
        app_id: &app.id,
        receiving_app_id: &receiver.id,
        rule_type: condition.rule_type(),
        metadata: condition.normalized().to_string(),
        min_interval_secs: body.min_interval_secs.map(i64::from),
    };
    let mut tx = state.store.begin().await?;
    let stored = state.store.insert_alerting_rule(&mut tx, rule).await?;
    state
        .store
        .set_rule_channels(&mut tx, &stored.id, &channel_ids)
        .await?;
    audit.target("alerting_rule", &stored.id);
    audit.detail("rule_type", condition.rule_type());
    if !channels.is_empty() {
        audit.detail("channels", channels.clone());
    }
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Created {
        object: AlertingRule::of(stored, channels)?,
        location: Vec::new(),
    })
}

fn nobody_to_tell() -> Problem {
    Problem::bad_request(
        "receivingAppName must name another application, or channels an alert channel: an application \
         that does not answer cannot be told",
    )
}

/// Names and ids of the channels of these names; 404 for one that there is not.
async fn named(
    state: &AppState,
    caller: &Caller,
    names: Vec<String>,
) -> Result<(Vec<String>, Vec<String>), Problem> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let mut ids = Vec::with_capacity(names.len());
    for name in &names {
        let row = state.store.channel(&caller.org.id, name).await?;
        ids.push(row.ok_or_else(|| no_channel(name))?.id);
    }
    Ok((names.into_iter().collect(), ids))
}

/// Set the alert channels that a rule tells beside the handler
#[utoipa::path(put, path = "/v2/orgs/{orgName}/apps/{appName}/alerting-rules/{ruleId}/channels",
    operation_id = "setAlertingRuleChannels", tag = "Alerting", params(AppPath, RulePath),
    request_body = SetAlertingRuleChannelsInputBody,
    responses((status = 200, description = "They are", body = AlertingRule)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("alerting_rule.set_channels"))))]
async fn set_channels(
    State(state): State<AppState>,
    caller: Caller,
    App(app): App,
    Path(path): Path<RulePath>,
    audit: Audit,
    Body(body): Body<SetAlertingRuleChannelsInputBody>,
) -> Result<Object<AlertingRule>, Problem> {
    let rules = state.store.alerting_rules(&app.id).await?;
    let rule = rules.into_iter().find(|rule| rule.id == path.rule_id);
    let rule =
        rule.ok_or_else(|| Problem::not_found(format!("there is no rule `{}`", path.rule_id)))?;
    let (channels, ids) = named(&state, &caller, body.channels).await?;
    let of_itself = rule.rule_type == RuleType::UnresponsiveApplication.name()
        && rule.receiving_app_id == app.id;
    if of_itself && channels.is_empty() {
        return Err(nobody_to_tell());
    }
    audit.detail("channels", channels.clone());
    let mut tx = state.store.begin().await?;
    state
        .store
        .set_rule_channels(&mut tx, &rule.id, &ids)
        .await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Object(AlertingRule::of(rule, channels)?))
}

/// Delete an alerting rule
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/apps/{appName}/alerting-rules/{ruleId}",
    operation_id = "deleteAlertingRule", tag = "Alerting", params(AppPath, RulePath),
    responses((status = 204, description = "Deleted")),
    extensions(("x-segno-permission" = json!("application.write")), ("x-segno-audit" = json!("alerting_rule.delete"))))]
async fn delete_rule(
    State(state): State<AppState>,
    App(app): App,
    Path(path): Path<RulePath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    let mut tx = state.store.begin().await?;
    state
        .store
        .delete_alerting_rule(&mut tx, &app.id, &path.rule_id)
        .await?;
    // Nobody watches any more: what it found is over, as far as channels are concerned.
    let told = state.store.end_alert(&mut tx, &path.rule_id).await?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    if told {
        state.channels.nudge();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(delete_rule))
        .routes(routes!(set_channels))
}
