//! The HTTP API, driven from outside over real sockets, on SQLite and on Postgres.
#![allow(clippy::unwrap_used)]

mod alerting;
mod apps;
mod audit;
mod auth;
mod autoscaling;
mod channels;
mod cli;
mod document;
mod errors;
mod executor;
mod forwarded;
mod idempotency;
mod issuer;
mod legacy;
mod members;
mod metrics;
mod oidc;
mod receiver;
mod retention;
mod server;
mod session;
mod settings;
mod store;
mod tenants;
mod tls;
mod tokens;
mod users;
