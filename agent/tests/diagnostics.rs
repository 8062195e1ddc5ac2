//! What the compiler tells people who hold it wrong. `TRYBUILD=overwrite` accepts what it says now: another
//! version of the compiler words some of it in another way.

#[test]
fn messages_are_precise() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/diagnostics/*.rs");
}
