//! Traces of workflows for OpenTelemetry.
//!
//! The library makes spans of [`tracing`] for executions and steps by itself. This crate sends them to a collector
//! ([`Traces`]), and lets a run go on with the trace it was started in, through queues, children and recoveries
//! ([`W3c`]). It is apart from the library so that an application that has OpenTelemetry in another version
//! implements [`segno::TraceContext`] for that one instead.
//!
//! ```no_run
//! use segno::Segno;
//! use segno_opentelemetry::{Traces, W3c};
//! use tracing_subscriber::prelude::*;
//!
//! # async fn example() -> segno::Result<()> {
//! let traces = Traces::to_collector("shop", "http://127.0.0.1:4318")?;
//! tracing_subscriber::registry().with(traces.layer()).init();
//! let app = Segno::named("shop").trace_context(W3c).launch().await?;
//! // … work …
//! app.shutdown(std::time::Duration::from_secs(30)).await?;
//! traces.shutdown().await
//! # }
//! ```

mod context;
mod otlp;
mod traces;

pub use context::W3c;
pub use traces::Traces;

/// The guide's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/agent/traces.md")]
struct Guide;
