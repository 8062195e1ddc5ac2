//! The recorder benchmark.
fn main() {}
