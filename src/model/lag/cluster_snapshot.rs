//! Snapshot of one Kafka cluster: its groups, their topics and their lag.

use std::sync::Arc;
use std::time::Duration;

use super::rates::MessageRates;
use super::subscription::{RememberedGroup, Subscription};
pub use super::topic_lag::TopicLag;
use crate::model::kafka::fault::{BrokerFault, ConnectionFault, Fault};
use crate::model::kafka::group::GroupDescription;
use crate::model::kafka::observation::{CertificateExpiry, Traffic};
use crate::model::kafka::sweep_plan::KnownTopics;
use crate::model::kafka::topic_listing::TopicListing;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::newtypes::{GroupId, Moment, TopicName};
use crate::model::units::persistent_map::PersistentMap;
use crate::model::units::topic_pattern::TopicPattern;

/// Start and end of one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// When the first request was sent.
    pub started: Moment,
    /// When the last response arrived or the deadline passed.
    pub finished: Moment,
}

/// Snapshot of one Kafka cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    /// The last complete sweep; `None` before the first one ends.
    pub sweep: Option<Sweep>,
    /// Why the cluster does not answer, if it does not.
    pub connection: Option<ConnectionFault>,
    /// Brokers that are needed and cannot be reached, by address.
    pub unreachable_brokers: Arc<[BrokerFault]>,
    /// Requests, bytes and connections so far, if the client counts them.
    pub traffic: Option<Traffic>,
    pub certificates: CertificateExpiry,
    /// The groups of the sweep plan. Groups that were not read again are shared with the snapshot before.
    pub groups: PersistentMap<GroupId, Arc<GroupSnapshot>>,
}

impl ClusterSnapshot {
    /// Reports the groups that were read again after the snapshot `before`, or appeared or disappeared since.
    pub fn diff_groups(
        before: &Self,
        after: &Self,
        report: impl FnMut(&GroupId, Option<&Arc<GroupSnapshot>>, Option<&Arc<GroupSnapshot>>),
    ) {
        before.groups.diff_by(&after.groups, Arc::ptr_eq, report);
    }

    /// Describes the cause of a fault. For a connection fault, that is why no broker answers, or why the brokers cannot
    /// be reached that may have caused it. For any other fault, it is the fault's own text.
    #[must_use]
    pub fn cause(&self, fault: Fault) -> String {
        if !fault.is_connection() {
            return fault.to_string();
        }
        if let Some(connection) = &self.connection {
            return connection.reason.to_string();
        }
        let of_kind = self.unreachable_brokers.iter();
        let of_kind: Vec<_> = of_kind.filter(|broker| broker.kind == fault).collect();
        if !of_kind.is_empty() {
            return broker_reasons(&of_kind);
        }
        // A client may only see that answers are missing, and not which broker owes them.
        let all: Vec<_> = self.unreachable_brokers.iter().collect();
        if all.is_empty() {
            return fault.to_string();
        }
        format!(
            "{fault}; a broker cannot be reached: {}",
            broker_reasons(&all)
        )
    }

    /// Function that looks up the topics that the members of a group read, or last read if it has none.
    pub fn topics_read(&self) -> impl Fn(&GroupId) -> KnownTopics {
        |group| {
            let group = self.groups.get(group);
            group.map_or_else(KnownTopics::default, |group| KnownTopics {
                topics: group.subscription().topics,
                is_empty: group.is_empty(),
            })
        }
    }

    /// Number of incomplete readings: of a group on a topic, or of a group none of whose topics is known.
    #[must_use]
    pub fn incomplete(&self) -> usize {
        let topics = self.groups.values().flat_map(|g| g.counted_topics());
        let groups = self.groups.values().filter(|g| g.is_unknown());
        let faulty = topics.filter(|(_, topic)| topic.fault().is_some()).count();
        faulty.saturating_add(groups.count())
    }
}

/// The reasons of the first few brokers.
fn broker_reasons(brokers: &[&BrokerFault]) -> String {
    const MAX_SHOWN_REASONS: usize = 4;
    let shown = brokers.iter().take(MAX_SHOWN_REASONS);
    let mut reasons: Vec<&str> = shown.map(|broker| &*broker.reason).collect();
    if brokers.len() > MAX_SHOWN_REASONS {
        reasons.push("and others");
    }
    reasons.join("; ")
}

/// Snapshot of one group.
#[derive(Clone, Debug)]
pub struct GroupSnapshot {
    /// When the last reading was requested.
    pub requested_at: Moment,
    /// Whether all topics with a committed offset are included, not only the named ones.
    pub discovered: bool,
    /// Why the last reading failed as a whole.
    pub fault: Option<Fault>,
    /// The last known description: members, assignor, assignments. `None` if it was never described.
    pub description: Option<Arc<GroupDescription>>,
    /// Facts remembered while it has no members.
    pub remembered: Arc<RememberedGroup>,
    /// How long it has had no members, as of the last sweep; `None` if it has some or is not described.
    pub empty_for: Option<Duration>,
    /// Topics of the cluster that match the patterns of its targets. `None` while it has members, and without a pattern:
    /// then no topics are listed.
    pub listing: Option<Arc<TopicListing>>,
    /// Set while nothing shows that it reads its topics ([`is_unseen`](Self::is_unseen)).
    pub unseen: Option<Arc<Unseen>>,
    /// Topics that do not count for the group, sorted: those on which it has commits from earlier times, but which its
    /// members do not read and no target names; and those that are read only because requests to the API name them, so
    /// that a request cannot change its figures.
    pub uncounted: Box<[TopicName]>,
    /// Whether the whole group is stuck: one partition is, and no other with lag makes progress.
    pub stuck: bool,
    /// How long ago one of its committed offsets last moved, as of the last sweep; `None` before one was seen to move.
    pub since_commit_seconds: Option<u32>,
    /// Rebalances that were seen.
    pub rebalances: u32,
    pub topics: TopicMap<GroupTopic>,
}

/// Facts about a group that nothing shows to read its topics: most likely its name, or that of a topic, is misspelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// How long it has not been seen, as of the last sweep.
    pub since: Duration,
    /// Whether Kafka knows the group: its name is right, and only the topics may be wrong.
    pub exists: bool,
    /// Names of existing groups that are similar to its own, the closest first; none if it exists.
    pub similar: Arc<[GroupId]>,
}

impl GroupSnapshot {
    /// Whether nothing is known of it, because no reading ever succeeded.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.fault.is_some() && self.topics.is_empty()
    }

    /// Whether it is known to have no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let description = self.description.as_deref();
        description.is_some_and(|description| !description.has_members())
    }

    /// Whether members, if the group had some, can be expected to read a topic: `pattern` lists it, and earlier members
    /// did not ignore it.
    #[must_use]
    pub fn would_read(&self, pattern: &TopicPattern, topic: &TopicName) -> bool {
        let listed = self
            .listing
            .as_deref()
            .and_then(|l| l.topics_of(pattern)?.ok());
        listed.is_some_and(|topics| topics.contains(topic)) && !self.remembered.ignores(topic)
    }

    /// Whether nothing shows that the group exists: it has no committed offset on its topics, and never had a member.
    /// `false` if any of that is unknown. With named topics, commits on others do not count, because they are not read.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        let is_unread = |topic: &GroupTopic| topic.latest.is_ok() && !topic.may_have_commits();
        self.fault.is_none()
            && self.is_empty()
            && !self.remembered.had_members
            && self.counted_topics().all(|(_, topic)| is_unread(topic))
    }

    /// Whether a topic counts for the group. The lag on a topic that it has left grows forever, and means nothing.
    #[must_use]
    pub fn counts(&self, topic: &TopicName) -> bool {
        self.uncounted.binary_search(topic).is_err()
    }

    /// The topics that count for the group.
    pub fn counted_topics(&self) -> impl Iterator<Item = (&TopicName, &GroupTopic)> {
        let topics = self.topics.iter();
        topics.filter(|(topic, _)| self.counts(topic))
    }

    /// Messages per second over the topics that count; `None` if there are none, or the rates of one are unknown.
    #[must_use]
    pub fn rates(&self) -> Option<MessageRates> {
        MessageRates::sum(self.counted_topics().map(|(_, topic)| topic.rates()))
    }

    /// The topics that its members read. During a rebalance and while it has no members, the broker does not report
    /// them; then these are the last known ones.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        let description = self.description.as_deref();
        let mut subscription = description.map(Subscription::of).unwrap_or_default();
        if let (false, Some(reads)) = (subscription.is_all, &self.remembered.reads) {
            let reads = reads.iter().map(|topic| TopicName::from(topic.as_str()));
            subscription.topics.extend(reads);
            subscription.is_all = true;
        }
        subscription
    }
}

/// A group on a topic: the last reading and the last complete one.
#[derive(Clone, Debug)]
pub struct GroupTopic {
    /// The last reading; partitions may be unknown.
    pub latest: Result<Arc<TopicLag>, Fault>,
    /// The last reading without an unknown partition. Served until it is stale.
    pub complete: Option<Arc<TopicLag>>,
}

impl GroupTopic {
    /// Why the last reading is incomplete.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match &self.latest {
            Ok(lag) => lag.first_fault(),
            Err(fault) => Some(*fault),
        }
    }

    /// Messages per second as of the last reading, averaged over a minute; `None` while they are unknown: before the
    /// second reading, and after one with an unknown partition.
    #[must_use]
    pub fn rates(&self) -> Option<MessageRates> {
        self.latest.as_ref().ok()?.rate_average.rates()
    }

    /// Whether the group has, had, or may have a committed offset on the topic.
    #[must_use]
    pub fn may_have_commits(&self) -> bool {
        match (&self.latest, &self.complete) {
            (Err(Fault::TopicMissing), _) => false,
            (Err(_), None) => true,
            (Ok(lag), _) | (Err(_), Some(lag)) => lag.summary.may_have_commits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    #[test]
    fn a_fault_of_a_connection_names_the_broker_that_it_is_due_to() {
        let mut cluster = ClusterSnapshot::default();
        let causes = |cluster: &ClusterSnapshot| {
            [Fault::NameResolution, Fault::NoAnswer, Fault::TopicDenied]
                .map(|fault| cluster.cause(fault))
        };
        let own = [
            "a broker's host name could not be resolved",
            "no response before the deadline of the poll",
            "not authorized: the principal lacks Describe on the topic",
        ];
        assert_eq!(causes(&cluster), own);
        let broker = |number: usize, kind| BrokerFault {
            address: format!("b{number}:9092").into(),
            kind,
            reason: format!("b{number}:9092: reason").into(),
        };
        cluster.unreachable_brokers = [
            broker(1, Fault::Unreachable),
            broker(2, Fault::NameResolution),
        ]
        .into();
        let expected = [
            "b2:9092: reason".to_owned(),
            format!(
                "{}; a broker cannot be reached: b1:9092: reason; b2:9092: reason",
                own[1]
            ),
            own[2].to_owned(),
        ];
        assert_eq!(causes(&cluster), expected);
        let many = (0..9).map(|number| broker(number, Fault::NameResolution));
        cluster.unreachable_brokers = many.collect();
        let cause = cluster.cause(Fault::NameResolution);
        assert!(
            cause.starts_with("b0:9092: reason; b1") && cause.ends_with("; and others"),
            "{cause}"
        );
        cluster.connection = Some(ConnectionFault {
            kind: Fault::Login,
            reason: "b3:9092: no".into(),
            since: fixtures::at(Duration::ZERO),
        });
        assert_eq!(cluster.cause(Fault::NameResolution), "b3:9092: no");
    }

    #[test]
    fn a_group_that_was_never_read_counts_as_an_incomplete_reading() {
        assert_eq!(fixtures::snapshot().clusters["main"].incomplete(), 2);
        let mut mute = fixtures::nothing(Duration::ZERO, "mute");
        mute.groups[0].committed = Err(Fault::Login);
        let snapshot = ClusterHistory::default().apply(mute, Scope::Whole);
        assert_eq!(snapshot.incomplete(), 1);
    }
}
