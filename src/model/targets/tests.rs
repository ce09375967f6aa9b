//! Targets of HPAs, the configuration and requests.

mod budgets;
mod incremental;

use std::time::Duration;

use super::*;
use crate::model::findings::{FindingCode, FindingSubject};
use crate::model::fixtures::hpa;
use crate::model::hpa::facts::{HpaFacts, HpaMap, MetricTarget, RunningReplicas};
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::settings::Settings;
use crate::model::settings::cap_mode::CapMode;
use crate::model::targets::lookup::resolve;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::newtypes::OffsetReset;
use crate::model::units::quantity::Milli;

impl Targets {
    /// Plans what to read of one cluster, where `known_topics` are those that a group's members read.
    pub(crate) fn plan<K: Into<crate::model::kafka::sweep_plan::KnownTopics>>(
        &self,
        cluster: &ClusterName,
        known_topics: impl Fn(&GroupId) -> K,
    ) -> SweepPlan {
        let groups = self.groups.iter().filter(|((of, _), _)| of == cluster);
        let plans = groups.map(|((_, id), group)| group.plan(id, self.thresholds, &known_topics));
        SweepPlan {
            groups: plans.collect(),
            ..SweepPlan::default()
        }
    }
}

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
fn nothing_is_forgotten_while_all_workloads_of_a_group_have_zero_replicas() {
    use RunningReplicas::{None as Zero, One, Several, Unknown};
    for (running, forget_after, is_kept) in [
        (&[Zero][..], "1h", true),
        (&[Zero, Zero], "1h", true),
        (&[Zero, One], "1h", false),
        (&[Several], "1h", false),
        (&[Unknown], "1h", false),
        // Who wants nothing to be remembered gets that.
        (&[Zero], "0s", false),
    ] {
        let hpas = running.iter().zip(["a", "b"]).map(|(running, name)| {
            let annotation = ("lagwise.dev/forget-after".to_owned(), forget_after.into());
            HpaFacts {
                running: *running,
                annotations: [annotation].into(),
                ..hpa(name, "group=g,topic=t", ONE)
            }
        });
        let targets = merge(&["main"], &Vec::from_iter(hpas));
        let plan = targets.plan(&"main".into(), |_| BTreeSet::new());
        let kept = plan.groups[0].thresholds.forget_after == Duration::MAX;
        assert_eq!(kept, is_kept, "{running:?} {forget_after}");
    }
    // Whose replicas a configured target counts for is not known.
    let mut options = TargetOptions::default();
    options.configured.push(ConfiguredTarget {
        name: "t".into(),
        namespaces: Vec::new(),
        cluster: "main".into(),
        group: "g".into(),
        lag_per_replica: None,
        settings: Settings::default(),
    });
    let configured = Targets::new(&clusters(&["main"]), options, None);
    let plan = configured.plan(&"main".into(), |_| BTreeSet::new());
    let forget_after = plan.groups[0].thresholds.forget_after;
    assert_eq!(forget_after, LagThresholds::DEFAULT.forget_after);
}

#[test]
fn a_metric_without_a_known_group_is_a_finding_and_no_target() {
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
                "several Kafka clusters are configured and its selector names none",
            ),
        ),
    ] {
        let targets = merge(&names, &[hpa("a", selector, ONE)]);
        assert_eq!(
            targets.findings().cloned().collect::<Vec<_>>(),
            [Finding::new(code, HpaKey::new("shop", "a"), message)],
            "{selector}"
        );
        assert_eq!(targets.all().count(), 0, "{selector}");
    }
}

#[test]
fn a_value_target_is_a_finding_and_still_read() {
    let targets = merge(
        &["m"],
        &[hpa("a", "group=g", MetricTarget::Value(Milli::ONE))],
    );
    assert_eq!(targets.all().count(), 1);
    let subject = FindingSubject::Hpa(HpaKey::new("shop", "a"));
    let mut findings = targets.findings();
    assert!(findings.any(|f| f.code == FindingCode::ValueTarget && f.subject == subject));
}

#[test]
fn metrics_of_other_servers_are_left_out() {
    let mut other = hpa("a", "group=g", ONE);
    other.metrics[0].name = "kafka_lag_total".into();
    assert_eq!(merge(&["m"], &[other]).all().count(), 0);
}

#[test]
fn a_configured_target_is_found_by_name_where_its_namespaces_allow() {
    let configured = ConfiguredTarget {
        name: "orders".into(),
        namespaces: vec!["shop".into()],
        cluster: "m".into(),
        group: "Orders Group/1".into(),
        lag_per_replica: None,
        settings: Settings {
            offset_reset: Some(OffsetReset::Earliest),
            ..Settings::default()
        },
    };
    let hpas = [hpa("a", "target=orders", ONE)];
    let targets = Targets::merge(&clusters(&["m"]), &[configured], &hpas, BTreeSet::new());
    assert_eq!(targets.all().count(), 2);
    let selector = Selector::parse("target=orders").unwrap();
    assert_eq!(targets.configured("shop", &selector).count(), 1);
    assert_eq!(targets.configured("other", &selector).count(), 0);
    assert_eq!(
        targets.plan(&"m".into(), |_| BTreeSet::new()).groups[0].reset,
        OffsetReset::Earliest
    );
}

/// The HPAs that may scale to zero, and the number of bounds, of a query that these HPAs send.
fn senders(selector: &str, hpas: &[HpaFacts]) -> (Vec<String>, usize) {
    let selector = Selector::parse(selector).unwrap();
    let query = MetricQuery {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let found = resolve(&query, &merge(&["main"], hpas)).unwrap();
    let names = found.scale_to_zero_hpas.iter();
    let names = names.map(|hpa| hpa.name.to_string()).collect();
    (names, found.caps.len())
}

fn with_scale_to_zero(hpa: HpaFacts) -> HpaFacts {
    let annotation = ("lagwise.dev/scale-to-zero".to_owned(), "true".to_owned());
    HpaFacts {
        annotations: [annotation].into(),
        ..hpa
    }
}

#[test]
fn query_lists_an_hpa_once_for_all_groups_of_a_metric() {
    let selector = "group in (g,h,i),topic=t";
    let one = with_scale_to_zero(hpa("a", selector, ONE));
    assert_eq!(senders(selector, &[one]), (vec!["a".to_owned()], 1));
}

#[test]
fn query_lists_each_hpa_once_for_all_its_metrics() {
    let selector = "group in (g,h),topic=t";
    let mut twice = with_scale_to_zero(hpa("a", selector, ONE));
    twice.metrics.push(twice.metrics[0].clone());
    let other = with_scale_to_zero(hpa("b", selector, ONE));
    let found = senders(selector, &[twice, other]);
    assert_eq!(found, (vec!["a".to_owned(), "b".to_owned()], 2));
}

#[test]
fn a_conflict_of_many_hpas_names_few_of_them() {
    let hpas: Vec<_> = (1..=300)
        .map(|n| {
            let target = Milli::parse(&n.to_string()).unwrap();
            let target = MetricTarget::AverageValue(target);
            hpa(&format!("h{n:03}"), "group=g", target)
        })
        .collect();
    let selector = Selector::parse("group=g").unwrap();
    let query = MetricQuery {
        namespace: "shop",
        metric: LAG_METRIC,
        selector: &selector,
    };
    // Each of the HPAs has a finding with this text.
    let text = resolve(&query, &merge(&["main"], &hpas))
        .unwrap_err()
        .to_string();
    let expected = "HPAs h001, h002, h003 and 297 more of namespace \"shop\"";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn writes_that_are_not_enabled_are_findings_and_have_no_effect() {
    use crate::model::hpa::write_scopes::{WriteScope, WriteScopes};
    let only = |namespaces: &[&str]| WriteScope {
        namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
        ..WriteScope::ALL
    };
    let mut asking = with_scale_to_zero(hpa("a", "group=g", ONE));
    asking
        .annotations
        .insert("lagwise.dev/cap".into(), "enforce".into());
    let silent = hpa("a", "group=g", ONE);
    let mut native = with_scale_to_zero(silent.clone());
    native.min_replicas = Some(0);
    for (hpa, cap, zero, mode, zeroes, findings) in [
        (
            &asking,
            only(&[]),
            only(&["shop"]),
            Some(CapMode::Enforce),
            true,
            0,
        ),
        (
            &asking,
            only(&["pay"]),
            only(&["shop"]),
            Some(CapMode::Advise),
            true,
            1,
        ),
        (
            &asking,
            only(&[]),
            only(&["pay"]),
            Some(CapMode::Enforce),
            false,
            1,
        ),
        (
            &asking,
            only(&["pay"]),
            only(&["pay"]),
            Some(CapMode::Advise),
            false,
            2,
        ),
        // Where the default is to enforce, it is not.
        (
            &silent,
            only(&["pay"]),
            only(&["pay"]),
            Some(CapMode::Advise),
            false,
            0,
        ),
        (&silent, only(&[]), only(&[]), None, false, 0),
        // It goes to zero by itself.
        (
            &native,
            only(&["pay"]),
            only(&["pay"]),
            Some(CapMode::Advise),
            true,
            0,
        ),
    ] {
        let options = TargetOptions {
            writes: WriteScopes { cap, zero },
            ..TargetOptions::default()
        };
        let targets = Targets::new(&["m".into()], options.clone(), None)
            .with_hpas(&[Arc::new(hpa.clone())].into_iter().collect(), None);
        let target = targets.of_hpas().next().unwrap();
        let found = (target.cap.unwrap().mode, target.settings.scale_to_zero());
        assert_eq!(found, (mode, zeroes), "{hpa:?} {options:?}");
        let codes: Vec<_> = targets.findings().map(|finding| finding.code).collect();
        assert_eq!(codes, vec![FindingCode::WritesNotEnabled; findings]);
    }
}
