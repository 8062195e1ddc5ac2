//! The `segno` binary.
fn main() {}
