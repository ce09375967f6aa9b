//! Reads log-start and log-end offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::OffsetConsumer;
use super::faults::fault_of;
use super::ffi::{self, OffsetSpec, PartitionChunk};
use super::topics::TopicLeaders;
use crate::kafka::log_start_cache::LogStartCache;
use crate::kafka::reachability::logs_to_read;
use crate::kafka::time_lookup::{self, FoundRecords, NO_RECORD, TimeLookups, UnreadOffsets};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{GroupObservation, OffsetColumn, TopicOffsets};
use crate::model::units::newtypes::{Moment, Offset, Partition, TopicName};

/// Maximum number of partitions in one `ListOffsets` call, because librdkafka's work is quadratic in it.
const MAX_PARTITIONS: usize = 400;

/// How long a broker may take for a lookup by time before its connection counts as dead: far longer
/// than the sweep waits for it.
const TIME_LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Log offsets by topic.
type OffsetsByTopic = BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>;

/// Reads log offsets and caches those that change slowly.
#[derive(Debug, Default)]
pub(super) struct LogReader {
    starts: LogStartCache,
    past: TimeLookups,
}

/// Offsets to read from each leader, and the answers so far.
#[derive(Default)]
struct OffsetQuery<'a> {
    by_leader: BTreeMap<(i32, OffsetSpec), Vec<(&'a str, Partition)>>,
    columns: BTreeMap<(&'a str, OffsetSpec), OffsetColumn>,
    /// Timestamps of the records found by time, in milliseconds since 1970.
    timestamps: HashMap<(&'a str, Partition), i64>,
    /// Whether an answer shows that a leader moved.
    moved: bool,
}

impl LogReader {
    /// Reads the logs of the topics in the groups' observations. Also returns whether a leader
    /// moved. Blocks until the deadline at most.
    pub(super) fn read(
        &self,
        client: &OffsetConsumer,
        known: &TopicLeaders,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) -> (OffsetsByTopic, bool) {
        let wanted = logs_to_read(groups);
        let mut query = OffsetQuery::default();
        let mut kept = BTreeMap::new();
        for (topic, wanted) in &wanted {
            let Ok(leaders) = known.leaders(topic.as_str()) else {
                continue;
            };
            query.add(topic.as_str(), OffsetSpec::Latest, leaders);
            if wanted.stable {
                query.add(topic.as_str(), OffsetSpec::Stable, leaders);
            }
            let commits = &wanted.commits;
            let starts = self
                .starts
                .get_reliable(topic, None, leaders.len(), commits);
            match starts {
                Some(starts) => {
                    kept.insert(*topic, starts);
                }
                None => query.add(topic.as_str(), OffsetSpec::Earliest, leaders),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        query.run(client, deadline, left);
        let mut logs = time_lookup::TopicLogs::new();
        for (topic, wanted) in wanted {
            let log = known.leaders(topic.as_str()).map(|_| {
                let starts = kept.remove(topic).unwrap_or_else(|| {
                    let starts = query.take(topic.as_str(), OffsetSpec::Earliest);
                    self.starts.insert(topic.clone(), None, starts.clone());
                    starts
                });
                TopicOffsets {
                    id: None,
                    starts,
                    ends: query.take(topic.as_str(), OffsetSpec::Latest),
                    stable: wanted
                        .stable
                        .then(|| query.take(topic.as_str(), OffsetSpec::Stable)),
                    past: Vec::new(),
                }
            });
            logs.insert(topic.clone(), log);
        }
        self.starts.evict_old();
        self.look_back(client, known, &mut logs, groups, started, deadline);
        let shared = logs
            .into_iter()
            .map(|(name, log)| (name, log.map(Arc::new)));
        (shared.collect(), query.moved)
    }

    /// Looks up where logs ended a while ago, of the topics for which that is due.
    fn look_back(
        &self,
        client: &OffsetConsumer,
        known: &TopicLeaders,
        logs: &mut time_lookup::TopicLogs,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) {
        let until = time_lookup::answer_deadline(deadline);
        let spec = |ago| time_lookup::lookup_timestamp(started, ago).map(OffsetSpec::At);
        let mut unread = None;
        while Instant::now() < until {
            let batch = self.past.next_batch(logs, started.monotonic);
            if batch.is_empty() || batch.iter().any(|(_, ago)| spec(*ago).is_none()) {
                return;
            }
            let unread = unread.get_or_insert_with(|| UnreadOffsets::new(groups));
            let mut query = OffsetQuery::default();
            for (name, ago) in &batch {
                if let (Ok(leaders), Some(then)) = (known.leaders(name.as_str()), spec(*ago)) {
                    query.add(name.as_str(), then, leaders);
                }
            }
            query.run(client, until, TIME_LOOKUP_TIMEOUT);
            for (name, ago) in &batch {
                let Some((Ok(log), then)) = logs.get_mut(name).zip(spec(*ago)) else {
                    continue;
                };
                let offsets = query.take(name.as_str(), then);
                let age = |partition| {
                    let timestamp = query.timestamps.get(&(name.as_str(), partition))?;
                    time_lookup::record_age(started, *timestamp)
                };
                let found = FoundRecords {
                    ages: (0..).map(age).take(offsets.len()).collect(),
                    offsets,
                };
                self.past
                    .finish(name, started.monotonic, *ago, &found, unread, log);
            }
        }
    }
}

impl<'a> OffsetQuery<'a> {
    fn add(&mut self, topic: &'a str, spec: OffsetSpec, leaders: &[Option<i32>]) {
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

    fn run(&mut self, client: &OffsetConsumer, deadline: Instant, timeout: Duration) {
        let mut chunks = Vec::new();
        for ((_, spec), partitions) in &self.by_leader {
            let new_chunk = |chunk: &[_]| PartitionChunk {
                spec: *spec,
                partitions: chunk.to_vec(),
            };
            chunks.extend(partitions.chunks(MAX_PARTITIONS).map(new_chunk));
        }
        let answers = ffi::list_offsets(client, &chunks, deadline, timeout);
        for (chunk, results) in chunks.iter().zip(answers) {
            for ((topic, partition), result) in chunk.partitions.iter().zip(results) {
                let by_time = matches!(chunk.spec, OffsetSpec::At(_));
                if let (Ok(found), true) = (&result, by_time) {
                    let partition = (*topic, *partition);
                    self.timestamps.insert(partition, found.timestamp);
                }
                let result = match result.map(|found| found.offset) {
                    Ok(offset) if offset >= 0 => Ok(Offset(offset)),
                    Ok(-1) if by_time => Ok(NO_RECORD),
                    // Some brokers answer -1 without an error; that is an unknown offset, not 0.
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
