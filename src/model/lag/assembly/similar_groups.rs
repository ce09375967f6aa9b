//! Existing groups whose names are similar to those of groups which were never seen.

use std::cell::Cell;
use std::sync::Arc;

use crate::model::kafka::observation::MAX_GROUP_NAME_BYTES;
use crate::model::lag::cluster_snapshot::Unseen;
use crate::model::units::newtypes::GroupId;
use crate::model::units::spelling;

/// Maximum number of similar names that are kept for a group. Tenancy may hide some of them from a namespace.
const MAX_SIMILAR_NAMES: usize = 16;

/// Approximate maximum of the pairs of names that are compared in one sweep. It takes some 50 ms.
const MAX_COMPARISONS: usize = 100_000;

/// Compares the names of unseen groups with those of the groups of a cluster. Where there are too many pairs, each
/// listing of the names is compared with only some of the unseen groups, which take turns.
#[derive(Debug)]
pub(super) struct NameComparison<'a> {
    names: &'a [GroupId],
    /// Each listing is compared with one in this many unseen groups.
    turns: usize,
    /// How many unseen groups to skip before the next one that is compared.
    skip: Cell<usize>,
}

/// The name of an unseen group compared with those of the cluster's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ComparedName {
    pub(super) exists: bool,
    /// The closest first.
    pub(super) similar: Arc<[GroupId]>,
}

impl From<&Unseen> for ComparedName {
    /// The result of the previous comparison.
    fn from(before: &Unseen) -> Self {
        Self {
            exists: before.exists,
            similar: Arc::clone(&before.similar),
        }
    }
}

impl<'a> NameComparison<'a> {
    /// Compares at most `unseen` groups with `names`. `times_listed`, the number of earlier listings, decides which
    /// unseen groups have their turn.
    pub(super) fn new(names: &'a [GroupId], unseen: usize, times_listed: usize) -> Self {
        let turns = names.len().saturating_mul(unseen);
        let turns = turns.div_ceil(MAX_COMPARISONS).max(1);
        let skip = times_listed.checked_rem(turns).unwrap_or(0);
        Self {
            names,
            turns,
            skip: Cell::new(skip),
        }
    }

    /// Whether an unseen group exists, and otherwise the names most similar to its own; `None` if it is not its turn.
    pub(super) fn compare(&self, group: &GroupId) -> Option<ComparedName> {
        if let Some(fewer) = self.skip.get().checked_sub(1) {
            self.skip.set(fewer);
            return None;
        }
        self.skip.set(self.turns.saturating_sub(1));
        if group.as_str().len() > MAX_GROUP_NAME_BYTES {
            return Some(ComparedName::default());
        }
        if self.names.contains(group) {
            return Some(ComparedName {
                exists: true,
                similar: Arc::default(),
            });
        }
        let names = self.names.iter().map(GroupId::as_str);
        let similar = spelling::closest(group.as_str(), names, MAX_SIMILAR_NAMES);
        Some(ComparedName {
            exists: false,
            similar: similar.into_iter().map(GroupId::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_names_come_first_unless_the_group_exists() {
        let names = ["order", "orders", "payments"].map(GroupId::from);
        let comparison = NameComparison::new(&names, 2, 7);
        let compared = |group: &str| comparison.compare(&group.into()).unwrap();
        let similar = compared("ordres");
        assert!(!similar.exists);
        assert_eq!(*similar.similar, ["orders", "order"].map(GroupId::from));
        for group in ["order", "payments"] {
            let own = compared(group);
            assert!(own.exists && own.similar.is_empty(), "{own:?}");
        }
        let long = "x".repeat(MAX_GROUP_NAME_BYTES + 1);
        let names = [GroupId::from(format!("{long}y"))];
        let comparison = NameComparison::new(&names, 1, 0);
        let compared = comparison.compare(&long.into());
        assert_eq!(compared, Some(ComparedName::default()));
    }

    #[test]
    fn many_unseen_groups_take_turns() {
        let names: Vec<GroupId> = (0..MAX_COMPARISONS / 2)
            .map(|i| format!("{i}").into())
            .collect();
        for unseen in [0_usize, 1, 2, 5] {
            let turns = unseen.max(1).div_ceil(2);
            let mut compared = vec![0; unseen];
            for listing in 0..turns {
                let comparison = NameComparison::new(&names, unseen, listing);
                for count in &mut compared {
                    *count += usize::from(comparison.compare(&"x".into()).is_some());
                }
            }
            assert_eq!(compared, vec![1; unseen], "{unseen}");
        }
    }
}
