//! The OpenAPI document, made from the code that serves: utoipa collects the operations while the
//! router is built, and [`finish`] adds what holds for all of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::problem::Problem;

/// Edition of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecVersion {
    /// OpenAPI 3.1.
    V31,
    /// OpenAPI 3.0, for generators that do not know 3.1.
    V30,
}

/// The finished document of this server.
pub fn document(version: SpecVersion) -> Value {
    let (_, api) = super::operations().split_for_parts();
    let document = published(finish(serde_json::to_value(api).unwrap_or_default()));
    match version {
        SpecVersion::V31 => document,
        SpecVersion::V30 => downgrade(document),
    }
}

/// Adds to the collected operations: titles, security, the error answer, and the rules that hold for
/// every schema.
pub(super) fn finish(mut document: Value) -> Value {
    document["openapi"] = json!("3.1.0");
    document["info"] = json!({
        "title": "Conductor API",
        "version": "2.0.0",
        "description": "Segno's control plane. Operations marked x-segno-extension are its own.",
        "license": {"name": "MIT", "identifier": "MIT"},
    });
    document["servers"] = json!([{"url": "/"}]);
    document["security"] = json!([{"ApiKeyAuth": []}, {"BearerAuth": []}]);
    document["components"]["securitySchemes"] = json!({
        "ApiKeyAuth": {"type": "http", "scheme": "bearer"},
        "BearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    });
    let mut schemas = match document["components"]["schemas"].take() {
        Value::Object(schemas) => schemas,
        _ => Map::new(),
    };
    let scalars = take_scalars(&mut schemas);
    let error =
        serde_json::to_value(<super::problem::ErrorModel as utoipa::PartialSchema>::schema());
    schemas.insert("ErrorModel".to_owned(), error.unwrap_or_default());
    let detail =
        serde_json::to_value(<super::problem::ErrorDetail as utoipa::PartialSchema>::schema());
    schemas.insert("ErrorDetail".to_owned(), detail.unwrap_or_default());
    for schema in schemas.values_mut() {
        normalize(schema, &scalars);
    }
    each_operation(&mut document, |_, _, operation| {
        normalize(operation, &scalars);
        operation["responses"]["default"] = json!({
            "description": "Error",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ErrorModel"}}},
        });
    });
    for uri in ["type", "instance"] {
        schemas["ErrorModel"]["properties"][uri]["format"] = json!("uri");
    }
    for name in described(&mut document) {
        if let Some(schema) = schemas.get_mut(&name) {
            schema["properties"]["$schema"] = json!({"type": "string", "format": "uri", "readOnly": true,
                "description": "Where this object's JSON Schema is"});
        }
    }
    document["components"]["schemas"] = Value::Object(schemas);
    document
}

/// Leaves out what is served for old clients only (`x-segno-unlisted`).
pub(super) fn published(mut document: Value) -> Value {
    if let Some(paths) = document["paths"].as_object_mut() {
        for item in paths.values_mut().filter_map(Value::as_object_mut) {
            item.retain(|_, operation| operation["x-segno-unlisted"] != true);
        }
        paths.retain(|_, item| item.as_object().is_none_or(|item| !item.is_empty()));
    }
    // And the schemas that only they use.
    let schemas = document["components"]["schemas"].take();
    let mut used = Map::new();
    collect(&document["paths"], &schemas, &mut used);
    if let Value::Object(mut schemas) = schemas {
        schemas.retain(|name, _| used.contains_key(name));
        document["components"]["schemas"] = Value::Object(schemas);
    }
    document
}

/// Calls `visit` for every operation with its method and path.
pub(super) fn each_operation(document: &mut Value, mut visit: impl FnMut(&str, &str, &mut Value)) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    for (path, item) in paths {
        let Some(item) = item.as_object_mut() else {
            continue;
        };
        for (method, operation) in item
            .iter_mut()
            .filter(|(_, value)| value["responses"].is_object())
        {
            visit(method, path, operation);
        }
    }
}

/// Removes the components that are not objects; references to them are replaced by their content.
fn take_scalars(schemas: &mut Map<String, Value>) -> Map<String, Value> {
    let names: Vec<String> = schemas
        .iter()
        .filter(|(_, schema)| schema["type"] != "object")
        .map(|(name, _)| name.clone())
        .collect();
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), schemas.remove(&name)?)))
        .collect()
}

/// Makes a schema, or everything inside an operation, follow the rules of the document: scalars
/// inline, "or null" as a type, no unknown members, optional members absent rather than null.
fn normalize(value: &mut Value, scalars: &Map<String, Value>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| normalize(item, scalars)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| normalize(member, scalars)),
        _ => return,
    }
    if value["default"].is_null()
        && let Some(members) = value.as_object_mut()
    {
        // An absent member is absent; null is not its value.
        members.remove("default");
    }
    if let Some(name) = value["$ref"]
        .as_str()
        .and_then(|name| name.rsplit('/').next())
        && let Some(scalar) = scalars.get(name)
    {
        *value = scalar.clone();
    }
    if let Some(choices) = value["oneOf"].as_array() {
        *value = or_null(choices, value["description"].as_str());
    }
    if value["type"] == "object" && value["properties"].is_object() {
        value["additionalProperties"] = json!(false);
        let required = value["required"].clone();
        let is_required = |name: &str| {
            required
                .as_array()
                .is_some_and(|names| names.iter().any(|n| n == name))
        };
        for (name, property) in value["properties"].as_object_mut().into_iter().flatten() {
            if !is_required(name) {
                without_null(property);
            }
        }
    }
    if value["in"].is_string() && value["required"] == false {
        without_null(&mut value["schema"]);
    }
}

/// `oneOf [null, X]` as `X` with a second type, or, where X is a reference, as it is.
fn or_null(choices: &[Value], description: Option<&str>) -> Value {
    let mut schema = choices
        .iter()
        .find(|choice| choice["type"] != "null")
        .cloned()
        .unwrap_or_default();
    if let Some(kind) = schema["type"].as_str() {
        schema["type"] = json!([kind, "null"]);
    }
    if let Some(description) = description {
        schema["description"] = json!(description);
    }
    schema
}

/// Arrays stay nullable: clients in Go send null for an empty one.
fn without_null(schema: &mut Value) {
    let Some(types) = schema["type"].as_array() else {
        return;
    };
    if let Some(kind) = types
        .iter()
        .find(|kind| **kind != "null" && **kind != "array")
    {
        schema["type"] = kind.clone();
    }
}

/// Names of the components that are a whole request or answer body: they carry `$schema`.
fn described(document: &mut Value) -> Vec<String> {
    let mut names = vec!["ErrorModel".to_owned()];
    each_operation(document, |_, _, operation| {
        let request =
            operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
        names.extend(request.and_then(last_segment));
        let responses = operation["responses"].as_object();
        for response in responses.into_iter().flat_map(Map::values) {
            let name = response["content"]["application/json"]["schema"]["$ref"].as_str();
            names.extend(name.and_then(last_segment));
        }
    });
    names
}

fn last_segment(reference: &str) -> Option<String> {
    reference.rsplit('/').next().map(str::to_owned)
}

/// The same document in OpenAPI 3.0: "or null" becomes `nullable`.
fn downgrade(mut document: Value) -> Value {
    fn visit(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(visit),
            Value::Object(members) => {
                members.values_mut().for_each(visit);
                let types = members.get("type").and_then(Value::as_array).cloned();
                if let Some(types) = types {
                    let kind = types
                        .iter()
                        .find(|kind| **kind != "null")
                        .cloned()
                        .unwrap_or_default();
                    members.insert("type".to_owned(), kind);
                    members.insert("nullable".to_owned(), json!(true));
                }
                members.remove("propertyNames");
            }
            _ => {}
        }
    }
    visit(&mut document);
    document["openapi"] = json!("3.0.3");
    document["info"]["license"] = json!({"name": "MIT"});
    document
}

/// The document in YAML.
pub fn yaml(document: &Value) -> Result<String, yaml_serde::Error> {
    yaml_serde::to_string(document)
}

/// The open routes that show the document.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(document: Arc<Value>) -> Router<S> {
    let modern = document.clone();
    let old = Arc::new(downgrade((*document).clone()));
    let serve_json = |document: Arc<Value>| {
        get(move || async move { typed("application/openapi+json", document.to_string()) })
    };
    let serve_yaml = |document: Arc<Value>| {
        get(move || async move {
            match yaml(&document) {
                Ok(text) => typed("application/openapi+yaml", text),
                Err(error) => Problem::internal(&error).into_response(),
            }
        })
    };
    Router::new()
        .route("/openapi.json", serve_json(modern.clone()))
        .route("/v2/openapi.json", serve_json(modern.clone()))
        .route("/openapi.yaml", serve_yaml(modern.clone()))
        .route("/openapi-3.0.json", serve_json(old.clone()))
        .route("/v2/openapi-3.0.json", serve_json(old.clone()))
        .route("/openapi-3.0.yaml", serve_yaml(old))
        .route(
            "/docs",
            get(|State(document): State<Arc<Value>>| async move { Html(page(&document)) }),
        )
        .route("/schemas/{file}", get(schema))
        .with_state(modern)
}

fn typed(content_type: &'static str, body: String) -> Response {
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))],
        body,
    )
        .into_response()
}

/// JSON Schema of one component, its references included.
async fn schema(State(document): State<Arc<Value>>, Path(file): Path<String>) -> Response {
    let name = file.strip_suffix(".json").unwrap_or_default();
    let schemas = &document["components"]["schemas"];
    let Some(schema) = schemas.get(name) else {
        return Problem::not_found(format!("there is no schema `{name}`")).into_response();
    };
    let mut schema = schema.clone();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    let mut needed = Map::new();
    collect(&schema, schemas, &mut needed);
    let text = if needed.is_empty() {
        schema.to_string()
    } else {
        schema["$defs"] = Value::Object(needed);
        schema
            .to_string()
            .replace("#/components/schemas/", "#/$defs/")
    };
    (StatusCode::OK, typed("application/schema+json", text)).into_response()
}

fn collect(schema: &Value, schemas: &Value, needed: &mut Map<String, Value>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect(item, schemas, needed)),
        Value::Object(members) => {
            if let Some(name) = members
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(last_segment)
                && !needed.contains_key(&name)
                && let Some(target) = schemas.get(&name)
            {
                needed.insert(name, target.clone());
                collect(target, schemas, needed);
            }
            members
                .values()
                .for_each(|member| collect(member, schemas, needed));
        }
        _ => {}
    }
}

/// A page that lists the operations; no script, so it needs nothing from anywhere.
fn page(document: &Value) -> String {
    let mut rows = String::new();
    let mut document = document.clone();
    each_operation(&mut document, |method, path, operation| {
        let text = |name: &str| escape(operation[name].as_str().unwrap_or_default());
        rows += &format!(
            "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>\n",
            escape(&method.to_uppercase()),
            escape(path),
            text("operationId"),
            text("summary"),
            text("x-segno-permission"),
        );
    });
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Segno API</title>\
         <style>body{{font:15px/1.5 system-ui;margin:2rem}}td,th{{padding:.2rem .8rem;text-align:left;\
         vertical-align:top}}tr:nth-child(even){{background:#8881}}</style>\
         <h1>Segno API</h1><p>The document: <a href=\"openapi.json\">OpenAPI 3.1</a> \
         (<a href=\"openapi.yaml\">YAML</a>), <a href=\"openapi-3.0.json\">3.0</a> \
         (<a href=\"openapi-3.0.yaml\">YAML</a>).</p>\
         <table><tr><th>Method<th>Path<th>Operation<th><th>Permission</tr>\n{rows}</table></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
