//! Partitions of topics that were listed by patterns: those that the members of a group would be expected to read, if
//! it had any. They have lower priority than all requested topics: they get the rest of the budgets, in the order in
//! which they were listed. A group is never refused for them. Where they do not fit, its widest patterns are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::REREAD_AFTER;
use super::usage::{BudgetOwner, PartitionUse};
use crate::model::kafka::observation::GroupObservation;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_listing::{TopicListing, Unlisted};
use crate::model::targets::budgets::Budgets;
use crate::model::targets::group_targets::GroupTargets;
use crate::model::targets::{GroupKey, Targets};
use crate::model::units::newtypes::GroupId;
use crate::model::units::topic_pattern::TopicPattern;

/// The groups with patterns, and what their listed topics use.
#[derive(Debug, Default)]
pub(super) struct ListedLedger {
    groups: BTreeMap<GroupKey, ListedEntry>,
    used: PartitionUse,
}

/// The listed topics of a group.
#[derive(Debug, Default)]
struct ListedEntry {
    /// Whose budget they use, the number of their admission, and their partitions; `None` if there are none.
    admitted: Option<(BudgetOwner, u64, u64)>,
    /// Patterns that did not fit.
    refused: Vec<RefusedPattern>,
}

/// A pattern that did not fit.
#[derive(Clone, Debug)]
struct RefusedPattern {
    pattern: TopicPattern,
    /// Partitions of its topics that no other pattern lists; `None` if they were not read.
    partitions: Option<u64>,
    /// Number of plans that have left it out since then.
    left_out: u32,
}

impl ListedLedger {
    /// Updates the owners of a group after its targets changed; `group` is `None` without targets.
    pub(super) fn update_owners(
        &mut self,
        key: &GroupKey,
        before: Option<&GroupTargets>,
        group: Option<&GroupTargets>,
    ) {
        let both = before.zip(group);
        if !both.is_some_and(|(before, group)| before.has_same_topics(group)) {
            self.remove(key);
        }
    }

    /// Whether no group has patterns.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.used.total() == 0
    }

    fn remove(&mut self, key: &GroupKey) {
        self.release(key);
        self.groups.remove(key);
    }

    fn release(&mut self, key: &GroupKey) {
        let entry = self.groups.get_mut(key);
        if let Some((owner, admission, partitions)) = entry.and_then(|e| e.admitted.take()) {
            self.used.release(&owner, admission, partitions);
        }
    }

    /// Removes the patterns from a plan that do not fit: a sweep would read their topics for nothing.
    pub(super) fn leave_out_refused(
        &mut self,
        key: &GroupKey,
        plan: &mut GroupPlan,
        group: &GroupTargets,
        requested: &PartitionUse,
        budgets: &Budgets,
    ) {
        if plan.patterns.is_empty() {
            self.remove(key);
        }
        let Some(entry) = self.groups.get_mut(key) else {
            return;
        };
        let candidates = BudgetOwner::candidates(group);
        let used = &self.used;
        entry.refused.retain_mut(|refused| {
            let fits = refused.partitions.is_some_and(|partitions| {
                let mut owners = candidates.iter();
                owners.any(|owner| {
                    used.check_with(requested, owner, partitions, budgets)
                        .is_ok()
                })
            });
            refused.left_out = refused.left_out.saturating_add(1);
            !fits && refused.left_out < REREAD_AFTER
        });
        let is_refused =
            |pattern: &TopicPattern| entry.refused.iter().any(|r| r.pattern == *pattern);
        plan.patterns.retain(|pattern| !is_refused(pattern));
    }

    /// Counts the listed topics that were read of a group, and removes those that do not fit in addition to
    /// `requested`.
    pub(super) fn apply(
        &mut self,
        key: &GroupKey,
        read: &mut GroupObservation,
        listings: &mut BTreeMap<GroupId, Arc<TopicListing>>,
        targets: &Targets,
        requested: &PartitionUse,
    ) {
        let Some(group) = targets.group(&key.0, &key.1) else {
            self.remove(key);
            return;
        };
        self.release(key);
        let any_refused = self.groups.get(key).is_some_and(|e| !e.refused.is_empty());
        if any_refused {
            listings.entry(read.plan.group.clone()).or_default();
        }
        let Some(listing) = listings.get_mut(&read.plan.group) else {
            return;
        };
        let listing = Arc::make_mut(listing);
        let entry = self.groups.entry(key.clone()).or_default();
        for refused in &entry.refused {
            if listing.topics_of(&refused.pattern).is_none() {
                listing.refuse(refused.pattern.clone(), Unlisted::OverBudget);
            }
        }
        let new = listing.refused(Unlisted::OverBudget);
        let new = new.filter(|pattern| entry.refused.iter().all(|r| r.pattern != **pattern));
        let new: Vec<_> = new.cloned().map(RefusedPattern::unread).collect();
        entry.refused.extend(new);
        let candidates = BudgetOwner::candidates(group);
        let mut partitions = count_listed(read, listing);
        while partitions > 0 {
            let mut owners = candidates.iter();
            let payer = owners.find(|owner| {
                let checked = self
                    .used
                    .check_with(requested, owner, partitions, targets.budgets());
                checked.is_ok()
            });
            if let Some(owner) = payer {
                let admission = self.used.charge(owner, key, partitions);
                entry.admitted = Some((owner.clone(), admission, partitions));
                return;
            }
            let before = listing.clone();
            let Some(pattern) = listing.refuse_widest(Unlisted::OverBudget) else {
                return;
            };
            if let Ok(committed) = &mut read.committed {
                committed.retain(|topic, _| {
                    listing.topics().contains(topic) || !before.is_only_listed(topic, &read.plan)
                });
            }
            let left = count_listed(read, listing);
            entry.refused.retain(|refused| refused.pattern != pattern);
            entry.refused.push(RefusedPattern {
                pattern,
                partitions: Some(partitions.saturating_sub(left)),
                left_out: 0,
            });
            partitions = left;
        }
    }
}

impl RefusedPattern {
    fn unread(pattern: TopicPattern) -> Self {
        Self {
            pattern,
            partitions: None,
            left_out: 0,
        }
    }
}

/// The partitions of topics that were read of a group only because they are listed.
fn count_listed(read: &GroupObservation, listing: &TopicListing) -> u64 {
    let Ok(committed) = &read.committed else {
        return 0;
    };
    let listed = listing.topics().iter();
    let only_listed = listed.filter(|topic| listing.is_only_listed(topic, &read.plan));
    let columns = only_listed.filter_map(|topic| committed.get(topic));
    let partitions = columns.map(|column| column.len());
    let partitions = partitions.fold(0, usize::saturating_add);
    u64::try_from(partitions).unwrap_or(u64::MAX)
}
