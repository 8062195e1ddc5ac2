//! Deserializers that read what the SDKs really send.

use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::{Deserialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Text, or anything else as its JSON text; null is none.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

/// Like [`text`], with the empty string as none.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(text(deserializer)?.filter(|name| !name.is_empty()))
}

/// An integer as a number or decimal text. Anything else (null, `"undefined"`) is none.
pub(crate) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(as_integer(&Value::deserialize(deserializer)?))
}

fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // `as` saturates, which is what a time beyond the end of time deserves.
            float.is_finite().then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A count or limit: an integer that is not negative; null is none.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    as_integer(&value)
        .and_then(|number| u64::try_from(number).ok())
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("expected an integer of 0 or more, found {value}")))
}

/// A number, or text that reads as one; anything else is none.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A boolean that is false when null.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(false))
}

/// A boolean that is true when null. Together with `default = "yes"`: also when absent.
pub(crate) fn flag_or_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(true))
}

/// The default of switches that are on unless told otherwise.
pub(crate) fn yes() -> bool {
    true
}

/// A list of strings, a single string, or null for none.
pub(crate) fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape {
        Many(Vec<String>),
        One(String),
        None(()),
    }
    Ok(match Shape::deserialize(deserializer)? {
        Shape::Many(many) => many,
        Shape::One(one) => vec![one],
        Shape::None(()) => Vec::new(),
    })
}

/// A list of strings; null, and elements that are no strings, as their JSON text.
pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(values
        .into_iter()
        .map(|value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        })
        .collect())
}

/// A list of records where null is the empty list and a record that does not read is left out.
pub(crate) fn records<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(optional_records(deserializer)?.unwrap_or_default())
}

/// Like [`records`], but null stays none.
pub(crate) fn optional_records<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let raw = Option::<Vec<Box<RawValue>>>::deserialize(deserializer)?;
    Ok(raw.map(|list| {
        list.iter()
            .filter_map(|element| serde_json::from_str(element.get()).ok())
            .collect()
    }))
}

/// Writes an integer as decimal text, as times and numbers of workflow and step records travel.
pub(crate) fn as_text<S: Serializer>(
    value: &Option<i64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(number) => serializer.collect_str(number),
        None => serializer.serialize_none(),
    }
}
