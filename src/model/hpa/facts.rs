//! The parts of an HPA's spec and annotations that lagwise uses, and what follows from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::limits::HpaTooLarge;
use super::selector::{RejectedSelector, Selector};
use crate::model::settings::Settings;
use crate::model::settings::annotation_keys::ZEROED_SINCE;
use crate::model::settings::annotations::whole_hpa_settings;
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::Metric;
use crate::model::units::names;
use crate::model::units::persistent_map::PersistentMap;
use crate::model::units::quantity::Milli;
use crate::model::units::untrusted_text::{MAX_NAME_CHARS, Printable};

/// Whether the HPA controller scales to zero itself, so that lagwise must not: `minReplicas` is 0, which only
/// clusters with the feature `HPAScaleToZero` accept.
#[must_use]
pub fn scales_to_zero_natively(hpa: &HpaFacts) -> bool {
    hpa.min_replicas == Some(0)
}

/// `spec.minReplicas`, or the default of the HPA controller.
#[must_use]
pub fn min_replicas(hpa: &HpaFacts) -> u32 {
    hpa.min_replicas.unwrap_or(1)
}

/// The replicas with which a workload at zero is started.
#[must_use]
pub fn start_replicas(hpa: &HpaFacts) -> u32 {
    min_replicas(hpa).max(1)
}

/// Whether the HPA has the annotation of scale to zero. Everybody who may write HPAs can set it, so it says nothing
/// about the workload.
#[must_use]
pub fn has_zeroed_annotation(hpa: &HpaFacts) -> bool {
    hpa.annotations.contains_key(ZEROED_SINCE)
}

/// When the workload was scaled to zero, by the annotation, in RFC 3339. `None` if its text is not a time. The time is
/// formatted again, because the parser accepts any number of digits, and any characters behind the seconds.
#[must_use]
pub fn zeroed_since(annotations: &BTreeMap<String, String>) -> Option<String> {
    let since = humantime::parse_rfc3339(annotations.get(ZEROED_SINCE)?).ok()?;
    Some(humantime::format_rfc3339_seconds(since).to_string())
}

/// An External metric of the HPA that lagwise does not serve. At zero replicas the HPA does not read it, so
/// lagwise does not scale such a workload to zero.
#[must_use]
pub fn other_external_metric(hpa: &HpaFacts) -> Option<&str> {
    let mut names = hpa.metrics.iter().map(|metric| metric.name.as_str());
    names.find(|name| Metric::from_name(name).is_none())
}

/// Target of an HPA's metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricTarget {
    /// Target lag per replica.
    AverageValue(Milli),
    /// Target for the total lag. Cannot be clamped, because the HPA multiplies by its ready pods.
    Value(Milli),
}

/// One External metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMetric {
    pub name: String,
    pub selector: Selector,
    /// `None` if it is missing or invalid.
    pub target: Option<MetricTarget>,
}

/// A metric that is not External. It displays as `Type name`, such as `Resource cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherMetric {
    /// `Resource`, `ContainerResource`, `Pods` or `Object`.
    pub type_name: Box<str>,
    /// The name of the metric, or of the resource.
    pub name: Box<str>,
}

impl fmt::Display for OtherMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.type_name, self.name)
    }
}

/// An External metric that the HPA controller never requests, because it rejects the selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedMetric {
    pub name: String,
    pub reason: RejectedSelector,
}

impl RejectedMetric {
    /// The name is kept as it is shown, so that it is short.
    #[must_use]
    pub fn new(name: &str, reason: RejectedSelector) -> Self {
        Self {
            name: Printable::name(name).to_string(),
            reason,
        }
    }
}

/// The object that an HPA scales: anything with a `/scale` subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleTarget {
    /// API group and version, such as `apps/v1`.
    pub api_version: Arc<str>,
    /// Such as `Deployment`.
    pub kind: Arc<str>,
    /// Name, in the HPA's namespace.
    pub name: Arc<str>,
}

impl ScaleTarget {
    /// Checks that every part may stand in a URL. The API server accepts any path segment in an HPA's
    /// `scaleTargetRef`, so that `billing?dryRun=All&x=` would change the request that names it.
    ///
    /// # Errors
    /// The first part that is wrong, and why.
    pub fn check(&self) -> Result<(), String> {
        let (group, version) = names::split_api_version(&self.api_version);
        let alphanumeric = |text: &str| match text {
            "" => Err("it is empty"),
            // As of labels, which the versions and kinds of Kubernetes are.
            _ if text.len() > 63 => Err("it is too long"),
            _ if text.chars().all(|c| c.is_ascii_alphanumeric()) => Ok(()),
            _ => Err("only letters and digits are allowed in it"),
        };
        let wrong = |part: &str, value: &str, why: &str| {
            let shown = value.chars().take(MAX_NAME_CHARS).collect::<String>();
            format!("scaleTargetRef.{part} {shown:?} is not valid: {why}")
        };
        if !group.is_empty() {
            names::object(group).map_err(|why| wrong("apiVersion", &self.api_version, &why))?;
        }
        alphanumeric(version).map_err(|why| wrong("apiVersion", &self.api_version, why))?;
        alphanumeric(&self.kind).map_err(|why| wrong("kind", &self.kind, why))?;
        names::object(&self.name).map_err(|why| wrong("name", &self.name, &why))?;
        Ok(())
    }
}

/// How many replicas a scale target has, in the categories that matter for a group that was never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunningReplicas {
    #[default]
    None,
    One,
    Several,
    /// The HPA controller has not synced yet.
    Unknown,
}

impl RunningReplicas {
    /// Classifies the number of current replicas; `None` = unknown.
    #[must_use]
    pub fn new(current: Option<u32>) -> Self {
        match current {
            None => Self::Unknown,
            Some(0) => Self::None,
            Some(1) => Self::One,
            Some(2..) => Self::Several,
        }
    }
}

/// The parts of an HPA that lagwise uses.
///
/// Only what its user writes, and of the status what seldom changes: most of it, and the resource version, change at
/// every sync of the HPA controller, and code that needs them reads the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaFacts {
    /// Also the namespace of its metric requests.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Distinguishes it from earlier and later objects of the same name.
    pub uid: Arc<str>,
    pub scale_target: ScaleTarget,
    /// The controller that owns it, as `Kind/name`. It would undo the writes of anyone else.
    pub controller: Option<Arc<str>>,
    /// `spec.minReplicas`; `None` means 1.
    pub min_replicas: Option<u32>,
    /// Its External metrics in order, including those that lagwise does not serve.
    pub metrics: Vec<ExternalMetric>,
    /// Its External metrics with a selector that the HPA controller rejects; the first few.
    pub rejected_metrics: Vec<RejectedMetric>,
    /// Its annotations that begin with [`annotations::PREFIX`](crate::model::settings::annotation_keys::PREFIX).
    pub annotations: BTreeMap<String, String>,
    /// `spec.maxReplicas`.
    pub max_replicas: u32,
    /// `behavior.scaleUp.tolerance`; `None` means the controller's default.
    pub tolerance_up: Option<Milli>,
    /// `behavior.scaleDown.tolerance`; `None` means the controller's default.
    pub tolerance_down: Option<Milli>,
    /// `behavior.scaleUp.stabilizationWindowSeconds`; `None` means 0.
    pub window_up: Option<u32>,
    /// `behavior.scaleDown.stabilizationWindowSeconds`; `None` means the controller's default.
    pub window_down: Option<u32>,
    /// Most replicas to which `behavior.scaleUp` lets the HPA controller raise `minReplicas` at once; `None` if it is
    /// not known.
    pub raise_limit: Option<u32>,
    /// How many replicas its scale target has.
    pub running: RunningReplicas,
    /// Current replicas from its status; `None` if the HPA controller has not synced yet. For display: by the time of a
    /// decision it may have changed.
    pub replicas: Option<u32>,
    /// Its metrics that are not External, in order.
    pub other_metrics: Vec<OtherMetric>,
    /// Whether the HPA controller does nothing for it, because its workload has zero replicas, and not by the HPA's own
    /// decision: condition `ScalingActive` is `False` with reason `ScalingDisabled`.
    pub is_scaling_disabled: bool,
    /// When it was created, in seconds since 1970. Older HPAs come first where a budget is too small for all.
    pub created: Option<i64>,
    /// Why nothing is read for it, if it is too large. The other fields then have only a part of it.
    pub too_large: Option<HpaTooLarge>,
}

/// HPAs by namespace and name. Versions of it share the HPAs that did not change.
pub type HpaMap = PersistentMap<HpaKey, Arc<HpaFacts>>;

impl FromIterator<Arc<HpaFacts>> for HpaMap {
    fn from_iter<I: IntoIterator<Item = Arc<HpaFacts>>>(hpas: I) -> Self {
        hpas.into_iter().map(|hpa| (hpa.key(), hpa)).collect()
    }
}

impl HpaFacts {
    #[must_use]
    pub fn key(&self) -> HpaKey {
        HpaKey::new(Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    /// The tolerance for scaling up, in thousandths.
    #[must_use]
    pub fn tolerance_up(&self) -> u64 {
        self.tolerance_up
            .map_or(DEFAULT_TOLERANCE_THOUSANDTHS, Milli::thousandths)
    }

    /// The tolerance for scaling down, in thousandths.
    #[must_use]
    pub fn tolerance_down(&self) -> u64 {
        self.tolerance_down
            .map_or(DEFAULT_TOLERANCE_THOUSANDTHS, Milli::thousandths)
    }
}

/// The tolerance of an HPA that sets none, in thousandths: the controller's default
/// (`--horizontal-pod-autoscaler-tolerance`).
pub const DEFAULT_TOLERANCE_THOUSANDTHS: u64 = 100;

/// The settings in the HPA's annotations that apply to the whole HPA.
#[must_use]
pub fn settings(hpa: &HpaFacts) -> Settings {
    whole_hpa_settings(&hpa.annotations)
}

/// The cap mode that the HPA's annotations set; `None` if the default applies. Always `advise` for an HPA that a
/// controller owns, because the two would undo each other's writes.
#[must_use]
pub fn annotated_cap_mode(hpa: &HpaFacts) -> Option<CapMode> {
    if hpa.controller.is_some() {
        return Some(CapMode::Advise);
    }
    settings(hpa).cap
}

/// Whether the user has stopped all writes to the HPA and to its scale target.
#[must_use]
pub fn is_paused(hpa: &HpaFacts) -> bool {
    settings(hpa).paused()
}

/// Whether lagwise serves one of its metrics, so that it can have a ceiling.
#[must_use]
pub fn has_lagwise_metric(hpa: &HpaFacts) -> bool {
    let mut metrics = hpa.metrics.iter();
    metrics.any(|metric| Metric::from_name(&metric.name).is_some())
}

/// Whether a metric of lagwise in it has a selector that the HPA controller rejects.
#[must_use]
pub fn has_rejected_lagwise_metric(hpa: &HpaFacts) -> bool {
    let mut rejected = hpa.rejected_metrics.iter();
    rejected.any(|metric| Metric::from_name(&metric.name).is_some())
}

/// Kind, namespace and name of the HPA's scale target, for messages.
#[must_use]
pub fn scale_target_name(hpa: &HpaFacts) -> String {
    let target = &hpa.scale_target;
    format!("{} {}/{}", target.kind, hpa.namespace, target.name)
}

/// The command by which a person starts a workload at zero replicas, as the end of a sentence. Empty if it would not be
/// safe to paste.
#[must_use]
pub fn start_hint(hpa: &HpaFacts) -> String {
    start_command(hpa).map_or_else(String::new, |command| format!("; to start it: `{command}`"))
}

fn start_command(hpa: &HpaFacts) -> Option<String> {
    let target = &hpa.scale_target;
    target.check().ok()?;
    let kind = target.kind.to_lowercase();
    let group = match names::split_api_version(&target.api_version) {
        ("", _) => String::new(),
        (group, _) => format!(".{group}"),
    };
    Some(format!(
        "kubectl scale --namespace {} {kind}{group}/{} --replicas={}",
        hpa.namespace,
        target.name,
        start_replicas(hpa)
    ))
}

/// Whether the workload of an HPA is at zero replicas without lagwise: the HPA controller has disabled the HPA, and the
/// HPA does not say that lagwise has scaled the workload to zero. Everybody who may write the HPA can set this
/// annotation, so only the ledger of scale to zero is reliable.
#[must_use]
pub fn is_switched_off(hpa: &HpaFacts) -> bool {
    hpa.is_scaling_disabled && !has_zeroed_annotation(hpa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_without_a_valid_time_is_ignored() {
        let since = |text: &str| zeroed_since(&[(ZEROED_SINCE.to_owned(), text.to_owned())].into());
        let time = Some("2024-05-06T01:02:03Z".to_owned());
        let long = format!("2024-05-06T01:02:03.{}Z", "0".repeat(1000));
        for text in [
            "2024-05-06T01:02:03Z",
            "2024-05-06T01:02:03Z\u{1b}cZ",
            long.as_str(),
        ] {
            let found = since(text);
            assert!(found.is_none() || found == time, "{text:?}: {found:?}");
        }
        assert_eq!(since("2024-05-06T01:02:03Z"), time);
        assert_eq!(since("yesterday"), None);
        assert_eq!(zeroed_since(&BTreeMap::new()), None);
    }

    #[test]
    fn rejects_scale_targets_that_would_change_a_url() {
        let check = |api_version: &str, kind: &str, name: &str| {
            let target = ScaleTarget {
                api_version: api_version.into(),
                kind: kind.into(),
                name: name.into(),
            };
            target.check()
        };
        for good in [
            ("apps/v1", "Deployment", "billing"),
            ("argoproj.io/v1alpha1", "Rollout", "billing.eu-1"),
            ("v1", "ReplicationController", "b"),
        ] {
            assert_eq!(check(good.0, good.1, good.2), Ok(()), "{good:?}");
        }
        // Its log line is short, however long the name.
        let long = check("apps/v1", "Deployment", &"n".repeat(16_000)).unwrap_err();
        assert!(
            long.len() < 400 && long.contains("16000 characters long"),
            "{long}"
        );
        let kind = "K".repeat(64);
        for (api_version, kind, name, part) in [
            ("apps/v1", &*kind, "billing", "kind"),
            ("apps/v1", "Deployment", "own?dryRun=All&x=", "name"),
            ("apps/v1", "Deployment", "a/b", "name"),
            ("apps/v1", "Deployment", "..", "name"),
            ("apps/v1", "Deployment", "a..b", "name"),
            ("apps/v1", "Deployment", "a%2fb", "name"),
            ("apps/v1", "Deployment", "", "name"),
            ("apps/v1", "Deploy?ment", "a", "kind"),
            ("apps/v1", "", "a", "kind"),
            ("a?b/v1", "Deployment", "a", "apiVersion"),
            ("apps/v1/x", "Deployment", "a", "apiVersion"),
            ("apps/v1?x=", "Deployment", "a", "apiVersion"),
            ("", "Deployment", "a", "apiVersion"),
        ] {
            let error = check(api_version, kind, name).unwrap_err();
            let expected = format!("scaleTargetRef.{part} ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
