//! What is known of one Kafka cluster at one moment: its groups, their topics and their lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::PartitionLag;
use super::lag_age::LagAge;
use super::subscription::RememberedGroup;
use crate::model::kafka::fault::{ConnectionFault, Fault};
use crate::model::kafka::group::GroupDescription;
use crate::model::kafka::observation::{TopicOffsets, Traffic};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::newtypes::{GroupId, Lag, Moment};

/// The times of one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// When its first request was made.
    pub started: Moment,
    /// When it was over.
    pub finished: Moment,
}

/// What is known of one Kafka cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    /// The last whole sweep; `None` before the first is over.
    pub sweep: Option<Sweep>,
    /// What keeps the cluster from answering, where something does.
    pub connection: Option<ConnectionFault>,
    /// What asking it has cost, where the client counts that.
    pub traffic: Option<Traffic>,
    /// The groups asked about.
    pub groups: BTreeMap<GroupId, Arc<GroupSnapshot>>,
}

impl ClusterSnapshot {
    /// The cause of a fault in words: the connection's own reason where the fault is that nothing
    /// was heard, the fault's words otherwise.
    #[must_use]
    pub fn cause(&self, fault: Fault) -> String {
        match &self.connection {
            Some(connection) if fault.is_connection() => connection.reason.to_string(),
            _ => fault.to_string(),
        }
    }

    /// How many readings are not complete: of a group on a topic, or of a group of which no topic
    /// is known.
    #[must_use]
    pub fn incomplete(&self) -> usize {
        let topics = self.groups.values().flat_map(|g| g.topics.values());
        let groups = self.groups.values().filter(|g| g.is_mute());
        let faulty = topics.filter(|topic| topic.fault().is_some()).count();
        faulty.saturating_add(groups.count())
    }
}

/// What is known of one group.
#[derive(Clone, Debug)]
pub struct GroupSnapshot {
    /// When it was last asked about.
    pub asked: Moment,
    /// Whether all topics with a commit are here, not only those that somebody named.
    pub discovered: bool,
    /// Why nothing is known of it at present.
    pub fault: Option<Fault>,
    /// Its members and how its work is dealt out, as last told; `None` where that never was.
    pub description: Option<Arc<GroupDescription>>,
    /// What is remembered of it while it has no members.
    pub remembered: Arc<RememberedGroup>,
    /// For how long it has been seen to have no members, as of the last sweep; `None` where it has some,
    /// or nobody tells.
    pub empty_for: Option<Duration>,
    /// Whether it is stuck as a whole: some partition is, and none that is behind gets anywhere.
    pub stuck: bool,
    /// Its topics.
    pub topics: TopicMap<GroupTopic>,
}

impl GroupSnapshot {
    /// Whether nothing is known of it, not even a topic.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.fault.is_some() && self.topics.is_empty()
    }
}

/// A group on a topic: the last reading, and the last one in which nothing was unknown.
#[derive(Clone, Debug)]
pub struct GroupTopic {
    /// The last reading, perhaps with unknown partitions.
    pub latest: Result<Arc<TopicLag>, Fault>,
    /// The last reading without an unknown; served until it is too old, then an error is.
    pub complete: Option<Arc<TopicLag>>,
}

impl GroupTopic {
    /// Why the latest reading is not complete.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match &self.latest {
            Ok(lag) => lag.first_fault(),
            Err(fault) => Some(*fault),
        }
    }

    /// The complete reading where it is young enough.
    #[must_use]
    pub fn fresh(&self, now: &Moment, max_staleness: Duration) -> Option<&Arc<TopicLag>> {
        let complete = self.complete.as_ref()?;
        (now.since(&complete.read) <= max_staleness).then_some(complete)
    }

    /// Whether the group is known to have committed here, now or once, or may have.
    #[must_use]
    pub fn may_have_commits(&self) -> bool {
        match (&self.latest, &self.complete) {
            (Err(Fault::TopicMissing), _) => false,
            (Err(_), None) => true,
            (Ok(lag), _) | (Err(_), Some(lag)) => {
                lag.committed.iter().any(|c| c != Ok(None)) || lag.is_forgotten()
            }
        }
    }
}

/// One reading of a group on a topic, as columns indexed by partition.
#[derive(Clone, Debug)]
pub struct TopicLag {
    /// When the sweep that read it began: the data is at most this old.
    pub read: Moment,
    /// The topic's own offsets, shared with its other groups.
    pub offsets: Arc<TopicOffsets>,
    /// Committed offsets.
    pub committed: CommittedOffsets,
    /// Lag.
    pub lags: Box<[Result<PartitionLag, Fault>]>,
    /// Lag in time; `None` where it is not known.
    pub ages: Box<[Option<LagAge>]>,
}

impl TopicLag {
    /// The first unknown, in the order of partitions.
    #[must_use]
    pub fn first_fault(&self) -> Option<Fault> {
        self.lags.iter().find_map(|lag| lag.err())
    }

    /// Messages that replicas are wanted for, over all partitions; an unknown partition makes the
    /// sum unknown. At least one while a partition is stuck, so that its group never goes to zero.
    ///
    /// # Errors
    /// The first unknown partition's fault.
    pub fn total(&self) -> Result<Lag, Fault> {
        let sum: Lag = self
            .lags
            .iter()
            .map(|lag| lag.map(PartitionLag::for_scaling))
            .sum::<Result<_, _>>()?;
        let is_stuck = |lag: &Result<_, _>| matches!(lag, Ok(PartitionLag::Stuck { .. }));
        let least = Lag(u64::from(self.lags.iter().any(is_stuck)));
        Ok(sum.max(least))
    }

    /// Messages behind over all partitions, whatever they count for: for people.
    ///
    /// # Errors
    /// The first unknown partition's fault.
    pub fn messages(&self) -> Result<Lag, Fault> {
        let lags = self.lags.iter();
        lags.map(|lag| lag.map(PartitionLag::messages)).sum()
    }

    /// The age of the oldest message that the group has not read; `None` while a partition is
    /// unknown.
    #[must_use]
    pub fn age(&self) -> Option<LagAge> {
        self.ages
            .iter()
            .copied()
            .try_fold(LagAge::exactly(0), |oldest, age| {
                Some(oldest.or_older(age?))
            })
    }

    /// How many messages of a partition are gone unread, where retention overtook the group.
    #[must_use]
    pub fn lost(&self, partition: usize) -> Option<Lag> {
        let start = self.offsets.starts.get(partition)?.ok()?;
        let committed = self.committed.get(partition)?.ok()??;
        let is_lost = matches!(self.lags.get(partition)?, Ok(PartitionLag::Lost(_)));
        start.distance_from(committed).filter(|_| is_lost)
    }

    /// Whether a commit is remembered here that Kafka no longer has.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        let mut lags = self.lags.iter();
        lags.any(|lag| matches!(lag, Ok(PartitionLag::Forgotten(_))))
    }

    /// Whether the group has no commit on any partition and begins at the end.
    #[must_use]
    pub fn never_ran(&self) -> bool {
        !self.lags.is_empty()
            && self
                .lags
                .iter()
                .all(|lag| *lag == Ok(PartitionLag::NeverRan))
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

    use crate::model::fixtures;
    use crate::model::kafka::fault::Fault;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    #[test]
    fn a_group_of_which_nothing_is_known_is_an_incomplete_reading() {
        assert_eq!(fixtures::snapshot().clusters["main"].incomplete(), 2);
        let mut mute = fixtures::nothing(Duration::ZERO, "mute");
        mute.groups[0].committed = Err(Fault::Login);
        let snapshot = ClusterHistory::default().take_in(mute, Scope::Whole);
        assert_eq!(snapshot.incomplete(), 1);
    }
}
