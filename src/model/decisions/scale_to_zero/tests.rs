//! When a workload is scaled to zero and woken.

mod demand;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A workload of three replicas that has been idle for longer than its cooldown.
fn idle_workload() -> WorkloadState {
    WorkloadState {
        is_enabled: true,
        recorded: false,
        annotated: false,
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
        annotated: true,
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
        for annotated in [true, false] {
            let recorded = WorkloadState {
                demand,
                annotated,
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
fn removes_an_annotation_without_a_record_once_the_workload_runs() {
    let annotated = WorkloadState {
        annotated: true,
        idle: None,
        ..idle_workload()
    };
    assert_eq!(decide(&annotated), ZeroAction::RemoveAnnotation);
    // Not if the HPA has no setting of scale to zero.
    let foreign = WorkloadState {
        is_enabled: false,
        ..annotated
    };
    assert_eq!(decide(&foreign), ZeroAction::Keep);
    let idle = WorkloadState {
        annotated: true,
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
    assert_eq!(decide(&running), ZeroAction::RemoveAnnotation);
}

#[test]
fn early_replicas_are_attributed_to_the_hpa_and_later_ones_to_a_person() {
    for (zeroed, expected) in [
        (Some(Duration::from_secs(2)), ZeroAction::Zero),
        (Some(2 * MINUTE), ZeroAction::RemoveAnnotation),
        (None, ZeroAction::RemoveAnnotation),
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
    /// A user sets or removes the annotation.
    Annotate(bool),
}

fn any_step() -> impl Strategy<Value = ZeroStep> {
    prop_oneof![
        6 => (1u64..200, any_demand())
            .prop_map(|(seconds, demand)| ZeroStep::Passes(seconds, demand)),
        1 => (0u32..8).prop_map(ZeroStep::SetByPerson),
        1 => (1u32..8).prop_map(ZeroStep::Rewrite),
        1 => Just(ZeroStep::Crash),
        1 => any::<bool>().prop_map(ZeroStep::Annotate),
    ]
}

proptest! {
    /// A workload, its record and its HPA, whose annotation users may change, under any sequence of steps.
    #[test]
    fn wakes_workloads_with_demand_but_not_those_switched_off(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let (mut replicas, mut recorded, mut by_hand) = (3u32, false, false);
        let mut annotated = false;
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
                ZeroStep::Annotate(to) => annotated = to,
            }
            let state = WorkloadState {
                recorded, annotated, replicas, demand, idle, zeroed, ..idle_workload()
            };
            let before = replicas;
            match decide(&state) {
                ZeroAction::Keep => {}
                ZeroAction::Zero => {
                    prop_assert_eq!(demand, Demand::None);
                    (recorded, annotated) = (true, true);
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
                    (recorded, annotated) = (crashes, crashes);
                }
                ZeroAction::RemoveAnnotation => (recorded, annotated) = (false, false),
            }
            by_hand &= replicas == 0;
            if matches!(demand, Demand::Waiting(_)) {
                prop_assert!(replicas > 0 || by_hand, "demand at zero replicas");
                prop_assert!(replicas >= before.min(2), "demand removed replicas");
            }
        }
    }
}
