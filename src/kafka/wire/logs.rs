//! What is read of each topic's log: where it ends, where it starts when that is not known from a
//! while ago, its last stable offset where a group reads committed records only, and once where it
//! ended earlier.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::Inner;
use super::list_offsets::{self, End};
use super::topics::TopicCatalog;
use crate::kafka::reachability::wanted;
use crate::kafka::time_lookup::{self, LogsToAsk};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{GroupObservation, TopicOffsets};
use crate::model::units::newtypes::{Moment, TopicName};

impl Inner {
    /// The logs of the topics that the groups' observations name; and whether some leader is no more
    /// what it was.
    pub(super) async fn logs(
        &self,
        known: &TopicCatalog,
        groups: &[GroupObservation],
        started: &Moment,
        deadline: Instant,
    ) -> (BTreeMap<TopicName, Result<Arc<TopicOffsets>, Fault>>, bool) {
        let mut kept = HashMap::new();
        let mut asked = Vec::new();
        let mut logs = LogsToAsk::new();
        for (name, wanted) in wanted(groups) {
            let topic = match known.topic(name) {
                Ok(topic) => topic,
                Err(fault) => {
                    logs.insert(name.clone(), Err(fault));
                    continue;
                }
            };
            let partitions = topic.leaders.len();
            let starts = self
                .starts
                .kept(name, topic.id, partitions, &wanted.commits);
            let mut ends = vec![End::Latest];
            if wanted.stable {
                ends.push(End::Stable);
            }
            match starts {
                Some(starts) => drop(kept.insert(asked.len(), starts)),
                None => ends.push(End::Earliest),
            }
            asked.push((name.clone(), ends));
        }
        let sweep = list_offsets::ListSweep {
            cluster: &self.cluster,
            topics: &asked,
            until: deadline.into(),
            deadline: deadline.into(),
        };
        let (columns, moved) = sweep.run(known).await;
        for (place, ((name, ends), found)) in asked.iter().zip(columns).enumerate() {
            let id = known.topic(name).map_or(None, |topic| topic.id);
            let starts = kept.remove(&place).unwrap_or_else(|| {
                self.starts.keep(name.clone(), id, found.earliest.clone());
                found.earliest
            });
            let log = TopicOffsets {
                id,
                starts,
                ends: found.latest,
                stable: ends.contains(&End::Stable).then_some(found.stable),
                past: None,
            };
            logs.insert(name.clone(), Ok(log));
        }
        self.starts.let_go();
        self.look_back(known, &mut logs, started, deadline).await;
        let shared = logs
            .into_iter()
            .map(|(name, log)| (name, log.map(Arc::new)));
        (shared.collect(), moved)
    }

    /// Asks where logs ended a while ago, for topics that were not asked about before.
    async fn look_back(
        &self,
        known: &TopicCatalog,
        logs: &mut LogsToAsk,
        started: &Moment,
        deadline: Instant,
    ) {
        let patience = time_lookup::patience(deadline);
        let Some(then) = time_lookup::timestamp(started) else {
            return;
        };
        // Nobody else may suffer from an answer that is slow.
        let late = self.cluster.shared.options().request_timeout;
        while Instant::now() < patience {
            let batch = self.past.next(logs).into_iter();
            let asked: Vec<_> = batch.map(|name| (name, vec![End::At(then)])).collect();
            if asked.is_empty() {
                return;
            }
            let sweep = list_offsets::ListSweep {
                cluster: &self.cluster,
                topics: &asked,
                until: patience.into(),
                deadline: (Instant::now() + late).into(),
            };
            let (columns, _) = sweep.run(known).await;
            for ((name, _), found) in asked.iter().zip(columns) {
                if let Some(Ok(log)) = logs.get_mut(name) {
                    log.past = Some(time_lookup::past_ends(&found.past, &log.ends));
                }
            }
        }
    }
}
