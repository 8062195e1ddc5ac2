//! Spans: one for each execution of a workflow, one for each step that runs in it; and the trace they belong to,
//! which goes along with starts in an attribute of the run.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::Span;
use tracing::field::Empty;

use crate::error::{Error, Result};
use crate::execution::Execution;

/// The attribute with the trace a run was started in: an object of W3C headers. The official SDKs reserve it for
/// that, so a trace goes on across languages.
const ATTRIBUTE: &str = "dbos.otelContext";

/// How a trace goes along with the runs that are started in it; crate `segno-opentelemetry` has the one for
/// OpenTelemetry. See [`Builder::trace_context`](crate::Builder::trace_context).
pub trait TraceContext: Send + Sync + 'static {
    /// The trace that is current, as headers: `traceparent` and perhaps `tracestate` of W3C Trace Context. Empty if
    /// there is none.
    fn current(&self) -> HashMap<String, String>;

    /// Makes a span that has just been made part of the trace that these headers tell of. They come from the
    /// database: what makes no sense is to be ignored.
    fn join(&self, span: &Span, headers: &HashMap<String, String>);
}

/// What an application does with traces.
#[derive(Clone, Default)]
pub(crate) struct Tracing(pub(crate) Option<Arc<dyn TraceContext>>);

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracing").field(&self.0.is_some()).finish()
    }
}

impl Tracing {
    /// A start's attributes with the trace that it takes along: the one it is made in, else its parent's. One that
    /// the application gave is left alone.
    pub(crate) fn carried(
        &self,
        attributes: Option<String>,
        parent: Option<&Execution>,
    ) -> Result<Option<String>> {
        let Some(context) = &self.0 else {
            return Ok(attributes);
        };
        let mut headers = context.current();
        if headers.is_empty() {
            headers = parent.map(headers_of).unwrap_or_default();
        }
        if headers.is_empty() {
            return Ok(attributes);
        }
        let mut fields: Map<String, Value> = match &attributes {
            None => Map::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::serialization("attributes", error))?,
        };
        let headers = headers.into_iter().map(|(key, value)| (key, value.into()));
        fields
            .entry(ATTRIBUTE)
            .or_insert_with(|| Value::Object(headers.collect()));
        Ok(Some(Value::Object(fields).to_string()))
    }
}

/// The headers a run was started with.
fn headers_of(execution: &Execution) -> HashMap<String, String> {
    let Some(Value::Object(headers)) = execution.attributes().get(ATTRIBUTE) else {
        return HashMap::new();
    };
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    headers.iter().filter_map(text).collect()
}

/// The span of an execution; fields `otel.*` are named as OpenTelemetry wants them.
pub(crate) fn workflow_span(execution: &Execution) -> Span {
    let (queue, partition) = execution.queue();
    let span = tracing::info_span!(
        "workflow",
        otel.name = execution.name(),
        otel.kind = queue.map(|_| "consumer"),
        otel.status_code = Empty,
        otel.status_description = Empty,
        workflow.id = execution.id(),
        workflow.queue = queue,
        workflow.partition = partition,
        workflow.recovered = execution.is_recovered().then_some(true),
        application.name = execution.runtime.app_name(),
        application.version = execution.runtime.app_version(),
        executor.id = execution.runtime.executor_id(),
    );
    if !span.is_disabled()
        && let Some(context) = &execution.runtime.tracing().0
    {
        let headers = headers_of(execution);
        if !headers.is_empty() {
            context.join(&span, &headers);
        }
    }
    span
}

/// The span of a step or transaction that runs, all its attempts; a replayed one has none.
pub(crate) fn step_span(execution: &Execution, position: Option<i32>, name: &str) -> Span {
    tracing::info_span!(
        "step",
        otel.name = name,
        otel.status_code = Empty,
        otel.status_description = Empty,
        step.position = position,
        workflow.id = execution.id(),
    )
}

/// Notes in its span that a workflow or step failed. Why is for those to read who may read payloads: where these
/// are encoded, it is left out.
pub(crate) fn failed(span: &Span, execution: &Execution, error: impl FnOnce() -> Error) {
    if span.is_disabled() {
        return;
    }
    span.record("otel.status_code", "ERROR");
    if execution.runtime.payloads().codec.is_none() {
        let error = error();
        span.record("otel.status_description", tracing::field::display(&error));
    }
}
