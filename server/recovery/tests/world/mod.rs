//! A whole installation in memory: instances, executors, work, the books, and what is in flight
//! between them. Everything that may happen is an [`Act`]; the model tries all orders of them, the
//! simulation random ones. Decisions are the server's own functions: [`machine::step`] (or a broken
//! variant of it, which must be found out) and [`books`].
//!
//! What is taken for granted, and why: an instance that runs and reaches the store makes a pass (the
//! server's is every second) before the clock moves on by [`UNIT`]; between the check of a claim and the
//! message's leaving nothing happens (in the server: no other await than the outbox).
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::hash::Hash;

use segno_recovery::books::{self, Beat, InstanceId, Row, SessionId, State};
use segno_recovery::invariants;
use segno_recovery::machine::*;

/// The clock moves by this.
pub(crate) const UNIT: Millis = 5_000;
pub(crate) const GRACE: Millis = 2 * UNIT;
/// Silence after which an instance is gone, as the server's default.
pub(crate) const EXPIRY: Millis = 2 * UNIT;
pub(crate) const CLAIM: Millis = 2 * EXPIRY;
const RETRY: (Millis, Millis) = (UNIT, 2 * UNIT);

/// The machine's function, or what is tested against it.
pub(crate) type Step = fn(&Case, &Event, Millis) -> (Case, Vec<Effect>);

/// What does not change in a run.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) step: Step,
    /// Whether that is the machine's own: then each of its steps is checked too.
    pub(crate) is_sound: bool,
    /// Whether a claim is asked for before anything is done; a broken server does not.
    pub(crate) fenced: bool,
    /// Id and version of each executor; an id may return under another version.
    pub(crate) identities: Vec<(&'static str, &'static str)>,
}

/// What may still go wrong and how long the clock may run: what bounds the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Processes killed, connections cut, instances crashed or stopped, partitions, clock steps, lost,
    /// late and false answers, writes whose answer is lost, duplicate connections.
    pub(crate) faults: u8,
    /// Moves of the clock.
    pub(crate) ticks: u8,
    /// Connections made after the start.
    pub(crate) connects: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) executor: usize,
    pub(crate) id: SessionId,
    /// Whether it is in the books.
    pub(crate) written: bool,
}

/// A case that an instance drives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Driven {
    pub(crate) case: Case,
    pub(crate) generation: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) up: bool,
    pub(crate) reaches_store: bool,
    /// Since the clock last moved.
    pub(crate) passed: bool,
    /// Somebody connected elsewhere since its last pass.
    pub(crate) news: bool,
    pub(crate) sessions: Vec<Session>,
    /// Sessions that ended, and when.
    pub(crate) departed: Vec<(Session, Millis)>,
    pub(crate) cases: BTreeMap<usize, Driven>,
}

/// A question to an executor that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    /// Who asked; none if nobody waits for the answer any more, and it may still be done.
    pub(crate) from: Option<InstanceId>,
    /// Whose recovery.
    pub(crate) executor: usize,
    pub(crate) generation: u16,
    pub(crate) effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: Millis,
    pub(crate) budget: Budget,
    pub(crate) instances: Vec<Instance>,
    /// Whether the process of each executor runs.
    pub(crate) alive: Vec<bool>,
    pub(crate) rows: BTreeMap<usize, Row>,
    pub(crate) beats: Vec<Beat>,
    pub(crate) messages: Vec<Message>,
    /// Of each piece of work the executor under which it is pending, and the version it was begun under.
    pub(crate) work: Vec<(usize, &'static str)>,
    next_session: SessionId,
    next_instance: InstanceId,
    /// What must never be.
    pub(crate) broken: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// The driver's pass of an instance; of its claims the answer may be lost after the commit.
    Pass(usize, bool),
    /// A message is done and answered.
    Answer(usize),
    /// It is done, the answer is lost.
    LoseAnswer(usize),
    /// It is not done, and the answer says so, or nothing.
    Refuse(usize),
    /// It is not done, and the answer says it was.
    Lie(usize),
    /// The asker's time is over; it may be done later, or never.
    TimeOut(usize),
    /// A process is killed; its connections with it.
    Kill(usize),
    /// A connection ends, the process runs.
    Cut(usize),
    /// A process connects (and runs, if it did not).
    Connect(usize, usize),
    Crash(usize),
    Stop(usize),
    Start(usize),
    /// An instance loses the store, or has it back.
    Partition(usize),
    Heal(usize),
    Tick,
    /// The store's clock jumps.
    ClockStep(Millis),
}

impl World {
    /// Everybody is connected, spread over the instances, and has one piece of work; `late` of the last
    /// executors are not there.
    pub(crate) fn new(rules: &Rules, instances: usize, late: usize, budget: Budget) -> Self {
        let executors = rules.identities.len();
        let mut world = Self {
            now: 20 * UNIT,
            budget,
            instances: Vec::new(),
            alive: vec![false; executors],
            rows: BTreeMap::new(),
            beats: Vec::new(),
            messages: Vec::new(),
            work: Vec::new(),
            next_session: 1,
            next_instance: 1,
            broken: None,
        };
        for _ in 0..instances {
            let id = world.enrol();
            world.instances.push(Instance {
                id,
                up: true,
                reaches_store: true,
                passed: false,
                news: false,
                sessions: Vec::new(),
                departed: Vec::new(),
                cases: BTreeMap::new(),
            });
        }
        for executor in 0..executors - late {
            world.connect(executor, executor % instances);
            world.work.push((executor, rules.identities[executor].1));
        }
        for instance in 0..instances {
            world.pass(rules, instance, false);
        }
        world
    }

    fn enrol(&mut self) -> InstanceId {
        let id = self.next_instance;
        self.next_instance += 1;
        books::register(&mut self.beats, id, self.now);
        id
    }

    /// Everything that may happen now.
    pub(crate) fn acts(&self, rules: &Rules) -> Vec<Act> {
        let mut acts = Vec::new();
        let faulty = self.budget.faults > 0;
        for (n, instance) in self.instances.iter().enumerate() {
            if !instance.up {
                acts.push(Act::Start(n));
                continue;
            }
            if instance.reaches_store {
                acts.push(Act::Pass(n, false));
            } else {
                acts.push(Act::Heal(n));
            }
            if faulty {
                acts.extend([Act::Crash(n), Act::Stop(n)]);
                if instance.reaches_store {
                    acts.extend([Act::Partition(n), Act::Pass(n, true)]);
                }
            }
        }
        for (n, message) in self.messages.iter().enumerate() {
            acts.push(Act::Answer(n));
            if faulty && message.from.is_some() {
                acts.extend([Act::LoseAnswer(n), Act::Refuse(n), Act::TimeOut(n)]);
                if matches!(message.effect, Effect::Offer { .. }) {
                    acts.push(Act::Lie(n));
                }
            }
        }
        for executor in 0..rules.identities.len() {
            let connected = self.holders(executor).next().is_some();
            if faulty && self.alive[executor] {
                acts.push(Act::Kill(executor));
            }
            if faulty && connected {
                acts.push(Act::Cut(executor));
            }
            // An id is one process at a time.
            let rivals = rules.identities.iter().enumerate();
            let mut rivals = rivals.filter(|(n, (id, _))| {
                *n != executor && *id == rules.identities[executor].0 && self.alive[*n]
            });
            if self.budget.connects > 0 && rivals.next().is_none() && (!connected || faulty) {
                let up = (0..self.instances.len()).filter(|n| self.takes_sockets(*n));
                acts.extend(up.map(|n| Act::Connect(executor, n)));
            }
        }
        let all_passed = self
            .instances
            .iter()
            .all(|instance| instance.passed || !instance.up || !instance.reaches_store);
        if self.budget.ticks > 0 && all_passed {
            acts.push(Act::Tick);
            if faulty {
                acts.extend([Act::ClockStep(3 * UNIT), Act::ClockStep(-UNIT)]);
            }
        }
        acts
    }

    /// The handshake asks the store.
    fn takes_sockets(&self, instance: usize) -> bool {
        let instance = &self.instances[instance];
        instance.up && instance.reaches_store
    }

    /// The instances that hold a session of an executor.
    fn holders(&self, executor: usize) -> impl Iterator<Item = usize> + '_ {
        self.instances
            .iter()
            .enumerate()
            .filter(move |(_, i)| i.up && i.sessions.iter().any(|s| s.executor == executor))
            .map(|(n, _)| n)
    }

    pub(crate) fn is_connected(&self, executor: usize) -> bool {
        self.holders(executor).next().is_some()
    }

    pub(crate) fn apply(&mut self, rules: &Rules, act: Act) {
        self.pay(act);
        match act {
            Act::Pass(n, lost) => self.pass(rules, n, lost),
            Act::Answer(n) => {
                let message = self.messages.remove(n);
                let answer = self.execute(rules, &message, true);
                self.reply(rules, &message, answer);
            }
            Act::LoseAnswer(n) => {
                let message = self.messages.remove(n);
                self.execute(rules, &message, true);
                self.reply(rules, &message, failure(&message.effect));
            }
            Act::Refuse(n) => {
                let message = self.messages.remove(n);
                self.reply(rules, &message, failure(&message.effect));
            }
            Act::Lie(n) => {
                let message = self.messages.remove(n);
                self.reply(rules, &message, Event::Offered(true));
            }
            Act::TimeOut(n) => {
                let message = self.messages.remove(n);
                if !matches!(message.effect, Effect::Ask) {
                    let from = None;
                    self.messages.push(Message {
                        from,
                        ..message.clone()
                    });
                }
                self.reply(rules, &message, failure(&message.effect));
            }
            Act::Kill(executor) => {
                self.alive[executor] = false;
                self.disconnect(executor);
            }
            Act::Cut(executor) => self.disconnect(executor),
            Act::Connect(executor, n) => self.connect(executor, n),
            Act::Crash(n) => self.crash(n),
            Act::Stop(n) => {
                let id = self.instances[n].id;
                if self.instances[n].reaches_store
                    && let Some(beat) = self.beats.iter_mut().find(|beat| beat.id == id)
                {
                    beat.stopped = true;
                }
                self.crash(n);
            }
            Act::Start(n) => {
                let id = self.enrol();
                let instance = &mut self.instances[n];
                (instance.id, instance.up, instance.reaches_store) = (id, true, true);
            }
            Act::Partition(n) => self.instances[n].reaches_store = false,
            Act::Heal(n) => self.instances[n].reaches_store = true,
            Act::Tick => self.tick(UNIT),
            Act::ClockStep(by) => self.tick(by),
        }
        self.nobody_drives_what_another_does();
    }

    fn pay(&mut self, act: Act) {
        let connected = |executor| self.is_connected(executor);
        let fault = match act {
            Act::Pass(_, lost) => lost,
            Act::Connect(executor, _) => connected(executor),
            Act::Answer(_) | Act::Start(_) | Act::Heal(_) | Act::Tick => false,
            _ => true,
        };
        self.budget.faults = self.budget.faults.saturating_sub(u8::from(fault));
        let connects = u8::from(matches!(act, Act::Connect(..)));
        self.budget.connects = self.budget.connects.saturating_sub(connects);
        let ticks = u8::from(matches!(act, Act::Tick | Act::ClockStep(_)));
        self.budget.ticks = self.budget.ticks.saturating_sub(ticks);
    }

    fn tick(&mut self, by: Millis) {
        self.now += by;
        let others = self.instances.len() > 1;
        for n in 0..self.instances.len() {
            self.instances[n].passed = false;
            let id = self.instances[n].id;
            let silent = self
                .beats
                .iter()
                .any(|b| b.id == id && !b.is_alive(self.now, EXPIRY));
            // An instance that others take for gone sends its executors to them.
            if others && self.instances[n].up && !self.instances[n].reaches_store && silent {
                let sessions = std::mem::take(&mut self.instances[n].sessions);
                let now = self.now;
                self.instances[n]
                    .departed
                    .extend(sessions.into_iter().map(|s| (s, now)));
            }
        }
    }

    fn connect(&mut self, executor: usize, n: usize) {
        self.alive[executor] = true;
        let (id, now) = (self.next_session, self.now);
        self.next_session += 1;
        let instance = &mut self.instances[n];
        // The newest wins.
        let (elder, rest) = std::mem::take(&mut instance.sessions)
            .into_iter()
            .partition(|session| session.executor == executor);
        instance.sessions = rest;
        let elder: Vec<Session> = elder;
        instance
            .departed
            .extend(elder.into_iter().map(|s| (s, now)));
        instance.sessions.push(Session {
            executor,
            id,
            written: false,
        });
    }

    fn disconnect(&mut self, executor: usize) {
        let now = self.now;
        for instance in &mut self.instances {
            let (gone, rest) = std::mem::take(&mut instance.sessions)
                .into_iter()
                .partition(|session| session.executor == executor);
            instance.sessions = rest;
            let gone: Vec<Session> = gone;
            instance
                .departed
                .extend(gone.into_iter().map(|session| (session, now)));
        }
    }

    fn crash(&mut self, n: usize) {
        let id = self.instances[n].id;
        let instance = &mut self.instances[n];
        instance.up = false;
        instance.sessions.clear();
        instance.departed.clear();
        instance.cases.clear();
        // What it sent may still be done; nobody waits for the answer.
        self.messages
            .retain(|m| m.from != Some(id) || !matches!(m.effect, Effect::Ask));
        for message in self.messages.iter_mut().filter(|m| m.from == Some(id)) {
            message.from = None;
        }
    }

    /// What the driver does about once a second (`Driver::pass`).
    fn pass(&mut self, rules: &Rules, n: usize, lost_answer: bool) {
        let (id, now) = (self.instances[n].id, self.now);
        self.instances[n].passed = true;
        let current = self
            .beats
            .iter()
            .any(|b| b.id == id && b.is_alive(now, EXPIRY));
        if !current || !books::beat(&mut self.beats, id, now) {
            books::register(&mut self.beats, id, now);
            // Others may have counted our executors as lost: everybody is written down anew.
            for session in &mut self.instances[n].sessions {
                session.written = false;
            }
        }
        self.write_sessions(rules, n);
        books::adopt(self.rows.values_mut(), &self.beats, now, EXPIRY);
        self.judge(rules, n, lost_answer);
        self.take_over(rules, n);
        for row in self.rows.values_mut() {
            books::renew(row, id, now + CLAIM);
        }
        self.watch(rules, n);
    }

    fn write_sessions(&mut self, rules: &Rules, n: usize) {
        let (id, now) = (self.instances[n].id, self.now);
        let unwritten: Vec<(usize, SessionId)> = self.instances[n]
            .departed
            .iter()
            .map(|(session, _)| session)
            .chain(&self.instances[n].sessions)
            .filter(|session| !session.written)
            .map(|session| (session.executor, session.id))
            .collect();
        for (executor, session) in unwritten {
            let row = books::connected(self.rows.get(&executor), id, session);
            self.rows.insert(executor, row);
            for (other, instance) in self.instances.iter_mut().enumerate() {
                instance.news |= other != n;
            }
            let driven: Vec<usize> = self.instances[n].cases.keys().copied().collect();
            for dead in driven {
                let event = match dead == executor {
                    true => Event::Connected,
                    false => Event::Arrived,
                };
                self.feed(rules, n, dead, &event);
            }
        }
        for session in &mut self.instances[n].sessions {
            session.written = true;
        }
        for (session, at) in std::mem::take(&mut self.instances[n].departed) {
            if let Some(row) = self.rows.get_mut(&session.executor) {
                books::lost(row, session.id, at, now);
            }
        }
    }

    fn judge(&mut self, rules: &Rules, n: usize, lost_answer: bool) {
        let (id, now) = (self.instances[n].id, self.now);
        let lost: Vec<usize> = self
            .rows
            .iter()
            .filter(|(_, row)| row.state == State::Disconnected)
            .map(|(executor, _)| *executor)
            .collect();
        for executor in lost {
            if self.instances[n]
                .sessions
                .iter()
                .any(|s| s.executor == executor)
            {
                continue;
            }
            let row = self.rows.get_mut(&executor).unwrap();
            let since = (row.grace_from.unwrap(), row.noticed_at.unwrap());
            let case = Case::lost(key(rules, executor), since, GRACE, RETRY);
            let (case, effects) = (rules.step)(&case, &Event::Tick, now);
            if !effects.contains(&Effect::Claim) {
                continue;
            }
            let claimed = books::claim_dead(row, row.generation, id, now + CLAIM);
            self.nobody_dies_early(executor);
            if let Some(generation) = claimed.filter(|_| !lost_answer) {
                self.start(rules, n, executor, Driven { case, generation });
            }
        }
    }

    fn take_over(&mut self, rules: &Rules, n: usize) {
        let (id, now) = (self.instances[n].id, self.now);
        let executors: Vec<usize> = self.rows.keys().copied().collect();
        for executor in executors {
            let row = self.rows.get_mut(&executor).unwrap();
            let unclaimed = books::is_unclaimed(row, &self.beats, id, now, EXPIRY);
            if !unclaimed || self.instances[n].cases.contains_key(&executor) {
                continue;
            }
            if let Some(generation) = books::take_over(row, row.generation, id, now + CLAIM) {
                let case = Case::dead(key(rules, executor), RETRY);
                self.start(rules, n, executor, Driven { case, generation });
            }
        }
    }

    fn start(&mut self, rules: &Rules, n: usize, executor: usize, driven: Driven) {
        self.instances[n].cases.insert(executor, driven);
        self.feed(rules, n, executor, &Event::Claimed);
    }

    /// What the runners cannot know (`Watch`): sessions and claims that others took over; arrivals; time.
    fn watch(&mut self, rules: &Rules, n: usize) {
        let (id, now) = (self.instances[n].id, self.now);
        // A session whose executor is connected elsewhere by now is closed; one that was counted as lost
        // though it is here is written down again, with the next pass.
        let rows = &self.rows;
        let instance = &mut self.instances[n];
        instance.sessions.retain_mut(|session| {
            let row = rows.get(&session.executor);
            let known = row.is_some_and(|row| row.state == State::Healthy);
            let own = known && row.is_some_and(|row| row.session == session.id);
            session.written = session.written && known;
            own || !known
        });
        let news = std::mem::take(&mut self.instances[n].news);
        let driven: Vec<usize> = self.instances[n].cases.keys().copied().collect();
        for executor in driven {
            let claimed = self.rows.get(&executor).is_some_and(|row| {
                row.state == State::Dead && row.claim.is_some_and(|(holder, _)| holder == id)
            });
            if !claimed {
                self.feed(rules, n, executor, &Event::ClaimLost);
                continue;
            }
            if news {
                self.feed(rules, n, executor, &Event::Arrived);
            }
            let due = self.instances[n].cases.get(&executor);
            if due.is_some_and(|d| d.case.wake_at().is_some_and(|at| at <= now)) {
                self.feed(rules, n, executor, &Event::Tick);
            }
        }
    }

    /// Gives a case an event and carries out what it decides, as the server's runner does.
    fn feed(&mut self, rules: &Rules, n: usize, executor: usize, event: &Event) {
        let Some(driven) = self.instances[n].cases.get(&executor) else {
            return;
        };
        let (generation, before) = (driven.generation, driven.case.clone());
        let (case, effects) = (rules.step)(&before, event, self.now);
        if let Err(violation) = invariants::check(&before, event, &case, &effects, self.now)
            && rules.is_sound
        {
            self.broken = Some(violation.to_string());
        }
        let over = matches!(case.phase, Phase::Over(_));
        match over {
            true => self.instances[n].cases.remove(&executor),
            false => self.instances[n]
                .cases
                .insert(executor, Driven { case, generation }),
        };
        for effect in effects {
            self.carry_out(rules, n, executor, generation, effect);
        }
    }

    fn carry_out(
        &mut self,
        rules: &Rules,
        n: usize,
        executor: usize,
        generation: u16,
        effect: Effect,
    ) {
        let row = self.rows.get(&executor);
        let claimed = books::is_claimed(row, generation, self.now);
        if effect.needs_claim() && rules.fenced && !claimed {
            self.feed(rules, n, executor, &Event::ClaimLost);
            return;
        }
        match effect {
            Effect::Forget { .. } => {
                if books::may_forget(row, generation) {
                    self.rows.remove(&executor);
                    self.nothing_is_forgotten(executor);
                }
            }
            Effect::Look => {
                let candidates = self.candidates(rules, n);
                self.feed(rules, n, executor, &Event::Candidates(candidates));
            }
            Effect::FindLatest => self.feed(rules, n, executor, &Event::Latest(None)),
            Effect::Ask | Effect::Offer { .. } => {
                if matches!(effect, Effect::Offer { .. }) {
                    self.the_living_are_left_alone(executor);
                }
                let from = Some(self.instances[n].id);
                self.messages.push(Message {
                    from,
                    executor,
                    generation,
                    effect,
                });
            }
            Effect::Move { .. } | Effect::Claim => {}
            Effect::RecordDispatching | Effect::RecordStranded { .. } => {}
        }
    }

    /// Who is connected: here, and by the books with other instances that are alive.
    fn candidates(&self, rules: &Rules, n: usize) -> Vec<Candidate> {
        let here = |executor: usize| {
            self.instances[n]
                .sessions
                .iter()
                .any(|s| s.executor == executor)
        };
        let elsewhere = |executor: usize| {
            self.rows.get(&executor).is_some_and(|row| {
                let holder = self.beats.iter().find(|beat| beat.id == row.instance);
                row.state == State::Healthy
                    && row.instance != self.instances[n].id
                    && holder.is_some_and(|beat| beat.is_alive(self.now, EXPIRY))
            })
        };
        (0..rules.identities.len())
            .filter(|executor| here(*executor) || elsewhere(*executor))
            .map(|executor| Candidate {
                executor: key(rules, executor),
                responsive: true,
                shares: true,
                same_language: true,
                load: 0,
                last_used: 0,
            })
            .collect()
    }

    /// An executor does what a message says. What `recovery` means: whatever is pending under the id *and
    /// the recoverer's own version* is the recoverer's.
    fn execute(&mut self, rules: &Rules, message: &Message, works: bool) -> Event {
        let (id, version) = rules.identities[message.executor];
        match &message.effect {
            Effect::Ask => {
                let anybody = (0..rules.identities.len()).any(|e| self.is_connected(e));
                let pending = self
                    .work
                    .iter()
                    .any(|(owner, begun)| rules.identities[*owner].0 == id && *begun == version);
                Event::Pending(match (anybody && works, pending) {
                    (false, _) => Answer::Unknown,
                    (true, true) => Answer::Yes,
                    (true, false) => Answer::No,
                })
            }
            Effect::Offer { to } => {
                let taker = (0..rules.identities.len()).find(|e| key(rules, *e) == *to);
                let Some(taker) = taker.filter(|taker| self.is_connected(*taker)) else {
                    return Event::Offered(false);
                };
                for (owner, begun) in &mut self.work {
                    if rules.identities[*owner].0 == id && *begun == rules.identities[taker].1 {
                        *owner = taker;
                    }
                }
                Event::Offered(true)
            }
            other => panic!("not a message: {other:?}"),
        }
    }

    fn reply(&mut self, rules: &Rules, message: &Message, answer: Event) {
        let asker = self
            .instances
            .iter()
            .position(|i| i.up && Some(i.id) == message.from);
        let Some(n) = asker else { return };
        let same = self.instances[n]
            .cases
            .get(&message.executor)
            .is_some_and(|driven| driven.generation == message.generation);
        if same {
            self.feed(rules, n, message.executor, &answer);
        }
    }

    /// Faults end, everybody who can makes passes, everything sent is answered: whether all comes to
    /// rest with nothing lost. What would have to be said otherwise.
    pub(crate) fn comes_to_rest(&self, rules: &Rules) -> Result<(), String> {
        let mut world = self.clone();
        world.budget.faults = 0;
        for n in 0..world.instances.len() {
            match (world.instances[n].up, world.instances[n].reaches_store) {
                (false, _) => world.apply(rules, Act::Start(n)),
                (true, false) => world.apply(rules, Act::Heal(n)),
                _ => {}
            }
        }
        let mut quiet = 0;
        for _ in 0..60 {
            let before = (world.rows.clone(), world.work.clone());
            world.sweep();
            for n in 0..world.instances.len() {
                world.apply(rules, Act::Pass(n, false));
                while !world.messages.is_empty() {
                    world.apply(rules, Act::Answer(0));
                }
            }
            if let Some(broken) = world.broken {
                return Err(broken);
            }
            world.now += UNIT;
            let same = |row: &Row| (row.state, row.instance);
            let rows = |rows: &BTreeMap<usize, Row>| rows.values().map(same).collect::<Vec<_>>();
            let settled = rows(&before.0) == rows(&world.rows) && before.1 == world.work;
            quiet = if settled { quiet + 1 } else { 0 };
            if quiet > 8 {
                return world.nothing_is_lost(rules);
            }
        }
        Err("it never comes to rest".to_owned())
    }

    /// Finds the work of executors that no book mentions: one that connected and died with its instance,
    /// before that one wrote it down (`recovery/sweep.rs`). They have their grace to show up.
    fn sweep(&mut self) {
        for (owner, _) in &self.work {
            let unknown = !self.rows.contains_key(owner)
                && !self
                    .instances
                    .iter()
                    .any(|i| i.sessions.iter().any(|s| s.executor == *owner));
            if unknown {
                let lost = books::unknown(self.now);
                self.rows.insert(*owner, lost);
            }
        }
    }

    /// At rest, work is with somebody who runs and is connected or merely disconnected from us, or its
    /// dead owner is in the books, stranded because nobody of its version is there.
    fn nothing_is_lost(&self, rules: &Rules) -> Result<(), String> {
        for (owner, begun) in &self.work {
            if self.is_connected(*owner) {
                continue;
            }
            let Some(row) = self.rows.get(owner) else {
                // A process that runs on without us has its work; it will connect.
                if self.alive[*owner] {
                    continue;
                }
                return Err(format!("work of executor {owner} is forgotten"));
            };
            let mates = (0..rules.identities.len()).filter(|e| {
                rules.identities[*e].1 == *begun
                    && rules.identities[*e].0 != rules.identities[*owner].0
                    && self.is_connected(*e)
            });
            if mates.count() > 0 || row.state != State::Dead {
                return Err(format!(
                    "work of executor {owner} rests though it could go on: {row:?}"
                ));
            }
            let cases = self.instances.iter().filter_map(|i| i.cases.get(owner));
            let stranded = cases.filter(|d| {
                matches!(d.case.phase, Phase::Stranded { .. }) && d.generation == row.generation
            });
            if stranded.count() != 1 {
                return Err(format!(
                    "work of executor {owner} is stranded and nobody says so"
                ));
            }
        }
        Ok(())
    }

    fn nothing_is_forgotten(&mut self, executor: usize) {
        if self.work.iter().any(|(owner, _)| *owner == executor) {
            self.broken = Some(format!(
                "executor {executor} was forgotten with work pending"
            ));
        }
    }

    fn the_living_are_left_alone(&mut self, executor: usize) {
        let written = self.instances.iter().any(|instance| {
            let own = |s: &Session| s.executor == executor && s.written;
            instance.up && instance.reaches_store && instance.sessions.iter().any(own)
        });
        let row = self.rows.get(&executor);
        if written && row.is_none_or(|row| row.state == State::Healthy) {
            self.broken = Some(format!(
                "work of executor {executor} was offered though it is connected"
            ));
        }
    }

    /// Whoever was seen has its grace, also when instances or the store were away.
    fn nobody_dies_early(&mut self, executor: usize) {
        let Some(from) = self.rows.get(&executor).and_then(|row| row.grace_from) else {
            return;
        };
        let alive = self
            .beats
            .iter()
            .filter(|beat| beat.is_alive(self.now, EXPIRY));
        let served = alive.map(|beat| beat.serving_since).min().unwrap_or(from);
        if self.now - from.max(served) < GRACE {
            self.broken = Some(format!(
                "executor {executor} was declared dead within its grace"
            ));
        }
    }

    /// At most one instance drives a recovery with a claim that stands.
    fn nobody_drives_what_another_does(&mut self) {
        for (executor, row) in &self.rows {
            let drivers = self.instances.iter().filter(|instance| {
                let driven = instance.cases.get(executor);
                driven.is_some_and(|driven| {
                    row.state == State::Dead && driven.generation == row.generation
                })
            });
            if drivers.count() > 1 {
                self.broken = Some(format!(
                    "two instances drive the recovery of executor {executor}"
                ));
            }
        }
    }

    /// Work runs under the version that it was begun under.
    pub(crate) fn versions_hold(&self, rules: &Rules) -> bool {
        self.work
            .iter()
            .all(|(owner, begun)| rules.identities[*owner].1 == *begun)
    }
}

fn failure(effect: &Effect) -> Event {
    match effect {
        Effect::Offer { .. } => Event::Offered(false),
        _ => Event::Pending(Answer::Unknown),
    }
}

pub(crate) fn key(rules: &Rules, executor: usize) -> ExecutorKey {
    let (id, version) = rules.identities[executor];
    ExecutorKey {
        app_id: "shop".to_owned(),
        executor_id: id.to_owned(),
        version: version.to_owned(),
    }
}

/// The server as it is.
pub(crate) fn sound(identities: &[(&'static str, &'static str)]) -> Rules {
    Rules {
        step,
        is_sound: true,
        fenced: true,
        identities: identities.to_vec(),
    }
}

/// Takes silence for a no.
pub(crate) fn forgets_on_a_guess(case: &Case, event: &Event, now: Millis) -> (Case, Vec<Effect>) {
    match event {
        Event::Pending(Answer::Unknown) => step(case, &Event::Pending(Answer::No), now),
        other => step(case, other, now),
    }
}

/// Takes a recoverer's word for it.
pub(crate) fn believes_the_recoverer(
    case: &Case,
    event: &Event,
    now: Millis,
) -> (Case, Vec<Effect>) {
    let (next, effects) = step(case, event, now);
    match event {
        Event::Offered(true) if effects == [Effect::Ask] => {
            step(&next, &Event::Pending(Answer::No), now)
        }
        _ => (next, effects),
    }
}

/// Does not wait for anybody.
pub(crate) fn knows_no_grace(case: &Case, event: &Event, now: Millis) -> (Case, Vec<Effect>) {
    match (&case.phase, event) {
        (Phase::Grace { .. }, Event::Tick) => step(case, &Event::Gone, now),
        _ => step(case, event, now),
    }
}

impl World {
    /// Gives sessions and instances' lives new numbers, in the order of their places, and forgets those
    /// that nothing refers to; messages have no order.
    pub(crate) fn number_anew(&mut self) {
        let mut sessions: Vec<SessionId> = Vec::new();
        let mut lives: Vec<InstanceId> = Vec::new();
        let meet = |all: &mut Vec<u16>, id: u16| {
            if !all.contains(&id) {
                all.push(id);
            }
        };
        for instance in &self.instances {
            if instance.up {
                meet(&mut lives, instance.id);
            }
            let departed = instance.departed.iter().map(|(session, _)| session);
            for session in instance.sessions.iter().chain(departed) {
                meet(&mut sessions, session.id);
            }
        }
        for row in self.rows.values() {
            meet(&mut sessions, row.session);
            meet(&mut lives, row.instance);
            if let Some((holder, _)) = row.claim {
                meet(&mut lives, holder);
            }
        }
        let new = |all: &[u16], id: u16| {
            let place = all.iter().position(|known| *known == id);
            place
                .and_then(|place| u16::try_from(place + 1).ok())
                .unwrap_or(0)
        };
        self.beats.retain(|beat| lives.contains(&beat.id));
        for beat in &mut self.beats {
            beat.id = new(&lives, beat.id);
        }
        self.beats.sort_by_key(|beat| beat.id);
        for instance in &mut self.instances {
            instance.id = new(&lives, instance.id);
            let departed = instance.departed.iter_mut().map(|(session, _)| session);
            for session in instance.sessions.iter_mut().chain(departed) {
                session.id = new(&sessions, session.id);
            }
        }
        for row in self.rows.values_mut() {
            row.session = new(&sessions, row.session);
            row.instance = new(&lives, row.instance);
            row.claim = row
                .claim
                .map(|(holder, until)| (new(&lives, holder), until));
        }
        for message in &mut self.messages {
            message.from = message.from.map(|from| new(&lives, from));
        }
        self.messages.sort_by_key(|message| format!("{message:?}"));
        self.next_session = u16::try_from(sessions.len() + 1).unwrap_or(u16::MAX);
        self.next_instance = u16::try_from(lives.len() + 1).unwrap_or(u16::MAX);
    }
}
