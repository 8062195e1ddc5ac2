//! A safety net, slowly drawn: pending workflows whose executor nobody knows. Such an executor is
//! written down as lost, gets its grace to show up, and is then recovered like any other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use segno_protocol::{
    AggregateFilter, GetWorkflowAggregates, ListWorkflows, WorkflowAggregates, WorkflowFilter,
};

use super::Shared;
use super::machine::ExecutorKey;
use crate::hub::{Class, Target};
use crate::store::StoreError;
use crate::store::apps::AppRow;

const DEADLINE: Duration = Duration::from_secs(120);
/// Where there are no aggregates, so many workflows are looked at.
const PAGE: u64 = 1000;
/// The id of processes that run without a control plane: they recover themselves.
const LOCAL: &str = "local";

/// Looks at every application that has somebody to ask.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let apps: HashSet<String> = shared
        .hub
        .connected()
        .iter()
        .map(|session| session.app_id().to_owned())
        .collect();
    for app_id in apps {
        if shared.shutdown.is_cancelled() {
            return;
        }
        let found = match shared.store.app_by_id(&app_id).await {
            Ok(Some(app)) => sweep_app(&shared, &app).await,
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match found {
            Ok(0) => {}
            Ok(found) => {
                tracing::warn!(%app_id, found, "found pending workflows of executors that nobody knows")
            }
            Err(error) => tracing::debug!(%app_id, %error, "a sweep failed; the next will do"),
        }
    }
}

async fn sweep_app(shared: &Shared, app: &AppRow) -> Result<usize, StoreError> {
    let Some((owners, all)) = owners(shared, app).await else {
        return Ok(0);
    };
    if all {
        shared.store.forget_abandoned(&app.id, &owners).await?;
    }
    // Applications may share a database; the executors of another one are not unknown.
    let known: HashSet<(String, String)> =
        shared.store.known_executors().await?.into_iter().collect();
    let live: HashSet<String> = shared
        .hub
        .connected()
        .iter()
        .map(|session| session.identity().executor_id.clone())
        .collect();
    let mut found = 0;
    for (executor_id, version) in owners {
        if executor_id.is_empty() || executor_id == LOCAL || live.contains(&executor_id) {
            continue;
        }
        if known.contains(&(executor_id.clone(), version.clone())) {
            continue;
        }
        let key = ExecutorKey {
            app_id: app.id.clone(),
            executor_id,
            version,
        };
        if shared.store.insert_unknown_executor(&key).await? {
            found += 1;
        }
    }
    Ok(found)
}

/// Executors, with their versions, that pending workflows stand under, and whether these are all;
/// `None` if nobody could say.
async fn owners(shared: &Shared, app: &AppRow) -> Option<(HashSet<(String, String)>, bool)> {
    let pending = vec!["PENDING".to_owned()];
    let message = GetWorkflowAggregates {
        body: WorkflowAggregates {
            group_by_executor_id: true,
            group_by_application_version: true,
            select_count: true,
            filter: AggregateFilter {
                status: pending.clone(),
                application_name: vec![app.name.clone()],
                ..AggregateFilter::default()
            },
            ..WorkflowAggregates::default()
        },
    };
    let class = Class::Background(DEADLINE);
    if let Ok(answer) = shared
        .hub
        .request(app, Target::AnyHealthy, &message, class)
        .await
    {
        let owner = |group: &BTreeMap<String, Option<String>>| {
            let value = |name: &str| group.get(name).cloned().flatten();
            Some((value("executor_id")?, value("application_version")?))
        };
        let rows = answer.output.iter();
        return Some((rows.filter_map(|row| owner(&row.group)).collect(), true));
    }
    let message = ListWorkflows {
        body: WorkflowFilter {
            status: pending,
            application_name: vec![app.name.clone()],
            limit: Some(PAGE),
            load_input: false,
            load_output: false,
            ..WorkflowFilter::default()
        },
    };
    let answer = shared
        .hub
        .request(app, Target::AnyHealthy, &message, class)
        .await
        .ok()?;
    let owner = |record: segno_protocol::WorkflowRecord| {
        Some((record.executor_id?, record.application_version?))
    };
    let all = u64::try_from(answer.output.len()).is_ok_and(|found| found < PAGE);
    Some((answer.output.into_iter().filter_map(owner).collect(), all))
}
