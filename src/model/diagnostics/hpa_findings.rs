//! What is odd about HPAs by what they say themselves, and against their ceilings.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::findings::{Finding, Window};
use crate::model::hpa::facts::{
    self, HpaFacts, asks_others, is_native, is_ours, is_paused, scales, shown,
};
use crate::model::settings::COOLDOWN;
use crate::model::settings::annotation_keys::{CAP, PREFIX};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::metric::Metric;
use crate::model::units::newtypes::Replicas;

/// How long the HPA follows the most that was wanted where it does not say
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWN_WINDOW_DEFAULT: u32 = 300;

/// What is odd about HPAs with a metric of ours, whatever Kafka says.
pub fn of_hpas<H: Borrow<HpaFacts>>(hpas: &[H]) -> impl Iterator<Item = Finding> {
    let ours = hpas.iter().map(Borrow::borrow).filter(|hpa| is_ours(hpa));
    let own = ours.flat_map(|hpa| of_stabilisation(hpa).into_iter().chain(of_controller(hpa)));
    own.chain(sharing(hpas))
}

/// Windows that hold up what a metric of ours says. The HPA's own default of 300 s downwards is no
/// finding: it is what everybody has, and evens out what `kafka_lag` says.
fn of_stabilisation(hpa: &HpaFacts) -> Vec<Finding> {
    let finding = |window, seconds| Finding::Stabilised {
        hpa: shown(hpa),
        window,
        seconds,
    };
    let set = |window: Option<u32>| window.filter(|seconds| *seconds > 0);
    let mut found = Vec::new();
    found.extend(set(hpa.window_up).map(|seconds| finding(Window::Up, seconds)));
    let mut metrics = hpa.metrics.iter();
    if metrics.any(|metric| Metric::from_name(&metric.name) == Some(Metric::DesiredReplicas)) {
        found.extend(set(hpa.window_down).map(|seconds| finding(Window::Down, seconds)));
    }
    let down = hpa.window_down.unwrap_or(DOWN_WINDOW_DEFAULT);
    if let Some(cooldown) = cooldown(hpa).filter(|_| is_native(hpa))
        && Duration::from_secs(down.into()) > cooldown
    {
        found.push(finding(Window::Cooldown, down));
    }
    found
}

/// The cooldown of an HPA that is to go to zero; `None` where it is not to, or does not say it plainly.
fn cooldown(hpa: &HpaFacts) -> Option<Duration> {
    let value = |key: &str| hpa.annotations.get(&format!("{PREFIX}{key}"));
    value("scale-to-zero").filter(|on| on.trim() == "true")?;
    match value("cooldown") {
        None => Some(COOLDOWN),
        Some(text) => humantime::parse_duration(text.trim()).ok(),
    }
}

/// Writes that are asked for and not made.
fn of_controller(hpa: &HpaFacts) -> Option<Finding> {
    let controller = hpa.controller.as_ref()?;
    let says = |key: &str, value: &str| hpa.annotations.get(key).is_some_and(|v| v.trim() == value);
    let enforces = says(CAP, "enforce");
    let sleeps = says(&format!("{PREFIX}scale-to-zero"), "true") && !is_native(hpa);
    (enforces || sleeps).then(|| Finding::ControllerOwned {
        hpa: shown(hpa),
        controller: controller.to_string(),
    })
}

/// HPAs that scale the same, one of them by a metric of ours. Told of each of them.
fn sharing<H: Borrow<HpaFacts>>(hpas: &[H]) -> Vec<Finding> {
    let mut by_target: BTreeMap<(&str, &str, &str, &str), Vec<&HpaFacts>> = BTreeMap::new();
    for hpa in hpas.iter().map(Borrow::borrow) {
        let target = &hpa.scale_target;
        // The version does not tell one workload from another.
        let group = target.api_version.split_once('/').map_or("", |(g, _)| g);
        let key = (&*hpa.namespace, group, &*target.kind, &*target.name);
        by_target.entry(key).or_default().push(hpa);
    }
    let shared = by_target.into_values().filter(|hpas| hpas.len() > 1);
    let mut found = Vec::new();
    for hpas in shared.filter(|hpas| hpas.iter().any(|hpa| is_ours(hpa))) {
        let others = |hpa: &HpaFacts| hpas.iter().copied().find(|h| h.name != hpa.name);
        found.extend(hpas.iter().filter_map(|hpa| {
            Some(Finding::SharedScaleTarget {
                hpa: shown(hpa),
                other: shown(others(hpa)?),
                scales: scales(hpa),
            })
        }));
    }
    found
}

/// What is odd about an HPA with this ceiling, which has to be one that only a change of the topic or
/// the group moves. `even` = only numbers of replicas that share it evenly are wanted anyway.
#[must_use]
pub fn of_ceiling(hpa: &HpaFacts, ceiling: Replicas, default: CapMode, even: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let max_replicas = hpa.max_replicas;
    let is_held = facts::mode(hpa, default) == CapMode::Enforce && !is_paused(hpa);
    if max_replicas > ceiling.0 && !is_held {
        let hpa_name = shown(hpa);
        found.push(match metric_of_others(hpa) {
            Some(metric) => Finding::OthersAbove {
                hpa: hpa_name,
                metric: metric.to_owned(),
                ceiling,
                max_replicas,
            },
            None => Finding::MaxAboveCeiling {
                hpa: hpa_name,
                ceiling,
                max_replicas,
            },
        });
    }
    let min_replicas = hpa.min_replicas.unwrap_or(1);
    if min_replicas > ceiling.0.max(1) {
        found.push(Finding::MinAboveCeiling {
            hpa: shown(hpa),
            ceiling,
            min_replicas,
        });
    }
    let rest = ceiling.0.checked_rem(max_replicas);
    if !even && max_replicas < ceiling.0 && rest.is_some_and(|rest| rest > 0) {
        found.push(Finding::UnevenPartitions {
            hpa: shown(hpa),
            ceiling,
            max_replicas,
        });
    }
    found
}

/// What is odd about a tolerance where no ceiling is known to hold it against.
#[must_use]
pub fn of_tolerance_alone(hpa: &HpaFacts) -> Option<Finding> {
    let blurs = hpa.tolerance_up().max(hpa.tolerance_down()) > 0;
    (blurs && is_ours(hpa)).then(|| Finding::ToleranceLeft { hpa: shown(hpa) })
}

/// A metric that somebody else serves, External or of another type.
fn metric_of_others(hpa: &HpaFacts) -> Option<&str> {
    let other = || hpa.other_metrics.first().map(|name| &**name);
    asks_others(hpa).or_else(other)
}

#[cfg(test)]
mod tests;
