//! Durable workflows for Rust.

pub mod system_database;
