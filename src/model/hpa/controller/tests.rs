use proptest::prelude::*;

use super::memory::{Limited, Recommendations};
use super::outlook::{KnownHistory, Outlook, Range, UnknownHistory, predict_sync};
use super::stage::Verdict;
use super::*;
use crate::model::hpa::facts::MetricTarget;

fn average(units: u64) -> MetricSource {
    MetricSource::External(MetricTarget::AverageValue(Milli::from_units(units)))
}

/// An HPA on one External metric with that average, from 1 to 20.
fn spec() -> HpaSpec {
    HpaSpec {
        min: 1,
        max: 20,
        metrics: vec![average(100)],
        behavior: None,
    }
}

/// Tolerances of nothing, the default policies with a period of `up` seconds, a window downwards.
fn swift(up: u32, window: u32) -> HpaSpec {
    let zero = Some(Milli::default());
    let policy = |change, period_seconds| Policy {
        change,
        period_seconds,
    };
    HpaSpec {
        behavior: Some(Behavior {
            up: ScalingRules {
                tolerance: zero,
                policies: vec![
                    policy(PolicyKind::Percent(100), up),
                    policy(PolicyKind::Pods(4), up),
                ],
                ..ScalingRules::up()
            },
            down: ScalingRules {
                tolerance: zero,
                window_seconds: Some(window),
                ..ScalingRules::down()
            },
        }),
        ..spec()
    }
}

fn seen(replicas: u32, readings: &[MetricReading]) -> ObservedScale {
    ObservedScale {
        spec_replicas: replicas,
        status_replicas: replicas,
        pods: None,
        readings: readings.to_vec(),
        scaled_to_zero: false,
    }
}

fn units(units: u64) -> MetricReading {
    MetricReading::Value(Milli::from_units(units))
}

/// Syncs a second apart, each from where the one before left off.
fn series(spec: &HpaSpec, values: &[Option<u64>]) -> Vec<u32> {
    let mut memory = Recommendations::default();
    let mut current = 1;
    let times = (0..).map(Duration::from_secs);
    let syncs = times.zip(values).map(|(at, value)| {
        let reading = value.map_or(MetricReading::Failed, units);
        let sync = memory.sync(spec, &seen(current, &[reading]), at);
        current = sync.replicas.unwrap();
        current
    });
    syncs.collect()
}

#[test]
fn divides_by_the_target_and_rounds_up() {
    for (value, current, expected) in [
        (0, 1, 0),
        (1, 3, 1),
        (99, 1, 1),
        (101, 1, 2),
        (1100, 12, 11),
        (1101, 12, 12),
        (1201, 12, 13),
        (u64::MAX, 1, 92_233_720_368_548),
    ] {
        let sync = Recommendations::default().sync(
            &swift(1, 0),
            &seen(current, &[units(value)]),
            Duration::ZERO,
        );
        let most = u64::from(i32::MAX.unsigned_abs());
        let expected = u32::try_from(expected.min(most)).unwrap();
        let Some(Verdict::Wants { replicas, metric }) = sync.verdict else {
            panic!("{sync:?}")
        };
        assert_eq!((replicas, metric), (expected, 0), "{value} at {current}");
    }
}

#[test]
fn tolerance_keeps_small_changes_from_scaling() {
    for (value, current, expected) in [
        // 24 partitions at 1000 each: the default tolerance of a tenth sticks at 22.
        (24_000, 22, 22),
        (24_000, 21, 24),
        (11_000, 10, 10),
        (11_001, 10, 12),
        (9_000, 10, 10),
        (8_999, 10, 9),
    ] {
        let spec = HpaSpec {
            metrics: vec![average(1000)],
            max: 50,
            ..spec()
        };
        let sync =
            Recommendations::default().sync(&spec, &seen(current, &[units(value)]), Duration::ZERO);
        let Some(Verdict::Wants { replicas, .. }) = sync.verdict else {
            panic!("{sync:?}")
        };
        assert_eq!(replicas, expected, "{value} at {current}");
    }
}

#[test]
fn compares_with_all_pods_during_a_surge() {
    // A rollout of 24 with a pod more: within the tolerance it proposes 25.
    let seen = ObservedScale {
        status_replicas: 25,
        ..seen(24, &[units(2400)])
    };
    let wide = HpaSpec { max: 50, ..spec() };
    let sync = Recommendations::default().sync(&wide, &seen, Duration::ZERO);
    assert_eq!(sync.replicas, Some(25));
}

#[test]
fn grows_by_the_larger_of_pods_and_percent() {
    let all = [Some(1200); 5];
    assert_eq!(series(&swift(1, 10), &all), [5, 10, 12, 12, 12]);
    let far = [Some(9999); 5];
    assert_eq!(series(&swift(1, 10), &far), [5, 10, 20, 20, 20]);
    assert_eq!(series(&spec(), &far), [4, 8, 16, 20, 20]);
}

#[test]
fn scaling_period_counts_from_its_start() {
    let all = [Some(1200); 8];
    assert_eq!(series(&swift(3, 10), &all), [5, 5, 5, 10, 10, 10, 12, 12]);
}

#[test]
fn stabilization_window_keeps_the_highest_recommendation() {
    let falls = [1200, 1200, 1200, 50, 50, 50, 50].map(Some);
    assert_eq!(series(&swift(1, 3), &falls), [5, 10, 12, 12, 12, 1, 1]);
    let steps = [1200, 1200, 1200, 700, 300, 0, 0, 0].map(Some);
    assert_eq!(series(&swift(1, 3), &steps), [5, 10, 12, 12, 12, 7, 3, 1]);
}

#[test]
fn metric_error_blocks_scaling_down_only() {
    let values = [Some(500), None, None, Some(500)];
    assert_eq!(series(&swift(1, 10), &values), [5, 5, 5, 5]);
    let two = HpaSpec {
        metrics: vec![average(100), average(100)],
        ..swift(1, 0)
    };
    let sync = |readings: &[MetricReading]| {
        let mut memory = Recommendations::default();
        memory.sync(&two, &seen(5, readings), Duration::ZERO)
    };
    let down = sync(&[MetricReading::Failed, units(300)]);
    assert_eq!(
        (down.verdict, down.replicas),
        (Some(Verdict::Frozen), Some(5))
    );
    let up = sync(&[MetricReading::Failed, units(700)]);
    let wants = Verdict::Wants {
        replicas: 7,
        metric: 1,
    };
    assert_eq!((up.verdict, up.replicas), (Some(wants), Some(7)));
    // A metric that lagwise does not serve is neither an error nor a number.
    let other = sync(&[MetricReading::Elsewhere, units(300)]);
    assert_eq!(other.replicas, None);
}

#[test]
fn replica_limits_apply_before_metrics() {
    for (replicas, min, max, expected) in [
        (
            30,
            1,
            20,
            (SyncCase::AboveMax, 20, Limited::TooManyReplicas),
        ),
        (2, 3, 20, (SyncCase::BelowMin, 3, Limited::TooFewReplicas)),
        (0, 1, 20, (SyncCase::Disabled, 0, Limited::No)),
    ] {
        let spec = HpaSpec { min, max, ..spec() };
        let sync =
            Recommendations::default().sync(&spec, &seen(replicas, &[units(900)]), Duration::ZERO);
        let found = (sync.case, sync.replicas.unwrap(), sync.limited);
        assert_eq!(found, expected);
        let outlook = predict_sync(
            &spec,
            &seen(replicas, &[units(900)]),
            &KnownHistory::default(),
        );
        assert_eq!(outlook.replicas, Range::exactly(expected.1));
    }
}

#[test]
fn wakes_only_workloads_it_scaled_to_zero() {
    let zero = HpaSpec { min: 0, ..spec() };
    let own = ObservedScale {
        scaled_to_zero: true,
        ..seen(0, &[units(250)])
    };
    let woken = |spec: &HpaSpec| {
        Recommendations::default()
            .sync(spec, &own, Duration::ZERO)
            .replicas
    };
    assert_eq!(woken(&zero), Some(3));
    // minReplicas was raised.
    assert_eq!(woken(&HpaSpec { min: 4, ..spec() }), Some(4));
    // Metrics of pods have no value without pods.
    let of_pods = HpaSpec {
        metrics: vec![MetricSource::Pods],
        ..zero
    };
    assert_eq!(case(&of_pods, &own), SyncCase::Disabled);
}

fn outlook_at(
    spec: &HpaSpec,
    replicas: u32,
    reading: MetricReading,
    past: KnownHistory,
) -> Outlook {
    predict_sync(spec, &seen(replicas, &[reading]), &past)
}

#[test]
fn reports_a_range_where_the_history_is_unknown() {
    let range = |low, high| Range { low, high };
    let recent = KnownHistory {
        since_scaled: Some(Duration::from_secs(3)),
        highest: None,
    };
    let open = |open: &[UnknownHistory]| open.iter().copied().collect::<BTreeSet<_>>();
    // Without behavior: up to the recent proposal, within the limit of one sync.
    let down = outlook_at(&spec(), 6, units(200), recent);
    assert_eq!(down.replicas, range(2, 12));
    assert_eq!(down.open, open(&[UnknownHistory::HighestRecommendation]));
    let settled = KnownHistory {
        highest: Some(6),
        ..recent
    };
    assert_eq!(
        outlook_at(&spec(), 6, units(200), settled).replicas,
        range(2, 6)
    );
    assert_eq!(
        outlook_at(&spec(), 6, units(900), settled).replicas,
        Range::exactly(9)
    );
    // With it, never past what there is.
    let down = outlook_at(&swift(5, 60), 6, units(200), KnownHistory::default());
    assert_eq!(down.replicas, range(2, 6));
    // The policies count what happened within their periods.
    let up = outlook_at(&swift(5, 60), 6, units(900), recent);
    assert_eq!(
        (up.replicas, up.open),
        (range(6, 9), open(&[UnknownHistory::RecentChanges]))
    );
    let up = outlook_at(&swift(1, 60), 6, units(900), recent);
    assert_eq!((up.replicas, up.open), (Range::exactly(9), open(&[])));
    // Other metrics may want more; never less.
    let two = HpaSpec {
        metrics: vec![average(100), MetricSource::Pods],
        ..swift(1, 0)
    };
    let other = outlook_at(&two, 6, units(200), KnownHistory::default());
    assert_eq!(
        (other.replicas, other.open),
        (range(2, 12), open(&[UnknownHistory::OtherMetrics]))
    );
    let up = outlook_at(&two, 6, units(900), KnownHistory::default());
    assert_eq!(up.replicas, range(9, 12));
}

use std::collections::BTreeSet;

fn arbitrary_rules() -> impl Strategy<Value = ScalingRules> {
    let change = prop_oneof![
        (1u32..8).prop_map(PolicyKind::Pods),
        (1u32..150).prop_map(PolicyKind::Percent)
    ];
    let policy = (change, 1u32..40).prop_map(|(change, period_seconds)| Policy {
        change,
        period_seconds,
    });
    let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
    let window = proptest::option::of(prop_oneof![Just(0u32), 1u32..60]);
    let tolerance = proptest::option::of((0u64..300).prop_map(|m| Milli::ONE.scaled(m, 1000)));
    let policies = proptest::collection::vec(policy, 1..4);
    (select, window, tolerance, policies).prop_map(
        |(select, window_seconds, tolerance, policies)| ScalingRules {
            window_seconds,
            select,
            policies,
            tolerance,
        },
    )
}

proptest! {
    /// The outlook from a single sync, without the controller's memory, always contains the result with this memory.
    #[test]
    fn the_range_contains_the_replicas_of_the_controller(
        behavior in proptest::option::of((arbitrary_rules(), arbitrary_rules())),
        max in 1u32..30,
        steps in proptest::collection::vec((0u64..3500, 1u64..30, 0usize..12, 0u32..30), 1..40),
    ) {
        // Upwards the window is never the controller's own.
        let up = |rules: ScalingRules| ScalingRules { window_seconds: rules.window_seconds.or(Some(0)), ..rules };
        let behavior = behavior.map(|(a, b)| Behavior { up: up(a), down: b });
        let spec = HpaSpec { max, behavior, ..spec() };
        let mut memory = Recommendations::default();
        let mut now = Duration::from_secs(1000);
        let (mut current, mut scaled) = (1, None);
        for (lag, pause, what, by_hand) in steps {
            now += Duration::from_secs(pause);
            if what == 0 {
                current = by_hand;
            }
            let reading = if what == 1 { MetricReading::Failed } else { units(lag) };
            let seen = seen(current, &[reading]);
            let past = KnownHistory { since_scaled: scaled.map(|at| now - at), highest: None };
            let outlook = predict_sync(&spec, &seen, &past);
            let sync = memory.sync(&spec, &seen, now);
            let replicas = sync.replicas.unwrap();
            prop_assert!(outlook.replicas.has(replicas), "{outlook:?} {sync:?}");
            prop_assert_eq!(outlook.verdict, sync.verdict);
            if replicas != current {
                scaled = Some(now);
            }
            current = replicas;
        }
    }
}
