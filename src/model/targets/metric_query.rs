//! One external metric, as a request asks for it.

use crate::model::hpa::selector::Selector;

/// What is asked: one external metric, as an HPA of `namespace` asks for it.
#[derive(Clone, Copy, Debug)]
pub struct MetricQuery<'a> {
    /// The namespace of the request.
    pub namespace: &'a str,
    /// The metric's name.
    pub metric: &'a str,
    /// The label selector.
    pub selector: &'a Selector,
}
