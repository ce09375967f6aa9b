//! The offsets that KEDA would read of a group, from what lagwise has read.

use std::sync::Arc;

use super::arithmetic::{KedaOffsets, OffsetFault, PartitionOffsets};
use super::trigger::{KafkaTrigger, TriggerKind};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::cluster_snapshot::{GroupTopic, TopicLag};
use crate::model::units::newtypes::TopicName;

/// The offsets of a topic's partitions, as KEDA would read them.
pub(super) fn partitions_of(lag: &TopicLag) -> impl Iterator<Item = PartitionOffsets> {
    let committed = lag.committed.iter();
    let ends = lag.offsets.ends.iter();
    committed
        .zip(ends)
        .map(|(committed, end)| PartitionOffsets {
            committed: committed
                .map(|c| c.map(|offset| offset.0))
                .map_err(|_| OffsetFault),
            end: end.map(|offset| offset.0).map_err(|_| OffsetFault),
        })
}

impl KedaOffsets {
    /// What KEDA would have read of a group that lagwise has read; `None` if lagwise did not read all of it: after a
    /// fault, which is not KEDA's, and for a trigger `apache-kafka` without a topic, which reads every topic of the
    /// Kafka cluster.
    #[must_use]
    pub fn from_topics(
        trigger: &KafkaTrigger,
        topics: &TopicMap<GroupTopic>,
        has_members: bool,
    ) -> Option<Self> {
        if trigger.kind == TriggerKind::ApacheKafka && trigger.topics.is_empty() && has_members {
            return None;
        }
        let is_counted =
            |topic: &TopicName| trigger.topics.is_empty() || trigger.topics.contains(topic);
        let has_fault = |latest: &Result<Arc<TopicLag>, Fault>| match latest {
            Ok(lag) => {
                // With this kind of trigger, KEDA takes an unknown offset for 0.
                trigger.kind == TriggerKind::ApacheKafka
                    && partitions_of(lag)
                        .any(|offsets| offsets.end.is_err() || offsets.committed.is_err())
            }
            Err(fault) => *fault != Fault::TopicMissing,
        };
        if topics
            .iter()
            .any(|(topic, read)| is_counted(topic) && has_fault(&read.latest))
        {
            return None;
        }
        let read = topics.iter().filter_map(|(topic, read)| {
            let lag = read.latest.as_ref().ok()?;
            Some((topic.clone(), partitions_of(lag).collect()))
        });
        Some(Self {
            topics: read.collect(),
            has_members,
        })
    }
}
