//! Partitions in use, by HPA, namespace and group.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::targets::GroupKey;
use crate::model::targets::budgets::{Amounts, BudgetExceeded, BudgetScope, Budgets};
use crate::model::targets::fair_share::{
    DemandsWithoutRoom, Holder, Share, find_holdings_to_release,
};
use crate::model::targets::group_targets::GroupTargets;
use crate::model::units::hpa_key::HpaKey;

/// Whose budget a group uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BudgetOwner {
    Hpa(HpaKey),
    Requests,
    Operator,
}

impl BudgetOwner {
    /// Owners whose budget may be charged for a group, in the order in which they are tried.
    pub(super) fn candidates(group: &GroupTargets) -> Vec<Self> {
        let targets = group.targets();
        if group.is_configured() {
            return vec![Self::Operator];
        }
        let hpas = targets.iter().filter_map(|target| target.hpa());
        let mut owners: Vec<_> = hpas.cloned().map(Self::Hpa).collect();
        owners.dedup();
        if owners.is_empty() {
            owners.push(Self::Requests);
        }
        owners
    }
}

/// Number of partitions that HPAs, namespaces and all of them together use.
#[derive(Debug, Default)]
pub(super) struct PartitionUse {
    hpas: BTreeMap<HpaKey, u64>,
    namespaces: BTreeMap<Arc<str>, SharedUse>,
    /// Groups that only requests use.
    requests: SharedUse,
    /// Use of all HPAs and requests.
    total: u64,
    /// Number of groups that were admitted so far.
    admissions: u64,
    /// Demands of namespaces that did not fit since the use last changed.
    without_room: DemandsWithoutRoom,
}

/// Use of the groups of a namespace, or of requests.
#[derive(Debug, Default)]
struct SharedUse {
    partitions: u64,
    /// The groups and their partitions, by the number of their admission.
    groups: BTreeMap<u64, (GroupKey, u64)>,
}

impl SharedUse {
    fn add(&mut self, admission: u64, key: &GroupKey, partitions: u64) {
        self.partitions = self.partitions.saturating_add(partitions);
        self.groups.insert(admission, (key.clone(), partitions));
    }

    fn remove(&mut self, admission: u64) {
        if let Some((_, partitions)) = self.groups.remove(&admission) {
            self.partitions = self.partitions.saturating_sub(partitions);
        }
    }
}

impl PartitionUse {
    /// What HPAs and requests use together.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Records the partitions of a group. Returns the number of its admission.
    pub(super) fn charge(&mut self, owner: &BudgetOwner, key: &GroupKey, partitions: u64) -> u64 {
        self.without_room.clear();
        self.admissions = self.admissions.saturating_add(1);
        let admission = self.admissions;
        if *owner != BudgetOwner::Operator {
            self.total = self.total.saturating_add(partitions);
        }
        match owner {
            BudgetOwner::Hpa(hpa) => {
                let namespace = self.namespaces.entry(Arc::clone(&hpa.namespace));
                namespace.or_default().add(admission, key, partitions);
                add(&mut self.hpas, hpa.clone(), partitions);
            }
            BudgetOwner::Requests => self.requests.add(admission, key, partitions),
            BudgetOwner::Operator => {}
        }
        admission
    }

    /// Releases the partitions of a group.
    pub(super) fn release(&mut self, owner: &BudgetOwner, admission: u64, partitions: u64) {
        self.without_room.clear();
        if *owner != BudgetOwner::Operator {
            self.total = self.total.saturating_sub(partitions);
        }
        match owner {
            BudgetOwner::Hpa(hpa) => {
                if let Some(namespace) = self.namespaces.get_mut(&hpa.namespace) {
                    namespace.remove(admission);
                    if namespace.groups.is_empty() {
                        self.namespaces.remove(&hpa.namespace);
                    }
                }
                subtract(&mut self.hpas, hpa, partitions);
            }
            BudgetOwner::Requests => self.requests.remove(admission),
            BudgetOwner::Operator => {}
        }
    }

    /// The groups to refuse so that one more of this owner fits the total budget.
    pub(super) fn find_groups_to_refuse(
        &mut self,
        owner: &BudgetOwner,
        partitions: u64,
        budgets: &Budgets,
    ) -> Option<Vec<GroupKey>> {
        let BudgetOwner::Hpa(hpa) = owner else {
            return None;
        };
        let demand = of_partitions(partitions);
        if self.without_room.include(&hpa.namespace, demand) {
            return None;
        }
        let found = self.find_groups_of_others_to_refuse(hpa, partitions, budgets);
        if found.is_none() {
            self.without_room.insert(&hpa.namespace, demand);
        }
        found
    }

    fn find_groups_of_others_to_refuse(
        &self,
        hpa: &HpaKey,
        partitions: u64,
        budgets: &Budgets,
    ) -> Option<Vec<GroupKey>> {
        let total = of_partitions(budgets.total.partitions);
        let mut excess = of_partitions(self.total.saturating_add(partitions)).minus(total);
        let mut given_up = Vec::new();
        for (key, partitions) in self.requests.groups.values().rev() {
            if excess == Amounts::default() {
                break;
            }
            excess = excess.minus(of_partitions(*partitions));
            given_up.push(key);
        }
        let namespace = self.namespaces.get(&hpa.namespace);
        let used = namespace.map_or(0, |namespace| namespace.partitions);
        let wanted = used.saturating_add(partitions);
        let level = Share::new(&of_partitions(wanted), &total);
        let larger = self
            .namespaces
            .values()
            .filter(|other| other.partitions > wanted);
        let holders = larger.map(|other| Holder {
            used: of_partitions(other.partitions),
            holdings: {
                let latest_first = other.groups.values().rev();
                latest_first.map(|(key, partitions)| (key, of_partitions(*partitions)))
            },
        });
        given_up.extend(find_holdings_to_release(&total, level, excess, holders)?);
        Some(given_up.into_iter().cloned().collect())
    }

    /// Checks that the budgets suffice for `partitions` more of this owner.
    pub(super) fn check(
        &self,
        owner: &BudgetOwner,
        partitions: u64,
        budgets: &Budgets,
    ) -> Result<(), BudgetExceeded> {
        self.check_with(&Self::default(), owner, partitions, budgets)
    }

    /// Checks that the budgets suffice for `partitions` more of this owner, if `others` are in use too.
    pub(super) fn check_with(
        &self,
        others: &Self,
        owner: &BudgetOwner,
        partitions: u64,
        budgets: &Budgets,
    ) -> Result<(), BudgetExceeded> {
        if *owner == BudgetOwner::Operator {
            return Ok(());
        }
        let (own, others) = (self.used_by(owner), others.used_by(owner));
        let with = own
            .into_iter()
            .zip(others)
            .map(|((scope, used), (_, others))| {
                let used = used.saturating_add(others);
                (scope, of_partitions(used.saturating_add(partitions)))
            });
        budgets.check(&Vec::from_iter(with))
    }

    /// What counts against each budget of an owner.
    fn used_by(&self, owner: &BudgetOwner) -> Vec<(BudgetScope, u64)> {
        let total = (BudgetScope::Total, self.total);
        match owner {
            BudgetOwner::Hpa(hpa) => {
                let of_hpa = self.hpas.get(hpa).copied().unwrap_or_default();
                let namespace = self.namespaces.get(&hpa.namespace);
                let namespace = namespace.map(|namespace| namespace.partitions);
                vec![
                    (BudgetScope::Hpa, of_hpa),
                    (BudgetScope::Namespace, namespace.unwrap_or_default()),
                    total,
                ]
            }
            BudgetOwner::Requests => {
                vec![(BudgetScope::Namespace, self.requests.partitions), total]
            }
            BudgetOwner::Operator => Vec::new(),
        }
    }
}

fn of_partitions(partitions: u64) -> Amounts {
    Amounts {
        partitions,
        ..Amounts::default()
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
