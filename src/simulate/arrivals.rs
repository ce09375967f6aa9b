//! Arrivals: how many messages each partition gets in each second of a run.

use std::sync::Arc;

use super::numbers::{count, index, whole};
use super::scenario::Scenario;

/// Mean from which the Poisson distribution is approximated by a rounded normal one.
const LARGE_MEAN: f64 = 30.0;

/// Arrivals of one run, the same for all policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    partitions: usize,
    counts: Vec<u32>,
}

impl Arrivals {
    /// The arrivals of a run: those that were recorded, or drawn.
    #[must_use]
    pub fn for_run(scenario: &Scenario, seed: u64) -> Arc<Self> {
        match &scenario.recorded {
            Some(recorded) => Arc::clone(recorded),
            None => Arc::new(Self::draw(scenario, seed)),
        }
    }

    /// Arrivals that were recorded: for each second, the messages of each partition.
    #[must_use]
    pub fn recorded(partitions: u32, counts: Vec<u32>) -> Self {
        Self {
            partitions: index(partitions),
            counts,
        }
    }

    #[must_use]
    pub fn partitions(&self) -> u32 {
        count(self.partitions)
    }

    /// Draws the arrivals of a scenario.
    #[must_use]
    pub fn draw(scenario: &Scenario, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let partitions = index(scenario.partitions);
        let weights = weights(scenario, partitions, &mut random);
        let mut counts = Vec::with_capacity(partitions * index(scenario.duration));
        let mut factor = 1.0;
        for second in 0..scenario.duration {
            if let Some((part, block)) = scenario.noise
                && second % block.max(1) == 0
            {
                factor = 1.0 + part * (2.0 * random.f64() - 1.0);
            }
            let time = f64::from(second) + 0.5;
            let rate: f64 = scenario.rate.iter().map(|part| part.at(time)).sum();
            let present = index(scenario.partitions_at(second));
            let sum: f64 = weights.iter().take(present).sum();
            for (partition, weight) in weights.iter().enumerate() {
                counts.push(match partition < present {
                    true => poisson(rate * factor * weight / sum, &mut random),
                    false => 0,
                });
            }
        }
        Self { partitions, counts }
    }

    /// Messages per partition in a second.
    #[must_use]
    pub fn at(&self, second: u32) -> &[u32] {
        let start = index(second) * self.partitions;
        self.counts
            .get(start..start + self.partitions)
            .unwrap_or_default()
    }

    /// Messages of a partition in a second.
    #[must_use]
    pub fn count(&self, second: u32, partition: usize) -> u32 {
        let place = index(second) * self.partitions + partition;
        self.counts.get(place).copied().unwrap_or(0)
    }

    /// All messages.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

fn weights(scenario: &Scenario, partitions: usize, random: &mut fastrand::Rng) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..partitions)
        .map(|_| (scenario.skew * normal(random)).exp())
        .collect();
    // A partition that is alone has all messages, hot or not.
    if let (Some(hot), [first, rest @ ..]) = (scenario.hot, weights.as_mut_slice())
        && !rest.is_empty()
    {
        let others: f64 = rest.iter().sum();
        *first = others * hot / (1.0 - hot);
    }
    weights
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// Knuth's method below [`LARGE_MEAN`].
fn poisson(mean: f64, random: &mut fastrand::Rng) -> u32 {
    if mean >= LARGE_MEAN {
        return whole((mean + mean.sqrt() * normal(random)).round());
    }
    let limit = (-mean).exp();
    let mut product = random.f64();
    let mut count = 0;
    while product > limit {
        count += 1;
        product *= random.f64();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::builtin::builtin_scenarios;

    #[test]
    fn mean_and_variance_are_those_of_poisson() {
        for mean in [0.5, 4.0, 29.0, 80.0] {
            let mut random = fastrand::Rng::with_seed(1);
            let drawn: Vec<f64> = (0..20_000)
                .map(|_| f64::from(poisson(mean, &mut random)))
                .collect();
            let found = drawn.iter().sum::<f64>() / 20_000.0;
            let variance = drawn.iter().map(|n| (n - found).powi(2)).sum::<f64>() / 20_000.0;
            assert!((found / mean - 1.0).abs() < 0.03, "{mean} {found}");
            assert!((variance / mean - 1.0).abs() < 0.06, "{mean} {variance}");
        }
    }

    #[test]
    fn a_hot_partition_that_is_alone_gets_all_messages() {
        let scenario = builtin_scenarios()[5].clone().with_partitions(1);
        assert!(scenario.hot.is_some());
        // A wave of 500..900 for 24 partitions: 29 per second for 10,800 s.
        let total = Arrivals::draw(&scenario, 3).total();
        assert!((300_000..330_000).contains(&total), "{total}");
    }

    #[test]
    fn same_seed_same_arrivals() {
        let scenario = &builtin_scenarios()[5];
        let (one, two) = (Arrivals::draw(scenario, 3), Arrivals::draw(scenario, 3));
        assert_eq!(one.counts, two.counts);
        assert_ne!(one.counts, Arrivals::draw(scenario, 4).counts);
        // 13 % of 700 on the mean.
        let first: u64 = (0..10_800)
            .map(|second| u64::from(one.count(second, 0)))
            .sum();
        let share =
            super::super::numbers::to_float(first) / super::super::numbers::to_float(one.total());
        assert!((share - 0.13).abs() < 0.002, "{share}");
    }
}
