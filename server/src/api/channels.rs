//! Channels of an organization: where alerts go beside applications' handlers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::audit::Audit;
use super::extract::{Body, Created, Object, Path, Query};
use super::path::OrgPath;
use super::problem::Problem;
use super::time::Timestamp;
use crate::auth::{AppScope, Caller};
use crate::policies::channels::{Answer, Kind, Settings, Severity, Tested, Verdict, Wanted, apply};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::channels::ChannelRow;
use crate::store::outbox::AttemptRow;

/// Attempts listed unless the caller says otherwise.
const LISTED: i64 = 50;

/// A channel, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertChannel {
    /// When it was made
    pub created_at: Timestamp,
    /// Names of the additional headers
    pub header_names: Vec<String>,
    /// What it talks to
    pub kind: Kind,
    /// Requests a minute, at most
    pub max_per_minute: i64,
    /// Its name
    pub name: String,
    /// Scheme, host and port of where requests go
    pub origin: String,
    /// Whether it is told that an alert is over
    pub send_resolved: bool,
    /// PagerDuty: instead of the rule type's own severity
    #[schema(required = true)]
    pub severity: Option<Severity>,
    /// JSON: what makes the body
    #[schema(required = true)]
    pub template: Option<String>,
    /// When it was last changed
    pub updated_at: Timestamp,
}

impl TryFrom<ChannelRow> for AlertChannel {
    type Error = StoreError;

    fn try_from(row: ChannelRow) -> Result<Self, StoreError> {
        let unreadable = |column| StoreError::Unreadable {
            table: "alert_channels",
            column,
        };
        let settings: Settings =
            serde_json::from_str(&row.settings).map_err(|_| unreadable("settings"))?;
        let mut kinds = Kind::ALL.into_iter();
        Ok(Self {
            created_at: Timestamp::from_ms(row.created_at),
            header_names: settings.headers,
            kind: kinds
                .find(|kind| kind.name() == row.kind)
                .ok_or(unreadable("kind"))?,
            max_per_minute: settings.per_minute,
            name: row.name,
            origin: settings.origin,
            send_resolved: settings.resolved,
            severity: settings.severity,
            template: settings.template,
            updated_at: Timestamp::from_ms(row.updated_at),
        })
    }
}

/// A new channel.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateAlertChannelInputBody {
    /// webhook, json: additional headers, for example Authorization. Never shown again
    pub headers: Option<BTreeMap<String, String>>,
    /// What it talks to
    pub kind: Kind,
    /// Requests a minute, at most [default: 30]
    #[schema(minimum = 1, maximum = 600)]
    pub max_per_minute: Option<i64>,
    /// Its name
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9-_]+$")]
    pub name: String,
    /// pagerduty: the integration key of the service. Never shown again
    pub routing_key: Option<String>,
    /// Whether to tell that an alert is over [default: true]
    pub send_resolved: Option<bool>,
    /// pagerduty: instead of the rule type's own severity
    pub severity: Option<Severity>,
    /// webhook: `whsec_` and 24 to 64 bytes in base64; two, separated by a space, while receivers change
    /// over. Never shown again
    pub signing_secret: Option<String>,
    /// json: a Jinja template that renders to JSON. It sees alert_id, state (firing, resolved, test),
    /// rule_id, rule_type, headline, message, metadata (an object with the facts of all rule types, null
    /// where they do not apply), organization, application, severity, since and timestamp; values are
    /// written as JSON: {"text": {{ message }}}
    #[schema(max_length = 16384)]
    pub template: Option<String>,
    /// Where requests go; for pagerduty only where it is not the usual place. Never shown again
    #[schema(max_length = 2048)]
    pub url: Option<String>,
}

/// What to change of a channel; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateAlertChannelInputBody {
    /// webhook, json: all additional headers
    pub headers: Option<BTreeMap<String, String>>,
    /// Requests a minute, at most
    #[schema(minimum = 1, maximum = 600)]
    pub max_per_minute: Option<i64>,
    /// pagerduty: the integration key of the service
    pub routing_key: Option<String>,
    /// Whether to tell that an alert is over
    pub send_resolved: Option<bool>,
    /// pagerduty: instead of the rule type's own severity
    pub severity: Option<Severity>,
    /// webhook: see the creation of a channel
    pub signing_secret: Option<String>,
    /// json: see the creation of a channel
    #[schema(max_length = 16384)]
    pub template: Option<String>,
    /// Where requests go
    #[schema(max_length = 2048)]
    pub url: Option<String>,
}

/// What the other side said to a test.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertChannelTest {
    /// The beginning of its answer
    #[schema(required = true)]
    pub answer: Option<String>,
    /// Whether it took the test
    pub delivered: bool,
    /// What went wrong
    #[schema(required = true)]
    pub error: Option<String>,
    /// How long it took
    pub latency_ms: i64,
    /// The HTTP status of its answer
    #[schema(required = true)]
    pub status: Option<i32>,
}

impl From<Answer> for AlertChannelTest {
    fn from(answer: Answer) -> Self {
        Self {
            answer: answer.body,
            delivered: answer.verdict == Verdict::Delivered,
            error: answer.error,
            latency_ms: crate::cluster::millis(answer.latency),
            status: answer.status.map(i32::from),
        }
    }
}

/// One request to a channel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertDeliveryAttempt {
    /// The alert; null for a test
    #[schema(required = true)]
    pub alert_id: Option<String>,
    /// When
    pub at: Timestamp,
    /// Whether the other side took it
    pub delivered: bool,
    /// The same for all attempts to deliver one message; a webhook's `webhook-id`
    pub delivery_id: String,
    /// What went wrong
    #[schema(required = true)]
    pub error: Option<String>,
    /// firing, resolved or test
    pub event: String,
    /// Its id
    pub id: String,
    /// How long it took
    pub latency_ms: i64,
    /// The HTTP status of the answer
    #[schema(required = true)]
    pub status: Option<i32>,
}

impl From<AttemptRow> for AlertDeliveryAttempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            alert_id: row.alert_id,
            at: Timestamp::from_ms(row.at),
            delivered: row.delivered,
            delivery_id: row.delivery_id,
            error: row.error,
            event: row.event,
            id: row.id,
            latency_ms: row.latency_ms,
            status: row.status.and_then(|status| i32::try_from(status).ok()),
        }
    }
}

/// `…/alert-channels/{channelName}`, beside [`OrgPath`]
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub struct ChannelPath {
    /// Name of the channel
    pub channel_name: String,
}

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AttemptsQuery {
    /// At most so many [default: 50]
    #[param(minimum = 0, maximum = 500)]
    pub limit: Option<i64>,
    /// Leave out so many first
    #[param(minimum = 0)]
    pub offset: Option<i64>,
}

/// A channel is the whole organization's.
fn for_all(caller: &Caller) -> Result<(), Problem> {
    match caller.scope {
        AppScope::All => Ok(()),
        AppScope::Only(_) => Err(Problem::forbidden(
            "alert channels belong to the organization; this API key covers some applications only",
        )),
    }
}

/// 404 for a name that no channel has.
pub(super) fn no_channel(name: &str) -> Problem {
    Problem::not_found(format!("there is no alert channel `{name}`"))
}

async fn found(state: &AppState, caller: &Caller, name: &str) -> Result<ChannelRow, Problem> {
    let row = state.store.channel(&caller.org.id, name).await?;
    row.ok_or_else(|| no_channel(name))
}

/// The audit entry is about the organization: clients know no channels as targets.
fn audited(audit: &Audit, caller: &Caller, name: &str) {
    audit.target("organization", &caller.org.name);
    audit.detail("channel_name", name);
}

/// List the organization's alert channels
#[utoipa::path(get, path = "/v2/orgs/{orgName}/alert-channels", operation_id = "listAlertChannels",
    tag = "Alerting", params(OrgPath), responses((status = 200, description = "OK", body = [AlertChannel])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_channels(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<AlertChannel>>, Problem> {
    let rows = state.store.channels(&caller.org.id).await?;
    let channels: Result<Vec<AlertChannel>, StoreError> =
        rows.into_iter().map(AlertChannel::try_from).collect();
    Ok(Json(channels?))
}

/// Create an alert channel
///
/// Rules then name it. A webhook is signed as Standard Webhooks says: `webhook-id`, `webhook-timestamp`
/// and `webhook-signature`, HMAC-SHA256 over `{id}.{timestamp}.{body}`. Slack gets a message, PagerDuty
/// an event that is resolved when the condition is over, `json` what the template makes. Failures are
/// tried again for six hours. URL, signing secret, routing key and headers are never shown again.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/alert-channels", operation_id = "createAlertChannel",
    tag = "Alerting", params(OrgPath), request_body = CreateAlertChannelInputBody,
    responses((status = 201, description = "Created", body = AlertChannel,
        headers(("Location" = String, description = "Path of the channel")))),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("alert_channel.create"))))]
async fn create_channel(
    State(state): State<AppState>,
    caller: Caller,
    audit: Audit,
    Body(body): Body<CreateAlertChannelInputBody>,
) -> Result<Created<AlertChannel>, Problem> {
    audited(&audit, &caller, &body.name);
    for_all(&caller)?;
    let wanted = Wanted {
        url: body.url,
        signing_secret: body.signing_secret,
        routing_key: body.routing_key,
        headers: body.headers,
        template: body.template,
        severity: body.severity,
        resolved: body.send_resolved,
        per_minute: body.max_per_minute,
    };
    let (settings, secrets) =
        apply(body.kind, None, wanted, state.channels.guard()).map_err(Problem::bad_request)?;
    let id = Uuid::new_v4().to_string();
    let row = ChannelRow {
        secrets: sealed(&state, &id, &secrets)?,
        id,
        org_id: caller.org.id.clone(),
        name: body.name,
        kind: body.kind.name().to_owned(),
        settings: text(&settings)?,
        created_at: 0,
        updated_at: 0,
    };
    let mut tx = state.store.begin().await?;
    let stored = state.store.insert_channel(&mut tx, &row).await;
    let stored = stored.map_err(|error| match error {
        StoreError::Taken => {
            Problem::conflict(format!("there is an alert channel `{}` already", row.name))
        }
        other => other.into(),
    })?;
    audit.detail("kind", body.kind.name());
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    let location = ["v2", "orgs", &caller.org.name, "alert-channels", &row.name];
    Ok(Created {
        object: stored.try_into()?,
        location: location.map(str::to_owned).to_vec(),
    })
}

fn sealed(
    state: &AppState,
    id: &str,
    secrets: &crate::policies::channels::Secrets,
) -> Result<String, Problem> {
    let sealed = state.channels.seal(id, secrets);
    sealed.map_err(|error| Problem::internal(&error))
}

fn text(settings: &Settings) -> Result<String, Problem> {
    serde_json::to_string(settings).map_err(|error| Problem::internal(&error))
}

/// Get an alert channel
#[utoipa::path(get, path = "/v2/orgs/{orgName}/alert-channels/{channelName}", operation_id = "getAlertChannel",
    tag = "Alerting", params(OrgPath, ChannelPath),
    responses((status = 200, description = "OK", body = AlertChannel)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn get_channel(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<ChannelPath>,
) -> Result<Object<AlertChannel>, Problem> {
    let row = found(&state, &caller, &path.channel_name).await?;
    Ok(Object(row.try_into()?))
}

/// Change an alert channel
#[utoipa::path(patch, path = "/v2/orgs/{orgName}/alert-channels/{channelName}", operation_id = "updateAlertChannel",
    tag = "Alerting", params(OrgPath, ChannelPath), request_body = UpdateAlertChannelInputBody,
    responses((status = 200, description = "Changed", body = AlertChannel)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("alert_channel.update"))))]
async fn update_channel(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<ChannelPath>,
    audit: Audit,
    Body(body): Body<UpdateAlertChannelInputBody>,
) -> Result<Object<AlertChannel>, Problem> {
    audited(&audit, &caller, &path.channel_name);
    for_all(&caller)?;
    let row = found(&state, &caller, &path.channel_name).await?;
    let shown = AlertChannel::try_from(row.clone())?;
    // Secrets that cannot be read any more are those that this sets again, or the fault names them.
    let before = state.channels.open(&row).ok();
    let wanted = Wanted {
        url: body.url,
        signing_secret: body.signing_secret,
        routing_key: body.routing_key,
        headers: body.headers,
        template: body.template.or(shown.template),
        severity: body.severity.or(shown.severity),
        resolved: body.send_resolved.or(Some(shown.send_resolved)),
        per_minute: body.max_per_minute.or(Some(shown.max_per_minute)),
    };
    let before = before.map(|channel| (channel.settings, channel.secrets));
    let (settings, secrets) =
        apply(shown.kind, before, wanted, state.channels.guard()).map_err(Problem::bad_request)?;
    let mut tx = state.store.begin().await?;
    let (settings, secrets) = (text(&settings)?, sealed(&state, &row.id, &secrets)?);
    let stored = state
        .store
        .update_channel(&mut tx, &row, &settings, &secrets)
        .await;
    let stored = stored.map_err(|error| match error {
        StoreError::NotFound => Problem::conflict(
            "somebody else changed or deleted the channel; look at it and try again",
        ),
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(Object(stored.try_into()?))
}

/// Delete an alert channel
///
/// Rules lose it, and it is told nothing more, not even that an alert is over.
#[utoipa::path(delete, path = "/v2/orgs/{orgName}/alert-channels/{channelName}", operation_id = "deleteAlertChannel",
    tag = "Alerting", params(OrgPath, ChannelPath), responses((status = 204, description = "Deleted")),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("alert_channel.delete"))))]
async fn delete_channel(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<ChannelPath>,
    audit: Audit,
) -> Result<StatusCode, Problem> {
    audited(&audit, &caller, &path.channel_name);
    for_all(&caller)?;
    let mut tx = state.store.begin().await?;
    let deleted = state
        .store
        .delete_channel(&mut tx, &caller.org.id, &path.channel_name)
        .await;
    deleted.map_err(|error| match error {
        StoreError::NotFound => no_channel(&path.channel_name),
        other => other.into(),
    })?;
    audit.record(&state.store, &mut tx).await?;
    state.store.commit(tx).await?;
    audit.committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Send a test to an alert channel, and show what the other side answers
///
/// 200 also when it was not delivered: `delivered` and `error` tell. A test of PagerDuty opens an
/// incident of severity info and resolves it at once.
#[utoipa::path(post, path = "/v2/orgs/{orgName}/alert-channels/{channelName}/test", operation_id = "testAlertChannel",
    tag = "Alerting", params(OrgPath, ChannelPath),
    responses((status = 200, description = "What came of it", body = AlertChannelTest)),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.write")),
        ("x-segno-audit" = json!("alert_channel.test"))))]
async fn test_channel(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<ChannelPath>,
    audit: Audit,
) -> Result<Object<AlertChannelTest>, Problem> {
    audited(&audit, &caller, &path.channel_name);
    for_all(&caller)?;
    let row = found(&state, &caller, &path.channel_name).await?;
    let channel = state
        .channels
        .open(&row)
        .map_err(|error| Problem::conflict(error.to_string()))?;
    match state.channels.test(&channel, &caller.org.name).await? {
        Tested::Answer(answer) => Ok(Object(answer.into())),
        Tested::Crowded => Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "the channel got as many messages as it may within a minute (maxPerMinute); try again later",
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from(10))),
    }
}

/// List the last requests to an alert channel, newest first
#[utoipa::path(get, path = "/v2/orgs/{orgName}/alert-channels/{channelName}/deliveries",
    operation_id = "listAlertDeliveries", tag = "Alerting", params(OrgPath, ChannelPath, AttemptsQuery),
    responses((status = 200, description = "OK", body = [AlertDeliveryAttempt])),
    extensions(("x-segno-extension" = json!(true)), ("x-segno-permission" = json!("application.read"))))]
async fn list_deliveries(
    State(state): State<AppState>,
    caller: Caller,
    Path(path): Path<ChannelPath>,
    Query(query): Query<AttemptsQuery>,
) -> Result<Json<Vec<AlertDeliveryAttempt>>, Problem> {
    for_all(&caller)?;
    let row = found(&state, &caller, &path.channel_name).await?;
    let (limit, offset) = (query.limit.unwrap_or(LISTED), query.offset.unwrap_or(0));
    let rows = state.store.attempts(&row.id, limit, offset).await?;
    Ok(Json(
        rows.into_iter().map(AlertDeliveryAttempt::from).collect(),
    ))
}

/// The operations of this page.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_channels, create_channel))
        .routes(routes!(get_channel, update_channel, delete_channel))
        .routes(routes!(test_channel))
        .routes(routes!(list_deliveries))
}
