//! Bodies of generic channels: a Jinja template that renders to JSON.
//!
//! Templates come from outside: what they may do is bounded (instructions and memory alike are paid
//! for with fuel), and what they see is [`Notice::variables`] only. Values are written as JSON, so
//! `{"text": {{ message }}}` needs no quotes and cannot be broken out of.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use super::notice::Notice;

/// Longest template, bytes.
pub(super) const LONGEST: usize = 16 * 1024;
/// Largest body, bytes.
const LARGEST: usize = 256 * 1024;
/// What one rendering may cost.
const FUEL: u64 = 50_000;

/// Renders a body; on failure, what is wrong with the template.
pub(super) fn render(template: &str, notice: &Notice) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    let variables = Value::from(Serde(notice.variables()));
    let body = environment
        .render_named_str("template", template, variables)
        .map_err(|error| error.to_string())?;
    if body.len() > LARGEST {
        return Err(format!("it renders to more than {LARGEST} bytes"));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
        Ok(_) => Ok(body),
        Err(error) => Err(format!("it does not render to JSON: {error}")),
    }
}

/// Whether it renders for every kind of alert; else what is wrong.
pub(super) fn check(template: &str) -> Result<(), String> {
    if template.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    for sample in Notice::samples() {
        render(template, &sample).map_err(|fault| {
            format!("for {} {}: {fault}", sample.rule_type, sample.event.name())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_become_json() {
        let notice = Notice::samples().remove(1);
        let template = r#"{"text": {{ message }}, "n": {{ metadata.threshold }}, "none": {{ metadata.queue_name }},
            "all": {{ metadata }}, "up": {{ state|upper }}{% if state == "resolved" %}, "ok": true{% endif %}}"#;
        check(template).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(&render(template, &notice).unwrap()).unwrap();
        assert_eq!(body["text"], "a \"quoted\" sample\nof two lines");
        assert_eq!(
            (&body["n"], &body["none"], &body["up"]),
            (&"1".into(), &serde_json::Value::Null, &"FIRING".into())
        );
    }

    #[test]
    fn what_does_not_render_is_refused_with_the_reason() {
        for (template, word) in [
            (r#"{"text": {{ mesage }}}"#, "undefined"),
            (r#"{"text": {{ metadata.treshold }}}"#, "undefined"),
            (r#"{"text": "{{ message }}"}"#, "JSON"),
            ("{{", "syntax error"),
            (r#"{% include "/etc/passwd" %}"#, "unknown statement"),
            (
                r#"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"#,
                "fuel",
            ),
            (r#""{{ "a" * 1000000000 }}""#, "fuel"),
        ] {
            let fault = check(template).unwrap_err();
            assert!(fault.contains(word), "{template}: {fault}");
        }
        assert!(check(&" ".repeat(LONGEST + 1)).is_err());
    }
}
