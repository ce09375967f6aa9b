//! Findings about HPAs from their own fields, and from comparing these with their ceilings.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::findings::{Finding, FindingCode, suggestion};
use crate::model::hpa::controller::DEFAULT_DOWNSCALE_STABILISATION;
use crate::model::hpa::facts::{
    self, HpaFacts, OtherMetric, ScaleTarget, has_lagwise_metric, is_paused, is_switched_off,
    other_external_metric, scale_target_name, scales_to_zero_natively, start_hint,
};
use crate::model::settings::annotations::annotations_of;
use crate::model::settings::cap_mode::CapMode;
use crate::model::settings::replica_hold::ReplicaHold;
use crate::model::settings::scaling_policy::ScalingPolicy;
use crate::model::targets::Target;
use crate::model::units::counted::counted;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::metric::{DESIRED_METRIC, Metric};
use crate::model::units::names::split_api_version;
use crate::model::units::newtypes::Replicas;
use crate::model::units::spelling::did_you_mean;
use crate::model::units::untrusted_text::Printable;

/// Finds mistakes in HPAs with a metric of lagwise that can be seen without Kafka.
pub fn find_in_hpas<H: Borrow<HpaFacts>>(hpas: &[H]) -> impl Iterator<Item = Finding> {
    let own = hpas.iter().map(Borrow::borrow).flat_map(find_in_hpa);
    own.chain(find_shared_scale_targets(hpas))
}

/// Finds mistakes in one HPA, unless it has no metric of lagwise.
#[must_use]
pub fn find_in_hpa(hpa: &HpaFacts) -> Vec<Finding> {
    if !has_lagwise_metric(hpa) {
        return Vec::new();
    }
    let mut found = find_stabilization(hpa);
    found.extend(find_ignored_writes(hpa));
    found.extend(find_invalid_scale_target(hpa));
    found.extend(find_switched_off(hpa));
    found
}

/// Finds stabilization windows that delay a change that a metric of lagwise proposes. The controller's default
/// of 300 s for scaling down is not a finding: every HPA has it, and it smooths `kafka_lag`.
fn find_stabilization(hpa: &HpaFacts) -> Vec<Finding> {
    let finding = |message: String| Finding::new(FindingCode::Stabilised, hpa.key(), message);
    let set = |window: Option<u32>| window.filter(|seconds| *seconds > 0);
    let mut found = Vec::new();
    found.extend(set(hpa.window_up).map(|seconds| {
        finding(format!(
            "behavior.scaleUp.stabilizationWindowSeconds is {seconds}, so new lag waits that long for more replicas"
        ))
    }));
    let mut metrics = hpa.metrics.iter();
    if metrics.any(|metric| Metric::from_name(&metric.name) == Some(Metric::DesiredReplicas)) {
        found.extend(set(hpa.window_down).map(|seconds| {
            finding(format!(
                "behavior.scaleDown.stabilizationWindowSeconds is {seconds}, so replicas stay that long after {DESIRED_METRIC} has fallen"
            ))
        }));
    }
    let window = hpa
        .window_down
        .map(|seconds| Duration::from_secs(seconds.into()));
    let window = window.unwrap_or(DEFAULT_DOWNSCALE_STABILISATION);
    if let Some(cooldown) = cooldown(hpa).filter(|_| scales_to_zero_natively(hpa))
        && window > cooldown
    {
        let seconds = window.as_secs();
        found.push(finding(format!(
            "its scale-down stabilization window of {seconds} s is longer than lagwise.dev/cooldown, so it scales to zero that much later"
        )));
    }
    found
}

/// Finds a limit on scaling up that splits the steps of the rate policy. `targets` are those of the HPA, and `default`
/// is their policy unless they have their own.
#[must_use]
pub fn find_limited_scale_up(
    hpa: &HpaFacts,
    targets: &[Arc<Target>],
    default: ScalingPolicy,
) -> Option<Finding> {
    let is_rate = targets.iter().any(|target| {
        target.metric == Metric::DesiredReplicas
            && target.settings.policy.unwrap_or(default) == ScalingPolicy::Rate
    });
    let fewest = facts::start_replicas(hpa);
    // An HPA that never scales up is meant not to.
    let is_split = |limit: &u32| *limit < hpa.max_replicas && *limit > fewest;
    let limit = hpa.raise_limit.filter(is_split)?;
    is_rate.then(|| {
        let message = format!(
            "Kubernetes raises it from {} to {limit} in one move at most, so a step of the rate policy to {} takes several moves, each with a rebalance",
            counted(fewest, "replica"),
            hpa.max_replicas
        );
        Finding::new(FindingCode::LimitedScaleUp, hpa.key(), message)
    })
}

/// The cooldown of an HPA that is scaled to zero; `None` for any other.
fn cooldown(hpa: &HpaFacts) -> Option<Duration> {
    let settings = facts::settings(hpa);
    settings.scale_to_zero().then(|| settings.cooldown())
}

/// Finds annotations that lagwise ignores because they need writes and a controller owns the HPA.
fn find_ignored_writes(hpa: &HpaFacts) -> Option<Finding> {
    let controller = hpa.controller.as_ref()?;
    let settings = facts::settings(hpa);
    let enforces = settings.cap == Some(CapMode::Enforce);
    let writes_zero = settings.scale_to_zero() && !scales_to_zero_natively(hpa);
    (enforces || writes_zero).then(|| {
        let message = format!(
            "{controller} owns it, so lagwise ignores the annotation that asks it to write to the HPA"
        );
        Finding::new(FindingCode::ControllerOwned, hpa.key(), message)
    })
}

/// The kinds of Kubernetes itself that can be scaled, by API version.
const SCALABLE_KINDS: [(&str, &[&str]); 2] = [
    ("apps/v1", &["Deployment", "ReplicaSet", "StatefulSet"]),
    ("v1", &["ReplicationController"]),
];

/// Why nothing of the target's kind can be scaled; `None` for groups of other programs, whose kinds are not known.
fn unscalable_kind(target: &ScaleTarget) -> Option<String> {
    let ScaleTarget {
        api_version, kind, ..
    } = target;
    let mut all = SCALABLE_KINDS.iter();
    let (_, kinds) = all.find(|(version, _)| *version == &**api_version)?;
    if kinds.contains(&&**kind) {
        return None;
    }
    let mut all = SCALABLE_KINDS.iter();
    let remedy = match all.find(|(_, kinds)| kinds.contains(&&**kind)) {
        Some((version, _)) => format!(" (did you mean apiVersion: {version}?)"),
        None => suggestion("", did_you_mean(kind, kinds.iter().copied())),
    };
    Some(format!(
        "scaleTargetRef.kind {kind:?} of {api_version} does not exist or cannot be scaled{remedy}"
    ))
}

/// Finds a scale target that lagwise does not read, because its name is not safe in a request, and one that no HPA can
/// scale.
fn find_invalid_scale_target(hpa: &HpaFacts) -> Option<Finding> {
    // Of an HPA that is too large the scale target may be left out.
    let is_known = hpa.scale_target != ScaleTarget::default();
    let target = &hpa.scale_target;
    let wrong = target.check().err().or_else(|| unscalable_kind(target));
    let wrong = wrong.filter(|_| is_known)?;
    Some(Finding::new(
        FindingCode::InvalidScaleTarget,
        hpa.key(),
        Printable::message(&wrong).to_string(),
    ))
}

/// Finds holds whose end is before `now`, on the wall clock.
#[must_use]
pub fn find_ended_holds(hpa: &HpaFacts, now: SystemTime) -> Vec<Finding> {
    if !has_lagwise_metric(hpa) {
        return Vec::new();
    }
    let holds = annotations_of(&hpa.annotations, "hold");
    let ended = holds.filter(|(_, value)| {
        let hold = value.trim().parse::<ReplicaHold>();
        hold.is_ok_and(|hold| !hold.is_active(now))
    });
    ended
        .map(|(key, value)| {
            let message = format!(
                "annotation {key}: {value:?} has no effect any more, because its end has passed"
            );
            Finding::new(FindingCode::HoldEnded, hpa.key(), message)
        })
        .collect()
}

/// Finds a workload that was scaled to zero, but not by lagwise.
fn find_switched_off(hpa: &HpaFacts) -> Option<Finding> {
    is_switched_off(hpa).then(|| {
        Finding::new(
            FindingCode::SwitchedOff,
            hpa.key(),
            describe_switched_off(hpa),
        )
    })
}

/// Message about a workload at zero replicas that lagwise has not scaled to zero.
pub(super) fn describe_switched_off(hpa: &HpaFacts) -> String {
    format!(
        "{} has 0 replicas, and lagwise has not scaled it to zero, so lagwise does not start it; at 0 replicas the HPA does nothing (ScalingDisabled){}",
        scale_target_name(hpa),
        start_hint(hpa)
    )
}

/// Finds HPAs that scale the same workload, at least one of them on a metric of lagwise. Each of them gets a
/// finding.
pub fn find_shared_scale_targets<H: Borrow<HpaFacts>>(hpas: &[H]) -> Vec<Finding> {
    let mut by_target: BTreeMap<(&str, &str, &str, &str), Vec<&HpaFacts>> = BTreeMap::new();
    for hpa in hpas.iter().map(Borrow::borrow) {
        let target = &hpa.scale_target;
        // The API version does not distinguish workloads.
        let (group, _) = split_api_version(&target.api_version);
        let key = (&*hpa.namespace, group, &*target.kind, &*target.name);
        by_target.entry(key).or_default().push(hpa);
    }
    let shared = by_target.into_values().filter(|hpas| hpas.len() > 1);
    let mut found = Vec::new();
    for hpas in shared.filter(|hpas| hpas.iter().any(|hpa| has_lagwise_metric(hpa))) {
        let others = |hpa: &HpaFacts| hpas.iter().copied().find(|h| h.name != hpa.name);
        found.extend(hpas.iter().filter_map(|hpa| {
            let target = scale_target_name(hpa);
            let message = format!("HPA {} also scales {target}", others(hpa)?.key());
            Some(Finding::new(
                FindingCode::SharedScaleTarget,
                hpa.key(),
                message,
            ))
        }));
    }
    found
}

/// Compares the replica bounds of an HPA with its ceiling, which must not depend on the lag. `mode` is the cap mode
/// that applies to it, `even` means that lagwise only uses replica counts that divide the ceiling.
#[must_use]
pub fn find_against_ceiling(
    hpa: &HpaFacts,
    ceiling: Replicas,
    mode: CapMode,
    even: bool,
) -> Vec<Finding> {
    let finding = |code, message: String| Finding::new(code, hpa.key(), message);
    let mut found = Vec::new();
    let max_replicas = hpa.max_replicas;
    let is_capped = mode == CapMode::Enforce && !is_paused(hpa);
    if max_replicas > ceiling.0 && !is_capped {
        found.push(match other_metric(hpa) {
            Some(metric) => finding(
                FindingCode::OthersAbove,
                format!(
                    "its metric {metric}, which lagwise does not serve, may scale it above the replica ceiling {ceiling}, up to maxReplicas {max_replicas}"
                ),
            ),
            None => finding(
                FindingCode::MaxAboveCeiling,
                format!(
                    "maxReplicas {max_replicas} is above the replica ceiling {ceiling}, and the value served never asks for more than the ceiling"
                ),
            ),
        });
    }
    let min_replicas = facts::min_replicas(hpa);
    if min_replicas > ceiling.0.max(1) {
        found.push(finding(
            FindingCode::MinAboveCeiling,
            format!(
                "minReplicas {min_replicas} is above the replica ceiling {ceiling}, so some replicas never have work"
            ),
        ));
    }
    let rest = ceiling.0.checked_rem(max_replicas);
    if !even && max_replicas < ceiling.0 && rest.is_some_and(|rest| rest > 0) {
        found.push(finding(
            FindingCode::UnevenPartitions,
            format!(
                "maxReplicas {max_replicas} does not divide the replica ceiling {ceiling}, so at the maximum some replicas have more work than others"
            ),
        ));
    }
    found
}

/// Finds a tolerance that is not zero, for use if the ceiling is unknown. `on` is the version of Kubernetes that the
/// HPA is for, if it is known: an old one drops the tolerance that a manifest sets.
#[must_use]
pub fn find_tolerance(hpa: &HpaFacts, on: Option<KubernetesVersion>) -> Option<Finding> {
    if !has_lagwise_metric(hpa) {
        return None;
    }
    let finding = |message: String| Finding::new(FindingCode::ToleranceLeft, hpa.key(), message);
    let is_set = hpa.tolerance_up.or(hpa.tolerance_down).is_some();
    if let Some(version) = on.filter(|version| is_set && !version.has_tolerance()) {
        return Some(finding(format!(
            "Kubernetes {version} drops the tolerance in its behavior, so it may stop below the replica ceiling or keep replicas above it"
        )));
    }
    let is_tolerant = hpa.tolerance_up().max(hpa.tolerance_down()) > 0;
    is_tolerant.then(|| {
        finding(
            "its tolerance is not \"0\", so it may stop below the replica ceiling or keep replicas above it"
                .to_owned(),
        )
    })
}

/// A metric that lagwise does not serve, External or of another type.
fn other_metric(hpa: &HpaFacts) -> Option<String> {
    let other = || hpa.other_metrics.first().map(OtherMetric::to_string);
    other_external_metric(hpa).map(str::to_owned).or_else(other)
}

#[cfg(test)]
mod tests;
