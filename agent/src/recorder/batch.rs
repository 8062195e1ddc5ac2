//! Which waiting items may share a statement, and which must wait for one that is on its way.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

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

/// What may be touched, as a number: a workflow's own row, or the events or messages of one name. That two
/// have the same number once in a blue moon only keeps them from going together.
type Touched = u64;

/// The items of batches that are being written: nothing else that touches the same goes out meanwhile.
#[derive(Default)]
pub(super) struct InFlight {
    numbers: RandomState,
    /// How many batches touch it.
    touched: HashMap<Touched, usize>,
}

impl InFlight {
    /// Adds a batch; what is returned is for [`land`](Self::land) when it is written.
    pub(super) fn launch(&mut self, batch: &[Item]) -> Flight {
        let mut touched: Vec<Touched> = batch
            .iter()
            .flat_map(|item| touches(&item.work, &self.numbers))
            .map(|(touched, _)| touched)
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for number in &touched {
            *self.touched.entry(*number).or_default() += 1;
        }
        Flight {
            touched,
            items: batch.len(),
        }
    }

    pub(super) fn land(&mut self, flight: &Flight) {
        for number in &flight.touched {
            if let Some(count) = self.touched.get_mut(number) {
                *count -= 1;
                if *count == 0 {
                    self.touched.remove(number);
                }
            }
        }
    }
}

/// A batch on its way.
pub(super) struct Flight {
    touched: Vec<Touched>,
    items: usize,
}

impl Flight {
    pub(super) fn items(&self) -> usize {
        self.items
    }
}

fn touches(work: &Work, numbers: &RandomState) -> impl Iterator<Item = (Touched, Touch)> + use<> {
    let workflow = |id: &str| numbers.hash_one(("workflow", id));
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
            let name = name.map(|(kind, name)| numbers.hash_one((kind, id, name)));
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
///
/// `alike` says what kind of statement an item needs: all are of the kind of the first.
pub(super) fn take(
    waiting: &mut VecDeque<Item>,
    most: usize,
    in_flight: &InFlight,
    alike: impl Fn(&Work) -> bool,
) -> Vec<Item> {
    let mut batch: Vec<Item> = Vec::new();
    let mut left = VecDeque::new();
    let mut touched: HashMap<Touched, Touch> = HashMap::with_capacity(waiting.len().min(most));
    let numbers = &in_flight.numbers;
    let mut kind = None;
    while let Some(item) = waiting.pop_front() {
        if item.reply.is_closed() {
            continue;
        }
        if batch.len() == most {
            waiting.push_front(item);
            break;
        }
        let fits = kind.is_none_or(|kind| kind == alike(&item.work));
        let free = fits
            && touches(&item.work, numbers).all(|(row, touch)| {
                let beside = match touched.get(&row) {
                    None => true,
                    Some(earlier) => *earlier == Touch::Shared && touch == Touch::Shared,
                };
                beside && !in_flight.touched.contains_key(&row)
            });
        for (row, touch) in touches(&item.work, numbers) {
            // What stays behind blocks later items of the same workflow, so that they stay behind it.
            let touch = if free { touch } else { Touch::Exclusive };
            let entry = touched.entry(row).or_insert(touch);
            if touch == Touch::Exclusive {
                *entry = touch;
            }
        }
        if free {
            kind = kind.or_else(|| Some(alike(&item.work)));
            batch.push(item)
        } else {
            left.push_back(item)
        }
    }
    left.append(waiting);
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
        Work::Step(Box::new(StepRow {
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
        }))
    }

    fn outcome(id: &str) -> Work {
        Work::Outcome(Box::new(OutcomeRow {
            workflow_id: id.into(),
            token: String::new(),
            status: Status::Success,
            output: None,
            error: None,
        }))
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
                take(&mut waiting, 10, &InFlight::default(), |_| true)
                    .iter()
                    .map(label)
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        assert_eq!(batches, ["a0 a1 b0", "a!", "a2"]);
    }

    #[test]
    fn what_a_batch_on_its_way_touches_waits_for_it() {
        let item = |work| {
            let (reply, answer) = oneshot::channel();
            (Item { work, reply }, answer)
        };
        let works = [step("a", 1), step("b", 0)];
        let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = works.into_iter().map(item).unzip();
        let (first, _answer) = item(step("a", 0));
        let mut in_flight = InFlight::default();
        let flight = in_flight.launch(&[first]);
        let mut taken = || -> Vec<String> {
            let batch = take(&mut waiting, 10, &in_flight, |_| true);
            batch.iter().map(label).collect()
        };
        assert_eq!(taken(), ["b0"]);
        assert!(taken().is_empty());
        in_flight.land(&flight);
        let batch = take(&mut waiting, 10, &in_flight, |_| true);
        assert_eq!(batch.iter().map(label).collect::<Vec<_>>(), ["a1"]);
    }

    #[test]
    fn nobody_pays_for_a_caller_that_left() {
        let (reply, answer) = oneshot::channel();
        drop(answer);
        let mut waiting = VecDeque::from([Item {
            work: step("a", 0),
            reply,
        }]);
        assert!(take(&mut waiting, 10, &InFlight::default(), |_| true).is_empty());
        assert!(waiting.is_empty());
    }
}
