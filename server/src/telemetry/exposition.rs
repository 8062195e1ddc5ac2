//! The two text formats that scrapers read: Prometheus 0.0.4 and OpenMetrics 1.0.

use std::fmt::Write;

use axum::http::{HeaderMap, header};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4: times in milliseconds.
    Text,
    /// OpenMetrics 1.0: times in seconds, ends with `# EOF`.
    OpenMetrics,
}

impl Format {
    /// OpenMetrics for whoever names it in `Accept`, text for everybody else.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let wanted = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            let mut quality = parts.filter_map(|part| part.strip_prefix("q="));
            let refused =
                quality.any(|text| text.parse::<f64>().is_ok_and(|quality| quality <= 0.0));
            named && !refused
        };
        let mut accepted = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        if accepted.any(wanted) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One value of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values; the same names in every sample of a family.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
    /// When it was so, epoch milliseconds; none: now.
    pub at: Option<i64>,
}

/// Gauges of one name.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// Full name.
    pub name: String,
    /// What it says, in one line without quotes or backslashes.
    pub help: &'static str,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// Writes the families that have samples.
pub fn render(families: &[Gauges], format: Format) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let name = &family.name;
        let help = family.help;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for sample in &family.samples {
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = write!(text, "{name}{{{}}} {}", labels.join(","), sample.value);
            let _ = match (sample.at, format) {
                (None, _) => writeln!(text),
                (Some(at), Format::Text) => writeln!(text, " {at}"),
                (Some(at), Format::OpenMetrics) if at % 1000 == 0 => {
                    writeln!(text, " {}", at / 1000)
                }
                (Some(at), Format::OpenMetrics) => writeln!(text, " {}", at as f64 / 1000.0),
            };
        }
    }
    if format == Format::OpenMetrics {
        text += "# EOF\n";
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn whoever_names_openmetrics_gets_it() {
        let accepted = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(text));
            Format::accepted(&headers)
        };
        assert_eq!(
            accepted(
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
            ),
            Format::OpenMetrics
        );
        assert_eq!(accepted("application/openmetrics-text; q=0"), Format::Text);
        assert_eq!(accepted("text/plain"), Format::Text);
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn times_and_labels_are_written_as_each_format_has_them() {
        let family = Gauges {
            name: "x".to_owned(),
            help: "A thing.",
            samples: vec![Sample {
                labels: vec![("a", "b\"\\\nc".to_owned())],
                value: 1.5,
                at: Some(60_000),
            }],
        };
        let text = |format| render(std::slice::from_ref(&family), format);
        assert!(text(Format::Text).ends_with("x{a=\"b\\\"\\\\\\nc\"} 1.5 60000\n"));
        assert!(text(Format::OpenMetrics).ends_with("x{a=\"b\\\"\\\\\\nc\"} 1.5 60\n# EOF\n"));
    }
}
