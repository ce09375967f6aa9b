//! Readings that fail or leave something out, and readings out of order.

use super::*;

#[test]
fn a_partial_reading_keeps_the_last_complete_one() {
    let mut history = ClusterHistory::default();
    history.apply(
        observe(0, "g", &[Ok(Some(5)), Ok(Some(5))], &[10, 10]),
        Scope::Whole,
    );
    let snapshot = history.apply(
        observe(5, "g", &[Ok(Some(10)), Err(Fault::NoAnswer)], &[10, 10]),
        Scope::Whole,
    );
    let topic = topic(&snapshot);
    assert_eq!(topic.fault(), Some(Fault::NoAnswer));
    assert_eq!(topic.complete.as_ref().unwrap().total(), Ok(Lag(10)));
    assert_eq!(topic.complete.as_ref().unwrap().read, at(0));
}

#[test]
fn a_fault_of_the_whole_group_keeps_the_last_complete_reading() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(5))], &[10]), Scope::Whole);
    let mut failed = observe(5, "g", &[], &[]);
    failed.topics.clear();
    failed.groups[0].committed = Err(Fault::Unreachable);
    let snapshot = history.apply(failed, Scope::Whole);
    assert_eq!(snapshot.groups["g"].fault, Some(Fault::Unreachable));
    assert_eq!(topic(&snapshot).fault(), Some(Fault::Unreachable));
    assert_eq!(
        topic(&snapshot).complete.as_ref().unwrap().total(),
        Ok(Lag(5))
    );
}

#[test]
fn the_last_description_outlives_failed_ones() {
    let mut history = ClusterHistory::default();
    let mut described = observe(0, "g", &[Ok(Some(5))], &[10]);
    let description = Arc::new(GroupDescription {
        kind: GroupKind::Consumer,
        state: GroupState::Empty,
        assignor: Some("uniform".into()),
        members: Vec::new(),
        omitted_members: 0,
        subtopologies: Vec::new(),
    });
    described.groups[0].description = Ok(Arc::clone(&description));
    history.apply(described, Scope::Whole);
    let mut failed = observe(5, "g", &[], &[]);
    failed.groups[0].committed = Err(Fault::Unreachable);
    for silent in [failed, observe(9, "g", &[Ok(Some(5))], &[10])] {
        let snapshot = history.apply(silent, Scope::Whole);
        let kept = snapshot.groups["g"].description.as_ref();
        assert_eq!(kept, Some(&description));
    }
}

#[test]
fn a_group_that_never_answered_is_unknown_not_absent() {
    let mut history = ClusterHistory::default();
    let mut failed = observe(0, "g", &[], &[]);
    failed.groups[0].committed = Err(Fault::Login);
    let snapshot = history.apply(failed, Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::Login));
    assert!(topic(&snapshot).complete.is_none());
}

#[test]
fn a_deleted_topic_drops_the_last_complete_reading() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(5))], &[10]), Scope::Whole);
    let mut gone = observe(5, "g", &[], &[]);
    gone.topics.insert("t".into(), Err(Fault::TopicMissing));
    let snapshot = history.apply(gone, Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::TopicMissing));
    assert!(topic(&snapshot).complete.is_none());
}

#[test]
fn partitions_missing_from_the_metadata_are_unknown_until_the_grace_period_ends() {
    let mut history = ClusterHistory::default();
    let two = [Ok(Some(5)), Ok(Some(5))];
    history.apply(observe(0, "g", &two, &[10, 10]), Scope::Whole);
    let snapshot = history.apply(observe(5, "g", &two[..1], &[10]), Scope::Whole);
    let lag = topic(&snapshot).complete.as_ref().unwrap().total();
    assert_eq!(
        (topic(&snapshot).fault(), lag),
        (Some(Fault::NoAnswer), Ok(Lag(10)))
    );
    let snapshot = history.apply(observe(60, "g", &two[..1], &[10]), Scope::Whole);
    let lag = topic(&snapshot).complete.as_ref().unwrap().total();
    assert_eq!((topic(&snapshot).fault(), lag), (None, Ok(Lag(5))));
}

#[test]
fn a_recreated_topic_may_have_fewer_partitions() {
    let read = |seconds, id: u8, committed: &[Committed], ends: &[i64]| {
        let mut read = observe(seconds, "g", committed, ends);
        let offsets = read.topics.get_mut("t").unwrap().as_mut().unwrap();
        Arc::get_mut(offsets).unwrap().id = Some(TopicId([id; 16]));
        read
    };
    let of = |snapshot: &ClusterSnapshot| {
        let complete = topic(snapshot).complete.as_ref();
        (topic(snapshot).fault(), complete.map(|lag| lag.total()))
    };
    let two: &[Committed] = &[Ok(Some(5)), Ok(Some(5))];
    let cases: [(&[Committed], _); 2] = [
        (&[Ok(None)], (None, Some(Ok(Lag(0))))),
        // The reading of the other topic is not served for this one.
        (&[Err(Fault::NoAnswer)], (Some(Fault::NoAnswer), None)),
    ];
    for (committed, expected) in cases {
        let mut history = ClusterHistory::default();
        let snapshot = history.apply(read(0, 1, two, &[10, 10]), Scope::Whole);
        assert_eq!(of(&snapshot), (None, Some(Ok(Lag(10)))));
        let snapshot = history.apply(read(5, 2, committed, &[40]), Scope::Whole);
        assert_eq!(of(&snapshot), expected);
        // The same ID, and one partition less: an incomplete answer.
        let mut history = ClusterHistory::default();
        history.apply(read(0, 1, two, &[10, 10]), Scope::Whole);
        let snapshot = history.apply(read(5, 1, committed, &[40]), Scope::Whole);
        assert_eq!(of(&snapshot), (Some(Fault::NoAnswer), Some(Ok(Lag(10)))));
    }
}

#[test]
fn a_discovered_topic_missing_from_the_metadata_is_unknown_until_the_grace_period_ends() {
    let discover = |seconds, gone: bool| {
        let mut read = observe(seconds, "g", &[Ok(Some(5))], &[10]);
        read.groups[0].plan.discover = true;
        read.groups[0].plan.topics = Arc::default();
        if gone {
            read.topics.clear();
            read.groups[0].committed = Ok(TopicMap::default());
        }
        read
    };
    let mut history = ClusterHistory::default();
    history.apply(discover(0, false), Scope::Whole);
    let snapshot = history.apply(discover(59, true), Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::NoAnswer));
    assert_eq!(
        topic(&snapshot).complete.as_ref().unwrap().total(),
        Ok(Lag(5))
    );
    let snapshot = history.apply(discover(60, true), Scope::Whole);
    assert!(snapshot.groups["g"].topics.is_empty());
}

#[test]
fn a_partition_without_a_commit_reading_is_unknown() {
    let mut history = ClusterHistory::default();
    let snapshot = history.apply(observe(0, "g", &[Ok(Some(5))], &[10, 10]), Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::NoAnswer));
}

#[test]
fn a_whole_sweep_drops_unplanned_groups_unless_they_were_read_later() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "old", &[Ok(Some(1))], &[1]), Scope::Whole);
    history.apply(observe(7, "new", &[Ok(Some(1))], &[1]), Scope::Partial);
    let snapshot = history.apply(observe(5, "g", &[Ok(Some(1))], &[1]), Scope::Whole);
    let names: Vec<_> = snapshot.groups.keys().map(GroupId::as_str).collect();
    assert_eq!(names, ["g", "new"]);
}

#[test]
fn an_older_reading_never_replaces_a_newer_one() {
    let mut history = ClusterHistory::default();
    history.apply(observe(7, "g", &[Ok(Some(9))], &[10]), Scope::Partial);
    let snapshot = history.apply(observe(5, "g", &[Ok(Some(1))], &[10]), Scope::Whole);
    assert_eq!(
        topic(&snapshot).complete.as_ref().unwrap().total(),
        Ok(Lag(1))
    );
}

#[test]
fn a_topic_whose_commit_disappeared_is_added_to_the_plan() {
    let discover = |seconds, committed: Option<Committed>| {
        let mut read = observe(seconds, "g", committed.as_slice(), &[10]);
        read.groups[0].plan.discover = true;
        read.groups[0].plan.topics = Arc::default();
        if committed.is_none() {
            read.groups[0].committed = Ok(TopicMap::default());
        }
        read
    };
    let mut history = ClusterHistory::default();
    let mut plan = [GroupPlan::new("g", BTreeSet::new())];
    history.apply(discover(0, Some(Ok(Some(5)))), Scope::Whole);
    history.add_forgotten_topics(&mut plan);
    assert!(plan[0].topics.is_empty());
    let gone = history.apply(discover(5, None), Scope::Whole);
    assert_eq!(topic(&gone).fault(), Some(Fault::NoAnswer));
    history.add_forgotten_topics(&mut plan);
    assert!(plan[0].topics.contains("t") && plan[0].discover);
    let named = history.apply(discover(10, Some(Ok(None))), Scope::Whole);
    assert_eq!(rules(&named), (vec!["forgotten"], Ok(Lag(5))));
    assert!(topic(&named).may_have_commits());
    let mut plan = [GroupPlan::new("g", BTreeSet::new())];
    history.add_forgotten_topics(&mut plan);
    assert!(plan[0].topics.contains("t"));
}
