//! One external metric, as a request asks for it.

use crate::model::hpa::selector::Selector;
use crate::model::units::metric::Metric;

/// One external metric, as an HPA of `namespace` asks for it.
#[derive(Clone, Copy, Debug)]
pub struct MetricQuery<'a> {
    pub namespace: &'a str,
    /// The metric's name; maybe of none that lagwise serves.
    pub metric: &'a str,
    pub selector: &'a Selector,
}

/// A query that no HPA asks, kept so that its answer is evaluated before it is asked again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdHocQuery {
    namespace: String,
    metric: Metric,
    selector: Selector,
}

impl MetricQuery<'_> {
    /// An owned query, for a metric whose name is known.
    #[must_use]
    pub fn to_ad_hoc(&self, metric: Metric) -> AdHocQuery {
        AdHocQuery {
            namespace: self.namespace.to_owned(),
            metric,
            selector: self.selector.clone(),
        }
    }
}

impl AdHocQuery {
    #[must_use]
    pub fn as_query(&self) -> MetricQuery<'_> {
        MetricQuery {
            namespace: &self.namespace,
            metric: self.metric.name(),
            selector: &self.selector,
        }
    }
}
