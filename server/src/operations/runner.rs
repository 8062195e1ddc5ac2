//! Drives one operation under its claim, from where it is.

use futures_util::{StreamExt, stream};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::selection::Selection;
use super::work::{Options, Trouble, Work};
use super::{CLAIM, Shared};
use crate::store::StoreError;
use crate::store::apps::AppRow;
use crate::store::operations::{Item, OperationRow, OperationState, Outcome};

/// Workflows read, and written down, at a time. What a crash interrupts is done again: all of it bears
/// that, except that a workflow resumed twice may be enqueued twice.
const CHUNK: i64 = 32;
/// Requests under way at a time.
const CONCURRENCY: usize = 8;

/// How the driving of an operation ended.
enum End {
    /// Every workflow was tried.
    Done,
    /// It was aborted, the claim was lost, or the server stops.
    Stopped,
    /// Nobody is there to do it.
    Waiting(String),
    /// It cannot be done.
    Failed(String),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Waiting(message) => Self::Waiting(message),
            Trouble::Failed(message) => Self::Failed(message),
        }
    }
}

/// Drives a claimed operation until it is over or cannot go on.
pub(super) async fn run(
    shared: &Shared,
    app: &AppRow,
    row: OperationRow,
    stop: &CancellationToken,
) {
    let (id, app_id) = (row.wanted.id.clone(), row.wanted.app_id.clone());
    let _ended = stop.clone().drop_guard();
    shared.tell(&app_id, &id).await;
    let (end, ()) = tokio::join!(
        async {
            let end = drive(shared, app, &row, stop).await;
            stop.cancel();
            end
        },
        keep_claim(shared, &id, stop)
    );
    let (store, instance) = (&shared.store, shared.instance.id());
    let written = match end {
        Ok(End::Stopped) => Ok(()),
        Ok(End::Done) => {
            store
                .finish_operation(&id, instance, OperationState::Done, None)
                .await
        }
        Ok(End::Failed(message)) => {
            let failed = OperationState::Failed;
            store
                .finish_operation(&id, instance, failed, Some(&message))
                .await
        }
        Ok(End::Waiting(message)) => store.release_operation(&id, instance, &message).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        // The claim expires, and the operation goes on.
        tracing::warn!(operation_id = %id, %error, "an operation was interrupted; it goes on later");
    }
    shared.tell(&app_id, &id).await;
}

/// Renews the claim until the driving ends; stops the driving when it is lost.
async fn keep_claim(shared: &Shared, id: &str, stop: &CancellationToken) {
    let mut ticks = interval(CLAIM / 6);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let ttl = crate::cluster::millis(CLAIM);
        let renewed = shared
            .store
            .renew_operation(id, shared.instance.id(), ttl)
            .await;
        // While the store is away nobody else can claim it either.
        if matches!(renewed, Ok(false)) {
            stop.cancel();
        }
    }
}

async fn drive(
    shared: &Shared,
    app: &AppRow,
    row: &OperationRow,
    stop: &CancellationToken,
) -> Result<End, StoreError> {
    let id = &row.wanted.id;
    let read = (
        serde_json::from_str::<Selection>(&row.wanted.selection),
        serde_json::from_str::<Options>(&row.wanted.options),
    );
    let (Ok(selection), Ok(options)) = read else {
        return Ok(End::Failed(
            "what was stored of it cannot be read".to_owned(),
        ));
    };
    let work = Work {
        hub: &shared.hub,
        app,
        id,
        kind: row.wanted.kind,
        options: &options,
    };
    if row.total.is_none() {
        let found = tokio::select! {
            found = selection.find(&work, row.wanted.limit) => found,
            () = stop.cancelled() => return Ok(End::Stopped),
        };
        let found = match found {
            Ok(found) => found,
            Err(trouble) => return Ok(trouble.into()),
        };
        let items = if row.wanted.dry_run {
            &[]
        } else {
            &found.selected[..]
        };
        let total = i64::try_from(found.selected.len()).unwrap_or(i64::MAX);
        let store = &shared.store;
        let instance = shared.instance.id();
        let kept =
            store.select_operation(id, instance, items, total, found.truncated, &found.sample);
        if !kept.await? {
            return Ok(End::Stopped);
        }
        shared.tell(&row.wanted.app_id, id).await;
    }
    loop {
        if stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        let items = shared.store.operation_items(id, CHUNK).await?;
        if items.is_empty() {
            return Ok(End::Done);
        }
        let (outcomes, trouble) = chunk(&work, items, stop).await;
        shared.store.record_outcomes(id, &outcomes).await?;
        if let Some(message) = trouble {
            return Ok(End::Waiting(message));
        }
        shared.tell(&row.wanted.app_id, id).await;
    }
}

/// Does some workflows; returns what became of those that were tried, and why the others wait.
async fn chunk(
    work: &Work<'_>,
    items: Vec<Item>,
    stop: &CancellationToken,
) -> (Vec<Outcome>, Option<String>) {
    let waiting = CancellationToken::new();
    let tried: Vec<Result<Option<Outcome>, String>> = stream::iter(items)
        .map(|item| {
            let waiting = &waiting;
            async move {
                if stop.is_cancelled() || waiting.is_cancelled() {
                    return Ok(None);
                }
                match work.one(&item.workflow_id).await {
                    Ok(()) => Ok(Some((item, None))),
                    Err(Trouble::Failed(message)) => Ok(Some((item, Some(message)))),
                    Err(Trouble::Waiting(message)) => {
                        waiting.cancel();
                        Err(message)
                    }
                }
            }
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut outcomes = Vec::new();
    let mut trouble = None;
    for one in tried {
        match one {
            Ok(outcome) => outcomes.extend(outcome),
            Err(message) => trouble = Some(message),
        }
    }
    (outcomes, trouble)
}
