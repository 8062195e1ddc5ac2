//! Queues that are stored in the database.

use crate::lenient;
use crate::records::QueueRecord;
use serde::{Deserialize, Serialize};

/// Lists queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQueues {
    /// Which. Always written.
    #[serde(default)]
    pub body: QueueFilter,
}

/// Which queues to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFilter {
    /// Owners; any if empty.
    #[serde(
        default,
        deserialize_with = "lenient::strings",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub application_name: Vec<String>,
}

/// The queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListQueuesResponse {
    /// A record that cannot be read is left out.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<QueueRecord>,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetQueue {
    /// Its name.
    pub name: String,
}

/// One queue, if there is one of that name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetQueueResponse {
    /// None if there is none, which is not an error.
    #[serde(default)]
    pub output: Option<QueueRecord>,
}
