//! Bounds the facts that are kept of one HPA.

use std::collections::BTreeMap;

use super::facts::{ExternalMetric, HpaFacts, ScaleTarget, has_lagwise_metric};
use super::limits::{
    HpaTooLarge, MAX_ANNOTATIONS, MAX_METRICS, MAX_REJECTED_METRICS, MAX_TEXT_BYTES,
};
use crate::model::settings::annotation_keys::WRITTEN;
use crate::model::settings::annotations::paused_in;

/// Maximum number of names that a message lists.
const MAX_LISTED_NAMES: usize = 3;

/// Maximum length of a text of an HPA that is too large, in bytes.
const MAX_SHORT_BYTES: usize = 256;

/// Returns the facts of an HPA. Of one that is too large, they are reduced to what is needed to refuse its requests and
/// to undo what lagwise wrote. It keeps no settings, because some settings without the others could mean something
/// else.
#[must_use]
pub fn bound(mut facts: HpaFacts) -> HpaFacts {
    facts.rejected_metrics.truncate(MAX_REJECTED_METRICS);
    // truncate keeps the capacity.
    facts.rejected_metrics.shrink_to_fit();
    let Some(too_large) = find_exceeded_limit(&facts) else {
        return facts;
    };
    reduce_to_essentials(facts, too_large)
}

/// Reduces the facts of an HPA that is too large.
pub(super) fn reduce_to_essentials(mut facts: HpaFacts, too_large: HpaTooLarge) -> HpaFacts {
    // HPAs without a metric of lagwise get no finding.
    facts.too_large = has_lagwise_metric(&facts).then_some(too_large);
    facts.annotations = essential_annotations(&facts.annotations);
    let mut bytes = 0usize;
    facts.metrics.truncate(MAX_METRICS);
    facts.metrics.retain(|metric| {
        bytes = bytes.saturating_add(metric_bytes(metric));
        bytes <= MAX_TEXT_BYTES
    });
    facts.metrics.shrink_to_fit();
    if scale_target_bytes(&facts.scale_target) > MAX_SHORT_BYTES {
        facts.scale_target = ScaleTarget::default();
    }
    let is_short = |text: &str| text.len() <= MAX_SHORT_BYTES;
    facts.controller = facts
        .controller
        .map(|controller| match is_short(&controller) {
            true => controller,
            false => "another controller".into(),
        });
    facts.other_metrics = Vec::new();
    facts
}

fn find_exceeded_limit(hpa: &HpaFacts) -> Option<HpaTooLarge> {
    let count = hpa.annotations.len();
    if count > MAX_ANNOTATIONS {
        let first: Vec<_> = hpa.annotations.keys().take(MAX_LISTED_NAMES).collect();
        let first = first.into_iter().map(String::as_str);
        return Some(HpaTooLarge::Annotations {
            count,
            first: first.collect::<Vec<_>>().join(", "),
        });
    }
    let metrics = hpa.metrics.len();
    if metrics > MAX_METRICS {
        return Some(HpaTooLarge::Metrics(metrics));
    }
    let annotations = hpa.annotations.iter();
    let annotations = annotations.map(|(key, value)| key.len().saturating_add(value.len()));
    let names = hpa.other_metrics.iter();
    let names = names.map(|metric| metric.type_name.len().saturating_add(metric.name.len()));
    let owned = hpa.controller.iter().map(|controller| controller.len());
    let bytes = annotations
        .chain(hpa.metrics.iter().map(metric_bytes))
        .chain(names)
        .chain(owned)
        .chain([scale_target_bytes(&hpa.scale_target)])
        .fold(0usize, usize::saturating_add);
    (bytes > MAX_TEXT_BYTES).then_some(HpaTooLarge::Text(bytes))
}

fn metric_bytes(metric: &ExternalMetric) -> usize {
    metric
        .name
        .len()
        .saturating_add(metric.selector.text_bytes())
}

fn scale_target_bytes(target: &ScaleTarget) -> usize {
    let parts = [&target.api_version, &target.kind, &target.name];
    parts
        .iter()
        .fold(0, |sum, part| part.len().saturating_add(sum))
}

/// The annotations that lagwise wrote, and those that pause its writes.
fn essential_annotations(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let written = WRITTEN
        .iter()
        .filter_map(|(key, _)| all.get_key_value(*key));
    let mut kept: BTreeMap<_, _> = written
        .filter(|(_, value)| value.len() <= MAX_SHORT_BYTES)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    kept.extend(paused_in(all));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::hpa;
    use crate::model::hpa::facts::{MetricTarget, is_paused};
    use crate::model::settings::annotation_keys::{PREFIX, USER_MAX};
    use crate::model::units::quantity::Milli;

    fn annotated(annotations: impl IntoIterator<Item = (String, String)>) -> HpaFacts {
        let facts = hpa("h", "group=g", MetricTarget::AverageValue(Milli::ONE));
        HpaFacts {
            annotations: annotations.into_iter().collect(),
            ..facts
        }
    }

    fn many(count: usize) -> impl Iterator<Item = (String, String)> {
        (0..count).map(|i| {
            (
                format!("{PREFIX}topic-regex.{i:04x}"),
                r"\pL{24}".to_owned(),
            )
        })
    }

    #[test]
    fn keeps_all_facts_of_an_hpa_within_the_limits() {
        for facts in [annotated([]), annotated(many(MAX_ANNOTATIONS))] {
            assert_eq!(bound(facts.clone()), facts);
        }
    }

    #[test]
    fn reduces_an_hpa_that_is_too_large_and_says_why() {
        let mut metrics = annotated([]);
        metrics.metrics = vec![metrics.metrics[0].clone(); 10_000];
        let mut selector = annotated([]);
        let groups: Vec<_> = (0..20_000).map(|i| format!("g{i}")).collect();
        let groups = format!("group in ({})", groups.join(","));
        selector.metrics[0].selector =
            crate::model::hpa::selector::Selector::parse(&groups).unwrap();
        let mut target = annotated([]);
        target.scale_target.name = "n".repeat(1_000_000).into();
        for (facts, expected) in [
            (
                annotated(many(1500)),
                "it has 1500 annotations lagwise.dev/... (lagwise.dev/topic-regex.0000, \
                 lagwise.dev/topic-regex.0001, lagwise.dev/topic-regex.0002, ...): at most 128 per HPA",
            ),
            (
                annotated([(format!("{PREFIX}topics"), "t,".repeat(100_000))]),
                "have 200033 bytes: at most 16384 per HPA",
            ),
            (metrics, "it has 10000 External metrics: at most 64 per HPA"),
            (target, "bytes: at most 16384 per HPA"),
        ] {
            let bounded = bound(facts);
            let why = bounded.too_large.clone().unwrap().to_string();
            assert!(why.ends_with(expected), "{why}");
            assert!(bounded.annotations.is_empty());
            assert_eq!(find_exceeded_limit(&bounded), None);
            assert!(!bounded.metrics.is_empty());
        }
        // Its only metric is too large itself: requests for it are refused by their own size.
        let selector = bound(selector);
        assert_eq!(
            (selector.metrics.len(), find_exceeded_limit(&selector)),
            (0, None)
        );
        assert!(matches!(selector.too_large, Some(HpaTooLarge::Text(_))));
        let mut other = annotated(many(1500));
        other.metrics.clear();
        assert_eq!(bound(other).too_large, None);
    }

    #[test]
    fn keeps_pauses_and_the_annotations_that_lagwise_wrote() {
        let user_max = (USER_MAX.to_owned(), "7".to_owned());
        for (key, paused) in [("paused", true), ("puased", true), ("zzz", false)] {
            let more = [
                (format!("{PREFIX}{key}"), "true".to_owned()),
                user_max.clone(),
            ];
            let bounded = bound(annotated(many(1500).chain(more)));
            assert_eq!(is_paused(&bounded), paused, "{key}");
            assert_eq!(bounded.annotations.get(USER_MAX), Some(&"7".to_owned()));
        }
    }
}
