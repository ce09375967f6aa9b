//! What is found out about groups and HPAs as they are.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::assembly::{ClusterHistory, Scope};
use crate::model::fixtures;
use crate::model::group::Member;
use crate::model::quantity::Milli;
use crate::model::types::TopicName;

fn member(subscribed: Option<&str>, assigned: &[i32]) -> Member {
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: subscribed.map(|topics| topics.split(' ').map(TopicName::from).collect()),
        assigned: vec![("t".into(), assigned.to_vec())],
    }
}

/// The kinds of what is found of a group with a commit on each of two partitions.
fn kinds(state: GroupState, kind: GroupKind, members: Vec<Member>) -> Vec<&'static str> {
    let row = (0, Ok(Some(5)), Ok(9));
    let mut read = fixtures::read(Duration::ZERO, "g", "t", &[row, row]);
    read.groups[0].plan.discover = true;
    read.groups[0].description = Ok(Arc::new(GroupDescription {
        kind,
        state,
        assignor: Some("range".into()),
        members,
        subtopologies: Vec::new(),
    }));
    let snapshot = LagSnapshot {
        clusters: [(
            "main".into(),
            ClusterHistory::default().take_in(read, Scope::Whole),
        )]
        .into(),
        ..LagSnapshot::default()
    };
    let found = findings::<HpaFacts>(&snapshot, &[], &[]);
    assert!(found.iter().all(|f| f.to_string().contains("\"g\"")));
    found.iter().map(Finding::label).collect()
}

#[test]
fn members_without_work_and_mixed_subscriptions_are_told_of_a_settled_group() {
    use GroupKind::{Classic, Share};
    use GroupState::{Rebalancing, Stable};
    let two = || vec![member(Some("t"), &[0]), member(Some("t"), &[1])];
    let three = || [two(), vec![member(Some("t"), &[])]].concat();
    for (state, kind, members, expected) in [
        (Stable, Classic, two(), vec![]),
        (Stable, Classic, three(), vec!["members_beyond"]),
        (Rebalancing, Classic, three(), vec![]),
        (Stable, Share, three(), vec![]),
        (
            Stable,
            Classic,
            vec![member(Some("t"), &[0]), member(None, &[1])],
            vec![],
        ),
    ] {
        assert_eq!(
            kinds(state, kind, members.clone()),
            expected,
            "{state:?} {members:?}"
        );
    }
    let mixed = || vec![member(Some("t"), &[0]), member(Some("t u"), &[1])];
    assert_eq!(kinds(Stable, Classic, mixed()), ["mixed_subscriptions"]);
    assert_eq!(kinds(Stable, Share, mixed()), Vec::<&str>::new());
}

#[test]
fn tolerances_that_pass_or_miss_the_ceiling() {
    let facts = |max, up: Option<&str>, down: Option<&str>| HpaFacts {
        namespace: "n".into(),
        name: "h".into(),
        max_replicas: max,
        tolerance_up: up.and_then(Milli::parse),
        tolerance_down: down.and_then(Milli::parse),
        ..HpaFacts::default()
    };
    let zero = Some("0");
    for (max, up, down, ceiling, expected) in [
        (20, zero, zero, 12, vec![]),
        (
            20,
            None,
            None,
            12,
            vec!["tolerance_above", "tolerance_below"],
        ),
        (12, None, None, 12, vec!["tolerance_below"]),
        (12, zero, None, 12, vec![]),
        (20, zero, None, 12, vec!["tolerance_above"]),
        // Below eleven, one replica is more than a tenth.
        (10, None, None, 10, vec![]),
        (11, None, None, 11, vec!["tolerance_below"]),
        (6, None, None, 12, vec![]),
        (
            5,
            Some("500m"),
            zero,
            3,
            vec!["tolerance_above", "tolerance_below"],
        ),
    ] {
        let found = of_tolerance(&facts(max, up, down), Replicas(ceiling));
        let labels: Vec<_> = found.iter().map(Finding::label).collect();
        assert_eq!(labels, expected, "{max} {up:?} {down:?} {ceiling}");
    }
}
