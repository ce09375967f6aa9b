//! Admission of HPAs within the budgets.
//!
//! First come, first served within the budget of each namespace: an admitted HPA stays admitted until it needs more,
//! and HPAs that arrive together are admitted in the order of their creation. Where the total budgets are too small for
//! all namespaces, those with the largest [`Share`] lose their newest HPAs to others.

use std::cmp::Reverse;
use std::sync::Arc;

use super::budgets::{Amounts, BudgetExceeded, BudgetScope, Budgets};
use super::fair_share::{Holder, Share, find_holdings_to_release};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::persistent_map::PersistentMap;

/// The HPAs that are admitted, and those that exceed a budget. Clones share their entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    budgets: Budgets,
    total: Amounts,
    namespaces: PersistentMap<Arc<str>, NamespaceUse>,
    admitted: PersistentMap<HpaKey, Admitted>,
    refused: PersistentMap<HpaKey, Refusal>,
}

/// An HPA that is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Admitted {
    demand: Amounts,
    created: Option<i64>,
}

/// Use of the admitted HPAs of a namespace.
#[derive(Clone, Debug, Default)]
struct NamespaceUse {
    used: Amounts,
    share: Share,
    /// The demand of each of them. The newest comes first.
    hpas: PersistentMap<(Reverse<CreationOrder>, Reverse<HpaKey>), Amounts>,
}

/// An HPA that exceeds a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) demand: Amounts,
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

    /// Demand of an admitted HPA.
    pub(super) fn admitted(&self, hpa: &HpaKey) -> Option<Amounts> {
        self.admitted.get(hpa).map(|admitted| admitted.demand)
    }

    /// The HPAs that exceed a budget.
    pub(super) fn refused(&self) -> &PersistentMap<HpaKey, Refusal> {
        &self.refused
    }

    /// Removes an HPA. Returns whether it was admitted.
    pub(super) fn release(&mut self, hpa: &HpaKey) -> bool {
        self.refused.remove(hpa);
        self.remove_admitted(hpa).is_some()
    }

    fn remove_admitted(&mut self, hpa: &HpaKey) -> Option<Admitted> {
        let had = self.admitted.remove(hpa)?;
        self.total = self.total.minus(had.demand);
        self.change_namespace(&hpa.namespace, |namespace| {
            namespace.hpas.remove(&had.loss_order(hpa));
            namespace.used = namespace.used.minus(had.demand);
        });
        Some(had)
    }

    fn insert_admitted(&mut self, hpa: &HpaKey, admitted: Admitted) {
        self.total = self.total.plus(admitted.demand);
        self.change_namespace(&hpa.namespace, |namespace| {
            namespace
                .hpas
                .insert(admitted.loss_order(hpa), admitted.demand);
            namespace.used = namespace.used.plus(admitted.demand);
        });
        self.admitted.insert(hpa.clone(), admitted);
    }

    fn change_namespace(&mut self, name: &Arc<str>, change: impl FnOnce(&mut NamespaceUse)) {
        let mut namespace = self.namespaces.remove(name).unwrap_or_default();
        change(&mut namespace);
        namespace.share = Share::new(&namespace.used, &self.budgets.total);
        if !namespace.hpas.is_empty() {
            self.namespaces.insert(Arc::clone(name), namespace);
        }
    }

    /// Admits an HPA with its new demand, if the budgets suffice. Otherwise it is refused. Returns the HPAs of other
    /// namespaces that are refused from now on in its favor.
    ///
    /// # Errors
    /// The budget that it exceeds.
    pub(super) fn admit(
        &mut self,
        hpa: &HpaKey,
        created: Option<i64>,
        demand: Amounts,
    ) -> Result<Vec<HpaKey>, BudgetExceeded> {
        let asks = Admitted { demand, created };
        if self.admitted.get(hpa) == Some(&asks) {
            // Most changes of an HPA are about something else.
            return Ok(Vec::new());
        }
        self.release(hpa);
        if demand == Amounts::default() {
            return Ok(Vec::new());
        }
        match self.find_hpas_to_refuse(hpa, demand) {
            Ok((given_up, reason)) => {
                for other in &given_up {
                    if let Some((had, reason)) = self.remove_admitted(other).zip(reason) {
                        self.refused.insert(other.clone(), had.refused_for(reason));
                    }
                }
                self.insert_admitted(hpa, asks);
                Ok(given_up)
            }
            Err(reason) => {
                self.refused.insert(hpa.clone(), asks.refused_for(reason));
                Err(reason)
            }
        }
    }

    /// Finds the HPAs to refuse so that another HPA can be admitted, and the budget that would be exceeded otherwise.
    fn find_hpas_to_refuse(
        &self,
        hpa: &HpaKey,
        demand: Amounts,
    ) -> Result<(Vec<HpaKey>, Option<BudgetExceeded>), BudgetExceeded> {
        let namespace = self.namespaces.get(&hpa.namespace);
        let namespace = namespace.map_or_else(Amounts::default, |namespace| namespace.used);
        let (namespace, total) = (namespace.plus(demand), self.total.plus(demand));
        let checked = self.budgets.check(&[
            (BudgetScope::Hpa, demand),
            (BudgetScope::Namespace, namespace),
            (BudgetScope::Total, total),
        ]);
        match checked {
            Ok(()) => Ok((Vec::new(), None)),
            Err(reason) if reason.scope == BudgetScope::Total => {
                let excess = total.minus(self.budgets.total);
                let level = Share::new(&namespace, &self.budgets.total);
                let others = self.namespaces.values().filter(|other| other.share > level);
                let others = others.map(|other| Holder {
                    used: other.used,
                    holdings: other.hpas.iter().map(|((_, hpa), asks)| (&hpa.0, *asks)),
                });
                let given_up = find_holdings_to_release(&self.budgets.total, level, excess, others);
                let given_up = given_up.ok_or(reason)?.into_iter();
                Ok((given_up.cloned().collect(), Some(reason)))
            }
            Err(reason) => Err(reason),
        }
    }

    /// Whether the budgets suffice for an HPA that was refused.
    pub(super) fn has_room_for(&self, hpa: &HpaKey) -> bool {
        let refusal = self.refused.get(hpa);
        refusal.is_some_and(|refusal| self.find_hpas_to_refuse(hpa, refusal.demand).is_ok())
    }

    /// The refused HPAs that another HPA may have kept out, in the order in which they are tried again: namespaces that
    /// use less come first, and older HPAs.
    pub(super) fn retry_order(&self) -> Vec<HpaKey> {
        let refused = self.refused.iter();
        let others = refused.filter(|(_, refusal)| refusal.reason.scope != BudgetScope::Hpa);
        let mut order: Vec<_> = others
            .map(|(hpa, refusal)| {
                let namespace = self.namespaces.get(&hpa.namespace);
                let share = namespace.map_or_else(Share::default, |namespace| namespace.share);
                (share, creation_order(refusal.created), hpa)
            })
            .collect();
        order.sort();
        order.into_iter().map(|(.., hpa)| hpa.clone()).collect()
    }
}

impl Admitted {
    fn refused_for(self, reason: BudgetExceeded) -> Refusal {
        Refusal {
            demand: self.demand,
            created: self.created,
            reason,
        }
    }

    /// Sorts the HPAs of a namespace in the order in which they are refused in favor of others.
    fn loss_order(&self, hpa: &HpaKey) -> (Reverse<CreationOrder>, Reverse<HpaKey>) {
        (Reverse(creation_order(self.created)), Reverse(hpa.clone()))
    }
}

type CreationOrder = (bool, Option<i64>);

/// Sorts older HPAs first, and those of unknown age last.
pub(super) fn creation_order(created: Option<i64>) -> CreationOrder {
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
        Admission::new(Budgets {
            hpa: groups(hpa),
            namespace: groups(namespace),
            total: groups(total),
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
            // With it, its share would be larger than those that others would keep.
            ("c/1", 3, Err(BudgetScope::Total)),
        ] {
            let (namespace, name) = hpa.split_once('/').unwrap();
            let found = admission.admit(&HpaKey::new(namespace, name), None, groups(demand));
            let scope = found.clone().map(drop).map_err(|exceeded| exceeded.scope);
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
        // Its additional demand has to fit.
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

    /// Admits as many HPAs of each namespace as given, each with this demand, in this order, and then those that were
    /// refused as long as that changes anything. Returns how much each namespace has.
    fn settle(admission: &mut Admission, order: &[(&str, u64)]) -> BTreeMap<String, u64> {
        for (n, (namespace, demand)) in order.iter().enumerate() {
            let hpa = HpaKey::new(*namespace, format!("h{n}"));
            let _ = admission.admit(&hpa, i64::try_from(n).ok(), groups(*demand));
        }
        for round in 0.. {
            assert!(round < 100, "no rest: {order:?}");
            let mut is_changed = false;
            for hpa in admission.retry_order() {
                if admission.has_room_for(&hpa) {
                    let Refusal {
                        demand, created, ..
                    } = *admission.refused.get(&hpa).unwrap();
                    is_changed |= admission.admit(&hpa, created, demand).is_ok();
                }
            }
            if !is_changed {
                break;
            }
        }
        let namespaces = admission.namespaces.iter();
        namespaces
            .map(|(name, namespace)| (name.to_string(), namespace.used.groups))
            .collect()
    }

    #[test]
    fn the_total_budget_is_shared_between_namespaces() {
        for (order, expected) in [
            // The first one had everything.
            (vec![("a", 20), ("b", 3)], vec![("a", 9), ("b", 3)]),
            (vec![("a", 20), ("b", 20)], vec![("a", 6), ("b", 6)]),
            (
                vec![("a", 20), ("b", 20), ("c", 2)],
                vec![("a", 5), ("b", 5), ("c", 2)],
            ),
            (vec![("b", 2), ("a", 20)], vec![("a", 10), ("b", 2)]),
        ] {
            let mut admission = admission(1, 12, 12);
            let hpas = order
                .iter()
                .flat_map(|(namespace, count)| vec![(*namespace, 1); *count]);
            let found = settle(&mut admission, &Vec::from_iter(hpas));
            let expected = expected
                .into_iter()
                .map(|(name, has)| (name.to_owned(), has));
            assert_eq!(found, expected.collect(), "{order:?}");
        }
    }

    #[test]
    fn the_newest_hpas_of_the_largest_namespace_are_refused_first() {
        let mut admission = admission(10, 12, 12);
        let hpa = |name: &str| HpaKey::new("large", name);
        for (name, created) in [("old", Some(1)), ("unknown", None), ("young", Some(2))] {
            assert!(admission.admit(&hpa(name), created, groups(4)).is_ok());
        }
        let other = HpaKey::new("other", "h");
        let given_up = admission.admit(&other, Some(9), groups(2)).unwrap();
        assert_eq!(given_up, [hpa("unknown")]);
        let refusal = admission.refused.get(&hpa("unknown")).unwrap();
        assert_eq!(refusal.reason.scope, BudgetScope::Total);
        // The rest of the budget is too small for it, and no other HPA is refused.
        assert!(!admission.has_room_for(&hpa("unknown")));
        let more = admission.admit(&other, Some(9), groups(4)).unwrap();
        assert!(more.is_empty());
        assert_eq!(
            admission.admit(&other, Some(9), groups(5)),
            Err(refusal_of_total())
        );
        assert_eq!(admission.admitted(&other), None);
        assert!(admission.has_room_for(&hpa("unknown")));
    }

    fn refusal_of_total() -> BudgetExceeded {
        BudgetExceeded {
            scope: BudgetScope::Total,
            resource: Resource::Groups,
            limit: 12,
        }
    }

    proptest! {
        #[test]
        fn shares_become_stable_and_are_as_even_as_one_hpa_allows(
            order in vec((0..4usize, 1..4u64), 0..60),
            total in 1..30u64,
        ) {
            let names = ["a", "b", "c", "d"];
            let order = order.into_iter().map(|(name, demand)| (names[name], demand));
            let order = Vec::from_iter(order);
            let mut admission = admission(3, 20, total);
            let has = settle(&mut admission, &order);
            prop_assert!(has.values().sum::<u64>() <= total);
            for (hpa, refusal) in admission.refused.iter() {
                prop_assert!(!admission.has_room_for(hpa));
                let own = has.get(&*hpa.namespace).copied().unwrap_or(0);
                // The share of others is at most that of this namespace with the HPA, plus one HPA.
                let most = has.values().max().copied().unwrap_or(0);
                if refusal.reason.scope == BudgetScope::Total && refusal.demand.groups == 1 {
                    prop_assert!(most <= own + 1 + 3, "{hpa} {has:?}");
                }
            }
        }

        #[test]
        fn use_is_the_sum_of_what_is_admitted_and_within_the_budgets(
            steps in vec((0..3usize, 0..4usize, prop::option::of(0..7u64)), 0..60),
        ) {
            let mut admission = admission(5, 8, 15);
            let mut known: BTreeMap<HpaKey, u64> = BTreeMap::new();
            for (namespace, name, demand) in steps {
                let hpa = HpaKey::new(["a", "b", "c"][namespace], ["w", "x", "y", "z"][name]);
                known.remove(&hpa);
                match demand.map(|demand| (demand, admission.admit(&hpa, None, groups(demand)))) {
                    Some((demand, Ok(given_up))) => {
                        known.insert(hpa.clone(), demand);
                        for other in &given_up {
                            prop_assert!(other.namespace != hpa.namespace);
                            prop_assert!(known.remove(other).is_some());
                        }
                    }
                    Some((_, Err(_))) => {}
                    None => {
                        admission.release(&hpa);
                    }
                }
                let sum = |namespace: Option<&str>| -> u64 {
                    let of = |hpa: &HpaKey| namespace.is_none_or(|name| *hpa.namespace == *name);
                    known.iter().filter(|(hpa, _)| of(hpa)).map(|(_, groups)| groups).sum()
                };
                prop_assert_eq!(admission.total.groups, sum(None));
                prop_assert!(sum(None) <= 15);
                for namespace in ["a", "b", "c"] {
                    let used = admission.namespaces.get(namespace).map_or(0, |has| has.used.groups);
                    prop_assert_eq!(used, sum(Some(namespace)));
                    prop_assert!(used <= 8);
                }
            }
        }
    }
}
