//! Reads log-end and log-start offsets: one `ListOffsets` for all partitions of a leader.
//!
//! A high watermark that went back, as after a failover, is returned as it is. How long to distrust
//! it is decided by the lag rules in the model.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::WireCluster;
use super::connection::ResponseLimit;
use super::responses;
use super::topics::{ClusterMetadata, PartitionLeader};
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::kafka::time_lookup::NO_RECORD;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::OffsetColumn;
use crate::model::units::newtypes::{Offset, Partition, TopicName};

/// Maximum partitions per request.
const MAX_PARTITIONS: usize = 20_000;

/// Maximum size of a partition in a response.
const PARTITION_BYTES_MAX: usize = 64;

/// Maximum size of a topic in a response without its partitions.
const TOPIC_BYTES_MAX: usize = 1024;

/// Maximum concurrent requests to one broker.
const MAX_IN_FLIGHT: usize = 8;

/// Maximum attempts per sweep.
const MAX_ATTEMPTS: u32 = 6;

/// Which offset of a log to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The high watermark: the log-end offset that consumers see.
    Latest,
    /// The log-start offset.
    Earliest,
    /// The last stable offset: the end for consumers that read committed records only.
    Stable,
    /// The first record at or after this time, in milliseconds since 1970.
    At(i64),
}

impl End {
    /// The timestamp that encodes it in a request.
    fn timestamp(self) -> i64 {
        match self {
            End::Latest | End::Stable => -1,
            End::Earliest => -2,
            End::At(millis) => millis,
        }
    }

    /// The isolation level in a request; 1 is read-committed (KIP-98).
    fn isolation(self) -> i8 {
        i8::from(self == End::Stable)
    }
}

/// A partition's offset to read; `topic` is an index into [`ListSweep::topics`].
#[derive(Clone, Copy, Debug)]
struct PendingPartition {
    topic: usize,
    end: End,
    partition: Partition,
    leader: PartitionLeader,
}

/// The result for a partition.
struct ListOutcome {
    item: PendingPartition,
    result: Result<Offset, Fault>,
    /// Timestamp of the record at the offset, in milliseconds since 1970; -1 if unknown.
    timestamp: i64,
    /// Whether to fetch its leader again and retry.
    retry: bool,
}

enum ListStep {
    /// The outcomes of each request.
    Answered(Vec<Vec<ListOutcome>>),
    /// Partitions to retry, and the metadata with their new leaders.
    LeadersFetched(Vec<PendingPartition>, Result<Arc<ClusterMetadata>, Fault>),
}

/// Reads log offsets: a list of topics, and which offsets to read of each.
pub(super) struct ListSweep<'a> {
    pub(super) cluster: &'a WireCluster,
    pub(super) topics: &'a [(TopicName, Vec<End>)],
    /// When to stop waiting for answers.
    pub(super) until: Instant,
    /// When to treat a broker as unresponsive; not before `until`.
    pub(super) deadline: Instant,
}

/// Offsets of one topic, by partition. An offset that was not requested is an empty column.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetColumns {
    pub(super) latest: OffsetColumn,
    pub(super) earliest: OffsetColumn,
    pub(super) stable: OffsetColumn,
    /// [`NO_RECORD`] where no record is young enough.
    pub(super) past: OffsetColumn,
    /// Timestamps of the records of `past`, in milliseconds since 1970; -1 where unknown.
    pub(super) past_timestamps: Vec<i64>,
}

impl OffsetColumns {
    fn column_mut(&mut self, end: End) -> &mut OffsetColumn {
        match end {
            End::Latest => &mut self.latest,
            End::Earliest => &mut self.earliest,
            End::Stable => &mut self.stable,
            End::At(_) => &mut self.past,
        }
    }
}

impl ListSweep<'_> {
    /// Reads the offset of every partition. Returns what arrived in time, and whether any leader
    /// may have moved. Partitions of different leaders progress independently.
    pub(super) async fn run(&self, known: &ClusterMetadata) -> (Vec<OffsetColumns>, bool) {
        let mut columns = vec![OffsetColumns::default(); self.topics.len()];
        let partitions = |(name, ends): &(TopicName, Vec<End>)| {
            let leaders = known.topic(name).map_or(0, |topic| topic.leaders.len());
            leaders.saturating_mul(ends.len())
        };
        let all = self.topics.iter().map(partitions);
        let mut items = Vec::with_capacity(all.fold(0, usize::saturating_add));
        for (place, ((name, ends), columns)) in self.topics.iter().zip(&mut columns).enumerate() {
            let leaders = known.topic(name).map_or(&[][..], |topic| &topic.leaders);
            for &end in ends {
                // Until answers arrive: no answer, or no leader to ask.
                let start = |leader: &Option<PartitionLeader>| match leader {
                    Some(_) => Err(Fault::NoAnswer),
                    None => Err(Fault::LeaderUnknown),
                };
                *columns.column_mut(end) = leaders.iter().map(start).collect();
                if matches!(end, End::At(_)) {
                    columns.past_timestamps = vec![-1; leaders.len()];
                }
                items.extend((0..).zip(leaders).filter_map(|(partition, leader)| {
                    Some(PendingPartition {
                        topic: place,
                        end,
                        partition,
                        leader: (*leader)?,
                    })
                }));
            }
        }
        let mut attempt = 0;
        let mut steps: FuturesUnordered<BoxFuture<'_, ListStep>> = FuturesUnordered::new();
        self.dispatch(known, items, &mut steps);
        while let Ok(Some(step)) = timeout_at(self.until, steps.next()).await {
            match step {
                ListStep::Answered(outcomes) => {
                    let mut lost = Vec::new();
                    for outcome in outcomes.into_iter().flatten() {
                        set_result(&mut columns, &outcome);
                        if outcome.retry {
                            lost.push(outcome.item);
                        }
                    }
                    if !lost.is_empty() && attempt < MAX_ATTEMPTS {
                        let pause = Duration::from_millis(25) * (1 << attempt);
                        attempt += 1;
                        steps.push(self.fetch_leaders(lost, pause).boxed());
                    }
                }
                ListStep::LeadersFetched(items, Ok(known)) => {
                    let items = self.with_new_leaders(items, &known);
                    self.dispatch(&known, items, &mut steps);
                }
                // Without new leaders the faults of the first attempt stand.
                ListStep::LeadersFetched(_, Err(_)) => {}
            }
        }
        let is_stale = |result: &Result<Offset, Fault>| matches!(result, Err(fault) if fault.is_connection() || *fault == Fault::PartitionMissing);
        let all = columns
            .iter()
            .flat_map(|c| c.latest.iter().chain(&c.earliest));
        let moved = all.into_iter().any(is_stale);
        (columns, moved)
    }

    /// Queues requests to the partitions' leaders.
    fn dispatch<'s>(
        &'s self,
        known: &ClusterMetadata,
        mut items: Vec<PendingPartition>,
        steps: &mut FuturesUnordered<BoxFuture<'s, ListStep>>,
    ) {
        // Retried partitions arrive in any order; `list_chunk` needs those of a request sorted.
        items.sort_unstable_by_key(|item| (item.leader.node, item.end, item.topic, item.partition));
        for items in items.chunk_by(|a, b| (a.leader.node, a.end) == (b.leader.node, b.end)) {
            let Some(node) = items.first().map(|item| item.leader.node) else {
                continue;
            };
            let items = items.to_vec();
            let address = known.nodes.get(&node).cloned();
            let ask = async move {
                let Some(address) = address else {
                    return ListStep::Answered(vec![fail_all(&items, Fault::LeaderUnknown)]);
                };
                let mut chunks = Vec::new();
                for chunk in items.chunks(MAX_PARTITIONS) {
                    chunks.push(self.list_chunk(&address, chunk));
                }
                let answers = stream::iter(chunks).buffered(MAX_IN_FLIGHT);
                ListStep::Answered(answers.collect().await)
            };
            steps.push(ask.boxed());
        }
    }

    async fn fetch_leaders(&self, items: Vec<PendingPartition>, pause: Duration) -> ListStep {
        sleep(pause).await;
        let names: BTreeSet<_> = items
            .iter()
            .filter_map(|item| self.topics.get(item.topic).map(|(name, _)| name.clone()))
            .collect();
        let known = self.cluster.fetch_metadata(&names, self.deadline).await;
        ListStep::LeadersFetched(items, known)
    }

    /// Replaces leaders by those in `known`. A partition whose leader is unchanged and not
    /// connected is dropped, since asking it again would only fail again.
    fn with_new_leaders(
        &self,
        items: Vec<PendingPartition>,
        known: &ClusterMetadata,
    ) -> Vec<PendingPartition> {
        let now = |item: PendingPartition| {
            let (name, _) = self.topics.get(item.topic)?;
            let partition = usize::try_from(item.partition).ok()?;
            let leader = (*known.topic(name).ok()?.leaders.get(partition)?)?;
            let address = known.nodes.get(&leader.node)?;
            let answers = leader != item.leader || self.cluster.broker(address).is_up();
            answers.then_some(PendingPartition { leader, ..item })
        };
        items.into_iter().filter_map(now).collect()
    }

    async fn list_chunk(
        &self,
        address: &super::address::Address,
        items: &[PendingPartition],
    ) -> Vec<ListOutcome> {
        let broker = self.cluster.broker(address);
        let version = broker.versions(self.deadline).await;
        let version =
            match version.and_then(|versions| versions.highest_common(ApiKey::ListOffsets)) {
                Ok(version) => version,
                Err(fault) => return fail_all(items, fault),
            };
        let request = self.request(items, version);
        let limit = items
            .len()
            .saturating_mul(PARTITION_BYTES_MAX)
            .saturating_add(request.topics.len().saturating_mul(TOPIC_BYTES_MAX))
            .saturating_add(TOPIC_BYTES_MAX);
        let answer = broker
            .send_bounded_request(
                ApiKey::ListOffsets,
                version,
                &request,
                ResponseLimit::Expected(limit),
                self.deadline,
            )
            .await;
        let body = match answer {
            Ok(body) => body,
            Err(fault) => return fail_all(items, fault),
        };
        let offsets = match responses::list_offsets(&body, version) {
            Ok(offsets) => offsets,
            Err(error) => return fail_all(items, self.cluster.report_malformed(address, &error)),
        };
        // Partitions are sorted by topic and number.
        let mut places: HashMap<&str, &[PendingPartition]> = HashMap::new();
        for topic in items.chunk_by(|a, b| a.topic == b.topic) {
            let place = topic.first().and_then(|item| self.topics.get(item.topic));
            if let Some((name, _)) = place {
                places.insert(name.as_str(), topic);
            }
        }
        let mut outcomes = Vec::with_capacity(items.len());
        for (name, entries, timestamps) in offsets.topics_with_timestamps() {
            let Some(topic) = places.get(name) else {
                continue;
            };
            for (entry, &timestamp) in entries.iter().zip(timestamps) {
                let found = topic.binary_search_by_key(&entry.partition, |item| item.partition);
                let Some(&item) = found.ok().and_then(|found| topic.get(found)) else {
                    continue;
                };
                let result = match (entry.code, entry.offset) {
                    (codes::NONE, offset) if offset >= 0 => Ok(Offset(offset)),
                    (codes::NONE, -1) if matches!(item.end, End::At(_)) => Ok(NO_RECORD),
                    // Some brokers answer -1 without an error; that is an unknown offset, not 0.
                    (codes::NONE, _) => Err(Fault::NoAnswer),
                    (code, _) => Err(codes::fault_of(code.into())),
                };
                outcomes.push(ListOutcome {
                    item,
                    result,
                    timestamp,
                    retry: codes::is_leader_stale(entry.code),
                });
            }
        }
        outcomes
    }

    fn request(&self, items: &[PendingPartition], version: i16) -> ListOffsetsRequest {
        let partition = |item: &PendingPartition| {
            ListOffsetsPartition::default()
                .with_partition_index(item.partition)
                .with_current_leader_epoch(if version >= 4 { item.leader.epoch } else { -1 })
                .with_timestamp(item.end.timestamp())
        };
        // Partitions are sorted by topic.
        let topics = items.chunk_by(|a, b| a.topic == b.topic).map(|items| {
            let topic = items.first().and_then(|item| self.topics.get(item.topic));
            let name = topic.map_or("", |(name, _)| name.as_str());
            ListOffsetsTopic::default()
                .with_name(StrBytes::from_string(name.to_owned()).into())
                .with_partitions(items.iter().map(partition).collect())
        });
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(topics.collect());
        // All partitions of a request read the same kind of offset. Brokers that support only
        // version 1 have no transactions.
        let end = items.first().map_or(End::Latest, |item| item.end);
        let isolation = if version >= 2 { end.isolation() } else { 0 };
        let request = request.with_isolation_level(isolation);
        if version < 10 {
            return request;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        request.with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
    }
}

fn set_result(columns: &mut [OffsetColumns], outcome: &ListOutcome) {
    let PendingPartition {
        topic,
        end,
        partition,
        ..
    } = outcome.item;
    let (Some(columns), Ok(partition)) = (columns.get_mut(topic), usize::try_from(partition))
    else {
        return;
    };
    if let Some(slot) = columns.column_mut(end).get_mut(partition) {
        *slot = outcome.result;
    }
    if matches!(end, End::At(_))
        && let Some(slot) = columns.past_timestamps.get_mut(partition)
    {
        *slot = outcome.timestamp;
    }
}

/// The same fault for all partitions. If the broker cannot be reached, its partitions may have new
/// leaders.
fn fail_all(items: &[PendingPartition], fault: Fault) -> Vec<ListOutcome> {
    let outcome = |&item: &PendingPartition| ListOutcome {
        item,
        result: Err(fault),
        timestamp: -1,
        retry: fault.is_connection() && fault != Fault::NoAnswer,
    };
    items.iter().map(outcome).collect()
}
