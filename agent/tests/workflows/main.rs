//! Workflows on real databases: every test runs on Postgres and on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../database_support/mod.rs"]
mod database_support;
#[macro_use]
mod support;

mod control;
mod process;
mod recorder;
mod recovery;
mod replay;
mod steps;
mod version;
