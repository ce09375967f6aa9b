//! Restarts, and edits of HPAs between two sweeps.

use super::*;
use crate::model::hpa::selector::Selector;

/// Starts again with what `group` has saved, without knowledge of its members.
fn restart(group: &mut GroupSequence, facts: HpaFacts) -> GroupSequence {
    let now = fixtures::at(Duration::from_secs(group.now));
    let saved = group.policies.export(&"main".into(), &now);
    let since_1970 = 1_714_979_289 + u32::try_from(group.now).unwrap();
    let mut next = GroupSequence::new(facts);
    next.policies.import(&"main".into(), &saved, since_1970);
    (next.ends, next.committed, next.now) = (group.ends, group.committed, group.now);
    (next.rate, next.members) = (group.rate, group.members);
    next.is_described = false;
    next
}

fn replicas(value: Result<MetricValue, NoValueReason>) -> (u32, ValueRule) {
    let value = value.unwrap();
    (value.desired.unwrap(), value.rule)
}

#[test]
fn a_saved_number_is_served_until_the_members_are_described() {
    for first in [Scope::Partial, Scope::Whole] {
        let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
        let mut group = GroupSequence::new(facts.clone());
        assert_eq!(group.run(600), (4, ValueRule::Rate));
        let mut next = restart(&mut group, facts);
        next.now += POLL;
        assert_eq!(
            replicas(next.read_in(first)),
            (4, ValueRule::Rate),
            "{first:?}"
        );
        assert_eq!(next.outcome().unavailable, None);
        for _ in 0..10 {
            assert_eq!(replicas(next.sweep()), (4, ValueRule::Rate), "{first:?}");
        }
        let decision = next.outcome().rate.unwrap().decision;
        assert_eq!((decision.rule, decision.terms), (RateRule::Resumed, None));
        next.is_described = true;
        assert_eq!(next.run(120), (4, ValueRule::Rate));
        assert_ne!(
            next.outcome().rate.unwrap().decision.rule,
            RateRule::Resumed
        );
    }
}

#[test]
fn a_saved_number_outlasts_a_sweep_that_did_not_read_the_group() {
    for (sweeps, is_described) in [(1, true), (1, false), (3, true), (3, false)] {
        let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
        let mut group = GroupSequence::new(facts.clone());
        assert_eq!(group.run(600), (4, ValueRule::Rate));
        let mut next = restart(&mut group, facts.clone());
        next.edit_hpas(&[facts]);
        for _ in 0..sweeps {
            next.now += POLL;
            next.sweep_without_group();
        }
        next.is_described = is_described;
        assert_eq!(
            replicas(next.read_in(Scope::Partial)),
            (4, ValueRule::Rate),
            "{sweeps} {is_described}"
        );
        assert_eq!(replicas(next.sweep()), (4, ValueRule::Rate));
    }
}

#[test]
fn a_saved_number_is_served_once_kafka_answers() {
    for failed in [
        &[Scope::Whole][..],
        &[Scope::Partial],
        &[Scope::Whole, Scope::Partial, Scope::Whole],
    ] {
        let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
        let mut group = GroupSequence::new(facts.clone());
        assert_eq!(group.run(600), (4, ValueRule::Rate));
        let mut next = restart(&mut group, facts.clone());
        next.edit_hpas(&[facts]);
        next.is_readable = false;
        for scope in failed {
            next.now += POLL;
            next.read_in(*scope).unwrap_err();
        }
        next.is_readable = true;
        next.now += POLL;
        assert_eq!(
            replicas(next.read_in(Scope::Partial)),
            (4, ValueRule::Rate),
            "{failed:?}"
        );
    }
}

#[test]
fn a_saved_number_ends_if_the_members_stay_unknown() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    let mut group = GroupSequence::new(facts.clone());
    group.run(600);
    let mut next = restart(&mut group, facts.clone());
    assert_eq!(next.run(595).1, ValueRule::Rate);
    // Another restart does not make it younger.
    let mut last = restart(&mut next, facts);
    assert_eq!(last.run(10).1, ValueRule::AsMeasured);
    let reason = Some(RateUnavailable::NoOwners);
    assert_eq!(last.outcome().unavailable, reason);
    // Nothing is left to serve, so nothing is observed between sweeps.
    assert!(last.policies.awaited.is_empty());
    last.is_described = true;
    assert_eq!(last.run(300).1, ValueRule::Rate);
}

#[test]
fn a_saved_number_stays_within_bounds_that_have_changed() {
    let facts = |max_replicas| HpaFacts {
        max_replicas,
        ..hpa(DESIRED_METRIC, &[("policy", "rate")])
    };
    let mut group = GroupSequence::new(facts(10));
    assert_eq!(group.run(600).0, 4);
    let mut next = restart(&mut group, facts(3));
    assert_eq!(replicas(next.sweep()), (3, ValueRule::Rate));
}

#[test]
fn a_step_up_that_was_not_saved_shows_in_the_replicas() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    let mut group = GroupSequence::new(facts.clone());
    assert_eq!(group.run(600).0, 4);
    // Six pods were started, and four have joined.
    let started = HpaFacts {
        replicas: Some(6),
        ..facts
    };
    let mut next = restart(&mut group, started);
    next.is_described = true;
    next.now += POLL;
    assert_eq!(replicas(next.read_in(Scope::Partial)), (6, ValueRule::Rate));
    assert_eq!(replicas(next.sweep()), (6, ValueRule::Rate));
}

#[test]
fn a_saved_hold_holds_until_the_members_are_described() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate"), ("hold", "both")]);
    let mut group = GroupSequence::new(facts.clone());
    group.set_lag(190);
    group.read().unwrap();
    let mut next = restart(&mut group, facts);
    next.set_lag(900);
    next.now += POLL;
    assert_eq!(replicas(next.read_in(Scope::Partial)), (2, ValueRule::Held));
    assert_eq!(replicas(next.read()), (2, ValueRule::Held));
}

#[test]
fn a_hold_that_was_removed_meanwhile_does_not_come_back() {
    let held = hpa(DESIRED_METRIC, &[("hold", "both")]);
    let mut group = GroupSequence::new(held.clone());
    group.set_lag(190);
    assert_eq!(replicas(group.read()).0, 2);
    let mut next = restart(&mut group, hpa(DESIRED_METRIC, &[]));
    next.set_lag(900);
    next.now += POLL;
    assert_eq!(replicas(next.read()), (9, ValueRule::AsMeasured));
    next.edit_hpas(&[held]);
    next.now += POLL;
    assert_eq!(replicas(next.read()).0, 9);
    next.set_lag(300);
    next.now += POLL;
    assert_eq!(replicas(next.read()), (9, ValueRule::Held));
}

fn with_selector(facts: &HpaFacts, selector: &str) -> HpaFacts {
    let mut edited = facts.clone();
    edited.metrics[0].selector = Selector::parse(selector).unwrap();
    edited
}

#[test]
fn an_edited_selector_is_not_served_the_number_of_the_former_one() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    for selector in ["group=g,topic=t", "group=g,cluster=main"] {
        let mut group = GroupSequence::new(facts.clone());
        assert_eq!(group.run(600), (4, ValueRule::Rate));
        // Nothing has decided for this query yet.
        group.set_hpas(&[with_selector(&facts, selector)]);
        assert_eq!(
            group.value().unwrap().rule,
            ValueRule::AsMeasured,
            "{selector}"
        );
    }
}

#[test]
fn a_policy_continues_after_an_edit_of_the_selector_if_the_group_is_the_same() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    let mut group = GroupSequence::new(facts.clone());
    assert_eq!(group.run(600), (4, ValueRule::Rate));
    group.edit_hpas(&[with_selector(&facts, "group=g,topic=t")]);
    assert_eq!(replicas(group.value()), (4, ValueRule::Rate));
    assert_eq!(
        group.outcome().rate.unwrap().decision.rule,
        RateRule::Resumed
    );
    assert_eq!(group.run(120), (4, ValueRule::Rate));
    assert_eq!(group.policies.states.len(), 1);
}

#[test]
fn a_hold_continues_after_an_edit_of_the_selector() {
    for selector in ["group=g,topic=t", "group=g,cluster=main"] {
        let facts = hpa(DESIRED_METRIC, &[("hold", "both")]);
        let mut group = GroupSequence::new(facts.clone());
        group.set_lag(120);
        group.read().unwrap();
        group.set_lag(900);
        group.now += POLL;
        group.read().unwrap();
        group.edit_hpas(&[with_selector(&facts, selector)]);
        assert_eq!(replicas(group.value()), (2, ValueRule::Held), "{selector}");
    }
}

#[test]
fn metrics_that_change_places_keep_their_numbers() {
    let annotations = [("hold.g", "both"), ("lag-per-replica.g", "100")];
    let mut facts = hpa(DESIRED_METRIC, &annotations);
    let lag = ExternalMetric {
        name: LAG_METRIC.into(),
        target: Some(MetricTarget::AverageValue(Milli::from_units(50))),
        ..facts.metrics[0].clone()
    };
    facts.metrics.push(lag);
    let mut group = GroupSequence::new(facts.clone());
    group.set_lag(190);
    group.read().unwrap();
    group.set_lag(900);
    group.now += POLL;
    group.read().unwrap();
    let numbers = |group: &GroupSequence| {
        let now = fixtures::at(Duration::from_secs(group.now));
        let at = EvaluationsAt::new(&group.evaluations, &group.idle, &now);
        let metrics = at.hpa_metrics();
        let number = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.metric.name() == name);
            metric.unwrap().outcome.as_ref().unwrap().desired.unwrap()
        };
        (number(DESIRED_METRIC), number(LAG_METRIC))
    };
    assert_eq!(numbers(&group), (2, 4));
    facts.metrics.reverse();
    group.edit_hpas(&[facts]);
    assert_eq!(numbers(&group), (2, 4));
    group.now += POLL;
    group.read().unwrap();
    assert_eq!(numbers(&group), (2, 4));
}

#[test]
fn a_policy_or_hold_that_is_removed_ends_at_once() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    assert_eq!(group.run(600).1, ValueRule::Rate);
    group.edit_hpas(&[hpa(DESIRED_METRIC, &[])]);
    assert_eq!(group.value().unwrap().rule, ValueRule::AsMeasured);
    let mut held = GroupSequence::new(hpa(DESIRED_METRIC, &[("hold", "both")]));
    held.set_lag(120);
    held.read().unwrap();
    held.set_lag(900);
    held.now += POLL;
    assert_eq!(replicas(held.read()), (2, ValueRule::Held));
    held.edit_hpas(&[hpa(DESIRED_METRIC, &[])]);
    assert_eq!(held.value().unwrap().desired, Some(9));
}

#[test]
fn a_removed_policy_or_hold_ends_although_its_saved_number_was_not_served() {
    for annotations in [
        &[("policy", "rate"), ("hold", "both")][..],
        &[("hold", "both")],
        &[("policy", "rate")],
    ] {
        let facts = hpa(DESIRED_METRIC, annotations);
        let mut group = GroupSequence::new(facts.clone());
        group.run(600);
        let mut next = restart(&mut group, facts.clone());
        next.edit_hpas(&[facts]);
        next.is_readable = false;
        next.now += POLL;
        next.read_in(Scope::Whole).unwrap_err();
        next.edit_hpas(&[hpa(DESIRED_METRIC, &[])]);
        next.is_readable = true;
        next.set_lag(900);
        next.now += POLL;
        let served = replicas(next.read_in(Scope::Partial));
        assert_eq!(served, (9, ValueRule::AsMeasured), "{annotations:?}");
        assert!(next.policies.outcomes.is_empty() && next.policies.awaited.is_empty());
    }
}

#[test]
fn outcomes_end_with_their_policies_although_no_state_is_left() {
    let facts = hpa(DESIRED_METRIC, &[("hold", "both")]);
    let mut group = GroupSequence::new(facts);
    group.set_lag(120);
    group.read().unwrap();
    let now = fixtures::at(Duration::from_secs(group.now));
    let saved = group.policies.export(&"main".into(), &now);
    // The storage answers late, and the saved state replaces the current one.
    group.policies.import(&"main".into(), &saved, 1_714_979_289);
    group.set_hpas(&[hpa(DESIRED_METRIC, &[])]);
    group.set_lag(900);
    group.now += POLL;
    assert_eq!(group.read().unwrap().desired, Some(9));
    assert!(group.policies.outcomes.is_empty());
}

#[test]
fn a_sweep_that_began_before_the_last_observation_takes_no_time_back() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "recommend")]));
    group.run(300);
    let totals = |group: &GroupSequence| group.outcome().rate.unwrap().totals.unwrap();
    let state = |group: &GroupSequence| {
        let state = group.policies.states.values().next().unwrap();
        state.rate.as_ref().unwrap().observed.unwrap()
    };
    let (before, at) = (totals(&group), state(&group));
    group.now -= 3;
    group.read().unwrap();
    let after = totals(&group);
    assert!(state(&group) >= at);
    assert!(after.rate.replica_minutes >= before.rate.replica_minutes);
    assert!(after.actual.replica_minutes >= before.actual.replica_minutes);
    group.now += 3;
    assert_eq!(group.run(60).1, ValueRule::AsMeasured);
}

#[test]
fn targets_of_one_query_share_their_evaluation_and_the_hold() {
    let shared = |name: &str, annotations: &[(&str, &str)]| HpaFacts {
        name: name.into(),
        ..hpa(DESIRED_METRIC, annotations)
    };
    // Both get the same value, since they send the same request.
    let hold = [("hold", "both")];
    let (first, second) = (shared("a", &hold), shared("b", &hold));
    let mut group = GroupSequence::new(first.clone());
    group.set_hpas(&[first, second]);
    group.set_lag(120);
    group.read().unwrap();
    group.set_lag(900);
    group.now += POLL;
    group.read().unwrap();
    let evaluations: Vec<_> = group.evaluations.hpa_targets().collect();
    let [(_, a), (_, b)] = &evaluations[..] else {
        panic!("{}", evaluations.len());
    };
    assert!(Arc::ptr_eq(&a.metric, &b.metric));
    assert_eq!(replicas(group.value()), (2, ValueRule::Held));
}

#[test]
fn a_restart_changes_no_number() {
    let annotations = [("policy", "rate")];
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &annotations));
    group.run(600);
    let before = group.run(POLL);
    assert_eq!(before.1, ValueRule::Rate);
    let now = fixtures::at(Duration::from_secs(group.now));
    assert!(group.policies.is_unsaved());
    let saved = group.policies.export(&"main".into(), &now);
    assert!(!group.policies.is_unsaved());
    let text = serde_json::to_string(&saved).unwrap();
    let saved: Vec<SavedPolicy> = serde_json::from_str(&text).unwrap();
    let since_1970 = 1_714_979_289 + u32::try_from(group.now).unwrap();
    let restart = |wait: u64, saved: &[SavedPolicy]| {
        let mut next = GroupSequence::new(hpa(DESIRED_METRIC, &annotations));
        next.policies.import(&"main".into(), saved, since_1970);
        // State that is not observed yet is saved again.
        let later = next.policies.export(&"main".into(), &now);
        assert_eq!(later.len(), saved.len());
        (next.ends, next.committed, next.now) = (group.ends, group.committed, group.now + wait);
        let value = next.sweep().unwrap();
        (next, value)
    };
    let (mut next, value) = restart(20, &saved);
    assert_eq!((value.desired.unwrap(), value.rule), before);
    assert_eq!(next.run(120), before);
    // The group was read before the HPA was known, so the next whole sweep is some time away.
    next = GroupSequence::new(hpa(DESIRED_METRIC, &annotations));
    next.policies.import(&"main".into(), &saved, since_1970);
    (next.ends, next.committed, next.now) = (group.ends, group.committed, group.now + 20);
    let value = next.read_in(Scope::Partial).unwrap();
    assert_eq!((value.desired.unwrap(), value.rule), before);
    assert_eq!(next.run(120), before);
    // The process ended before it could save a step up.
    next = GroupSequence::new(hpa(DESIRED_METRIC, &annotations));
    next.policies.import(&"main".into(), &saved, since_1970);
    (next.ends, next.committed, next.now) = (group.ends, group.committed, group.now + 20);
    next.members = 6;
    assert_eq!(next.sweep().unwrap().desired, Some(6));
    // Long after, it first observes what there is.
    let (_, value) = restart(3600, &saved);
    assert_eq!(value.rule, ValueRule::AsMeasured);
    let (_, value) = restart(20, &[]);
    assert_eq!(value.rule, ValueRule::AsMeasured);
}
