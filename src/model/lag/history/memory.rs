//! Saved form of the history. Without it, after a restart a stuck partition would look healthy and a
//! committed offset that has disappeared would be unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::clock::{Now, Stamp};
use super::group::{GroupHistory, Steady};
use super::log::{LogHistory, LogPartition};
use super::partition::{PartitionState, PartitionStateKind};
use super::saved_policy::SavedPolicy;
use crate::model::lag::subscription::RememberedGroup;
use crate::model::units::newtypes::{ClusterName, Lag, Offset, TopicId};

/// Version of the saved form: the one this build writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Saved history of all clusters. Times are in seconds before `saved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHistory {
    /// Version of the form.
    pub version: u32,
    /// When it was saved, in seconds since 1970.
    pub saved: u32,
    /// By cluster.
    pub clusters: BTreeMap<String, SavedCluster>,
}

/// Saved history of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCluster {
    /// The logs of the topics that the groups read.
    pub topics: BTreeMap<String, SavedTopic>,
    pub groups: BTreeMap<String, SavedGroup>,
    /// The policies and holds of targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<SavedPolicy>,
}

/// Saved history of one topic's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTopic {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Log-end offset by partition; -1 if unknown.
    ends: Vec<i64>,
    moved: Vec<u32>,
}

/// Saved history of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGroup {
    #[serde(flatten)]
    remembered: RememberedGroup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_move: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steady: Option<(u64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    empty: Option<u32>,
    topics: BTreeMap<String, SavedPositions>,
}

/// Saved state of a group on one topic, by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedPositions {
    /// Kinds of the offsets; empty if all are committed offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<u8>,
    offsets: Vec<i64>,
    since: Vec<u32>,
    /// Residual messages beyond the offsets; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    residues: Vec<u16>,
}

impl Default for SavedHistory {
    fn default() -> Self {
        Self {
            version: VERSION,
            saved: 0,
            clusters: BTreeMap::new(),
        }
    }
}

impl SavedHistory {
    /// Groups in the order in which they are dropped when the state is too large. Groups whose committed
    /// offsets moved recently come first, because they are quickly learned again; groups whose committed
    /// offsets have disappeared come last, because nothing else knows them. A group with a policy, which learns for
    /// hours, is worth as much as one that has not moved for long. Among equals the larger ones come first, with all of
    /// their policies, because users who may write HPAs decide how many policies there are.
    #[must_use]
    pub fn least_important_first(&self) -> Vec<(ClusterName, String)> {
        let mut groups: Vec<_> = self
            .clusters
            .iter()
            .flat_map(|(cluster, known)| {
                let mut policies: BTreeMap<&str, usize> = BTreeMap::new();
                for policy in &known.policies {
                    let count = policies.entry(policy.group.as_str()).or_default();
                    *count = count.saturating_add(POLICY_PARTITIONS);
                }
                known.groups.iter().map(move |(name, group)| {
                    let of_policies = policies.get(name.as_str()).copied();
                    let least = u8::from(of_policies.is_some());
                    let partitions = group.partitions();
                    let size = partitions.saturating_add(of_policies.unwrap_or_default());
                    let room = usize::MAX.saturating_sub(size);
                    (group.importance().max(least), room, cluster, name)
                })
            })
            .collect();
        groups.sort_unstable();
        groups
            .into_iter()
            .map(|(_, _, cluster, group)| (cluster.as_str().into(), group.clone()))
            .collect()
    }

    /// Drops the policies of groups of which nothing else is saved. [`drop_groups`](Self::drop_groups) does not reach
    /// them.
    pub fn drop_policies_without_group(&mut self) {
        for known in self.clusters.values_mut() {
            let SavedCluster {
                groups, policies, ..
            } = known;
            policies.retain(|policy| groups.contains_key(&policy.group));
        }
    }

    /// Drops groups with their policies, and the topics that only they read.
    pub fn drop_groups(&mut self, groups: &BTreeMap<ClusterName, BTreeSet<String>>) {
        for (cluster, names) in groups {
            if let Some(known) = self.clusters.get_mut(cluster.as_str()) {
                known.drop_groups(names);
            }
        }
    }
}

impl SavedCluster {
    fn drop_groups(&mut self, names: &BTreeSet<String>) {
        let dropped: Vec<_> = names
            .iter()
            .filter_map(|name| self.groups.remove(name))
            .collect();
        self.policies
            .retain(|policy| !names.contains(&policy.group));
        let left: BTreeSet<_> = topics_of(self.groups.values()).collect();
        for topic in topics_of(&dropped) {
            if !left.contains(topic) {
                self.topics.remove(topic);
            }
        }
    }
}

/// The topics that groups read.
fn topics_of<'g>(
    groups: impl IntoIterator<Item = &'g SavedGroup>,
) -> impl Iterator<Item = &'g str> {
    let topics = groups.into_iter().flat_map(|group| group.topics.keys());
    topics.map(String::as_str)
}

/// How many partitions take as much room as a policy.
const POLICY_PARTITIONS: usize = 16;

/// Seconds without a commit after which a group is worth more than one that commits.
const IDLE_SECONDS: u32 = 120;

impl SavedGroup {
    fn partitions(&self) -> usize {
        let counts = self.topics.values().map(|topic| topic.offsets.len());
        counts.fold(0, usize::saturating_add)
    }

    /// 2 if Kafka does not report some of the state, 1 if a partition has not moved for [`IDLE_SECONDS`], else 0.
    fn importance(&self) -> u8 {
        let mut importance = 0;
        for topic in self.topics.values() {
            if !topic.kinds.is_empty() || !topic.residues.is_empty() {
                return 2;
            }
            if topic.since.iter().any(|since| *since >= IDLE_SECONDS) {
                importance = 1;
            }
        }
        importance
    }
}

fn ago(stamp: Stamp, saved: Stamp) -> u32 {
    saved.0.saturating_sub(stamp.0)
}

/// The point `ago` seconds before `saved`, but never in the future, should the clock have been set back.
fn back(ago: u32, saved: u32, now: Now) -> Stamp {
    Stamp(saved.saturating_sub(ago)).min(now.into())
}

fn code(kind: PartitionStateKind) -> u8 {
    let index = PartitionStateKind::ALL
        .iter()
        .position(|known| *known == kind);
    index.and_then(|i| u8::try_from(i).ok()).unwrap_or(0)
}

fn kind(code: u8) -> PartitionStateKind {
    let known = PartitionStateKind::ALL.get(usize::from(code));
    known.copied().unwrap_or_default()
}

impl SavedTopic {
    pub(in crate::model) fn of(log: &LogHistory, saved: Stamp) -> Self {
        let end = |log: &LogPartition| log.end().map_or(-1, |end| end.0);
        Self {
            id: log.id.map(|id| hex(&id)),
            ends: log.partitions.iter().map(end).collect(),
            moved: log.partitions.iter().map(|p| ago(p.moved, saved)).collect(),
        }
    }

    pub(in crate::model) fn restore(&self, saved: u32, now: Now) -> LogHistory {
        let partition = |(end, moved): (&i64, &u32)| match end {
            0.. => LogPartition::restored(Offset(*end), back(*moved, saved, now)),
            _ => LogPartition::default(),
        };
        let partitions = self.ends.iter().zip(&self.moved).map(partition);
        let id = self.id.as_deref().and_then(unhex);
        LogHistory::restored(id, partitions.collect())
    }
}

impl SavedGroup {
    pub(in crate::model) fn of(group: &GroupHistory, saved: Stamp) -> Self {
        let steady = |steady: Steady| (steady.fingerprint, ago(steady.since, saved));
        let topics = group.topics.iter().map(|(topic, states)| {
            let all_commits = states
                .iter()
                .all(|s| s.kind() == PartitionStateKind::Committed);
            let kinds = states.iter().map(|s| code(s.kind()));
            let memory = SavedPositions {
                kinds: if all_commits {
                    Vec::new()
                } else {
                    kinds.collect()
                },
                offsets: states.iter().map(|s| s.offset().0).collect(),
                since: states.iter().map(|s| ago(s.since(), saved)).collect(),
                residues: if states.iter().all(|s| s.residue() == Lag(0)) {
                    Vec::new()
                } else {
                    let residues = states.iter().map(|s| u16::try_from(s.residue().0));
                    residues.map(Result::unwrap_or_default).collect()
                },
            };
            (topic.as_str().to_owned(), memory)
        });
        Self {
            remembered: RememberedGroup::clone(&group.remembered),
            last_move: group.last_move.map(|moved| ago(moved, saved)),
            steady: group.steady.map(steady),
            empty: group.empty.map(|since| ago(since, saved)),
            topics: topics.collect(),
        }
    }

    pub(in crate::model) fn restore(&self, saved: u32, now: Now) -> GroupHistory {
        let topics = self.topics.iter().map(|(topic, memory)| {
            let kinds = memory.kinds.iter().copied().map(kind);
            let kinds = kinds.chain(std::iter::repeat(if memory.kinds.is_empty() {
                PartitionStateKind::Committed
            } else {
                PartitionStateKind::Unseen
            }));
            let residues = memory.residues.iter().copied().chain(std::iter::repeat(0));
            let offsets = memory.offsets.iter().zip(&memory.since);
            let states = offsets.zip(kinds).zip(residues);
            let states = states.map(|(((offset, since), kind), residue)| {
                PartitionState::restored(kind, Offset(*offset), back(*since, saved, now))
                    .with_residue(residue)
            });
            (topic.as_str().into(), states.collect())
        });
        GroupHistory {
            requested_at: now.into(),
            last_move: self.last_move.map(|moved| back(moved, saved, now)),
            rebalances: 0,
            steady: self.steady.map(|(fingerprint, since)| Steady {
                fingerprint,
                since: back(since, saved, now),
            }),
            empty: self.empty.map(|since| back(since, saved, now)),
            listed: None,
            unseen: None,
            remembered: self.remembered.clone().into(),
            learned: None,
            topics: topics.collect(),
        }
    }
}

fn hex(id: &TopicId) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let digits = id.0.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]);
    digits.collect()
}

fn unhex(text: &str) -> Option<TopicId> {
    let number = (text.len() == 32)
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()?;
    Some(TopicId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_survive_a_round_trip() {
        let id = TopicId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xfe, 13, 14, 0xff]);
        assert_eq!(unhex(&hex(&id)), Some(id));
        assert_eq!(unhex("12"), None);
        assert_eq!(unhex(&"x".repeat(32)), None);
    }

    fn group(kinds: &[u8], since: u32, partitions: usize) -> SavedGroup {
        let positions = SavedPositions {
            kinds: kinds.to_vec(),
            offsets: vec![5; partitions],
            since: vec![since; partitions],
            residues: Vec::new(),
        };
        SavedGroup {
            topics: [("t".to_owned(), positions)].into(),
            ..SavedGroup::default()
        }
    }

    #[test]
    fn groups_whose_state_kafka_reports_again_are_dropped_first() {
        let groups = [
            ("moves", group(&[], 3, 1)),
            ("moves, large", group(&[], 3, 9)),
            ("policy", group(&[], 3, 8)),
            ("forgotten", group(&[5], 3, 1)),
            ("still", group(&[], 3600, 1)),
        ];
        let mut memory = SavedHistory::default();
        let cluster = SavedCluster {
            topics: [("t".to_owned(), SavedTopic::default())].into(),
            groups: groups.map(|(name, g)| (name.to_owned(), g)).into(),
            policies: vec![SavedPolicy {
                group: "policy".to_owned(),
                ..SavedPolicy::default()
            }],
        };
        memory.clusters.insert("main".to_owned(), cluster);
        let order = memory.least_important_first();
        let names: Vec<_> = order.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(
            names,
            ["moves, large", "moves", "policy", "still", "forgotten"]
        );
        for (cluster, group) in &order {
            assert!(memory.clusters["main"].topics.contains_key("t"));
            memory.drop_groups(&[(cluster.clone(), [group.clone()].into())].into());
        }
        assert_eq!(memory.clusters["main"], SavedCluster::default());
    }

    #[test]
    fn a_group_with_many_policies_is_dropped_before_one_with_more_partitions() {
        let policies = |group: &str, count: usize| {
            let policy = SavedPolicy {
                group: group.to_owned(),
                ..SavedPolicy::default()
            };
            vec![policy; count]
        };
        let cluster = SavedCluster {
            groups: [("many", 1), ("few", 30), ("one", 40)]
                .map(|(name, partitions)| (name.to_owned(), group(&[], 3, partitions)))
                .into(),
            policies: [policies("many", 4), policies("few", 3), policies("one", 1)].concat(),
            ..SavedCluster::default()
        };
        let memory = SavedHistory {
            clusters: [("main".to_owned(), cluster)].into(),
            ..SavedHistory::default()
        };
        let order = memory.least_important_first();
        let names: Vec<_> = order.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["few", "many", "one"]);
    }

    #[test]
    fn a_clock_set_back_puts_no_time_into_the_future() {
        assert_eq!(back(10, 1000, Now(500_000)), Stamp(500));
        assert_eq!(back(10, 1000, Now(2_000_000)), Stamp(990));
        assert_eq!(back(u32::MAX, 1000, Now(2_000_000)), Stamp(0));
    }
}
