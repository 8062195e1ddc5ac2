//! Which release of which SDK knows which message.
//!
//! From the release tags of the four MIT-licensed repositories. What is not known here is found out
//! by asking: an executor answers [`UNKNOWN_TYPE`](crate::UNKNOWN_TYPE) to a type it does not know.

use std::cmp::Ordering;

/// A release number, read leniently: `2.31.1`, `v1.2.0`, `0.5.4-beta`, `2.30.0a1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number; 0 if absent.
    pub minor: u32,
    /// The third number; 0 if absent.
    pub patch: u32,
}

impl Release {
    /// None if the text does not begin with a number, like `unknown`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches(['v', 'V']);
        let mut numbers = text.split('.').map(|part| {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            part[..digits].parse::<u32>().ok()
        });
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next().flatten().unwrap_or(0),
            patch: numbers.next().flatten().unwrap_or(0),
        })
    }

    fn at_least(self, (major, minor): (u32, u32)) -> bool {
        (self.major, self.minor).cmp(&(major, minor)) != Ordering::Less
    }
}

/// The first release with a feature: Python, TypeScript, Go, Java. None: not in any release known.
type Since = [Option<(u32, u32)>; 4];

const fn since(
    python: (u32, u32),
    typescript: (u32, u32),
    go: (u32, u32),
    java: (u32, u32),
) -> Since {
    [Some(python), Some(typescript), Some(go), Some(java)]
}

/// First releases by message type. `restart` also has an end, see [`supports`].
const MESSAGES: &[(&str, Since)] = &[
    ("executor_info", since((0, 23), (2, 6), (0, 5), (0, 5))),
    ("recovery", since((0, 23), (2, 6), (0, 5), (0, 5))),
    ("cancel", since((0, 23), (2, 6), (0, 5), (0, 5))),
    ("resume", since((0, 23), (2, 6), (0, 5), (0, 5))),
    ("list_workflows", since((0, 23), (2, 6), (0, 5), (0, 5))),
    (
        "list_queued_workflows",
        since((0, 23), (2, 6), (0, 5), (0, 5)),
    ),
    ("get_workflow", since((0, 23), (2, 6), (0, 5), (0, 5))),
    ("restart", [Some((0, 23)), Some((2, 6)), None, Some((0, 5))]),
    (
        "exist_pending_workflows",
        since((0, 24), (2, 6), (0, 5), (0, 5)),
    ),
    ("list_steps", since((0, 25), (2, 7), (0, 5), (0, 5))),
    ("fork_workflow", since((1, 0), (2, 9), (0, 5), (0, 5))),
    ("retention", since((1, 5), (2, 10), (0, 5), (0, 5))),
    ("get_metrics", since((2, 6), (4, 5), (0, 9), (0, 7))),
    ("delete", since((2, 9), (4, 7), (0, 12), (0, 8))),
    ("export_workflow", since((2, 9), (4, 7), (0, 12), (0, 8))),
    ("import_workflow", since((2, 9), (4, 7), (0, 12), (0, 8))),
    ("alert", since((2, 10), (4, 8), (0, 12), (0, 8))),
    ("list_schedules", since((2, 13), (4, 9), (0, 14), (0, 8))),
    ("get_schedule", since((2, 13), (4, 9), (0, 14), (0, 8))),
    ("pause_schedule", since((2, 13), (4, 9), (0, 14), (0, 8))),
    ("resume_schedule", since((2, 13), (4, 9), (0, 14), (0, 8))),
    ("trigger_schedule", since((2, 13), (4, 9), (0, 14), (0, 8))),
    ("backfill_schedule", since((2, 13), (4, 9), (0, 14), (0, 8))),
    (
        "list_application_versions",
        since((2, 14), (4, 10), (0, 15), (0, 8)),
    ),
    (
        "set_latest_application_version",
        since((2, 14), (4, 10), (0, 15), (0, 8)),
    ),
    (
        "get_workflow_events",
        since((2, 15), (4, 11), (0, 15), (0, 8)),
    ),
    (
        "get_workflow_notifications",
        since((2, 15), (4, 11), (0, 15), (0, 8)),
    ),
    (
        "get_workflow_streams",
        since((2, 15), (4, 11), (0, 15), (0, 8)),
    ),
    (
        "get_workflow_aggregates",
        since((2, 16), (4, 12), (0, 15), (0, 8)),
    ),
    (
        "fork_from_failure",
        since((2, 16), (4, 12), (0, 19), (1, 0)),
    ),
    ("list_queues", since((2, 20), (4, 17), (0, 18), (0, 9))),
    ("get_queue", since((2, 20), (4, 17), (0, 18), (0, 9))),
    (
        "get_step_aggregates",
        since((2, 23), (4, 19), (0, 17), (1, 0)),
    ),
    // Later releases of Go and Java may have it; they are asked.
    ("rewind_workflow", [Some((3, 1)), Some((5, 1)), None, None]),
];

fn column(language: &str) -> Option<usize> {
    ["python", "typescript", "go", "java"]
        .iter()
        .position(|known| *known == language)
}

fn reached(since: &Since, language: &str, sdk_version: &str) -> Option<bool> {
    let first = since[column(language)?]?;
    Some(Release::parse(sdk_version)?.at_least(first))
}

/// Whether a release knows a message type. None: not known here; ask it.
///
/// `language` is what `executor_info` reported; `sdk_version` its `dbos_version`. Rust executors know all.
pub fn supports(language: &str, sdk_version: &str, message_type: &str) -> Option<bool> {
    if language == "rust" {
        return Some(true);
    }
    if message_type == "segno_explain" {
        return Some(false);
    }
    if message_type == "restart" {
        let removed = match language {
            "python" => (3, 0),
            "typescript" => (5, 0),
            "go" => return Some(false),
            _ => (u32::MAX, 0),
        };
        return Release::parse(sdk_version).map(|release| !release.at_least(removed));
    }
    let (_, since) = MESSAGES.iter().find(|(known, _)| *known == message_type)?;
    reached(since, language, sdk_version)
}

/// Whether a release recovers by re-enqueueing, so that its whole version shares the work and a repeat is
/// harmless. Others start the workflows in the process that was asked. False when not known.
pub fn recovery_reenqueues(language: &str, sdk_version: &str) -> bool {
    let since = [Some((2, 29)), Some((4, 25)), Some((1, 2)), None];
    language == "rust" || reached(&since, language, sdk_version).unwrap_or(false)
}

/// Whether a release understands `workflow_ids` in cancel, delete and resume. True when not known.
pub fn bulk_ids(language: &str, sdk_version: &str) -> bool {
    let first = since((2, 15), (4, 11), (0, 12), (0, 8));
    reached(&first, language, sdk_version).unwrap_or(true)
}

/// Whether a release filters by application name, which matters where applications share a database.
/// False when not known.
pub fn application_scope(language: &str, sdk_version: &str) -> bool {
    let since = [Some((2, 30)), Some((4, 26)), Some((1, 2)), None];
    language == "rust" || reached(&since, language, sdk_version).unwrap_or(false)
}

/// Whether a release runs retention in the background, over the whole database. False when not known.
pub fn background_retention(language: &str, sdk_version: &str) -> bool {
    let since = [Some((3, 0)), Some((5, 0)), None, None];
    language == "rust" || reached(&since, language, sdk_version).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_releases_as_sdks_report_them() {
        let parse = |text| Release::parse(text).map(|r| (r.major, r.minor, r.patch));
        assert_eq!(parse("2.31.1"), Some((2, 31, 1)));
        assert_eq!(parse("v1.2.0"), Some((1, 2, 0)));
        assert_eq!(parse("0.5.4-beta"), Some((0, 5, 4)));
        assert_eq!(parse("3"), Some((3, 0, 0)));
        assert_eq!(parse("unknown"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn knows_what_each_major_added_and_removed() {
        assert_eq!(supports("python", "2.31.1", "rewind_workflow"), Some(false));
        assert_eq!(supports("python", "3.2.0", "rewind_workflow"), Some(true));
        assert_eq!(supports("python", "2.31.1", "restart"), Some(true));
        assert_eq!(supports("python", "3.2.0", "restart"), Some(false));
        assert_eq!(supports("go", "v1.2.0", "rewind_workflow"), None);
        assert_eq!(supports("go", "v1.2.0", "restart"), Some(false));
        assert_eq!(supports("python", "unknown", "alert"), None);
        assert_eq!(supports("cobol", "1.0", "alert"), None);
        assert_eq!(supports("rust", "0.1.0", "segno_explain"), Some(true));
        assert_eq!(supports("java", "1.0.0", "segno_explain"), Some(false));
    }

    #[test]
    fn every_message_of_the_catalogue_has_a_row() {
        for known in crate::Request::TYPES {
            assert!(
                *known == "segno_explain" || MESSAGES.iter().any(|(name, _)| name == known),
                "{known}"
            );
        }
    }

    #[test]
    fn java_starts_recovered_workflows_in_the_asked_process() {
        assert!(!recovery_reenqueues("java", "1.0.0"));
        assert!(recovery_reenqueues("python", "2.29.0"));
        assert!(!recovery_reenqueues("python", "2.28.9"));
    }
}
