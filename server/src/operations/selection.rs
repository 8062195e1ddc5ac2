//! Which workflows an operation means.

use std::collections::HashMap;

use segno_protocol::{ListWorkflows, WorkflowRecord};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::work::{Trouble, Work};
use crate::api::filter::WorkflowSearchBody;
use crate::store::operations::Selected;

/// Workflows listed at a time.
const PAGE: usize = 500;
/// So many are shown of what was selected.
const SAMPLE: usize = 10;

/// Which workflows are meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Selection {
    /// These.
    Ids(Vec<String>),
    /// All that match.
    Filter(Box<WorkflowSearchBody>),
}

/// What was selected.
pub(super) struct Found {
    pub selected: Vec<Selected>,
    /// Whether there are more than may be.
    pub truncated: bool,
    /// Some of it, as JSON for the API.
    pub sample: String,
}

impl Selection {
    /// Finds the workflows, at most `limit`.
    pub(super) async fn find(&self, work: &Work<'_>, limit: i64) -> Result<Found, Trouble> {
        let limit = usize::try_from(limit).unwrap_or(0);
        match self {
            Self::Ids(ids) => by_id(work, ids, limit).await,
            Self::Filter(filter) => matching(work, filter, limit).await,
        }
    }
}

fn is_own(work: &Work<'_>, record: &WorkflowRecord) -> bool {
    let owner = record.application_name.as_ref();
    owner.is_none_or(|owner| *owner == work.app.name)
}

/// Executors pass over an id that they do not know; who names one is told.
async fn by_id(work: &Work<'_>, ids: &[String], limit: usize) -> Result<Found, Trouble> {
    let truncated = ids.len() > limit;
    let ids = &ids[..ids.len().min(limit)];
    let mut known: HashMap<String, WorkflowRecord> = HashMap::new();
    for page in ids.chunks(PAGE) {
        for record in work.records(page.to_vec()).await? {
            if is_own(work, &record) {
                known.insert(record.workflow_uuid.clone(), record);
            }
        }
    }
    let sample = sample(ids.iter().filter_map(|id| known.get(id)));
    let selected = ids.iter().map(|id| Selected {
        workflow_id: id.clone(),
        error: (!known.contains_key(id)).then(|| "there is no such workflow".to_owned()),
    });
    Ok(Found {
        selected: selected.collect(),
        truncated,
        sample,
    })
}

async fn matching(
    work: &Work<'_>,
    filter: &WorkflowSearchBody,
    limit: usize,
) -> Result<Found, Trouble> {
    let mut found: Vec<WorkflowRecord> = Vec::new();
    // One more than may be, to know whether there are more.
    while found.len() <= limit {
        let want = PAGE.min(limit + 1 - found.len());
        let page = WorkflowSearchBody {
            limit: i64::try_from(want).ok(),
            offset: i64::try_from(found.len()).ok().filter(|offset| *offset > 0),
            load_input: Some(false),
            load_output: Some(false),
            ..filter.clone()
        };
        let Some(body) = page.wire(work.app) else {
            break;
        };
        let page = work.ask(&ListWorkflows { body }).await?.output;
        let is_last = page.len() < want;
        found.extend(page);
        if is_last {
            break;
        }
    }
    let truncated = found.len() > limit;
    found.truncate(limit);
    // Rows that appear while pages are read shift the next page.
    let mut seen = std::collections::HashSet::new();
    found.retain(|record| seen.insert(record.workflow_uuid.clone()));
    let sample = sample(found.iter());
    let selected = found.into_iter().map(|record| Selected {
        workflow_id: record.workflow_uuid,
        error: None,
    });
    Ok(Found {
        selected: selected.collect(),
        truncated,
        sample,
    })
}

fn sample<'a>(records: impl Iterator<Item = &'a WorkflowRecord>) -> String {
    let shown = records.take(SAMPLE).map(|record| {
        json!({"workflowId": record.workflow_uuid, "workflowName": record.workflow_name, "status": record.status,
            "appVersion": record.application_version})
    });
    json!(shown.collect::<Vec<_>>()).to_string()
}
