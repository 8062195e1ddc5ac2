//! What waits to be sent on one socket, what was sent and not answered, and what may be sent next.
//!
//! No I/O and no clock in here: the session's tasks own the socket and tell the time.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// At most so many requests are outstanding on one socket: a Python executor stops reading (pings
/// too) when more than 16 frames wait for it.
const OUTSTANDING: usize = 8;
/// Probes go beyond that limit, for they are what finds a wedged executor.
const PROBES: usize = 2;
/// Of them all but recovery may hold so many, so that recovery never waits for a free place …
const OUTSTANDING_OTHERS: usize = 6;
/// … and fewer where requests are handled one after the other: more would only stand in its way.
const OUTSTANDING_OTHERS_IN_ORDER: usize = 3;
/// Periodic work holds at most so many.
const OUTSTANDING_PERIODIC: usize = 1;
/// A request given up so long ago holds its place no longer; a probe sooner.
const LOST_AFTER: Duration = Duration::from_secs(600);
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);
/// At most so many requests wait on one socket.
const WAITING: usize = 1024;

/// Order in which waiting requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Is the executor there and who is it?
    Probe,
    /// Recovery and the question before and after it.
    Recovery,
    /// What somebody wants changed.
    Mutation,
    /// What somebody wants to see.
    Read,
    /// Metrics and retention.
    Periodic,
}

/// A request that may wait.
pub(super) struct Outgoing {
    pub(super) request_id: String,
    pub(super) message: &'static str,
    pub(super) priority: Priority,
    pub(super) text: String,
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nothing was sent; another executor may be asked, whatever the request is.
    NotSent(&'static str),
    /// It was sent, then the connection ended.
    Lost,
    /// It was sent; the deadline passed.
    TimedOut,
    /// The answer was larger than a message may be.
    TooLarge,
    /// What came back cannot be the answer.
    Garbled(&'static str),
}

type Answer = Result<Utf8Bytes, CallError>;

struct Waiting {
    outgoing: Outgoing,
    reply: oneshot::Sender<Answer>,
}

struct Sent {
    message: &'static str,
    priority: Priority,
    order: u64,
    at: Instant,
    /// `None` once the caller gave up: the late answer is swallowed.
    reply: Option<oneshot::Sender<Answer>>,
}

/// What an incoming message was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The answer somebody waited for.
    Answer,
    /// An answer nobody waits for any more.
    Late,
    /// An answer to no request of ours.
    Unknown,
    /// An answer of another type than the question's.
    WrongType,
}

/// How the executor's SDK handles requests (protocol notes, "Order and concurrency").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// One at a time, in order of arrival (Python, Go): an answer proves that everything sent before
    /// it is over.
    pub(super) in_order: bool,
    /// An export is streamed without a lock, so that any other answer would land inside it (Java).
    pub(super) exclusive_export: bool,
    /// Two answers finished at the same time cost one of them ("Send pending"), so what somebody
    /// waits for is asked one after the other (Java).
    pub(super) one_at_a_time: bool,
}

impl Manners {
    pub(super) fn of(language: Option<&str>) -> Self {
        Self {
            in_order: matches!(language, Some("python" | "go")),
            exclusive_export: language == Some("java"),
            one_at_a_time: language == Some("java"),
        }
    }
}

#[derive(Default)]
pub(super) struct Outbox {
    waiting: BTreeMap<(Priority, u64), Waiting>,
    sent: HashMap<String, Sent>,
    sequence: u64,
    manners: Manners,
    closed: bool,
}

impl Outbox {
    pub(super) fn set_manners(&mut self, manners: Manners) {
        self.manners = manners;
    }

    /// Lets a request wait for its turn. The receiver gets the answer, or why there is none.
    pub(super) fn push(
        &mut self,
        outgoing: Outgoing,
    ) -> Result<oneshot::Receiver<Answer>, CallError> {
        if self.closed {
            return Err(CallError::NotSent("the connection had ended"));
        }
        if self.waiting.len() >= WAITING {
            return Err(CallError::NotSent(
                "too many requests wait for this executor",
            ));
        }
        self.sequence += 1;
        let (reply, receiver) = oneshot::channel();
        self.waiting.insert(
            (outgoing.priority, self.sequence),
            Waiting { outgoing, reply },
        );
        Ok(receiver)
    }

    /// The next frame to write, if one may be sent now. It counts as sent from here on.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        loop {
            let (&key, waiting) = self
                .waiting
                .iter()
                .take_while(|(_, waiting)| !self.is_barrier(waiting))
                .find(|(_, waiting)| self.may_send(&waiting.outgoing))?;
            let abandoned = waiting.reply.is_closed();
            let Waiting { outgoing, reply } = self.waiting.remove(&key)?;
            if abandoned {
                continue;
            }
            self.sequence += 1;
            let sent = Sent {
                message: outgoing.message,
                priority: outgoing.priority,
                order: self.sequence,
                at: now,
                reply: Some(reply),
            };
            self.sent.insert(outgoing.request_id, sent);
            return Some(outgoing.text);
        }
    }

    /// Whether this waits for the socket to itself, and nothing behind it may go first: there would
    /// always be something else outstanding. Periodic work may take minutes, so it is not waited for
    /// like that.
    fn is_barrier(&self, waiting: &Waiting) -> bool {
        self.manners.exclusive_export
            && waiting.outgoing.message == "export_workflow"
            && !waiting.reply.is_closed()
            && !self.sent.is_empty()
            && self
                .sent
                .values()
                .all(|sent| sent.priority != Priority::Periodic)
    }

    fn may_send(&self, outgoing: &Outgoing) -> bool {
        if self.manners.exclusive_export {
            let exporting = self
                .sent
                .values()
                .any(|sent| sent.message == "export_workflow");
            if exporting || (outgoing.message == "export_workflow" && !self.sent.is_empty()) {
                return false;
            }
        }
        let held = |from: Priority| {
            self.sent
                .values()
                .filter(|sent| sent.priority >= from)
                .count()
        };
        let others = match self.manners.in_order {
            true => OUTSTANDING_OTHERS_IN_ORDER,
            false => OUTSTANDING_OTHERS,
        };
        match outgoing.priority {
            Priority::Probe => held(Priority::Probe) - held(Priority::Recovery) < PROBES,
            Priority::Recovery => held(Priority::Recovery) < OUTSTANDING,
            Priority::Mutation | Priority::Read => {
                held(Priority::Recovery) < OUTSTANDING
                    && held(Priority::Mutation) < others
                    && !(self.manners.one_at_a_time && self.answer_is_due())
            }
            Priority::Periodic => {
                held(Priority::Mutation) < others && held(Priority::Periodic) < OUTSTANDING_PERIODIC
            }
        }
    }

    /// Whether an answer that somebody waits for may come any moment. One that was given up may
    /// have been lost, and periodic work may take minutes: neither holds up the others.
    fn answer_is_due(&self) -> bool {
        self.sent.values().any(|sent| {
            sent.reply.as_ref().is_some_and(|reply| !reply.is_closed())
                && matches!(
                    sent.priority,
                    Priority::Recovery | Priority::Mutation | Priority::Read
                )
        })
    }

    /// Hands an incoming message to whoever asked.
    pub(super) fn answer(
        &mut self,
        request_id: &str,
        message: Option<&str>,
        text: Utf8Bytes,
    ) -> Incoming {
        let Some(sent) = self.sent.remove(request_id) else {
            return Incoming::Unknown;
        };
        if self.manners.in_order {
            // Those before it that nobody waits for will never be answered: Go stays silent where
            // it cannot read a request.
            self.sent
                .retain(|_, other| other.reply.is_some() || other.order > sent.order);
        }
        let right_type = message.is_none_or(|message| message == sent.message);
        let Some(reply) = sent.reply.filter(|reply| !reply.is_closed()) else {
            return Incoming::Late;
        };
        let answer = match right_type {
            true => Ok(text),
            false => Err(CallError::Garbled(
                "the answer has another type than the question",
            )),
        };
        match (reply.send(answer), right_type) {
            (Err(_), _) => Incoming::Late,
            (Ok(()), true) => Incoming::Answer,
            (Ok(()), false) => Incoming::WrongType,
        }
    }

    /// The caller waits no longer. `Some(when)` if the request had been sent: it stays in the books
    /// until it is answered, for the executor still works on it.
    pub(super) fn give_up(&mut self, request_id: &str) -> Option<Instant> {
        if let Some(sent) = self.sent.get_mut(request_id) {
            sent.reply = None;
            return Some(sent.at);
        }
        self.waiting
            .retain(|_, waiting| waiting.outgoing.request_id != request_id);
        None
    }

    /// Forgets requests that were given up long ago: an executor that handles requests side by side
    /// may never answer them, and each holds a place. One that handles them in order will answer a
    /// probe, or is still busy with what came before it.
    pub(super) fn forget_lost(&mut self, now: Instant) {
        let in_order = self.manners.in_order;
        self.sent.retain(|_, sent| {
            let patience = match sent.priority {
                Priority::Probe if !in_order => PROBE_LOST_AFTER,
                _ => LOST_AFTER,
            };
            sent.reply.is_some() || now.duration_since(sent.at) < patience
        });
    }

    /// A message too large to read arrived and ends the connection: the oldest request is taken to
    /// be the one it answered.
    pub(super) fn fail_oldest_too_large(&mut self) {
        let oldest = self
            .sent
            .iter()
            .filter(|(_, sent)| sent.priority >= Priority::Mutation)
            .min_by_key(|(_, sent)| sent.order)
            .map(|(request_id, _)| request_id.clone());
        if let Some(reply) = oldest
            .and_then(|id| self.sent.remove(&id))
            .and_then(|sent| sent.reply)
        {
            // A caller that is gone needs no answer.
            let _ = reply.send(Err(CallError::TooLarge));
        }
    }

    /// The connection ended: everybody is told, and nothing is taken any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let _ = waiting
                .reply
                .send(Err(CallError::NotSent("the connection ended")));
        }
        for (_, sent) in self.sent.drain() {
            if let Some(reply) = sent.reply {
                let _ = reply.send(Err(CallError::Lost));
            }
        }
    }

    /// Requests sent and not answered.
    pub(super) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Requests sent and not answered, and those that wait.
    pub(super) fn load(&self) -> usize {
        self.sent.len() + self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outgoing(id: &str, priority: Priority) -> Outgoing {
        Outgoing {
            request_id: id.to_owned(),
            message: match priority {
                Priority::Probe => "executor_info",
                Priority::Recovery => "recovery",
                Priority::Mutation => "cancel",
                Priority::Read => "list_workflows",
                Priority::Periodic => "retention",
            },
            priority,
            text: id.to_owned(),
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.next(Instant::now())).collect()
    }

    #[test]
    fn recovery_goes_before_mutations_before_reads() {
        let mut outbox = Outbox::default();
        let kept: Vec<_> = [
            ("periodic", Priority::Periodic),
            ("read", Priority::Read),
            ("cancel", Priority::Mutation),
            ("recover", Priority::Recovery),
            ("probe", Priority::Probe),
        ]
        .map(|(id, priority)| outbox.push(outgoing(id, priority)).unwrap())
        .into_iter()
        .collect();
        assert_eq!(
            drain(&mut outbox),
            ["probe", "recover", "cancel", "read", "periodic"]
        );
        drop(kept);
    }

    #[test]
    fn reads_leave_room_for_recovery_and_probes() {
        let mut outbox = Outbox::default();
        let mut kept = Vec::new();
        for n in 0..20 {
            kept.push(
                outbox
                    .push(outgoing(&format!("read{n}"), Priority::Read))
                    .unwrap(),
            );
            kept.push(
                outbox
                    .push(outgoing(&format!("recovery{n}"), Priority::Recovery))
                    .unwrap(),
            );
            kept.push(
                outbox
                    .push(outgoing(&format!("probe{n}"), Priority::Probe))
                    .unwrap(),
            );
        }
        // Recovery first, and whatever waits there are never more than eight and two probes.
        assert!(drain(&mut outbox).len() <= OUTSTANDING + PROBES);

        let mut outbox = Outbox::default();
        for n in 0..20 {
            kept.push(
                outbox
                    .push(outgoing(&format!("read{n}"), Priority::Read))
                    .unwrap(),
            );
        }
        assert_eq!(drain(&mut outbox).len(), OUTSTANDING_OTHERS);
        kept.push(
            outbox
                .push(outgoing("recover", Priority::Recovery))
                .unwrap(),
        );
        assert_eq!(drain(&mut outbox), ["recover"]);
    }

    #[test]
    fn a_late_answer_frees_its_place_and_is_swallowed() {
        let mut outbox = Outbox::default();
        let receiver = outbox.push(outgoing("a", Priority::Read)).unwrap();
        assert_eq!(drain(&mut outbox), ["a"]);
        assert!(outbox.give_up("a").is_some());
        drop(receiver);
        assert_eq!(outbox.outstanding(), 1);
        assert_eq!(
            outbox.answer("a", Some("list_workflows"), "{}".into()),
            Incoming::Late
        );
        assert_eq!(outbox.outstanding(), 0);
        assert_eq!(
            outbox.answer("a", Some("list_workflows"), "{}".into()),
            Incoming::Unknown
        );
    }

    #[test]
    fn a_request_given_up_before_it_was_sent_is_never_sent() {
        let mut outbox = Outbox::default();
        let _receiver = outbox.push(outgoing("a", Priority::Read)).unwrap();
        assert_eq!(outbox.give_up("a"), None);
        assert!(drain(&mut outbox).is_empty());
    }

    #[test]
    fn in_order_an_answer_frees_what_was_lost_before_it() {
        let mut outbox = Outbox::default();
        outbox.set_manners(Manners::of(Some("go")));
        let a = outbox.push(outgoing("a", Priority::Read)).unwrap();
        let mut b = outbox.push(outgoing("b", Priority::Read)).unwrap();
        drain(&mut outbox);
        outbox.give_up("a");
        drop(a);
        assert_eq!(
            outbox.answer("b", Some("list_workflows"), "{}".into()),
            Incoming::Answer
        );
        assert!(b.try_recv().unwrap().is_ok());
        assert_eq!(outbox.outstanding(), 0);
    }

    #[test]
    fn what_is_never_answered_does_not_hold_its_place_for_ever() {
        let mut outbox = Outbox::default();
        let lost = [
            ("one", Priority::Probe),
            ("two", Priority::Probe),
            ("read", Priority::Read),
        ];
        let waiting = lost.map(|(id, priority)| outbox.push(outgoing(id, priority)).unwrap());
        let sent = Instant::now();
        assert_eq!(drain(&mut outbox).len(), 3);
        for (id, _) in lost {
            assert!(outbox.give_up(id).is_some());
        }
        drop(waiting);
        let mut probe = outbox.push(outgoing("again", Priority::Probe)).unwrap();
        assert!(drain(&mut outbox).is_empty());
        outbox.forget_lost(sent + PROBE_LOST_AFTER + Duration::from_secs(1));
        assert_eq!(drain(&mut outbox), ["again"]);
        assert!(probe.try_recv().is_err(), "it waits for its answer");
        outbox.forget_lost(sent + LOST_AFTER + Duration::from_secs(1));
        assert_eq!(outbox.outstanding(), 1);
    }

    #[test]
    fn nothing_overtakes_an_export_that_waits() {
        let mut outbox = Outbox::default();
        outbox.set_manners(Manners::of(Some("java")));
        let export = Outgoing {
            message: "export_workflow",
            ..outgoing("export", Priority::Read)
        };
        let _a = outbox.push(outgoing("read", Priority::Read)).unwrap();
        drain(&mut outbox);
        let b = outbox.push(export).unwrap();
        let _c = outbox.push(outgoing("later", Priority::Read)).unwrap();
        let _d = outbox
            .push(outgoing("recover", Priority::Recovery))
            .unwrap();
        assert_eq!(drain(&mut outbox), ["recover"]);
        outbox.answer("recover", None, "{}".into());
        outbox.answer("read", None, "{}".into());
        assert_eq!(drain(&mut outbox), ["export"]);
        outbox.answer("export", None, "{}".into());
        assert_eq!(drain(&mut outbox), ["later"]);
        drop(b);
    }

    #[test]
    fn java_exports_alone() {
        let mut outbox = Outbox::default();
        outbox.set_manners(Manners::of(Some("java")));
        let export = Outgoing {
            message: "export_workflow",
            ..outgoing("export", Priority::Read)
        };
        let _a = outbox.push(outgoing("read", Priority::Read)).unwrap();
        let _b = outbox.push(export).unwrap();
        assert_eq!(drain(&mut outbox), ["read"]);
        outbox.answer("read", None, "{}".into());
        assert_eq!(drain(&mut outbox), ["export"]);
        let _c = outbox
            .push(outgoing("recover", Priority::Recovery))
            .unwrap();
        assert!(drain(&mut outbox).is_empty());
        outbox.answer("export", None, "{}".into());
        assert_eq!(drain(&mut outbox), ["recover"]);
    }

    #[test]
    fn java_answers_one_request_at_a_time() {
        let mut outbox = Outbox::default();
        outbox.set_manners(Manners::of(Some("java")));
        let lost = outbox.push(outgoing("lost", Priority::Read)).unwrap();
        let _next = outbox.push(outgoing("next", Priority::Read)).unwrap();
        assert_eq!(drain(&mut outbox), ["lost"]);
        // Neither recovery nor a probe waits for a read.
        let _recover = outbox
            .push(outgoing("recover", Priority::Recovery))
            .unwrap();
        let _probe = outbox.push(outgoing("probe", Priority::Probe)).unwrap();
        assert_eq!(drain(&mut outbox), ["probe", "recover"]);
        outbox.answer("recover", None, "{}".into());
        assert!(drain(&mut outbox).is_empty());
        // The answer was lost: its place is free as soon as nobody waits for it.
        drop(lost);
        outbox.give_up("lost");
        assert_eq!(drain(&mut outbox), ["next"]);
        outbox.answer("next", None, "{}".into());
        // Retention may take minutes and holds up nobody.
        let _periodic = outbox
            .push(outgoing("retention", Priority::Periodic))
            .unwrap();
        let _after = outbox.push(outgoing("after", Priority::Mutation)).unwrap();
        assert_eq!(drain(&mut outbox), ["after", "retention"]);
    }

    #[test]
    fn the_end_of_the_connection_tells_sent_from_unsent() {
        let mut outbox = Outbox::default();
        let mut sent = outbox.push(outgoing("a", Priority::Read)).unwrap();
        drain(&mut outbox);
        let mut unsent = outbox.push(outgoing("b", Priority::Read)).unwrap();
        outbox.close();
        assert_eq!(sent.try_recv().unwrap().unwrap_err(), CallError::Lost);
        assert!(matches!(
            unsent.try_recv().unwrap().unwrap_err(),
            CallError::NotSent(_)
        ));
        assert!(outbox.push(outgoing("c", Priority::Read)).is_err());
    }

    #[test]
    fn an_answer_of_another_type_is_an_error_for_its_caller_only() {
        let mut outbox = Outbox::default();
        let mut a = outbox.push(outgoing("a", Priority::Read)).unwrap();
        let mut b = outbox.push(outgoing("b", Priority::Read)).unwrap();
        drain(&mut outbox);
        assert_eq!(
            outbox.answer("a", Some("recovery"), "{}".into()),
            Incoming::WrongType
        );
        assert!(matches!(a.try_recv().unwrap(), Err(CallError::Garbled(_))));
        assert!(b.try_recv().is_err());
    }
}
