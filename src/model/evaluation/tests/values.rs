//! The values that are served for combinations of lag and ceiling, and the replicas that the HPA derives from them.

use super::*;
use crate::model::hpa::facts::{MetricTarget, RunningReplicas};
use crate::model::settings::cap_mode::CapMode;
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::units::glob::Glob;
use crate::model::units::metric::DESIRED_METRIC;
use crate::model::units::newtypes::GroupId;

#[test]
fn without_the_clamp_the_measured_lag_is_served() {
    let snapshot = snapshot(
        vec![observation(0, &[("t", &behind(6, 1800))])],
        &[hpa("h", "group=g", average(100))],
    );
    assert_eq!(ask(&snapshot, "group=g").unwrap().rule, ValueRule::Clamped);
    let raw = ask_at(
        0,
        &snapshot,
        "group=g",
        &ServingPolicy {
            clamp: false,
            ..POLICY
        },
    )
    .unwrap();
    assert_eq!(
        (raw.value, raw.rule),
        (Milli::from_units(1800), ValueRule::AsMeasured)
    );
}

#[test]
fn selectors_pick_topics() {
    let read: [(&str, &[_]); 2] = [("a", &[(Some(0), 5)]), ("b", &[(Some(0), 70)])];
    let snapshot = snapshot(vec![observation(0, &read)], &[]);
    for (selector, lag) in [
        ("group=g", 75),
        ("group=g,topic=a", 5),
        ("group=g,topic in (a,b)", 75),
        ("group=g,topic!=b", 5),
        ("group=g,cluster=main", 75),
    ] {
        assert_eq!(
            ask(&snapshot, selector).unwrap().lag,
            Some(Lag(lag)),
            "{selector}"
        );
    }
}

#[test]
fn the_value_passes_the_clamp_only_while_the_maximum_is_seen_to_hold() {
    let served = |mode: Option<&str>, max_replicas, default, lag| {
        let mut capped = hpa("h", "group=g", average(1000));
        capped.max_replicas = max_replicas;
        let mode = mode.map(|mode| ("lagwise.dev/cap".to_owned(), mode.to_owned()));
        capped.annotations = mode.into_iter().collect();
        let read = observation(0, &[("t", &behind(24, lag))]);
        let policy = ServingPolicy {
            cap: default,
            ..POLICY
        };
        let answer = ask_at(0, &snapshot(vec![read], &[capped]), "group=g", &policy).unwrap();
        (answer.value, answer.rule)
    };
    let clamped = (Milli::from_units(24_000), ValueRule::Clamped);
    let (enforce, advise) = (CapMode::Enforce, CapMode::Advise);
    for (mode, max, default) in [
        (None, 24, advise),
        (Some("advise"), 24, enforce),
        // Not yet, or no longer.
        (Some("enforce"), 25, advise),
        (None, 30, enforce),
    ] {
        assert_eq!(
            served(mode, max, default, 55_000),
            clamped,
            "{mode:?} {max}"
        );
    }
    for (mode, max, default) in [(Some("enforce"), 24, advise), (None, 20, enforce)] {
        let (value, rule) = served(mode, max, default, 55_000);
        assert_eq!(rule, ValueRule::Lifted);
        for now in 1..24 {
            let proposed = hpa_proposes(value, Milli::from_units(1000), now, 0.1);
            assert!(proposed >= 24, "{proposed} from {now}");
        }
        let less = (Milli::from_units(23_000), ValueRule::AsMeasured);
        assert_eq!(served(mode, max, default, 23_000), less);
    }
}

#[test]
fn an_hpa_that_may_go_to_zero_is_served_one_replica_until_the_cooldown_ends() {
    let mut sleeper = hpa("h", "group=g", average(100));
    for (key, value) in [("scale-to-zero", "true"), ("cooldown", "2m")] {
        let key = format!("lagwise.dev/{key}");
        sleeper.annotations.insert(key, value.to_owned());
    }
    let none = observation(0, &[("t", &[(Some(5), 5)])]);
    let mut idle = snapshot(vec![none], &[sleeper]);
    let mut expect = |since: Option<u64>, now, expected, rule| {
        let hpa = || HpaKey::new("shop", "h");
        idle.idle = Arc::new(since.map(|since| (hpa(), at(since))).into_iter().collect());
        let policy = ServingPolicy {
            max_staleness: Duration::from_secs(3600),
            ..POLICY
        };
        let answer = ask_at(now, &idle, "group=g", &policy).unwrap();
        let expected = (Milli::from_units(expected), rule);
        assert_eq!((answer.value, answer.rule), expected, "{since:?} {now}");
    };
    // Until the poller has said since when, nothing is known of that.
    expect(None, 900, 100, ValueRule::Cooldown);
    expect(Some(0), 119, 100, ValueRule::Cooldown);
    expect(Some(0), 120, 0, ValueRule::AsMeasured);
}

#[test]
fn a_group_that_never_ran_is_served_the_lag_of_one_replica() {
    let never: &[_] = &[(None, 500), (None, 0)];
    let snapshot = snapshot(
        vec![observation(0, &[("t", never)])],
        &[hpa("h", "group=g,topic=t", average(100))],
    );
    let answer = ask(&snapshot, "group=g,topic=t").unwrap();
    assert_eq!(
        (answer.value, answer.rule, answer.lag),
        (Milli::from_units(100), ValueRule::NeverRan, Some(Lag(0)))
    );
    // Without a lag per replica, the lag is served unchanged.
    assert_eq!(
        ask(&snapshot, "group=g").unwrap_err(),
        NoValueReason::NothingCommitted {
            group: "g".into(),
            cluster: "main".into()
        }
    );
}

fn running(hpa: HpaFacts, running: RunningReplicas) -> HpaFacts {
    HpaFacts { running, ..hpa }
}

#[test]
fn several_replicas_of_a_group_that_never_ran_are_kept() {
    let never: &[_] = &[(None, 500), (None, 0)];
    let facts = |metric: &str, replicas| {
        let mut facts = hpa("h", "group=g,topic=t", average(100));
        facts.metrics[0].name = metric.into();
        facts.annotations = [("lagwise.dev/lag-per-replica".to_owned(), "100".to_owned())].into();
        running(facts, replicas)
    };
    let known =
        |topic: &[_], hpa: HpaFacts| snapshot(vec![observation(0, &[("t", topic)])], &[hpa]);
    let served = known(never, facts(LAG_METRIC, RunningReplicas::One));
    let answer = ask(&served, "group=g,topic=t").unwrap();
    assert_eq!(answer.rule, ValueRule::NeverRan);
    for (metric, running) in [
        (LAG_METRIC, RunningReplicas::Several),
        (DESIRED_METRIC, RunningReplicas::Several),
        (LAG_METRIC, RunningReplicas::Unknown),
    ] {
        let held = known(never, facts(metric, running));
        let selector = Selector::parse("group=g,topic=t").unwrap();
        let query = MetricQuery {
            namespace: "shop",
            metric,
            selector: &selector,
        };
        let evaluated = held.evaluated(&POLICY);
        let refusal = evaluated.at(&at(0)).answer(&query).unwrap_err();
        assert!(
            matches!(refusal, NoValueReason::NeverRan { .. }),
            "{metric}, {running:?}: {refusal}"
        );
    }
    // A group that has run may have no lag.
    let ran = known(
        &[(Some(500), 500)],
        facts(LAG_METRIC, RunningReplicas::Several),
    );
    assert_eq!(ask(&ran, "group=g,topic=t").unwrap().lag, Some(Lag(0)));
}

#[test]
fn of_several_groups_one_that_never_ran_does_not_hold_back_the_others() {
    let mut both = observation(0, &[("t", &[(Some(0), 250)])]);
    let mut other = observation(0, &[("t", &[(None, 250)])]).groups.remove(0);
    other.plan.group = "h".into();
    both.groups.push(other);
    let facts = hpa("hpa", "group in (g,h),topic=t", average(100));
    let known = snapshot(vec![both], &[running(facts, RunningReplicas::Several)]);
    let answer = ask(&known, "group in (g,h),topic=t").unwrap();
    assert_eq!(answer.lag, Some(Lag(250)));
}

#[test]
fn the_suggestion_for_an_unseen_group_is_one_that_the_namespace_may_use() {
    let grant = |groups: &str| Grant {
        groups: vec![Glob::new(groups)],
        ..Grant::default()
    };
    let names = ["orders.v2", "order.v3", "other"]
        .map(GroupId::from)
        .to_vec();
    for (what, group, tenancy, nearest) in [
        ("all groups", "orders.v1", vec![], Some("orders.v2")),
        (
            "some groups",
            "orders.v1",
            vec![grant("*.v1"), grant("order.*")],
            Some("order.v3"),
        ),
        ("only this group", "orders.v1", vec![grant("*.v1")], None),
        ("nothing similar", "payments", vec![], None),
    ] {
        let mut read = observation(0, &[("t", &[(None, 9)])]);
        read.groups[0].plan.group = group.into();
        let absent = GroupDescription::memberless(GroupKind::Classic, GroupState::NotReady);
        read.groups[0].description = Ok(Arc::new(absent));
        read.group_names = Some(names.clone());
        let selector = format!("group={group},topic=t");
        let facts = running(hpa("h", &selector, average(1)), RunningReplicas::Several);
        let mut known = snapshot(vec![read], &[]);
        let options = TargetOptions {
            tenancy: Tenancy(tenancy),
            ..TargetOptions::default()
        };
        let targets = Targets::new(&["main".into()], options, None);
        let hpas = [Arc::new(facts)].into_iter().collect();
        known.targets = Arc::new(targets.with_hpas(&hpas, None));
        let refusal = ask(&known, &selector).unwrap_err();
        let expected = NoValueReason::NeverRan {
            group: group.into(),
            cluster: "main".into(),
            nearest: nearest.map(GroupId::from),
        };
        assert_eq!(refusal, expected, "{what}");
    }
}

#[test]
fn a_value_target_is_not_clamped() {
    let hpas = [hpa(
        "a",
        "group=g",
        MetricTarget::Value(Milli::from_units(10)),
    )];
    let snapshot = snapshot(vec![observation(0, &[("t", &behind(2, 900))])], &hpas);
    assert_eq!(
        ask(&snapshot, "group=g").unwrap().value,
        Milli::from_units(900)
    );
}

#[test]
fn row_five_partitions_and_a_lag_between_five_and_six_replicas_worth() {
    for lag in 26..=29 {
        let row = Row {
            topics: vec![behind(5, lag)],
            annotations: &[],
            per: 5,
            now: 4,
        };
        assert_eq!(row.proposed(0.0), 5, "{lag}");
    }
}

#[test]
fn row_twenty_four_partitions_are_reached_without_tolerance_and_a_finding_says_so() {
    let row = Row {
        topics: vec![behind(24, 55_000)],
        annotations: &[],
        per: 1000,
        now: 22,
    };
    assert_eq!(row.proposed(0.0), 24);
    assert_eq!(row.proposed(0.1), 22);
    let mut facts = hpa("h", "group=g", average(1000));
    facts.max_replicas = 24;
    let expected = [Finding::new(
        FindingCode::ToleranceBelow,
        HpaKey::new("shop", "h"),
        "within its tolerance it may stay at 22 replicas and never reach 24",
    )];
    assert_eq!(
        find_tolerance_against_ceiling(&facts, Replicas(24)),
        expected
    );
    facts.tolerance_up = Milli::parse("0");
    assert_eq!(find_tolerance_against_ceiling(&facts, Replicas(24)), []);
}

#[test]
fn row_by_lagging() {
    let row = Row {
        topics: vec![behind(8, 19)],
        annotations: &[("by", "lagging")],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 1);
    let ceiling = row.answer().ceiling.unwrap();
    assert_eq!(ceiling.useful.rule, ParallelismRule::Lagging);
}

#[test]
fn row_even() {
    let row = Row {
        topics: vec![behind(13, 14)],
        annotations: &[("even", "true")],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 2);
    assert_eq!(row.answer().rule, ValueRule::Even);
}

#[test]
fn row_no_commits_under_latest() {
    let row = Row {
        topics: vec![vec![(None, 500); 100]],
        annotations: &[],
        per: 10,
        now: 1,
    };
    assert_eq!(row.proposed(0.0), 1);
    assert_eq!(
        (row.answer().rule, row.answer().lag),
        (ValueRule::NeverRan, Some(Lag(0)))
    );
}

#[test]
fn row_two_topics_by_range() {
    let row = Row {
        topics: vec![behind(12, 900), behind(4, 0)],
        annotations: &[],
        per: 10,
        now: 12,
    };
    assert_eq!(row.proposed(0.0), 12);
}

/// The clamp bounds our own metric; the other one is bounded by the enforced maximum alone.
#[test]
fn row_another_metric_of_the_hpa_is_left_to_enforcement() {
    let row = Row {
        topics: vec![behind(12, 40)],
        annotations: &[],
        per: 10,
        now: 8,
    };
    assert_eq!(row.proposed(0.0), 4);
    let snapshot = row.snapshot().evaluated(&POLICY);
    let now = at(0);
    let metrics = snapshot.at(&now).hpa_metrics();
    assert_eq!(
        hpa_ceilings(&metrics),
        [(("shop", "h"), Limit::Bounded(Replicas(12)))].into()
    );
}

proptest! {
    /// The HPA's own formula for the served value, from every possible number of replicas.
    #[test]
    fn the_hpa_never_proposes_more_than_the_ceiling(
        lags in proptest::collection::vec(proptest::collection::vec(0i64..=i64::MAX, 1..20), 1..4),
        small: bool,
        thousandths in 1u64..10_000_000,
        assignor in proptest::sample::select(vec![None, Some("range"), Some("sticky")]),
        threads in 1u32..5,
        even: bool,
        lagging: bool,
        max in 1u32..80,
    ) {
        let names = ["a", "b", "c"];
        let columns: Vec<Vec<_>> = lags
            .iter()
            .map(|column| column.iter().map(|lag| (Some(0), if small { lag % 1000 } else { *lag })).collect())
            .collect();
        let topics: Vec<_> = names.iter().zip(&columns).map(|(n, c)| (*n, c.as_slice())).collect();
        let all: u64 = columns.iter().map(|c| c.len() as u64).sum();
        let target = Milli::parse(&format!("{thousandths}m")).unwrap();
        let threads = threads.to_string();
        let mut facts = annotated(
            hpa("h", "group=g", MetricTarget::AverageValue(target)),
            &[
                ("threads-per-replica", &threads),
                ("even", if even { "true" } else { "false" }),
                ("by", if lagging { "lagging" } else { "partitions" }),
            ],
        );
        facts.max_replicas = max;
        let working = sweep_of(described(assignor, &[&names[..topics.len()]]), &topics);
        let snapshot = snapshot(vec![working], std::slice::from_ref(&facts));
        let answer = ask(&snapshot, "group=g").unwrap();
        let ceiling = answer.ceiling.unwrap().replicas.bounded().unwrap();
        prop_assert!(u64::from(ceiling) <= all);
        let has_finding = !find_tolerance_against_ceiling(&facts, Replicas(ceiling)).is_empty();
        for now in 0..=u64::from(max) {
            // With both tolerances 0: at most the ceiling, from any number of replicas.
            let exact = hpa_proposes(answer.value, target, now, 0.0);
            prop_assert!(exact <= u64::from(ceiling), "{} from {}", exact, now);
            // With the default tolerance the HPA may stay above the ceiling, and then there is a finding.
            let loose = hpa_proposes(answer.value, target, now, 0.1);
            prop_assert!(loose <= u64::from(ceiling).max(now));
            prop_assert!(loose <= u64::from(ceiling) || has_finding);
            // If it stops below the ceiling, there is a finding as well.
            if loose < exact && answer.rule == ValueRule::Clamped && now < u64::from(max) {
                prop_assert!(has_finding, "{} stays, {} wanted", loose, exact);
            }
        }
        // Plain and below the ceiling, the value is the lag itself.
        if answer.rule == ValueRule::AsMeasured {
            prop_assert_eq!(answer.value, Milli::from_units(answer.lag.unwrap().0));
        }
    }
}
