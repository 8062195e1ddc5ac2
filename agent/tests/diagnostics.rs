//! What the compiler tells people who hold it wrong. `TRYBUILD=overwrite` accepts what it says now.

#[test]
fn messages_are_precise() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/diagnostics/*.rs");
}
