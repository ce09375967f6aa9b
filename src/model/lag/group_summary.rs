//! The lag of a group in one row, summed over its topics and partitions.

use std::sync::Arc;

use super::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use super::lag_age::LagAge;
use super::rates::MessageRates;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::{Lag, TopicName};

/// The lag of a group over some of its topics. Counts as Kafka's own tool does: a partition without a committed offset
/// has no lag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSummary {
    /// The topics, in the order of names.
    pub topics: Vec<TopicName>,
    pub partitions: usize,
    /// Partitions without a committed offset.
    pub uncommitted: usize,
    /// Partitions whose lag is unknown, without those of `unread`.
    pub unknown: usize,
    /// The fault of the first of them.
    pub fault: Option<Fault>,
    /// Topics of which nothing is known, with the reason.
    pub unread: Vec<(TopicName, Fault)>,
    /// Sum of the lag that is known; `None` if no partition has a committed offset.
    pub known_lag: Option<Lag>,
    /// Age of the oldest unread message; `None` while it is unknown for a partition with a committed offset.
    pub age: Option<LagAge>,
    /// Messages per second since an earlier reading, on the partitions with a committed offset; `None` while they are
    /// unknown for one of these.
    pub rates: Option<MessageRates>,
}

impl GroupSummary {
    /// Sums up these topics of a group. `before` is an earlier reading of the group, for rates.
    #[must_use]
    pub fn new<'a>(
        topics: impl IntoIterator<Item = (&'a TopicName, &'a GroupTopic)>,
        before: Option<&GroupSnapshot>,
    ) -> Self {
        let mut summary = Self {
            age: Some(LagAge::exactly(0)),
            ..Self::default()
        };
        let mut rates: Vec<Option<MessageRates>> = Vec::new();
        for (name, topic) in topics {
            let read = match &topic.latest {
                Ok(read) => read,
                Err(fault) => {
                    summary.unread.push((name.clone(), *fault));
                    continue;
                }
            };
            summary.topics.push(name.clone());
            let earlier = latest_reading(before, name);
            for partition in 0..read.lags.len() {
                summary.partitions = summary.partitions.saturating_add(1);
                match read.lag_since_commit(partition) {
                    Err(fault) => {
                        summary.unknown = summary.unknown.saturating_add(1);
                        summary.fault.get_or_insert(fault);
                        summary.age = None;
                        rates.push(None);
                    }
                    Ok(None) => summary.uncommitted = summary.uncommitted.saturating_add(1),
                    Ok(Some(lag)) => {
                        let sum = summary.known_lag.unwrap_or_default();
                        summary.known_lag = Some(sum.plus(lag));
                        let age = read.partition_age(partition);
                        summary.age = summary.age.zip(age).map(|(a, b)| a.or_older(b));
                        let own = earlier.and_then(|e| read.rates_since(e, partition));
                        rates.push(own);
                    }
                }
            }
        }
        if summary.known_lag.is_none() {
            summary.age = None;
        }
        summary.rates = MessageRates::sum(rates.into_iter());
        summary
    }

    /// The lag of the group; `None` if it has no committed offset, or a partition is unknown: a partial sum is no lag.
    #[must_use]
    pub fn lag(&self) -> Option<Lag> {
        self.known_lag
            .filter(|_| self.unknown == 0 && !self.has_unread())
    }

    /// Whether a topic could not be read that may have lag. A topic that does not exist has none.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        let mut unread = self.unread.iter();
        unread.any(|(_, fault)| *fault != Fault::TopicMissing)
    }
}

/// The last reading of a group on a topic.
#[must_use]
pub fn latest_reading<'a>(
    group: Option<&'a GroupSnapshot>,
    topic: &TopicName,
) -> Option<&'a Arc<TopicLag>> {
    group?.topics.get(topic)?.latest.as_ref().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures::{self, PartitionReading};
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    fn group(seconds: u64, rows: &[PartitionReading]) -> Arc<GroupSnapshot> {
        let observation = fixtures::read(Duration::from_secs(seconds), "g", "orders", rows);
        let snapshot = ClusterHistory::default().apply(observation, Scope::Whole);
        Arc::clone(&snapshot.groups["g"])
    }

    fn summary(before: Option<&[PartitionReading]>, rows: &[PartitionReading]) -> GroupSummary {
        let before = before.map(|rows| group(0, rows));
        GroupSummary::new(group(10, rows).topics.iter(), before.as_deref())
    }

    fn ok(committed: i64, end: i64) -> PartitionReading {
        (0, Ok(Some(committed)), Ok(end))
    }

    const NO_COMMIT: PartitionReading = (0, Ok(None), Ok(500));
    const UNKNOWN: PartitionReading = (0, Ok(Some(1)), Err(Fault::LeaderUnknown));

    #[test]
    fn lag_is_the_sum_of_partitions_with_a_commit() {
        let found = summary(None, &[ok(10, 100), NO_COMMIT, ok(5, 7)]);
        assert_eq!((found.partitions, found.uncommitted), (3, 1));
        assert_eq!(found.lag(), Some(Lag(92)));
        assert_eq!(found.rates, None, "one reading has no rate");
        assert_eq!(summary(None, &[NO_COMMIT]).lag(), None);
        assert_eq!(summary(None, &[NO_COMMIT]).age, None);
    }

    #[test]
    fn one_unknown_partition_makes_the_lag_unknown() {
        let found = summary(Some(&[ok(9, 99), ok(1, 1)]), &[ok(10, 100), UNKNOWN]);
        assert_eq!((found.lag(), found.known_lag), (None, Some(Lag(90))));
        assert_eq!(found.fault, Some(Fault::LeaderUnknown));
        assert_eq!((found.age, found.rates), (None, None));
    }

    #[test]
    fn rates_add_up_over_partitions_with_a_commit() {
        let before = [ok(10, 100), ok(0, 50), NO_COMMIT];
        let found = summary(Some(&before), &[ok(30, 110), ok(5, 51), NO_COMMIT]);
        let rates = found.rates.unwrap();
        assert!((rates.produced - 1.1).abs() < 1e-9, "{rates:?}");
        assert!((rates.consumed - 2.5).abs() < 1e-9, "{rates:?}");
        let reset = summary(Some(&before), &[ok(30, 110), ok(5, 49), NO_COMMIT]);
        assert_eq!(reset.rates, None);
        let first_commit = summary(Some(&before), &[ok(30, 110), ok(5, 51), ok(1, 500)]);
        assert_eq!(first_commit.rates, None);
    }

    #[test]
    fn a_topic_that_could_not_be_read_makes_the_lag_unknown() {
        let failed = |fault| {
            let mut observation = fixtures::read(Duration::ZERO, "g", "orders", &[ok(1, 2)]);
            let mut committed = observation.groups[0].committed.clone().unwrap();
            let column = committed.get("orders").unwrap().clone();
            committed.insert("other".into(), column);
            observation.groups[0].committed = Ok(committed);
            observation.topics.insert("other".into(), Err(fault));
            let snapshot = ClusterHistory::default().apply(observation, Scope::Whole);
            GroupSummary::new(snapshot.groups["g"].topics.iter(), None)
        };
        let denied = failed(Fault::TopicDenied);
        assert_eq!((denied.lag(), denied.known_lag), (None, Some(Lag(1))));
        let deleted = failed(Fault::TopicMissing);
        assert_eq!(deleted.lag(), Some(Lag(1)), "{deleted:?}");
        assert_eq!(deleted.unread.len(), 1);
    }
}
