//! The exporter: batches of spans as OTLP over HTTP in its JSON form.
//!
//! `opentelemetry-otlp` would bring protobuf and its compiler along for messages this small; who wants it, or gRPC,
//! gives it to [`Traces::with`](crate::Traces::with).
//! The form: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Event, Link, SpanId, SpanKind, Status};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use serde_json::{Value as Json, json};
use tokio::runtime::Handle;

/// A collector that does not answer within this time has not taken a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Posts spans to a collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    client: reqwest::Client,
    endpoint: reqwest::Url,
    /// Sending happens on the application's runtime: the processor of batches has a thread of its own, outside of it.
    runtime: Handle,
    resource: Vec<Json>,
}

impl Exporter {
    /// To this URL, with these headers in each request.
    pub(crate) fn new(
        endpoint: reqwest::Url,
        headers: reqwest::header::HeaderMap,
        runtime: Handle,
    ) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .default_headers(headers)
            .build()?;
        Ok(Self {
            client,
            endpoint,
            runtime,
            resource: Vec::new(),
        })
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans: Vec<Json> = batch.iter().map(span).collect();
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": self.resource },
            "scopeSpans": [{ "scope": { "name": "segno" }, "spans": spans }],
        }] });
        let request = self.client.post(self.endpoint.clone()).json(&body);
        let sent = self
            .runtime
            .spawn(async move { request.send().await?.error_for_status() });
        // Without the URL: it may hold a token.
        let failed = |reason: String| Err(OTelSdkError::InternalFailure(reason));
        match sent.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => failed(error.without_url().to_string()),
            Err(error) => failed(error.to_string()),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        let attributes = resource.iter();
        self.resource = attributes
            .map(|(key, of)| json!({ "key": key.as_str(), "value": value(of) }))
            .collect();
    }
}

fn span(of: &SpanData) -> Json {
    let context = &of.span_context;
    let mut span = json!({
        "traceId": context.trace_id().to_string(),
        "spanId": context.span_id().to_string(),
        "traceState": context.trace_state().header(),
        "flags": context.trace_flags().to_u8(),
        "name": of.name,
        "kind": kind(&of.span_kind),
        "startTimeUnixNano": nanos(of.start_time),
        "endTimeUnixNano": nanos(of.end_time),
        "attributes": attributes(&of.attributes),
        "droppedAttributesCount": of.dropped_attributes_count,
        "events": of.events.iter().map(event).collect::<Vec<_>>(),
        "droppedEventsCount": of.events.dropped_count,
        "links": of.links.iter().map(link).collect::<Vec<_>>(),
        "droppedLinksCount": of.links.dropped_count,
        "status": status(&of.status),
    });
    if of.parent_span_id != SpanId::INVALID {
        span["parentSpanId"] = of.parent_span_id.to_string().into();
    }
    span
}

fn kind(of: &SpanKind) -> u8 {
    match of {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn status(of: &Status) -> Json {
    match of {
        Status::Unset => json!({}),
        Status::Ok => json!({ "code": 1 }),
        Status::Error { description } => json!({ "code": 2, "message": description }),
    }
}

fn event(of: &Event) -> Json {
    json!({
        "timeUnixNano": nanos(of.timestamp),
        "name": of.name,
        "attributes": attributes(&of.attributes),
        "droppedAttributesCount": of.dropped_attributes_count,
    })
}

fn link(of: &Link) -> Json {
    json!({
        "traceId": of.span_context.trace_id().to_string(),
        "spanId": of.span_context.span_id().to_string(),
        "traceState": of.span_context.trace_state().header(),
        "attributes": attributes(&of.attributes),
        "droppedAttributesCount": of.dropped_attributes_count,
    })
}

/// 64-bit integers are texts.
fn nanos(of: SystemTime) -> String {
    let since = of.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

fn attributes(of: &[KeyValue]) -> Vec<Json> {
    of.iter()
        .map(|each| json!({ "key": each.key.as_str(), "value": value(&each.value) }))
        .collect()
}

fn value(of: &Value) -> Json {
    let array = |values: Vec<Value>| {
        let values: Vec<Json> = values.iter().map(value).collect();
        json!({ "arrayValue": { "values": values } })
    };
    match of {
        Value::Bool(of) => json!({ "boolValue": of }),
        Value::I64(of) => json!({ "intValue": of.to_string() }),
        Value::F64(of) => json!({ "doubleValue": of }),
        Value::Array(Array::Bool(of)) => array(of.iter().copied().map(Value::from).collect()),
        Value::Array(Array::I64(of)) => array(of.iter().copied().map(Value::from).collect()),
        Value::Array(Array::F64(of)) => array(of.iter().copied().map(Value::from).collect()),
        Value::Array(Array::String(of)) => array(of.iter().cloned().map(Value::from).collect()),
        other => json!({ "stringValue": other.as_str() }),
    }
}
