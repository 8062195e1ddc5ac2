//! Which waiting items may share a statement.

use std::collections::{HashMap, VecDeque};

use super::{Item, Work};

/// How an item touches a workflow's row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Reads it under a lock: any number of steps of one workflow go together.
    Shared,
    /// Writes it: nothing else about that workflow goes into the same statement, where it would not see
    /// this write, or could not write the row a second time.
    Exclusive,
}

fn touches(work: &Work) -> impl Iterator<Item = (&str, Touch)> {
    let (own, parent) = match work {
        Work::Start(row) => {
            let parent = row
                .parent
                .as_ref()
                .map(|parent| (parent.workflow_id.as_str(), Touch::Shared));
            ((row.workflow_id.as_str(), Touch::Exclusive), parent)
        }
        Work::Step(row) => ((row.workflow_id.as_str(), Touch::Shared), None),
        Work::Outcome(row) => ((row.workflow_id.as_str(), Touch::Exclusive), None),
    };
    std::iter::once(own).chain(parent)
}

/// Takes the longest run of items from the front that may share a statement, passing over those that may
/// not; these keep their order. Items whose caller is gone are dropped.
pub(super) fn take(waiting: &mut VecDeque<Item>, most: usize) -> Vec<Item> {
    let mut batch = Vec::new();
    let mut left = VecDeque::new();
    let mut touched: HashMap<String, Touch> = HashMap::new();
    while let Some(item) = waiting.pop_front() {
        if item.reply.is_closed() {
            continue;
        }
        let free = batch.len() < most
            && touches(&item.work).all(|(id, touch)| match touched.get(id) {
                None => true,
                Some(earlier) => *earlier == Touch::Shared && touch == Touch::Shared,
            });
        for (id, touch) in touches(&item.work) {
            // What stays behind blocks later items of the same workflow, so that they stay behind it.
            let touch = if free { touch } else { Touch::Exclusive };
            let entry = touched.entry(id.to_owned()).or_insert(touch);
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
