//! What a group reads: its members' subscriptions and assignments, or what is remembered of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cluster_snapshot::GroupSnapshot;
use crate::model::kafka::group::{GroupDescription, GroupKind};
use crate::model::units::newtypes::TopicName;

/// The topics that a group's members read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Those that are known.
    pub topics: BTreeSet<TopicName>,
    /// Whether these are all; not so where a member does not tell its subscription, as one that
    /// subscribes by a pattern.
    pub is_all: bool,
}

impl Subscription {
    /// What the members subscribe to and have been given.
    #[must_use]
    pub fn of(description: &GroupDescription) -> Self {
        let mut reads = Self {
            topics: BTreeSet::new(),
            is_all: !description.members.is_empty(),
        };
        for member in &description.members {
            let subscribed = member.subscribed.iter().flatten();
            reads.is_all &= subscribed.clone().next().is_some();
            let assigned = member.assigned.iter().map(|(topic, _)| topic);
            reads.topics.extend(subscribed.chain(assigned).cloned());
        }
        reads
    }

    /// What a group's members read, or read when there were some.
    #[must_use]
    pub fn of_group(group: &GroupSnapshot) -> Self {
        match (&group.description, &group.remembered.reads) {
            (Some(description), _) if !description.members.is_empty() => Self::of(description),
            (_, Some(reads)) => Self {
                topics: reads.iter().map(|t| TopicName::from(t.as_str())).collect(),
                is_all: true,
            },
            (_, None) => Self::default(),
        }
    }
}

/// What is remembered of a group over the time in which it has no members, and over restarts: an
/// empty group tells neither its assignor nor what it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RememberedGroup {
    /// Its members' protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<GroupKind>,
    /// The last assignor seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,
    /// Whether it was ever seen with a member.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub had_members: bool,
    /// The topics that its members were last seen to read; `None` where none was seen or told, or
    /// there were more than [`REMEMBERED_TOPICS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<BTreeSet<String>>,
}

impl RememberedGroup {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// This, and for what it leaves open what was known `earlier`.
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

    /// What is remembered after the group was described so.
    #[must_use]
    pub fn after(&self, description: &GroupDescription) -> Self {
        let has_members = !description.members.is_empty();
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

/// Topics remembered of one group at most: what is kept over restarts is bounded.
pub const REMEMBERED_TOPICS: usize = 64;
