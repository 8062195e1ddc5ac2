//! Checks requests against the schemas of our own OpenAPI document, and reports *all* faults with
//! their places, in the words that clients of this API know. Only the parts of JSON Schema that the
//! document uses are understood; a unit test proves that it uses no others.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use regex::Regex;
use serde_json::{Map, Value};

use super::problem::ErrorDetail;
use super::time::Timestamp;

/// Validates values against schemas that may refer to `components`.
pub(super) struct Validator<'a> {
    /// `components.schemas` of the document.
    pub components: &'a Map<String, Value>,
    /// The faults found so far.
    pub faults: Vec<ErrorDetail>,
}

impl Validator<'_> {
    /// Notes a fault.
    pub(super) fn fault(&mut self, location: &str, message: impl Into<String>, value: &Value) {
        self.faults.push(ErrorDetail {
            location: Some(location.to_owned()),
            message: Some(message.into()),
            value: Some(without_secret(value)),
        });
    }

    /// Checks `value` at `location`.
    pub(super) fn check(&mut self, schema: &Value, location: &str, value: &Value) {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap_or_default();
            if let Some(target) = self.components.get(name) {
                self.check(target, location, value);
            }
            return;
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|kind| is_type(kind, value)) {
            let expected = types
                .iter()
                .find(|kind| **kind != "null")
                .unwrap_or(&"null");
            self.fault(location, format!("expected {expected}"), value);
            return;
        }
        match value {
            Value::String(text) => self.string(schema, location, text, value),
            Value::Number(_) => self.number(schema, location, value),
            Value::Array(items) => self.array(schema, location, items, value),
            Value::Object(members) => self.object(schema, location, members, value),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.fault(
                location,
                format!("expected value to be one of {}", names.join(", ")),
                value,
            );
        }
    }

    fn string(&mut self, schema: &Value, location: &str, text: &str, value: &Value) {
        let length = text.chars().count() as u64;
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            self.fault(location, format!("expected length >= {least}"), value);
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.fault(location, format!("expected length <= {most}"), value);
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !matches(pattern, text)
        {
            self.fault(
                location,
                format!("expected string to match pattern {pattern}"),
                value,
            );
        }
        if text.contains('\0') {
            self.fault(
                location,
                "expected no NUL: a database cannot hold it",
                value,
            );
        }
        if schema["format"] == "date-time" && Timestamp::parse(text).is_none() {
            self.fault(location, "expected string to be RFC 3339 date-time", value);
        }
    }

    fn number(&mut self, schema: &Value, location: &str, value: &Value) {
        let too_wide = match schema["format"].as_str() {
            Some("int32") => value.as_i64().is_none_or(|n| i32::try_from(n).is_err()),
            Some("int64") => value.as_i64().is_none(),
            _ => false,
        };
        if too_wide {
            let format = schema["format"].as_str().unwrap_or_default();
            self.fault(
                location,
                format!("expected integer to be within {format}"),
                value,
            );
        }
        let number = value.as_f64().unwrap_or_default();
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            self.fault(location, format!("expected number >= {least}"), value);
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            self.fault(location, format!("expected number <= {most}"), value);
        }
    }

    fn array(&mut self, schema: &Value, location: &str, items: &[Value], value: &Value) {
        for (index, item) in items.iter().enumerate() {
            self.check(&schema["items"], &format!("{location}[{index}]"), item);
        }
        let length = items.len() as u64;
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| length > *most) {
            self.fault(location, format!("expected array length <= {most}"), value);
        }
        let twice = |(index, item)| items[..index].contains(item);
        if schema["uniqueItems"] == true && items.iter().enumerate().any(twice) {
            self.fault(location, "expected array items to be unique", value);
        }
    }

    fn object(
        &mut self,
        schema: &Value,
        location: &str,
        members: &Map<String, Value>,
        value: &Value,
    ) {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        for name in &required {
            if !members.contains_key(*name) {
                self.fault(
                    location,
                    format!("expected required property {name} to be present"),
                    value,
                );
            }
        }
        for (name, member) in members {
            let place = format!("{location}.{name}");
            match (
                schema["properties"].get(name),
                &schema["additionalProperties"],
            ) {
                // A null where nothing is required means "absent": generated clients send it.
                (Some(_), _) if member.is_null() && !required.contains(&name.as_str()) => {}
                (Some(known), _) => self.check(known, &place, member),
                (None, Value::Bool(false)) => self.fault(&place, "unexpected property", value),
                (None, other) if other.is_object() => self.check(other, &place, member),
                (None, _) => {}
            }
        }
    }
}

/// A value to be shown: answers are logged by proxies and clients.
fn without_secret(value: &Value) -> Value {
    let mut shown = value.clone();
    if let Some(secret) = shown.get_mut("secret") {
        *secret = Value::from("(hidden)");
    }
    shown
}

/// The schema's `type`, one or several.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_type(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Reads a path or query parameter as its schema says: a list takes every occurrence, everything else
/// the first. On failure, the message.
pub(super) fn parse_parameter(schema: &Value, texts: &[String]) -> Result<Value, &'static str> {
    if types(schema).contains(&"array") {
        let items = texts.iter().map(|text| parse_text(&schema["items"], text));
        return items.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    parse_text(schema, texts.first().map_or("", String::as_str))
}

fn parse_text(schema: &Value, text: &str) -> Result<Value, &'static str> {
    let kind = types(schema)
        .into_iter()
        .find(|kind| *kind != "null")
        .unwrap_or("string");
    match kind {
        "integer" => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| "invalid integer"),
        "boolean" => match text {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err("invalid boolean"),
        },
        _ if schema["format"] == "date-time" && Timestamp::parse(text).is_none() => {
            Err("invalid date/time for format RFC 3339")
        }
        _ => Ok(Value::from(text)),
    }
}

/// Whether `text` matches a pattern of our own document; each of those is compiled once.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: RwLock<BTreeMap<String, Option<Regex>>> = RwLock::new(BTreeMap::new());
    let is_match = |regex: &Option<Regex>| regex.as_ref().is_some_and(|regex| regex.is_match(text));
    let known = COMPILED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return is_match(regex);
    }
    drop(known);
    let regex = Regex::new(pattern).ok();
    let answer = is_match(&regex);
    let mut known = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    known.insert(pattern.to_owned(), regex);
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// Keywords that [`Validator`] checks or that say nothing about validity.
    const KEYWORDS: &[&str] = &[
        "$ref",
        "type",
        "format",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "items",
        "uniqueItems",
        "maxItems",
        "properties",
        "required",
        "additionalProperties",
        "description",
        "readOnly",
        "propertyNames",
    ];

    fn faults(schema: Value, value: Value) -> Vec<(String, String)> {
        let components = json!({"Rollout": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}},
            "additionalProperties": false}});
        let mut validator = Validator {
            components: components.as_object().unwrap(),
            faults: Vec::new(),
        };
        validator.check(&schema, "body", &value);
        let pair = |fault: ErrorDetail| (fault.location.unwrap(), fault.message.unwrap());
        validator.faults.into_iter().map(pair).collect()
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let schema = json!({
            "type": "object",
            "required": ["workflowIds"],
            "additionalProperties": false,
            "properties": {
                "workflowIds": {"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 2},
                "rollout": {"$ref": "#/components/schemas/Rollout"},
                "name": {"type": "string", "minLength": 3, "pattern": "^[a-z]+$"},
                "at": {"type": "string", "format": "date-time"},
                "small": {"type": "integer", "format": "int32"},
            },
        });
        let found = faults(
            schema.clone(),
            json!({"workflowIds": ["a", 1, "a", "\0"], "rollout": {"n": -1, "x": 0}, "name": "A", "at": "now",
                "small": 3_000_000_000_u64, "zzz": null}),
        );
        let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
        for place in [
            "body.workflowIds[1]",
            "body.workflowIds[3]",
            "body.workflowIds",
            "body.rollout.n",
            "body.rollout.x",
            "body.name",
            "body.at",
            "body.small",
            "body.zzz",
        ] {
            assert!(places.contains(&place), "{place} in {places:?}");
        }
        assert_eq!(
            places.iter().filter(|place| **place == "body.name").count(),
            2,
            "length and pattern"
        );
        assert_eq!(
            places
                .iter()
                .filter(|place| **place == "body.workflowIds")
                .count(),
            2,
            "length and repetition"
        );
        let missing = (
            "body".to_owned(),
            "expected required property workflowIds to be present".to_owned(),
        );
        assert_eq!(faults(schema.clone(), json!({})), [missing]);
        assert_eq!(
            faults(schema.clone(), json!([])),
            [("body".to_owned(), "expected object".to_owned())]
        );
        assert_eq!(
            faults(schema, json!({"workflowIds": [], "name": null})),
            [],
            "null means absent"
        );
    }

    /// A keyword that is not checked would promise more than the server keeps.
    #[test]
    fn the_document_uses_no_other_keywords() {
        fn visit(schema: &Value) {
            for (keyword, value) in schema.as_object().into_iter().flatten() {
                assert!(
                    KEYWORDS.contains(&keyword.as_str()),
                    "{keyword} in {schema}"
                );
                match keyword.as_str() {
                    "properties" => value.as_object().unwrap().values().for_each(visit),
                    "items" | "additionalProperties" => visit(value),
                    _ => {}
                }
            }
        }
        let mut document = super::super::openapi::document(super::super::openapi::SpecVersion::V31);
        document["components"]["schemas"]
            .as_object()
            .unwrap()
            .values()
            .for_each(visit);
        super::super::openapi::each_operation(&mut document, |_, _, operation| {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                visit(&parameter["schema"]);
            }
        });
    }

    #[test]
    fn floats_are_not_integers() {
        let one = ("body".to_owned(), "expected integer".to_owned());
        assert_eq!(faults(json!({"type": "integer"}), json!(1.5)), [one]);
    }

    #[test]
    fn a_list_takes_every_occurrence_and_anything_else_the_first() {
        let texts = ["1".to_owned(), "2".to_owned()];
        let integer = json!({"type": "integer"});
        let list = json!({"type": "array", "items": integer});
        assert_eq!(parse_parameter(&list, &texts), Ok(json!([1, 2])));
        assert_eq!(parse_parameter(&integer, &texts), Ok(json!(1)));
    }

    #[test]
    fn booleans_are_read_in_every_spelling() {
        for text in ["true", "1", "t", "T", "TRUE", "True"] {
            assert_eq!(
                parse_text(&json!({"type": "boolean"}), text),
                Ok(json!(true))
            );
        }
        assert!(parse_text(&json!({"type": "boolean"}), "yes").is_err());
        assert_eq!(
            parse_text(&json!({"type": "integer"}), "ten"),
            Err("invalid integer")
        );
    }
}
