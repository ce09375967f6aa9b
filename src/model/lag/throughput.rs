//! How fast a group reads and its topics grow: messages between two readings. `GroupActivity` has the averages of a
//! minute.

use std::time::Duration;

use super::cluster_snapshot::TopicLag;
use crate::model::kafka::observation::TopicOffsets;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::units::newtypes::{Lag, Moment, Offset};

/// Offsets of a topic and of a group on it.
#[derive(Clone, Copy, Debug)]
pub struct OffsetReading<'a> {
    /// When they were read.
    pub read: Moment,
    pub log: &'a TopicOffsets,
    pub committed: &'a CommittedOffsets,
}

impl<'a> From<&'a TopicLag> for OffsetReading<'a> {
    fn from(lag: &'a TopicLag) -> Self {
        Self {
            read: lag.read,
            log: &lag.offsets,
            committed: &lag.committed,
        }
    }
}

/// Messages written and consumed between two readings, on one partition or on several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throughput {
    /// Growth of the log ends.
    pub produced: Lag,
    /// Growth of the committed offsets.
    pub consumed: Lag,
    /// Time between the readings.
    pub elapsed: Duration,
}

impl Throughput {
    /// Compares two readings of a partition. `None` if one of the four offsets is unknown, the group has no committed
    /// offset, an offset went backwards (the offsets were reset, or the topic was recreated), or no time has passed.
    #[must_use]
    pub fn between<'a>(
        before: impl Into<OffsetReading<'a>>,
        after: &'a TopicLag,
        partition: usize,
    ) -> Option<Self> {
        let (before, after) = (before.into(), OffsetReading::from(after));
        let elapsed = after.read.since(&before.read);
        let known_ids = before.log.id.zip(after.log.id);
        if elapsed.is_zero() || known_ids.is_some_and(|(old, new)| old != new) {
            return None;
        }
        let end = |reading: OffsetReading<'_>| reading.log.ends.get(partition)?.ok();
        let committed = |reading: OffsetReading<'_>| reading.committed.get(partition)?.ok()?;
        let growth = |of: &dyn Fn(OffsetReading<'_>) -> Option<Offset>| {
            of(after)?.distance_from(of(before)?)
        };
        Some(Self {
            produced: growth(&end)?,
            consumed: growth(&committed)?,
            elapsed,
        })
    }

    /// Adds the messages of other partitions, read in the same two sweeps.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            produced: self.produced.plus(other.produced),
            consumed: self.consumed.plus(other.consumed),
            elapsed: self.elapsed.max(other.elapsed),
        }
    }

    /// Messages written per second.
    #[must_use]
    pub fn produced_per_second(self) -> f64 {
        self.per_second(self.produced)
    }

    /// Messages consumed per second.
    #[must_use]
    pub fn consumed_per_second(self) -> f64 {
        self.per_second(self.consumed)
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a rate for display does not need more than 53 bits"
    )]
    fn per_second(self, messages: Lag) -> f64 {
        messages.0 as f64 / self.elapsed.as_secs_f64()
    }

    /// Time until this lag is 0 at these rates; `None` if it does not shrink.
    #[must_use]
    pub fn time_to_drain(self, lag: Lag) -> Option<Duration> {
        if lag == Lag(0) {
            return Some(Duration::ZERO);
        }
        let shrinks_by = self.consumed.0.checked_sub(self.produced.0)?;
        let millis = u128::from(lag.0).saturating_mul(self.elapsed.as_millis());
        let millis = millis.checked_div(u128::from(shrinks_by))?;
        Some(Duration::from_millis(
            u64::try_from(millis).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::fixtures;
    use crate::model::fixtures::PartitionReading;
    use crate::model::kafka::fault::Fault;
    use crate::model::kafka::observation::TopicOffsets;
    use crate::model::lag::assembly::{ClusterHistory, Scope};
    use crate::model::units::newtypes::TopicId;

    fn reading(seconds: u64, row: PartitionReading, id: Option<u8>) -> Arc<TopicLag> {
        let after = Duration::from_secs(seconds);
        let mut observation = fixtures::read(after, "g", "orders", &[row]);
        for topic in observation.topics.values_mut() {
            let offsets = TopicOffsets::clone(topic.as_ref().unwrap());
            *topic = Ok(Arc::new(TopicOffsets {
                id: id.map(|id| TopicId([id; 16])),
                ..offsets
            }));
        }
        let snapshot = ClusterHistory::default().apply(observation, Scope::Whole);
        let read = snapshot.groups["g"].topics.get("orders").unwrap();
        Arc::clone(read.latest.as_ref().unwrap())
    }

    fn throughput(before: PartitionReading, after: PartitionReading) -> Option<Throughput> {
        Throughput::between(&*reading(0, before, None), &reading(10, after, None), 0)
    }

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    #[test]
    fn rates_are_the_growth_of_offsets_per_second() {
        let found = throughput(ok(10, 100), ok(60, 120)).unwrap();
        assert!((found.produced_per_second() - 2.0).abs() < 1e-9);
        assert!((found.consumed_per_second() - 5.0).abs() < 1e-9);
        // 60 left, 3 fewer each second.
        assert_eq!(found.time_to_drain(Lag(60)), Some(Duration::from_secs(20)));
        let both = found.plus(found);
        assert!((both.produced_per_second() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_lag_that_does_not_shrink_has_no_time_to_drain() {
        for (committed, end) in [(10, 120), (30, 120), (10, 100)] {
            let found = throughput(ok(10, 100), ok(committed, end)).unwrap();
            assert_eq!(found.time_to_drain(Lag(5)), None, "{committed} {end}");
            assert_eq!(found.time_to_drain(Lag(0)), Some(Duration::ZERO));
        }
    }

    #[test]
    fn unknown_and_decreasing_offsets_have_no_rate() {
        let unknown = Err(Fault::LeaderUnknown);
        for (before, after) in [
            ((0, Ok(None), Ok(100)), ok(10, 100)),
            (ok(10, 100), (0, Ok(None), Ok(100))),
            ((0, Ok(Some(10)), unknown), ok(10, 100)),
            (ok(10, 100), (0, Ok(Some(10)), unknown)),
            (ok(10, 100), (0, Err(Fault::GroupDenied), Ok(100))),
            (ok(10, 100), ok(9, 100)),
            (ok(10, 100), ok(10, 99)),
        ] {
            assert_eq!(throughput(before, after), None, "{before:?} {after:?}");
        }
        let one = reading(0, ok(10, 100), None);
        assert_eq!(Throughput::between(&*one, &one, 0), None, "no time passed");
        assert_eq!(
            Throughput::between(&*one, &reading(5, ok(10, 100), None), 1),
            None,
            "no such partition"
        );
    }

    #[test]
    fn a_recreated_topic_has_no_rate() {
        let before = reading(0, ok(10, 100), Some(1));
        let same = reading(10, ok(20, 200), Some(1));
        assert!(Throughput::between(&*before, &same, 0).is_some());
        let recreated = reading(10, ok(20, 200), Some(2));
        assert_eq!(Throughput::between(&*before, &recreated, 0), None);
    }

    #[test]
    fn a_huge_lag_does_not_overflow() {
        let found = Throughput {
            produced: Lag(0),
            consumed: Lag(1),
            elapsed: Duration::from_secs(3600),
        };
        let longest = Some(Duration::from_millis(u64::MAX));
        assert_eq!(found.time_to_drain(Lag(u64::MAX)), longest);
    }
}
