//! The messages between a control plane and its executors, typed for both ends.
//!
//! An executor (an application process that embeds a workflow library) dials the control plane's
//! websocket; from then on JSON requests flow down and JSON responses flow up. Each message of the
//! catalogue is a struct named after its `type`, and [`Message`] ties it to its response.
//!
//! - **Sending is safe by construction.** Some SDKs close the connection, or crash the process, when
//!   a key is missing or null where they do not expect it. What they need is always written and what
//!   would confuse them cannot be expressed, so requests are only ever built from these structs.
//! - **Reading is tolerant.** Absent, null and empty mean the same; numbers may arrive as text, lists
//!   as a single string; unknown members are ignored; one bad record does not spoil its page.
//!
//! No I/O happens here. The facts come from public documentation and the MIT-licensed SDKs.

mod aggregates;
mod alert;
mod catalogue;
mod envelope;
mod explain;
pub mod features;
mod lenient;
mod lifecycle;
mod listing;
mod metrics;
mod observe;
mod queues;
mod records;
mod retention;
mod schedules;
mod time;
mod transfer;
mod versions;
mod workflows;

pub use aggregates::*;
pub use alert::*;
pub use catalogue::{Message, Request};
pub use envelope::*;
pub use explain::*;
pub use lifecycle::*;
pub use listing::*;
pub use metrics::*;
pub use observe::*;
pub use queues::*;
pub use records::*;
pub use retention::*;
pub use schedules::*;
pub use time::WireTime;
pub use transfer::*;
pub use versions::*;
pub use workflows::*;

use serde::{Deserialize, Serialize};

/// The largest message either side has to accept, in bytes. Whole result sets and exports travel in
/// one message.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024 * 1024;

/// The code with which an executor closes the connection that has stopped for good: it has drained and handed
/// back what was left, and the process does not dial again. Our own: close codes of other SDKs mean nothing, some
/// send 1000 before each new dial. It is of the range that RFC 6455 leaves to applications.
pub const CLOSE_LEFT: u16 = 4000;

/// The answer of a request that returns nothing but its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Whether it worked. May be false without an `error_message` (Java, when an exception has no text).
    #[serde(default, deserialize_with = "lenient::flag")]
    pub success: bool,
}

impl Success {
    /// The answer of a request that worked.
    pub const YES: Self = Self { success: true };
    /// The answer of a request that failed.
    pub const NO: Self = Self { success: false };
}
