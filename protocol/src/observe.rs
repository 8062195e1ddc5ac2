//! What a workflow published and received: events, messages, streams.

use crate::lenient;
use serde::{Deserialize, Serialize};

macro_rules! of_one_workflow {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The workflow's id. An unknown one is not an error.
            pub workflow_id: String,
        }
    };
}

of_one_workflow!(
    /// The current values of a workflow's events.
    GetWorkflowEvents
);
of_one_workflow!(
    /// The messages sent to a workflow.
    GetWorkflowNotifications
);
of_one_workflow!(
    /// The values a workflow wrote to its streams.
    GetWorkflowStreams
);

/// The current values of a workflow's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflowEventsResponse {
    /// One entry a key.
    #[serde(default, deserialize_with = "lenient::records")]
    pub events: Vec<EventRecord>,
}

/// The current value of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its key.
    pub key: String,
    /// Its value, rendered for people in the SDK's own way.
    #[serde(default, deserialize_with = "lenient::text")]
    pub value: Option<String>,
}

/// The messages sent to a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflowNotificationsResponse {
    /// Oldest first.
    #[serde(default, deserialize_with = "lenient::records")]
    pub notifications: Vec<NotificationRecord>,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRecord {
    /// Its topic; none is a topic of its own.
    #[serde(default, deserialize_with = "lenient::text")]
    pub topic: Option<String>,
    /// The message, rendered for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub message: Option<String>,
    /// When it was sent, milliseconds since the epoch.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub created_at_epoch_ms: Option<i64>,
    /// Whether the workflow has received it.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub consumed: bool,
}

/// The values a workflow wrote to its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkflowStreamsResponse {
    /// One entry a stream. Go sends null for none.
    #[serde(default, deserialize_with = "lenient::records")]
    pub streams: Vec<StreamRecord>,
}

/// One stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its key.
    pub key: String,
    /// Its values in the order written, rendered for people.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub values: Vec<String>,
}
