//! The states of all targets, by metric and by HPA.

use std::collections::{BTreeMap, BTreeSet};

use super::target_state::TargetState;
use crate::model::evaluation::policy_outcome::PolicyKey;
use crate::model::targets::QueryHash;
use crate::model::units::hpa_key::HpaKey;

/// The states of all targets, by metric: each sweep looks up all of them. Those of an HPA are looked up after an edit
/// or a restart only.
#[derive(Debug, Default)]
pub(super) struct TargetStates {
    states: BTreeMap<PolicyKey, TargetState>,
    /// The metrics that have a state, in the order of HPAs.
    by_hpa: BTreeSet<(HpaKey, QueryHash)>,
}

impl TargetStates {
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    pub(super) fn get_mut(&mut self, key: &PolicyKey) -> Option<&mut TargetState> {
        self.states.get_mut(key)
    }

    /// Adds the state of a metric that has none.
    pub(super) fn add(&mut self, key: PolicyKey, state: TargetState) -> &mut TargetState {
        let (query, hpa) = &key;
        self.by_hpa.insert((hpa.clone(), *query));
        self.states.entry(key).or_insert(state)
    }

    pub(super) fn remove(&mut self, key: &PolicyKey) -> Option<TargetState> {
        let (query, hpa) = key;
        self.by_hpa.remove(&(hpa.clone(), *query));
        self.states.remove(key)
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(&TargetState) -> bool) {
        let by_hpa = &mut self.by_hpa;
        self.states.retain(|(query, hpa), state| {
            let is_kept = is_kept(state);
            if !is_kept {
                by_hpa.remove(&(hpa.clone(), *query));
            }
            is_kept
        });
    }

    /// The states of the metrics of an HPA.
    pub(super) fn of_hpa(&self, hpa: &HpaKey) -> impl Iterator<Item = (&PolicyKey, &TargetState)> {
        let metrics = self.by_hpa.range((hpa.clone(), QueryHash::FIRST)..);
        let metrics = metrics.take_while(move |(of, _)| of == hpa);
        metrics.filter_map(move |metric| self.get(metric))
    }

    /// All states, in the order of HPAs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PolicyKey, &TargetState)> {
        let metrics = self.by_hpa.iter();
        metrics.filter_map(move |metric| self.get(metric))
    }

    /// All states, in any order.
    pub(super) fn values(&self) -> impl Iterator<Item = &TargetState> {
        self.states.values()
    }

    fn get(&self, (hpa, query): &(HpaKey, QueryHash)) -> Option<(&PolicyKey, &TargetState)> {
        self.states.get_key_value(&(*query, hpa.clone()))
    }
}
