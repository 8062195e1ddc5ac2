//! The application of ../README.md on this library.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use segno::{Ctx, Queue, Segno, WorkflowRef};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const NAME: &str = "segno";
const WAIT: Duration = Duration::from_secs(60);

async fn echo(ctx: Ctx, input: Value) -> segno::Result<Value> {
    let answer = || async { Ok(json!({ "from": NAME, "input": input })) };
    ctx.step("answer", answer).await
}

async fn fail(_ctx: Ctx, input: String) -> segno::Result<Value> {
    Err(segno::Error::message(format!("broken on purpose: {input}")))
}

async fn talk(ctx: Ctx, input: String) -> segno::Result<Value> {
    ctx.set_event("mood", &json!({ "of": input })).await;
    ctx.write_stream("log", &"first").await;
    ctx.write_stream("log", &json!({ "second": 2 })).await;
    ctx.close_stream("log").await;
    let heard: Option<Value> = ctx.recv("mailbox").timeout(WAIT).await;
    Ok(json!({ "heard": heard }))
}

/// One line on stdin.
#[derive(Deserialize)]
struct Order {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    workflow: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    key: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    from: u32,
}

async fn obey(app: &Segno, order: Order) -> segno::Result<Value> {
    let Order { id, to, .. } = order;
    match &*order.what {
        "enqueue" => {
            let queue = format!("{to}-work");
            let workflow = match &*order.workflow {
                "echo" => WorkflowRef::<Value, Value>::new("echo"),
                "fail" => WorkflowRef::new("fail"),
                _ => WorkflowRef::new("talk"),
            };
            let start = app.start(workflow, order.input).id(id);
            start.queue(queue).application(to).await?;
            Ok(Value::Null)
        }
        "result" => Ok(json!({ "value": app.handle::<Value>(&id).await?.await? })),
        "send" => {
            app.send(id, &*order.key, &order.input).await?;
            Ok(Value::Null)
        }
        "event" => {
            let event = app.get_event::<Value>(id, order.key).timeout(WAIT).await?;
            Ok(json!({ "value": event }))
        }
        "stream" => {
            let mut entries = app.read_stream::<Value>(id, order.key);
            let mut read = Vec::new();
            while let Some(entry) = entries.next().await {
                read.push(entry?);
            }
            Ok(json!({ "value": read }))
        }
        "status" => {
            let status = app.handle::<Value>(&id).await?.status().await?;
            Ok(json!({ "value": status.to_string() }))
        }
        "cancel" => {
            app.cancel(id).await?;
            Ok(Value::Null)
        }
        "resume" => {
            app.resume(id).await?;
            Ok(Value::Null)
        }
        "fork" => {
            let new_id = app.fork(id).from_step(order.from).await?;
            Ok(json!({ "value": new_id }))
        }
        "steps" => {
            let found = app.steps(&id).await?;
            let steps = found.into_iter().map(|step| (step.position, step.name));
            Ok(json!({ "value": steps.collect::<Vec<_>>() }))
        }
        "export" => Ok(json!({ "value": app.export(&id, true).await? })),
        "import" => Ok(json!({ "value": app.import(&order.key).await? })),
        "delete" => {
            app.delete(id).await?;
            Ok(Value::Null)
        }
        "list" => {
            let mut listing = app.workflows().of_all_applications().id_prefix(order.key);
            if let Ok(status) = order.status.parse() {
                listing = listing.status(status);
            }
            if !order.workflow.is_empty() {
                listing = listing.name(order.workflow);
            }
            let ids: Vec<_> = listing.await?.into_iter().map(|each| each.id).collect();
            Ok(json!({ "value": ids }))
        }
        other => Err(segno::Error::message(format!("no such order: {other}"))),
    }
}

fn answer(message: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "answer: {message}")?;
    Ok(out.flush()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("APP_DATABASE_URL").context("APP_DATABASE_URL is not set")?;
    let launched = Segno::named(NAME)
        .database_url(url)
        .app_version("interop-segno")
        .inline_payloads(true)
        .queue(Queue::new(format!("{NAME}-work")))
        .workflow("echo", echo)
        .workflow("fail", fail)
        .workflow("talk", talk)
        .launch()
        .await;
    let app = launched.map_err(|error| anyhow::anyhow!("{error}"))?;
    answer(&json!({ "ready": true }))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match obey(&app, serde_json::from_str(&line)?).await {
            Ok(message) => answer(&json!({ "done": message }))?,
            Err(error) => answer(&json!({ "error": error.to_string() }))?,
        }
    }
    app.abort().await;
    Ok(())
}
