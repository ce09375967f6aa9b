//! Figures of a consumer group beside its lag: how fast it reads, and how close it is to losing messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use super::rates::MessageRates;
use crate::model::kafka::group::GroupState;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, TopicName};

/// Figures of a group as of its last reading. What is unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupFigures {
    /// `None` if the coordinator did not describe the group.
    pub state: Option<GroupState>,
    /// Rebalances that the process has seen; `None` like the state.
    pub rebalances: Option<u32>,
    /// Messages per second that are written to its topics, averaged over a minute.
    pub produced_per_second: Option<f64>,
    /// Messages per second that it consumes, as its commits show, averaged over a minute.
    pub consumed_per_second: Option<f64>,
    /// Change of the lag in messages per second: negative while the group catches up.
    pub lag_velocity: Option<f64>,
    /// Time until the lag is 0 at these rates; `None` also while the lag does not shrink.
    pub drain_seconds: Option<f64>,
    /// Largest part of a partition's log that the group has yet to read, up to 1.
    pub retention_used: Option<f64>,
    /// Time since a committed offset last moved; `None` before one was seen to move.
    pub since_commit_seconds: Option<u64>,
    /// Partitions that get far more messages than others of their topic: those with the largest parts.
    pub hot_partitions: Vec<HotPartition>,
}

/// Figures of a group with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedFigures {
    pub cluster: ClusterName,
    pub group: GroupId,
    #[serde(flatten)]
    pub figures: GroupFigures,
}

/// A partition that gets far more messages than others of its topic. More members do not help it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotPartition {
    pub topic: TopicName,
    pub partition: usize,
    /// Its part of the topic's messages, up to 1.
    pub share: f64,
}

/// Time over which the messages of partitions are compared.
const COMPARED_OVER: Duration = Duration::from_secs(600);

/// Minimum number of partitions that are compared, and of messages for each of them: fewer say little.
const MIN_COMPARED: (usize, u64) = (3, 50);

/// A partition is hot if it gets more than this many times the mean of all partitions.
const HOT_RATIO: u64 = 2;

/// Maximum number of hot partitions of a group that are listed. Users who may create topics decide how many there are.
const MAX_HOT_PARTITIONS: usize = 10;

impl GroupFigures {
    #[must_use]
    pub fn new(group: &GroupSnapshot) -> Self {
        let rates = group.rates();
        let drain = rates.and_then(|rates| rates.time_to_drain(unread(group)?));
        let state = group.description.as_ref().map(|described| described.state);
        Self {
            state,
            rebalances: state.map(|_| group.rebalances),
            produced_per_second: rates.map(|rates| rates.produced),
            consumed_per_second: rates.map(|rates| rates.consumed),
            lag_velocity: rates.map(MessageRates::lag_velocity),
            drain_seconds: drain.map(|drain| drain.as_secs_f64()),
            retention_used: retention_used_of(group.counted_topics().map(|(_, topic)| topic)),
            since_commit_seconds: group.since_commit_seconds.map(u64::from),
            hot_partitions: hot_partitions_of(group.counted_topics()),
        }
    }

    /// Whether more than the offsets of one reading is known.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.state.is_some()
            || self.produced_per_second.is_some()
            || self.since_commit_seconds.is_some()
    }
}

/// Unread messages of a group; `None` while a partition is unknown, or if it reads no topic.
#[must_use]
pub fn unread(group: &GroupSnapshot) -> Option<Lag> {
    unread_of(group.counted_topics().map(|(_, topic)| topic))
}

/// As [`unread`], on these topics; `None` also without any.
pub fn unread_of<'a>(topics: impl Iterator<Item = &'a GroupTopic>) -> Option<Lag> {
    let mut sum: Option<Lag> = None;
    for topic in topics {
        let lag = topic.latest.as_ref().ok()?.messages().ok()?;
        sum = Some(sum.unwrap_or_default().plus(lag));
    }
    sum
}

/// As [`retention_used`], over these topics; `None` also without any.
pub fn retention_used_of<'a>(topics: impl Iterator<Item = &'a GroupTopic>) -> Option<f64> {
    let mut largest: Option<f64> = None;
    for topic in topics {
        let used = retention_used(topic.latest.as_ref().ok()?)?;
        largest = Some(largest.map_or(used, |largest| largest.max(used)));
    }
    largest
}

/// Largest part of a partition's log that a group has yet to read, up to 1; `None` while a partition is unknown.
#[must_use]
pub fn retention_used(lag: &TopicLag) -> Option<f64> {
    let mut largest = 0.0f64;
    for (partition, of) in lag.lags.iter().enumerate() {
        let unread = of.ok()?.messages();
        let start = lag.offsets.starts.get(partition)?.ok()?;
        let end = lag.offsets.ends.get(partition)?.ok()?;
        let kept = end.distance_from(start)?;
        if kept > Lag(0) {
            largest = largest.max(part(unread, kept.0));
        }
    }
    Some(largest.min(1.0))
}

/// The hot partitions of these topics, those with the largest parts first: see [`hot_partition`].
pub fn hot_partitions_of<'a>(
    topics: impl Iterator<Item = (&'a TopicName, &'a GroupTopic)>,
) -> Vec<HotPartition> {
    let hot = topics.filter_map(|(topic, read)| {
        let (partition, share) = hot_partition(read.latest.as_ref().ok()?)?;
        Some(HotPartition {
            topic: topic.clone(),
            partition,
            share,
        })
    });
    let mut hot: Vec<_> = hot.collect();
    hot.sort_by(|a, b| b.share.total_cmp(&a.share));
    hot.truncate(MAX_HOT_PARTITIONS);
    hot
}

/// The partition that gets far more messages than the others, and its part of all messages; `None` if there is none, or
/// too few messages were seen.
#[must_use]
pub fn hot_partition(lag: &TopicLag) -> Option<(usize, f64)> {
    let written = lag.age_basis.ends.as_ref()?.growth(COMPARED_OVER)?;
    let (partitions_min, messages_min) = MIN_COMPARED;
    let partitions = u64::try_from(written.len()).ok()?;
    let all: Lag = written.iter().copied().sum();
    let is_enough =
        written.len() >= partitions_min && all.0 >= messages_min.saturating_mul(partitions);
    let (partition, most) = written.iter().enumerate().max_by_key(|(_, lag)| **lag)?;
    let is_hot = most.0.saturating_mul(partitions) > HOT_RATIO.saturating_mul(all.0);
    (is_enough && is_hot).then(|| (partition, part(*most, all.0)))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a part for people needs few digits"
)]
fn part(of: Lag, all: u64) -> f64 {
    of.0 as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{self, PartitionReading};
    use crate::model::kafka::fault::Fault;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    /// The figures after these readings, ten seconds apart.
    fn figures(readings: &[&[PartitionReading]]) -> GroupFigures {
        let mut history = ClusterHistory::default();
        let mut found = GroupFigures::default();
        for (seconds, rows) in (0..).step_by(10).zip(readings) {
            let mut read = fixtures::read(Duration::from_secs(seconds), "g", "orders", rows);
            read.groups[0].description = Ok(fixtures::member_of("orders").into());
            let snapshot = history.apply(read, Scope::Whole);
            found = GroupFigures::new(&snapshot.groups["g"]);
        }
        found
    }

    fn ok(start: i64, committed: i64, end: i64) -> PartitionReading {
        (start, Ok(Some(committed)), Ok(end))
    }

    #[test]
    fn figures_of_two_readings() {
        let found = figures(&[
            &[ok(0, 0, 100), ok(0, 50, 50)],
            &[ok(40, 60, 140), ok(0, 50, 50)],
        ]);
        let expected = GroupFigures {
            state: Some(GroupState::Stable),
            rebalances: Some(0),
            produced_per_second: Some(4.0),
            consumed_per_second: Some(6.0),
            lag_velocity: Some(-2.0),
            drain_seconds: Some(40.0),
            retention_used: Some(0.8),
            since_commit_seconds: Some(0),
            hot_partitions: Vec::new(),
        };
        assert_eq!(found, expected);
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<GroupFigures>(&text).unwrap(), found);
    }

    #[test]
    fn what_is_unknown_has_no_figure() {
        let one = figures(&[&[ok(0, 60, 100)]]);
        assert_eq!((one.produced_per_second, one.drain_seconds), (None, None));
        assert_eq!(one.retention_used, Some(0.4));
        let unknown = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));
        let partly = figures(&[&[ok(0, 0, 9), ok(0, 0, 9)], &[ok(0, 5, 9), unknown]]);
        let rates = (partly.lag_velocity, partly.consumed_per_second);
        assert_eq!((rates, partly.retention_used), ((None, None), None));
        assert_eq!(partly.state, Some(GroupState::Stable));
        let undescribed = fixtures::read(Duration::ZERO, "g", "orders", &[ok(0, 0, 9)]);
        let snapshot = ClusterHistory::default().apply(undescribed, Scope::Whole);
        let found = GroupFigures::new(&snapshot.groups["g"]);
        assert_eq!((found.state, found.rebalances), (None, None));
    }

    #[test]
    fn messages_that_retention_deleted_leave_a_whole_log_to_read() {
        assert_eq!(figures(&[&[ok(50, 10, 100)]]).retention_used, Some(1.0));
        assert_eq!(figures(&[&[ok(70, 70, 70)]]).retention_used, Some(0.0));
    }

    #[test]
    fn a_hot_partition_gets_more_than_twice_the_mean() {
        let at = |ends: [i64; 4]| ends.map(|end| ok(0, 0, end));
        let grown = |to: [i64; 4]| {
            let half = to.map(|end| end / 2);
            figures(&[&at([0; 4]), &at(half), &at(to)]).hot_partitions
        };
        let hot = |partition, share| {
            vec![HotPartition {
                topic: "orders".into(),
                partition,
                share,
            }]
        };
        assert_eq!(grown([100, 100, 600, 200]), hot(2, 0.6));
        assert_eq!(grown([100, 100, 500, 300]), [], "just twice the mean");
        assert_eq!(grown([10, 10, 170, 8]), [], "too few messages");
        let two = figures(&[&at([0; 4]), &at([0, 0, 999, 0])]);
        assert_eq!(two.hot_partitions, [], "too few samples");
    }

    #[test]
    fn few_hot_partitions_are_listed() {
        let mut history = ClusterHistory::default();
        let mut snapshot = None;
        for seconds in [0, 10, 20] {
            let end = i64::try_from(seconds).unwrap() * 10;
            let rows = [ok(0, 0, 0), ok(0, 0, 0), ok(0, 0, end)];
            let read = fixtures::read(Duration::from_secs(seconds), "g", "orders", &rows);
            snapshot = Some(history.apply(read, Scope::Whole));
        }
        let snapshot = snapshot.unwrap();
        let topic = snapshot.groups["g"].counted_topics().next().unwrap();
        let hot = |topics| hot_partitions_of(std::iter::repeat_n(topic, topics)).len();
        assert_eq!((hot(1), hot(30)), (1, MAX_HOT_PARTITIONS));
    }
}
