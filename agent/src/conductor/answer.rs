//! What each request is answered with.

use std::sync::Arc;

use segno_protocol::{
    Alert, BackfillSchedule, BackfillScheduleResponse, Cancel, Delete, ExecutorInfo,
    ExecutorInfoResponse, ExistPendingWorkflows, ExistPendingWorkflowsResponse, ExportWorkflow,
    ExportWorkflowResponse, ForkFromFailure, ForkFromFailureResponse, ForkWorkflow,
    ForkWorkflowResponse, GetMetrics, GetMetricsResponse, GetQueue, GetQueueResponse, GetSchedule,
    GetScheduleResponse, GetStepAggregates, GetStepAggregatesResponse, GetWorkflow,
    GetWorkflowAggregates, GetWorkflowAggregatesResponse, GetWorkflowEvents,
    GetWorkflowEventsResponse, GetWorkflowNotifications, GetWorkflowNotificationsResponse,
    GetWorkflowResponse, GetWorkflowStreams, GetWorkflowStreamsResponse, ImportWorkflow,
    ListApplicationVersions, ListApplicationVersionsResponse, ListQueuedWorkflows, ListQueues,
    ListQueuesResponse, ListSchedules, ListSchedulesResponse, ListSteps, ListStepsResponse,
    ListWorkflows, ListWorkflowsResponse, Message, PauseSchedule, Recovery, Request, RequestFrame,
    Restart, Resume, ResumeSchedule, Retention, RetentionLimits, RewindWorkflow, SegnoExplain,
    SegnoExplainResponse, SetLatestApplicationVersion, Success, TriggerSchedule,
    TriggerScheduleResponse, UNKNOWN_TYPE, WorkflowFilter, encode_error, encode_failure,
    encode_response,
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::session::one_line;
use super::{ConductorConfig, Hooks, convert};
use crate::system_database::{self as db, DatabaseError, Scope, SystemDatabase};

/// Workflows deleted per transaction when the server does not say.
const DEFAULT_BATCH: i64 = 10_000;

/// This process as the control plane sees it.
pub(super) struct Executor {
    config: ConductorConfig,
    db: SystemDatabase,
    hooks: Hooks,
    /// Our own application's rows, and those of nobody.
    scope: Scope,
    /// Held by the round of retention that is running.
    retention: Arc<Mutex<()>>,
    stop: CancellationToken,
}

type Answer<T> = Result<T, DatabaseError>;

/// Encodes an answer; a failed one has empty-looking data and one line of what failed and why.
fn reply<M: Message>(request_id: &str, answer: Answer<M::Response>) -> String
where
    M::Response: Default,
{
    match answer {
        Ok(response) => encode_response::<M>(request_id, &response),
        Err(e) => {
            let reason = one_line(&format!("{} failed: {e}", M::TYPE));
            tracing::warn!(request = M::TYPE, error = %e, "could not do what the control plane asked for");
            encode_failure::<M>(request_id, &M::Response::default(), &reason)
        }
    }
}

impl Executor {
    pub(super) fn new(
        config: ConductorConfig,
        db: SystemDatabase,
        hooks: Hooks,
        stop: CancellationToken,
    ) -> Self {
        let scope = Scope::of(&config.app_name);
        Self {
            config,
            db,
            hooks,
            scope,
            retention: Arc::default(),
            stop,
        }
    }

    /// Does what is asked and returns the text of the answer.
    pub(super) async fn answer(&self, frame: RequestFrame) -> String {
        let id = frame.request_id.as_str();
        match frame.request {
            Request::ExecutorInfo(_) => reply::<ExecutorInfo>(id, Ok(self.introduce())),
            Request::Recovery(m) => reply::<Recovery>(id, self.recover(m).await),
            Request::ExistPendingWorkflows(m) => {
                reply::<ExistPendingWorkflows>(id, self.exist_pending(m).await)
            }
            Request::Cancel(m) => reply::<Cancel>(id, self.cancel(m).await),
            Request::Delete(m) => reply::<Delete>(id, self.delete(m).await),
            Request::Resume(m) => reply::<Resume>(id, self.resume(m).await),
            Request::Restart(m) => reply::<Restart>(id, self.restart(m).await),
            Request::RewindWorkflow(m) => reply::<RewindWorkflow>(id, self.rewind(m).await),
            Request::ForkWorkflow(m) => reply::<ForkWorkflow>(id, self.fork(m).await),
            Request::ForkFromFailure(m) => {
                reply::<ForkFromFailure>(id, self.fork_from_failure(m).await)
            }
            Request::ListWorkflows(m) => reply::<ListWorkflows>(id, self.list(&m.body).await),
            Request::ListQueuedWorkflows(m) => {
                let body = WorkflowFilter {
                    queues_only: true,
                    ..m.body
                };
                reply::<ListQueuedWorkflows>(id, self.list(&body).await)
            }
            Request::GetWorkflow(m) => reply::<GetWorkflow>(id, self.get_workflow(m).await),
            Request::ListSteps(m) => reply::<ListSteps>(id, self.list_steps(m).await),
            Request::GetWorkflowEvents(m) => reply::<GetWorkflowEvents>(id, self.events(m).await),
            Request::GetWorkflowNotifications(m) => {
                reply::<GetWorkflowNotifications>(id, self.messages(m).await)
            }
            Request::GetWorkflowStreams(m) => {
                reply::<GetWorkflowStreams>(id, self.streams(m).await)
            }
            Request::GetWorkflowAggregates(m) => {
                reply::<GetWorkflowAggregates>(id, self.workflow_aggregates(m).await)
            }
            Request::GetStepAggregates(m) => {
                reply::<GetStepAggregates>(id, self.step_aggregates(m).await)
            }
            Request::GetMetrics(m) => reply::<GetMetrics>(id, self.metrics(m).await),
            Request::Alert(m) => reply::<Alert>(id, self.alert(m).await),
            Request::Retention(m) => reply::<Retention>(id, self.retention(m.body)),
            Request::ExportWorkflow(m) => reply::<ExportWorkflow>(id, self.export(m).await),
            Request::ImportWorkflow(m) => reply::<ImportWorkflow>(id, self.import(m).await),
            Request::ListSchedules(m) => reply::<ListSchedules>(id, self.list_schedules(m).await),
            Request::GetSchedule(m) => reply::<GetSchedule>(id, self.get_schedule(m).await),
            Request::PauseSchedule(m) => {
                reply::<PauseSchedule>(id, self.pause(&m.schedule_name, true).await)
            }
            Request::ResumeSchedule(m) => {
                reply::<ResumeSchedule>(id, self.pause(&m.schedule_name, false).await)
            }
            Request::TriggerSchedule(m) => reply::<TriggerSchedule>(id, self.trigger(m).await),
            Request::BackfillSchedule(m) => reply::<BackfillSchedule>(id, self.backfill(m).await),
            Request::ListApplicationVersions(_) => {
                reply::<ListApplicationVersions>(id, self.list_versions().await)
            }
            Request::SetLatestApplicationVersion(m) => {
                let set = self
                    .db
                    .set_latest_version(&self.config.app_name, &m.version_name)
                    .await;
                reply::<SetLatestApplicationVersion>(id, set.map(|()| Success::YES))
            }
            Request::ListQueues(m) => reply::<ListQueues>(id, self.list_queues(m).await),
            Request::GetQueue(m) => reply::<GetQueue>(id, self.get_queue(m).await),
            Request::SegnoExplain(m) => self.explain(id, &m),
            Request::Unknown { r#type } => encode_error(&r#type, id, UNKNOWN_TYPE),
        }
    }

    fn introduce(&self) -> ExecutorInfoResponse {
        ExecutorInfoResponse {
            executor_id: Some(self.config.executor_id.clone()),
            application_version: Some(self.config.app_version.clone()),
            hostname: Some(gethostname::gethostname().to_string_lossy().into_owned()),
            language: Some("rust".to_owned()),
            dbos_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            executor_metadata: self.config.metadata.clone(),
        }
    }

    /// Something was enqueued: whoever dequeues may look at once.
    fn wake(&self) {
        if let Some(wake) = &self.hooks.wake {
            wake();
        }
    }

    async fn recover(&self, message: Recovery) -> Answer<Success> {
        let ids = message.executor_ids();
        let recovered = self
            .db
            .recover_executors(ids, &self.config.app_version, &self.scope)
            .await?;
        tracing::info!(executors = ?ids, workflows = recovered.len(), "took over the workflows of lost executors");
        if !recovered.is_empty() {
            self.wake();
        }
        Ok(Success::YES)
    }

    async fn exist_pending(
        &self,
        message: ExistPendingWorkflows,
    ) -> Answer<ExistPendingWorkflowsResponse> {
        let (executor, version) = (&message.executor_id, &message.application_version);
        let exist = self
            .db
            .exist_pending_workflows(executor, version, &self.scope)
            .await?;
        Ok(ExistPendingWorkflowsResponse { exist })
    }

    async fn cancel(&self, message: Cancel) -> Answer<Success> {
        self.db
            .cancel_workflows(message.ids(), message.cancel_children)
            .await?;
        Ok(Success::YES)
    }

    async fn delete(&self, message: Delete) -> Answer<Success> {
        self.db
            .delete_workflows(message.ids(), message.delete_children)
            .await?;
        Ok(Success::YES)
    }

    async fn resume(&self, message: Resume) -> Answer<Success> {
        self.db
            .resume_workflows(message.ids(), message.queue_name.as_deref())
            .await?;
        self.wake();
        Ok(Success::YES)
    }

    async fn restart(&self, message: Restart) -> Answer<Success> {
        let fork = db::Fork {
            workflow_id: message.workflow_id,
            ..db::Fork::default()
        };
        self.db
            .fork_workflows(&[fork], &self.config.app_name)
            .await?;
        self.wake();
        Ok(Success::YES)
    }

    async fn rewind(&self, message: RewindWorkflow) -> Answer<Success> {
        let body = message.body;
        let rewind = db::Rewind {
            workflow_id: body.workflow_id,
            start_step: body.start_step.unwrap_or(0),
            application_version: body.application_version,
            queue_name: body.queue_name,
            queue_partition_key: body.queue_partition_key,
        };
        self.db.rewind_workflow(&rewind).await?;
        self.wake();
        Ok(Success::YES)
    }

    async fn fork(&self, message: ForkWorkflow) -> Answer<ForkWorkflowResponse> {
        let body = message.body;
        let fork = db::Fork {
            workflow_id: body.workflow_id,
            start_step: i64::from(body.start_step),
            new_workflow_id: body.new_workflow_id,
            options: db::ForkOptions {
                application_version: body.application_version,
                queue_name: body.queue_name,
                queue_partition_key: body.queue_partition_key,
                ..db::ForkOptions::default()
            },
        };
        let ids = self
            .db
            .fork_workflows(&[fork], &self.config.app_name)
            .await?;
        self.wake();
        Ok(ForkWorkflowResponse {
            new_workflow_id: ids.into_iter().next(),
        })
    }

    async fn fork_from_failure(&self, message: ForkFromFailure) -> Answer<ForkFromFailureResponse> {
        let body = message.body;
        let point = body
            .point()
            .map_err(|e| DatabaseError::Invalid(e.to_owned()))?;
        let options = db::ForkOptions {
            application_version: body.application_version,
            queue_name: body.queue_name,
            queue_partition_key: body.queue_partition_key,
            ..db::ForkOptions::default()
        };
        let point = convert::fork_point(point);
        let ids = self
            .db
            .fork_workflows_at(&body.workflow_ids, &point, &options, &self.config.app_name)
            .await?;
        self.wake();
        Ok(ForkFromFailureResponse {
            forked_workflow_ids: Some(ids),
        })
    }

    /// Whether payloads may leave this process.
    fn shows_payloads(&self) -> bool {
        !self.hooks.metadata_only
    }

    async fn list(&self, body: &WorkflowFilter) -> Answer<ListWorkflowsResponse> {
        let filter = convert::workflow_filter(body, &self.scope);
        let mut listing = convert::listing(body);
        listing.load_input &= self.shows_payloads();
        listing.load_output &= self.shows_payloads();
        let rows = self.db.list_workflows(&filter, &listing).await?;
        Ok(ListWorkflowsResponse {
            output: rows.into_iter().map(convert::workflow).collect(),
        })
    }

    async fn get_workflow(&self, message: GetWorkflow) -> Answer<GetWorkflowResponse> {
        let row = self
            .db
            .get_workflow(
                &message.workflow_id,
                message.load_input && self.shows_payloads(),
                message.load_output && self.shows_payloads(),
            )
            .await?;
        Ok(GetWorkflowResponse {
            output: row.map(convert::workflow),
        })
    }

    async fn list_steps(&self, message: ListSteps) -> Answer<ListStepsResponse> {
        let (limit, offset) = convert::steps_page(&message);
        let load_output = message.load_output && self.shows_payloads();
        let rows = self
            .db
            .list_steps(&message.workflow_id, load_output, limit, offset)
            .await?;
        Ok(ListStepsResponse {
            output: Some(rows.into_iter().map(convert::step).collect()),
        })
    }

    async fn events(&self, message: GetWorkflowEvents) -> Answer<GetWorkflowEventsResponse> {
        if !self.shows_payloads() {
            return Ok(GetWorkflowEventsResponse::default());
        }
        let events = self.db.workflow_events(&message.workflow_id).await?;
        Ok(GetWorkflowEventsResponse {
            events: events.into_iter().map(convert::event).collect(),
        })
    }

    async fn messages(
        &self,
        message: GetWorkflowNotifications,
    ) -> Answer<GetWorkflowNotificationsResponse> {
        if !self.shows_payloads() {
            return Ok(GetWorkflowNotificationsResponse::default());
        }
        let rows = self.db.workflow_messages(&message.workflow_id).await?;
        Ok(GetWorkflowNotificationsResponse {
            notifications: rows.into_iter().map(convert::message).collect(),
        })
    }

    async fn streams(&self, message: GetWorkflowStreams) -> Answer<GetWorkflowStreamsResponse> {
        if !self.shows_payloads() {
            return Ok(GetWorkflowStreamsResponse::default());
        }
        let streams = self.db.workflow_streams(&message.workflow_id).await?;
        Ok(GetWorkflowStreamsResponse {
            streams: streams.into_iter().map(convert::stream).collect(),
        })
    }

    async fn workflow_aggregates(
        &self,
        message: GetWorkflowAggregates,
    ) -> Answer<GetWorkflowAggregatesResponse> {
        let body = message.body;
        let groups = convert::workflow_groups(&body);
        let figures = convert::workflow_figures(&body);
        let filter = convert::aggregate_filter(&body.filter, &self.scope);
        let rows = self
            .db
            .aggregate_workflows(&groups, body.time_bucket_size_ms, &figures, &filter)
            .await?;
        Ok(GetWorkflowAggregatesResponse {
            output: rows.into_iter().map(convert::workflow_aggregate).collect(),
        })
    }

    async fn step_aggregates(
        &self,
        message: GetStepAggregates,
    ) -> Answer<GetStepAggregatesResponse> {
        let body = message.body;
        let (groups, figures) = (convert::step_groups(&body), convert::step_figures(&body));
        let filter = convert::step_filter(&body, &self.scope);
        let rows = self
            .db
            .aggregate_steps(&groups, body.time_bucket_size_ms, &figures, &filter)
            .await?;
        Ok(GetStepAggregatesResponse {
            output: rows.into_iter().map(convert::step_aggregate).collect(),
        })
    }

    async fn metrics(&self, message: GetMetrics) -> Answer<GetMetricsResponse> {
        if message.metric_class != GetMetrics::WORKFLOW_STEP_COUNT {
            return Err(DatabaseError::Invalid(format!(
                "unknown metric_class {:?}",
                message.metric_class
            )));
        }
        let scope = convert::scope(&message.application_name, &self.scope);
        let metrics = self
            .db
            .workflow_and_step_counts(message.start_time.0, message.end_time.0, &scope)
            .await?;
        Ok(GetMetricsResponse {
            metrics: metrics.into_iter().map(convert::metric).collect(),
        })
    }

    async fn alert(&self, alert: Alert) -> Answer<Success> {
        match &self.hooks.alert {
            Some(handler) => handler(alert).await.map_err(DatabaseError::Invalid)?,
            None => tracing::warn!(
                name = alert.name,
                message = alert.message,
                metadata = ?alert.metadata,
                "the control plane reports an alert"
            ),
        }
        Ok(Success::YES)
    }

    /// Starts a round and answers at once; a round that is still running is left to finish instead.
    fn retention(&self, limits: RetentionLimits) -> Answer<Success> {
        if limits.gc_rows_threshold.is_some_and(|rows| rows <= 0) {
            return Err(DatabaseError::Invalid(
                "gc_rows_threshold must be above 0".to_owned(),
            ));
        }
        let Ok(round) = Arc::clone(&self.retention).try_lock_owned() else {
            tracing::info!("the last round of retention is still running; skipped this one");
            return Ok(Success::YES);
        };
        let (db, scope, stop) = (self.db.clone(), self.scope.clone(), self.stop.clone());
        tokio::spawn(async move {
            let _round = round;
            tokio::select! {
                () = stop.cancelled() => {}
                () = run_retention(&db, limits, scope) => {}
            }
        });
        Ok(Success::YES)
    }

    async fn export(&self, message: ExportWorkflow) -> Answer<ExportWorkflowResponse> {
        if !self.shows_payloads() {
            let message = "this application shows the control plane no payloads (metadata_only); export with `segno workflow export`";
            return Err(DatabaseError::Invalid(message.to_owned()));
        }
        let blob = self
            .db
            .export_workflow(&message.workflow_id, message.export_children)
            .await?;
        Ok(ExportWorkflowResponse {
            serialized_workflow: Some(blob),
        })
    }

    async fn import(&self, message: ImportWorkflow) -> Answer<Success> {
        self.db
            .import_workflows(&message.serialized_workflow)
            .await?;
        self.wake();
        Ok(Success::YES)
    }

    async fn list_schedules(&self, message: ListSchedules) -> Answer<ListSchedulesResponse> {
        let load_context = message.body.load_context;
        let rows = self
            .db
            .list_schedules(&convert::schedule_filter(&message.body, &self.scope))
            .await?;
        let output = rows
            .into_iter()
            .map(|row| convert::schedule(row, load_context))
            .collect();
        Ok(ListSchedulesResponse { output })
    }

    async fn get_schedule(&self, message: GetSchedule) -> Answer<GetScheduleResponse> {
        let row = self.db.get_schedule(&message.schedule_name).await?;
        Ok(GetScheduleResponse {
            output: row.map(|row| convert::schedule(row, message.load_context)),
        })
    }

    /// An unknown schedule is no error, as with most SDKs.
    async fn pause(&self, name: &str, paused: bool) -> Answer<Success> {
        self.db.set_schedule_paused(name, paused).await?;
        Ok(Success::YES)
    }

    async fn trigger(&self, message: TriggerSchedule) -> Answer<TriggerScheduleResponse> {
        let workflow_id = self
            .db
            .trigger_schedule(&message.schedule_name, &self.config.app_name)
            .await?;
        self.wake();
        Ok(TriggerScheduleResponse {
            workflow_id: Some(workflow_id),
        })
    }

    async fn backfill(&self, message: BackfillSchedule) -> Answer<BackfillScheduleResponse> {
        let workflow_ids = self
            .db
            .backfill_schedule(
                &message.schedule_name,
                message.start.0,
                message.end.0,
                &self.config.app_name,
            )
            .await?;
        self.wake();
        Ok(BackfillScheduleResponse { workflow_ids })
    }

    async fn list_versions(&self) -> Answer<ListApplicationVersionsResponse> {
        let rows = self.db.list_versions(&self.scope).await?;
        Ok(ListApplicationVersionsResponse {
            output: rows.into_iter().map(convert::version).collect(),
        })
    }

    async fn list_queues(&self, message: ListQueues) -> Answer<ListQueuesResponse> {
        let scope = convert::scope(&message.body.application_name, &self.scope);
        let rows = self.db.list_queues(&scope).await?;
        Ok(ListQueuesResponse {
            output: rows.into_iter().map(convert::queue).collect(),
        })
    }

    async fn get_queue(&self, message: GetQueue) -> Answer<GetQueueResponse> {
        Ok(GetQueueResponse {
            output: self.db.get_queue(&message.name).await?.map(convert::queue),
        })
    }

    fn explain(&self, request_id: &str, message: &SegnoExplain) -> String {
        match &self.hooks.explain {
            Some(explain) => {
                let response = SegnoExplainResponse {
                    waiting_on: explain(&message.workflow_id),
                };
                encode_response::<SegnoExplain>(request_id, &response)
            }
            None => encode_error(SegnoExplain::TYPE, request_id, UNKNOWN_TYPE),
        }
    }
}

async fn run_retention(db: &SystemDatabase, limits: RetentionLimits, scope: Scope) {
    let retention = db::Retention {
        finished_before: limits.gc_cutoff_epoch_ms,
        keep_newest: limits.gc_rows_threshold,
        batch_size: limits
            .gc_batch_size
            .filter(|size| *size > 0)
            .unwrap_or(DEFAULT_BATCH),
        scope: scope.clone(),
    };
    match db.delete_history(&retention).await {
        Ok(deleted) => tracing::info!(deleted, "deleted the history of finished workflows"),
        Err(e) => tracing::warn!(error = %e, "retention could not delete all it should"),
    }
    if let Some(cutoff) = limits.timeout_cutoff_epoch_ms {
        match db.cancel_workflows_created_before(cutoff, &scope).await {
            Ok(cancelled) => tracing::info!(cancelled, "cancelled workflows that took too long"),
            Err(e) => tracing::warn!(error = %e, "could not cancel workflows that took too long"),
        }
    }
}
