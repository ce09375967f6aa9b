//! Metrics of how fast groups read, of their state, and of how close they are to losing messages.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::exported::{ExportedGroup, ExportedGroups};
use super::in_cluster;
use super::sample::{Labels, ReaderGone, SampleStream, SampleValue};
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::lag::group_figures::{hot_partition, retention_used, unread};
use crate::model::lag::rates::MessageRates;
use crate::telemetry::family::{COUNTER, Family, GAUGE};

pub(super) const GROUP_PRODUCED_PER_SECOND: Family = Family {
    name: "lagwise_consumergroup_produced_per_second",
    kind: GAUGE,
    help: "Messages per second that are written to the topics of the group, averaged over a minute; absent while unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_CONSUMED_PER_SECOND: Family = Family {
    name: "lagwise_consumergroup_consumed_per_second",
    kind: GAUGE,
    help: "Messages per second that the group consumes, as its commits show, averaged over a minute; absent while unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_LAG_VELOCITY: Family = Family {
    name: "lagwise_consumergroup_lag_velocity",
    kind: GAUGE,
    help: "Messages per second by which the group's lag grows, negative while the group catches up; absent while unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_DRAIN_SECONDS: Family = Family {
    name: "lagwise_consumergroup_drain_seconds",
    kind: GAUGE,
    help: "Time until the group's lag is gone at these rates; absent while the lag does not shrink, or is unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_SINCE_COMMIT_SECONDS: Family = Family {
    name: "lagwise_consumergroup_since_commit_seconds",
    kind: GAUGE,
    help: "Time since a committed offset of the group last moved; absent before one was seen to move",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const GROUP_RETENTION_USED: Family = Family {
    name: "lagwise_consumergroup_retention_used",
    kind: GAUGE,
    help: "Part of a partition's log that the group has yet to read, where it is largest: at 1, the next message that retention deletes is unread; absent while a partition is unknown",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "topic"]),
};
pub(super) const GROUP_STATE: Family = Family {
    name: "lagwise_consumergroup_state",
    kind: GAUGE,
    help: "1 for the state of the group that its coordinator last reported; absent if it never did",
    labels: Cow::Borrowed(&["cluster", "consumergroup", "state"]),
};
pub(super) const GROUP_REBALANCES_TOTAL: Family = Family {
    name: "lagwise_consumergroup_rebalances_total",
    kind: COUNTER,
    help: "Rebalances of the group that lagwise has seen; absent if its coordinator never described it",
    labels: Cow::Borrowed(&["cluster", "consumergroup"]),
};
pub(super) const TOPIC_HOT_PARTITION_SHARE: Family = Family {
    name: "lagwise_topic_hot_partition_share",
    kind: GAUGE,
    help: "Part of the topic's messages of the last ten minutes that a partition got, if it got more than twice the mean; absent otherwise",
    labels: Cow::Borrowed(&["cluster", "topic", "partition"]),
};

/// Writes the activity of every group, and the hot partitions of their topics.
pub(super) async fn write(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    rates(samples, exported).await?;
    samples.family(&GROUP_RETENTION_USED);
    for (labels, lag) in exported.latest() {
        if let Some(used) = retention_used(lag) {
            samples.sample(&labels, SampleValue::Rounded(used));
            samples.flush_if_full().await?;
        }
    }
    states(samples, exported).await?;
    hot_partitions(samples, exported).await
}

async fn rates(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    type Figure = fn(&GroupSnapshot, Option<MessageRates>) -> Option<f64>;
    let figures: [(_, Figure); 5] = [
        (&GROUP_PRODUCED_PER_SECOND, |_, rates| Some(rates?.produced)),
        (&GROUP_CONSUMED_PER_SECOND, |_, rates| Some(rates?.consumed)),
        (&GROUP_LAG_VELOCITY, |_, rates| Some(rates?.lag_velocity())),
        (&GROUP_DRAIN_SECONDS, |group, rates| {
            let drain = rates?.time_to_drain(unread(group)?)?;
            Some(drain.as_secs_f64())
        }),
        (&GROUP_SINCE_COMMIT_SECONDS, |group, _| {
            Some(group.since_commit_seconds?.into())
        }),
    ];
    let rates: Vec<_> = exported.iter().map(|group| group.group.rates()).collect();
    for (family, figure) in figures {
        samples.family(family);
        for (group, rates) in exported.iter().zip(&rates) {
            if let Some(figure) = figure(group.group, *rates) {
                samples.sample(&group_labels(group), SampleValue::Rounded(figure));
                samples.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

async fn states(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&GROUP_STATE);
    for group in exported.iter() {
        if let Some(description) = &group.group.description {
            let labels = group_labels(group).with("state", description.state.label());
            samples.sample(&labels, true);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&GROUP_REBALANCES_TOTAL);
    for group in exported.iter() {
        if group.group.description.is_some() {
            samples.sample(&group_labels(group), group.group.rebalances);
            samples.flush_if_full().await?;
        }
    }
    Ok(())
}

async fn hot_partitions(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&TOPIC_HOT_PARTITION_SHARE);
    let mut seen = BTreeSet::new();
    for group in exported.iter() {
        for (topic, read) in group.topics() {
            let Ok(lag) = &read.latest else {
                continue;
            };
            // All groups that read the topic share its offsets.
            if !seen.insert((group.cluster, topic)) {
                continue;
            }
            if let Some((partition, share)) = hot_partition(lag) {
                let labels = in_cluster(group.cluster).with("topic", topic.as_str());
                samples.partition_sample(&labels, partition, SampleValue::Rounded(share));
                samples.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

fn group_labels(group: &ExportedGroup<'_>) -> Labels {
    in_cluster(group.cluster).with("consumergroup", group.id.as_str())
}
