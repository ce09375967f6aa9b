//! Query of one external metric.

use crate::model::hpa::selector::Selector;
use crate::model::units::metric::Metric;

/// Query of one external metric by an HPA of `namespace`.
#[derive(Clone, Copy, Debug)]
pub struct MetricQuery<'a> {
    pub namespace: &'a str,
    /// The metric's name; maybe of none that lagwise serves.
    pub metric: &'a str,
    pub selector: &'a Selector,
}

/// A query that is not of an HPA, kept so that it is evaluated before its next request.
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
