use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::fixtures;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};
use crate::model::units::newtypes::Replicas;
use crate::model::units::quantity::Milli;

fn metric(name: &str, selector: &str, per: &str) -> ExternalMetric {
    ExternalMetric {
        name: name.into(),
        selector: Selector::parse(selector).unwrap(),
        target: Milli::parse(per).map(MetricTarget::AverageValue),
    }
}

fn hpa(name: &str, metrics: Vec<ExternalMetric>, annotations: &[(&str, &str)]) -> HpaFacts {
    HpaFacts {
        namespace: "shop".into(),
        name: name.into(),
        max_replicas: 2,
        metrics,
        annotations: annotations
            .iter()
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .collect(),
        ..HpaFacts::default()
    }
}

fn read_statuses(hpas: &[HpaFacts]) -> Vec<HpaStatus> {
    let mut history = ClusterHistory::default();
    let row = |behind| (0, Ok(Some(0)), Ok(behind));
    let zero = Duration::ZERO;
    let broken = (0, Ok(Some(0)), Err(Fault::LeaderUnknown));
    history.apply(
        fixtures::read(zero, "g", "t", &[row(250), row(0)]),
        Scope::Partial,
    );
    history.apply(fixtures::read(zero, "h", "u", &[row(70)]), Scope::Partial);
    let last = fixtures::read(zero, "broken", "v", &[row(70), broken]);
    let read = history.apply(last, Scope::Partial);
    let snapshot = LagSnapshot {
        targets: Arc::new(Targets::merge(&["main".into()], &[], hpas, BTreeSet::new())),
        clusters: [("main".into(), read)].into(),
        ..LagSnapshot::default()
    };
    let policy = ServingPolicy {
        clamp: true,
        cap: CapMode::Advise,
        scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
        writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
    };
    let now = fixtures::at(Duration::from_secs(4));
    let snapshot = snapshot.evaluated(&policy);
    let all = statuses(snapshot.at(&now), snapshot.all_findings());
    // Each HPA alone has the same status.
    for hpa in hpas {
        let key = HpaKey::new(&*hpa.namespace, &*hpa.name);
        let of_all = all.iter().find(|status| *status.hpa == *hpa.name);
        let alone = hpa_status(&key, snapshot.at(&now), snapshot.all_findings());
        assert_eq!(alone.as_ref(), of_all, "{key}");
    }
    all
}

fn one(hpa: HpaFacts) -> HpaStatus {
    let mut all = read_statuses(&[hpa]);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn uncapped_replicas_are_those_of_the_metric_that_the_hpa_follows() {
    let followed = metric(LAG_METRIC, "group=g,topic=t", "125");
    let capped = metric(LAG_METRIC, "group=h,topic=u", "10");
    let status = one(hpa("a", vec![capped.clone()], &[]));
    assert_eq!((status.desired, status.uncapped), (Some(1), Some(7)));
    let status = one(hpa("a", vec![followed, capped], &[]));
    assert_eq!((status.desired, status.uncapped), (Some(2), Some(2)));
}

#[test]
fn status_has_lag_and_desired_replicas() {
    let status = one(hpa(
        "a",
        vec![metric(LAG_METRIC, "group=g,topic=t", "100")],
        &[],
    ));
    let expected = HpaStatus {
        namespace: "shop".into(),
        hpa: "a".into(),
        lag: Some(250),
        // A single reading does not reveal the age of a message.
        lag_millis: status.lag_millis,
        lag_millis_is_lower_bound: status.lag_millis_is_lower_bound,
        produced_per_second: None,
        consumed_per_second: None,
        seconds_to_drain: None,
        slo_seconds: None,
        replicas: None,
        asleep_since: None,
        desired: Some(2),
        uncapped: Some(3),
        ceiling: Some(Limit::Bounded(Replicas(2))),
        max_replicas: Some(2),
        partitions: Some(2),
        stuck_partitions: Some(0),
        cap: CapMode::Advise,
        cap_observed: false,
        paused: false,
        reason: "clamped".into(),
        rule: Some(ValueRule::Clamped),
        age_millis: Some(4000),
        findings: Vec::new(),
        figures: None,
    };
    assert_eq!(status, expected);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<HpaStatus>(&text).unwrap(), status);
}

#[test]
fn status_has_the_replicas_and_since_when_the_workload_is_at_zero() {
    let metrics = || vec![metric(LAG_METRIC, "group=g,topic=t", "100")];
    let since = ("zeroed-since", "2026-01-02T03:04:05Z");
    for (replicas, annotations, expected) in [
        (None, &[since][..], (None, None)),
        (Some(0), &[since], (Some(0), Some(since.1))),
        (Some(0), &[], (Some(0), None)),
        // The mark is left over on a workload that a user has started.
        (Some(2), &[since], (Some(2), None)),
    ] {
        let mut hpa = hpa("a", metrics(), annotations);
        hpa.replicas = replicas;
        let status = one(hpa);
        let found = (status.replicas, status.asleep_since.as_deref());
        assert_eq!(found, expected);
    }
}

#[test]
fn status_says_whether_writes_are_paused() {
    for (annotations, paused) in [
        (&[][..], false),
        (&[("paused", "true")], true),
        (&[("paused", "no")], false),
        (&[("paused.g", "true")], true),
    ] {
        let metrics = vec![metric(LAG_METRIC, "group=g,topic=t", "100")];
        let status = one(hpa("a", metrics, annotations));
        assert_eq!(status.paused, paused, "{annotations:?}");
    }
}

#[test]
fn the_objective_is_the_shortest_that_is_set_or_followed() {
    let lag = || metric(LAG_METRIC, "group=g,topic=t", "100");
    let other = || metric(LAG_METRIC, "group=h,topic=u", "100");
    for (metrics, annotations, slo) in [
        (vec![lag()], &[][..], None),
        (vec![lag()], &[("slo", "90s")], Some(90)),
        (vec![lag(), other()], &[("slo.h", "5m")], Some(300)),
        (
            vec![lag(), other()],
            &[("slo", "2m"), ("slo.h", "5m")],
            Some(120),
        ),
        // The rate policy follows its default unless another is set.
        (vec![lag()], &[("policy", "rate")], Some(60)),
        (
            vec![lag()],
            &[("policy", "rate"), ("slo", "10m")],
            Some(600),
        ),
        (vec![lag()], &[("policy", "recommend")], None),
    ] {
        let status = one(hpa("a", metrics, annotations));
        assert_eq!(status.slo_seconds, slo, "{annotations:?}");
    }
}

#[test]
fn one_of_several_hpas_has_its_own_status() {
    let of = |name: &str, selector: &str| hpa(name, vec![metric(LAG_METRIC, selector, "100")], &[]);
    let all = read_statuses(&[
        of("a", "group=g,topic=t"),
        of("b", "group=h,topic=u"),
        of("broken", "group=broken,topic=v"),
        of("invalid", "topic=t"),
        hpa("other", vec![metric("queue", "queue=t", "1")], &[]),
    ]);
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn merges_metrics_and_counts_shared_lag_once() {
    let of_group = |name: &str, selector: &str| {
        metric(name, selector, if name == LAG_METRIC { "100" } else { "1" })
    };
    for (metrics, lag, desired, ceiling, partitions) in [
        (
            vec![
                (LAG_METRIC, "group=g,topic=t"),
                (LAG_METRIC, "group=h,topic=u"),
            ],
            320,
            2,
            2,
            3,
        ),
        (
            vec![
                (LAG_METRIC, "group=g,topic=t"),
                (DESIRED_METRIC, "group=g,topic=t"),
            ],
            250,
            2,
            2,
            2,
        ),
        (vec![(LAG_METRIC, "group=h,topic=u")], 70, 1, 1, 1),
    ] {
        let metrics = metrics
            .iter()
            .map(|(name, selector)| of_group(name, selector))
            .collect();
        let status = one(hpa("a", metrics, &[("lag-per-replica", "100")]));
        assert_eq!(status.lag, Some(lag));
        assert_eq!(status.desired, Some(desired));
        assert_eq!(status.ceiling, Some(Limit::Bounded(Replicas(ceiling))));
        assert_eq!(status.partitions, Some(partitions));
    }
    let filtered = metric(LAG_METRIC, "group=g,topic=t", "100");
    let status = one(hpa("a", vec![filtered], &[("partitions", "1")]));
    assert_eq!((status.lag, status.partitions), (Some(0), Some(1)));
}

#[test]
fn unknown_lag_is_none_with_a_reason() {
    let known = || metric(LAG_METRIC, "group=g,topic=t", "100");
    let broken = || metric(LAG_METRIC, "group=broken,topic=v", "100");
    for (metrics, reason) in [
        (vec![broken()], "lag of group \"broken\""),
        // The other metric might have wanted more.
        (vec![known(), broken()], "lag of group \"broken\""),
        (
            vec![metric(LAG_METRIC, "group=unread,topic=t", "1")],
            "the first read of group",
        ),
        (
            vec![metric(LAG_METRIC, "topic=t", "1")],
            "HPA shop/a: the selector",
        ),
    ] {
        let status = one(hpa("a", metrics, &[]));
        let known = (
            status.lag,
            status.desired,
            status.ceiling,
            status.partitions,
        );
        assert_eq!(known, (None, None, None, None), "{reason}");
        assert_eq!((status.lag_millis, status.age_millis), (None, None));
        assert!(status.reason.starts_with(reason), "{}", status.reason);
    }
}

#[test]
fn hpas_without_a_metric_of_lagwise_have_no_status() {
    for (name, annotations) in [
        ("kafka_consumergroup_lag", &[][..]),
        ("queue_length", &[("cap", "enforce")]),
        ("queue_length", &[]),
    ] {
        let other = vec![metric(name, "queue=orders", "100")];
        assert_eq!(read_statuses(&[hpa("a", other, annotations)]), [], "{name}");
    }
}

#[test]
fn cap_is_observed_only_while_max_replicas_is_at_the_ceiling() {
    let with = |max_replicas, mode| {
        let metrics = vec![metric(LAG_METRIC, "group=g,topic=t", "100")];
        let status = one(HpaFacts {
            max_replicas,
            ..hpa("a", metrics, &[("cap", mode)])
        });
        (status.cap, status.cap_observed)
    };
    assert_eq!(with(2, "enforce"), (CapMode::Enforce, true));
    assert_eq!(with(3, "enforce"), (CapMode::Enforce, false));
    assert_eq!(with(2, "advise"), (CapMode::Advise, false));
}

/// Statuses of HPAs on the group `g`, which reads the topics `mail` and `orders` twice, ten seconds apart, as of a
/// moment some seconds later.
fn statuses_with_rates(hpas: &[HpaFacts], later: u64) -> Vec<HpaStatus> {
    let sweep = |seconds, orders: [(i64, i64); 2], mail: (i64, i64)| {
        let after = Duration::from_secs(seconds);
        let row = |(committed, end)| (0, Ok(Some(committed)), Ok(end));
        let mut both = fixtures::read(after, "g", "orders", &orders.map(row));
        let mut other = fixtures::read(after, "g", "mail", &[row(mail)]);
        both.topics.append(&mut other.topics);
        both.groups[0].plan.discover = true;
        let all = both.groups[0].committed.as_mut().unwrap();
        for (topic, column) in other.groups.remove(0).committed.unwrap() {
            all.insert(topic, column);
        }
        both
    };
    let sweeps = [
        sweep(0, [(0, 500), (0, 0)], (0, 0)),
        sweep(10, [(60, 520), (0, 0)], (30, 130)),
    ];
    let snapshot = fixtures::evaluated(hpas, sweeps, Scope::Whole);
    let now = fixtures::at(Duration::from_secs(10 + later));
    statuses(snapshot.at(&now), std::iter::empty())
}

fn rates_of(status: &HpaStatus) -> (Option<f64>, Option<f64>, Option<u64>) {
    (
        status.produced_per_second,
        status.consumed_per_second,
        status.seconds_to_drain,
    )
}

#[test]
fn rates_are_those_of_the_topics_of_the_hpa() {
    let orders = || metric(LAG_METRIC, "group=g,topic=orders", "100");
    let desired = || metric(DESIRED_METRIC, "group=g,topic=orders", "1");
    let mail = || metric(LAG_METRIC, "group=g,topic=mail", "100");
    let all = || metric(LAG_METRIC, "group=g", "100");
    let of_orders = (Some(2.0), Some(6.0), Some(115));
    // 560 messages, and the lag of `mail` grows by 10 a second.
    let of_both = (Some(15.0), Some(9.0), None);
    for (metrics, expected) in [
        (vec![orders()], of_orders),
        (vec![orders(), desired()], of_orders),
        (vec![mail()], (Some(13.0), Some(3.0), None)),
        (vec![orders(), mail()], of_both),
        (vec![all()], of_both),
        (vec![all(), orders()], of_both),
    ] {
        let statuses = statuses_with_rates(&[hpa("a", metrics, &[])], 1);
        assert_eq!(rates_of(&statuses[0]), expected, "{statuses:?}");
    }
    let filtered = hpa("a", vec![orders()], &[("partitions", "1")]);
    let status = &statuses_with_rates(&[filtered], 1)[0];
    assert_eq!(status.lag, Some(0), "{status:?}");
    assert_eq!(rates_of(status), of_orders, "the topic counts whole");
}

#[test]
fn there_are_no_rates_without_a_lag() {
    let orders = hpa(
        "a",
        vec![metric(LAG_METRIC, "group=g,topic=orders", "100")],
        &[],
    );
    let status = &statuses_with_rates(std::slice::from_ref(&orders), 3600)[0];
    assert_eq!((status.lag, rates_of(status)), (None, (None, None, None)));
    let once = &read_statuses(&[hpa(
        "a",
        vec![metric(LAG_METRIC, "group=g,topic=t", "100")],
        &[],
    )])[0];
    assert_eq!((once.lag, rates_of(once)), (Some(250), (None, None, None)));
}
