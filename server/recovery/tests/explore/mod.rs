//! All orders of events within bounds, breadth first, so that what is found is found by the shortest way.
//!
//! Worlds that differ only in who is called what count as one: instances are alike, and so are
//! executors of one version that hold one piece of work each. Of a world only a fingerprint of 128 bits
//! is kept, beside how it was reached.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use segno_recovery::machine::{Case, Effect, ExecutorKey, Phase};

use crate::world::{Act, Rules, World, key};

pub(crate) type Print = u128;

/// What the exploration came to.
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    pub(crate) depth: usize,
    /// States from which coming to rest was tried.
    pub(crate) rested: usize,
    /// What must not be, and how it comes about.
    pub(crate) counterexample: Option<(String, Vec<Act>)>,
}

/// Explores everything that follows from `start`. From one of `rest_every` states it is tried whether
/// all comes to rest.
pub(crate) fn explore(rules: &Rules, start: World, alike: &[usize], rest_every: u128) -> Explored {
    let mut seen: HashMap<Print, (Print, Option<Act>)> = HashMap::new();
    let symmetries = Symmetries::of(start.instances.len(), rules.identities.len(), alike);
    let first = symmetries.print(rules, &start);
    seen.insert(first, (first, None));
    let mut explored = Explored {
        states: 1,
        steps: 0,
        depth: 0,
        rested: 0,
        counterexample: None,
    };
    let mut level = vec![(first, start.clone())];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (print, world) in level {
            let acts = world.acts(rules);
            for act in acts {
                let mut after = world.clone();
                after.apply(rules, act);
                explored.steps += 1;
                let after_print = symmetries.print(rules, &after);
                if seen.contains_key(&after_print) {
                    continue;
                }
                seen.insert(after_print, (print, Some(act)));
                let fault = fault(rules, &after).or_else(|| {
                    let tried = after_print.is_multiple_of(rest_every);
                    explored.rested += usize::from(tried);
                    tried.then(|| after.comes_to_rest(rules).err()).flatten()
                });
                if let Some(fault) = fault {
                    explored.states = seen.len();
                    explored.counterexample = Some((fault, way(&seen, after_print)));
                    return explored;
                }
                next.push((after_print, after));
            }
        }
        explored.depth += usize::from(!next.is_empty());
        level = next;
    }
    explored.states = seen.len();
    explored
}

fn fault(rules: &Rules, world: &World) -> Option<String> {
    if let Some(broken) = &world.broken {
        return Some(broken.clone());
    }
    (!world.versions_hold(rules)).then(|| "work runs under another version".to_owned())
}

/// The acts that lead to a state. With symmetry they name who is called so at each step.
fn way(seen: &HashMap<Print, (Print, Option<Act>)>, to: Print) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut at = to;
    while let Some((before, Some(act))) = seen.get(&at) {
        acts.push(*act);
        at = *before;
    }
    acts.reverse();
    acts
}

/// The ways in which who is who may be exchanged.
struct Symmetries {
    all: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Symmetries {
    fn of(instances: usize, executors: usize, alike: &[usize]) -> Self {
        let mut all = Vec::new();
        for instances in permutations(&(0..instances).collect::<Vec<_>>()) {
            for order in permutations(alike) {
                let mut of: Vec<usize> = (0..executors).collect();
                for (from, to) in alike.iter().zip(order) {
                    of[*from] = to;
                }
                all.push((instances.clone(), of));
            }
        }
        Self { all }
    }

    fn print(&self, rules: &Rules, world: &World) -> Print {
        let prints = self.all.iter().map(|(instances, executors)| {
            fingerprint(&renamed(rules, world, instances, executors))
        });
        prints.min().unwrap_or_default()
    }
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    if of.len() <= 1 {
        return vec![of.to_vec()];
    }
    let mut all = Vec::new();
    for n in 0..of.len() {
        let mut rest = of.to_vec();
        let first = rest.remove(n);
        for mut tail in permutations(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

fn fingerprint(world: &World) -> Print {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(2))
}

/// The world in which `n` is called `instances[n]`, or `executors[n]`. Numbers of sessions, instances'
/// lives and generations are given anew in the order of their places, for only who has the same counts.
fn renamed(rules: &Rules, world: &World, instances: &[usize], executors: &[usize]) -> World {
    let mut new = world.clone();
    for (n, instance) in world.instances.iter().enumerate() {
        let mut instance = instance.clone();
        for session in &mut instance.sessions {
            session.executor = executors[session.executor];
        }
        instance.sessions.sort_by_key(|session| session.executor);
        for (session, _) in &mut instance.departed {
            session.executor = executors[session.executor];
        }
        let cases = std::mem::take(&mut instance.cases);
        instance.cases = cases
            .into_iter()
            .map(|(executor, mut driven)| {
                rename_case(rules, &mut driven.case, executors);
                (executors[executor], driven)
            })
            .collect();
        new.instances[instances[n]] = instance;
    }
    for (n, alive) in world.alive.iter().enumerate() {
        new.alive[executors[n]] = *alive;
    }
    let rows = std::mem::take(&mut new.rows);
    new.rows = rows
        .into_iter()
        .map(|(e, row)| (executors[e], row))
        .collect();
    for message in &mut new.messages {
        message.executor = executors[message.executor];
        if let Effect::Offer { to } = &mut message.effect {
            *to = renamed_key(rules, to, executors);
        }
    }
    for (owner, _) in &mut new.work {
        *owner = executors[*owner];
    }
    new.work.sort_unstable();
    new.number_anew();
    new
}

fn renamed_key(rules: &Rules, of: &ExecutorKey, executors: &[usize]) -> ExecutorKey {
    let found = (0..executors.len()).find(|executor| key(rules, *executor) == *of);
    found.map_or_else(|| of.clone(), |executor| key(rules, executors[executor]))
}

fn rename_case(rules: &Rules, case: &mut Case, executors: &[usize]) {
    let version = case.executor.version.clone();
    case.executor = renamed_key(rules, &case.executor, executors);
    let rename = |id: &mut String| {
        let of = ExecutorKey {
            app_id: "shop".to_owned(),
            executor_id: id.clone(),
            version: version.clone(),
        };
        *id = renamed_key(rules, &of, executors).executor_id;
    };
    case.offers.iter_mut().for_each(|(id, _)| rename(id));
    case.offers.sort();
    if let Phase::Offering { to } = &mut case.phase {
        rename(to);
    }
}
