//! What happened to a group's lag that a person should hear of, from two snapshots in a row.

use std::fmt;
use std::sync::Arc;

use crate::model::kafka::fault::Fault;
use crate::model::lag::PartitionLag;
use crate::model::lag::cluster_snapshot::{ClusterSnapshot, GroupSnapshot, GroupTopic, TopicLag};
use crate::model::units::newtypes::{GroupId, Lag, Partition, TopicName};

/// Something that began with the latest reading of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagEvent {
    /// The group.
    pub group: GroupId,
    /// The topic; `None` where it is about the whole group.
    pub topic: Option<TopicName>,
    /// What happened.
    pub kind: LagEventKind,
    /// The first partition of those where it did.
    pub first: Partition,
    /// On how many partitions it did.
    pub partitions: usize,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagEventKind {
    /// Retention overtook the group: so much is gone unread in all.
    Lost(Lag),
    /// The topic was recreated or truncated under the group's commits.
    Replaced,
    /// The group's commits vanished.
    Forgotten,
    /// Partitions do not get on.
    Stuck,
    /// No partition that is behind gets on.
    GroupStuck,
}

impl LagEventKind {
    /// The kind, for labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            LagEventKind::Lost(_) => "lost",
            LagEventKind::Replaced => "replaced",
            LagEventKind::Forgotten => "forgotten",
            LagEventKind::Stuck => "stuck",
            LagEventKind::GroupStuck => "group_stuck",
        }
    }

    fn of(lag: &Result<PartitionLag, Fault>) -> Option<Self> {
        match lag {
            Ok(PartitionLag::Lost(_)) => Some(LagEventKind::Lost(Lag(0))),
            Ok(PartitionLag::Forgotten(_)) => Some(LagEventKind::Forgotten),
            Ok(PartitionLag::Stuck { .. }) => Some(LagEventKind::Stuck),
            Err(Fault::LogReplaced | Fault::CommitBeyondEnd) => Some(LagEventKind::Replaced),
            _ => None,
        }
    }
}

impl fmt::Display for LagEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LagEventKind::Lost(lost) => {
                write!(f, "retention overtook the group: {lost} messages are gone unread")
            }
            LagEventKind::Replaced => f.write_str(
                "the topic was recreated or truncated: lag is unknown until the group commits again",
            ),
            LagEventKind::Forgotten => f.write_str(
                "the group's commits vanished: lag is measured from the last ones known",
            ),
            LagEventKind::Stuck => {
                f.write_str("the group gets no further here, while it does elsewhere or the log grows")
            }
            LagEventKind::GroupStuck => {
                f.write_str("the group gets no further on any partition that is behind")
            }
        }
    }
}

/// What began between two snapshots of a cluster.
#[must_use]
pub fn events(before: &ClusterSnapshot, after: &ClusterSnapshot) -> Vec<LagEvent> {
    let mut events = Vec::new();
    for (id, group) in &after.groups {
        let known = before.groups.get(id);
        if known.is_none_or(|known| !Arc::ptr_eq(known, group)) {
            of_group(id, known.map(|known| &**known), group, &mut events);
        }
    }
    events
}

fn of_group(
    id: &GroupId,
    before: Option<&GroupSnapshot>,
    after: &GroupSnapshot,
    events: &mut Vec<LagEvent>,
) {
    for (topic, read) in &after.topics {
        let Ok(lag) = &read.latest else {
            continue;
        };
        let known = before.and_then(|before| before.topics.get(topic));
        of_topic(id, topic, known, lag, events);
    }
    if after.stuck && before.is_none_or(|before| !before.stuck) {
        events.push(LagEvent {
            group: id.clone(),
            topic: None,
            kind: LagEventKind::GroupStuck,
            first: 0,
            partitions: 0,
        });
    }
}

fn of_topic(
    id: &GroupId,
    topic: &TopicName,
    before: Option<&GroupTopic>,
    after: &TopicLag,
    events: &mut Vec<LagEvent>,
) {
    let first_of_topic = events.len();
    for (index, lag) in after.lags.iter().enumerate() {
        let Some(mut kind) = LagEventKind::of(lag) else {
            continue;
        };
        // A reading without an answer for the partition says nothing of what was before it.
        let was = |lag: &TopicLag| LagEventKind::of(lag.lags.get(index)?);
        let latest = before.and_then(|before| before.latest.as_ref().ok());
        let complete = before.and_then(|before| before.complete.as_ref());
        let is_answered = latest.is_some_and(|latest| {
            let lag = latest.lags.get(index);
            was(latest).is_some() || lag.is_some_and(|lag| lag.is_ok())
        });
        let known = if is_answered { latest } else { complete };
        if known.and_then(|known| was(known)) == Some(kind) {
            continue;
        }
        let lost = after.lost(index).unwrap_or_default();
        let of_topic = events.get_mut(first_of_topic..).unwrap_or_default();
        let same = of_topic.iter_mut().find(|e| e.kind.label() == kind.label());
        if let Some(event) = same {
            event.partitions = event.partitions.saturating_add(1);
            if let LagEventKind::Lost(sum) = &mut event.kind {
                *sum = sum.plus(lost);
            }
            continue;
        }
        if let LagEventKind::Lost(sum) = &mut kind {
            *sum = lost;
        }
        events.push(LagEvent {
            group: id.clone(),
            topic: Some(topic.clone()),
            kind,
            first: Partition::try_from(index).unwrap_or(Partition::MAX),
            partitions: 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::fixtures;
    use crate::model::lag::assembly::{ClusterHistory, Scope};

    #[test]
    fn what_begins_is_told_once_and_again_when_it_begins_again() {
        let mut history = ClusterHistory::default();
        let mut before = Arc::default();
        let mut told = |seconds, rows: &[fixtures::Row]| {
            let read = fixtures::read(Duration::from_secs(seconds), "g", "t", rows);
            let after = history.apply(read, Scope::Whole);
            let found = events(&before, &after);
            before = after;
            let one = |e: &LagEvent| (e.kind, e.first, e.partitions);
            found.iter().map(one).collect::<Vec<_>>()
        };
        let lost = |n| LagEventKind::Lost(Lag(n));
        let rows = |at, commit: Option<i64>| [(at, Ok(Some(5)), Ok(50)), (at, Ok(commit), Ok(50))];
        assert_eq!(told(0, &rows(0, Some(9))), []);
        assert_eq!(told(5, &rows(20, Some(9))), [(lost(26), 0, 2)]);
        assert_eq!(told(10, &rows(20, Some(9))), []);
        assert_eq!(told(15, &rows(20, None)), [(LagEventKind::Forgotten, 1, 1)]);
        let unknown = (0, Ok(Some(5)), Err(Fault::LeaderUnknown));
        assert_eq!(told(20, &[unknown, rows(20, None)[1]]), []);
        let replaced = (LagEventKind::Replaced, 1, 1);
        assert_eq!(told(25, &rows(20, Some(60))), [replaced]);
        assert_eq!(told(30, &rows(20, Some(60))), []);
    }
}
