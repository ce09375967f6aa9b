//! Each row of the table of useful parallelism.

mod remembered;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::kafka::group::Member;
use crate::model::lag::subscription::RememberedGroup;

fn member(subscribed: Option<&[&str]>, assigned: &[&str]) -> Member {
    let name = |topic: &&str| TopicName::from(*topic);
    Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/10.0.0.1".into(),
        subscribed: subscribed.map(|topics| topics.iter().map(name).collect()),
        assigned: assigned.iter().map(|t| (name(t), vec![0])).collect(),
    }
}

fn description(kind: GroupKind, assignor: Option<&str>, members: usize) -> GroupDescription {
    GroupDescription {
        kind,
        state: if members > 0 {
            GroupState::Stable
        } else {
            GroupState::Unjoined
        },
        assignor: assignor.map(Arc::from),
        members: vec![member(Some(&["t0"]), &["t0"]); members],
        omitted_members: 0,
        subtopologies: Vec::new(),
    }
}

fn streams(parts: &[&[Option<u32>]]) -> GroupDescription {
    let part = |(i, sources): (usize, &&[Option<u32>])| Subtopology {
        id: i.to_string().into(),
        sources: sources
            .iter()
            .enumerate()
            .map(|(j, count)| (TopicName::from(format!("t{}", i + j)), *count))
            .collect(),
    };
    GroupDescription {
        subtopologies: parts.iter().enumerate().map(part).collect(),
        ..description(GroupKind::Streams, None, 1)
    }
}

fn topic(partitions: u32) -> TopicWork {
    TopicWork {
        partitions,
        committed: partitions,
        lagging: partitions,
    }
}

/// Described so one after the other, reading these topics.
fn found(descriptions: &[GroupDescription], topics: &[TopicWork], by: By) -> Parallelism {
    let names: Vec<_> = (0..topics.len())
        .map(|i| TopicName::from(format!("t{i}")))
        .collect();
    let topics: Vec<_> = names.iter().zip(topics.iter().copied()).collect();
    let mut remembered = RememberedGroup::default();
    for description in descriptions {
        remembered = remembered.after(description);
    }
    let work = GroupWork {
        remembered: &remembered,
        description: descriptions.last(),
        topics: &topics,
        filter: None,
    };
    useful_parallelism(&work, by)
}

use GroupKind::{Classic, Consumer, Share, Streams};

use ParallelismRule::{
    AllTopics, AssignorUnknown, Lagging, LargestTopic, ManualAssignment, OneTopic, Shared, Tasks,
};

#[test]
fn one_topic_allows_its_partitions() {
    for descriptions in [
        vec![],
        vec![description(Classic, Some("range"), 2)],
        vec![description(Consumer, Some("uniform"), 2)],
    ] {
        assert_eq!(
            found(&descriptions, &[topic(12)], By::Partitions),
            bounded(12, OneTopic)
        );
    }
    assert_eq!(found(&[], &[], By::Partitions), bounded(0, OneTopic));
}

#[test]
fn several_topics_under_range_allow_the_largest_partition_count() {
    let both = [topic(12), topic(4)];
    for kind in [Classic, Consumer] {
        let descriptions = [description(kind, Some("range"), 2)];
        assert_eq!(
            found(&descriptions, &both, By::Partitions),
            bounded(12, LargestTopic)
        );
    }
}

#[test]
fn an_unknown_assignor_counts_as_range() {
    let both = [topic(12), topic(4)];
    for descriptions in [
        vec![],
        vec![description(Classic, None, 1)],
        vec![description(Consumer, None, 0)],
        vec![description(Classic, Some("com.example.Own"), 1)],
        vec![description(Classic, Some("stream"), 1)],
    ] {
        let expected = bounded(12, AssignorUnknown);
        assert_eq!(
            found(&descriptions, &both, By::Partitions),
            expected,
            "{descriptions:?}"
        );
    }
}

#[test]
fn assignors_that_spread_all_topics_allow_the_sum_of_partitions() {
    for (kind, assignor) in [
        (Classic, "roundrobin"),
        (Classic, "sticky"),
        (Classic, "cooperative-sticky"),
        (Consumer, "uniform"),
    ] {
        let descriptions = [description(kind, Some(assignor), 1)];
        let both = [topic(12), topic(4)];
        assert_eq!(
            found(&descriptions, &both, By::Partitions),
            bounded(16, AllTopics),
            "{assignor}"
        );
    }
}

#[test]
fn manual_assignment_allows_the_partitions_with_commits() {
    let some = TopicWork {
        committed: 3,
        ..topic(12)
    };
    let descriptions = [description(Classic, None, 0)];
    assert_eq!(
        found(&descriptions, &[some, topic(4)], By::Partitions),
        bounded(7, ManualAssignment)
    );
    // A group that never had a member nor a commit has not run yet.
    let none = TopicWork {
        committed: 0,
        ..topic(12)
    };
    assert_eq!(
        found(&descriptions, &[none], By::Partitions),
        bounded(12, OneTopic)
    );
    // A group that had a member does not assign by hand. A client that does not describe groups leaves it unknown.
    let had = [
        description(Classic, Some("sticky"), 1),
        descriptions[0].clone(),
    ];
    assert_eq!(
        found(&had, &[some, topic(4)], By::Partitions),
        bounded(16, AllTopics)
    );
    assert_eq!(found(&[], &[some], By::Partitions), bounded(12, OneTopic));
    // The same holds for a group whose members had all left before it was first read.
    let left = GroupDescription {
        state: GroupState::Empty,
        ..description(Classic, None, 0)
    };
    assert_eq!(
        found(&[left], &[some], By::Partitions),
        bounded(12, OneTopic)
    );
}

#[test]
fn a_streams_group_allows_its_tasks() {
    for (parts, expected) in [
        (
            vec![&[Some(6), Some(4)][..], &[Some(8)]],
            bounded(14, Tasks),
        ),
        // The count of t1 is not reported there, and is known from reading it.
        (vec![&[Some(6)][..], &[None]], bounded(10, Tasks)),
        (vec![&[Some(6)][..], &[Some(8), None]], bounded(14, Tasks)),
        (
            vec![&[Some(6)][..], &[None, None]],
            bounded(6, AssignorUnknown),
        ),
        (vec![], bounded(6, AssignorUnknown)),
    ] {
        let topics = [topic(6), topic(4)];
        let topics = if parts.get(1).is_some_and(|p| p.len() == 2 && p[0].is_some()) {
            vec![topic(6), topic(4), topic(1)]
        } else {
            topics.into()
        };
        assert_eq!(
            found(&[streams(&parts)], &topics, By::Partitions),
            expected,
            "{parts:?}"
        );
    }
}

#[test]
fn a_share_group_has_no_limit() {
    let descriptions = [description(Share, Some("simple"), 9)];
    for by in [By::Partitions, By::Lagging] {
        let expected = Parallelism {
            limit: Limit::Unbounded,
            rule: Shared,
        };
        assert_eq!(found(&descriptions, &[topic(3)], by), expected);
    }
}

#[test]
fn by_lagging_allows_the_partitions_with_lag_and_at_least_one() {
    let lagging = |n| TopicWork {
        lagging: n,
        ..topic(8)
    };
    for (n, expected) in [
        (0, bounded(1, Lagging)),
        (1, bounded(1, Lagging)),
        (5, bounded(5, Lagging)),
        (8, bounded(8, OneTopic)),
    ] {
        assert_eq!(found(&[], &[lagging(n)], By::Lagging), expected);
    }
    // Never above the limit of the assignor.
    let descriptions = [description(Classic, Some("range"), 1)];
    assert_eq!(
        found(&descriptions, &[topic(12), topic(4)], By::Lagging),
        bounded(12, LargestTopic)
    );
}

#[test]
fn threads_share_the_parallelism() {
    let threads = |k| NonZeroU32::new(k).unwrap();
    for (most, k, ceiling) in [(12, 1, 12), (12, 4, 3), (13, 4, 4), (3, 8, 1), (0, 2, 0)] {
        let of = bounded(most, OneTopic).ceiling(threads(k));
        assert_eq!(of, Limit::Bounded(Replicas(ceiling)), "{most} by {k}");
    }
    let shared = Parallelism {
        limit: Limit::Unbounded,
        rule: Shared,
    };
    assert_eq!(shared.ceiling(threads(3)), Limit::Unbounded);
}

fn described() -> impl Strategy<Value = GroupDescription> {
    let kinds = prop_oneof![Just(Classic), Just(Consumer), Just(Streams)];
    let assignors = proptest::sample::select(vec![
        None,
        Some("range"),
        Some("roundrobin"),
        Some("uniform"),
        Some("own"),
    ]);
    (kinds, assignors, 0usize..3).prop_map(|(kind, name, n)| description(kind, name, n))
}

proptest! {
    #[test]
    fn parallelism_stays_between_the_largest_topic_and_all_partitions(
        descriptions in proptest::collection::vec(described(), 0..3),
        topics in proptest::collection::vec((1u32..500, 0u32..500, 0u32..500), 1..5),
        threads in 1u32..9,
        lagging: bool,
    ) {
        let topics: Vec<_> = topics
            .into_iter()
            .map(|(partitions, committed, lagging)| TopicWork {
                partitions,
                committed: committed.min(partitions),
                lagging: lagging.min(partitions),
            })
            .collect();
        let by = if lagging { By::Lagging } else { By::Partitions };
        let found = found(&descriptions, &topics, by);
        let all: u32 = topics.iter().map(|t| t.partitions).sum();
        let most = found.limit.bounded().unwrap();
        prop_assert!((1..=all).contains(&most), "{:?}", found);
        let ceiling = found.ceiling(NonZeroU32::new(threads).unwrap()).bounded().unwrap();
        prop_assert!(ceiling <= all && ceiling * threads >= most);
    }
}
