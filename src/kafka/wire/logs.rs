//! Reads the log offsets of each topic: the end; the start, unless a reliable one is cached; the last stable offset, if
//! a group reads committed records only; and after a start, past log ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::WireInner;
use super::list_offsets::{self, End};
use super::topics::ClusterMetadata;
use crate::kafka::reachability::logs_to_read;
use crate::kafka::time_lookup::{self, FoundRecords, TopicLogs, UnreadOffsets};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{GroupObservation, TopicOffsets};
use crate::model::units::newtypes::{Moment, TopicName};

impl WireInner {
    /// Reads the logs of the topics in the groups' observations. Also returns whether any leader
    /// may have moved.
    pub(super) async fn logs(
        &self,
        metadata: &ClusterMetadata,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) -> (BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>, bool) {
        let mut topics = Vec::new();
        // The ID of each topic, and its log starts if they need not be requested.
        let mut cached = Vec::new();
        let mut logs = TopicLogs::new();
        for (name, wanted) in logs_to_read(groups) {
            let topic = match metadata.topic(name) {
                Ok(topic) => topic,
                Err(fault) => {
                    logs.insert(name.clone(), Err(fault));
                    continue;
                }
            };
            let partitions = topic.leaders.len();
            let starts = self
                .starts
                .get_reliable(name, topic.id, partitions, &wanted.commits);
            let mut ends = vec![End::Latest];
            if wanted.stable {
                ends.push(End::Stable);
            }
            if starts.is_none() {
                ends.push(End::Earliest);
            }
            topics.push((name.clone(), ends));
            cached.push((topic.id, starts));
        }
        let sweep = list_offsets::ListSweep {
            cluster: &self.cluster,
            topics: &topics,
            until: deadline.into(),
            deadline: deadline.into(),
        };
        let (columns, moved) = sweep.run(metadata).await;
        for (((name, ends), found), (id, starts)) in topics.iter().zip(columns).zip(cached) {
            let starts = starts.unwrap_or_else(|| {
                self.starts.insert(name.clone(), id, found.earliest.clone());
                found.earliest
            });
            let log = TopicOffsets {
                id,
                starts,
                ends: found.latest,
                stable: ends.contains(&End::Stable).then_some(found.stable),
                past: Vec::new(),
            };
            logs.insert(name.clone(), Ok(log));
        }
        self.starts.evict_old();
        self.look_back(metadata, &mut logs, groups, started, deadline)
            .await;
        let shared = logs
            .into_iter()
            .map(|(name, log)| (name, log.map(Arc::new)));
        (shared.collect(), moved)
    }

    /// Looks up where logs ended a while ago, of the topics for which that is due.
    async fn look_back(
        &self,
        metadata: &ClusterMetadata,
        logs: &mut TopicLogs,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) {
        let until = time_lookup::answer_deadline(deadline);
        let mut unread = None;
        // The sweep stops waiting early, but the broker gets the full request timeout: a slow
        // lookup must not make the connection count as dead.
        let late = self.cluster.shared.options().request_timeout;
        while Instant::now() < until {
            let batch = self.past.next_batch(logs, started.monotonic);
            let topics = batch.iter().map(|(name, ago)| {
                let then = time_lookup::lookup_timestamp(started, *ago)?;
                Some((name.clone(), vec![End::At(then)]))
            });
            let topics: Vec<_> = match topics.collect() {
                Some(topics) if !batch.is_empty() => topics,
                _ => return,
            };
            let unread = unread.get_or_insert_with(|| UnreadOffsets::new(groups));
            let sweep = list_offsets::ListSweep {
                cluster: &self.cluster,
                topics: &topics,
                until: until.into(),
                deadline: (Instant::now() + late).into(),
            };
            let (columns, _) = sweep.run(metadata).await;
            for ((name, ago), columns) in batch.iter().zip(columns) {
                let timestamps = columns.past_timestamps.iter();
                let ages = timestamps.map(|at| time_lookup::record_age(started, *at));
                let found = FoundRecords {
                    offsets: columns.past,
                    ages: ages.collect(),
                };
                if let Some(Ok(log)) = logs.get_mut(name) {
                    self.past
                        .finish(name, started.monotonic, *ago, &found, unread, log);
                }
            }
        }
    }
}
