//! Drives one dead executor's case from its claim to its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use segno_protocol::{
    AggregateFilter, ExistPendingWorkflows, GetWorkflowAggregates, ListWorkflows,
    WorkflowAggregates, WorkflowFilter, features,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::machine::{
    self, Answer, Candidate, Case, Effect, Event, ExecutorKey, Millis, Outcome, Phase, Reason,
};
use super::news::{News, NewsKind};
use super::{Shared, moving};
use crate::hub::{Class, HubError, Target};
use crate::store::StoreError;
use crate::store::apps::{AppRow, RecoveryPolicy};

/// For the question whether anything is pending, of each executor asked.
const ASK_DEADLINES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(15)];
/// For counting what is pending before it is offered: nice to know, not worth waiting for.
const COUNT_DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two tries to write.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// At most so many are counted where there are no aggregates.
const COUNT_AT_MOST: u64 = 1000;

/// The right to drive a dead executor's recovery.
pub(super) struct Claim {
    pub(super) generation: i64,
    pub(super) recovery_id: String,
    /// The dead executor's language.
    pub(super) language: Option<String>,
}

/// What happens to a case from outside while it runs. Signals, not messages: they may be given any
/// number of times.
#[derive(Default)]
pub(super) struct Mailbox {
    signals: Mutex<Signals>,
    notify: Notify,
}

#[derive(Default)]
struct Signals {
    arrived: bool,
    returned: bool,
    claim_lost: bool,
    assigned: Option<String>,
}

impl Mailbox {
    fn signals(&self) -> MutexGuard<'_, Signals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, set: impl FnOnce(&mut Signals)) {
        set(&mut self.signals());
        self.notify.notify_one();
    }

    /// Somebody of the application connected.
    pub(super) fn arrived(&self) {
        self.signal(|signals| signals.arrived = true);
    }

    /// The dead executor is back.
    pub(super) fn returned(&self) {
        self.signal(|signals| signals.returned = true);
    }

    /// The row is not ours any more.
    pub(super) fn claim_lost(&self) {
        self.signal(|signals| signals.claim_lost = true);
    }

    /// An operator lets this version take over.
    pub(super) fn assigned(&self, version: String) {
        self.signal(|signals| signals.assigned = Some(version));
    }

    fn take(&self) -> Vec<Event> {
        let signals = std::mem::take(&mut *self.signals());
        let mut events = Vec::new();
        if signals.returned {
            events.push(Event::Connected);
        }
        if signals.claim_lost {
            events.push(Event::ClaimLost);
        }
        if let Some(version) = signals.assigned {
            events.push(Event::Assign(version));
        }
        if signals.arrived {
            events.push(Event::Arrived);
        }
        events
    }

    /// Waits until the case has nothing more to do.
    async fn called_off(&self) {
        loop {
            let notified = self.notify.notified();
            {
                let signals = self.signals();
                if signals.returned || signals.claim_lost {
                    return;
                }
            }
            notified.await;
        }
    }
}

struct Runner<'a> {
    shared: &'a Arc<Shared>,
    mailbox: &'a Mailbox,
    claim: Claim,
    app: AppRow,
    dead_at: Millis,
    pending: Option<i64>,
    recovered_by: Option<String>,
}

/// Drives `case`, just claimed, to its end.
pub(super) async fn run(shared: &Arc<Shared>, mut case: Case, claim: Claim, mailbox: &Mailbox) {
    let app_id = case.executor.app_id.clone();
    let Some(app) = persist(|| shared.store.app_by_id(&app_id)).await else {
        return;
    };
    case.latest_may = app.recovery_policy == RecoveryPolicy::Latest;
    let mut runner = Runner {
        shared,
        mailbox,
        claim,
        app,
        dead_at: shared.instance.now(),
        pending: None,
        recovered_by: None,
    };
    let mut events = VecDeque::from([Event::Claimed]);
    loop {
        while let Some(event) = events.pop_front() {
            let (next, effects) = machine::step(&case, &event, shared.instance.now());
            case = next;
            for effect in effects {
                let answer = runner.carry_out(&case, effect).await;
                // What happened meanwhile comes first: it may make the answer void.
                events.extend(mailbox.take());
                events.extend(answer);
            }
        }
        if matches!(case.phase, Phase::Over(_)) {
            return;
        }
        let left = case.wake_at().map_or(0, |at| at - shared.instance.now());
        let sleep = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        tokio::select! {
            () = mailbox.notify.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
        events.extend(mailbox.take());
        events.push_back(Event::Tick);
    }
}

impl Runner<'_> {
    /// Does what the machine decided; returns what came of it, if the machine asked.
    async fn carry_out(&mut self, case: &Case, effect: Effect) -> Option<Event> {
        // Without the store's word nothing is done.
        if effect.needs_claim() && !self.is_claimed(case).await {
            return Some(Event::ClaimLost);
        }
        match effect {
            // The driver claims before it starts a runner.
            Effect::Claim => None,
            Effect::Ask => Some(self.ask(case).await),
            Effect::Look => Some(self.look(case).await),
            Effect::Offer { to } => Some(self.offer(case, &to).await),
            Effect::FindLatest => Some(Event::Latest(self.latest().await)),
            Effect::Move { version } => Some(self.move_to(case, &version).await),
            Effect::RecordDispatching => {
                let id = &self.claim.recovery_id;
                persist(|| self.shared.store.recovery_dispatching(id)).await;
                None
            }
            Effect::RecordStranded { reason } => {
                self.stranded(case, reason).await;
                None
            }
            Effect::Forget { outcome } => self.forget(case, outcome).await,
        }
    }

    /// Whether the claim stands.
    async fn is_claimed(&self, case: &Case) -> bool {
        let generation = self.claim.generation;
        persist(|| self.shared.store.is_claimed(&case.executor, generation)).await
    }

    async fn ask(&mut self, case: &Case) -> Event {
        if let Phase::Asking { after_offer: false } = case.phase {
            self.read_assignment(case).await;
        }
        let message = ExistPendingWorkflows {
            executor_id: case.executor.executor_id.clone(),
            application_version: case.executor.version.clone(),
        };
        let answer = tokio::select! {
            () = self.mailbox.called_off() => return Event::Tick,
            answer = self.ask_anybody(&message) => answer,
        };
        if answer == Answer::Yes && matches!(case.phase, Phase::Asking { after_offer: true }) {
            let id = &self.claim.recovery_id;
            persist(|| self.shared.store.recovery_still_pending(id)).await;
        }
        Event::Pending(answer)
    }

    /// Asks one after the other: briefly first, for one that hangs must not hold up the recovery, then
    /// with patience, for all may be busy.
    async fn ask_anybody(&self, message: &ExistPendingWorkflows) -> Answer {
        for deadline in ASK_DEADLINES {
            let class = Class::Background(deadline);
            match self
                .shared
                .hub
                .request(&self.app, Target::AnyHealthy, message, class)
                .await
            {
                Ok(answer) if answer.exist => return Answer::Yes,
                Ok(_) => return Answer::No,
                Err(HubError::NoAnswer { reason, .. }) => {
                    tracing::debug!(executor_id = %message.executor_id, reason, "nobody could say what is pending");
                }
                Err(error) => {
                    tracing::debug!(executor_id = %message.executor_id, %error, "nobody could say what is pending");
                    return Answer::Unknown;
                }
            }
        }
        Answer::Unknown
    }

    /// An operator's word may have come to another instance, or before a crash.
    async fn read_assignment(&self, case: &Case) {
        let (app_id, id) = (&case.executor.app_id, &self.claim.recovery_id);
        let record = persist(|| self.shared.store.recovery(app_id, id)).await;
        if let Some(version) = record.and_then(|record| record.assigned_version)
            && case.assigned.as_ref() != Some(&version)
        {
            self.mailbox.assigned(version);
        }
    }

    async fn look(&mut self, case: &Case) -> Event {
        if self.pending.is_none() {
            let counted = timeout(
                COUNT_DEADLINE,
                count(self.shared, &self.app, &case.executor),
            )
            .await;
            self.note_pending(counted.ok().flatten()).await;
        }
        let sessions = self.shared.hub.everywhere(&case.executor.app_id).await;
        let candidates = sessions.into_iter().map(|session| {
            let executor = ExecutorKey {
                app_id: session.app_id,
                executor_id: session.executor_id,
                version: session.version,
            };
            let (offers, last_used) = self.shared.offers.load(&executor);
            let language = session.language.unwrap_or_default();
            Candidate {
                responsive: session.unresponsive_for.is_none(),
                shares: features::recovery_reenqueues(
                    &language,
                    session.sdk_version.as_deref().unwrap_or_default(),
                ),
                same_language: self.claim.language.as_deref() == Some(language.as_str()),
                load: session.outstanding + offers,
                last_used,
                executor,
            }
        });
        Event::Candidates(candidates.collect())
    }

    async fn note_pending(&mut self, pending: Option<i64>) {
        if let Some(pending) = pending {
            self.pending = Some(pending);
            let id = &self.claim.recovery_id;
            persist(|| self.shared.store.recovery_counted(id, pending)).await;
        }
    }

    async fn offer(&mut self, case: &Case, to: &ExecutorKey) -> Event {
        let asked = Instant::now();
        self.tell(
            case,
            NewsKind::Dispatching {
                recovery_id: self.claim.recovery_id.clone(),
                to: to.executor_id.clone(),
                pending: self.pending,
            },
        );
        let verdict = self
            .shared
            .offers
            .offer(&self.app, to, &case.executor.executor_id)
            .await;
        let (outcome, error) = match &verdict {
            Ok(()) => ("ACCEPTED", None),
            Err(error) => ("FAILED", Some(error.as_str())),
        };
        if verdict.is_ok() {
            self.recovered_by = Some(to.executor_id.clone());
        }
        let id = &self.claim.recovery_id;
        persist(|| {
            self.shared
                .store
                .recovery_attempt(id, &to.executor_id, asked.elapsed(), outcome, error)
        })
        .await;
        Event::Offered(verdict.is_ok())
    }

    /// The latest version, if somebody runs it.
    async fn latest(&self) -> Option<String> {
        let version = self.shared.hub.latest_version(&self.app).await.ok()?;
        let sessions = self.shared.hub.everywhere(&self.app.id).await;
        sessions
            .iter()
            .any(|session| session.version == version)
            .then_some(version)
    }

    async fn move_to(&mut self, case: &Case, version: &str) -> Event {
        if self.pending.is_none() {
            let counted = timeout(
                COUNT_DEADLINE,
                count(self.shared, &self.app, &case.executor),
            )
            .await;
            self.note_pending(counted.ok().flatten()).await;
        }
        let asked = Instant::now();
        let moved = moving::move_pending(
            self.shared,
            &self.app,
            &case.executor,
            self.claim.generation,
            version,
        )
        .await;
        let outcome = match &moved {
            Ok(_) => "FORKED",
            Err(_) => "FAILED",
        };
        let error = moved.as_ref().err().map(String::as_str);
        let by = moved.as_ref().ok().cloned().flatten();
        let id = &self.claim.recovery_id;
        // Nobody, where forks wait for an executor of the version.
        let named = by.as_deref().unwrap_or_default();
        persist(|| {
            self.shared
                .store
                .recovery_attempt(id, named, asked.elapsed(), outcome, error)
        })
        .await;
        if by.is_some() {
            self.recovered_by = by;
        }
        Event::Moved(moved.is_ok())
    }

    async fn stranded(&mut self, case: &Case, reason: Reason) {
        let id = self.claim.recovery_id.clone();
        persist(|| self.shared.store.recovery_stranded(&id, reason)).await;
        self.tell(
            case,
            NewsKind::Stranded {
                recovery_id: id.clone(),
                reason,
                pending: self.pending,
            },
        );
        if reason == Reason::NoExecutor {
            return;
        }
        // Beside, so that whoever arrives meanwhile is not kept waiting.
        let (shared, app, executor) =
            (self.shared.clone(), self.app.clone(), case.executor.clone());
        tokio::spawn(async move {
            if let Some(pending) = count(&shared, &app, &executor).await
                && let Err(error) = shared.store.recovery_counted(&id, pending).await
            {
                tracing::debug!(%error, "the count of a stranded recovery was not written");
            }
        });
    }

    async fn forget(&mut self, case: &Case, outcome: Outcome) -> Option<Event> {
        let status = match outcome {
            Outcome::Recovered => "RECOVERED",
            Outcome::NothingPending => "NOTHING_PENDING",
            Outcome::Rejoined | Outcome::Yielded => return None,
        };
        let (generation, id) = (self.claim.generation, self.claim.recovery_id.clone());
        let by = self.recovered_by.clone();
        if outcome == Outcome::NothingPending {
            self.note_pending(Some(0)).await;
        }
        let forgotten = persist(|| {
            self.shared
                .store
                .forget_dead(&case.executor, generation, &id, status, by.as_deref())
        })
        .await;
        if forgotten {
            self.shared.metrics.recovery(status);
            let took = self.shared.instance.now() - self.dead_at;
            self.shared.metrics.recovery_took(status, took);
            self.tell(
                case,
                match outcome {
                    Outcome::Recovered => NewsKind::Recovered {
                        recovery_id: id,
                        recovered_by: by,
                        pending: self.pending,
                        took_ms: took,
                    },
                    _ => NewsKind::NothingPending { recovery_id: id },
                },
            );
        }
        None
    }

    fn tell(&self, case: &Case, kind: NewsKind) {
        self.shared
            .tell(News::of(&case.executor, self.shared.instance.now(), kind));
    }
}

/// How many workflows are pending under an executor; `None` if nobody could say.
async fn count(shared: &Shared, app: &AppRow, executor: &ExecutorKey) -> Option<i64> {
    let aggregates = GetWorkflowAggregates {
        body: WorkflowAggregates {
            group_by_status: true,
            select_count: true,
            filter: AggregateFilter {
                status: vec!["PENDING".to_owned()],
                executor_id: vec![executor.executor_id.clone()],
                app_version: vec![executor.version.clone()],
                ..AggregateFilter::default()
            },
            ..WorkflowAggregates::default()
        },
    };
    if let Ok(answer) = shared
        .hub
        .request(app, Target::AnyHealthy, &aggregates, Class::Read)
        .await
    {
        return Some(answer.output.iter().filter_map(|row| row.count).sum());
    }
    let list = ListWorkflows {
        body: WorkflowFilter {
            limit: Some(COUNT_AT_MOST),
            ..moving::pending_of(executor)
        },
    };
    let answer = shared
        .hub
        .request(app, Target::AnyHealthy, &list, Class::Read)
        .await
        .ok()?;
    i64::try_from(answer.output.len()).ok()
}

/// Writes until it is written: recovery does not go on without its books.
pub(super) async fn persist<T, F, Fut>(write: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut said = false;
    loop {
        match write().await {
            Ok(value) => return value,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "a recovery waits for the store");
                }
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }
}
