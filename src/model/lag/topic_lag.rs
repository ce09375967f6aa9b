//! Reading of a group on one topic, and what follows from it for the partitions that count.

use std::sync::Arc;

use super::history::clock::Now;
use super::lag_age::{EndRing, LagAge};
use super::rates::{MessageRates, RateAverage};
use super::topic_summary::TopicSummary;
use super::{PartitionLag, UnreadStart};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::TopicOffsets;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::units::newtypes::{Lag, Moment, Offset};
use crate::model::units::partition_filter::{PartitionFilter, counted_partitions};

/// Reading of a group on a topic, as columns indexed by partition.
#[derive(Clone, Debug)]
pub struct TopicLag {
    /// Start of the sweep that read it, so the data is no older than that.
    pub read: Moment,
    /// Offsets of the topic's log, shared by all groups that read it.
    pub offsets: Arc<TopicOffsets>,
    /// Committed offsets.
    pub committed: CommittedOffsets,
    /// Lag per partition.
    pub lags: Box<[Result<PartitionLag, Fault>]>,
    /// Sums over all partitions.
    pub summary: TopicSummary,
    /// Inputs of the ages of the lag. The ages are computed on demand, because few readers need them.
    pub(super) age_basis: LagAgeBasis,
    /// Average of the rates up to this reading.
    pub(super) rate_average: RateAverage,
}

/// Inputs of the ages of a topic's lag.
#[derive(Clone, Debug, Default)]
pub(super) struct LagAgeBasis {
    /// When the topic was read.
    pub(super) now: Now,
    /// Past log-end offsets of the topic; `None` if there are none.
    pub(super) ends: Option<Arc<EndRing>>,
    /// First unread offset of the partitions where it does not follow from the committed offset and the log start;
    /// `None` if there is no such partition.
    pub(super) first_unread: Option<Box<[Option<Offset>]>>,
}

impl TopicLag {
    /// Fault of the first unknown partition.
    #[must_use]
    pub fn first_fault(&self) -> Option<Fault> {
        self.summary.total.err()
    }

    /// Sum of the lag that counts for scaling.
    ///
    /// # Errors
    /// The fault of the first unknown partition: a partial sum is never returned.
    pub fn total(&self) -> Result<Lag, Fault> {
        self.summary.total
    }

    /// Sum of the lag of all partitions, whether or not it counts for scaling; for display.
    ///
    /// # Errors
    /// The fault of the first unknown partition: a partial sum is never returned.
    pub fn messages(&self) -> Result<Lag, Fault> {
        let lags = self.lags.iter();
        lags.map(|lag| lag.map(PartitionLag::messages)).sum()
    }

    /// The partitions that count with this filter.
    pub fn counted(&self, filter: Option<&PartitionFilter>) -> impl Iterator<Item = usize> {
        counted_partitions(filter, self.lags.len())
    }

    /// Age of the oldest unread message; `None` while a partition is unknown.
    #[must_use]
    pub fn age(&self) -> Option<LagAge> {
        self.age_of(None)
    }

    /// Age of the oldest unread message on the partitions that count; `None` while one of them is unknown.
    #[must_use]
    pub fn age_of(&self, filter: Option<&PartitionFilter>) -> Option<LagAge> {
        self.counted(filter)
            .try_fold(LagAge::exactly(0), |oldest, partition| {
                Some(oldest.or_older(self.partition_age(partition)?))
            })
    }

    /// How many of the partitions that count are stuck.
    #[must_use]
    pub fn stuck(&self, filter: Option<&PartitionFilter>) -> u32 {
        if !self.summary.has_trouble {
            return 0;
        }
        let counted = self.counted(filter);
        let lags = counted.filter_map(|partition| self.lags.get(partition)?.ok());
        let stuck = lags.filter(|lag| matches!(lag, PartitionLag::Stuck { .. }));
        u32::try_from(stuck.count()).unwrap_or(u32::MAX)
    }

    /// Age of the first unread message of every partition; `None` where it is unknown.
    pub fn partition_ages(&self) -> impl ExactSizeIterator<Item = Option<LagAge>> {
        (0..self.lags.len()).map(|partition| self.partition_age(partition))
    }

    /// Age of the first unread message of a partition; `None` if it is unknown.
    #[must_use]
    pub fn partition_age(&self, partition: usize) -> Option<LagAge> {
        let lag = self.lags.get(partition)?.ok()?;
        if lag.messages() == Lag(0) || lag.has_no_work() {
            // No message is waiting.
            return Some(LagAge::exactly(0));
        }
        let basis = &self.age_basis;
        let ends = basis.ends.as_ref();
        let age = ends.zip(self.first_unread(partition, lag));
        let age = age.and_then(|(ends, unread)| ends.age(partition, unread, basis.now.0));
        Some(age.unwrap_or(LagAge::at_least(0)))
    }

    /// First offset that the group has yet to read on a partition where it is behind.
    fn first_unread(&self, partition: usize, lag: PartitionLag) -> Option<Offset> {
        let known = || *self.age_basis.first_unread.as_ref()?.get(partition)?;
        match lag.unread_start() {
            UnreadStart::Commit => known().or(self.committed.get(partition)?.ok()?),
            UnreadStart::LogStart => self.offsets.starts.get(partition)?.ok(),
            UnreadStart::Remembered => known(),
            UnreadStart::Nowhere => None,
        }
    }

    /// Lag of a partition as `kafka-consumer-groups.sh` shows it: `None` without a committed offset, because the lag
    /// then depends on where the consumers start, which Kafka does not know.
    ///
    /// # Errors
    /// Why the lag is unknown.
    pub fn lag_since_commit(&self, partition: usize) -> Result<Option<Lag>, Fault> {
        let lag = self.lags.get(partition).copied();
        let lag = lag.unwrap_or(Err(Fault::NoAnswer))?;
        let committed = self.committed.get(partition);
        let committed = committed.unwrap_or(Err(Fault::NoAnswer))?;
        Ok(committed.map(|_| lag.messages()))
    }

    /// Average of the rates as of this reading, which follows `before`. `consumed` are the messages that the group
    /// committed in between. The average begins anew after a reading with an unknown partition.
    pub(super) fn average_after(&self, before: Option<&Self>, consumed: Lag) -> RateAverage {
        let known = before.and_then(|before| Some((before, self.written_since(before)?)));
        let Some((before, written)) = known else {
            return RateAverage::default();
        };
        let elapsed = self.read.since(&before.read);
        before
            .rate_average
            .with_messages((written, consumed), elapsed)
    }

    /// Messages written to the topic since an earlier reading; `None` if a partition is unknown in one of the two.
    fn written_since(&self, before: &Self) -> Option<Lag> {
        if before.first_fault().is_some() || self.first_fault().is_some() {
            return None;
        }
        let written = |lag: &Self| Some(lag.age_basis.ends.as_ref()?.written());
        written(self)?.checked_sub(written(before)?).map(Lag)
    }

    /// Rates of a partition since an earlier reading. `None` if one of the four offsets is unknown, the group has no
    /// committed offset, an offset went backwards (the offsets were reset, or the topic was recreated), or no time has
    /// passed.
    #[must_use]
    pub fn rates_since(&self, before: &Self, partition: usize) -> Option<MessageRates> {
        let elapsed = self.read.since(&before.read);
        let known_ids = before.offsets.id.zip(self.offsets.id);
        if elapsed.is_zero() || known_ids.is_some_and(|(old, new)| old != new) {
            return None;
        }
        let end = |lag: &Self| lag.offsets.ends.get(partition)?.ok();
        let committed = |lag: &Self| lag.committed.get(partition)?.ok()?;
        let produced = end(self)?.distance_from(end(before)?)?;
        let consumed = committed(self)?.distance_from(committed(before)?)?;
        Some(MessageRates::new(produced, consumed, elapsed))
    }

    /// Messages that retention deleted before the group read them; `None` if there are none.
    #[must_use]
    pub fn lost(&self, partition: usize) -> Option<Lag> {
        let start = self.offsets.starts.get(partition)?.ok()?;
        let committed = self.committed.get(partition)?.ok()??;
        let is_lost = matches!(self.lags.get(partition)?, Ok(PartitionLag::Lost(_)));
        start.distance_from(committed).filter(|_| is_lost)
    }

    /// Whether the committed offset of a partition has disappeared from Kafka.
    #[must_use]
    pub fn is_forgotten_on(&self, partition: usize) -> bool {
        let lag = self.lags.get(partition).and_then(|lag| lag.ok());
        let both = lag.zip(self.committed.get(partition));
        both.is_some_and(|(lag, committed)| lag.is_forgotten(committed))
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.lags.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures::{self, PartitionReading};
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

    fn between(before: PartitionReading, after: PartitionReading) -> Option<MessageRates> {
        reading(10, after, None).rates_since(&reading(0, before, None), 0)
    }

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    #[test]
    fn rates_are_the_growth_of_offsets_per_second() {
        let found = between(ok(10, 100), ok(60, 120)).unwrap();
        let expected = MessageRates {
            produced: 2.0,
            consumed: 5.0,
        };
        assert_eq!(found, expected);
        // 60 left, 3 fewer each second.
        assert_eq!(found.time_to_drain(Lag(60)), Some(Duration::from_secs(20)));
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
            assert_eq!(between(before, after), None, "{before:?} {after:?}");
        }
        let one = reading(0, ok(10, 100), None);
        assert_eq!(one.rates_since(&one, 0), None, "no time passed");
        let later = reading(5, ok(10, 100), None);
        assert_eq!(later.rates_since(&one, 1), None, "no such partition");
    }

    #[test]
    fn a_recreated_topic_has_no_rate() {
        let before = reading(0, ok(10, 100), Some(1));
        let same = reading(10, ok(20, 200), Some(1));
        assert!(same.rates_since(&before, 0).is_some());
        let recreated = reading(10, ok(20, 200), Some(2));
        assert_eq!(recreated.rates_since(&before, 0), None);
    }

    #[test]
    fn the_age_is_that_of_the_partitions_that_count() {
        let unknown = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));
        let mut history = ClusterHistory::default();
        let mut read = |seconds, ends: [i64; 2]| {
            let rows = [ok(0, ends[0]), ok(5, ends[1]), unknown];
            let observation = fixtures::read(Duration::from_secs(seconds), "g", "orders", &rows);
            history.apply(observation, Scope::Whole)
        };
        read(0, [0, 5]);
        let snapshot = read(10, [10, 5]);
        let topic = snapshot.groups["g"].topics.get("orders").unwrap();
        let lag = topic.latest.as_deref().unwrap();
        for (text, counted, age) in [
            ("0", vec![0], Some(LagAge::exactly(10_000))),
            ("1,7", vec![1], Some(LagAge::exactly(0))),
            ("0-1", vec![0, 1], Some(LagAge::exactly(10_000))),
            ("1-2", vec![1, 2], None),
            ("9", vec![], Some(LagAge::exactly(0))),
        ] {
            let filter = PartitionFilter::parse(text).unwrap();
            let found: Vec<_> = lag.counted(Some(&filter)).collect();
            assert_eq!((found, lag.age_of(Some(&filter))), (counted, age), "{text}");
        }
        assert_eq!((lag.age(), lag.counted(None).count()), (None, 3));
    }
}
