//! The topics that a group reads, from its members' subscriptions and assignments or from memory.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
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
    /// Topics that its members were last known to read, and those with commits of the group since;
    /// `None` if unknown or more than [`REMEMBERED_TOPICS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<BTreeSet<String>>,
}

impl RememberedGroup {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Fills what is unknown here from `earlier`.
    #[must_use]
    pub fn or(&self, earlier: &Self) -> Self {
        Self {
            kind: self.kind.or(earlier.kind),
            assignor: self.assignor.clone().or_else(|| earlier.assignor.clone()),
            had_members: self.had_members || earlier.had_members,
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
            reads: if !has_members {
                self.reads.clone()
            } else if reads.is_all {
                bounded(reads.topics.iter().map(ToString::to_string).collect())
            } else if description.state == GroupState::Rebalancing {
                // Meanwhile the broker does not report what members subscribe to.
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

fn bounded(topics: BTreeSet<String>) -> Option<BTreeSet<String>> {
    (topics.len() <= REMEMBERED_TOPICS).then_some(topics)
}

/// Maximum number of topics remembered per group, which bounds the saved state.
pub const REMEMBERED_TOPICS: usize = 64;
