//! Scenarios generated from a seed, for figures on workloads that nothing was tuned on.

use super::numbers::index;
use super::scenario::{RatePart, RebalanceProtocol, Scenario};

/// Seed of the published figures. Scenarios of other seeds may be used for tuning, those of this one may not.
pub const HELD_OUT_SEED: u64 = 20_261_130;

/// Generates this number of scenarios.
#[must_use]
pub fn generate_scenarios(seed: u64, count: u32) -> Vec<Scenario> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|number| generate(&mut random, seed, number))
        .collect()
}

fn between(random: &mut fastrand::Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * random.f64()
}

fn generate(random: &mut fastrand::Rng, seed: u64, number: u32) -> Scenario {
    let partitions = [6, 10, 12, 16, 24, 30, 32, 48, 60][index(random.u32(0..9))];
    let capacity = between(random, 20.0, 400.0);
    let full = f64::from(partitions) * capacity;
    let base = full * between(random, 0.05, 0.25);
    let mut rate = vec![RatePart::Constant(base)];
    for _ in 0..random.u32(1..4) {
        let more = full * between(random, 0.05, 0.3);
        rate.push(match random.u32(0..3) {
            0 => RatePart::Wave {
                low: 0.0,
                high: more,
                period: between(random, 2000.0, 14_000.0),
            },
            1 => {
                let from = between(random, 600.0, 8000.0);
                RatePart::Pulse {
                    rate: more,
                    from,
                    until: from + between(random, 300.0, 4000.0),
                    ramp: between(random, 5.0, 300.0),
                }
            }
            _ => RatePart::Sawtooth {
                low: 0.0,
                high: more,
                period: between(random, 900.0, 4000.0),
            },
        });
    }
    let noise = (random.u32(0..2) == 0).then(|| (between(random, 0.05, 0.3), random.u32(10..60)));
    Scenario {
        name: format!("generated-{seed}-{number}").into(),
        about: format!("{partitions} partitions, {capacity:.0} per consumer").into(),
        partitions,
        capacity,
        noise,
        skew: [0.0, 0.0, 0.1, 0.2][index(random.u32(0..4))],
        capacity_spread: [0.0, 0.0, 0.1][index(random.u32(0..3))],
        commit_interval: [1, 5, 5, 10][index(random.u32(0..4))],
        start_up: [(10, 20), (30, 40), (50, 80)][index(random.u32(0..3))],
        protocol: match random.u32(0..2) {
            0 => RebalanceProtocol::Eager,
            _ => RebalanceProtocol::Cooperative,
        },
        ..Scenario::new("", "", rate)
    }
}
