//! What becomes of one executor: the decisions, and nothing else.
//!
//! [`step`] is a pure function of a case, an event and the time. It has no clock, socket or row: the
//! driver tells it what happened and carries out what it decides. Everything that recovery promises
//! can therefore be checked on this file alone (see [`crate::invariants`]).
//!
//! ```text
//! Healthy ── Lost ──► Grace ── grace over ──► Claiming ── Claimed ──► Asking
//!    ▲                  │                                            │  │ ▲
//!    └──── Connected ───┘                none pending: forgotten ◄───┘  │ │ asked again
//!                                        nobody to ask: Stranded ◄──────┤ │ after every offer
//!                                                                       ▼ │
//!            nobody of the version, or offered in vain: Stranded ◄── Offering
//! ```
//!
//! A connection of the same id and version ends a case in every phase: nothing more is offered.

use serde::{Deserialize, Serialize};

/// Epoch milliseconds of the store's clock.
pub type Millis = i64;

/// After so many offers in vain a recovery is stranded, and tried again with a pause.
pub const ROUNDS: u32 = 3;

/// An executor: an id *and* a version, in an application. An id that returns with another version is
/// another executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutorKey {
    /// The application.
    pub app_id: String,
    /// Unique in the application, together with the version.
    pub executor_id: String,
    /// The application version it runs, or ran.
    pub version: String,
}

/// Why a recovery does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// Nobody is connected who could say what is pending.
    NoExecutor,
    /// Workflows are pending and nobody runs their version.
    NoMatchingVersion,
    /// Offered three times, and still pending.
    NotConfirmed,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Seen to have moved.
    Recovered,
    /// There was nothing to move.
    NothingPending,
    /// The executor came back.
    Rejoined,
    /// The claim was lost: another instance drives it, or an operator gave the work up.
    Yielded,
}

/// Where a case stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Connected.
    Healthy,
    /// Lost, and waited for.
    Grace {
        /// Grace counts from here.
        from: Millis,
        /// When the loss was found out.
        noticed: Millis,
    },
    /// Grace is over; the row is being claimed.
    Claiming,
    /// Somebody is asked whether anything is pending.
    Asking {
        /// Whether it was offered to somebody just before.
        after_offer: bool,
    },
    /// A recoverer is looked for among those connected.
    Choosing,
    /// Offered to this executor, which has not answered.
    Offering {
        /// The recoverer's id.
        to: String,
    },
    /// The workflows are being forked to another version.
    Moving {
        /// The version.
        version: String,
    },
    /// Waiting for an executor, an operator, or the next try.
    Stranded {
        /// Why.
        reason: Reason,
        /// When it is tried again.
        retry_at: Millis,
    },
    /// Nothing more to do.
    Over(Outcome),
}

/// One executor's case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// Whose.
    pub executor: ExecutorKey,
    /// How long it may be away, milliseconds.
    pub grace: Millis,
    /// Where it stands.
    pub phase: Phase,
    /// Version that an operator, or the application's policy, lets take over if no executor of the
    /// same version can.
    pub assigned: Option<String>,
    /// Whether the policy lets the latest version take over.
    pub latest_may: bool,
    /// Who was asked to recover so far, and how often.
    pub offers: Vec<(String, u32)>,
    /// Whether workflows were forked to another version.
    pub moved: bool,
    /// Offers in vain since the last pause.
    pub rounds: u32,
    /// Pauses so far, for the back-off.
    pub pauses: u32,
    /// Whether somebody connected since the last look at who is there.
    pub arrived: bool,
    /// Pause between tries: the first and the longest, milliseconds.
    pub retry: (Millis, Millis),
}

/// A connected executor that might recover.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Who.
    pub executor: ExecutorKey,
    /// Whether it answers requests.
    pub responsive: bool,
    /// Whether it shares what it recovers with its whole version instead of starting it all itself.
    pub shares: bool,
    /// Whether it is of the dead one's language.
    pub same_language: bool,
    /// Requests and offers it has not answered yet.
    pub load: usize,
    /// When it last was given something to recover; 0 for never.
    pub last_used: u64,
}

/// What somebody who was asked said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Something is pending.
    Yes,
    /// Nothing is pending.
    No,
    /// Nobody could be asked, or nobody answered. An error is never a no.
    Unknown,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its socket is gone.
    Lost {
        /// When it was last there.
        at: Millis,
        /// When that was found out.
        noticed: Millis,
    },
    /// The same id and version is connected.
    Connected,
    /// Time passed.
    Tick,
    /// Who must know says that it is gone: an operator, or the executor itself when it stopped.
    Gone,
    /// The row is ours to drive.
    Claimed,
    /// The row is not, or no longer, ours.
    ClaimLost,
    /// The answer to [`Effect::Ask`].
    Pending(Answer),
    /// The answer to [`Effect::Look`].
    Candidates(Vec<Candidate>),
    /// The answer to [`Effect::Offer`]: whether the recoverer said that it did it.
    Offered(bool),
    /// The answer to [`Effect::FindLatest`].
    Latest(Option<String>),
    /// The answer to [`Effect::Move`]: whether all forks succeeded.
    Moved(bool),
    /// Somebody of the application connected.
    Arrived,
    /// An operator lets this version take over.
    Assign(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Mark the executor dead and claim its row, if it is still lost; then tell whether that worked.
    Claim,
    /// Ask any executor whether something is pending.
    Ask,
    /// Say who is connected.
    Look,
    /// Ask this executor to recover.
    Offer {
        /// The recoverer.
        to: ExecutorKey,
    },
    /// Say which version is the latest.
    FindLatest,
    /// Fork what is pending to this version and cancel the originals.
    Move {
        /// The version.
        version: String,
    },
    /// Record that something is being offered or moved.
    RecordDispatching,
    /// Record that it does not go on, with a count of what is pending.
    RecordStranded {
        /// Why.
        reason: Reason,
    },
    /// Forget the executor and record how it ended.
    Forget {
        /// How.
        outcome: Outcome,
    },
}

impl Effect {
    /// Whether it may be carried out only while the claim stands: to be asked of the store right before.
    pub fn needs_claim(&self) -> bool {
        matches!(self, Self::Ask | Self::Offer { .. } | Self::Move { .. })
    }
}

impl Case {
    /// An executor that is lost since `from`, which was found out at `noticed`.
    pub fn lost(
        executor: ExecutorKey,
        (from, noticed): (Millis, Millis),
        grace: Millis,
        retry: (Millis, Millis),
    ) -> Self {
        Self {
            phase: Phase::Grace { from, noticed },
            ..Self::healthy(executor, grace, retry)
        }
    }

    /// A dead executor whose row is being claimed.
    pub fn dead(executor: ExecutorKey, retry: (Millis, Millis)) -> Self {
        Self {
            phase: Phase::Claiming,
            ..Self::healthy(executor, 0, retry)
        }
    }

    /// A connected executor.
    pub fn healthy(executor: ExecutorKey, grace: Millis, retry: (Millis, Millis)) -> Self {
        Self {
            executor,
            grace,
            phase: Phase::Healthy,
            assigned: None,
            latest_may: false,
            offers: Vec::new(),
            moved: false,
            rounds: 0,
            pauses: 0,
            arrived: false,
            retry,
        }
    }

    /// When grace is over: counted from the loss, but some is always left once it was found out.
    pub fn deadline(&self) -> Option<Millis> {
        const LEFT: Millis = 5_000;
        match self.phase {
            Phase::Grace { from, noticed } => {
                Some((from + self.grace).max(noticed + self.grace.min(LEFT)))
            }
            _ => None,
        }
    }

    /// When [`Event::Tick`] is due, if ever.
    pub fn wake_at(&self) -> Option<Millis> {
        match self.phase {
            Phase::Stranded { retry_at, .. } => Some(retry_at),
            _ => self.deadline(),
        }
    }

    /// Whether anything was offered to anybody, or moved.
    pub fn was_offered(&self) -> bool {
        self.moved || !self.offers.is_empty()
    }

    fn offered_to(&self, executor_id: &str) -> u32 {
        self.offers
            .iter()
            .find(|(id, _)| id == executor_id)
            .map_or(0, |(_, times)| *times)
    }

    fn note_offer(&mut self, executor_id: &str) {
        match self.offers.iter_mut().find(|(id, _)| id == executor_id) {
            Some((_, times)) => *times += 1,
            None => self.offers.push((executor_id.to_owned(), 1)),
        }
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Effect> {
        self.phase = Phase::Over(outcome);
        match outcome {
            Outcome::Rejoined | Outcome::Yielded => Vec::new(),
            _ => vec![Effect::Forget { outcome }],
        }
    }

    fn ask(&mut self, after_offer: bool) -> Vec<Effect> {
        self.phase = Phase::Asking { after_offer };
        self.arrived = false;
        vec![Effect::Ask]
    }

    fn strand(&mut self, reason: Reason, now: Millis) -> Vec<Effect> {
        if self.arrived && reason != Reason::NotConfirmed {
            // Somebody came while we were asking: look again at once.
            return self.ask(false);
        }
        let (first, longest) = self.retry;
        let pause = first.saturating_mul(1 << self.pauses.min(16)).min(longest);
        self.pauses += 1;
        self.rounds = 0;
        self.phase = Phase::Stranded {
            reason,
            retry_at: now + pause,
        };
        vec![Effect::RecordStranded { reason }]
    }

    fn go_on(&mut self, now: Millis) -> Vec<Effect> {
        if self.rounds >= ROUNDS {
            return self.strand(Reason::NotConfirmed, now);
        }
        if let Some(version) = self.assigned.clone() {
            return self.move_to(version);
        }
        self.phase = Phase::Choosing;
        vec![Effect::Look]
    }

    fn nobody_of_the_version(&mut self, now: Millis) -> Vec<Effect> {
        if let Some(version) = self.assigned.clone() {
            return self.move_to(version);
        }
        if self.latest_may && !self.arrived {
            return vec![Effect::FindLatest];
        }
        self.strand(Reason::NoMatchingVersion, now)
    }

    fn move_to(&mut self, version: String) -> Vec<Effect> {
        self.moved = true;
        self.phase = Phase::Moving {
            version: version.clone(),
        };
        vec![Effect::RecordDispatching, Effect::Move { version }]
    }

    /// Chooses among the connected the one to recover: of the same application and version; one that
    /// answers, was asked least often, shares, speaks the language, has least to do, and rested most.
    fn choose<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        candidates
            .iter()
            .filter(|candidate| {
                candidate.executor.app_id == self.executor.app_id
                    && candidate.executor.version == self.executor.version
                    && candidate.executor.executor_id != self.executor.executor_id
            })
            .min_by_key(|candidate| {
                (
                    !candidate.responsive,
                    self.offered_to(&candidate.executor.executor_id),
                    !candidate.shares,
                    !candidate.same_language,
                    candidate.load,
                    candidate.last_used,
                )
            })
    }
}

/// Advances a case by one event.
pub fn step(case: &Case, event: &Event, now: Millis) -> (Case, Vec<Effect>) {
    let mut next = case.clone();
    let effects = advance(&mut next, event, now);
    debug_assert_eq!(
        crate::invariants::check(case, event, &next, &effects, now),
        Ok(())
    );
    (next, effects)
}

fn advance(case: &mut Case, event: &Event, now: Millis) -> Vec<Effect> {
    match (case.phase.clone(), event) {
        (Phase::Over(_), _) => Vec::new(),

        // It is back: whatever was planned is off. What is in flight ends by itself.
        (Phase::Healthy, Event::Connected) => Vec::new(),
        (Phase::Grace { .. } | Phase::Claiming, Event::Connected) => {
            case.phase = Phase::Healthy;
            Vec::new()
        }
        (_, Event::Connected) => case.end(Outcome::Rejoined),

        (Phase::Healthy, Event::Lost { at, noticed }) => {
            case.phase = Phase::Grace {
                from: *at,
                noticed: *noticed,
            };
            Vec::new()
        }
        (Phase::Healthy | Phase::Grace { .. }, Event::Gone) => {
            case.phase = Phase::Claiming;
            vec![Effect::Claim]
        }
        (Phase::Grace { .. }, Event::Tick)
            if case.deadline().is_some_and(|deadline| now >= deadline) =>
        {
            case.phase = Phase::Claiming;
            vec![Effect::Claim]
        }
        (Phase::Claiming, Event::Claimed) => case.ask(false),
        (Phase::Healthy | Phase::Grace { .. }, _) => Vec::new(),
        (_, Event::ClaimLost) => case.end(Outcome::Yielded),
        (Phase::Claiming, _) => Vec::new(),

        // From here on the executor is dead and ours to recover.
        (phase, Event::Assign(version)) => {
            case.assigned = Some(version.clone());
            match phase {
                Phase::Stranded { .. } => {
                    case.rounds = 0;
                    case.ask(false)
                }
                _ => Vec::new(),
            }
        }
        (Phase::Stranded { .. }, Event::Arrived) => case.ask(false),
        (_, Event::Arrived) => {
            case.arrived = true;
            Vec::new()
        }
        (Phase::Stranded { retry_at, .. }, Event::Tick) if now >= retry_at => case.ask(false),

        (Phase::Asking { .. }, Event::Pending(answer)) => answered(case, *answer, now),
        (Phase::Choosing, Event::Candidates(candidates)) => match case.choose(candidates) {
            Some(candidate) => {
                let to = candidate.executor.clone();
                case.note_offer(&to.executor_id);
                case.phase = Phase::Offering {
                    to: to.executor_id.clone(),
                };
                vec![Effect::RecordDispatching, Effect::Offer { to }]
            }
            None => case.nobody_of_the_version(now),
        },
        (Phase::Choosing, Event::Latest(Some(version))) if *version != case.executor.version => {
            case.move_to(version.clone())
        }
        (Phase::Choosing, Event::Latest(_)) => case.strand(Reason::NoMatchingVersion, now),
        // Whatever the recoverer said, only the next answer counts.
        (Phase::Offering { .. }, Event::Offered(_)) | (Phase::Moving { .. }, Event::Moved(_)) => {
            case.rounds += 1;
            case.ask(true)
        }
        _ => Vec::new(),
    }
}

fn answered(case: &mut Case, answer: Answer, now: Millis) -> Vec<Effect> {
    match answer {
        Answer::No if case.was_offered() => case.end(Outcome::Recovered),
        Answer::No => case.end(Outcome::NothingPending),
        Answer::Yes => case.go_on(now),
        Answer::Unknown => case.strand(Reason::NoExecutor, now),
    }
}
