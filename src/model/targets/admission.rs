//! Admission: the HPAs that are within the budgets.
//!
//! First come, first served within the budget of each namespace. An admitted HPA stays admitted until it asks for more,
//! and HPAs that come together come in the order of their creation. So no change of one HPA takes away what another has.

use std::sync::Arc;

use super::budgets::{Amounts, BudgetExceeded, BudgetScope, Budgets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::persistent_map::PersistentMap;

/// The HPAs that are admitted, and those that exceed a budget. Clones share their entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    budgets: Budgets,
    total: Amounts,
    namespaces: PersistentMap<Arc<str>, Amounts>,
    admitted: PersistentMap<HpaKey, Amounts>,
    refused: PersistentMap<HpaKey, Refusal>,
}

/// An HPA that exceeds a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    demand: Amounts,
    created: Option<i64>,
    pub(super) reason: BudgetExceeded,
}

impl Admission {
    pub(super) fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            ..Self::default()
        }
    }

    pub(super) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// What an admitted HPA asks for.
    pub(super) fn admitted(&self, hpa: &HpaKey) -> Option<Amounts> {
        self.admitted.get(hpa).copied()
    }

    /// The HPAs that exceed a budget.
    pub(super) fn refused(&self) -> &PersistentMap<HpaKey, Refusal> {
        &self.refused
    }

    /// Takes back what an HPA has. Returns whether that was anything.
    pub(super) fn release(&mut self, hpa: &HpaKey) -> bool {
        self.refused.remove(hpa);
        let Some(had) = self.admitted.remove(hpa) else {
            return false;
        };
        self.total = self.total.minus(had);
        let namespace = self.namespaces.remove(&hpa.namespace).unwrap_or_default();
        let rest = namespace.minus(had);
        if rest != Amounts::default() {
            self.namespaces.insert(Arc::clone(&hpa.namespace), rest);
        }
        true
    }

    /// Gives an HPA what it asks for, in place of what it had, if the budgets suffice. Otherwise it has nothing.
    ///
    /// # Errors
    /// The budget that it exceeds.
    pub(super) fn admit(
        &mut self,
        hpa: &HpaKey,
        created: Option<i64>,
        demand: Amounts,
    ) -> Result<(), BudgetExceeded> {
        if self.admitted(hpa) == Some(demand) {
            // Most changes of an HPA are about something else.
            return Ok(());
        }
        self.release(hpa);
        if demand == Amounts::default() {
            return Ok(());
        }
        match self.check(hpa, demand) {
            Ok((namespace, total)) => {
                self.total = total;
                self.namespaces
                    .insert(Arc::clone(&hpa.namespace), namespace);
                self.admitted.insert(hpa.clone(), demand);
                Ok(())
            }
            Err(reason) => {
                let refusal = Refusal {
                    demand,
                    created,
                    reason,
                };
                self.refused.insert(hpa.clone(), refusal);
                Err(reason)
            }
        }
    }

    /// The use of its namespace and of all with the demand of an HPA that is not admitted, if the budgets suffice.
    fn check(&self, hpa: &HpaKey, demand: Amounts) -> Result<(Amounts, Amounts), BudgetExceeded> {
        let namespace = self.namespaces.get(&hpa.namespace).copied();
        let namespace = namespace.unwrap_or_default().plus(demand);
        let total = self.total.plus(demand);
        let used = [
            (BudgetScope::Hpa, demand),
            (BudgetScope::Namespace, namespace),
            (BudgetScope::Total, total),
        ];
        self.budgets.check(&used).map(|()| (namespace, total))
    }

    /// Whether the budgets suffice for an HPA that was refused.
    pub(super) fn has_room_for(&self, hpa: &HpaKey) -> bool {
        let refusal = self.refused.get(hpa);
        refusal.is_some_and(|refusal| self.check(hpa, refusal.demand).is_ok())
    }

    /// The refused HPAs that another HPA may have kept out, in the order in which they are tried again: namespaces that
    /// use less come first, and older HPAs.
    pub(super) fn retry_order(&self) -> Vec<HpaKey> {
        let refused = self.refused.iter();
        let others = refused.filter(|(_, refusal)| refusal.reason.scope != BudgetScope::Hpa);
        let mut order: Vec<_> = others
            .map(|(hpa, refusal)| {
                let used = self.namespaces.get(&hpa.namespace);
                let used = used.map_or(0, |used| used.groups);
                (used, creation_order(refusal.created), hpa)
            })
            .collect();
        order.sort();
        order.into_iter().map(|(.., hpa)| hpa.clone()).collect()
    }
}

/// Sorts older HPAs first, and those of unknown age last.
pub(super) fn creation_order(created: Option<i64>) -> (bool, Option<i64>) {
    (created.is_none(), created)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::model::targets::budgets::Resource;

    fn groups(groups: u64) -> Amounts {
        Amounts {
            groups,
            ..Amounts::default()
        }
    }

    fn admission(hpa: u64, namespace: u64, total: u64) -> Admission {
        let limit = |groups| Amounts {
            groups,
            ..Amounts::default()
        };
        Admission::new(Budgets {
            hpa: limit(hpa),
            namespace: limit(namespace),
            total: limit(total),
            partition_series: 0,
        })
    }

    #[test]
    fn names_the_budget_that_is_exceeded() {
        let mut admission = admission(3, 5, 8);
        for (hpa, demand, expected) in [
            ("a/big", 4, Err(BudgetScope::Hpa)),
            ("a/1", 3, Ok(())),
            ("a/2", 3, Err(BudgetScope::Namespace)),
            ("a/3", 2, Ok(())),
            ("b/1", 3, Ok(())),
            ("c/1", 1, Err(BudgetScope::Total)),
        ] {
            let (namespace, name) = hpa.split_once('/').unwrap();
            let found = admission.admit(&HpaKey::new(namespace, name), None, groups(demand));
            let scope = found.map_err(|exceeded| exceeded.scope);
            assert_eq!(scope, expected, "{hpa}");
            assert!(found.is_err_and(|e| e.resource == Resource::Groups) || expected.is_ok());
        }
    }

    #[test]
    fn an_admitted_hpa_stays_admitted_and_older_ones_come_first() {
        let mut admission = admission(9, 10, 100);
        let hpa = |name: &str| HpaKey::new("shop", name);
        assert!(admission.admit(&hpa("in"), Some(9), groups(6)).is_ok());
        for (name, created) in [("new", Some(8)), ("unknown", None), ("old", Some(1))] {
            assert!(admission.admit(&hpa(name), created, groups(5)).is_err());
        }
        let waiting = ["old", "new", "unknown"].map(&hpa);
        assert_eq!(admission.retry_order(), waiting);
        assert!(
            admission
                .retry_order()
                .iter()
                .all(|hpa| !admission.has_room_for(hpa))
        );
        // The same demand again, or less, changes nothing for it.
        assert!(admission.admit(&hpa("in"), Some(9), groups(6)).is_ok());
        assert!(admission.admit(&hpa("in"), Some(9), groups(5)).is_ok());
        assert!(admission.has_room_for(&hpa("old")));
        // What it asks for in addition has to fit.
        assert!(admission.admit(&hpa("old"), Some(1), groups(5)).is_ok());
        assert!(admission.admit(&hpa("in"), Some(9), groups(6)).is_err());
        assert_eq!(admission.admitted(&hpa("in")), None);
        assert_eq!(admission.admitted(&hpa("old")), Some(groups(5)));
    }

    #[test]
    fn a_namespace_with_less_comes_first_when_room_becomes_free() {
        let mut admission = admission(10, 10, 12);
        let (rich, other) = (HpaKey::new("rich", "a"), HpaKey::new("other", "z"));
        assert!(
            admission
                .admit(&HpaKey::new("rich", "1"), Some(1), groups(5))
                .is_ok()
        );
        assert!(
            admission
                .admit(&HpaKey::new("third", "1"), Some(1), groups(7))
                .is_ok()
        );
        assert!(admission.admit(&rich, Some(2), groups(2)).is_err());
        assert!(admission.admit(&other, Some(3), groups(2)).is_err());
        assert_eq!(admission.retry_order(), [other, rich]);
    }

    proptest! {
        #[test]
        fn use_is_the_sum_of_what_is_admitted_and_within_the_budgets(
            steps in vec((0..3usize, 0..4usize, prop::option::of(0..7u64)), 0..60),
        ) {
            let mut admission = admission(5, 8, 15);
            let mut known: BTreeMap<HpaKey, u64> = BTreeMap::new();
            for (namespace, name, demand) in steps {
                let hpa = HpaKey::new(["a", "b", "c"][namespace], ["w", "x", "y", "z"][name]);
                let is_admitted = match demand {
                    Some(demand) => admission.admit(&hpa, None, groups(demand)).is_ok(),
                    None => {
                        admission.release(&hpa);
                        false
                    }
                };
                known.remove(&hpa);
                known.extend(is_admitted.then(|| (hpa.clone(), demand.unwrap_or(0))));
                let sum = |namespace: Option<&str>| -> u64 {
                    let of = |hpa: &HpaKey| namespace.is_none_or(|name| *hpa.namespace == *name);
                    known.iter().filter(|(hpa, _)| of(hpa)).map(|(_, groups)| groups).sum()
                };
                prop_assert_eq!(admission.total.groups, sum(None));
                prop_assert!(sum(None) <= 15);
                for namespace in ["a", "b", "c"] {
                    let used = admission.namespaces.get(namespace).map_or(0, |used| used.groups);
                    prop_assert_eq!(used, sum(Some(namespace)));
                    prop_assert!(used <= 8);
                }
            }
        }
    }
}
