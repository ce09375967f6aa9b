//! Members of the group beside the replicas of the workload.

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
