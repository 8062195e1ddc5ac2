//! Durable workflows for Rust.
