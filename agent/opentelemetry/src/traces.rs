//! Sending spans to an OpenTelemetry collector.

use std::fmt;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use segno::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::otlp::Exporter;

/// What the sending itself is made of: spans of it would have to be sent, too.
const SENDING: [&str; 5] = ["opentelemetry", "reqwest", "hyper", "h2", "rustls"];

/// Where spans go: batches of them, by OTLP over HTTP (JSON) unless [told otherwise](Self::with).
///
/// Nothing waits for the collector; what it does not take is dropped.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Spans of this service to the collector at this URL, whose path `/v1/traces` takes them. Call it within the
    /// application's tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the URL cannot be used, or outside of a runtime.
    pub fn to_collector(service: &str, url: &str) -> Result<Self> {
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        let exporter = exporter("collector", &endpoint, HeaderMap::new())?;
        Ok(Self::with(service, exporter))
    }

    /// As the standard variables say: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`
    /// (`http://localhost:4318` if neither is set), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`. Call it within the application's tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if one of them cannot be used, or outside of a runtime.
    pub fn from_env() -> Result<Self> {
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (name, endpoint) = match (set(TRACES), set(ALL)) {
            (Some(endpoint), _) => (TRACES, endpoint),
            (None, base) => {
                let base = base.unwrap_or_else(|| "http://localhost:4318".to_owned());
                (ALL, format!("{}/v1/traces", base.trim_end_matches('/')))
            }
        };
        let headers = headers(&set("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default())?;
        let exporter = exporter(name, &endpoint, headers)?;
        Ok(Self::of(Resource::builder().build(), exporter))
    }

    /// Spans of this service to an exporter of one's own: that of crate `opentelemetry-otlp`, for gRPC.
    pub fn with(service: &str, exporter: impl SpanExporter + 'static) -> Self {
        let resource = Resource::builder().with_service_name(service.to_owned());
        Self::of(resource.build(), exporter)
    }

    fn of(resource: Resource, exporter: impl SpanExporter + 'static) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter);
        Self(provider.build())
    }

    /// The layer for the application's `tracing` subscriber.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let foreign = filter_fn(|of| {
            let top = of.target().split("::").next().unwrap_or_default();
            !SENDING.iter().any(|sending| top.starts_with(sending))
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("segno"))
            .with_filter(foreign)
    }

    /// Sends what there is now.
    ///
    /// # Errors
    /// If the collector does not take it.
    pub async fn flush(&self) -> Result<()> {
        let provider = self.0.clone();
        let flushed = tokio::task::spawn_blocking(move || provider.force_flush()).await;
        Ok(flushed??)
    }

    /// Sends what is left, and stops. Call it last.
    ///
    /// # Errors
    /// If the collector does not take it.
    pub async fn shutdown(self) -> Result<()> {
        let provider = self.0;
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        Ok(stopped??)
    }
}

fn exporter(setting: &str, endpoint: &str, headers: HeaderMap) -> Result<Exporter> {
    let wrong = |_| config(setting, "it is a URL such as http://127.0.0.1:4318");
    let endpoint = reqwest::Url::parse(endpoint).map_err(wrong)?;
    let outside = |_| {
        config(
            setting,
            "traces are sent on a tokio runtime: call this within one",
        )
    };
    let runtime = Handle::try_current().map_err(outside)?;
    Exporter::new(endpoint, headers, runtime).map_err(|error| config(setting, error))
}

/// `name=value,name=value`, the values encoded as in URLs. They may be secrets: no error shows them.
fn headers(text: &str) -> Result<HeaderMap> {
    let wrong = || {
        let message = "it is a list such as `authorization=Bearer%20x,tenant=7`";
        config("OTEL_EXPORTER_OTLP_HEADERS", message)
    };
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        let value = percent_decode_str(value.trim()).decode_utf8_lossy();
        let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn config(setting: &str, reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config {
        setting: setting.to_owned(),
        message: reason.to_string(),
    })
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}
