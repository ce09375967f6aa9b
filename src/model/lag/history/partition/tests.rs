//! Each row of the table of lags that time has a part in.

use proptest::prelude::*;

use super::*;
use crate::model::kafka::observation::TopicOffsets;
use crate::model::lag::PartitionLag;
use crate::model::lag::history::log::LogHistory;
use crate::model::units::newtypes::{Lag, TopicId};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// One group on one partition.
#[derive(Default)]
struct One {
    log: LogHistory,
    state: PartitionState,
    id: Option<u8>,
    runs: bool,
    earliest: bool,
    /// Whether [`PartitionState::apply_next_commit`] was enough for the last reading.
    took_short_way: bool,
}

impl One {
    fn with_id(id: u8) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    fn read(
        &mut self,
        seconds: u64,
        committed: Option<i64>,
        end: i64,
    ) -> Result<PartitionLag, Fault> {
        self.step(seconds, committed, 0, end).0
    }

    fn step(
        &mut self,
        seconds: u64,
        committed: Option<i64>,
        start: i64,
        end: i64,
    ) -> (Result<PartitionLag, Fault>, bool) {
        let now = Now(seconds * 1000);
        let offsets = TopicOffsets {
            id: self.id.map(|id| TopicId([id; 16])),
            ends: vec![Ok(Offset(end))],
            ..TopicOffsets::default()
        };
        self.log.apply(&Ok(&offsets), now);
        let known = self.log.partitions[0];
        let end = known.end().unwrap();
        let log = Log {
            start: Offset(start),
            high: end,
            end,
        };
        let mut short_way = self.state;
        let next =
            committed.and_then(|at| short_way.apply_next_commit(Offset(at), &log, &known, now));
        let step = self.state.apply(&PartitionReading {
            committed: committed.map(Offset),
            log: Ok((log, known)),
            has_id: self.log.id.is_some(),
            runs: self.runs,
            reset: if self.earliest {
                OffsetReset::Earliest
            } else {
                OffsetReset::Latest
            },
            forget_after: WEEK,
            now,
        });
        if let (Some(moved), Some(at)) = (next, committed) {
            let position = Ok(Position::Committed(Offset(at)));
            assert_eq!(step, StateTransition { position, moved });
            assert_eq!(short_way, self.state);
        }
        self.took_short_way = next.is_some();
        (step.position.and_then(|p| p.lag(&log)), step.moved)
    }
}

fn measured(lag: u64) -> Result<PartitionLag, Fault> {
    Ok(PartitionLag::Measured(Lag(lag)))
}

const BEYOND: Result<PartitionLag, Fault> = Err(Fault::CommitBeyondEnd);
const REPLACED: Result<PartitionLag, Fault> = Err(Fault::LogReplaced);

#[test]
fn commits_within_the_same_log_take_the_short_way() {
    let mut one = One::with_id(1);
    for (seconds, id, committed, end, is_short) in [
        (0, 1, Some(10), 20, false),
        (5, 1, Some(10), 20, true),
        (10, 1, Some(15), 20, true),
        (15, 1, Some(15), 30, true),
        (20, 1, Some(31), 30, false),
        (25, 1, Some(31), 31, true),
        (30, 1, None, 31, false),
        (35, 1, Some(31), 31, false),
        (40, 1, Some(31), 31, true),
        (45, 2, Some(31), 31, false),
    ] {
        one.id = Some(id);
        one.read(seconds, committed, end).ok();
        assert_eq!(one.took_short_way, is_short, "{seconds}");
    }
}

#[test]
fn a_commit_beyond_the_end_is_unknown_until_the_next_commit() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(50), 40), BEYOND);
    assert_eq!(
        one.read(5, Some(50), 60),
        REPLACED,
        "the new log grew past it"
    );
    assert_eq!(one.read(10, Some(55), 60), measured(5));
    assert_eq!(
        one.read(15, Some(70), 60),
        BEYOND,
        "and again, without an ID"
    );
    assert_eq!(one.read(20, Some(70), 80), REPLACED);
}

#[test]
fn a_known_topic_id_settles_a_commit_beyond_the_end() {
    let mut one = One::with_id(1);
    assert_eq!(one.read(0, Some(50), 60), measured(10));
    assert_eq!(one.read(5, Some(65), 60), BEYOND);
    assert_eq!(one.read(10, Some(65), 65), measured(0));
    // A commit that was there before the ID was seen may be of a topic before.
    let mut one = One::with_id(1);
    assert_eq!(one.read(0, Some(50), 40), BEYOND);
    assert_eq!(one.read(500, Some(50), 60), REPLACED);
    assert_eq!(one.read(505, Some(51), 60), measured(9));
}

#[test]
fn a_log_end_that_falls_once_changes_nothing() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(50), 100), measured(50));
    assert_eq!(one.read(5, Some(50), 90), measured(50));
    assert_eq!(one.read(10, Some(60), 110), measured(50));
    // Its readers were further on than the new leader.
    assert_eq!(one.read(15, Some(112), 108), BEYOND);
    assert_eq!(one.read(20, Some(112), 112), measured(0));
}

#[test]
fn a_log_end_that_falls_twice_makes_lag_unknown_until_the_next_commit() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(50), 100), measured(50));
    assert_eq!(one.read(5, Some(50), 90), measured(50));
    for seconds in [10, 500] {
        assert_eq!(one.read(seconds, Some(50), 95), REPLACED);
    }
    assert_eq!(one.read(505, Some(51), 95), measured(44));
}

#[test]
fn an_unchanged_topic_id_settles_a_truncated_log() {
    let mut one = One::with_id(1);
    assert_eq!(one.read(0, Some(50), 100), measured(50));
    assert_eq!(one.read(5, Some(50), 90), measured(50));
    assert_eq!(one.read(10, Some(50), 90), REPLACED);
    assert_eq!(one.read(129, Some(50), 90), REPLACED);
    assert_eq!(one.read(131, Some(50), 91), measured(41));
}

#[test]
fn a_changed_topic_id_makes_lag_unknown_until_the_next_commit() {
    let mut one = One::with_id(1);
    assert_eq!(one.read(0, Some(50), 100), measured(50));
    one.id = Some(2);
    assert_eq!(one.read(5, Some(50), 30), BEYOND);
    assert_eq!(one.read(500, Some(50), 300), REPLACED);
    assert_eq!(one.read(505, Some(2), 300), measured(298));
}

#[test]
fn a_recreated_topic_without_commits_never_ran() {
    let mut one = One::with_id(1);
    assert_eq!(one.read(0, Some(50), 100), measured(50));
    one.id = Some(2);
    assert_eq!(one.read(5, None, 30), Ok(PartitionLag::NeverRan));
}

#[test]
fn without_a_commit_and_reset_to_earliest_lag_is_the_whole_log() {
    for runs in [false, true] {
        let mut one = One {
            earliest: true,
            runs,
            ..One::default()
        };
        let (lag, _) = one.step(0, None, 10, 100);
        assert_eq!(lag, Ok(PartitionLag::FromStart(Lag(90))));
    }
}

#[test]
fn without_a_commit_and_a_member_the_group_never_ran() {
    let mut one = One::default();
    for end in [100, 200] {
        assert_eq!(one.read(0, None, end), Ok(PartitionLag::NeverRan));
    }
}

#[test]
fn without_a_commit_but_with_a_member_lag_counts_from_the_first_sweep() {
    let mut one = One::default();
    let since = |lag| Ok(PartitionLag::SinceSeen(Lag(lag)));
    assert_eq!(one.read(0, None, 70), Ok(PartitionLag::NeverRan));
    one.runs = true;
    assert_eq!(one.read(5, None, 100), since(0));
    assert_eq!(one.read(10, None, 130), since(30));
    one.runs = false;
    assert_eq!(one.read(15, None, 140), since(40), "its members are away");
    assert_eq!(one.read(20, Some(135), 140), measured(5));
}

#[test]
fn the_end_first_seen_does_not_outlive_its_log() {
    let mut one = One {
        runs: true,
        ..One::default()
    };
    let since = |lag| Ok(PartitionLag::SinceSeen(Lag(lag)));
    for (seconds, end, lag) in [
        (0, 1000, 0),
        (5, 1010, 10),
        (10, 20, 10),
        (15, 50, 0),
        (20, 60, 10),
    ] {
        assert_eq!(one.read(seconds, None, end), since(lag), "{end}");
    }
}

#[test]
fn a_forgotten_commit_counts_until_forget_after() {
    let mut one = One::default();
    let forgotten = |lag| Ok(PartitionLag::Forgotten(Lag(lag)));
    let week = WEEK.as_secs();
    assert_eq!(one.read(0, Some(40), 100), measured(60));
    assert_eq!(one.read(5, None, 110), forgotten(70));
    assert_eq!(
        one.step(10, None, 50, 110).0,
        forgotten(60),
        "S is beyond it"
    );
    assert_eq!(one.read(week + 4, None, 120), forgotten(80));
    assert_eq!(one.read(week + 5, None, 120), Ok(PartitionLag::NeverRan));
}

#[test]
fn a_forgotten_commit_that_reappears_is_committed() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(40), 100), measured(60));
    assert!(one.read(5, None, 100).is_ok());
    assert_eq!(one.read(10, Some(40), 100), measured(60));
    assert!(one.read(15, None, 100).is_ok());
    assert_eq!(one.read(20, Some(90), 100), measured(10));
}

#[test]
fn a_residue_is_known_until_the_commit_moves_or_the_log_is_truncated() {
    let residue = |one: &mut One, seconds, committed, end| {
        assert!(one.read(seconds, committed, end).is_ok());
        one.state.residue()
    };
    let judged = || {
        let mut one = One::with_id(1);
        assert_eq!(residue(&mut one, 0, Some(40), 42), Lag(0));
        one.state.set_residue(Lag(2));
        one
    };
    let mut one = judged();
    assert_eq!(residue(&mut one, 5, None, 42), Lag(2));
    assert_eq!(residue(&mut one, 10, Some(40), 42), Lag(2));
    assert_eq!(residue(&mut one, 15, Some(41), 42), Lag(0));
    let mut one = judged();
    assert_eq!(residue(&mut one, 5, None, 42), Lag(2));
    assert_eq!(residue(&mut one, 10, None, 41), Lag(2), "not sure yet");
    assert_eq!(residue(&mut one, 15, None, 41), Lag(0));
}

#[test]
fn an_unsettled_commit_that_disappears_is_not_forgotten() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(50), 40), BEYOND);
    assert_eq!(one.read(5, None, 60), Ok(PartitionLag::NeverRan));
}

#[test]
fn a_commit_moves_when_it_changes_not_when_first_seen() {
    let mut one = One::default();
    let moved = |one: &mut One, seconds, committed| one.step(seconds, committed, 0, 100).1;
    assert!(!moved(&mut one, 0, Some(10)));
    assert!(!moved(&mut one, 5, Some(10)));
    assert!(moved(&mut one, 10, Some(11)));
    assert!(
        moved(&mut one, 15, Some(5)),
        "an offset that is reset moves"
    );
    assert_eq!(one.state.since(), Stamp(15));
}

#[test]
fn a_commit_that_changes_while_the_log_is_unknown_moves() {
    let mut one = One::default();
    assert_eq!(one.read(0, Some(10), 100), measured(90));
    let step = one.state.apply(&PartitionReading {
        committed: Some(Offset(20)),
        log: Err(Fault::LeaderUnknown),
        has_id: false,
        runs: true,
        reset: OffsetReset::Latest,
        forget_after: WEEK,
        now: Now(5000),
    });
    assert_eq!(
        (step.position, step.moved),
        (Err(Fault::LeaderUnknown), true)
    );
    assert_eq!(one.state.since(), Stamp(5));
}

#[test]
fn saved_state_counts_where_it_agrees_with_this_process() {
    let of = |kind, offset, since| PartitionState::restored(kind, Offset(offset), Stamp(since));
    let now = Now(100_000);
    for (present, earlier, expected) in [
        (
            of(PartitionStateKind::Unseen, 0, 0),
            of(PartitionStateKind::Committed, 5, 1),
            of(PartitionStateKind::Committed, 5, 1),
        ),
        (
            of(PartitionStateKind::Committed, 5, 90),
            of(PartitionStateKind::Committed, 5, 1),
            of(PartitionStateKind::Committed, 5, 1),
        ),
        (
            of(PartitionStateKind::Committed, 5, 1).with_residue(4),
            of(PartitionStateKind::Committed, 5, 90).with_residue(2),
            of(PartitionStateKind::Committed, 5, 1).with_residue(4),
        ),
        (
            of(PartitionStateKind::Committed, 5, 90),
            of(PartitionStateKind::Committed, 5, 1).with_residue(2),
            of(PartitionStateKind::Committed, 5, 1).with_residue(2),
        ),
        (
            of(PartitionStateKind::Committed, 6, 90),
            of(PartitionStateKind::Committed, 5, 1),
            of(PartitionStateKind::Committed, 6, 90),
        ),
        (
            of(PartitionStateKind::Committed, 5, 90),
            of(PartitionStateKind::Unsettled, 5, 1),
            of(PartitionStateKind::Unsettled, 5, 1),
        ),
        (
            of(PartitionStateKind::FirstSeen, 9, 90),
            of(PartitionStateKind::Committed, 5, 1).with_residue(2),
            of(PartitionStateKind::Forgotten, 5, 100).with_residue(2),
        ),
        (
            of(PartitionStateKind::FirstSeen, 9, 90),
            of(PartitionStateKind::FirstSeen, 5, 1),
            of(PartitionStateKind::FirstSeen, 5, 1),
        ),
        (
            of(PartitionStateKind::FirstSeen, 9, 90),
            of(PartitionStateKind::Forgotten, 5, 1),
            of(PartitionStateKind::Forgotten, 5, 1),
        ),
    ] {
        let mut found = present;
        found.restore(earlier, now);
        assert_eq!(found, expected, "{present:?} {earlier:?}");
    }
}

#[test]
fn a_state_takes_sixteen_bytes() {
    assert_eq!(size_of::<PartitionState>(), 16);
    assert_eq!(size_of::<LogPartition>(), 16);
}

proptest! {
    /// Whatever the brokers say, in whatever order: no panic, and no lag beyond the log.
    #[test]
    fn lag_never_exceeds_the_log(
        polls in proptest::collection::vec(
            (any::<Option<i64>>(), any::<i64>(), any::<i64>(), any::<bool>(), any::<Option<bool>>()),
            1..30,
        ),
        earliest: bool,
    ) {
        let mut one = One { earliest, ..One::default() };
        for (i, (committed, start, end, runs, id)) in polls.into_iter().enumerate() {
            one.runs = runs;
            one.id = id.map(u8::from);
            let (found, _) = one.step(i as u64 * 40, committed, start, end);
            let end = one.log.partitions[0].end().unwrap().0;
            if let Ok(found) = found {
                let most = (i128::from(end) - i128::from(start)).max(0);
                prop_assert!(i128::from(found.messages().0) <= most, "{found:?}");
            }
        }
    }
}
