//! Bounds the memory that the HPAs of a namespace take together, because a user who may write HPAs there chooses their
//! number and size.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bounded_facts::reduce_to_essentials;
use super::facts::{ExternalMetric, HpaFacts};
use super::limits::{HpaTooLarge, MAX_NAMESPACE_BYTES, MAX_SMALL_BYTES};

/// Memory of a text besides its characters: the value that owns it, and what its allocation takes more.
const TEXT_OVERHEAD_BYTES: usize = 48;

/// Memory of the large HPAs of each namespace. Small ones are not counted, because the number of HPAs is bounded.
#[derive(Debug, Default)]
pub struct FactsBudget {
    namespaces: BTreeMap<Arc<str>, usize>,
}

impl FactsBudget {
    /// Adds an HPA. Returns what is kept of it: its essentials, if it is large and its namespace has no room for it. An
    /// admitted HPA stays admitted until it changes.
    pub fn admit(&mut self, facts: Arc<HpaFacts>) -> Arc<HpaFacts> {
        let bytes = large_bytes(&facts);
        if bytes == 0 {
            return facts;
        }
        let used = self.namespaces.get(&facts.namespace).copied();
        let used = used.unwrap_or_default().saturating_add(bytes);
        if used > MAX_NAMESPACE_BYTES {
            return Arc::new(shrink(HpaFacts::clone(&facts)));
        }
        self.namespaces.insert(Arc::clone(&facts.namespace), used);
        facts
    }

    /// Releases the memory of an HPA.
    pub fn release(&mut self, kept: &HpaFacts) {
        let bytes = large_bytes(kept);
        if let Some(used) = self.namespaces.get_mut(&kept.namespace) {
            *used = used.saturating_sub(bytes);
            if *used == 0 {
                self.namespaces.remove(&kept.namespace);
            }
        }
    }
}

/// The HPAs as they are kept.
impl<'a> FromIterator<&'a HpaFacts> for FactsBudget {
    fn from_iter<I: IntoIterator<Item = &'a HpaFacts>>(kept: I) -> Self {
        let mut budget = Self::default();
        for facts in kept {
            let used = budget.namespaces.entry(Arc::clone(&facts.namespace));
            let used = used.or_default();
            *used = used.saturating_add(large_bytes(facts));
        }
        budget.namespaces.retain(|_, used| *used > 0);
        budget
    }
}

/// Reduces an HPA for which its namespace has no room: of its metrics, those that fit in a small HPA stay.
fn shrink(facts: HpaFacts) -> HpaFacts {
    let mut facts = reduce_to_essentials(facts, HpaTooLarge::Namespace);
    let mut bytes = 0usize;
    facts.metrics.retain(|metric| {
        bytes = bytes.saturating_add(metric_bytes(metric));
        bytes <= MAX_SMALL_BYTES / 4
    });
    facts.metrics.shrink_to_fit();
    facts.rejected_metrics = Vec::new();
    facts
}

fn text(text: &str) -> usize {
    text.len().saturating_add(TEXT_OVERHEAD_BYTES)
}

fn metric_bytes(metric: &ExternalMetric) -> usize {
    let selector = &metric.selector;
    let overhead = selector.text_count().saturating_mul(TEXT_OVERHEAD_BYTES);
    let selector = selector.text_bytes().saturating_add(overhead);
    text(&metric.name).saturating_add(selector)
}

/// Approximate memory of an HPA; 0 of a small one.
fn large_bytes(hpa: &HpaFacts) -> usize {
    match memory_of(hpa) {
        ..=MAX_SMALL_BYTES => 0,
        bytes => bytes,
    }
}

/// Approximate memory of an HPA's texts, in bytes.
#[must_use]
pub fn memory_of(hpa: &HpaFacts) -> usize {
    let annotations = hpa.annotations.iter();
    let annotations = annotations.map(|(key, value)| text(key).saturating_add(text(value)));
    let metrics = hpa.metrics.iter().map(metric_bytes);
    let rejected = hpa.rejected_metrics.iter().map(|rejected| {
        let reason = rejected.reason.text_bytes();
        text(&rejected.name).saturating_add(reason)
    });
    let others = hpa.other_metrics.iter();
    let others = others.map(|other| text(&other.type_name).saturating_add(text(&other.name)));
    let target = &hpa.scale_target;
    let names = [&target.api_version, &target.kind, &target.name];
    let names = names
        .into_iter()
        .chain(&hpa.controller)
        .map(|name| text(name));
    let all = annotations
        .chain(metrics)
        .chain(rejected)
        .chain(others)
        .chain(names);
    all.fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::hpa;
    use crate::model::hpa::bounded_facts::bound;
    use crate::model::hpa::facts::{MetricTarget, RejectedMetric, is_paused};
    use crate::model::hpa::selector::{RejectedSelector, Selector};
    use crate::model::settings::annotation_keys::PREFIX;
    use crate::model::units::quantity::Milli;

    fn small(namespace: &str, name: &str) -> Arc<HpaFacts> {
        let facts = hpa(
            name,
            "group=g,topic=t",
            MetricTarget::AverageValue(Milli::ONE),
        );
        Arc::new(HpaFacts {
            namespace: namespace.into(),
            ..facts
        })
    }

    /// An HPA of the maximum size, with the texts that take the most memory for their length.
    fn large(namespace: &str, name: &str) -> Arc<HpaFacts> {
        let values: Vec<_> = (0..3000).map(|i| format!("{i:x}")).collect();
        let selector = format!("group=g,topic notin ({})", values.join(","));
        let mut facts = HpaFacts::clone(&small(namespace, name));
        facts.metrics[0].selector = Selector::parse(&selector).unwrap();
        Arc::new(bound(facts))
    }

    /// How much of the HPAs is kept in full.
    fn kept(budget: &mut FactsBudget, hpas: impl Iterator<Item = Arc<HpaFacts>>) -> usize {
        let is_whole = |facts: &Arc<HpaFacts>| facts.too_large.is_none();
        hpas.map(|facts| budget.admit(facts))
            .filter(is_whole)
            .count()
    }

    #[test]
    fn large_hpas_of_a_namespace_are_bounded_together_and_small_ones_are_not() {
        let mut budget = FactsBudget::default();
        let many =
            |namespace: &'static str| (0..500).map(move |i| large(namespace, &format!("h{i}")));
        let whole = kept(&mut budget, many("a"));
        let each = large_bytes(&large("a", "h"));
        assert_eq!(whole, MAX_NAMESPACE_BYTES / each);
        assert!((5..50).contains(&whole), "{whole} of {each} bytes each");
        // Another namespace has as much, and small ones are kept anyway.
        assert_eq!(kept(&mut budget, many("b")), whole);
        let small = (0..500).map(|i| small("a", &format!("s{i}")));
        assert_eq!(kept(&mut budget, small), 500);
    }

    #[test]
    fn reduced_facts_of_a_large_hpa_are_small_and_have_the_reason() {
        let mut annotated = HpaFacts::clone(&small("a", "annotated"));
        annotated.annotations = (0..120)
            .map(|i| (format!("{PREFIX}topics.g{i}"), "t".repeat(60)))
            .collect();
        annotated
            .annotations
            .insert(format!("{PREFIX}paused"), "true".to_owned());
        let mut rejected = HpaFacts::clone(&large("a", "rejected"));
        let text = "\u{1b}".repeat(255);
        let reason = RejectedSelector::value(&text, &text);
        rejected.rejected_metrics = vec![RejectedMetric::new(&text, reason); 8];
        let mut foreign = HpaFacts::clone(&large("a", "foreign"));
        foreign.metrics[0].name = "other".to_owned();
        for facts in [
            large("a", "h"),
            Arc::new(annotated),
            Arc::new(rejected),
            Arc::new(foreign),
        ] {
            let mut full = FactsBudget::default();
            full.namespaces.insert("a".into(), MAX_NAMESPACE_BYTES);
            assert!(large_bytes(&facts) > 0);
            let kept = full.admit(Arc::clone(&facts));
            assert_eq!(large_bytes(&kept), 0, "{}", facts.name);
            // No finding for an HPA that uses no metric of lagwise.
            let expected = (&*facts.name != "foreign").then_some(HpaTooLarge::Namespace);
            assert_eq!(kept.too_large, expected);
            assert_eq!(is_paused(&kept), is_paused(&facts));
            // It has taken nothing, so it gives nothing back.
            full.release(&kept);
            assert_eq!(full.namespaces.get("a"), Some(&MAX_NAMESPACE_BYTES));
        }
    }

    #[test]
    fn a_removed_hpa_frees_budget_for_the_next() {
        let mut budget = FactsBudget::default();
        let hpas: Vec<_> = (0..500)
            .map(|i| budget.admit(large("a", &format!("h{i}"))))
            .collect();
        let again: FactsBudget = hpas.iter().map(|facts| &**facts).collect();
        assert_eq!(again.namespaces, budget.namespaces);
        let next = large("a", "next");
        assert!(budget.admit(Arc::clone(&next)).too_large.is_some());
        budget.release(&hpas[0]);
        assert!(budget.admit(next).too_large.is_none());
        for facts in &hpas[1..] {
            budget.release(facts);
        }
        budget.release(&large("a", "next"));
        assert!(budget.namespaces.is_empty());
    }
}
