//! Where logs start and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::client::Client;
use super::faults::fault_of;
use super::ffi::{self, Chunk, Spec};
use super::topics::Topics;
use crate::kafka::starts::Starts;
use crate::model::fault::Fault;
use crate::model::observation::{GroupObservation, OffsetColumn, TopicOffsets};
use crate::model::types::{Offset, Partition, TopicName};

/// Partitions in one `ListOffsets` call: librdkafka's work is quadratic in it.
const CHUNK: usize = 400;

/// What is known of each topic's log.
type ByTopic = BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>;

/// Reads logs and keeps what changes slowly.
#[derive(Debug, Default)]
pub(super) struct Logs {
    starts: Starts,
}

/// What one reading asks the brokers, and their answers so far.
#[derive(Default)]
struct Reading<'a> {
    by_leader: BTreeMap<(i32, Spec), Vec<(&'a str, Partition)>>,
    columns: BTreeMap<(&'a str, Spec), OffsetColumn>,
    /// Whether an answer says that a leader has moved.
    moved: bool,
}

impl Logs {
    /// The offsets of every topic in `wanted`, where `true` asks for a log start that is not from
    /// memory; and whether a leader has moved. Blocks until the deadline at most.
    pub(super) fn read(
        &self,
        client: &Client,
        known: &Topics,
        wanted: &BTreeMap<&TopicName, bool>,
        groups: &[GroupObservation],
        deadline: Instant,
    ) -> (ByTopic, bool) {
        let mut reading = Reading::default();
        let mut kept = BTreeMap::new();
        for (topic, needs_start) in wanted {
            let Ok(leaders) = known.leaders(topic.as_str()) else {
                continue;
            };
            reading.ask(topic.as_str(), Spec::Latest, leaders);
            let starts = if *needs_start {
                None
            } else {
                self.starts.kept(topic, None, leaders.len(), groups)
            };
            match starts {
                Some(starts) => {
                    kept.insert(*topic, starts);
                }
                None => reading.ask(topic.as_str(), Spec::Earliest, leaders),
            }
        }
        reading.run(client, deadline);
        let mut topics = ByTopic::new();
        for topic in wanted.keys() {
            let offsets = known.leaders(topic.as_str()).map(|_| {
                let starts = kept.remove(topic).unwrap_or_else(|| {
                    let starts = reading.take(topic, Spec::Earliest);
                    self.starts.keep((*topic).clone(), None, starts.clone());
                    starts
                });
                Arc::new(TopicOffsets {
                    starts,
                    ends: reading.take(topic, Spec::Latest),
                    ..TopicOffsets::default()
                })
            });
            topics.insert((*topic).clone(), offsets);
        }
        self.starts.let_go();
        (topics, reading.moved)
    }
}

impl<'a> Reading<'a> {
    fn ask(&mut self, topic: &'a str, spec: Spec, leaders: &[Option<i32>]) {
        for (partition, leader) in (0..).zip(leaders) {
            if let Some(leader) = leader {
                self.by_leader
                    .entry((*leader, spec))
                    .or_default()
                    .push((topic, partition));
            }
        }
        self.columns.insert(
            (topic, spec),
            vec![Err(Fault::LeaderUnknown); leaders.len()],
        );
    }

    fn run(&mut self, client: &Client, deadline: Instant) {
        let mut chunks = Vec::new();
        for ((_, spec), partitions) in &self.by_leader {
            let of = |chunk: &[_]| Chunk {
                spec: *spec,
                partitions: chunk.to_vec(),
            };
            chunks.extend(partitions.chunks(CHUNK).map(of));
        }
        for (chunk, results) in chunks
            .iter()
            .zip(ffi::list_offsets(client, &chunks, deadline))
        {
            for ((topic, partition), result) in chunk.partitions.iter().zip(results) {
                let result = match result {
                    Ok(offset) if offset >= 0 => Ok(Offset(offset)),
                    // The broker answered without an offset, which is no offset of 0.
                    Ok(_) => Err(Fault::NoAnswer),
                    Err(code) => Err(fault_of(code)),
                };
                self.moved |= matches!(result, Err(Fault::LeaderUnknown | Fault::PartitionMissing));
                let column = self.columns.get_mut(&(*topic, chunk.spec));
                let slot = usize::try_from(*partition)
                    .ok()
                    .and_then(|p| column?.get_mut(p));
                if let Some(slot) = slot {
                    *slot = result;
                }
            }
        }
    }

    fn take(&mut self, topic: &'a TopicName, spec: Spec) -> OffsetColumn {
        self.columns
            .remove(&(topic.as_str(), spec))
            .unwrap_or_default()
    }
}
