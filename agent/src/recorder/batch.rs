//! Which waiting items may share a statement.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::{Effect, Item, Work};

/// How an item touches a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Reads it under a lock: any number of steps of one workflow go together.
    Shared,
    /// Writes it: nothing else that touches it goes into the same statement, where it would not see
    /// this write, or could not write the row a second time.
    Exclusive,
}

/// What may be touched: a workflow's own row, or the events or messages of one name.
type Touched<'a> = (&'static str, Cow<'a, str>, Cow<'a, str>);

fn workflow(id: &str) -> Touched<'_> {
    ("workflow", Cow::Borrowed(id), Cow::Borrowed(""))
}

fn touches(work: &Work) -> impl Iterator<Item = (Touched<'_>, Touch)> {
    let (own, other) = match work {
        Work::Start(row) => {
            let parent = row
                .parent
                .as_ref()
                .map(|parent| workflow(&parent.workflow_id));
            (
                Some((workflow(&row.workflow_id), Touch::Exclusive)),
                parent.map(|parent| (parent, Touch::Shared)),
            )
        }
        Work::Step(row) => (Some((workflow(&row.workflow_id), Touch::Shared)), None),
        Work::Outcome(row) => (Some((workflow(&row.workflow_id), Touch::Exclusive)), None),
        Work::Effect(row) => {
            let id = &row.step.workflow_id;
            let name = match &row.effect {
                Effect::SetEvent { key, .. } => Some(("event", key)),
                Effect::Receive { topic, .. } => Some(("message", topic)),
                Effect::WriteStream { .. } | Effect::Send(_) | Effect::GiveBack(_) => None,
            };
            let touch = match &row.effect {
                // It must see what was taken before.
                Effect::GiveBack(_) => Touch::Exclusive,
                _ => Touch::Shared,
            };
            let name = name.map(|(kind, name)| {
                (
                    kind,
                    Cow::Borrowed(id.as_str()),
                    Cow::Borrowed(name.as_str()),
                )
            });
            (
                Some((workflow(id), touch)),
                name.map(|name| (name, Touch::Exclusive)),
            )
        }
        Work::Send(_) => (None, None),
    };
    own.into_iter().chain(other)
}

/// Takes the longest run of items from the front that may share a statement, passing over those that may
/// not; these keep their order. Items whose caller is gone are dropped.
pub(super) fn take(waiting: &mut VecDeque<Item>, most: usize) -> Vec<Item> {
    let mut batch = Vec::new();
    let mut left = VecDeque::new();
    let mut touched: HashMap<Touched<'static>, Touch> = HashMap::new();
    while let Some(item) = waiting.pop_front() {
        if item.reply.is_closed() {
            continue;
        }
        let free = batch.len() < most
            && touches(&item.work).all(|(row, touch)| match touched.get(&row) {
                None => true,
                Some(earlier) => *earlier == Touch::Shared && touch == Touch::Shared,
            });
        for ((kind, id, name), touch) in touches(&item.work) {
            // What stays behind blocks later items of the same workflow, so that they stay behind it.
            let touch = if free { touch } else { Touch::Exclusive };
            let row = (
                kind,
                Cow::Owned(id.into_owned()),
                Cow::Owned(name.into_owned()),
            );
            let entry = touched.entry(row).or_insert(touch);
            if touch == Touch::Exclusive {
                *entry = touch;
            }
        }
        if free {
            batch.push(item)
        } else {
            left.push_back(item)
        }
    }
    *waiting = left;
    batch
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::recorder::{OutcomeRow, StepRow};
    use crate::status::Status;

    fn step(id: &str, position: i32) -> Work {
        Work::Step(StepRow {
            workflow_id: id.into(),
            token: String::new(),
            position,
            name: String::new(),
            started_at: 0,
            completed_at: 0,
            output: None,
            error: None,
            child: None,
            format: "portable_json".into(),
        })
    }

    fn outcome(id: &str) -> Work {
        Work::Outcome(OutcomeRow {
            workflow_id: id.into(),
            token: String::new(),
            status: Status::Success,
            output: None,
            error: None,
        })
    }

    fn label(item: &Item) -> String {
        match &item.work {
            Work::Step(row) => format!("{}{}", row.workflow_id, row.position),
            Work::Outcome(row) => format!("{}!", row.workflow_id),
            Work::Start(row) => row.workflow_id.clone(),
            Work::Effect(row) => format!("{}{}", row.step.workflow_id, row.step.position),
            Work::Send(_) => "send".into(),
        }
    }

    #[test]
    fn an_outcome_waits_for_the_steps_before_it_and_holds_back_what_follows() {
        let works = [
            step("a", 0),
            step("a", 1),
            outcome("a"),
            step("b", 0),
            step("a", 2),
        ];
        let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = works
            .into_iter()
            .map(|work| {
                let (reply, answer) = oneshot::channel();
                (Item { work, reply }, answer)
            })
            .unzip();
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            batches.push(
                take(&mut waiting, 10)
                    .iter()
                    .map(label)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        assert_eq!(batches, ["a0 a1 b0", "a!", "a2"]);
    }

    #[test]
    fn nobody_pays_for_a_caller_that_left() {
        let (reply, answer) = oneshot::channel();
        drop(answer);
        let mut waiting = VecDeque::from([Item {
            work: step("a", 0),
            reply,
        }]);
        assert!(take(&mut waiting, 10).is_empty());
        assert!(waiting.is_empty());
    }
}
