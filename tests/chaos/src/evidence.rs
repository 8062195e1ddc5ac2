//! What a failure leaves where nobody can look at the files any more: the lines of the logs that it is about.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::fleet::VERSIONS;

/// Violations of a kind that are looked into.
const VIOLATIONS: usize = 3;
/// Lines for each of them, and of each process when there is nothing to look for.
const LINES: usize = 30;

/// For each violation, what the processes' logs say of whom it names; in the order in which they said it.
pub(crate) fn about(violations: &[&String], logs: &Path) -> anyhow::Result<String> {
    let files = read(logs)?;
    let mut text = String::new();
    for violation in violations.iter().take(VIOLATIONS) {
        let names = names_in(violation);
        let mut lines: Vec<_> = files
            .iter()
            .flat_map(|(file, log)| log.lines().map(move |line| (line, file)))
            .filter(|(line, _)| names.iter().any(|name| line.contains(*name)))
            .collect();
        // Each begins with its time.
        lines.sort_unstable();
        let left_out = lines.len().saturating_sub(LINES);
        let _ = writeln!(
            text,
            "---- {violation}\n     ({left_out} earlier lines left out)"
        );
        for (line, file) in &lines[left_out..] {
            let _ = writeln!(text, "{}: {line}", file.display());
        }
    }
    Ok(text)
}

/// The end of the latest log of each process.
pub(crate) fn last_words(logs: &Path) -> anyhow::Result<String> {
    let mut latest: std::collections::BTreeMap<String, (u64, PathBuf, String)> = Default::default();
    for (file, log) in read(logs)? {
        let stem = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some((place, number)) = stem.rsplit_once('-') else {
            continue;
        };
        let number = number.parse().unwrap_or_default();
        if latest
            .get(place)
            .is_none_or(|(before, ..)| *before < number)
        {
            latest.insert(place.to_owned(), (number, file, log));
        }
    }
    let mut text = String::new();
    for (_, file, log) in latest.into_values() {
        let lines: Vec<&str> = log.lines().collect();
        let _ = writeln!(text, "---- the end of {}", file.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

fn read(logs: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let path = entry?.path();
        let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        files.push((path.file_name().unwrap_or_default().into(), log));
    }
    Ok(files)
}

/// Ids of executors, workflows and recoveries: with a UUID, or begun with a version.
fn names_in(violation: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    violation
        .split(|c: char| !is_part(c))
        .map(|word| word.trim_matches('.'))
        .filter(|word| {
            uuid::Uuid::try_parse(word).is_ok()
                || VERSIONS
                    .iter()
                    .any(|version| word.starts_with(&format!("{version}.")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_violation_names_is_found_in_the_logs() {
        let logs = tempfile::tempdir().unwrap();
        let said =
            "2026-01-01T00:00:02Z WARN offering executor_id=0b8a2b66-67f8-4ee6-9a40-7a2dd1e4ecf0";
        let before = "2026-01-01T00:00:01Z INFO v1.outside.17 is stuck";
        std::fs::write(
            logs.path().join("instance-1-1.log"),
            format!("{said}\nelse\n"),
        )
        .unwrap();
        std::fs::write(logs.path().join("rust-v1-1-2.log"), before).unwrap();
        let violation = "v1.outside.17: ran under 0b8a2b66-67f8-4ee6-9a40-7a2dd1e4ecf0".to_owned();
        let found = about(&[&violation], logs.path()).unwrap();
        let lines: Vec<&str> = found.lines().skip(2).collect();
        let expected = [
            format!("rust-v1-1-2.log: {before}"),
            format!("instance-1-1.log: {said}"),
        ];
        assert_eq!(lines, expected);
        let words = last_words(logs.path()).unwrap();
        assert!(
            words.contains("the end of instance-1-1.log") && words.contains("else"),
            "{words}"
        );
    }
}
