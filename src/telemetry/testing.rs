//! Reads counters in tests.

use super::REGISTRY;

/// The value of a counter whose only label has this value. Tests of the same process share it.
pub(crate) fn counter_value(name: &str, label: &str) -> f64 {
    let families = REGISTRY.gather();
    let mut families = families.iter();
    let family = families.find(|family| family.name() == name);
    let series = family.into_iter().flat_map(|family| family.get_metric());
    let series = series.filter(|series| series.get_label().iter().any(|l| l.value() == label));
    series.map(|series| series.get_counter().get_value()).sum()
}
