//! One HPA at this moment: its spec as the HPA controller reads it, what its status says about earlier
//! syncs, and the scale of its target.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
};
use kube::{Api, Client};

use super::api_error::{ApiError, in_time};
use super::external_metric::{external_metric, target_of};
use super::hpa::facts_of;
use super::scale::Scales;
use crate::model::diagnostics::explain::live::{Condition, LiveHpa, LiveMetric};
use crate::model::hpa::controller::outlook::KnownHistory;
use crate::model::hpa::controller::{
    Behavior, HpaSpec, MetricSource, Policy, PolicyKind, ScalingRules, Select,
};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::quantity::Milli;

/// Maximum number of attempts to read the HPA and its scale at one moment.
const MAX_ATTEMPTS: u32 = 5;

/// Reads an HPA and the scale of its target with no sync of the controller in between. `None` if there is
/// no such HPA.
///
/// # Errors
/// The API server's about the HPA. A scale that cannot be read is part of the result.
pub async fn read(
    client: &Client,
    key: &HpaKey,
    timeout: Duration,
) -> Result<Option<LiveHpa>, ApiError> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), &key.namespace);
    let scales = Scales::new(client.clone());
    let Some(mut hpa) = in_time(timeout, api.get_opt(&key.name)).await? else {
        return Ok(None);
    };
    let mut attempts = 1u32;
    loop {
        let facts = facts_of(&hpa);
        let scale = scales
            .read(&key.namespace, &facts.scale_target, timeout)
            .await;
        let Some(after) = in_time(timeout, api.get_opt(&key.name)).await? else {
            return Ok(None);
        };
        let is_same = after.metadata.resource_version == hpa.metadata.resource_version;
        if !is_same && attempts < MAX_ATTEMPTS {
            attempts = attempts.saturating_add(1);
            hpa = after;
            continue;
        }
        return Ok(Some(LiveHpa {
            spec: spec_of(&hpa),
            metrics: metrics_of(&hpa),
            past: past_of(&hpa, SystemTime::now()),
            conditions: conditions_of(&hpa),
            scale: scale
                .map(|scale| (scale.replicas, scale.status_replicas))
                .map_err(|error| error.to_string()),
            facts,
        }));
    }
}

/// Converts an HPA's spec, with the defaults that the API server fills in.
#[must_use]
pub fn spec_of(hpa: &HorizontalPodAutoscaler) -> HpaSpec {
    HpaSpec {
        min: hpa.spec.min_replicas.map_or(1, count),
        max: count(hpa.spec.max_replicas),
        metrics: hpa.spec.metrics.iter().flatten().map(source_of).collect(),
        behavior: hpa.spec.behavior.as_ref().map(behavior_of),
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn source_of(metric: &MetricSpec) -> MetricSource {
    match (&metric.external, &metric.object) {
        // The API server rejects a target without a value, so that none is in the cluster.
        (Some(external), _) => {
            target_of(&external.target).map_or(MetricSource::Object, MetricSource::External)
        }
        (None, Some(_)) => MetricSource::Object,
        (None, None) => MetricSource::Pods,
    }
}

/// The metrics, each with its value in the status, which has the same order.
fn metrics_of(hpa: &HorizontalPodAutoscaler) -> Vec<LiveMetric> {
    let status = hpa.status.as_ref();
    let current = status.and_then(|status| status.current_metrics.as_deref());
    let mut current = current.unwrap_or_default().iter();
    let metrics = hpa.spec.metrics.iter().flatten();
    metrics
        .map(|metric| LiveMetric {
            current: current.next().and_then(current_of),
            ..metric_of(metric)
        })
        .collect()
}

/// A metric's name, and its External metric, if it is one.
fn metric_of(metric: &MetricSpec) -> LiveMetric {
    let named = |name: Option<&String>| name.cloned().unwrap_or_default();
    let external = metric.external.as_ref();
    let name = external
        .map(|m| &m.metric.name)
        .or(metric.object.as_ref().map(|m| &m.metric.name))
        .or(metric.pods.as_ref().map(|m| &m.metric.name))
        .or(metric.resource.as_ref().map(|m| &m.name))
        .or(metric.container_resource.as_ref().map(|m| &m.name));
    LiveMetric {
        name: format!("{} {}", metric.type_, named(name)),
        external: external.and_then(|source| external_metric(source).ok()),
        current: None,
    }
}

fn current_of(status: &MetricStatus) -> Option<String> {
    let current = (status.external.as_ref().map(|m| &m.current))
        .or(status.object.as_ref().map(|m| &m.current))
        .or(status.pods.as_ref().map(|m| &m.current))
        .or(status.resource.as_ref().map(|m| &m.current))
        .or(status.container_resource.as_ref().map(|m| &m.current))?;
    let share = current
        .average_utilization
        .map(|share| format!("{share} %"));
    let each = current.average_value.as_ref();
    let each = each.map(|each| format!("{} per replica", each.0));
    let all = current.value.as_ref().map(|value| value.0.clone());
    share.or(each).or(all)
}

pub(super) fn behavior_of(behavior: &HorizontalPodAutoscalerBehavior) -> Behavior {
    Behavior {
        up: rules_of(behavior.scale_up.as_ref(), ScalingRules::up()),
        down: rules_of(behavior.scale_down.as_ref(), ScalingRules::down()),
    }
}

fn rules_of(rules: Option<&HPAScalingRules>, default: ScalingRules) -> ScalingRules {
    let Some(rules) = rules else {
        return default;
    };
    let policies = rules.policies.as_ref();
    ScalingRules {
        window_seconds: rules
            .stabilization_window_seconds
            .map(count)
            .or(default.window_seconds),
        select: match rules.select_policy.as_deref() {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        },
        policies: policies.map_or(default.policies, |all| all.iter().map(policy_of).collect()),
        tolerance: rules.tolerance.as_ref().and_then(|t| Milli::parse(&t.0)),
    }
}

fn policy_of(policy: &HPAScalingPolicy) -> Policy {
    let change = match policy.type_.as_str() {
        "Percent" => PolicyKind::Percent,
        _ => PolicyKind::Pods,
    };
    Policy {
        change: change(count(policy.value)),
        period_seconds: count(policy.period_seconds),
    }
}

/// Facts about earlier syncs from an HPA's status.
#[must_use]
pub fn past_of(hpa: &HorizontalPodAutoscaler, now: SystemTime) -> KnownHistory {
    let Some(status) = &hpa.status else {
        return KnownHistory::default();
    };
    let since = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let holds = |condition: &str, status: &str, reasons: &[&str]| {
        let mut all = conditions(hpa);
        all.any(|c| {
            let reason = c.reason.as_deref().unwrap_or_default();
            c.type_ == condition && c.status == status && reasons.contains(&reason)
        })
    };
    // These conditions together are only left by a sync that the metrics decided and that changed nothing: its result
    // is that of the stabilisation.
    let is_settled = holds("ScalingLimited", "False", &["DesiredWithinRange"])
        && holds(
            "AbleToScale",
            "True",
            &["ReadyForNewScale", "ScaleDownStabilized"],
        );
    KnownHistory {
        since_scaled: status
            .last_scale_time
            .as_ref()
            .map(|time| since(SystemTime::from(time.0))),
        highest: is_settled.then(|| count(status.desired_replicas)),
    }
}

fn conditions(
    hpa: &HorizontalPodAutoscaler,
) -> impl Iterator<Item = &HorizontalPodAutoscalerCondition> {
    let status = hpa.status.iter();
    status.flat_map(|status| status.conditions.iter().flatten())
}

fn conditions_of(hpa: &HorizontalPodAutoscaler) -> Vec<Condition> {
    conditions(hpa)
        .map(|condition| Condition {
            kind: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
