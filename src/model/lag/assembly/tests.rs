//! Sweeps in a row, and what is made of them.

use std::time::{Instant, SystemTime};

use super::*;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState, Member};
use crate::model::kafka::observation::{GroupObservation, PastEnds};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupTopic};
use crate::model::lag::lag_age::LagAge;
use crate::model::units::newtypes::{Isolation, Lag, Offset, TopicId};

fn at(seconds: u64) -> Moment {
    static ZERO: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(|| Moment {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH,
    });
    Moment {
        monotonic: ZERO.monotonic + Duration::from_secs(seconds),
        wall: ZERO.wall + Duration::from_secs(seconds),
    }
}

fn plan(group: &str) -> GroupPlan {
    GroupPlan::new(group, ["t".into()].into())
}

type Committed = Result<Option<i64>, Fault>;

fn observe(seconds: u64, group: &str, committed: &[Committed], ends: &[i64]) -> Observation {
    let committed = committed.iter().map(|c| c.map(|c| c.map(Offset))).collect();
    Observation {
        cluster: "c".into(),
        started: at(seconds),
        finished: at(seconds),
        topics: [(
            "t".into(),
            Ok(Arc::new(TopicOffsets {
                starts: ends.iter().map(|_| Ok(Offset(0))).collect(),
                ends: ends.iter().map(|e| Ok(Offset(*e))).collect(),
                ..TopicOffsets::default()
            })),
        )]
        .into(),
        groups: vec![GroupObservation {
            plan: plan(group),
            committed: Ok([("t".into(), committed)].into()),
            description: Err(Fault::Untold),
        }],
        connection: None,
        traffic: None,
    }
}

fn topic(snapshot: &ClusterSnapshot) -> &GroupTopic {
    &snapshot.groups["g"].topics["t"]
}

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
    assert!(topic.fresh(&at(30), Duration::from_secs(30)).is_some());
    assert!(topic.fresh(&at(31), Duration::from_secs(30)).is_none());
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
fn a_description_outlives_sweeps_that_bring_none() {
    let mut history = ClusterHistory::default();
    let mut told = observe(0, "g", &[Ok(Some(5))], &[10]);
    let description = Arc::new(GroupDescription {
        kind: GroupKind::Consumer,
        state: GroupState::Empty,
        assignor: Some("uniform".into()),
        members: Vec::new(),
        subtopologies: Vec::new(),
    });
    told.groups[0].description = Ok(Arc::clone(&description));
    history.apply(told, Scope::Whole);
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
fn a_running_group_reads_an_uncommitted_partition_from_where_it_was_first_seen() {
    let mut history = ClusterHistory::default();
    let total = |h: &mut ClusterHistory, o| {
        topic(&h.apply(o, Scope::Whole))
            .complete
            .as_ref()
            .unwrap()
            .total()
    };
    assert_eq!(
        total(
            &mut history,
            observe(0, "g", &[Ok(Some(10)), Ok(None)], &[10, 70])
        ),
        Ok(Lag(0))
    );
    assert_eq!(
        total(
            &mut history,
            observe(5, "g", &[Ok(Some(10)), Ok(None)], &[10, 100])
        ),
        Ok(Lag(30))
    );
    assert_eq!(
        total(
            &mut history,
            observe(9, "g", &[Ok(Some(10)), Ok(Some(90))], &[10, 100])
        ),
        Ok(Lag(10))
    );
}

#[test]
fn without_any_commit_it_never_ran() {
    let mut history = ClusterHistory::default();
    let snapshot = history.apply(
        observe(0, "g", &[Ok(None), Ok(None)], &[10, 70]),
        Scope::Whole,
    );
    assert!(topic(&snapshot).complete.as_ref().unwrap().never_ran());
}

#[test]
fn a_deleted_topic_forgets_what_was_known() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(5))], &[10]), Scope::Whole);
    let mut gone = observe(5, "g", &[], &[]);
    gone.topics.insert("t".into(), Err(Fault::TopicMissing));
    let snapshot = history.apply(gone, Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::TopicMissing));
    assert!(topic(&snapshot).complete.is_none());
}

#[test]
fn partitions_that_metadata_leaves_out_are_missed_for_a_while() {
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
fn a_discovered_topic_that_metadata_leaves_out_is_missed_for_a_while() {
    let discover = |seconds, gone: bool| {
        let mut read = observe(seconds, "g", &[Ok(Some(5))], &[10]);
        read.groups[0].plan.discover = true;
        read.groups[0].plan.topics.clear();
        if gone {
            read.topics.clear();
            read.groups[0].committed = Ok(BTreeMap::new());
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
fn a_partition_that_only_one_side_knows_is_unknown() {
    let mut history = ClusterHistory::default();
    let snapshot = history.apply(observe(0, "g", &[Ok(Some(5))], &[10, 10]), Scope::Whole);
    assert_eq!(topic(&snapshot).fault(), Some(Fault::NoAnswer));
}

#[test]
fn a_whole_sweep_drops_groups_nobody_wants_but_not_one_read_since() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "old", &[Ok(Some(1))], &[1]), Scope::Whole);
    history.apply(observe(7, "new", &[Ok(Some(1))], &[1]), Scope::Some);
    let snapshot = history.apply(observe(5, "g", &[Ok(Some(1))], &[1]), Scope::Whole);
    let names: Vec<_> = snapshot.groups.keys().map(GroupId::as_str).collect();
    assert_eq!(names, ["g", "new"]);
}

#[test]
fn an_older_reading_never_replaces_a_newer_one() {
    let mut history = ClusterHistory::default();
    history.apply(observe(7, "g", &[Ok(Some(9))], &[10]), Scope::Some);
    let snapshot = history.apply(observe(5, "g", &[Ok(Some(1))], &[10]), Scope::Whole);
    assert_eq!(
        topic(&snapshot).complete.as_ref().unwrap().total(),
        Ok(Lag(1))
    );
}

fn description(state: GroupState, assigned: &[i32]) -> Arc<GroupDescription> {
    let member = Member {
        id: "m".into(),
        instance: None,
        client: "c".into(),
        host: "/h".into(),
        subscribed: None,
        assigned: vec![("t".into(), assigned.to_vec())],
    };
    Arc::new(GroupDescription {
        kind: GroupKind::Classic,
        state,
        assignor: Some("sticky".into()),
        members: if assigned.is_empty() {
            Vec::new()
        } else {
            vec![member]
        },
        subtopologies: Vec::new(),
    })
}

/// A sweep of a stable group whose one member has every partition.
fn live(seconds: u64, committed: &[Committed], ends: &[i64]) -> Observation {
    let mut read = observe(seconds, "g", committed, ends);
    let all: Vec<i32> = (0..).take(ends.len()).collect();
    read.groups[0].description = Ok(description(GroupState::Stable, &all));
    read
}

/// The rules of the latest reading, and what it counts for scaling.
fn rules(snapshot: &ClusterSnapshot) -> (Vec<&'static str>, Result<Lag, Fault>) {
    let latest = topic(snapshot).latest.as_ref().unwrap();
    let rule =
        |lag: &Result<PartitionLag, Fault>| lag.map_or_else(Fault::label, PartitionLag::label);
    (latest.lags.iter().map(rule).collect(), latest.total())
}

/// Sweeps every five seconds, and what is known at the end.
fn sweeps(
    history: &mut ClusterHistory,
    seconds: std::ops::RangeInclusive<u64>,
    read: impl Fn(u64) -> Observation,
) -> Arc<ClusterSnapshot> {
    let mut last = Arc::default();
    for second in seconds.step_by(5) {
        last = history.apply(read(second), Scope::Whole);
    }
    last
}

#[test]
fn a_residue_counts_nothing_and_is_not_old() {
    let mut history = ClusterHistory::default();
    let read = |seconds| live(seconds, &[Ok(Some(98)), Ok(Some(100))], &[100, 100]);
    let before = sweeps(&mut history, 0..=295, read);
    assert_eq!(rules(&before), (vec!["measured"; 2], Ok(Lag(2))));
    let after = sweeps(&mut history, 300..=300, read);
    assert_eq!(rules(&after), (vec!["residual", "measured"], Ok(Lag(0))));
    let latest = topic(&after).latest.as_ref().unwrap();
    assert_eq!(latest.messages(), Ok(Lag(2)));
    assert_eq!(latest.age(), Some(LagAge::exactly(0)));
    let more = history.apply(
        live(305, &[Ok(Some(98)), Ok(Some(100))], &[101, 100]),
        Scope::Whole,
    );
    assert_eq!(rules(&more), (vec!["measured"; 2], Ok(Lag(3))));
}

#[test]
fn one_long_job_of_thirty_minutes_is_no_residue_and_keeps_its_group_up() {
    let mut history = ClusterHistory::default();
    let read = |seconds| live(seconds, &[Ok(Some(5))], &[20]);
    let after = sweeps(&mut history, 0..=1800, read);
    assert_eq!(rules(&after), (vec!["measured"], Ok(Lag(15))));
    assert!(!after.groups["g"].stuck);
}

#[test]
fn a_poison_partition_beside_healthy_ones_is_stuck() {
    for (counts, lag) in [(true, 40), (false, 1)] {
        let mut history = ClusterHistory::default();
        let read = |seconds: u64| {
            let healthy = i64::try_from(seconds).unwrap() + 50;
            let mut read = live(seconds, &[Ok(Some(10)), Ok(Some(healthy))], &[50, healthy]);
            read.groups[0].plan.rules.stuck_counts = counts;
            read
        };
        let before = sweeps(&mut history, 0..=295, read);
        assert_eq!(rules(&before), (vec!["measured"; 2], Ok(Lag(40))));
        let after = sweeps(&mut history, 300..=300, read);
        // It never lets the group go to zero.
        assert_eq!(rules(&after), (vec!["stuck", "measured"], Ok(Lag(lag))));
        assert!(!after.groups["g"].stuck);
    }
}

#[test]
fn a_group_that_is_stuck_as_a_whole_counts_in_full() {
    let mut history = ClusterHistory::default();
    let read = |seconds: u64| {
        let end = i64::try_from(seconds).unwrap() + 50;
        let mut read = live(seconds, &[Ok(Some(10)), Ok(Some(10))], &[end, end]);
        read.groups[0].plan.rules.stuck_counts = false;
        read
    };
    let after = sweeps(&mut history, 0..=300, read);
    assert!(after.groups["g"].stuck);
    assert_eq!(rules(&after), (vec!["stuck"; 2], Ok(Lag(680))));
}

#[test]
fn a_partition_with_a_member_and_no_commit_counts_from_where_it_was_first_seen() {
    let mut history = ClusterHistory::default();
    let none = [Ok(None), Ok(None)];
    let away = history.apply(observe(0, "g", &none, &[10, 70]), Scope::Whole);
    assert_eq!(rules(&away).0, ["never_ran"; 2]);
    let mut one = live(5, &none, &[20, 80]);
    one.groups[0].description = Ok(description(GroupState::Stable, &[1]));
    let there = history.apply(one, Scope::Whole);
    assert_eq!(rules(&there).0, ["never_ran", "since_seen"]);
    let later = history.apply(observe(10, "g", &none, &[30, 95]), Scope::Whole);
    assert_eq!(
        rules(&later),
        (vec!["never_ran", "since_seen"], Ok(Lag(15)))
    );
}

#[test]
fn a_reader_of_committed_records_is_measured_by_the_last_stable_offset() {
    let mut history = ClusterHistory::default();
    let mut read = |seconds, stable: Option<i64>| {
        let mut read = observe(seconds, "g", &[Ok(Some(5))], &[100]);
        read.groups[0].plan.isolation = Isolation::ReadCommitted;
        let mut offsets = (**read.topics["t"].as_ref().unwrap()).clone();
        offsets.stable = stable.map(|stable| vec![Ok(Offset(stable))]);
        read.topics.insert("t".into(), Ok(Arc::new(offsets)));
        rules(&history.apply(read, Scope::Whole))
    };
    assert_eq!(read(0, Some(60)), (vec!["measured"], Ok(Lag(55))));
    assert_eq!(read(5, Some(4)), (vec!["beyond_stable"], Ok(Lag(0))));
    assert_eq!(read(10, None), (vec!["untold"], Err(Fault::Untold)));
}

#[test]
fn a_topic_that_another_group_saw_made_anew_is_so_for_all() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(5))], &[100]), Scope::Some);
    for seconds in [5, 10] {
        history.apply(observe(seconds, "other", &[Ok(Some(1))], &[9]), Scope::Some);
    }
    let after = history.apply(observe(15, "g", &[Ok(Some(5))], &[9]), Scope::Some);
    assert_eq!(rules(&after).0, ["log_replaced"]);
    // Its last complete reading is served until it is stale, as with any unknown.
    let complete = topic(&after).fresh(&at(30), Duration::from_secs(30));
    assert_eq!(complete.unwrap().total(), Ok(Lag(95)));
}

#[test]
fn a_commit_that_vanished_is_not_discovered_and_yet_asked_for() {
    let discover = |seconds, committed: Option<Committed>| {
        let mut read = observe(seconds, "g", committed.as_slice(), &[10]);
        read.groups[0].plan.discover = true;
        read.groups[0].plan.topics.clear();
        if committed.is_none() {
            read.groups[0].committed = Ok(BTreeMap::new());
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

/// Another process, that knows what this one exports at `seconds`.
fn restarted(history: &mut ClusterHistory, seconds: u64) -> ClusterHistory {
    let json = serde_json::to_string(&history.export(&at(seconds))).unwrap();
    let mut after = ClusterHistory::default();
    let memory = serde_json::from_str(&json).unwrap();
    let saved = u32::try_from(seconds).unwrap();
    after.import(&memory, saved, &at(seconds + 60));
    after
}

#[test]
fn after_a_restart_what_is_stuck_is_stuck_and_a_residue_a_residue() {
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
    // What comes to be known after the first sweep counts as well.
    fresh.import(&history.export(&at(1300)), 1300, &at(1362));
    let snapshot = fresh.apply(read(1365), Scope::Whole);
    assert_eq!(rules(&snapshot).0, expected);
}

#[test]
fn after_a_restart_a_forgotten_commit_is_known_and_a_topic_made_anew_is_seen() {
    let with_id = |mut read: Observation, id: u8| {
        let mut offsets = (**read.topics["t"].as_ref().unwrap()).clone();
        offsets.id = Some(TopicId([id; 16]));
        read.topics.insert("t".into(), Ok(Arc::new(offsets)));
        read
    };
    let read = |seconds, commit| with_id(observe(seconds, "g", &[Ok(commit)], &[10]), 1);
    let mut history = ClusterHistory::default();
    history.apply(read(1000, Some(4)), Scope::Whole);
    // The whole sweeps before anybody has asked for the group do not lose it.
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
fn lag_in_time_is_known_once_the_samples_reach_back() {
    let mut history = ClusterHistory::default();
    // One message a second; the group is ten seconds behind.
    let read = |seconds: u64| {
        let end = i64::try_from(seconds).unwrap();
        observe(seconds, "g", &[Ok(Some((end - 10).max(0)))], &[end])
    };
    let age = |snapshot: &ClusterSnapshot| topic(snapshot).latest.as_ref().unwrap().age();
    let bound = sweeps(&mut history, 100..=105, read);
    assert_eq!(age(&bound), Some(LagAge::at_least(5000)));
    let exact = sweeps(&mut history, 110..=120, read);
    assert_eq!(age(&exact), Some(LagAge::exactly(10_000)));
}

#[test]
fn where_the_log_ended_a_while_ago_makes_lag_in_time_known_at_once() {
    let mut read = observe(1000, "g", &[Ok(Some(75))], &[100]);
    let mut offsets = (**read.topics["t"].as_ref().unwrap()).clone();
    offsets.past = Some(PastEnds {
        ago: Duration::from_secs(600),
        ends: vec![Some(Offset(50))],
    });
    read.topics.insert("t".into(), Ok(Arc::new(offsets)));
    let snapshot = ClusterHistory::default().apply(read, Scope::Whole);
    let age = topic(&snapshot).latest.as_ref().unwrap().age();
    assert_eq!(age, Some(LagAge::exactly(300_000)));
}

#[test]
fn nothing_is_remembered_of_what_nobody_asks_about_for_long() {
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
