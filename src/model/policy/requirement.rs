//! The requirement: the fewest replicas that carry a rate and drain a backlog.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy_time::from_count;
use super::settings::HEAVIEST_UTILISATION;

/// Number of random balanced assignments for the load of the heaviest member.
const ASSIGNMENTS: usize = 8;
/// Index of the load that counts, among those of the assignments in ascending order: the 75th percentile.
const PERCENTILE_INDEX: usize = 5;
/// Maximum number of places in each random order that are cached, over all numbers of partitions.
const MAX_CACHED_PLACES: usize = 1 << 13;

/// A value for each of the random assignments, which are computed together: several at once in a vector register.
type PerAssignment<T> = [T; ASSIGNMENTS];

/// Inputs of the requirement.
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
    /// The load of the replicas.
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
    /// The smallest and the largest of the loads.
    range: (f64, f64),
    /// The loads in the order of each random assignment; empty until they are needed.
    shuffled: Vec<PerAssignment<f64>>,
    /// Loads of members.
    sums: Vec<PerAssignment<f64>>,
    orders: AssignmentOrders,
}

impl RequirementScratch {
    fn fill(&mut self, loads: impl Iterator<Item = f64>) -> &[f64] {
        self.loads.clear();
        self.loads.extend(loads);
        self.shuffled.clear();
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for load in &self.loads {
            least = least.min(*load);
            most = most.max(*load);
        }
        self.range = (least, most);
        &self.loads
    }
}

/// Random orders of partitions, one for each assignment. They depend only on the number of partitions, which rarely
/// changes, so they are computed once.
#[derive(Clone, Debug, Default)]
struct AssignmentOrders {
    /// For each number of partitions, the partition at each place of the orders.
    by_count: BTreeMap<usize, Vec<PerAssignment<u32>>>,
    /// Total number of places.
    places: usize,
}

impl AssignmentOrders {
    fn find(&mut self, partitions: usize) -> &[PerAssignment<u32>] {
        if !self.by_count.contains_key(&partitions) {
            self.places = self.places.saturating_add(partitions);
            if self.places > MAX_CACHED_PLACES {
                self.by_count.clear();
                self.places = partitions;
            }
        }
        let orders = self.by_count.entry(partitions);
        orders.or_insert_with(|| make_orders(partitions))
    }
}

fn make_orders(partitions: usize) -> Vec<PerAssignment<u32>> {
    // A fixed seed, so that equal readings lead to equal decisions.
    let mut random = SplitMix(0x6c61_6777_6973_6521);
    let mut orders = vec![[0; ASSIGNMENTS]; partitions];
    for assignment in 0..ASSIGNMENTS {
        let mut order: Vec<u32> = (0..).take(partitions).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, random.below(place.saturating_add(1)));
        }
        for (of_place, partition) in orders.iter_mut().zip(order) {
            if let Some(slot) = of_place.get_mut(assignment) {
                *slot = partition;
            }
        }
    }
    orders
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
    let heaviest_utilisation = demand.utilisation.max(HEAVIEST_UTILISATION);
    // If both utilisations are the same, so are the loads.
    let mut has_loads = heaviest_utilisation <= demand.utilisation;
    let loads = partitions.clone();
    let loads = loads.map(|partition| load(demand.utilisation, partition));
    let needed: f64 = match has_loads {
        true => scratch.fill(loads).iter().sum(),
        false => loads.sum(),
    };
    let too_few = ladder.partition_point(|n| demand.capacity * f64::from(*n) < needed);
    // One of the first two that carry the sum is enough, as a rule.
    let mut candidates = Vec::with_capacity(ladder.len().min(too_few.saturating_add(2)));
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
                scratch.fill(partitions.clone().map(|p| load(heaviest_utilisation, p)));
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

/// Load of the most heavily loaded of this number of members: the 75th percentile of eight balanced assignments, which
/// are the same at each call. O(partitions).
fn heaviest_load(scratch: &mut RequirementScratch, members: u32) -> f64 {
    let RequirementScratch {
        loads,
        range: (least, most),
        shuffled,
        sums,
        orders,
    } = scratch;
    let members = usize::try_from(members).unwrap_or(usize::MAX).max(1);
    let per_member = loads.len().div_ceil(members);
    // With one partition each, or with equal loads, the assignment makes no difference.
    if per_member <= 1 || *most - *least <= 1e-6 * *most {
        return *most * from_count(per_member);
    }
    if shuffled.is_empty() {
        let load = |partition: u32| {
            let partition = usize::try_from(partition).unwrap_or(usize::MAX);
            loads.get(partition).copied().unwrap_or_default()
        };
        let orders = orders.find(loads.len()).iter();
        shuffled.extend(orders.map(|partitions| partitions.map(load)));
    }
    let mut found = heaviest_sums(shuffled, members, sums);
    found.sort_unstable_by(f64::total_cmp);
    found.get(PERCENTILE_INDEX).copied().unwrap_or(*most)
}

/// The largest sum in each assignment when the loads are dealt to members in turn. `sums` is a buffer.
fn heaviest_sums(
    loads: &[PerAssignment<f64>],
    members: usize,
    sums: &mut Vec<PerAssignment<f64>>,
) -> PerAssignment<f64> {
    let mut rounds = loads.chunks(members);
    sums.clear();
    sums.extend_from_slice(rounds.next().unwrap_or_default());
    for round in rounds {
        for (sums, loads) in sums.iter_mut().zip(round) {
            for (sum, load) in sums.iter_mut().zip(loads) {
                *sum += load;
            }
        }
    }
    let mut heaviest = [0.0f64; ASSIGNMENTS];
    for sums in sums {
        for (heaviest, sum) in heaviest.iter_mut().zip(sums) {
            *heaviest = heaviest.max(*sum);
        }
    }
    heaviest
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
    fn a_hot_partition_needs_a_separate_member() {
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
        found[PERCENTILE_INDEX]
    }

    #[test]
    fn orders_of_many_numbers_of_partitions_are_not_all_kept() {
        let mut orders = AssignmentOrders::default();
        for partitions in 1..500 {
            assert_eq!(orders.find(partitions), make_orders(partitions));
            let kept: usize = orders.by_count.values().map(Vec::len).sum();
            assert_eq!(kept, orders.places, "{partitions}");
            assert!(kept <= MAX_CACHED_PLACES, "{partitions}: {kept}");
        }
        // One group may have more partitions than that.
        assert_eq!(
            orders.find(8 * MAX_CACHED_PLACES).len(),
            8 * MAX_CACHED_PLACES
        );
        assert_eq!(orders.find(24).len(), 24);
        assert_eq!(orders.places, 24);
    }

    proptest! {
        #[test]
        fn the_heaviest_load_is_the_same_with_a_reused_buffer(
            loads in proptest::collection::vec(0.0f64..100.0, 1..80),
            members in proptest::collection::vec(1usize..90, 1..8),
        ) {
            let mut scratch = RequirementScratch::default();
            scratch.fill(loads.iter().copied());
            for members in members {
                let found = heaviest_load(&mut scratch, u32::try_from(members).unwrap());
                prop_assert_eq!(found.to_bits(), plain_heaviest(&loads, members).to_bits());
            }
        }

        #[test]
        fn groups_share_their_buffers(
            groups in proptest::collection::vec(
                (proptest::collection::vec(0.0f64..100.0, 1..40), 1u32..45),
                1..8,
            ),
        ) {
            let mut scratch = RequirementScratch::default();
            for (loads, members) in groups {
                scratch.fill(loads.iter().copied());
                let found = heaviest_load(&mut scratch, members);
                let expected = plain_heaviest(&loads, usize::try_from(members).unwrap());
                prop_assert_eq!(found.to_bits(), expected.to_bits());
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
