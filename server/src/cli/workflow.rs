//! `segno workflow`: looking at the workflows in a system database and changing them, without a server.

use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use segno::{Client, Error, Status, StepInfo, WorkflowInfo};
use serde_json::{Value, json};

use super::database::Common;
use super::output::{self, Column};

#[derive(Subcommand)]
pub(super) enum WorkflowCommand {
    /// List workflows, the newest first
    List(Box<List>),
    /// Show one workflow with its input and its result
    Get {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// List the recorded steps of a workflow
    Steps {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Tell why a workflow is not moving
    Explain {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Cancel workflows: they stop at their next step
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// Their descendants as well
        #[arg(long)]
        with_children: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Let cancelled workflows, or ones that were set aside, go on from their last step
    Resume {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// On this queue
        #[arg(long)]
        queue: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Start a new workflow that begins with a copy of another one's first steps
    Fork(Box<Fork>),
    /// Delete workflows and everything they recorded, for good
    Delete {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// Their descendants as well
        #[arg(long)]
        with_children: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print a workflow with everything it recorded, for `import` or for a test that replays it
    Export {
        /// Its id
        id: String,
        /// Its descendants as well
        #[arg(long)]
        with_children: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Read what `export` printed from standard input
    Import {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
pub(super) struct List {
    /// Of this workflow (repeatable)
    #[arg(long)]
    name: Vec<String>,
    /// In this status, such as PENDING (repeatable)
    #[arg(long)]
    status: Vec<String>,
    /// Whose ids begin with this (repeatable)
    #[arg(long)]
    id_prefix: Vec<String>,
    /// On this queue (repeatable)
    #[arg(long)]
    queue: Vec<String>,
    /// Of this application version (repeatable)
    #[arg(long)]
    app_version: Vec<String>,
    /// Of this executor (repeatable)
    #[arg(long)]
    executor_id: Vec<String>,
    /// On behalf of this user (repeatable)
    #[arg(long)]
    user: Vec<String>,
    /// Started by this workflow (repeatable)
    #[arg(long)]
    parent: Vec<String>,
    /// Whose step of this name failed (repeatable)
    #[arg(long)]
    failed_at: Vec<String>,
    /// Created after this instant: RFC 3339, or how long ago, such as 90s, 15m, 6h, 2d
    #[arg(long, value_parser = instant)]
    since: Option<SystemTime>,
    /// Created before this instant
    #[arg(long, value_parser = instant)]
    until: Option<SystemTime>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Without the first so many
    #[arg(long, default_value_t = 0)]
    offset: u32,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// With inputs and results (only in JSON)
    #[arg(long)]
    payloads: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Fork {
    /// The workflow to copy from
    id: String,
    /// The first step to do again: its number or its name [default: 0]
    #[arg(long)]
    step: Option<String>,
    /// From the step that failed
    #[arg(long, conflicts_with = "step")]
    from_failure: bool,
    /// The new workflow's id [default: a random one]
    #[arg(long)]
    new_id: Option<String>,
    /// Executors of this version run it
    #[arg(long)]
    app_version: Option<String>,
    /// On this queue
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// An instant as RFC 3339, or as a time ago.
fn instant(text: &str) -> Result<SystemTime, String> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Ok(instant.into());
    }
    let wrong = || {
        "write an instant as 2026-01-31T12:00:00Z, or as a time ago: 90s, 15m, 6h, 2d".to_owned()
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count = text.strip_suffix(unit).unwrap_or_default();
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let ago = Duration::from_secs(count.checked_mul(seconds).ok_or_else(wrong)?);
    SystemTime::now().checked_sub(ago).ok_or_else(wrong)
}

const LISTED: [Column; 6] = [
    ("ID", "id"),
    ("WORKFLOW", "name"),
    ("STATUS", "status"),
    ("QUEUE", "queue"),
    ("VERSION", "appVersion"),
    ("CREATED", "createdAt"),
];

const STEPS: [Column; 6] = [
    ("STEP", "position"),
    ("NAME", "name"),
    ("COMPLETED", "completedAt"),
    ("CHILD", "childId"),
    ("OUTPUT", "output"),
    ("ERROR", "error"),
];

pub(super) async fn run(command: WorkflowCommand) -> segno::Result<()> {
    match command {
        WorkflowCommand::List(list) => self::list(*list).await,
        WorkflowCommand::Get { id, common } => {
            let client = common.client().await?;
            let found = client
                .workflows()
                .id(&id)
                .of_all_applications()
                .with_payloads()
                .await?;
            let found = found
                .first()
                .ok_or_else(|| Error::message(format!("there is no workflow `{id}`")))?;
            output::object(common.output, &workflow(found, true))
        }
        WorkflowCommand::Steps { id, common } => {
            let client = common.client().await?;
            let steps = client.handle::<Value>(&id).await?.steps().await?;
            let steps: Vec<Value> = steps.iter().map(step).collect();
            output::list(common.output, &STEPS, &steps)
        }
        WorkflowCommand::Explain { id, common } => {
            let explanation = common.client().await?.explain(&id).await?;
            let reason = format!("{:?}", explanation.reason);
            output::done(
                common.output,
                &explanation.text,
                &json!({"reason": reason, "text": explanation.text}),
            )
        }
        WorkflowCommand::Export {
            id,
            with_children,
            common,
        } => {
            let export = common.client().await?.export(&id, with_children).await?;
            output::done(common.output, &export, &json!({ "export": export }))
        }
        WorkflowCommand::Import { common } => {
            let text = std::io::read_to_string(std::io::stdin())?;
            let ids = common.client().await?.import(text.trim()).await?;
            output::done(common.output, &ids.join("\n"), &json!({ "ids": ids }))
        }
        WorkflowCommand::Cancel {
            ids,
            with_children,
            common,
        } => {
            let client = common.client().await?;
            all_exist(&client, &ids).await?;
            let cancel = client.cancel_all(&ids);
            if with_children {
                cancel.with_children()
            } else {
                cancel
            }
            .await?;
            common.changed("cancelled", &ids)
        }
        WorkflowCommand::Resume { ids, queue, common } => {
            let client = common.client().await?;
            let resume = client.resume_all(&ids);
            match &queue {
                Some(queue) => resume.queue(queue),
                None => resume,
            }
            .await?;
            common.changed("resumed", &ids)
        }
        WorkflowCommand::Delete {
            ids,
            with_children,
            common,
        } => {
            let client = common.client().await?;
            all_exist(&client, &ids).await?;
            let delete = client.delete_all(&ids);
            if with_children {
                delete.with_children()
            } else {
                delete
            }
            .await?;
            common.changed("deleted", &ids)
        }
        WorkflowCommand::Fork(fork) => self::fork(*fork).await,
    }
}

/// Fails for an id that does not exist, before anything is done to the others.
async fn all_exist(client: &Client, ids: &[String]) -> segno::Result<()> {
    for id in ids {
        client.handle::<Value>(id).await?;
    }
    Ok(())
}

async fn list(list: List) -> segno::Result<()> {
    let client = list.common.client().await?;
    let mut query = client.workflows().limit(list.limit).offset(list.offset);
    if list.common.application.is_none() {
        query = query.of_all_applications();
    }
    for name in list.name {
        query = query.name(name);
    }
    for status in &list.status {
        let status = Status::from_str(&status.to_ascii_uppercase());
        query = query.status(status.map_err(|error| Error::message(format!("--status: {error}")))?);
    }
    for prefix in list.id_prefix {
        query = query.id_prefix(prefix);
    }
    for queue in list.queue {
        query = query.queue(queue);
    }
    for version in list.app_version {
        query = query.app_version(version);
    }
    for executor in list.executor_id {
        query = query.executor_id(executor);
    }
    for user in list.user {
        query = query.authenticated_user(user);
    }
    for parent in list.parent {
        query = query.parent(parent);
    }
    for step in list.failed_at {
        query = query.failed_at(step);
    }
    if let Some(since) = list.since {
        query = query.created_after(since);
    }
    if let Some(until) = list.until {
        query = query.created_before(until);
    }
    if !list.oldest_first {
        query = query.newest_first();
    }
    if list.payloads {
        query = query.with_payloads();
    }
    let found = query.await?;
    let found: Vec<Value> = found
        .iter()
        .map(|run| workflow(run, list.payloads))
        .collect();
    output::list(list.common.output, &LISTED, &found)
}

async fn fork(fork: Fork) -> segno::Result<()> {
    let client = fork.common.client().await?;
    let mut request = client.fork(&fork.id);
    if fork.from_failure {
        request = request.from_failure();
    }
    match fork.step {
        Some(step) => match step.parse::<u32>() {
            Ok(position) => request = request.from_step(position),
            Err(_) => request = request.from_step(step),
        },
        None if !fork.from_failure => request = request.from_step(0),
        None => {}
    }
    if let Some(id) = fork.new_id {
        request = request.id(id);
    }
    if let Some(version) = fork.app_version {
        request = request.app_version(version);
    }
    if let Some(queue) = fork.queue {
        request = request.queue(queue);
    }
    let id = request.await?;
    output::done(
        fork.common.output,
        &id,
        &json!({ "id": id, "forkedFrom": fork.id }),
    )
}

/// RFC 3339 in UTC.
fn time(epoch_ms: i64) -> String {
    let millis = u64::try_from(epoch_ms).unwrap_or(0);
    let instant = DateTime::<Utc>::from(UNIX_EPOCH + Duration::from_millis(millis));
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn workflow(run: &WorkflowInfo, payloads: bool) -> Value {
    let mut object = json!({
        "id": run.id,
        "name": run.name,
        "status": run.status.as_str(),
        "queue": run.queue,
        "executorId": run.executor_id,
        "appVersion": run.app_version,
        "attempts": run.attempts,
        "parentId": run.parent_id,
        "forkedFrom": run.forked_from,
        "authenticatedUser": run.authenticated_user,
        "schedule": run.schedule,
        "attributes": run.attributes,
        "createdAt": time(run.created_at),
        "updatedAt": time(run.updated_at),
        "completedAt": run.completed_at.map(time),
    });
    if payloads {
        object["input"] = json!(run.input);
        object["output"] = json!(run.output);
        object["error"] = json!(run.error.as_ref().map(ToString::to_string));
    }
    object
}

fn step(step: &StepInfo) -> Value {
    json!({
        "position": step.position,
        "name": step.name,
        "output": step.output,
        "error": step.error.as_ref().map(ToString::to_string),
        "childId": step.child_id,
        "startedAt": step.started_at.map(time),
        "completedAt": step.completed_at.map(time),
    })
}
