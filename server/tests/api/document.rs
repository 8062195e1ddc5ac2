//! The OpenAPI document: against the operations that clients were generated from, and against its
//! own last checked-in edition.

use std::collections::BTreeSet;
use std::path::Path;

use segno_server::api::openapi::{SpecVersion, document};
use serde_json::{Value, json};

/// Members that are ours, on schemas of clients' document.
const OWN_MEMBERS: &[(&str, &str)] = &[
    ("AlertingRule", "channels"),
    ("CreateAlertInputBody", "channels"),
    ("Application", "recoveryPolicy"),
    ("Application", "warnings"),
    ("PatchAppInputBody", "recoveryPolicy"),
    ("Executor", "unresponsiveSince"),
];

/// Values that are ours, of members of clients' document.
const OWN_VALUES: &[&str] = &["StrandedRecovery"];

fn ours() -> Vec<(String, String, Value)> {
    let document = document(SpecVersion::V31);
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    all
}

/// The reference lies beside a checkout of the sources, not in it.
fn reference() -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/spec/operations.json");
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn operations_are_those_that_clients_know() {
    let Some(reference) = reference() else {
        println!("../shared/spec/operations.json is not there: nothing to compare with");
        return;
    };
    let ours = ours();
    for expected in reference["operations"].as_array().unwrap() {
        let id = expected["operationId"].as_str().unwrap();
        let (method, path, operation) = ours
            .iter()
            .find(|(_, _, ours)| ours["operationId"] == id)
            .unwrap_or_else(|| panic!("{id} is not served"));
        assert_eq!(
            (method.as_str(), path.as_str()),
            (
                expected["method"].as_str().unwrap(),
                expected["path"].as_str().unwrap()
            )
        );
        assert_eq!(operation["tags"][0], expected["tag"], "{id}");
        assert_eq!(
            operation["x-dbos-requires-oauth"] == true,
            expected["requiresOauth"] == true,
            "{id}"
        );
        assert_eq!(
            permission(operation),
            expected["documented"]["permission"],
            "{id}"
        );
        if let Some(audit) = expected["documented"]["auditOperation"].as_str() {
            assert_eq!(operation["x-segno-audit"], audit, "{id}");
        }
        body(id, operation, expected);
        parameters(id, operation, expected);
        response(id, operation, expected);
    }
}

fn permission(operation: &Value) -> Value {
    match operation["x-segno-permission"].as_str() {
        Some("any" | "user" | "authenticated") | None => Value::Null,
        Some(name) => json!(name),
    }
}

fn body(id: &str, operation: &Value, expected: &Value) {
    let ours = operation
        .pointer("/requestBody/content/application~1json/schema/$ref")
        .and_then(Value::as_str);
    let name = ours.and_then(|name| name.rsplit('/').next());
    assert_eq!(name, expected["bodySchema"].as_str(), "body of {id}");
    let required = operation["requestBody"]["required"] == true;
    assert_eq!(
        required,
        expected["bodyRequired"] == true,
        "whether the body of {id} is required"
    );
}

fn parameters(id: &str, operation: &Value, expected: &Value) {
    let ours: Vec<&Value> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let of = |place: &str| -> BTreeSet<String> {
        let here = ours.iter().filter(|parameter| parameter["in"] == place);
        here.map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let names = |value: &Value, key: Option<&str>| -> BTreeSet<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .map(|item| {
                key.map_or(item, |key| &item[key])
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(
        of("path"),
        names(&expected["pathParams"], None),
        "path of {id}"
    );
    assert_eq!(
        of("query"),
        names(&expected["queryParams"], Some("name")),
        "query of {id}"
    );
    for query in expected["queryParams"].as_array().unwrap() {
        let own = ours
            .iter()
            .find(|own| own["name"] == query["name"])
            .unwrap();
        let place = format!("{id} {}", query["name"]);
        assert_eq!(own["schema"]["type"], query["type"], "{place}");
        assert_eq!(own["schema"].get("format"), query.get("format"), "{place}");
        assert_eq!(own["required"], query["required"], "{place}");
    }
}

fn response(id: &str, operation: &Value, expected: &Value) {
    let responses = operation["responses"].as_object().unwrap();
    let statuses: BTreeSet<String> = responses.keys().cloned().collect();
    let status = expected["responseStatus"].to_string();
    assert_eq!(
        statuses,
        BTreeSet::from([status.clone(), "default".to_owned()]),
        "{id}"
    );
    let schema = &responses[&status]["content"]["application/json"]["schema"];
    match &expected["responseSchema"] {
        Value::Null => assert!(schema.is_null(), "{id} answers nothing"),
        wanted => same_schema(schema, wanted, &format!("answer of {id}")),
    }
    for header in expected["responseHeaders"].as_array().into_iter().flatten() {
        assert!(
            responses[&status]["headers"][header.as_str().unwrap()].is_object(),
            "{id} {header}"
        );
    }
}

/// Compares one of our schemas with the reference's short form of one.
fn same_schema(ours: &Value, wanted: &Value, place: &str) {
    if let Some(name) = wanted["ref"].as_str() {
        assert_eq!(
            ours["$ref"],
            format!("#/components/schemas/{name}"),
            "{place}"
        );
        return;
    }
    let types: BTreeSet<&str> = match &ours["type"] {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    };
    let mut expected: BTreeSet<&str> = wanted["type"]
        .as_str()
        .filter(|kind| *kind != "any")
        .into_iter()
        .collect();
    if wanted["nullable"] == true && !expected.is_empty() {
        expected.insert("null");
    }
    assert_eq!(types, expected, "{place}: {ours}");
    if wanted["type"] != "array" {
        assert_eq!(
            ours.get("format"),
            wanted.get("format"),
            "format of {place}"
        );
    }
    if let Some(allowed) = wanted.get("enum") {
        let mut values = ours["enum"].as_array().cloned().unwrap_or_default();
        values.retain(|value| !OWN_VALUES.iter().any(|own| value == own));
        assert_eq!(&Value::from(values), allowed, "{place}");
    }
    if wanted["items"].is_object() {
        same_schema(&ours["items"], &wanted["items"], &format!("{place}[]"));
    }
    if wanted["additionalProperties"].is_object() {
        same_schema(
            &ours["additionalProperties"],
            &wanted["additionalProperties"],
            &format!("{place}{{}}"),
        );
    }
}

#[test]
fn schemas_are_those_that_clients_know() {
    let Some(reference) = reference() else { return };
    let document = document(SpecVersion::V31);
    let ours = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in ours {
        let Some(wanted) = reference["schemas"].get(name) else {
            continue;
        };
        let wanted = wanted.as_object().unwrap();
        let mut properties = schema["properties"].as_object().unwrap().clone();
        properties.retain(|member, _| !OWN_MEMBERS.contains(&(name, member)));
        let names = |keys: serde_json::map::Keys<'_>| keys.cloned().collect::<BTreeSet<_>>();
        assert_eq!(
            names(properties.keys()),
            names(wanted.keys()),
            "members of {name}"
        );
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (member, expected) in wanted {
            let place = format!("{name}.{member}");
            same_schema(&properties[member], expected, &place);
            assert_eq!(
                required.contains(member.as_str()),
                expected["required"] == true,
                "whether {place} is required"
            );
        }
    }
}

#[test]
fn every_object_is_closed_and_every_reference_resolves() {
    fn visit(value: &Value, schemas: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, schemas)),
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let name = reference.rsplit('/').next().unwrap();
                    assert!(schemas[name].is_object(), "{reference}");
                }
                if members.get("type") == Some(&json!("object"))
                    && members.get("properties").is_some_and(Value::is_object)
                {
                    assert_eq!(
                        members.get("additionalProperties"),
                        Some(&json!(false)),
                        "{value}"
                    );
                }
                assert!(
                    !members.contains_key("oneOf") && !members.contains_key("allOf"),
                    "{value}"
                );
                members.values().for_each(|member| visit(member, schemas));
            }
            _ => {}
        }
    }
    let document = document(SpecVersion::V31);
    visit(&document, &document["components"]["schemas"]);
    let ids: Vec<Value> = ours()
        .into_iter()
        .map(|(_, _, operation)| operation["operationId"].clone())
        .collect();
    let distinct: BTreeSet<String> = ids.iter().map(Value::to_string).collect();
    assert_eq!(ids.len(), distinct.len(), "operation ids are unique");
}

#[test]
fn the_older_edition_has_no_types_of_3_1() {
    let text = document(SpecVersion::V30).to_string();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.0.3");
    assert!(!text.contains("\"null\""));
    let output = &document["components"]["schemas"]["Workflow"]["properties"]["output"];
    assert_eq!(
        (&output["type"], &output["nullable"]),
        (&json!("string"), &json!(true))
    );
}

/// `UPDATE=1 cargo test -p segno-server --test api document` accepts a change; the diff shows it.
#[test]
fn the_document_is_the_one_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/openapi.json");
    let now = serde_json::to_string_pretty(&document(SpecVersion::V31)).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        before == now,
        "the document has changed; if that is wanted: UPDATE=1 cargo test -p segno-server --test api document"
    );
}
