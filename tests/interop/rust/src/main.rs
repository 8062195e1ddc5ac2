//! The application of ../README.md on the official Rust crate, which has no streams.

use std::time::Duration;

use dbos::sysdb::types::{Applications, WorkflowFilter, WorkflowStatus};
use dbos::{
    Client, ClientConfig, Config, DBOS, EnqueueOptions, Error, ForkFrom, Message, QueueConflict,
    QueueOptions, WorkflowHandle,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const WAIT: Duration = Duration::from_secs(60);

/// An error of this application's own.
#[derive(Debug, Serialize, Deserialize)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The one argument of portable work, whose envelope this crate hands to the workflow as it is.
fn argument(envelope: &Value) -> Value {
    envelope["positionalArgs"][0].clone()
}

async fn echo(name: String, envelope: Value) -> dbos::Result<Value> {
    let given = argument(&envelope);
    let answer = move || {
        let (name, given) = (name.clone(), given.clone());
        async move { Ok::<_, Error>(json!({ "from": name, "input": given })) }
    };
    dbos::step("answer", answer).await
}

async fn fail(envelope: Value) -> dbos::Result<Value, Broken> {
    let given = argument(&envelope);
    let given = given.as_str().unwrap_or_default();
    Err(Error::Application(Broken(format!(
        "broken on purpose: {given}"
    ))))
}

async fn talk(envelope: Value) -> dbos::Result<Value> {
    dbos::set_event("mood", &json!({ "of": argument(&envelope) })).await?;
    let heard: Option<Value> = dbos::recv(Some("mailbox"), WAIT).await?;
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
    from: i32,
}

type Handle = WorkflowHandle<Value, dbos::EngineOnly>;

async fn obey(client: &Client, order: &Order) -> anyhow::Result<Value> {
    let id = order.id.as_str();
    match &*order.what {
        "enqueue" => {
            let queue = format!("{}-work", order.to);
            let options = EnqueueOptions {
                workflow_id: Some(id),
                app_name: Some(&order.to),
                ..EnqueueOptions::new(&queue)
            };
            let enqueued = client.enqueue_with(&order.workflow, &order.input, options);
            let _: WorkflowHandle<Value> = enqueued.await?;
            Ok(Value::Null)
        }
        "result" => {
            let handle: WorkflowHandle<Value> = client.retrieve_workflow(id);
            Ok(json!({ "value": handle.result().await? }))
        }
        "send" => {
            let message = Message {
                topic: Some(&order.key),
                ..Message::new(id, &order.input)
            };
            client.send_bulk(&[message]).await?;
            Ok(Value::Null)
        }
        "event" => {
            let event: Option<Value> = client.get_event(id, &order.key, WAIT).await?;
            Ok(json!({ "value": event }))
        }
        "status" => {
            let handle: Handle = client.retrieve_workflow(id);
            Ok(json!({ "value": handle.status().await?.to_string() }))
        }
        "cancel" => {
            client.cancel(id).await?;
            Ok(Value::Null)
        }
        "resume" => {
            let _: Handle = client.resume(id).await?;
            Ok(Value::Null)
        }
        "fork" => {
            let handle: Handle = client.fork(id, ForkFrom::Step(order.from)).await?;
            Ok(json!({ "value": handle.workflow_id() }))
        }
        "list" => {
            let filter = WorkflowFilter {
                workflow_id_prefixes: vec![&order.key],
                names: Some(&*order.workflow)
                    .into_iter()
                    .filter(|name| !name.is_empty())
                    .collect(),
                status: WorkflowStatus::parse(&order.status).into_iter().collect(),
                applications: Applications::Any,
                ..WorkflowFilter::default()
            };
            let found = client.list_workflows(&filter).await?;
            let ids: Vec<_> = found.into_iter().map(|each| each.workflow_id).collect();
            Ok(json!({ "value": ids }))
        }
        "steps" => {
            let found = client.list_workflow_steps(id).await?;
            let steps = found.into_iter().map(|step| (step.step_id, step.step_name));
            Ok(json!({ "value": steps.collect::<Vec<_>>() }))
        }
        other => anyhow::bail!("no such order: {other}"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let name = std::env::var("APP_NAME")?;
    let url = std::env::var("APP_DATABASE_URL")?;
    let dbos = DBOS::new(Config {
        app_version: Some(format!("interop-{name}")),
        ..Config::new(&name, &url)
    });
    let from = name.clone();
    dbos.register_workflow("echo", move |arguments: Value| {
        echo(from.clone(), arguments)
    })?;
    dbos.register_workflow("fail", fail)?;
    dbos.register_workflow("talk", talk)?;
    dbos.launch().await?;
    let queue = format!("{name}-work");
    let conflict = QueueConflict::UpdateIfLatestVersion;
    dbos.register_queue(&queue, QueueOptions::default(), conflict)
        .await?;
    let client = Client::connect(ClientConfig::new(&url)).await?;
    println!("answer: {}", json!({ "ready": true }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let message = match obey(&client, &serde_json::from_str(&line)?).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("answer: {message}");
    }
    std::process::exit(0);
}
