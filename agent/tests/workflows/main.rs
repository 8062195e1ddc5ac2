//! Workflows on real databases: every test runs on Postgres and on SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../database_support/mod.rs"]
mod database_support;
#[macro_use]
mod support;

mod adjust;
mod administration;
mod choices;
mod client;
mod compensation;
mod control;
mod datasources;
mod messaging;
mod older_line;
mod process;
mod queues;
mod recorder;
mod recovery;
mod replay;
mod schedules;
mod settings;
mod steps;
mod version;
mod waiting;
