use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::idle::IdleSince;
use crate::model::fixtures::{self, PartitionReading};
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::fault::Fault;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::metric::LAG_METRIC;
use crate::model::units::quantity::Milli;

const MINUTE: Duration = Duration::from_secs(60);

/// A workload of three replicas that has been idle for longer than its cooldown.
fn idle_workload() -> WorkloadState {
    WorkloadState {
        is_enabled: true,
        recorded: false,
        marked: false,
        replicas: 3,
        demand: Demand::None,
        idle: Some(6 * MINUTE),
        cooldown: 5 * MINUTE,
        zeroed: None,
        bounds: (2, 10),
    }
}

/// A workload that lagwise has scaled to zero.
fn at_zero() -> WorkloadState {
    WorkloadState {
        recorded: true,
        marked: true,
        replicas: 0,
        idle: None,
        ..idle_workload()
    }
}

#[test]
fn scales_to_zero_only_after_the_cooldown_without_demand() {
    assert_eq!(decide(&idle_workload()), ZeroAction::Zero);
    for (idle, demand) in [
        (Some(4 * MINUTE), Demand::None),
        (None, Demand::None),
        (Some(6 * MINUTE), Demand::Unknown),
        (Some(6 * MINUTE), Demand::NeverRan),
        (Some(6 * MINUTE), Demand::Waiting(1)),
    ] {
        let state = WorkloadState {
            idle,
            demand,
            ..idle_workload()
        };
        assert_eq!(decide(&state), ZeroAction::Keep, "{state:?}");
    }
    let opted_out = WorkloadState {
        is_enabled: false,
        ..idle_workload()
    };
    assert_eq!(decide(&opted_out), ZeroAction::Keep);
}

#[test]
fn wakes_only_recorded_workloads() {
    for (demand, expected) in [
        (Demand::None, ZeroAction::Keep),
        (Demand::Unknown, ZeroAction::Keep),
        (Demand::NeverRan, ZeroAction::Wake(2)),
        (Demand::Waiting(1), ZeroAction::Wake(2)),
        (Demand::Waiting(7), ZeroAction::Wake(7)),
        (Demand::Waiting(99), ZeroAction::Wake(10)),
    ] {
        // Whatever was written on the HPA.
        for marked in [true, false] {
            let recorded = WorkloadState {
                demand,
                marked,
                ..at_zero()
            };
            assert_eq!(decide(&recorded), expected, "{recorded:?}");
            for is_enabled in [true, false] {
                let by_hand = WorkloadState {
                    recorded: false,
                    is_enabled,
                    ..recorded
                };
                assert_eq!(decide(&by_hand), ZeroAction::Keep, "{by_hand:?}");
            }
        }
    }
}

#[test]
fn removes_a_mark_without_a_record_once_the_workload_runs() {
    let marked = WorkloadState {
        marked: true,
        idle: None,
        ..idle_workload()
    };
    assert_eq!(decide(&marked), ZeroAction::Unmark);
    // Not from an HPA that does not ask for scale to zero.
    let foreign = WorkloadState {
        is_enabled: false,
        ..marked
    };
    assert_eq!(decide(&foreign), ZeroAction::Keep);
    let idle = WorkloadState {
        marked: true,
        ..idle_workload()
    };
    assert_eq!(decide(&idle), ZeroAction::Zero);
}

#[test]
fn wakes_workloads_that_opted_out() {
    let opted_out = WorkloadState {
        is_enabled: false,
        ..at_zero()
    };
    assert_eq!(decide(&opted_out), ZeroAction::Wake(2));
    let running = WorkloadState {
        replicas: 1,
        ..opted_out
    };
    assert_eq!(decide(&running), ZeroAction::Unmark);
}

#[test]
fn early_replicas_count_as_the_hpas_and_later_ones_as_a_persons() {
    for (zeroed, expected) in [
        (Some(Duration::from_secs(2)), ZeroAction::Zero),
        (Some(2 * MINUTE), ZeroAction::Unmark),
        (None, ZeroAction::Unmark),
    ] {
        let rewritten = WorkloadState {
            replicas: 3,
            zeroed,
            ..at_zero()
        };
        assert_eq!(decide(&rewritten), expected, "{zeroed:?}");
    }
}

#[test]
fn conflicting_bounds_give_the_minimum() {
    let narrow = WorkloadState {
        demand: Demand::Waiting(50),
        bounds: (4, 2),
        ..at_zero()
    };
    assert_eq!(decide(&narrow), ZeroAction::Wake(4));
    let none = WorkloadState {
        bounds: (0, 0),
        ..narrow
    };
    assert_eq!(decide(&none), ZeroAction::Wake(1));
}

#[test]
fn demand_of_several_metrics_combines() {
    let (less, more) = (Demand::Waiting(2), Demand::Waiting(5));
    for (a, b, expected) in [
        (less, more, more),
        (less, Demand::Unknown, less),
        (Demand::None, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::NeverRan, Demand::NeverRan),
        (Demand::NeverRan, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::None, Demand::None),
    ] {
        assert_eq!((a.and(b), b.and(a)), (expected, expected));
    }
}

/// The candidates at `now` after these sweeps of a group on a topic, for an HPA with `annotations` and a target
/// of 100 messages per replica.
fn after(
    sweeps: Vec<(u64, Vec<PartitionReading>)>,
    now: u64,
    annotations: &[(&str, &str)],
) -> BTreeMap<HpaKey, ZeroCandidate> {
    let hpa = HpaFacts {
        namespace: "shop".into(),
        name: "orders".into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: Selector::parse("group=g,topic=t").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(100))),
        }],
        annotations: annotations
            .iter()
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .collect(),
        ..HpaFacts::default()
    };
    let mut history = ClusterHistory::default();
    let mut snapshot = LagSnapshot {
        targets: Arc::new(Targets::merge(
            &["main".into()],
            &[],
            &[hpa],
            BTreeSet::new(),
        )),
        ..LagSnapshot::default()
    };
    for (seconds, rows) in sweeps {
        let read = fixtures::read(Duration::from_secs(seconds), "g", "t", &rows);
        let latest = history.apply(read, Scope::Whole);
        snapshot.clusters = [("main".into(), latest)].into();
    }
    let policy = ServingPolicy {
        clamp: true,
        cap: crate::model::settings::cap_mode::CapMode::Advise,
        scaling: crate::model::settings::scaling_policy::ScalingPolicy::Lag,
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
        writes: crate::model::hpa::write_scopes::WriteScopes::ALL,
    };
    let now = fixtures::at(Duration::from_secs(now));
    candidates(snapshot.evaluated(&policy).at(&now))
}

#[test]
fn demand_comes_from_the_last_sweep() {
    let on = [("scale-to-zero", "true"), ("cooldown", "1m")];
    let row =
        |committed, end: Result<i64, Fault>| vec![(0, Ok(committed), end), (0, Ok(Some(0)), Ok(0))];
    let down = (5, row(Some(7), Err(Fault::NoAnswer)));
    for (sweeps, now, expected) in [
        (vec![(0, row(Some(7), Ok(7)))], 0, Demand::None),
        (vec![(0, row(Some(7), Ok(8)))], 0, Demand::Waiting(1)),
        (vec![(0, row(Some(7), Ok(157)))], 0, Demand::Waiting(2)),
        // At most one replica for each of the two partitions.
        (vec![(0, row(Some(7), Ok(99_999)))], 0, Demand::Waiting(2)),
        // Lag read before the broker went down is still served, but does not count as no demand.
        (
            vec![(0, row(Some(7), Ok(7))), down.clone()],
            5,
            Demand::Unknown,
        ),
        (
            vec![(0, row(Some(7), Ok(157))), down.clone()],
            5,
            Demand::Waiting(2),
        ),
        (vec![(0, row(Some(7), Ok(157))), down], 60, Demand::Unknown),
        (vec![], 0, Demand::Unknown),
        (vec![(0, vec![(0, Ok(None), Ok(9))])], 0, Demand::NeverRan),
    ] {
        let found = after(sweeps.clone(), now, &on);
        let [candidate] = found.into_values().collect::<Vec<_>>()[..] else {
            panic!("{sweeps:?}");
        };
        assert_eq!(
            (candidate.demand, candidate.cooldown),
            (expected, MINUTE),
            "{sweeps:?}"
        );
    }
    assert!(after(vec![(0, row(Some(7), Ok(7)))], 0, &[]).is_empty());
}

#[test]
fn finds_foreign_metrics_on_hpas_with_scale_to_zero() {
    let found = |annotations: &[(&str, &str)]| {
        let metric = |name: &str, selector| ExternalMetric {
            name: name.into(),
            selector: Selector::parse(selector).unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::from_units(1))),
        };
        let hpa = HpaFacts {
            metrics: vec![metric(LAG_METRIC, "group=g"), metric("queue_depth", "")],
            annotations: annotations
                .iter()
                .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
                .collect(),
            ..HpaFacts::default()
        };
        let targets = Targets::merge(&["main".into()], &[], &[hpa], BTreeSet::new());
        let findings = targets.findings();
        findings.map(|f| f.code.label()).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]), [""; 0]);
    assert_eq!(found(&[("scale-to-zero", "true")]), ["no_zero_with_others"]);
    assert_eq!(
        found(&[("scale-to-zero.g", "true")]),
        ["suffix_on_hpa_setting"]
    );
}

#[test]
fn idle_time_restarts_after_any_demand() {
    let hpa = HpaKey::new("n", "h");
    let at = |seconds| fixtures::at(Duration::from_secs(seconds));
    let mut idle = IdleSince::new();
    let mut idle_seconds = |seconds, demand| {
        let candidate = ZeroCandidate {
            demand,
            cooldown: MINUTE,
            ceiling: None,
        };
        idle = idle_since(&idle, &[(hpa.clone(), candidate)].into(), &at(seconds));
        idle.get(&hpa)
            .map(|since| at(seconds).since(since).as_secs())
    };
    assert_eq!(idle_seconds(0, Demand::None), Some(0));
    assert_eq!(idle_seconds(5, Demand::None), Some(5));
    for (seconds, demand) in [
        (10, Demand::Unknown),
        (20, Demand::Waiting(1)),
        (30, Demand::NeverRan),
    ] {
        assert_eq!(idle_seconds(seconds, demand), None);
        assert_eq!(idle_seconds(seconds + 5, Demand::None), Some(0));
        assert_eq!(idle_seconds(seconds + 8, Demand::None), Some(3));
    }
}

fn any_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![
        Just(Demand::Unknown),
        Just(Demand::NeverRan),
        Just(Demand::None),
        (1u32..50).prop_map(Demand::Waiting),
    ]
}

/// What happens between two decisions.
#[derive(Clone, Debug)]
enum ZeroStep {
    /// Seconds pass with this demand.
    Passes(u64, Demand),
    /// A person sets the replicas.
    SetByPerson(u32),
    /// The HPA controller sets replicas that it computed from an older scale.
    Rewrite(u32),
    /// The daemon crashes before its second write.
    Crash,
    /// Somebody sets or removes the mark.
    Mark(bool),
}

fn any_step() -> impl Strategy<Value = ZeroStep> {
    prop_oneof![
        6 => (1u64..200, any_demand())
            .prop_map(|(seconds, demand)| ZeroStep::Passes(seconds, demand)),
        1 => (0u32..8).prop_map(ZeroStep::SetByPerson),
        1 => (1u32..8).prop_map(ZeroStep::Rewrite),
        1 => Just(ZeroStep::Crash),
        1 => any::<bool>().prop_map(ZeroStep::Mark),
    ]
}

proptest! {
    /// A workload, its record and its HPA, on which somebody writes the mark, under any sequence of steps.
    #[test]
    fn wakes_workloads_with_demand_and_never_those_switched_off(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let (mut replicas, mut recorded, mut by_hand) = (3u32, false, false);
        let mut marked = false;
        let (mut idle, mut zeroed) = (None::<Duration>, None::<Duration>);
        let mut demand = Demand::None;
        for step in steps {
            let mut crashes = false;
            match step {
                ZeroStep::Passes(seconds, now) => {
                    let passed = Duration::from_secs(seconds);
                    demand = now;
                    idle = (demand == Demand::None && replicas > 0)
                        .then(|| idle.unwrap_or_default() + passed);
                    zeroed = zeroed.map(|ago| ago + passed);
                }
                ZeroStep::SetByPerson(to) => {
                    by_hand = to == 0 && !recorded;
                    replicas = to;
                    idle = None;
                }
                // The HPA controller leaves zero alone.
                ZeroStep::Rewrite(to) if replicas > 0 => replicas = to,
                ZeroStep::Rewrite(_) => {}
                ZeroStep::Crash => {
                    crashes = true;
                    zeroed = None;
                    idle = None;
                }
                ZeroStep::Mark(to) => marked = to,
            }
            let state = WorkloadState {
                recorded, marked, replicas, demand, idle, zeroed, ..idle_workload()
            };
            let before = replicas;
            match decide(&state) {
                ZeroAction::Keep => {}
                ZeroAction::Zero => {
                    prop_assert_eq!(demand, Demand::None);
                    (recorded, marked) = (true, true);
                    if !crashes {
                        replicas = 0;
                        zeroed = Some(Duration::ZERO);
                    }
                }
                ZeroAction::Wake(to) => {
                    prop_assert!(!by_hand, "woken although a person had scaled it to zero");
                    prop_assert!((2..=10).contains(&to));
                    replicas = to;
                    idle = None;
                    (recorded, marked) = (crashes, crashes);
                }
                ZeroAction::Unmark => (recorded, marked) = (false, false),
            }
            by_hand &= replicas == 0;
            if matches!(demand, Demand::Waiting(_)) {
                prop_assert!(replicas > 0 || by_hand, "demand at zero replicas");
                prop_assert!(replicas >= before.min(2), "demand removed replicas");
            }
        }
    }
}
