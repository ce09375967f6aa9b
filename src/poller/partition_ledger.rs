//! Which groups may be kept, by the budgets of partitions. How many partitions a group has is known only once its
//! topics are read, so these budgets apply to readings, not to targets.
//!
//! Each group is charged to one of its HPAs. An admitted group stays admitted until it grows. Groups of requests come
//! after groups of HPAs, and have the budget of one namespace. Groups of configured targets count against no budget,
//! since the administrator chose them.
//!
//! Where the total budget is too small for all, groups of requests are refused first, then the groups of the namespaces
//! with the largest shares, the latest admitted first.
//!
//! Topics that were listed by a pattern have the rest of the budgets: see [`ListedLedger`].

mod listed;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::listed::ListedLedger;
use self::usage::{BudgetOwner, PartitionUse};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{GroupObservation, Observation};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::kafka::topic_listing::TopicListing;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::targets::budgets::{BudgetExceeded, BudgetScope, Budgets, count_exceeded};
use crate::model::targets::group_targets::GroupTargets;
use crate::model::targets::{GroupKey, Targets};
use crate::model::units::newtypes::{ClusterName, TopicName};

/// After how many plans without it a refused group is read again, since its topics may have become smaller.
const REREAD_AFTER: u32 = 60;

/// How many topics a target may scan for the cost of one partition.
const SCANS_PER_PARTITION: usize = 16;

/// The groups that were read, and what HPAs, namespaces and all of them use.
#[derive(Debug, Default)]
pub(super) struct PartitionLedger {
    groups: BTreeMap<GroupKey, LedgerEntry>,
    used: PartitionUse,
    /// Topics that are only listed by patterns, which are not counted above.
    listed: ListedLedger,
}

/// A group that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LedgerEntry {
    /// Number of its partitions when it was last read or refused.
    partitions: u64,
    /// Whose budget it uses, and the number of its admission, or which one it exceeds.
    admission: Result<(BudgetOwner, u64), BudgetExceeded>,
    /// Number of plans that have left it out since then.
    left_out: u32,
}

impl PartitionLedger {
    /// The budgets that are exceeded, each with the number of groups that are not read for that reason.
    pub(super) fn exceeded_budgets(&self) -> BTreeMap<BudgetExceeded, usize> {
        let refused = self.groups.values();
        count_exceeded(refused.filter_map(|group| group.admission.as_ref().err().copied()))
    }

    /// Updates the owners of a group after its targets changed; `group` is `None` without targets. A refused group
    /// whose topics changed is due to be read, because the new topics may be smaller.
    pub(super) fn update_owners(
        &mut self,
        key: &GroupKey,
        before: Option<&GroupTargets>,
        targets: &Targets,
    ) {
        let group = targets.group(&key.0, &key.1);
        self.listed.update_owners(key, before, group);
        let Some(entry) = self.groups.get(key) else {
            return;
        };
        let still_owns = |(owner, _): &(BudgetOwner, u64)| {
            group.is_some_and(|group| BudgetOwner::candidates(group).contains(owner))
        };
        if entry.admission.as_ref().is_ok_and(still_owns) {
            return;
        }
        let partitions = entry.partitions;
        let both = before.zip(group);
        let has_same_topics = both.is_some_and(|(before, after)| before.has_same_topics(after));
        let left_out = match has_same_topics {
            true => entry.left_out,
            false => REREAD_AFTER,
        };
        self.release(key);
        if let Some(group) = group {
            self.charge(key, group, partitions, targets.budgets());
            self.set_left_out(key, left_out);
        }
    }

    fn set_left_out(&mut self, key: &GroupKey, left_out: u32) {
        if let Some(entry) = self.groups.get_mut(key) {
            entry.left_out = left_out;
        }
    }

    /// Counts the partitions that were read, and removes groups from the observation where a budget is exceeded: the
    /// group is then unknown for that reason. Also counts the groups that the client refused to read. The client also
    /// refuses groups only because others used up the allowance of this sweep, so whether a budget is exceeded is
    /// decided here.
    pub(super) fn apply(&mut self, observation: &mut Observation, targets: &Targets) {
        let cluster = observation.cluster.clone();
        for read in &observation.groups {
            let key = (cluster.clone(), read.plan.group.clone());
            let Some(group) = targets.group(&key.0, &key.1) else {
                continue;
            };
            let listing = observation.listings.get(&read.plan.group);
            let partitions = match (&read.committed, read.refused_partitions) {
                (Ok(committed), _) => {
                    partitions_to_charge(group, &read.plan, committed, listing.map(Arc::as_ref))
                }
                (Err(_), Some(partitions)) => partitions,
                (Err(_), None) => continue,
            };
            if self.is_charged(&key, partitions) {
                continue;
            }
            self.release(&key);
            self.charge(&key, group, partitions, targets.budgets());
        }
        self.refuse_groups(&cluster, &mut observation.groups);
        let listings = &mut observation.listings;
        if listings.is_empty() && self.listed.is_empty() {
            return;
        }
        for read in &mut observation.groups {
            let key = (cluster.clone(), read.plan.group.clone());
            self.listed.apply(&key, read, listings, targets, &self.used);
        }
    }

    /// Marks the groups that exceed a budget as unknown.
    fn refuse_groups(&self, cluster: &ClusterName, groups: &mut [GroupObservation]) {
        if !self.refuses_any() {
            return;
        }
        // In a second loop, because a group may be refused in favor of a later one of the observation.
        for read in groups {
            let entry = self.groups.get(&(cluster.clone(), read.plan.group.clone()));
            if read.committed.is_ok() && entry.is_some_and(|entry| entry.admission.is_err()) {
                read.committed = Err(Fault::OverBudget);
            }
        }
    }

    /// Leaves out of a plan the groups that exceed a budget, and sorts the others: those of requests come after those
    /// of HPAs, and the first group of each namespace before the second of any. So, if the time or the budget is too
    /// small for all, a namespace with few groups does not have to wait. Groups that were never read, or refused and
    /// are due again, come last, since they may have any number of partitions. Returns the groups that were left out.
    pub(super) fn split_plan(
        &mut self,
        cluster: &ClusterName,
        plan: SweepPlan,
        targets: &Targets,
    ) -> (SweepPlan, Vec<GroupObservation>) {
        // A group that gets room may take it from others, so all are charged before any is planned.
        if self.refuses_any() {
            for group in &plan.groups {
                self.charge_again(&(cluster.clone(), group.group.clone()), targets);
            }
        }
        let (mut read, mut left_out) = (Vec::new(), Vec::new());
        let mut known_partitions = 0u64;
        let mut ranks: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for mut group in plan.groups {
            let key = (cluster.clone(), group.group.clone());
            let group_targets = targets.group(&key.0, &key.1);
            // A group that was never read may have any number of partitions, and could use up the rest.
            group.max_partitions = group_targets
                .and_then(|group_targets| max_partitions(group_targets, targets.budgets()));
            let entry = self.groups.get(&key);
            let is_known = entry.is_some_and(|entry| entry.admission.is_ok());
            let entry = entry.map(|entry| (entry.partitions, entry.left_out));
            if let Some(((partitions, plans), _)) = entry.zip(group_targets) {
                if !is_known {
                    let plans = plans.saturating_add(1);
                    self.set_left_out(&key, plans);
                    if plans < REREAD_AFTER {
                        left_out.push(GroupObservation::over_budget(group, partitions));
                        continue;
                    }
                } else if !group.is_unlimited {
                    known_partitions = known_partitions.saturating_add(partitions);
                }
            }
            if let Some(group_targets) = group_targets {
                let budgets = targets.budgets();
                self.listed
                    .leave_out_refused(&key, &mut group, group_targets, &self.used, budgets);
            }
            let of_group = group_targets.map_or(&[][..], |group| group.targets());
            let hpa = of_group.iter().find_map(|target| target.hpa());
            let is_requested_only = of_group.is_empty();
            // Configured targets have rank 0, since they have no namespace.
            let rank = hpa.map_or(0, |hpa| {
                let next = ranks.entry(Arc::clone(&hpa.namespace)).or_default();
                let rank = *next;
                *next = rank.saturating_add(1);
                rank
            });
            read.push(((!is_known, is_requested_only, rank), group));
        }
        read.sort_by_key(|(order, _)| *order);
        // Groups of known size may have the same size again. The rest of the total is for unknown sizes: first the
        // growth of known groups, then groups of unknown size. So the sum stays within the total.
        let total = targets.budgets().total.partitions;
        let left = total.saturating_sub(self.used.total());
        let plan = SweepPlan {
            groups: read.into_iter().map(|(_, group)| group).collect(),
            max_partitions: Some(known_partitions.saturating_add(left)),
            // If groups of unknown size also use the rest, some of it is used twice until the responses are counted.
            max_listed_partitions: Some(left),
            is_partial: plan.is_partial,
        };
        (plan, left_out)
    }

    /// Charges a group that was refused, if there is room for it by now.
    fn charge_again(&mut self, key: &GroupKey, targets: &Targets) {
        let entry = self.groups.get(key);
        let refused = entry.filter(|entry| entry.admission.is_err());
        let refused = refused.map(|entry| (entry.partitions, entry.left_out));
        if let Some(((partitions, left_out), group_targets)) =
            refused.zip(targets.group(&key.0, &key.1))
        {
            self.release(key);
            if !self.charge(key, group_targets, partitions, targets.budgets()) {
                self.set_left_out(key, left_out);
            }
        }
    }

    /// Whether a group exceeds a budget. Mostly none does, and then no group has to be looked up for that.
    fn refuses_any(&self) -> bool {
        self.groups.values().any(|entry| entry.admission.is_err())
    }

    /// Whether a group is admitted with this many partitions.
    fn is_charged(&self, key: &GroupKey, partitions: u64) -> bool {
        let entry = self.groups.get(key);
        entry.is_some_and(|entry| entry.partitions == partitions && entry.admission.is_ok())
    }

    /// Releases the partitions of a group. The ledger no longer knows it.
    fn release(&mut self, key: &GroupKey) {
        let Some(entry) = self.groups.remove(key) else {
            return;
        };
        if let Ok((owner, admission)) = entry.admission {
            self.used.release(&owner, admission, entry.partitions);
        }
    }

    /// Refuses an admitted group in favor of another one.
    fn refuse(&mut self, key: &GroupKey, reason: BudgetExceeded) {
        let Some(entry) = self.groups.get_mut(key) else {
            return;
        };
        let partitions = entry.partitions;
        entry.left_out = 0;
        if let Ok((owner, admission)) = std::mem::replace(&mut entry.admission, Err(reason)) {
            self.used.release(&owner, admission, partitions);
        }
    }

    /// Charges a group to the first that can pay. Returns whether anyone can.
    fn charge(
        &mut self,
        key: &GroupKey,
        group: &GroupTargets,
        partitions: u64,
        budgets: &Budgets,
    ) -> bool {
        let Some(payer) = self.find_payer(group, partitions, budgets) else {
            return true;
        };
        let admission = payer.map(|(owner, given_up)| {
            for (other, reason) in given_up {
                self.refuse(&other, reason);
            }
            let admission = self.used.charge(&owner, key, partitions);
            (owner, admission)
        });
        let is_admitted = admission.is_ok();
        let entry = LedgerEntry {
            partitions,
            admission,
            left_out: 0,
        };
        self.groups.insert(key.clone(), entry);
        is_admitted
    }

    /// The owner whose budget a group counts against, and the groups that have to be refused for it, or the budget that
    /// is exceeded. `None` if the group has no target.
    fn find_payer(
        &mut self,
        group: &GroupTargets,
        partitions: u64,
        budgets: &Budgets,
    ) -> Option<Result<(BudgetOwner, GivenUp), BudgetExceeded>> {
        let candidates = BudgetOwner::candidates(group);
        let mut refused = Vec::new();
        for owner in candidates {
            match self.used.check(&owner, partitions, budgets) {
                Ok(()) => return Some(Ok((owner, Vec::new()))),
                Err(reason) => refused.push((owner, reason)),
            }
        }
        for (owner, reason) in &refused {
            if reason.scope == BudgetScope::Total
                && let Some(given_up) = self.used.find_groups_to_refuse(owner, partitions, budgets)
            {
                let given_up = given_up.into_iter().map(|key| (key, *reason)).collect();
                return Some(Ok((owner.clone(), given_up)));
            }
        }
        // The first that cannot pay is the reason.
        refused.into_iter().next().map(|(_, reason)| Err(reason))
    }
}

/// How many partitions of a group the one that pays for it may have; `None` = any number.
fn max_partitions(group: &GroupTargets, budgets: &Budgets) -> Option<u64> {
    let budget = match group.targets().iter().any(|target| target.hpa().is_some()) {
        _ if group.is_configured() => return None,
        true => &budgets.hpa,
        false => &budgets.namespace,
    };
    Some(budget.partitions)
}

/// Charge of a group: its partitions, and an addition for each target beyond the first that names no topics. Each of
/// these scans all topics of the group after every sweep. Topics that are only listed are charged separately.
fn partitions_to_charge(
    group: &GroupTargets,
    plan: &GroupPlan,
    committed: &TopicMap<CommittedOffsets>,
    listing: Option<&TopicListing>,
) -> u64 {
    let is_only_listed =
        |topic: &TopicName| listing.is_some_and(|listing| listing.is_only_listed(topic, plan));
    let columns = committed.iter().filter(|(topic, _)| !is_only_listed(topic));
    let (topics, partitions) =
        columns.fold((0, 0), |(topics, all): (usize, usize), (_, column)| {
            (topics.saturating_add(1), all.saturating_add(column.len()))
        });
    let unnamed = group.targets().iter();
    let unnamed = unnamed.filter(|target| target.key.topics.is_empty());
    let more = unnamed.count().saturating_sub(1);
    let scans = more.saturating_mul(topics) / SCANS_PER_PARTITION;
    u64::try_from(partitions.saturating_add(scans)).unwrap_or(u64::MAX)
}

/// Groups to refuse, and the budget that would be exceeded otherwise.
type GivenUp = Vec<(GroupKey, BudgetExceeded)>;

#[cfg(test)]
mod tests;
