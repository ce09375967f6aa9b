//! The topics that a group reads, from its members' subscriptions and assignments or from memory.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::kafka::group::{GroupDescription, GroupKind};
use crate::model::units::newtypes::TopicName;

/// Topics that the members of a group read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The known topics.
    pub topics: BTreeSet<TopicName>,
    /// Whether `topics` is complete. It is not if a member does not report its subscription, as one that
    /// subscribes by pattern, or is not kept.
    pub is_all: bool,
}

impl Subscription {
    /// Union of the subscriptions and assignments of all members.
    #[must_use]
    pub fn of(description: &GroupDescription) -> Self {
        let mut reads = Self {
            topics: BTreeSet::new(),
            is_all: description.has_members() && description.omitted_members == 0,
        };
        for member in &description.members {
            let subscribed = member.subscribed.iter().flatten();
            reads.is_all &= subscribed.clone().next().is_some();
            let assigned = member.assigned.iter().map(|(topic, _)| topic);
            reads.topics.extend(subscribed.chain(assigned).cloned());
        }
        reads
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
    /// Topics that its members last read; `None` if unknown or more than [`REMEMBERED_TOPICS`].
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
            reads: if self.had_members {
                self.reads.clone()
            } else {
                earlier.reads.clone()
            },
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
            reads: if has_members {
                let names = reads.topics.iter().map(ToString::to_string);
                let fits = reads.is_all && reads.topics.len() <= REMEMBERED_TOPICS;
                fits.then(|| names.collect())
            } else {
                self.reads.clone()
            },
        }
    }
}

/// Maximum number of topics remembered per group, which bounds the saved state.
pub const REMEMBERED_TOPICS: usize = 64;
