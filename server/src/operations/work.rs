//! What an operation does to one workflow.

use std::time::Duration;

use segno_protocol::{
    Cancel, Delete, Fork, ForkWorkflow, ListSteps, ListWorkflows, Message, Resume, StepRecord,
    Success, WorkflowFilter, WorkflowRecord,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hub::{Class, Hub, HubError, Target};
use crate::store::apps::AppRow;
use crate::store::operations::OperationKind;

/// For one executor to answer a question.
const READ: Duration = Duration::from_secs(30);
/// Pause before it is judged whether nobody is left: a lost connection takes a moment to be noticed.
const MOMENT: Duration = Duration::from_millis(500);
/// Forks have ids derived from this, the operation's id and the original's: a repeat fails instead of
/// forking twice.
const FORKS: Uuid = Uuid::from_u128(0x5a0f_91d2_4f0b_4b8e_a6c4_0c79_8e3d_7b12);

/// How the workflows are treated; what does not concern the operation's kind is absent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Options {
    /// Cancel or delete descendants too.
    pub children: bool,
    /// Version of forks.
    pub app_version: Option<String>,
    /// Queue of what is resumed or forked.
    pub queue_name: Option<String>,
    /// Partition of that queue.
    pub queue_partition_key: Option<String>,
    /// Where forks begin.
    pub fork_from: ForkFrom,
}

/// Where in its history a workflow is forked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ForkFrom {
    /// At this step; 0 is the beginning.
    Step(u32),
    /// At the last recorded step.
    LastStep,
    /// At the last step with an error, else the last.
    LastFailure,
    /// At the last step of this name.
    StepName(String),
}

impl Default for ForkFrom {
    fn default() -> Self {
        Self::Step(0)
    }
}

/// Why something was not done.
pub(super) enum Trouble {
    /// Nobody is there to do it; it can be done later.
    Waiting(String),
    /// It was refused, or failed.
    Failed(String),
}

/// What is needed to do it.
pub(super) struct Work<'a> {
    pub hub: &'a Hub,
    pub app: &'a AppRow,
    /// The operation's id.
    pub id: &'a str,
    pub kind: OperationKind,
    pub options: &'a Options,
}

impl Work<'_> {
    /// Asks somebody for something that changes nothing.
    pub(super) async fn ask<M: Message>(&self, message: &M) -> Result<M::Response, Trouble> {
        self.send(Target::AnyHealthy, message, Class::Background(READ))
            .await
    }

    async fn send<M: Message>(
        &self,
        target: Target,
        message: &M,
        class: Class,
    ) -> Result<M::Response, Trouble> {
        match self.hub.request(self.app, target, message, class).await {
            Ok(answer) => Ok(answer),
            Err(error @ (HubError::NoExecutor | HubError::NoExecutorOfVersion(_))) => {
                Err(Trouble::Waiting(error.to_string()))
            }
            Err(error @ HubError::NoAnswer { .. }) => {
                tokio::time::sleep(MOMENT).await;
                if !self.hub.has_anybody(&self.app.id).await {
                    return Err(Trouble::Waiting(super::NOBODY.to_owned()));
                }
                Err(Trouble::Failed(one_line(&error.to_string())))
            }
            Err(error) => Err(Trouble::Failed(one_line(&error.to_string()))),
        }
    }

    /// Does it to one workflow.
    pub(super) async fn one(&self, workflow_id: &str) -> Result<(), Trouble> {
        let ids = vec![workflow_id.to_owned()];
        let options = self.options;
        let nothing = || Trouble::Failed("no workflow".to_owned());
        match self.kind {
            OperationKind::Cancel => {
                let message = Cancel::new(ids, options.children).ok_or_else(nothing)?;
                self.change(Target::AnyHealthy, &message, true).await
            }
            OperationKind::Delete => {
                let message = Delete::new(ids, options.children).ok_or_else(nothing)?;
                self.change(Target::AnyHealthy, &message, true).await
            }
            OperationKind::Resume => {
                let message = Resume::new(ids, options.queue_name.clone()).ok_or_else(nothing)?;
                // It is enqueued, and another version must not take it.
                self.change(Target::LatestVersion, &message, false).await
            }
            OperationKind::Fork => self.fork(workflow_id).await,
        }
    }

    async fn change<M: Message<Response = Success>>(
        &self,
        target: Target,
        message: &M,
        idempotent: bool,
    ) -> Result<(), Trouble> {
        let answer = self
            .send(target, message, Class::Mutation { idempotent })
            .await?;
        if answer.success {
            return Ok(());
        }
        Err(Trouble::Failed(
            "the executor refused without a reason".to_owned(),
        ))
    }

    async fn fork(&self, workflow_id: &str) -> Result<(), Trouble> {
        let name = format!("{}/{workflow_id}", self.id);
        let fork_id = Uuid::new_v5(&FORKS, name.as_bytes()).to_string();
        let options = self.options;
        let message = ForkWorkflow {
            body: Fork {
                workflow_id: workflow_id.to_owned(),
                start_step: self.start_step(workflow_id).await?,
                application_version: options.app_version.clone(),
                new_workflow_id: Some(fork_id.clone()),
                queue_name: options.queue_name.clone(),
                queue_partition_key: options.queue_partition_key.clone(),
            },
        };
        let class = Class::Mutation { idempotent: true };
        match self.send(Target::AnyHealthy, &message, class).await {
            Err(Trouble::Failed(message)) => {
                // It may be a repeat: then the fork is there.
                let found = self.records(vec![fork_id]).await?;
                if found.is_empty() {
                    Err(Trouble::Failed(message))
                } else {
                    Ok(())
                }
            }
            other => other.map(|_| ()),
        }
    }

    async fn start_step(&self, workflow_id: &str) -> Result<u32, Trouble> {
        if let ForkFrom::Step(step) = self.options.fork_from {
            return Ok(step);
        }
        let message = ListSteps {
            workflow_id: workflow_id.to_owned(),
            // Errors come with the outputs.
            load_output: matches!(self.options.fork_from, ForkFrom::LastFailure),
            limit: None,
            offset: None,
        };
        let steps = self.ask(&message).await?.output.unwrap_or_default();
        let last = |wanted: &dyn Fn(&&StepRecord) -> bool| {
            steps
                .iter()
                .filter(wanted)
                .map(|step| step.function_id)
                .max()
        };
        let step = match &self.options.fork_from {
            ForkFrom::Step(step) => return Ok(*step),
            ForkFrom::LastStep => last(&|_| true).unwrap_or(0),
            ForkFrom::LastFailure => last(&|step| step.error.is_some())
                .or_else(|| last(&|_| true))
                .unwrap_or(0),
            ForkFrom::StepName(name) => last(&|step| step.function_name.as_ref() == Some(name))
                .ok_or_else(|| Trouble::Failed(format!("it has no step named {name:?}")))?,
        };
        Ok(u32::try_from(step).unwrap_or(0))
    }

    /// Records of workflows, whoever owns them, without payloads.
    pub(super) async fn records(&self, ids: Vec<String>) -> Result<Vec<WorkflowRecord>, Trouble> {
        let body = WorkflowFilter {
            workflow_uuids: ids,
            load_input: false,
            load_output: false,
            ..WorkflowFilter::default()
        };
        Ok(self.ask(&ListWorkflows { body }).await?.output)
    }
}

/// The line of an error that says what happened; tracebacks hold stored data.
fn one_line(text: &str) -> String {
    let line = crate::api::forward::summary(text);
    line.chars().take(300).collect()
}
