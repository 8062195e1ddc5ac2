//! The feature matrix promises a test for each feature.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Tests that are about one database, or about none.
const NOT_ON_BOTH: [(&str, &str); 12] = [
    ("messages_are_precise", "the compiler's messages"),
    (
        "a_role_without_rights_on_the_schema_runs_an_application",
        "SQLite has no roles",
    ),
    (
        "plain_sql_clients_can_enqueue_and_send",
        "SQLite has no stored functions",
    ),
    (
        "a_schema_of_a_shared_version_is_brought_up_to_date",
        "no SDK shares a SQLite file",
    ),
    (
        "a_database_of_the_older_line_is_joined_as_it_is",
        "the same",
    ),
    (
        "after_a_migration_that_was_asked_for_payloads_are_written_for_both_lines",
        "the same",
    ),
    ("nobody_elses_schema_is_migrated_unasked", "the same"),
    (
        "a_step_whose_commit_is_never_confirmed_is_recorded_once",
        "SQLite answers in the process",
    ),
    (
        "a_transaction_whose_commit_is_never_confirmed_happens_once",
        "the same",
    ),
    (
        "an_application_brings_its_own_connections",
        "SQLite has one writer, which is the library's",
    ),
    ("work_waits_for_room_on_postgres", "the next is its twin"),
    (
        "work_waits_for_room_on_sqlite",
        "the one before is its twin",
    ),
];

/// One test with the macros that declare it, and those that call it.
struct Found<'a> {
    name: &'a str,
    code: &'a str,
}

impl Found<'_> {
    fn is_declared(&self) -> bool {
        self.code.contains(&format!("fn {}(", self.name))
    }

    /// Whether it is declared once for each database, goes through both itself, or is called with each.
    fn is_on_both(&self) -> bool {
        let mut lists = self.code.split("on_both").skip(1);
        let listed = lists.any(|after| {
            let list = after.split_once("!(").filter(|(word, _)| word.len() < 20);
            let names = list.and_then(|(_, rest)| rest.split(')').next());
            let mut names = names.unwrap_or_default().split([',', '\n', ' ']);
            names.any(|name| name == self.name)
        });
        let own = |text: &str| text.contains("fn ") && text.contains(&format!("fn {}(", self.name));
        let functions = || self.code.split("\n}\n");
        let body: String = functions().filter(|text| own(text)).collect();
        let calls =
            functions().filter(|text| text.contains(&format!("{}(", self.name)) && !own(text));
        let calls: String = calls.collect();
        let both = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.contains("postgres") && text.contains("sqlite")
        };
        let through = body.contains("both().await") || body.contains("on_both(");
        let everywhere = body.contains("everywhere") && body.contains("on_postgres(");
        listed || through || everywhere || both(&body) || both(&calls)
    }
}

#[test]
fn every_feature_leads_to_its_test_on_both_databases() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent");
    let matrix = std::fs::read_to_string(docs.join("features.md")).unwrap();
    let (mut links, mut excused) = (0, Vec::new());
    for line in matrix
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('✓'))
    {
        let Some((_, rest)) = line.split_once("[✓](") else {
            panic!("no test: {line}");
        };
        let (link, _) = rest.split_once(')').unwrap();
        let (file, name) = link.split_once('#').unwrap();
        let code = std::fs::read_to_string(docs.join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let test = Found { name, code: &code };
        assert!(test.is_declared(), "there is no test `{name}` in {file}");
        if NOT_ON_BOTH.iter().any(|(excuse, _)| *excuse == name) {
            excused.push(name.to_owned());
        } else {
            assert!(
                test.is_on_both(),
                "`{name}` of {file} is not on both databases"
            );
        }
        links += 1;
    }
    assert!(links > 80, "{links}");
    for (name, reason) in NOT_ON_BOTH {
        assert!(excused.iter().any(|used| used == name), "{name}: {reason}");
    }
}

#[test]
fn every_page_of_the_guide_is_linked_and_leads_on() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent");
    let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
    for page in std::fs::read_dir(&docs).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "{name} is not in the index"
        );
        let text = std::fs::read_to_string(docs.join(&name)).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.starts_with("http") {
                assert!(docs.join(file).exists(), "{name}: {link} leads nowhere");
            }
        }
    }
}
