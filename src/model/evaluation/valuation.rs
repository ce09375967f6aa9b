//! Valuation: from the measures of groups to the value that is served.

use std::sync::Arc;

use super::group_evaluation::{GroupEvaluation, GroupMeasure};
use super::parallelism::Limit;
use super::sizing::{ClampRule, Sizing, ValueRule, in_milli};
use crate::model::hpa::facts::MetricTarget;
use crate::model::targets::lookup::ResolvedQuery;
use crate::model::units::metric::Metric;
use crate::model::units::quantity::Milli;

/// A value to serve, and the rule that produced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedValue {
    pub value: Milli,
    /// The rule that produced it.
    pub rule: ValueRule,
    /// The replicas wanted, at most the ceiling; `None` without a lag per replica.
    pub desired: Option<u32>,
}

/// Inputs of a value.
pub(super) struct Valuation<'a> {
    pub(super) resolved: &'a ResolvedQuery,
    /// The groups, all of which have a measure.
    pub(super) groups: &'a [Arc<GroupEvaluation>],
    /// The lag over all groups.
    pub(super) lag: Milli,
    /// The ceiling over all groups.
    pub(super) limit: Limit,
    /// How the ceiling bounds the value.
    pub(super) clamp: ClampRule,
    /// Whether lag is clamped; replicas always are.
    pub(super) clamps_lag: bool,
}

/// The measures of these groups.
pub(super) fn measures(groups: &[Arc<GroupEvaluation>]) -> impl Iterator<Item = &GroupMeasure> {
    groups
        .iter()
        .filter_map(|group| group.measure.as_ref().ok())
}

impl Valuation<'_> {
    /// The value to serve, while `cooling` down before zero or not.
    pub(super) fn served(&self, cooling: bool) -> ServedValue {
        let desired = match self.resolved.metric_target {
            Some(wanted @ MetricTarget::AverageValue(per_replica)) => {
                let (worth, rule) = self.sized(wanted, ClampRule::Clamp, cooling);
                let replicas = worth.ceil_div(per_replica).unwrap_or(0);
                Some((u32::try_from(replicas).unwrap_or(u32::MAX), rule))
            }
            _ => None,
        };
        let (value, rule) = match (self.resolved.metric, desired, self.resolved.metric_target) {
            (Metric::DesiredReplicas, Some((replicas, rule)), _) => {
                self.in_replicas(replicas, rule)
            }
            (_, _, Some(wanted)) if self.clamps_lag => self.sized(wanted, self.clamp, cooling),
            (_, _, Some(wanted)) => self.sized(wanted, ClampRule::None, cooling),
            _ => (self.lag, ValueRule::AsMeasured),
        };
        ServedValue {
            value,
            rule,
            desired: desired.map(|(replicas, _)| replicas),
        }
    }

    fn sized(&self, wanted: MetricTarget, clamp: ClampRule, cooling: bool) -> (Milli, ValueRule) {
        match wanted {
            MetricTarget::AverageValue(wanted) | MetricTarget::Value(wanted)
                if measures(self.groups).all(|measure| measure.never_ran) =>
            {
                (wanted, ValueRule::NeverRan)
            }
            MetricTarget::AverageValue(wanted) if cooling => (wanted, ValueRule::Cooldown),
            MetricTarget::AverageValue(wanted) => self.summed(wanted, clamp),
            MetricTarget::Value(_) => (self.lag, ValueRule::AsMeasured),
        }
    }

    /// Each group's lag clamped by its own ceiling, then the sum by the largest ceiling.
    fn summed(&self, per_replica: Milli, clamp: ClampRule) -> (Milli, ValueRule) {
        let sizing = |ceiling, even, bound| Sizing {
            per_replica,
            ceiling,
            even,
            bound,
        };
        let own = match clamp {
            ClampRule::None => ClampRule::None,
            ClampRule::Clamp | ClampRule::Observed { .. } => ClampRule::Clamp,
        };
        let mut sum = Milli::default();
        let mut strictest = ValueRule::AsMeasured;
        for measure in measures(self.groups) {
            let own = sizing(measure.ceiling.replicas, false, own);
            let (value, rule) = own.value(in_milli(measure.lag));
            sum = sum.plus(value);
            strictest = strictest.max(rule);
        }
        let mut settings = self.groups.iter().map(|group| &group.query.settings);
        let even = settings.any(|settings| settings.even());
        match sizing(self.limit, even, clamp).value(sum) {
            // A sum that a group's own ceiling has cut is not raised to an even number of replicas.
            (value, _) if value == sum => (value, strictest),
            sized => sized,
        }
    }

    /// Replicas as the value of a metric that the HPA compares with one. They are capped already; where
    /// the HPA's own maximum holds it, the value carries it over its tolerance as lag does.
    fn in_replicas(&self, replicas: u32, rule: ValueRule) -> (Milli, ValueRule) {
        let value = Milli::from_units(replicas.into());
        let sizing = Sizing {
            per_replica: Milli::ONE,
            ceiling: self.limit,
            even: false,
            bound: self.clamp,
        };
        match sizing.value(value) {
            (lifted, ValueRule::Lifted) => (lifted, ValueRule::Lifted),
            _ => (value, rule),
        }
    }
}
