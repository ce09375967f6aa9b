//! Outcomes of policies and holds over sweeps of a group.

mod between_sweeps;
mod holds;
mod members;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::evaluation::idle::IdleSince;
use crate::model::evaluation::policy_outcome::RateUnavailable;
use crate::model::evaluation::{EvaluationsAt, MetricValue, ServingPolicy, ValueRule};
use crate::model::fixtures;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, HpaMap, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::Observation;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::model::policy::decision::RateRule;
use crate::model::targets::no_value_reason::NoValueReason;
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::metric::{DESIRED_METRIC, LAG_METRIC};
use crate::model::units::newtypes::Lag;
use crate::model::units::quantity::Milli;

const POLL: u64 = 5;
const PARTITIONS: i64 = 12;

/// A group whose members process up to 100 messages per second each, and its HPA.
struct GroupSequence {
    policies: TargetPolicies,
    evaluations: Arc<Evaluations>,
    targets: Arc<Targets>,
    history: ClusterHistory,
    now: u64,
    rate: i64,
    members: i64,
    ends: i64,
    committed: i64,
    is_readable: bool,
    is_described: bool,
    kind: GroupKind,
    idle: IdleSince,
}

fn hpa(metric: &str, annotations: &[(&str, &str)]) -> HpaFacts {
    let annotations = annotations.iter();
    HpaFacts {
        namespace: "shop".into(),
        name: "billing".into(),
        max_replicas: 10,
        metrics: vec![ExternalMetric {
            name: metric.into(),
            selector: Selector::parse("group=g").unwrap(),
            target: Some(MetricTarget::AverageValue(Milli::ONE)),
        }],
        annotations: annotations
            .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
            .chain([("lagwise.dev/lag-per-replica".to_owned(), "100".to_owned())])
            .collect(),
        ..HpaFacts::default()
    }
}

impl GroupSequence {
    fn new(hpa: HpaFacts) -> Self {
        let mut sequence = Self {
            policies: TargetPolicies::default(),
            evaluations: Arc::new(Evaluations::new(ServingPolicy::default())),
            targets: Arc::default(),
            history: ClusterHistory::default(),
            now: 0,
            rate: 240,
            members: 4,
            ends: 0,
            committed: 0,
            is_readable: true,
            is_described: true,
            kind: GroupKind::Consumer,
            idle: IdleSince::default(),
        };
        sequence.set_hpas(&[hpa]);
        sequence
    }

    fn set_hpas(&mut self, hpas: &[HpaFacts]) {
        if self.targets.clusters.is_empty() {
            let names = ["main".into()];
            self.targets = Arc::new(Targets::new(&names, TargetOptions::default(), None));
        }
        let facts: HpaMap = hpas.iter().cloned().map(Arc::new).collect();
        self.targets = Arc::new(self.targets.with_hpas(&facts, None));
        let targets = &self.targets;
        let clusters = self.evaluations.clusters().clone();
        self.evaluations = self.evaluations.next(&clusters, targets, [].iter());
    }

    /// Applies HPAs as the poller does, between two sweeps.
    fn edit_hpas(&mut self, hpas: &[HpaFacts]) {
        let now = fixtures::at(Duration::from_secs(self.now));
        self.evaluations = self.policies.resume(&self.evaluations, &now);
        self.set_hpas(hpas);
        self.evaluations = self.policies.resume(&self.evaluations, &now);
    }

    fn description(&self) -> GroupDescription {
        let member = |n: i64| {
            let owned = (0..PARTITIONS).filter(|p| p % self.members == n);
            Member {
                id: format!("m{n}").into(),
                instance: None,
                client: "c".into(),
                host: "/10.0.0.1".into(),
                subscribed: Some(["t".into()].into()),
                assigned: vec![(
                    "t".into(),
                    owned.map(|p| i32::try_from(p).unwrap()).collect(),
                )],
            }
        };
        GroupDescription {
            members: (0..self.members).map(member).collect(),
            ..GroupDescription::memberless(self.kind, GroupState::Stable)
        }
    }

    fn set_lag(&mut self, lag: i64) {
        self.ends = 10_000;
        self.committed = self.ends - lag;
    }

    /// Lets the time of one sweep pass.
    fn sweep(&mut self) -> Result<MetricValue, NoValueReason> {
        self.now += POLL;
        self.ends += self.rate * 5;
        self.committed += (self.ends - self.committed).min(self.members * 500);
        self.read()
    }

    fn read(&mut self) -> Result<MetricValue, NoValueReason> {
        self.read_in(Scope::Whole)
    }

    fn read_in(&mut self, scope: Scope) -> Result<MetricValue, NoValueReason> {
        let share = |all: i64, n: i64| (all + n) / PARTITIONS;
        let rows: Vec<_> = (0..PARTITIONS)
            .map(|n| {
                (
                    0,
                    Ok(Some(share(self.committed, n))),
                    Ok(share(self.ends, n)),
                )
            })
            .collect();
        let at = Duration::from_secs(self.now);
        let mut read = fixtures::read(at, "g", "t", &rows);
        if self.is_described {
            read.groups[0].description = Ok(Arc::new(self.description()));
        }
        if !self.is_readable {
            let fault = crate::model::kafka::fault::Fault::NoAnswer;
            read = fixtures::failed(at, "g", "t", fault);
        }
        self.apply(read, scope);
        self.value()
    }

    /// Lets a whole sweep end that was planned before the HPA was known, and so did not read its group.
    fn sweep_without_group(&mut self) {
        let mut read = fixtures::read(Duration::from_secs(self.now), "g", "t", &[]);
        read.groups.clear();
        self.apply(read, Scope::Whole);
    }

    fn apply(&mut self, read: Observation, scope: Scope) {
        let started = read.started;
        let latest = self.history.apply(read, scope);
        let clusters = [("main".into(), latest)].into();
        let targets = Arc::clone(&self.targets);
        self.evaluations = self.evaluations.next(&clusters, &targets, [].iter());
        let cluster = "main".into();
        let evaluations = std::mem::take(&mut self.evaluations);
        self.evaluations = match scope {
            Scope::Whole => self.policies.observe_sweep(&cluster, evaluations, &started),
            Scope::Partial => self.policies.resume(&evaluations, &started),
        };
    }

    fn value(&self) -> Result<MetricValue, NoValueReason> {
        let now = fixtures::at(Duration::from_secs(self.now));
        let at = EvaluationsAt::new(&self.evaluations, &self.idle, &now);
        let metrics = at.hpa_metrics();
        metrics[0].outcome.clone()
    }

    fn run(&mut self, seconds: u64) -> (u32, ValueRule) {
        for _ in 0..seconds / POLL {
            self.sweep().unwrap();
        }
        let value = self.value().unwrap();
        (value.desired.unwrap(), value.rule)
    }

    fn outcome(&self) -> PolicyOutcome {
        let outcome = self.policies.outcomes.values().next();
        PolicyOutcome::clone(outcome.unwrap())
    }
}

#[test]
fn rate_is_served_once_the_group_was_observed_and_lag_before() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    let first = group.sweep().unwrap();
    assert_eq!(first.rule, ValueRule::AsMeasured);
    assert_eq!(
        group.outcome().unavailable,
        Some(RateUnavailable::NotObserved)
    );
    let value = group.run(120);
    // By the lag it would be none.
    assert_eq!(value, (4, ValueRule::Rate));
    let value = group.value().unwrap();
    assert_eq!(value.value, Milli::from_units(4));
    assert_eq!(group.outcome().unavailable, None);
}

#[test]
fn the_ceiling_the_maximum_and_the_minimum_still_apply() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(120);
    group.rate = 5000;
    // 12 partitions, and maxReplicas 10: the largest even step is 6.
    assert_eq!(group.run(60), (6, ValueRule::Rate));
    let mut few = GroupSequence::new(HpaFacts {
        min_replicas: Some(3),
        ..hpa(DESIRED_METRIC, &[("policy", "rate")])
    });
    few.rate = 12;
    let lowest = (0..40).map(|_| {
        let replicas = few.run(60).0;
        few.members = replicas.into();
        replicas
    });
    assert_eq!(lowest.min(), Some(3));
}

#[test]
fn no_lag_for_a_moment_does_not_lower_the_rate_before_zero() {
    let annotations = [("policy", "rate"), ("scale-to-zero", "true")];
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &annotations));
    assert_eq!(group.sweep().unwrap().rule, ValueRule::Cooldown);
    assert_eq!(group.run(120), (4, ValueRule::Rate));
    assert_eq!(group.value().unwrap().lag, Some(Lag(0)));
}

#[test]
fn learned_state_of_a_group_is_not_used_for_another() {
    let facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    let mut group = GroupSequence::new(facts.clone());
    assert_eq!(group.run(120), (4, ValueRule::Rate));
    let mut other = facts;
    other.metrics[0].selector = Selector::parse("group=other").unwrap();
    group.set_hpas(&[other]);
    let _ = group.sweep();
    let state = group.policies.states.values().next().unwrap();
    assert_eq!(state.group, ("main".into(), "other".into()));
    assert!(!state.rate.as_ref().is_some_and(|rate| rate.is_ready));
    assert_eq!(group.outcome().rate, None);
}

#[test]
fn a_group_scales_up_in_one_step_and_down_later() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(120);
    group.rate = 550;
    let mut seen = vec![group.run(POLL).0];
    for _ in 0..500 {
        let replicas = group.run(POLL).0;
        if seen.last() != Some(&replicas) {
            seen.push(replicas);
        }
        group.members = replicas.into();
        if group.now > 700 {
            group.rate = 120;
        }
    }
    assert!(seen.len() <= 4, "{seen:?}");
    assert_eq!((seen[0], seen[1]), (4, 6), "{seen:?}");
    assert!(*seen.last().unwrap() <= 2, "{seen:?}");
}

#[test]
fn recommend_serves_lag_and_sums_the_replicas_of_rate() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "recommend")]));
    group.run(300);
    // While the capacity of a member is unknown, fewer members are not recommended.
    let rate = group.outcome().rate.unwrap();
    let totals = rate.totals.unwrap();
    assert_eq!((rate.replicas, totals.rate.changes), (4, 0));
    assert_eq!(totals.rate.late_share(), Some(0.0));
    // It shows while they are behind.
    group.rate = 450;
    group.run(200);
    group.rate = 240;
    assert_eq!(group.run(3600), (0, ValueRule::AsMeasured));
    let rate = group.outcome().rate.unwrap();
    assert_eq!(rate.replicas, 3, "{:?}", rate.decision);
    let totals = rate.totals.unwrap();
    assert!(
        totals.rate.replica_minutes < totals.actual.replica_minutes,
        "{totals:?}"
    );
    assert!(totals.actual.replica_minutes > 250.0, "{totals:?}");
    assert_eq!(totals.actual.changes, 0);
    assert!((1..5).contains(&totals.rate.changes), "{totals:?}");
}

#[test]
fn a_decided_number_is_a_difference_of_outcomes() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(120);
    let before = Arc::clone(&group.evaluations);
    let changes = |after: &Evaluations| {
        let replicas = |outcome: Option<&PolicyOutcome>| {
            outcome.and_then(|outcome| outcome.served_rate().map(|rate| rate.replicas))
        };
        let mut changes = Vec::new();
        before.diff_outcomes(after, |hpa, old, new| {
            changes.push((hpa.to_string(), replicas(old), replicas(new)));
        });
        changes
    };
    assert!(changes(&before).is_empty());
    group.rate = 5000;
    group.run(60);
    let expected = ("shop/billing".to_owned(), Some(4), Some(6));
    assert_eq!(changes(&group.evaluations), [expected]);
}

#[test]
fn unknown_stays_unknown() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(120);
    group.is_readable = false;
    group.sweep().unwrap();
    let decision = group.outcome().rate.unwrap().decision;
    assert_eq!(
        (decision.rule, decision.replicas),
        (RateRule::MissingOffsets, 4)
    );
    for _ in 0..10 {
        let _ = group.sweep();
    }
    assert!(group.value().is_err());
    group.is_readable = true;
    assert_eq!(group.run(POLL), (4, ValueRule::Rate));
}

#[test]
fn where_the_policy_cannot_decide_lag_is_served_and_the_reason_is_known() {
    let rate = ("policy", "rate");
    for (hpa, kind, expected) in [
        (
            hpa(LAG_METRIC, &[rate]),
            GroupKind::Consumer,
            RateUnavailable::OtherMetric,
        ),
        (
            hpa(DESIRED_METRIC, &[rate]),
            GroupKind::Share,
            RateUnavailable::NoOwners,
        ),
        (
            hpa(DESIRED_METRIC, &[rate, ("by", "lagging")]),
            GroupKind::Consumer,
            RateUnavailable::LaggingPartitions,
        ),
    ] {
        let mut group = GroupSequence::new(hpa);
        group.kind = kind;
        let (_, rule) = group.run(120);
        assert_ne!(rule, ValueRule::Rate, "{expected}");
        assert_eq!(group.outcome().unavailable, Some(expected));
    }
    let both = GroupSequence::new(hpa(DESIRED_METRIC, &[rate]));
    let mut both = both;
    let other = HpaFacts {
        name: "other".into(),
        ..hpa(DESIRED_METRIC, &[rate])
    };
    both.set_hpas(&[hpa(DESIRED_METRIC, &[rate]), other]);
    both.run(60);
    assert_eq!(
        both.outcome().unavailable,
        Some(RateUnavailable::SeveralHpas)
    );
}

#[test]
fn policies_of_a_namespace_observe_each_partition_once() {
    let mut facts = hpa(DESIRED_METRIC, &[("policy", "rate")]);
    facts.metrics.push(ExternalMetric {
        selector: Selector::parse("group=g,topic=t").unwrap(),
        ..facts.metrics[0].clone()
    });
    let mut group = GroupSequence::new(facts);
    group.run(120);
    let outcomes = group.policies.outcomes.values();
    let mut outcomes: Vec<_> = outcomes
        .map(|outcome| (outcome.rate.is_some(), outcome.unavailable))
        .collect();
    // The first metric of the HPA observes the group. Its query may come after that of the other one.
    outcomes.sort_by_key(|(has_rate, _)| !has_rate);
    let crowded = Some(RateUnavailable::Crowded);
    assert_eq!(outcomes, [(true, None), (false, crowded)]);
    let mut states = group.policies.states.values();
    assert!(states.any(|state| state.rate.is_none()));
}

#[test]
fn estimates_take_at_most_200_bytes_for_each_partition_and_nothing_without_policy() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    group.run(1800);
    let state = group.policies.states.values().next().unwrap();
    let bytes = state.rate.as_ref().unwrap().memory_bytes();
    // A constant part in addition to the memory of each partition, measured for a group of 24 partitions.
    assert!(bytes <= 200 * 24, "{bytes}");
    let mut without = GroupSequence::new(hpa(DESIRED_METRIC, &[]));
    without.run(60);
    assert!(without.policies.states.is_empty() && without.policies.outcomes.is_empty());
    group.set_hpas(&[hpa(DESIRED_METRIC, &[])]);
    group.run(POLL);
    assert!(group.policies.states.is_empty());
}
