//! Finds HPAs that seem to be meant for lagwise, but have no metric of lagwise.

use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{
    ExternalMetric, HpaFacts, RejectedMetric, has_rejected_lagwise_metric,
};
use crate::model::hpa::label;
use crate::model::hpa::selector::RejectedSelector;
use crate::model::settings::annotation_keys::WRITTEN;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC, Metric};
use crate::model::units::short_list::short_list;
use crate::model::units::spelling::did_you_mean;
use crate::model::units::untrusted_text::{MAX_NAME_CHARS, Printable};

/// Finds the metrics of lagwise that the HPA controller rejects for their selectors.
pub(super) fn find_rejected(hpa: &HpaFacts) -> impl Iterator<Item = Finding> {
    let rejected = hpa.rejected_metrics.iter();
    let ours = rejected.filter(|rejected| Metric::from_name(&rejected.name).is_some());
    ours.map(move |RejectedMetric { name, reason }| {
        let message = match reason {
            RejectedSelector::Value { key, value } => format!(
                "the selector of {name} has the value \"{value}\" of the label {key}, which is not a valid label value, so the HPA controller rejects it"
            ),
            RejectedSelector::Operator(operator) => format!(
                "the selector of {name} has the operator \"{operator}\", which Kubernetes does not know, so the HPA controller rejects it"
            ),
        };
        Finding::new(FindingCode::InvalidSelector, hpa.key(), message)
    })
}

/// Finds that an HPA without a metric of lagwise seems to have been meant to have one: by its annotations, or by the
/// name or selector of a metric. HPAs that a controller owns are those of other autoscalers, such as KEDA.
pub(super) fn find_unrecognized(hpa: &HpaFacts) -> Option<Finding> {
    let rejected = hpa.rejected_metrics.iter();
    if hpa.controller.is_some() || has_rejected_lagwise_metric(hpa) {
        return None;
    }
    let message = find_other_type(hpa)
        .or_else(|| {
            let names = hpa.metrics.iter().map(|metric| &*metric.name);
            let mut names = names.chain(rejected.map(|rejected| &*rejected.name));
            names.find_map(|name| {
                let meant = meant_metric(name)?;
                let name = Printable::name(name);
                Some(format!("it has the metric {name}, which lagwise does not serve; the metric of lagwise is {meant}"))
            })
        })
        .or_else(|| {
            let like_ours = hpa.metrics.iter().find(|metric| has_our_labels(metric))?;
            let name = Printable::name(&like_ours.name);
            Some(format!("the selector of its metric {name} has the labels of lagwise, which does not serve that metric; the metric of lagwise is {LAG_METRIC}"))
        })
        .or_else(|| find_annotations(hpa))?;
    Some(Finding::new(
        FindingCode::MetricNotServed,
        hpa.key(),
        message,
    ))
}

/// A metric that has the name of one of lagwise, and another type than External.
fn find_other_type(hpa: &HpaFacts) -> Option<String> {
    hpa.other_metrics.iter().find_map(|metric| {
        let name = Metric::from_name(&metric.name)?.name();
        Some(format!(
            "its metric {name} has the type {}, and lagwise serves metrics of type External",
            Printable::name(&metric.type_name)
        ))
    })
}

/// The metric of lagwise that was probably meant by a name: one that is spelled like it, or that speaks of the lag of
/// Kafka, as the names of exporters do.
fn meant_metric(name: &str) -> Option<&'static str> {
    // Longer names are no misspelling, and slow to compare.
    if name.len() > MAX_NAME_CHARS || is_of_keda(name) {
        return None;
    }
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let has = |wanted: &str| words().any(|word| word.eq_ignore_ascii_case(wanted));
    if has("kafka") && has("lag") {
        return Some(LAG_METRIC);
    }
    did_you_mean(name, [LAG_METRIC, DESIRED_METRIC])
}

/// Whether it is a name that KEDA gives: `s0-kafka-orders`.
fn is_of_keda(name: &str) -> bool {
    let number = name.strip_prefix('s').and_then(|rest| rest.split_once('-'));
    number.is_some_and(|(number, _)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether the selector of a metric names a group, and has no labels but those of lagwise.
fn has_our_labels(metric: &ExternalMetric) -> bool {
    let selector = &metric.selector;
    let mut keys = selector.keys();
    selector.values(label::GROUP).is_some() && keys.all(|key| label::ALL.contains(&key))
}

/// Annotations of lagwise that a person has written.
fn find_annotations(hpa: &HpaFacts) -> Option<String> {
    let is_written = |key: &str| WRITTEN.iter().any(|(written, _)| *written == key);
    let keys = hpa.annotations.keys().filter(|key| !is_written(key));
    let keys: Vec<_> = keys.map(|key| Printable::name(key).to_string()).collect();
    let have = match keys.len() {
        0 => return None,
        1 => "annotation",
        _ => "annotations",
    };
    let names = short_list(keys.into_iter());
    Some(format!(
        "it has the {have} {names}, and none of its metrics is one of lagwise: {LAG_METRIC} or {DESIRED_METRIC}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::facts::OtherMetric;
    use crate::model::hpa::selector::Selector;

    /// An HPA with these External metrics (name and selector), annotations and other metrics.
    fn hpa(metrics: &[(&str, &str)], annotations: &[&str], others: &[(&str, &str)]) -> HpaFacts {
        let metric = |(name, selector): &(&str, &str)| ExternalMetric {
            name: (*name).into(),
            selector: Selector::parse(selector).unwrap(),
            target: None,
        };
        let annotations = annotations.iter();
        HpaFacts {
            namespace: "shop".into(),
            name: "billing".into(),
            metrics: metrics.iter().map(metric).collect(),
            annotations: annotations
                .map(|key| ((*key).to_owned(), "true".to_owned()))
                .collect(),
            other_metrics: others
                .iter()
                .map(|(type_name, name)| OtherMetric {
                    type_name: (*type_name).into(),
                    name: (*name).into(),
                })
                .collect(),
            ..HpaFacts::default()
        }
    }

    fn rejected(name: &str, reason: RejectedSelector) -> HpaFacts {
        HpaFacts {
            rejected_metrics: vec![RejectedMetric::new(name, reason)],
            ..hpa(&[], &[], &[])
        }
    }

    /// Message of the finding that the HPA is not recognized.
    fn unrecognized(hpa: &HpaFacts) -> Option<String> {
        find_unrecognized(hpa).map(|finding| finding.message)
    }

    #[test]
    fn finds_metrics_that_are_spelled_like_ours_or_named_by_exporters() {
        for (name, meant) in [
            ("kafka-lag", Some("kafka_lag")),
            ("kafkaLag", Some("kafka_lag")),
            ("kafka_lags", Some("kafka_lag")),
            ("kafka_consumergroup_lag", Some("kafka_lag")),
            ("kafka_consumergroup_lag_sum", Some("kafka_lag")),
            ("kafka_consumergroup_group_topic_sum_lag", Some("kafka_lag")),
            ("kminion_kafka_consumer_group_topic_lag", Some("kafka_lag")),
            ("kafka.consumer_lag", Some("kafka_lag")),
            ("kafka-desired-replicas", Some("kafka_desired_replicas")),
            // KEDA's own metric names, on HPAs without an owner.
            ("s0-kafka-lag", None),
            ("s12-kafka-orders", None),
            ("queue_length", None),
            ("kafka_messages_in_per_second", None),
            ("lagoon_kafka_rate", None),
            ("", None),
        ] {
            let found = unrecognized(&hpa(&[(name, "")], &[], &[]));
            let expected = meant.map(|meant| {
                format!("it has the metric {name}, which lagwise does not serve; the metric of lagwise is {meant}")
            });
            assert_eq!(found, expected, "{name}");
        }
        let long = "kafka_lag_".repeat(100);
        assert_eq!(unrecognized(&hpa(&[(&long, "")], &[], &[])), None);
    }

    #[test]
    fn finds_labels_annotations_and_types() {
        let labels = "has the labels of lagwise";
        for (hpa, words) in [
            (hpa(&[("lag", "group=orders,topic=t")], &[], &[]), labels),
            (hpa(&[("backlog", "group=orders")], &[], &[]), labels),
            (
                hpa(&[], &[], &[("Pods", "kafka_lag")]),
                "its metric kafka_lag has the type Pods",
            ),
            (
                hpa(&[("queue", "group!=x")], &["lagwise.dev/cap"], &[]),
                "it has the annotation lagwise.dev/cap, and none",
            ),
            (
                hpa(
                    &[],
                    &["lagwise.dev/even", "lagwise.dev/zero"],
                    &[("Resource", "cpu")],
                ),
                "it has the annotations lagwise.dev/even, lagwise.dev/zero, and none",
            ),
            (
                rejected("kafka-lag", RejectedSelector::value("group", "a/b")),
                "it has the metric kafka-lag",
            ),
        ] {
            let found = unrecognized(&hpa).unwrap();
            assert!(found.contains(words), "{found}");
        }
    }

    #[test]
    fn ignores_hpas_without_lagwise_metrics() {
        let owned = HpaFacts {
            controller: Some("ScaledObject/orders".into()),
            ..hpa(&[("kafka-lag", "")], &[], &[])
        };
        for hpa in [
            hpa(&[], &[], &[]),
            hpa(&[], &[], &[("Resource", "cpu"), ("Pods", "lag")]),
            hpa(&[("queue", "group=a,queue=b")], &[], &[]),
            hpa(&[("queue", "topic=b")], &[], &[]),
            hpa(&[("s0-kafka-orders", "scaledobject=a")], &[], &[]),
            // What lagwise itself has written.
            hpa(&[], &["lagwise.dev/zeroed-since"], &[("Resource", "cpu")]),
            owned,
            rejected("queue", RejectedSelector::value("group", "a/b")),
            // Found as rejected.
            rejected("kafka_lag", RejectedSelector::value("group", "a/b")),
        ] {
            assert_eq!(unrecognized(&hpa), None, "{hpa:?}");
        }
    }

    #[test]
    fn names_the_selector_that_kubernetes_rejects() {
        let long = "g".repeat(70);
        for (name, reason, expected) in [
            (
                "kafka_lag",
                RejectedSelector::value("group", "team/orders"),
                Some(
                    "the selector of kafka_lag has the value \"team/orders\" of the label group, which is not a valid label value, so the HPA controller rejects it",
                ),
            ),
            (
                "kafka_desired_replicas",
                RejectedSelector::value("topic", "_x"),
                Some(
                    "the selector of kafka_desired_replicas has the value \"_x\" of the label topic, which is not a valid label value, so the HPA controller rejects it",
                ),
            ),
            (
                "kafka_lag",
                RejectedSelector::value("hpa", &long),
                Some(&*format!(
                    "the selector of kafka_lag has the value \"{long}\" of the label hpa, which is not a valid label value, so the HPA controller rejects it"
                )),
            ),
            (
                "kafka_lag",
                RejectedSelector::operator("Like"),
                Some(
                    "the selector of kafka_lag has the operator \"Like\", which Kubernetes does not know, so the HPA controller rejects it",
                ),
            ),
            ("queue", RejectedSelector::value("group", "a/b"), None),
        ] {
            let hpa = rejected(name, reason);
            let found: Vec<_> = find_rejected(&hpa).map(|f| f.message).collect();
            assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn bounds_the_message() {
        let huge = "x".repeat(100_000);
        let reason = RejectedSelector::value("group", &huge);
        let found = find_rejected(&rejected("kafka_lag", reason)).next();
        assert!(found.unwrap().message.len() < 1000);
        let keys: Vec<_> = (0..100)
            .map(|i| format!("lagwise.dev/{i:03}{huge}"))
            .collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let found = unrecognized(&hpa(&[], &keys, &[])).unwrap();
        assert!(
            found.contains("and 97 more") && found.len() < 2000,
            "{found}"
        );
    }
}
