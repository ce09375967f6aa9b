//! Reads the groups that `lagwise lag` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::name_filter::NameFilter;
use crate::kafka::{ClientKind, ClientSettings, KafkaSource};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic};
use crate::model::units::newtypes::{GroupId, TopicName};
use crate::poller::OffsetSource;

/// Maximum number of groups read at once with librdkafka, where each costs a client.
pub(super) const MAX_GROUPS_AT_ONCE: usize = 50;

/// The selected groups and topics.
#[derive(Debug, Default)]
pub(in crate::cli) struct LagRequest {
    pub(in crate::cli) groups: NameFilter,
    pub(in crate::cli) topics: NameFilter,
}

impl LagRequest {
    /// The topics of a group that are shown. Topics selected by name are read for every group, and left out where the
    /// group does not use them.
    pub(in crate::cli) fn wanted_topics<'a>(
        &self,
        group: &GroupId,
        read: &'a GroupSnapshot,
    ) -> Vec<(&'a TopicName, &'a GroupTopic)> {
        let is_named = self.groups.names.contains(group.as_str());
        let subscribed = read.subscription().topics;
        let is_related = |topic: &TopicName, read: &GroupTopic| {
            !self.topics.names.contains(topic.as_str())
                || is_named
                || read.may_have_commits()
                || subscribed.contains(topic)
        };
        let topics = read.topics.iter();
        topics
            .filter(|(topic, read)| self.topics.matches(topic.as_str()) && is_related(topic, read))
            .collect()
    }

    /// Plans to read a group, with these topics besides the selected ones.
    fn plan(&self, group: &GroupId, others: BTreeSet<TopicName>) -> GroupPlan {
        let names = self.topics.names.iter();
        let mut topics: BTreeSet<_> = names.map(|name| TopicName::from(name.as_str())).collect();
        topics.extend(others);
        GroupPlan {
            discover: self.topics.needs_list(),
            ..GroupPlan::new(group.clone(), topics)
        }
    }
}

/// The groups of one Kafka cluster at one time.
#[derive(Debug, Default)]
pub(in crate::cli) struct ClusterReading {
    pub(in crate::cli) cluster: String,
    pub(in crate::cli) groups: BTreeMap<GroupId, Arc<GroupSnapshot>>,
    /// The selected data that is unknown, apart from single partitions.
    pub(in crate::cli) unknown: BTreeSet<String>,
}

/// Reads one Kafka cluster, once or repeatedly.
pub(in crate::cli) struct ClusterReader {
    settings: ClientSettings,
    source: KafkaSource,
    history: ClusterHistory,
}

impl ClusterReader {
    /// Sets up the client.
    ///
    /// # Errors
    /// A property that the client rejects.
    pub(in crate::cli) fn new(settings: ClientSettings) -> anyhow::Result<Self> {
        let source = KafkaSource::connect(settings.clone())?;
        Ok(Self {
            settings,
            source,
            history: ClusterHistory::default(),
        })
    }

    /// Reads the selected groups. Each request to Kafka fails after `timeout`.
    ///
    /// # Errors
    /// A client that cannot be set up again.
    pub(in crate::cli) async fn read(
        &mut self,
        request: &LagRequest,
        timeout: Duration,
    ) -> anyhow::Result<ClusterReading> {
        let cluster = self.settings.name.to_string();
        let mut reading = ClusterReading {
            cluster,
            ..ClusterReading::default()
        };
        let groups = self.list(request, timeout, &mut reading).await;
        let is_costly = self.source.client() == ClientKind::Librdkafka;
        let at_once = if is_costly {
            MAX_GROUPS_AT_ONCE
        } else {
            usize::MAX
        };
        for (i, batch) in groups.chunks(at_once).enumerate() {
            if i > 0 {
                // A new source drops the clients of the previous batch.
                self.source = KafkaSource::connect(self.settings.clone())?;
            }
            let plans = batch.iter();
            let plans = plans.map(|group| request.plan(group, BTreeSet::new()));
            let mut snapshot = self.sweep(plans.collect(), timeout).await;
            let unread = unread_plans(request, batch, &snapshot);
            if !unread.is_empty() {
                snapshot = self.sweep(unread, timeout).await;
            }
            for group in batch {
                if let Some(read) = snapshot.groups.get(group) {
                    let unknown = unknown(request, &reading.cluster, group, read, &snapshot);
                    reading.unknown.extend(unknown);
                    reading.groups.insert(group.clone(), Arc::clone(read));
                }
            }
            if snapshot.connection.is_none() && snapshot.incomplete() > 0 {
                let brokers = snapshot.unreachable_brokers.iter();
                let reasons = brokers.map(|b| format!("{}: {}", reading.cluster, b.reason));
                reading.unknown.extend(reasons);
            }
        }
        let unmatched = unmatched_topics(request, &reading);
        reading.unknown.extend(unmatched);
        Ok(reading)
    }

    /// The selected groups: those that are named, and the listed ones that match.
    async fn list(
        &self,
        request: &LagRequest,
        timeout: Duration,
        reading: &mut ClusterReading,
    ) -> Vec<GroupId> {
        let names = request.groups.names.iter();
        let mut groups: BTreeSet<_> = names.map(|name| GroupId::from(name.as_str())).collect();
        if request.groups.needs_list() {
            let cluster = &reading.cluster;
            let listed = self.source.list_groups(Instant::now() + timeout).await;
            let patterns = request
                .groups
                .unmatched(listed.groups.iter().map(GroupId::as_str));
            match listed.connection {
                Some(fault) => {
                    reading
                        .unknown
                        .extend([format!("{cluster}: {}", fault.reason)]);
                }
                None => {
                    let missing =
                        |fault: &Fault| format!("{cluster}: some groups are missing: {fault}");
                    let unmatched =
                        |pattern: &str| format!("{cluster}: no group matches {pattern}");
                    reading.unknown.extend(listed.faults.iter().map(missing));
                    reading.unknown.extend(patterns.into_iter().map(unmatched));
                }
            }
            let listed = listed.groups.into_iter();
            groups.extend(listed.filter(|group| request.groups.matches(group.as_str())));
        }
        groups.into_iter().collect()
    }

    async fn sweep(&mut self, groups: Vec<GroupPlan>, timeout: Duration) -> Arc<ClusterSnapshot> {
        let plan = SweepPlan {
            groups,
            ..SweepPlan::default()
        };
        let observation = self.source.observe(plan, Instant::now() + timeout).await;
        self.history.apply(observation, Scope::Partial)
    }
}

/// Plans for the groups whose members read topics without a committed offset, with these topics: the first sweep finds
/// only topics with one.
fn unread_plans(
    request: &LagRequest,
    groups: &[GroupId],
    snapshot: &ClusterSnapshot,
) -> Vec<GroupPlan> {
    if !request.topics.needs_list() {
        return Vec::new();
    }
    let plan = |group: &GroupId| {
        let read = snapshot.groups.get(group)?;
        let mut topics = read.subscription().topics;
        topics.retain(|topic| request.topics.matches(topic.as_str()));
        let is_unread = topics.iter().any(|topic| !read.topics.contains_key(topic));
        is_unread.then(|| request.plan(group, topics))
    };
    groups.iter().filter_map(plan).collect()
}

/// Messages about patterns that match no topic of the groups. There are none while something is unknown, since an
/// unknown group may have such a topic.
pub(super) fn unmatched_topics(request: &LagRequest, reading: &ClusterReading) -> Vec<String> {
    if !reading.unknown.is_empty() {
        return Vec::new();
    }
    let topics = reading.groups.values().flat_map(|read| read.topics.keys());
    let patterns = request.topics.unmatched(topics.map(TopicName::as_str));
    let cluster = &reading.cluster;
    let message = |pattern: &str| {
        format!("{cluster}: none of the groups reads a topic that matches {pattern}")
    };
    patterns.into_iter().map(message).collect()
}

/// The selected data of a group that is unknown, apart from single partitions.
fn unknown(
    request: &LagRequest,
    cluster: &str,
    group: &GroupId,
    read: &GroupSnapshot,
    snapshot: &ClusterSnapshot,
) -> Vec<String> {
    match read.fault {
        Some(fault) if fault.is_connection() && snapshot.connection.is_some() => {
            vec![format!("{cluster}: {}", snapshot.cause(fault))]
        }
        Some(fault) => {
            let cause = snapshot.cause(fault);
            vec![format!("{cluster}: group {group}: {cause}")]
        }
        None if read.topics.is_empty() && request.groups.names.contains(group.as_str()) => {
            vec![format!(
                "{cluster}: group {group} has no committed offset; check its name"
            )]
        }
        None => {
            let topics = read.topics.iter();
            let topics = topics.filter(|(topic, _)| request.topics.matches(topic.as_str()));
            let unread = topics.filter_map(|(topic, t)| Some((topic, *t.latest.as_ref().err()?)));
            // Groups keep commits on deleted topics. That is only a fault if the topic was selected by name.
            let is_missed = |(topic, fault): &(&TopicName, Fault)| {
                *fault != Fault::TopicMissing || request.topics.names.contains(topic.as_str())
            };
            unread
                .filter(is_missed)
                .map(|(topic, fault)| {
                    format!("{cluster}: topic {topic}: {}", snapshot.cause(fault))
                })
                .collect()
        }
    }
}
