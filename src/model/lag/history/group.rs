//! History of a consumer group across sweeps, and the classification of its lags as residual or stuck.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Now, Stamp};
use super::partition::{PartitionState, PartitionStateKind};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::{GroupDescription, GroupState};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::topic_listing::TopicListing;
use crate::model::kafka::topic_map::TopicMap;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::GroupSnapshot;
use crate::model::lag::subscription::{RememberedGroup, Subscription};
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::newtypes::{Lag, TopicName};

/// History of one group.
#[derive(Debug, Default)]
pub(in crate::model) struct GroupHistory {
    /// When its last reading was requested.
    pub(in crate::model) requested_at: Stamp,
    /// When a commit of it was last seen to move.
    pub(in crate::model) last_move: Option<Stamp>,
    /// Rebalances that this process has seen.
    pub(in crate::model) rebalances: u32,
    /// The current assignment and since when it holds; `None` while the group rebalances.
    pub(in crate::model) steady: Option<Steady>,
    /// Time since which it has had no members; `None` if it has some or was never described.
    pub(in crate::model) empty: Option<Stamp>,
    /// Topics that were listed for it by patterns, until its next members show which of them they read.
    pub(in crate::model) listed: Option<Arc<TopicListing>>,
    /// Time since which nothing has shown that it exists.
    pub(in crate::model) unseen: Option<Stamp>,
    /// Facts that an empty group does not report.
    pub(in crate::model) remembered: Arc<RememberedGroup>,
    /// The description that `remembered` and `steady` were last updated from. Descriptions are cached, so
    /// the same one comes with many sweeps.
    pub(in crate::model) learned: Option<Arc<GroupDescription>>,
    /// State per partition, for topics that have any.
    pub(in crate::model) topics: TopicMap<Box<[PartitionState]>>,
}

/// A stable assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Steady {
    /// Hash of the members and their partitions, to detect a change.
    pub(in crate::model) fingerprint: u64,
    pub(in crate::model) since: Stamp,
}

impl GroupHistory {
    /// Updates the history from the current description; an `Err` changes nothing.
    pub(in crate::model) fn describe(
        &mut self,
        described: &Result<Arc<GroupDescription>, Fault>,
        now: Now,
    ) {
        let Ok(description) = described else {
            return;
        };
        if self
            .learned
            .as_ref()
            .is_some_and(|learned| Arc::ptr_eq(learned, description))
        {
            return;
        }
        let before = self.learned.as_ref();
        if before.is_some_and(|before| description.has_rebalanced_since(before)) {
            self.rebalances = self.rebalances.saturating_add(1);
        }
        self.remembered = Arc::new(self.remembered.after(description));
        self.learned = Some(Arc::clone(description));
        self.empty = (description.state == GroupState::Empty)
            .then(|| self.empty.unwrap_or_else(|| now.into()));
        let is_stable = description.state == GroupState::Stable;
        let fingerprint = is_stable.then(|| assignment_fingerprint(description));
        self.steady = match (fingerprint, self.steady) {
            (Some(fingerprint), Some(steady)) if steady.fingerprint == fingerprint => Some(steady),
            (Some(fingerprint), _) => Some(Steady {
                fingerprint,
                since: now.into(),
            }),
            (None, _) => None,
        };
    }

    /// Remembers the topics on which the group commits while the broker does not report its subscription: then the
    /// subscription has changed. Each topic comes with its commits and whether one of them moved.
    pub(in crate::model) fn note_commits<'a>(
        &mut self,
        topics: impl Iterator<Item = (&'a TopicName, &'a CommittedOffsets, bool)>,
        before: Option<&GroupSnapshot>,
    ) {
        let Some(reads) = &self.remembered.reads else {
            return;
        };
        // All topics with commits were known before.
        let discovered = before.filter(|before| before.discovered);
        let is_new = |topic: &TopicName, committed: &CommittedOffsets| {
            let was_unknown = discovered.is_some_and(|before| !before.topics.contains_key(topic));
            was_unknown && committed.has_commits()
        };
        let new = topics.filter(|(topic, committed, moved)| {
            !reads.contains(topic.as_str()) && (*moved || is_new(topic, committed))
        });
        let mut new = new.map(|(topic, ..)| topic).peekable();
        // New topics are rare, so the subscription is only computed if there is one.
        let description = self.learned.as_deref();
        let is_reported = || description.is_some_and(|d| Subscription::of(d).is_all);
        if new.peek().is_some() && !is_reported() {
            let reads = self.remembered.with_topics(new);
            Arc::make_mut(&mut self.remembered).reads = reads;
        }
    }

    /// Remembers the topics that were listed while the group had no members and that its current members do not read.
    pub(in crate::model) fn note_ignored(&mut self) {
        let is_due = self.listed.is_some() || self.remembered.ignores_any();
        let Some(description) = self.learned.as_ref().filter(|_| is_due) else {
            return;
        };
        let subscription = Subscription::of(description);
        if subscription.is_all && description.state == GroupState::Stable {
            let listed = self.listed.take();
            let listed = listed.iter().flat_map(|listing| listing.topics());
            let ignored = self.remembered.ignored_after(listed, &subscription.topics);
            if ignored != self.remembered.ignored {
                Arc::make_mut(&mut self.remembered).ignored = ignored;
            }
        }
    }

    /// How long ago a commit of it was last seen to move; `None` before one was.
    pub(in crate::model) fn seconds_since_last_move(&self, now: Now) -> Option<u32> {
        let since = self.last_move?.elapsed(now);
        Some(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }

    /// Merges the history that an earlier process saved. Where the two disagree, this process takes precedence.
    pub(in crate::model) fn restore(&mut self, earlier: Self, now: Now) {
        self.requested_at = now.into();
        self.last_move = self.last_move.max(earlier.last_move);
        self.empty = match (self.empty, earlier.empty) {
            (Some(now), Some(then)) => Some(now.min(then)),
            // Not described yet by this process.
            (None, then) if self.learned.is_none() => then,
            (now, _) => now,
        };
        self.remembered = Arc::new(self.remembered.or(&earlier.remembered));
        self.steady = match (self.steady, earlier.steady) {
            (Some(now), Some(then)) if now.fingerprint == then.fingerprint => Some(then),
            // Not described yet by this process.
            (None, then) if self.learned.is_none() && self.topics.is_empty() => then,
            (now, _) => now,
        };
        for (topic, known) in earlier.topics {
            let mut states = self.take_states(0, &topic, known.len());
            for (state, earlier) in states.iter_mut().zip(known) {
                state.restore(earlier, now);
            }
            self.put_states(0, &topic, states);
        }
    }

    /// Takes the states of a topic's partitions out, one for each partition; [`Self::put_states`] puts
    /// them back. The topic probably has the position `index` among those of the group.
    pub(in crate::model) fn take_states(
        &mut self,
        index: usize,
        topic: &TopicName,
        partitions: usize,
    ) -> Vec<PartitionState> {
        // The map entry stays, because the states come back to it.
        let known = self.topics.get_mut_near(index, topic);
        let known = known.map(std::mem::take);
        let mut states = known.map(<[_]>::into_vec).unwrap_or_default();
        if states.len() < partitions {
            states.resize(partitions, PartitionState::default());
        }
        states
    }

    /// Puts the states of a topic's partitions back, unless all of them are [`PartitionStateKind::Unseen`].
    pub(in crate::model) fn put_states(
        &mut self,
        index: usize,
        topic: &TopicName,
        states: Vec<PartitionState>,
    ) {
        if states
            .iter()
            .all(|state| state.kind() == PartitionStateKind::Unseen)
        {
            self.topics.remove(topic);
        } else if let Some(known) = self.topics.get_mut_near(index, topic) {
            *known = states.into();
        } else {
            self.topics.insert(topic.clone(), states.into());
        }
    }
}

fn assignment_fingerprint(description: &GroupDescription) -> u64 {
    let mut hasher = DefaultHasher::new();
    for member in &description.members {
        (&member.id, &member.assigned).hash(&mut hasher);
    }
    hasher.finish()
}

/// Which partitions of a topic are assigned to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::model) struct Assignment {
    /// By partition; empty if no partition is known to be assigned.
    owned: Vec<bool>,
    /// Whether a member subscribes to the topic, even if no partition is assigned yet.
    pub(in crate::model) subscribed: bool,
}

impl Assignment {
    pub(in crate::model) fn new(
        described: &Result<Arc<GroupDescription>, Fault>,
        topic: &TopicName,
        partitions: usize,
    ) -> Self {
        let Ok(description) = described else {
            return Self {
                owned: Vec::new(),
                subscribed: false,
            };
        };
        let mut owned = Vec::new();
        let members = &description.members;
        let assigned = members.iter().flat_map(|member| &member.assigned);
        for partition in assigned.filter(|(of, _)| of == topic).flat_map(|(_, p)| p) {
            owned.resize(partitions, false);
            let index = usize::try_from(*partition).ok();
            if let Some(owned) = index.and_then(|index| owned.get_mut(index)) {
                *owned = true;
            }
        }
        let subscribed = members.iter().any(|member| {
            let topics = member.subscribed.as_ref();
            topics.is_some_and(|topics| topics.contains(topic))
        });
        Self { owned, subscribed }
    }

    /// Whether the partition is known to be assigned to a member.
    pub(in crate::model) fn has(&self, partition: usize) -> bool {
        self.owned.get(partition).copied().unwrap_or(false)
    }
}

/// Classifies lags of one group as residual or stuck.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct LagClassifier {
    pub(in crate::model) thresholds: LagThresholds,
    /// How long the current assignment has been stable; `None` while rebalancing or unknown.
    pub(in crate::model) steady: Option<Duration>,
    /// Whether the group has members; `None` if unknown.
    pub(in crate::model) has_members: Option<bool>,
    /// When any committed offset of the group last moved.
    pub(in crate::model) last_move: Option<Stamp>,
    pub(in crate::model) now: Now,
}

impl LagClassifier {
    /// Builds the classifier of a group from its history.
    pub(in crate::model) fn new(
        history: &GroupHistory,
        described: &Result<Arc<GroupDescription>, Fault>,
        thresholds: LagThresholds,
        now: Now,
    ) -> Self {
        let described = described.as_ref().ok();
        Self {
            thresholds,
            steady: described.and(history.steady).map(|s| s.since.elapsed(now)),
            has_members: described.map(|description| description.has_members()),
            last_move: history.last_move,
            now,
        }
    }

    /// Classifies one lag. `state` is the group's state on the partition, `log_moved` when the log-end
    /// offset last moved, `owned` whether the partition is assigned to a member.
    pub(in crate::model) fn classify(
        &self,
        lag: PartitionLag,
        state: &PartitionState,
        log_moved: Stamp,
        owned: bool,
    ) -> PartitionLag {
        // The same lag was found residual while a member owned the partition, and neither offset has moved since.
        // It stays residual without a member, and after Kafka has deleted the offset of the idle group.
        let is_known = |messages: Lag| messages == state.residue() && messages > Lag(0);
        let messages = match lag {
            PartitionLag::Measured(messages) | PartitionLag::UpperBound(messages) => messages,
            PartitionLag::Forgotten(messages) if is_known(messages) => {
                return PartitionLag::Residual(messages);
            }
            // The coordinator of a share group counts transaction markers as done, and archives records that cannot be
            // processed, so the reported lag is neither residual nor stuck.
            _ => return lag,
        };
        // Most partitions: nothing to classify.
        if messages == Lag(0) {
            return lag;
        }
        let thresholds = &self.thresholds;
        let still = state.since().elapsed(self.now);
        if messages > thresholds.residual_max {
            let is_stuck = still >= thresholds.stuck_after && self.others_move(state, log_moved);
            return if is_stuck {
                PartitionLag::Stuck {
                    lag: messages,
                    sized: thresholds.stuck_counts,
                }
            } else {
                lag
            };
        }
        let log_still = log_moved.elapsed(self.now);
        let steady = self.steady.unwrap_or_default();
        let is_residual = owned
            && self.steady.is_some()
            && still.min(log_still).min(steady) >= thresholds.residual_after;
        if is_known(messages) || is_residual {
            PartitionLag::Residual(messages)
        } else {
            lag
        }
    }

    /// Whether anything moved since the group stopped committing here: another of its partitions, or,
    /// while it has members, the log.
    fn others_move(&self, state: &PartitionState, log_moved: Stamp) -> bool {
        let moved = self.last_move.filter(|moved| *moved > state.since());
        match self.has_members {
            // Without members nothing can be stuck, except a consumer that commits without joining.
            Some(false) => {
                moved.is_some_and(|moved| moved.elapsed(self.now) < self.thresholds.stuck_after)
            }
            Some(true) | None => moved.is_some() || log_moved > state.since(),
        }
    }

    /// Whether the whole group is stuck: at least one partition is, and no other partition with lag makes
    /// progress.
    pub(in crate::model) fn is_stuck(
        &self,
        lags: impl Iterator<Item = Result<PartitionLag, Fault>>,
    ) -> bool {
        let mut some = false;
        for lag in lags {
            match lag {
                Ok(PartitionLag::Stuck { .. }) => some = true,
                Ok(other) if other.for_scaling() == Lag(0) => {}
                // An unknown partition may be making progress.
                _ => return false,
            }
        }
        let is_idle = |moved: Stamp| moved.elapsed(self.now) >= self.thresholds.stuck_after;
        some && self.last_move.is_none_or(is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kafka::group::{GroupKind, Member};
    use crate::model::units::newtypes::Offset;

    const MINUTE: u64 = 60;

    fn standing(now: u64) -> LagClassifier {
        LagClassifier {
            thresholds: LagThresholds::default(),
            steady: Some(Duration::from_secs(now)),
            has_members: Some(true),
            last_move: None,
            now: Now(now * 1000),
        }
    }

    fn since(seconds: u32) -> PartitionState {
        PartitionState::restored(PartitionStateKind::Committed, Offset(0), Stamp(seconds))
    }

    fn measured(lag: u64) -> PartitionLag {
        PartitionLag::Measured(Lag(lag))
    }

    #[test]
    fn few_unchanged_messages_of_an_assigned_partition_are_residual() {
        let at = |now| standing(now).classify(measured(10), &since(0), Stamp(0), true);
        assert_eq!(at(5 * MINUTE - 1), measured(10));
        assert_eq!(at(5 * MINUTE), PartitionLag::Residual(Lag(10)));
    }

    #[test]
    fn residual_lag_needs_every_condition() {
        let later = 60 * MINUTE;
        let (still, now) = (since(0), standing(later));
        let moving = Stamp(3400);
        let rebalancing = LagClassifier {
            steady: None,
            ..now
        };
        let just_joined = LagClassifier {
            steady: Some(Duration::from_secs(9)),
            ..now
        };
        for (case, standing, lag, state, log_moved, owned) in [
            ("more messages", now, 11, still, Stamp(0), true),
            ("none", now, 0, still, Stamp(0), true),
            ("the commit moves", now, 3, since(3400), Stamp(0), true),
            ("the log moves", now, 3, still, moving, true),
            ("no member", now, 3, still, Stamp(0), false),
            ("a rebalance", rebalancing, 3, still, Stamp(0), true),
            ("a new member", just_joined, 3, still, Stamp(0), true),
        ] {
            let found = standing.classify(measured(lag), &state, log_moved, owned);
            assert_eq!(found, measured(lag), "{case}");
        }
    }

    #[test]
    fn a_residue_outlives_its_member_while_nothing_moves() {
        let away = LagClassifier {
            steady: None,
            has_members: Some(false),
            ..standing(60 * MINUTE)
        };
        let mut judged = since(0);
        judged.set_residue(Lag(2));
        let found = |lag| away.classify(measured(lag), &judged, Stamp(0), false);
        assert_eq!(found(2), PartitionLag::Residual(Lag(2)));
        // A record and the marker of its transaction.
        assert_eq!(found(4), measured(4));
        assert_eq!(found(1), measured(1));
        judged.set_residue(Lag(u64::from(u16::MAX) + 1));
        assert_eq!(
            away.classify(measured(2), &judged, Stamp(0), false),
            measured(2)
        );
    }

    #[test]
    fn more_messages_than_the_threshold_are_never_residual() {
        // Eleven jobs wait behind one that takes half an hour; nothing else happens.
        let found = standing(30 * MINUTE).classify(measured(12), &since(0), Stamp(0), true);
        assert_eq!(found, measured(12));
    }

    #[test]
    fn a_partition_without_commits_is_stuck_while_others_progress() {
        let at = |now: u64| LagClassifier {
            last_move: Some(Stamp(u32::try_from(now).unwrap())),
            ..standing(now)
        };
        let judged = |now| at(now).classify(measured(50), &since(10), Stamp(0), true);
        assert_eq!(judged(5 * MINUTE + 9), measured(50));
        let stuck = PartitionLag::Stuck {
            lag: Lag(50),
            sized: true,
        };
        assert_eq!(judged(5 * MINUTE + 10), stuck);
    }

    #[test]
    fn a_partition_is_stuck_only_if_its_log_grows_or_others_progress() {
        let judged = |log_moved| {
            let standing = standing(60 * MINUTE);
            standing.classify(measured(50), &since(10), log_moved, true)
        };
        assert_eq!(judged(Stamp(10)), measured(50));
        assert_eq!(judged(Stamp(11)).label(), "stuck");
    }

    #[test]
    fn a_group_without_members_is_stuck_only_if_it_commits() {
        let away = LagClassifier {
            has_members: Some(false),
            ..standing(60 * MINUTE)
        };
        let judged = |standing: LagClassifier| {
            standing.classify(measured(50), &since(10), Stamp(3000), false)
        };
        assert_eq!(judged(away), measured(50));
        let commits = |moved| LagClassifier {
            last_move: Some(Stamp(moved)),
            ..away
        };
        assert_eq!(judged(commits(20)), measured(50), "scaled to zero long ago");
        assert_eq!(judged(commits(3590)).label(), "stuck", "assign()");
    }

    #[test]
    fn a_group_is_stuck_if_every_partition_with_lag_is_stuck() {
        let stuck = Ok(PartitionLag::Stuck {
            lag: Lag(50),
            sized: true,
        });
        let is_stuck = |last_move: Option<u32>, lags: &[Result<PartitionLag, Fault>]| {
            let standing = LagClassifier {
                last_move: last_move.map(Stamp),
                ..standing(60 * MINUTE)
            };
            standing.is_stuck(lags.iter().copied())
        };
        let zero = Ok(measured(0));
        assert!(is_stuck(None, &[stuck, zero, stuck]));
        assert!(is_stuck(Some(10), &[stuck]));
        assert!(!is_stuck(Some(3590), &[stuck]), "a commit moved");
        assert!(!is_stuck(None, &[stuck, Ok(measured(1))]));
        assert!(!is_stuck(None, &[stuck, Err(Fault::NoAnswer)]));
        assert!(!is_stuck(None, &[zero]));
    }

    fn description(state: GroupState, assigned: &[i32]) -> Result<Arc<GroupDescription>, Fault> {
        Ok(Arc::new(GroupDescription {
            kind: GroupKind::Classic,
            state,
            assignor: Some("range".into()),
            members: vec![Member {
                id: "m".into(),
                instance: None,
                client: "c".into(),
                host: "/h".into(),
                subscribed: Some(["t".into()].into()),
                assigned: vec![("t".into(), assigned.to_vec())],
            }],
            omitted_members: 0,
            subtopologies: Vec::new(),
        }))
    }

    #[test]
    fn an_assignment_is_stable_from_when_it_was_first_seen() {
        let mut history = GroupHistory::default();
        let mut at = |seconds: u64, described: &Result<_, _>| {
            history.describe(described, Now(seconds * 1000));
            history.steady.map(|steady| steady.since.0)
        };
        let (one, two) = (
            description(GroupState::Stable, &[0]),
            description(GroupState::Stable, &[0, 1]),
        );
        assert_eq!(at(1, &one), Some(1));
        assert_eq!(at(2, &one), Some(1));
        assert_eq!(at(3, &Err(Fault::NoAnswer)), Some(1));
        assert_eq!(at(4, &two), Some(4));
        assert_eq!(at(5, &description(GroupState::Rebalancing, &[0])), None);
        assert_eq!(at(6, &two), Some(6));
    }

    #[test]
    fn assigned_partitions_come_from_the_description() {
        let owned = Assignment::new(
            &description(GroupState::Stable, &[1, 7, -1]),
            &"t".into(),
            2,
        );
        assert_eq!(
            (owned.has(0), owned.has(1), owned.has(7)),
            (false, true, false)
        );
        assert!(owned.subscribed);
        let other = Assignment::new(&description(GroupState::Stable, &[1]), &"u".into(), 2);
        assert!(!other.has(1) && !other.subscribed);
        let unknown = Assignment::new(&Err(Fault::Unsupported), &"t".into(), 2);
        assert!(!unknown.has(1));
    }
}
