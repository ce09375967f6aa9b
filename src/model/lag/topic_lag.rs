//! Reading of a group on one topic.

use std::sync::Arc;

use super::history::clock::Now;
use super::lag_age::{EndRing, LagAge};
use super::rates::RateAverage;
use super::topic_summary::TopicSummary;
use super::{PartitionLag, UnreadStart};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::TopicOffsets;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::units::newtypes::{Lag, Moment, Offset};

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

    /// Age of the oldest unread message; `None` while a partition is unknown.
    #[must_use]
    pub fn age(&self) -> Option<LagAge> {
        self.partition_ages()
            .try_fold(LagAge::exactly(0), |oldest, age| {
                Some(oldest.or_older(age?))
            })
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
