//! The Segno control plane: hub, recovery, REST API and console in one binary.
//!
//! [`serve`] is the whole server; the `segno` binary, `segno dev` and the tests all enter there.

pub mod api;
pub mod auth;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod console;
pub mod dev;
pub mod http;
pub mod hub;
pub mod operations;
pub mod policies;
pub mod recovery;
mod serve;
pub mod state;
pub mod store;
pub mod telemetry;

pub use serve::serve;
