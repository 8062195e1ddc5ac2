//! The trace that goes along with a run, as W3C Trace Context writes it.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use segno::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Runs go on with the trace that they are started in: the one of the current span, else OpenTelemetry's current
/// context. What travels is `traceparent` and `tracestate`.
#[derive(Debug, Clone, Copy, Default)]
pub struct W3c;

impl TraceContext for W3c {
    fn current(&self) -> HashMap<String, String> {
        let of_span = Span::current().context();
        let context = if of_span.span().span_context().is_valid() {
            of_span
        } else {
            Context::current()
        };
        let mut headers = HashMap::new();
        if context.span().span_context().is_valid() {
            TraceContextPropagator::new().inject_context(&context, &mut headers);
        }
        // Empty unless a vendor put something there.
        headers.retain(|_, value| !value.is_empty());
        headers
    }

    fn join(&self, span: &Span, headers: &HashMap<String, String>) {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), headers);
        if context.span().span_context().is_valid() {
            // A subscriber without OpenTelemetry has no use for it.
            let _ = span.set_parent(context);
        }
    }
}
