//! The requirement: the fewest replicas that carry a rate and drain a backlog.

use serde::{Deserialize, Serialize};

use super::policy_time::from_count;
use super::settings::HEAVIEST_UTILISATION;

/// Random balanced assignments that the load of the heaviest member is judged by.
const ASSIGNMENTS: usize = 8;
/// The one of them, in ascending order, that counts: the 75th percentile.
const ASSIGNMENT: usize = 5;

/// What the requirement is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateDemand {
    /// Arrivals of the group, messages per second.
    pub rate: f64,
    /// Backlog to drain, in messages.
    pub backlog: f64,
    /// Part of the capacity that the arrivals may use.
    pub utilisation: f64,
    /// Time within which to drain the backlog, in seconds.
    pub catch_up: f64,
    /// Time that a rebalance stops the group, in seconds.
    pub pause: f64,
    /// Messages per second that a member processes.
    pub capacity: f64,
}

/// A number of replicas, and how it compares to the demand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaCandidate {
    /// The number of replicas.
    pub replicas: u32,
    /// Messages per second that have to be processed, with what drains the backlog.
    pub needed: f64,
    /// Messages per second that this many process.
    pub capacity: f64,
    /// Messages per second for the most heavily loaded member, if the sum fits.
    pub heaviest: Option<f64>,
    /// Whether it is enough.
    pub is_enough: bool,
}

/// A requirement with the candidates that were compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaRequirement {
    /// What the replicas have to carry.
    pub demand: RateDemand,
    /// The result.
    pub replicas: u32,
    /// The numbers compared, ascending; the last one is the result.
    pub candidates: Vec<ReplicaCandidate>,
}

/// Buffers for the loads, which are reused at each poll.
#[derive(Clone, Debug, Default)]
pub(super) struct RequirementScratch {
    loads: Vec<f64>,
    /// The loads in the order of each random assignment, one after the other; empty until they are needed.
    shuffled: Vec<f64>,
}

/// Finds the fewest replicas of the ladder that carry the demand, or the most there are.
///
/// `partitions` yields each partition's share in the rate and its part of the backlog.
pub(super) fn find_requirement(
    demand: RateDemand,
    ladder: &[u32],
    partitions: impl Iterator<Item = (f64, f64)> + Clone,
    scratch: &mut RequirementScratch,
) -> ReplicaRequirement {
    let load = |utilisation: f64, (share, backlog): (f64, f64)| {
        let rate = demand.rate * share;
        let load = rate / utilisation + (backlog + rate * demand.pause) / demand.catch_up;
        load.min(demand.capacity)
    };
    let needed: f64 = partitions
        .clone()
        .map(|partition| load(demand.utilisation, partition))
        .sum();
    let mut candidates = Vec::with_capacity(ladder.len());
    let mut has_loads = false;
    for &replicas in ladder {
        let capacity = demand.capacity * f64::from(replicas);
        let mut candidate = ReplicaCandidate {
            replicas,
            needed,
            capacity,
            heaviest: None,
            is_enough: false,
        };
        if needed <= capacity {
            if !has_loads {
                let utilisation = demand.utilisation.max(HEAVIEST_UTILISATION);
                scratch.loads.clear();
                scratch.shuffled.clear();
                let loads = partitions.clone().map(|p| load(utilisation, p));
                scratch.loads.extend(loads);
                has_loads = true;
            }
            let heaviest = heaviest_load(scratch, replicas);
            candidate.heaviest = Some(heaviest);
            candidate.is_enough = heaviest <= demand.capacity * (1.0 + 1e-9);
        }
        candidates.push(candidate);
        if candidate.is_enough {
            break;
        }
    }
    ReplicaRequirement {
        demand,
        replicas: candidates.last().map_or(0, |last| last.replicas),
        candidates,
    }
}

/// Load of the most heavily loaded of so many members: the 75th percentile of eight balanced assignments, which are the
/// same at each call. O(partitions) after the first call, which makes the assignments for all numbers of members.
fn heaviest_load(scratch: &mut RequirementScratch, members: u32) -> f64 {
    let RequirementScratch { loads, shuffled } = scratch;
    let members = usize::try_from(members).unwrap_or(usize::MAX).max(1);
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for load in loads.iter() {
        least = least.min(*load);
        most = most.max(*load);
    }
    let each = loads.len().div_ceil(members);
    if each <= 1 || most - least <= 1e-6 * most {
        return most * from_count(each);
    }
    if shuffled.is_empty() {
        shuffle(loads, shuffled);
    }
    let mut found = [0.0f64; ASSIGNMENTS];
    let assignments = shuffled.chunks(loads.len().max(1));
    for (heaviest, assignment) in found.iter_mut().zip(assignments) {
        *heaviest = heaviest_chunk(assignment, members);
    }
    found.sort_unstable_by(f64::total_cmp);
    found.get(ASSIGNMENT).copied().unwrap_or(most)
}

/// Appends the loads in random orders, one for each assignment.
fn shuffle(loads: &[f64], shuffled: &mut Vec<f64>) {
    let mut random = SplitMix(0x6c61_6777_6973_6521);
    for _ in 0..ASSIGNMENTS {
        let begin = shuffled.len();
        shuffled.extend_from_slice(loads);
        let assignment = shuffled.get_mut(begin..).unwrap_or_default();
        for place in (1..assignment.len()).rev() {
            assignment.swap(place, random.below(place.saturating_add(1)));
        }
    }
}

/// The largest sum when the loads are dealt to members in turn.
fn heaviest_chunk(loads: &[f64], members: usize) -> f64 {
    let sums = (0..members.min(loads.len()))
        .map(|first| loads.iter().skip(first).step_by(members).sum::<f64>());
    sums.fold(0.0, f64::max)
}

/// The generator SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0. The bias of a bound below 2^32 does not matter here.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let number = self.next().checked_rem(bound).unwrap_or(0);
        usize::try_from(number).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(rate: f64, backlog: f64) -> RateDemand {
        RateDemand {
            rate,
            backlog,
            utilisation: 0.85,
            catch_up: 300.0,
            pause: 6.0,
            capacity: 100.0,
        }
    }

    fn required(demand: &RateDemand, shares: &[f64]) -> u32 {
        let ladder = super::super::ladder::build_ladder(u32::try_from(shares.len()).unwrap());
        let partitions = shares.iter().map(|share| (*share, share * demand.backlog));
        let mut scratch = RequirementScratch::default();
        find_requirement(*demand, &ladder, partitions, &mut scratch).replicas
    }

    #[test]
    fn rates_and_backlog_need_replicas() {
        let even = [1.0 / 24.0; 24];
        assert_eq!(required(&demand(0.0, 0.0), &even), 1);
        assert_eq!(required(&demand(80.0, 0.0), &even), 1);
        assert_eq!(required(&demand(300.0, 0.0), &even), 4);
        assert_eq!(required(&demand(300.0, 60_000.0), &even), 6);
        assert_eq!(required(&demand(1500.0, 0.0), &even), 24);
    }

    #[test]
    fn hot_partition_needs_a_member_of_its_own() {
        let mut shares = [0.5 / 23.0; 24];
        shares[7] = 0.5;
        assert_eq!(required(&demand(90.0, 0.0), &shares), 2);
        assert_eq!(required(&demand(198.0, 0.0), &shares), 24);
    }

    /// The load of the heaviest member with assignments that are made for this number of members alone.
    fn plain_heaviest(loads: &[f64], members: usize) -> f64 {
        let largest = loads.iter().copied().fold(0.0, f64::max);
        let smallest = loads.iter().copied().fold(f64::INFINITY, f64::min);
        let each = loads.len().div_ceil(members);
        if each <= 1 || largest - smallest <= 1e-6 * largest {
            return largest * from_count(each);
        }
        let mut random = SplitMix(0x6c61_6777_6973_6521);
        let mut found = Vec::new();
        for _ in 0..ASSIGNMENTS {
            let mut order = loads.to_vec();
            for place in (1..order.len()).rev() {
                order.swap(place, random.below(place + 1));
            }
            let mut sums = vec![0.0; members];
            for (place, load) in order.iter().enumerate() {
                sums[place % members] += load;
            }
            found.push(sums.into_iter().fold(0.0, f64::max));
        }
        found.sort_unstable_by(f64::total_cmp);
        found[ASSIGNMENT]
    }

    proptest! {
        #[test]
        fn numbers_of_members_share_their_assignments(
            loads in proptest::collection::vec(0.0f64..100.0, 1..80),
            members in proptest::collection::vec(1usize..90, 1..8),
        ) {
            let mut scratch = RequirementScratch { loads: loads.clone(), shuffled: Vec::new() };
            for members in members {
                let found = heaviest_load(&mut scratch, u32::try_from(members).unwrap());
                prop_assert_eq!(found.to_bits(), plain_heaviest(&loads, members).to_bits());
            }
        }

        #[test]
        fn more_demand_needs_no_fewer(rate in 0.0f64..3000.0, backlog in 0.0f64..1e6, more in 1.0f64..2.0) {
            let even = [1.0 / 24.0; 24];
            let less = required(&demand(rate, backlog), &even);
            prop_assert!(required(&demand(rate * more, backlog * more), &even) >= less);
        }
    }
}
