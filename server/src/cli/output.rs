//! How commands print what they found: tables for people, JSON for programs.

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns, for people
    Table,
    /// One JSON document
    Json,
}

/// A column: its heading and the member it shows.
pub(super) type Column = (&'static str, &'static str);

/// Prints a list.
pub(super) fn list(format: Format, columns: &[Column], rows: &[Value]) -> segno::Result<()> {
    match format {
        Format::Json => print(&serde_json::to_string_pretty(rows)?),
        Format::Table => print(&table(columns, rows)),
    }
}

/// Prints one object: each member on a line of its own.
pub(super) fn object(format: Format, object: &Value) -> segno::Result<()> {
    if format == Format::Json {
        return print(&serde_json::to_string_pretty(object)?);
    }
    let members: Vec<(String, String)> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let width = members
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect();
    print(&lines.join("\n"))
}

/// Prints a line for people, or an object for programs.
pub(super) fn done(format: Format, line: &str, object: &Value) -> segno::Result<()> {
    match format {
        Format::Json => print(&object.to_string()),
        Format::Table => print(line),
    }
}

/// A reader that goes away, such as `head`, is no error.
fn print(text: &str) -> segno::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn table(columns: &[Column], rows: &[Value]) -> String {
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned());
    let mut lines = vec![headings.collect::<Vec<_>>()];
    for row in rows {
        let cells = columns.iter().map(|(_, member)| text(&row[*member]));
        lines.push(cells.collect());
    }
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let cells = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// A value in one line.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(['\n', '\r', '\t'], " "),
        other => other.to_string(),
    }
}
