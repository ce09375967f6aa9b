//! History that survives a restart, and history that is dropped.

use super::*;

/// A new process that imports what this one exports at `seconds`.
fn restarted(history: &mut ClusterHistory, seconds: u64) -> ClusterHistory {
    let json = serde_json::to_string(&history.export(&at(seconds))).unwrap();
    let mut after = ClusterHistory::default();
    let memory = serde_json::from_str(&json).unwrap();
    let saved = u32::try_from(seconds).unwrap();
    after.import(&memory, saved, &at(seconds + 60));
    after
}

#[test]
fn stuck_and_residual_partitions_stay_so_after_a_restart() {
    let read = |seconds: u64| {
        let healthy = i64::try_from(seconds).unwrap() + 50;
        let commits = [Ok(Some(10)), Ok(Some(healthy)), Ok(Some(98))];
        live(seconds, &commits, &[50, healthy, 100])
    };
    let mut history = ClusterHistory::default();
    let before = sweeps(&mut history, 1000..=1300, read);
    let expected = ["stuck", "measured", "residual"];
    assert_eq!(rules(&before).0, expected);
    let mut fresh = ClusterHistory::default();
    let snapshot = fresh.apply(read(1360), Scope::Whole);
    assert_eq!(rules(&snapshot).0, ["measured"; 3]);
    let snapshot = restarted(&mut history, 1300).apply(read(1360), Scope::Whole);
    assert_eq!(rules(&snapshot).0, expected);
    assert_eq!(
        snapshot.groups["g"].remembered.assignor.as_deref(),
        Some("sticky")
    );
    // A history that is loaded after the first sweep counts as well.
    fresh.import(&history.export(&at(1300)), 1300, &at(1362));
    let snapshot = fresh.apply(read(1365), Scope::Whole);
    assert_eq!(rules(&snapshot).0, expected);
}

#[test]
fn residues_of_a_group_at_zero_stay_so_after_a_restart() {
    let asleep = |seconds, end| {
        let mut read = observe(seconds, "g", &[Ok(Some(98)), Ok(Some(7))], &[end, 7]);
        read.groups[0].description = Ok(description(GroupState::Empty, &[]));
        read
    };
    let mut history = ClusterHistory::default();
    sweeps(&mut history, 1000..=1300, |seconds| {
        live(seconds, &[Ok(Some(98)), Ok(Some(7))], &[100, 7])
    });
    history.apply(asleep(1330, 100), Scope::Whole);
    for (end, expected) in [(100, "residual"), (101, "measured")] {
        let snapshot = restarted(&mut history, 1330).apply(asleep(1390, end), Scope::Whole);
        assert_eq!(rules(&snapshot).0, [expected, "measured"], "{end}");
    }
    let mut fresh = ClusterHistory::default();
    let snapshot = fresh.apply(asleep(1390, 100), Scope::Whole);
    assert_eq!(
        rules(&snapshot).0,
        ["measured", "measured"],
        "nothing shows what it is"
    );
}

#[test]
fn forgotten_commits_and_recreated_topics_are_recognised_after_a_restart() {
    let with_id = |mut read: Observation, id: u8| {
        let mut offsets = (**read.topics["t"].as_ref().unwrap()).clone();
        offsets.id = Some(TopicId([id; 16]));
        read.topics.insert("t".into(), Ok(Arc::new(offsets)));
        read
    };
    let read = |seconds, commit| with_id(observe(seconds, "g", &[Ok(commit)], &[10]), 1);
    let mut history = ClusterHistory::default();
    history.apply(read(1000, Some(4)), Scope::Whole);
    // Whole sweeps before the first request for the group do not drop it.
    let mut nobody = observe(1060, "g", &[], &[]);
    nobody.groups.clear();
    let mut vanished = restarted(&mut history, 1000);
    vanished.apply(nobody, Scope::Whole);
    let snapshot = vanished.apply(read(1065, None), Scope::Whole);
    assert_eq!(rules(&snapshot), (vec!["forgotten"], Ok(Lag(6))));
    let mut again = restarted(&mut vanished, 1065);
    let snapshot = again.apply(read(1130, None), Scope::Whole);
    assert_eq!(rules(&snapshot), (vec!["forgotten"], Ok(Lag(6))));
    let anew = with_id(observe(1130, "g", &[Ok(Some(4))], &[10]), 2);
    let snapshot = restarted(&mut history, 1000).apply(anew.clone(), Scope::Whole);
    assert_eq!(rules(&snapshot).0, ["log_replaced"]);
    // Also where the memory comes late.
    let mut late = ClusterHistory::default();
    late.apply(anew.clone(), Scope::Whole);
    late.import(&history.export(&at(1000)), 1000, &at(1131));
    let snapshot = late.apply(anew, Scope::Whole);
    assert_eq!(rules(&snapshot).0, ["log_replaced"]);
}

#[test]
fn history_of_unplanned_groups_and_topics_is_dropped_in_the_end() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "old", &[Ok(Some(1))], &[1]), Scope::Whole);
    for (seconds, remembered) in [(3599, true), (3700, false)] {
        let mut nobody = observe(seconds, "g", &[], &[]);
        nobody.groups.clear();
        nobody.topics.clear();
        history.apply(nobody, Scope::Whole);
        assert_eq!(history.groups.contains_key("old"), remembered, "{seconds}");
        assert_eq!(history.logs.contains_key("t"), remembered, "{seconds}");
    }
}

#[test]
fn of_many_unrequested_groups_the_latest_are_kept() {
    let mut history = ClusterHistory::default();
    let partitions = vec![Ok(Some(1)); 1000];
    // Each sweep has another group, as when an HPA is changed again and again.
    for i in 0..150u64 {
        let read = observe(i, &format!("g{i:03}"), &partitions, &[2; 1000]);
        history.apply(read, Scope::Whole);
    }
    history.apply(observe(300, "last", &partitions, &[2; 1000]), Scope::Whole);
    let kept: Vec<_> = history.groups.keys().map(GroupId::as_str).collect();
    assert_eq!(kept.len(), 101, "{kept:?}");
    assert_eq!((kept[0], kept[99], kept[100]), ("g050", "g149", "last"));
}

#[test]
fn data_of_a_group_over_budget_is_dropped() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(1))], &[2]), Scope::Whole);
    let mut refused = observe(5, "g", &[Ok(Some(1))], &[2]);
    refused.groups[0].committed = Err(Fault::OverBudget);
    let snapshot = history.apply(refused, Scope::Whole);
    let topic = &snapshot.groups["g"].topics["t"];
    assert_eq!(topic.fault(), Some(Fault::OverBudget));
    assert!(topic.complete.is_none());
    assert!(history.groups[&GroupId::from("g")].topics.is_empty());
}
