//! Groups with members that are not replicas of the workload.

use super::*;
use crate::model::policy::decision::RateHoldReason;

fn running(policy: &str, replicas: u32) -> HpaFacts {
    HpaFacts {
        replicas: Some(replicas),
        ..hpa(DESIRED_METRIC, &[("policy", policy)])
    }
}

fn changing(group: &GroupSequence) -> usize {
    group.policies.changing_groups(&"main".into()).count()
}

#[test]
fn a_policy_begins_with_the_pods_that_are_starting() {
    for (members, pods, expected) in [(4, 6, 6), (4, 4, 4), (4, 2, 4), (3, 40, 6)] {
        let mut group = GroupSequence::new(running("rate", pods));
        group.members = members;
        let (replicas, rule) = group.run(60);
        assert_eq!(rule, ValueRule::Rate, "{members} {pods}");
        assert!(replicas >= expected, "{members} {pods}: {replicas}");
    }
}

#[test]
fn a_step_down_waits_until_the_pods_are_as_many_as_the_policy_wants() {
    let mut group = GroupSequence::new(running("rate", 4));
    group.run(300);
    group.rate = 120;
    // Something else has started two more, which have not joined.
    group.edit_hpas(&[running("rate", 6)]);
    assert_eq!(group.run(3600).0, 4);
    let hold = group.outcome().rate.unwrap().decision.hold;
    let reason = hold.map(|hold| hold.reason);
    assert!(
        matches!(reason, None | Some(RateHoldReason::NotSettled)),
        "{reason:?}"
    );
    group.edit_hpas(&[running("rate", 4)]);
    assert!(group.run(3600).0 < 4);
}

#[test]
fn a_recommended_group_at_rest_is_not_read_often() {
    let mut group = GroupSequence::new(running("recommend", 4));
    group.run(600);
    assert_eq!(changing(&group), 0);
    // The HPA starts a pod, and later it joins.
    group.edit_hpas(&[running("recommend", 5)]);
    group.run(POLL);
    assert_eq!(changing(&group), 1);
    group.run(600);
    assert_eq!(changing(&group), 0);
    group.members = 5;
    group.run(POLL);
    assert_eq!(changing(&group), 1);
}

#[test]
fn owners_are_those_of_the_partitions_that_count() {
    let facts = |partitions| {
        let annotations = [("policy", "rate"), ("partitions", partitions)];
        hpa(DESIRED_METRIC, &annotations)
    };
    let owners = |partitions| {
        let mut group = GroupSequence::new(facts(partitions));
        group.run(POLL);
        let read = group.policies.buffers.partitions.iter();
        read.map(|partition| partition.owner).collect::<Vec<_>>()
    };
    // Four members own the partitions in turn.
    let (first, later) = (owners("0-5"), owners("6-11"));
    assert_eq!((first.len(), later.len()), (6, 6));
    assert!(first.iter().all(Option::is_some));
    assert_eq!(later[..4], first[2..]);
    assert_ne!(later, first);
}

#[test]
fn members_of_groups_that_change_are_read_often() {
    let mut group = GroupSequence::new(hpa(DESIRED_METRIC, &[("policy", "rate")]));
    let changing = |group: &GroupSequence| group.policies.changing_groups(&"main".into()).count();
    group.run(600);
    assert_eq!(changing(&group), 0);
    group.rate = 900;
    group.run(30);
    assert_eq!(changing(&group), 1);
    let other = "other".into();
    assert_eq!(group.policies.changing_groups(&other).count(), 0);
}
