//! Inputs of the reconciler: HPAs and evaluations.

use std::sync::Arc;
use std::time::Instant;

use crate::model::hpa::facts::HpaMap;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;

/// The latest HPAs and evaluations.
pub(super) struct ReconcilerInputs {
    pub(super) hpas: HpaMap,
    pub(super) snapshot: Arc<LagSnapshot>,
    /// When the last sweep of each cluster began. A sweep counts once, even if several snapshots contain it.
    pub(super) swept: Vec<Instant>,
}

impl ReconcilerInputs {
    /// Calls `on_change` for each HPA that differs in `after`, or whose evaluation does.
    pub(super) fn diff(&self, after: &Self, mut on_change: impl FnMut(&HpaKey)) {
        self.hpas.diff(&after.hpas, |hpa, _, _| on_change(hpa));
        let evaluations = &self.snapshot.evaluations;
        evaluations.diff_hpas(&after.snapshot.evaluations, on_change);
    }

    /// Calls back for each HPA that differs in `after`, or has other targets there.
    pub(super) fn diff_targets(&self, after: &Self, mut on_change: impl FnMut(&HpaKey)) {
        self.hpas.diff(&after.hpas, |hpa, _, _| on_change(hpa));
        let targets = &self.snapshot.targets;
        targets.diff_hpas(&after.snapshot.targets, on_change);
    }
}
