//! Work goes on under another version, by an operator's word or the application's policy: each
//! pending workflow is forked from one past its last recorded step, then the original is cancelled.
//! Whoever awaits the old id sees a cancellation; the fork says where it came from.

use std::sync::Arc;
use std::time::Duration;

use segno_protocol::{Cancel, Fork, ForkWorkflow, ListSteps, ListWorkflows, WorkflowFilter};
use uuid::Uuid;

use super::Shared;
use super::machine::ExecutorKey;
use super::offers::one_line;
use super::runner::persist;
use crate::hub::{Class, HubError, SessionInfo, Target};
use crate::store::apps::AppRow;

const DEADLINE: Duration = Duration::from_secs(30);
/// Workflows listed at a time.
const PAGE: u64 = 100;
/// Forks have ids derived from this, the original's id and the version: a repeat fails instead of
/// forking twice.
const FORKS: Uuid = Uuid::from_u128(0x8d0f_5a6c_7b1e_4c5f_9a38_1f6f_2f0e_5d11);

/// What is pending under an executor and its version, oldest first, without payloads.
pub(super) fn pending_of(executor: &ExecutorKey) -> WorkflowFilter {
    WorkflowFilter {
        status: vec!["PENDING".to_owned()],
        executor_id: vec![executor.executor_id.clone()],
        application_version: vec![executor.version.clone()],
        load_input: false,
        load_output: false,
        ..WorkflowFilter::default()
    }
}

/// Moves everything that is pending under `dead` to `version`; returns who took it, if one executor of
/// that version took all. Stops when the claim is lost. What failed stays pending and is told in one
/// line.
pub(super) async fn move_pending(
    shared: &Arc<Shared>,
    app: &AppRow,
    dead: &ExecutorKey,
    generation: i64,
    version: &str,
) -> Result<Option<String>, String> {
    let mut moved = 0;
    let mut taker = taker(shared, app, version).await;
    let mut failed: Vec<String> = Vec::new();
    let mut first_error = None;
    loop {
        let offset = u64::try_from(failed.len()).unwrap_or(u64::MAX);
        let message = ListWorkflows {
            body: WorkflowFilter {
                limit: Some(PAGE),
                // Those that failed stay pending and come first again.
                offset: (offset > 0).then_some(offset),
                ..pending_of(dead)
            },
        };
        let page = shared
            .hub
            .request(
                app,
                Target::AnyHealthy,
                &message,
                Class::Background(DEADLINE),
            )
            .await;
        let page = page.map_err(|error| one_line(&error.to_string()))?.output;
        if page.is_empty() {
            break;
        }
        for record in page {
            if !persist(|| shared.store.is_claimed(dead, generation)).await {
                return Err("the claim was lost".to_owned());
            }
            match move_one(shared, app, &record.workflow_uuid, version, &mut taker).await {
                Ok(()) => moved += 1,
                Err(error) => {
                    first_error.get_or_insert(error);
                    failed.push(record.workflow_uuid);
                }
            }
        }
    }
    match first_error {
        None => Ok(taker.filter(|_| moved > 0)),
        Some(error) => Err(format!(
            "{} of {} workflows could not be moved: {error}",
            failed.len(),
            failed.len() + moved
        )),
    }
}

/// The executor that is told to fork: of the version that takes over, the least busy. Without one
/// anybody forks, and the forks wait for one.
async fn taker(shared: &Shared, app: &AppRow, version: &str) -> Option<String> {
    let sessions = shared.hub.everywhere(&app.id).await.into_iter();
    let taker = sessions
        .filter(|session| session.version == version)
        .min_by_key(|session| (session.unresponsive_for.is_some(), session.outstanding));
    taker.map(|session| session.executor_id)
}

async fn move_one(
    shared: &Shared,
    app: &AppRow,
    workflow_id: &str,
    version: &str,
    taker: &mut Option<String>,
) -> Result<(), String> {
    let class = Class::Background(DEADLINE);
    let text = |error: HubError| one_line(&error.to_string());
    let steps = ListSteps {
        workflow_id: workflow_id.to_owned(),
        load_output: false,
        limit: None,
        offset: None,
    };
    let steps = shared
        .hub
        .request(app, Target::AnyHealthy, &steps, class)
        .await
        .map_err(text)?;
    let last = steps
        .output
        .unwrap_or_default()
        .iter()
        .map(|step| step.function_id)
        .max();
    let fork_id = Uuid::new_v5(&FORKS, format!("{version}/{workflow_id}").as_bytes()).to_string();
    let fork = ForkWorkflow {
        body: Fork {
            workflow_id: workflow_id.to_owned(),
            start_step: last
                .and_then(|last| u32::try_from(last + 1).ok())
                .unwrap_or(0),
            application_version: Some(version.to_owned()),
            new_workflow_id: Some(fork_id.clone()),
            ..Fork::default()
        },
    };
    let target = match taker.clone() {
        Some(id) if is_there(shared, app, &id, version).await => Target::Executor {
            id,
            version: version.to_owned(),
        },
        _ => {
            *taker = None;
            Target::AnyHealthy
        }
    };
    if let Err(error) = shared.hub.request(app, target, &fork, class).await {
        // It may be a repeat: then the fork is there, and only the cancellation is missing.
        if !exists(shared, app, &fork_id).await {
            return Err(text(error));
        }
    }
    let cancel = Cancel::new(vec![workflow_id.to_owned()], false).ok_or("no workflow to cancel")?;
    match shared
        .hub
        .request(app, Target::AnyHealthy, &cancel, class)
        .await
    {
        Ok(answer) if answer.success => Ok(()),
        Ok(_) => Err("the executor did not cancel the original".to_owned()),
        Err(error) => Err(text(error)),
    }
}

async fn is_there(shared: &Shared, app: &AppRow, id: &str, version: &str) -> bool {
    let sessions = shared.hub.everywhere(&app.id).await;
    let is_it = |session: &SessionInfo| session.executor_id == id && session.version == version;
    sessions.iter().any(is_it)
}

async fn exists(shared: &Shared, app: &AppRow, workflow_id: &str) -> bool {
    let message = ListWorkflows {
        body: WorkflowFilter {
            workflow_uuids: vec![workflow_id.to_owned()],
            load_input: false,
            load_output: false,
            ..WorkflowFilter::default()
        },
    };
    let answer = shared
        .hub
        .request(
            app,
            Target::AnyHealthy,
            &message,
            Class::Background(DEADLINE),
        )
        .await;
    answer.is_ok_and(|answer| !answer.output.is_empty())
}
