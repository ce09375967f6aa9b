//! Reads the demo's group from the daemon's latest snapshot.

use std::sync::Arc;

use crate::model::evaluation::ValueRule;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Moment, Offset, TopicName};

/// Offsets and lag of a partition; `None` if unknown. `committed` is `None` also without a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionRow {
    pub(super) committed: Option<Offset>,
    pub(super) end: Option<Offset>,
    pub(super) lag: Option<Lag>,
}

/// State of the demo's group in one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DemoReading {
    pub(super) rows: Vec<PartitionRow>,
    /// Total lag in messages.
    pub(super) lag: Option<Lag>,
    /// Useful parallelism.
    pub(super) ceiling: Option<u32>,
    /// Whether the served value is clamped to the ceiling.
    pub(super) capped: bool,
    /// Why the metric fails; `None` if it does not.
    pub(super) unknown: Option<String>,
}

/// The topic of the demo and the group that reads it, to find them in a snapshot.
pub(super) struct DemoTopic {
    pub(super) cluster: ClusterName,
    pub(super) group: GroupId,
    pub(super) topic: TopicName,
}

/// Reads the partitions of `demo_topic` from the snapshot, and evaluates the HPA's query.
pub(super) fn read(
    snapshot: &LagSnapshot,
    demo_topic: &DemoTopic,
    query: &MetricQuery<'_>,
    now: &Moment,
    partitions: usize,
) -> DemoReading {
    let found = snapshot
        .clusters
        .get(&demo_topic.cluster)
        .and_then(|cluster| cluster.groups.get(&demo_topic.group))
        .and_then(|group| group.topics.get(&demo_topic.topic))
        .and_then(|topic| topic.latest.as_ref().ok());
    let rows = (0..partitions)
        .map(|partition| row(found, partition))
        .collect();
    match snapshot.at(now).answer(query) {
        Ok(answer) => DemoReading {
            rows,
            lag: answer.lag,
            ceiling: answer.ceiling.and_then(|c| c.replicas.bounded()),
            capped: answer.rule == ValueRule::Clamped,
            unknown: None,
        },
        Err(refusal) => DemoReading {
            rows,
            unknown: Some(refusal.to_string()),
            ..DemoReading::default()
        },
    }
}

fn row(lag: Option<&Arc<TopicLag>>, partition: usize) -> PartitionRow {
    let Some(read) = lag else {
        return PartitionRow::default();
    };
    PartitionRow {
        committed: read
            .committed
            .get(partition)
            .and_then(|offset| offset.ok().flatten()),
        end: read
            .offsets
            .ends
            .get(partition)
            .and_then(|offset| offset.ok()),
        lag: read
            .lags
            .get(partition)
            .and_then(|lag| lag.ok())
            .map(PartitionLag::for_scaling),
    }
}
