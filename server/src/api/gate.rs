//! The one way into the API. For every operation of the OpenAPI document, in this order: who is
//! calling (401), what is wrong with the request (400, 415, 422, all faults at once), does the
//! caller see the organization (404), may they do it (403), does the application exist (404). After
//! the handler: the audit entry, the first answer for an `Idempotency-Key`, metrics.
//!
//! A route says what it needs in its `#[utoipa::path]`:
//! - `x-segno-permission`: a name of the catalogue; or `any`: every member and key of the organization;
//!   `user`: every person with a token of the issuer, registered or not; `authenticated`: whoever holds
//!   a valid credential;
//! - `x-dbos-requires-oauth`, if it exists in mode `oidc` only (404 in the others), or, with
//!   `x-segno-with-keys`, in mode `keys` too;
//! - `x-segno-audit`: the operation's name in the audit log; every route but GET has one, or the
//!   word `read` for a search by POST.
//!
//! [`Operations::of`] refuses a document with a route that lacks them, and so the server to start.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::RequestPartsExt;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::audit::Audit;
use super::idempotency;
use super::problem::{ErrorDetail, Problem};
use super::validate::{Validator, parse_parameter};
use crate::auth::{AppScope, Identity, Permission};
use crate::config::AuthMode;
use crate::state::AppState;
use crate::store::apps::AppRow;

/// Largest request body, unless a route says otherwise (`x-segno-body-limit`).
const BODY_LIMIT: usize = 1 << 20;
/// How long the body may take to arrive; larger bodies get proportionally longer.
const BODY_TIME: Duration = Duration::from_secs(5);

/// The operations of the document, by method and route.
pub(super) struct Operations {
    by_route: HashMap<(Method, String), Operation>,
    components: Map<String, Value>,
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Members and keys that hold this.
    Holders(Permission),
    /// Every member and key of the organization.
    Members,
    /// Every person, also one who has not registered.
    People,
    /// Whoever holds a valid credential.
    Everybody,
}

#[derive(Debug)]
struct Operation {
    id: Arc<str>,
    access: Access,
    /// `None`: a read.
    audit: Option<&'static str>,
    /// Whether its answer is JSON; else whatever the caller accepts will do.
    answers_json: bool,
    /// The modes in which it does not exist.
    absent: &'static [AuthMode],
    parameters: Vec<Parameter>,
    body: Option<BodySchema>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    in_path: bool,
    required: bool,
    schema: Value,
}

#[derive(Debug)]
struct BodySchema {
    schema: Value,
    required: bool,
    limit: usize,
}

/// A request that passed. Handlers reach it through the extractors.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub identity: Identity,
    pub app: Option<AppRow>,
    pub audit: Option<Audit>,
    pub path: Value,
    pub query: Value,
    pub body: Value,
}

/// Name of the operation that answered; for metrics and the access log.
#[derive(Clone, Debug)]
pub(crate) struct OperationId(pub Arc<str>);

/// A route of ours that does not say what it needs.
#[derive(Debug, thiserror::Error)]
#[error("the route {method} {path} {fault}")]
pub struct Undeclared {
    method: String,
    path: String,
    fault: &'static str,
}

impl Operations {
    /// Reads the finished document; fails if a route lacks a declaration.
    pub(super) fn of(document: &Value) -> Result<Self, Undeclared> {
        let mut by_route = HashMap::new();
        let mut failed = None;
        super::openapi::each_operation(&mut document.clone(), |method, path, operation| {
            let method = method.to_uppercase();
            match Operation::read(&method, operation) {
                Ok(read) => {
                    let key = Method::from_bytes(method.as_bytes()).unwrap_or_default();
                    by_route.insert((key, path.to_owned()), read);
                }
                Err(fault) => {
                    failed = Some(Undeclared {
                        method,
                        path: path.to_owned(),
                        fault,
                    });
                }
            }
        });
        let components = document["components"]["schemas"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        failed.map_or(
            Ok(Self {
                by_route,
                components,
            }),
            Err,
        )
    }

    fn find(&self, method: &Method, route: &str) -> Option<&Operation> {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        self.by_route.get(&(method.clone(), route.to_owned()))
    }
}

impl Operation {
    fn read(method: &str, operation: &Value) -> Result<Self, &'static str> {
        let access = match operation["x-segno-permission"].as_str() {
            Some("any") => Access::Members,
            Some("user") => Access::People,
            Some("authenticated") => Access::Everybody,
            Some(name) => Access::Holders(
                Permission::parse(name).ok_or("declares an unknown x-segno-permission")?,
            ),
            None => return Err("declares no x-segno-permission"),
        };
        let absent: &[AuthMode] = match (
            operation["x-dbos-requires-oauth"] == true,
            operation["x-segno-with-keys"] == true,
        ) {
            (false, _) => &[],
            (true, true) => &[AuthMode::None],
            (true, false) => &[AuthMode::None, AuthMode::Keys],
        };
        let audit = match (method, operation["x-segno-audit"].as_str()) {
            ("GET", None) | (_, Some("read")) => None,
            // Leaked once per route at start: entries name their operation without a copy.
            (_, Some(name)) => Some(&*name.to_owned().leak()),
            (_, None) => return Err("declares no x-segno-audit"),
        };
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let responses = operation["responses"].as_object().into_iter().flatten();
        let mut answers = responses.filter(|(status, _)| *status != "default");
        let content = &operation["requestBody"]["content"]["application/json"];
        Ok(Self {
            id: operation["operationId"]
                .as_str()
                .ok_or("has no operationId")?
                .into(),
            access,
            audit,
            answers_json: answers.all(|(_, answer)| {
                answer["content"].is_null() || answer["content"]["application/json"].is_object()
            }),
            absent,
            parameters: parameters.map(Parameter::read).collect(),
            body: content.is_object().then(|| BodySchema {
                schema: content["schema"].clone(),
                required: operation["requestBody"]["required"] == true,
                limit: operation["x-segno-body-limit"]
                    .as_u64()
                    .map_or(BODY_LIMIT, |limit| limit as usize),
            }),
        })
    }
}

impl Parameter {
    fn read(parameter: &Value) -> Self {
        Self {
            name: parameter["name"].as_str().unwrap_or_default().to_owned(),
            in_path: parameter["in"] == "path",
            required: parameter["required"] == true,
            schema: parameter["schema"].clone(),
        }
    }
}

/// Middleware of every route in the document.
pub(super) async fn gate(
    State((state, operations)): State<(AppState, Arc<Operations>)>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let Some(operation) = operations.find(request.method(), route.as_str()) else {
        // The router itself answers 405. What comes here is a handler that the document does not know,
        // and so nobody has said who may call it.
        return Problem::internal(&"a route is not in the OpenAPI document").into_response();
    };
    let id = OperationId(operation.id.clone());
    let mut response = match admit(&state, &operations, operation, request).await {
        Ok((request, audit)) => answer(state, request, audit, next).await,
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(id);
    response
}

/// Runs the handler. A mutation runs to its end even if the client goes away, so that what was done
/// is also written down.
async fn answer(state: AppState, request: Request, audit: Option<Audit>, next: Next) -> Response {
    let Some(audit) = audit else {
        return next.run(request).await;
    };
    let task = tokio::spawn(async move {
        let store = state.store.clone();
        let response = idempotency::once(&state, request, next).await;
        if let Err(error) = audit.finish(&store, response.status().is_success()).await {
            tracing::error!(%error, "an audit entry could not be written");
        }
        response
    });
    task.await
        .unwrap_or_else(|error| Problem::internal(&error).into_response())
}

/// Everything that is checked before the handler.
async fn admit(
    state: &AppState,
    operations: &Operations,
    operation: &Operation,
    request: Request,
) -> Result<(Request, Option<Audit>), Problem> {
    if operation.absent.contains(&state.auth.mode()) {
        return Err(Problem::not_found(
            "this server knows no users (--auth oidc) and has no such operation",
        ));
    }
    let (mut parts, body) = request.into_parts();
    let source = source_ip(state, &parts);
    let identity = state
        .auth
        .identify(&state.store, &parts.headers, source)
        .await?;
    let mut validator = Validator {
        components: &operations.components,
        faults: Vec::new(),
    };
    let (path, query) = parameters(operation, &mut parts, &mut validator).await?;
    let audit = operation.audit.map(|name| {
        let audit = Audit::new(name, &identity, target(&operation.id, &path));
        if let Some(app) = path["appName"].as_str() {
            audit.detail("application_name", app);
        }
        audit
    });
    let checked = async {
        if operation.answers_json {
            acceptable(&parts.headers)?;
        }
        let (raw, body) = match &operation.body {
            Some(schema) => read_body(schema, &parts.headers, body, &mut validator).await?,
            None => (Bytes::new(), json!({})),
        };
        if !validator.faults.is_empty() {
            return Err(Problem::invalid(
                StatusCode::UNPROCESSABLE_ENTITY,
                validator.faults,
            ));
        }
        let app = permitted(state, operation, &identity, &path).await?;
        Ok((raw, body, app))
    };
    match checked.await {
        Ok((raw, body, app)) => {
            let request_id = idempotency::fingerprint(&parts, &identity, &raw)?;
            parts.extensions.insert(request_id);
            parts.extensions.insert(Admitted {
                identity,
                app,
                audit: audit.clone(),
                path,
                query,
                body,
            });
            Ok((Request::from_parts(parts, axum::body::Body::empty()), audit))
        }
        Err(problem) => {
            if let Some(audit) = audit
                && let Err(error) = audit.finish(&state.store, false).await
            {
                tracing::error!(%error, "an audit entry could not be written");
            }
            Err(problem)
        }
    }
}

/// Organization, permission, scope, application.
async fn permitted(
    state: &AppState,
    operation: &Operation,
    identity: &Identity,
    path: &Value,
) -> Result<Option<AppRow>, Problem> {
    match operation.access {
        Access::Everybody => return Ok(None),
        Access::People if identity.person.is_none() => {
            return Err(Problem::forbidden(
                "this is for people: log in and send your own token, not an API key",
            ));
        }
        Access::People => return Ok(None),
        Access::Members | Access::Holders(_) => {}
    }
    let Some(caller) = &identity.caller else {
        return Err(Problem::forbidden(
            "you have logged in but are not registered here: POST /v2/users with a name, and the join \
             secret if you were given one",
        ));
    };
    if let Some(org) = path["orgName"].as_str()
        && org != caller.org.name
    {
        return Err(Problem::not_found(format!(
            "there is no organization `{org}`"
        )));
    }
    if let Access::Holders(needed) = operation.access
        && !caller.permissions.contains(needed)
    {
        return Err(Problem::forbidden(format!(
            "this needs the permission {}",
            needed.name()
        )));
    }
    let Some(name) = path["appName"].as_str() else {
        return Ok(None);
    };
    let app = state.store.app_by_name(&caller.org.id, name).await?;
    let covered = app.as_ref().is_some_and(|app| caller.scope.covers(&app.id));
    if !covered && caller.scope != AppScope::All {
        return Err(Problem::forbidden(format!(
            "this API key does not cover the application `{name}`"
        )));
    }
    if app.is_none() && &*operation.id != super::apps::REGISTER {
        return Err(Problem::not_found(format!(
            "there is no application `{name}`; register it with PUT, or `dbosctl app register {name}`"
        )));
    }
    Ok(app)
}

/// Path and query parameters, checked.
async fn parameters(
    operation: &Operation,
    parts: &mut Parts,
    validator: &mut Validator<'_>,
) -> Result<(Value, Value), Problem> {
    let raw = parts
        .extract::<RawPathParams>()
        .await
        .map_err(|error| Problem::bad_request(format!("the path cannot be read: {error}")))?;
    let mut given: HashMap<String, Vec<String>> = HashMap::new();
    let query = parts.uri.query().unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        given
            .entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    let (mut path, mut query) = (Map::new(), Map::new());
    for parameter in &operation.parameters {
        let (place, texts) = if parameter.in_path {
            let text = raw
                .iter()
                .find(|(name, _)| *name == parameter.name)
                .map(|(_, value)| vec![value.to_owned()]);
            ("path", text)
        } else {
            ("query", given.remove(&parameter.name))
        };
        let location = format!("{place}.{}", parameter.name);
        let Some(texts) = texts else {
            if parameter.required {
                validator.fault(
                    &location,
                    format!("required {place} parameter is missing"),
                    &json!(""),
                );
            }
            continue;
        };
        match parse_parameter(&parameter.schema, &texts) {
            Ok(value) => {
                validator.check(&parameter.schema, &location, &value);
                let parameters = if parameter.in_path {
                    &mut path
                } else {
                    &mut query
                };
                parameters.insert(parameter.name.clone(), value);
            }
            Err(message) => {
                validator.fault(&location, message, &Value::from(texts.into_iter().next()))
            }
        }
    }
    Ok((Value::Object(path), Value::Object(query)))
}

/// The body as it came and as it reads, checked against its schema.
async fn read_body(
    expected: &BodySchema,
    headers: &HeaderMap,
    body: axum::body::Body,
    validator: &mut Validator<'_>,
) -> Result<(Bytes, Value), Problem> {
    let too_large = || {
        let limit = expected.limit;
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {limit} bytes"),
        )
    };
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > expected.limit) {
        return Err(too_large());
    }
    let time = BODY_TIME * u32::try_from(expected.limit.div_ceil(BODY_LIMIT * 4)).unwrap_or(1);
    let read = tokio::time::timeout(time, axum::body::to_bytes(body, expected.limit)).await;
    let raw = match read {
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", time.as_secs());
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        }
        Ok(Err(error)) if is_broken(&error) => {
            return Err(Problem::bad_request(
                "the body ended early, or its chunks are malformed",
            ));
        }
        Ok(Err(_)) => return Err(too_large()),
        Ok(Ok(raw)) => raw,
    };
    if raw.is_empty() {
        if expected.required {
            return Err(Problem::bad_request("request body is required"));
        }
        return Ok((raw, json!({})));
    }
    if !is_json(
        headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or("?")),
    ) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON: Content-Type: application/json",
        ));
    }
    let mut value: Value = serde_json::from_slice(&raw).map_err(|error| {
        let fault = ErrorDetail {
            location: Some("body".to_owned()),
            message: Some(error.to_string()),
            value: None,
        };
        Problem::invalid(StatusCode::BAD_REQUEST, vec![fault])
    })?;
    validator.check(&expected.schema, "body", &value);
    if let Some(members) = value.as_object_mut() {
        // Clients send back what they got.
        members.remove("$schema");
    }
    Ok((raw, value))
}

/// Whether a body could not be read because of what came, not because of how much.
fn is_broken(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<hyper::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// `application/json`, anything `+json`, or no type at all.
fn is_json(content_type: Option<&str>) -> bool {
    let Some(text) = content_type else {
        return true;
    };
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence.is_empty() || essence == "application/json" || essence.ends_with("+json")
}

/// 406 if the caller wants no JSON.
fn acceptable(headers: &HeaderMap) -> Result<(), Problem> {
    let mut accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .peekable();
    if accepted.peek().is_none() {
        return Ok(());
    }
    let json = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !refused
            && (matches!(essence.as_str(), "*/*" | "application/*" | "") || is_json(Some(&essence)))
    };
    if accepted.flat_map(|value| value.split(',')).any(json) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "this API answers with application/json only; Accept excludes it",
        ))
    }
}

/// The peer, or, behind trusted proxies, the right-most address that is not one of them.
pub(crate) fn source_ip(state: &AppState, parts: &Parts) -> IpAddr {
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(unspecified, |info| info.0.ip());
    let trusted = &state.config.trusted_proxies;
    if !trusted.contains(&peer) {
        return peer;
    }
    let forwarded = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let addresses = hops
        .iter()
        .rev()
        .map_while(|hop| hop.parse::<IpAddr>().ok());
    addresses
        .into_iter()
        .find(|address| !trusted.contains(address))
        .unwrap_or(peer)
}

/// What the audit entry is about: the most specific thing that the path names.
fn target(operation: &str, path: &Value) -> Option<(&'static str, String)> {
    if operation.starts_with("bulk") || operation == "importWorkflow" {
        return None;
    }
    const KINDS: [(&str, &str); 9] = [
        ("workflowId", "workflow"),
        ("scheduleName", "schedule"),
        ("ruleId", "alerting_rule"),
        ("tokenName", "token"),
        ("username", "user"),
        ("roleName", "role"),
        ("domain", "domain_claim"),
        ("appName", "application"),
        ("orgName", "organization"),
    ];
    KINDS
        .iter()
        .find_map(|(parameter, kind)| Some((*kind, path[*parameter].as_str()?.to_owned())))
}
