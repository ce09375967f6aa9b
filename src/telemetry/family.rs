//! Names, types and meanings of metrics, for the exposition and for the documentation.

use std::borrow::Cow;

use prometheus::core::Collector;
use prometheus::proto::MetricType;

pub(crate) const COUNTER: &str = "counter";
pub(crate) const GAUGE: &str = "gauge";
pub(crate) const HISTOGRAM: &str = "histogram";
pub(crate) const UNTYPED: &str = "untyped";

/// A metric family: samples that share a name and differ in their labels.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name, as queries use it.
    pub name: &'static str,
    /// The type, as Prometheus's text format writes it.
    pub kind: &'static str,
    /// Meaning of its samples.
    pub help: &'static str,
    /// The labels of its samples.
    pub labels: Cow<'static, [&'static str]>,
}

impl Family {
    /// Describes the family of a registered collector; `None` if the collector has no metric.
    pub(super) fn describe(collector: &'static dyn Collector) -> Option<Self> {
        let desc = collector.desc().into_iter().next()?;
        let families = collector.collect();
        let kind = match families.first()?.get_field_type() {
            MetricType::COUNTER => COUNTER,
            MetricType::GAUGE => GAUGE,
            MetricType::HISTOGRAM => HISTOGRAM,
            _ => UNTYPED,
        };
        Some(Self {
            name: &desc.fq_name,
            kind,
            help: &desc.help,
            labels: desc.variable_labels.iter().map(String::as_str).collect(),
        })
    }
}
