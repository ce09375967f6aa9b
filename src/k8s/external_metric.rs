//! Converts the External metrics of HPAs.

use k8s_openapi::api::autoscaling::v2::{ExternalMetricSource, MetricTarget as HpaMetricTarget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::model::hpa::facts::{ExternalMetric, MetricTarget, RejectedMetric};
use crate::model::hpa::selector::{
    Operator, RejectedSelector, Requirement, Selector, is_label_value,
};
use crate::model::units::quantity::Milli;

/// Converts an External metric.
///
/// # Errors
/// The HPA controller rejects its selector.
pub(super) fn external_metric(
    source: &ExternalMetricSource,
) -> Result<ExternalMetric, RejectedMetric> {
    let name = &source.metric.name;
    let selector = source.metric.selector.as_ref().map(selector_of);
    match selector.unwrap_or_else(|| Ok(Selector::default())) {
        Ok(selector) => Ok(ExternalMetric {
            name: name.clone(),
            selector,
            target: target_of(&source.target),
        }),
        Err(reason) => Err(RejectedMetric::new(name, reason)),
    }
}

/// Converts a selector.
///
/// # Errors
/// The HPA controller rejects it: for its operator, or for a value that no label can have.
fn selector_of(selector: &LabelSelector) -> Result<Selector, RejectedSelector> {
    let labels = selector.match_labels.iter().flatten();
    let equal = labels.map(|(key, value)| match is_label_value(value) {
        true => Ok(Requirement::new(key, Operator::In(vec![value.clone()]))),
        false => Err(RejectedSelector::value(key, value)),
    });
    let expressions = selector.match_expressions.iter().flatten();
    equal.chain(expressions.map(requirement_of)).collect()
}

fn requirement_of(requirement: &LabelSelectorRequirement) -> Result<Requirement, RejectedSelector> {
    let values = || requirement.values.clone().unwrap_or_default();
    let mut listed = requirement.values.iter().flatten();
    if let Some(invalid) = listed.find(|value| !is_label_value(value)) {
        return Err(RejectedSelector::value(&requirement.key, invalid));
    }
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(RejectedSelector::operator(other)),
    };
    Ok(Requirement::new(&requirement.key, operator))
}

/// Converts a target as the HPA controller does: an average value takes precedence over a value, whatever
/// `type` says.
pub(super) fn target_of(target: &HpaMetricTarget) -> Option<MetricTarget> {
    let positive = |quantity: &Quantity| Milli::parse(&quantity.0).filter(|m| m.thousandths() > 0);
    match (&target.average_value, &target.value) {
        (Some(average), _) => positive(average).map(MetricTarget::AverageValue),
        (None, Some(value)) => positive(value).map(MetricTarget::Value),
        (None, None) => None,
    }
}
