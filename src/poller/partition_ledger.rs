//! Which groups may be kept, by the budgets of partitions. How many partitions a group has is known only once its topics
//! are read, so that these budgets apply to what was read, not to what is asked for.
//!
//! Each group is charged to one of the HPAs that ask for it. A group that is in stays in while it does not grow. What
//! requests ask for comes after what HPAs ask for, and has the budget of one namespace; configured targets have no
//! budget, since the operator chose them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::targets::budgets::{Amounts, BudgetExceeded, BudgetScope, Budgets};
use crate::model::targets::group_targets::GroupTargets;
use crate::model::targets::{GroupKey, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::ClusterName;

/// The groups that were read, and what HPAs, namespaces and all of them use.
#[derive(Debug, Default)]
pub(super) struct PartitionLedger {
    groups: BTreeMap<GroupKey, LedgerEntry>,
    hpas: BTreeMap<HpaKey, u64>,
    namespaces: BTreeMap<Arc<str>, u64>,
    /// Of what only requests ask for.
    requests: u64,
    total: u64,
}

/// A group that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LedgerEntry {
    /// As last read.
    partitions: u64,
    charged: Result<Payer, BudgetExceeded>,
}

/// Whose budget a group uses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payer {
    Hpa(HpaKey),
    Requests,
    Operator,
}

impl Payer {
    /// Those that may pay for a group, in the order in which they are asked.
    fn candidates(group: &GroupTargets) -> Vec<Self> {
        let targets = group.targets();
        if targets.iter().any(|target| target.hpa().is_none()) {
            return vec![Self::Operator];
        }
        let hpas = targets.iter().filter_map(|target| target.hpa());
        let mut payers: Vec<_> = hpas.cloned().map(Self::Hpa).collect();
        payers.dedup();
        if payers.is_empty() {
            payers.push(Self::Requests);
        }
        payers
    }
}

impl PartitionLedger {
    /// The budgets that do not suffice, each with the number of groups that are not read for that reason.
    pub(super) fn exceeded_budgets(&self) -> BTreeMap<BudgetExceeded, usize> {
        let mut exceeded = BTreeMap::new();
        for reason in self
            .groups
            .values()
            .filter_map(|g| g.charged.as_ref().err())
        {
            let count: &mut usize = exceeded.entry(*reason).or_default();
            *count = count.saturating_add(1);
        }
        exceeded
    }

    /// Takes in that others ask for a group than before, or nobody.
    pub(super) fn update_payers(&mut self, key: &GroupKey, targets: &Targets) {
        let Some(entry) = self.groups.get(key) else {
            return;
        };
        let group = targets.group(&key.0, &key.1);
        let still_pays =
            |payer: &Payer| group.is_some_and(|group| Payer::candidates(group).contains(payer));
        if entry.charged.as_ref().is_ok_and(still_pays) {
            return;
        }
        let partitions = entry.partitions;
        self.release(key);
        if let Some(group) = group {
            self.charge(key, group, partitions, targets.budgets());
        }
    }

    /// Counts what was read, and removes it from the observation where a budget does not suffice: the group is then
    /// unknown for that reason.
    pub(super) fn apply(&mut self, observation: &mut Observation, targets: &Targets) {
        let cluster = observation.cluster.clone();
        for read in &mut observation.groups {
            let key = (cluster.clone(), read.plan.group.clone());
            let (Ok(committed), Some(group)) = (&read.committed, targets.group(&key.0, &key.1))
            else {
                continue;
            };
            let columns = committed.values().map(|column| column.len());
            let partitions = columns.fold(0, usize::saturating_add);
            let partitions = u64::try_from(partitions).unwrap_or(u64::MAX);
            let is_charged =
                |entry: &LedgerEntry| entry.partitions == partitions && entry.charged.is_ok();
            if self.groups.get(&key).is_some_and(is_charged) {
                continue;
            }
            self.release(&key);
            if !self.charge(&key, group, partitions, targets.budgets()) {
                read.committed = Err(Fault::OverBudget);
            }
        }
    }

    /// Leaves out of a plan the groups that a budget does not suffice for, and sorts the others: those of requests come
    /// after those of HPAs, and the first group of each namespace before the second of any. Where the time or the budget
    /// does not suffice for all, a namespace with few groups is not the one that has to wait. Groups that were never
    /// read come last, since they may have any number of partitions. Returns the plans that were left out.
    pub(super) fn split_plan(
        &mut self,
        cluster: &ClusterName,
        plan: SweepPlan,
        targets: &Targets,
    ) -> (SweepPlan, Vec<GroupPlan>) {
        let (mut read, mut left_out) = (Vec::new(), Vec::new());
        let mut known_partitions = 0u64;
        let mut ranks: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for group in plan.groups {
            let key = (cluster.clone(), group.group.clone());
            let asked = targets.group(&key.0, &key.1);
            let entry = self
                .groups
                .get(&key)
                .map(|entry| entry.partitions)
                .zip(asked);
            if let Some((partitions, asked)) = entry {
                let is_in = self.is_in(&key) || {
                    self.release(&key);
                    self.charge(&key, asked, partitions, targets.budgets())
                };
                if !is_in {
                    left_out.push(group);
                    continue;
                }
                known_partitions = known_partitions.saturating_add(partitions);
            }
            let asking = asked.map_or(&[][..], |asked| asked.targets());
            let hpa = asking.iter().find_map(|target| target.hpa());
            let is_requested_only = asking.is_empty();
            // Configured targets have rank 0, since they have no namespace.
            let rank = hpa.map_or(0, |hpa| {
                let next = ranks.entry(Arc::clone(&hpa.namespace)).or_default();
                let rank = *next;
                *next = rank.saturating_add(1);
                rank
            });
            read.push(((entry.is_none(), is_requested_only, rank), group));
        }
        read.sort_by_key(|(order, _)| *order);
        // Those that were never read have no more than what is left.
        let total = targets.budgets().total.partitions;
        let left = total.saturating_sub(self.total);
        let plan = SweepPlan {
            groups: read.into_iter().map(|(_, group)| group).collect(),
            max_partitions: Some(known_partitions.saturating_add(left)),
        };
        (plan, left_out)
    }

    fn is_in(&self, key: &GroupKey) -> bool {
        let entry = self.groups.get(key);
        entry.is_some_and(|entry| entry.charged.is_ok())
    }

    /// Takes back what a group uses. It is unknown to the ledger from then on.
    fn release(&mut self, key: &GroupKey) {
        let Some(entry) = self.groups.remove(key) else {
            return;
        };
        let Ok(payer) = entry.charged else {
            return;
        };
        let partitions = entry.partitions;
        match payer {
            Payer::Hpa(hpa) => {
                subtract(&mut self.namespaces, &hpa.namespace, partitions);
                subtract(&mut self.hpas, &hpa, partitions);
            }
            Payer::Requests => self.requests = self.requests.saturating_sub(partitions),
            Payer::Operator => {}
        }
        self.total = self.total.saturating_sub(partitions);
    }

    /// Charges a group to the first that can pay. Returns whether anyone can.
    fn charge(
        &mut self,
        key: &GroupKey,
        group: &GroupTargets,
        partitions: u64,
        budgets: &Budgets,
    ) -> bool {
        let mut charged = None;
        for payer in Payer::candidates(group) {
            let checked = self.check(&payer, partitions, budgets);
            let is_paid = checked.is_ok();
            // The first that cannot pay is the reason, unless another can.
            if is_paid || charged.is_none() {
                charged = Some(checked.map(|()| payer));
            }
            if is_paid {
                break;
            }
        }
        let Some(charged) = charged else {
            return true;
        };
        if let Ok(payer) = &charged {
            self.total = self.total.saturating_add(partitions);
            match payer {
                Payer::Hpa(hpa) => {
                    add(&mut self.namespaces, Arc::clone(&hpa.namespace), partitions);
                    add(&mut self.hpas, hpa.clone(), partitions);
                }
                Payer::Requests => self.requests = self.requests.saturating_add(partitions),
                Payer::Operator => {}
            }
        }
        let is_in = charged.is_ok();
        let entry = LedgerEntry {
            partitions,
            charged,
        };
        self.groups.insert(key.clone(), entry);
        is_in
    }

    fn check(
        &self,
        payer: &Payer,
        partitions: u64,
        budgets: &Budgets,
    ) -> Result<(), BudgetExceeded> {
        let with = |used: u64| Amounts {
            partitions: used.saturating_add(partitions),
            ..Amounts::default()
        };
        let total = (BudgetScope::Total, with(self.total));
        match payer {
            Payer::Hpa(hpa) => {
                let of_hpa = self.hpas.get(hpa).copied().unwrap_or_default();
                let namespace = self.namespaces.get(&hpa.namespace).copied();
                budgets.check(&[
                    (BudgetScope::Hpa, with(of_hpa)),
                    (BudgetScope::Namespace, with(namespace.unwrap_or_default())),
                    total,
                ])
            }
            Payer::Requests => {
                budgets.check(&[(BudgetScope::Namespace, with(self.requests)), total])
            }
            Payer::Operator => Ok(()),
        }
    }
}

fn add<K: Ord>(used: &mut BTreeMap<K, u64>, key: K, partitions: u64) {
    let sum = used.entry(key).or_default();
    *sum = sum.saturating_add(partitions);
}

fn subtract<K: Ord>(used: &mut BTreeMap<K, u64>, key: &K, partitions: u64) {
    if let Some(sum) = used.get_mut(key) {
        *sum = sum.saturating_sub(partitions);
        if *sum == 0 {
            used.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
