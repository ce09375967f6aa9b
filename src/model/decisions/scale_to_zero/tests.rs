use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::evaluation::idle::IdleSince;
use crate::model::fixtures::{self, Row};
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
fn idle() -> WorkloadState {
    WorkloadState {
        wanted: true,
        marked: false,
        replicas: 3,
        work: Demand::None,
        idle: Some(6 * MINUTE),
        cooldown: 5 * MINUTE,
        zeroed: None,
        bounds: (2, 10),
    }
}

/// One that lagwise has set to zero.
fn asleep() -> WorkloadState {
    WorkloadState {
        marked: true,
        replicas: 0,
        idle: None,
        ..idle()
    }
}

#[test]
fn to_zero_only_after_the_cooldown_and_with_nothing_to_do() {
    assert_eq!(step(&idle()), ZeroAction::Zero);
    for (idle_for, work) in [
        (Some(4 * MINUTE), Demand::None),
        (None, Demand::None),
        (Some(6 * MINUTE), Demand::Unknown),
        (Some(6 * MINUTE), Demand::NeverRan),
        (Some(6 * MINUTE), Demand::Waiting(1)),
    ] {
        let situation = WorkloadState {
            idle: idle_for,
            work,
            ..idle()
        };
        assert_eq!(step(&situation), ZeroAction::Rest, "{situation:?}");
    }
    let unwanted = WorkloadState {
        wanted: false,
        ..idle()
    };
    assert_eq!(step(&unwanted), ZeroAction::Rest);
}

#[test]
fn it_wakes_what_it_put_to_sleep_and_nothing_else() {
    for (work, expected) in [
        (Demand::None, ZeroAction::Rest),
        (Demand::Unknown, ZeroAction::Rest),
        (Demand::NeverRan, ZeroAction::Wake(2)),
        (Demand::Waiting(1), ZeroAction::Wake(2)),
        (Demand::Waiting(7), ZeroAction::Wake(7)),
        (Demand::Waiting(99), ZeroAction::Wake(10)),
    ] {
        let marked = WorkloadState { work, ..asleep() };
        assert_eq!(step(&marked), expected, "{work:?}");
        let by_hand = WorkloadState {
            marked: false,
            ..marked
        };
        assert_eq!(step(&by_hand), ZeroAction::Rest, "{work:?}");
    }
}

#[test]
fn who_no_longer_wants_it_gets_the_replicas_back() {
    let unwanted = WorkloadState {
        wanted: false,
        ..asleep()
    };
    assert_eq!(step(&unwanted), ZeroAction::Wake(2));
    let awake = WorkloadState {
        replicas: 1,
        ..unwanted
    };
    assert_eq!(step(&awake), ZeroAction::Unmark);
}

#[test]
fn replicas_right_after_the_write_are_the_hpas_and_later_ones_a_persons() {
    for (zeroed, expected) in [
        (Some(Duration::from_secs(2)), ZeroAction::Zero),
        (Some(2 * MINUTE), ZeroAction::Unmark),
        (None, ZeroAction::Unmark),
    ] {
        let rewritten = WorkloadState {
            replicas: 3,
            zeroed,
            ..asleep()
        };
        assert_eq!(step(&rewritten), expected, "{zeroed:?}");
    }
}

#[test]
fn bounds_without_room_between_them_give_the_fewest() {
    let narrow = WorkloadState {
        work: Demand::Waiting(50),
        bounds: (4, 2),
        ..asleep()
    };
    assert_eq!(step(&narrow), ZeroAction::Wake(4));
    let none = WorkloadState {
        bounds: (0, 0),
        ..narrow
    };
    assert_eq!(step(&none), ZeroAction::Wake(1));
}

#[test]
fn one_metric_with_work_is_enough_and_one_unknown_too() {
    let (some, more) = (Demand::Waiting(2), Demand::Waiting(5));
    for (a, b, expected) in [
        (some, more, more),
        (some, Demand::Unknown, some),
        (Demand::None, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::NeverRan, Demand::NeverRan),
        (Demand::NeverRan, Demand::Unknown, Demand::Unknown),
        (Demand::None, Demand::None, Demand::None),
    ] {
        assert_eq!((a.and(b), b.and(a)), (expected, expected));
    }
}

/// The snapshot after these sweeps of a group on a topic, and what is to be done at `now` for an HPA
/// with `annotations` that wants 100 messages per replica.
fn after(
    sweeps: Vec<(u64, Vec<Row>)>,
    now: u64,
    annotations: &[(&str, &str)],
) -> BTreeMap<HpaKey, Candidate> {
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
        max_staleness: Duration::from_secs(30),
        namespaces: Vec::new(),
    };
    let now = fixtures::at(Duration::from_secs(now));
    candidates(snapshot.evaluated(&policy).at(&now))
}

#[test]
fn what_there_is_to_do_is_read_off_the_last_sweep() {
    let on = [("scale-to-zero", "true"), ("cooldown", "1m")];
    let row =
        |committed, end: Result<i64, Fault>| vec![(0, Ok(committed), end), (0, Ok(Some(0)), Ok(0))];
    let down = (5, row(Some(7), Err(Fault::NoAnswer)));
    for (sweeps, now, expected) in [
        (vec![(0, row(Some(7), Ok(7)))], 0, Demand::None),
        (vec![(0, row(Some(7), Ok(8)))], 0, Demand::Waiting(1)),
        (vec![(0, row(Some(7), Ok(157)))], 0, Demand::Waiting(2)),
        // Two partitions, whatever the lag.
        (vec![(0, row(Some(7), Ok(99_999)))], 0, Demand::Waiting(2)),
        // What was read before the broker went down is still served, and is no reason to sleep.
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
        let [sleeper] = found.into_values().collect::<Vec<_>>()[..] else {
            panic!("{sweeps:?}");
        };
        assert_eq!(
            (sleeper.work, sleeper.cooldown),
            (expected, MINUTE),
            "{sweeps:?}"
        );
    }
    assert!(after(vec![(0, row(Some(7), Ok(7)))], 0, &[]).is_empty());
}

#[test]
fn a_metric_of_others_is_a_finding_where_zero_is_wanted() {
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
        let findings = targets.findings.iter();
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
fn the_time_without_work_begins_anew_after_whatever_is_not_none() {
    let hpa = HpaKey::new("n", "h");
    let at = |seconds| fixtures::at(Duration::from_secs(seconds));
    let mut idle = IdleSince::new();
    let mut turn = |seconds, work| {
        let sleeper = Candidate {
            work,
            cooldown: MINUTE,
            ceiling: None,
        };
        idle = idle_since(&idle, &[(hpa.clone(), sleeper)].into(), &at(seconds));
        idle.get(&hpa)
            .map(|since| at(seconds).since(since).as_secs())
    };
    assert_eq!(turn(0, Demand::None), Some(0));
    assert_eq!(turn(5, Demand::None), Some(5));
    for (seconds, work) in [
        (10, Demand::Unknown),
        (20, Demand::Waiting(1)),
        (30, Demand::NeverRan),
    ] {
        assert_eq!(turn(seconds, work), None);
        assert_eq!(turn(seconds + 5, Demand::None), Some(0));
        assert_eq!(turn(seconds + 8, Demand::None), Some(3));
    }
}

fn any_work() -> impl Strategy<Value = Demand> {
    prop_oneof![
        Just(Demand::Unknown),
        Just(Demand::NeverRan),
        Just(Demand::None),
        (1u32..50).prop_map(Demand::Waiting),
    ]
}

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Turn {
    /// So much time passes with this to do.
    Passes(u64, Demand),
    /// A person sets the replicas.
    Hand(u32),
    /// The HPA writes what it had worked out from an older reading.
    Rewrite(u32),
    /// The daemon dies before its second write.
    DiesHalfWay,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (1u64..200, any_work()).prop_map(|(seconds, work)| Turn::Passes(seconds, work)),
        1 => (0u32..8).prop_map(Turn::Hand),
        1 => (1u32..8).prop_map(Turn::Rewrite),
        1 => Just(Turn::DiesHalfWay),
    ]
}

proptest! {
    /// A workload, its mark and its HPA under any turns.
    #[test]
    fn nothing_with_work_sleeps_for_long_and_nothing_switched_off_is_woken(
        turns in proptest::collection::vec(any_turn(), 1..60),
    ) {
        let (mut replicas, mut marked, mut by_hand) = (3u32, false, false);
        let (mut idle, mut zeroed) = (None::<Duration>, None::<Duration>);
        let mut work = Demand::None;
        for turn in turns {
            let mut half_way = false;
            match turn {
                Turn::Passes(seconds, now) => {
                    let passed = Duration::from_secs(seconds);
                    work = now;
                    idle = (work == Demand::None && replicas > 0)
                        .then(|| idle.unwrap_or_default() + passed);
                    zeroed = zeroed.map(|ago| ago + passed);
                }
                Turn::Hand(to) => {
                    by_hand = to == 0 && !marked;
                    replicas = to;
                    idle = None;
                }
                // The HPA leaves zero alone.
                Turn::Rewrite(to) if replicas > 0 => replicas = to,
                Turn::Rewrite(_) => {}
                Turn::DiesHalfWay => {
                    half_way = true;
                    zeroed = None;
                    idle = None;
                }
            }
            let situation = WorkloadState { marked, replicas, work, idle, zeroed, ..idle_by_default() };
            let had = replicas;
            match step(&situation) {
                ZeroAction::Rest => {}
                ZeroAction::Zero => {
                    prop_assert_eq!(work, Demand::None);
                    marked = true;
                    if !half_way {
                        replicas = 0;
                        zeroed = Some(Duration::ZERO);
                    }
                }
                ZeroAction::Wake(to) => {
                    prop_assert!(!by_hand, "woken although a person had switched it off");
                    prop_assert!((2..=10).contains(&to));
                    replicas = to;
                    idle = None;
                    marked = half_way;
                }
                ZeroAction::Unmark => marked = false,
            }
            by_hand &= replicas == 0;
            if matches!(work, Demand::Waiting(_)) {
                prop_assert!(replicas > 0 || by_hand, "work waits at zero replicas");
                prop_assert!(replicas >= had.min(2), "work took replicas away");
            }
        }
    }
}

/// By another name, where `idle` is one already.
fn idle_by_default() -> WorkloadState {
    idle()
}
