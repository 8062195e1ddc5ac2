//! The server's own metrics. Labels are bounded: names of our own routes, messages, outcomes.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub mod applications;
pub mod exposition;
pub mod logging;

/// Buckets from a fast local answer to the longest deadline of a request.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 12.0, 24.0, 60.0,
];

/// Handles to all metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    sessions: IntGaugeVec,
    executor_requests: HistogramVec,
    websocket_refused: IntCounterVec,
    connections_refused: IntCounter,
    recoveries: IntCounterVec,
    open_recoveries: IntGaugeVec,
    recovery_seconds: HistogramVec,
    grace: HistogramVec,
    outstanding: IntGauge,
    unresponsive: IntGauge,
    alerts: IntCounterVec,
    alert_deliveries: HistogramVec,
    alert_outbox: IntGauge,
    http: HistogramVec,
    store: HistogramVec,
}

impl Metrics {
    /// A fresh registry with every metric of the server. Fails only on a duplicate or bad name,
    /// which is a fault of ours that the first test meets.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let metric = HistogramVec::new(options, labels)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let plain = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let connections_refused = IntCounter::new(
            "segno_connections_refused_total",
            "Connections refused because there were as many as allowed",
        )?;
        registry.register(Box::new(connections_refused.clone()))?;
        Ok(Self {
            connections_refused,
            sessions: gauge(
                "segno_executor_sessions",
                "Connected executors, by language",
                &["language"],
            )?,
            executor_requests: histogram(
                "segno_executor_request_seconds",
                "Time from sending a request to an executor to its answer, by message and outcome",
                &["message", "outcome"],
            )?,
            websocket_refused: counter(
                "segno_websocket_refused_total",
                "Refused connections of executors, by reason",
                &["reason"],
            )?,
            recoveries: counter(
                "segno_recoveries_total",
                "Recoveries that reached an outcome",
                &["outcome"],
            )?,
            open_recoveries: gauge(
                "segno_recoveries_open",
                "Recoveries under way or stranded, by status",
                &["status"],
            )?,
            recovery_seconds: histogram(
                "segno_recovery_seconds",
                "Time from an executor's death until its recovery ended, by outcome",
                &["outcome"],
            )?,
            grace: histogram(
                "segno_grace_seconds",
                "Time that lost executors were waited for, by how that ended",
                &["outcome"],
            )?,
            outstanding: plain(
                "segno_executor_requests_outstanding",
                "Requests to executors that are queued or not answered yet",
            )?,
            unresponsive: plain(
                "segno_executors_unresponsive",
                "Connected executors that let requests time out",
            )?,
            alerts: counter(
                "segno_alerts_total",
                "Alerts for applications' handlers, by rule type and outcome",
                &["rule", "outcome"],
            )?,
            alert_deliveries: histogram(
                "segno_alert_delivery_seconds",
                "Time of a request to a channel of alerts, by kind and outcome",
                &["kind", "outcome"],
            )?,
            alert_outbox: plain(
                "segno_alert_outbox",
                "Alerts that channels are still to be told of, by all instances",
            )?,
            http: histogram(
                "segno_http_request_seconds",
                "Time to answer an HTTP request, by operation and status",
                &["operation", "status"],
            )?,
            store: histogram(
                "segno_store_seconds",
                "Time of an operation on the server's own database",
                &["operation"],
            )?,
            registry,
        })
    }

    /// An executor connected (+1) or its session ended (-1). Unknown languages count as `other`.
    pub fn session(&self, language: &str, change: i64) {
        const KNOWN: [&str; 5] = ["python", "typescript", "go", "java", "rust"];
        let language = KNOWN
            .into_iter()
            .find(|known| *known == language)
            .unwrap_or("other");
        self.sessions.with_label_values(&[language]).add(change);
    }

    /// A request to an executor ended. `message` is the type on the wire, `outcome` one of a few
    /// constant words such as `ok`, `error`, `timeout`, `closed`.
    pub fn executor_request(&self, message: &'static str, outcome: &'static str, took: Duration) {
        self.executor_requests
            .with_label_values(&[message, outcome])
            .observe(took.as_secs_f64());
    }

    /// An executor's connection was refused.
    pub fn websocket_refused(&self, reason: &'static str) {
        self.websocket_refused.with_label_values(&[reason]).inc();
    }

    /// There was no room for a connection.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A recovery reached `outcome`, one of the final statuses.
    pub fn recovery(&self, outcome: &'static str) {
        self.recoveries.with_label_values(&[outcome]).inc();
    }

    /// How long that took since the executor's death, milliseconds.
    pub fn recovery_took(&self, outcome: &'static str, ms: i64) {
        self.recovery_seconds
            .with_label_values(&[outcome])
            .observe(ms as f64 / 1000.0);
    }

    /// A lost executor was waited for so long, milliseconds; `outcome` is `rejoined` or `dead`.
    pub fn grace(&self, outcome: &'static str, ms: i64) {
        self.grace
            .with_label_values(&[outcome])
            .observe(ms as f64 / 1000.0);
    }

    /// What executors of this instance are asked and have not answered, and how many do not answer.
    pub fn executors_now(&self, outstanding: usize, unresponsive: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.outstanding.set(number(outstanding));
        self.unresponsive.set(number(unresponsive));
    }

    /// How many recoveries are in `status` now.
    pub fn open_recoveries(&self, status: &'static str, count: i64) {
        self.open_recoveries.with_label_values(&[status]).set(count);
    }

    /// An alert was, or was not, delivered; both are constant words.
    pub fn alert(&self, rule: &'static str, outcome: &'static str) {
        self.alerts.with_label_values(&[rule, outcome]).inc();
    }

    /// A channel was, or was not, told of an alert; both are constant words.
    pub fn alert_delivery(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.alert_deliveries
            .with_label_values(&[kind, outcome])
            .observe(took.as_secs_f64());
    }

    /// So many deliveries wait, of all instances.
    pub fn alert_outbox(&self, waiting: i64) {
        self.alert_outbox.set(waiting);
    }

    /// An HTTP request was answered. `operation` is an operation id or a fixed route, never a path.
    pub fn http(&self, operation: &str, status: u16, took: Duration) {
        self.http
            .with_label_values(&[operation, &status.to_string()])
            .observe(took.as_secs_f64());
    }

    /// An operation on the store ended.
    pub fn store(&self, operation: &'static str, took: Duration) {
        self.store
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_metric_is_rendered_once_used() {
        let metrics = Metrics::new().unwrap();
        metrics.session("python", 1);
        metrics.session("brainfuck", 1);
        metrics.recovery("RECOVERED");
        metrics.http("listApps", 200, Duration::from_millis(3));
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(
            text.contains("segno_executor_sessions{language=\"python\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("segno_executor_sessions{language=\"other\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("segno_recoveries_total{outcome=\"RECOVERED\"} 1"),
            "{text}"
        );
        assert!(
            text.contains(
                "segno_http_request_seconds_count{operation=\"listApps\",status=\"200\"} 1"
            )
        );
    }
}
