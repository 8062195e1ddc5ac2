//! Hands dead executors to recoverers: one request at a time for each recoverer, and in it everybody
//! who waits for that recoverer, up to twenty. When a node is lost its executors travel together;
//! no timer collects them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use segno_protocol::Recovery;
use tokio::sync::oneshot;

use super::machine::ExecutorKey;
use crate::hub::{Class, Hub, Target};
use crate::store::apps::AppRow;

/// At most so many ids in one request.
const BATCH: usize = 20;
/// For one request.
const DEADLINE: Duration = Duration::from_secs(60);

type Verdict = Result<(), String>;

#[derive(Clone)]
pub(super) struct Offers {
    hub: Hub,
    lanes: Arc<Mutex<Lanes>>,
}

#[derive(Default)]
struct Lanes {
    by_recoverer: HashMap<ExecutorKey, Lane>,
    used: HashMap<ExecutorKey, u64>,
    sequence: u64,
}

#[derive(Default)]
struct Lane {
    in_flight: usize,
    waiting: VecDeque<(String, oneshot::Sender<Verdict>)>,
}

impl Offers {
    pub(super) fn new(hub: Hub) -> Self {
        Self {
            hub,
            lanes: Arc::default(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a recoverer has to do already, and when it was last given something (0: never).
    pub(super) fn load(&self, recoverer: &ExecutorKey) -> (usize, u64) {
        let lanes = self.lanes();
        let load = lanes
            .by_recoverer
            .get(recoverer)
            .map_or(0, |lane| lane.in_flight + lane.waiting.len());
        (load, lanes.used.get(recoverer).copied().unwrap_or(0))
    }

    /// Asks `to` to recover the dead executor, and says what came of it. The caller holds the claim.
    pub(super) async fn offer(&self, app: &AppRow, to: &ExecutorKey, dead: &str) -> Verdict {
        debug_assert_eq!(app.id, to.app_id, "an offer crosses applications");
        let (reply, verdict) = oneshot::channel();
        let idle = {
            let mut lanes = self.lanes();
            lanes.sequence += 1;
            let now = lanes.sequence;
            lanes.used.insert(to.clone(), now);
            let idle = !lanes.by_recoverer.contains_key(to);
            let lane = lanes.by_recoverer.entry(to.clone()).or_default();
            lane.waiting.push_back((dead.to_owned(), reply));
            idle
        };
        if idle {
            tokio::spawn(self.clone().run(app.clone(), to.clone()));
        }
        verdict
            .await
            .unwrap_or_else(|_| Err("the server is stopping".to_owned()))
    }

    /// Serves one recoverer until nobody waits for it.
    async fn run(self, app: AppRow, to: ExecutorKey) {
        loop {
            let batch: Vec<_> = {
                let mut lanes = self.lanes();
                let Some(lane) = lanes.by_recoverer.get_mut(&to) else {
                    return;
                };
                let count = lane.waiting.len().min(BATCH);
                lane.in_flight = count;
                if count == 0 {
                    lanes.by_recoverer.remove(&to);
                    lanes.forget_idle(&self.hub);
                    return;
                }
                lane.waiting.drain(..count).collect()
            };
            let verdict = self.send(&app, &to, &batch).await;
            for (_, reply) in batch {
                // Whoever rejoined meanwhile listens no more.
                let _ = reply.send(verdict.clone());
            }
        }
    }

    async fn send(
        &self,
        app: &AppRow,
        to: &ExecutorKey,
        batch: &[(String, oneshot::Sender<Verdict>)],
    ) -> Verdict {
        // Once more, right before it leaves: nothing is taken from one that is back.
        let still_dead = |id: &&String| !self.hub.is_connected(&app.id, id, &to.version);
        let waiting = batch
            .iter()
            .filter(|(_, reply)| !reply.is_closed())
            .map(|(id, _)| id);
        let ids: HashSet<&String> = waiting.filter(still_dead).collect();
        let ids: Vec<String> = ids.into_iter().cloned().collect();
        let Some(message) = Recovery::new(ids) else {
            return Err("it came back".to_owned());
        };
        let target = Target::Executor {
            id: to.executor_id.clone(),
            version: to.version.clone(),
        };
        match self
            .hub
            .request(app, target, &message, Class::Background(DEADLINE))
            .await
        {
            Ok(answer) if answer.success => Ok(()),
            Ok(_) => Err("the executor answered success: false".to_owned()),
            Err(error) => Err(one_line(&error.to_string())),
        }
    }
}

impl Lanes {
    /// Recoverers come and go; what is remembered of them must not grow for ever.
    fn forget_idle(&mut self, hub: &Hub) {
        if self.used.len() > 1024 {
            self.used
                .retain(|key, _| hub.is_connected(&key.app_id, &key.executor_id, &key.version));
        }
    }
}

/// The last line of a text that may be a traceback, shortened: records outlive the request, and
/// tracebacks may quote data.
pub(super) fn one_line(text: &str) -> String {
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    line.chars().take(300).collect()
}
