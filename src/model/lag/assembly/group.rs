//! Turns the observation of one group into its snapshot.
//!
//! Two passes over its partitions: the first determines position and lag from the offsets alone, the
//! second classifies lags as residual or stuck, which depends on what the whole group does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kept_reading::{group_topic, is_missed};
use super::similar_groups::{ComparedName, NameComparison};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupDescription;
use crate::model::kafka::observation::{GroupObservation, TopicOffsets};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_listing::TopicListing;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::cluster_snapshot::{GroupSnapshot, GroupTopic, TopicLag, Unseen};
use crate::model::lag::history::clock::Now;
use crate::model::lag::history::group::{Assignment, GroupHistory, LagClassifier};
use crate::model::lag::history::log::LogHistory;
use crate::model::lag::history::partition::{PartitionReading, PartitionState};
use crate::model::lag::rates::RateAverage;
use crate::model::lag::subscription::uncounted_topics;
use crate::model::lag::topic_lag::LagAgeBasis;
use crate::model::lag::topic_summary::TopicSummary;
use crate::model::lag::{PartitionLag, Position};
use crate::model::units::newtypes::{GroupId, Lag, Moment, Offset, Partition, TopicName};

/// Inputs that the groups of one sweep share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assembly<'a> {
    /// The logs that the sweep read, with their history.
    pub(super) logs: &'a HashMap<&'a TopicName, LogReading<'a>>,
    pub(super) read: Moment,
    pub(super) now: Now,
    /// Topics that match the patterns of groups.
    pub(super) listings: &'a BTreeMap<GroupId, Arc<TopicListing>>,
    /// Names of the cluster's groups, if they were listed.
    pub(super) names: Option<&'a NameComparison<'a>>,
}

/// Offsets of a topic's log, and its history if there is any.
pub(super) type LogReading<'a> = (
    Result<&'a Arc<TopicOffsets>, &'a Fault>,
    Option<&'a LogHistory>,
);

/// Result of the first pass over one topic.
#[derive(Debug)]
struct Draft<'a> {
    log: Option<&'a LogHistory>,
    assignment: Assignment,
    offsets: Arc<TopicOffsets>,
    committed: CommittedOffsets,
    /// Whether any partition has a committed offset.
    has_commits: bool,
    states: Vec<PartitionState>,
    lags: Box<[Result<PartitionLag, Fault>]>,
    first_unread: Option<Box<[Option<Offset>]>>,
    /// Whether a committed offset moved since the last reading.
    moved: bool,
    /// Messages from the offsets committed before to those committed now.
    consumed: Lag,
}

impl Draft<'_> {
    /// Replaces the lags of a share group by what its coordinator reports.
    fn take_reported(&mut self, reported: Option<&BTreeMap<Partition, Lag>>) {
        for (partition, lag) in (0..).zip(&mut self.lags) {
            let reported = reported.and_then(|reported| reported.get(&partition));
            *lag = lag.map(|lag| lag.for_share_group(reported.copied()));
        }
    }
}

impl<'a> Assembly<'a> {
    /// Builds the snapshot of a group from its observation, its history and its snapshot `before`.
    pub(super) fn group(
        &self,
        group: GroupObservation,
        history: &mut GroupHistory,
        before: Option<&GroupSnapshot>,
    ) -> GroupSnapshot {
        let plan = group.plan;
        history.requested_at = self.now.into();
        history.describe(&group.description, self.now);
        history.note_ignored();
        // A failed description does not invalidate the last one.
        let described = group
            .description
            .or_else(|fault| before.and_then(|b| b.description.clone()).ok_or(fault));
        let mut snapshot = GroupSnapshot {
            requested_at: self.read,
            discovered: before.is_some_and(|b| b.discovered),
            fault: None,
            description: described.as_ref().ok().cloned(),
            remembered: Arc::clone(&history.remembered),
            empty_for: history.empty.map(|since| since.elapsed(self.now)),
            listing: None,
            unseen: None,
            uncounted: before.map(|b| b.uncounted.clone()).unwrap_or_default(),
            stuck: before.is_some_and(|b| b.stuck),
            since_commit_seconds: history.seconds_since_last_move(self.now),
            rebalances: history.rebalances,
            topics: TopicMap::default(),
        };
        let listing = self.listings.get(&plan.group);
        let listed = listing.map(Arc::as_ref);
        let committed = match group.committed {
            Ok(committed) => committed,
            Err(fault) => {
                let mut known = before.map(|b| b.topics.clone()).unwrap_or_default();
                let new = plan
                    .topics
                    .iter()
                    .filter(|topic| !known.contains_key(*topic));
                let new = new.map(|topic| (topic, false));
                let new = uncounted_topics(&plan, new, listed, || snapshot.subscription());
                let mut uncounted = [&*snapshot.uncounted, &*new].concat();
                uncounted.sort_unstable();
                snapshot.uncounted = uncounted.into();
                for topic in &*plan.topics {
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
                if fault == Fault::OverBudget {
                    // It is not read because memory is short, so nothing is kept of it either.
                    for topic in known.values_mut() {
                        topic.complete = None;
                    }
                    history.topics = TopicMap::default();
                }
                snapshot.fault = Some(fault);
                snapshot.topics = known;
                return snapshot;
            }
        };
        let reported = group.reported_lags;
        let mut drafts = Vec::with_capacity(committed.len());
        for (index, (topic, column)) in committed.into_iter().enumerate() {
            let draft = match self.logs.get(&topic) {
                Some((Ok(offsets), log)) => {
                    let log = (Arc::clone(offsets), *log);
                    let place = (index, &topic);
                    let mut draft = self.draft(&plan, history, &described, place, log, column);
                    if let Some(reported) = &reported {
                        draft.take_reported(reported.get(&topic));
                    }
                    Ok(draft)
                }
                Some((Err(fault), _)) => Err(**fault),
                None => Err(Fault::NoAnswer),
            };
            drafts.push((topic, draft));
        }
        let commits = drafts.iter().filter_map(|(topic, draft)| {
            let draft = draft.as_ref().ok()?;
            Some((topic, &draft.committed, draft.moved))
        });
        history.note_commits(commits, before);
        snapshot.remembered = Arc::clone(&history.remembered);
        let topics = drafts.iter().map(|(topic, draft)| {
            let has_commits = draft.as_ref().is_ok_and(|draft| draft.has_commits);
            (topic, has_commits)
        });
        snapshot.uncounted = uncounted_topics(&plan, topics, listed, || snapshot.subscription());
        let classifier = LagClassifier::new(history, &described, plan.thresholds, self.now);
        let mut any_stuck = false;
        for draft in drafts
            .iter_mut()
            .filter_map(|(_, draft)| draft.as_mut().ok())
        {
            any_stuck |= self.classify(draft, &classifier);
        }
        snapshot.stuck = any_stuck
            && classifier.is_stuck(drafts.iter().flat_map(|(topic, draft)| {
                let (lags, fault) = match draft {
                    _ if !snapshot.counts(topic) => (&[][..], None),
                    Ok(draft) => (&*draft.lags, None),
                    Err(fault) => (&[][..], Some(Err(*fault))),
                };
                lags.iter().copied().chain(fault)
            }));
        snapshot.topics = TopicMap::with_capacity(drafts.len());
        for (index, (topic, draft)) in drafts.into_iter().enumerate() {
            let known = before.and_then(|before| before.topics.get_near(index, &topic));
            let latest = draft.map(|draft| {
                let before = known.and_then(|known| known.latest.as_deref().ok());
                let (lag, states) = self.topic_lag(draft, snapshot.stuck, before);
                history.put_states(index, &topic, states);
                Arc::new(lag)
            });
            let complete = known.and_then(|known| known.complete.clone());
            snapshot.topics.insert(topic, group_topic(latest, complete));
        }
        if plan.discover {
            // Metadata may leave out a topic that the group was reading a moment ago.
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
        snapshot.listing = listing.filter(|_| snapshot.is_empty()).cloned();
        history.listed = snapshot.listing.clone().or(history.listed.take());
        snapshot.unseen = self.unseen(&plan.group, snapshot.is_unseen(), history, before);
        snapshot.since_commit_seconds = history.seconds_since_last_move(self.now);
        snapshot
    }

    /// Facts about the group if it is unseen. Facts that this sweep does not look up stay as before.
    fn unseen(
        &self,
        group: &GroupId,
        is_unseen: bool,
        history: &mut GroupHistory,
        before: Option<&GroupSnapshot>,
    ) -> Option<Arc<Unseen>> {
        let since = history.unseen.unwrap_or(self.now.into());
        history.unseen = is_unseen.then_some(since);
        let since = history.unseen?.elapsed(self.now);
        let known = || Some(ComparedName::from(&**before?.unseen.as_ref()?));
        let compared = self.names.and_then(|names| names.compare(group));
        let ComparedName { exists, similar } = compared.or_else(known).unwrap_or_default();
        Some(Arc::new(Unseen {
            since,
            exists,
            similar,
        }))
    }

    /// First pass: position and lag of the group on each partition of a topic.
    fn draft(
        &self,
        plan: &GroupPlan,
        history: &mut GroupHistory,
        described: &Described,
        (index, topic): (usize, &TopicName),
        (offsets, history_of_log): (Arc<TopicOffsets>, Option<&'a LogHistory>),
        mut committed: CommittedOffsets,
    ) -> Draft<'a> {
        // A partition that only one of the two answers contains is unknown, not absent.
        let partitions = offsets.ends.len().max(committed.len());
        committed.grow(partitions, Err(Fault::NoAnswer));
        let mut states = history.take_states(index, topic, partitions);
        let assignment = Assignment::new(described, topic, partitions);
        let has_commits = committed.has_commits();
        let mut lags = Vec::with_capacity(partitions);
        let mut first_unread: Option<Box<[Option<Offset>]>> = None;
        let mut moved = false;
        let mut consumed = Lag(0);
        for ((index, committed), state) in committed.iter().enumerate().zip(&mut states) {
            let known = history_of_log.and_then(|log| log.partitions.get(index));
            let known = known.copied().unwrap_or_default();
            let log = known.as_read(&offsets, index, plan.isolation);
            let from = state.committed_in(&known);
            if let (Ok(Some(at)), Ok(log)) = (committed, &log)
                && let Some(has_moved) = state.apply_next_commit(at, log, &known, self.now)
            {
                if has_moved {
                    moved = true;
                    consumed = consumed.plus(messages_between(from, at));
                }
                lags.push(Position::Committed(at).lag(log));
                continue;
            }
            let lag = committed.and_then(|committed| {
                let reading = PartitionReading {
                    committed,
                    log: log.map(|log| (log, known)),
                    has_id: history_of_log.is_some_and(|log| log.id.is_some()),
                    runs: has_commits || assignment.subscribed || assignment.has(index),
                    reset: plan.reset,
                    forget_after: plan.thresholds.forget_after,
                    now: self.now,
                };
                let step = state.apply(&reading);
                moved |= step.moved;
                if let (true, Some(at)) = (step.moved, committed) {
                    consumed = consumed.plus(messages_between(from, at));
                }
                let position = step.position?;
                let (log, _) = reading.log?;
                let lag = position.lag(&log)?;
                if matches!(lag, PartitionLag::SinceSeen(_) | PartitionLag::Forgotten(_)) {
                    let all = first_unread.get_or_insert_with(|| vec![None; partitions].into());
                    if let Some(unread) = all.get_mut(index) {
                        *unread = position.first_unread(&log);
                    }
                }
                Ok(lag)
            });
            lags.push(lag);
        }
        if moved {
            history.last_move = Some(self.now.into());
        }
        Draft {
            moved,
            consumed,
            log: history_of_log,
            assignment,
            offsets,
            committed,
            has_commits,
            states,
            lags: lags.into(),
            first_unread,
        }
    }

    /// Second pass: classifies lags as residual or stuck, and keeps which are residual. Returns whether one is stuck.
    fn classify(&self, draft: &mut Draft<'_>, classifier: &LagClassifier) -> bool {
        let logs = draft.log.map(|log| log.partitions.as_slice());
        let partitions = draft.lags.len();
        let mut any_stuck = false;
        for (index, (lag, state)) in draft.lags.iter_mut().zip(&mut draft.states).enumerate() {
            // Most partitions have no lag, so there is nothing to classify.
            let Some(lag) = lag.as_mut().ok().filter(|lag| lag.messages() > Lag(0)) else {
                continue;
            };
            let log = logs.and_then(|logs| logs.get(index));
            let moved = log.map_or(self.now.into(), |log| log.moved);
            *lag = classifier.classify(*lag, state, moved, draft.assignment.has(index));
            any_stuck |= matches!(lag, PartitionLag::Stuck { .. });
            match *lag {
                PartitionLag::Residual(messages) => state.set_residue(messages),
                // The first message that a consumer gets is behind the residue.
                PartitionLag::Measured(messages)
                | PartitionLag::UpperBound(messages)
                | PartitionLag::Forgotten(messages)
                | PartitionLag::Stuck { lag: messages, .. }
                    if Lag(0) < state.residue() && state.residue() < messages =>
                {
                    let unread = state.offset().after(state.residue());
                    let all = draft
                        .first_unread
                        .get_or_insert_with(|| vec![None; partitions].into());
                    if let Some(slot) = all.get_mut(index) {
                        *slot = Some(unread);
                    }
                }
                _ => {}
            }
        }
        any_stuck
    }

    fn topic_lag(
        &self,
        mut draft: Draft<'_>,
        group_is_stuck: bool,
        before: Option<&TopicLag>,
    ) -> (TopicLag, Vec<PartitionState>) {
        for lag in &mut draft.lags {
            if let (Ok(PartitionLag::Stuck { sized, .. }), true) = (lag, group_is_stuck) {
                *sized = true;
            }
        }
        let summary = TopicSummary::new(draft.lags.iter().copied().zip(draft.committed.iter()));
        let mut lag = TopicLag {
            read: self.read,
            summary,
            offsets: draft.offsets,
            committed: draft.committed,
            lags: draft.lags,
            age_basis: LagAgeBasis {
                now: self.now,
                ends: draft.log.map(|log| Arc::clone(&log.ring)),
                first_unread: draft.first_unread,
            },
            rate_average: RateAverage::default(),
        };
        lag.rate_average = lag.average_after(before, draft.consumed);
        (lag, draft.states)
    }
}

type Described = Result<Arc<GroupDescription>, Fault>;

/// Messages from one commit to the next; none if the first is unknown, or the second is behind it.
fn messages_between(from: Option<Offset>, to: Offset) -> Lag {
    let messages = from.and_then(|from| to.distance_from(from));
    messages.unwrap_or_default()
}
