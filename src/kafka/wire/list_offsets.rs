//! Where logs end and start: all the partitions of a leader in one `ListOffsets`.
//!
//! A high watermark that is lower than the one before, as after a failover, is passed on as it is:
//! how long to doubt it is a rule of lag's, and the model's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::Cluster;
use super::responses;
use super::topics::{PartitionLeader, TopicCatalog};
use super::versions::ApiVersions;
use crate::kafka::codes;
use crate::kafka::time_lookup::NO_RECORD;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::OffsetColumn;
use crate::model::units::newtypes::{Offset, Partition, TopicName};

/// Partitions in one request at most.
const CHUNK: usize = 20_000;

/// Requests to one broker under way at once.
const AT_ONCE: usize = 8;

/// How often a partition is asked about in one sweep.
const ATTEMPTS: u32 = 6;

/// Which end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The high watermark.
    Latest,
    /// The low watermark.
    Earliest,
    /// The last stable offset.
    Stable,
    /// The first record that is not older than that, in milliseconds since 1970.
    At(i64),
}

impl End {
    /// The timestamp that stands for it.
    fn timestamp(self) -> i64 {
        match self {
            End::Latest | End::Stable => -1,
            End::Earliest => -2,
            End::At(millis) => millis,
        }
    }

    /// The protocol's number: 1 reads committed records only (KIP-98).
    fn isolation(self) -> i8 {
        i8::from(self == End::Stable)
    }
}

/// One partition's end, by its topic's place among those asked about.
#[derive(Clone, Copy, Debug)]
struct ListItem {
    topic: usize,
    end: End,
    partition: Partition,
    leader: PartitionLeader,
}

/// What became of an item.
struct ListOutcome {
    item: ListItem,
    result: Result<Offset, Fault>,
    /// Whether its leader is to be looked up again.
    again: bool,
}

enum ListStep {
    Answered(Vec<ListOutcome>),
    /// Items whose leaders were looked up again, and the new leaders.
    Found(Vec<ListItem>, Result<Arc<TopicCatalog>, Fault>),
}

/// One sweep's log ends: topics, and for each which ends.
pub(super) struct ListSweep<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) topics: &'a [(TopicName, Vec<End>)],
    /// When what has come counts.
    pub(super) until: Instant,
    /// When a broker is late, not before that.
    pub(super) deadline: Instant,
}

/// What was found, by topic's place. An end that was not asked for is an empty column.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) latest: OffsetColumn,
    pub(super) earliest: OffsetColumn,
    pub(super) stable: OffsetColumn,
    /// [`NO_RECORD`] where no record is young enough.
    pub(super) past: OffsetColumn,
}

impl Columns {
    fn of(&mut self, end: End) -> &mut OffsetColumn {
        match end {
            End::Latest => &mut self.latest,
            End::Earliest => &mut self.earliest,
            End::Stable => &mut self.stable,
            End::At(_) => &mut self.past,
        }
    }
}

impl ListSweep<'_> {
    /// Asks about every partition; what has come in time, and whether some leader is no more what it was.
    /// Partitions of one leader wait for no other's.
    pub(super) async fn run(&self, known: &TopicCatalog) -> (Vec<Columns>, bool) {
        let mut columns = vec![Columns::default(); self.topics.len()];
        let mut items = Vec::new();
        for (place, ((name, ends), columns)) in self.topics.iter().zip(&mut columns).enumerate() {
            let leaders = known.topic(name).map_or(&[][..], |topic| &topic.leaders);
            for &end in ends {
                // What has a leader has no answer so far.
                let start = |leader: &Option<PartitionLeader>| match leader {
                    Some(_) => Err(Fault::NoAnswer),
                    None => Err(Fault::LeaderUnknown),
                };
                *columns.of(end) = leaders.iter().map(start).collect();
                items.extend((0..).zip(leaders).filter_map(|(partition, leader)| {
                    Some(ListItem {
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
        self.send(known, items, &mut steps);
        while let Ok(Some(step)) = timeout_at(self.until, steps.next()).await {
            match step {
                ListStep::Answered(outcomes) => {
                    let mut lost = Vec::new();
                    for outcome in outcomes {
                        set(&mut columns, outcome.item, outcome.result);
                        if outcome.again {
                            lost.push(outcome.item);
                        }
                    }
                    if !lost.is_empty() && attempt < ATTEMPTS {
                        let pause = Duration::from_millis(25) * (1 << attempt);
                        attempt += 1;
                        steps.push(self.look_up(lost, pause).boxed());
                    }
                }
                ListStep::Found(items, Ok(known)) => {
                    let items = self.moved(items, &known);
                    self.send(&known, items, &mut steps);
                }
                // Their faults stand.
                ListStep::Found(_, Err(_)) => {}
            }
        }
        let is_stale = |result: &Result<Offset, Fault>| matches!(result, Err(fault) if fault.is_connection() || *fault == Fault::PartitionMissing);
        let all = columns
            .iter()
            .flat_map(|c| c.latest.iter().chain(&c.earliest));
        let moved = all.into_iter().any(is_stale);
        (columns, moved)
    }

    /// Sends items on to their leaders.
    fn send<'s>(
        &'s self,
        known: &TopicCatalog,
        items: Vec<ListItem>,
        steps: &mut FuturesUnordered<BoxFuture<'s, ListStep>>,
    ) {
        let mut by_leader: BTreeMap<(i32, End), Vec<ListItem>> = BTreeMap::new();
        for item in items {
            by_leader
                .entry((item.leader.node, item.end))
                .or_default()
                .push(item);
        }
        for ((node, _), mut items) in by_leader {
            // What is asked again comes in whatever order it was answered.
            items.sort_by_key(|item| (item.topic, item.partition));
            let address = known.nodes.get(&node).cloned();
            let ask = async move {
                let Some(address) = address else {
                    return ListStep::Answered(all(&items, Fault::LeaderUnknown));
                };
                let mut chunks = Vec::new();
                for chunk in items.chunks(CHUNK) {
                    chunks.push(self.ask(&address, chunk));
                }
                let answers: Vec<_> = stream::iter(chunks).buffered(AT_ONCE).collect().await;
                ListStep::Answered(answers.into_iter().flatten().collect())
            };
            steps.push(ask.boxed());
        }
    }

    async fn look_up(&self, items: Vec<ListItem>, pause: Duration) -> ListStep {
        sleep(pause).await;
        let names: BTreeSet<_> = items
            .iter()
            .filter_map(|item| self.topics.get(item.topic).map(|(name, _)| name.clone()))
            .collect();
        let known = self.cluster.refresh(&names, self.deadline).await;
        ListStep::Found(items, known)
    }

    /// The items with their leaders of now. One whose broker gave no answer, and still leads, is not
    /// asked about again.
    fn moved(&self, items: Vec<ListItem>, known: &TopicCatalog) -> Vec<ListItem> {
        let now = |item: ListItem| {
            let (name, _) = self.topics.get(item.topic)?;
            let partition = usize::try_from(item.partition).ok()?;
            let leader = (*known.topic(name).ok()?.leaders.get(partition)?)?;
            let address = known.nodes.get(&leader.node)?;
            let answers = leader != item.leader || self.cluster.broker(address).is_up();
            answers.then_some(ListItem { leader, ..item })
        };
        items.into_iter().filter_map(now).collect()
    }

    async fn ask(&self, address: &super::address::Address, items: &[ListItem]) -> Vec<ListOutcome> {
        let broker = self.cluster.broker(address);
        let version = broker.versions(self.deadline).await;
        let version = match version.and_then(|versions| versions.of(ApiVersions::ListOffsets)) {
            Ok(version) => version,
            Err(fault) => return all(items, fault),
        };
        let request = self.request(items, version);
        let answer = broker
            .ask(ApiVersions::ListOffsets, version, &request, self.deadline)
            .await;
        let body = match answer {
            Ok(body) => body,
            Err(fault) => return all(items, fault),
        };
        let offsets = match responses::list_offsets(&body, version) {
            Ok(offsets) => offsets,
            Err(error) => return all(items, self.cluster.garbled(address, &error)),
        };
        // Items come topic by topic, each topic's in the order of its partitions.
        let mut places: HashMap<&str, &[ListItem]> = HashMap::new();
        for topic in items.chunk_by(|a, b| a.topic == b.topic) {
            let place = topic.first().and_then(|item| self.topics.get(item.topic));
            if let Some((name, _)) = place {
                places.insert(name.as_str(), topic);
            }
        }
        let mut outcomes = Vec::with_capacity(items.len());
        for (name, entries) in offsets.topics() {
            let Some(topic) = places.get(name) else {
                continue;
            };
            for entry in entries {
                let found = topic.binary_search_by_key(&entry.partition, |item| item.partition);
                let Some(&item) = found.ok().and_then(|found| topic.get(found)) else {
                    continue;
                };
                let result = match (entry.code, entry.offset) {
                    (codes::NONE, offset) if offset >= 0 => Ok(Offset(offset)),
                    (codes::NONE, -1) if matches!(item.end, End::At(_)) => Ok(NO_RECORD),
                    // The broker answered without an offset, which is no offset of 0.
                    (codes::NONE, _) => Err(Fault::NoAnswer),
                    (code, _) => Err(codes::fault_of(code.into())),
                };
                outcomes.push(ListOutcome {
                    item,
                    result,
                    again: codes::has_moved(entry.code),
                });
            }
        }
        outcomes
    }

    fn request(&self, items: &[ListItem], version: i16) -> ListOffsetsRequest {
        let mut topics: Vec<(usize, ListOffsetsTopic)> = Vec::new();
        // Items come topic by topic.
        for item in items {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(item.partition)
                .with_current_leader_epoch(if version >= 4 { item.leader.epoch } else { -1 })
                .with_timestamp(item.end.timestamp());
            match topics.last_mut() {
                Some((place, topic)) if *place == item.topic => topic.partitions.push(partition),
                _ => {
                    let name = self.topics.get(item.topic).map(|(name, _)| name.as_str());
                    let name = StrBytes::from_string(name.unwrap_or_default().to_owned());
                    let topic = ListOffsetsTopic::default()
                        .with_name(name.into())
                        .with_partitions(vec![partition]);
                    topics.push((item.topic, topic));
                }
            }
        }
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(topics.into_iter().map(|(_, topic)| topic).collect());
        // All of a request ask for the same end. Brokers that know version 1 only have no
        // transactions.
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

fn set(columns: &mut [Columns], item: ListItem, result: Result<Offset, Fault>) {
    let column = columns.get_mut(item.topic).map(|c| c.of(item.end));
    let slot = usize::try_from(item.partition)
        .ok()
        .and_then(|partition| column?.get_mut(partition));
    if let Some(slot) = slot {
        *slot = result;
    }
}

/// The same fault for all. A broker that cannot be reached may lead no more.
fn all(items: &[ListItem], fault: Fault) -> Vec<ListOutcome> {
    let outcome = |&item: &ListItem| ListOutcome {
        item,
        result: Err(fault),
        again: fault.is_connection() && fault != Fault::NoAnswer,
    };
    items.iter().map(outcome).collect()
}
