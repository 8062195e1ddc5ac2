//! Durable workflows for Rust.
//!
//! A workflow is an ordinary `async fn` that is checkpointed in your own Postgres or SQLite: when its
//! process dies, another one replays it to its last checkpoint and goes on. The system tables are those
//! of DBOS Transact, so services in other languages and the control plane see nothing unusual.
//!
//! ```no_run
//! use std::time::Duration;
//! use segno::{Ctx, Segno};
//!
//! async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
//!     let line = ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).await?;
//!     ctx.sleep(Duration::from_secs(5)).await; // survives a restart
//!     Ok(line)
//! }
//!
//! #[tokio::main]
//! async fn main() -> segno::Result<()> {
//!     let app = Segno::named("hello-app")
//!         .database_url("sqlite://hello.db")
//!         .workflow("hello", hello)
//!         .launch()
//!         .await?;
//!     println!("{}", app.run(hello, "Ada".into()).await?);
//!     app.shutdown(Duration::from_secs(30)).await
//! }
//! ```
//!
//! What a workflow does durably:
//!
//! | | |
//! | --- | --- |
//! | work | [`step`](Ctx::step), [`try_step`](Ctx::try_step), [`transaction`](Ctx::transaction), [`transaction_in`](Ctx::transaction_in), [`compensate`](Ctx::compensate) |
//! | time | [`sleep`](Ctx::sleep), [`now`](Ctx::now), timeouts and deadlines of [starts](PendingStart) |
//! | other runs | [`start`](Ctx::start), [`run`](Ctx::run), [`start_all`](Ctx::start_all), [`wait_first`](Ctx::wait_first), [`wait_all`](Ctx::wait_all) |
//! | messages, events, streams | [`send`](Ctx::send) and [`recv`](Ctx::recv), [`set_event`](Ctx::set_event) and [`get_event`](Ctx::get_event), [`write_stream`](Ctx::write_stream) and [`read_stream`](Ctx::read_stream) |
//! | the first of several | [`select!`] |
//! | chance | [`uuid`](Ctx::uuid), [`random`](Ctx::random) |
//! | changes of its code | [`patch`](Ctx::patch), [`deprecate_patch`](Ctx::deprecate_patch) |
//!
//! - [`Segno`] launches an application, starts workflows and looks after them.
//! - [`Ctx`] is what a workflow does everything durable with: steps, transactions, sleeps, children.
//! - [`Queue`] limits how many run at once or in a while, [`Schedule`] starts them at times,
//!   [`Segno::debouncer`] once for many calls.
//! - [`Client`] does in another process what [`Segno`] does, but runs nothing.
//! - [`Error`] is what goes wrong; cancellation, shutdown and loss of ownership never show as errors
//!   inside a workflow, its future is dropped instead.

mod adjust;
mod administration;
mod app;
mod backoff;
mod builder;
mod client;
mod clock;
mod compensation;
pub mod conductor;
mod config;
mod context;
mod cron;
mod datasource;
mod debounce;
mod error;
mod event;
mod execution;
mod explain;
mod handle;
mod manage;
mod message;
mod metrics;
mod payload;
mod pending;
mod queue;
mod race;
mod recorder;
mod runtime;
mod schedule;
mod start;
mod state;
mod status;
mod step;
mod stream;
pub mod system_database;
pub mod testing;
mod trace;
mod transaction;
mod underway;
mod values;
mod version;
mod wait;
mod workflow;

pub use administration::{Aggregation, Rewind, Versions};
pub use app::{RecorderStats, Segno};
pub use builder::{Builder, Migrate};
pub use client::Client;
pub use context::Ctx;
pub use datasource::{Datasource, Open, TransactionKey, TransactionRecord};
pub use debounce::Debouncer;
pub use error::{Error, ErrorKind, Result};
pub use event::{GetEvent, ReadEvent, SetEvent};
pub use explain::{Explanation, Reason};
pub use handle::Handle;
pub use manage::{Cancel, Delete, Fork, Resume, StepInfo, StepPoint, WorkflowInfo, Workflows};
pub use message::{Message, PendingSend, PendingSendAll, Receive, Topic};
pub use metrics::{Metrics, ProcessMetrics};
pub use payload::Codec;
pub use queue::{OnQueueConflict, Queue, Queues};
pub use schedule::{Schedule, ScheduleInfo, Scheduled, Schedules};
pub use start::{Enqueue, OnConflict, PendingRun, PendingStart, PendingStartAll};
pub use state::{FromRef, NoAppState, NoState};
pub use status::Status;
pub use step::{Retry, Step, StepError};
pub use stream::{StreamReader, WriteStream};
pub use trace::TraceContext;
pub use transaction::{Db, FromRows, Isolation, Parameter, Query, Transaction, Tx};
pub use values::{Patch, RecordedValue};
pub use wait::Sleep;
pub use workflow::{ByName, Target, WorkflowError, WorkflowFn, WorkflowRef};

#[cfg(feature = "macros")]
pub use segno_macros::{step, workflow};

pub use segno_protocol::Alert;
pub use tokio_util::sync::CancellationToken;

/// For macros.
#[doc(hidden)]
pub mod __private {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::workflow::WorkflowError;

    pub use crate::race::{Race, poll};

    /// What a step function returns.
    pub trait StepResult {
        /// What the step yields.
        type Ok;
        /// The error it may end with.
        type Err;
    }

    impl<T, E> StepResult for Result<T, E> {
        type Ok = T;
        type Err = E;
    }

    /// What a workflow function returns.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not what a workflow returns",
        label = "not a `Result` of values that can be recorded",
        note = "a workflow returns `segno::Result<Output>`, or a `Result` with an error type of the application that \
                implements `std::error::Error`; output and error are recorded, so both implement `Serialize` and `Deserialize`"
    )]
    pub trait WorkflowResult {}

    #[diagnostic::do_not_recommend]
    impl<T: Serialize + DeserializeOwned + Send + 'static, E: WorkflowError> WorkflowResult
        for Result<T, E>
    {
    }

    /// What a workflow function takes.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not what a workflow takes",
        label = "cannot be recorded",
        note = "an input is recorded, and read again when the workflow is recovered: \
                it implements `Serialize` and `Deserialize`, and borrows nothing"
    )]
    pub trait WorkflowInput {}

    #[diagnostic::do_not_recommend]
    impl<I: Serialize + DeserializeOwned + Send + 'static> WorkflowInput for I {}

    pub const fn workflow_input<I: WorkflowInput>() {}

    pub const fn workflow_result<R: WorkflowResult>() {}

    pub fn workflow_future<F: Future + Send + 'static>(_: F) {}
}

/// The database driver, in the version this crate uses; see [`Tx::postgres`] and [`Tx::sqlite`].
pub use sqlx;

/// Registers functions that carry `#[segno::workflow]`, by the names and fingerprints it gave them.
///
/// ```
/// use segno::{Ctx, Segno};
///
/// #[segno::workflow]
/// async fn checkout(ctx: Ctx, cart: String) -> segno::Result<()> { Ok(()) }
///
/// let app = Segno::named("shop").workflows(segno::workflows![checkout]);
/// ```
#[macro_export]
macro_rules! workflows {
    ($($($segment:ident)::+),* $(,)?) => {
        |builder| builder$(.workflow_with_fingerprint($($segment)::+::NAME, $($segment)::+::FINGERPRINT, $($segment)::+))*
    };
}

/// The guide's examples compile, and those that can, run.
#[cfg(doctest)]
mod guide {
    macro_rules! pages {
        ($($name:ident: $file:literal),+ $(,)?) => {$(
            #[doc = include_str!(concat!("../../docs/agent/", $file))]
            struct $name;
        )+};
    }
    pages! {
        GettingStarted: "getting-started.md",
        Concepts: "concepts.md",
        Steps: "steps.md",
        Transactions: "transactions.md",
        Queues: "queues.md",
        Messages: "messages.md",
        Schedules: "schedules.md",
        Versions: "versions.md",
        Testing: "testing.md",
        Operations: "operations.md",
    }
}
