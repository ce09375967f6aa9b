//! Targets out of HPAs, the configuration and requests.

use super::*;
use crate::model::findings::{FindingCode, FindingSubject};
use crate::model::fixtures::hpa;
use crate::model::hpa::facts::{HpaFacts, MetricTarget};
use crate::model::units::newtypes::OffsetReset;

const ONE: MetricTarget = MetricTarget::AverageValue(Milli::ONE);

fn clusters(names: &[&str]) -> Vec<ClusterName> {
    names.iter().map(|n| ClusterName::from(*n)).collect()
}

fn merge(names: &[&str], hpas: &[HpaFacts]) -> Targets {
    Targets::merge(&clusters(names), &[], hpas, BTreeSet::new())
}

#[test]
fn each_group_is_planned_once() {
    let hpas = [
        hpa("a", "group=g,topic=t1", ONE),
        hpa("b", "group=g,topic in (t2,t3)", ONE),
        hpa("c", "group=h", ONE),
    ];
    let plan = merge(&["main"], &hpas).plan(&"main".into(), |_| BTreeSet::new());
    let shown: Vec<_> = plan
        .groups
        .iter()
        .map(|g| {
            (
                g.group.as_str(),
                g.topics.iter().map(TopicName::as_str).collect::<Vec<_>>(),
                g.discover,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("g", vec!["t1", "t2", "t3"], false), ("h", vec![], true)]
    );
}

#[test]
fn odd_metrics_are_findings_and_plan_nothing() {
    for (names, selector, (code, message)) in [
        (
            vec!["m"],
            "topic=t",
            (
                FindingCode::NoGroup,
                "the selector of its Kafka metric names no consumer group",
            ),
        ),
        (
            vec!["m"],
            "group=",
            (
                FindingCode::NoGroup,
                "the selector of its Kafka metric names no consumer group",
            ),
        ),
        (
            vec!["m"],
            "group=g,cluster=x",
            (
                FindingCode::UnknownCluster,
                "the Kafka cluster \"x\" is not configured",
            ),
        ),
        (
            vec!["m", "n"],
            "group=g",
            (
                FindingCode::AmbiguousCluster,
                "several Kafka clusters are configured, and its selector names none of them",
            ),
        ),
    ] {
        let targets = merge(&names, &[hpa("a", selector, ONE)]);
        assert_eq!(
            targets.findings.into_iter().collect::<Vec<_>>(),
            [Finding::new(code, HpaKey::new("shop", "a"), message)],
            "{selector}"
        );
        assert!(targets.all.is_empty(), "{selector}");
    }
}

#[test]
fn a_value_target_is_a_finding_and_still_read() {
    let targets = merge(
        &["m"],
        &[hpa("a", "group=g", MetricTarget::Value(Milli::ONE))],
    );
    assert_eq!(targets.all.len(), 1);
    let subject = FindingSubject::Hpa(HpaKey::new("shop", "a"));
    let mut findings = targets.findings.iter();
    assert!(findings.any(|f| f.code == FindingCode::ValueTarget && f.subject == subject));
}

#[test]
fn metrics_of_others_are_none_of_ours() {
    let mut other = hpa("a", "group=g", ONE);
    other.metrics[0].name = "kafka_lag_total".into();
    assert!(merge(&["m"], &[other]).all.is_empty());
}

#[test]
fn a_configured_target_is_found_by_name_where_its_namespaces_allow() {
    let fixed = ConfiguredTarget {
        name: "orders".into(),
        namespaces: vec!["shop".into()],
        cluster: "m".into(),
        group: "Orders Group/1".into(),
        per_replica: None,
        settings: Settings {
            offset_reset: Some(OffsetReset::Earliest),
            ..Settings::default()
        },
    };
    let hpas = [hpa("a", "target=orders", ONE)];
    let targets = Targets::merge(&clusters(&["m"]), &[fixed], &hpas, BTreeSet::new());
    assert_eq!(targets.all.len(), 2);
    let selector = Selector::parse("target=orders").unwrap();
    assert_eq!(targets.configured("shop", &selector).count(), 1);
    assert_eq!(targets.configured("other", &selector).count(), 0);
    assert_eq!(
        targets.plan(&"m".into(), |_| BTreeSet::new()).groups[0].reset,
        OffsetReset::Earliest
    );
}
