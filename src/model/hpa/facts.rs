//! What somebody wrote into an HPA, and what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selector::Selector;
use crate::model::settings::Settings;
use crate::model::settings::annotations::whole_hpa_settings;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::quantity::Milli;

/// Whether an HPA goes to zero by itself, so that nothing is to be written: its `minReplicas` can be
/// zero only where the cluster has that.
#[must_use]
pub fn is_native(hpa: &HpaFacts) -> bool {
    hpa.min_replicas == Some(0)
}

/// An HPA's External metric of others, if it has one. What that wants nobody asks at zero replicas, so
/// the workload is left awake.
#[must_use]
pub fn asks_others(hpa: &HpaFacts) -> Option<&str> {
    let mut names = hpa.metrics.iter().map(|metric| metric.name.as_str());
    names.find(|name| Metric::from_name(name).is_none())
}

/// What an HPA compares the metric with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricTarget {
    /// Lag wanted per replica.
    AverageValue(Milli),
    /// Lag wanted in all; cannot be clamped, since the HPA multiplies it by the ready pods.
    Value(Milli),
}

/// One External metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMetric {
    /// The metric's name.
    pub name: String,
    /// Its selector.
    pub selector: Selector,
    /// What it is compared with; `None` where the HPA says nothing that can be read.
    pub target: Option<MetricTarget>,
}

/// What an HPA scales: anything with a `/scale` subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleTarget {
    /// Its API group and version, such as `apps/v1`.
    pub api_version: Arc<str>,
    /// Its kind, such as `Deployment`.
    pub kind: Arc<str>,
    /// Its name, in the HPA's namespace.
    pub name: Arc<str>,
}

/// What is known of one HPA.
///
/// Only what somebody wrote into it: its status and resource version change at every turn of the HPA
/// controller, and whoever needs those reads the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaFacts {
    /// Its namespace, which is also that of its metric requests.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What tells it from another of the same name, before it or after it.
    pub uid: Arc<str>,
    /// What it scales.
    pub scale_target: ScaleTarget,
    /// The controller that owns it, as `Kind/name`: it would put back whatever anyone else writes.
    pub controller: Option<Arc<str>>,
    /// The fewest replicas that it may want; `None` where it does not say, which means one.
    pub min_replicas: Option<u32>,
    /// Its External metrics, in its order, those of others too.
    pub metrics: Vec<ExternalMetric>,
    /// Its annotations that begin with [`annotations::PREFIX`](crate::model::settings::annotation_keys::PREFIX).
    pub annotations: BTreeMap<String, String>,
    /// The most replicas it may want.
    pub max_replicas: u32,
    /// `behavior.scaleUp.tolerance`, where the cluster keeps one; otherwise its default applies.
    pub tolerance_up: Option<Milli>,
    /// `behavior.scaleDown.tolerance`, likewise.
    pub tolerance_down: Option<Milli>,
    /// `behavior.scaleUp.stabilizationWindowSeconds`; `None` where it does not say, which means 0.
    pub window_up: Option<u32>,
    /// `behavior.scaleDown.stabilizationWindowSeconds`; `None` = the controller's default holds.
    pub window_down: Option<u32>,
    /// Its metrics that are not External, as `Type name`, in its order.
    pub other_metrics: Vec<Arc<str>>,
}

impl HpaFacts {
    #[must_use]
    pub fn key(&self) -> HpaKey {
        HpaKey::new(Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    /// Its tolerance upwards, in thousandths.
    #[must_use]
    pub fn tolerance_up(&self) -> u64 {
        self.tolerance_up
            .map_or(TOLERANCE_DEFAULT, Milli::thousandths)
    }

    /// Its tolerance downwards, in thousandths.
    #[must_use]
    pub fn tolerance_down(&self) -> u64 {
        self.tolerance_down
            .map_or(TOLERANCE_DEFAULT, Milli::thousandths)
    }
}

/// The tolerance of an HPA that sets none, in thousandths: the controller's default
/// (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE_DEFAULT: u64 = 100;

/// Whether any of its metrics is ours, so that it can have a ceiling.
#[must_use]
pub fn has_our_metric(hpa: &HpaFacts) -> bool {
    let mut metrics = hpa.metrics.iter();
    metrics.any(|metric| Metric::from_name(&metric.name).is_some())
}

/// The settings of the whole HPA that its annotations make.
#[must_use]
pub fn settings(hpa: &HpaFacts) -> Settings {
    whole_hpa_settings(&hpa.annotations)
}

/// The cap mode of the HPA itself; `None` where the default applies. Always `advise` for an HPA that a
/// controller owns, since the two would undo each other's writes.
#[must_use]
pub fn own_mode(hpa: &HpaFacts) -> Option<CapMode> {
    if hpa.controller.is_some() {
        return Some(CapMode::Advise);
    }
    settings(hpa).cap
}

/// The cap mode of the HPA itself, else the `default`.
#[must_use]
pub fn mode(hpa: &HpaFacts, default: CapMode) -> CapMode {
    own_mode(hpa).unwrap_or(default)
}

/// Whether a person has stopped the writes to the HPA and to its scale target.
#[must_use]
pub fn is_paused(hpa: &HpaFacts) -> bool {
    settings(hpa).paused()
}

/// Whether the HPA has a metric of ours.
#[must_use]
pub fn is_ours(hpa: &HpaFacts) -> bool {
    let mut metrics = hpa.metrics.iter();
    metrics.any(|metric| Metric::from_name(&metric.name).is_some())
}

/// What an HPA scales, for people.
#[must_use]
pub fn scales(hpa: &HpaFacts) -> String {
    let target = &hpa.scale_target;
    format!("{} {}/{}", target.kind, hpa.namespace, target.name)
}
