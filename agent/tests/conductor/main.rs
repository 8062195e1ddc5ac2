//! The control plane client against a websocket server of the test's own and real databases.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

#[path = "../database_support/mod.rs"]
mod database_support;

mod connection;
mod messages;
mod server;
