//! Follows what a consumer group does from one reading to the next.

use crate::model::lag::activity::GroupActivity;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, TopicLag};
use crate::model::lag::history::clock::Now;
use crate::model::lag::history::group::GroupHistory;
use crate::model::units::newtypes::Lag;

/// The activity of a group as of the reading `read`, which follows `before`. `consumed` are the messages that it
/// committed since. The averages of rates begin anew after a reading in which something was unknown.
pub(super) fn next_activity(
    before: Option<&GroupSnapshot>,
    read: &GroupSnapshot,
    history: &GroupHistory,
    consumed: Lag,
    now: Now,
) -> GroupActivity {
    let since_commit = history.last_move.map(|moved| moved.elapsed(now));
    let activity = GroupActivity::new(since_commit, history.rebalances);
    let written = before.and_then(|before| Some((before, written_between(before, read)?)));
    match written {
        Some((before, written)) => {
            let elapsed = read.requested_at.since(&before.requested_at);
            activity.with_messages(before.activity, (written, consumed), elapsed)
        }
        None => activity,
    }
}

/// Messages written to the topics that the group reads; `None` if it reads none, or a partition is unknown in one of
/// the readings.
fn written_between(before: &GroupSnapshot, read: &GroupSnapshot) -> Option<Lag> {
    if before.fault.is_some() || read.fault.is_some() {
        return None;
    }
    let mut all: Option<Lag> = None;
    for (index, (topic, now)) in read.topics.iter().enumerate() {
        if !read.counts(topic) {
            continue;
        }
        let now = now.latest.as_deref().ok()?;
        let earlier = before.topics.get_near(index, topic)?;
        let earlier = earlier.latest.as_deref().ok()?;
        let written = written_since(earlier, now)?;
        all = Some(all.unwrap_or_default().plus(written));
    }
    all
}

fn written_since(earlier: &TopicLag, now: &TopicLag) -> Option<Lag> {
    let is_known = earlier.first_fault().is_none() && now.first_fault().is_none();
    let written = |lag: &TopicLag| Some(lag.age_basis.ends.as_ref()?.written());
    written(now)?
        .checked_sub(written(earlier)?)
        .filter(|_| is_known)
        .map(Lag)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::model::fixtures::{self, PartitionReading};
    use crate::model::kafka::fault::Fault;
    use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
    use crate::model::kafka::observation::Observation;
    use crate::model::kafka::topic_map::TopicMap;
    use crate::model::lag::activity::GroupActivity;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    fn read(seconds: u64, rows: &[PartitionReading]) -> Observation {
        fixtures::read(Duration::from_secs(seconds), "g", "orders", rows)
    }

    fn activity(history: &mut ClusterHistory, observation: Observation) -> GroupActivity {
        history.apply(observation, Scope::Whole).groups["g"].activity
    }

    fn rates(activity: GroupActivity) -> Option<(f64, f64)> {
        activity
            .produced_per_second()
            .zip(activity.consumed_per_second())
    }

    #[test]
    fn rates_follow_from_two_readings() {
        let mut history = ClusterHistory::default();
        let first = activity(&mut history, read(0, &[ok(0, 100), ok(50, 50)]));
        assert_eq!((rates(first), first.since_commit()), (None, None));
        let second = activity(&mut history, read(10, &[ok(80, 110), ok(60, 70)]));
        assert_eq!(rates(second), Some((3.0, 9.0)));
        assert_eq!(second.since_commit(), Some(Duration::ZERO));
        let third = activity(&mut history, read(15, &[ok(80, 110), ok(60, 70)]));
        assert_eq!(rates(third), Some((2.0, 6.0)), "30 and 90 in 15 seconds");
        assert_eq!(third.since_commit(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_reading_out_of_turn_of_another_group_takes_no_messages_away() {
        let mut history = ClusterHistory::default();
        activity(&mut history, read(0, &[ok(0, 100)]));
        let of_other = fixtures::read(Duration::from_secs(5), "other", "orders", &[ok(0, 150)]);
        history.apply(of_other, Scope::Partial);
        let next = activity(&mut history, read(10, &[ok(20, 200)]));
        assert_eq!(rates(next), Some((10.0, 2.0)));
    }

    #[test]
    fn unknown_partitions_have_no_rates_and_end_the_averages() {
        let unknown = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));
        let mut history = ClusterHistory::default();
        activity(&mut history, read(0, &[ok(0, 100)]));
        assert!(rates(activity(&mut history, read(10, &[ok(90, 100)]))).is_some());
        assert_eq!(rates(activity(&mut history, read(20, &[unknown]))), None);
        let after = activity(&mut history, read(30, &[ok(90, 100)]));
        assert_eq!(rates(after), None, "the reading before is unknown");
        let last = activity(&mut history, read(40, &[ok(95, 120)]));
        assert_eq!(rates(last), Some((2.0, 0.5)));
        let failed = fixtures::failed(Duration::from_secs(50), "g", "orders", Fault::NoAnswer);
        assert_eq!(rates(activity(&mut history, failed)), None);
    }

    #[test]
    fn a_group_that_reads_no_topic_has_no_rates() {
        let mut history = ClusterHistory::default();
        for seconds in [0, 10, 20] {
            let mut observation = read(seconds, &[ok(0, 100)]);
            observation.groups[0].committed = Ok(TopicMap::default());
            assert_eq!(rates(activity(&mut history, observation)), None);
        }
    }

    #[test]
    fn offsets_that_were_set_back_consume_nothing() {
        let mut history = ClusterHistory::default();
        activity(&mut history, read(0, &[ok(90, 100)]));
        let back = activity(&mut history, read(10, &[ok(10, 100)]));
        assert_eq!(rates(back), Some((0.0, 0.0)));
        let next = activity(&mut history, read(20, &[ok(30, 100)]));
        assert_eq!(rates(next), Some((0.0, 1.0)));
    }

    #[test]
    fn rebalances_are_counted() {
        let mut history = ClusterHistory::default();
        let stable = || fixtures::member_of("orders");
        let rebalancing = GroupDescription::memberless(GroupKind::Classic, GroupState::Rebalancing);
        let mut counts = Vec::new();
        for (seconds, description) in
            (0..)
                .step_by(10)
                .zip([stable(), stable(), rebalancing, stable()])
        {
            let mut observation = read(seconds, &[ok(0, 100)]);
            observation.groups[0].description = Ok(description.into());
            counts.push(activity(&mut history, observation).rebalances());
        }
        assert_eq!(counts, [0, 0, 1, 1]);
    }
}
