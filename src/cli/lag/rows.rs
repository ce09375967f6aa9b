//! The rows of `lagwise lag`: one for each partition, or one for each group.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::notes::{group_note, lag_left_behind};
use super::reading::{ClusterReading, LagRequest};
use crate::model::evaluation::parallelism::Parallelism;
use crate::model::evaluation::topic_selection::whole_parallelism;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupState, Member};
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, TopicLag};
use crate::model::lag::group_figures::{HotPartition, hot_partitions_of, retention_used_of};
use crate::model::lag::group_summary::{GroupSummary, latest_reading};
use crate::model::lag::lag_age::LagAge;
use crate::model::lag::rates::MessageRates;
use crate::model::units::newtypes::{GroupId, Lag, Offset, Partition, TopicName};

/// One partition of a group.
#[derive(Debug, Serialize)]
pub(super) struct LagRow<'a> {
    pub(super) cluster: &'a str,
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    pub(super) partition: usize,
    pub(super) log_start_offset: Option<Offset>,
    pub(super) committed_offset: Option<Offset>,
    pub(super) log_end_offset: Option<Offset>,
    pub(super) lag: Option<Lag>,
    /// Age of the oldest unread message.
    pub(super) lag_seconds: Option<f64>,
    pub(super) lag_seconds_is_lower_bound: bool,
    /// The lag rule applied, or the fault.
    pub(super) rule: &'static str,
    pub(super) note: Option<String>,
    /// Useful parallelism of the group over all topics that were read.
    pub(super) useful_parallelism: Option<Parallelism>,
    pub(super) group_state: Option<GroupState>,
    /// The members that own the partition: at most one, except in share groups. `None` if the group was not described,
    /// as with librdkafka.
    pub(super) members: Option<Vec<MemberRow<'a>>>,
    /// `None` with one reading, or while unknown.
    pub(super) rates: Option<RateRow>,
    #[serde(skip)]
    pub(super) fault: Option<Fault>,
}

/// A member of a group.
#[derive(Debug, Serialize)]
pub(super) struct MemberRow<'a> {
    pub(super) member_id: &'a str,
    /// `group.instance.id` of a static member.
    pub(super) instance_id: Option<&'a str>,
    pub(super) client_id: &'a str,
    pub(super) host: &'a str,
}

impl<'a> From<&'a Member> for MemberRow<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            member_id: &member.id,
            instance_id: member.instance.as_deref(),
            client_id: &member.client,
            // Java's notation of an address is `/10.0.0.1`, or `name/10.0.0.1`.
            host: member.host.trim_start_matches('/'),
        }
    }
}

/// Rates between two readings.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct RateRow {
    /// Time between the readings.
    pub(super) seconds: f64,
    pub(super) produced_per_second: f64,
    pub(super) consumed_per_second: f64,
    /// Change of the lag in messages per second: negative while the group catches up.
    lag_velocity: f64,
    /// Time until the lag is 0 at these rates; `None` if it does not shrink.
    pub(super) drain_seconds: Option<f64>,
}

impl RateRow {
    /// Rates of a lag between two readings.
    fn new(rates: MessageRates, elapsed: Duration, lag: Lag) -> Self {
        let drain = rates.time_to_drain(lag);
        Self {
            seconds: elapsed.as_secs_f64(),
            produced_per_second: rates.produced,
            consumed_per_second: rates.consumed,
            lag_velocity: rates.lag_velocity(),
            drain_seconds: drain.map(|left| left.as_secs_f64()),
        }
    }
}

/// One group.
#[derive(Debug, Serialize)]
pub(super) struct GroupRow<'a> {
    pub(super) cluster: &'a str,
    pub(super) group: &'a str,
    /// `None` if the group was not described.
    pub(super) state: Option<GroupState>,
    /// Number of members.
    pub(super) members: Option<usize>,
    pub(super) useful_parallelism: Option<Parallelism>,
    pub(super) topics: Vec<TopicName>,
    pub(super) partitions: usize,
    pub(super) partitions_without_commit: usize,
    pub(super) partitions_unknown: usize,
    /// `None` if it is unknown for a partition, or no partition has a committed offset.
    pub(super) lag: Option<Lag>,
    /// Age of the oldest unread message.
    pub(super) lag_seconds: Option<f64>,
    pub(super) lag_seconds_is_lower_bound: bool,
    /// `None` with one reading, or while unknown.
    pub(super) rates: Option<RateRow>,
    /// Largest part of a partition's log that the group has yet to read, up to 1.
    retention_used: Option<f64>,
    /// Time since a committed offset of the group last moved; `None` before one was seen to move.
    since_commit_seconds: Option<u64>,
    hot_partitions: Vec<HotPartition>,
    pub(super) note: Option<String>,
    #[serde(skip)]
    pub(super) is_unknown: bool,
}

/// Order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortKey {
    /// The most lag first, after what is unknown
    Lag,
    /// The oldest unread message first, after what is unknown
    Time,
    /// By cluster, group, topic and partition
    Group,
}

/// The lag of a row, for the order of the rows and for their sum.
pub(super) trait RowLag {
    /// Whether a fault keeps the lag unknown.
    fn is_unknown(&self) -> bool;
    fn lag(&self) -> Option<Lag>;
    fn lag_seconds(&self) -> Option<f64>;
}

impl RowLag for LagRow<'_> {
    fn is_unknown(&self) -> bool {
        self.fault.is_some()
    }

    fn lag(&self) -> Option<Lag> {
        self.lag
    }

    fn lag_seconds(&self) -> Option<f64> {
        self.lag_seconds
    }
}

impl RowLag for GroupRow<'_> {
    fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    fn lag(&self) -> Option<Lag> {
        self.lag
    }

    fn lag_seconds(&self) -> Option<f64> {
        self.lag_seconds
    }
}

/// Sorts rows, which are in the order of groups. Rows that are equal stay in that order.
pub(super) fn sort_rows<R: RowLag>(rows: &mut [R], key: SortKey) {
    match key {
        SortKey::Group => {}
        SortKey::Lag => rows.sort_by_key(|row| Reverse((row.is_unknown(), row.lag()))),
        SortKey::Time => rows.sort_by(|a, b| {
            let seconds = |row: &R| row.lag_seconds().unwrap_or(-1.0);
            let unknown_first = b.is_unknown().cmp(&a.is_unknown());
            unknown_first.then_with(|| seconds(b).total_cmp(&seconds(a)))
        }),
    }
}

/// The rows of all partitions. `before` are earlier readings of the same clusters, for rates.
pub(super) fn partition_rows<'a>(
    request: &LagRequest,
    readings: &'a [ClusterReading],
    before: &[ClusterReading],
) -> Vec<LagRow<'a>> {
    let mut rows = Vec::new();
    for (cluster, group, read, earlier) in groups_of(readings, before) {
        let useful = whole_parallelism(read);
        let owners = read.description.as_deref().map(owners);
        for (topic, group_topic) in request.wanted_topics(group, read) {
            let Ok(lag) = &group_topic.latest else {
                continue;
            };
            let earlier = latest_reading(earlier, topic);
            for partition in 0..lag.lags.len() {
                let mut row = LagRow::new(&cluster.cluster, group, topic, lag, partition);
                row.useful_parallelism = useful;
                row.group_state = read.description.as_deref().map(|d| d.state);
                if !read.counts(topic) && row.lag.is_some_and(|lag| lag > Lag(0)) {
                    let left = "the members no longer read this topic".to_owned();
                    row.note.get_or_insert(left);
                }
                let number = Partition::try_from(partition).unwrap_or(Partition::MAX);
                row.members = owners.as_ref().map(|owners| {
                    let members = owners.get(&(topic, number)).into_iter().flatten();
                    members.map(|member| MemberRow::from(*member)).collect()
                });
                row.rates = earlier.zip(row.lag).and_then(|(earlier, unread)| {
                    let rates = lag.rates_since(earlier, partition)?;
                    Some(RateRow::new(rates, lag.read.since(&earlier.read), unread))
                });
                rows.push(row);
            }
        }
    }
    rows
}

impl<'a> LagRow<'a> {
    /// The members that are known to own the partition.
    pub(super) fn known_members(&self) -> &[MemberRow<'a>] {
        self.members.as_deref().unwrap_or_default()
    }

    fn new(
        cluster: &'a str,
        group: &'a GroupId,
        topic: &'a TopicName,
        read: &TopicLag,
        partition: usize,
    ) -> Self {
        let offset =
            |column: &[Result<Offset, Fault>]| column.get(partition).and_then(|offset| offset.ok());
        let rule = read.lags.get(partition).copied();
        let rule = rule.unwrap_or(Err(Fault::NoAnswer));
        let lag = read.lag_since_commit(partition);
        let note = match (lag, rule) {
            (Err(fault), _) => Some(fault.to_string()),
            (Ok(None), _) => Some("no commit".into()),
            (Ok(Some(_)), Ok(PartitionLag::Lost(_))) => {
                let lost = read.lost(partition).unwrap_or_default();
                Some(format!("retention deleted {lost} unread messages"))
            }
            (Ok(Some(_)), Ok(PartitionLag::UpperBound(_))) => Some(
                "at most: brokers before Kafka 4.2 do not report what a share group has left"
                    .into(),
            ),
            (Ok(Some(_)), _) => None,
        };
        let known = lag.ok().flatten();
        let age = read.partition_age(partition).filter(|_| known.is_some());
        Self {
            cluster,
            group: group.as_str(),
            topic: topic.as_str(),
            partition,
            log_start_offset: offset(&read.offsets.starts),
            committed_offset: read.committed.get(partition).and_then(|c| c.ok().flatten()),
            log_end_offset: offset(&read.offsets.ends),
            lag: known,
            lag_seconds: age.map(|age| age.duration().as_secs_f64()),
            lag_seconds_is_lower_bound: age.is_some_and(LagAge::is_bound),
            rule: match rule {
                Ok(lag) => lag.label(),
                Err(fault) => fault.label(),
            },
            note,
            useful_parallelism: None,
            group_state: None,
            members: None,
            rates: None,
            fault: lag.err(),
        }
    }
}

/// The rows of all groups. `before` are earlier readings of the same clusters, for rates.
pub(super) fn group_rows<'a>(
    request: &LagRequest,
    readings: &'a [ClusterReading],
    before: &[ClusterReading],
) -> Vec<GroupRow<'a>> {
    let mut rows = Vec::new();
    for (cluster, group, read, earlier) in groups_of(readings, before) {
        let topics = request.wanted_topics(group, read);
        let is_shown = request.topics.is_all() || !topics.is_empty() || read.fault.is_some();
        if !is_shown {
            continue;
        }
        let description = read.description.as_deref();
        let left = lag_left_behind(read, &topics);
        let retention_used = retention_used_of(topics.iter().map(|(_, topic)| *topic));
        let hot_partitions = hot_partitions_of(topics.iter().copied());
        let summary = GroupSummary::new(topics, earlier);
        let lag = summary.lag().filter(|_| read.fault.is_none());
        let age = summary.age.filter(|_| lag.is_some());
        rows.push(GroupRow {
            cluster: &cluster.cluster,
            group: group.as_str(),
            state: description.map(|described| described.state),
            members: description.map(GroupDescription::member_count),
            useful_parallelism: whole_parallelism(read),
            partitions: summary.partitions,
            partitions_without_commit: summary.uncommitted,
            partitions_unknown: summary.unknown,
            lag,
            lag_seconds: age.map(|age| age.duration().as_secs_f64()),
            lag_seconds_is_lower_bound: age.is_some_and(LagAge::is_bound),
            rates: earlier.zip(lag).and_then(|(earlier, lag)| {
                let elapsed = read.requested_at.since(&earlier.requested_at);
                Some(RateRow::new(summary.rates?, elapsed, lag))
            }),
            retention_used,
            since_commit_seconds: read.since_commit_seconds.map(u64::from),
            hot_partitions,
            note: group_note(read.fault, &summary, left),
            is_unknown: read.fault.is_some() || summary.unknown > 0 || summary.has_unread(),
            topics: summary.topics,
        });
    }
    rows
}

type GroupOfCluster<'a, 'b> = (
    &'a ClusterReading,
    &'a GroupId,
    &'a GroupSnapshot,
    Option<&'b GroupSnapshot>,
);

/// The groups of all clusters, each with its earlier reading.
fn groups_of<'a, 'b>(
    readings: &'a [ClusterReading],
    before: &'b [ClusterReading],
) -> impl Iterator<Item = GroupOfCluster<'a, 'b>> {
    readings.iter().flat_map(move |cluster| {
        let earlier = before.iter().find(|b| b.cluster == cluster.cluster);
        cluster.groups.iter().map(move |(group, read)| {
            let earlier = earlier.and_then(|earlier| earlier.groups.get(group));
            (cluster, group, &**read, earlier.map(|e| &**e))
        })
    })
}

/// The members that own each partition.
fn owners(description: &GroupDescription) -> HashMap<(&TopicName, Partition), Vec<&Member>> {
    let mut owners: HashMap<_, Vec<&Member>> = HashMap::new();
    for member in &description.members {
        for (topic, partitions) in &member.assigned {
            for partition in partitions {
                owners.entry((topic, *partition)).or_default().push(member);
            }
        }
    }
    owners
}
