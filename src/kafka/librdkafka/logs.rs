//! Where logs start and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::LibrdkafkaClient;
use super::faults::fault_of;
use super::ffi::{self, Chunk, OffsetSpec};
use super::topics::TopicReader;
use crate::kafka::log_start_cache::LogStartCache;
use crate::kafka::reachability::wanted;
use crate::kafka::time_lookup::{self, NO_RECORD, TimeLookup};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{GroupObservation, OffsetColumn, TopicOffsets};
use crate::model::units::newtypes::{Moment, Offset, Partition, TopicName};

/// Partitions in one `ListOffsets` call: librdkafka's work is quadratic in it.
const CHUNK: usize = 400;

/// How long a broker may look for where logs ended a while ago before its connection is doubted: far
/// longer than anybody waits for it.
const LOOK_BACK_LASTS: Duration = Duration::from_secs(30);

/// What is known of each topic's log.
type OffsetsByTopic = BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>;

/// Reads logs and keeps what changes slowly.
#[derive(Debug, Default)]
pub(super) struct LogReader {
    starts: LogStartCache,
    past: TimeLookup,
}

/// What one reading asks the brokers, and their answers so far.
#[derive(Default)]
struct LogReading<'a> {
    by_leader: BTreeMap<(i32, OffsetSpec), Vec<(&'a str, Partition)>>,
    columns: BTreeMap<(&'a str, OffsetSpec), OffsetColumn>,
    /// Whether an answer says that a leader has moved.
    moved: bool,
}

impl LogReader {
    /// The logs of the topics that the groups' observations name; and whether a leader has moved.
    /// Blocks until the deadline at most.
    pub(super) fn read(
        &self,
        client: &LibrdkafkaClient,
        known: &TopicReader,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) -> (OffsetsByTopic, bool) {
        let wanted = wanted(groups);
        let mut reading = LogReading::default();
        let mut kept = BTreeMap::new();
        for (topic, wanted) in &wanted {
            let Ok(leaders) = known.leaders(topic.as_str()) else {
                continue;
            };
            reading.ask(topic.as_str(), OffsetSpec::Latest, leaders);
            if wanted.stable {
                reading.ask(topic.as_str(), OffsetSpec::Stable, leaders);
            }
            let commits = &wanted.commits;
            let starts = self.starts.kept(topic, None, leaders.len(), commits);
            match starts {
                Some(starts) => {
                    kept.insert(*topic, starts);
                }
                None => reading.ask(topic.as_str(), OffsetSpec::Earliest, leaders),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        reading.run(client, deadline, left);
        let mut logs = time_lookup::LogsToAsk::new();
        for (topic, wanted) in wanted {
            let log = known.leaders(topic.as_str()).map(|_| {
                let starts = kept.remove(topic).unwrap_or_else(|| {
                    let starts = reading.take(topic.as_str(), OffsetSpec::Earliest);
                    self.starts.keep(topic.clone(), None, starts.clone());
                    starts
                });
                TopicOffsets {
                    id: None,
                    starts,
                    ends: reading.take(topic.as_str(), OffsetSpec::Latest),
                    stable: wanted
                        .stable
                        .then(|| reading.take(topic.as_str(), OffsetSpec::Stable)),
                    past: None,
                }
            });
            logs.insert(topic.clone(), log);
        }
        self.starts.let_go();
        self.look_back(client, known, &mut logs, started, deadline);
        let shared = logs
            .into_iter()
            .map(|(name, log)| (name, log.map(Arc::new)));
        (shared.collect(), reading.moved)
    }

    /// Asks where logs ended a while ago, for topics that were not asked about before.
    fn look_back(
        &self,
        client: &LibrdkafkaClient,
        known: &TopicReader,
        logs: &mut time_lookup::LogsToAsk,
        started: &Moment,
        deadline: Instant,
    ) {
        let patience = time_lookup::patience(deadline);
        let Some(then) = time_lookup::timestamp(started).map(OffsetSpec::At) else {
            return;
        };
        while Instant::now() < patience {
            let batch = self.past.next(logs);
            if batch.is_empty() {
                return;
            }
            let mut reading = LogReading::default();
            for name in &batch {
                if let Ok(leaders) = known.leaders(name.as_str()) {
                    reading.ask(name.as_str(), then, leaders);
                }
            }
            reading.run(client, patience, LOOK_BACK_LASTS);
            for name in &batch {
                if let Some(Ok(log)) = logs.get_mut(name) {
                    let found = reading.take(name.as_str(), then);
                    log.past = Some(time_lookup::past_ends(&found, &log.ends));
                }
            }
        }
    }
}

impl<'a> LogReading<'a> {
    fn ask(&mut self, topic: &'a str, spec: OffsetSpec, leaders: &[Option<i32>]) {
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

    fn run(&mut self, client: &LibrdkafkaClient, deadline: Instant, lasts: Duration) {
        let mut chunks = Vec::new();
        for ((_, spec), partitions) in &self.by_leader {
            let of = |chunk: &[_]| Chunk {
                spec: *spec,
                partitions: chunk.to_vec(),
            };
            chunks.extend(partitions.chunks(CHUNK).map(of));
        }
        let answers = ffi::list_offsets(client, &chunks, deadline, lasts);
        for (chunk, results) in chunks.iter().zip(answers) {
            for ((topic, partition), result) in chunk.partitions.iter().zip(results) {
                let result = match result {
                    Ok(offset) if offset >= 0 => Ok(Offset(offset)),
                    Ok(-1) if matches!(chunk.spec, OffsetSpec::At(_)) => Ok(NO_RECORD),
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

    fn take(&mut self, topic: &'a str, spec: OffsetSpec) -> OffsetColumn {
        self.columns.remove(&(topic, spec)).unwrap_or_default()
    }
}
