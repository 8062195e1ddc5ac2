//! Stored payloads as text for people: JSON where the format is one of the JSON ones, else as stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

/// Go's spelling of nothing.
const GO_NIL: &str = "__DBOS_NIL";

/// Renders a result, error, event, message or stream value.
pub(super) fn value(stored: String, format: Option<&str>) -> String {
    match format {
        Some("js_superjson") => member(&stored, "json").unwrap_or(stored),
        Some("DBOS_JSON") => go_json(&stored).unwrap_or(stored),
        // Ours and other JSON is shown as it is; pickles, gobs and the like cannot be opened here.
        _ => stored,
    }
}

/// Renders arguments. The portable envelope is shown as the plain list when nothing is named.
pub(super) fn input(stored: String, format: Option<&str>) -> String {
    let is_json = matches!(format, None | Some("portable_json"));
    if !is_json {
        return value(stored, format);
    }
    match serde_json::from_str::<Json>(&stored) {
        Ok(Json::Object(envelope)) => {
            let named = envelope
                .get("namedArgs")
                .and_then(Json::as_object)
                .is_some_and(|named| !named.is_empty());
            match envelope.get("positionalArgs") {
                Some(Json::Array(arguments)) if !named => Json::from(arguments.clone()).to_string(),
                _ => stored,
            }
        }
        _ => stored,
    }
}

fn member(stored: &str, name: &str) -> Option<String> {
    serde_json::from_str::<Json>(stored)
        .ok()?
        .get(name)
        .map(Json::to_string)
}

fn go_json(stored: &str) -> Option<String> {
    if stored == GO_NIL {
        return Some("null".to_owned());
    }
    let text = String::from_utf8(STANDARD.decode(stored).ok()?).ok()?;
    serde_json::from_str::<Json>(&text).ok().map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_formats_are_shown_as_json_and_others_as_stored() {
        let shown = |stored: &str, format| value(stored.to_owned(), format);
        assert_eq!(shown("{\"a\": 1}", Some("portable_json")), "{\"a\": 1}");
        assert_eq!(
            shown(
                "{\"json\":{\"go\":true},\"__dbos_serializer\":\"superjson\"}",
                Some("js_superjson")
            ),
            "{\"go\":true}"
        );
        assert_eq!(shown("broken", Some("js_superjson")), "broken");
        assert_eq!(shown(&STANDARD.encode("42"), Some("DBOS_JSON")), "42");
        assert_eq!(shown(GO_NIL, Some("DBOS_JSON")), "null");
        assert_eq!(
            shown("gASVBQAAAAAAAABLKi4=", Some("py_pickle")),
            "gASVBQAAAAAAAABLKi4="
        );
    }

    #[test]
    fn arguments_lose_their_envelope_unless_some_are_named() {
        let shown = |stored: &str| input(stored.to_owned(), Some("portable_json"));
        assert_eq!(
            shown("{\"positionalArgs\": [42, \"x\"], \"namedArgs\": {}}"),
            "[42,\"x\"]"
        );
        assert_eq!(shown("{\"positionalArgs\": [42]}"), "[42]");
        let named = "{\"positionalArgs\": [], \"namedArgs\": {\"k\": 1}}";
        assert_eq!(shown(named), named);
        assert_eq!(shown("not json"), "not json");
    }
}
