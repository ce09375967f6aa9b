//! The topics that a group reads, from its members' subscriptions and assignments or from memory.

use std::cell::LazyCell;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::kafka::topic_listing::TopicListing;
use crate::model::units::newtypes::TopicName;

/// Topics that the members of a group read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The known topics.
    pub topics: BTreeSet<TopicName>,
    /// Whether `topics` is complete. It is not if a member is not kept, or if one does not report its
    /// subscription and the assignments do not show it either.
    pub is_all: bool,
}

impl Subscription {
    /// Union of the subscriptions and assignments of all members.
    ///
    /// With the consumer protocol a member may subscribe by a pattern that only the broker evaluates
    /// (KIP-848), and then reports no topics. But the broker assigns every partition of every topic that
    /// matches, so the assignments of all members together show what such members read.
    #[must_use]
    pub fn of(description: &GroupDescription) -> Self {
        let is_whole = description.omitted_members == 0;
        let mut topics = BTreeSet::new();
        let mut all_report = description.has_members();
        let mut pattern_is_assigned = false;
        for member in &description.members {
            let subscribed = member.subscribed.iter().flatten();
            let assigned = member.assigned.iter().map(|(topic, _)| topic);
            if subscribed.clone().next().is_none() {
                all_report = false;
                pattern_is_assigned |= !member.assigned.is_empty();
            }
            topics.extend(subscribed.chain(assigned).cloned());
        }
        let shows_patterns = description.kind == GroupKind::Consumer && pattern_is_assigned;
        Self {
            topics,
            is_all: is_whole && (all_report || shows_patterns),
        }
    }
}

/// Returns the topics of a reading that do not count for the group, sorted. `topics` has whether the group has commits
/// on each. Calls `subscription` only if it matters.
///
/// A topic that a target names counts. One that only requests name counts as if no request named it. Of the topics found
/// by discovery, one with commits does not count once the subscription is completely known and lacks it. A requested
/// topic without commits counts only if the subscription or the listing has it.
pub(super) fn uncounted_topics<'a>(
    plan: &GroupPlan,
    topics: impl Iterator<Item = (&'a TopicName, bool)>,
    listing: Option<&TopicListing>,
    subscription: impl FnOnce() -> Subscription,
) -> Box<[TopicName]> {
    let reads = LazyCell::new(subscription);
    let counts = |topic: &TopicName, has_commits: bool| {
        let is_requested = plan.requested.contains(topic);
        if !is_requested && (!plan.discover || plan.topics.contains(topic)) {
            return true;
        }
        if !plan.discover {
            return false;
        }
        if has_commits {
            return !reads.is_all || reads.topics.contains(topic);
        }
        let is_listed = || listing.is_some_and(|listing| listing.topics().contains(topic));
        !is_requested || is_listed() || reads.topics.contains(topic)
    };
    let uncounted = topics.filter(|(topic, has_commits)| !counts(topic, *has_commits));
    let mut uncounted: Vec<TopicName> = uncounted.map(|(topic, _)| topic.clone()).collect();
    uncounted.sort_unstable();
    uncounted.into()
}

/// Facts about a group that an empty group does not report; kept while it has no members and across
/// restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RememberedGroup {
    /// Group protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<GroupKind>,
    /// Last known assignor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,
    /// Whether it ever had a member.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub had_members: bool,
    /// Listed topics that its members were then seen not to read.
    #[serde(skip_serializing_if = "IgnoredTopics::is_none")]
    pub ignored: IgnoredTopics,
    /// Topics that its members were last known to read, and those with commits of the group since;
    /// `None` if unknown or more than [`MAX_REMEMBERED_TOPICS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<BTreeSet<String>>,
}

impl RememberedGroup {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Fills unknown facts from `earlier`.
    #[must_use]
    pub fn or(&self, earlier: &Self) -> Self {
        Self {
            kind: self.kind.or(earlier.kind),
            assignor: self.assignor.clone().or_else(|| earlier.assignor.clone()),
            had_members: self.had_members || earlier.had_members,
            ignored: self.ignored.clone().or(&earlier.ignored),
            reads: self.reads.clone().or_else(|| earlier.reads.clone()),
        }
    }

    /// Updates the facts from a description.
    #[must_use]
    pub fn after(&self, description: &GroupDescription) -> Self {
        let has_members = description.has_members();
        let assignor = description.assignor.as_deref();
        let reads = Subscription::of(description);
        Self {
            kind: Some(description.kind),
            assignor: assignor
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .or_else(|| self.assignor.clone()),
            had_members: self.had_members || has_members,
            ignored: self.ignored.clone(),
            reads: if !has_members {
                self.reads.clone()
            } else if reads.is_all {
                bounded(reads.topics.iter().map(ToString::to_string).collect())
            } else if description.state == GroupState::Rebalancing {
                // During that time the broker does not report what members subscribe to.
                self.with_topics(reads.topics.iter())
            } else {
                None
            },
        }
    }

    /// The topics that are read, with some more; `None` if they are unknown or too many.
    #[must_use]
    pub fn with_topics<'a>(
        &self,
        more: impl Iterator<Item = &'a TopicName>,
    ) -> Option<BTreeSet<String>> {
        let mut reads = self.reads.clone()?;
        reads.extend(more.map(ToString::to_string));
        bounded(reads)
    }
}

/// Topics that match a pattern set for a group, and that its members do not read all the same. Without this memory they
/// would wake a sleeping group again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoredTopics {
    Some(BTreeSet<String>),
    /// More than [`MAX_REMEMBERED_TOPICS`]: the pattern does not show which of them the members read.
    All,
}

impl Default for IgnoredTopics {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl IgnoredTopics {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn or(self, earlier: &Self) -> Self {
        match self.is_none() {
            true => earlier.clone(),
            false => self,
        }
    }
}

impl RememberedGroup {
    /// Whether a topic is known not to be read by members, though it matches a pattern.
    #[must_use]
    pub fn ignores(&self, topic: &TopicName) -> bool {
        match &self.ignored {
            IgnoredTopics::Some(topics) => topics.contains(topic.as_str()),
            IgnoredTopics::All => true,
        }
    }

    /// Whether any topic is known not to be read by members, though it matches a pattern.
    #[must_use]
    pub fn ignores_any(&self) -> bool {
        !self.ignored.is_none()
    }

    /// Topics that are ignored once the broker reports a subscription: of the topics `listed`, and of those ignored
    /// before, what they do not read.
    #[must_use]
    pub fn ignored_after<'a>(
        &'a self,
        listed: impl Iterator<Item = &'a TopicName>,
        reads: &BTreeSet<TopicName>,
    ) -> IgnoredTopics {
        let mut listed = listed.map(TopicName::as_str).peekable();
        let before = match &self.ignored {
            IgnoredTopics::Some(topics) => Some(topics),
            IgnoredTopics::All if listed.peek().is_none() => return IgnoredTopics::All,
            // The current listing has all of them, and there may be fewer now.
            IgnoredTopics::All => None,
        };
        let all = before
            .into_iter()
            .flatten()
            .map(String::as_str)
            .chain(listed);
        let ignored = all.filter(|topic| !reads.contains(*topic));
        let ignored = ignored.map(str::to_owned).collect();
        bounded(ignored).map_or(IgnoredTopics::All, IgnoredTopics::Some)
    }
}

fn bounded(topics: BTreeSet<String>) -> Option<BTreeSet<String>> {
    (topics.len() <= MAX_REMEMBERED_TOPICS).then_some(topics)
}

/// Maximum number of topics remembered per group, which bounds the saved state.
pub const MAX_REMEMBERED_TOPICS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(range: std::ops::Range<usize>) -> BTreeSet<TopicName> {
        range.map(|i| format!("t{i}").as_str().into()).collect()
    }

    #[test]
    fn topics_that_members_do_not_read_are_ignored_until_they_do() {
        let mut group = RememberedGroup::default();
        let (old, new) = (TopicName::from("t0"), TopicName::from("t1"));
        let mut after = |listed: std::ops::Range<usize>, reads: std::ops::Range<usize>| {
            group.ignored = group.ignored_after(topics(listed).iter(), &topics(reads));
            (group.ignores(&old), group.ignores(&new))
        };
        assert_eq!(after(0..2, 0..1), (false, true));
        assert_eq!(after(0..0, 5..9), (false, true));
        assert_eq!(after(0..0, 1..2), (false, false));
        // Too many to remember: none is expected to be read, until they are few.
        assert_eq!(after(1..1 + MAX_REMEMBERED_TOPICS + 1, 0..1), (true, true));
        assert_eq!(after(0..0, 0..1), (true, true));
        assert_eq!(after(0..2, 0..1), (false, true));
    }
}
