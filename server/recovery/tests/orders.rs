//! The machine against a small world: executors of three versions in two applications come and go,
//! answers are lost, time passes, all in random order. The promises of [`segno_recovery::invariants`]
//! are checked at every step (by [`step`] itself), those about the whole world here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use segno_recovery::invariants;
use segno_recovery::machine::*;

const GRACE: Millis = 10_000;
const RETRY: (Millis, Millis) = (2_000, 60_000);

/// What may happen next.
#[derive(Clone, Debug)]
enum Act {
    /// An executor's socket is gone. What it ran stays pending under its id.
    Lose(usize),
    /// It is back.
    Return(usize),
    /// Time passes.
    Wait(Millis),
    /// A question that is under way ends.
    Settle(usize, Luck),
    /// A new workflow begins on an executor, if that one is connected.
    Begin(usize),
    /// An operator evicts, or assigns a version.
    Evict(usize),
    Assign(usize, usize),
}

/// How a question ends.
#[derive(Clone, Copy, Debug)]
enum Luck {
    /// As it should.
    Well,
    /// It was done, but the answer is lost.
    AnswerLost,
    /// It was not done.
    Refused,
    /// The recoverer says yes and did nothing.
    Lie,
}

struct World {
    now: Millis,
    executors: Vec<ExecutorKey>,
    connected: Vec<bool>,
    cases: BTreeMap<ExecutorKey, Case>,
    /// Under way: who asked, in which of its lives, and what.
    questions: Vec<(ExecutorKey, u64, Effect)>,
    /// Grows with each return: an answer to an earlier life goes nowhere.
    lives: BTreeMap<ExecutorKey, u64>,
    /// Owners of pending workflows, by workflow; and the version they were begun under.
    pending: Vec<(ExecutorKey, String)>,
    /// Moved to another version by an operator's word.
    forked: usize,
}

impl World {
    fn new(size: usize) -> Self {
        let executors = (0..size).map(|n| ExecutorKey {
            app_id: ["shop", "bank"][n % 2].to_owned(),
            // Ids repeat across versions and applications: an executor is all three.
            executor_id: format!("e{}", n % 5),
            version: ["v1", "v2", "v3"][n % 3].to_owned(),
        });
        let executors: Vec<_> = executors.collect();
        let mut world = Self {
            now: 1_000_000,
            connected: vec![false; size],
            executors,
            cases: BTreeMap::new(),
            questions: Vec::new(),
            lives: BTreeMap::new(),
            pending: Vec::new(),
            forked: 0,
        };
        for n in 0..size {
            world.act(&Act::Return(n));
            world.act(&Act::Begin(n));
        }
        world
    }

    fn is_connected(&self, key: &ExecutorKey) -> bool {
        self.executors
            .iter()
            .zip(&self.connected)
            .any(|(executor, connected)| executor == key && *connected)
    }

    fn pending_of(&self, key: &ExecutorKey) -> usize {
        self.pending
            .iter()
            .filter(|(owner, _)| owner == key)
            .count()
    }

    fn feed(&mut self, key: &ExecutorKey, event: &Event) {
        let Some(case) = self.cases.get(key) else {
            return;
        };
        let (case, effects) = step(case, event, self.now);
        let life = self.lives.get(key).copied().unwrap_or(0);
        self.cases.insert(key.clone(), case);
        for effect in effects {
            match effect {
                Effect::Forget { .. } => {
                    assert!(!self.is_connected(key), "forgot one that is connected");
                    assert_eq!(self.pending_of(key), 0, "forgot pending work of {key:?}");
                    self.cases.remove(key);
                }
                Effect::Offer { .. } | Effect::Claim => {
                    assert!(!self.is_connected(key), "acted on one that is connected");
                    self.questions.push((key.clone(), life, effect));
                }
                effect if invariants::is_question(&effect) => {
                    self.questions.push((key.clone(), life, effect))
                }
                Effect::RecordStranded { reason } => {
                    assert!(
                        matches!(self.cases[key].phase, Phase::Stranded { reason: is, .. } if is == reason)
                    );
                }
                _ => {}
            }
        }
        if matches!(
            self.cases.get(key),
            Some(Case {
                phase: Phase::Over(_),
                ..
            })
        ) {
            self.cases.remove(key);
        }
    }

    fn act(&mut self, act: &Act) {
        let size = self.executors.len();
        match act {
            Act::Lose(n) => {
                let key = self.executors[n % size].clone();
                if std::mem::replace(&mut self.connected[n % size], false) {
                    let event = Event::Lost {
                        at: self.now,
                        noticed: self.now,
                    };
                    self.feed(&key, &event);
                }
            }
            Act::Return(n) => {
                let key = self.executors[n % size].clone();
                self.connected[n % size] = true;
                self.feed(&key, &Event::Connected);
                // What was asked before may still be done.
                *self.lives.entry(key.clone()).or_default() += 1;
                self.cases
                    .entry(key.clone())
                    .or_insert_with(|| Case::healthy(key.clone(), GRACE, RETRY));
                let others: Vec<_> = self
                    .cases
                    .keys()
                    .filter(|other| **other != key && other.app_id == key.app_id)
                    .cloned()
                    .collect();
                for other in others {
                    self.feed(&other, &Event::Arrived);
                }
            }
            Act::Wait(time) => {
                self.now += time;
                let keys: Vec<_> = self.cases.keys().cloned().collect();
                for key in keys {
                    self.feed(&key, &Event::Tick);
                }
            }
            Act::Settle(n, luck) => {
                if !self.questions.is_empty() {
                    let (key, life, effect) = self.questions.remove(n % self.questions.len());
                    let event = self.settle(&key, &effect, *luck);
                    if self.lives.get(&key) == Some(&life) {
                        self.feed(&key, &event);
                    }
                }
            }
            Act::Begin(n) => {
                let key = &self.executors[n % size];
                if self.connected[n % size] {
                    self.pending.push((key.clone(), key.version.clone()));
                }
            }
            Act::Evict(n) => {
                let key = self.executors[n % size].clone();
                self.connected[n % size] = false;
                self.feed(&key, &Event::Gone);
            }
            Act::Assign(n, to) => {
                let key = self.executors[n % size].clone();
                self.feed(&key, &Event::Assign(["v1", "v2", "v3"][to % 3].to_owned()));
            }
        }
    }

    /// What the world answers to a question.
    fn settle(&mut self, key: &ExecutorKey, effect: &Effect, luck: Luck) -> Event {
        let somebody = self
            .executors
            .iter()
            .zip(&self.connected)
            .any(|(e, on)| *on && e.app_id == key.app_id);
        let works = matches!(luck, Luck::Well);
        match effect {
            Effect::Claim if self.is_connected(key) => Event::ClaimLost,
            Effect::Claim => Event::Claimed,
            Effect::Ask => Event::Pending(match (somebody && works, self.pending_of(key)) {
                (false, _) => Answer::Unknown,
                (true, 0) => Answer::No,
                (true, _) => Answer::Yes,
            }),
            Effect::Look => Event::Candidates(self.candidates()),
            Effect::Offer { to } => {
                let done = self.is_connected(to) && !matches!(luck, Luck::Refused | Luck::Lie);
                if done {
                    for (owner, version) in &mut self.pending {
                        assert_eq!(owner.version, *version, "work changed its version");
                        if owner == key {
                            *owner = to.clone();
                        }
                    }
                }
                Event::Offered((done && works) || matches!(luck, Luck::Lie))
            }
            Effect::Move { .. } => {
                let done = somebody && !matches!(luck, Luck::Refused | Luck::Lie);
                if done && !self.is_connected(key) {
                    let before = self.pending.len();
                    self.pending.retain(|(owner, _)| owner != key);
                    self.forked += before - self.pending.len();
                }
                Event::Moved(done && works)
            }
            _ => Event::Latest(None),
        }
    }

    /// Everybody who is connected, of all applications and versions: the choice is the machine's.
    fn candidates(&self) -> Vec<Candidate> {
        let connected = self
            .executors
            .iter()
            .zip(&self.connected)
            .filter(|(_, connected)| **connected);
        connected
            .map(|(executor, _)| Candidate {
                executor: executor.clone(),
                responsive: true,
                shares: true,
                same_language: true,
                load: self.pending_of(executor),
                last_used: 0,
            })
            .collect()
    }

    /// From here on nothing fails: everything must come to rest.
    fn come_to_rest(&mut self) {
        // Long enough for every pause to end at least once.
        for round in 0..200 {
            self.act(&Act::Wait(RETRY.1 / 4));
            while !self.questions.is_empty() {
                self.act(&Act::Settle(0, Luck::Well));
            }
            let resting =
                |case: &Case| matches!(case.phase, Phase::Healthy | Phase::Stranded { .. });
            if round > 8 && self.cases.values().all(resting) {
                return;
            }
        }
        panic!("never quiet: {:?}", self.cases);
    }

    /// At rest every pending workflow is with somebody connected, or stranded for a true reason.
    fn nothing_is_lost(&self, begun: usize) {
        assert_eq!(self.pending.len() + self.forked, begun);
        for (owner, _) in &self.pending {
            if self.is_connected(owner) {
                continue;
            }
            let case = self
                .cases
                .get(owner)
                .unwrap_or_else(|| panic!("nobody knows {owner:?} any more"));
            let Phase::Stranded { reason, .. } = case.phase else {
                panic!("{owner:?} rests in {:?}", case.phase);
            };
            let mut connected = self
                .executors
                .iter()
                .filter(|e| self.is_connected(e) && e.app_id == owner.app_id);
            match reason {
                Reason::NoExecutor => assert_eq!(connected.next(), None),
                Reason::NoMatchingVersion => {
                    assert!(
                        !connected
                            .any(|e| e.version == owner.version
                                && e.executor_id != owner.executor_id)
                    );
                }
                Reason::NotConfirmed => {
                    panic!("nothing fails any more, yet {owner:?} does not move")
                }
            }
        }
        for (key, case) in &self.cases {
            assert_eq!(
                case.phase == Phase::Healthy,
                self.is_connected(key),
                "{case:?}"
            );
        }
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![6 => Just(Luck::Well), 1 => Just(Luck::AnswerLost), 1 => Just(Luck::Refused), 1 => Just(Luck::Lie)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..20usize).prop_map(Act::Lose),
        3 => (0..20usize).prop_map(Act::Return),
        4 => (1..30_000i64).prop_map(Act::Wait),
        12 => (0..20usize, luck()).prop_map(|(n, luck)| Act::Settle(n, luck)),
        2 => (0..20usize).prop_map(Act::Begin),
        1 => (0..20usize).prop_map(Act::Evict),
        1 => (0..20usize, 0..3usize).prop_map(|(n, to)| Act::Assign(n, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_work_is_lost_whatever_happens(size in 2..14usize, acts in prop::collection::vec(act(), 0..120)) {
        let mut world = World::new(size);
        let mut begun = world.pending.len();
        for act in &acts {
            let before = world.pending.len();
            world.act(act);
            if matches!(act, Act::Begin(_)) {
                begun += world.pending.len() - before;
            }
        }
        world.come_to_rest();
        world.nothing_is_lost(begun);
    }

    /// Whoever is back within its grace is never touched, whatever happens to the others.
    #[test]
    fn coming_back_in_grace_recovers_nothing(away in 1..GRACE, acts in prop::collection::vec(act(), 0..60)) {
        let mut world = World::new(6);
        for act in acts.iter().filter(|act| !matches!(act, Act::Lose(n) | Act::Evict(n) if n % 6 == 0)) {
            world.act(act);
        }
        let key = world.executors[0].clone();
        world.act(&Act::Return(0));
        // What was offered before it came back may still be done.
        world.questions.clear();
        let before = world.pending_of(&key);
        world.act(&Act::Lose(0));
        world.act(&Act::Wait(away / 2));
        world.act(&Act::Wait(away - away / 2 - 1));
        prop_assert!(!world.questions.iter().any(|(asked, ..)| *asked == key));
        world.act(&Act::Return(0));
        prop_assert_eq!(world.pending_of(&key), before);
        prop_assert_eq!(&world.cases[&key].phase, &Phase::Healthy);
    }
}

fn key(executor_id: &str, version: &str) -> ExecutorKey {
    ExecutorKey {
        app_id: "shop".to_owned(),
        executor_id: executor_id.to_owned(),
        version: version.to_owned(),
    }
}

fn candidate(executor_id: &str, version: &str) -> Candidate {
    Candidate {
        executor: key(executor_id, version),
        responsive: true,
        shares: true,
        same_language: true,
        load: 0,
        last_used: 0,
    }
}

/// Feeds events to a case in turn; returns it with the effects of the last.
fn after(case: &Case, events: &[Event], now: Millis) -> (Case, Vec<Effect>) {
    let mut last = (case.clone(), Vec::new());
    for event in events {
        last = step(&last.0, event, now);
    }
    last
}

fn lost() -> Case {
    let healthy = Case::healthy(key("d", "v1"), GRACE, RETRY);
    step(&healthy, &Event::Lost { at: 0, noticed: 0 }, 0).0
}

fn claimed() -> Case {
    after(&lost(), &[Event::Tick, Event::Claimed], GRACE).0
}

#[test]
fn grace_counts_from_the_loss_but_some_is_always_left() {
    let healthy = Case::healthy(key("d", "v1"), GRACE, RETRY);
    let found_late = step(
        &healthy,
        &Event::Lost {
            at: 0,
            noticed: 9_000,
        },
        9_000,
    )
    .0;
    assert_eq!(found_late.deadline(), Some(14_000));
    let short = Case::healthy(key("d", "v1"), 1_000, RETRY);
    let found_late = step(
        &short,
        &Event::Lost {
            at: 0,
            noticed: 9_000,
        },
        9_000,
    )
    .0;
    assert_eq!(found_late.deadline(), Some(10_000));
    assert_eq!(lost().deadline(), Some(GRACE));
}

#[test]
fn the_question_comes_before_the_offer_and_after_it() {
    assert!(after(&lost(), &[Event::Tick], GRACE - 1).1.is_empty());
    assert_eq!(after(&lost(), &[Event::Tick], GRACE).1, [Effect::Claim]);
    assert_eq!(claimed().phase, Phase::Asking { after_offer: false });
    let (_, effects) = after(&claimed(), &[Event::Pending(Answer::No)], GRACE);
    assert_eq!(
        effects,
        [Effect::Forget {
            outcome: Outcome::NothingPending
        }]
    );

    let mates = Event::Candidates(vec![candidate("x", "v2"), candidate("m", "v1")]);
    let (case, effects) = after(&claimed(), &[Event::Pending(Answer::Yes), mates], GRACE);
    assert_eq!(
        effects,
        [
            Effect::RecordDispatching,
            Effect::Offer { to: key("m", "v1") }
        ]
    );
    let (case, effects) = after(&case, &[Event::Offered(true)], GRACE);
    assert_eq!(effects, [Effect::Ask], "its word is not enough");
    let (_, effects) = after(&case, &[Event::Pending(Answer::No)], GRACE);
    assert_eq!(
        effects,
        [Effect::Forget {
            outcome: Outcome::Recovered
        }]
    );
}

#[test]
fn the_next_offer_goes_to_another() {
    let mates = || Event::Candidates(vec![candidate("a", "v1"), candidate("b", "v1")]);
    let yes = || Event::Pending(Answer::Yes);
    let (case, _) = after(&claimed(), &[yes(), mates()], GRACE);
    assert_eq!(case.phase, Phase::Offering { to: "a".to_owned() });
    let (case, _) = after(&case, &[Event::Offered(false), yes(), mates()], GRACE);
    assert_eq!(case.phase, Phase::Offering { to: "b".to_owned() });
    let (case, _) = after(&case, &[Event::Offered(true), yes(), mates()], GRACE);
    assert!(matches!(case.phase, Phase::Offering { .. }));
    let (case, effects) = after(&case, &[Event::Offered(true), yes()], GRACE);
    assert_eq!(
        effects,
        [Effect::RecordStranded {
            reason: Reason::NotConfirmed
        }]
    );
    assert_eq!(case.wake_at(), Some(GRACE + RETRY.0));
}

#[test]
fn pauses_grow_up_to_a_limit() {
    let mut case = claimed();
    let mut now = GRACE;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        case = step(&case, &Event::Pending(Answer::Unknown), now).0;
        let retry_at = case.wake_at().unwrap();
        pauses.push(retry_at - now);
        now = retry_at;
        case = step(&case, &Event::Tick, now).0;
    }
    assert_eq!(
        pauses,
        [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    );
}

#[test]
fn whoever_arrives_while_we_ask_is_not_missed() {
    let (case, effects) = after(
        &claimed(),
        &[Event::Arrived, Event::Pending(Answer::Unknown)],
        GRACE,
    );
    assert_eq!(effects, [Effect::Ask]);
    assert!(matches!(case.phase, Phase::Asking { .. }));
}

#[test]
fn another_version_needs_a_word() {
    let stranger = || Event::Candidates(vec![candidate("x", "v2")]);
    let (case, effects) = after(
        &claimed(),
        &[Event::Pending(Answer::Yes), stranger()],
        GRACE,
    );
    assert_eq!(
        effects,
        [Effect::RecordStranded {
            reason: Reason::NoMatchingVersion
        }]
    );
    let assign = Event::Assign("v2".to_owned());
    let (_, effects) = after(&case, &[assign, Event::Pending(Answer::Yes)], GRACE);
    let moves = Effect::Move {
        version: "v2".to_owned(),
    };
    assert_eq!(effects, [Effect::RecordDispatching, moves.clone()]);

    let policy = Case {
        latest_may: true,
        ..claimed()
    };
    let (case, effects) = after(&policy, &[Event::Pending(Answer::Yes), stranger()], GRACE);
    assert_eq!(effects, [Effect::FindLatest]);
    let (_, effects) = after(&case, &[Event::Latest(Some("v2".to_owned()))], GRACE);
    assert_eq!(effects, [Effect::RecordDispatching, moves]);
    let (_, effects) = after(&case, &[Event::Latest(Some("v1".to_owned()))], GRACE);
    assert_eq!(
        effects,
        [Effect::RecordStranded {
            reason: Reason::NoMatchingVersion
        }]
    );
}
