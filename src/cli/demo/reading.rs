//! What the daemon's latest snapshot says about the demo's group. Pure.

use std::sync::Arc;

use crate::model::evaluation::ValueRule;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::newtypes::{ClusterName, GroupId, Lag, Moment, Offset, TopicName};

/// One partition; `None` where unknown, or nothing is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionRow {
    pub(super) committed: Option<Offset>,
    pub(super) end: Option<Offset>,
    pub(super) lag: Option<Lag>,
}

/// One look at the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DemoReading {
    pub(super) rows: Vec<PartitionRow>,
    /// Messages behind, in all.
    pub(super) lag: Option<Lag>,
    /// The most replicas that can be useful.
    pub(super) ceiling: Option<u32>,
    /// Whether the value served is cut to what the ceiling is worth.
    pub(super) capped: bool,
    /// Why the metric is an error, where it is.
    pub(super) unknown: Option<String>,
}

/// Where the group is found in a snapshot.
pub(super) struct PartitionPlace {
    pub(super) cluster: ClusterName,
    pub(super) group: GroupId,
    pub(super) topic: TopicName,
}

/// Looks at the group at `place`, and at the answer to the HPA's `question`.
pub(super) fn read(
    snapshot: &LagSnapshot,
    place: &PartitionPlace,
    question: &MetricQuery<'_>,
    now: &Moment,
    partitions: usize,
) -> DemoReading {
    let found = snapshot
        .clusters
        .get(&place.cluster)
        .and_then(|cluster| cluster.groups.get(&place.group))
        .and_then(|group| group.topics.get(&place.topic))
        .and_then(|topic| topic.latest.as_ref().ok());
    let rows = (0..partitions)
        .map(|partition| row(found, partition))
        .collect();
    match snapshot.at(now).answer(question) {
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
