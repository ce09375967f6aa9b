//! Holds: the number that they keep, the number with which they begin, and the cooldown before zero.

use super::*;

fn with_zero(direction: &str) -> HpaFacts {
    hpa(
        DESIRED_METRIC,
        &[("hold", direction), ("scale-to-zero", "true")],
    )
}

fn value(group: &mut GroupSequence, lag: i64) -> (Option<u32>, ValueRule) {
    group.set_lag(lag);
    group.now += POLL;
    let value = group.read().unwrap();
    (value.desired, value.rule)
}

fn idle_since_ever(group: &mut GroupSequence) {
    let hpa = crate::model::units::hpa_key::HpaKey::new("shop", "billing");
    group.now += 3600;
    group.idle = [(hpa, fixtures::at(Duration::ZERO))].into();
}

#[test]
fn a_hold_does_not_end_the_cooldown_before_zero() {
    for direction in ["up", "both", "down"] {
        // It begins while there is no lag.
        let mut group = GroupSequence::new(with_zero(direction));
        let cooling = (Some(1), ValueRule::Cooldown);
        assert_eq!(value(&mut group, 0), cooling, "{direction}");
        assert_eq!(value(&mut group, 0), cooling, "{direction}");
        idle_since_ever(&mut group);
        assert_eq!(value(&mut group, 0).0, Some(0), "{direction}");
    }
    // The lag has drained under it.
    let mut drained = GroupSequence::new(with_zero("up"));
    assert_eq!(value(&mut drained, 380).0, Some(4));
    assert_eq!(value(&mut drained, 0), (Some(1), ValueRule::Cooldown));
}

#[test]
fn a_hold_at_zero_lets_messages_start_one_replica() {
    for (direction, expected) in [("up", 1), ("both", 1), ("down", 9)] {
        let mut group = GroupSequence::new(with_zero(direction));
        value(&mut group, 0);
        idle_since_ever(&mut group);
        assert_eq!(value(&mut group, 0).0, Some(0), "{direction}");
        assert_eq!(value(&mut group, 900).0, Some(expected), "{direction}");
    }
}

#[test]
fn down_and_both_keep_a_replica_from_zero() {
    for direction in ["down", "both"] {
        let mut group = GroupSequence::new(with_zero(direction));
        assert_eq!(value(&mut group, 190).0, Some(2));
        idle_since_ever(&mut group);
        let held = (Some(2), ValueRule::Held);
        assert_eq!(value(&mut group, 0), held, "{direction}");
    }
}

#[test]
fn a_hold_without_lag_begins_with_the_replicas_that_run() {
    let running = |direction: &str, replicas| HpaFacts {
        replicas,
        ..hpa(DESIRED_METRIC, &[("hold", direction)])
    };
    for (direction, replicas, expected) in [
        ("both", Some(6), 6),
        ("down", Some(6), 6),
        ("both", Some(0), 0),
        // Nothing else is known.
        ("both", None, 0),
    ] {
        let mut group = GroupSequence::new(running(direction, replicas));
        let (desired, _) = value(&mut group, 0);
        assert_eq!(desired, Some(expected), "{direction} {replicas:?}");
    }
    // No lag for a moment does not lower what `up` allows, as long as the replicas run.
    let mut up = GroupSequence::new(running("up", Some(6)));
    value(&mut up, 0);
    assert_eq!(value(&mut up, 580).0, Some(6));
    assert_eq!(value(&mut up, 900), (Some(6), ValueRule::Held));
    up.edit_hpas(&[running("up", Some(3))]);
    value(&mut up, 0);
    assert_eq!(value(&mut up, 900), (Some(3), ValueRule::Held));
}

#[test]
fn a_hold_of_what_is_unknown_says_so_and_begins_later() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("hold", "both")]));
    group.is_readable = false;
    group.now += POLL;
    assert!(group.read().is_err());
    let hold = group.outcome().hold.unwrap();
    assert_eq!(hold.replicas, None);
    group.is_readable = true;
    assert_eq!(value(&mut group, 190).0, Some(2));
    assert_eq!(value(&mut group, 900), (Some(2), ValueRule::Held));
    // The replicas that run are known although the lag is not.
    let mut running = GroupSequence::new(HpaFacts {
        replicas: Some(5),
        ..hpa(DESIRED_METRIC, &[("hold", "both")])
    });
    running.is_readable = false;
    running.now += POLL;
    assert!(running.read().is_err());
    running.is_readable = true;
    assert_eq!(value(&mut running, 900), (Some(5), ValueRule::Held));
}

#[test]
fn holds_keep_the_number_of_any_policy() {
    for (hold, before, after, expected) in [
        ("up", 120, 900, 2),
        ("up", 900, 120, 2),
        ("down", 900, 120, 9),
        ("down", 120, 900, 9),
        ("both", 120, 900, 2),
        ("both", 900, 120, 9),
    ] {
        let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("hold", hold)]));
        group.set_lag(before);
        group.read().unwrap();
        group.set_lag(after);
        group.now += POLL;
        let value = group.read().unwrap();
        assert_eq!(value.desired, Some(expected), "{hold} {before} {after}");
        let is_held = expected != u32::try_from((after + 99) / 100).unwrap();
        assert_eq!(
            value.rule == ValueRule::Held,
            is_held,
            "{hold} {before} {after}"
        );
    }
}

#[test]
fn a_hold_on_lag_changes_the_value_that_the_hpa_divides() {
    let mut facts = hpa(LAG_METRIC, &[("hold", "both")]);
    facts.metrics[0].target = Some(MetricTarget::AverageValue(Milli::from_units(50)));
    let mut group = GroupSequence::new(facts);
    group.set_lag(190);
    group.read().unwrap();
    group.set_lag(90);
    group.now += POLL;
    let value = group.read().unwrap();
    assert_eq!((value.desired, value.rule), (Some(4), ValueRule::Held));
    assert_eq!(value.value, Milli::from_units(200));
}

#[test]
fn a_hold_ends_at_its_time_without_a_sweep() {
    // The fixtures begin at 2024-05-06 07:08:09 UTC.
    let until = "both until 2024-05-06T07:08:30Z";
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("hold", until)]));
    group.set_lag(120);
    group.read().unwrap();
    group.set_lag(900);
    group.now = 20;
    assert_eq!(group.read().unwrap().desired, Some(2));
    group.now = 21;
    assert_eq!(group.value().unwrap().desired, Some(9));
}

#[test]
fn a_hold_that_replaces_another_one_keeps_its_number() {
    let held = |hold| hpa(DESIRED_METRIC, &[("hold", hold)]);
    let mut group = GroupSequence::new(held("both until 2024-05-06T07:08:30Z"));
    group.set_lag(120);
    group.read().unwrap();
    group.set_lag(900);
    group.set_hpas(&[held("both until 2024-05-06T07:09:00Z")]);
    group.now = 20;
    assert_eq!(group.read().unwrap().desired, Some(2));
    group.now = 30;
    assert_eq!(group.read().unwrap().desired, Some(2));
    group.set_hpas(&[held("both until 2024-05-06T07:08:30Z")]);
    group.now = 31;
    assert_eq!(group.read().unwrap().desired, Some(9));
}

#[test]
fn a_hold_keeps_the_rate_policy_too() {
    let held = |hold| hpa(DESIRED_METRIC, &[("policy", "rate"), ("hold", hold)]);
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(120);
    group.set_hpas(&[held("up")]);
    // The change of an annotation alone changes no number.
    assert_eq!(group.value().unwrap().desired, Some(4));
    group.run(POLL);
    group.rate = 900;
    assert_eq!(group.run(60).0, 4);
    group.set_hpas(&[hpa(DESIRED_METRIC, &[("policy", "rate")])]);
    assert_eq!(group.run(60).0, 6);
}
