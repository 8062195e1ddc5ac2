//! What a collector is sent of workflows that go through queues, children, several processes and crashes.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../tests/database_support/mod.rs"]
mod database_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use database_support::PostgresDatabase;
use segno::{Builder, Client, Codec, Ctx, Db, Error, Queue, Segno, WorkflowRef};
use segno_opentelemetry::{Traces, W3c};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tracing::Instrument as _;
use tracing_subscriber::prelude::*;

/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

/// A span as it was sent.
#[derive(Debug, Clone)]
struct Span(Value);

impl Span {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn says(&self, key: &str, value: &str) -> bool {
        attribute(&self.0["attributes"], key) == Some(value)
    }

    /// Its status: 2 is an error.
    fn status(&self) -> (Option<u64>, &str) {
        let status = &self.0["status"];
        (
            status["code"].as_u64(),
            status["message"].as_str().unwrap_or_default(),
        )
    }
}

fn attribute<'a>(attributes: &'a Value, key: &str) -> Option<&'a str> {
    let mut attributes = attributes.as_array()?.iter();
    attributes.find(|each| each["key"] == key)?["value"]["stringValue"].as_str()
}

impl Collector {
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(collector.clone().serve(socket));
            }
        });
        url
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut read = Vec::new();
        while socket.read_buf(&mut read).await.unwrap_or(0) > 0 {
            while let Some((body, rest)) = request(&read) {
                self.take(&body);
                read = rest;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                socket.write_all(answer).await.unwrap();
            }
        }
    }

    fn take(&self, body: &[u8]) {
        let request: Value = serde_json::from_slice(body).unwrap();
        for of in request["resourceSpans"].as_array().unwrap() {
            let service = attribute(&of["resource"]["attributes"], "service.name");
            self.services
                .lock()
                .unwrap()
                .push(service.unwrap().to_owned());
            for scope in of["scopeSpans"].as_array().unwrap() {
                let spans = scope["spans"].as_array().unwrap().iter();
                self.spans.lock().unwrap().extend(spans.cloned().map(Span));
            }
        }
    }

    /// The spans of this name that say this.
    fn all(&self, name: &str, key: &str, value: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        let found = spans
            .iter()
            .filter(|span| span.text("name") == name && span.says(key, value));
        found.cloned().collect()
    }

    /// The only one.
    fn one(&self, name: &str, key: &str, value: &str) -> Span {
        let found = self.all(name, key, value);
        let names: Vec<_> = {
            let spans = self.spans.lock().unwrap();
            spans
                .iter()
                .map(|span| span.text("name").to_owned())
                .collect()
        };
        assert_eq!(
            found.len(),
            1,
            "{name} {key}={value}: {found:#?} of {names:?}"
        );
        found.into_iter().next().unwrap()
    }
}

/// The body of the first request of a connection, once it is all there, and what follows.
fn request(read: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = read.windows(4).position(|each| each == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().trim().parse().unwrap();
    let rest = read.get(end + length..)?;
    Some((read[end..end + length].to_vec(), rest.to_vec()))
}

const OUTER: WorkflowRef<i64, i64> = WorkflowRef::new("outer");

async fn outer(ctx: Ctx<Db>, n: i64) -> segno::Result<i64> {
    let one = ctx.step("one", || async { Ok(n + 1) }).await?;
    let failed = ctx
        .step("fails", || async {
            Err::<(), _>(Error::message("no such luck"))
        })
        .await;
    assert!(failed.is_err());
    ctx.transaction(ctx.state(), "writes", |tx| {
        Box::pin(async {
            tx.query("SELECT 1").execute().await?;
            Ok(())
        })
    })
    .await?;
    ctx.run(inner, one).queue("work").await
}

async fn inner(ctx: Ctx, n: i64) -> segno::Result<i64> {
    let waited = ctx.recv::<i64>("go").await.unwrap_or(0);
    ctx.step("two", || async { Ok(n * 2 + waited) }).await
}

async fn app(db: &Db, executor: &str) -> Builder<Db> {
    Segno::named("traced")
        .database(db)
        .app_version("v1")
        .executor_id(executor)
        .trace_context(W3c)
        .state(db.clone())
        .queue(Queue::new("work"))
        .workflow("outer", outer)
        .workflow("inner", inner)
}

/// Waits until a run waits for its message.
async fn waits(app: &Segno, id: &str) {
    let waits = async {
        while !matches!(app.explain(id).await, Ok(why) if why.text.contains("a message on `go`")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(STUCK, waits).await.unwrap();
}

async fn a_trace_goes_on(url: &str, collector: &Collector, traces: &Traces) {
    let id = uuid::Uuid::new_v4().to_string();
    let db = Db::connect(url).await.unwrap();
    let working = app(&db, "working").await.launch().await.unwrap();
    // Another process asks.
    let client = Client::connect(url).await.unwrap();
    let client = client.application("traced").trace_context(W3c);
    let request = tracing::info_span!("request", request.of = id.as_str());
    let start = async { client.start(OUTER, 1).id(&id).queue("work").await.unwrap() };
    let run = start.instrument(request).await;
    let child = format!("{id}-3");
    waits(&working, &child).await;

    // What is recovered goes on in the same trace.
    working.abort().await;
    let working = app(&db, "working").await.launch().await.unwrap();
    client.send(&child, "go", &100_i64).await.unwrap();
    let run = tokio::time::timeout(STUCK, run).await.unwrap();
    assert_eq!(run.unwrap(), 104);
    let found = client.workflows().id(&child).await.unwrap();
    let attributes = found[0].attributes.clone().unwrap();
    working.shutdown(Duration::from_secs(5)).await.unwrap();
    client.close().await;
    traces.flush().await.unwrap();

    let request = collector.one("request", "request.of", &id);
    let outers = collector.all("outer", "workflow.id", &id);
    assert_eq!(outers.len(), 2, "before the crash and after: {outers:#?}");
    for span in &outers {
        assert_eq!(span.text("traceId"), request.text("traceId"));
        assert_eq!(span.text("parentSpanId"), request.text("spanId"));
    }
    let parent_of = |name: &str, id: &str, parents: &[Span]| {
        let span = collector.one(name, "workflow.id", id);
        assert_eq!(span.text("traceId"), request.text("traceId"));
        assert!(
            parents
                .iter()
                .any(|parent| parent.text("spanId") == span.text("parentSpanId"))
        );
        span
    };
    parent_of("one", &id, &outers);
    parent_of("writes", &id, &outers);
    let failed = parent_of("fails", &id, &outers);
    assert_eq!(failed.status(), (Some(2), "no such luck"));
    let inners = collector.all("inner", "workflow.id", &child);
    assert_eq!(inners.len(), 2, "{inners:#?}");
    for span in &inners {
        assert_eq!(span.text("traceId"), request.text("traceId"));
        assert_eq!(
            span.text("parentSpanId"),
            outers[0].text("spanId"),
            "the one that started it"
        );
    }
    parent_of("two", &child, &inners);
    // The official SDKs find it where they put theirs.
    let parent = attributes["dbos.otelContext"]["traceparent"]
        .as_str()
        .unwrap();
    let expected = format!(
        "00-{}-{}-01",
        request.text("traceId"),
        outers[0].text("spanId")
    );
    assert_eq!(parent, expected);
    let services = collector.services.lock().unwrap();
    assert!(
        services.iter().all(|service| service == "shop"),
        "{services:?}"
    );
}

/// Whoever cannot read payloads does not read them in traces.
async fn errors_of_encoded_payloads_stay_here(url: &str, collector: &Collector, traces: &Traces) {
    struct Hidden;
    impl Codec for Hidden {
        fn name(&self) -> &str {
            "hidden"
        }
        fn encode(
            &self,
            json: String,
        ) -> futures_util::future::BoxFuture<'_, segno::Result<String>> {
            Box::pin(async move { Ok(json.chars().rev().collect()) })
        }
        fn decode(
            &self,
            encoded: String,
        ) -> futures_util::future::BoxFuture<'_, segno::Result<String>> {
            Box::pin(async move { Ok(encoded.chars().rev().collect()) })
        }
    }
    async fn secret(_ctx: Ctx, _: ()) -> segno::Result<()> {
        Err(Error::message("the card 4111"))
    }
    let id = uuid::Uuid::new_v4().to_string();
    let app = Segno::named("hiding")
        .database_url(url)
        .app_version("v-hiding")
        .codec(Hidden);
    let app = app.workflow("secret", secret).launch().await.unwrap();
    let error = app.run(secret, ()).id(&id).await.unwrap_err();
    assert_eq!(error.to_string(), "the card 4111");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    traces.flush().await.unwrap();
    let secret = collector.one("secret", "workflow.id", &id);
    assert_eq!(secret.status(), (Some(2), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_through_queues_children_processes_and_recoveries() {
    let collector = Collector::default();
    let traces = Traces::to_collector("shop", &collector.listen().await).unwrap();
    tracing_subscriber::registry().with(traces.layer()).init();

    let postgres = PostgresDatabase::create().await;
    a_trace_goes_on(&postgres.url, &collector, &traces).await;
    errors_of_encoded_payloads_stay_here(&postgres.url, &collector, &traces).await;
    postgres.drop().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("app.db").display());
    a_trace_goes_on(&url, &collector, &traces).await;
    errors_of_encoded_payloads_stay_here(&url, &collector, &traces).await;
    traces.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_collector_that_makes_no_sense_is_refused() {
    let error = Traces::to_collector("shop", "not a url")
        .unwrap_err()
        .to_string();
    assert!(error.contains("http://127.0.0.1:4318"), "{error}");
}
