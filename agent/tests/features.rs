//! The feature matrix promises a test for each feature.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn every_feature_leads_to_its_test() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent");
    let matrix = std::fs::read_to_string(docs.join("features.md")).unwrap();
    let mut links = 0;
    for line in matrix
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('✓'))
    {
        let Some((_, rest)) = line.split_once("[✓](") else {
            panic!("no test: {line}");
        };
        let (link, _) = rest.split_once(')').unwrap();
        let (file, test) = link.split_once('#').unwrap();
        let code = std::fs::read_to_string(docs.join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let declared =
            code.contains(&format!("async fn {test}(")) || code.contains(&format!("fn {test}("));
        assert!(declared, "there is no test `{test}` in {file}");
        links += 1;
    }
    assert!(links > 50, "{links}");
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
