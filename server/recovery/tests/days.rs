//! Simulated days: three instances, eight executors of three versions, and whatever happens to them in
//! an order that a seed decides. After each the faults end, and all must come to rest.
//!
//! `SEGNO_SIMULATION_SEEDS=10000` runs more seeds; `SEGNO_SIMULATION_SEED=17` one of them, with all that
//! happens. The scheduler is our own, over the same world that the model explores: the server's own
//! network and store are real ones (hyper, sqlx), which no simulated network carries.
#![allow(clippy::unwrap_used)]

mod world;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use world::{Act, Budget, Rules, World, sound};

const IDENTITIES: [(&str, &str); 8] = [
    ("a", "v1"),
    ("b", "v1"),
    ("c", "v1"),
    ("d", "v2"),
    ("e", "v2"),
    ("f", "v3"),
    ("a", "v2"),
    ("b", "v3"),
];
const ACTS: usize = 400;
/// In CI.
const SEEDS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How often each thing is chosen, where there is a choice.
fn weight(world: &World, act: &Act) -> u32 {
    match act {
        // Once more before the clock moves changes little.
        Act::Pass(n, false) if world.instances[*n].passed => 1,
        Act::Answer(_) => 12,
        Act::Pass(_, false) => 10,
        Act::Tick => 20,
        Act::Connect(..) => 1,
        Act::Start(_) | Act::Heal(_) => 4,
        Act::Kill(_) => 2,
        _ => 1,
    }
}

/// Returns how many messages were answered, if the day ends well.
fn day(seed: u64, shown: bool) -> Result<u64, String> {
    let rules: Rules = sound(&IDENTITIES);
    let mut random = StdRng::seed_from_u64(seed);
    let budget = Budget {
        faults: random.random_range(1..40),
        ticks: 120,
        connects: 60,
    };
    let mut world = World::new(&rules, 3, 2, budget);
    let mut answered = 0;
    for _ in 0..ACTS {
        let acts = world.acts(&rules);
        let Ok(act) = acts.choose_weighted(&mut random, |act| weight(&world, act)) else {
            break;
        };
        if shown {
            println!("{:>8} {act:?}", world.now);
        }
        answered += u64::from(matches!(act, Act::Answer(_)));
        world.apply(&rules, *act);
        if let Some(broken) = &world.broken {
            return Err(broken.clone());
        }
        if !world.versions_hold(&rules) {
            return Err("work runs under another version".to_owned());
        }
    }
    world.comes_to_rest(&rules).map(|()| answered)
}

#[test]
fn every_day_ends_well() {
    if let Some(seed) = number("SEGNO_SIMULATION_SEED") {
        day(seed, true).unwrap();
        return;
    }
    let seeds = number("SEGNO_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let mut answered = 0;
    for seed in 0..seeds {
        answered += day(seed, false).unwrap_or_else(|fault| {
            panic!("seed {seed}: {fault}; to see it: SEGNO_SIMULATION_SEED={seed} cargo test --workspace --test days -- --nocapture")
        });
    }
    println!("{seeds} seeds, {ACTS} acts each, {answered} messages answered, nothing lost");
    assert!(
        answered > seeds,
        "hardly anything was recovered: this proves nothing"
    );
}
