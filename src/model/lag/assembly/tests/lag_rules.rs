//! The rules of lag as they follow from several sweeps.

use super::*;
use crate::model::lag::group_figures::GroupFigures;
use crate::model::units::partition_filter::PartitionFilter;

#[test]
fn a_running_group_starts_at_the_end_first_seen_of_a_partition_without_a_commit() {
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
fn a_group_without_any_commit_never_ran() {
    let mut history = ClusterHistory::default();
    let snapshot = history.apply(
        observe(0, "g", &[Ok(None), Ok(None)], &[10, 70]),
        Scope::Whole,
    );
    assert!(
        topic(&snapshot)
            .complete
            .as_ref()
            .unwrap()
            .summary
            .never_ran
    );
}

#[test]
fn residual_lag_counts_as_zero_and_has_no_age() {
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

/// A sweep of every topic of a group with these commits, whose member reads the topics named.
fn sweep_topics(seconds: u64, reads: Option<&[&str]>, commits: &[(&str, i64)]) -> Observation {
    let mut read = observe(seconds, "g", &[], &[]);
    let offsets = Arc::clone(
        observe(seconds, "g", &[Ok(None)], &[100]).topics["t"]
            .as_ref()
            .unwrap(),
    );
    let column = |offset: i64| std::iter::once(Ok(Some(Offset(offset)))).collect();
    read.topics = commits
        .iter()
        .map(|(t, _)| ((*t).into(), Ok(Arc::clone(&offsets))))
        .collect();
    let group = &mut read.groups[0];
    group.plan = GroupPlan::new("g", std::collections::BTreeSet::new());
    group.committed = Ok(commits
        .iter()
        .map(|(t, at)| ((*t).into(), column(*at)))
        .collect());
    let mut described = (*description(GroupState::Stable, &[0])).clone();
    match reads {
        Some(reads) => {
            described.members[0].assigned = Vec::new();
            described.members[0].subscribed = Some(reads.iter().map(|t| (*t).into()).collect());
        }
        None => (described.state, described.members) = (GroupState::Empty, Vec::new()),
    }
    group.description = Ok(Arc::new(described));
    read
}

#[test]
fn a_topic_that_the_group_has_left_does_not_make_it_stuck() {
    for (reads, left, is_stuck) in [
        (&["old", "t"][..], &[][..], true),
        (&["t"], &["old"], false),
        (&["elsewhere"], &["old", "t"], false),
    ] {
        let mut history = ClusterHistory::default();
        let last = sweeps(&mut history, 0..=600, |seconds| {
            let mut read = sweep_topics(seconds, Some(reads), &[("old", 40), ("t", 100)]);
            // Others still write to it.
            let end = 100 + i64::try_from(seconds).unwrap();
            let grown = observe(seconds, "g", &[Ok(None)], &[end]).topics["t"].clone();
            read.topics.insert("old".into(), grown);
            read
        });
        let group = &last.groups["g"];
        let found: Vec<_> = group.uncounted.iter().map(TopicName::as_str).collect();
        assert_eq!((found.as_slice(), group.stuck), (left, is_stuck));
    }
}

#[test]
fn no_topic_is_left_that_is_named_or_while_the_subscription_is_unknown() {
    let left = |change: &dyn Fn(&mut GroupObservation)| {
        let mut read = sweep_topics(0, Some(&["t"]), &[("old", 40), ("t", 100)]);
        change(&mut read.groups[0]);
        let snapshot = ClusterHistory::default().apply(read, Scope::Whole);
        snapshot.groups["g"].uncounted.len()
    };
    assert_eq!(left(&|_| {}), 1);
    assert_eq!(left(&|group| group.description = Err(Fault::NoAnswer)), 0);
    let named = |group: &mut GroupObservation| {
        group.plan.topics = Arc::new(["old".into(), "t".into()].into());
    };
    assert_eq!(left(&named), 0);
}

#[test]
fn topics_with_new_commits_of_an_empty_group_are_read_as_well() {
    let reads = |snapshot: &ClusterSnapshot| {
        let reads = snapshot.groups["g"].subscription();
        assert!(reads.is_all);
        reads
            .topics
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut history = ClusterHistory::default();
    let mut after = |seconds, members: Option<&[&str]>, commits: &[(&str, i64)]| {
        reads(&history.apply(sweep_topics(seconds, members, commits), Scope::Whole))
    };
    let old = ("old", 3);
    assert_eq!(after(0, Some(&["t"]), &[old, ("t", 5)]), "t");
    assert_eq!(
        after(5, None, &[old, ("t", 6)]),
        "t",
        "the last commit of a member that left"
    );
    assert_eq!(after(10, None, &[("new", 0), old, ("t", 6)]), "new t");
    assert_eq!(
        after(15, None, &[("new", 0), ("old", 4), ("t", 6)]),
        "new old t"
    );
    // The subscription of the next members replaces all of it.
    assert_eq!(
        after(20, Some(&["t"]), &[("new", 0), ("old", 4), ("t", 6)]),
        "t"
    );
    assert_eq!(after(25, None, &[("new", 0), ("old", 4), ("t", 6)]), "t");
}

#[test]
fn a_residue_outlives_its_consumer_until_an_offset_moves() {
    let asleep = |seconds, commit, end| {
        let mut read = observe(seconds, "g", &[Ok(Some(commit))], &[end]);
        read.groups[0].description = Ok(description(GroupState::Empty, &[]));
        read
    };
    let rules = |history: &mut ClusterHistory, read| rules(&history.apply(read, Scope::Whole));
    for (commit, end, state) in [
        (98, 100, GroupState::Empty),
        (3, 4, GroupState::Rebalancing),
    ] {
        let mut history = ClusterHistory::default();
        sweeps(&mut history, 0..=300, |seconds| {
            live(seconds, &[Ok(Some(commit))], &[end])
        });
        let mut away = asleep(330, commit, end);
        away.groups[0].description = Ok(description(state, &[]));
        assert_eq!(rules(&mut history, away), (vec!["residual"], Ok(Lag(0))));
        assert_eq!(
            rules(&mut history, asleep(4000, commit, end)).0,
            ["residual"]
        );
        // A new record with its own marker, whatever follows it.
        let lag = u64::try_from(end + 2 - commit).unwrap();
        let woken = history.apply(asleep(4005, commit, end + 2), Scope::Whole);
        assert_eq!(super::rules(&woken), (vec!["measured"], Ok(Lag(lag))));
        // The record is new, however old the marker before it is.
        let age = topic(&woken).latest.as_ref().unwrap().age().unwrap();
        assert!(age.duration() <= Duration::from_secs(5), "{age:?}");
        // Once the commit has moved, as few messages as before may be records.
        let moved = asleep(4400, commit + 2, end + 2);
        assert_eq!(rules(&mut history, moved).0, ["measured"]);
    }
}

#[test]
fn a_residue_outlives_its_commit() {
    let read = |history: &mut ClusterHistory, seconds, commit, end| {
        let mut read = observe(seconds, "g", &[Ok(commit)], &[end]);
        read.groups[0].description = Ok(description(GroupState::Empty, &[]));
        let snapshot = history.apply(read, Scope::Whole);
        let reading = topic(&snapshot).latest.as_ref().unwrap();
        let is_forgotten = (0..reading.lags.len()).any(|p| reading.is_forgotten_on(p));
        (rules(&snapshot), is_forgotten)
    };
    let forgotten = |lag: i64| (vec!["forgotten"], Ok(Lag(u64::try_from(lag).unwrap())));
    let residual = || (vec!["residual"], Ok(Lag(0)));
    for (commit, end) in [(98, 100), (3, 4)] {
        let mut unjudged = ClusterHistory::default();
        let _ = read(&mut unjudged, 0, Some(commit), end);
        let found = read(&mut unjudged, 5, None, end);
        assert_eq!(found, (forgotten(end - commit), true));

        let mut history = ClusterHistory::default();
        sweeps(&mut history, 0..=300, |seconds| {
            live(seconds, &[Ok(Some(commit))], &[end])
        });
        // Kafka deletes the offsets of a group that has been without members for long.
        for (seconds, commit) in [
            (330, Some(commit)),
            (335, None),
            (4000, None),
            (4005, Some(commit)),
            (4010, None),
        ] {
            let found = read(&mut history, seconds, commit, end);
            assert_eq!(found, (residual(), commit.is_none()), "{seconds}");
        }
        // A new record with its own marker.
        let found = read(&mut history, 4015, None, end + 2);
        assert_eq!(found, (forgotten(end + 2 - commit), true));
    }
}

#[test]
fn lag_behind_one_long_job_is_not_residual() {
    let mut history = ClusterHistory::default();
    let read = |seconds| live(seconds, &[Ok(Some(5))], &[20]);
    let after = sweeps(&mut history, 0..=1800, read);
    assert_eq!(rules(&after), (vec!["measured"], Ok(Lag(15))));
    assert!(!after.groups["g"].stuck);
}

#[test]
fn a_partition_without_progress_beside_healthy_ones_is_stuck() {
    for (counts, lag) in [(true, 40), (false, 1)] {
        let mut history = ClusterHistory::default();
        let read = |seconds: u64| {
            let healthy = i64::try_from(seconds).unwrap() + 50;
            let mut read = live(seconds, &[Ok(Some(10)), Ok(Some(healthy))], &[50, healthy]);
            read.groups[0].plan.thresholds.stuck_counts = counts;
            read
        };
        let before = sweeps(&mut history, 0..=295, read);
        assert_eq!(rules(&before), (vec!["measured"; 2], Ok(Lag(40))));
        let after = sweeps(&mut history, 300..=300, read);
        // It never lets the group go to zero.
        assert_eq!(rules(&after), (vec!["stuck", "measured"], Ok(Lag(lag))));
        let latest = topic(&after).latest.as_ref().unwrap();
        let other = PartitionFilter::parse("1").unwrap();
        assert_eq!((latest.stuck(None), latest.stuck(Some(&other))), (1, 0));
        assert!(!after.groups["g"].stuck);
    }
}

#[test]
fn a_group_that_is_stuck_as_a_whole_counts_its_whole_lag() {
    let mut history = ClusterHistory::default();
    let read = |seconds: u64| {
        let end = i64::try_from(seconds).unwrap() + 50;
        let mut read = live(seconds, &[Ok(Some(10)), Ok(Some(10))], &[end, end]);
        read.groups[0].plan.thresholds.stuck_counts = false;
        read
    };
    let after = sweeps(&mut history, 0..=300, read);
    assert!(after.groups["g"].stuck);
    assert_eq!(rules(&after), (vec!["stuck"; 2], Ok(Lag(680))));
}

#[test]
fn an_assigned_partition_without_a_commit_counts_from_the_end_first_seen() {
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
fn a_read_committed_group_is_measured_by_the_last_stable_offset() {
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
    assert_eq!(
        read(10, None),
        (vec!["unsupported"], Err(Fault::Unsupported))
    );
}

#[test]
fn a_topic_recreation_seen_with_one_group_holds_for_all_groups() {
    let mut history = ClusterHistory::default();
    history.apply(observe(0, "g", &[Ok(Some(5))], &[100]), Scope::Partial);
    for seconds in [5, 10] {
        history.apply(
            observe(seconds, "other", &[Ok(Some(1))], &[9]),
            Scope::Partial,
        );
    }
    let after = history.apply(observe(15, "g", &[Ok(Some(5))], &[9]), Scope::Partial);
    assert_eq!(rules(&after).0, ["log_replaced"]);
    // Its last complete reading is served until it is stale, as with any unknown.
    let complete = topic(&after).complete.as_ref();
    assert_eq!(complete.unwrap().total(), Ok(Lag(95)));
}

#[test]
fn a_topic_that_only_a_request_names_does_not_count() {
    let counted = |reads: Option<&[&str]>, topic: &str, commit, latest: Result<i64, Fault>| {
        let mut history = ClusterHistory::default();
        let last = sweeps(&mut history, 0..=60, |seconds| {
            let mut read = sweep_topics(seconds, reads, &[("t", 100)]);
            let group = &mut read.groups[0];
            group.plan.requested = Arc::new([topic.into()].into());
            group.plan.topics = Arc::new(["t".into(), topic.into()].into());
            let mut committed = group.committed.clone().unwrap();
            if committed.get(topic).is_none() {
                committed.insert(topic.into(), [commit].into_iter().collect());
            }
            group.committed = Ok(committed);
            if topic != "t" {
                let ends = latest.map(|end| observe(seconds, "g", &[Ok(None)], &[end]));
                let offsets = ends.map(|read| read.topics["t"].clone().unwrap());
                read.topics.insert(topic.into(), offsets);
            }
            read
        });
        let group = &last.groups["g"];
        assert!(group.topics.contains_key(topic), "requests are answered");
        let figures = GroupFigures::new(group);
        (
            group.counts(&topic.into()),
            figures.produced_per_second.is_some(),
        )
    };
    let reads_t: Option<&[&str]> = Some(&["t"]);
    for fault in [Fault::TopicMissing, Fault::TopicDenied, Fault::NoAnswer] {
        assert_eq!(counted(reads_t, "x", Ok(None), Err(fault)), (false, true));
        assert_eq!(counted(None, "x", Ok(None), Err(fault)), (false, true));
        // The members read it.
        let reads: Option<&[&str]> = Some(&["t", "x"]);
        assert_eq!(counted(reads, "x", Ok(None), Err(fault)), (true, false));
    }
    // It exists, without and with commits of the group.
    assert!(!counted(reads_t, "x", Ok(None), Ok(7)).0);
    // With commits it has been left, unless it is unknown what the members read.
    assert!(!counted(reads_t, "x", Ok(Some(Offset(3))), Ok(7)).0);
    assert!(counted(None, "x", Ok(Some(Offset(3))), Ok(7)).0);
    assert_eq!(counted(reads_t, "t", Ok(None), Ok(7)), (true, true));
}
