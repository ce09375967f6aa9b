//! Max-min fair sharing of the total budgets between parties, which are namespaces.
//!
//! When a party demands more than is free, the parties with the largest shares lose some of their holdings. No share
//! falls below that of the demanding party, counted with its demand. So the shares become as even as the size of one
//! holding allows, and the same demands do not displace each other in turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::budgets::{Amounts, Resource};

/// How much of the total budgets a party uses: the sum of the fractions that it uses of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u128);

impl Share {
    #[must_use]
    pub fn new(used: &Amounts, budget: &Amounts) -> Self {
        // Scaled so that even one unit of the largest budget makes the share larger.
        let parts = Resource::ALL.map(|resource| {
            let used = u128::from(used.get(resource)) << 62;
            used.checked_div(u128::from(budget.get(resource)))
                .unwrap_or(used)
        });
        Self(parts.into_iter().fold(0, u128::saturating_add))
    }
}

/// A party that may lose holdings.
#[derive(Debug)]
pub struct Holder<I> {
    pub used: Amounts,
    /// Its holdings, in the order in which it loses them.
    pub holdings: I,
}

/// Finds the holdings to take back so that `excess`, the amounts by which the budget would be exceeded, become free.
/// Only parties with a share above `level` lose any: that is the share of the demanding party, counted with its demand.
/// `None` if that does not suffice.
pub fn find_holdings_to_release<K, I: Iterator<Item = (K, Amounts)>>(
    budget: &Amounts,
    level: Share,
    mut excess: Amounts,
    holders: impl IntoIterator<Item = Holder<I>>,
) -> Option<Vec<K>> {
    let mut holders = Vec::from_iter(holders);
    let shares = holders.iter().enumerate();
    // Of equal shares the first one.
    let shares = shares.map(|(place, h)| (Share::new(&h.used, budget), Reverse(place)));
    let mut largest = BinaryHeap::from_iter(shares);
    let mut given_up = Vec::new();
    while excess != Amounts::default() {
        let (share, Reverse(place)) = largest.pop()?;
        if share <= level {
            return None;
        }
        let Holder { used, holdings } = holders.get_mut(place)?;
        // A holding that is passed over now stays too large, since the share of its holder only shrinks.
        let next = holdings.find(|(_, amounts)| {
            let rest = used.minus(*amounts);
            Share::new(&rest, budget) >= level && excess.minus(*amounts) != excess
        });
        if let Some((key, amounts)) = next {
            *used = used.minus(amounts);
            excess = excess.minus(amounts);
            largest.push((Share::new(used, budget), Reverse(place)));
            given_up.push(key);
        }
    }
    Some(given_up)
}

/// Demands for which [`find_holdings_to_release`] found too few holdings. While no holding changes, there is none for
/// larger demands of the same party either. So thousands of refused demands need no search each.
#[derive(Debug, Default)]
pub struct DemandsWithoutRoom(BTreeMap<Arc<str>, Vec<Amounts>>);

impl DemandsWithoutRoom {
    /// Whether the party found no room for this demand or for a smaller one.
    #[must_use]
    pub fn include(&self, party: &str, demand: Amounts) -> bool {
        let failed = self.0.get(party);
        failed.is_some_and(|failed| failed.iter().any(|smaller| smaller.is_within(demand)))
    }

    /// Records a demand that found no room.
    pub fn insert(&mut self, party: &Arc<str>, demand: Amounts) {
        let failed = self.0.entry(Arc::clone(party)).or_default();
        failed.retain(|other| !demand.is_within(*other));
        failed.push(demand);
    }

    /// Forgets all demands. Call it when a holding changes.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_without_room_include_larger_ones_of_the_same_party() {
        let mut failed = DemandsWithoutRoom::default();
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        failed.insert(&a, groups(5));
        failed.insert(&a, groups(3));
        let included = |failed: &DemandsWithoutRoom| {
            [(&a, 2), (&a, 3), (&a, 9), (&b, 9)]
                .map(|(party, demand)| failed.include(party, groups(demand)))
        };
        assert_eq!(included(&failed), [false, true, true, false]);
        assert_eq!(failed.0[&a], [groups(3)]);
        failed.clear();
        assert_eq!(included(&failed), [false; 4]);
    }

    fn groups(groups: u64) -> Amounts {
        Amounts {
            groups,
            ..Amounts::default()
        }
    }

    fn holder<'a>(
        name: &'a str,
        holdings: &'a [u64],
    ) -> Holder<impl Iterator<Item = (String, Amounts)> + 'a> {
        Holder {
            used: groups(holdings.iter().sum()),
            holdings: holdings
                .iter()
                .enumerate()
                .map(move |(n, count)| (format!("{name}{n}"), groups(*count))),
        }
    }

    #[test]
    fn the_largest_holders_release_first_and_never_below_the_requester() {
        type Case = (
            u64,
            u64,
            [&'static [u64]; 2],
            Option<&'static [&'static str]>,
        );
        let cases: [Case; 9] = [
            // Nothing is missing.
            (0, 5, [&[9], &[9]], Some(&[])),
            (1, 2, [&[1, 1, 1, 1], &[1, 1, 1]], Some(&["a0"])),
            (2, 2, [&[1, 1, 1, 1], &[1, 1, 1]], Some(&["a0", "a1"])),
            (3, 2, [&[1, 1, 1, 1], &[1, 1, 1]], Some(&["a0", "a1", "b0"])),
            // No share falls below that of the demanding party, and a demand is met as a whole or not at all.
            (4, 2, [&[1, 1, 1, 1], &[1, 1, 1]], None),
            (1, 3, [&[1, 1, 1], &[1, 1, 1]], None),
            (1, 3, [&[4], &[1]], None),
            // Holdings that are too large are skipped.
            (1, 3, [&[3, 1, 1], &[1]], Some(&["a1"])),
            (2, 3, [&[3, 1, 1], &[4, 2]], Some(&["b1"])),
        ];
        for (excess, level, holdings, expected) in cases {
            let budget = groups(100);
            let level = Share::new(&groups(level), &budget);
            let holders = [holder("a", holdings[0]), holder("b", holdings[1])];
            let found = find_holdings_to_release(&budget, level, groups(excess), holders);
            let found = found
                .as_ref()
                .map(|found| Vec::from_iter(found.iter().map(|k| &**k)));
            assert_eq!(found.as_deref(), expected, "{excess} {holdings:?}");
        }
    }

    #[test]
    fn a_share_counts_all_resources_and_grows_with_each() {
        let budget = Amounts {
            groups: u64::from(u32::MAX),
            topics: 10,
            pattern_bytes: 0,
            partitions: 1 << 61,
        };
        let used = |groups, topics, pattern_bytes, partitions| {
            let amounts = Amounts {
                groups,
                topics,
                pattern_bytes,
                partitions,
            };
            Share::new(&amounts, &budget)
        };
        let ascending = [
            used(0, 0, 0, 0),
            used(0, 0, 0, 1),
            used(0, 0, 0, 2),
            used(1, 0, 0, 2),
            used(0, 1, 0, 0),
            used(0, 2, 0, 0),
            used(0, 2, 1, 0),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
    }
}
