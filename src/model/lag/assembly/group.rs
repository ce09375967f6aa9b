//! One group of a sweep -> its snapshot: first where it stands on each partition, then, in the light
//! of what the whole group does, which of its lags are no work.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MISSED_FOR, SharedTopics};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupDescription;
use crate::model::kafka::observation::{
    CommittedColumn, GroupObservation, OffsetColumn, TopicOffsets,
};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag};
use crate::model::lag::history::clock::Now;
use crate::model::lag::history::group::{Assignment, GroupHistory, LagClassifier};
use crate::model::lag::history::log::{LogHistory, LogPartition};
use crate::model::lag::history::partition::{PartitionReading, PartitionState};
use crate::model::lag::lag_age::LagAge;
use crate::model::lag::{Log, PartitionLag};
use crate::model::units::newtypes::{Isolation, Moment, Offset, TopicName};

/// What one sweep has to assemble its groups from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assembly<'a> {
    pub(super) logs: &'a BTreeMap<TopicName, LogHistory>,
    pub(super) topics: &'a SharedTopics,
    pub(super) read: Moment,
    pub(super) now: Now,
}

/// A group on a topic, as far as it goes without the group's other topics.
#[derive(Debug)]
struct Draft {
    offsets: Arc<TopicOffsets>,
    committed: CommittedColumn,
    states: Vec<PartitionState>,
    lags: Box<[Result<PartitionLag, Fault>]>,
    ages: Box<[Option<LagAge>]>,
}

impl Assembly<'_> {
    /// The group as this sweep saw it, after `before`.
    pub(super) fn group(
        &self,
        group: GroupObservation,
        history: &mut GroupHistory,
        before: Option<&GroupSnapshot>,
    ) -> GroupSnapshot {
        let plan = group.plan;
        history.asked = self.now.into();
        history.describe(&group.description, self.now);
        // Who cannot tell at the moment takes nothing back.
        let described = group
            .description
            .or_else(|fault| before.and_then(|b| b.description.clone()).ok_or(fault));
        let mut snapshot = GroupSnapshot {
            asked: self.read,
            discovered: before.is_some_and(|b| b.discovered),
            fault: None,
            description: described.as_ref().ok().cloned(),
            remembered: Arc::clone(&history.remembered),
            empty_for: history.empty.map(|since| since.elapsed(self.now)),
            stuck: before.is_some_and(|b| b.stuck),
            topics: TopicMap::default(),
        };
        let committed = match group.committed {
            Ok(committed) => committed,
            Err(fault) => {
                let mut known = before.map(|b| b.topics.clone()).unwrap_or_default();
                for topic in &plan.topics {
                    if !known.contains_key(topic) {
                        let unknown = GroupTopic {
                            latest: Err(fault),
                            complete: None,
                        };
                        known.insert(topic.clone(), unknown);
                    }
                }
                for topic in known.values_mut() {
                    topic.latest = Err(fault);
                }
                snapshot.fault = Some(fault);
                snapshot.topics = known;
                return snapshot;
            }
        };
        let mut drafts = BTreeMap::new();
        for (topic, column) in committed {
            let offsets = self.topics.get(&topic).cloned();
            let draft = offsets
                .unwrap_or(Err(Fault::NoAnswer))
                .map(|offsets| self.draft(&plan, history, &described, &topic, offsets, column));
            drafts.insert(topic, draft);
        }
        let standing = LagClassifier::of(history, &described, plan.rules, self.now);
        for (topic, draft) in &mut drafts {
            if let Ok(draft) = draft {
                let owned = Assignment::of(&described, topic, draft.states.len());
                self.judge(topic, draft, &standing, &owned);
            }
        }
        snapshot.stuck = standing.is_stuck(drafts.values().flat_map(|draft| match draft {
            Ok(draft) => draft.lags.to_vec(),
            Err(fault) => vec![Err(*fault)],
        }));
        snapshot.topics = TopicMap::with_capacity(drafts.len());
        for (topic, draft) in drafts {
            let latest = draft.map(|draft| {
                let (lag, states) = self.topic_lag(draft, snapshot.stuck);
                history.keep(&topic, states);
                Arc::new(lag)
            });
            let known = before.and_then(|before| before.topics.get(&topic));
            let complete = known.and_then(|known| known.complete.clone());
            snapshot.topics.insert(topic, group_topic(latest, complete));
        }
        if plan.discover {
            // A topic that the group was just seen to read, and that metadata leaves out now.
            let known = before.into_iter().flat_map(|before| &before.topics);
            for (topic, known) in known.filter(|(_, known)| known.may_have_commits()) {
                let missed = known.complete.as_ref().filter(|c| is_missed(c, &self.read));
                if let (Some(complete), false) = (missed, snapshot.topics.contains_key(topic)) {
                    let missed = group_topic(Err(Fault::NoAnswer), Some(Arc::clone(complete)));
                    snapshot.topics.insert(topic.clone(), missed);
                }
            }
        }
        snapshot.discovered = plan.discover;
        snapshot
    }

    /// Where the group stands on each partition of a topic, and the lag that follows from it.
    fn draft(
        &self,
        plan: &GroupPlan,
        history: &mut GroupHistory,
        described: &Described,
        topic: &TopicName,
        offsets: Arc<TopicOffsets>,
        mut committed: CommittedColumn,
    ) -> Draft {
        // A partition that one side knows and the other does not (yet) is unknown, not absent.
        let partitions = offsets.ends.len().max(committed.len());
        committed.resize(partitions, Err(Fault::NoAnswer));
        let mut states = history.states(topic, partitions);
        let owned = Assignment::of(described, topic, partitions);
        let runs = committed.iter().any(|c| matches!(c, Ok(Some(_))));
        let known = self.logs.get(topic);
        let mut lags = Vec::with_capacity(partitions);
        let mut ages = Vec::with_capacity(partitions);
        for ((index, committed), state) in committed.iter().enumerate().zip(&mut states) {
            let (lag, age) = committed.map_or_else(
                |fault| (Err(fault), None),
                |committed| {
                    let reading = PartitionReading {
                        committed,
                        log: log(&offsets, known, index, plan.isolation),
                        has_id: known.is_some_and(|log| log.id.is_some()),
                        runs: runs || owned.subscribed || owned.has(index),
                        reset: plan.reset,
                        forget_after: plan.rules.forget_after,
                        now: self.now,
                    };
                    let step = state.step(&reading);
                    if step.moved {
                        history.last_move = Some(self.now.into());
                    }
                    let read = step.position.and_then(|position| {
                        let (log, _) = reading.log?;
                        let lag = position.lag(&log)?;
                        let first_unread = position.first_unread(&log);
                        Ok((lag, first_unread.filter(|_| lag.messages().0 > 0)))
                    });
                    match read {
                        Ok((lag, Some(unread))) => {
                            let age = known.and_then(|k| k.ring.age(index, unread, self.now.0));
                            (Ok(lag), Some(age.unwrap_or(LagAge::at_least(0))))
                        }
                        Ok((lag, None)) => (Ok(lag), Some(LagAge::exactly(0))),
                        Err(fault) => (Err(fault), None),
                    }
                },
            );
            lags.push(lag);
            ages.push(age);
        }
        Draft {
            offsets,
            committed,
            states,
            lags: lags.into(),
            ages: ages.into(),
        }
    }

    /// Looks at the lags again in the light of what the whole group does.
    fn judge(
        &self,
        topic: &TopicName,
        draft: &mut Draft,
        standing: &LagClassifier,
        owned: &Assignment,
    ) {
        let logs = self.logs.get(topic).map(|log| log.partitions.as_slice());
        let columns = draft.lags.iter_mut().zip(&mut draft.ages);
        for (index, ((lag, age), state)) in columns.zip(&draft.states).enumerate() {
            let Ok(lag) = lag else {
                continue;
            };
            let log = logs.and_then(|logs| logs.get(index));
            let moved = log.map_or(self.now.into(), |log| log.moved);
            *lag = standing.judge(*lag, state, moved, owned.has(index));
            if matches!(lag, PartitionLag::Residual(_)) {
                // Nothing waits, so nothing gets older.
                *age = Some(LagAge::exactly(0));
            }
        }
    }

    fn topic_lag(&self, mut draft: Draft, group_is_stuck: bool) -> (TopicLag, Vec<PartitionState>) {
        for lag in &mut draft.lags {
            if let (Ok(PartitionLag::Stuck { sized, .. }), true) = (lag, group_is_stuck) {
                *sized = true;
            }
        }
        let lag = TopicLag {
            read: self.read,
            offsets: draft.offsets,
            committed: draft.committed.into_iter().collect(),
            lags: draft.lags,
            ages: draft.ages,
        };
        (lag, draft.states)
    }
}

type Described = Result<Arc<GroupDescription>, Fault>;

/// A partition's log as a group reads it, with what is remembered of it.
fn log(
    offsets: &TopicOffsets,
    known: Option<&LogHistory>,
    partition: usize,
    isolation: Isolation,
) -> Result<(Log, LogPartition), Fault> {
    let of = |column: &OffsetColumn| -> Result<Offset, Fault> {
        column
            .get(partition)
            .copied()
            .unwrap_or(Err(Fault::NoAnswer))
    };
    let (read, start) = (of(&offsets.ends)?, of(&offsets.starts)?);
    let known = known.and_then(|log| log.partitions.get(partition));
    let known = known.copied().unwrap_or_default();
    let high = match known.end() {
        Some(end) if known.is_held() => end.max(read),
        _ => read,
    };
    let end = match (isolation, &offsets.stable) {
        (Isolation::ReadUncommitted, _) => high,
        (Isolation::ReadCommitted, Some(stable)) => of(stable)?.min(high),
        (Isolation::ReadCommitted, None) => return Err(Fault::Untold),
    };
    Ok((Log { start, high, end }, known))
}

/// Whether something read so lately is rather missed than gone.
fn is_missed(complete: &TopicLag, now: &Moment) -> bool {
    now.since(&complete.read) < MISSED_FOR
}

fn group_topic(latest: Result<Arc<TopicLag>, Fault>, before: Option<Arc<TopicLag>>) -> GroupTopic {
    let complete = match (&latest, before) {
        // Partitions are never taken away from a topic: some of them are left out.
        (Ok(lag), Some(before))
            if lag.partitions() < before.partitions() && is_missed(&before, &lag.read) =>
        {
            return GroupTopic {
                latest: Err(Fault::NoAnswer),
                complete: Some(before),
            };
        }
        (Ok(lag), _) if lag.first_fault().is_none() => Some(Arc::clone(lag)),
        // What was known of a topic that is gone says nothing of one made anew.
        (Err(Fault::TopicMissing), _) => None,
        (_, before) => before,
    };
    GroupTopic { latest, complete }
}
