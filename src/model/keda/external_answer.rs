//! The answer to KEDA about a trigger: from the evaluation that lagwise's own API serves.

use serde::{Deserialize, Serialize};

use super::external_trigger::ExternalTrigger;
use crate::model::evaluation::{EvaluationsAt, MetricValue, ValueRule};
use crate::model::targets::metric_query::MetricQuery;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::units::newtypes::Lag;
use crate::model::units::quantity::Milli;

/// The value of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAnswer {
    /// What KEDA's HPA divides by the target.
    pub value: Milli,
    /// Whether the workload must not be at zero replicas.
    pub is_active: bool,
}

/// Why a trigger has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The poller has not added the trigger: it was not requested before, or has changed since.
    #[error(
        "lagwise has not read the group of this trigger yet. If this persists: the triggers of a ScaledObject for the same \
         group need the same settings in their metadata"
    )]
    NotYetAdded,
    /// An HPA that the ScaledObject does not own has the name of the HPA that KEDA maintains.
    #[error(
        "HPA {hpa} exists and ScaledObject {scaled_object:?} does not own it; delete or rename one of them"
    )]
    OtherHpa { hpa: String, scaled_object: String },
    #[error(transparent)]
    NoValue(#[from] NoValueReason),
}

impl ExternalTrigger {
    /// The value of this trigger.
    ///
    /// # Errors
    /// Why there is none; never a zero instead.
    pub fn answer(&self, evaluations: EvaluationsAt<'_>) -> Result<ExternalAnswer, NoAnswer> {
        let targets = evaluations.targets();
        let facts = targets.facts().get(&self.hpa);
        let controller = self.controller();
        if facts.is_some_and(|facts| facts.controller.as_deref() != Some(&*controller)) {
            return Err(NoAnswer::OtherHpa {
                hpa: self.hpa.to_string(),
                scaled_object: self.scaled_object.clone(),
            });
        }
        let selector = &self.external.selector;
        let namespace = &self.hpa.namespace;
        if let Some(reason) = targets.denial_reason(namespace, self.metric, selector) {
            return Err(NoValueReason::Denied(reason.clone()).into());
        }
        if !facts.is_some_and(|facts| self.is_in(facts)) {
            return Err(match targets.hpas_unlisted {
                true => NoValueReason::HpasUnlisted.into(),
                false => NoAnswer::NotYetAdded,
            });
        }
        let value = evaluations.answer(&MetricQuery {
            namespace,
            metric: self.metric.name(),
            selector,
        })?;
        Ok(ExternalAnswer {
            value: value.value,
            is_active: self.is_active(&value),
        })
    }

    /// Whether there is work. A group that never ran has to run before its lag is known, and a fallback is served where
    /// the lag is unknown.
    fn is_active(&self, value: &MetricValue) -> bool {
        match (value.rule, value.lag) {
            (ValueRule::NeverRan | ValueRule::Fallback, _) | (_, None) => true,
            (_, Some(Lag(lag))) => Lag(lag) > self.activation,
        }
    }
}

#[cfg(test)]
mod tests;
