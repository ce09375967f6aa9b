//! Assignor and subscriptions that are remembered while members do not report them.

use super::*;
use crate::model::lag::subscription::{MAX_REMEMBERED_TOPICS, Subscription};

#[test]
fn the_last_assignor_seen_is_remembered() {
    let seen = description(Classic, Some("cooperative-sticky"), 3);
    let empty = description(Classic, None, 0);
    let both = [topic(12), topic(4)];
    assert_eq!(
        found(&[seen, empty], &both, By::Partitions),
        bounded(16, AllTopics)
    );
}

#[test]
fn remembered_facts_survive_a_restart() {
    let mut seen = description(Classic, Some("sticky"), 1);
    seen.members = vec![member(Some(&["a", "b"]), &["a"])];
    let remembered = RememberedGroup::default().after(&seen);
    let text = serde_json::to_string(&remembered).unwrap();
    let restored: RememberedGroup = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, remembered);
    assert_eq!(
        restored.reads,
        Some(["a".to_owned(), "b".to_owned()].into())
    );
}

#[test]
fn a_subscription_is_complete_if_every_member_reports_or_was_assigned_its_own() {
    let mut group = description(Consumer, Some("uniform"), 0);
    assert_eq!(Subscription::of(&group), Subscription::default());
    let named = |topic, assigned| member(Some(&[topic]), assigned);
    let by_pattern = |assigned| member(None, assigned);
    for (kind, members, topics, is_all) in [
        (
            Consumer,
            vec![named("a", &[]), named("b", &["b"])],
            &["a", "b"][..],
            true,
        ),
        // The broker assigned everything that the pattern matches.
        (
            Consumer,
            vec![named("a", &[]), by_pattern(&["c"])],
            &["a", "c"],
            true,
        ),
        (Consumer, vec![member(Some(&[]), &["c"])], &["c"], true),
        // More members than partitions.
        (
            Consumer,
            vec![by_pattern(&[]), by_pattern(&["c", "d"]), by_pattern(&[])],
            &["c", "d"],
            true,
        ),
        // The pattern has not been evaluated yet, or matches nothing.
        (Consumer, vec![by_pattern(&[])], &[], false),
        (
            Consumer,
            vec![named("a", &["a"]), by_pattern(&[])],
            &["a"],
            false,
        ),
        // A client's own protocol: its assignment need not be all that it reads.
        (Classic, vec![by_pattern(&["c"])], &["c"], false),
    ] {
        group.kind = kind;
        group.members = members;
        let expected = Subscription {
            topics: topics.iter().map(|t| TopicName::from(*t)).collect(),
            is_all,
        };
        assert_eq!(Subscription::of(&group), expected);
        let remembered = RememberedGroup::default().after(&group);
        assert_eq!(remembered.reads.is_some(), is_all);
    }
    group.kind = Consumer;
    let many: Vec<String> = (0..=MAX_REMEMBERED_TOPICS)
        .map(|i| format!("t{i}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    group.members = vec![member(Some(&many), &[])];
    assert_eq!(RememberedGroup::default().after(&group).reads, None);
}

#[test]
fn subscriptions_are_remembered_while_members_do_not_report_them() {
    let with = |state, members| GroupDescription {
        state,
        members,
        ..description(Classic, Some("range"), 0)
    };
    let reported = with(GroupState::Stable, vec![member(Some(&["a", "b"]), &["a"])]);
    let known = RememberedGroup::default().after(&reported);
    for (what, next, reads) in [
        (
            "a rebalance",
            with(GroupState::Rebalancing, vec![member(None, &[])]),
            Some(&["a", "b"][..]),
        ),
        (
            "a rebalance in which one member reports its topics",
            with(
                GroupState::Rebalancing,
                vec![member(Some(&["c"]), &[]), member(None, &[])],
            ),
            Some(&["a", "b", "c"]),
        ),
        (
            "no members",
            with(GroupState::Empty, vec![]),
            Some(&["a", "b"]),
        ),
        (
            "others",
            with(GroupState::Stable, vec![member(Some(&["c"]), &[])]),
            Some(&["c"]),
        ),
        (
            "members that never report their topics",
            with(GroupState::Stable, vec![member(None, &[])]),
            None,
        ),
    ] {
        let reads = reads.map(|reads| reads.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(known.after(&next).reads, reads, "{what}");
        // Over a restart, whatever is seen first.
        let restarted = RememberedGroup::default().after(&next).or(&known);
        let expected = match what {
            "others" => reads,
            _ => known.reads.clone(),
        };
        assert_eq!(restarted.reads, expected, "{what}, after a restart");
    }
}
