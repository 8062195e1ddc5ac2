//! The list of all messages: what ties a `type` to its request and response.

use crate::envelope::RequestError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A request of the catalogue and the response it gets.
pub trait Message: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// The value of the `type` member of both.
    const TYPE: &'static str;
    /// The response's members, without the envelope.
    type Response: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
}

macro_rules! catalogue {
    ($($type:literal => $request:ident, $response:ty;)+) => {
        $(impl Message for crate::$request {
            const TYPE: &'static str = $type;
            type Response = $response;
        })+

        /// Any request, as an executor receives it.
        #[derive(Clone, Debug)]
        pub enum Request {
            $(#[doc = concat!("`", $type, "`")] $request(crate::$request),)+
            /// A type that is not in the catalogue; answer with [`UNKNOWN_TYPE`](crate::UNKNOWN_TYPE).
            Unknown {
                /// The type it names.
                r#type: String,
            },
        }

        impl Request {
            /// Every `type` of the catalogue.
            pub const TYPES: &'static [&'static str] = &[$($type),+];

            /// The request's `type`.
            pub fn message_type(&self) -> &str {
                match self {
                    $(Self::$request(_) => $type,)+
                    Self::Unknown { r#type } => r#type,
                }
            }

            pub(crate) fn parse(r#type: &str, text: &str) -> Result<Self, serde_json::Error> {
                Ok(match r#type {
                    $($type => Self::$request(serde_json::from_str(text)?),)+
                    other => Self::Unknown { r#type: other.to_owned() },
                })
            }
        }
    };
}

catalogue! {
    "executor_info" => ExecutorInfo, crate::ExecutorInfoResponse;
    "recovery" => Recovery, crate::Success;
    "exist_pending_workflows" => ExistPendingWorkflows, crate::ExistPendingWorkflowsResponse;
    "cancel" => Cancel, crate::Success;
    "delete" => Delete, crate::Success;
    "resume" => Resume, crate::Success;
    "restart" => Restart, crate::Success;
    "rewind_workflow" => RewindWorkflow, crate::Success;
    "fork_workflow" => ForkWorkflow, crate::ForkWorkflowResponse;
    "fork_from_failure" => ForkFromFailure, crate::ForkFromFailureResponse;
    "list_workflows" => ListWorkflows, crate::ListWorkflowsResponse;
    "list_queued_workflows" => ListQueuedWorkflows, crate::ListWorkflowsResponse;
    "get_workflow" => GetWorkflow, crate::GetWorkflowResponse;
    "list_steps" => ListSteps, crate::ListStepsResponse;
    "get_workflow_events" => GetWorkflowEvents, crate::GetWorkflowEventsResponse;
    "get_workflow_notifications" => GetWorkflowNotifications, crate::GetWorkflowNotificationsResponse;
    "get_workflow_streams" => GetWorkflowStreams, crate::GetWorkflowStreamsResponse;
    "get_workflow_aggregates" => GetWorkflowAggregates, crate::GetWorkflowAggregatesResponse;
    "get_step_aggregates" => GetStepAggregates, crate::GetStepAggregatesResponse;
    "get_metrics" => GetMetrics, crate::GetMetricsResponse;
    "alert" => Alert, crate::Success;
    "retention" => Retention, crate::Success;
    "export_workflow" => ExportWorkflow, crate::ExportWorkflowResponse;
    "import_workflow" => ImportWorkflow, crate::Success;
    "list_schedules" => ListSchedules, crate::ListSchedulesResponse;
    "get_schedule" => GetSchedule, crate::GetScheduleResponse;
    "pause_schedule" => PauseSchedule, crate::Success;
    "resume_schedule" => ResumeSchedule, crate::Success;
    "trigger_schedule" => TriggerSchedule, crate::TriggerScheduleResponse;
    "backfill_schedule" => BackfillSchedule, crate::BackfillScheduleResponse;
    "list_application_versions" => ListApplicationVersions, crate::ListApplicationVersionsResponse;
    "set_latest_application_version" => SetLatestApplicationVersion, crate::Success;
    "list_queues" => ListQueues, crate::ListQueuesResponse;
    "get_queue" => GetQueue, crate::GetQueueResponse;
    "segno_explain" => SegnoExplain, crate::SegnoExplainResponse;
}

/// A request as an executor receives it, with the id to answer to.
#[derive(Clone, Debug)]
pub struct RequestFrame {
    /// To be repeated in the response, verbatim.
    pub request_id: String,
    /// What is asked.
    pub request: Request,
}

impl RequestFrame {
    pub(crate) fn parse(text: &str) -> Result<Self, RequestError> {
        let (r#type, request_id) = crate::envelope::address(text)?;
        match Request::parse(&r#type, text) {
            Ok(request) => Ok(Self {
                request_id,
                request,
            }),
            Err(error) => Err(RequestError {
                r#type: Some(r#type),
                request_id: Some(request_id),
                reason: crate::envelope::reason(&error),
            }),
        }
    }
}
