//! Reads log-end and log-start offsets: one `ListOffsets` for all partitions of a leader.
//!
//! A high watermark that went back, as after a failover, is returned as it is. How long to distrust
//! it is decided by the lag rules in the model.

mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};

use self::request::{ListOffsetsBody, PendingPartition, by_topic, topic_name};
use super::address::Address;
use super::cluster::WireCluster;
use super::connection::ResponseLimit;
use super::responses::{self, ListedOffset};
use super::topics::{ClusterMetadata, PartitionLeader};
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::kafka::time_lookup::NO_RECORD;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::OffsetColumn;
use crate::model::units::newtypes::{Offset, TopicName};

pub(super) use self::request::End;

/// Maximum partitions per request.
const MAX_PARTITIONS: usize = 20_000;

/// Maximum size of a partition in a response.
const MAX_PARTITION_BYTES: usize = 64;

/// Maximum size of a topic in a response without its partitions.
const MAX_TOPIC_BYTES: usize = 1024;

/// Maximum concurrent requests to one broker.
const MAX_IN_FLIGHT: usize = 8;

/// Maximum attempts per sweep.
const MAX_ATTEMPTS: u32 = 6;

/// Partitions that were requested from a broker, all of one kind of offset, and its response.
struct ListAnswer {
    /// Sorted by topic and partition.
    partitions: Vec<PendingPartition>,
    response: Result<ListResponse, Fault>,
}

/// A response that is not decoded yet.
struct ListResponse {
    address: Address,
    version: i16,
    body: Bytes,
}

enum ListStep {
    /// The responses of a broker.
    Answered(Vec<ListAnswer>),
    /// Partitions to retry, and the metadata with their new leaders.
    LeadersFetched(Vec<PendingPartition>, Result<Arc<ClusterMetadata>, Fault>),
}

/// Reads log offsets: a list of topics, and which offsets to read of each.
pub(super) struct ListSweep<'a> {
    pub(super) cluster: &'a WireCluster,
    /// Sorted by name.
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
    /// [`NO_RECORD`] where no record is new enough.
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

    fn set(&mut self, item: &PendingPartition, result: Result<Offset, Fault>, timestamp: i64) {
        let Ok(partition) = usize::try_from(item.partition) else {
            return;
        };
        if let Some(slot) = self.column_mut(item.end).get_mut(partition) {
            *slot = result;
        }
        if matches!(item.end, End::At(_))
            && let Some(slot) = self.past_timestamps.get_mut(partition)
        {
            *slot = timestamp;
        }
    }
}

impl ListSweep<'_> {
    /// Reads the offset of every partition. Returns what arrived in time, and whether any leader
    /// may have moved. Partitions of different leaders progress independently.
    pub(super) async fn run(&self, metadata: &ClusterMetadata) -> (Vec<OffsetColumns>, bool) {
        let mut columns = vec![OffsetColumns::default(); self.topics.len()];
        let leaders = |(name, _): &(TopicName, _)| {
            let topic = metadata.topic(name).ok();
            topic.map_or(&[][..], |topic| &topic.leaders[..])
        };
        let leaders: Vec<_> = self.topics.iter().map(leaders).collect();
        let ends = self.topics.iter().map(|(_, ends)| ends);
        let count = leaders.iter().zip(ends.clone());
        let count = count.map(|(leaders, ends)| leaders.len().saturating_mul(ends.len()));
        let mut items = Vec::with_capacity(count.fold(0, usize::saturating_add));
        for (place, ((leaders, ends), columns)) in
            leaders.into_iter().zip(ends).zip(&mut columns).enumerate()
        {
            for &end in ends {
                // Until responses arrive: no answer, or no known leader.
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
        self.dispatch(metadata, items, &mut steps);
        while let Ok(Some(step)) = timeout_at(self.until, steps.next()).await {
            match step {
                ListStep::Answered(answers) => {
                    let mut lost = Vec::new();
                    for answer in answers {
                        lost.extend(self.apply_answer(answer, &mut columns));
                    }
                    if !lost.is_empty() && attempt < MAX_ATTEMPTS {
                        let pause = Duration::from_millis(25) * (1 << attempt);
                        attempt += 1;
                        steps.push(self.fetch_leaders(lost, pause).boxed());
                    }
                }
                ListStep::LeadersFetched(items, Ok(metadata)) => {
                    let items = self.with_new_leaders(items, &metadata);
                    self.dispatch(&metadata, items, &mut steps);
                }
                // Without new leaders, the faults of the first attempt stay.
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
        metadata: &ClusterMetadata,
        items: Vec<PendingPartition>,
        steps: &mut FuturesUnordered<BoxFuture<'s, ListStep>>,
    ) {
        let mut by_leader: BTreeMap<_, Vec<PendingPartition>> = BTreeMap::new();
        for item in items {
            let of_leader = by_leader.entry((item.leader.node, item.end)).or_default();
            of_leader.push(item);
        }
        for ((node, _), mut items) in by_leader {
            // Retried partitions arrive in any order.
            items.sort_unstable_by_key(|item| (item.topic, item.partition));
            let address = metadata.nodes.get(&node).cloned();
            let step = async move {
                let mut requests = Vec::new();
                while !items.is_empty() {
                    let rest = items.split_off(items.len().min(MAX_PARTITIONS));
                    requests.push(self.list(address.clone(), items));
                    items = rest;
                }
                let answers = stream::iter(requests).buffered(MAX_IN_FLIGHT);
                ListStep::Answered(answers.collect().await)
            };
            steps.push(step.boxed());
        }
    }

    async fn fetch_leaders(&self, items: Vec<PendingPartition>, pause: Duration) -> ListStep {
        sleep(pause).await;
        let names: BTreeSet<_> = items
            .iter()
            .filter_map(|item| self.topics.get(item.topic).map(|(name, _)| name.clone()))
            .collect();
        let metadata = self.cluster.fetch_metadata(&names, self.deadline).await;
        ListStep::LeadersFetched(items, metadata)
    }

    /// Replaces leaders by those in `metadata`. A partition whose leader is unchanged and not
    /// connected is dropped, since another request would only fail again.
    fn with_new_leaders(
        &self,
        items: Vec<PendingPartition>,
        metadata: &ClusterMetadata,
    ) -> Vec<PendingPartition> {
        let now = |item: PendingPartition| {
            let (name, _) = self.topics.get(item.topic)?;
            let partition = usize::try_from(item.partition).ok()?;
            let leader = (*metadata.topic(name).ok()?.leaders.get(partition)?)?;
            let address = metadata.nodes.get(&leader.node)?;
            let answers = leader != item.leader || self.cluster.broker(address).is_up();
            answers.then_some(PendingPartition { leader, ..item })
        };
        items.into_iter().filter_map(now).collect()
    }

    /// Requests these partitions from a broker.
    async fn list(
        &self,
        address: Option<Address>,
        partitions: Vec<PendingPartition>,
    ) -> ListAnswer {
        let response = match address {
            Some(address) => self.request(address, &partitions).await,
            None => Err(Fault::LeaderUnknown),
        };
        ListAnswer {
            partitions,
            response,
        }
    }

    async fn request(
        &self,
        address: Address,
        partitions: &[PendingPartition],
    ) -> Result<ListResponse, Fault> {
        let broker = self.cluster.broker(&address);
        let versions = broker.versions(self.deadline).await?;
        let version = versions.highest_common(ApiKey::ListOffsets)?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let request = ListOffsetsBody {
            topics: self.topics,
            partitions,
            timeout_ms: i32::try_from(left.as_millis()).unwrap_or(i32::MAX),
        };
        let topics = by_topic(partitions).count().saturating_add(1);
        let limit = partitions
            .len()
            .saturating_mul(MAX_PARTITION_BYTES)
            .saturating_add(topics.saturating_mul(MAX_TOPIC_BYTES));
        let limit = ResponseLimit::Expected(limit);
        let api = ApiKey::ListOffsets;
        let body = broker
            .send_bounded_request(api, version, &request, limit, self.deadline)
            .await?;
        Ok(ListResponse {
            address,
            version,
            body,
        })
    }

    /// Writes the offsets of a response into the columns. Returns the partitions to request again from their new
    /// leaders.
    fn apply_answer(
        &self,
        answer: ListAnswer,
        columns: &mut [OffsetColumns],
    ) -> Vec<PendingPartition> {
        let partitions = answer.partitions;
        let response = match answer.response {
            Ok(response) => response,
            Err(fault) => {
                set_all(&partitions, fault, columns);
                // If the broker cannot be reached, its partitions may have new leaders.
                let may_move = fault.is_connection() && fault != Fault::NoAnswer;
                return if may_move { partitions } else { Vec::new() };
            }
        };
        let topics: Vec<_> = by_topic(&partitions)
            .map(|items| (topic_name(self.topics, items), items))
            .collect();
        let mut lost = Vec::new();
        let mut index = 0_usize;
        let decoded = responses::list_offsets(&response.body, response.version, |name, entries| {
            // Brokers answer in the order of the request.
            let expected = topics.get(index).filter(|(known, _)| *known == name);
            index = index.saturating_add(1);
            let by_name = || topics.binary_search_by(|(known, _)| (*known).cmp(name));
            let topic = expected.or_else(|| topics.get(by_name().ok()?));
            if let Some((_, items)) = topic {
                lost.extend(apply_topic(items, entries, columns));
            }
        });
        if let Err(error) = decoded {
            let fault = self.cluster.report_malformed(&response.address, &error);
            set_all(&partitions, fault, columns);
            return partitions;
        }
        lost
    }
}

/// Writes the entries of a response about a topic. Returns the partitions that another broker leads now.
fn apply_topic(
    items: &[PendingPartition],
    entries: &[ListedOffset],
    columns: &mut [OffsetColumns],
) -> Vec<PendingPartition> {
    let mut moved = Vec::new();
    let topic = items.first().map(|item| item.topic);
    let Some(columns) = topic.and_then(|topic| columns.get_mut(topic)) else {
        return moved;
    };
    for (index, entry) in entries.iter().enumerate() {
        // Partitions are in the order of the request, too.
        let is_of = |item: &&PendingPartition| item.partition == entry.partition;
        let by_number = || items.binary_search_by_key(&entry.partition, |item| item.partition);
        let item = items.get(index).filter(is_of);
        let Some(item) = item.or_else(|| items.get(by_number().ok()?)) else {
            continue;
        };
        let result = match (entry.code, entry.offset) {
            (codes::NONE, offset) if offset >= 0 => Ok(Offset(offset)),
            (codes::NONE, -1) if matches!(item.end, End::At(_)) => Ok(NO_RECORD),
            // Some brokers answer -1 without an error; that is an unknown offset, not 0.
            (codes::NONE, _) => Err(Fault::NoAnswer),
            (code, _) => Err(codes::fault_of(code.into())),
        };
        columns.set(item, result, entry.timestamp);
        if codes::is_leader_stale(entry.code) {
            moved.push(*item);
        }
    }
    moved
}

/// The same fault for all partitions.
fn set_all(items: &[PendingPartition], fault: Fault, columns: &mut [OffsetColumns]) {
    for item in items {
        if let Some(columns) = columns.get_mut(item.topic) {
            columns.set(item, Err(fault), -1);
        }
    }
}
